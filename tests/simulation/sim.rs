//! One history: the world, the scheduler's processes, their clients, and what may happen next.

use crate::batches::{BatchClient, OfBatch};
use crate::client::{Client, Outcome, Request};
use crate::coroutine::{Answer, Ask, Asked, Clocks, Done, Line, Now, Step as Went, Task};
use crate::coroutine::{instant, micros, mix};
use crate::enumerate::Point;
use crate::reader::Reader;
use crate::step::{Fault, Kind, Step};
use crate::world::{Refusal, World, refusal};
use job_scheduler::backend::Observer;
use job_scheduler::backend::kubernetes::api::{ApiError, Patience};
use job_scheduler::backend::kubernetes::{Kubernetes, watch};
use job_scheduler::clock::Clock;
use job_scheduler::config::JobComponent;
use job_scheduler::index::Bounds;
use job_scheduler::job::{JobName, Status, Timestamp};
use job_scheduler::metrics::Metrics;
use job_scheduler::scheduler::{Limits, Scheduler};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Tasks of a process's queue that are done at a time.
const WORKERS: usize = 2;
const SECOND: u64 = 1_000_000;
/// How long an effect of a process that has ended may take to come.
const DEAD_EFFECT: u64 = 2 * SECOND;
/// The same of one that lives.
const LATE_EFFECT: u64 = 10 * SECOND;
const LIST_TIMEOUT: u64 = 10 * SECOND;
/// A thread is held up for no longer than this.
const STALL: u64 = 3 * SECOND;

/// What a history is about.
#[derive(Clone, Debug)]
pub struct Options {
    pub cap: usize,
    pub history: usize,
    pub max_jobs: usize,
    pub max_waiting: usize,
    pub ports: bool,
    pub payloads: bool,
    pub backoff: u32,
    pub policy: bool,
    pub sidecars: bool,
    /// Somebody has a finalizer on each Job.
    pub finalizers: bool,
    pub page: usize,
    /// Two schedulers may run at the same time.
    pub two: bool,
    /// The quota on Secrets, or on Services, stays for good once it is there.
    pub lasting_quota: bool,
    /// Whoever refuses to have a Job changed does so for good.
    pub lasting_guard: bool,
    pub skew: bool,
    /// How long containers take to end that are told to.
    pub linger: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cap: 0,
            history: 10,
            max_jobs: 100,
            max_waiting: 100,
            ports: false,
            payloads: true,
            backoff: 0,
            policy: false,
            sidecars: false,
            finalizers: false,
            page: 500,
            two: false,
            lasting_quota: false,
            lasting_guard: false,
            skew: false,
            linger: 0,
        }
    }
}

impl Options {
    /// The component that is simulated, read once for each that there is.
    pub fn component(&self) -> JobComponent {
        thread_local! {
            static READ: RefCell<BTreeMap<(bool, bool, u32, bool), JobComponent>> =
                const { RefCell::new(BTreeMap::new()) };
        }
        let which = (self.ports, self.payloads, self.backoff, self.policy);
        READ.with_borrow_mut(|read| {
            let component = read.entry(which).or_insert_with(|| self.read_component());
            component.clone()
        })
    }

    fn read_component(&self) -> JobComponent {
        let ports = match self.ports {
            true => "    ports: [{name: http, port: 3000}]\n",
            false => "",
        };
        let payload = match self.payloads {
            true => "    payload: {path: /in}\n",
            false => "",
        };
        let policy = match self.policy {
            true => {
                "    failurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}, \
                 {action: Ignore, onExitCodes: {operator: In, values: [143]}}]}\n"
            }
            false => "",
        };
        let yaml = format!(
            "metadata: {{name: app}}\nspec:\n  environments: [{{name: dev}}]\n  jobs:\n  - name: compute\n    \
             schedulerPort: 8000\n    image: i:1\n    backoffLimit: {}\n{ports}{payload}{policy}",
            self.backoff
        );
        let config = job_scheduler::config::parse("simulation", yaml.as_bytes());
        let config = config.unwrap_or_else(|e| panic!("{e}\n{yaml}"));
        config.job_component("dev", "compute").unwrap()
    }
}

/// A process of the scheduler.
pub struct Process {
    pub scheduler: Arc<Scheduler>,
    pub kubernetes: Arc<Kubernetes>,
    pub alive: bool,
    pub settled: Arc<Mutex<Vec<JobName>>>,
    /// Statuses as last told, by uid, and those that are not told of any more.
    pub told: BTreeMap<String, Status>,
    /// The last change that was looked at.
    pub observed: Option<u64>,
    pub gone: BTreeSet<String>,
    pub waiters: Vec<(JobName, usize)>,
    pub reader: Reader,
    /// When it began.
    pub since: u64,
    /// Whether it has listed all jobs, and all pods.
    pub listed: [bool; 2],
    /// When each job said how far it was, and was heard, by its name.
    pub reports_taken: BTreeMap<String, Vec<u64>>,
}

