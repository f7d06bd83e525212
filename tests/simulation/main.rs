//! A simulation of the scheduler in a cluster: every use case with everything that can happen at
//! each of its writes, then histories from seeds that mix all of it.
//!
//! `SECONDS` is how long histories are run for. `SEED` runs one history and prints it. `CELL` does
//! so for a cell of the enumeration, as its report names it. With `ALL` it goes on after a failure,
//! with `SHORT` the enumeration ends with the first use case that fails. `FIRST` is the first seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod batches;
mod checks;
mod client;
mod cluster;
mod coroutine;
mod enumerate;
mod random;
mod reader;
mod sim;
mod step;
mod world;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use step::{Fault, Kind, Step};

/// A history is some thousands of small objects, made and dropped: a sixth more histories
/// (measured).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A panic of the scheduler's is told of with its history.
    std::panic::set_hook(Box::new(|panic| {
        if !coroutine::runs() {
            eprintln!("{panic}");
        }
    }));
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    if let Some(seed) = number("SEED") {
        return report(seed);
    }
    if let Some(cell) = std::env::var("CELL").ok().filter(|cell| !cell.is_empty()) {
        listen();
        return code(enumerate::enumerate(Some(&cell), true, false));
    }
    let shows_all = std::env::var("ALL").is_ok();
    let is_short = std::env::var("SHORT").is_ok();
    let all_well = enumerate::enumerate(None, shows_all, is_short);
    if !all_well && !shows_all {
        return ExitCode::FAILURE;
    }
    let seconds = Duration::from_secs(number("SECONDS").unwrap_or(60));
    let first = number("FIRST").unwrap_or(1);
    code(are_repeatable(first) & histories(first, seconds) & all_well)
}

fn code(well: bool) -> ExitCode {
    match well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Whether the same seed gives the same history.
fn are_repeatable(first: u64) -> bool {
    let seeds = first..first + 20;
    let differs = |seed: &u64| {
        let (one, other) = (random::run(*seed, true), random::run(*seed, true));
        one.log != other.log
    };
    let different: Vec<u64> = seeds.clone().filter(differs).collect();
    println!("seeds {seeds:?} run twice, different: {different:?}");
    different.is_empty()
}

/// How often each kind of step and each fault came in histories.
#[derive(Default)]
struct Counts {
    kinds: BTreeMap<String, u64>,
    faults: BTreeMap<&'static str, u64>,
}

impl Counts {
    fn add(&mut self, steps: &[Step]) {
        for step in steps {
            *self.kinds.entry(format!("{:?}", step.kind)).or_default() += 1;
            if step.kind == Kind::Effect {
                let fault = Fault::ALL[step.how as usize % Fault::ALL.len()];
                *self.faults.entry(fault.text()).or_default() += 1;
            }
        }
    }

    /// Prints the counts. Returns whether there is any of each.
    fn report(&self) -> bool {
        let kinds = self
            .kinds
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"));
        println!("steps: {}", kinds.collect::<Vec<_>>().join(", "));
        let faults = self
            .faults
            .iter()
            .map(|(fault, count)| format!("{fault} {count}"));
        println!("calls: {}", faults.collect::<Vec<_>>().join(", "));
        self.kinds.len() == Kind::ALL.len() && self.faults.len() == Fault::ALL.len()
    }
}

fn histories(first: u64, time: Duration) -> bool {
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let (mut seed, mut steps) = (first, 0);
    let mut failed: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
    let mut counts = Counts::default();
    let go_on = std::env::var("ALL").is_ok();
    while begin.elapsed() < time {
        let history = random::run(seed, false);
        steps += history.steps.len();
        counts.add(&history.steps);
        if let Some(violation) = &history.violation {
            println!("seed {seed}: {}", violation.check);
            failed.entry(violation.check).or_default().push(seed);
            if !go_on {
                break;
            }
        }
        seed += 1;
    }
    let count = seed - first;
    let (wall, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!(
        "{count} histories of {steps} steps in {wall:.1} s: {:.0} a second, {:.0} a second of a core",
        count as f64 / wall,
        count as f64 / cpu
    );
    let has_all = counts.report();
    for (check, seeds) in &failed {
        println!("FAILED {check}: {} seeds: {seeds:?}", seeds.len());
    }
    match failed.values().next() {
        Some(seeds) if !go_on => {
            report(seeds[0]);
            false
        }
        // Few histories cannot have everything in them.
        _ if count < 1000 => failed.is_empty(),
        _ => failed.is_empty() && has_all,
    }
}

/// The processor time that this process has used: others may use the machine, too.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: f64 = fields
        .skip(11)
        .take(2)
        .filter_map(|t| t.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}

/// What the scheduler logs, where somebody reads it.
struct Logged(Mutex<Vec<String>>);

static LOGGED: Logged = Logged(Mutex::new(Vec::new()));

impl log::Log for Logged {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        self.0.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

fn listen() {
    if log::set_logger(&LOGGED).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// What was logged since it was last asked.
fn logged() -> Vec<String> {
    std::mem::take(&mut LOGGED.0.lock().unwrap())
}

/// Runs one history, and prints it: the shortest that fails in the same way, if it fails.
fn report(seed: u64) -> ExitCode {
    listen();
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
    logged();
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
