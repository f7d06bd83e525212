//! Requests that wait for a job to finish, each on its connection's thread.

use crate::job::JobName;
use crate::sync::Lock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Requests that wait at once.
pub const MAX_WAITING: usize = 1000;
/// How often one that waits looks up although nothing was told.
const LOOK: Duration = Duration::from_secs(2);

/// Who waits for which job. They are few enough to be gone through.
#[derive(Default)]
pub struct Waiting(Lock<Vec<(JobName, Thread)>>);

impl Waiting {
    /// Waits until it is over, which is looked at when the job is told of, or until the deadline.
    /// `false` if as many wait as may. Keeps in `count` how many do.
    pub fn wait(
        &self,
        job: &JobName,
        deadline: Instant,
        count: &AtomicUsize,
        is_over: impl Fn() -> bool,
    ) -> bool {
        let this = thread::current();
        {
            let mut all = self.0.lock();
            if all.len() >= MAX_WAITING {
                return false;
            }
            // Before the first look, so that nothing is missed.
            all.push((job.clone(), this.clone()));
            count.store(all.len(), Ordering::Release);
        }
        while !is_over()
            && let Some(left) = deadline.checked_duration_since(Instant::now())
        {
            thread::park_timeout(left.min(LOOK));
        }
        let mut all = self.0.lock();
        all.retain(|(_, thread)| thread.id() != this.id());
        count.store(all.len(), Ordering::Release);
        true
    }

    /// The job has finished or is gone.
    pub fn tell(&self, job: &JobName) {
        self.wake(|awaited| awaited == job);
    }

    pub fn tell_all(&self) {
        self.wake(|_| true);
    }

    fn wake(&self, is_told: impl Fn(&JobName) -> bool) {
        let all = self.0.lock();
        let told = all.iter().filter(|(job, _)| is_told(job)).cloned();
        let told: Vec<_> = told.collect();
        drop(all);
        told.iter().for_each(|(_, thread)| thread.unpark());
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
            while count.load(Ordering::Acquire) > 1 {
                thread::yield_now();
            }
            waiting.tell_all();
        });
        assert!(now.elapsed() < LOOK, "they looked up by themselves");
        assert_eq!(count.load(Ordering::Acquire), 0);
        let another = thread::spawn(|| ()).thread().clone();
        let waits = vec![(other, another); MAX_WAITING];
        waiting.0.lock().extend_from_slice(&waits[1..]);
        assert!(waiting.wait(&job, now, &count, || true));
        assert_eq!(waiting.0.lock().len(), MAX_WAITING - 1);
        waiting.0.lock().extend_from_slice(&waits[..1]);
        assert!(!waiting.wait(&job, now, &count, || true));
        assert_eq!(waiting.0.lock().len(), MAX_WAITING);
    }
}
