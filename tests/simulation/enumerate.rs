//! Every use case, with every single thing that can happen at each of its writes.

use crate::batches::OfBatch;
use crate::coroutine::Asked;
use crate::sim::{Frame, Options, Sim, State, Violation, What};
use crate::step::{Fault, Kind, listed};
use crate::world::RESTART_OF;
use serde_json::Value;
use std::collections::BTreeMap;

/// What happens at a write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Point {
    /// The process ends, and the write never comes.
    EndBefore,
    /// The process ends, and the write comes once the next process has listed everything.
    EndLate,
    /// The process ends before it has the answer.
    EndAfter,
    /// So it does, and the next process has its jobs before it has their pods.
    EndPodsLate,
    Fault(Fault),
    Before(Event),
    After(Event),
}

listed! {
    /// Something else that happens in the middle of a write.
    Event {
        WatchJobs,
        WatchPods,
        WatchAll,
        Relist,
        WatchCut,
        Unreadable,
        Compact,
        Stop,
        StopAll,
        Delete,
        Restart,
        Wait,
        Submit,
        Resend,
        KubectlDelete,
        /// And the watch tells of it.
        KubectlDeleteTold,
        KubectlDeleteSlowly,
        KubectlDeletePod,
        KubectlDeleteSecret,
        KubectlSuspend,
        KubectlResume,
        PodsStart,
        PodsSucceed,
        PodsFail,
        StalePod,
        Collect,
        Guard,
        SecretQuota,
        ServiceQuota,
        Stall,
    }
}

impl Point {
    /// All that can happen at a write of this kind, as in `POST jobs`.
    fn all(write: &str) -> Vec<Point> {
        let method = write.split(' ').next().unwrap_or_default();
        let mut points = vec![
            Point::EndBefore,
            Point::EndLate,
            Point::EndAfter,
            Point::EndPodsLate,
        ];
        let faults = Fault::ALL.iter().skip(1);
        points.extend(
            faults
                .filter(|f| f.fits(method, false))
                .map(|fault| Point::Fault(*fault)),
        );
        points.extend(Event::ALL.iter().copied().map(Point::Before));
        points.extend(Event::ALL.iter().copied().map(Point::After));
        points
    }

    fn group(self) -> usize {
        match self {
            Point::EndBefore | Point::EndLate | Point::EndAfter | Point::EndPodsLate => 0,
            Point::Fault(_) => 1,
            Point::Before(_) => 2,
            Point::After(_) => 3,
        }
    }
}

/// One use case: what is there before, and what is done.
pub struct UseCase {
    pub name: &'static str,
    pub options: fn() -> Options,
    pub setup: fn(&mut Sim),
    pub act: fn(&mut Sim),
}

const SHORT: u64 = 3_000_000;
/// Longer than a container takes to end.
const LONG: u64 = 30_000_000;
/// As many bits as a payload has in [`Sim::submit_new`].
const PAYLOAD: u32 = 5;
const PLAIN: u32 = 4;

fn plain() -> Options {
    Options {
        history: 2,
        ..Options::default()
    }
}

fn capped() -> Options {
    Options {
        cap: 1,
        linger: 20_000_000,
        ports: true,
        ..plain()
    }
}

fn ported() -> Options {
    Options {
        ports: true,
        ..plain()
    }
}

fn short() -> Options {
    Options {
        history: 1,
        ..plain()
    }
}

fn retried() -> Options {
    Options {
        backoff: 1,
        policy: true,
        sidecars: true,
        ..capped()
    }
}

fn nothing(_: &mut Sim) {}

fn first(sim: &Sim) -> String {
    sim.world.jobs.keys().next().cloned().unwrap_or_default()
}

fn one(sim: &mut Sim) {
    sim.submit_new(0, PAYLOAD, false);
    sim.settle(SHORT, false);
}

fn keyed(sim: &mut Sim) {
    sim.submit_new(0, PAYLOAD, true);
    sim.settle(SHORT, false);
}

fn batch(sim: &mut Sim) {
    sim.submit_batch(true);
    sim.settle(SHORT, false);
}

