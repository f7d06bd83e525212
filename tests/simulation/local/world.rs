//! The scheduler on a simulated disk, and the steps that its world takes.

use crate::disk::{Ended, Fault, Keep, SimDisk};
use crate::oracle::{HISTORY, Oracle, batch_of};
use crate::processes::{SimProcesses, SimTime, left_by};
use job_scheduler::backend::local::{Amount, Folder, Local, Machine, Part, Setup, Supervisor};
use job_scheduler::backend::{Backend, BackendError, Observer};
use job_scheduler::batch::request::BatchRequest;
use job_scheduler::clock::{Clock, Source};
use job_scheduler::config::{self, JobComponent};
use job_scheduler::index::Bounds;
use job_scheduler::job::{
    Attempt, Job, JobList, JobName, ListBegun, Progress, RequestKey, Sent, Status,
};
use job_scheduler::request::{JobRequest, ProgressReport};
use job_scheduler::scheduler::{BatchView, JobError, Limits, Scheduler, SubmitError};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// What happens, one after the other. Numbers of jobs and requests are in the order in which they
/// became known, over and over.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Submit {
        key: bool,
        payload: Option<usize>,
        backoff: u32,
    },
    /// Sends a submit that had a key again.
    Resend(usize),
    Stop(usize),
    StopAll,
    /// A job says that it has got further.
    Report(usize),
    Restart(usize),
    Delete(usize),
    /// A request that comes while the next step's operation of this number is under way.
    During(usize, Box<Step>),
    /// A process exits.
    Exit(usize, i32),
    /// The supervisor and the workers do what there is to do.
    Settle,
    /// Seconds pass.
    Pass(u64),
    /// The wall clock is set back by so many seconds.
    SetBack(u64),
    /// The disk is full but for so many bytes.
    Fill(usize),
    /// There is room on the disk, and no fault is due any more.
    Heal,
    /// A fault strikes after so many operations.
    Arm(usize, Fault),
    /// The scheduler's process ends at once.
    End,
    /// The machine does.
    Power(Keep),
    /// The scheduler is started if it is down.
    Start,
    /// The scheduler is asked to end, and its jobs with it.
    ShutDown,
    /// Somebody puts a folder and a file among the records.
    Litter,
    /// One of two jobs, each with a payload.
    SubmitBatch {
        key: bool,
    },
    /// The last one with a key is sent again.
    ResendBatch,
    /// Of the first batch.
    StopBatch,
    RestartBatch,
    DeleteBatch,
}

/// The scheduler while it is up.
struct Alive {
    scheduler: Arc<Scheduler>,
    backend: Arc<Local>,
    machine: Arc<Machine>,
    supervisor: Supervisor,
}

pub struct World {
    pub disk: SimDisk,
    pub oracle: Oracle,
    processes: SimProcesses,
    time: Arc<SimTime>,
    alive: Option<Alive>,
    /// Whether every fault so far leaves no doubt about what is on disk.
    certain: bool,
    /// What could not be written down has not been tried again since.
    was_broken: bool,
    /// The disk failed as the scheduler was started: what is nobody's may stay until the next
    /// start.
    may_be_left: bool,
}

/// Tells the scheduler, and the oracle.
struct Spy {
    /// The scheduler has the machine, and that the spy: many worlds are made, and each must end.
    scheduler: Weak<Scheduler>,
    oracle: Oracle,
}

impl Spy {
    fn scheduler(&self) -> Arc<Scheduler> {
        self.scheduler.upgrade().unwrap()
    }
}

impl Observer for Spy {
    fn jobs_relist_begins(&self) -> ListBegun {
        self.scheduler().jobs_relist_begins()
    }

    fn jobs_relisted(&self, list: JobList, begun: ListBegun) {
        let jobs = list.jobs.iter().filter(|job| job.batch_whole().is_none());
        jobs.for_each(|job| self.oracle.observed(job));
        self.scheduler().jobs_relisted(list, begun);
    }

    fn job_seen(&self, job: Job) {
        self.oracle.observed(&job);
        self.scheduler().job_seen(job);
    }

