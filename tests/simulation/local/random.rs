//! Random histories from a seed, the shortest that fails, and one in words.

use crate::disk::{Fault, Keep};
use crate::world::{Step, World, words};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Steps of a history.
const STEPS: usize = 60;

fn keep(random: &mut fastrand::Rng) -> Keep {
    [Keep::Nothing, Keep::Half, Keep::All][random.usize(..3)]
}

fn fault(random: &mut fastrand::Rng, kinds: u32) -> Option<Fault> {
    let kind = random.u32(..10);
    // Each history has some kinds of faults switched off.
    if kinds & 1 << kind == 0 {
        return None;
    }
    Some(match kind {
        0 => Fault::EndBefore,
        1 => Fault::EndInside,
        2 => Fault::EndAfter,
        3 => Fault::PowerBefore(keep(random)),
        4 => Fault::PowerAfter(keep(random)),
        5 => Fault::Full,
        6 => Fault::Broken,
        7 => Fault::BrokenAfter,
        8 => Fault::BrokenOn,
        _ => Fault::BrokenAfterOn,
    })
}

fn request(random: &mut fastrand::Rng) -> Step {
    match random.u32(..17) {
        0..5 => Step::Submit {
            key: random.bool(),
            payload: random.bool().then(|| random.usize(..200)),
            backoff: random.u32(..3),
        },
        5 => Step::Resend(random.usize(..20)),
        6 | 7 => Step::Stop(random.usize(..20)),
        8 => Step::Delete(random.usize(..20)),
        9 | 10 => Step::Restart(random.usize(..20)),
        11 | 12 => Step::Report(random.usize(..20)),
        13 => Step::SubmitBatch { key: random.bool() },
        14 => Step::ResendBatch,
        15 => match random.u32(..3) {
            0 => Step::StopBatch,
            1 => Step::RestartBatch,
            _ => Step::DeleteBatch,
        },
        _ => Step::StopAll,
    }
}

/// The history of a seed.
fn history(seed: u64) -> Vec<Step> {
    let mut random = fastrand::Rng::with_seed(seed);
    let random = &mut random;
    let kinds = random.u32(..1024);
    let clocks = random.bool();
    let mut steps = Vec::new();
    while steps.len() < STEPS {
        steps.push(match random.u32(..40) {
            0..14 => request(random),
            14..22 => Step::Settle,
            22..28 => Step::Exit(random.usize(..20), random.i32(0..2)),
            28..30 => Step::Pass(random.u64(1..4)),
            30..32 => match fault(random, kinds) {
                Some(fault) => Step::Arm(random.usize(..8), fault),
                None => continue,
            },
            32 if kinds & 32 != 0 => Step::Fill(random.usize(..600)),
            33 => Step::Heal,
            34 if kinds & 1 != 0 => Step::End,
            35 if kinds & 8 != 0 => Step::Power(keep(random)),
            36 => Step::Start,
            37 if clocks => Step::SetBack(random.u64(1..90)),
            38 => Step::During(random.usize(..4), Box::new(request(random))),
            39 => match random.u32(..6) {
                0 => Step::ShutDown,
                1 => Step::Litter,
                2 => Step::Pass(101),
                _ => Step::Resend(random.usize(..20)),
            },
            _ => continue,
        });
    }
    steps
}

/// Runs a history; gives its log, and what was violated first.
fn run(seed: u64, steps: &[Step]) -> (Vec<String>, Option<String>) {
    let mut world = World::new(seed);
    let done = catch_unwind(AssertUnwindSafe(|| {
        for step in steps {
            world.step(step);
            if !world.oracle.violations().is_empty() {
                return;
            }
        }
        world.finish();
    }));
    let violation = match done {
        Ok(()) => world.oracle.violations().into_iter().next(),
        Err(_) => Some("it panicked".to_string()),
    };
    (world.oracle.log(), violation)
}

/// What kind of violation it is: without the names of jobs and numbers.
fn kind(violation: &str) -> String {
    let words = violation
        .split(' ')
        .filter(|word| !word.contains(char::is_numeric));
    words.collect::<Vec<_>>().join(" ")
}

/// The shortest history that fails in the same way, as far as dropping steps finds it.
fn shrink(seed: u64, mut steps: Vec<Step>, violation: &str) -> Vec<Step> {
    let kind_of = kind(violation);
    let fails = |steps: &[Step]| {
        let (_, violation) = run(seed, steps);
        violation.is_some_and(|violation| kind(&violation) == kind_of)
    };
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            match fails(&fewer) {
                true => steps = fewer,
                false => at += size,
            }
        }
        size /= 2;
    }
    steps
}

/// Runs one history again, and prints it in words.
pub fn replay(seed: u64) -> ExitCode {
    let steps = history(seed);
    let (log, violation) = run(seed, &steps);
    println!("seed {seed}:\n{}", log.join("\n"));
    match violation {
        None => {
            println!("seed {seed}: nothing is violated");
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("seed {seed}: {violation}");
            print_shortest(seed, steps, &violation);
            ExitCode::FAILURE
        }
    }
}

fn print_shortest(seed: u64, steps: Vec<Step>, violation: &str) {
    let shortest = shrink(seed, steps, violation);
    let (log, _) = run(seed, &shortest);
    println!("the shortest history found, of {} steps:", shortest.len());
    for step in &shortest {
        println!("  - {}", words(step));
    }
    println!("as it went:\n{}", log.join("\n"));
}

/// Tries histories for so long. Whether one fails.
pub fn search(time: Duration) -> bool {
    let began = Instant::now();
    let first = std::env::var("FIRST_SEED").ok();
    let first = first.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("random histories of {STEPS} steps from seed {first}");
    let mut count = 0;
    for seed in first.. {
        if began.elapsed() >= time {
            break;
        }
        let steps = history(seed);
        let (log, violation) = run(seed, &steps);
        // A history is told by its seed alone.
        if count % 100 == 0 && run(seed, &steps).0 != log {
            println!("seed {seed}: two runs of it differ");
            return true;
        }
        count += 1;
        if let Some(violation) = violation {
            println!("seed {seed}: {violation}");
            print_shortest(seed, steps, &violation);
            println!("replay it: SEED={seed}");
            return true;
        }
    }
    let each = count as f64 / began.elapsed().as_secs_f64().max(0.001);
    println!("{count} histories, {each:.0} a second, none of which fails");
    false
}
