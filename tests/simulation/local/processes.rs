//! Processes that run until the driver says so, and time that passes when it says so.

use crate::disk::SimDisk;
use crate::oracle::Oracle;
use job_scheduler::backend::local::{Exit, Launch, Leader, Orphan, Processes, View};
use job_scheduler::clock::Source;
use job_scheduler::job::JobName;
use rustix::process::{Pid, Signal};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The processes of the machine.
#[derive(Clone)]
pub struct SimProcesses {
    state: Arc<Mutex<State>>,
    disk: SimDisk,
    oracle: Oracle,
}

#[derive(Default)]
struct State {
    last_pid: i32,
    living: BTreeMap<i32, Process>,
}

struct Process {
    job: JobName,
    attempt: usize,
    exit: Option<Exit>,
}

/// What the process of an attempt leaves for its job's caller.
pub fn left_by(attempt: &str) -> String {
    format!("left by {attempt}")
}

impl SimProcesses {
    pub fn new(disk: SimDisk, oracle: Oracle) -> SimProcesses {
        SimProcesses {
            state: Arc::default(),
            disk,
            oracle,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the process of a job exit. `false` if it has none.
    pub fn exit(&self, job: &JobName, code: i32) -> bool {
        let mut state = self.state();
        let found = state.living.values_mut();
        let found = found
            .filter(|process| process.job == *job && process.exit.is_none())
            .last();
        let Some(process) = found else {
            return false;
        };
        process.exit = Some(Exit::Code(code));
        true
    }

    /// The jobs that have a process, which has not exited.
    pub fn running(&self) -> Vec<JobName> {
        let state = self.state();
        let alive = state.living.values().filter(|one| one.exit.is_none());
        alive.map(|process| process.job.clone()).collect()
    }

    /// Whether there is something to collect.
    pub fn has_exited(&self) -> bool {
        self.state().living.values().any(|one| one.exit.is_some())
    }

    /// The scheduler ended, and its processes with it.
    pub fn end_all(&self) {
        for process in std::mem::take(&mut self.state().living).into_values() {
            self.oracle
                .run_ended(&process.job, process.attempt, process.exit);
        }
    }
}

impl Processes for SimProcesses {
    fn adopt_orphans(&self) -> io::Result<()> {
        Ok(())
    }

    fn kill_marked(&self, _folder: &Path, _patience: Duration) -> (usize, usize) {
        (0, 0)
    }

    fn view(&self, _component: &str, _path: &Path, _folder: &Path) -> Option<View> {
        None
    }

    fn start(&self, launch: &Launch) -> io::Result<Leader> {
        let log = launch.log.file_name().and_then(|name| name.to_str());
        let mut parts = log.unwrap_or_default().split('.');
        let job = parts.next().and_then(JobName::parse).unwrap();
        let attempt = parts.next().and_then(|text| text.parse().ok()).unwrap();
        let payload = launch.environment.get("JOB_PAYLOAD_FILE");
        let payload = payload.and_then(|file| self.disk.content(Path::new(file)));
        let request = launch.environment.get("REQUEST");
        let request = request.and_then(|text| text.parse().ok()).unwrap();
        self.oracle.run_begins(&job, request, attempt, payload);
        let result = launch.environment.get("JOB_RESULT_FILE").unwrap();
        let left = left_by(&format!("{job}-{attempt}"));
        self.disk.put(Path::new(result), Some(left.as_bytes()));
        let mut state = self.state();
        if state.living.values().any(|process| process.job == job) {
            self.oracle
                .violated(format!("job {job} runs twice at once"));
        }
        state.last_pid += 1;
        let number = state.last_pid;
        state.living.insert(
            number,
            Process {
                job,
                attempt,
                exit: None,
            },
        );
        if state.living.len() > 2 {
            let count = state.living.len();
            self.oracle
                .violated(format!("{count} jobs of 1 CPU run on 2 CPUs"));
        }
        Ok(Leader {
            pid: Pid::from_raw(number).unwrap(),
            started: number as u64,
        })
    }

    fn check_port(&self, _port: u16) -> Result<(), String> {
        Ok(())
    }

    fn signal_group(&self, leader: Pid, signal: Signal) {
        // SIGCONT ends none.
        if signal != Signal::CONT
            && let Some(process) = self.state().living.get_mut(&leader.as_raw_nonzero().get())
        {
            process.exit.get_or_insert(Exit::Signal(signal.as_raw()));
        }
    }

    fn collect_leader(&self, leader: Pid) -> Option<Exit> {
        let mut state = self.state();
        let number = leader.as_raw_nonzero().get();
        let exit = state.living.get(&number)?.exit?;
        let process = state.living.remove(&number)?;
        self.oracle
            .run_ended(&process.job, process.attempt, Some(exit));
        Some(exit)
    }

    fn orphans(&self, _is_running: &dyn Fn(Pid) -> bool) -> Vec<Orphan> {
        Vec::new()
    }

    fn kill(&self, _pid: Pid) {}
}

/// Time that passes when the driver says so.
pub struct SimTime(Mutex<Times>);

struct Times {
    began: Instant,
    passed: Duration,
    /// How far the wall clock is set back, in microseconds.
    set_back: u64,
    random: fastrand::Rng,
}

/// 2026-01-01.
const FIRST_MICROS: u64 = 1_767_225_600_000_000;

impl SimTime {
    pub fn new(seed: u64) -> SimTime {
        SimTime(Mutex::new(Times {
            began: Instant::now(),
            passed: Duration::ZERO,
            set_back: 0,
            random: fastrand::Rng::with_seed(seed),
        }))
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn pass(&self, time: Duration) {
        self.times().passed += time;
    }

    pub fn passed(&self) -> Duration {
        self.times().passed
    }

    pub fn set_back(&self, seconds: u64) {
        self.times().set_back += seconds * 1_000_000;
    }
}

impl Source for SimTime {
    fn micros(&self) -> u64 {
        let times = self.times();
        FIRST_MICROS + times.passed.as_micros() as u64 - times.set_back
    }

    fn instant(&self) -> Instant {
        let times = self.times();
        times.began + times.passed
    }

    fn random(&self) -> u64 {
        self.times().random.u64(..)
    }

    fn sleep(&self, time: Duration) {
        self.pass(time);
    }
}
