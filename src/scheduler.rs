//! The use cases: submit, list, get, stop, restart, delete, and the tasks that follow from what is observed.

use crate::backend::{Backend, BackendError, CreateError, NewJob, Observer, Resend};
use crate::clock::Clock;
use crate::config::{FieldError, JobComponent, Settings};
use crate::index::{Bounds, Full, Index, Reservation, Transition};
use crate::job::{Attempt, Job, JobName, JobRecord, Queued, RequestKey, Status, Timestamp};
use crate::metrics::{Gauges, Metrics};
use crate::queue::Queue;
use crate::request::JobRequest;
use crate::retention;
use crate::sync::{Lock, Turns};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The largest payload, in bytes: what a Kubernetes Secret holds.
pub const MAX_PAYLOAD_BYTES: usize = 1_048_576;
/// Names differ in 8 random characters, so a second collision in a row is no accident.
const NAME_TRIES: u32 = 5;
/// Seconds after which nobody is still about to write the Secret of a Job: longer than any call may take.
const VERIFY_AFTER_SECONDS: i64 = 15;
/// A deleted job's pod is reported within this, if Kubernetes made one at the last moment.
const GHOST_TIME: Duration = Duration::from_secs(5);
/// How long a request waits for another with the same idempotency key.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);
/// Names that keyed requests keep for when they are sent again after an unknown outcome.
const MAX_KEPT_NAMES: usize = 1000;

/// What is left to do about a job, off any request's path. Each may be done again without harm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// Make a running job reachable by its name.
    Expose(JobName),
    /// Check that a job has its payload, and delete it if it has not.
    Verify(JobName),
    /// Delete what a failed submit left behind.
    Discard(JobName),
    /// A deleted job can have no pod any more that is not known.
    Forget(JobName),
    /// Let the next jobs of the queue run, as far as there is room.
    Admit,
    /// Let finished jobs go that are too many.
    Retain,
}

/// How a scheduler keeps its jobs.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Finished jobs to keep of each outcome.
    pub history: usize,
    pub bounds: Bounds,
}

/// The scheduler of one job component.
pub struct Scheduler {
    component: JobComponent,
    backend: Arc<dyn Backend>,
    index: Index,
    queue: Queue<Task>,
    limits: Limits,
    jobs_listed: AtomicBool,
    attempts_listed: AtomicBool,
    clock: Clock,
    last_arrival: Lock<u64>,
    /// One request at a time for an idempotency key.
    turns: Turns<u128>,
    kept_names: Lock<KeptNames>,
    /// Told of each job that has finished or is gone.
    settled: OnceLock<Settled>,
    siblings: OnceLock<Vec<Sibling>>,
    metrics: Arc<Metrics>,
}

type Settled = Box<dyn Fn(&JobName) + Send + Sync>;

/// Why no job was made.
#[derive(Debug)]
pub enum SubmitError {
    /// The first list is not here yet.
    NotReady,
    Fields(Vec<FieldError>),
    PayloadTooLarge {
        bytes: usize,
    },
    /// The idempotency key came before, with another body.
    KeyReused {
        job: JobName,
    },
    Full(Full),
    Backend(BackendError),
}

impl From<Full> for SubmitError {
    fn from(full: Full) -> SubmitError {
        SubmitError::Full(full)
    }
}

/// Why nothing was done to a job.
#[derive(Debug)]
pub enum JobError {
    NotReady,
    NotFound {
        name: String,
    },
    /// The job's status does not allow it.
    BadState {
        message: String,
    },
    Full(Full),
    /// What the job wrote is not there any more.
    NoLog {
        message: String,
    },
    Backend(BackendError),
}

impl From<Full> for JobError {
    fn from(full: Full) -> JobError {
        JobError::Full(full)
    }
}

/// A component that is served beside this one.
#[derive(Clone, Debug)]
pub struct Sibling {
    pub name: String,
    /// Of its console.
    pub url: String,
}

/// Whether a submit made its job, or found it made by the same request before.
enum Submitted {
    Now,
    Before,
}

