//! The thread that starts, watches and ends processes: the only one that does.
//!
//! A job's attempt is over when its first process has exited and none of its others is left; only then is what it had
//! reserved given back.

use super::admission::Place;
use super::machine::{Machine, RunningPart, seconds};
use super::mounts::{PAYLOAD, View};
use super::ports;
use super::process::{self, Exit, Launch, Leader};
use super::store::{Change, End, EndStatus, Ending, Header, Record};
use super::table::{END_NOT_WRITTEN, Entry, STOPPED, after_attempt, read_attempt};
use super::work;
use crate::backend::RESULT_VARIABLE;
use crate::config::JobComponent;
use crate::job::{JobName, signal_name};
use crate::sync::Turn;
use rustix::process::{Pid, Signal};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// What the supervisor has to look at.
#[derive(Debug)]
pub enum Event {
    /// A job is about to be started, if it can be written down: what it needs on disk can be made.
    Prepare {
        part: usize,
        name: JobName,
        payload: Option<Vec<u8>>,
    },
    /// It could not be written down, or nobody knows whether it could; or its record could not be
    /// removed.
    NotCreated {
        part: usize,
        name: JobName,
        in_doubt: bool,
    },
    /// A change of a job could not be written down, and nobody knows whether it was.
    Undo { part: usize, name: JobName },
    /// A job whose attempt is marked as begun is to be started.
    Start(JobName),
    /// A job that runs is to be ended.
    End(JobName, Cause),
    /// A job came to wait, or one that waited went.
    QueueChanged,
    /// A child may have exited.
    Child,
    /// Nothing is to be started any more, and what runs is to be ended.
    ShutDown,
    /// What is being ended is to be killed now.
    KillAll,
}

/// Why a job is ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    TimeLimit,
    Stopped,
    Deleted,
    ShutDown,
    /// There is less than it needs; the message says how much.
    NeverFits(String),
}

/// An attempt that is over, or a job, and whose end is not written down yet.
pub struct Over {
    pub name: JobName,
    pub part: usize,
    /// How the attempt ended, unless that is written down.
    pub ending: Option<Ending>,
    pub cause: Option<Cause>,
}

impl Over {
    /// What is to be written down, and how long after that the job is tried again.
    pub fn changes(&self, record: &Record, moment: u64) -> (Vec<Change>, Option<Duration>) {
        let mut changes: Vec<Change> = self.ending.iter().cloned().map(Change::Ended).collect();
        let mut record = record.clone();
        changes.iter().for_each(|change| record.apply(change));
        let end = |status, message: &str| End::new(moment, status, message.to_string());
        let end = match &self.cause {
            _ if record.stop_asked => end(EndStatus::Stopped, ""),
            Some(Cause::Stopped) => end(EndStatus::Stopped, ""),
            Some(Cause::ShutDown) => end(EndStatus::Failed, ""),
            Some(Cause::NeverFits(message)) => end(EndStatus::Failed, message),
            Some(Cause::TimeLimit | Cause::Deleted) | None => match after_attempt(&record) {
                Ok(status) => end(status, ""),
                Err(delay) => return (changes, Some(delay)),
            },
        };
        changes.push(Change::Finished(end));
        (changes, None)
    }
}

/// An attempt that runs, or whose processes are not all gone.
struct Live {
    part: usize,
    /// From 1.
    attempt: usize,
    leader: Leader,
    /// The job's folder and log, by which its processes are known.
    folder: PathBuf,
    log: PathBuf,
    time_limit: Instant,
    ending: Option<Cause>,
    kill_at: Option<Instant>,
    /// How the first process ended.
    exit: Option<Exit>,
}

/// Waiting jobs are told their new places no more often than this.
const REFRESH_EVERY: Duration = Duration::from_millis(200);
/// After so many jobs the observers are told all, so that they need not remember each that is gone.
const RELIST_EVERY: u32 = 500;
/// After a failed write no job of the queue is started, or no such write tried again, for so long.
const PAUSE: Duration = Duration::from_secs(1);