fn stop_members(sim: &mut Sim, time: u64) {
    let members = sim.world.jobs.values().filter(|job| job.owner.is_some());
    let names: Vec<String> = members.map(|job| job.name.clone()).collect();
    for name in names {
        ask(sim, Kind::Stop, &name);
    }
    sim.settle(time, false);
}

fn three(sim: &mut Sim) {
    keyed(sim);
    one(sim);
    keyed(sim);
}

fn end_all(sim: &mut Sim) {
    sim.settle(SHORT, true);
}

fn one_ended(sim: &mut Sim) {
    one(sim);
    end_all(sim);
}

fn one_stopped(sim: &mut Sim) {
    one(sim);
    on_first(sim, Kind::Stop);
    sim.settle(LONG, false);
}

fn keyed_ended(sim: &mut Sim) {
    keyed(sim);
    end_all(sim);
}

fn ask(sim: &mut Sim, kind: Kind, name: &str) {
    let process = sim.alive().first().copied().unwrap_or(0);
    sim.ask(kind, name, process);
}

fn on_first(sim: &mut Sim, kind: Kind) {
    let name = first(sim);
    ask(sim, kind, &name);
}

fn on_last(sim: &mut Sim, kind: Kind) {
    let name = sim
        .world
        .jobs
        .keys()
        .next_back()
        .cloned()
        .unwrap_or_default();
    ask(sim, kind, &name);
}

fn end_first_pod(sim: &mut Sim) {
    for name in sim.world.pods.keys().cloned().collect::<Vec<_>>() {
        while sim.world.kubelet(&name, 1) {}
    }
    sim.after_world();
}

/// The scheduler goes on for so long, and the cluster does not.
fn run_alone(sim: &mut Sim, time: u64) {
    const STEP: u64 = 500_000;
    for _ in 0..(time / STEP).max(1) {
        for _ in 0..4 {
            sim.progress_threads(None);
            for number in sim.alive() {
                while sim.may_work(number) && sim.violation.is_none() {
                    sim.work(number);
                }
            }
        }
        sim.advance(STEP);
    }
}

/// Each job gets its pod, which does not start.
fn make_pods(sim: &mut Sim) {
    for name in sim.world.jobs.keys().cloned().collect::<Vec<_>>() {
        sim.world.sync_job(&name);
    }
    sim.after_world();
}

fn cut_off(sim: &mut Sim, keyed: bool) {
    sim.submit_new(0, PAYLOAD, keyed);
    for at in 0..sim.threads.len() {
        if matches!(sim.threads[at].what, What::Request(_)) {
            sim.effect(at, Fault::None);
        }
    }
    sim.end_process(0);
    sim.late.clear();
}

