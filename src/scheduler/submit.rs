//! Submit: one request makes one job, however often it is sent and whatever of it is lost.

use super::follow::Task;
use super::{JobView, NAME_TRIES, Scheduler, TURN_TIMEOUT, no_name};
use crate::backend::{BackendError, CreateError, Created, NewJob, Resend};
use crate::config::FieldError;
use crate::index::{ABORTED_FOR, CALLS_END_WITHIN, Flight, Full, Keyed, Reservation};
use crate::job::{Job, JobName, JobRecord, RequestKey, Sent};
use crate::request::{JobRequest, MAX_PAYLOAD_BYTES};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often a request with a key looks whether the scheduler is open.
const OPEN_LOOK: Duration = Duration::from_millis(20);

/// Why no job was made.
#[derive(Debug)]
pub enum SubmitError {
    /// The first list is not here yet.
    NotReady,
    Fields(Vec<FieldError>),
    PayloadTooLarge {
        /// Of a batch, which of its jobs it is, from 0, and that one's own id.
        index: Option<(usize, Option<String>)>,
        bytes: usize,
    },
    /// All payloads of a batch together.
    BatchTooLarge {
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

pub(super) fn unavailable(message: impl Into<String>) -> BackendError {
    let message = message.into();
    BackendError::Unavailable { message }
}

/// Of a write that may have been done all the same, or may yet be.
fn unanswered(error: BackendError) -> BackendError {
    let message = error.to_string();
    BackendError::Unanswered { message }
}

/// Whether a submit made its job, or found it made by the same request before.
#[derive(Clone, Copy)]
pub(super) enum Submitted {
    Now,
    Before,
}

impl Scheduler {
    /// Creates a job. On return it is durable, with its payload, and in the index. The same `key`
    /// with the same body gives the same job, however often.
    pub fn submit(
        &self,
        request: &JobRequest,
        key: Option<RequestKey>,
    ) -> Result<JobView, SubmitError> {
        let outcome = self.submit_once(request, key);
        self.count_submit(outcome.as_ref().map(|(_, submitted)| *submitted));
        outcome.map(|(view, _)| view)
    }

    pub(super) fn count_submit(&self, outcome: Result<Submitted, &SubmitError>) {
        self.metrics.submit(match outcome {
            Ok(Submitted::Now) => "created",
            Ok(Submitted::Before) => "repeated",
            Err(SubmitError::Backend(
                BackendError::Unavailable { .. } | BackendError::Unanswered { .. },
            )) => "failed",
            Err(SubmitError::NotReady) => "failed",
            Err(_) => "refused",
        });
    }

    fn submit_once(
        &self,
        request: &JobRequest,
        key: Option<RequestKey>,
    ) -> Result<(JobView, Submitted), SubmitError> {
        if !self.is_ready() {
            return Err(SubmitError::NotReady);
        }
        if let Some(bytes) = request
            .payload
            .as_ref()
            .map(String::len)
            .filter(|bytes| *bytes > MAX_PAYLOAD_BYTES)
        {
            let index = None;
            return Err(SubmitError::PayloadTooLarge { index, bytes });
        }
        request
            .check(&self.component)
            .map_err(SubmitError::Fields)?;
        self.once(
            key,
            |known| {
                let job = &known.job;
                self.complete(known, request)
                    .map_err(SubmitError::Backend)?;
                // It may have gone meanwhile, and another have come in its place.
                match job.request().and_then(|key| self.index.by_key(key.key)) {
                    Some(Keyed::Job(now)) if now.job.uid == job.uid => Ok(self.view(now)),
                    _ => Err(SubmitError::Backend(unavailable(
                        "the job of this request is on its way out: try again",
                    ))),
                }
            },
            |in_doubt| self.create(request, key, in_doubt),
        )
    }

    /// Makes what a request asks for once, however often it comes with the same `key`: `known` is
    /// asked about what it made before, or else `create` makes it, under the name that it was sent
    /// with before where it is in doubt what came of that.
    pub(super) fn once<T>(
        &self,
        key: Option<RequestKey>,
        known: impl FnOnce(&Arc<JobRecord>) -> Result<T, SubmitError>,
        create: impl FnOnce(Option<JobName>) -> Result<T, SubmitError>,
    ) -> Result<(T, Submitted), SubmitError> {
        let Some(key) = key else {
            return Ok((create(None)?, Submitted::Now));
        };
        self.wait_until_open().map_err(SubmitError::Backend)?;
        let turn = self.turns.wait(key.key, TURN_TIMEOUT, &self.clock);
        let is_served =
            "another request with this Idempotency-Key is still being served: try again";
        let _turn = turn.ok_or_else(|| SubmitError::Backend(unavailable(is_served)))?;
        let is_same = |known: RequestKey, job: &JobName| match known.is_same_request(&key) {
            true => Ok(()),
            false => Err(SubmitError::KeyReused { job: job.clone() }),
        };
        match self.index.by_key(key.key) {
            Some(Keyed::Job(record)) => {
                let job = &record.job;
                is_same(job.request().unwrap_or(key), &job.name)?;
                Ok((known(&record)?, Submitted::Before))
            }
            Some(Keyed::InDoubt {
                name,
                request: known,
            }) => {
                is_same(known, &name)?;
                Ok((create(Some(name))?, Submitted::Now))
            }
            None => match create(None) {
                // What an earlier send of it has left may become a job if this process ends.
                Err(SubmitError::Backend(e)) if self.index.is_given_up(key.key) => {
                    Err(SubmitError::Backend(unanswered(e)))
                }
                created => Ok((created?, Submitted::Now)),
            },
        }
    }

    /// A process before this one may have created or deleted a job, and that may yet be carried
    /// out.
    pub(super) fn wait_until_open(&self) -> Result<(), BackendError> {
        let deadline = self.clock.instant() + TURN_TIMEOUT;
        while !self.all_is_known.load(Ordering::Acquire) {
            if self.clock.instant() >= deadline {
                let message =
                    "starting, and what was asked for before may not be known yet: try again";
                return Err(unavailable(message));
            }
            self.clock.sleep(OPEN_LOOK);
        }
        Ok(())
    }

    /// Does what an earlier submit of the same request may have left undone.
    fn complete(&self, record: &JobRecord, request: &JobRequest) -> Result<(), BackendError> {
        let Some(payload) = request.payload.as_ref().filter(|_| record.needs_payload()) else {
            return Ok(());
        };
        // Whatever is said of this write, an earlier one may have stored it.
        let stored = self.backend.store_payload(&record.job, payload);
        if let Err(e) = stored {
            self.index.may_come_again(&record.job.name, false);
            self.forget_later(&record.job.name);
            return Err(unanswered(e));
        }
        self.index.confirm(&record.job.name);
        self.queue.add(Task::Retain);
        Ok(())
    }

    fn create(
        &self,
        request: &JobRequest,
        key: Option<RequestKey>,
        in_doubt: Option<JobName>,
    ) -> Result<JobView, SubmitError> {
        self.with_place(|place| self.create_at(place, request, key, in_doubt))
    }

    /// `in_doubt` is the name that the request was sent under before.
    fn create_at(
        &self,
        place: &Reservation,
        request: &JobRequest,
        key: Option<RequestKey>,
        mut in_doubt: Option<JobName>,
    ) -> Result<JobView, SubmitError> {
        let settings = request.settings_for(&self.component);
        for _ in 0..NAME_TRIES {
            let (name, resend) = match in_doubt.take() {
                Some(name) => (name, Resend::Again),
                None => (self.new_name(), Resend::First),
            };
            let flight = self.index.begin(&name, Flight::Create);
            let new = NewJob {
                name: name.clone(),
                component: &self.component,
                settings: &settings,
                job_id: request.job_id.as_deref(),
                payload: request.payload.as_deref(),
                key: key.map(|key| self.sent_now(key)),
                priority: request.priority,
                queued: self.queued(place, request.priority),
            };
            let created = self.backend.create(&new, resend);
            match self.created(created, &name, new.key) {
                Ok(Some(record)) => {
                    drop(flight);
                    return self.acknowledge(record).map_err(SubmitError::Backend);
                }
                Ok(None) => {}
                Err(e) => return Err(SubmitError::Backend(e)),
            }
        }
        Err(SubmitError::Backend(no_name()))
    }

    pub(super) fn sent_now(&self, key: RequestKey) -> RequestKey {
        let sent = Sent {
            version: self.index.version(),
            micros: self.clock.unique_micros(),
        };
        RequestKey { sent, ..key }
    }

    /// Takes in what came of a create. `None` where the name was taken.
    pub(super) fn created(
        &self,
        created: Result<Created, CreateError>,
        name: &JobName,
        key: Option<RequestKey>,
    ) -> Result<Option<Arc<JobRecord>>, BackendError> {
        match created {
            Ok(created) => {
                self.note_late(&created, false);
                // It may be there for a moment more, or for good if this process ends.
                self.take_in(created.job).map(Some).map_err(unanswered)
            }
            Err(CreateError::NameTaken) => Ok(None),
            Err(CreateError::Nothing(e)) => Err(e),
            Err(CreateError::Incomplete(e)) => {
                if let Some(key) = key {
                    self.index.give_up(name, key.key);
                }
                self.abort(name);
                // Who is told for certain that nothing was done can rely on it, whatever becomes of
                // this process.
                Err(match self.discard(name) {
                    Ok(()) => e,
                    Err(_) => unanswered(e),
                })
            }
            Err(CreateError::Unanswered(e)) => {
                match key {
                    Some(key) => self.leave_in_doubt(name, key),
                    None => self.abort(name),
                }
                Err(e)
            }
        }
    }

    /// A try of its create may yet be carried out, should it be deleted before. `is_held` is
    /// whether it was sent so that it is held back.
    pub(super) fn note_late(&self, created: &Created, is_held: bool) {
        let name = &created.job.name;
        if created.may_come_again {
            self.index.may_come_again(name, is_held);
            self.forget_later(name);
        }
    }

    /// The same request may come again, and then finishes what this one began.
    fn leave_in_doubt(&self, name: &JobName, key: RequestKey) {
        self.index.create_unanswered(name, key);
        self.forget_later(name);
        self.resolve_later(name, CALLS_END_WITHIN);
        // A batch, with its jobs.
        let jobs = self.index.jobs_of(name).into_iter().map(|(job, _)| job);
        for record in self.index.known(name).into_iter().chain(jobs) {
            self.adopt(&record);
        }
    }

    /// A job that was created or resumed: into the index.
    pub(super) fn take_in(&self, job: Job) -> Result<Arc<JobRecord>, BackendError> {
        let name = job.name.clone();
        self.observe(job).ok_or_else(|| BackendError::Gone {
            message: format!("job {name} was deleted while it was being made"),
        })
    }

    /// The caller is told of the job: from now on it is.
    pub(super) fn acknowledge(&self, record: Arc<JobRecord>) -> Result<JobView, BackendError> {
        let job = &record.job;
        log::info!("job={} status={} event=created", job.name, job.status);
        self.index.confirm(&job.name);
        self.look_after(&record);
        if job.status.is_finished() {
            self.queue.add(Task::Retain);
        }
        Ok(self.view(record))
    }

    /// Gives a job up that nobody was told of. It is out of sight at once, and deleted whenever it
    /// appears. If this process ends before that, the next one cannot tell it from one that was
    /// acknowledged.
    pub(super) fn abort(&self, name: &JobName) {
        self.index.aborted(name);
        self.queue.add(Task::Discard(name.clone()));
        self.queue
            .add_after(Task::Forget(name.clone()), ABORTED_FOR);
        self.resolve_later(name, CALLS_END_WITHIN);
        // It may have been the last that needed another's payload.
        self.queue.add(Task::Retain);
        self.settle(name);
        // With a batch its jobs are out of sight, whether or not it can be deleted.
        for (record, _) in self.index.jobs_of(name) {
            self.settle(&record.job.name);
        }
    }
}
