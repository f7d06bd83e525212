//! Jobs as processes of this machine.
//!
//! [`Machine`] is the one thing that all schedulers of a file share: what is reserved ([`admission`]), what is on disk
//! ([`store`]), and a thread that starts, watches and ends processes ([`supervisor`]). [`Local`] is one component's
//! handle on it.
//!
//! Order: the record is on disk, then the caller is answered, and an attempt is marked on disk as begun before it is
//! started, so that no job is lost and none is run twice, whatever ends this process or the machine.

mod admission;
mod logs;
mod mounts;
mod process;
mod store;
mod supervisor;
mod work;

pub use admission::{Amount, Bytes, Cpus, bytes, cpu_milli};
pub use store::{Folder, OpenError};

use crate::backend::{
    Backend, BackendError, Condition, CreateError, Created, HiddenKey, LogOptions, NewJob,
    Observer, Resend,
};
use crate::config::JobComponent;
use crate::job::{
    Attempt, AttemptState, Job, JobList, JobName, JobRecord, Queued, Status, Timestamp,
};
use crate::sync::Lock;
use admission::{Admission, Place};
use logs::{Follow, Log};
use mounts::{Plan, ThisMachine, View};
use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use store::{Change, EndStatus, Ending, Header, Key, Record, Store};
use supervisor::{Cause, Event, Supervisor};
use work::{Next, Work};

/// The reason of an attempt that ended because somebody asked.
const STOPPED: &str = "Stopped";
/// How long the processes of a killed scheduler are waited for when they have been killed too.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of the scheduler's own environment, what jobs get: what a program needs to run on this machine as this user.
pub const MACHINE_VARIABLES: [&str; 12] = [
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "LOGNAME",
    "PATH",
    "SHELL",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "XDG_RUNTIME_DIR",
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
    pub clock: fn() -> Timestamp,
}

/// This machine, as far as it runs jobs.
pub struct Machine {
    folder: Folder,
    parts: Vec<RunningPart>,
    table: Lock<Table>,
    events: Sender<Event>,
    received: Lock<Option<Receiver<Event>>>,
    /// Numbers the versions of records.
    versions: AtomicU64,
    /// The last arrival that was given.
    arrivals: AtomicU64,
    variables: BTreeMap<String, String>,
    grace: Duration,
    clock: fn() -> Timestamp,
}

struct RunningPart {
    component: JobComponent,
    secrets: BTreeMap<String, String>,
    store: Store,
    /// How a job comes to see its payload at `payload.path`, if the machine allows it.
    view: Option<View>,
    observer: OnceLock<Arc<dyn Observer>>,
}

struct Table {
    jobs: HashMap<JobName, Entry>,
    admission: Admission,
    /// No job is taken or started any more.
    closed: bool,
}

struct Entry {
    part: usize,
    record: Record,
    /// Where it waits; `None` unless it does.
    place: Option<Place>,
    /// Deleted, and its processes are ending.
    deleted: bool,
}

impl Table {
    /// A job that is not deleted.
    fn entry(&mut self, part: usize, name: &JobName) -> Result<&mut Entry, BackendError> {
        let entry = self.jobs.get_mut(name);
        entry
            .filter(|entry| entry.part == part && !entry.deleted)
            .ok_or_else(|| gone(name))
    }

    /// Whether a job of this need may be taken.
    fn check(&self, need: Amount) -> Result<(), BackendError> {
        if self.closed {
            return Err(BackendError::Unavailable {
                message: "the scheduler is stopping".to_string(),
            });
        }
        self.admission.check(need).map_err(|refused| {
            let message = refused.to_string();
            BackendError::Invalid { message }
        })
    }
}

fn gone(name: &JobName) -> BackendError {
    BackendError::Gone {
        message: format!("job {name} is gone"),
    }
}

fn not_written(cause: &std::io::Error) -> BackendError {
    BackendError::Unavailable {
        message: format!("the job cannot be written to disk: {cause}"),
    }
}

impl Entry {
    fn new(part: usize, record: Record) -> Entry {
        Entry {
            part,
            record,
            place: None,
            deleted: false,
        }
    }

    fn status(&self) -> Status {
        match &self.record.end {
            Some((_, status, _)) => (*status).into(),
            None if self.record.stop_asked => Status::Stopping,
            None if self.record.current().is_empty() => Status::Waiting,
            None => Status::Running,
        }
    }

