//! Histories from a seed.

use crate::coroutine::mix;
use crate::sim::{Options, Sim, State, Violation};
use crate::step::{Fault, Kind, Step};

/// How often each kind is drawn, and whether some seeds do without it.
const WEIGHTS: &[(Kind, u32, bool)] = &[
    (Kind::Submit, 6, true),
    (Kind::SubmitKeyed, 8, false),
    (Kind::Resend, 6, true),
    (Kind::Stop, 4, true),
    (Kind::StopAll, 1, true),
    (Kind::Restart, 4, true),
    (Kind::Delete, 4, true),
    (Kind::Wait, 3, true),
    (Kind::Report, 5, true),
    (Kind::Batch, 5, true),
    (Kind::End, 2, true),
    (Kind::Start, 12, false),
    (Kind::Work, 30, false),
    (Kind::Effect, 60, false),
    (Kind::Resume, 50, false),
    (Kind::Late, 4, true),
    (Kind::Frame, 40, false),
    (Kind::Poison, 1, true),
    (Kind::Compact, 1, true),
    (Kind::Sync, 25, false),
    (Kind::WriteStatus, 25, false),
    (Kind::StalePod, 4, true),
    (Kind::Kubelet, 40, false),
    (Kind::Disrupt, 2, true),
    (Kind::Collect, 12, false),
    (Kind::Bump, 1, true),
    (Kind::KubectlDelete, 2, true),
    (Kind::KubectlDeletePod, 2, true),
    (Kind::KubectlDeleteSecret, 1, true),
    (Kind::KubectlSuspend, 2, true),
    (Kind::KubectlResume, 2, true),
    (Kind::Guard, 2, true),
    (Kind::Quota, 2, true),
    (Kind::Advance, 14, false),
];

/// Numbers from a seed.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// What a seed draws before its history begins.
struct Plan {
    options: Options,
    weights: Vec<(Kind, u32)>,
    faults: Vec<Fault>,
    frames: Vec<u32>,
    /// One call in so many fails.
    fault_rate: u64,
    length: usize,
}

fn plan(draw: &mut Draw) -> Plan {
    let options = Options {
        cap: draw.below(3) as usize,
        history: 1 + draw.below(3) as usize,
        max_jobs: if draw.one_in(4) { 4 } else { 100 },
        max_waiting: if draw.one_in(6) { 1 } else { 100 },
        ports: draw.one_in(2),
        payloads: !draw.one_in(4),
        backoff: draw.below(3) as u32 / 2,
        policy: draw.one_in(4),
        sidecars: draw.one_in(4),
        finalizers: draw.one_in(8),
        page: if draw.one_in(3) { 2 } else { 500 },
        two: draw.one_in(8),
        lasting_quota: draw.one_in(8),
        lasting_guard: draw.one_in(4),
        skew: draw.one_in(2),
        linger: if draw.one_in(2) { 25_000_000 } else { 0 },
    };
    let mut weights = Vec::new();
    for (kind, weight, optional) in WEIGHTS {
        if !(*optional && draw.one_in(2)) {
            weights.push((*kind, *weight));
        }
    }
    let faults = Fault::ALL.iter().skip(1).copied();
    let faults = faults.filter(|_| draw.one_in(3)).collect();
    let frames = (2..12).filter(|_| draw.one_in(3)).collect();
    let fault_rate = [u64::MAX, 30, 10, 5][draw.below(4) as usize];
    Plan {
        options,
        weights,
        faults,
        frames,
        fault_rate,
        // Most are short: what a few steps can find is found sooner so.
        length: if draw.one_in(64) {
            50 + draw.below(150) as usize
        } else {
            50
        },
    }
}

/// A history: what it was drawn with, what happened, and what was wrong.
pub struct History {
    pub seed: u64,
    pub options: Options,
    pub steps: Vec<Step>,
    pub violation: Option<Violation>,
    pub log: Option<Vec<String>>,
}

