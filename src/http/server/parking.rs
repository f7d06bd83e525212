//! Requests that wait for a job to finish: parked, without a thread of their own.

use crate::job::JobName;
use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

/// What is parked, by the job that it waits for and by its deadline.
pub struct Parking<T> {
    parked: HashMap<u64, (JobName, Instant, T)>,
    by_job: HashMap<JobName, BTreeSet<u64>>,
    deadlines: BTreeSet<(Instant, u64)>,
    last: u64,
}

impl<T> Parking<T> {
    pub fn new() -> Self {
        Parking {
            parked: HashMap::new(),
            by_job: HashMap::new(),
            deadlines: BTreeSet::new(),
            last: 0,
        }
    }

    pub fn park(&mut self, job: JobName, deadline: Instant, what: T) {
        self.last += 1;
        self.by_job
            .entry(job.clone())
            .or_default()
            .insert(self.last);
        self.deadlines.insert((deadline, self.last));
        self.parked.insert(self.last, (job, deadline, what));
    }

    /// When the first of them has waited long enough.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Those that wait for `job`.
    pub fn take(&mut self, job: &JobName) -> Vec<T> {
        let tickets = self.by_job.get(job).cloned().unwrap_or_default();
        tickets
            .into_iter()
            .filter_map(|ticket| self.remove(ticket))
            .map(|(_, what)| what)
            .collect()
    }

    /// Those that have waited long enough, each with its job.
    pub fn expired(&mut self, now: Instant) -> Vec<(JobName, T)> {
        let due = self
            .deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline <= now);
        let tickets: Vec<u64> = due.map(|(_, ticket)| *ticket).collect();
        tickets
            .into_iter()
            .filter_map(|ticket| self.remove(ticket))
            .collect()
    }

    /// All of them.
    pub fn drain(&mut self) -> Vec<(JobName, T)> {
        let tickets: Vec<u64> = self.parked.keys().copied().collect();
        tickets
            .into_iter()
            .filter_map(|ticket| self.remove(ticket))
            .collect()
    }

    fn remove(&mut self, ticket: u64) -> Option<(JobName, T)> {
        let (job, deadline, what) = self.parked.remove(&ticket)?;
        self.deadlines.remove(&(deadline, ticket));
        if let Some(tickets) = self.by_job.get_mut(&job) {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                self.by_job.remove(&job);
            }
        }
        Some((job, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn who_waits_leaves_when_the_job_settles_or_the_time_is_up() {
        let (mut parking, now) = (Parking::new(), Instant::now());
        let name = |text: &str| JobName::parse(text).unwrap();
        let at = |seconds| now + Duration::from_secs(seconds);
        parking.park(name("a"), at(1), 1);
        parking.park(name("a"), at(3), 2);
        parking.park(name("b"), at(2), 3);
        assert_eq!(parking.next_deadline(), Some(at(1)));
        assert_eq!(parking.expired(at(1)), [(name("a"), 1)]);
        assert_eq!(parking.take(&name("a")), [2]);
        assert!(parking.take(&name("a")).is_empty());
        assert_eq!(parking.next_deadline(), Some(at(2)));
        assert_eq!(parking.drain(), [(name("b"), 3)]);
        assert!(
            parking.parked.is_empty() && parking.by_job.is_empty() && parking.deadlines.is_empty()
        );
    }
}