    fn job_gone(&self, job: &Job) {
        self.scheduler().job_gone(job);
    }

    fn job_waited(&self, time: Duration) {
        self.scheduler().job_waited(time);
    }

    fn attempts_relisted(&self, attempts: Vec<(JobName, Attempt)>) {
        self.scheduler().attempts_relisted(attempts);
    }

    fn attempt_seen(&self, job: &JobName, attempt: Attempt) {
        let left = attempt.result.as_ref().map(|result| &*result.text);
        // Where there is an exit code there was a process, and its end was seen.
        let is_seen = attempt.exit_code.is_some() && &*attempt.reason != "StartError";
        let is_right = left == Some(&left_by(&attempt.name));
        if !is_right && (is_seen || left.is_some()) {
            let what = format!("{} has left {left:?}", attempt.name);
            self.oracle.violated(what);
        }
        self.scheduler().attempt_seen(job, attempt);
    }

    fn attempt_gone(&self, job: &JobName, attempt: &str) {
        self.scheduler().attempt_gone(job, attempt);
    }
}

const CONFIG: &str = "
apiVersion: radix.equinor.com/v1
kind: RadixApplication
metadata:
  name: sim
spec:
  environments:
    - name: dev
  jobs:
    - name: compute
      image: none
      schedulerPort: 8000
      payload:
        path: /args
      command: [work]
      timeLimitSeconds: 100
      resources:
        requests:
          cpu: 1
";

fn component() -> JobComponent {
    static COMPONENT: OnceLock<JobComponent> = OnceLock::new();
    let read = || {
        let config = config::parse("radixconfig.yaml", CONFIG.as_bytes()).unwrap();
        config.job_component("dev", "compute").unwrap()
    };
    COMPONENT.get_or_init(read).clone()
}

const ROUNDS: usize = 400;

impl World {
    pub fn new(seed: u64) -> World {
        let (disk, oracle) = (SimDisk::new(), Oracle::default());
        let mut world = World {
            processes: SimProcesses::new(disk.clone(), oracle.clone()),
            disk,
            oracle,
            time: Arc::new(SimTime::new(seed)),
            alive: None,
            certain: true,
            was_broken: false,
            may_be_left: false,
        };
        world.start();
        world
    }

    pub fn is_up(&self) -> bool {
        self.alive.is_some()
    }

    /// Does a step, and looks at what follows from it.
    pub fn step(&mut self, step: &Step) {
        self.oracle.next_step();
        self.oracle.say(words(step));
        self.guarded(|world| world.act(step));
        let is_broken = self.disk.is_broken();
        self.was_broken = is_broken || (self.was_broken && !matches!(step, Step::Pass(_)));
        self.look();
    }

    /// Does something during which the process may end.
    fn guarded(&mut self, what: impl FnOnce(&mut World)) {
        let ended = catch_unwind(AssertUnwindSafe(|| what(self)));
        if let Err(panic) = ended {
            match panic.downcast::<Ended>() {
                Ok(ended) => self.end(ended.power),
                Err(panic) => resume_unwind(panic),
            }
        }
    }

    fn end(&mut self, power: Option<Keep>) {
        self.oracle.say(match power {
            None => "    the process ends".to_string(),
            Some(keep) => {
                format!("    the machine ends, and of what was not synced is left: {keep:?}")
            }
        });
        if self.was_broken || self.disk.is_broken() {
            self.oracle.loses_stops();
        }
        if power.is_some() && !self.certain {
            self.oracle.loses_removals();
        }
        self.disk.end(power);
        self.processes.end_all();
        self.alive = None;
    }