    fn job(&self, name: &JobName, version: u64) -> Job {
        let header = &self.record.header;
        // One that was stopped has not failed, as in Kubernetes.
        let failed = |(_, end): &&(i64, Option<Ending>)| {
            end.as_ref()
                .is_some_and(|end| !end.succeeded && end.reason != STOPPED)
        };
        let place = self.place.filter(|_| self.status() == Status::Waiting);
        let message = match (&self.record.end, place) {
            (Some((_, _, message)), _) => message.clone(),
            (None, Some(place)) => place.to_string(),
            (None, None) => String::new(),
        };
        Job {
            name: name.clone(),
            uid: format!("{:x}", header.arrival).into(),
            job_id: header.job_id.as_deref().map(Box::from),
            created: Timestamp(header.created),
            started: self.record.current().first().map(|(at, _)| Timestamp(*at)),
            finished: self.record.end.as_ref().map(|(at, ..)| Timestamp(*at)),
            status: self.status(),
            message: message.into(),
            failed: u32::try_from(self.record.attempts.iter().filter(failed).count())
                .unwrap_or(u32::MAX),
            has_payload: header.payload.is_some(),
            // Each has a copy of its own.
            payload_of: None,
            // The queue is the machine's, over all components, and not the scheduler's.
            queued: None,
            position: place.map(|place| place.position),
            key: header.key().filter(|_| !self.record.key_forgotten),
            restarted: self.record.resumed.map(Timestamp),
            restart_of: header.restart_of.as_deref().and_then(JobName::parse),
            hidden: self.record.hidden,
            version,
        }
    }

    fn attempts(&self, name: &JobName, version: u64) -> Vec<Attempt> {
        (1..)
            .zip(&self.record.attempts)
            .map(|(number, attempt)| read_attempt(name, number, attempt, version))
            .collect()
    }
}

fn read_attempt(
    job: &JobName,
    number: usize,
    (began, end): &(i64, Option<Ending>),
    version: u64,
) -> Attempt {
    let state = match end {
        None => AttemptState::Running,
        Some(end) if end.succeeded => AttemptState::Succeeded,
        Some(_) => AttemptState::Failed,
    };
    Attempt {
        name: format!("{job}-{number}").into(),
        created: Timestamp(*began),
        started: Some(Timestamp(*began)),
        finished: end.as_ref().map(|end| Timestamp(end.at)),
        state,
        exit_code: end.as_ref().and_then(|end| end.exit_code),
        reason: end.as_ref().map_or("", |end| &end.reason).into(),
        message: end.as_ref().map_or("", |end| &end.message).into(),
        image: "".into(),
        image_id: "".into(),
        restarts: 0,
        version,
    }
}

/// What follows when the last attempt has ended by itself or by its time limit.
fn after_attempt(record: &Record) -> Result<EndStatus, Duration> {
    let succeeded =
        |(_, end): &(i64, Option<Ending>)| end.as_ref().is_some_and(|end| end.succeeded);
    if record.attempts.last().is_some_and(succeeded) {
        return Ok(EndStatus::Succeeded);
    }
    let codes: Vec<i32> = record
        .current()
        .iter()
        .map(|(_, end)| end.as_ref().and_then(|end| end.exit_code).unwrap_or(0))
        .collect();
    match record.header.work.after_failure(&codes) {
        Next::Fail => Ok(EndStatus::Failed),
        Next::TryAgain { delay } => Err(delay),
    }
}

