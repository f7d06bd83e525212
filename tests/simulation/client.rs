//! The scheduler's clients, and what each of them knows.

use crate::coroutine::Done;
use crate::sim::{Sim, What, pick};
use crate::step::Kind;
use job_scheduler::backend::BackendError;
use job_scheduler::job::{JobName, JobRecord, RequestKey, Status};
use job_scheduler::request::{JobRequest, ProgressReport, parse_request, request_key};
use job_scheduler::scheduler::{JobError, JobView, SubmitError};
use std::sync::Arc;

/// Somebody who wants one job.
pub struct Client {
    pub key: Option<RequestKey>,
    pub request: Arc<JobRequest>,
    pub payload: Option<String>,
    pub in_flight: bool,
    pub sends: u32,
    /// When it first sent its request.
    pub since: u64,
    /// Names that it was given, in order.
    pub names: Vec<Given>,
    pub last: Option<Outcome>,
    /// It has sent a request of which it cannot know whether it made a job.
    pub in_doubt: bool,
    /// The same of any time before.
    pub was_in_doubt: bool,
    /// To which it was sent last.
    pub process: usize,
    /// A process ended before it could answer.
    pub cut_off: bool,
    /// The process ended after it had failed to make the job and said so.
    pub ended_since: bool,
}

/// A job that a client was told of.
#[derive(Clone, Debug)]
pub struct Given {
    pub name: String,
    pub uid: String,
}

/// What a request came to, as histories tell it.
#[allow(dead_code)]
#[derive(Clone, Debug)]
pub enum Outcome {
    Job {
        name: String,
        uid: String,
        status: Status,
    },
    Done,
    NotFound,
    /// For certain: nothing was done.
    Refused(String),
    /// There were too many jobs at the time.
    Full,
    NotReady,
    /// It failed, and may be tried again.
    Failed(String),
}

impl Outcome {
    fn view(view: JobView) -> Outcome {
        let job = &view.record.job;
        Outcome::Job {
            name: job.name.to_string(),
            uid: job.uid.to_string(),
            status: job.status,
        }
    }

    fn backend(error: BackendError) -> Outcome {
        match error {
            BackendError::Changed { message }
            | BackendError::Unavailable { message }
            | BackendError::Unanswered { message } => Outcome::Failed(message),
            BackendError::Gone { .. } => Outcome::NotFound,
            BackendError::Invalid { message } | BackendError::Refused { message } => {
                Outcome::Refused(message)
            }
        }
    }

    fn job(error: JobError) -> Outcome {
        match error {
            JobError::NotReady => Outcome::NotReady,
            JobError::NotFound { .. } | JobError::BatchNotFound { .. } => Outcome::NotFound,
            JobError::Full(_) => Outcome::Full,
            JobError::BadState { message }
            | JobError::NoLog { message }
            | JobError::TooOften { message } => Outcome::Refused(message),
            JobError::Backend(error) => Outcome::backend(error),
        }
    }

    pub fn of(done: Done) -> Outcome {
        match done {
            Done::Submit(Ok(view)) | Done::Viewed(Ok(view)) => Outcome::view(view),
            Done::Submit(Err(error)) => match error {
                SubmitError::NotReady => Outcome::NotReady,
                SubmitError::Full(_) => Outcome::Full,
                SubmitError::Backend(error) => Outcome::backend(error),
                SubmitError::KeyReused { job } => Outcome::Refused(format!("key of {job}")),
                SubmitError::Fields(_)
                | SubmitError::PayloadTooLarge { .. }
                | SubmitError::BatchTooLarge { .. } => Outcome::Refused("fields".to_string()),
            },
            Done::Batch(Err(error)) => Outcome::of(Done::Submit(Err(error))),
            Done::Named(Err(e))
            | Done::Counted(Err(e))
            | Done::Viewed(Err(e))
            | Done::BatchAsked(Err(e)) => Outcome::job(e),
            Done::Named(Ok(_))
            | Done::Counted(Ok(_))
            | Done::Batch(Ok(_))
            | Done::BatchAsked(Ok(()))
            | Done::Worked
            | Done::Watched => Outcome::Done,
        }
    }
}

/// A request that was sent to a process.
pub struct Request {
    pub kind: Kind,
    /// The client, for a submit.
    pub client: usize,
    /// The job that it is about, as the process knew it.
    pub job: Option<String>,
    pub at: u64,
    /// The process had nothing else to do, then or later.
    pub is_alone: bool,
    /// The process had read all that its watch of Jobs had to tell.
    pub knew_all: bool,
    pub outcome: Option<Outcome>,
    pub answered: Option<u64>,
    /// The process ended before it was answered.
    pub cut_off: bool,
}