pub struct Supervisor {
    machine: Arc<Machine>,
    events: Receiver<Event>,
    live: BTreeMap<JobName, Live>,
    /// Jobs whose first attempt has what it needs on disk.
    prepared: HashSet<JobName>,
    /// Attempts that are over and not told of yet. What they had reserved is used first.
    over: Vec<Over>,
    /// Jobs whose attempt is marked as begun, and for which there was no room on the disk.
    unstarted: BTreeSet<JobName>,
    /// Jobs that were refused or deleted, and of which a record may be there.
    in_doubt: BTreeSet<(usize, JobName)>,
    /// Jobs of whose record a change is to be cut off.
    to_undo: BTreeSet<(usize, JobName)>,
    /// What of the disk keeps the jobs of the queue from being started, if anything does.
    held: Option<Arc<str>>,
    /// Jobs that are tried again, by when, and after how many attempts.
    retries: BTreeSet<(Instant, JobName, usize)>,
    /// When the waiting jobs' places are to be told.
    refresh_at: Option<Instant>,
    refreshed: Instant,
    refresh_every: Duration,
    /// When the queue goes on, after a job of it could not be marked as begun.
    paused_until: Option<Instant>,
    /// When what could not be started, or is in doubt, is tried again.
    write_again_at: Option<Instant>,
    /// The same of ends that could not be written down.
    settle_again_at: Option<Instant>,
    jobs_since_relist: u32,
    /// Whether there may be something to collect.
    child_ended: bool,
    closing: bool,
}

impl Supervisor {
    pub(super) fn new(machine: Arc<Machine>, events: Receiver<Event>) -> Supervisor {
        let refreshed = machine.clock.instant();
        let over = std::mem::take(&mut *machine.recovered.lock());
        Supervisor {
            machine,
            events,
            live: BTreeMap::new(),
            prepared: HashSet::new(),
            over,
            unstarted: BTreeSet::new(),
            in_doubt: BTreeSet::new(),
            to_undo: BTreeSet::new(),
            held: None,
            retries: BTreeSet::new(),
            refresh_at: Some(refreshed),
            refreshed,
            refresh_every: REFRESH_EVERY,
            paused_until: None,
            write_again_at: None,
            settle_again_at: None,
            jobs_since_relist: 0,
            child_ended: false,
            closing: false,
        }
    }

    /// Until it is shut down and the last process is gone.
    pub fn run(mut self) {
        while !self.is_over() {
            let event = match self.next_timer() {
                None => self.events.recv().ok(),
                Some(at) => {
                    let wait = at.saturating_duration_since(self.now());
                    match self.events.recv_timeout(wait) {
                        Ok(event) => Some(event),
                        Err(RecvTimeoutError::Timeout) => None,
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            };
            if let Some(event) = event {
                self.handle(event);
            }
            self.pass();
        }
    }

    /// Whether it is shut down, and the last process is gone.
    pub fn is_over(&self) -> bool {
        self.closing && self.live.is_empty()
    }

    /// Does all that there is to do at this moment.
    pub fn pass(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.handle(event);
        }
        if std::mem::take(&mut self.child_ended) {
            self.collect();
        }
        self.end_what_is_late();
        self.retry_what_is_due();
        let now = self.now();
        if self.write_again_at.take_if(|at| *at <= now).is_some() {
            self.write_again();
        }
        self.paused_until.take_if(|until| *until <= now);
        self.settle_again_at.take_if(|at| *at <= now);
        self.start_waiting();
        self.settle();
        self.tell_places();
    }

    fn now(&self) -> Instant {
        self.machine.clock.instant()
    }

    /// When there is something to do, if nothing else happens before.
    pub fn next_timer(&self) -> Option<Instant> {
        let alive = self.live.values().filter(|live| live.exit.is_none());
        let of_live = alive.filter_map(|live| match &live.ending {
            None => Some(live.time_limit),
            Some(_) => live.kill_at,
        });
        of_live
            .chain(self.retries.first().map(|(at, ..)| *at))
            .chain(self.refresh_at)
            .chain(self.paused_until)
            .chain(self.write_again_at)
            .chain(self.settle_again_at)
            .min()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Prepare {
                part,
                name,
                payload,
            } => {
                // What fails now fails again, and is reported, when it is started.
                if let Some(part) = self.machine.parts.get(part)
                    && prepare(part, &name, 1, payload.as_deref()).is_ok()
                {
                    self.prepared.insert(name);
                }
            }
            Event::NotCreated {
                part,
                name,
                in_doubt,
            } => {
                // A name that is taken has a folder that is not this job's.
                self.prepared.remove(&name);
                let known = self.machine.table.lock().jobs.contains_key(&name);
                if let Some(part) = self.machine.parts.get(part).filter(|_| !known) {
                    let _ = part.store.clear(&name, 0);
                }
                if in_doubt {
                    self.in_doubt.insert((part, name));
                    self.write_later();
                }
                self.queue_changed();
            }
            Event::Undo { part, name } => {
                self.to_undo.insert((part, name));
                self.write_later();
            }
            Event::Start(name) => self.launch(&name),
            Event::End(name, cause) => self.end(&name, cause),
            Event::QueueChanged => {
                self.jobs_since_relist += 1;
                self.queue_changed();
            }
            Event::Child => self.child_ended = true,
            Event::ShutDown => {
                self.closing = true;
                let running: Vec<JobName> = self.live.keys().cloned().collect();
                for name in running {
                    self.end(&name, Cause::ShutDown);
                }
                for name in std::mem::take(&mut self.unstarted) {
                    self.launch(&name);
                }
            }
            Event::KillAll => {
                let now = self.now();
                for live in self.live.values_mut() {
                    live.kill_at = Some(now);
                }
            }
        }
    }

