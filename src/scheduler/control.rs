//! What is asked of a job that there is: delete, stop, restart.

use super::follow::Task;
use super::submit::unavailable;
use super::{
    JobError, JobView, NAME_TRIES, Scheduler, TURN_TIMEOUT, job_error, no_name, not_found,
};
use crate::backend::{BackendError, Condition, HiddenKey};
use crate::batch::place_digest;
use crate::index::{CALLS_END_WITHIN, Flight, InFlight};
use crate::job::{Job, JobName, Status, Timestamp};
use crate::sync::Turn;

/// How often a change is tried anew that meets another.
const CHANGE_TRIES: u32 = 3;

impl Scheduler {
    /// Deletes the job, running or not, with all that belongs to it.
    pub fn delete(&self, name: &str) -> Result<JobName, JobError> {
        let record = self.find(name)?;
        let name = record.job.name.clone();
        if let Some(batch) = record.job.batch_of() {
            let message =
                format!("{name} is not a single job: stop it, or delete its batch {batch}");
            return Err(JobError::Backend(BackendError::Invalid { message }));
        }
        // A try of its create that was not answered would bring it back.
        self.not_while_it_is_made(&name)?;
        let removed = self.remove(&record.job, Condition::Whatever, HiddenKey::Forgotten);
        match removed.map_err(|e| job_error(&name, e))? {
            true => log::info!("job={name} event=deleted"),
            false => return Err(not_found(name.as_str())),
        }
        Ok(name)
    }

    /// Deletes a job, or hides it while another uses its payload. `false` if it was gone.
    pub(super) fn remove(
        &self,
        job: &Job,
        condition: Condition,
        key: HiddenKey,
    ) -> Result<bool, BackendError> {
        let Some(flight) = self.index.begin(&job.name, Flight::Deletion) else {
            if job.batch_whole().is_some() {
                return Err(unavailable(format!(
                    "jobs of {} are being restarted: try again",
                    job.name
                )));
            }
            self.hide(job, key, self.now())?;
            return Ok(true);
        };
        let deleted = self.backend.delete(job, condition);
        if let Err(BackendError::Unanswered { .. }) = deleted {
            self.may_yet_go(&job.name);
        }
        let is_there = deleted?;
        self.index.deleted(job);
        drop(flight);
        self.gone(&job.name);
        if job.rare.payload_of.is_some() {
            self.queue.add(Task::Retain);
        }
        Ok(is_there)
    }

    /// Takes a job out of its users' sight.
    pub(super) fn hide(
        &self,
        job: &Job,
        key: HiddenKey,
        at: Timestamp,
    ) -> Result<(), BackendError> {
        // Somebody may delete it before the answer, which is then no news.
        let _flight = self.index.begin(&job.name, Flight::Change);
        let hidden = self.backend.hide(job, key, at);
        let is_batch = job.batch_whole().is_some();
        if let Err(BackendError::Unanswered { .. }) = hidden
            && is_batch
        {
            // None of its jobs is restarted that may go with it.
            self.may_yet_go(&job.name);
        }
        self.observe(hidden?);
        self.settle(&job.name);
        Ok(())
    }

    /// What takes it away was not answered, and may be carried out late.
    fn may_yet_go(&self, name: &JobName) {
        self.index.deletion_unanswered(name);
        self.forget_later(name);
    }

    /// Ends the job and keeps its record. A job that is stopped already stays so.
    pub fn stop(&self, name: &str) -> Result<JobName, JobError> {
        let record = self.find(name)?;
        self.stop_job(&record.job, "")?;
        Ok(record.job.name.clone())
    }

    /// `reason` is for the job's user; empty where somebody asked for it.
    pub(super) fn stop_job(&self, job: &Job, reason: &str) -> Result<(), JobError> {
        self.change(job, |job| self.stop_as_it_is(job, reason))
    }

