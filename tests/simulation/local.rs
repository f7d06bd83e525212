//! Local mode on a simulated disk: every fault at every write of every use case, and random
//! histories that mix all.
//!
//! `SECONDS` is how long random histories are tried, and `SEED` replays one of them.

// Clippy knows a test by its attribute, and this one has its own `main`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

#[path = "local/cases.rs"]
mod cases;
#[path = "local/disk.rs"]
mod disk;
#[path = "local/oracle.rs"]
mod oracle;
#[path = "local/processes.rs"]
mod processes;
#[path = "local/random.rs"]
mod random;
#[path = "local/world.rs"]
mod world;

use std::process::ExitCode;
use std::time::Duration;

/// What it is called.
const NAME: &str = "simulate-local";
/// What an ordinary run of the tests takes.
const SECONDS: u64 = 3;

fn main() -> ExitCode {
    // Cargo asks all tests for those of a name.
    let mut names = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    if std::env::args().any(|arg| arg == "--list") || names.any(|name| !NAME.contains(&name)) {
        return ExitCode::SUCCESS;
    }
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    if let Some(seed) = number("SEED") {
        return random::replay(seed);
    }
    let failures = cases::enumerate();
    let seconds = number("SECONDS").unwrap_or(SECONDS);
    let failing = random::search(Duration::from_secs(seconds));
    match failures == 0 && !failing {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