    fn queue_changed(&mut self) {
        let next = (self.refreshed + self.refresh_every).max(self.now());
        self.refresh_at.get_or_insert(next);
    }

    /// Begins to end a job: its group gets SIGTERM now and SIGKILL later.
    fn end(&mut self, name: &JobName, cause: Cause) {
        let kill_at = self.now() + self.machine.grace;
        let Some(live) = self.live.get_mut(name) else {
            if self.unstarted.remove(name) {
                self.launch(name);
            }
            return;
        };
        if live.ending.is_none() {
            self.machine
                .processes
                .signal_group(live.leader.pid, Signal::TERM);
            // One that is stopped (SIGSTOP) would not see it.
            self.machine
                .processes
                .signal_group(live.leader.pid, Signal::CONT);
            live.kill_at = Some(kill_at);
        }
        // A job that is deleted leaves nothing, whatever it was being ended for.
        if live.ending.is_none() || cause == Cause::Deleted {
            live.ending = Some(cause);
        }
    }

    fn end_what_is_late(&mut self) {
        let now = self.now();
        let late: Vec<JobName> = self
            .live
            .iter()
            .filter(|(_, live)| live.exit.is_none() && live.ending.is_none())
            .filter(|(_, live)| live.time_limit <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in late {
            log::info!("job={name} event=ending reason=\"its time limit is over\"");
            self.end(&name, Cause::TimeLimit);
        }
        for live in self.live.values_mut() {
            if live.kill_at.is_some_and(|at| at <= now) {
                live.kill_at = None;
                self.machine
                    .processes
                    .signal_group(live.leader.pid, Signal::KILL);
            }
        }
    }

    /// Takes note of processes that have ended, and finishes the attempts that have none left.
    fn collect(&mut self) {
        let mut over = Vec::new();
        for (name, live) in &mut self.live {
            if live.exit.is_none() {
                live.exit = self.machine.processes.collect_leader(live.leader.pid);
            }
            if live.exit.is_some() {
                over.push(name.clone());
            }
        }
        let blocked = self.kill_orphans();
        for name in over {
            if !blocked.contains(&name)
                && let Some(live) = self.live.remove(&name)
            {
                self.finish(&name, &live);
            }
        }
    }

    /// Looks at the orphans that came to this process: forgets those that have exited, kills those
    /// whose job is over, and leaves alone what is of no job. Gives the jobs that have to wait for
    /// some.
    fn kill_orphans(&self) -> BTreeSet<JobName> {
        let mut blocked = BTreeSet::new();
        let is_running = |pid: Pid| {
            self.live
                .values()
                .any(|live| live.leader.pid == pid && live.exit.is_none())
        };
        for orphan in self.machine.processes.orphans(&is_running) {
            let its_own = |live: &Live| {
                let mut traces = orphan.traces.iter();
                live.leader.pid.as_raw_nonzero().get() == orphan.group
                    || traces.any(|trace| trace.starts_with(&live.folder) || *trace == live.log)
            };
            let known: Vec<(&JobName, &Live)> =
                self.live.iter().filter(|(_, live)| its_own(live)).collect();
            let mut traces = orphan.traces.iter();
            let is_a_jobs = traces.any(|trace| trace.starts_with(self.machine.folder()));
            // One that hides whose it is may be of any job that had begun before it did, and whose
            // init was killed: an init outlives all that is of its job.
            let may_own = |live: &Live| {
                let is_killed = matches!(live.exit, Some(Exit::Signal(_)));
                is_killed && live.leader.started <= orphan.started
            };
            let owners: Vec<(&JobName, &Live)> = match known.is_empty() && !is_a_jobs {
                false => known,
                true => self.live.iter().filter(|(_, live)| may_own(live)).collect(),
            };
            let is_ours = is_a_jobs || !owners.is_empty();
            if is_ours && owners.iter().all(|(_, live)| live.exit.is_some()) {
                self.machine.processes.kill(orphan.pid);
                blocked.extend(owners.into_iter().map(|(name, _)| name.clone()));
            }
        }
        blocked
    }

    fn retry_what_is_due(&mut self) {
        let now = self.now();
        while let Some((at, name, attempts)) = self.retries.first().cloned() {
            if at > now {
                return;
            }
            self.retries.pop_first();
            let mut table = self.machine.table.lock();
            // It may have been stopped or deleted meanwhile, and restarted.
            let goes_on = |entry: &&Entry| {
                let record = &entry.record;
                let is_same = record.attempts.len() == attempts && !record.current().is_empty();
                entry.waits() && is_same
            };
            if let Some(entry) = table.jobs.get(&name).filter(goes_on) {
                let (queued, need) = (entry.record.queued, entry.record.header.work.need());
                table.admission.wait(queued, name, need);
            }
        }
    }

    /// Does what could not be done before the pause.
    fn write_again(&mut self) {
        for name in std::mem::take(&mut self.unstarted) {
            self.launch(&name);
        }
        for (part, name) in std::mem::take(&mut self.to_undo) {
            if let Err(e) = self.undo(part, &name) {
                log::error!("job={name} event=in-doubt error=\"{e}\"");
                self.to_undo.insert((part, name));
                self.write_later();
            }
        }
        // A batch comes before its jobs: these are there as long as it may be.
        while let Some((part, name)) = self.in_doubt.pop_first() {
            if let Err(e) = self.resolve(part, &name) {
                log::error!("job={name} event=in-doubt error=\"{e}\"");
                self.in_doubt.insert((part, name));
                self.write_later();
                return;
            }
        }
    }

    fn undo(&self, part: usize, name: &JobName) -> io::Result<()> {
        let _turn = turn(&self.machine, name)?;
        let part = self.machine.parts.get(part);
        part.map_or(Ok(()), |part| part.store.undo(name))
    }

    /// Removes what may be there of a job that was refused, unless its request came again.
    fn resolve(&self, part: usize, name: &JobName) -> io::Result<()> {
        // A batch's request has but the batch's turn, for all of its jobs.
        let batch = name.as_str().rsplit_once('-');
        let batch = batch.and_then(|(batch, _)| JobName::parse(batch));
        let batch = batch.map(|batch| turn(&self.machine, &batch)).transpose();
        let _batch = batch?;
        let _turn = turn(&self.machine, name)?;
        match self.machine.parts.get(part) {
            Some(part) if !part.store.has(name) => {
                part.store.remove(name).map(drop).map_err(|e| e.cause)
            }
            _ => Ok(()),
        }
    }

    fn write_later(&mut self) {
        self.write_again_at = Some(self.now() + PAUSE);
    }

    /// A job cannot go on because of the disk: who asks is told. Gives what is told.
    fn hold(&mut self, name: &JobName, what: &str, error: &io::Error) -> Arc<str> {
        log::error!("job={name} event=held error=\"{error}\" reason=\"{what}\"");
        let held: Arc<str> = format!("{what}: {error}").into();
        if let Some(entry) = self.machine.table.lock().jobs.get_mut(name) {
            entry.held = Some(held.clone());
        }
        self.report(name);
        self.queue_changed();
        held
    }

    /// Starts what fits, in order of arrival.
    fn start_waiting(&mut self) {
        while !self.closing && self.paused_until.is_none() {
            let next = self.machine.table.lock().admission.next();
            let Some(name) = next else {
                return;
            };
            self.queue_changed();
            match self.begin(&name) {
                Ok(true) => {
                    self.held = None;
                    self.launch(&name);
                }
                // Deleted by another hand.
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.lose(&name),
                // Stopped or deleted meanwhile.
                Ok(false) => self.give_back(&name),
                Err(e) => {
                    self.prepared.remove(&name);
                    self.wait_again(&name);
                    self.held = Some(self.hold(&name, "it cannot be started", &e));
                    self.paused_until = Some(self.now() + PAUSE);
                }
            }
        }
    }

    /// What a job of the queue had reserved, unless it was restarted meanwhile, and runs with it.
    fn give_back(&self, name: &JobName) {
        let mut table = self.machine.table.lock();
        let entry = table.jobs.get(name);
        if !entry.is_some_and(|entry| entry.record.is_running()) {
            table.admission.release(name);
        }
    }

    /// Back to the place it had.
    fn wait_again(&self, name: &JobName) {
        self.give_back(name);
        let mut table = self.machine.table.lock();
        if let Some(entry) = table.jobs.get(name).filter(|entry| entry.waits()) {
            let (queued, need) = (entry.record.queued, entry.record.header.work.need());
            table.admission.wait(queued, name.clone(), need);
        }
    }

    /// Marks that another attempt begins. `false` if none is to begin.
    fn begin(&mut self, name: &JobName) -> io::Result<bool> {
        let machine = self.machine.clone();
        let _turn = turn(&machine, name)?;
        let table = machine.table.lock();
        let waits = table.jobs.get(name).filter(|entry| entry.waits());
        let found = waits.map(|e| (e.part, e.record.header.clone(), e.record.attempts.len()));
        drop(table);
        let Some((number, header, attempts)) = found else {
            return Ok(false);
        };
        let Some(part) = machine.parts.get(number) else {
            return Ok(false);
        };
        // Before the attempt counts, so that a job waits for room on the disk. What fails otherwise
        // fails again, and is reported, when it is started.
        match make_ready(part, name, &header, attempts + 1) {
            Ok(()) => {
                self.prepared.insert(name.clone());
            }
            Err(e) if is_full(&e) => return Err(e),
            Err(_) => {}
        }
        let change = Change::Begun {
            at: seconds(machine.moment()),
        };
        let written = part.store.append(name, std::slice::from_ref(&change));
        written.map_err(|e| e.cause)?;
        let mut table = machine.table.lock();
        let mut waited = None;
        if let Some(entry) = table.jobs.get_mut(name) {
            // A later attempt comes from the queue as well, and has waited for its time.
            if entry.record.current().is_empty() {
                let arrival = entry.record.queued.arrival;
                waited = Some(machine.clock.micros().saturating_sub(arrival));
            }
            entry.record.apply(&change);
            (entry.place, entry.held) = (None, None);
            // Stopped and restarted meanwhile, it has come to wait again.
            let queued = entry.record.queued;
            table.admission.withdraw(queued);
        }
        drop(table);
        if let (Some(waited), Some(observer)) = (waited, part.observer.get()) {
            observer.job_waited(Duration::from_micros(waited));
        }
        self.report(name);
        Ok(true)
    }

    /// Starts a job whose attempt is marked as begun.
    fn launch(&mut self, name: &JobName) {
        self.jobs_since_relist += 1;
        let machine = self.machine.clone();
        // Who is told that the job is deleted or stopped is not told so while it is being started.
        let _turn = match turn(&machine, name) {
            Ok(turn) => turn,
            Err(e) => {
                self.unstarted.insert(name.clone());
                self.hold(name, "it cannot be started", &e);
                self.write_later();
                return;
            }
        };
        let table = machine.table.lock();
        let entry = table.jobs.get(name).filter(|entry| !entry.deleted);
        let found = entry.map(|e| (e.part, e.record.clone()));
        drop(table);
        let prepared = self.prepared.remove(name);
        let Some((number, record)) = found else {
            self.discard(name);
            return;
        };
        if !record.is_running() {
            self.machine.table.lock().admission.release(name);
            return;
        }
        if record.stop_asked || self.closing {
            let (cause, reason, message) = match record.stop_asked {
                true => (
                    Cause::Stopped,
                    STOPPED,
                    "the job was stopped before it began",
                ),
                false => (
                    Cause::ShutDown,
                    "SchedulerStopped",
                    "the scheduler was stopped before the job began",
                ),
            };
            let ending = Ending {
                at: seconds(self.machine.moment()),
                succeeded: false,
                exit_code: None,
                reason: reason.to_string(),
                message: message.to_string(),
                result: None,
            };
            self.conclude(name, number, ending, Some(cause));
            return;
        }
        let (header, attempt) = (record.header, record.attempts.len());
        let Some(part) = machine.parts.get(number) else {
            return;
        };
        let folder = part.store.job_folder(name);
        let ready = match prepared {
            true => Ok(()),
            false => make_ready(part, name, &header, attempt),
        };
        // A batch that is deleted does not wait for ever for its jobs' turns.
        let is_deleted = |entry: &Entry| entry.deleted;
        if machine.table.lock().jobs.get(name).is_none_or(is_deleted) {
            self.discard(name);
            return;
        }
        let started = ready.and_then(|()| {
            let urls = self.urls(name, &part.component);
            let leader = self.spawn(part, name, &header, attempt)?;
            Ok((leader, urls))
        });
        match started {
            Ok((leader, urls)) => {
                log::debug!(
                    "job={name} event=started pid={}",
                    leader.pid.as_raw_nonzero()
                );
                let time_limit = Duration::from_secs(header.work.time_limit_seconds.into());
                let live = Live {
                    part: number,
                    attempt,
                    leader,
                    folder,
                    log: part.store.log(name, attempt),
                    time_limit: self.now() + time_limit,
                    ending: None,
                    kill_at: None,
                    exit: None,
                };
                self.live.insert(name.clone(), live);
                if let Some(entry) = machine.table.lock().jobs.get_mut(name) {
                    (entry.held, entry.urls) = (None, urls);
                }
                self.report(name);
            }
            Err(e) if is_full(&e) => {
                self.unstarted.insert(name.clone());
                self.hold(name, "it cannot be started", &e);
                self.write_later();
            }
            Err(e) => {
                let program = header.work.command.first().map_or("", String::as_str);
                let ending = Ending {
                    at: seconds(self.machine.moment()),
                    succeeded: false,
                    // As in a container whose program cannot be started.
                    exit_code: Some(128),
                    reason: "StartError".to_string(),
                    message: format!("{program}: {e}"),
                    result: None,
                };
                self.conclude(name, number, ending, None);
            }
        }
    }

    /// Where a job that is about to start is reached: at those of its ports that nobody else has.
    fn urls(&self, name: &JobName, component: &JobComponent) -> BTreeMap<String, String> {
        let mut urls = BTreeMap::new();
        for port in &component.ports {
            match self.check_port(port.port) {
                Ok(()) => {
                    urls.insert(port.name.clone(), ports::url(port.port));
                }
                Err(why) => log::info!(
                    "job={name} event=port-not-free reason=\"{} ({}) {why}\"",
                    port.port,
                    port.name
                ),
            }
        }
        urls
    }

    /// Why a job that is about to start may not get a port. One that runs may listen at its ports
    /// at any time, also where it does not yet.
    fn check_port(&self, port: u16) -> Result<(), String> {
        let has_port = |live: &Live| {
            let part = self.machine.parts.get(live.part);
            part.is_some_and(|part| part.component.ports.iter().any(|own| own.port == port))
        };
        match self.live.iter().find(|(_, live)| has_port(live)) {
            Some((other, _)) => Err(format!("is a port of {other}, which runs")),
            None => self.machine.processes.check_port(port),
        }
    }

    fn spawn(
        &self,
        part: &RunningPart,
        name: &JobName,
        header: &Header,
        attempt: usize,
    ) -> io::Result<Leader> {
        let component = &part.component;
        let folder = part.store.job_folder(name);
        let log = part.store.log(name, attempt);
        let view = part.view.as_ref().filter(|_| header.payload.is_some());
        let start = |view: Option<&View>| {
            let has_payload = header.payload.is_some();
            let file = payload_file(part, &folder, view).filter(|_| has_payload);
            let mut of_every_job = component.variables_of_job(name, has_payload);
            if let (None, Some(file)) = (view, &file) {
                let file = file.display().to_string();
                of_every_job.retain(|(name, _)| *name != "JOB_PAYLOAD_FILE");
                of_every_job.push(("JOB_PAYLOAD_FILE", file));
            }
            let result = part.store.result_file(name, attempt);
            of_every_job.push((RESULT_VARIABLE, result.display().to_string()));
            of_every_job.push((process::MARK, folder.display().to_string()));
            let own = work::environment(&header.work, &part.secrets, of_every_job);
            let command = expanded(&header.work, &own);
            let mut environment = self.machine.variables.clone();
            environment.extend(own);
            self.machine.processes.start(&Launch {
                command: &command,
                environment: &environment,
                folder: &folder,
                log: &log,
                view: view.zip(file.as_deref()),
            })
        };
        match start(view) {
            Err(e) if view.is_some() => {
                log::debug!("job={name} event=no-view error=\"{e}\"");
                let payload = part.store.payload(header)?.unwrap_or_default();
                if let Some(file) = payload_file(part, &folder, None) {
                    part.store.write_payload(name, &file, &payload)?;
                }
                start(None)
            }
            outcome => outcome,
        }
    }

    /// An attempt is over, and none of its processes is left.
    fn finish(&mut self, name: &JobName, live: &Live) {
        let exit = live.exit.unwrap_or(Exit::Code(0));
        let (reason, message) = match (&live.ending, exit) {
            (Some(Cause::TimeLimit), _) => (
                "DeadlineExceeded",
                "the job ran longer than its time limit".to_string(),
            ),
            (Some(Cause::ShutDown), _) => (
                "SchedulerStopped",
                "the scheduler was stopped while the job ran, and ended it".to_string(),
            ),
            (Some(Cause::Stopped), _) => (STOPPED, "the job was stopped".to_string()),
            (_, Exit::Code(0)) => ("", String::new()),
            (_, Exit::Code(_)) => ("Error", String::new()),
            (_, Exit::Signal(number)) => match signal_name(number) {
                Some(signal) => ("Error", format!("killed by {signal}")),
                None => ("Error", format!("killed by signal {number}")),
            },
        };
        let ending = Ending {
            at: seconds(self.machine.moment()),
            succeeded: reason.is_empty(),
            exit_code: Some(exit.code()),
            reason: reason.to_string(),
            message,
            result: self.machine.result(live.part, name, live.attempt),
        };
        self.conclude(name, live.part, ending, live.ending.clone());
    }

    /// Gives back what an attempt had reserved. How it ended is written down when that is used.
    fn conclude(&mut self, name: &JobName, part: usize, ending: Ending, cause: Option<Cause>) {
        let mut table = self.machine.table.lock();
        table.admission.release(name);
        if let Some(entry) = table.jobs.get_mut(name) {
            entry.urls.clear();
        }
        drop(table);
        self.over.push(Over {
            name: name.clone(),
            part,
            ending: Some(ending),
            cause,
        });
        self.queue_changed();
    }

    /// Writes down which attempts are over, and then tells of them.
    fn settle(&mut self) {
        if self.settle_again_at.is_some() && !self.closing {
            return;
        }
        for over in std::mem::take(&mut self.over) {
            match self.write_end(&over) {
                Ok(()) => {}
                Err(e) => {
                    self.hold(&over.name, END_NOT_WRITTEN, &e);
                    self.settle_again_at = Some(self.now() + PAUSE);
                    self.over.push(over);
                }
            }
        }
    }

    fn write_end(&mut self, over: &Over) -> io::Result<()> {
        let (machine, name) = (self.machine.clone(), &over.name);
        let _turn = turn(&machine, name)?;
        let table = machine.table.lock();
        let entry = table.jobs.get(name).filter(|entry| !entry.deleted);
        let record = entry.map(|entry| entry.record.clone());
        drop(table);
        let Some((record, part)) = record.zip(machine.parts.get(over.part)) else {
            self.discard(name);
            return Ok(());
        };
        if record.end.is_some() {
            // Stopped meanwhile.
            return Ok(());
        }
        let (changes, retry) = over.changes(&record, machine.moment());
        let written = part.store.append(name, &changes);
        match written.map_err(|e| e.cause) {
            // Another hand has removed the record: the job is not to be tried for ever.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                log::warn!("job={name} event=not-written error=\"{e}\"");
            }
            written => written?,
        }
        if let Some(entry) = machine.table.lock().jobs.get_mut(name) {
            changes.iter().for_each(|c| entry.record.apply(c));
            (entry.held, entry.cut_short) = (None, false);
        }
        if let Some(delay) = retry {
            let attempts = record.attempts.len();
            self.retries
                .insert((self.now() + delay, name.clone(), attempts));
        }
        self.report(name);
        Ok(())
    }

