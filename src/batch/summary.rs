//! A batch in a few numbers, which follow from its jobs.

use super::status;
use crate::config::{BatchStatus, StatusRule};
use crate::job::{JobRecord, Status, Timestamp};

/// What there is to say of a batch beside its jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    pub status: BatchStatus,
    /// When the first of its jobs was started.
    pub started: Option<Timestamp>,
    /// When the last of its jobs came to its end; `None` while one has not.
    pub ended: Option<Timestamp>,
    /// Its jobs by status, in the order of [`Status::ALL`].
    pub counts: [usize; Status::ALL.len()],
    /// How many jobs it has, and how many of them have come to their end.
    pub jobs: usize,
    pub finished: usize,
    /// How far its jobs are on average, 0 to 100: one that has finished is all the way, one that
    /// does not say is at its beginning.
    pub percent: u8,
}

impl Summary {
    /// Of a batch with these jobs.
    pub fn of<'a>(rules: &[StatusRule], jobs: impl Iterator<Item = &'a JobRecord>) -> Summary {
        let (mut statuses, mut percents) = (Vec::new(), 0_usize);
        let (mut started, mut ended) = (None::<Timestamp>, None::<Timestamp>);
        let mut finished = 0;
        for record in jobs {
            let job = &record.job;
            statuses.push(job.status);
            if job.status.is_finished() {
                finished += 1;
                ended = ended.max(job.finished);
                percents += 100;
            } else if let Some(progress) = &record.progress {
                percents += usize::from(progress.percent);
            }
            let earlier = job
                .started
                .filter(|at| started.is_none_or(|first| *at < first));
            started = earlier.or(started);
        }
        let all = statuses.len();
        let count = |status| statuses.iter().filter(|one| **one == status).count();
        let percent = percents.checked_div(all).unwrap_or(100).min(100);
        Summary {
            status: status::of_jobs(rules, &statuses),
            started,
            ended: ended.filter(|_| finished == all),
            counts: Status::ALL.map(count),
            jobs: all,
            finished,
            percent: u8::try_from(percent).unwrap_or(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Job, Progress};
    use std::sync::Arc;

    fn record(status: Status, started: Option<i64>, finished: Option<i64>) -> JobRecord {
        let mut job = Job::sample("a", status, 1);
        job.started = started.map(Timestamp::at);
        job.finished = finished.map(Timestamp::at);
        JobRecord::new(job, Vec::new())
    }

    fn at(percent: u8) -> Option<Arc<Progress>> {
        Some(Arc::new(Progress {
            percent,
            message: "".into(),
            updated: Timestamp::at(0),
        }))
    }

    #[test]
    fn a_batch_is_as_far_as_its_jobs_on_average() {
        let done = record(Status::Succeeded, Some(20), Some(30));
        let failed = record(Status::Failed, Some(10), Some(40));
        let mut half = record(Status::Running, Some(15), None);
        half.progress = at(50);
        let silent = record(Status::Waiting, None, None);
        let of = |jobs: &[&JobRecord]| Summary::of(&[], jobs.iter().copied());
        let some = of(&[&done, &failed, &half, &silent]);
        assert_eq!((some.jobs, some.finished, some.percent), (4, 2, 62));
        assert_eq!(some.status, BatchStatus::Active);
        assert_eq!(some.started, Some(Timestamp::at(10)));
        assert_eq!(some.ended, None);
        let counted = Status::ALL.iter().zip(some.counts);
        let counted: Vec<_> = counted.filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted.len(), 4);
        assert!(counted.iter().all(|(_, count)| *count == 1));

        let all = of(&[&done, &failed]);
        assert_eq!((all.finished, all.percent), (2, 100));
        assert_eq!(all.ended, Some(Timestamp::at(40)));
        assert_eq!(all.status, BatchStatus::Completed);
        // One job short of the end is not the end.
        let mut nearly = record(Status::Running, None, None);
        nearly.progress = at(99);
        let jobs: Vec<&JobRecord> = std::iter::repeat_n(&done, 999).chain([&nearly]).collect();
        assert_eq!(of(&jobs).percent, 99);
        assert_eq!(of(&[&silent]).started, None);
    }

    #[test]
    fn a_batch_whose_jobs_are_gone_is_over() {
        let none = Summary::of(&[], std::iter::empty());
        assert_eq!(none.status, BatchStatus::Completed);
        assert_eq!((none.percent, none.ended), (100, None));
    }
}