pub const USE_CASES: &[UseCase] = &[
    UseCase {
        name: "submit",
        options: plain,
        setup: nothing,
        act: |sim| {
            sim.submit_new(0, PLAIN, false);
        },
    },
    UseCase {
        name: "submit with payload",
        options: plain,
        setup: nothing,
        act: |sim| {
            sim.submit_new(0, PAYLOAD, false);
        },
    },
    UseCase {
        name: "submit with key",
        options: plain,
        setup: nothing,
        act: |sim| {
            sim.submit_new(0, PLAIN, true);
        },
    },
    UseCase {
        name: "submit with key, payload",
        options: short,
        setup: one_ended,
        act: |sim| {
            sim.submit_new(0, PAYLOAD, true);
        },
    },
    UseCase {
        name: "submit with ports, expose",
        options: ported,
        setup: nothing,
        act: |sim| {
            sim.submit_new(0, PAYLOAD, false);
        },
    },
    UseCase {
        name: "submit with a cap",
        options: capped,
        setup: nothing,
        act: |sim| {
            sim.submit_new(0, PAYLOAD, false);
            sim.submit_new(0, PAYLOAD, true);
        },
    },
    UseCase {
        name: "submit over the cap",
        options: capped,
        setup: one,
        act: |sim| {
            sim.submit_new(0, PAYLOAD, true);
        },
    },
    UseCase {
        name: "submit again",
        options: plain,
        setup: keyed,
        act: |sim| {
            sim.resend(0);
        },
    },
    UseCase {
        name: "submit again, half",
        options: plain,
        setup: |sim| {
            cut_off(sim, true);
            sim.start_process();
            sim.settle(SHORT, false);
        },
        act: |sim| {
            sim.resend(0);
        },
    },
    UseCase {
        name: "submit again, retired",
        options: short,
        setup: |sim| {
            keyed_ended(sim);
            keyed_ended(sim);
            keyed_ended(sim);
        },
        act: |sim| {
            sim.resend(0);
        },
    },
    UseCase {
        name: "submit again, late",
        options: short,
        setup: |sim| {
            keyed_ended(sim);
            keyed_ended(sim);
            keyed_ended(sim);
            sim.settle(870_000_000, false);
        },
        act: |sim| {
            sim.resend(0);
            sim.submit_new(0, PAYLOAD, false);
        },
    },
    UseCase {
        name: "get with wait, retain",
        options: short,
        setup: |sim| {
            one_ended(sim);
            one(sim);
        },
        act: |sim| {
            on_last(sim, Kind::Wait);
            end_first_pod(sim);
            run_alone(sim, SHORT);
            sim.check_early();
        },
    },
    UseCase {
        name: "stop",
        options: capped,
        setup: |sim| {
            one(sim);
            one(sim);
        },
        act: |sim| on_first(sim, Kind::Stop),
    },
    UseCase {
        name: "stop a waiting job",
        options: capped,
        setup: |sim| {
            one(sim);
            one(sim);
        },
        act: |sim| on_last(sim, Kind::Stop),
    },
    UseCase {
        name: "stop all",
        options: capped,
        setup: three,
        act: |sim| on_first(sim, Kind::StopAll),
    },
    UseCase {
        name: "restart in place",
        options: capped,
        setup: one_stopped,
        act: |sim| {
            on_first(sim, Kind::Restart);
            sim.submit_new(0, PLAIN, false);
        },
    },
    UseCase {
        name: "restart in place, queued",
        options: capped,
        setup: |sim| {
            one(sim);
            on_first(sim, Kind::Stop);
            sim.settle(LONG, false);
            one(sim);
        },
        act: |sim| on_first(sim, Kind::Restart),
    },
    UseCase {
        name: "restart as new",
        options: capped,
        setup: one_ended,
        act: |sim| on_first(sim, Kind::Restart),
    },
    UseCase {
        name: "restart as new, slow to start",
        options: plain,
        setup: one_ended,
        act: |sim| {
            on_first(sim, Kind::Restart);
            run_alone(sim, SHORT);
            make_pods(sim);
            run_alone(sim, LONG);
        },
    },
    UseCase {
        name: "delete, restart as new",
        options: plain,
        setup: one_ended,
        act: |sim| {
            on_first(sim, Kind::Delete);
            run_alone(sim, SHORT);
            on_first(sim, Kind::Restart);
        },
    },
    UseCase {
        name: "restart in place, stop at once",
        options: capped,
        setup: one_stopped,
        act: |sim| {
            on_first(sim, Kind::Restart);
            run_alone(sim, 0);
            on_first(sim, Kind::Stop);
        },
    },
    UseCase {
        name: "delete",
        options: capped,
        setup: |sim| {
            one(sim);
            one(sim);
        },
        act: |sim| on_first(sim, Kind::Delete),
    },
    UseCase {
        name: "delete a waiting job",
        options: capped,
        setup: |sim| {
            one(sim);
            one(sim);
        },
        act: |sim| on_last(sim, Kind::Delete),
    },
    UseCase {
        name: "delete an ended job",
        options: plain,
        setup: keyed_ended,
        act: |sim| on_first(sim, Kind::Delete),
    },
    UseCase {
        name: "delete, hide",
        options: plain,
        setup: |sim| {
            one_ended(sim);
            on_first(sim, Kind::Restart);
            sim.settle(SHORT, false);
        },
        act: |sim| on_first(sim, Kind::Delete),
    },
    UseCase {
        name: "delete what hides",
        options: plain,
        setup: |sim| {
            one_ended(sim);
            on_first(sim, Kind::Restart);
            sim.settle(SHORT, false);
            on_first(sim, Kind::Delete);
            sim.settle(SHORT, false);
        },
        act: |sim| on_last(sim, Kind::Delete),
    },
    UseCase {
        name: "admit",
        options: capped,
        setup: three,
        act: end_first_pod,
    },
    UseCase {
        name: "admit, retried",
        options: retried,
        setup: three,
        act: end_first_pod,
    },
    UseCase {
        name: "retain",
        options: short,
        setup: |sim| {
            keyed_ended(sim);
            keyed_ended(sim);
            one(sim);
        },
        act: end_first_pod,
    },
    UseCase {
        name: "report, keep now and then",
        options: capped,
        setup: one,
        act: |sim| {
            on_first(sim, Kind::Report);
            sim.settle(SHORT, false);
            on_first(sim, Kind::Report);
            sim.settle(LONG, false);
        },
    },
    UseCase {
        name: "report, too often",
        options: plain,
        setup: one,
        act: |sim| {
            (0..12).for_each(|_| on_first(sim, Kind::Report));
            sim.settle(SHORT, false);
            (0..12).for_each(|_| on_first(sim, Kind::Report));
        },
    },
    UseCase {
        name: "report, keep at the end",
        options: short,
        setup: one,
        act: |sim| {
            on_first(sim, Kind::Report);
            end_first_pod(sim);
        },
    },
    UseCase {
        name: "report, stop",
        options: capped,
        setup: one,
        act: |sim| {
            on_first(sim, Kind::Report);
            on_first(sim, Kind::Stop);
        },
    },
    UseCase {
        name: "report, stop, restart",
        options: capped,
        setup: one,
        act: |sim| {
            on_first(sim, Kind::Report);
            on_first(sim, Kind::Stop);
            sim.settle(LONG, false);
            on_first(sim, Kind::Restart);
            sim.settle(LONG, false);
            on_first(sim, Kind::Report);
        },
    },
    UseCase {
        name: "submit a batch",
        options: plain,
        setup: nothing,
        act: |sim| {
            sim.submit_batch(false);
        },
    },
    UseCase {
        name: "submit a batch with key, over the cap",
        options: capped,
        setup: one,
        act: |sim| {
            sim.submit_batch(true);
        },
    },
    UseCase {
        name: "a batch runs",
        options: capped,
        setup: batch,
        act: |sim| {
            end_first_pod(sim);
            run_alone(sim, SHORT);
        },
    },
    UseCase {
        name: "stop a batch",
        options: capped,
        setup: batch,
        act: |sim| {
            sim.ask_batch(OfBatch::Stop, 0);
        },
    },
    UseCase {
        name: "restart a batch",
        options: plain,
        setup: |sim| {
            batch(sim);
            end_all(sim);
        },
        act: |sim| {
            sim.ask_batch(OfBatch::Restart, 0);
        },
    },
    UseCase {
        name: "delete a batch",
        options: capped,
        setup: batch,
        act: |sim| {
            sim.ask_batch(OfBatch::Delete, 0);
        },
    },
    UseCase {
        name: "retain batches",
        options: short,
        setup: |sim| {
            batch(sim);
            end_all(sim);
            batch(sim);
        },
        act: |sim| {
            (0..4).for_each(|_| end_first_pod(sim));
            run_alone(sim, SHORT);
        },
    },
    UseCase {
        name: "retain batches, restart",
        options: short,
        setup: |sim| {
            batch(sim);
            stop_members(sim, SHORT);
            batch(sim);
        },
        act: |sim| {
            // Before what was not answered is tried again.
            stop_members(sim, SHORT / 100);
            sim.ask_batch(OfBatch::Restart, 0);
            sim.settle(SHORT, false);
        },
    },
    UseCase {
        name: "submit a batch, do it again",
        options: plain,
        setup: nothing,
        act: |sim| {
            batch(sim);
            end_all(sim);
            sim.ask_batch(OfBatch::Restart, 0);
            sim.settle(SHORT, true);
        },
    },
    UseCase {
        name: "verify, discard",
        options: capped,
        setup: |sim| cut_off(sim, false),
        act: |sim| sim.start_process(),
    },
    UseCase {
        name: "refused, discard",
        options: capped,
        setup: |sim| sim.world.secret_quota = true,
        act: |sim| {
            sim.submit_new(0, PAYLOAD, false);
        },
    },
    UseCase {
        name: "refused with key",
        options: || Options {
            lasting_quota: true,
            ..capped()
        },
        setup: |sim| sim.world.secret_quota = true,
        act: |sim| {
            sim.submit_new(0, PAYLOAD, true);
        },
    },
];