    /// Forgets a job that was deleted, and removes what it left.
    fn discard(&mut self, name: &JobName) {
        let mut table = self.machine.table.lock();
        table.admission.release(name);
        let entry = table.jobs.remove(name);
        drop(table);
        self.queue_changed();
        let Some(entry) = entry else {
            return;
        };
        let Some(part) = self.machine.parts.get(entry.part) else {
            return;
        };
        if let Err(e) = part.store.clear(name, entry.record.attempts.len()) {
            log::warn!("job={name} event=left error=\"{e}\"");
        }
        if let Some(observer) = part.observer.get() {
            for attempt in entry.attempts(name, self.machine.next_version()) {
                observer.attempt_gone(name, &attempt.name);
            }
        }
    }

    /// Forgets a waiting job whose record is gone.
    fn lose(&mut self, name: &JobName) {
        log::warn!("job={name} event=gone reason=\"its record was removed by another hand\"");
        let table = self.machine.table.lock();
        let found = table.jobs.get(name);
        let version = self.machine.next_version();
        let found = found.map(|entry| (entry.part, entry.job(name, version)));
        drop(table);
        self.discard(name);
        if let Some((part, job)) = found
            && let Some(observer) = self.machine.parts.get(part).and_then(|p| p.observer.get())
        {
            observer.job_gone(&job);
        }
    }