impl Machine {
    /// Ends what a killed scheduler left running, and takes up its jobs.
    pub fn open(setup: Setup) -> Result<Arc<Machine>, OpenError> {
        let folder = setup.folder;
        let (found, left) = process::kill_marked(folder.path(), PATIENCE);
        if found > 0 {
            log::warn!(
                "event=killed processes={found} left={left} reason=\"a scheduler that was killed left them\""
            );
        }
        let mut parts = Vec::new();
        for Part { component, secrets } in setup.parts {
            let store = folder.store(&component.name)?;
            let view = view(&component, folder.path());
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
                jobs: HashMap::new(),
                admission: Admission::new(setup.capacity),
                closed: false,
            }),
            events,
            received: Lock::new(Some(received)),
            versions: AtomicU64::new(1),
            arrivals: AtomicU64::new(0),
            variables: setup.variables,
            grace: setup.grace,
            clock: setup.clock,
        };
        for (number, part) in machine.parts.iter().enumerate() {
            for record in part.store.load()? {
                machine.recover(number, part, record);
            }
        }
        Ok(Arc::new(machine))
    }

    /// Takes up a job where the process before this one left it.
    fn recover(&self, number: usize, part: &RunningPart, mut record: Record) {
        let Some(name) = JobName::parse(&record.header.name) else {
            return;
        };
        let now = (self.clock)().0;
        let need = record.header.work.need();
        let mut changes = Vec::new();
        if record.is_running() {
            changes.push(Change::Ended(Ending {
                at: now,
                succeeded: false,
                exit_code: None,
                reason: "SchedulerStopped".to_string(),
                message: "the scheduler stopped while the job ran, and the job was ended"
                    .to_string(),
            }));
            changes.push(Change::Finished {
                at: now,
                status: match record.stop_asked {
                    true => EndStatus::Stopped,
                    false => EndStatus::Failed,
                },
                message: String::new(),
            });
        } else if record.end.is_none() {
            if let (false, Ok(status)) = (record.current().is_empty(), after_attempt(&record)) {
                changes.push(Change::Finished {
                    at: now,
                    status,
                    message: String::new(),
                });
            } else if let Err(refused) = self.table.lock().admission.check(need) {
                // Nothing could ever start behind it.
                changes.push(Change::Finished {
                    at: now,
                    status: EndStatus::Failed,
                    message: refused.to_string(),
                });
            }
        }
        if !changes.is_empty()
            && let Err(e) = part.store.append(&name, &changes)
        {
            log::error!("job={name} event=not-written error=\"{e}\"");
        }
        for change in &changes {
            record.apply(change);
        }
        self.arrivals
            .fetch_max(record.queued.arrival, Ordering::Relaxed);
        let mut table = self.table.lock();
        if record.end.is_none() {
            table.admission.wait(record.queued, name.clone(), need);
        }
        table.jobs.insert(name, Entry::new(number, record));
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
        let table = self.table.lock();
        let attempts = table
            .jobs
            .iter()
            .filter(|(_, entry)| entry.part == component)
            .flat_map(|(name, entry)| {
                let attempts = entry.attempts(name, self.next_version());
                attempts.into_iter().map(|attempt| (name.clone(), attempt))
            })
            .collect();
        drop(table);
        observer.attempts_relisted(attempts);
    }

    /// Tells of all jobs of a component, so that the observer can forget what it kept to be safe from old reports.
    fn relist(&self, component: usize, observer: &dyn Observer) {
        let begun = observer.jobs_relist_begins();
        observer.jobs_relisted(self.list(component), begun);
    }

    /// All jobs of a component.
    fn list(&self, component: usize) -> JobList {
        let table = self.table.lock();
        let jobs = table
            .jobs
            .iter()
            .filter(|(_, entry)| entry.part == component && !entry.deleted)
            .map(|(name, entry)| entry.job(name, self.next_version()))
            .collect();
        let version = self.next_version();
        JobList { jobs, version }
    }

    /// Starts, watches and ends processes until [`Machine::shut_down`] has ended all. Once per machine, on a thread of its
    /// own.
    pub fn supervise(self: &Arc<Self>) {
        if let Err(e) = process::adopt_orphans() {
            log::warn!("event=no-orphans error=\"{e}\" reason=\"a job's process may outlive it\"");
        }
        let received = self.received.lock().take();
        if let Some(received) = received {
            Supervisor::new(self.clone(), received).run();
        }
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

    fn send(&self, event: Event) {
        // The supervisor is gone only when all is over.
        let _ = self.events.send(event);
    }

    fn next_version(&self) -> u64 {
        self.versions.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn next_arrival(&self) -> u64 {
        let now = Timestamp::now_micros();
        let next = |last: u64| Some(now.max(last + 1));
        let last = self
            .arrivals
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        now.max(last.unwrap_or_else(|last| last) + 1)
    }

    fn create(&self, number: usize, part: &RunningPart, new: &NewJob) -> Result<Job, CreateError> {
        if new.settings.command.as_ref().is_none_or(Vec::is_empty) {
            return Err(CreateError::Nothing(BackendError::Invalid {
                message: "command: is missing: a job of this machine has no image to take it from"
                    .to_string(),
            }));
        }
        let capacity = self.table.lock().admission.capacity();
        let need = Amount::of(new.settings, capacity);
        let header = Header {
            name: new.name.to_string(),
            job_id: new.job_id.map(str::to_string),
            created: (self.clock)().0,
            priority: new.priority,
            arrival: self.next_arrival(),
            key: new.key.map(Key::from),
            restart_of: None,
            payload: new.payload.map(|payload| payload.len() as u64),
            work: Work::of(new, need),
        };
        let payload = new.payload.map(str::as_bytes);
        self.take(number, part, &new.name, header, payload)
    }

    /// A job that does again what another did, with a copy of its payload.
    fn recreate(
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
        let header = Header {
            name: name.to_string(),
            created: (self.clock)().0,
            priority: 0,
            arrival: self.next_arrival(),
            key: None,
            restart_of: Some(old.to_string()),
            ..found
        };
        self.take(number, part, name, header, payload.as_deref())
    }

    /// Takes a new job: to run if nothing waits and there is room, else into the queue.
    fn take(
        &self,
        number: usize,
        part: &RunningPart,
        name: &JobName,
        header: Header,
        payload: Option<&[u8]>,
    ) -> Result<Job, CreateError> {
        let need = header.work.need();
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
        let written = part.store.create(&header, payload, began.as_slice());
        if let Err(e) = written {
            self.table.lock().admission.release(name);
            self.send(Event::NotCreated {
                part: number,
                name: name.clone(),
            });
            return Err(match e.kind() {
                ErrorKind::AlreadyExists => CreateError::NameTaken,
                _ => CreateError::Nothing(not_written(&e)),
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
    fn queue_or_start(&self, table: &mut Table, name: &JobName, starts: bool) -> Option<Job> {
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
    fn with_entry<T>(
        &self,
        number: usize,
        name: &JobName,
        look: impl FnOnce(&mut Entry) -> T,
    ) -> Result<T, BackendError> {
        let mut table = self.table.lock();
        table.entry(number, name).map(look)
    }

    /// Whether an attempt, counted from 1, has ended or is gone: its log grows no more.
    fn is_over(&self, number: usize, name: &JobName, attempt: usize) -> bool {
        let runs = self.with_entry(number, name, |entry| {
            let attempt = entry.record.attempts.get(attempt.saturating_sub(1));
            matches!(attempt, Some((_, None))) && entry.record.end.is_none()
        });
        !runs.unwrap_or(false)
    }

    /// The job as it stands.
    fn look(&self, number: usize, name: &JobName) -> Result<Job, BackendError> {
        self.with_entry(number, name, |entry| entry.job(name, self.next_version()))
    }

    /// Ends a job and keeps its record.
    fn stop(&self, number: usize, part: &RunningPart, name: &JobName) -> Result<Job, BackendError> {
        let mut table = self.table.lock();
        let entry = table.entry(number, name)?;
        if entry.record.end.is_some() || entry.record.stop_asked {
            return Ok(entry.job(name, self.next_version()));
        }
        let (runs, queued) = (entry.record.is_running(), entry.record.queued);
        let change = match runs {
            true => Change::StopAsked,
            false => Change::Finished {
                at: (self.clock)().0,
                status: EndStatus::Stopped,
                message: String::new(),
            },
        };
        entry.record.apply(&change);
        let job = entry.job(name, self.next_version());
        table.admission.withdraw(queued);
        drop(table);
        self.send(match runs {
            true => Event::End(name.clone(), Cause::Stopped),
            false => Event::QueueChanged,
        });
        // It is being ended whether or not that can be written down.
        part.store
            .append(name, &[change])
            .map_err(|e| not_written(&e))?;
        Ok(job)
    }

    /// Runs a stopped job again.
    fn resume(
        &self,
        number: usize,
        part: &RunningPart,
        name: &JobName,
    ) -> Result<Job, BackendError> {
        let mut table = self.table.lock();
        let entry = table.entry(number, name)?;
        let need = entry.record.header.work.need();
        if !matches!(entry.record.end, Some((_, EndStatus::Stopped, _))) {
            return Ok(entry.job(name, self.next_version()));
        }
        let stopped = entry.record.clone();
        table.check(need)?;
        let starts = table.admission.start_at_once(name, need);
        let at = (self.clock)().0;
        let arrival = self.next_arrival();
        let mut changes = vec![Change::Resumed { at, arrival }];
        changes.extend(starts.then_some(Change::Begun { at }));
        let entry = table.entry(number, name)?;
        changes.iter().for_each(|change| entry.record.apply(change));
        drop(table);
        let written = part.store.append(name, &changes);
        let mut table = self.table.lock();
        let Ok(entry) = table.entry(number, name) else {
            // Deleted meanwhile.
            table.admission.release(name);
            self.send(Event::QueueChanged);
            return Err(gone(name));
        };
        if let Err(e) = written {
            entry.record = stopped;
            table.admission.release(name);
            self.send(Event::QueueChanged);
            return Err(not_written(&e));
        }
        self.queue_or_start(&mut table, name, starts)
            .ok_or_else(|| gone(name))
    }

    /// Takes a finished job out of its users' sight, while another copies its payload or its key stands for it.
    fn hide(
        &self,
        number: usize,
        part: &RunningPart,
        name: &JobName,
        key: HiddenKey,
    ) -> Result<Job, BackendError> {
        let changes: &[Change] = match key {
            HiddenKey::Kept => &[Change::Hidden],
            HiddenKey::Forgotten => &[Change::Hidden, Change::KeyForgotten],
        };
        let job = self.with_entry(number, name, |entry| {
            changes.iter().for_each(|change| entry.record.apply(change));
            entry.job(name, self.next_version())
        })?;
        let written = part.store.append(name, changes);
        written.map_err(|e| not_written(&e))?;
        Ok(job)
    }

    fn delete(&self, number: usize, part: &RunningPart, name: &JobName) -> std::io::Result<bool> {
        let mut table = self.table.lock();
        let entry = table.jobs.get_mut(name).filter(|e| e.part == number);
        let (known, runs) = match entry {
            None => (false, false),
            Some(entry) if entry.deleted => (false, false),
            Some(entry) if entry.record.is_running() => {
                entry.deleted = true;
                (true, true)
            }
            Some(entry) => {
                let queued = entry.record.queued;
                table.admission.withdraw(queued);
                table.jobs.remove(name);
                (true, false)
            }
        };
        drop(table);
        // Should this process be killed now, the next one finds no record, and so ends the job's processes all the same.
        let there = part.store.remove(name)?;
        if runs {
            self.send(Event::End(name.clone(), Cause::Deleted));
        } else {
            part.store.clear(name)?;
            self.send(Event::QueueChanged);
        }
        Ok(known || there)
    }
}

/// How the jobs of a component see their payload at its path; tried out, since a machine may allow the one half and not
/// the other.
fn view(component: &JobComponent, folder: &Path) -> Option<View> {
    let path = Path::new(component.payload_path.as_deref()?);
    let (staging, sample) = (folder.join(".mount"), folder.join(".sample"));
    std::fs::create_dir_all(&staging).ok()?;
    Store::write_payload(b"", &sample).ok()?;
    let Some(plan) = Plan::new(path, &staging, &ThisMachine) else {
        log::debug!(
            "component={} event=no-view reason=\"{} is not there, and nowhere to make it\"",
            component.name,
            path.display()
        );
        return None;
    };
    let no_view = |reason: &dyn std::fmt::Display| {
        log::debug!(
            "component={} event=no-view reason=\"{reason}\"",
            component.name
        );
    };
    let view = View::build(plan).inspect_err(|e| no_view(e)).ok()?;
    let mut command = Command::new(std::env::current_exe().ok()?);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let tried = mounts::prepare(&mut command, Some((&view, &sample)), folder)
        .and_then(|()| command.status());
    match tried {
        Ok(status) if status.success() => Some(view),
        Ok(status) => {
            no_view(&status);
            None
        }
        Err(e) => {
            no_view(&e);
            None
        }
    }
}

/// One component's jobs on the machine.
pub struct Local {
    machine: Arc<Machine>,
    part: usize,
}

impl Local {
    /// `part` is the component's place in [`Setup::parts`].
    pub fn new(machine: Arc<Machine>, part: usize) -> Local {
        Local { machine, part }
    }

    fn part(&self) -> Result<&RunningPart, BackendError> {
        self.machine
            .parts
            .get(self.part)
            .ok_or_else(|| BackendError::Unavailable {
                message: format!("there is no component {}", self.part),
            })
    }
}

/// A record is written before its creator is answered, or never.
fn created(job: Job) -> Created {
    Created {
        job,
        may_come_again: false,
    }
}

impl Backend for Local {
    fn create(&self, new: &NewJob, resend: Resend) -> Result<Created, CreateError> {
        let part = self.part().map_err(CreateError::Nothing)?;
        let is_same = |job: &Job| {
            let keys = job.key.zip(new.key);
            keys.is_some_and(|(known, sent)| known.is_same_request(&sent))
        };
        match (resend, self.machine.look(self.part, &new.name)) {
            (Resend::Again, Ok(job)) if is_same(&job) => Ok(created(job)),
            _ => self.machine.create(self.part, part, new).map(created),
        }
    }

    fn recreate(
        &self,
        old: &Job,
        name: &JobName,
        _queued: Option<Queued>,
    ) -> Result<Created, CreateError> {
        let part = self.part().map_err(CreateError::Nothing)?;
        let again = self.machine.recreate(self.part, part, &old.name, name);
        again.map(created)
    }

    /// A job of this machine listens on the machine's own ports.
    fn expose(&self, _job: &Job) -> Result<(), BackendError> {
        Ok(())
    }

    /// A record is written with its payload or not at all.
    fn has_payload(&self, _job: &Job) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn store_payload(&self, _job: &Job, _payload: &str) -> Result<(), BackendError> {
        Ok(())
    }

    /// The machine's own queue lets jobs run.
    fn admit(&self, job: &Job) -> Result<Job, BackendError> {
        self.machine.look(self.part, &job.name)
    }

    fn stop(&self, job: &Job, _reason: &str) -> Result<Job, BackendError> {
        self.machine.stop(self.part, self.part()?, &job.name)
    }

    fn resume(&self, job: &Job, _queued: Option<Queued>) -> Result<Job, BackendError> {
        self.machine.resume(self.part, self.part()?, &job.name)
    }

    fn hide(&self, job: &Job, key: HiddenKey) -> Result<Job, BackendError> {
        self.machine.hide(self.part, self.part()?, &job.name, key)
    }

    /// What is on disk when it starts is all there is.
    fn calls_end_within(&self) -> Duration {
        Duration::ZERO
    }

    fn list(&self) -> Result<JobList, BackendError> {
        Ok(self.machine.list(self.part))
    }

    fn look(&self, name: &JobName) -> Result<Option<Job>, BackendError> {
        match self.machine.look(self.part, name) {
            Ok(job) => Ok(Some(job)),
            Err(BackendError::Gone { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn attempts(&self, name: &JobName) -> Result<Vec<Attempt>, BackendError> {
        let machine = &self.machine;
        let attempts = machine.with_entry(self.part, name, |entry| {
            entry.attempts(name, machine.next_version())
        });
        Ok(attempts.unwrap_or_default())
    }

    fn delete(&self, job: &Job, condition: Condition) -> Result<bool, BackendError> {
        let part = self.part()?;
        // A stopped job may have been restarted meanwhile.
        if condition == Condition::Unchanged
            && self
                .look(&job.name)?
                .is_some_and(|now| now.status != job.status)
        {
            let message = format!("job {} has changed", job.name);
            return Err(BackendError::Changed { message });
        }
        self.machine
            .delete(self.part, part, &job.name)
            .map_err(|e| BackendError::Unavailable {
                message: format!("the job cannot be removed from the disk: {e}"),
            })
    }

    fn logs(
        &self,
        record: &JobRecord,
        attempt: usize,
        options: LogOptions,
    ) -> Result<Box<dyn Read + Send>, BackendError> {
        // On disk they count from 1.
        let (name, attempt) = (&record.job.name, attempt + 1);
        let file = self.part()?.store.log(name, attempt);
        let follow = options.follow.then(|| -> Follow {
            let (machine, part, name) = (self.machine.clone(), self.part, name.clone());
            Box::new(move || machine.is_over(part, &name, attempt))
        });
        let log = Log::open(&file, options.tail, follow);
        log.map(|log| -> Box<dyn Read + Send> { Box::new(log) })
            .map_err(|e| BackendError::Unavailable {
                message: format!("the log of {name} cannot be read: {e}"),
            })
    }
}
