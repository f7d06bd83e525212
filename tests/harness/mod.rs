//! What the fault tests and the benchmark share: a cluster's namespace, a scheduler outside of it, and plain HTTP.

pub mod cluster;
pub mod http;
pub mod scheduler;
pub mod told;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Asks until the answer is there; fails with the last word on why it is not.
#[track_caller]
pub fn within<T>(limit: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) if started.elapsed() > limit => panic!("not within {limit:?}: {last}"),
            Err(_) => sleep(Duration::from_millis(20)),
        }
    }
}

/// `condition`, or why it does not hold yet.
pub fn holds(condition: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(why()) }
}

/// No two of this machine are the same, so that tests that run at once, also of several people, do not meet.
pub fn unique() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{number}", std::process::id())
}

/// The value below which so many of 100 are, of times in any order.
pub fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times
        .get(last.min(times.len() * percent / 100))
        .copied()
        .unwrap_or_default()
}