    /// Tells the observer how a job stands.
    fn report(&self, name: &JobName) {
        let table = self.machine.table.lock();
        let Some(entry) = table.jobs.get(name).filter(|entry| !entry.deleted) else {
            return;
        };
        let (version, number) = (self.machine.next_version(), entry.part);
        let job = entry.job(name, version);
        let attempts = &entry.record.attempts;
        let last = attempts
            .last()
            .map(|attempt| read_attempt(name, attempts.len(), attempt, version));
        drop(table);
        let part = self.machine.parts.get(number);
        let Some(observer) = part.and_then(|part| part.observer.get()) else {
            return;
        };
        // First, so that whoever sees the end of the job sees why.
        if let Some(attempt) = last {
            observer.attempt_seen(name, attempt);
        }
        observer.job_seen(job);
    }

    /// Tells waiting jobs their places, and observers everything now and then.
    fn tell_places(&mut self) {
        let now = self.now();
        if self.refresh_at.is_none_or(|at| at > now) {
            return;
        }
        self.refresh_at = None;
        let mut table = self.machine.table.lock();
        let places: Vec<(JobName, Place)> = table
            .admission
            .places()
            .map(|(name, place)| (name.clone(), place))
            .collect();
        let mut changed = Vec::new();
        for (name, place) in places {
            // One that is tried again has other things to say.
            if let Some(entry) = table.jobs.get_mut(&name)
                && entry.record.current().is_empty()
                && (entry.place != Some(place) || entry.held != self.held)
            {
                (entry.place, entry.held) = (Some(place), self.held.clone());
                changed.push(name);
            }
        }
        drop(table);
        for name in changed {
            self.report(&name);
        }
        if self.jobs_since_relist >= RELIST_EVERY {
            self.jobs_since_relist = 0;
            for (number, part) in self.machine.parts.iter().enumerate() {
                if let Some(observer) = part.observer.get() {
                    self.machine.relist(number, &**observer);
                }
            }
        }
        // A long queue is told less often, so that telling takes a twentieth of the time at most.
        self.refreshed = self.now();
        self.refresh_every = REFRESH_EVERY.max((self.refreshed - now) * 20);
    }
}

