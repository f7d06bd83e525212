//! Batches: who asks for them, and what must hold of them.

use crate::client::Outcome;
use crate::coroutine::Done;
use crate::sim::{Sim, Thread, What, pick};
use crate::step::Kind;
use crate::world::{HIDDEN, Job, Life, STOPPED, Who, uid_text};
use job_scheduler::batch::request::{BatchRequest, parse_batch};
use job_scheduler::job::{RequestKey, Status};
use job_scheduler::request::request_key;
use job_scheduler::scheduler::{BatchView, SubmitError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What says that all of a batch is there.
pub const COMPLETE: &str = "job-scheduler/complete";
/// Of its job, its place in it.
const INDEX: &str = "job-scheduler/index";
const JOBS: usize = 2;

/// Somebody who wants one batch.
pub struct BatchClient {
    key: Option<RequestKey>,
    request: Arc<BatchRequest>,
    in_flight: bool,
    process: usize,
    /// Uids of what it was told of.
    given: Vec<String>,
    /// The last answer; `None` before there is one, or where its process ended.
    last: Option<Answer>,
    /// It has sent a request of which it cannot know whether it made a batch.
    was_in_doubt: bool,
}

#[derive(Clone, Debug)]
enum Answer {
    Given,
    /// For certain: there is none.
    Refused,
    /// It may be tried again.
    Failed,
}

/// What is asked of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OfBatch {
    Stop,
    Delete,
    Restart,
}

/// The payload that a batch's job has, by the id that its caller gave it.
pub fn payload_of(life: &Life) -> Option<String> {
    let id = life.job_id.as_ref().filter(|_| life.batch.is_some())?;
    life.mounted.then(|| format!("payload of {id}"))
}