    fn start(&mut self) {
        if self.is_up() {
            return;
        }
        self.disk.begin();
        let clock = Clock::of(self.time.clone());
        let struck = self.disk.operations().1;
        let opened = Machine::open(Setup {
            folder: Folder::of(Arc::new(self.disk.clone()), Path::new("/data")),
            parts: vec![Part {
                component: component(),
                secrets: BTreeMap::new(),
            }],
            capacity: Amount {
                cpu_milli: 2000,
                memory: 0,
            },
            variables: BTreeMap::new(),
            grace: Duration::from_secs(5),
            processes: Arc::new(self.processes.clone()),
            clock: clock.clone(),
        });
        self.may_be_left = self.disk.operations().1 != struck || self.disk.is_broken();
        let machine = match opened {
            Ok(machine) => machine,
            Err(e) => {
                self.oracle.say(format!("    it does not start: {e}"));
                if self.certain {
                    self.oracle.violated(format!("it does not start: {e}"));
                }
                self.disk.end(None);
                return;
            }
        };
        let backend = Arc::new(Local::new(machine.clone(), 0));
        let scheduler = Arc::new(Scheduler::new(
            component(),
            backend.clone(),
            Limits {
                history: HISTORY,
                bounds: Bounds {
                    unfinished: 50,
                    running: 0,
                    waiting: 50,
                },
            },
            clock,
            Arc::default(),
        ));
        let spy = Spy {
            scheduler: Arc::downgrade(&scheduler),
            oracle: self.oracle.clone(),
        };
        machine.observe(0, Arc::new(spy));
        let supervisor = machine.supervisor().unwrap();
        self.alive = Some(Alive {
            scheduler,
            backend,
            machine,
            supervisor,
        });
    }

    fn act(&mut self, step: &Step) {
        match step {
            Step::During(after, request) => {
                if let Some(alive) = &self.alive {
                    let (scheduler, backend) = (alive.scheduler.clone(), alive.backend.clone());
                    let oracle = self.oracle.clone();
                    let request = (**request).clone();
                    self.disk.during(
                        *after,
                        Box::new(move || {
                            oracle.say(format!("    meanwhile: {}", words(&request)));
                            ask(&scheduler, &backend, &oracle, &request);
                        }),
                    );
                }
            }
            Step::Exit(job, code) => {
                if let Some(job) = self.running_job(*job) {
                    self.oracle.say(format!("    job {job}"));
                    self.processes.exit(&job, *code);
                }
            }
            Step::Settle => self.settle(),
            Step::Pass(seconds) => {
                for _ in 0..*seconds {
                    self.time.pass(Duration::from_secs(1));
                    self.settle();
                }
            }
            Step::SetBack(seconds) => self.time.set_back(*seconds),
            Step::Fill(left) => self.disk.fill(*left),
            Step::Heal => self.disk.heal(),
            Step::Arm(after, fault) => {
                use Fault::{Broken, BrokenAfter, BrokenAfterOn, BrokenOn};
                let broken = [Broken, BrokenAfter, BrokenOn, BrokenAfterOn];
                self.certain &= !broken.contains(fault);
                self.disk.arm(*after, Some(*fault));
            }
            Step::End if self.is_up() => self.end(None),
            Step::Power(keep) if self.is_up() => self.end(Some(*keep)),
            Step::End | Step::Power(_) => {}
            Step::Start => self.start(),
            Step::ShutDown => self.shut_down(),
            Step::Litter => {
                let records = Path::new("/data/compute/records");
                self.disk.put(&records.join("stray"), None);
                self.disk.put(&records.join(".new-stray"), None);
                self.disk.put(&records.join("notes.txt"), Some(b"hello\n"));
            }
            request => {
                if let Some(alive) = &self.alive {
                    ask(&alive.scheduler, &alive.backend, &self.oracle, request);
                }
            }
        }
    }

    fn running_job(&self, number: usize) -> Option<JobName> {
        let running = self.processes.running();
        let wanted = self.oracle.job(number)?;
        let count = running.len();
        let at = running.iter().position(|job| *job == wanted);
        let at = at.or((count > 0).then(|| number % count.max(1)))?;
        running.get(at).cloned()
    }