#[derive(Debug)]
pub enum State {
    /// Called, and nothing has come of it.
    Calling {
        asked: Asked,
        at: u64,
        opens: bool,
    },
    /// Its answer is there, or comes then.
    Ready {
        from: u64,
    },
    Reading(u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    Request(usize),
    Work,
    WatchJobs,
    WatchPods,
}

/// A task of a process.
pub struct Thread {
    pub id: u32,
    pub process: usize,
    pub what: What,
    pub state: State,
    answer: Option<Answer>,
    task: Task,
}

impl Thread {
    pub fn calls(&self) -> Option<&Asked> {
        match &self.state {
            State::Calling { asked, .. } => Some(asked),
            _ => None,
        }
    }
}

/// A watch's connection.
pub struct Stream {
    pub of_pods: bool,
    pub cursor: usize,
    cut: bool,
}

/// An effect that nobody waits for any more.
pub struct Late {
    pub asked: Asked,
    /// When it was sent.
    pub sent: u64,
    pub by: u64,
}

/// A check that failed.
#[derive(Clone, Debug)]
pub struct Violation {
    pub check: &'static str,
    pub what: String,
}

pub struct Sim {
    pub now: Now,
    pub options: Options,
    component: JobComponent,
    pub seed: u64,
    pub world: World,
    pub processes: Vec<Process>,
    pub threads: Vec<Thread>,
    pub streams: BTreeMap<u32, Stream>,
    pub late: Vec<Late>,
    pub clients: Vec<Client>,
    pub requests: Vec<Request>,
    /// A frame of a version that nobody can read, for jobs and for pods.
    pub poison: [Option<u64>; 2],
    pub violation: Option<Violation>,
    /// What happened, in words; `None` where nobody wants to know.
    pub log: Option<Vec<String>>,
    /// Calls that took effect or were refused, in order: what was asked.
    pub calls: Vec<(String, Fault)>,
    pub batches: Vec<BatchClient>,
    /// Whose batch a request submits, by the request's number.
    pub batch_of_request: BTreeMap<usize, usize>,
    pub requested_stops: BTreeSet<String>,
    pub requested_restarts: BTreeSet<String>,
    pub requested_deletes: BTreeSet<String>,
    /// What jobs said of their progress: by the message, of which run of which job it was, as the
    /// process knew it.
    pub reports: BTreeMap<String, (String, Option<Timestamp>)>,
    next: u32,
    checked_pods: usize,
    pub checked_deletions: BTreeSet<crate::world::Uid>,
    pub healed: bool,
    /// What is to happen at the write after so many others.
    pub point: Option<(usize, Point)>,
    pub reached: bool,
    pub watch_writes: bool,
    /// The world's version when its controllers last had nothing to do, and whether containers
    /// could end.
    at_rest: Option<(u64, bool)>,
}

impl Sim {
    pub fn new(options: Options, seed: u64, with_log: bool) -> Sim {
        let world = World {
            version: 100,
            sidecars: options.sidecars,
            finalizers: options.finalizers,
            linger: options.linger,
            page: options.page,
            ..World::default()
        };
        Sim {
            now: Arc::new(AtomicU64::new(0)),
            component: options.component(),
            options,
            seed,
            world,
            processes: Vec::new(),
            threads: Vec::new(),
            streams: BTreeMap::new(),
            late: Vec::new(),
            clients: Vec::new(),
            requests: Vec::new(),
            poison: [None; 2],
            violation: None,
            log: with_log.then(Vec::new),
            calls: Vec::new(),
            batches: Vec::new(),
            batch_of_request: BTreeMap::new(),
            requested_stops: BTreeSet::new(),
            requested_restarts: BTreeSet::new(),
            requested_deletes: BTreeSet::new(),
            reports: BTreeMap::new(),
            next: 0,
            checked_pods: 0,
            checked_deletions: BTreeSet::new(),
            healed: false,
            point: None,
            reached: false,
            watch_writes: false,
            at_rest: None,
        }
    }

