//! What finished jobs and batches are let go, and when.

use super::follow::Task;
use super::{JobView, Scheduler};
use crate::backend::{BackendError, Condition, HiddenKey};
use crate::index::Flight;
use crate::job::{Job, JobRecord, Status, Timestamp};
use crate::retention::{self, Finished, Hidden};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often it is looked whether a call is over that keeps a job from being let go.
const CHANGE_LOOK: Duration = Duration::from_millis(500);

impl Scheduler {
    /// Lets go what is too much. One that cannot be let go holds up no other.
    pub(super) fn retain(&self) -> Result<(), BackendError> {
        let mut failure = None;
        let list = self.index.list();
        let (changing, list): (Vec<_>, Vec<_>) = list
            .into_iter()
            .partition(|record| self.index.is_changing(&record.job.name));
        if changing
            .iter()
            .any(|record| record.job.status.is_finished())
        {
            self.queue.add_after(Task::Retain, CHANGE_LOOK);
        }
        // One that is about to be restarted takes no other's place, nor does one that may turn out
        // to be half of a submit.
        let whole = list.iter().filter(|record| !record.needs_payload());
        // A batch goes as a whole.
        let whole = whole.filter(|record| record.job.batch_of().is_none());
        let finished = whole.map(|record| end_of(record));
        let finished = finished.filter(|(_, status, _)| status.is_finished());
        let (kept, excess) = retention::divide(finished.collect(), self.limits.history);
        let has_changed = |(name, status, _): &Finished| {
            let record = self.index.get(name);
            self.index.is_changing(name) || record.is_none_or(|r| r.job.status != *status)
        };
        for (name, ..) in excess {
            // One of those that displace it may have been restarted since the list was made.
            if kept.iter().any(has_changed) {
                self.queue.add_after(Task::Retain, CHANGE_LOOK);
                break;
            }
            if self.index.is_changing(&name) {
                self.queue.add_after(Task::Retain, CHANGE_LOOK);
                continue;
            }
            // It may have been restarted since the list was made.
            let is_over = |record: &Arc<JobRecord>| record.job.status.is_finished();
            let Some(record) = self.index.get(&name).filter(is_over) else {
                continue;
            };
            match self.retire(&record.job) {
                Ok(()) => {
                    self.metrics.retired.fetch_add(1, Ordering::Relaxed);
                    log::info!("job={name} event=retired");
                }
                Err(e) => failure = failure.or(Some(e)),
            }
        }
        for record in self.index.overtaken() {
            let hidden = self.hide(&record.job, HiddenKey::Forgotten, self.now());
            failure = failure.or(hidden.err());
        }
        failure = failure.or(self.retain_batches().err());
        for record in self.needless() {
            let removed = self.remove(&record.job, Condition::Whatever, HiddenKey::Kept);
            failure = failure.or(removed.err());
        }
        failure.map_or(Ok(()), Err)
    }

    /// Lets go the batches that are too many.
    fn retain_batches(&self) -> Result<(), BackendError> {
        let batches = self.batches().unwrap_or_default();
        let finished = batches.iter().filter_map(|batch| {
            let jobs = batch.jobs.iter().map(|view| end_of(&view.record));
            let end = jobs.map(|(_, _, end)| end).max();
            let (name, _, created) = end_of(&batch.whole);
            Some((name, batch.outcome()?, end.unwrap_or(created)))
        });
        let (kept, excess) = retention::divide(finished.collect(), self.limits.history);
        let has_changed = |(name, outcome, _): &Finished| {
            let batch = self.batch(name.as_str()).ok();
            batch.and_then(|batch| batch.outcome()) != Some(*outcome)
        };
        let mut failure = None;
        for (name, _, (end, _)) in excess {
            // None of its jobs is restarted meanwhile, nor was one of those that displace it.
            let flight = self.index.begin(&name, Flight::Deletion);
            let Some(_flight) = flight.filter(|_| !kept.iter().any(has_changed)) else {
                self.queue.add_after(Task::Retain, CHANGE_LOOK);
                continue;
            };
            let batch = self.batch(name.as_str()).ok();
            // One of its jobs may have been restarted since the list was made.
            let Some(batch) = batch.filter(|batch| batch.outcome().is_some()) else {
                continue;
            };
            let is_changing = |view: &JobView| self.index.is_changing(&view.record.job.name);
            if batch.jobs.iter().any(is_changing) {
                self.queue.add_after(Task::Retain, CHANGE_LOOK);
                continue;
            }
            match self.let_go(&batch.whole.job, end, Condition::Whatever) {
                Ok(()) => {
                    let jobs = batch.jobs.len() as u64;
                    self.metrics.retired.fetch_add(jobs, Ordering::Relaxed);
                    log::info!("batch={name} event=retired");
                }
                Err(e) => failure = failure.or(Some(e)),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn retire(&self, job: &Job) -> Result<(), BackendError> {
        // A stopped one may be restarted at this moment.
        let condition = match job.status {
            Status::Stopped => Condition::Unchanged,
            _ => Condition::Whatever,
        };
        self.let_go(job, end(job), condition)
    }

    /// A job or a batch that came to its `end` leaves its users' sight, and is gone unless its key
    /// still stands for it.
    fn let_go(&self, job: &Job, end: Timestamp, condition: Condition) -> Result<(), BackendError> {
        let is_promised = job.key.is_some() && retention::key_stands(end, self.now()).is_some();
        let at = match job.batch() {
            Some(_) => end,
            None => self.now(),
        };
        match is_promised {
            true => self.hide(job, HiddenKey::Kept, at),
            false => self.remove(job, condition, HiddenKey::Kept).map(|_| ()),
        }
    }

    /// Hidden jobs that nothing needs any more.
    fn needless(&self) -> Vec<Arc<JobRecord>> {
        let mut hidden = self.index.hidden_and_unused();
        let all = hidden.iter().map(|record| Hidden {
            has_key: record.job.key.is_some(),
            size: 1 + record.job.complete_batch_size().unwrap_or(0),
            finished: end_of(record),
        });
        let needless = retention::needless(all, self.now());
        if let Some(seconds) = needless.next {
            self.queue
                .add_after(Task::Retain, Duration::from_secs(seconds));
        }
        hidden.retain(|record| needless.names.contains(&record.job.name));
        hidden
    }
}

/// What retention goes by.
fn end_of(record: &JobRecord) -> Finished {
    let job = &record.job;
    (job.name.clone(), job.status, (end(job), job.version))
}

fn end(job: &Job) -> Timestamp {
    job.finished.unwrap_or(job.created)
}
