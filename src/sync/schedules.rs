//! Runs a test under many schedules of its threads: some random, some by PCT, which lets one thread run for as long as it
//! can and interrupts it at few places, as an operating system does.
//!
//! A schedule that fails is printed; `SCHEDULE=… make interleavings TEST=name` runs it again.

use super::primitives::thread;
use crate::clock::{Clock, Source};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Interruptions of PCT, and one.
const DEPTH: usize = 3;

/// Runs `test` under so many random schedules, and as many by PCT; or under that of `SCHEDULE`.
pub fn check(schedules: usize, test: fn()) {
    if let Ok(schedule) = std::env::var("SCHEDULE") {
        return shuttle::replay(test, &schedule);
    }
    Runner::new(RandomScheduler::new(schedules), config()).run(test);
    Runner::new(PctScheduler::new(DEPTH, schedules), config()).run(test);
}

fn config() -> Config {
    let mut config = Config::new();
    config.stack_size = super::STACK_BYTES;
    config.failure_persistence = FailurePersistence::Print;
    // What needs so many waits for what does not come.
    config.max_steps = MaxSteps::FailAfter(200_000);
    config
}

/// Time that passes when it is told to, and while somebody sleeps.
pub struct Time {
    start: Instant,
    millis: AtomicU64,
    seed: AtomicU64,
}

impl Time {
    pub fn start() -> Arc<Time> {
        Arc::new(Time {
            start: Instant::now(),
            millis: AtomicU64::new(0),
            seed: AtomicU64::new(0),
        })
    }

    pub fn clock(self: &Arc<Self>) -> Clock {
        Clock::of(self.clone())
    }

    /// It is this late, or later.
    pub fn reach(&self, instant: Instant) {
        let millis = (instant - self.start).as_micros().div_ceil(1000);
        let millis = u64::try_from(millis).expect("a time of a test");
        self.millis.fetch_max(millis, Ordering::SeqCst);
    }
}

impl Source for Time {
    fn micros(&self) -> u64 {
        1000 * self.millis.load(Ordering::SeqCst)
    }
    fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.millis.load(Ordering::SeqCst))
    }
    fn random(&self) -> u64 {
        self.seed.fetch_add(1, Ordering::SeqCst)
    }
    fn sleep(&self, time: Duration) {
        self.reach(self.instant() + time);
        thread::yield_now();
    }
}