    pub fn time(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    pub fn say(&mut self, line: impl FnOnce() -> String) {
        let now = self.time();
        if let Some(log) = &mut self.log {
            log.push(format!("{:>9.3} {}", now as f64 / 1e6, line()));
        }
    }

    pub fn violate(&mut self, check: &'static str, what: String) {
        self.say(|| format!("VIOLATION {check}: {what}"));
        self.violation.get_or_insert(Violation { check, what });
    }

    // Processes.

    pub fn alive(&self) -> Vec<usize> {
        (0..self.processes.len())
            .filter(|at| self.processes[*at].alive)
            .collect()
    }

    pub fn start_process(&mut self) {
        let number = self.processes.len();
        // Leases, endpoints and the like change whenever a process starts.
        self.world.bump(3);
        let random = mix(self.seed ^ mix(number as u64 + 1));
        let skew = match self.options.skew {
            true => (mix(random) % 120_000_000) as i64 - 60_000_000,
            false => 0,
        };
        let clock = Clock::of(Arc::new(Clocks {
            now: self.now.clone(),
            skew,
            random: AtomicU64::new(random),
        }));
        let metrics = Arc::new(Metrics::default());
        let kubernetes = Kubernetes::new(
            Arc::new(Line),
            clock.clone(),
            self.component.clone(),
            Vec::new(),
            metrics.clone(),
        );
        let kubernetes = Arc::new(kubernetes.one_write_at_a_time());
        let limits = Limits {
            history: self.options.history,
            bounds: Bounds {
                unfinished: self.options.max_jobs,
                running: self.options.cap,
                waiting: self.options.max_waiting,
            },
        };
        let backend = kubernetes.clone();
        let scheduler = Scheduler::new(self.component.clone(), backend, limits, clock, metrics);
        let scheduler = Arc::new(scheduler);
        let settled: Arc<Mutex<Vec<JobName>>> = Arc::default();
        let sink = settled.clone();
        scheduler.on_settled(Box::new(move |name| {
            sink.lock().unwrap().push(name.clone())
        }));
        self.processes.push(Process {
            scheduler,
            kubernetes,
            alive: true,
            settled,
            told: BTreeMap::new(),
            observed: None,
            gone: BTreeSet::new(),
            waiters: Vec::new(),
            reader: Reader::default(),
            since: self.time(),
            listed: [false; 2],
            reports_taken: BTreeMap::new(),
        });
        self.say(|| {
            format!(
                "process {number} starts, its clock wrong by {} ms",
                skew / 1000
            )
        });
        self.start_watch(number, What::WatchJobs);
        self.start_watch(number, What::WatchPods);
    }

    fn start_watch(&mut self, number: usize, what: What) {
        let (kubernetes, scheduler) = {
            let process = &self.processes[number];
            (process.kubernetes.clone(), process.scheduler.clone())
        };
        self.start(number, what, move || {
            let (observer, stop): (&dyn Observer, _) = (&*scheduler, AtomicBool::new(false));
            match what {
                What::WatchJobs => kubernetes.watch_kind::<watch::Jobs>(observer, &stop),
                _ => kubernetes.watch_kind::<watch::Pods>(observer, &stop),
            }
            Done::Watched
        });
    }

    /// The process ends, between any two of its instructions that call the world.
    pub fn end_process(&mut self, number: usize) {
        self.say(|| format!("process {number} ends"));
        self.processes[number].alive = false;
        let now = self.time();
        let mut ended = Vec::new();
        let mut at = 0;
        while at < self.threads.len() {
            match self.threads[at].process == number {
                true => ended.push(self.threads.remove(at)),
                false => at += 1,
            }
        }
        for thread in ended {
            if let State::Calling {
                asked,
                at: sent,
                opens: false,
            } = &thread.state
                && asked.method != "GET"
                && mix(self.seed ^ u64::from(thread.id)).is_multiple_of(2)
            {
                let by = now + DEAD_EFFECT;
                self.late.push(Late {
                    asked: asked.clone(),
                    sent: *sent,
                    by,
                });
            }
            if let State::Reading(stream) = thread.state {
                self.streams.remove(&stream);
            }
            if let What::Request(request) = thread.what {
                self.abandon(request);
                self.abandon_batch(request);
            }
        }
        let of_process = |client: &&mut Client| client.process == number;
        self.clients
            .iter_mut()
            .filter(of_process)
            .for_each(|client| client.ended_since = true);
        let process = &mut self.processes[number];
        process.waiters.clear();
        let by = now + DEAD_EFFECT;
        self.late
            .iter_mut()
            .for_each(|late| late.by = late.by.min(by));
    }

    /// Starts a task of a process, and runs it until it asks for something.
    pub fn start(
        &mut self,
        process: usize,
        what: What,
        run: impl FnOnce() -> Done + 'static,
    ) -> u32 {
        self.next += 1;
        let id = self.next;
        self.threads.push(Thread {
            id,
            process,
            what,
            state: State::Ready { from: 0 },
            answer: Some(Answer::Go),
            task: Task::new(run),
        });
        self.resume(self.threads.len() - 1);
        id
    }

    pub fn thread(&self, id: u32) -> Option<usize> {
        self.threads.iter().position(|thread| thread.id == id)
    }

    /// The name of a task, if anybody listens.
    fn said_name(&self, at: usize) -> String {
        match self.log {
            Some(_) => self.name_of(at),
            None => String::new(),
        }
    }

    pub fn name_of(&self, at: usize) -> String {
        let thread = &self.threads[at];
        match thread.what {
            What::Request(request) => format!("request {request}"),
            What::Work => format!("work {} of process {}", thread.id, thread.process),
            What::WatchJobs => format!("watch of jobs {}", thread.process),
            What::WatchPods => format!("watch of pods {}", thread.process),
        }
    }

    /// Gives a task its answer and runs it until it asks for something else.
    pub fn resume(&mut self, at: usize) {
        let now = self.time();
        let thread = &mut self.threads[at];
        let Some(answer) = thread.answer.take() else {
            return;
        };
        let went = catch_unwind(AssertUnwindSafe(|| thread.task.resume(answer)));
        let process = thread.process;
        let lines = self.log.is_some().then(crate::logged);
        for line in lines.into_iter().flatten() {
            self.say(|| format!("process {process} logs {line}"));
        }
        match went {
            Ok(Went::Asks(ask)) => self.asked(at, ask, now),
            Ok(Went::Done(done)) => {
                let thread = self.threads.remove(at);
                self.finished(thread.process, thread.what, done);
            }
            Err(panic) => {
                let thread = self.threads.remove(at);
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| t.to_string()));
                std::mem::forget(thread.task);
                self.violate("panic", text.unwrap_or_default());
            }
        }
        self.notify(process);
        self.observe(process);
    }

    fn asked(&mut self, at: usize, ask: Ask, now: u64) {
        let state = match ask {
            Ask::Call(asked) | Ask::Open(asked) if self.is_late(&asked, now) => {
                let what = format!("{} is sent after its deadline", asked.name());
                self.violate("deadline", what);
                State::Ready { from: u64::MAX }
            }
            Ask::Call(asked) => State::Calling {
                asked,
                at: now,
                opens: false,
            },
            Ask::Open(asked) => State::Calling {
                asked,
                at: now,
                opens: true,
            },
            Ask::Read(stream) => State::Reading(stream),
            Ask::Sleep(time) => {
                self.threads[at].answer = Some(Answer::Go);
                let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
                State::Ready { from: now + time }
            }
        };
        self.threads[at].state = state;
    }

    fn is_late(&self, asked: &Asked, now: u64) -> bool {
        matches!(asked.patience, Patience::Until(until) if until <= instant(now))
    }

    fn deadline(asked: &Asked, at: u64) -> u64 {
        match asked.patience {
            Patience::Until(until) => micros(until),
            _ => at + LIST_TIMEOUT,
        }
    }

