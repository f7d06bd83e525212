//! What follows from what is observed: tasks that are left to do, off any request's path.

use super::submit::unavailable;
use super::{JobError, Scheduler};
use crate::backend::{BackendError, Condition, HiddenKey, Observer};
use crate::index::{ATTEMPTS_COME_WITHIN, CALLS_END_WITHIN, Change, Flight};
use crate::job::{
    Attempt, AttemptState, Job, JobList, JobName, JobRecord, ListBegun, NO_POD_REMARK_SECONDS,
    Status, has_started,
};
use crate::process;
use crate::queue::Urgency;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long how a job failed is waited for, which its attempt tells, before that it failed is told
/// without.
const REASON_WAIT: Duration = Duration::from_secs(1);
/// How long a pod with a payload may take to start until the payload is looked for.
const SLOW_START: Duration = Duration::from_secs(20);
/// After this, that a running job has no attempt is part of its state.
const NO_ATTEMPT_REMARK: Duration = Duration::from_secs(NO_POD_REMARK_SECONDS.unsigned_abs() + 1);
/// A list of so many jobs or attempts takes memory that is worth giving back.
const LARGE_LIST: usize = 1000;
/// A batch that is not complete by then will not be, if its request does not come again.
const BATCH_MADE_WITHIN: Duration = Duration::from_secs(45);
/// Why a job is stopped that nobody asked to stop.
const PAYLOAD_GONE: &str = "its payload is gone, so that it could not start: \
    somebody deleted the Secret, or the job that had it";

/// What is left to do about a job. Each may be done again without harm.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Task {
    /// Make a running job reachable by its name.
    Expose(JobName),
    /// Check that a job has its payload, and delete it if it has not.
    Verify(JobName),
    /// Stop a job that does not start if its payload is gone.
    FindPayload(JobName),
    /// Delete what a failed submit left behind.
    Discard(JobName),
    /// Find out what there is under a name that is in doubt.
    Resolve(JobName),
    /// Nothing can come any more under a name: no create of a job that was given up or is gone, no
    /// deletion of one that is there.
    Forget(JobName),
    /// Tell who waits for a failed job, whether or not the reason is known.
    Settle(JobName),
    /// Keep with a job how far it is.
    KeepProgress(JobName),
    /// Tell who follows the jobs that a running one still has no attempt.
    Remark(JobName),
    /// Take requests with keys, now that no call of an earlier process is on its way.
    Open,
    /// Let jobs run under the cap, now that nothing of an earlier process can run that is not
    /// known.
    OpenCap,
    /// Let the next jobs of the queue run, as far as there is room.
    Admit,
    /// Let finished jobs go that are too many.
    Retain,
}

impl Urgency for Task {
    /// After a start there are two of the others for each unfinished job.
    fn is_urgent(&self) -> bool {
        !matches!(
            self,
            Task::Verify(_)
                | Task::Expose(_)
                | Task::FindPayload(_)
                | Task::KeepProgress(_)
                | Task::Remark(_)
        )
    }
}

impl Scheduler {
    pub(super) fn perform(&self, task: &Task) -> Result<(), BackendError> {
        match task {
            Task::Expose(name) => self.expose(name),
            Task::Verify(name) => self.verify(name),
            Task::FindPayload(name) => self.find_payload(name),
            Task::Discard(name) => self.discard(name),
            Task::Resolve(name) => self.resolve(name),
            Task::Forget(name) => self.forget(name),
            Task::Settle(name) => {
                self.settle(name);
                Ok(())
            }
            Task::KeepProgress(name) => self.keep_progress(name),
            Task::Remark(name) => {
                self.index.remark(name);
                Ok(())
            }
            Task::Open => self.open(),
            Task::OpenCap => self.open_cap(),
            Task::Admit => self.admit(),
            Task::Retain => self.retain(),
        }
    }

    pub(super) fn admit_if_there_is_room(&self) {
        if self.is_ready() && self.index.may_admit() {
            self.queue.add(Task::Admit);
        }
    }

    /// What the process before this one asked for is done by now, or never: so all that it made is
    /// in this list.
    fn open(&self) -> Result<(), BackendError> {
        let begun = self.index.relist_begins();
        let list = self.backend.list()?;
        self.relisted(list, begun);
        self.all_is_known.store(true, Ordering::Release);
        for change in self.index.conclude_all() {
            self.follow(change);
        }
        // One that it deleted at the last moment may yet get an attempt.
        self.queue.add_after(Task::OpenCap, ATTEMPTS_COME_WITHIN);
        Ok(())
    }

    /// What may run is known once the watch has told of it, which may be late by any time.
    fn open_cap(&self) -> Result<(), BackendError> {
        if self.limits.bounds.running > 0 && !self.knows_all_that_runs()? {
            return Err(unavailable("the watch has not told of all pods yet"));
        }
        self.index.open();
        self.admit_if_there_is_room();
        Ok(())
    }

