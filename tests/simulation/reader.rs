//! Who follows the changes of a process's jobs, as a reader of its events does: now and then, a few
//! at a time. When all has come to rest, it must have been told of each job as it is.

use crate::sim::Sim;
use job_scheduler::batch::summary::Summary;
use job_scheduler::index::Changed;
use job_scheduler::job::JobRecord;
use job_scheduler::scheduler::Scheduler;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Default)]
pub struct Reader {
    /// The number up to which it knows all changes.
    known: u64,
    /// By name.
    jobs: BTreeMap<String, String>,
}

/// What a job is told to be, in words.
fn told(record: &JobRecord, position: Option<usize>) -> String {
    let JobRecord {
        job,
        attempts,
        notice,
        progress,
        ..
    } = record;
    let attempts: Vec<String> = attempts
        .iter()
        .map(|one| {
            let result = one.result.as_ref().map(|result| &result.text);
            format!(
                "{} {:?} {:?} {result:?}",
                one.name, one.state, one.exit_code
            )
        })
        .collect();
    let progress = progress.as_ref().map(|progress| &progress.message);
    format!(
        "{} {} {:?} {position:?} {:?} {:?} {notice:?} {progress:?} {attempts:?}",
        job.uid, job.status, job.failed, job.finished, job.rare.restarted
    )
}

/// What a batch is told to be.
fn of_batch<'a>(jobs: impl Iterator<Item = &'a Arc<JobRecord>>) -> String {
    format!("{:?}", Summary::of(&[], jobs.map(|record| &**record)))
}

impl Reader {
    /// Reads at most `limit` changes. Returns whether there were any, and what was wrong with them.
    fn read(&mut self, scheduler: &Scheduler, limit: usize) -> (bool, Option<String>) {
        let Some(follower) = scheduler.follower() else {
            return (false, Some("nobody may follow".to_string()));
        };
        if scheduler.gauges().followers != 1 {
            let what = format!("{} follow, not 1", scheduler.gauges().followers);
            return (false, Some(what));
        }
        let (before, mut wrong) = (self.known, None);
        let mut last = before;
        let look = |changed: Changed| {
            if changed.number <= last {
                wrong = Some(format!("change {} comes after {last}", changed.number));
            }
            last = changed.number;
            let name = changed.name.to_string();
            match changed.record {
                Some(whole) if whole.job.batch_whole().is_some() => {
                    drop(self.jobs.insert(name, of_batch(changed.jobs().iter())));
                }
                Some(record) => drop(self.jobs.insert(name, told(record, changed.position()))),
                None => drop(self.jobs.remove(&name)),
            }
        };
        match follower.changed_since(before, limit, look) {
            Some(known) => self.known = known,
            None => wrong = Some(format!("it missed something after {before}")),
        }
        drop(follower);
        if scheduler.gauges().followers > 0 {
            wrong = Some("one follows who has gone".to_string());
        }
        (self.known > before, wrong)
    }
}

impl Sim {
    /// The reader of a process reads, with or without all that there is to read.
    pub fn read_changes(&mut self, number: usize, limit: usize) -> bool {
        let scheduler = self.processes[number].scheduler.clone();
        let (any, wrong) = self.processes[number].reader.read(&scheduler, limit);
        if let Some(what) = wrong {
            self.violate("follower", what);
        }
        any && self.violation.is_none()
    }

    /// All has come to rest: what the reader was told is what there is.
    pub fn check_reader(&mut self, number: usize) {
        let scheduler = self.processes[number].scheduler.clone();
        // Who waits has the places in the queue told.
        if let Some(follower) = scheduler.follower() {
            follower.wait(follower.last_change(), Duration::ZERO, || false);
        }
        while self.read_changes(number, 3) {}
        let Ok(views) = scheduler.list() else {
            return;
        };
        let batches = scheduler.batches().unwrap_or_default();
        let wholes = batches.iter().map(|batch| {
            let jobs = batch.jobs.iter().map(|view| &view.record);
            (batch.whole.job.name.to_string(), of_batch(jobs))
        });
        let members = batches.iter().flat_map(|batch| &batch.jobs);
        let there = views.iter().chain(members).map(|view| {
            let name = view.record.job.name.to_string();
            (name, told(&view.record, view.position))
        });
        let there = there.chain(wholes);
        let mut there: BTreeMap<String, String> = there.collect();
        let known = &self.processes[number].reader.jobs;
        // One that was done again, and that somebody refuses to have hidden, has no place in its
        // batch any more.
        for name in known.keys() {
            if let Ok(view) = scheduler.get(name)
                && view.record.job.batch_of().is_some()
            {
                let told = told(&view.record, view.position);
                there.entry(name.clone()).or_insert(told);
            }
        }
        if *known != there {
            let what = format!("process {number}'s reader knows {known:?}, there is {there:?}");
            self.violate("follower", what);
        }
    }
}