    /// A call takes effect, or not, as the fault says; its answer is on its way.
    pub fn effect(&mut self, at: usize, fault: Fault) {
        let answering = State::Ready { from: u64::MAX };
        let state = std::mem::replace(&mut self.threads[at].state, answering);
        let State::Calling {
            asked,
            at: sent,
            opens,
        } = state
        else {
            self.threads[at].state = state;
            return;
        };
        let is_list = asked.method == "GET" && asked.patience == Patience::List;
        let fault = match fault.fits(asked.method, is_list || opens) {
            true => fault,
            false => Fault::None,
        };
        self.tick(1000);
        let deadline = Sim::deadline(&asked, sent);
        self.world.asked = sent;
        let outcome = match opens {
            true => self.open(&asked, fault),
            false => self.called(&asked, fault),
        };
        self.note_list(at, &outcome);
        let name = self.said_name(at);
        if fault.is_late() {
            let by = self.time() + LATE_EFFECT;
            self.late.push(Late {
                asked: asked.clone(),
                sent,
                by,
            });
        }
        if self.watch_writes {
            self.calls.push((asked.kind(), fault));
        }
        let from = match fault {
            Fault::TimeoutAfter | Fault::TimeoutBefore | Fault::TimeoutLate => deadline,
            _ => 0,
        };
        self.say(|| {
            let said = match &outcome {
                Answer::Called(Ok(_)) | Answer::Opened(Ok(_)) => "ok".to_string(),
                Answer::Called(Err(e)) | Answer::Opened(Err(e)) => e.to_string(),
                _ => String::new(),
            };
            format!("{name}: {} [{}] {said}", describe(&asked), fault.text())
        });
        let thread = &mut self.threads[at];
        thread.answer = Some(outcome);
        thread.state = State::Ready { from };
        self.after_world();
    }

    /// Whoever watches has all that was asked for.
    fn note_list(&mut self, at: usize, outcome: &Answer) {
        let thread = &self.threads[at];
        let kind = match thread.what {
            What::WatchJobs => 0,
            What::WatchPods => 1,
            What::Request(_) | What::Work => return,
        };
        if let Answer::Called(Ok(page)) = outcome
            && String::from_utf8_lossy(page).contains("\"continue\":\"\"")
        {
            self.processes[thread.process].listed[kind] = true;
        }
    }

    fn called(&mut self, asked: &Asked, fault: Fault) -> Answer {
        let done = match fault.is_done() {
            true => Some(self.world.call(asked)),
            false => None,
        };
        Answer::Called(match (fault, done) {
            (Fault::None, Some(done)) => done.map_err(|r| status(asked, r)),
            (Fault::Garbled, Some(Ok(mut bytes))) => {
                bytes.truncate(bytes.len() / 2);
                Ok(bytes)
            }
            (Fault::Garbled, Some(Err(r))) => Err(status(asked, r)),
            _ => Err(failure(asked, fault)),
        })
    }

    fn open(&mut self, asked: &Asked, fault: Fault) -> Answer {
        if fault != Fault::None {
            return Answer::Opened(Err(failure(asked, fault)));
        }
        let of_pods = asked.path.contains("/pods?");
        let version = asked.path.split("resourceVersion=").nth(1);
        let version = version
            .and_then(|v| v.split('&').next()?.parse().ok())
            .unwrap_or(0);
        let log = match of_pods {
            true => &self.world.pod_log,
            false => &self.world.job_log,
        };
        let Some(cursor) = log.after(version) else {
            let gone = refusal(410, "Expired", "too old resource version");
            return Answer::Opened(Err(status(asked, gone)));
        };
        self.next += 1;
        let stream = Stream {
            of_pods,
            cursor,
            cut: false,
        };
        self.streams.insert(self.next, stream);
        Answer::Opened(Ok(self.next))
    }

    /// Whether a reader has something to read without a fault.
    pub fn has_frames(&self, at: usize) -> bool {
        let State::Reading(stream) = self.threads[at].state else {
            return false;
        };
        let stream = &self.streams[&stream];
        stream.cut || stream.cursor < self.log_of(stream.of_pods).events.len()
    }

    fn log_of(&self, of_pods: bool) -> &crate::world::Log {
        match of_pods {
            true => &self.world.pod_log,
            false => &self.world.job_log,
        }
    }

    /// A reader reads, and goes on.
    pub fn frame(&mut self, at: usize, how: Frame) {
        let State::Reading(id) = self.threads[at].state else {
            return;
        };
        let name = self.said_name(at);
        let bytes = self.frames(id, how);
        if bytes.as_ref().map_or(true, Vec::is_empty) {
            self.streams.remove(&id);
        }
        self.say(|| match &bytes {
            Ok(bytes) => {
                let frames = String::from_utf8_lossy(bytes);
                let frames: Vec<String> = frames.lines().map(brief).collect();
                format!("{name}: {how:?} {}", frames.join(", "))
            }
            Err(e) => format!("{name}: {how:?} {e}"),
        });
        let thread = &mut self.threads[at];
        thread.answer = Some(Answer::Read(bytes));
        thread.state = State::Ready { from: 0 };
        self.resume(at);
    }

