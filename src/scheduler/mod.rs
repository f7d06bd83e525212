//! The use cases: submit, list, get, stop, restart, delete, and the tasks that follow from what is
//! observed.

mod batch;
mod control;
mod doubt;
mod follow;
#[cfg(test)]
#[cfg(feature = "shuttle")]
mod interleavings;
mod progress;
mod retain;
mod submit;

pub use batch::BatchView;
pub use submit::SubmitError;

use crate::backend::{Backend, BackendError};
use crate::clock::Clock;
use crate::config::JobComponent;
use crate::index::{Bounds, Follower, Full, Index, Reservation};
use crate::job::{Job, JobFilter, JobName, JobRecord, Queued, Status, Timestamp};
use crate::metrics::{Gauges, Metrics};
use crate::queue::Queue;
use crate::sync::{Lock, Turns};
use follow::Task;
use progress::Rates;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Names differ in 8 random characters, so a second collision in a row is no accident.
const NAME_TRIES: u32 = 5;
/// How long a request waits for another with the same idempotency key.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);

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
    /// Whether all is known that a process before this one asked for.
    all_is_known: AtomicBool,
    clock: Clock,
    /// One request at a time for an idempotency key.
    turns: Turns<u128>,
    rates: Lock<Rates>,
    /// Told of each job that has finished or is gone.
    settled: OnceLock<Settled>,
    siblings: OnceLock<Vec<Sibling>>,
    metrics: Arc<Metrics>,
}

type Settled = Box<dyn Fn(&JobName) + Send + Sync>;

/// Why nothing was done to a job.
#[derive(Debug)]
pub enum JobError {
    NotReady,
    NotFound {
        name: String,
    },
    BatchNotFound {
        name: String,
    },
    /// The job's status does not allow it.
    BadState {
        message: String,
    },
    Full(Full),
    /// It was asked for too often in a short time.
    TooOften {
        message: String,
    },
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
        let queue = Queue::new(clock.clone());
        let index = Index::new(limits.bounds, clock.clone());
        let calls_end_within = backend.calls_end_within();
        let all_is_known = calls_end_within.is_zero();
        match all_is_known {
            true => index.is_told_at_once(),
            false => queue.add_after(Task::Open, calls_end_within),
        }
        Scheduler {
            component,
            backend,
            index,
            queue,
            limits,
            jobs_listed: AtomicBool::new(false),
            attempts_listed: AtomicBool::new(false),
            all_is_known: AtomicBool::new(all_is_known),
            clock,
            turns: Turns::new(),
            rates: Lock::default(),
            settled: OnceLock::new(),
            siblings: OnceLock::new(),
            metrics,
        }
    }

    /// Has `settled` told of each job that has finished or is gone, from any thread. To be called
    /// once, at start.
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

    /// What the metrics say of the jobs at this moment.
    pub fn gauges(&self) -> Gauges {
        let mut gauges = Gauges {
            followers: self.index.followers(),
            ..Gauges::default()
        };
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

    /// All single jobs, in the order in which they came.
    pub fn list(&self) -> Result<Vec<JobView>, JobError> {
        self.list_of(&JobFilter::default())
    }

    /// The single jobs that are wanted, in the order in which they came.
    pub fn list_of(&self, filter: &JobFilter) -> Result<Vec<JobView>, JobError> {
        if !self.is_ready() {
            return Err(JobError::NotReady);
        }
        let is_wanted = |job: &Job| filter.takes(job) && job.batch_of().is_none();
        let mut jobs = self.index.in_order(is_wanted);
        let too_many = jobs
            .len()
            .saturating_sub(filter.limit.unwrap_or(usize::MAX));
        let wanted = jobs.drain(too_many..);
        Ok(wanted
            .map(|(record, position)| JobView {
                position: position.or(record.job.rare.position),
                record,
            })
            .collect())
    }

    /// The job of this name.
    pub fn get(&self, name: &str) -> Result<JobView, JobError> {
        self.find(name).map(|record| self.view(record))
    }

    /// Follows what changes of the jobs; `None` if as many do as may.
    pub fn follower(&self) -> Option<Follower<'_>> {
        self.index.follow()
    }

    /// Has those that follow look whether it is over.
    pub fn call_followers(&self) {
        self.index.call_followers();
    }

    fn find(&self, name: &str) -> Result<Arc<JobRecord>, JobError> {
        if !self.is_ready() {
            return Err(JobError::NotReady);
        }
        let found = JobName::parse(name).and_then(|name| self.index.get(&name));
        found.ok_or_else(|| not_found(name))
    }

    fn view(&self, record: Arc<JobRecord>) -> JobView {
        let job = &record.job;
        let position = self.index.position(job).or(job.rare.position);
        JobView { record, position }
    }

    /// Takes a place for a job that `make` creates or resumes. If nothing comes of it, who waits
    /// may have it.
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

    fn new_name(&self) -> JobName {
        JobName::generate(&self.component.name, self.now(), &mut self.clock.rng())
    }

    /// A place in the queue for a job that may not run at once.
    fn queued(&self, place: &Reservation, priority: i8) -> Option<Queued> {
        let arrival = || self.clock.unique_micros();
        (!place.runs).then(|| Queued {
            priority,
            arrival: arrival(),
        })
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

    /// Tells who waits for the job, or for its batch.
    fn settle(&self, name: &JobName) {
        if let Some(settled) = self.settled.get() {
            settled(name);
            let record = self.index.known(name);
            let batch = record.as_ref().and_then(|record| record.job.batch_of());
            batch.into_iter().for_each(settled);
        }
    }
}

fn not_found(name: &str) -> JobError {
    let name = name.to_string();
    JobError::NotFound { name }
}

fn no_name() -> BackendError {
    let message = format!(
        "{NAME_TRIES} new job names in a row were taken: is another scheduler making them?"
    );
    BackendError::Unavailable { message }
}

fn job_error(name: &JobName, error: BackendError) -> JobError {
    match error {
        BackendError::Gone { .. } => not_found(name.as_str()),
        error => JobError::Backend(error),
    }
}

#[cfg(test)]
mod tests;