/// Draws a history and runs it.
pub fn run(seed: u64, with_log: bool) -> History {
    let mut draw = Draw(mix(seed));
    let plan = plan(&mut draw);
    let mut sim = Sim::new(plan.options.clone(), seed, with_log);
    sim.start_process();
    let mut steps = Vec::with_capacity(plan.length);
    let total: u32 = plan.weights.iter().map(|(_, weight)| weight).sum();
    let mut tries = 0;
    while steps.len() < plan.length && tries < plan.length * 8 && sim.violation.is_none() {
        tries += 1;
        let step = next(&plan, total, &mut draw, &sim);
        if sim.step(step) {
            steps.push(step);
        }
    }
    if sim.violation.is_none() {
        sim.finish();
    }
    History {
        seed,
        options: plan.options,
        steps,
        violation: sim.violation.take(),
        log: sim.log.take(),
    }
}

fn next(plan: &Plan, total: u32, draw: &mut Draw, sim: &Sim) -> Step {
    let mut left = draw.below(u64::from(total)) as u32;
    let mut kind = Kind::Advance;
    for (one, weight) in &plan.weights {
        if left < *weight {
            kind = *one;
            break;
        }
        left -= weight;
    }
    // A process ends when it hurts.
    let ends = plan.weights.iter().any(|(kind, _)| *kind == Kind::End);
    if ends && kind == Kind::Effect && writes_pend(sim) && draw.one_in(15) {
        kind = Kind::End;
    }
    let which = draw.below(1000) as u32;
    let how = match kind {
        Kind::Effect => {
            let fault = match draw.one_in(plan.fault_rate) {
                true if !plan.faults.is_empty() => {
                    plan.faults[draw.below(plan.faults.len() as u64) as usize] as u32
                }
                _ => 0,
            };
            fault + if draw.one_in(4) { 0 } else { 100 }
        }
        Kind::Frame => match draw.one_in(12) && !plan.frames.is_empty() {
            true => plan.frames[draw.below(plan.frames.len() as u64) as usize],
            false => draw.below(2) as u32,
        },
        Kind::Advance => match draw.below(60) {
            0 => 9,
            1..=3 => 8,
            4..=8 => 7,
            other => (other % 7) as u32,
        },
        _ => draw.below(1000) as u32,
    };
    Step { kind, which, how }
}

fn writes_pend(sim: &Sim) -> bool {
    sim.threads.iter().any(|thread| match &thread.state {
        State::Calling { asked, .. } => asked.method != "GET",
        _ => false,
    })
}

/// Runs a history again, or a part of it.
pub fn replay(seed: u64, options: &Options, steps: &[Step], with_log: bool) -> (Sim, usize) {
    let mut sim = Sim::new(options.clone(), seed, with_log);
    sim.start_process();
    let mut done = 0;
    for step in steps {
        if sim.violation.is_some() {
            break;
        }
        sim.step(*step);
        done += 1;
    }
    if sim.violation.is_none() {
        sim.finish();
    }
    (sim, done)
}

/// The shortest history that still fails in the same way, as far as it is found by leaving steps
/// out.
pub fn shrink(history: &History) -> Vec<Step> {
    let check = history.violation.as_ref().map(|violation| violation.check);
    let fails = |steps: &[Step]| {
        let (sim, done) = replay(history.seed, &history.options, steps, false);
        (sim.violation.map(|v| v.check) == check).then_some(done)
    };
    let mut steps = history.steps.clone();
    match fails(&steps) {
        Some(done) => steps.truncate(done),
        None => return steps,
    }
    let mut size = steps.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        let mut any = false;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(steps.len()));
            match fails(&fewer) {
                Some(done) => {
                    fewer.truncate(done);
                    steps = fewer;
                    any = true;
                }
                None => at += size,
            }
        }
        size = match (size, any) {
            (1, true) => 1,
            (size, _) => size / 2,
        };
    }
    steps
}
