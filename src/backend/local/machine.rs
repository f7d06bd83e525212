//! The machine: what all schedulers of a file share.

use super::admission::{Admission, Amount};
use super::mounts::View;
use super::process::Processes;
use super::store::{
    Change, End, EndStatus, Ending, FORMAT_OF_SINGLES, Folder, Header, Kept, Key, Left, NotWritten,
    OpenError, Record, Store,
};
use super::supervisor::{Cause, Event, Over, Supervisor};
use super::table::{
    END_NOT_WRITTEN, Entry, Table, after_attempt, changed, gone, not_removed, not_written,
};
use super::work::Work;
use crate::backend::{BackendError, Condition, CreateError, HiddenKey, NewJob, Observer};
use crate::clock::Clock;
use crate::config::JobComponent;
use crate::job::{Attempt, Job, JobList, JobName, Progress, Timestamp};
use crate::sync::{Lock, Turn, Turns};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long who changes a job waits for another that does.
pub(super) const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the processes of a killed scheduler are waited for when they have been killed too.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Of the scheduler's own environment, what jobs get: what a program needs to run on this machine as this user.
///
/// Without the proxies and certificate authorities a program behind a company's proxy reaches nothing.
pub const MACHINE_VARIABLES: [&str; 28] = [
    "ALL_PROXY",
    "AWS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "PATH",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_RUNTIME_DIR",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// A component, and the values of its secrets.
pub struct Part {
    pub component: JobComponent,
    pub secrets: BTreeMap<String, String>,
}

/// What [`Machine::open`] goes by.
pub struct Setup {
    pub folder: Folder,
    pub parts: Vec<Part>,
    pub capacity: Amount,
    /// What jobs get beside their own: [`MACHINE_VARIABLES`].
    pub variables: BTreeMap<String, String>,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    pub processes: Arc<dyn Processes>,
    pub clock: Clock,
}

/// This machine, as far as it runs jobs.
pub struct Machine {
    pub(super) folder: Folder,
    pub(super) parts: Vec<RunningPart>,
    pub(super) table: Lock<Table>,
    pub(super) events: Sender<Event>,
    pub(super) received: Lock<Option<Receiver<Event>>>,
    /// Numbers the versions of records.
    pub(super) versions: AtomicU64,
    /// The last moment that was given.
    pub(super) moments: AtomicU64,
    /// Who writes about a job, by the hash of its name.
    pub(super) turns: Turns<u64>,
    /// Attempts of the scheduler before this one whose end is still to be written down.
    pub(super) recovered: Lock<Vec<Over>>,
    pub(super) variables: BTreeMap<String, String>,
    pub(super) grace: Duration,
    pub(super) processes: Arc<dyn Processes>,
    pub(super) clock: Clock,
}

pub(super) struct RunningPart {
    pub(super) component: JobComponent,
    pub(super) secrets: BTreeMap<String, String>,
    pub(super) store: Store,
    /// How a job comes to see its payload at `payload.path`, if the machine allows it.
    pub(super) view: Option<View>,
    pub(super) observer: OnceLock<Arc<dyn Observer>>,
}

impl Machine {
    /// Ends what a killed scheduler left running, and takes up its jobs.
    pub fn open(setup: Setup) -> Result<Arc<Machine>, OpenError> {
        let folder = setup.folder;
        let processes = setup.processes;
        let (found, left) = processes.kill_marked(folder.path(), PATIENCE);
        if found > 0 {
            log::warn!(
                "event=killed processes={found} left={left} reason=\"a scheduler that was killed left them\""
            );
        }
        let mut parts = Vec::new();
        for Part { component, secrets } in setup.parts {
            let store = folder.store(&component.name)?;
            let path = component.payload_path.as_deref().map(Path::new);
            let view = path.and_then(|path| processes.view(&component.name, path, folder.path()));
            parts.push(RunningPart {
                component,
                secrets,
                store,
                view,
                observer: OnceLock::new(),
            });
        }
        let (events, received) = channel();
        let machine = Machine {
            folder,
            parts,
            table: Lock::new(Table {
                jobs: BTreeMap::new(),
                admission: Admission::new(setup.capacity),
                closed: false,
            }),
            events,
            received: Lock::new(Some(received)),
            versions: AtomicU64::new(1),
            moments: AtomicU64::new(0),
            turns: Turns::new(),
            recovered: Lock::default(),
            variables: setup.variables,
            grace: setup.grace,
            processes,
            clock: setup.clock,
        };
        let mut loaded = Vec::new();
        for (number, part) in machine.parts.iter().enumerate() {
            for record in part.store.load()? {
                let latest = record.latest();
                machine.moments.fetch_max(latest, Ordering::Relaxed);
                loaded.push((number, part, record));
            }
        }
        for (number, part, record) in loaded {
            machine.recover(number, part, record);
        }
        Ok(Arc::new(machine))
    }

    /// Takes up a job where the process before this one left it.
    pub(super) fn recover(&self, number: usize, part: &RunningPart, mut record: Record) {
        let Some(name) = JobName::parse(&record.header.name) else {
            return;
        };
        let mut held = None;
        let over = self.cut_short(number, &name, &record);
        let is_whole = record.header.is_whole();
        let waits = over.is_none() && record.end.is_none() && !is_whole;
        if let Some(over) = over {
            let (changes, _) = over.changes(&record, self.moment());
            match part.store.append(&name, &changes) {
                Ok(()) => changes.iter().for_each(|change| record.apply(change)),
                Err(e) => {
                    log::error!("job={name} event=not-written error=\"{e}\"");
                    held = Some(format!("{END_NOT_WRITTEN}: {e}").into());
                    self.recovered.lock().push(over);
                }
            }
        }
        let mut table = self.table.lock();
        if waits {
            let need = record.header.work.need();
            table.admission.wait(record.queued, name.clone(), need);
        }
        let entry = Entry {
            cut_short: held.is_some() && !record.current().is_empty(),
            held,
            ..Entry::new(number, record)
        };
        table.jobs.insert(name, entry);
    }

    /// What is still to be written down of an unfinished job that cannot go on.
    pub(super) fn cut_short(&self, part: usize, name: &JobName, record: &Record) -> Option<Over> {
        let over = |ending, cause| {
            let name = name.clone();
            Some(Over {
                name,
                part,
                ending,
                cause,
            })
        };
        if record.is_running() {
            let ending = Ending {
                at: seconds(self.moment()),
                succeeded: false,
                exit_code: None,
                reason: "SchedulerStopped".to_string(),
                message: "the scheduler stopped while the job ran, and the job was ended"
                    .to_string(),
                result: self.result(part, name, record.attempts.len()),
            };
            return over(Some(ending), Some(Cause::ShutDown));
        }
        if record.end.is_some() || record.header.is_whole() {
            return None;
        }
        if !record.current().is_empty() && (record.stop_asked || after_attempt(record).is_ok()) {
            return over(None, None);
        }
        let checked = self.table.lock().admission.check(record.header.work.need());
        // Nothing could ever start behind it.
        checked
            .err()
            .and_then(|refused| over(None, Some(Cause::NeverFits(refused.to_string()))))
    }

    /// What an attempt, whose processes are gone, has left in its result file. One that cannot be
    /// read is none.
    pub(super) fn result(&self, part: usize, name: &JobName, attempt: usize) -> Option<Left> {
        let left = self.parts.get(part)?.store.result(name, attempt);
        left.unwrap_or_else(|e| {
            log::warn!("job={name} event=no-result error=\"{e}\"");
            None
        })
    }

    /// Whether the jobs of a component see their payload at its `payload.path`.
    pub fn has_view(&self, component: usize) -> bool {
        self.parts
            .get(component)
            .is_some_and(|part| part.view.is_some())
    }

    /// Where the records and the jobs' own folders are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Says who is told about a component's jobs, and tells of those that there are.
    pub fn observe(&self, component: usize, observer: Arc<dyn Observer>) {
        let Some(part) = self.parts.get(component) else {
            return;
        };
        let observer = part.observer.get_or_init(|| observer);
        self.relist(component, &**observer);
        observer.attempts_relisted(self.attempts(component));
    }

    /// All attempts of a component's jobs, each with the name of its job.
    pub(super) fn attempts(&self, component: usize) -> Vec<(JobName, Attempt)> {
        let table = self.table.lock();
        let own = table
            .jobs
            .iter()
            .filter(|(_, entry)| entry.part == component);
        own.flat_map(|(name, entry)| {
            let attempts = entry.attempts(name, self.next_version());
            attempts.into_iter().map(|attempt| (name.clone(), attempt))
        })
        .collect()
    }

    /// Tells of all jobs of a component, so that the observer can forget what it kept to be safe from old reports.
    pub(super) fn relist(&self, component: usize, observer: &dyn Observer) {
        let begun = observer.jobs_relist_begins();
        observer.jobs_relisted(self.list(component), begun);
    }

    /// All jobs of a component.
    pub(super) fn list(&self, component: usize) -> JobList {
        let table = self.table.lock();
        let jobs = table.jobs.iter();
        let mut jobs: Vec<(&JobName, &Entry)> = jobs
            .filter(|(_, entry)| entry.part == component && !entry.deleted)
            .collect();
        // See `Entry::end_version`.
        jobs.sort_by_key(|(_, entry)| entry.record.end.as_ref().map(End::order));
        let jobs = jobs
            .into_iter()
            .map(|(name, entry)| entry.job(name, self.next_version()))
            .collect();
        let version = self.next_version();
        JobList { jobs, version }
    }

    /// Starts, watches and ends processes until [`Machine::shut_down`] has ended all. Once per machine, on a thread of its
    /// own.
    pub fn supervise(self: &Arc<Self>) {
        if let Some(supervisor) = self.supervisor() {
            supervisor.run();
        }
    }

    /// The one that [`Machine::supervise`] runs, for who drives it pass by pass; `None` but for the
    /// first time.
    pub fn supervisor(self: &Arc<Self>) -> Option<Supervisor> {
        if let Err(e) = self.processes.adopt_orphans() {
            log::warn!("event=no-orphans error=\"{e}\" reason=\"a job's process may outlive it\"");
        }
        let received = self.received.lock().take()?;
        Some(Supervisor::new(self.clone(), received))
    }

    /// A child of this process may have ended.
    pub fn child_ended(&self) {
        self.send(Event::Child);
    }

    /// Takes and starts no more jobs, and ends those that run. Gives how many there are.
    pub fn shut_down(&self) -> usize {
        let mut table = self.table.lock();
        table.closed = true;
        let running = table.jobs.values().filter(|e| e.record.is_running());
        let running = running.count();
        drop(table);
        self.send(Event::ShutDown);
        running
    }

    /// Ends without further grace what is still running.
    pub fn kill_all(&self) {
        self.send(Event::KillAll);
    }

    pub(super) fn send(&self, event: Event) {
        // The supervisor is gone only when all is over.
        let _ = self.events.send(event);
    }

    pub(super) fn next_version(&self) -> u64 {
        self.versions.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Microseconds since 1970, later at each call than all that is on record: a clock that is set
    /// back makes no job seem to come or to end before another that did.
    pub(super) fn moment(&self) -> u64 {
        let now = self.clock.micros();
        let next = |last: u64| Some(now.max(last + 1));
        let last = self
            .moments
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        now.max(last.unwrap_or_else(|last| last) + 1)
    }

    /// Waits until nobody else writes about the job.
    pub(super) fn turn(&self, name: &JobName) -> Result<Turn<'_, u64>, BackendError> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let turn = self.turns.wait(hasher.finish(), TURN_TIMEOUT, &self.clock);
        turn.ok_or_else(|| {
            let message = format!("another change of job {name} is still being written: try again");
            BackendError::Unavailable { message }
        })
    }

    pub(super) fn create(
        &self,
        number: usize,
        part: &RunningPart,
        new: &NewJob,
    ) -> Result<Job, CreateError> {
        if new.settings.command.as_ref().is_none_or(Vec::is_empty) {
            return Err(CreateError::Nothing(BackendError::Invalid {
                message: "command: is missing: a job of this machine has no image to take it from"
                    .to_string(),
            }));
        }
        let capacity = self.table.lock().admission.capacity();
        let need = Amount::of(new.settings, capacity);
        let arrival = self.moment();
        let header = Header {
            version: FORMAT_OF_SINGLES,
            name: new.name.to_string(),
            job_id: new.job_id.map(str::to_string),
            created: seconds(arrival),
            priority: new.priority,
            arrival,
            key: new.key.map(Key::from),
            restart_of: None,
            payload: new.payload.map(|payload| payload.len() as u64),
            work: Work::of(new, need),
            batch: None,
        };
        let payload = new.payload.map(str::as_bytes);
        self.take(number, part, &new.name, header, payload)
    }

    /// A job that does again what another did, with a copy of its payload.
    pub(super) fn recreate(
        &self,
        number: usize,
        part: &RunningPart,
        old: &JobName,
        name: &JobName,
    ) -> Result<Job, CreateError> {
        let found = self
            .with_entry(number, old, |entry| entry.record.header.clone())
            .map_err(CreateError::Nothing)?;
        let payload = part.store.payload(&found).map_err(|e| {
            CreateError::Nothing(BackendError::Unavailable {
                message: format!("the payload of {old} cannot be read: {e}"),
            })
        })?;
        let arrival = self.moment().max(found.arrival + 1);
        let header = Header {
            name: name.to_string(),
            created: seconds(arrival),
            priority: 0,
            arrival,
            key: None,
            restart_of: Some(old.to_string()),
            ..found
        };
        self.take(number, part, name, header, payload.as_deref())
    }

    /// Takes a new job: to run if nothing waits and there is room, else into the queue.
    pub(super) fn take(
        &self,
        number: usize,
        part: &RunningPart,
        name: &JobName,
        header: Header,
        payload: Option<&[u8]>,
    ) -> Result<Job, CreateError> {
        let need = header.work.need();
        let _turn = self.turn(name).map_err(CreateError::Nothing)?;
        let mut table = self.table.lock();
        if table.jobs.contains_key(name) {
            return Err(CreateError::NameTaken);
        }
        table.check(need).map_err(CreateError::Nothing)?;
        let starts = table.admission.start_at_once(name, need);
        drop(table);
        if starts {
            // While the record is written: each of these takes its time on a disk.
            self.send(Event::Prepare {
                part: number,
                name: name.clone(),
                payload: payload.map(<[u8]>::to_vec),
            });
        }
        let began = starts.then_some(Change::Begun { at: header.created });
        let written = part.store.create(name, &header, payload, began.as_slice());
        if let Err(error) = written {
            let in_doubt = error.in_doubt;
            self.table.lock().admission.release(name);
            self.send(Event::NotCreated {
                part: number,
                name: name.clone(),
                in_doubt,
            });
            return Err(match error.cause.kind() {
                ErrorKind::AlreadyExists => CreateError::NameTaken,
                _ if in_doubt => CreateError::Unanswered(not_written(error)),
                _ => CreateError::Nothing(not_written(error)),
            });
        }
        let mut record = Record::new(header);
        began.iter().for_each(|change| record.apply(change));
        let mut table = self.table.lock();
        table.jobs.insert(name.clone(), Entry::new(number, record));
        let job = self.queue_or_start(&mut table, name, starts);
        drop(table);
        job.ok_or(CreateError::NameTaken)
    }

    /// Sends a job to the supervisor if it has a reservation, else to the queue.
    pub(super) fn queue_or_start(
        &self,
        table: &mut Table,
        name: &JobName,
        starts: bool,
    ) -> Option<Job> {
        let entry = table.jobs.get_mut(name)?;
        if starts {
            self.send(Event::Start(name.clone()));
        } else if entry.record.end.is_none() {
            let (queued, need) = (entry.record.queued, entry.record.header.work.need());
            let place = table.admission.wait(queued, name.clone(), need);
            entry.place = Some(place);
            self.send(Event::QueueChanged);
        }
        Some(entry.job(name, self.next_version()))
    }

    /// Looks at a job that is not deleted.
    pub(super) fn with_entry<T>(
        &self,
        number: usize,
        name: &JobName,
        look: impl FnOnce(&mut Entry) -> T,
    ) -> Result<T, BackendError> {
        let mut table = self.table.lock();
        table.entry(number, name).map(look)
    }

    /// Whether an attempt, counted from 1, has ended or is gone: its log grows no more.
    pub(super) fn is_over(&self, number: usize, name: &JobName, attempt: usize) -> bool {
        let runs = self.with_entry(number, name, |entry| {
            let attempt = entry.record.attempts.get(attempt.saturating_sub(1));
            matches!(attempt, Some((_, None))) && entry.record.end.is_none()
        });
        !runs.unwrap_or(false)
    }

    /// Adds to a record. What could not be undone of that is, once the disk lets it be.
    fn append(&self, part: usize, name: &JobName, changes: &[Change]) -> Result<(), NotWritten> {
        let Some(of) = self.parts.get(part) else {
            return Err(NotWritten::from(std::io::Error::from(ErrorKind::NotFound)));
        };
        let written = of.store.append(name, changes);
        if written.as_ref().is_err_and(|error| error.in_doubt) {
            let name = name.clone();
            self.send(Event::Undo { part, name });
        }
        written
    }

    /// The job as it stands.
    pub(super) fn look(&self, number: usize, name: &JobName) -> Result<Job, BackendError> {
        self.with_entry(number, name, |entry| entry.job(name, self.next_version()))
    }

    /// Ends a job and keeps its record.
    pub(super) fn stop(&self, number: usize, name: &JobName) -> Result<Job, BackendError> {
        let _turn = self.turn(name)?;
        let mut table = self.table.lock();
        let entry = table.entry(number, name)?;
        if entry.record.end.is_some() || entry.record.stop_asked {
            return Ok(entry.job(name, self.next_version()));
        }
        if entry.record.is_running() {
            entry.record.apply(&Change::StopAsked);
            let job = entry.job(name, self.next_version());
            drop(table);
            self.send(Event::End(name.clone(), Cause::Stopped));
            // It comes to its end and never runs again, whether or not this can be written down: a
            // job that fills the disk can be stopped.
            if let Err(e) = self.append(number, name, &[Change::StopAsked]) {
                log::warn!("job={name} event=not-written error=\"{e}\"");
            }
            return Ok(job);
        }
        let (queued, need) = (entry.record.queued, entry.record.header.work.need());
        let waited = table.admission.withdraw(queued);
        drop(table);
        let stopped = Change::Finished(self.end(EndStatus::Stopped));
        let written = self.append(number, name, std::slice::from_ref(&stopped));
        let mut table = self.table.lock();
        if let Err(e) = written {
            if waited {
                table.admission.wait(queued, name.clone(), need);
            }
            return Err(not_written(e));
        }
        // Its next attempt may have come due meanwhile.
        table.admission.withdraw(queued);
        let entry = table.entry(number, name)?;
        entry.record.apply(&stopped);
        self.send(Event::QueueChanged);
        Ok(entry.job(name, self.next_version()))
    }

    pub(super) fn end(&self, status: EndStatus) -> End {
        End::new(self.moment(), status, String::new())
    }

    /// Runs a stopped job again.
    pub(super) fn resume(&self, number: usize, name: &JobName) -> Result<Job, BackendError> {
        let _turn = self.turn(name)?;
        let mut table = self.table.lock();
        let entry = table.entry(number, name)?;
        let need = entry.record.header.work.need();
        let is_stopped = |end: &End| end.status == EndStatus::Stopped;
        if !entry.record.end.as_ref().is_some_and(is_stopped) {
            return Ok(entry.job(name, self.next_version()));
        }
        table.check(need)?;
        let starts = table.admission.start_at_once(name, need);
        drop(table);
        let arrival = self.moment();
        let at = seconds(arrival);
        let mut changes = vec![Change::Resumed { at, arrival }];
        changes.extend(starts.then_some(Change::Begun { at }));
        let written = self.append(number, name, &changes);
        let mut table = self.table.lock();
        if let Err(e) = written {
            table.admission.release(name);
            self.send(Event::QueueChanged);
            return Err(not_written(e));
        }
        let entry = table.entry(number, name)?;
        changes.iter().for_each(|change| entry.record.apply(change));
        entry.end_version.set(None);
        self.queue_or_start(&mut table, name, starts)
            .ok_or_else(|| gone(name))
    }

    /// Writes down how far a job is, unless it was restarted meanwhile.
    pub(super) fn keep_progress(
        &self,
        number: usize,
        job: &Job,
        progress: &Progress,
    ) -> Result<Job, BackendError> {
        let name = &job.name;
        let _turn = self.turn(name)?;
        let resumed = self.with_entry(number, name, |entry| entry.record.resumed)?;
        if resumed.map(Timestamp::at) != job.rare.restarted {
            return Err(changed(name));
        }
        let change = Change::Progress(Kept::from(progress));
        let written = self.append(number, name, std::slice::from_ref(&change));
        written.map_err(not_written)?;
        self.with_entry(number, name, |entry| {
            entry.record.apply(&change);
            entry.job(name, self.next_version())
        })
    }

    /// Takes a finished job out of its users' sight, while another copies its payload or its key stands for it.
    pub(super) fn hide(
        &self,
        number: usize,
        name: &JobName,
        key: HiddenKey,
        at: Timestamp,
    ) -> Result<Job, BackendError> {
        let _turn = self.turn(name)?;
        let look = |entry: &mut Entry| {
            let record = &entry.record;
            (record.end.is_some(), record.header.is_whole())
        };
        let (is_finished, is_whole) = self.with_entry(number, name, look)?;
        let hidden = match is_whole {
            true => Change::BatchHidden { at: at.seconds() },
            false if is_finished => Change::Hidden,
            false => return Err(changed(name)),
        };
        let changes: &[Change] = match key {
            HiddenKey::Kept => &[hidden],
            HiddenKey::Forgotten => &[hidden, Change::KeyForgotten],
        };
        self.append(number, name, changes).map_err(not_written)?;
        self.with_entry(number, name, |entry| {
            changes.iter().for_each(|change| entry.record.apply(change));
            entry.job(name, self.next_version())
        })
    }

    pub(super) fn delete(
        &self,
        number: usize,
        part: &RunningPart,
        job: &Job,
        condition: Condition,
    ) -> Result<bool, BackendError> {
        let name = &job.name;
        let _turn = self.turn(name)?;
        // A stopped job may have been restarted meanwhile. Only one that has finished is let go on a
        // condition.
        if condition == Condition::Unchanged
            && let Ok(now) = self.look(number, name)
            && (now.status != job.status || !now.status.is_finished())
        {
            return Err(changed(name));
        }
        // Should this process be killed after this, the next one finds no record, and so ends the job's processes all
        // the same.
        let removed = part.store.remove(name).map_err(not_removed);
        if part.store.has(name) {
            return removed;
        }
        let known = self.end_deleted(number, part, name);
        if let (Err(_), Some(observer)) = (&removed, part.observer.get()) {
            // It is gone, unless the machine loses its power before another record is made or removed.
            observer.job_gone(&Job {
                version: self.next_version(),
                ..job.clone()
            });
        }
        removed.map(|there| known || there)
    }

    /// A job is deleted: it runs no more, and what it left goes, at the latest once its processes
    /// have ended. Whether it was there.
    pub(super) fn end_deleted(&self, number: usize, part: &RunningPart, name: &JobName) -> bool {
        let mut table = self.table.lock();
        let (mut known, mut attempts) = (false, 0);
        if let Some(entry) = table.jobs.get_mut(name) {
            if entry.part != number {
                return false;
            }
            known = !entry.deleted;
            if entry.record.is_running() {
                entry.deleted = true;
                if known {
                    self.send(Event::End(name.clone(), Cause::Deleted));
                }
                return known;
            }
            attempts = entry.record.attempts.len();
            let queued = entry.record.queued;
            table.admission.withdraw(queued);
            table.jobs.remove(name);
            self.send(Event::QueueChanged);
        }
        drop(table);
        if let Err(e) = part.store.clear(name, attempts) {
            log::warn!("job={name} event=left error=\"{e}\"");
        }
        known
    }
}

pub(super) fn seconds(micros: u64) -> i64 {
    i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX)
}