    /// All that there is to do at this moment is done.
    fn settle(&mut self) {
        for _ in 0..ROUNDS {
            let Some(alive) = &mut self.alive else {
                return;
            };
            let exited = self.processes.has_exited();
            if exited {
                alive.machine.child_ended();
            }
            alive.supervisor.pass();
            let mut worked = false;
            while alive.scheduler.work_once() {
                worked = true;
            }
            let now = self.time.instant();
            let is_due = alive.supervisor.next_timer().is_some_and(|at| at <= now);
            if !exited && !worked && !is_due {
                return;
            }
        }
        self.oracle.violated("it does not come to rest".to_string());
    }

    fn shut_down(&mut self) {
        let Some(alive) = &mut self.alive else {
            return;
        };
        alive.machine.shut_down();
        for _ in 0..20 {
            self.settle();
            match &self.alive {
                Some(alive) if !alive.supervisor.is_over() => {}
                _ => break,
            }
            self.time.pass(Duration::from_secs(1));
        }
        if self
            .alive
            .as_ref()
            .is_some_and(|alive| !alive.supervisor.is_over())
        {
            self.oracle
                .violated("it does not end when it is asked to".to_string());
        }
        self.look();
        self.end(None);
    }

    /// What its users see.
    fn look(&mut self) {
        self.oracle.pass(self.time.passed());
        if let Some(alive) = &self.alive {
            look(&alive.scheduler, &self.oracle);
        }
    }

    fn jobs(&self) -> Vec<Job> {
        let scheduler = self.alive.as_ref().map(|alive| &alive.scheduler);
        scheduler
            .and_then(|scheduler| jobs_of(scheduler))
            .unwrap_or_default()
    }

    fn batches(&self) -> Vec<BatchView> {
        let scheduler = self.alive.as_ref().map(|alive| &alive.scheduler);
        let batches = scheduler.and_then(|scheduler| scheduler.batches().ok());
        batches.unwrap_or_default()
    }

    /// How far each job is.
    fn progress(&self) -> BTreeMap<JobName, Option<Arc<Progress>>> {
        let scheduler = self.alive.as_ref().map(|alive| &alive.scheduler);
        let views = scheduler.and_then(|scheduler| scheduler.list().ok());
        let views = views.unwrap_or_default().into_iter();
        views
            .map(|view| (view.record.job.name.clone(), view.record.progress.clone()))
            .collect()
    }

    /// The faults have stopped: all that is to happen happens. Then what is left is looked at.
    pub fn finish(&mut self) {
        self.step(&Step::Heal);
        self.step(&Step::Start);
        self.oracle.say("all runs to its end".to_string());
        self.guarded(World::run_all);
        // What could not be written is tried again.
        for _ in 0..4 {
            self.time.pass(Duration::from_secs(30));
            self.guarded(World::settle);
        }
        self.look();
        self.look_at_records();
        self.look_at_room();
        let before = self.progress();
        self.step(&Step::End);
        self.step(&Step::Start);
        let after = self.progress();
        if before != after {
            let what = format!("progress was {before:?}, and after a start is {after:?}");
            self.oracle.violated(what);
        }
        self.guarded(World::run_all);
        self.look();
        // Until no key stands for a job any more that retention let go.
        for _ in 0..10 {
            self.time.pass(Duration::from_secs(1000));
            self.guarded(World::settle);
            self.look();
        }
        self.look_at_disk();
    }

    /// What there is of records, hidden ones among them, the backend knows.
    fn look_at_records(&self) {
        if self.may_be_left {
            return;
        }
        let listed = self.alive.as_ref().and_then(|one| one.backend.list().ok());
        let listed = listed.map(|list| list.jobs).unwrap_or_default();
        let known: BTreeSet<&str> = listed.iter().map(|job| job.name.as_str()).collect();
        for job in &listed {
            if let Some(batch) = job.batch_of().filter(|of| !known.contains(of.as_str())) {
                self.oracle.violated(format!(
                    "{} is there, and its batch {batch} is gone",
                    job.name
                ));
            }
        }
        for path in self.disk.paths() {
            let is_record = path.parent() == Some(Path::new("/data/compute/records"));
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.filter(|name| is_record && JobName::parse(name).is_some());
            if let Some(name) = name.filter(|name| !known.contains(name) && *name != "stray") {
                self.oracle
                    .violated(format!("the record {name} is left, and of no job"));
            }
        }
    }

