//! How far jobs are, as they say themselves: known at once, and kept with the job now and then.

use super::follow::Task;
use super::{JobError, Scheduler};
use crate::backend::BackendError;
use crate::index::Flight;
use crate::job::{JobName, JobRecord, Progress};
use crate::request::ProgressReport;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often it is kept with the job: a restart of the scheduler loses no more than what was said
/// in so long a time.
const KEEP_EVERY: Duration = Duration::from_secs(10);
/// When it is tried again with a job that has changed meanwhile.
const CHANGE_LOOK: Duration = Duration::from_millis(500);
/// A job may say so often how far it is, and so many times at once.
const REPORT_EVERY: Duration = Duration::from_millis(100);
const REPORTS_AT_ONCE: u32 = 10;
/// Jobs of which it is remembered, before those are forgotten that have said nothing for a while.
const FEW: usize = 64;

/// When each job may say again how far it is.
#[derive(Default)]
pub(super) struct Rates {
    /// The end of the time that its reports have taken.
    taken_until: HashMap<JobName, Instant>,
    /// How many there may be until some are forgotten.
    limit: usize,
}

impl Rates {
    /// Takes a report. `false` if there were too many.
    fn take(&mut self, job: &JobName, now: Instant) -> bool {
        let until = self.taken_until.get(job).copied();
        let taken = until.filter(|until| *until > now).unwrap_or(now) + REPORT_EVERY;
        if taken > now + REPORT_EVERY * REPORTS_AT_ONCE {
            return false;
        }
        if until.is_none() && self.taken_until.len() >= self.limit {
            self.taken_until.retain(|_, until| *until > now);
            self.limit = FEW.max(self.taken_until.len() * 2);
        }
        self.taken_until.insert(job.clone(), taken);
        true
    }
}

impl Scheduler {
    /// A job says how far it is. It is known at once, and kept with the job within
    /// [`KEEP_EVERY`], or when the job ends.
    pub fn report(&self, name: &str, report: ProgressReport) -> Result<JobName, JobError> {
        let record = self.find(name)?;
        let name = &record.job.name;
        let finished = || JobError::BadState {
            message: format!("job {name} has finished, and gets no further"),
        };
        if record.job.status.is_finished() {
            return Err(finished());
        }
        if !self.rates.lock().take(name, self.clock.instant()) {
            return Err(JobError::TooOften {
                message: format!("job {name} says how far it is more than ten times a second"),
            });
        }
        let progress = Progress {
            percent: report.percent,
            message: report.message.into(),
            updated: self.now(),
        };
        if !self.index.set_progress(name, progress) {
            // Just now, if it is not gone.
            return Err(self.find(name.as_str()).map_or_else(|e| e, |_| finished()));
        }
        let task = Task::KeepProgress(name.clone());
        self.queue.add_after(task, KEEP_EVERY);
        Ok(name.clone())
    }

    /// A job has come to its end.
    pub(super) fn keep_last_progress(&self, record: &JobRecord) {
        if !record.is_progress_kept() {
            self.queue.add(Task::KeepProgress(record.job.name.clone()));
        }
    }

    pub(super) fn keep_progress(&self, name: &JobName) -> Result<(), BackendError> {
        let record = self.index.get(name);
        let Some(record) = record.filter(|record| !record.is_progress_kept()) else {
            return Ok(());
        };
        let Some(progress) = &record.progress else {
            return Ok(());
        };
        let flight = self.index.begin(name, Flight::Change);
        match self.backend.keep_progress(&record.job, progress) {
            Ok(job) => {
                self.observe(job);
                drop(flight);
            }
            Err(BackendError::Changed { .. }) => {
                drop(flight);
                self.refresh(name)?;
                let task = Task::KeepProgress(name.clone());
                self.queue.add_after(task, CHANGE_LOOK);
            }
            Err(BackendError::Gone { .. }) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_reports_a_second_are_taken_of_each_job() {
        let (mut rates, begun) = (Rates::default(), Instant::now());
        let [job, other] = ["a", "b"].map(|name| JobName::parse(name).unwrap());
        let mut taken = |job: &JobName, millis: u64, times: usize| {
            let now = begun + Duration::from_millis(millis);
            (0..times).filter(|_| rates.take(job, now)).count()
        };
        assert_eq!(taken(&job, 0, 30), 10);
        assert_eq!(taken(&other, 0, 1), 1);
        assert_eq!(taken(&job, 50, 1), 0);
        assert_eq!(taken(&job, 100, 3), 1);
        assert_eq!(taken(&job, 600, 30), 5);
        assert_eq!(taken(&job, 10_000, 30), 10);
        let steady: usize = (20_000..30_000)
            .step_by(10)
            .map(|at| taken(&job, at, 1))
            .sum();
        assert!((100..=110).contains(&steady), "{steady} in ten seconds");
    }

    #[test]
    fn jobs_that_say_nothing_any_more_are_forgotten() {
        let (mut rates, begun) = (Rates::default(), Instant::now());
        for number in 0..10_000 {
            let job = JobName::parse(&format!("j{number}")).unwrap();
            assert!(rates.take(&job, begun + Duration::from_millis(number * 10)));
        }
        assert!(
            rates.taken_until.len() <= FEW,
            "{}",
            rates.taken_until.len()
        );
    }
}