/// A job, and its place in the queue, the scheduler's or the backend's, if it waits there.
#[derive(Debug)]
pub struct JobView {
    pub record: Arc<JobRecord>,
    /// From 1.
    pub position: Option<usize>,
}

impl Scheduler {
    pub fn new(
        component: JobComponent,
        backend: Arc<dyn Backend>,
        limits: Limits,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Scheduler {
        Scheduler {
            component,
            backend,
            index: Index::new(limits.bounds),
            queue: Queue::new(clock.clone()),
            limits,
            jobs_listed: AtomicBool::new(false),
            attempts_listed: AtomicBool::new(false),
            clock,
            last_arrival: Lock::new(0),
            turns: Turns::new(),
            kept_names: Lock::new(KeptNames::default()),
            settled: OnceLock::new(),
            siblings: OnceLock::new(),
            metrics,
        }
    }

    /// Has `settled` told of each job that has finished or is gone, from any thread. To be called once, at start.
    pub fn on_settled(&self, settled: Settled) {
        let _ = self.settled.set(settled);
    }

    /// Says what is served beside this component. To be called once, at start.
    pub fn beside(&self, siblings: Vec<Sibling>) {
        let _ = self.siblings.set(siblings);
    }

    pub fn siblings(&self) -> &[Sibling] {
        self.siblings.get().map_or(&[], Vec::as_slice)
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    pub fn component(&self) -> &JobComponent {
        &self.component
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The metrics, for one who outlives a borrow of the scheduler.
    pub fn shared_metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// What the metrics say of the jobs at this moment.
    pub fn gauges(&self) -> Gauges {
        let mut gauges = Gauges::default();
        for record in self.index.list() {
            let statuses = Status::ALL.iter().zip(&mut gauges.jobs);
            for (_, count) in statuses.filter(|(status, _)| **status == record.job.status) {
                *count += 1;
            }
        }
        gauges
    }

    /// The time, as the scheduler sees it.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether every job is known: from the first list on, even while the backend is out of reach.
    pub fn is_ready(&self) -> bool {
        self.jobs_listed.load(Ordering::Acquire) && self.attempts_listed.load(Ordering::Acquire)
    }

    /// Creates a job. On return it is durable, with its payload, and in the index. The same `key` with the same body gives
    /// the same job, however often.
    pub fn submit(
        &self,
        request: &JobRequest,
        key: Option<RequestKey>,
    ) -> Result<JobView, SubmitError> {
        let outcome = self.submit_once(request, key);
        self.metrics.submit(match &outcome {
            Ok((_, Submitted::Now)) => "created",
            Ok((_, Submitted::Before)) => "repeated",
            Err(SubmitError::Backend(BackendError::Unavailable { .. }) | SubmitError::NotReady) => {
                "failed"
            }
            Err(_) => "refused",
        });
        outcome.map(|(view, _)| view)
    }

    fn submit_once(
        &self,
        request: &JobRequest,
        key: Option<RequestKey>,
    ) -> Result<(JobView, Submitted), SubmitError> {
        if !self.is_ready() {
            return Err(SubmitError::NotReady);
        }
        self.check(request)?;
        let Some(key) = key else {
            return self
                .create(request, None, None)
                .map(|view| (view, Submitted::Now));
        };
        let _turn = self
            .turns
            .wait(key.key, TURN_TIMEOUT, &self.clock)
            .ok_or_else(|| {
                let message =
                    "another request with this Idempotency-Key is still being served: try again"
                        .to_string();
                SubmitError::Backend(BackendError::Unavailable { message })
            })?;
        if let Some(record) = self.index.by_key(key.key) {
            if !record
                .job
                .key
                .is_some_and(|known| known.is_same_request(&key))
            {
                return Err(SubmitError::KeyReused {
                    job: record.job.name.clone(),
                });
            }
            if let (Some(payload), false) = (&request.payload, record.job.status.is_finished()) {
                // The first one may have ended between the job and its payload.
                self.backend
                    .store_payload(&record.job, payload)
                    .map_err(SubmitError::Backend)?;
            }
            return Ok((self.view(record), Submitted::Before));
        }
        let kept = self.kept_names.lock().take(key.key);
        self.create(request, Some(key), kept)
            .map(|view| (view, Submitted::Now))
    }

    /// Takes a place for a job that `make` creates or resumes. If nothing comes of it, who waits may have it.
    fn with_place<E: From<Full>>(
        &self,
        make: impl FnOnce(&Reservation) -> Result<JobView, E>,
    ) -> Result<JobView, E> {
        let place = self.index.reserve()?;
        let made = make(&place);
        drop(place);
        self.admit_if_there_is_room();
        made
    }

    fn admit_if_there_is_room(&self) {
        if self.index.may_admit() {
            self.queue.add(Task::Admit);
        }
    }

    fn check(&self, request: &JobRequest) -> Result<(), SubmitError> {
        let mut errors = Vec::new();
        let mut error = |field: String, message: String| {
            errors.push(FieldError {
                field,
                line: None,
                message,
            })
        };
        if let Some(payload) = &request.payload {
            if payload.len() > MAX_PAYLOAD_BYTES {
                return Err(SubmitError::PayloadTooLarge {
                    bytes: payload.len(),
                });
            }
            if self.component.payload_path.is_none() {
                let message = format!(
                    "the job component {} takes none: set payload.path for it in radixconfig.yaml, or leave the payload out",
                    self.component.name
                );
                error("payload".to_string(), message);
            }
        }
        for name in self
            .component
            .secrets
            .iter()
            .filter(|name| request.settings.variables.contains_key(*name))
        {
            let message =
                "comes from the component's Secret: give the variable another name".to_string();
            error(format!("variables.{name}"), message);
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(SubmitError::Fields(errors))
        }
    }

    fn create(
        &self,
        request: &JobRequest,
        key: Option<RequestKey>,
        kept: Option<JobName>,
    ) -> Result<JobView, SubmitError> {
        self.with_place(|place| self.create_at(place, request, key, kept))
    }

    fn create_at(
        &self,
        place: &Reservation,
        request: &JobRequest,
        key: Option<RequestKey>,
        mut kept: Option<JobName>,
    ) -> Result<JobView, SubmitError> {
        let settings: Settings = self.component.settings.overridden_by(&request.settings);
        for _ in 0..NAME_TRIES {
            let resend = if kept.is_some() {
                Resend::Again
            } else {
                Resend::First
            };
            let name = kept.take().unwrap_or_else(|| self.new_name());
            let _creating = self.index.creating(&name);
            let new = NewJob {
                name: name.clone(),
                component: &self.component,
                settings: &settings,
                job_id: request.job_id.as_deref(),
                payload: request.payload.as_deref(),
                key: key.map(|key| RequestKey {
                    sent: self.unique_micros(),
                    ..key
                }),
                priority: request.priority,
                queued: self.queued(place, request.priority),
            };
            match self.backend.create(&new, resend) {
                Ok(job) => {
                    log::info!("job={name} status={} event=created", job.status);
                    return Ok(self.take_in(job));
                }
                Err(CreateError::NameTaken) => {}
                Err(CreateError::Nothing(e)) => return Err(SubmitError::Backend(e)),
                Err(CreateError::Leftover(e)) => {
                    self.index.may_exist(&name);
                    match key {
                        // The same request may come again, and then finishes what this one began.
                        Some(key) => {
                            self.kept_names.lock().keep(key.key, name.clone());
                            let later =
                                Duration::from_secs(VERIFY_AFTER_SECONDS.unsigned_abs() + 1);
                            self.queue.add_after(Task::Verify(name), later);
                        }
                        None => self.discard(&name),
                    }
                    return Err(SubmitError::Backend(e));
                }
            }
        }
        Err(SubmitError::Backend(no_name()))
    }

    fn new_name(&self) -> JobName {
        JobName::generate(&self.component.name, self.now(), &mut self.clock.rng())
    }

    /// A place in the queue for a job that may not run at once.
    fn queued(&self, place: &Reservation, priority: i8) -> Option<Queued> {
        if place.runs {
            return None;
        }
        Some(Queued {
            priority,
            arrival: self.unique_micros(),
        })
    }

    /// Microseconds since 1970, later at each call.
    fn unique_micros(&self) -> u64 {
        let mut last = self.last_arrival.lock();
        *last = self.clock.micros().max(*last + 1);
        *last
    }

    /// Deletes what is there and nobody was told of.
    fn discard_unwanted(&self) {
        for name in self.index.take_unwanted() {
            log::warn!(
                "job={name} event=unwanted reason=\"its create came late, or its request was sent again before it came\""
            );
            self.discard(&name);
        }
    }

    /// A job that was created or resumed: into the index, and on with what follows.
    fn take_in(&self, job: Job) -> JobView {
        let name = job.name.clone();
        let record = self.index.created(job);
        self.discard_unwanted();
        if record.job.status == Status::Running {
            self.queue.add(Task::Expose(name));
        }
        self.view(record)
    }

    /// Out of sight at once; a crash before the task is done leaves a Job that the next start finds.
    fn discard(&self, name: &JobName) {
        self.index.discarded(name);
        self.queue.add(Task::Discard(name.clone()));
    }

    fn view(&self, record: Arc<JobRecord>) -> JobView {
        let job = &record.job;
        let position = self.index.position(job).or(job.position);
        JobView { record, position }
    }

    /// All jobs, by name.
    pub fn list(&self) -> Result<Vec<JobView>, JobError> {
        if !self.is_ready() {
            return Err(JobError::NotReady);
        }
        let queue = self.index.queue();
        let positions: HashMap<&JobName, usize> = queue.iter().zip(1..).collect();
        let view = |record: Arc<JobRecord>| {
            let job = &record.job;
            let position = positions.get(&job.name).copied().or(job.position);
            JobView { record, position }
        };
        Ok(self.index.list().into_iter().map(view).collect())
    }

    /// The job of this name.
    pub fn get(&self, name: &str) -> Result<JobView, JobError> {
        self.find(name).map(|record| self.view(record))
    }

    fn find(&self, name: &str) -> Result<Arc<JobRecord>, JobError> {
        if !self.is_ready() {
            return Err(JobError::NotReady);
        }
        let not_found = || JobError::NotFound {
            name: name.to_string(),
        };
        JobName::parse(name)
            .and_then(|name| self.index.get(&name))
            .ok_or_else(not_found)
    }

    /// Deletes the job, running or not, with all that belongs to it.
    pub fn delete(&self, name: &str) -> Result<JobName, JobError> {
        let record = self.find(name)?;
        let name = record.job.name.clone();
        if !self.remove(&record.job).map_err(|e| job_error(&name, e))? {
            return Err(JobError::NotFound {
                name: name.to_string(),
            });
        }
        log::info!("job={name} event=deleted");
        Ok(name)
    }

    /// Deletes a job, or hides it while another uses its payload. `false` if it was gone.
    fn remove(&self, job: &Job) -> Result<bool, BackendError> {
        let Some(_going) = self.index.let_go(&job.name) else {
            self.index.job_seen(self.backend.hide(job)?);
            self.settle(&job.name);
            return Ok(true);
        };
        let there = self.backend.delete(&job.name)?;
        if self.index.deleted(&job.name) {
            self.queue
                .add_after(Task::Forget(job.name.clone()), GHOST_TIME);
        }
        self.settle(&job.name);
        if job.payload_of.is_some() {
            self.queue.add(Task::Retain);
        }
        self.admit_if_there_is_room();
        Ok(there)
    }

    /// Ends the job and keeps its record. A job that is stopped already stays so.
    pub fn stop(&self, name: &str) -> Result<JobName, JobError> {
        let record = self.find(name)?;
        self.stop_job(&record.job)?;
        Ok(record.job.name.clone())
    }

    fn stop_job(&self, job: &Job) -> Result<(), JobError> {
        let finished = |status: Status| JobError::BadState {
            message: format!(
                "job {} has {}, and only an unfinished job can be stopped",
                job.name,
                status.as_str().to_lowercase()
            ),
        };
        match job.status {
            Status::Succeeded | Status::Failed => return Err(finished(job.status)),
            Status::Stopping | Status::Stopped => return Ok(()),
            Status::Waiting | Status::Running => {}
        }
        let stopped = self
            .backend
            .stop(job)
            .map_err(|e| job_error(&job.name, e))?;
        let status = stopped.status;
        self.observe(stopped);
        match status {
            // It came to its end first.
            Status::Succeeded | Status::Failed => Err(finished(status)),
            _ => Ok(()),
        }
    }

    /// Stops every unfinished job. Returns how many; tries all before it reports the first failure.
    pub fn stop_all(&self) -> Result<usize, JobError> {
        let jobs = self.list()?;
        let unfinished = jobs.iter().map(|view| &view.record.job);
        let (mut stopped, mut failure) = (0, None);
        for job in unfinished.filter(|job| matches!(job.status, Status::Waiting | Status::Running))
        {
            match self.stop_job(job) {
                Ok(()) => stopped += 1,
                // It has finished, or is gone, meanwhile: there is nothing to stop.
                Err(JobError::BadState { .. } | JobError::NotFound { .. }) => {}
                Err(e) => failure = failure.or(Some(e)),
            }
        }
        failure.map_or(Ok(stopped), Err)
    }

    /// Runs a job again: a stopped one in place, a finished one as a new job with the same payload and settings.
    pub fn restart(&self, name: &str) -> Result<JobView, JobError> {
        let record = self.find(name)?;
        let job = &record.job;
        match job.status {
            Status::Stopped => self.resume(job),
            Status::Succeeded | Status::Failed => self.recreate(job),
            Status::Waiting | Status::Running | Status::Stopping => Err(JobError::BadState {
                message: format!(
                    "job {name} is {}, and only a finished or stopped job can be restarted",
                    job.status.as_str().to_lowercase()
                ),
            }),
        }
    }

    fn resume(&self, job: &Job) -> Result<JobView, JobError> {
        self.with_place(|place| {
            let resumed = self
                .backend
                .resume(job, self.queued(place, 0))
                .map_err(|e| job_error(&job.name, e))?;
            log::info!("job={} event=resumed", job.name);
            Ok(self.take_in(resumed))
        })
    }

    fn recreate(&self, old: &Job) -> Result<JobView, JobError> {
        let gone = || JobError::NotFound {
            name: old.name.to_string(),
        };
        let _payload = self
            .index
            .use_payload(old.payload_of.as_ref().unwrap_or(&old.name))
            .ok_or_else(gone)?;
        self.with_place(|place| self.recreate_at(place, old))
    }

    fn recreate_at(&self, place: &Reservation, old: &Job) -> Result<JobView, JobError> {
        for _ in 0..NAME_TRIES {
            let name = self.new_name();
            let _creating = self.index.creating(&name);
            match self.backend.recreate(old, &name, self.queued(place, 0)) {
                Ok(job) => {
                    log::info!(
                        "job={name} status={} event=created restart-of={}",
                        job.status,
                        old.name
                    );
                    return Ok(self.take_in(job));
                }
                Err(CreateError::NameTaken) => {}
                Err(CreateError::Nothing(e)) => return Err(job_error(&old.name, e)),
                Err(CreateError::Leftover(e)) => {
                    self.discard(&name);
                    return Err(job_error(&old.name, e));
                }
            }
        }
        Err(JobError::Backend(no_name()))
    }

    /// Does tasks until [`Scheduler::end`].
    pub fn work(&self) {
        while let Some(task) = self.queue.take() {
            self.reconcile(task);
        }
    }

    /// Does the next task that is due. `false` if there is none.
    pub fn work_once(&self) -> bool {
        let task = self.queue.try_take();
        task.map(|task| self.reconcile(task)).is_some()
    }

    /// When the next task is due, if there is one.
    pub fn next_task_due(&self) -> Option<Instant> {
        self.queue.next_due()
    }

    fn reconcile(&self, task: Task) {
        match self.perform(&task) {
            Ok(()) => self.queue.done(&task),
            Err(e) => {
                log::warn!("task={task:?} error=\"{e}\"");
                self.queue.retry(task);
            }
        }
    }

    /// Lets the workers go.
    pub fn end(&self) {
        self.queue.close();
    }

    fn perform(&self, task: &Task) -> Result<(), BackendError> {
        match task {
            Task::Expose(name) => match self.index.get(name) {
                Some(record) if record.job.status == Status::Running => {
                    self.backend.expose(&record.job)
                }
                _ => Ok(()),
            },
            Task::Verify(name) => self.verify(name),
            Task::Discard(name) => {
                self.backend.delete(name)?;
                log::info!("job={name} event=discarded");
                self.queue.add_after(Task::Forget(name.clone()), GHOST_TIME);
                Ok(())
            }
            Task::Forget(name) => {
                self.index.forget(name);
                self.admit_if_there_is_room();
                Ok(())
            }
            Task::Admit => self.admit(),
            Task::Retain => self.retain(),
        }
    }

    fn verify(&self, name: &JobName) -> Result<(), BackendError> {
        let Some(record) = self.index.get(name) else {
            // Never reported: it was not created.
            return self.perform(&Task::Forget(name.clone()));
        };
        let job = &record.job;
        if job.status.is_finished() || !job.has_payload || job.payload_of.is_some() {
            return Ok(());
        }
        let age = self.now().seconds_since(job.created);
        if age < VERIFY_AFTER_SECONDS {
            // A scheduler that is on its way out may still be between the two writes.
            let rest = Duration::from_secs((VERIFY_AFTER_SECONDS - age).unsigned_abs());
            self.queue.add_after(Task::Verify(name.clone()), rest);
            return Ok(());
        }
        // The request may come again at this moment, and store the payload.
        let turn = job
            .key
            .map(|key| self.turns.wait(key.key, TURN_TIMEOUT, &self.clock));
        if turn.is_some_and(|turn| turn.is_none()) {
            let message = "the job's request is being served again".to_string();
            return Err(BackendError::Unavailable { message });
        }
        if self.backend.has_payload(job)? {
            return Ok(());
        }
        log::warn!(
            "job={name} event=discarded reason=\"its submit was cut off before its payload was stored\""
        );
        self.remove(job).map(|_| ())
    }

    fn admit(&self) -> Result<(), BackendError> {
        while let Some((record, _slot)) = self.index.next_to_admit() {
            let job = self.backend.admit(&record.job)?;
            if let Some(queued) = record.job.queued {
                let waited = self.clock.micros().saturating_sub(queued.arrival);
                self.job_waited(Duration::from_micros(waited));
            }
            self.queue.add(Task::Expose(job.name.clone()));
            self.observe(job);
        }
        Ok(())
    }

    fn retain(&self) -> Result<(), BackendError> {
        let jobs = self.index.list();
        let ends = jobs.iter().map(|record| {
            let job = &record.job;
            (
                job.name.clone(),
                job.status,
                (job.finished.unwrap_or(job.created), job.version),
            )
        });
        for name in retention::excess(ends, self.limits.history) {
            if let Some(record) = self.index.get(&name) {
                self.remove(&record.job)?;
                self.metrics.retired.count(0);
                log::info!("job={name} event=retired");
            }
        }
        for name in self.index.hidden_and_unused() {
            if let Some(_going) = self.index.let_go(&name) {
                self.backend.delete(&name)?;
                self.index.deleted(&name);
            }
        }
        Ok(())
    }

    fn observe(&self, job: Job) {
        if let Some(transition) = self.index.job_seen(job) {
            self.follow(&transition);
        }
        self.discard_unwanted();
    }

    fn follow(&self, transition: &Transition) {
        let job = &transition.record.job;
        match transition.from {
            Some(from) => {
                let reason = transition.record.reason();
                let why = match reason.is_empty() {
                    true => String::new(),
                    false => format!(" reason={reason:?}"),
                };
                log::info!("job={} from={from} to={}{why}", job.name, job.status);
            }
            None => {
                log::debug!("job={} status={} event=seen", job.name, job.status);
                self.complete(job);
            }
        }
        if job.status.is_finished() {
            if transition.from.is_some() {
                self.metrics.finish(job.status);
            }
            self.queue.add(Task::Retain);
            self.settle(&job.name);
        }
        self.admit_if_there_is_room();
    }

    /// Does what whoever created a job may have left undone: the process before this one, or this one when it lost sight of
    /// a create.
    fn complete(&self, job: &Job) {
        if !job.status.is_finished() && !self.index.is_being_created(&job.name) {
            self.queue.add(Task::Expose(job.name.clone()));
            self.queue.add(Task::Verify(job.name.clone()));
        }
    }

    /// A job was reported gone that was not deleted here.
    fn part_with(&self, name: &JobName) {
        log::info!("job={name} event=gone");
        self.queue.add_after(Task::Forget(name.clone()), GHOST_TIME);
        self.settle(name);
    }

    fn settle(&self, name: &JobName) {
        if let Some(settled) = self.settled.get() {
            settled(name);
        }
    }
}

fn no_name() -> BackendError {
    let message = format!(
        "{NAME_TRIES} new job names in a row were taken: is another scheduler making them?"
    );
    BackendError::Unavailable { message }
}

fn job_error(name: &JobName, error: BackendError) -> JobError {
    match error {
        BackendError::Gone { .. } => JobError::NotFound {
            name: name.to_string(),
        },
        error => JobError::Backend(error),
    }
}

/// Names that were sent under an idempotency key and whose outcome is unknown, the oldest first.
#[derive(Default)]
struct KeptNames {
    names: HashMap<u128, JobName>,
    order: VecDeque<u128>,
}

impl KeptNames {
    fn keep(&mut self, key: u128, name: JobName) {
        if self.names.insert(key, name).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > MAX_KEPT_NAMES
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
    }

    fn take(&mut self, key: u128) -> Option<JobName> {
        let name = self.names.remove(&key)?;
        self.order.retain(|kept| *kept != key);
        Some(name)
    }
}

impl Observer for Scheduler {
    fn jobs_relist_begins(&self) {
        self.index.relist_begins();
    }

    fn jobs_relisted(&self, jobs: Vec<Job>) {
        let (transitions, gone) = self.index.relisted(jobs);
        self.discard_unwanted();
        for transition in transitions {
            self.follow(&transition);
        }
        for name in gone {
            self.part_with(&name);
        }
        self.jobs_listed.store(true, Ordering::Release);
        self.queue.add(Task::Retain);
        self.admit_if_there_is_room();
    }

    fn job_seen(&self, job: Job) {
        self.observe(job);
    }

    fn job_gone(&self, name: &JobName) {
        if self.index.job_gone(name) {
            self.part_with(name);
        }
        self.admit_if_there_is_room();
    }

    fn job_waited(&self, time: Duration) {
        self.metrics.queue_wait.observe(time);
    }

    fn attempts_relisted(&self, attempts: Vec<(JobName, Attempt)>) {
        self.index.attempts_relisted(attempts);
        self.attempts_listed.store(true, Ordering::Release);
        self.admit_if_there_is_room();
    }

    fn attempt_seen(&self, job: &JobName, attempt: Attempt) {
        let finished = attempt.state.is_finished();
        self.index.attempt_seen(job, attempt);
        if finished {
            self.admit_if_there_is_room();
        }
    }

    fn attempt_gone(&self, job: &JobName, attempt: &str) {
        self.index.attempt_gone(job, attempt);
        self.admit_if_there_is_room();
    }
}