    /// Nothing runs any more, so there is room for as many jobs as there are CPUs.
    fn look_at_room(&mut self) {
        if !self.is_up() {
            return;
        }
        for _ in 0..2 {
            self.step(&Step::Submit {
                key: false,
                payload: None,
                backoff: 0,
            });
        }
        self.step(&Step::Settle);
        let count = self.processes.running().len();
        if count != 2 {
            self.oracle.violated(format!(
                "{count} jobs of 1 CPU run on 2 CPUs, of 2 that wait"
            ));
        }
        self.guarded(World::run_all);
        self.look();
    }

    fn run_all(&mut self) {
        for _ in 0..ROUNDS {
            self.settle();
            self.look();
            let Some(alive) = &self.alive else {
                return;
            };
            let running = self.processes.running();
            for job in &running {
                self.processes.exit(job, 0);
            }
            let unfinished = self.jobs().iter().any(|job| !job.status.is_finished());
            if running.is_empty() && !unfinished {
                return;
            }
            let due = alive.supervisor.next_timer();
            let due = due.into_iter().chain(alive.scheduler.next_task_due()).min();
            let wait = due.map(|at| at.saturating_duration_since(self.time.instant()));
            self.time.pass(wait.unwrap_or_default());
        }
        let left = self.jobs();
        let left = left.iter().filter(|job| !job.status.is_finished());
        let left: Vec<String> = left
            .map(|job| format!("{} is {} ({})", job.name, job.status, job.rare.message))
            .collect();
        self.oracle
            .violated(format!("it is stuck: {}", left.join("; ")));
    }

    /// On disk is what belongs to a job that is kept, and each job's payload.
    fn look_at_disk(&self) {
        let (jobs, batches) = (self.jobs(), self.batches());
        let wholes = batches.iter().map(|batch| batch.whole.job.name.as_str());
        let names = jobs.iter().map(|job| job.name.as_str()).chain(wholes);
        let names: BTreeSet<&str> = names.collect();
        for batch in batches.iter().filter(|batch| batch.jobs.len() != 2) {
            let (name, count) = (&batch.whole.job.name, batch.jobs.len());
            self.oracle
                .violated(format!("the batch {name} has {count} jobs"));
        }
        for path in self.disk.paths() {
            let Ok(below) = path.strip_prefix("/data/compute") else {
                continue;
            };
            let mut parts = below.iter().filter_map(|part| part.to_str());
            if let (Some("records" | "jobs" | "logs"), Some(name)) = (parts.next(), parts.next()) {
                let name = name.split('.').next().unwrap_or_default();
                let stray = ["stray", "notes", ""].contains(&name)
                    && (!name.is_empty() || path.ends_with(".new-stray"));
                if !names.contains(name) && !stray {
                    let path = path.display();
                    self.oracle
                        .violated(format!("{path} is left, and belongs to no job"));
                }
            }
        }
        for job in &jobs {
            let record = Path::new("/data/compute/records").join(job.name.as_str());
            let content = self.disk.content(&record).unwrap_or_default();
            let behind = content.iter().position(|byte| *byte == b'\n');
            let behind = behind.map_or(&[][..], |at| &content[at + 1..]);
            let payload = self.oracle.payload(job);
            let is_there = behind.starts_with(payload.as_deref().unwrap_or_default().as_bytes());
            if !is_there || job.has_payload != payload.is_some() {
                self.oracle
                    .violated(format!("the payload of {} is not kept", job.name));
            }
        }
    }
}

/// Whether an error leaves no doubt: the disk is full, or another request was first.
fn is_certain(error: &BackendError) -> bool {
    let text = error.to_string();
    text.contains("os error 28") || text.contains("is still being written")
}

fn look(scheduler: &Scheduler, oracle: &Oracle) {
    if let Some(jobs) = jobs_of(scheduler) {
        oracle.listed(&jobs);
    }
}