    fn stop_as_it_is(&self, job: &Job, reason: &str) -> Result<(), JobError> {
        let finished = |status: Status| JobError::BadState {
            message: format!(
                "job {} has {}, and only an unfinished job can be stopped",
                job.name,
                status.as_str().to_lowercase()
            ),
        };
        let flight = self.index.begin(&job.name, Flight::Stop);
        // Now that it gets no end before the answer.
        let record = self.index.known(&job.name);
        let job = record.as_ref().map_or(job, |record| &record.job);
        match job.status {
            Status::Succeeded | Status::Failed => return Err(finished(job.status)),
            Status::Stopping | Status::Stopped => return Ok(()),
            Status::Waiting | Status::Running => {}
        }
        let stopped = self.backend.stop(job, reason);
        if let Err(BackendError::Unanswered { .. }) = stopped {
            self.index.stop_unanswered(&job.name);
            self.resolve_later(&job.name, CALLS_END_WITHIN);
        }
        let status = stopped.map(|stopped| {
            let status = stopped.status;
            self.observe(stopped);
            status
        });
        drop(flight);
        // It may have ended meanwhile.
        self.follow(self.index.conclude(&job.name));
        match status.map_err(|e| job_error(&job.name, e))? {
            // It came to its end first.
            status @ (Status::Succeeded | Status::Failed) => Err(finished(status)),
            _ => Ok(()),
        }
    }

    /// Stops every unfinished job. Returns how many; tries all before it reports the first failure.
    pub fn stop_all(&self) -> Result<usize, JobError> {
        self.stop_each(self.list()?.iter())
    }