impl Sim {
    /// Where a write is about to take effect: does what is to happen there, if this is where.
    /// Returns whether it has dealt with the write.
    pub fn intercept(&mut self, at: usize) -> bool {
        let Some((after, point)) = self.point else {
            return false;
        };
        if after > 0 {
            self.point = Some((after - 1, point));
            return false;
        }
        self.point = None;
        self.reached = true;
        self.say(|| format!("here: {point:?}"));
        let Some(asked) = self.threads[at].calls().cloned() else {
            return false;
        };
        let (id, process) = (self.threads[at].id, self.threads[at].process);
        let subject = subject_of(&asked);
        // What a job is done again from is there before it is.
        let of = restart_of(&asked).filter(|_| !self.world.jobs.contains_key(&subject));
        let before = of.unwrap_or_else(|| subject.clone());
        match point {
            Point::EndBefore => {
                self.end_process(process);
                self.late.clear();
            }
            Point::EndLate => {
                self.end_process(process);
                self.late.clear();
                self.start_process();
                for _ in 0..4 {
                    self.progress_threads(None);
                }
                for client in 0..self.clients.len() {
                    self.resend_if_unanswered(client);
                }
                self.resend_batch();
                for _ in 0..4 {
                    self.progress_threads(None);
                }
                let by = self.time() + 1000;
                let sent = self.time();
                self.late.push(crate::sim::Late { asked, sent, by });
                self.land(0);
            }
            Point::EndAfter => {
                self.effect(at, Fault::None);
                self.end_process(process);
            }
            Point::EndPodsLate => {
                self.effect(at, Fault::None);
                self.end_process(process);
                self.start_process();
                let number = self.processes.len() - 1;
                for _ in 0..4 {
                    self.progress_threads(Some(What::WatchJobs));
                    self.cluster_runs(false);
                    while self.may_work(number) {
                        self.work(number);
                    }
                    self.progress_threads(Some(What::Work));
                }
            }
            Point::Fault(fault) => self.effect(at, fault),
            Point::Before(event) => {
                self.happens(event, &before, process);
                if let Some(at) = self.thread(id) {
                    self.effect(at, Fault::None);
                }
            }
            Point::After(event) => {
                self.effect(at, Fault::None);
                self.happens(event, &subject, process);
            }
        }
        true
    }