    fn knows_all_that_runs(&self) -> Result<bool, BackendError> {
        let attempts = self.backend.all_attempts()?;
        let mut live = attempts.iter().filter(|(_, attempt)| !attempt.is_over);
        let knows_all = live.all(|(job, attempt)| self.index.knows_attempt(job, &attempt.name));
        let is_large = attempts.len() >= LARGE_LIST;
        drop(attempts);
        if is_large {
            process::give_memory_back();
        }
        Ok(knows_all)
    }

    fn expose(&self, name: &JobName) -> Result<(), BackendError> {
        let Some(record) = self
            .index
            .get(name)
            .filter(|r| r.job.status == Status::Running)
        else {
            return Ok(());
        };
        let exposed = self.backend.expose(&record.job);
        let notice = exposed
            .as_ref()
            .err()
            .map(|e| format!("not reachable by its name: {e}"));
        self.index.notice(name, &notice.unwrap_or_default());
        exposed
    }

    fn verify(&self, name: &JobName) -> Result<(), BackendError> {
        let needs_payload = |record: &Arc<JobRecord>| record.needs_payload();
        let Some(record) = self.index.known(name).filter(needs_payload) else {
            return Ok(());
        };
        let job = &record.job;
        // The request may come again at this moment, and store the payload.
        let turn = job
            .request()
            .map(|key| self.turns.wait(key.key, super::TURN_TIMEOUT, &self.clock));
        let is_served = turn.as_ref().is_some_and(Option::is_none);
        if is_served || self.index.is_changing(name) {
            return Err(unavailable("the job's request is being served again"));
        }
        // Now that no other begins.
        if self.index.could_come_late(name) {
            // A write of it is still on its way.
            self.queue
                .add_after(Task::Verify(name.clone()), CALLS_END_WITHIN);
            return Ok(());
        }
        // As it is before the look for what it needs: whoever else makes it whole changes it.
        let flight = self.index.begin(name, Flight::Change);
        let Some(job) = self.look(name)? else {
            // The watch will say so.
            return Ok(());
        };
        self.observe(job.clone());
        let is_half = || self.index.known(name).as_ref().is_some_and(needs_payload);
        let is_whole = match job.batch_whole() {
            Some(is_complete) => is_complete,
            // It has come to its end, and another scheduler may have told of that.
            None if !is_half() => return Ok(()),
            // A Secret that somebody deleted may have done its work before.
            None => self.has_payload(&job)? || has_started(&self.backend.attempts(name)?),
        };
        if is_whole {
            self.index.confirm(name);
            self.queue.add(Task::Retain);
            return Ok(());
        }
        let is_half = is_half();
        drop(flight);
        if is_half && self.remove(&job, Condition::Unchanged, HiddenKey::Forgotten)? {
            let what = match job.batch() {
                Some(_) => "batch",
                None => "job",
            };
            let reason = "its submit was cut off before all of it was stored";
            log::warn!("{what}={name} event=discarded reason=\"{reason}\"");
        }
        Ok(())
    }

    /// Whether the job's payload is stored: with the job that had it, it goes.
    pub(super) fn has_payload(&self, job: &Job) -> Result<bool, BackendError> {
        let owner = job.rare.payload_of.as_ref();
        let is_gone = owner.is_some_and(|owner| self.index.known(owner).is_none());
        Ok(!is_gone && self.backend.has_payload(job)?)
    }

    /// A container does not start without its payload, and does not say why.
    fn find_payload(&self, name: &JobName) -> Result<(), BackendError> {
        // Somebody may have let one run that is hidden.
        let Some(record) = self.index.known(name).filter(|r| is_starting(r)) else {
            return Ok(());
        };
        // A write of it is on its way, or may come with its request, sent again, or its batch's.
        let batch = record.job.batch_of();
        let whole = batch.and_then(|batch| self.index.known(batch));
        let is_made = whole.is_some_and(|whole| whole.job.batch_whole() == Some(false));
        let may_come = record.needs_payload() || is_made;
        if self.index.could_come_late(name) || may_come {
            self.find_payload_later(&record);
            return Ok(());
        }
        if self.has_payload(&record.job)? {
            return Ok(());
        }
        log::warn!("job={name} event=stopped reason=\"{PAYLOAD_GONE}\"");
        match self.stop_job(&record.job, PAYLOAD_GONE) {
            Err(JobError::Backend(e)) => Err(e),
            // It has ended, or is gone.
            _ => Ok(()),
        }
    }