/// Single jobs and those of batches.
fn jobs_of(scheduler: &Scheduler) -> Option<Vec<Job>> {
    let batches = scheduler.batches().ok()?.into_iter();
    let views = scheduler.list().ok()?.into_iter();
    let views = views.chain(batches.flat_map(|batch| batch.jobs));
    Some(views.map(|view| view.record.job.clone()).collect())
}

/// Sends a request, and tells the oracle what was answered, and what is so before and after. The
/// scheduler may not be sure of that for a while, where the backend is.
fn ask(scheduler: &Scheduler, backend: &Local, oracle: &Oracle, request: &Step) {
    look(scheduler, oracle);
    send(scheduler, oracle, request);
    if let Ok(list) = backend.list() {
        let jobs = list.jobs.iter().filter(|job| job.batch_whole().is_none());
        jobs.for_each(|job| oracle.observed(job));
    }
    look(scheduler, oracle);
}

fn send(scheduler: &Scheduler, oracle: &Oracle, request: &Step) {
    match request {
        Step::Submit {
            key,
            payload,
            backoff,
        } => {
            let payload =
                payload.map(|length| "pay\nload\0".chars().cycle().take(length).collect());
            let number = oracle.submits(*key, payload, *backoff);
            submit(scheduler, oracle, number);
        }
        Step::Resend(number) => {
            if let Some((number, request)) = oracle.request(*number)
                && request.key
                && !oracle.is_of_batch(number)
            {
                oracle.submits_again(number);
                submit(scheduler, oracle, number);
            }
        }
        Step::StopAll => {
            if let Err(JobError::Backend(e)) = scheduler.stop_all() {
                oracle.say(format!("    answer: {e}"));
                check_answer(oracle, &e);
            }
        }
        Step::Stop(number) => on_job(oracle, *number, |name| {
            let answer = scheduler.stop(name.as_str()).map(drop);
            report(oracle, &answer);
        }),
        Step::Report(number) => on_job(oracle, *number, |name| {
            let known = scheduler.get(name.as_str()).ok();
            let known = known.and_then(|view| view.record.progress.as_ref().map(|p| p.percent));
            let report = ProgressReport {
                percent: known.map_or(1, |percent| (percent + 1).min(100)),
                message: "so far".to_string(),
            };
            let answer = scheduler.report(name.as_str(), report).map(drop);
            oracle.say(format!("    answer: {answer:?}"));
        }),
        Step::Delete(number) => on_job(oracle, *number, |name| {
            oracle.deletes(name);
            let answer = scheduler.delete(name.as_str()).map(drop);
            report(oracle, &answer);
            if answer.is_ok() {
                oracle.deleted(name);
            }
        }),
        Step::Restart(number) => on_job(oracle, *number, |name| restart(scheduler, oracle, name)),
        Step::SubmitBatch { key } => {
            let numbers = oracle.submits_batch(*key, batch_payload());
            submit_batch(scheduler, oracle, numbers, *key);
        }
        Step::ResendBatch => {
            if let Some(numbers) = oracle.batch() {
                numbers
                    .iter()
                    .for_each(|number| oracle.submits_again(*number));
                submit_batch(scheduler, oracle, numbers, true);
            }
        }
        Step::RestartBatch => on_batch(scheduler, |batch| restart_batch(scheduler, oracle, batch)),
        Step::StopBatch => on_batch(scheduler, |batch| {
            let name = batch.whole.job.name.as_str();
            report(oracle, &scheduler.stop_batch(name));
        }),
        Step::DeleteBatch => on_batch(scheduler, |batch| {
            let names = || batch.jobs.iter().map(|view| &view.record.job.name);
            names().for_each(|name| oracle.deletes(name));
            let name = batch.whole.job.name.as_str();
            let answer = scheduler.delete_batch(name).map(drop);
            report(oracle, &answer);
            if answer.is_ok() {
                names().for_each(|name| oracle.deleted(name));
            }
        }),
        step => panic!("{step:?} is no request"),
    }
}

fn on_batch(scheduler: &Scheduler, what: impl FnOnce(&BatchView)) {
    if let Some(batch) = scheduler.batches().unwrap_or_default().first() {
        what(batch);
    }
}

