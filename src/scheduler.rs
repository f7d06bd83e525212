//! The use cases: submit, list, get, delete, and the tasks that follow from what is observed.

use crate::backend::{Backend, BackendError, CreateError, NewJob, Observer};
use crate::config::{FieldError, JobComponent};
use crate::index::{Full, Index, Transition};
use crate::job::{Attempt, Job, JobName, JobRecord, Status, Timestamp};
use crate::queue::Queue;
use crate::request::JobRequest;
use crate::retention;
use crate::sync::Lock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The largest payload, in bytes: what a Kubernetes Secret holds.
pub const MAX_PAYLOAD_BYTES: usize = 1_048_576;
/// Names differ in 8 random characters, so a second collision in a row is no accident.
const NAME_TRIES: u32 = 5;
/// Seconds after which nobody is still about to write the Secret of a Job: longer than any call may take.
const VERIFY_AFTER_SECONDS: i64 = 15;

/// What is left to do about a job, off any request's path. Each may be done again without harm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// Make a running job reachable by its name.
    Expose(JobName),
    /// Check that a job found at start has its payload, and delete it if it has not.
    Verify(JobName),
    /// Delete what a failed submit left behind.
    Discard(JobName),
    /// Let finished jobs go that are too many.
    Retain,
}

/// How a scheduler keeps its jobs.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Finished jobs to keep of each outcome.
    pub history: usize,
    /// Unfinished jobs to take.
    pub unfinished: usize,
}

/// The scheduler of one job component.
pub struct Scheduler {
    component: JobComponent,
    backend: Arc<dyn Backend>,
    index: Index,
    queue: Queue<Task>,
    history: usize,
    jobs_listed: AtomicBool,
    attempts_listed: AtomicBool,
    clock: fn() -> Timestamp,
    random: Lock<fastrand::Rng>,
}

/// Why no job was made.
#[derive(Debug)]
pub enum SubmitError {
    /// The first list is not here yet.
    NotReady,
    Fields(Vec<FieldError>),
    PayloadTooLarge {
        bytes: usize,
    },
    TooManyJobs {
        limit: usize,
    },
    Backend(BackendError),
}

/// Why a job was not found or not deleted.
#[derive(Debug)]
pub enum JobError {
    NotReady,
    NotFound { name: String },
    Backend(BackendError),
}

impl Scheduler {
    pub fn new(
        component: JobComponent,
        backend: Arc<dyn Backend>,
        limits: Limits,
        clock: fn() -> Timestamp,
        random: fastrand::Rng,
    ) -> Scheduler {
        Scheduler {
            component,
            backend,
            index: Index::new(limits.unfinished),
            queue: Queue::new(),
            history: limits.history,
            jobs_listed: AtomicBool::new(false),
            attempts_listed: AtomicBool::new(false),
            clock,
            random: Lock::new(random),
        }
    }

    pub fn component(&self) -> &JobComponent {
        &self.component
    }

    /// The time, as the scheduler sees it.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Whether every job is known: from the first list on, even while the backend is out of reach.
    pub fn is_ready(&self) -> bool {
        self.jobs_listed.load(Ordering::Acquire) && self.attempts_listed.load(Ordering::Acquire)
    }

    /// Creates a job. On return it is durable, with its payload, and in the index.
    pub fn submit(&self, request: &JobRequest) -> Result<Arc<JobRecord>, SubmitError> {
        if !self.is_ready() {
            return Err(SubmitError::NotReady);
        }
        self.check_payload(request)?;
        let _place = self
            .index
            .reserve()
            .map_err(|Full { limit }| SubmitError::TooManyJobs { limit })?;
        let settings = self.component.settings.overridden_by(&request.settings);
        for _ in 0..NAME_TRIES {
            let name = JobName::generate(&self.component.name, self.now(), &mut self.random.lock());
            let new = NewJob {
                name: name.clone(),
                component: &self.component,
                settings: &settings,
                job_id: request.job_id.as_deref(),
                payload: request.payload.as_deref(),
            };
            match self.backend.create(&new) {
                Ok(job) => {
                    let record = self.index.created(job);
                    log::info!("job={name} status={} event=created", record.job.status);
                    self.queue.add(Task::Expose(name));
                    return Ok(record);
                }
                Err(CreateError::NameTaken) => {}
                Err(CreateError::Nothing(e)) => return Err(SubmitError::Backend(e)),
                Err(CreateError::Leftover(e)) => {
                    // Out of sight at once; a crash before the task is done leaves a Job that the next start discards.
                    self.index.deleted(&name);
                    self.queue.add(Task::Discard(name));
                    return Err(SubmitError::Backend(e));
                }
            }
        }
        let message = format!(
            "{NAME_TRIES} new job names in a row were taken: is another scheduler making them?"
        );
        Err(SubmitError::Backend(BackendError::Unavailable { message }))
    }