    /// Admits as many as may run. One that cannot be admitted holds up no other.
    fn admit(&self) -> Result<(), BackendError> {
        // By version: one that has changed meanwhile is another matter, and nobody else may have
        // come for it while it had no place but the one that is held here.
        let (mut passed_over, mut failure) = (Vec::<(JobName, u64)>::new(), None);
        let is_wanted = |passed_over: &[(JobName, u64)], job: &Job| {
            let mut passed_over = passed_over.iter();
            !passed_over.any(|(name, version)| *name == job.name && *version == job.version)
        };
        while let Some((record, place)) = self
            .index
            .next_to_admit(|record| is_wanted(&passed_over, &record.job))
        {
            let job = &record.job;
            let flight = self.index.begin(&job.name, Flight::Change);
            let admitted = self.backend.admit(job);
            if let Err(e) = &admitted {
                self.note_unanswered(job, e);
            }
            match admitted {
                Ok(running) => {
                    if let Some(queued) = job.queued {
                        let waited = self.clock.micros().saturating_sub(queued.arrival);
                        self.job_waited(Duration::from_micros(waited));
                    }
                    self.observe(running);
                }
                Err(BackendError::Changed { .. } | BackendError::Gone { .. }) => {
                    // What the watch has not told yet.
                    failure = failure.or(self.refresh(&job.name).err());
                    passed_over.push((job.name.clone(), job.version));
                }
                Err(e @ (BackendError::Refused { .. } | BackendError::Invalid { .. })) => {
                    self.index
                        .notice(&job.name, &format!("cannot be let run: {e}"));
                    passed_over.push((job.name.clone(), job.version));
                    failure = failure.or(Some(e));
                }
                Err(e) => return Err(e),
            }
            drop((flight, place));
        }
        failure.map_or(Ok(()), Err)
    }

    /// A job as the answer to a call shows it. Returns its record; `None` if it is gone or
    /// unwanted.
    pub(super) fn observe(&self, job: Job) -> Option<Arc<JobRecord>> {
        let name = job.name.clone();
        let (record, change) = self.index.answered(job);
        let is_unwanted = change.unwanted.as_ref() == Some(&name);
        self.follow(change);
        record.filter(|_| !is_unwanted)
    }

    pub(super) fn follow(&self, change: Change) {
        if let Some(name) = change.unwanted {
            log::warn!(
                "job={name} event=unwanted reason=\"its create came late, or its request was sent again before it came\""
            );
            self.abort(&name);
        }
        if let (true, Some(transition)) = (change.contradicts, &change.transition) {
            let (name, status) = (&transition.record.job.name, transition.record.job.status);
            log::warn!(
                "job={name} event=contradiction reason=\"its end was told by its container, and Kubernetes makes it {status}\""
            );
            self.metrics.contradictions.fetch_add(1, Ordering::Relaxed);
        }
        if change.concerns_retention {
            // What it was hidden for may be over already.
            self.queue.add(Task::Retain);
        }
        if let Some(name) = change.doubtful {
            self.resolve_later(&name, ATTEMPTS_COME_WITHIN);
        }
        let Some(transition) = change.transition else {
            return self.admit_if_there_is_room();
        };
        let (record, job) = (&transition.record, &transition.record.job);
        match transition.from {
            Some(from) => {
                let reason = record.reason();
                let why = match reason.is_empty() {
                    true => String::new(),
                    false => format!(" reason={reason:?}"),
                };
                log::info!("job={} from={from} to={}{why}", job.name, job.status);
            }
            None => {
                log::debug!("job={} status={} event=seen", job.name, job.status);
                if !self.index.is_being_created(&job.name) {
                    self.adopt(record);
                }
            }
        }
        if job.status == Status::Running && record.attempts.is_empty() {
            let task = Task::Remark(job.name.clone());
            self.queue.add_after(task, NO_ATTEMPT_REMARK);
        }
        if transition.from.is_some() {
            self.look_after(record);
        }
        if job.status.is_finished() {
            if transition.from.is_some() {
                self.metrics.finish(job.status);
            }
            self.keep_last_progress(record);
            self.queue.add(Task::Retain);
            self.tell(record);
        }
        self.admit_if_there_is_room();
    }

    /// Does what whoever created a job may have left undone: the process before this one, or this
    /// one when it lost sight of a create.
    pub(super) fn adopt(&self, record: &JobRecord) {
        let job = &record.job;
        if matches!(job.status, Status::Succeeded | Status::Failed) {
            return;
        }
        self.look_after(record);
        if record.needs_payload() {
            // Another scheduler may still be between the writes.
            let made_within = match job.batch() {
                Some(_) => BATCH_MADE_WITHIN,
                None => CALLS_END_WITHIN,
            };
            self.queue
                .add_after(Task::Verify(job.name.clone()), made_within);
        }
    }

    /// Does what a job needs that runs.
    pub(super) fn look_after(&self, record: &JobRecord) {
        if record.job.status == Status::Running {
            self.queue.add(Task::Expose(record.job.name.clone()));
            self.find_payload_later(record);
        }
    }