fn batch_payload() -> Option<String> {
    Some("pay\nload\0".chars().cycle().take(40).collect())
}

/// Runs again what has finished of it: a stopped job in place, another as a new one.
fn restart_batch(scheduler: &Scheduler, oracle: &Oracle, batch: &BatchView) {
    let jobs = batch.jobs.iter().map(|view| &view.record.job);
    for job in jobs.clone().filter(|job| job.status.is_finished()) {
        match job.status {
            Status::Stopped => oracle.resumes(&job.name),
            _ => {
                oracle.recreates(&job.name);
                // The one that does it again takes its place.
                oracle.deletes(&job.name);
            }
        }
    }
    match scheduler.restart_batch(batch.whole.job.name.as_str(), true) {
        Ok(view) => {
            let now = view.jobs.iter().map(|view| &view.record.job);
            for (old, new) in jobs.zip(now).filter(|(old, new)| old.name != new.name) {
                oracle.say(format!(
                    "    answer: {} is done again by {}",
                    old.name, new.name
                ));
                oracle.recreated(&old.name, new);
            }
        }
        // Some of them may run again all the same.
        Err(e) => report(oracle, &Err(e)),
    }
}

/// Each of its jobs is a request of its own, and all have the same answer.
fn submit_batch(scheduler: &Scheduler, oracle: &Oracle, numbers: [usize; 2], key: bool) {
    let job = |number: &usize| {
        let mut job = JobRequest {
            payload: batch_payload(),
            job_id: Some(number.to_string()),
            ..JobRequest::default()
        };
        let variable = ("REQUEST".to_string(), number.to_string());
        job.settings.variables.extend([variable]);
        job.settings.backoff_limit = Some(0);
        job
    };
    let request = BatchRequest {
        batch_id: None,
        jobs: numbers.iter().map(job).collect(),
    };
    let key = key.then_some(RequestKey {
        key: 1 << 64 | numbers[0] as u128,
        body: numbers[0] as u128,
        sent: Sent::default(),
    });
    match scheduler.submit_batch(&request, key) {
        Ok(batch) => {
            oracle.say(format!("    answer: batch {}", batch.whole.job.name));
            let jobs = batch.jobs.iter().map(|view| &view.record.job);
            for (number, job) in numbers.into_iter().zip(jobs) {
                oracle.accepted(number, job);
            }
        }
        Err(error) => {
            oracle.say(format!("    answer: {error:?}"));
            let is_sure = match &error {
                SubmitError::Backend(e) => {
                    check_answer(oracle, e);
                    is_certain(e)
                }
                _ => true,
            };
            let refuse = |number| oracle.refused(number, is_sure);
            numbers.into_iter().for_each(refuse);
        }
    }
}

fn on_job(oracle: &Oracle, number: usize, what: impl FnOnce(&JobName)) {
    if let Some(name) = oracle.job(number) {
        oracle.say(format!("    job {name}"));
        what(&name);
    }
}

fn submit(scheduler: &Scheduler, oracle: &Oracle, number: usize) {
    let Some((_, known)) = oracle.request(number) else {
        return;
    };
    let mut request = JobRequest {
        payload: known.payload.clone(),
        job_id: Some(number.to_string()),
        ..JobRequest::default()
    };
    let settings = &mut request.settings;
    settings.backoff_limit = Some(known.backoff);
    settings
        .variables
        .insert("REQUEST".to_string(), number.to_string());
    let key = known.key.then_some(RequestKey {
        key: number as u128,
        body: number as u128,
        sent: Sent::default(),
    });
    match scheduler.submit(&request, key) {
        Ok(view) => {
            let job = &view.record.job;
            oracle.say(format!("    answer: job {} is {}", job.name, job.status));
            oracle.accepted(number, job);
        }
        Err(SubmitError::Backend(e)) => {
            oracle.say(format!("    answer: {e}"));
            check_answer(oracle, &e);
            oracle.refused(number, is_certain(&e));
        }
        Err(e) => {
            oracle.say(format!("    answer: {e:?}"));
            oracle.refused(number, true);
        }
    }
}

