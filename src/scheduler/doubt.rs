//! What is in doubt, and how that ends: somebody looks.

use super::Scheduler;
use super::follow::Task;
use crate::backend::{BackendError, Condition};
use crate::batch::job_names;
use crate::index::{ATTEMPTS_COME_WITHIN, CALLS_END_WITHIN, Flight, is_live};
use crate::job::{Attempt, AttemptState, Job, JobName};
use std::time::Duration;

impl Scheduler {
    pub(super) fn forget_later(&self, name: &JobName) {
        let task = Task::Forget(name.clone());
        self.queue.add_after(task, CALLS_END_WITHIN);
    }

    pub(super) fn resolve_later(&self, name: &JobName, delay: Duration) {
        self.queue.add_after(Task::Resolve(name.clone()), delay);
    }

    /// Sees to it that no create and no deletion came late before its name is forgotten: the watch
    /// may be late, too.
    pub(super) fn forget(&self, name: &JobName) -> Result<(), BackendError> {
        if self.index.is_closed(name) {
            // Somebody may refuse to have it deleted, for good: it is looked at again, and what
            // could come is over all the same.
            self.discard(name)
                .inspect_err(|_| self.index.nothing_comes(name))?;
        } else if self.index.could_come_late(name) || self.index.could_be_gone(name) {
            let _flight = self.index.begin(name, Flight::Change);
            // If it is another than the one that is known, that one is gone.
            self.see(name)?;
        }
        if let Some(rest) = self.index.forget(name) {
            self.queue.add_after(Task::Forget(name.clone()), rest);
        }
        self.admit_if_there_is_room();
        Ok(())
    }

    pub(super) fn discard(&self, name: &JobName) -> Result<(), BackendError> {
        // What is told of its end meanwhile is not forgotten before the answer.
        let _flight = self.index.begin(name, Flight::Change);
        if let Some(job) = self.backend.look(name)? {
            let deleted = self.backend.delete(&job, Condition::Whatever);
            let attempts_come_within = match &deleted {
                Err(BackendError::Unanswered { .. }) => CALLS_END_WITHIN + ATTEMPTS_COME_WITHIN,
                _ => ATTEMPTS_COME_WITHIN,
            };
            self.index.discarded(&job, attempts_come_within);
            self.resolve_later(name, attempts_come_within);
            if deleted? {
                self.index.deleted_unseen(&job);
            }
            log::info!("job={name} event=discarded");
        }
        self.index.nothing_is_left(name);
        Ok(())
    }

    /// Asks what there is, now that nothing can come any more that is not there.
    pub(super) fn resolve(&self, name: &JobName) -> Result<(), BackendError> {
        match self.index.doubt(name) {
            None if !self.is_stop_unnoticed(name) => return Ok(()),
            None | Some(Duration::ZERO) => {}
            Some(rest) => {
                self.resolve_later(name, rest);
                return Ok(());
            }
        }
        let flight = self.index.begin(name, Flight::Change);
        let job = self.see(name)?;
        self.follow(self.index.no_stop_comes(name));
        let doubt = self.index.doubt(name);
        if let Some(rest) = doubt.filter(|rest| !rest.is_zero()) {
            // It was let run and held back again meanwhile.
            self.resolve_later(name, rest);
            return Ok(());
        }
        let is_over = doubt.is_none() && !self.is_stop_unnoticed(name);
        if !is_over && !self.resolve_attempts(name, job)? {
            // The watch tells when what there is ends, or has not told yet that it is there.
            self.resolve_later(name, ATTEMPTS_COME_WITHIN);
            return Ok(());
        }
        drop(flight);
        if let Some(rest) = self.index.doubt(name) {
            // It was let run and held back again meanwhile.
            self.resolve_later(name, rest);
        }
        self.admit_if_there_is_room();
        Ok(())
    }

    /// `false` if something may still run or count.
    fn resolve_attempts(&self, name: &JobName, job: Option<Job>) -> Result<bool, BackendError> {
        let attempts = self.backend.attempts(name)?;
        if is_live(&attempts) {
            return Ok(false);
        }
        if let Some(job) = job.filter(|job| job.is_stop_unnoticed()) {
            if is_not_counted(&job, &attempts) {
                return Ok(false);
            }
            match self.backend.note_stop(&job) {
                Err(BackendError::Changed { .. } | BackendError::Gone { .. }) => return Ok(false),
                noted => drop(self.observe(noted?)),
            }
        }
        self.index.resolved(name);
        Ok(true)
    }

    fn is_stop_unnoticed(&self, name: &JobName) -> bool {
        let record = self.index.known(name);
        record.is_some_and(|record| record.job.is_stop_unnoticed())
    }

    /// Takes in what there is under a name, whose change is in flight.
    fn see(&self, name: &JobName) -> Result<Option<Job>, BackendError> {
        let known = self.index.known(name);
        let job = self.look(name)?;
        match (&job, known) {
            (Some(job), _) => drop(self.observe(job.clone())),
            // How it ended cannot be known: a stop may have been carried out before.
            (None, Some(known)) => {
                self.index.deleted(&known.job);
                self.lost(name);
            }
            (None, None) => {}
        }
        Ok(job)
    }

    /// What there is under a name. Before a batch is found to be complete, so are its jobs, of
    /// which the watch may not have told yet.
    pub(super) fn look(&self, name: &JobName) -> Result<Option<Job>, BackendError> {
        let job = self.backend.look(name)?;
        let known = self.index.known(name);
        let is_known = known.is_some_and(|known| known.job.batch_whole() == Some(true));
        if let Some(job) = &job
            && let Some(size) = job.complete_batch_size().filter(|_| !is_known)
        {
            for name in job_names(name, size).into_iter().flatten() {
                let _flight = self.index.begin(&name, Flight::Change);
                if self.index.known(&name).is_none()
                    && let Some(job) = self.backend.look(&name)?
                {
                    self.observe(job);
                }
            }
        }
        Ok(job)
    }

    /// Asks what has become of a job that has changed.
    pub(super) fn refresh(&self, name: &JobName) -> Result<(), BackendError> {
        let _flight = self.index.begin(name, Flight::Change);
        match self.look(name)? {
            Some(job) => {
                self.observe(job);
                Ok(())
            }
            // The watch will say so.
            None => Err(BackendError::Gone {
                message: format!("job {name} is gone"),
            }),
        }
    }
}

/// Whether a job has an attempt whose end is not in its status: it may yet turn out to be what
/// ended the job.
fn is_not_counted(job: &Job, attempts: &[Attempt]) -> bool {
    let count = |state| attempts.iter().filter(|a| a.state == state).count();
    let failed = usize::try_from(job.failed).unwrap_or(usize::MAX);
    count(AttemptState::Succeeded) > 0 || count(AttemptState::Failed) > failed
}
