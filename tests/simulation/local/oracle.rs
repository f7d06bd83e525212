//! What was asked, answered and seen, and what may follow from it.

use job_scheduler::backend::local::Exit;
use job_scheduler::job::{Job, JobName, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Finished jobs that are kept of each outcome.
pub const HISTORY: usize = 2;
/// Seconds for which a key stands for its job after the job's end, whatever retention does.
const KEY_STANDS: u64 = 15 * 60;

/// A submit.
#[derive(Clone, Debug)]
pub struct Request {
    pub key: bool,
    pub payload: Option<String>,
    pub backoff: u32,
    pub outcome: Outcome,
    /// It was sent once, and nobody knows whether that made a job.
    was_in_doubt: bool,
    /// How many jobs there may be of it: more than one if it was restarted.
    allowed: usize,
    names: BTreeSet<JobName>,
    /// The job of its key.
    pub keyed: Option<JobName>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was not answered, or with an error whose outcome nobody knows.
    InDoubt,
    Accepted,
    /// For certain: nothing of it may run.
    Refused,
}

/// A job that was answered or seen.
#[derive(Clone, Debug)]
pub struct Known {
    request: usize,
    /// It may not get lost.
    acknowledged: bool,
    deletion: Deletion,
    /// Retention let it go.
    retired: bool,
    /// What its user was last told.
    pub last: Option<Status>,
    /// The step that it finished in, as the backend tells it.
    finished: Option<(usize, Status)>,
    /// The second that it was last seen to finish in.
    finished_at: u64,
    /// The same, before it was asked to be resumed.
    finished_before: Option<(usize, Status)>,
    runs: Vec<Run>,
    /// How often it may have been resumed.
    resumes: usize,
    /// The step in which it was last to be resumed or deleted.
    left_in: usize,
    /// It is stopped, and may be resumed at any moment.
    resuming: bool,
}

#[derive(Clone, Debug)]
struct Run {
    attempt: usize,
    over: bool,
    exit: Option<Exit>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Deletion {
    No,
    Asked,
    Done,
}

#[derive(Default)]
struct State {
    step: usize,
    /// Seconds since the beginning.
    now: u64,
    requests: Vec<Request>,
    /// The requests of the jobs of each batch that was asked for with a key.
    batches: Vec<[usize; 2]>,
    jobs: BTreeMap<JobName, Known>,
    /// In the order in which they became known.
    order: Vec<JobName>,
    /// What was let go may be there again.
    removals_are_vague: bool,
    /// Of two that have ended, which did so first is not known.
    ends_are_vague: bool,
    violations: Vec<String>,
    log: Vec<String>,
}

#[derive(Clone, Default)]
pub struct Oracle(Arc<Mutex<State>>);

impl Oracle {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn next_step(&self) {
        self.state().step += 1;
    }

    pub fn pass(&self, now: Duration) {
        self.state().now = now.as_secs();
    }

    pub fn say(&self, text: String) {
        self.state().log.push(text);
    }

    pub fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    pub fn violated(&self, what: String) {
        self.state().violated(what);
    }

    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// The job that became known as the n-th, over and over.
    pub fn job(&self, number: usize) -> Option<JobName> {
        let state = self.state();
        let count = state.order.len();
        (count > 0).then(|| state.order[number % count].clone())
    }

    pub fn request(&self, number: usize) -> Option<(usize, Request)> {
        let state = self.state();
        let count = state.requests.len();
        (count > 0).then(|| (number % count, state.requests[number % count].clone()))
    }

    /// A submit is about to be sent. Gives its number.
    pub fn submits(&self, key: bool, payload: Option<String>, backoff: u32) -> usize {
        let mut state = self.state();
        state.requests.push(Request {
            key,
            payload,
            backoff,
            outcome: Outcome::InDoubt,
            was_in_doubt: false,
            allowed: 1,
            names: BTreeSet::new(),
            keyed: None,
        });
        state.requests.len() - 1
    }

    /// A batch of two is about to be sent. Gives the numbers of its jobs' requests.
    pub fn submits_batch(&self, key: bool, payload: Option<String>) -> [usize; 2] {
        let numbers = [(); 2].map(|()| self.submits(key, payload.clone(), 0));
        if key {
            self.state().batches.push(numbers);
        }
        numbers
    }

    /// Whether the request came as a part of a batch, and comes again with it alone.
    pub fn is_of_batch(&self, request: usize) -> bool {
        self.state()
            .batches
            .iter()
            .flatten()
            .any(|one| *one == request)
    }

    /// The last batch with a key.
    pub fn batch(&self) -> Option<[usize; 2]> {
        self.state().batches.last().copied()
    }

    /// A submit with a key is about to be sent again.
    pub fn submits_again(&self, request: usize) {
        let mut state = self.state();
        let keyed = state.requests[request].keyed.clone();
        let gone = keyed.is_some_and(|name| !state.key_stands(&name));
        let request = &mut state.requests[request];
        request.allowed += usize::from(gone);
        if request.outcome == Outcome::Refused {
            request.outcome = Outcome::InDoubt;
        }
    }

    pub fn accepted(&self, request: usize, job: &Job) {
        let mut state = self.state();
        let before = state.requests[request].keyed.clone();
        if let Some(before) = before
            && before != job.name
            && state.key_stands(&before)
        {
            state.violated(format!("one key has two jobs: {before} and {}", job.name));
        }
        let one = &mut state.requests[request];
        one.outcome = Outcome::Accepted;
        if one.key {
            one.keyed = Some(job.name.clone());
        }
        let known = state.known(&job.name, request);
        known.acknowledged = true;
        // A key stands for a job that retention has let go.
        if !known.retired {
            state.told(&job.name, job.status);
        }
    }

    pub fn refused(&self, request: usize, certain: bool) {
        let mut state = self.state();
        let request = &mut state.requests[request];
        request.was_in_doubt |= !certain;
        let is_nowhere = request.names.is_empty() && !request.was_in_doubt;
        if request.outcome == Outcome::InDoubt && is_nowhere {
            request.outcome = Outcome::Refused;
        }
    }

    /// A finished job is about to be done again.
    pub fn recreates(&self, name: &JobName) {
        let mut state = self.state();
        let request = state.jobs[name].request;
        state.requests[request].allowed += 1;
    }

    pub fn recreated(&self, old: &JobName, job: &Job) {
        let mut state = self.state();
        let request = state.jobs[old].request;
        state.known(&job.name, request).acknowledged = true;
        state.told(&job.name, job.status);
    }

    pub fn not_recreated(&self, name: &JobName) {
        let mut state = self.state();
        let request = state.jobs[name].request;
        state.requests[request].allowed -= 1;
    }

    /// A stopped job is about to be resumed.
    pub fn resumes(&self, name: &JobName) {
        let mut state = self.state();
        let step = state.step;
        let known = state.jobs.get_mut(name).unwrap();
        known.resumes += 1;
        known.left_in = step;
        known.resuming = true;
        known.last = None;
        known.finished_before = known.finished.take();
    }

    /// It was not, for certain.
    pub fn not_resumed(&self, name: &JobName) {
        let mut state = self.state();
        let known = state.jobs.get_mut(name).unwrap();
        known.resumes -= 1;
        known.resuming = false;
        known.last = Some(Status::Stopped);
        known.finished = known.finished_before;
    }

    pub fn deletes(&self, name: &JobName) {
        let mut state = self.state();
        let step = state.step;
        let known = state.jobs.get_mut(name).unwrap();
        known.left_in = step;
        if known.deletion == Deletion::No {
            known.deletion = Deletion::Asked;
        }
    }

    pub fn deleted(&self, name: &JobName) {
        self.state().jobs.get_mut(name).unwrap().deletion = Deletion::Done;
    }

    /// What could not be written down is lost, or there all the same: that a job was to be stopped,
    /// and when it ended.
    pub fn loses_stops(&self) {
        let mut state = self.state();
        state.ends_are_vague = true;
        let stopping = state.jobs.values_mut();
        for known in stopping.filter(|known| known.last == Some(Status::Stopping)) {
            known.last = None;
        }
    }

    /// The disk has failed, and the machine ends: a record that was removed may be there again.
    pub fn loses_removals(&self) {
        self.state().removals_are_vague = true;
    }

    pub fn last(&self, name: &JobName) -> Option<Status> {
        self.state().jobs.get(name)?.last
    }

    /// The backend tells of a job.
    pub fn observed(&self, job: &Job) {
        self.state().ended(job);
    }

    /// What its users see of all jobs.
    pub fn listed(&self, jobs: &[Job]) {
        let mut state = self.state();
        for job in jobs {
            let id = job.job_id.as_deref().and_then(|id| id.parse().ok());
            let Some(request) = id else {
                state.violated(format!("job {} lost its id", job.name));
                continue;
            };
            state.known(&job.name, request);
            state.ended(job);
            state.told(&job.name, job.status);
        }
        let listed: BTreeSet<&JobName> = jobs.iter().map(|job| &job.name).collect();
        let missing: Vec<JobName> = state
            .jobs
            .iter()
            .filter(|(name, known)| known.is_kept() && !listed.contains(name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in missing {
            state.is_missing(&name, jobs);
        }
        for job in jobs {
            let key = job.request().map(|key| key.key);
            let same = |other: &&Job| key.is_some() && other.request().map(|key| key.key) == key;
            if jobs.iter().filter(same).count() > 1 {
                state.violated(format!("one key has two jobs, one of them {}", job.name));
            }
        }
    }

    /// A process of a job begins.
    pub fn run_begins(
        &self,
        job: &JobName,
        request: usize,
        attempt: usize,
        payload: Option<Vec<u8>>,
    ) {
        let mut state = self.state();
        let one = state.requests[request].clone();
        if one.outcome == Outcome::Refused {
            state.violated(format!("request {request} was refused, and runs as {job}"));
        }
        if payload.as_deref() != one.payload.as_deref().map(str::as_bytes) {
            state.violated(format!("job {job} runs with another payload than was sent"));
        }
        state
            .log
            .push(format!("    job {job} runs, attempt {attempt}"));
        let known = state.known(job, request).clone();
        if known.deletion == Deletion::Done {
            state.violated(format!("job {job} was deleted, and runs"));
        }
        if known.last.is_some_and(Status::is_finished) {
            state.violated(format!("job {job} had finished, and runs again"));
        }
        if known.runs.iter().any(|run| run.attempt == attempt) {
            state.violated(format!("attempt {attempt} of job {job} runs twice"));
        }
        let succeeded = |run: &Run| run.exit == Some(Exit::Code(0));
        if known.runs.iter().any(|run| !run.over || succeeded(run)) && known.resumes == 0 {
            state.violated(format!("job {job} runs again, and had not failed"));
        }
        if known.runs.len() >= (1 + one.backoff as usize) * (1 + known.resumes) {
            state.violated(format!(
                "job {job} runs more often than its backoffLimit says"
            ));
        }
        state.known(job, request).runs.push(Run {
            attempt,
            over: false,
            exit: None,
        });
    }

    pub fn run_ended(&self, job: &JobName, attempt: usize, exit: Option<Exit>) {
        let mut state = self.state();
        let known = state.jobs.get_mut(job).unwrap();
        for run in known.runs.iter_mut().filter(|run| run.attempt == attempt) {
            (run.over, run.exit) = (true, exit);
        }
    }

    /// Jobs that have their payload on disk: none is missing or has another.
    pub fn payload(&self, job: &Job) -> Option<String> {
        let state = self.state();
        state.requests[state.jobs[&job.name].request]
            .payload
            .clone()
    }
}

impl Known {
    fn is_kept(&self) -> bool {
        self.acknowledged && self.deletion == Deletion::No && !self.retired
    }
}

/// The batch that a job is of.
pub fn batch_of(name: &JobName) -> Option<&str> {
    let (batch, _) = name.as_str().rsplit_once('-')?;
    batch.starts_with("batch-").then_some(batch)
}

/// Whether a job can come from one status to the other, with others between.
fn may_follow(from: Status, to: Status) -> bool {
    match from {
        Status::Waiting => true,
        Status::Running => to != Status::Waiting,
        // It may have come to an end of its own before it was stopped.
        Status::Stopping => !matches!(to, Status::Waiting | Status::Running),
        Status::Stopped | Status::Succeeded | Status::Failed => to == from,
    }
}

impl State {
    fn violated(&mut self, what: String) {
        self.log.push(format!("    VIOLATION: {what}"));
        self.violations.push(what);
    }

    fn known(&mut self, name: &JobName, request: usize) -> &mut Known {
        if !self.jobs.contains_key(name) {
            self.order.push(name.clone());
            let of = &mut self.requests[request];
            of.names.insert(name.clone());
            if of.key && of.keyed.is_none() {
                of.keyed = Some(name.clone());
            }
            let (count, allowed) = (of.names.len(), of.allowed);
            if of.outcome == Outcome::Refused {
                self.violated(format!(
                    "request {request} was refused, and is there as {name}"
                ));
            } else if count > allowed {
                self.violated(format!(
                    "request {request} has {count} jobs, and may have {allowed}: the last is {name}"
                ));
            }
            self.jobs.insert(
                name.clone(),
                Known {
                    request,
                    acknowledged: false,
                    deletion: Deletion::No,
                    retired: false,
                    last: None,
                    finished: None,
                    finished_at: 0,
                    finished_before: None,
                    runs: Vec::new(),
                    resumes: 0,
                    left_in: 0,
                    resuming: false,
                },
            );
        }
        self.jobs.get_mut(name).unwrap()
    }

    /// Whether the key of this job must stand for it: acknowledged, and not deleted.
    fn key_stands(&self, name: &JobName) -> bool {
        let known = &self.jobs[name];
        let is_young = self.now < known.finished_at + KEY_STANDS;
        known.deletion == Deletion::No && known.acknowledged && (!known.retired || is_young)
    }

    /// Takes note of when a job ended, if it did.
    fn ended(&mut self, job: &Job) {
        let step = self.step;
        if let Some(known) = self.jobs.get_mut(&job.name) {
            if known.finished.is_none() {
                known.finished_at = self.now;
            }
            let before = known.finished_before.filter(|_| known.resuming);
            known.finished = match job.status {
                Status::Stopped if before.is_some() => before,
                status if status.is_finished() => {
                    // It may have been resumed, and have ended anew.
                    let same = known.finished.filter(|(_, was)| *was == status);
                    same.or(Some((step, status)))
                }
                // The index may not be sure yet that it has stopped.
                Status::Stopping => known.finished,
                _ => None,
            };
        }
    }

    /// A user is told the status of a job.
    fn told(&mut self, name: &JobName, status: Status) {
        let known = self.jobs.get_mut(name).unwrap();
        let (last, gone) = (known.last, known.deletion == Deletion::Done);
        known.resuming &= status == Status::Stopped;
        if !known.resuming {
            known.last = Some(status);
        }
        let retired = known.retired;
        if let Some(last) = last.filter(|last| !may_follow(*last, status)) {
            self.violated(format!("job {name} was {last}, and is {status}"));
        }
        if gone {
            self.violated(format!("job {name} was deleted, and is {status}"));
        }
        if retired && !self.removals_are_vague {
            self.violated(format!("job {name} was let go, and is {status}"));
        }
    }

    /// A job of a batch that must be kept is not there: retention may have let the batch go, all of
    /// it, once all of it had finished.
    fn is_missing_of_batch(&mut self, name: &JobName, batch: &str, jobs: &[Job]) {
        let of_it = |other: &JobName| batch_of(other) == Some(batch);
        let unfinished = |(other, known): (&JobName, &Known)| {
            of_it(other) && known.is_kept() && known.finished.is_none()
        };
        let in_part = jobs.iter().any(|job| of_it(&job.name)) || self.jobs.iter().any(unfinished);
        let batches = jobs.iter().filter_map(|job| batch_of(&job.name));
        let left = self
            .jobs
            .iter()
            .filter(|(_, known)| known.left_in == self.step);
        let left = left.filter_map(|(name, _)| batch_of(name));
        let others: BTreeSet<&str> = batches.chain(left).collect();
        if in_part || others.len() < HISTORY {
            self.violated(format!("job {name} of a batch is lost"));
        }
    }

    /// A job that must be kept is not there: retention may have let it go.
    fn is_missing(&mut self, name: &JobName, jobs: &[Job]) {
        let Some((step, status)) = self.jobs[name].finished else {
            let last = self.jobs[name].last;
            self.violated(format!("job {name} is lost, which was {last:?}"));
            return;
        };
        self.jobs.get_mut(name).unwrap().retired = true;
        if let Some(batch) = batch_of(name) {
            return self.is_missing_of_batch(name, batch, jobs);
        }
        let kept = jobs.iter().filter(|job| batch_of(&job.name).is_none());
        let kept = kept.filter(|job| job.status == status);
        let kept: Vec<&JobName> = kept.map(|job| &job.name).collect();
        // What was resumed or deleted meanwhile was kept, too.
        let left = self.jobs.values().filter(|job| job.left_in == self.step);
        if kept.len() + left.count() < HISTORY {
            self.violated(format!("job {name} is lost, which was {status}"));
        }
        // What is too much may be kept for a while: a job with a key cannot be hidden on a full disk.
        let finished = |name: &JobName| self.jobs[name].finished.map_or(step, |(step, _)| step);
        let mut latest: Vec<_> = kept.iter().map(|name| (finished(name), *name)).collect();
        latest.sort_by(|a, b| b.cmp(a));
        latest.truncate(HISTORY);
        let older = latest.into_iter().find(|(ended, _)| *ended < step);
        if let Some((_, older)) = older.filter(|_| !self.ends_are_vague) {
            let what = format!("job {name} was let go, and {older} kept, which ended before it");
            self.violated(what);
        }
    }
}