    fn frames(&mut self, id: u32, how: Frame) -> io::Result<Vec<u8>> {
        let (of_pods, cursor, cut) = {
            let stream = &self.streams[&id];
            (stream.of_pods, stream.cursor, stream.cut)
        };
        let version = self.world.version;
        let poison = self.poison[usize::from(of_pods)];
        let events = &self.log_of(of_pods).events;
        let read = |from: usize, count: usize| {
            let mut bytes = Vec::new();
            for event in events.iter().skip(from).take(count) {
                match poison == Some(event.version) {
                    true => bytes.extend_from_slice(b"{\"type\":\"MODIFIED\",\"object\":7}\n"),
                    false => bytes.extend_from_slice(&event.frame),
                }
            }
            bytes
        };
        let left = events.len() - cursor;
        let error = |code: u16, reason: &str| {
            let text = format!(
                "{{\"type\":\"ERROR\",\"object\":{{\"kind\":\"Status\",\"code\":{code},\"reason\":\"{reason}\",\
                 \"message\":\"broken\"}}}}\n"
            );
            Ok(text.into_bytes())
        };
        if cut {
            return Ok(Vec::new());
        }
        let mut to = (cursor, false);
        let bytes = match how {
            Frame::One => {
                to.0 = cursor + left.min(1);
                Ok(read(cursor, 1))
            }
            Frame::All => {
                to.0 = events.len();
                Ok(read(cursor, left))
            }
            Frame::Repeat => {
                let from = cursor.saturating_sub(2);
                Ok(read(from, cursor - from))
            }
            Frame::End => Ok(Vec::new()),
            Frame::Cut => {
                let mut bytes = read(cursor, 1);
                bytes.truncate(bytes.len() / 2);
                to.1 = true;
                Ok(bytes)
            }
            Frame::Bookmark => {
                let version = match left {
                    0 => version,
                    _ => events[cursor].version - 1,
                };
                let text = format!(
                    "{{\"type\":\"BOOKMARK\",\"object\":{{\"metadata\":{{\"resourceVersion\":\"{version}\",\
                     \"creationTimestamp\":null}}}}}}\n"
                );
                Ok(text.into_bytes())
            }
            Frame::Gone => error(410, "Expired"),
            Frame::Error500 => error(500, "InternalError"),
            Frame::Error504 => error(504, "Timeout"),
            Frame::Garbage => Ok(b"<html>\n".to_vec()),
            Frame::Reset => Err(io::ErrorKind::ConnectionReset.into()),
            Frame::Silent => Err(io::ErrorKind::TimedOut.into()),
        };
        if let Some(stream) = self.streams.get_mut(&id) {
            (stream.cursor, stream.cut) = to;
        }
        bytes
    }

    /// Notes what a task came to.
    fn finished(&mut self, process: usize, what: What, done: Done) {
        let What::Request(request) = what else {
            return;
        };
        match done {
            Done::Batch(done) => self.batch_answered(request, done),
            done => self.answered(process, request, done),
        }
    }

    /// Who waits is answered when its job is settled.
    fn notify(&mut self, number: usize) {
        let process = &mut self.processes[number];
        let settled = std::mem::take(&mut *process.settled.lock().unwrap());
        for name in settled {
            let process = &mut self.processes[number];
            let mut woken = Vec::new();
            process.waiters.retain(|(job, request)| {
                let wakes = *job == name;
                if wakes {
                    woken.push(*request);
                }
                !wakes
            });
            for request in woken {
                let scheduler = self.processes[number].scheduler.clone();
                let view = scheduler.get(name.as_str());
                if let Ok(view) = &view {
                    self.check_reason(&view.record);
                }
                self.answered(number, request, Done::Viewed(view));
            }
        }
    }

    /// Whether a task may go on now.
    pub fn is_ready(&self, at: usize) -> bool {
        let thread = &self.threads[at];
        matches!(thread.state, State::Ready { from } if from <= self.time() && thread.answer.is_some())
    }

    /// Whether the process has a task to do and somebody to do it.
    pub fn may_work(&self, number: usize) -> bool {
        let process = &self.processes[number];
        let works = |t: &&Thread| t.process == number && t.what == What::Work;
        process.alive
            && self.threads.iter().filter(works).count() < WORKERS
            && process
                .scheduler
                .next_task_due()
                .is_some_and(|due| micros(due) <= self.time())
    }

    pub fn work(&mut self, number: usize) {
        let scheduler = self.processes[number].scheduler.clone();
        self.start(number, What::Work, move || {
            scheduler.work_once();
            Done::Worked
        });
    }

    // Time.

    fn tick(&mut self, by: u64) {
        let now = self.time() + by;
        self.now.store(now, Ordering::Relaxed);
        self.world.now = now;
    }

    /// Lets time pass, with all that must happen meanwhile.
    pub fn advance(&mut self, by: u64) {
        let until = self.time().saturating_add(by);
        while self.violation.is_none() {
            let held_up = (0..self.threads.len())
                .filter_map(|at| Some((self.must_act(at)?, at)))
                .min();
            let effect = self
                .late
                .iter()
                .map(|late| late.by)
                .min()
                .unwrap_or(u64::MAX);
            let next = held_up.map_or(u64::MAX, |(time, _)| time).min(effect);
            if next > until {
                break;
            }
            if next > self.time() {
                self.tick(next - self.time());
            }
            match held_up {
                Some((time, at)) if time <= effect => self.act(at),
                _ => {
                    let at = self.late.iter().position(|late| late.by == effect);
                    self.land(at.unwrap_or(0));
                }
            }
        }
        if until > self.time() {
            self.tick(until - self.time());
        }
    }

    /// When a task goes on at the latest.
    fn must_act(&self, at: usize) -> Option<u64> {
        let thread = &self.threads[at];
        match &thread.state {
            State::Calling { asked, at, .. } => Some(Sim::deadline(asked, *at)),
            State::Ready { from } => thread.answer.is_some().then(|| {
                // A request that waits for its turn looks again within its time.
                from.saturating_add(STALL)
            }),
            State::Reading(_) => None,
        }
    }

    fn act(&mut self, at: usize) {
        match &self.threads[at].state {
            State::Calling { .. } => {
                let late = mix(self.seed ^ u64::from(self.threads[at].id)).is_multiple_of(2);
                self.effect(
                    at,
                    if late {
                        Fault::TimeoutLate
                    } else {
                        Fault::TimeoutBefore
                    },
                );
            }
            _ => self.resume(at),
        }
    }