impl Sim {
    pub fn submit_batch(&mut self, keyed: bool) -> bool {
        let Some(process) = self.alive().first().copied() else {
            return false;
        };
        let number = self.batches.len();
        let job = |index: usize| {
            let id = format!("b{number}.{index}");
            match self.options.payloads {
                true => format!(r#"{{"jobId":"{id}","payload":"payload of {id}"}}"#),
                false => format!(r#"{{"jobId":"{id}"}}"#),
            }
        };
        let jobs: Vec<String> = (0..JOBS).map(job).collect();
        let jobs = jobs.join(",");
        let body = format!(r#"{{"batchId":"b{number}","jobScheduleDescriptions":[{jobs}]}}"#);
        let request = parse_batch(body.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
        let key = keyed.then(|| request_key(&format!("bk{number}"), body.as_bytes()).unwrap());
        self.batches.push(BatchClient {
            key,
            request: Arc::new(request),
            in_flight: false,
            process,
            given: Vec::new(),
            last: None,
            was_in_doubt: false,
        });
        self.send_batch(number, process);
        true
    }

    fn send_batch(&mut self, client: usize, process: usize) -> u32 {
        let scheduler = self.processes[process].scheduler.clone();
        let one = &mut self.batches[client];
        (one.in_flight, one.process) = (true, process);
        let (request, key) = (one.request.clone(), one.key);
        let number = self.batch_request(client);
        self.say(|| {
            let keyed = if key.is_some() { " with a key" } else { "" };
            format!("request {number}: batch client {client} submits{keyed} to process {process}")
        });
        self.start(process, What::Request(number), move || {
            Done::Batch(scheduler.submit_batch(&request, key))
        })
    }

    /// Sends the last one with a key again, whatever came of it.
    pub fn resend_batch_anyhow(&mut self) -> Option<u32> {
        let mut clients = self.batches.iter();
        let number = clients.rposition(|client| client.key.is_some())?;
        let process = self.process_for_resend(self.batches[number].process)?;
        Some(self.send_batch(number, process))
    }

    /// Sends one with a key again whose client cannot know what came of it.
    pub fn resend_batch(&mut self) -> bool {
        let mut clients = 0..self.batches.len();
        let Some(number) = clients.find(|number| {
            let client = &self.batches[*number];
            let is_open = matches!(client.last, None | Some(Answer::Failed));
            client.key.is_some() && !client.in_flight && is_open
        }) else {
            return false;
        };
        let Some(process) = self.process_for_resend(self.batches[number].process) else {
            return false;
        };
        self.send_batch(number, process);
        true
    }

    /// Asks something of one of the batches, in the order in which they came.
    pub fn ask_batch(&mut self, what: OfBatch, which: u32) -> Option<u32> {
        let jobs = self.world.jobs.values();
        let batches = jobs.filter(|job| job.is_managed);
        let mut batches: Vec<_> = batches.map(|job| (job.uid, job.name.clone())).collect();
        batches.sort();
        let (uid, name) = pick(batches.into_iter(), which)?;
        let process = self.alive().first().copied()?;
        let scheduler = self.processes[process].scheduler.clone();
        let number = self.batch_request(usize::MAX);
        self.say(|| format!("request {number}: {what:?} {name} to process {process}"));
        let members = self
            .world
            .jobs
            .values()
            .filter(|job| job.owner == Some(uid));
        let uids: Vec<String> = members.map(|job| uid_text(job.uid)).collect();
        match what {
            OfBatch::Delete => drop(self.requested_deletes.insert(uid_text(uid))),
            OfBatch::Stop => self.requested_stops.extend(uids),
            OfBatch::Restart => self.requested_restarts.extend(uids),
        }
        Some(self.start(process, What::Request(number), move || {
            Done::BatchAsked(match what {
                OfBatch::Stop => scheduler.stop_batch(&name),
                OfBatch::Delete => scheduler.delete_batch(&name).map(|_| ()),
                OfBatch::Restart => scheduler.restart_batch(&name, true).map(|_| ()),
            })
        }))
    }

    fn batch_request(&mut self, client: usize) -> usize {
        let number = self.requests.len();
        self.requests.push(crate::client::Request {
            kind: Kind::Batch,
            client: usize::MAX,
            job: None,
            at: self.time(),
            is_alone: false,
            knew_all: false,
            outcome: None,
            answered: None,
            cut_off: false,
        });
        self.batch_of_request.insert(number, client);
        number
    }

    /// A submit is answered.
    pub fn batch_answered(&mut self, number: usize, done: Result<BatchView, SubmitError>) {
        let client = self.batch_of_request[&number];
        self.say(|| match &done {
            Ok(view) => format!("request {number} is answered: {}", view.whole.job.name),
            Err(e) => format!("request {number} is answered: {e:?}"),
        });
        self.requests[number].answered = Some(self.time());
        let one = &mut self.batches[client];
        one.in_flight = false;
        let view = match done {
            Ok(view) => view,
            Err(error) => {
                let process = one.process;
                let outcome = Outcome::of(Done::Submit(Err(error)));
                self.check_bounds(process, &outcome, JOBS, number);
                let one = &mut self.batches[client];
                let is_open = matches!(outcome, Outcome::Failed(_) | Outcome::NotReady);
                one.was_in_doubt |= is_open;
                one.last = Some(match is_open {
                    true => Answer::Failed,
                    false => Answer::Refused,
                });
                return;
            }
        };
        one.last = Some(Answer::Given);
        let uid = view.whole.job.uid.to_string();
        let before = one.given.last().cloned();
        one.given.push(uid.clone());
        if let Some(before) = before.filter(|before| *before != uid)
            && !self.batch_may_be_gone(&before)
            && !self.is_promise_over(&before)
        {
            let what = format!("batch client {client} was given {before}, and now {uid}");
            return self.violate("key", what);
        }
        if self.batch_may_be_gone(&uid) || self.is_promise_over(&uid) {
            return;
        }
        let whole = self
            .world
            .jobs
            .values()
            .find(|job| uid_text(job.uid) == uid);
        let is_complete = whole.is_some_and(|job| job.annotations.contains_key(COMPLETE));
        if !is_complete {
            let what = format!(
                "batch {} is acknowledged, and not complete",
                view.whole.job.name
            );
            return self.violate("batch", what);
        }
        let names = view
            .jobs
            .iter()
            .map(|view| view.record.job.name.to_string());
        let names: Vec<String> = names.collect();
        if names.len() != JOBS || names.iter().any(|name| !self.has_all(name)) {
            let what = format!(
                "batch {} is acknowledged with {names:?}",
                view.whole.job.name
            );
            self.violate("batch", what);
        }
    }

    /// The process that was to answer has ended.
    pub fn abandon_batch(&mut self, number: usize) {
        let client = self.batch_of_request.get(&number).copied();
        if let Some(client) = client.and_then(|client| self.batches.get_mut(client)) {
            (client.in_flight, client.last, client.was_in_doubt) = (false, None, true);
        }
    }

    /// Whether a batch's job is there, with its payload to the byte.
    fn has_all(&self, name: &str) -> bool {
        let Some(job) = self.world.jobs.get(name) else {
            return false;
        };
        let Some(secret) = &job.mounts else {
            return !self.options.payloads;
        };
        let life = &self.world.lives[&job.uid];
        let is_robbed = self.world.robbed.contains(secret);
        let secret = self.world.secrets.get(secret);
        let data = secret.and_then(|secret| secret.data.get(&job.mount_key));
        is_robbed || data.map(Vec::as_slice) == payload_of(life).as_ref().map(|p| p.as_bytes())
    }

    /// How many places of those that there are for unfinished jobs batches may take of a process,
    /// beside one for each request that is under way.
    pub fn places_of_batches(&self, process: usize) -> usize {
        let jobs = self.world.jobs.values();
        let of_batches = jobs.filter(|job| job.owner.is_some());
        // What is left of a batch is not told of, whatever has become of it.
        let is_left = |job: &Job| {
            let owner = job.owner;
            owner.is_some_and(|owner| self.world.job_of(owner).is_none())
        };
        let unfinished =
            of_batches.filter(|job| is_left(job) || !self.status_of(job).is_finished());
        let batches = self.processes[process].scheduler.batches();
        let known = batches.iter().flatten().flat_map(|batch| &batch.jobs);
        let known = known.map(|view| &view.record.job);
        let known = known.filter(|job| !job.status.is_finished());
        let names = unfinished.map(|job| job.name.as_str());
        let names: BTreeSet<&str> = names.chain(known.map(|job| job.name.as_str())).collect();
        let makes_one = |thread: &&Thread| match thread.what {
            What::Request(number) if thread.process == process => {
                let client = self.batch_of_request.get(&number);
                client.is_some_and(|client| *client < self.batches.len())
            }
            _ => false,
        };
        names.len() + self.threads.iter().filter(makes_one).count() * (JOBS - 1)
    }

    /// When the last of a batch's jobs ended or was given up, once all have.
    fn end_of_batch(&self, uid: &str) -> Option<u64> {
        let own = self.members_of(uid);
        let ends = own.map(|life| life.last_end().or(life.gone.map(|(at, _)| at)));
        let ends: Option<Vec<u64>> = ends.collect();
        ends?.into_iter().max()
    }

    fn members_of<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Life> {
        let lives = self.world.lives.values();
        lives.filter(move |life| {
            let batch = life.batch.filter(|batch| *batch != life.uid);
            batch.is_some_and(|batch| uid_text(batch) == uid)
        })
    }

    /// Whether a batch's key need not stand for it any more.
    fn is_promise_over(&self, uid: &str) -> bool {
        let end = self.end_of_batch(uid);
        end.is_some_and(|end| self.time() > end + self.promise())
    }

    /// Whether a batch may have been let go.
    fn may_be_retired(&self, uid: &str) -> bool {
        let complete = self.world.lives.values().filter(|life| life.was_complete);
        complete.count() > self.options.history && self.end_of_batch(uid).is_some()
    }

    /// Whether the owner or a person has ended this batch or a part of it.
    fn batch_may_be_gone(&self, uid: &str) -> bool {
        let lives = self.world.lives.values();
        let whole = lives.clone().find(|life| uid_text(life.uid) == uid);
        let name = whole.map(|life| life.name.as_str());
        // Also one that had its name before: what is left of that may be in its way.
        let of_batch = |life: &&Life| {
            let is_part = life.batch.is_some_and(|batch| uid_text(batch) == uid);
            is_part || Some(life.name.as_str()) == name
        };
        let by_hand = |life: &Life| {
            let asked = self.requested_deletes.contains(&uid_text(life.uid));
            asked || matches!(life.gone, Some((_, Who::Kubectl)))
        };
        lives.clone().filter(of_batch).any(by_hand)
    }

    /// Whether a job of a batch that somebody was told of, or what stands for it, is deleted that
    /// has not come to its end, and nobody asked for that.
    pub fn is_wrongly_gone_of_batch(&self, life: &Life) -> bool {
        let Some(batch) = life.batch else {
            return false;
        };
        let uid = uid_text(batch);
        // A job that does one of its again may be given up, and a create may come late.
        let came_before = |other: &Life| other.name == life.name && other.uid < life.uid;
        let is_promised = life.restart_of.is_none()
            && !self.world.lives.values().any(came_before)
            && self
                .batches
                .iter()
                .any(|client| client.given.contains(&uid));
        let all_ended = match life.uid == batch {
            true => self.end_of_batch(&uid).is_some(),
            false => life.end().is_some(),
        };
        let is_touched = life.touched || self.members_of(&uid).any(|life| life.touched);
        is_promised && !all_ended && !is_touched && !self.batch_may_be_gone(&uid)
    }

    /// What a batch is kept with, once it is over.
    fn outcome_of_batch(&self, whole: &Job) -> Option<&'static str> {
        let jobs = self.world.jobs.values();
        let own = jobs.filter(|job| job.owner == Some(whole.uid));
        let own = own.filter(|job| !job.annotations.contains_key(HIDDEN));
        let own: Vec<Status> = own.map(|job| self.status_of(job)).collect();
        let is_over = whole.annotations.contains_key(COMPLETE)
            && own.iter().all(|status| status.is_finished());
        let outcomes = [
            (Status::Failed, "failed"),
            (Status::Stopped, "were stopped"),
        ];
        let outcome = outcomes.iter().find(|(status, _)| own.contains(status));
        is_over.then(|| outcome.map_or("succeeded", |(_, text)| text))
    }

    /// What is out of its users' sight has come to its end.
    pub fn check_hidden_batches(&mut self) {
        let is_hidden = |job: &Job| job.annotations.contains_key(HIDDEN);
        let jobs = || self.world.jobs.values();
        let unfinished = jobs().find(|job| {
            let whole = job.owner.and_then(|owner| self.world.job_of(owner));
            let is_touched = self
                .world
                .lives
                .get(&job.uid)
                .is_none_or(|life| life.touched);
            whole.is_some_and(is_hidden)
                && !is_hidden(job)
                && !is_touched
                && !self.status_of(job).is_finished()
        });
        if let Some(job) = unfinished.filter(|_| !self.options.two) {
            let what = format!("{} has not ended, and its batch is out of sight", job.name);
            self.violate("hidden", what);
        }
    }

    /// What must hold of batches when all has come to rest.
    pub fn check_batches(&mut self) {
        let lives = || self.world.lives.values();
        // Nothing of what was never complete has run.
        let ran = lives().find(|life| {
            let whole = life.batch.and_then(|batch| self.world.lives.get(&batch));
            life.ran.is_some() && !life.touched && whole.is_some_and(|whole| !whole.was_complete)
        });
        if let Some(life) = ran {
            let what = format!("{} ran, and its batch was never complete", life.name);
            return self.violate("batch", what);
        }
        let mut ran = BTreeMap::<&str, usize>::new();
        for life in lives().filter(|life| life.batch.is_some() && life.ran.is_some()) {
            let whole = life.batch.map(uid_text).unwrap_or_default();
            if !life.touched && !self.batch_may_be_gone(&whole) && life.restart_of.is_none() {
                *ran.entry(life.job_id.as_deref().unwrap_or_default())
                    .or_default() += 1;
            }
        }
        if let Some((id, count)) = ran.iter().find(|(_, count)| **count > 1) {
            let what = format!("{id} ran {count} times");
            return self.violate("batch", what);
        }
        let in_sight = |job: &&Job| job.is_managed && !job.annotations.contains_key(HIDDEN);
        let mut there: Vec<Job> = self.world.jobs.values().filter(in_sight).cloned().collect();
        let mut kept = BTreeMap::<&str, Vec<&str>>::new();
        for whole in there.iter().filter(|job| !self.is_guarded(&job.name)) {
            if let Some(outcome) = self.outcome_of_batch(whole) {
                kept.entry(outcome).or_default().push(&whole.name);
            }
        }
        let too_many = kept
            .iter()
            .find(|(_, kept)| kept.len() > self.options.history);
        if let Some((outcome, kept)) = too_many {
            let what = format!("{kept:?} are kept, which {outcome}");
            return self.violate("retention", what);
        }
        for (number, client) in self.batches.iter().enumerate() {
            let own = there.iter().filter(|job| {
                let id = job.annotations.get("job-scheduler/batch-id");
                id.is_some_and(|id| *id == format!("b{number}"))
            });
            // It cannot be completed or deleted.
            if own.clone().any(|job| self.is_guarded(&job.name)) {
                continue;
            }
            let own: Vec<String> = own.map(|job| uid_text(job.uid)).collect();
            let last = client.given.last();
            // One scheduler may find it cut off that the other is just finishing.
            let may_be_gone = |uid| self.batch_may_be_gone(uid) || self.may_be_retired(uid);
            let is_free = last.is_some_and(|uid| may_be_gone(uid));
            let is_right = match (&client.last, last) {
                (Some(Answer::Given), Some(uid)) => is_free || own == [uid.clone()],
                // Who knows of it may have ended, where the request had no key.
                (None | Some(Answer::Failed), _) if client.key.is_none() => own.len() <= 1,
                (Some(Answer::Refused), _) if client.was_in_doubt => own.len() <= 1,
                (Some(Answer::Refused), _) => own.is_empty() || client.process_ended(self),
                _ => is_free || own.len() <= 1,
            };
            if !is_right {
                let what = format!(
                    "batch client {number} was last told {:?} {last:?}, there is {own:?}",
                    client.last
                );
                return self.violate("batch", what);
            }
        }
        there.retain(|whole| !self.is_guarded(&whole.name));
        for whole in &there {
            let members = self.world.jobs.values();
            let members = members.filter(|job| job.owner == Some(whole.uid));
            let ids: BTreeSet<_> = members
                .filter(|job| !job.annotations.contains_key(HIDDEN))
                .map(|job| job.annotations.get(INDEX).cloned())
                .collect();
            let is_whole = whole.annotations.contains_key(COMPLETE) && ids.len() == JOBS;
            if !is_whole && !self.batch_may_be_gone(&uid_text(whole.uid)) {
                let what = format!("{} is there with {ids:?}", whole.name);
                return self.violate("batch", what);
            }
        }
        self.check_batch_index(&there);
        self.check_places_in_batches();
    }

    /// A job that was done again has given its place in the batch up.
    fn check_places_in_batches(&mut self) {
        let jobs = self.world.jobs.values();
        let in_sight = jobs.filter(|job| {
            let is_free = !self.is_guarded(&job.name) && job.deletion.is_none();
            is_free && !job.annotations.contains_key(HIDDEN)
        });
        let mut taken = BTreeSet::new();
        let twice = in_sight
            .filter_map(|job| Some((job, (job.owner?, job.annotations.get(INDEX)?))))
            .filter(|(_, place)| !taken.insert(*place))
            .map(|(job, _)| job.name.clone());
        if let Some(name) = twice.last() {
            self.violate("batch", format!("{name} has another's place in its batch"));
        }
    }

    /// Each process tells of the batches that there are, with their jobs as they are.
    fn check_batch_index(&mut self, there: &[Job]) {
        let names = self.world.jobs.keys();
        let guarded: BTreeSet<String> = names
            .filter(|name| self.is_guarded(name))
            .cloned()
            .collect();
        for number in self.alive() {
            let Ok(views) = self.processes[number].scheduler.batches() else {
                continue;
            };
            let free = |batch: &&BatchView| !guarded.contains(batch.whole.job.name.as_str());
            let told: BTreeMap<String, Vec<(String, Status)>> = views
                .iter()
                .filter(free)
                .map(|batch| {
                    let jobs = batch.jobs.iter().map(|view| &view.record.job);
                    let jobs = jobs.map(|job| (job.name.to_string(), job.status));
                    (batch.whole.job.name.to_string(), jobs.collect())
                })
                .collect();
            let complete = there
                .iter()
                .filter(|job| job.annotations.contains_key(COMPLETE) && job.deletion.is_none());
            let held: BTreeSet<String> = complete.map(|job| job.name.clone()).collect();
            if told.keys().cloned().collect::<BTreeSet<_>>() != held {
                let what = format!("process {number} tells of {told:?}, there is {held:?}");
                return self.violate("batch", what);
            }
            let told = told.values().flatten();
            let mut told = told.filter(|(name, _)| !guarded.contains(name));
            let wrong = told.find(|(name, status)| {
                let job = self.world.jobs.get(name);
                let is_stopped = |job: &Job| job.annotations.contains_key(STOPPED) && job.suspend;
                !job.is_some_and(|job| match status {
                    Status::Succeeded => job.status.met("Complete"),
                    Status::Failed => job.status.met("Failed"),
                    Status::Stopped | Status::Stopping => is_stopped(job),
                    Status::Waiting => job.suspend,
                    Status::Running => !job.suspend,
                })
            });
            if let Some((name, status)) = wrong {
                let what = format!("process {number} tells that {name} is {status}");
                return self.violate("batch", what);
            }
        }
    }
}

impl BatchClient {
    /// Whether the process that refused it has ended since, with what it was to discard.
    fn process_ended(&self, sim: &Sim) -> bool {
        !sim.processes[self.process].alive
    }
}