    fn check_payload(&self, request: &JobRequest) -> Result<(), SubmitError> {
        let Some(payload) = &request.payload else {
            return Ok(());
        };
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(SubmitError::PayloadTooLarge {
                bytes: payload.len(),
            });
        }
        if self.component.payload_path.is_none() {
            let message = format!(
                "the job component {} takes no payload: set payload.path for it in radixconfig.yaml, or leave the payload out",
                self.component.name
            );
            return Err(SubmitError::Fields(vec![FieldError {
                field: "payload".to_string(),
                line: None,
                message,
            }]));
        }
        Ok(())
    }

    /// All jobs, by name.
    pub fn list(&self) -> Result<Vec<Arc<JobRecord>>, JobError> {
        if self.is_ready() {
            Ok(self.index.list())
        } else {
            Err(JobError::NotReady)
        }
    }

    /// The job of this name.
    pub fn get(&self, name: &str) -> Result<Arc<JobRecord>, JobError> {
        if !self.is_ready() {
            return Err(JobError::NotReady);
        }
        JobName::parse(name)
            .and_then(|name| self.index.get(&name))
            .ok_or_else(|| JobError::NotFound {
                name: name.to_string(),
            })
    }

    /// Deletes the job, running or not, with all that belongs to it.
    pub fn delete(&self, name: &str) -> Result<JobName, JobError> {
        let name = self.get(name)?.job.name.clone();
        let there = self.backend.delete(&name).map_err(JobError::Backend)?;
        self.index.deleted(&name);
        if !there {
            return Err(JobError::NotFound {
                name: name.to_string(),
            });
        }
        log::info!("job={name} event=deleted");
        Ok(name)
    }

    /// Does tasks until [`Scheduler::stop`].
    pub fn work(&self) {
        while let Some(task) = self.queue.take() {
            match self.perform(&task) {
                Ok(()) => self.queue.done(&task),
                Err(e) => {
                    log::warn!("task={task:?} error=\"{e}\"");
                    self.queue.retry(task);
                }
            }
        }
    }

    /// Lets the workers go.
    pub fn stop(&self) {
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
            Task::Verify(name) => match self.index.get(name) {
                Some(record) if !record.job.status.is_finished() => self.verify(&record.job),
                _ => Ok(()),
            },
            Task::Discard(name) => self
                .backend
                .delete(name)
                .map(|_| log::info!("job={name} event=discarded")),
            Task::Retain => self.retain(),
        }
    }

    fn verify(&self, job: &Job) -> Result<(), BackendError> {
        let age = self.now().seconds_since(job.created);
        if age < VERIFY_AFTER_SECONDS {
            // A scheduler that is on its way out may still be between the two writes.
            let rest = u64::try_from(VERIFY_AFTER_SECONDS - age).unwrap_or(0);
            self.queue
                .add_after(Task::Verify(job.name.clone()), Duration::from_secs(rest));
            return Ok(());
        }
        if self.backend.has_payload(job)? {
            return Ok(());
        }
        log::warn!(
            "job={} event=discarded reason=\"its submit was cut off before its payload was stored\"",
            job.name
        );
        self.backend.delete(&job.name)?;
        self.index.deleted(&job.name);
        Ok(())
    }

    fn retain(&self) -> Result<(), BackendError> {
        let ends = self.index.list().into_iter().map(|record| {
            let job = &record.job;
            (
                job.name.clone(),
                job.status,
                job.finished.unwrap_or(job.created),
            )
        });
        for name in retention::excess(ends, self.history) {
            self.backend.delete(&name)?;
            self.index.deleted(&name);
            log::info!("job={name} event=retired");
        }
        Ok(())
    }

    fn follow(&self, transition: &Transition) {
        let job = &transition.record.job;
        match transition.from {
            Some(from) => {
                let message = transition.record.message(self.now());
                let why = match message.is_empty() {
                    true => String::new(),
                    false => format!(" message={message:?}"),
                };
                log::info!("job={} from={from} to={}{why}", job.name, job.status);
            }
            None => log::debug!("job={} status={} event=seen", job.name, job.status),
        }
        if job.status.is_finished() {
            self.queue.add(Task::Retain);
        }
    }
}

impl Observer for Scheduler {
    fn jobs_relist_begins(&self) {
        self.index.relist_begins();
    }

    fn jobs_relisted(&self, jobs: Vec<Job>) {
        for transition in self.index.relisted(jobs) {
            self.follow(&transition);
        }
        if !self.jobs_listed.swap(true, Ordering::AcqRel) {
            // What the process before this one may have left half done.
            for record in self.index.list() {
                let job = &record.job;
                if !job.status.is_finished() {
                    self.queue.add(Task::Expose(job.name.clone()));
                    if job.has_payload {
                        self.queue.add(Task::Verify(job.name.clone()));
                    }
                }
            }
            self.queue.add(Task::Retain);
        }
    }

    fn job_seen(&self, job: Job) {
        if let Some(transition) = self.index.job_seen(job) {
            self.follow(&transition);
        }
    }

    fn job_gone(&self, name: &JobName) {
        if self.index.job_gone(name) {
            log::info!("job={name} event=gone");
        }
    }

    fn attempts_relisted(&self, attempts: Vec<(JobName, Attempt)>) {
        self.index.attempts_relisted(attempts);
        self.attempts_listed.store(true, Ordering::Release);
    }

    fn attempt_seen(&self, job: &JobName, attempt: Attempt) {
        self.index.attempt_seen(job, attempt);
    }

    fn attempt_gone(&self, job: &JobName, attempt: &str) {
        self.index.attempt_gone(job, attempt);
    }
}