    /// An effect comes that nobody waits for.
    pub fn land(&mut self, at: usize) {
        if at >= self.late.len() {
            return;
        }
        let late = self.late.remove(at);
        self.world.asked = late.sent;
        let done = self.world.call(&late.asked);
        self.say(|| {
            let said = done.map_or_else(|r| r.message, |_| "done".to_string());
            format!("late: {} {said}", describe(&late.asked))
        });
        self.after_world();
    }

    /// What is checked whenever the world may have changed.
    pub fn after_world(&mut self) {
        self.check_deletions();
        self.check_stops();
        if self.world.pod_log.events.len() == self.checked_pods {
            return;
        }
        self.checked_pods = self.world.pod_log.events.len();
        self.check_pods();
    }

    /// Does one step, if it can be done.
    pub fn step(&mut self, step: Step) -> bool {
        let done = self.try_step(step);
        if done {
            self.after_world();
        }
        done
    }

    fn try_step(&mut self, step: Step) -> bool {
        let Step { kind, which, how } = step;
        match kind {
            Kind::Submit => self.submit_new(which, how, false),
            Kind::SubmitKeyed => self.submit_new(which, how, true),
            Kind::Resend => self.resend(which),
            Kind::Stop
            | Kind::StopAll
            | Kind::Restart
            | Kind::Delete
            | Kind::Wait
            | Kind::Report => self.request_on(kind, which, how),
            Kind::Batch => match how % 8 {
                0 => self.ask_batch(OfBatch::Stop, which).is_some(),
                1 => self.ask_batch(OfBatch::Delete, which).is_some(),
                2 => self.ask_batch(OfBatch::Restart, which).is_some(),
                3 | 4 => self.resend_batch(),
                _ => self.submit_batch(how % 8 > 5),
            },
            Kind::End => match pick(self.alive().into_iter(), which) {
                Some(number) => {
                    self.end_process(number);
                    true
                }
                None => false,
            },
            Kind::Start => {
                let may = self.alive().len() < if self.options.two { 2 } else { 1 };
                if may {
                    self.start_process();
                }
                may
            }
            Kind::Work => {
                let able = self
                    .alive()
                    .into_iter()
                    .filter(|number| self.may_work(*number));
                let number = pick(able, which);
                number.map(|number| self.work(number)).is_some()
            }
            Kind::Effect => {
                let calling = (0..self.threads.len())
                    .filter(|at| matches!(self.threads[*at].state, State::Calling { .. }));
                let Some(at) = pick(calling, which) else {
                    return false;
                };
                let fault = Fault::ALL[how as usize % Fault::ALL.len()];
                let id = self.threads[at].id;
                self.effect(at, fault);
                // Most answers are used at once.
                if how >= 100
                    && let Some(at) = self.thread(id).filter(|at| self.is_ready(*at))
                {
                    self.resume(at);
                }
                true
            }
            Kind::Resume => {
                let ready = (0..self.threads.len()).filter(|at| self.is_ready(*at));
                match pick(ready, which) {
                    Some(at) => {
                        let name = self.said_name(at);
                        self.say(|| format!("{name} goes on"));
                        self.resume(at);
                        true
                    }
                    None => false,
                }
            }
            Kind::Late => {
                let can = !self.late.is_empty();
                if can {
                    self.land(which as usize % self.late.len());
                }
                can
            }
            Kind::Frame => self.frame_step(which, how),
            Kind::Poison => {
                let of_pods = which % 2 == 1;
                let event = self
                    .log_of(of_pods)
                    .events
                    .last()
                    .map(|event| event.version);
                self.poison[usize::from(of_pods)] = event;
                event.is_some()
            }
            Kind::Compact => {
                let version = self.world.version;
                self.world.job_log.compacted = version;
                self.world.pod_log.compacted = version;
                true
            }
            Kind::Advance => {
                const TIMES: [u64; 10] = [1, 5, 50, 200, 1000, 2500, 5000, 16_000, 60_000, 300_000];
                self.advance(TIMES[how as usize % TIMES.len()] * 1000);
                true
            }
            _ => self.cluster_step(step),
        }
    }

    fn frame_step(&mut self, which: u32, how: u32) -> bool {
        let how = Frame::ALL[how as usize % Frame::ALL.len()];
        let reading = |at: &usize| match how {
            Frame::One | Frame::All | Frame::Cut => self.has_frames(*at),
            _ => matches!(self.threads[*at].state, State::Reading(_)),
        };
        let readers = (0..self.threads.len()).filter(reading);
        match pick(readers, which) {
            Some(at) => {
                self.frame(at, how);
                true
            }
            None => false,
        }
    }

    /// Whether its client has no answer yet, or may send its request again.
    fn is_being_made(&self, job: &crate::world::Job) -> bool {
        let client = self.world.lives.get(&job.uid).and_then(|life| life.client);
        let client = client.map(|number| &self.clients[number]);
        client.is_some_and(|client| {
            client.in_doubt || !matches!(client.last, Some(Outcome::Job { .. }))
        })
    }

