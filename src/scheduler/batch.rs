//! Batches: many jobs as one, all of them or none.

use super::submit::Submitted;
use super::{JobError, JobView, NAME_TRIES, Scheduler, no_name, not_found};
use crate::backend::{BackendError, Condition, Created, HiddenKey, NewBatch, NewJob, Resend};
use crate::batch::request::{BatchRequest, TooLarge};
use crate::batch::summary::Summary;
use crate::batch::{generate_name, job_names, short_name};
use crate::config::{Settings, StatusRule};
use crate::index::Flight;
use crate::job::{JobName, JobRecord, RequestKey, Status};
use crate::scheduler::SubmitError;
use std::sync::Arc;

/// A batch, and its jobs in their order.
#[derive(Debug)]
pub struct BatchView {
    pub whole: Arc<JobRecord>,
    pub jobs: Vec<JobView>,
}

impl BatchView {
    /// Whether all of its jobs have come to an end.
    pub fn is_finished(&self) -> bool {
        let mut jobs = self.jobs.iter();
        jobs.all(|view| view.record.job.status.is_finished())
    }

    /// What there is to say of it beside its jobs.
    pub fn summary(&self, rules: &[StatusRule]) -> Summary {
        Summary::of(rules, self.jobs.iter().map(|view| &*view.record))
    }

    /// What retention keeps it with: any that failed counts for more than any that was stopped. One
    /// whose jobs somebody deleted is over.
    pub(super) fn outcome(&self) -> Option<Status> {
        if self.jobs.is_empty() {
            return Some(Status::Succeeded);
        }
        let has = |status| {
            self.jobs
                .iter()
                .any(|view| view.record.job.status == status)
        };
        let outcomes = [Status::Failed, Status::Stopped, Status::Succeeded];
        let outcome = outcomes.into_iter().find(|status| has(*status));
        outcome.filter(|_| self.is_finished())
    }
}

impl Scheduler {
    /// Creates a batch. On return it is durable, with all of its jobs and payloads, and in the
    /// index. The same `key` with the same body gives the same batch, however often.
    pub fn submit_batch(
        &self,
        request: &BatchRequest,
        key: Option<RequestKey>,
    ) -> Result<BatchView, SubmitError> {
        let outcome = self.submit_batch_once(request, key);
        self.count_submit(outcome.as_ref().map(|(_, submitted)| *submitted));
        outcome.map(|(view, _)| view)
    }

    fn submit_batch_once(
        &self,
        request: &BatchRequest,
        key: Option<RequestKey>,
    ) -> Result<(BatchView, Submitted), SubmitError> {
        if !self.is_ready() {
            return Err(SubmitError::NotReady);
        }
        request.check_size().map_err(|too_large| match too_large {
            TooLarge::All { bytes } => SubmitError::BatchTooLarge { bytes },
            TooLarge::Job { index, bytes } => {
                let job = request.jobs.get(index).and_then(|job| job.job_id.clone());
                let index = Some((index, job));
                SubmitError::PayloadTooLarge { index, bytes }
            }
        })?;
        let checked = request.check(&self.component);
        checked.map_err(SubmitError::Fields)?;
        self.once(
            key,
            |known| match known.job.batch_whole() {
                // Its request was cut off: it goes on where it ended.
                Some(false) => {
                    let name = known.job.name.clone();
                    self.create_batch(request, key, Some(name))
                }
                _ => Ok(self.view_batch(known.clone())),
            },
            |in_doubt| self.create_batch(request, key, in_doubt),
        )
    }