    fn resend_if_unanswered(&mut self, client: usize) {
        let one = &self.clients[client];
        if one.key.is_some() && !one.in_flight && one.last.is_none() && one.sends > 0 {
            let process = self.alive().first().copied().unwrap_or(0);
            self.submit(client, process);
        }
    }

    fn happens(&mut self, event: Event, name: &str, process: usize) {
        match event {
            Event::WatchJobs => {
                self.progress_threads(Some(What::WatchJobs));
            }
            Event::WatchPods => {
                self.progress_threads(Some(What::WatchPods));
            }
            Event::WatchAll => {
                self.cluster_runs(false);
                self.progress_threads(Some(What::WatchJobs));
                self.progress_threads(Some(What::WatchPods));
            }
            Event::Relist => {
                self.on_watches(Frame::Gone);
                self.watches_run();
            }
            Event::WatchCut => {
                self.on_watches(Frame::Cut);
                self.watches_run();
            }
            Event::Unreadable => {
                self.cluster_runs(false);
                self.poison = [
                    self.world.job_log.events.last().map(|event| event.version),
                    self.world.pod_log.events.last().map(|event| event.version),
                ];
            }
            Event::Compact => {
                let version = self.world.version;
                self.world.job_log.compacted = version;
                self.world.pod_log.compacted = version;
                self.on_watches(Frame::End);
            }
            Event::Stop => self.other(Kind::Stop, name, process),
            Event::StopAll => self.other(Kind::StopAll, name, process),
            Event::Delete => self.other(Kind::Delete, name, process),
            Event::Restart => self.other(Kind::Restart, name, process),
            Event::Wait => self.other(Kind::Wait, name, process),
            Event::Submit => {
                self.submit_new(0, PAYLOAD, false);
            }
            Event::Resend => {
                for client in 0..self.clients.len() {
                    if self.clients[client].key.is_some() {
                        let id = self.submit(client, process);
                        self.run_alone(id);
                    }
                }
                if let Some(id) = self.resend_batch_anyhow() {
                    self.run_alone(id);
                }
            }
            Event::KubectlDelete => self.world.kubectl_delete(name, false),
            Event::KubectlDeleteTold => {
                self.world.kubectl_delete(name, false);
                self.progress_threads(Some(What::WatchJobs));
            }
            Event::KubectlDeleteSlowly => self.world.kubectl_delete(name, true),
            Event::KubectlDeletePod => {
                for pod in self.world.pods.keys().cloned().collect::<Vec<_>>() {
                    self.world.end_pod(&pod);
                }
            }
            Event::KubectlDeleteSecret => self.world.kubectl_delete_secret(name),
            Event::KubectlSuspend => self.world.kubectl_suspend(name, true),
            Event::KubectlResume => self.world.kubectl_suspend(name, false),
            Event::PodsStart => self.cluster_runs(false),
            Event::PodsSucceed | Event::PodsFail => {
                self.cluster_runs(false);
                let code = if event == Event::PodsFail { 2 } else { 0 };
                for pod in self.world.pods.keys().cloned().collect::<Vec<_>>() {
                    while self.world.kubelet(&pod, code) {}
                }
                self.cluster_runs(true);
            }
            Event::StalePod => {
                while !self.world.stale.is_empty() {
                    self.world.make_stale_pod(0);
                }
            }
            Event::Collect => self.cluster_runs(true),
            Event::Guard => {
                self.options.lasting_guard = true;
                self.world.guarded.push(name.to_string());
            }
            Event::SecretQuota => {
                (self.world.secret_quota, self.options.lasting_quota) = (true, true);
            }
            Event::ServiceQuota => {
                (self.world.service_quota, self.options.lasting_quota) = (true, true);
            }
            Event::Stall => self.advance(2_500_000),
        }
        self.after_world();
    }

