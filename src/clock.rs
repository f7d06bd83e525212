//! Time and randomness, passed in: what depends on them can be run in simulated time, and run again
//! from a seed.

use crate::job::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// Where time and randomness come from.
pub trait Source: Send + Sync {
    /// Microseconds since 1970, as the machine believes: it may be wrong, and set back.
    fn micros(&self) -> u64;
    /// The monotonic clock.
    fn instant(&self) -> Instant;
    fn random(&self) -> u64;
    /// Returns after this time.
    fn sleep(&self, time: Duration);
}

/// A handle on a [`Source`].
#[derive(Clone)]
pub struct Clock {
    source: Arc<dyn Source>,
    /// The last that was given by [`Clock::unique_micros`].
    last: Arc<AtomicU64>,
}

impl Clock {
    /// The machine's own.
    pub fn real() -> Clock {
        Clock::of(Arc::new(Machine))
    }

    pub fn of(source: Arc<dyn Source>) -> Clock {
        let last = Arc::default();
        Clock { source, last }
    }

    /// The wall clock's second.
    pub fn now(&self) -> Timestamp {
        Timestamp::at(i64::try_from(self.source.micros() / 1_000_000).unwrap_or(i64::MAX))
    }

    /// The wall clock in microseconds since 1970.
    pub fn micros(&self) -> u64 {
        self.source.micros()
    }

    /// The same, and later at each call.
    pub fn unique_micros(&self) -> u64 {
        let now = self.micros();
        let next = |last: u64| Some(now.max(last + 1));
        let last = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        now.max(last.unwrap_or_else(|last| last) + 1)
    }

    /// The monotonic clock.
    pub fn instant(&self) -> Instant {
        self.source.instant()
    }

    pub fn sleep(&self, time: Duration) {
        self.source.sleep(time);
    }

    /// A generator of its own, for several numbers at once.
    pub fn rng(&self) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.source.random())
    }

    /// Evenly from 0 to 1: what is added to a backoff.
    pub fn jitter(&self) -> f64 {
        self.rng().f64()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

struct Machine;

impl Source for Machine {
    fn micros(&self) -> u64 {
        u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000).unwrap_or(0)
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}