    /// `in_doubt` is the name that the request was sent under before.
    fn create_batch(
        &self,
        request: &BatchRequest,
        key: Option<RequestKey>,
        mut in_doubt: Option<JobName>,
    ) -> Result<BatchView, SubmitError> {
        let count = request.jobs.len();
        // Those that an earlier send made.
        let made = in_doubt.as_ref().map(|name| self.index.jobs_of(name).len());
        let place = self.index.reserve_waiting(count, made.unwrap_or(0))?;
        let settings = request.jobs.iter();
        let settings: Vec<Settings> = settings
            .map(|job| job.settings_for(&self.component))
            .collect();
        for _ in 0..NAME_TRIES {
            let (name, resend) = match in_doubt.take() {
                Some(name) => (name, Resend::Again),
                None => (self.new_batch_name()?, Resend::First),
            };
            let names = job_names(&name, count).ok_or_else(|| SubmitError::Backend(no_name()))?;
            let jobs = request.jobs.iter().zip(&settings).zip(names);
            let jobs: Vec<NewJob> = jobs
                .map(|((job, settings), name)| NewJob {
                    name,
                    component: &self.component,
                    settings,
                    job_id: job.job_id.as_deref(),
                    payload: job.payload.as_deref(),
                    key: None,
                    priority: job.priority,
                    queued: None,
                })
                .collect();
            let names = jobs.iter().map(|job| &job.name).chain([&name]);
            let flights = names.map(|name| self.index.begin(name, Flight::Create));
            let flights: Vec<_> = flights.collect();
            let new = NewBatch {
                name: name.clone(),
                component: &self.component,
                batch_id: request.batch_id.as_deref(),
                jobs: &jobs,
                key: key.map(|key| self.sent_now(key)),
                arrival: self.arrivals(count),
            };
            let created = self.backend.create_batch(&new, resend).map(|created| {
                // They are in sight once the batch is.
                for created in created.jobs {
                    self.note_late(&created, true);
                    self.observe(created.job);
                }
                Created {
                    job: created.whole,
                    may_come_again: created.may_come_again,
                }
            });
            let created = self.created(created, &name, new.key);
            drop(flights);
            if let Some(whole) = created.map_err(SubmitError::Backend)? {
                drop(place);
                log::info!("batch={name} jobs={count} event=created");
                self.index.confirm(&name);
                self.admit_if_there_is_room();
                let batch = self.view_batch(whole);
                // Somebody may have let one run before it was in sight.
                batch
                    .jobs
                    .iter()
                    .for_each(|view| self.look_after(&view.record));
                return Ok(batch);
            }
        }
        Err(SubmitError::Backend(no_name()))
    }

    fn new_batch_name(&self) -> Result<JobName, SubmitError> {
        let (component, random) = (&self.component.name, &mut self.clock.rng());
        let name = generate_name(component, self.now(), random);
        name.ok_or_else(|| SubmitError::Backend(no_name()))
    }

    /// The first of so many moments, and one more, that nobody else is given.
    pub(super) fn arrivals(&self, count: usize) -> u64 {
        let first = self.clock.unique_micros();
        for _ in 0..count {
            self.clock.unique_micros();
        }
        first
    }

    pub(super) fn view_batch(&self, whole: Arc<JobRecord>) -> BatchView {
        let jobs = self.index.jobs_of(&whole.job.name).into_iter();
        let jobs = jobs.map(|(record, position)| JobView {
            position: position.or(record.job.rare.position),
            record,
        });
        BatchView {
            jobs: jobs.collect(),
            whole,
        }
    }

    /// What batches are called, beyond the default.
    pub fn batch_status_rules(&self) -> &[StatusRule] {
        &self.component.batch_status_rules
    }

    /// All batches, in the order in which they came.
    pub fn batches(&self) -> Result<Vec<BatchView>, JobError> {
        if !self.is_ready() {
            return Err(JobError::NotReady);
        }
        let mut whole = self.index.all(|record| record.job.batch() == Some(true));
        whole.sort_by_key(|record| record.job.arrival);
        Ok(whole.into_iter().map(|one| self.view_batch(one)).collect())
    }

    /// The batch of this name.
    pub fn batch(&self, name: &str) -> Result<BatchView, JobError> {
        if !self.is_ready() {
            return Err(JobError::NotReady);
        }
        let found = JobName::parse(name).and_then(|name| self.index.known(&name));
        let found = found.filter(|record| record.job.batch() == Some(true));
        let whole = found.ok_or_else(|| batch_not_found(name))?;
        Ok(self.view_batch(whole))
    }

    /// Whether the batch is there, and not all of its jobs have come to an end.
    pub fn is_batch_unfinished(&self, name: &JobName) -> bool {
        let whole = self.index.known(name);
        whole.is_some_and(|whole| whole.job.batch() == Some(true))
            && self.index.has_unfinished(name)
    }