/// Waits until nobody else writes about the job.
fn turn<'a>(machine: &'a Machine, name: &JobName) -> io::Result<Turn<'a, u64>> {
    let turn = machine.turn(name);
    turn.map_err(|e| io::Error::new(io::ErrorKind::TimedOut, e.to_string()))
}

/// Makes what an attempt needs on disk, with the payload from the record.
fn make_ready(
    part: &RunningPart,
    name: &JobName,
    header: &Header,
    attempt: usize,
) -> io::Result<()> {
    let payload = part.store.payload(header)?;
    prepare(part, name, attempt, payload.as_deref())
}

/// Whether there is no room on the disk: what is not the job's fault, and may pass.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// Makes what an attempt needs on disk.
fn prepare(
    part: &RunningPart,
    name: &JobName,
    attempt: usize,
    payload: Option<&[u8]>,
) -> io::Result<()> {
    let file = payload_file(part, &part.store.job_folder(name), part.view.as_ref());
    let payload = file.as_deref().zip(payload);
    part.store.prepare(name, attempt, payload)
}

/// Where a job's payload is on disk: at `payload.path` in its folder, unless it sees it there anyway.
fn payload_file(part: &RunningPart, folder: &Path, view: Option<&View>) -> Option<PathBuf> {
    let path = part.component.payload_path.as_deref()?;
    Some(match view {
        Some(_) => folder.join(PAYLOAD),
        None => folder.join(path.trim_start_matches('/')).join(PAYLOAD),
    })
}

/// The command and its arguments as the job gets them.
fn expanded(work: &work::Work, environment: &BTreeMap<String, String>) -> Vec<String> {
    work.command
        .iter()
        .chain(&work.args)
        .map(|text| work::expand(text, environment))
        .collect()
}