    pub(super) fn stop_each<'a>(
        &self,
        jobs: impl Iterator<Item = &'a JobView>,
    ) -> Result<usize, JobError> {
        let jobs = jobs.map(|view| &view.record.job);
        let (waiting, others): (Vec<&Job>, Vec<&Job>) =
            jobs.partition(|job| job.status == Status::Waiting);
        let running = others
            .into_iter()
            .filter(|job| job.status == Status::Running);
        let (mut stopped, mut failure) = (0, None);
        // Those that wait, the last of them first: a place that becomes free is for none of them.
        for job in waiting.into_iter().rev().chain(running) {
            match self.stop_job(job, "") {
                Ok(()) => stopped += 1,
                // It has finished, or is gone, meanwhile: there is nothing to stop.
                Err(JobError::BadState { .. } | JobError::NotFound { .. }) => {}
                Err(e) => failure = failure.or(Some(e)),
            }
        }
        failure.map_or(Ok(stopped), Err)
    }

    /// Runs a job again: a stopped one in place, a finished one as a new job with the same payload
    /// and settings.
    pub fn restart(&self, name: &str) -> Result<JobView, JobError> {
        let _of = self.keep_batch_of(&self.find(name)?.job)?;
        // Its batch may have been let go before.
        let record = self.find(name)?;
        self.change(&record.job, |job| match job.status {
            Status::Stopped => self.resume(job),
            Status::Succeeded | Status::Failed => self.recreate(job),
            Status::Waiting | Status::Running | Status::Stopping => Err(JobError::BadState {
                message: format!(
                    "job {name} is {}, and only a finished or stopped job can be restarted",
                    job.status.as_str().to_lowercase()
                ),
            }),
        })
    }

    /// A batch is not let go while one of its jobs is restarted.
    fn keep_batch_of(&self, job: &Job) -> Result<Option<InFlight<'_>>, JobError> {
        let Some(batch) = job.batch_of() else {
            return Ok(None);
        };
        // The process before this one may have let it go.
        self.wait_until_open().map_err(JobError::Backend)?;
        let pin = self.index.begin(batch, Flight::Pin);
        pin.map(Some).ok_or_else(|| {
            let message = format!("batch {batch} may be on its way out: try again");
            JobError::Backend(unavailable(message))
        })
    }

    /// A job of a batch is done again once: nobody else does that until the turn is over, and
    /// nobody has.
    fn turn_of(&self, old: &Job) -> Result<Option<Turn<'_, u128>>, JobError> {
        let Some(batch) = old.batch_of() else {
            return Ok(None);
        };
        let place = old.batch_index();
        let turn = self
            .turns
            .wait(place_digest(batch, place), TURN_TIMEOUT, &self.clock);
        let turn = turn.ok_or_else(|| {
            let message = format!("job {} is being restarted: try again", old.name);
            JobError::Backend(unavailable(message))
        })?;
        let jobs = self.index.jobs_of(batch);
        let others = jobs.iter().map(|(record, _)| &record.job);
        let mut in_place = others.filter(|job| job.batch_index() == place);
        match in_place.find(|job| job.name != old.name) {
            Some(other) => Err(JobError::BadState {
                message: format!("job {} is done again by {}", old.name, other.name),
            }),
            None => Ok(Some(turn)),
        }
    }

    /// Changes the job as it is known, and as it is then if it has changed meanwhile.
    fn change<T>(
        &self,
        job: &Job,
        change: impl Fn(&Job) -> Result<T, JobError>,
    ) -> Result<T, JobError> {
        let mut changed = change(job);
        for _ in 1..CHANGE_TRIES {
            if !matches!(
                changed,
                Err(JobError::Backend(BackendError::Changed { .. }))
            ) {
                break;
            }
            self.refresh(&job.name)
                .map_err(|e| job_error(&job.name, e))?;
            let record = self.find(job.name.as_str())?;
            changed = change(&record.job);
        }
        changed
    }

    /// A job that is to run again must be whole: its submit may have been cut off.
    fn make_sure_of_payload(&self, job: &Job) -> Result<(), JobError> {
        // Retention may have hidden it meanwhile.
        let record = self.index.known(&job.name);
        if !record.is_some_and(|record| record.may_lack_payload()) {
            return Ok(());
        }
        self.not_while_it_is_made(&job.name)?;
        let found = self.has_payload(job);
        if !found.map_err(|e| job_error(&job.name, e))? {
            let message = format!("the payload of job {} is gone: submit it anew", job.name);
            return Err(JobError::BadState { message });
        }
        self.index.confirm(&job.name);
        Ok(())
    }

    pub(super) fn not_while_it_is_made(&self, name: &JobName) -> Result<(), JobError> {
        if !self.index.is_being_created(name) {
            return Ok(());
        }
        let message = format!("job {name} is still being made: try again");
        Err(JobError::Backend(unavailable(message)))
    }

    fn resume(&self, job: &Job) -> Result<JobView, JobError> {
        self.make_sure_of_payload(job)?;
        self.with_place(|place| {
            let _flight = self.index.begin(&job.name, Flight::Change);
            let queued = self.queued(place, 0);
            match self.backend.resume(job, queued) {
                Ok(resumed) => {
                    log::info!("job={} event=resumed", job.name);
                    let record = self.take_in(resumed).map_err(|e| job_error(&job.name, e))?;
                    Ok(self.view(record))
                }
                Err(e) => {
                    if queued.is_none() {
                        self.note_unanswered(job, &e);
                    }
                    Err(job_error(&job.name, e))
                }
            }
        })
    }

    /// A write that may let the job run was not answered: its place is taken until that is known.
    pub(super) fn note_unanswered(&self, job: &Job, error: &BackendError) {
        if matches!(error, BackendError::Unanswered { .. }) {
            self.index.change_unanswered(job);
            self.resolve_later(&job.name, CALLS_END_WITHIN);
        }
    }

    pub(super) fn recreate(&self, old: &Job) -> Result<JobView, JobError> {
        self.wait_until_open().map_err(JobError::Backend)?;
        let _turn = self.turn_of(old)?;
        let owner = old.rare.payload_of.as_ref().unwrap_or(&old.name);
        let pin = self.index.begin(owner, Flight::Pin);
        let pin = pin.ok_or_else(|| {
            let message = format!("job {owner} may be on its way out: try again");
            JobError::Backend(unavailable(message))
        })?;
        let again = self.make_again(old);
        drop(pin);
        // What was kept for it may go: it came to nothing, needs no payload, or has the old one's
        // place in its batch.
        self.queue.add(Task::Retain);
        again
    }

    fn make_again(&self, old: &Job) -> Result<JobView, JobError> {
        self.make_sure_of_payload(old)?;
        self.with_place(|place| {
            for _ in 0..NAME_TRIES {
                let name = match old.batch_of() {
                    Some(batch) => self.new_name_in(batch),
                    None => Some(self.new_name()),
                };
                let name = name.ok_or_else(|| JobError::Backend(no_name()))?;
                let flight = self.index.begin(&name, Flight::Create);
                let created = self.backend.recreate(old, &name, self.queued(place, 0));
                let created = self.created(created, &name, None);
                drop(flight);
                if let Some(record) = created.map_err(|e| job_error(&old.name, e))? {
                    let acknowledged = self.acknowledge(record);
                    return acknowledged.map_err(|e| job_error(&old.name, e));
                }
            }
            Err(JobError::Backend(no_name()))
        })
    }
}