    fn other(&mut self, kind: Kind, name: &str, process: usize) {
        let jobs = &self.world.jobs;
        let batch = jobs.get(name).filter(|job| job.is_managed);
        let uid = batch.map_or(0, |batch| batch.uid);
        let earlier = jobs.values().filter(|job| job.is_managed && job.uid < uid);
        let (is_batch, which) = (batch.is_some(), earlier.count() as u32);
        let id = match kind {
            Kind::Stop if is_batch => self.ask_batch(OfBatch::Stop, which),
            Kind::Delete if is_batch => self.ask_batch(OfBatch::Delete, which),
            Kind::Restart if is_batch => self.ask_batch(OfBatch::Restart, which),
            _ => Some(self.ask(kind, name, process)),
        };
        if let Some(id) = id {
            self.run_alone(id);
        }
    }

    fn on_watches(&mut self, frame: Frame) {
        let ids: Vec<u32> = self.threads.iter().map(|thread| thread.id).collect();
        for id in ids {
            if let Some(at) = self.thread(id)
                && matches!(self.threads[at].state, State::Reading(_))
            {
                self.frame(at, frame);
            }
        }
    }

    fn watches_run(&mut self) {
        for _ in 0..6 {
            self.progress_threads(Some(What::WatchJobs));
            self.progress_threads(Some(What::WatchPods));
            self.advance(60_000);
        }
    }

    fn cluster_runs(&mut self, ends: bool) {
        for _ in 0..6 {
            self.progress_cluster(ends);
        }
    }
}

/// The Job that a write is about.
fn subject_of(asked: &Asked) -> String {
    let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    let path = asked.path.split('?').next().unwrap_or_default();
    let name = match (asked.method, path.rsplit('/').next()) {
        ("POST", Some("jobs")) => body["metadata"]["name"].as_str(),
        ("POST", _) => body["metadata"]["ownerReferences"][0]["name"].as_str(),
        (_, last) => last,
    };
    name.unwrap_or_else(|| panic!("{} is about no Job", asked.name()))
        .to_string()
}

fn restart_of(asked: &Asked) -> Option<String> {
    let body: Value = serde_json::from_slice(&asked.body).ok()?;
    let name = &body["metadata"]["annotations"][RESTART_OF];
    name.as_str().map(str::to_string)
}

