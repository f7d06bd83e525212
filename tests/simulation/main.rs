//! A simulation of the scheduler in a cluster: every use case with everything that can happen at each of its writes, then
//! histories from seeds that mix all of it.
//!
//! `SECONDS` is how long histories are run for. `SEED` runs one history and prints it. `CELL` does so for a cell of the
//! enumeration, as its report names it.

mod checks;
mod client;
mod cluster;
mod coroutine;
mod enumerate;
mod random;
mod sim;
mod step;
mod world;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    if let Some(seed) = number("SEED") {
        return report(seed);
    }
    if let Ok(cell) = std::env::var("CELL") {
        return code(enumerate::enumerate(Some(&cell), true));
    }
    let all_well = enumerate::enumerate(None, std::env::var("ALL").is_ok());
    let seconds = Duration::from_secs(number("SECONDS").unwrap_or(60));
    code(histories(number("FIRST").unwrap_or(1), seconds) & all_well)
}

fn code(well: bool) -> ExitCode {
    match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn histories(first: u64, time: Duration) -> bool {
    let begin = Instant::now();
    let (mut seed, mut steps) = (first, 0);
    let mut failed: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
    let go_on = std::env::var("ALL").is_ok();
    while begin.elapsed() < time {
        let history = random::run(seed, false);
        steps += history.steps.len();
        if let Some(violation) = &history.violation {
            failed.entry(violation.check).or_default().push(seed);
            if !go_on {
                break;
            }
        }
        seed += 1;
    }
    let count = seed - first;
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    println!("{count} histories of {steps} steps, {rate:.0} a second");
    for (check, seeds) in &failed {
        println!(
            "FAILED {check}: {} seeds: {:?}",
            seeds.len(),
            &seeds[..seeds.len().min(8)]
        );
    }
    match failed.values().next() {
        Some(seeds) if !go_on => {
            report(seeds[0]);
            false
        }
        _ => failed.is_empty(),
    }
}

/// Runs one history, and prints it: the shortest that fails in the same way, if it fails.
fn report(seed: u64) -> ExitCode {
    let history = random::run(seed, true);
    println!("seed {seed}, {:?}", history.options);
    let Some(violation) = &history.violation else {
        for line in history.log.iter().flatten() {
            println!("{line}");
        }
        println!("seed {seed}: {} steps, all well", history.steps.len());
        return ExitCode::SUCCESS;
    };
    let steps = random::shrink(&history);
    let (sim, _) = random::replay(seed, &history.options, &steps, true);
    for line in sim.log.iter().flatten() {
        println!("{line}");
    }
    println!(
        "steps: {}",
        steps
            .iter()
            .map(|s| s.to_string())
            .collect::<Vec<_>>()
            .join("; ")
    );
    println!("seed {seed}, {:?}", history.options);
    println!("VIOLATION {}: {}", violation.check, violation.what);
    ExitCode::FAILURE
}