impl Sim {
    fn new_client(&mut self, keyed: bool, with_payload: bool, priority: i64) -> usize {
        let number = self.clients.len();
        let payload = with_payload.then(|| format!("payload {number} \\u0001é"));
        let mut body = format!(r#"{{"jobId":"c{number}","priority":{priority}"#);
        if let Some(payload) = &payload {
            body += &format!(r#","payload":"{payload}""#);
        }
        body.push('}');
        let request = parse_request(body.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
        let key = keyed.then(|| request_key(&format!("k{number}"), body.as_bytes()).unwrap());
        self.clients.push(Client {
            key,
            payload: request.payload.clone(),
            request: Arc::new(request),
            in_flight: false,
            sends: 0,
            since: self.time(),
            names: Vec::new(),
            last: None,
            in_doubt: false,
            was_in_doubt: false,
            process: 0,
            cut_off: false,
            ended_since: false,
        });
        number
    }

    pub fn submit_new(&mut self, which: u32, how: u32, keyed: bool) -> bool {
        let Some(process) = pick(self.alive().into_iter(), which) else {
            return false;
        };
        let with_payload = self.options.payloads && !how.is_multiple_of(4);
        let client = self.new_client(keyed, with_payload, i64::from(how / 4 % 3) - 1);
        self.submit(client, process);
        true
    }

    pub fn submit(&mut self, client: usize, process: usize) -> u32 {
        let scheduler = self.processes[process].scheduler.clone();
        let one = &mut self.clients[client];
        one.in_flight = true;
        one.sends += 1;
        one.process = process;
        let (request, key) = (one.request.clone(), one.key);
        let number = self.requests.len();
        self.requests.push(Request {
            kind: Kind::Submit,
            client,
            job: None,
            at: self.time(),
            is_alone: self.is_idle(process),
            knew_all: self.is_caught_up(process),
            outcome: None,
            answered: None,
            cut_off: false,
        });
        self.say(|| {
            let keyed = if key.is_some() { " with a key" } else { "" };
            format!("request {number}: client {client} submits{keyed} to process {process}")
        });
        self.start(process, What::Request(number), move || {
            Done::Submit(scheduler.submit(&request, key))
        })
    }

    /// A keyed request is sent again: until it is answered, and now and then once more.
    pub fn resend(&mut self, which: u32) -> bool {
        let clients = (0..self.clients.len()).filter(|at| {
            let client = &self.clients[*at];
            client.key.is_some() && !client.in_flight && client.sends < 12
        });
        let Some(client) = pick(clients, which) else {
            return false;
        };
        let Some(process) = self.process_for_resend(self.clients[client].process) else {
            return false;
        };
        self.submit(client, process);
        true
    }

    /// Where a request may be sent again: where it was sent, or to another that knows what came of
    /// it.
    pub fn process_for_resend(&self, last: usize) -> Option<usize> {
        if self.processes[last].alive {
            return Some(last);
        }
        let other = *self.alive().first()?;
        let is_new = other > last;
        let knows_all = self.late.is_empty() && self.is_caught_up(other);
        (knows_all || (is_new && !self.options.two)).then_some(other)
    }

    /// Whether it has read all that its watch of Jobs had to tell.
    pub fn is_caught_up(&self, process: usize) -> bool {
        self.has_read(process, What::WatchJobs)
    }

    pub fn has_read(&self, process: usize, watch: What) -> bool {
        let watches = |at: &usize| {
            let thread = &self.threads[*at];
            thread.process == process && thread.what == watch
        };
        let mut watches = (0..self.threads.len()).filter(watches);
        watches.any(|at| {
            matches!(self.threads[at].state, crate::sim::State::Reading(_)) && !self.has_frames(at)
        })
    }

    pub fn request_on(&mut self, kind: Kind, which: u32, how: u32) -> bool {
        let Some(process) = pick(self.alive().into_iter(), how) else {
            return false;
        };
        let name = pick(self.world.jobs.keys(), which).cloned();
        let Some(name) = name.or((kind == Kind::StopAll).then(String::new)) else {
            return false;
        };
        self.ask(kind, &name, process);
        true
    }

    /// Whether a process has nothing to do, now or later, but to watch.
    fn is_idle(&self, process: usize) -> bool {
        let works = |thread: &crate::sim::Thread| {
            thread.process == process && matches!(thread.what, What::Request(_) | What::Work)
        };
        let scheduler = &self.processes[process].scheduler;
        scheduler.next_task_due().is_none() && !self.threads.iter().any(works)
    }

    /// Sends a request about a job.
    pub fn ask(&mut self, kind: Kind, name: &str, process: usize) -> u32 {
        let scheduler = self.processes[process].scheduler.clone();
        let number = self.requests.len();
        self.requests.push(Request {
            kind,
            client: usize::MAX,
            job: scheduler
                .get(name)
                .ok()
                .map(|view| view.record.job.uid.to_string()),
            at: self.time(),
            is_alone: self.is_idle(process),
            knew_all: self.is_caught_up(process),
            outcome: None,
            answered: None,
            cut_off: false,
        });
        self.say(|| format!("request {number}: {kind:?} {name} to process {process}"));
        let uid = self
            .world
            .jobs
            .get(name)
            .map(|job| crate::world::uid_text(job.uid));
        let name = name.to_string();
        match (kind, uid) {
            (Kind::Delete, Some(uid)) => drop(self.requested_deletes.insert(uid)),
            (Kind::Restart, Some(uid)) => drop(self.requested_restarts.insert(uid)),
            (Kind::Stop, Some(uid)) => drop(self.requested_stops.insert(uid)),
            _ => {}
        }
        match kind {
            Kind::Wait => {
                self.wait(number, process, &name);
                0
            }
            Kind::Report => {
                self.report(number, process, &name);
                0
            }
            Kind::Stop => self.start(process, What::Request(number), move || {
                Done::Named(scheduler.stop(&name))
            }),
            Kind::StopAll => self.start(process, What::Request(number), move || {
                Done::Counted(scheduler.stop_all())
            }),
            Kind::Restart => self.start(process, What::Request(number), move || {
                Done::Viewed(scheduler.restart(&name))
            }),
            _ => self.start(process, What::Request(number), move || {
                Done::Named(scheduler.delete(&name))
            }),
        }
    }

    /// `GET ?wait`, as the server does it: looks, lists who waits, looks again.
    fn wait(&mut self, number: usize, process: usize, name: &str) {
        let scheduler = self.processes[process].scheduler.clone();
        let view = scheduler.get(name);
        let waits = |view: &Result<JobView, JobError>| {
            view.as_ref()
                .is_ok_and(|view| !view.record.job.status.is_finished())
        };
        match (waits(&view), JobName::parse(name)) {
            (true, Some(job)) => self.processes[process].waiters.push((job, number)),
            _ => self.answered(process, number, Done::Viewed(view)),
        }
    }

    /// A job says how far it is, which takes no call.
    fn report(&mut self, number: usize, process: usize, name: &str) {
        let scheduler = self.processes[process].scheduler.clone();
        let message = format!("report {number}");
        let report = ProgressReport {
            percent: (number % 101) as u8,
            message: message.clone(),
        };
        let done = scheduler.report(name, report);
        self.check_rate(process, name, &done);
        if done.is_ok() {
            match scheduler.get(name) {
                Ok(view) => {
                    let JobRecord { job, progress, .. } = &*view.record;
                    let told = progress.as_ref().map(|progress| &*progress.message);
                    if told != Some(&message) {
                        let what = format!("{name} has {told:?} right after {message}");
                        self.violate("progress", what);
                    }
                    let run = (job.uid.to_string(), job.rare.restarted);
                    self.reports.insert(message, run);
                }
                Err(e) => self.violate("progress", format!("{name} is gone: {e:?}")),
            }
        }
        self.answered(process, number, Done::Named(done));
    }

    /// A request is answered.
    pub fn answered(&mut self, process: usize, number: usize, done: Done) {
        let outcome = Outcome::of(done);
        self.say(|| format!("request {number} is answered: {outcome:?}"));
        self.requests[number].outcome = Some(outcome.clone());
        self.requests[number].answered = Some(self.time());
        self.check_bounds(process, &outcome, 1, number);
        if let Outcome::Job { name, uid, .. } = &outcome {
            self.check_is_there(number, name, uid);
        }
        let (kind, client) = (self.requests[number].kind, self.requests[number].client);
        match kind {
            Kind::Submit => {
                self.check_patience(number, &outcome);
                self.check_room(number, process, &outcome);
                self.submitted(client, process, outcome);
            }
            Kind::Restart => {
                if let Outcome::Job { name, uid, .. } = outcome {
                    self.check_acknowledged(&name, &uid, None);
                    self.check_payload_of(&name, &uid);
                }
            }
            Kind::Stop | Kind::Delete => {
                if let Some(uid) = self.requests[number].job.clone() {
                    self.check_done(kind, &uid, &outcome);
                }
            }
            _ => {}
        }
    }

    fn submitted(&mut self, number: usize, process: usize, outcome: Outcome) {
        let client = &mut self.clients[number];
        client.in_flight = false;
        client.process = process;
        client.last = Some(outcome.clone());
        client.ended_since = false;
        match outcome {
            Outcome::Job { name, uid, .. } => {
                client.in_doubt = false;
                let before = client.names.last().cloned();
                let given = Given {
                    name: name.clone(),
                    uid: uid.clone(),
                };
                client.names.push(given);
                if let Some(before) = before.filter(|before| before.uid != uid) {
                    self.check_same_key(number, &before, &name);
                }
                self.check_acknowledged(&name, &uid, Some(number));
            }
            Outcome::Failed(_) => (client.in_doubt, client.was_in_doubt) = (true, true),
            _ => {}
        }
    }

    /// The process that was to answer has ended.
    pub fn abandon(&mut self, number: usize) {
        self.requests[number].cut_off = true;
        let client = self.requests[number].client;
        if let Some(client) = self.clients.get_mut(client) {
            client.in_flight = false;
            (client.in_doubt, client.was_in_doubt) = (true, true);
            client.cut_off = true;
            client.last = None;
        }
    }
}