fn begin(case: &UseCase, with_log: bool) -> Sim {
    let mut sim = Sim::new((case.options)(), 1, with_log);
    sim.world.all_well = true;
    sim.start_process();
    sim.settle(SHORT, false);
    (case.setup)(&mut sim);
    sim.say(|| format!("now: {}", case.name));
    sim.watch_writes = true;
    sim
}

fn act(case: &UseCase, sim: &mut Sim) {
    (case.act)(sim);
    sim.settle(50_000_000, false);
    sim.watch_writes = false;
}

/// The writes of a use case when nothing goes wrong, and what fails even so.
fn writes(case: &UseCase) -> (Vec<String>, Option<Violation>) {
    let mut sim = begin(case, false);
    let before = sim.calls.len();
    act(case, &mut sim);
    let calls = sim.calls[before..].iter().map(|(call, _)| call.clone());
    let writes = calls.filter(|call| !call.starts_with("GET")).collect();
    sim.finish();
    (writes, sim.violation)
}

/// One use case with one thing happening at one of its writes.
pub fn run(case: &UseCase, write: usize, point: Point, with_log: bool) -> Sim {
    let mut sim = begin(case, with_log);
    sim.point = Some((write, point));
    act(case, &mut sim);
    sim.point = None;
    sim.finish();
    sim
}

/// What a cell of the table came to.
#[derive(Default)]
struct Row {
    runs: [usize; 4],
    failed: usize,
}

/// Runs all of it, and prints the table; `is_short` ends it with the first use case that fails.
/// Returns whether all was well.
pub fn enumerate(only: Option<&str>, verbose: bool, is_short: bool) -> bool {
    let mut rows: Vec<(String, Row)> = Vec::new();
    let mut failures: BTreeMap<(&'static str, &'static str), Vec<String>> = BTreeMap::new();
    let (mut runs, mut never) = (0, Vec::new());
    for case in USE_CASES {
        if is_short && !failures.is_empty() {
            break;
        }
        let (writes, violation) = writes(case);
        if let Some(violation) = violation {
            let text = format!("without a fault: {}", violation.what);
            failures
                .entry((violation.check, case.name))
                .or_default()
                .push(text);
        }
        if writes.is_empty() {
            rows.push((format!("{}: no write", case.name), Row::default()));
        }
        for (number, write) in writes.iter().enumerate() {
            let mut row = Row::default();
            for point in Point::all(write) {
                let cell = format!("{}/{number}/{point:?}", case.name);
                if only.is_some_and(|only| only != cell) {
                    continue;
                }
                let sim = run(case, number, point, only.is_some());
                runs += 1;
                row.runs[point.group()] += 1;
                if !sim.reached {
                    never.push(cell.clone());
                }
                for line in sim.log.iter().flatten() {
                    println!("{line}");
                }
                if let Some(violation) = sim.violation {
                    row.failed += 1;
                    let text = format!("{number} {write} {point:?}: {}", violation.what);
                    failures
                        .entry((violation.check, case.name))
                        .or_default()
                        .push(text);
                }
            }
            rows.push((format!("{}: {write}", case.name), row));
        }
    }
    print_table(&rows);
    for ((check, case), texts) in &failures {
        println!("FAILED {check}, {case}: {} cells", texts.len());
        let shown = if verbose { texts.len() } else { 3 };
        for text in texts.iter().take(shown) {
            println!("    {}", text.chars().take(220).collect::<String>());
        }
    }
    for cell in never.iter().take(20) {
        println!("NEVER RUN {cell}");
    }
    let failed: usize = failures.values().map(Vec::len).sum();
    println!(
        "{runs} cells run, {failed} failed, {} never run",
        never.len()
    );
    failed == 0 && never.is_empty() && runs > 0
}

fn print_table(rows: &[(String, Row)]) {
    println!(
        "{:55} {:>5} {:>6} {:>7} {:>7} {:>7}",
        "use case: write", "ends", "faults", "before", "after", "failed"
    );
    for (name, row) in rows {
        let [ends, faults, before, after] = row.runs;
        println!(
            "{name:55} {ends:>5} {faults:>6} {before:>7} {after:>7} {:>7}",
            row.failed
        );
    }
}