    /// Ends a job of a batch, given as for [`Scheduler::job_in_batch`].
    pub fn stop_in_batch(&self, batch: &str, job: &str) -> Result<JobName, JobError> {
        let name = self.job_in_batch(batch, job)?;
        let status = self.find(name.as_str())?.job.status;
        if status.is_finished() {
            let message =
                format!("cannot stop the job {name} with the status {status} in the batch {batch}");
            return Err(JobError::BadState { message });
        }
        self.stop(name.as_str())
    }

    /// The full name of a batch's job, given that or the part of it that the batch's has not.
    pub fn job_in_batch(&self, batch: &str, job: &str) -> Result<JobName, JobError> {
        let view = self.batch(batch)?;
        let job = job.to_lowercase();
        let mut names = view.jobs.iter().map(|view| &view.record.job.name);
        let found = names.find(|name| {
            name.as_str() == job || short_name(&view.whole.job.name, name) == Some(&*job)
        });
        found.cloned().ok_or_else(|| not_found(&job))
    }

    /// Ends the unfinished jobs of a batch, and keeps their records. Tries all before it reports
    /// the first failure.
    pub fn stop_batch(&self, name: &str) -> Result<(), JobError> {
        let batch = self.batch(name)?;
        if batch.is_finished() {
            let message = format!("cannot stop the batch {name} with the status Completed");
            return Err(JobError::BadState { message });
        }
        self.stop_each(batch.jobs.iter()).map(|_| ())
    }

    /// Ends the unfinished jobs of all batches. Tries all before it reports the first failure.
    pub fn stop_batches(&self) -> Result<(), JobError> {
        let batches = self.batches()?;
        let jobs = batches.iter().flat_map(|batch| &batch.jobs);
        self.stop_each(jobs).map(|_| ())
    }

    /// Runs the jobs of a batch again that have finished and not succeeded, or `all` that have
    /// finished. Tries all before it reports the first failure; what was asked for again then goes
    /// on with the others.
    pub fn restart_batch(&self, name: &str, all: bool) -> Result<BatchView, JobError> {
        let batch = self.batch(name)?;
        let statuses = batch.jobs.iter().map(|view| &view.record.job);
        let wanted = statuses
            .filter(|job| job.status.is_finished() && (all || job.status != Status::Succeeded));
        let wanted: Vec<&JobName> = wanted.map(|job| &job.name).collect();
        if wanted.is_empty() {
            let message = format!("no job of the batch {name} has finished without success");
            return Err(JobError::BadState { message });
        }
        // Once, instead of for each.
        self.wait_until_open().map_err(JobError::Backend)?;
        let mut failure = None;
        for job in wanted {
            match self.restart(job.as_str()) {
                // Somebody else has just restarted it, or has had it done again.
                Ok(_) | Err(JobError::BadState { .. } | JobError::NotFound { .. }) => {}
                Err(e) => failure = failure.or(Some(e)),
            }
        }
        failure.map_or_else(|| self.batch(name), Err)
    }

    /// A new name for a job of a batch, which does one of its again.
    pub(super) fn new_name_in(&self, batch: &JobName) -> Option<JobName> {
        let random = self.clock.rng().u64(..);
        JobName::parse(&format!(
            "{batch}-{}",
            crate::batch::digits_of(batch, random)
        ))
    }

    /// Deletes a batch, running or not, with all that belongs to it.
    pub fn delete_batch(&self, name: &str) -> Result<JobName, JobError> {
        let whole = self.batch(name)?.whole;
        let name = whole.job.name.clone();
        // A try of its create that was not answered would bring it back.
        self.not_while_it_is_made(&name)?;
        let removed = self.remove(&whole.job, Condition::Whatever, HiddenKey::Forgotten);
        match removed {
            Ok(true) => log::info!("batch={name} event=deleted"),
            Ok(false) | Err(BackendError::Gone { .. }) => {
                return Err(batch_not_found(name.as_str()));
            }
            Err(e) => return Err(JobError::Backend(e)),
        }
        Ok(name)
    }
}

fn batch_not_found(name: &str) -> JobError {
    let name = name.to_string();
    JobError::BatchNotFound { name }
}