    fn cluster_step(&mut self, step: Step) -> bool {
        let Step { kind, which, how } = step;
        let world = &self.world;
        let jobs = || world.jobs.values();
        let name = match kind {
            Kind::Sync => pick(world.wanting().into_iter(), which),
            // Not one that is still being made: that is for the enumeration.
            Kind::KubectlDelete => {
                let is_made = |j: &&crate::world::Job| !self.is_being_made(j);
                pick_job(jobs().filter(is_made), which)
            }
            Kind::Guard if how.is_multiple_of(2) => pick_job(jobs(), which),
            Kind::KubectlSuspend => {
                let can = |j: &&crate::world::Job| !j.suspend && !j.status.is_finished();
                pick_job(jobs().filter(can), which)
            }
            Kind::KubectlResume => pick_job(jobs().filter(|job| job.suspend), which),
            Kind::KubectlDeletePod => pick(world.pods.keys(), which).cloned(),
            Kind::KubectlDeleteSecret => pick(world.secrets.keys(), which).cloned(),
            Kind::Kubelet | Kind::Disrupt => pick(world.pods.keys(), which).cloned(),
            _ => Some(String::new()),
        };
        let Some(name) = name else {
            return false;
        };
        self.say(|| format!("{kind:?} {name} ({which}, {how})"));
        let world = &mut self.world;
        match kind {
            Kind::Sync => world.sync_job(&name),
            Kind::WriteStatus if world.writes.is_empty() => return self.unsay(),
            Kind::WriteStatus => world.write_status(which as usize % world.writes.len()),
            Kind::StalePod => {
                let now = world.now;
                world.stale.retain(|stale| stale.until >= now);
                if world.stale.is_empty() {
                    return self.unsay();
                }
                world.make_stale_pod(which as usize % world.stale.len());
            }
            Kind::Kubelet => {
                if !world.kubelet(&name, how) {
                    return self.unsay();
                }
            }
            Kind::Collect => match pick(world.orphans().iter(), which) {
                Some((kind, name)) => world.collect(kind, name),
                None => return self.unsay(),
            },
            Kind::Bump => world.bump(u64::from(how % 5) + 1),
            Kind::KubectlDelete => world.kubectl_delete(&name, how.is_multiple_of(3)),
            Kind::KubectlDeletePod => world.end_pod(&name),
            Kind::Disrupt if !world.disrupt(&name, how) => return self.unsay(),
            Kind::Disrupt => {}
            Kind::KubectlDeleteSecret => world.kubectl_delete_secret(&name),
            Kind::KubectlSuspend => world.kubectl_suspend(&name, true),
            Kind::KubectlResume => world.kubectl_suspend(&name, false),
            Kind::Guard => match name.is_empty() {
                true => world.guarded.clear(),
                false => world.guarded.push(name),
            },
            Kind::Quota => {
                let quota = match which % 3 {
                    0 => &mut world.secret_quota,
                    1 => &mut world.service_quota,
                    _ => &mut world.job_quota,
                };
                *quota = !*quota;
            }
            _ => return false,
        }
        true
    }

    fn unsay(&mut self) -> bool {
        if let Some(log) = &mut self.log {
            log.pop();
        }
        false
    }

    // Until nothing more happens.

    /// Ends what is wrong with the world.
    pub fn heal(&mut self) {
        self.say(|| "healed".to_string());
        self.healed = true;
        if !self.options.lasting_guard {
            self.world.guarded.clear();
        }
        if !self.options.lasting_quota {
            self.world.secret_quota = false;
            self.world.service_quota = false;
        }
        self.world.job_quota = false;
        while !self.late.is_empty() {
            self.land(0);
        }
    }

    /// Lets everything go on without a fault until nothing is left to do for a while. Containers
    /// that run go on running unless `ends`.
    pub fn settle(&mut self, horizon: u64, ends: bool) {
        let limit = self.time() + horizon;
        for _ in 0..100_000 {
            if self.violation.is_some() {
                return;
            }
            if self.progress(ends) {
                continue;
            }
            match self.next_event() {
                Some(next) if next <= limit => {
                    let by = next.saturating_sub(self.time()).max(1000);
                    self.advance(by);
                }
                _ => {
                    self.advance(limit.saturating_sub(self.time()));
                    if !self.progress(ends) {
                        return;
                    }
                }
            }
        }
        self.violate("livelock", "it never comes to rest".to_string());
    }

    fn next_event(&self) -> Option<u64> {
        let ready = self.threads.iter().filter_map(|thread| match thread.state {
            State::Ready { from } => Some(from),
            _ => None,
        });
        let due = self.alive().into_iter().filter_map(|number| {
            let due = self.processes[number].scheduler.next_task_due();
            due.map(micros)
        });
        let late = self.late.iter().map(|late| late.by);
        let linger = self.world.linger;
        let ending = self.world.pods.values().filter(|pod| World::may_end(pod));
        let ending = ending.filter_map(|pod| Some(pod.deletion? + linger));
        ready
            .chain(due)
            .chain(late)
            .chain(ending)
            .filter(|time| *time > self.time())
            .min()
    }

    /// Does all that can be done now. Returns whether there was anything.
    fn progress(&mut self, ends: bool) -> bool {
        let mut any = false;
        if self.alive().is_empty() {
            self.start_process();
            any = true;
        }
        any |= self.progress_threads(None);
        for number in self.alive() {
            while self.may_work(number) && self.violation.is_none() {
                self.work(number);
                any = true;
            }
        }
        any | self.progress_cluster(ends)
    }

    /// Calls are carried out and answered, frames read; of one process, or of all.
    pub fn progress_threads(&mut self, only: Option<What>) -> bool {
        let mut any = false;
        let ids: Vec<u32> = self.threads.iter().map(|thread| thread.id).collect();
        for id in ids {
            let Some(at) = self.thread(id) else {
                continue;
            };
            if only.is_some_and(|only| self.threads[at].what != only) {
                continue;
            }
            if self.is_write(at) && self.intercept(at) {
                any = true;
                continue;
            }
            match self.threads[at].state {
                State::Calling { .. } => self.effect(at, Fault::None),
                State::Reading(_) if self.has_frames(at) => self.frame(at, Frame::All),
                State::Ready { .. } if self.is_ready(at) => self.resume(at),
                _ => continue,
            }
            any = true;
        }
        any
    }

    fn is_write(&self, at: usize) -> bool {
        let write = self.threads[at]
            .calls()
            .is_some_and(|asked| asked.method != "GET");
        self.watch_writes && write
    }