    /// One that has no attempt yet is looked at when it comes.
    fn find_payload_later(&self, record: &JobRecord) {
        if is_starting(record) {
            let task = Task::FindPayload(record.job.name.clone());
            self.queue.add_after(task, SLOW_START);
        }
    }

    /// Tells who waits that a job has finished, once it is known how.
    fn tell(&self, record: &JobRecord) {
        let name = &record.job.name;
        let is_known = record
            .attempts
            .iter()
            .any(|a| a.state == AttemptState::Failed);
        match record.job.status == Status::Failed && !is_known {
            true => self
                .queue
                .add_after(Task::Settle(name.clone()), REASON_WAIT),
            false => self.settle(name),
        }
    }

    fn relisted(&self, list: JobList, begun: ListBegun) {
        let is_large = list.jobs.len() >= LARGE_LIST;
        let (changes, gone) = self.index.relisted(list, begun);
        for change in changes {
            self.follow(change);
        }
        for name in gone {
            self.lost(&name);
        }
        if is_large {
            process::give_memory_back();
        }
        self.queue.add(Task::Retain);
        self.admit_if_there_is_room();
    }

    /// A job is gone.
    pub(super) fn gone(&self, name: &JobName) {
        self.resolve_later(name, ATTEMPTS_COME_WITHIN);
        if self.index.is_closed(name) {
            self.forget_later(name);
        }
        self.settle(name);
        self.admit_if_there_is_room();
    }

    /// A job was reported gone that was not deleted here. It may have been the last that needed
    /// another's payload.
    pub(super) fn lost(&self, name: &JobName) {
        log::info!("job={name} event=gone");
        self.gone(name);
        self.queue.add(Task::Retain);
    }
}

/// Whether it has a payload and its container is being made.
fn is_starting(record: &JobRecord) -> bool {
    let is_pending = |attempt: &Attempt| attempt.state == AttemptState::Pending;
    record.job.has_payload
        && record.job.status == Status::Running
        && record.attempts.last().is_some_and(is_pending)
}

impl Observer for Scheduler {
    fn jobs_relist_begins(&self) -> ListBegun {
        self.index.relist_begins()
    }

    fn jobs_relisted(&self, list: JobList, begun: ListBegun) {
        self.relisted(list, begun);
        self.jobs_listed.store(true, Ordering::Release);
        self.admit_if_there_is_room();
    }

    fn job_seen(&self, job: Job) {
        let change = self.index.job_seen(job);
        self.follow(change);
    }

    fn job_gone(&self, job: &Job) {
        if self.index.job_gone(job) {
            self.lost(&job.name);
        }
    }

    fn job_waited(&self, time: Duration) {
        self.metrics.queue_wait.observe(time);
    }

    fn attempts_relisted(&self, attempts: Vec<(JobName, Attempt)>) {
        let is_large = attempts.len() >= LARGE_LIST;
        for change in self.index.attempts_relisted(attempts) {
            self.follow(change);
        }
        // One that is first seen here may be waiting for a payload that is gone.
        for record in self.index.all(is_starting) {
            self.find_payload_later(&record);
        }
        if is_large {
            process::give_memory_back();
        }
        self.attempts_listed.store(true, Ordering::Release);
        self.admit_if_there_is_room();
    }

    fn attempt_seen(&self, job: &JobName, attempt: Attempt) {
        let is_finished = attempt.state.is_finished();
        let change = self.index.attempt_seen(job, attempt);
        self.follow(change);
        let Some(record) = self.index.known(job) else {
            return self.admit_if_there_is_room();
        };
        if is_finished {
            if record.job.status.is_finished() {
                self.tell(&record);
            }
            self.admit_if_there_is_room();
        } else {
            self.find_payload_later(&record);
        }
    }

    fn attempt_gone(&self, job: &JobName, attempt: &str) {
        self.index.attempt_gone(job, attempt);
        self.admit_if_there_is_room();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_start_brings_for_each_job_lets_all_else_go_first() {
        let name = || JobName::parse("a").into_iter();
        let of = |task: fn(JobName) -> Task| name().map(task).all(|task| task.is_urgent());
        assert!(of(Task::Discard) && of(Task::Resolve) && of(Task::Forget) && of(Task::Settle));
        assert!(Task::Admit.is_urgent() && Task::Retain.is_urgent() && Task::Open.is_urgent());
        assert!(!of(Task::Verify) && !of(Task::Expose) && !of(Task::FindPayload));
        assert!(!of(Task::KeepProgress) && !of(Task::Remark));
    }

    #[test]
    fn a_remark_is_told_once_it_is_made() {
        assert!(NO_ATTEMPT_REMARK > Duration::from_secs(NO_POD_REMARK_SECONDS.unsigned_abs()));
    }
}
