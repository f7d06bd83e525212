//! Requests that wait for a job to finish, each on its connection's thread.

use crate::job::JobName;
use crate::sync::Lock;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Requests that wait at once.
pub const MAX_WAITING: usize = 1000;
/// How often one that waits looks up although nothing was told.
const LOOK: Duration = Duration::from_secs(2);

/// Who waits for which job.
#[derive(Default)]
pub struct Waiting {
    by_job: Lock<HashMap<JobName, Vec<Thread>>>,
}

impl Waiting {
    /// Waits until it is over, which is looked at when the job is told of, or until the deadline.
    /// `false` if as many wait as may: `count` is how many do.
    pub fn wait(
        &self,
        job: &JobName,
        deadline: Instant,
        count: &AtomicUsize,
        is_over: impl Fn() -> bool,
    ) -> bool {
        let has_place = count.fetch_add(1, Ordering::AcqRel) < MAX_WAITING;
        if has_place {
            let this = thread::current();
            // Before the first look, so that nothing is missed.
            self.by_job
                .lock()
                .entry(job.clone())
                .or_default()
                .push(this.clone());
            while !is_over()
                && let Some(left) = deadline.checked_duration_since(Instant::now())
            {
                thread::park_timeout(left.min(LOOK));
            }
            let mut by_job = self.by_job.lock();
            if let Entry::Occupied(mut threads) = by_job.entry(job.clone()) {
                threads.get_mut().retain(|thread| thread.id() != this.id());
                if threads.get().is_empty() {
                    threads.remove();
                }
            }
        }
        count.fetch_sub(1, Ordering::AcqRel);
        has_place
    }

    /// The job has finished or is gone.
    pub fn tell(&self, job: &JobName) {
        let threads = self.by_job.lock().get(job).cloned().unwrap_or_default();
        threads.iter().for_each(Thread::unpark);
    }

    pub fn tell_all(&self) {
        self.by_job
            .lock()
            .values()
            .flatten()
            .for_each(Thread::unpark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn who_waits_goes_on_when_the_job_is_told_of_or_the_time_is_up() {
        let (waiting, count) = (Waiting::default(), AtomicUsize::new(0));
        let (job, other) = ("a", "b");
        let [job, other] = [job, other].map(|name| JobName::parse(name).unwrap());
        let now = Instant::now();
        assert!(waiting.wait(&job, now, &count, || false));

        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for job in [&job, &job, &other] {
                let (waiting, count, is_over) = (&waiting, &count, &is_over);
                scope.spawn(move || {
                    let deadline = now + Duration::from_secs(60);
                    waiting.wait(job, deadline, count, || is_over.load(Ordering::Acquire))
                });
            }
            while count.load(Ordering::Acquire) < 3 {
                thread::yield_now();
            }
            is_over.store(true, Ordering::Release);
            waiting.tell(&job);
            waiting.tell_all();
        });
        assert!(now.elapsed() < LOOK, "they looked up by themselves");
        assert_eq!(count.load(Ordering::Acquire), 0);
        assert!(waiting.by_job.lock().is_empty());
        count.store(MAX_WAITING, Ordering::Release);
        assert!(!waiting.wait(&job, now, &count, || true));
        assert_eq!(count.load(Ordering::Acquire), MAX_WAITING);
    }
}