    pub fn progress_cluster(&mut self, ends: bool) -> bool {
        let state = (self.world.version, ends);
        let lingers = self.world.pods.values().any(|pod| pod.deletion.is_some());
        if self.at_rest == Some(state) && !lingers {
            return false;
        }
        let any = self.move_cluster(ends);
        self.at_rest = (!any).then_some(state);
        any
    }

    fn move_cluster(&mut self, ends: bool) -> bool {
        let mut any = false;
        for name in self.world.wanting() {
            self.world.sync_job(&name);
            any = true;
        }
        while !self.world.writes.is_empty() {
            self.world.write_status(0);
            any = true;
        }
        let pods: Vec<String> = self.world.pods.keys().cloned().collect();
        for name in pods {
            let Some(pod) = self.world.pods.get(&name) else {
                continue;
            };
            let fate = self.world.fate(pod);
            let waits = World::may_end(pod)
                && match pod.deletion {
                    Some(at) => at + self.world.linger > self.world.now,
                    None => !ends,
                };
            any |= !waits && self.world.kubelet(&name, fate);
        }
        for (kind, name) in self.world.orphans() {
            self.world.collect(kind, &name);
            any = true;
        }
        if any {
            self.after_world();
        }
        any
    }

    /// Runs one task, and it alone, until it is done or waits for something else than the world.
    pub fn run_alone(&mut self, id: u32) {
        for _ in 0..200 {
            let Some(at) = self.thread(id) else {
                return;
            };
            match self.threads[at].state {
                State::Calling { .. } => self.effect(at, Fault::None),
                State::Ready { .. } if self.is_ready(at) => self.resume(at),
                _ => return,
            }
        }
    }
}

/// How a watch goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Frame {
    One,
    All,
    Repeat,
    End,
    Cut,
    Bookmark,
    Gone,
    Error500,
    Error504,
    Garbage,
    Reset,
    Silent,
}

impl Frame {
    pub const ALL: [Frame; 12] = [
        Frame::One,
        Frame::All,
        Frame::Repeat,
        Frame::End,
        Frame::Cut,
        Frame::Bookmark,
        Frame::Gone,
        Frame::Error500,
        Frame::Error504,
        Frame::Garbage,
        Frame::Reset,
        Frame::Silent,
    ];
}

pub fn pick<T>(mut among: impl Iterator<Item = T> + Clone, which: u32) -> Option<T> {
    let count = among.clone().count();
    among.nth((which as usize).checked_rem(count)?)
}

fn pick_job<'a>(
    jobs: impl Iterator<Item = &'a crate::world::Job> + Clone,
    which: u32,
) -> Option<String> {
    pick(jobs, which).map(|job| job.name.clone())
}

/// A call in words: what it asks for.
fn describe(asked: &Asked) -> String {
    let name = asked.name();
    let short = name
        .replace("/apis/batch/v1/namespaces/app-dev/", "")
        .replace("/api/v1/namespaces/app-dev/", "");
    let body = match asked.method {
        "PATCH" | "DELETE" => String::from_utf8_lossy(&asked.body).into_owned(),
        "POST" => {
            let name = String::from_utf8_lossy(&asked.body);
            let mut names = name
                .split("\"name\":\"")
                .filter_map(|rest| rest.split('"').next());
            let name = names.find(|name| name.starts_with("compute-"));
            let mut text = name.unwrap_or_default().to_string();
            if asked
                .body
                .windows(14)
                .any(|bytes| bytes == b"\"suspend\":true")
            {
                text += " suspended";
            }
            if asked.path.contains("dryRun") {
                text += " dry";
            }
            text
        }
        _ => String::new(),
    };
    format!("{short} {body}")
}

fn brief(frame: &str) -> String {
    let field = |name: &str| {
        let rest = frame.split(&format!("\"{name}\":\"")).nth(1);
        rest.and_then(|rest| rest.split('"').next())
            .unwrap_or_default()
    };
    format!(
        "{} {} v{}",
        field("type"),
        field("name"),
        field("resourceVersion")
    )
}

fn status(asked: &Asked, refusal: Refusal) -> ApiError {
    ApiError::Status {
        call: asked.name(),
        code: refusal.code,
        reason: refusal.reason.to_string(),
        message: refusal.message,
        // The one field that the model finds wrong.
        fields: Vec::from_iter((refusal.code == 422).then(|| "metadata.uid".to_string())),
    }
}

fn failure(asked: &Asked, fault: Fault) -> ApiError {
    let call = asked.name();
    let cause = "simulated".to_string();
    let refused = |code, reason, message: &str| status(asked, refusal(code, reason, message));
    match fault {
        Fault::Before500 | Fault::After500 => refused(500, "InternalError", "etcd is away"),
        Fault::Before503 | Fault::After503 => refused(503, "ServiceUnavailable", "overloaded"),
        Fault::Before504 | Fault::After504 => refused(504, "Timeout", "timed out"),
        Fault::Before429 => refused(429, "TooManyRequests", "too many requests"),
        Fault::QuotaConflict => refused(
            409,
            "Conflict",
            "Operation cannot be fulfilled on resourcequotas \"few\": the object has been modified",
        ),
        Fault::Rights => refused(403, "Forbidden", "is forbidden: User cannot do that"),
        Fault::OverQuota => refused(403, "Forbidden", "is forbidden: exceeded quota: few"),
        Fault::Expired => refused(410, "Expired", "the continue token has expired"),
        Fault::TimeoutAfter | Fault::TimeoutBefore | Fault::TimeoutLate => {
            ApiError::TimedOut { call, cause }
        }
        Fault::Unreachable => ApiError::Unreachable { call, cause },
        Fault::None | Fault::LostAfter | Fault::LostBefore | Fault::LostLate | Fault::Garbled => {
            ApiError::Lost { call, cause }
        }
    }
}