fn restart(scheduler: &Scheduler, oracle: &Oracle, name: &JobName) {
    let stopped = oracle.last(name) == Some(Status::Stopped);
    match stopped {
        true => oracle.resumes(name),
        false => oracle.recreates(name),
    }
    if !stopped && batch_of(name).is_some() {
        // The one that does it again takes its place.
        oracle.deletes(name);
    }
    match scheduler.restart(name.as_str()) {
        Ok(view) => {
            let job = &view.record.job;
            oracle.say(format!("    answer: job {} is {}", job.name, job.status));
            if view.record.progress.is_some() {
                oracle.violated(format!("job {} begins with progress", job.name));
            }
            if !stopped {
                oracle.recreated(name, job);
            }
        }
        Err(error) => {
            let certain = match &error {
                JobError::Backend(e) => is_certain(e),
                _ => true,
            };
            report(oracle, &Err(error));
            match (certain, stopped) {
                (false, _) => {}
                (true, true) => oracle.not_resumed(name),
                (true, false) => oracle.not_recreated(name),
            }
        }
    }
}

fn report(oracle: &Oracle, answer: &Result<(), JobError>) {
    match answer {
        Ok(()) => {}
        Err(JobError::Backend(e)) => {
            oracle.say(format!("    answer: {e}"));
            check_answer(oracle, e);
        }
        Err(e) => oracle.say(format!("    answer: {e:?}")),
    }
}

/// What goes wrong with the disk is told as what it is: the caller may try again.
fn check_answer(oracle: &Oracle, error: &BackendError) {
    let is_ours = error.to_string().contains("os error");
    let is_503 = matches!(
        error,
        BackendError::Unavailable { .. } | BackendError::Unanswered { .. }
    );
    if is_ours && !is_503 {
        oracle.violated(format!("a failing disk is no 503: {error:?}"));
    }
}

/// A step in words.
pub fn words(step: &Step) -> String {
    match step {
        Step::Submit {
            key,
            payload,
            backoff,
        } => {
            let key = if *key { " with a key" } else { "" };
            let payload = payload.map_or(String::new(), |length| {
                format!(", {length} bytes of payload")
            });
            format!("submit{key}{payload}, backoffLimit {backoff}")
        }
        Step::Resend(number) => format!("request {number} is sent again"),
        Step::Stop(job) => format!("stop job {job}"),
        Step::StopAll => "stop all jobs".to_string(),
        Step::Report(job) => format!("job {job} says that it has got further"),
        Step::Restart(job) => format!("restart job {job}"),
        Step::Delete(job) => format!("delete job {job}"),
        Step::During(after, request) => {
            format!("in {after} writes: {}", words(request))
        }
        Step::Exit(job, code) => format!("the process of job {job} exits with {code}"),
        Step::Settle => "what is to be done is done".to_string(),
        Step::Pass(seconds) => format!("{seconds} s pass"),
        Step::SetBack(seconds) => format!("the clock is set back by {seconds} s"),
        Step::Fill(left) => format!("the disk has {left} bytes left"),
        Step::Heal => "the disk has room".to_string(),
        Step::Arm(after, fault) => format!("in {after} writes: {fault:?}"),
        Step::End => "the process ends".to_string(),
        Step::Power(keep) => format!("the machine ends, of what is not synced stays: {keep:?}"),
        Step::Start => "the scheduler is started".to_string(),
        Step::ShutDown => "the scheduler is asked to end".to_string(),
        Step::Litter => "somebody leaves things among the records".to_string(),
        Step::SubmitBatch { key: false } => "submit a batch of two".to_string(),
        Step::SubmitBatch { key: true } => "submit a batch of two with a key".to_string(),
        Step::ResendBatch => "the last batch with a key is sent again".to_string(),
        Step::RestartBatch => "restart the first batch".to_string(),
        Step::StopBatch => "stop the first batch".to_string(),
        Step::DeleteBatch => "delete the first batch".to_string(),
    }
}
