//! What the black-box tests share: an HTTP client that sends exactly what it is told, the checks of the API that hold for
//! every backend, and a scheduler in local mode.

// Each test binary uses its own part.
#![allow(dead_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

pub mod api;
pub mod batches;
#[path = "../contract/mod.rs"]
pub mod contract;
pub mod events;
pub mod local;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long anything may take on a machine that has much to do. Nothing waits for so long unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks until there is something to see.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A folder of the test's own, removed at its end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        let name = format!("job-scheduler-test-{:016x}", fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Scratch(path.canonicalize().unwrap())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
