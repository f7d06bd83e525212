//! What must hold: after each step, and when all has come to rest.

use crate::client::{Given, Outcome};
use crate::cluster::has_noticed_suspension;
use crate::sim::Sim;
use crate::step::Kind;
use crate::world::{HIDDEN, Life, Pod, Who, left_by, uid_text};
use job_scheduler::job::{AttemptState, JobName, JobRecord, Status};
use job_scheduler::scheduler::{JobError, JobView};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;

const SECOND: u64 = 1_000_000;
const MINUTE: u64 = 60 * SECOND;
/// How long a key stands for a job that has ended.
const PROMISE: u64 = 15 * MINUTE;
/// A clock may be wrong by a minute when the end is noted, and another when it is looked.
const VAGUE_PROMISE: u64 = 13 * MINUTE;

impl Sim {
    /// Whether somebody refuses to have the Job of this name changed.
    pub fn is_guarded(&self, name: &str) -> bool {
        self.world.guarded.iter().any(|guarded| guarded == name)
    }

    /// Whether somebody refuses to have the batch changed that the job is of, and that is not
    /// complete.
    fn has_guarded_batch(&self, job: &str) -> bool {
        let jobs = &self.world.jobs;
        let owner = jobs.get(job).and_then(|job| job.owner);
        let batch = jobs.values().find(|whole| Some(whole.uid) == owner);
        batch.is_some_and(|batch| {
            self.is_guarded(&batch.name)
                && !batch.annotations.contains_key(crate::batches::COMPLETE)
        })
    }

    fn life(&self, uid: &str) -> Option<&Life> {
        let uid = uid.strip_prefix("uid-")?.parse().ok()?;
        self.world.lives.get(&uid)
    }

    fn deleted_by_owner(&self, life: &Life) -> bool {
        let asked = self.requested_deletes.contains(&uid_text(life.uid));
        asked || matches!(life.gone, Some((_, Who::Kubectl)))
    }

    /// Whether the owner deleted this job, or one that had its name before: a create that was not
    /// answered brought it back.
    fn name_was_deleted(&self, life: &Life) -> bool {
        let mut lives = self.world.lives.values();
        lives.any(|other| other.name == life.name && self.deleted_by_owner(other))
    }

    pub fn promise(&self) -> u64 {
        match self.options.skew {
            true => VAGUE_PROMISE,
            false => PROMISE,
        }
    }

    /// Whether the key of a job still stands for it.
    fn promise_holds(&self, life: &Life) -> bool {
        let over = life
            .first_end()
            .is_some_and(|end| self.time() > end + self.promise());
        !self.deleted_by_owner(life) && !over
    }

    /// Nobody is told of a job that had gone before it was asked for, and of which that was known.
    pub fn check_is_there(&mut self, number: usize, name: &str, uid: &str) {
        let gone = self.life(uid).and_then(|life| life.gone);
        let request = &self.requests[number];
        if request.knew_all && gone.is_some_and(|(gone, _)| gone < request.at) {
            let what = format!("request {number} is told of {name}, which had gone before");
            self.violate("ghost", what);
        }
    }

    /// A client is told of a job: it must be there.
    pub fn check_acknowledged(&mut self, name: &str, uid: &str, client: Option<usize>) {
        let Some(life) = self.life(uid).cloned() else {
            return self.violate("acknowledged", format!("{name} never was"));
        };
        // The other scheduler may be discarding what its client was told has failed.
        // So may it what can be half of a submit, since a person took its payload.
        let is_robbed = self.options.two && self.world.robbed.iter().any(|one| one == name);
        let is_excused = self.deleted_by_owner(&life) || is_robbed;
        if life.gone.is_some() && !is_excused && life.end().is_none() {
            return self.violate("acknowledged", format!("{name} is gone already"));
        }
        let Some(client) = client else {
            return;
        };
        let there = self.world.jobs.get(name).filter(|job| job.uid == life.uid);
        let Some(job) = there else {
            return;
        };
        let payload = self.clients[client].payload.clone();
        if payload.is_some() != job.mounts.is_some() {
            return self.violate("payload", format!("{name} was made with another's payload"));
        }
        let Some(payload) = payload else {
            return;
        };
        let robbed = self.world.robbed.iter().any(|one| one == name);
        match self.world.secrets.get(name) {
            // The owner deleted the job that had its name before. Its pod has that one's payload,
            // or is stopped once that is collected.
            Some(secret) if secret.owner != life.uid && !self.name_was_deleted(&life) => {
                self.violate("payload", format!("{name}: its Secret belongs to another"));
            }
            Some(secret)
                if secret.data.get("payload").map(Vec::as_slice) != Some(payload.as_bytes()) =>
            {
                self.violate("payload", format!("{name}: its payload is another"));
            }
            // It began with that of the job that had its name before, which the owner deleted.
            None if self.name_was_deleted(&life)
                && life.saw.as_deref() == Some(payload.as_bytes()) => {}
            None if !robbed && life.end().is_none() => {
                let what = format!("{name} is acknowledged, and its payload is nowhere");
                self.violate("payload", what);
            }
            _ => {}
        }
    }

    /// A job that does another again has its payload, whoever else deletes that one.
    pub fn check_payload_of(&mut self, name: &str, uid: &str) {
        let job = self.world.jobs.get(name);
        let Some(job) = job.filter(|job| uid_text(job.uid) == uid) else {
            return;
        };
        let Some(secret) = job.mounts.clone() else {
            return;
        };
        let mut lives = self.world.lives.values();
        let by_a_person =
            lives.any(|life| life.name == secret && matches!(life.gone, Some((_, Who::Kubectl))));
        let is_robbed = by_a_person || self.world.robbed.contains(&secret);
        // Two schedulers do not know what the other pins.
        let is_lost = !self.options.two && !self.world.secrets.contains_key(&secret);
        // It goes as well, with its batch.
        let is_left = job
            .owner
            .is_some_and(|owner| self.world.job_of(owner).is_none());
        if !is_robbed && is_lost && !is_left {
            self.violate("payload", format!("{name} runs again without its payload"));
        }
    }

    /// A client is given another job for its key than before.
    pub fn check_same_key(&mut self, client: usize, before: &Given, now: &str) {
        let holds = self.life(&before.uid).is_some_and(|life| {
            self.promise_holds(life) && !self.world.robbed.contains(&life.name)
        });
        if holds {
            let what = format!("client {client} was given {}, and now {now}", before.name);
            self.violate("key", what);
        }
    }

    /// Whoever is turned away with so many jobs for their number is so rightly, and nobody is let
    /// in beyond it.
    pub fn check_bounds(&mut self, process: usize, outcome: &Outcome, size: usize, number: usize) {
        let Ok(views) = self.processes[process].scheduler.list() else {
            return;
        };
        let count = |wanted: fn(&Status) -> bool| {
            let statuses = views.iter().map(|view| view.record.job.status);
            statuses.filter(wanted).count()
        };
        let unfinished = count(|status| !status.is_finished());
        let waiting = count(|status| *status == Status::Waiting);
        let (most, longest) = (self.options.max_jobs, self.options.max_waiting);
        match outcome {
            Outcome::Full => {
                // One that somebody suspended may have ended meanwhile, or its pod, and this
                // process not know; or the job controller has not noticed, and may make a pod.
                let is_behind = !self.is_caught_up(process);
                let knows_pods = self.has_read(process, crate::sim::What::WatchPods);
                let hidden = self.world.jobs.values().filter(|job| {
                    let is_unnoticed = job.suspend && !job.status.met("Suspended");
                    let may_go_on = is_behind || !knows_pods || is_unnoticed;
                    let may_go_on = job.touched && may_go_on;
                    let hidden = job.annotations.contains_key(HIDDEN);
                    hidden && (may_go_on || !self.status_of(job).is_finished())
                });
                // One that is being made or let in holds a place beside its own.
                let asks = |thread: &&crate::sim::Thread| {
                    use crate::sim::What::{Request, Work};
                    thread.process == process && matches!(thread.what, Request(_) | Work)
                };
                let asked = self.threads.iter().filter(asks).count();
                // Where a batch is restarted, one of its jobs may have been turned away some calls
                // ago.
                let request = &self.requests[number];
                let is_restart = request.kind == Kind::Batch && size == 1;
                let others = self.requests.iter().enumerate();
                let others = others.filter(|(at, _)| is_restart && *at != number);
                let others = others.filter(|(_, other)| other.answered >= Some(request.at));
                let asked = asked + others.count();
                let places = asked + hidden.count() + self.places_of_batches(process);
                let is_full = unfinished + places + size > most;
                let is_long = self.options.cap > 0 && waiting + places + size > longest;
                // What is left of a batch until it is collected counts, and nobody sees it.
                let may_be_left = is_behind && !self.batches.is_empty();
                if !is_full && !is_long && !may_be_left {
                    let what = format!("{unfinished} of {most} jobs, {waiting} of {longest} wait");
                    self.violate("full", format!("refused with {what}"));
                }
            }
            Outcome::Job { .. } if self.processes.len() == 1 => {
                // A person or a restart may bring one back that had ended, and one may come late of
                // which nobody was told.
                let took_its_place = |view: &&JobView| {
                    let uid = &*view.record.job.uid;
                    let life = self.life(uid).filter(|life| !life.touched);
                    let life = life.filter(|life| life.restart_of.is_none());
                    let client = life.and_then(|life| self.clients.get(life.client?));
                    !self.requested_restarts.contains(uid)
                        && client.is_some_and(|client| !client.was_in_doubt)
                };
                let sure = views.iter().filter(took_its_place);
                let statuses = sure.map(|view| view.record.job.status);
                let unfinished = statuses.clone().filter(|status| !status.is_finished());
                let waiting = statuses.filter(|status| *status == Status::Waiting);
                let (unfinished, waiting) = (unfinished.count(), waiting.count());
                let is_long = self.options.cap > 0 && waiting > longest;
                if unfinished > most || is_long {
                    let what = format!("{unfinished} of {most} jobs, {waiting} of {longest} wait");
                    self.violate("full", format!("let in with {what}"));
                }
            }
            _ => {}
        }
    }

    /// Who is told that a job was stopped or deleted, or cannot be stopped, is told the truth.
    pub fn check_done(&mut self, kind: Kind, uid: &str, outcome: &Outcome) {
        let Some(life) = self.life(uid) else {
            return;
        };
        // Somebody else may have let it run again at this moment.
        let again = life.touched || self.requested_restarts.contains(uid);
        let is_out = life.gone.is_some() || life.hidden.is_some();
        let wrong = match (kind, outcome) {
            (Kind::Delete, Outcome::Done) => !is_out,
            (Kind::Stop, Outcome::Done) => {
                !is_out && !life.stopped && life.end().is_none() && !again
            }
            (Kind::Stop, Outcome::Refused(message)) => {
                let is_state = message.contains("only an unfinished job");
                is_state && !is_out && life.end().is_none() && !again
            }
            _ => false,
        };
        if wrong {
            let what = format!("{kind:?} of {} is answered {outcome:?}", life.name);
            self.violate("told", what);
        }
    }

    /// A job may say ten times a second how far it is, and ten times at once.
    pub fn check_rate(&mut self, process: usize, name: &str, done: &Result<JobName, JobError>) {
        let now = self.time();
        let taken = &mut self.processes[process].reports_taken;
        let taken = taken.entry(name.to_string()).or_default();
        let within = |taken: &[u64], time: u64| {
            let since = now.saturating_sub(time);
            taken.iter().filter(|at| **at >= since).count()
        };
        let wrong = match done {
            Ok(_) => {
                taken.push(now);
                within(taken, 50_000) > 10 || within(taken, SECOND) > 20
            }
            Err(JobError::TooOften { .. }) => within(taken, SECOND) < 10,
            Err(_) => false,
        };
        if wrong {
            let what = format!("{name} says how far it is at {taken:?}, then {done:?}");
            self.violate("rate", what);
        }
    }

    /// The scheduler stops a job of its own accord where its payload is gone, and there alone.
    pub fn check_stops(&mut self) {
        if let Some(name) = self.world.stopped_with_payload.pop() {
            self.violate("stopped", format!("{name} is stopped, and has its payload"));
        }
    }

    /// A request with a key is kept waiting after a start, before it is told to come again.
    pub fn check_patience(&mut self, number: usize, outcome: &Outcome) {
        let waited = self.time() - self.requests[number].at;
        if let Outcome::Failed(message) = outcome
            && message.starts_with("starting, and")
            && waited < 2 * SECOND
        {
            let what = format!("request {number} is told {message:?} after {waited} µs");
            self.violate("patience", what);
        }
    }

    /// A job is let run at once where nothing else runs, nor has for a while, nor is asked for. In
    /// random histories what ran long ago may not be known to have ended.
    pub fn check_room(&mut self, number: usize, process: usize, outcome: &Outcome) {
        let Outcome::Job { name, status, .. } = outcome else {
            return;
        };
        let now = self.time();
        let is_past = |at: Option<u64>| at.is_some_and(|at| at + 30 * SECOND < now);
        let others = self.world.lives.values().filter(|life| life.name != *name);
        let are_past = others.into_iter().all(|life| {
            let gone = life.gone.map(|(at, _)| at);
            is_past(gone) || (is_past(life.last_end()) && life.outcome.is_some() && !life.touched)
        });
        let asks = |thread: &crate::sim::Thread| {
            use crate::sim::What::{Request, Work};
            thread.process == process && matches!(thread.what, Request(_) | Work)
        };
        let touched = |life: &Life| life.name == *name && life.touched;
        let asked = self
            .requests
            .iter()
            .filter(|other| !is_past(Some(other.at)));
        let is_sure = self.watch_writes
            && are_past
            && self.requests[number].is_alone
            && asked.count() == 1
            && !self.world.lives.values().any(touched)
            && self.processes.len() == 1
            && is_past(Some(self.processes[process].since))
            && !self.threads.iter().any(asks)
            && self.late.is_empty()
            && self.clients.iter().all(|client| !client.was_in_doubt)
            && !self.world.pods.values().any(Pod::may_run);
        if is_sure && *status == Status::Waiting {
            self.violate("room", format!("{name} waits, and nothing else runs"));
        }
    }

    /// Who waits for a job that fails is told why, or after a second without.
    pub fn check_reason(&mut self, record: &JobRecord) {
        // One that was stopped is told of then, as it is by now if somebody resumed it meanwhile.
        let life = self.life(&record.job.uid);
        let life = life.filter(|life| !(life.touched && life.stopped_at.is_some()));
        let ended = life.and_then(Life::last_end);
        let is_known = record
            .attempts
            .iter()
            .any(|attempt| attempt.state == AttemptState::Failed);
        let is_soon = ended.is_some_and(|ended| self.time() < ended + SECOND);
        if record.job.status == Status::Failed && !is_known && is_soon {
            let what = format!("{} is told to have failed, at once", record.job.name);
            self.violate("reason", what);
        }
    }

    /// Whoever waits for a job is answered as soon as its container has ended.
    pub fn check_early(&mut self) {
        let waits = |process: &&crate::sim::Process| process.alive && !process.waiters.is_empty();
        if let Some(process) = self.processes.iter().find(waits) {
            let what = format!("{:?} wait, and the container has ended", process.waiters);
            self.violate("early", what);
        }
    }

    /// Places in the queue are counted from 1, and the list is by arrival.
    fn check_places(&mut self, number: usize, views: &[JobView]) {
        let job = |view: &JobView| view.record.job.clone();
        let order: Vec<_> = views
            .iter()
            .map(|view| (job(view).arrival, job(view).name))
            .collect();
        if !order.is_sorted() {
            return self.violate("places", format!("the list is {order:?}"));
        }
        self.check_arrivals(views);
        let queued = |view: &&JobView| view.record.job.queued.is_some();
        let scheduler = &self.processes[number].scheduler;
        let batches = scheduler.batches().ok();
        let of_batches = batches.iter().flatten().flat_map(|batch| &batch.jobs);
        let mut queue: Vec<_> = views.iter().chain(of_batches).filter(queued).collect();
        // One that was done again, and that a person had wait, has its place.
        let overtaken: Vec<JobView> = self
            .world
            .jobs
            .keys()
            .filter(|name| {
                queue
                    .iter()
                    .all(|view| view.record.job.name.as_str() != *name)
            })
            .filter_map(|name| scheduler.get(name).ok())
            .filter(|view| view.record.job.batch_of().is_some())
            .collect();
        queue.extend(overtaken.iter().filter(queued));
        queue.sort_by_key(|view| (view.record.job.queued, view.record.job.name.clone()));
        let wrong = queue.iter().zip(1..).find(|(view, place)| {
            let alone = scheduler.get(view.record.job.name.as_str()).ok();
            let is_wrong = alone.is_some_and(|one| one.position != Some(*place));
            view.position != Some(*place) || is_wrong
        });
        if let Some((view, place)) = wrong {
            let (name, told) = (&view.record.job.name, view.position);
            self.violate("places", format!("{name} is told {told:?}, and is {place}"));
        }
    }

    /// A job that was asked for after another was made comes after it.
    fn check_arrivals(&mut self, views: &[JobView]) {
        // A clock may be wrong, or another scheduler's.
        if self.options.skew || self.options.two {
            return;
        }
        let mut made = 0;
        let mut wrong = None;
        for view in views {
            let job = &view.record.job;
            let Some(life) = self.life(&job.uid).filter(|l| l.restart_of.is_none()) else {
                continue;
            };
            let asked = life.client.map(|client| self.clients[client].since);
            // It was there before one that is listed before it was asked for.
            if life.created < made {
                wrong = Some(format!("{} is listed after what came later", job.name));
            }
            made = made.max(asked.unwrap_or(0));
        }
        if let Some(what) = wrong {
            self.violate("places", what);
        }
    }

    /// What was deleted since it was last looked.
    pub fn check_deletions(&mut self) {
        let history = self.options.history;
        let is_behind = || {
            self.alive()
                .iter()
                .any(|number| !self.is_caught_up(*number))
        };
        let (mut wrong, mut checked) = (None, Vec::new());
        for life in self.world.lives.values() {
            let is_now = matches!(life.gone, Some((at, Who::Scheduler)) if at == self.world.now);
            // Once: a person may change at this very moment what is on its way out.
            if !is_now || self.checked_deletions.contains(&life.uid) {
                continue;
            }
            checked.push(life.uid);
            let uid = uid_text(life.uid);
            if life.batch.is_some() {
                // Which are kept: see `check_batches`.
                if self.is_wrongly_gone_of_batch(life) {
                    wrong = Some(format!("{} is deleted, and had not ended", life.name));
                }
                continue;
            }
            let acknowledged = self
                .clients
                .iter()
                .any(|client| client.names.iter().any(|given| given.uid == uid));
            // When a job was stopped is told by a clock that may be wrong.
            let is_vague = life.end() == Some("Stopped") && self.options.skew;
            // Two schedulers do not know what the other still makes under a name that is deleted.
            let asked = self.requested_deletes.contains(&uid)
                || (self.options.two && self.name_was_deleted(life));
            if !acknowledged || asked || is_vague || life.hidden.is_some() {
                continue;
            }
            // One that was just restarted was told of as Stopped before.
            let is_stopping = |other: &Life| {
                other.end().is_none() && (other.stopped || other.stopped_at.is_some())
            };
            // It was deleted before its container ended, of which its pod tells first.
            let ended_in_doubt = |other: &Life| other.exited.filter(|_| other.gone.is_some());
            // It was restarted after this deletion had been sent, or by a person, of which the
            // watch had not told yet.
            let ended_before = |other: &Life| {
                let is_late = |at: u64| at >= life.asked_to_go || (other.touched && is_behind());
                let ended = other.ended_before.filter(|(_, at)| is_late(*at));
                ended.map(|(end, _)| end)
            };
            let others = self.world.lives.values();
            let later = others
                .filter(|other| other.batch.is_none())
                .filter(|other| {
                    let end = other.last_end().or(ended_before(other));
                    let end = end.or(other.stopped_at.filter(|_| is_stopping(other)));
                    let end = end.or(ended_in_doubt(other));
                    let first = life.first_end();
                    other.uid != life.uid && end.is_some_and(|end| Some(end + 2_000_000) >= first)
                });
            // A person may since have let one run that was told to have stopped.
            let is_alike = |other: &&Life| match life.end() {
                // The other scheduler stopped it after its container's end had been told.
                _ if self.options.two && self.may_be_contradicted(other) => true,
                _ if other.end().is_none() && ended_in_doubt(other).is_some() => true,
                Some("Stopped") if other.touched || ended_before(other).is_some() => true,
                Some("Stopped") => is_stopping(other) || other.end() == life.end(),
                outcome => other.end() == outcome,
            };
            let later: Vec<&str> = later.filter(is_alike).map(|l| l.name.as_str()).collect();
            let robbed = self.world.robbed.contains(&life.name);
            if life.end().is_none() && !robbed {
                wrong = Some(format!("{} is deleted, and had not ended", life.name));
            } else if later.len() < history && life.end().is_some() && !robbed {
                let (name, end) = (&life.name, life.end().unwrap_or_default());
                wrong = Some(format!(
                    "{name} is deleted, and is among the latest {end}: later {later:?}"
                ));
            }
        }
        self.checked_deletions.extend(checked);
        if let Some(what) = wrong {
            self.violate("kept", what);
        }
    }

    /// Pods have changed: how many may run, and what those that began did.
    pub fn check_pods(&mut self) {
        let cap = self.options.cap;
        let pods = self.world.pods.values();
        let running = pods.filter(|pod| pod.may_run() && !pod.excused);
        // A name has more than one where somebody deleted its job while it was being made.
        let jobs: BTreeSet<&str> = running.clone().map(|pod| pod.job.as_str()).collect();
        if cap > 0 && !self.options.two && jobs.len() > cap {
            let names: Vec<&str> = running.map(|pod| pod.name.as_str()).collect();
            let what = format!("{} may run, and no more than {cap} may", names.join(", "));
            self.violate("cap", what);
        }
        self.check_attempts();
        self.check_keys();
    }

    fn check_attempts(&mut self) {
        let mut owners = BTreeSet::new();
        let live = self
            .world
            .pods
            .values()
            .filter(|pod| pod.may_run() && pod.deletion.is_none());
        let twice = live
            .filter(|pod| !owners.insert(pod.owner))
            .map(|pod| pod.name.clone());
        if let Some(name) = twice.last() {
            panic!("the model runs two pods of one job at a time: {name}");
        }
        let mut wrong = None;
        for life in self
            .world
            .lives
            .values()
            .filter(|life| life.ran.is_some() && life.mounted)
        {
            let client = life.client;
            let payload = client.and_then(|client| self.clients[client].payload.clone());
            let payload = payload.or(crate::batches::payload_of(life));
            if payload.as_ref().map(|p| p.as_bytes()) != life.saw.as_deref() {
                wrong = Some(format!("{} ran with another payload", life.name));
            }
        }
        if let Some(what) = wrong {
            self.violate("payload", what);
        }
    }

    fn check_keys(&mut self) {
        let mut ran: BTreeMap<&str, Vec<&Life>> = BTreeMap::new();
        for life in self.world.lives.values().filter(|life| life.ran.is_some()) {
            if let Some(key) = &life.key {
                ran.entry(key).or_default().push(life);
            }
        }
        let mut wrong = None;
        for lives in ran.values().filter(|lives| lives.len() > 1) {
            for pair in lives.windows(2) {
                let (first, second) = (pair[0], pair[1]);
                let began = second.ran.max(first.ran).unwrap_or(0);
                let over = first
                    .first_end()
                    .is_some_and(|end| second.created > end + self.promise());
                let ended_by_owner = |life: &Life| {
                    self.name_was_deleted(life) || self.world.robbed.contains(&life.name)
                };
                if !over && !ended_by_owner(first) && !ended_by_owner(second) {
                    wrong = Some(format!(
                        "{} and {} ran for one key, the second at {:.3}",
                        first.name,
                        second.name,
                        began as f64 / 1e6
                    ));
                }
            }
        }
        if let Some(what) = wrong {
            self.violate("once", what);
        }
    }

    /// What a process tells of its jobs, against what it told before.
    pub fn observe(&mut self, number: usize) {
        if !self.processes[number].alive || self.violation.is_some() {
            return;
        }
        let scheduler = self.processes[number].scheduler.clone();
        let last = scheduler.follower().map(|follower| follower.last_change());
        if last == self.processes[number].observed {
            return;
        }
        let Ok(views) = scheduler.list() else {
            return;
        };
        self.processes[number].observed = last;
        if self.processes[number].listed != [true; 2] {
            let what = format!("process {number} tells of jobs before it has listed them");
            return self.violate("ready", what);
        }
        let before = &self.processes[number].told;
        let is_known = |view: &JobView| {
            let job = &view.record.job;
            before.get(&*job.uid) == Some(&job.status)
        };
        if views.len() == before.len() && views.iter().all(is_known) {
            return;
        }
        let mut told = BTreeMap::new();
        for view in &views {
            let job = &view.record.job;
            told.insert(job.uid.to_string(), (job.status, job.name.clone()));
        }
        let mut wrong = None;
        for attempt in views.iter().flat_map(|view| &view.record.attempts) {
            let left = attempt.result.as_ref().map(|result| &*result.text);
            let expected = attempt.exit_code.map(|_| left_by(&attempt.name));
            if left != expected.as_deref() || attempt.message.contains("left by") {
                let what = format!("{}: {left:?}, {}", attempt.name, attempt.message);
                wrong = Some(("result", what));
            }
        }
        for (uid, (status, name)) in &told {
            let from = self.processes[number].told.get(uid).copied();
            if let Some(from) = from.filter(|from| from != status)
                && !self.may_follow(uid, from, *status)
            {
                wrong = Some(("order", format!("{name} went from {from} to {status}")));
            }
            let is_back = self.processes[number].gone.contains(uid);
            if is_back && !self.is_guarded(name.as_str()) {
                let what = format!("{name} is told of again after it was gone");
                wrong = Some(("back", what));
            }
        }
        if told.len() % 2 == 1 {
            self.read_changes(number, 2);
        }
        let process = &mut self.processes[number];
        let before = std::mem::take(&mut process.told);
        process.told = told
            .iter()
            .map(|(uid, (status, _))| (uid.clone(), *status))
            .collect();
        let gone = before.into_keys().filter(|uid| !told.contains_key(uid));
        process.gone.extend(gone);
        if let Some((check, what)) = wrong {
            self.violate(check, what);
        }
    }

    /// Whether a job that was told to be in one status can be in another, with what happened
    /// between that nobody saw.
    fn may_follow(&self, uid: &str, from: Status, to: Status) -> bool {
        use Status::{Failed, Running, Stopped, Stopping, Succeeded, Waiting};
        let Some(life) = self.life(uid) else {
            return false;
        };
        let again = self.requested_restarts.contains(uid);
        match (from, to) {
            // Somebody held it back between the end of its container and its condition.
            (Succeeded | Failed, _) => self.may_be_contradicted(life),
            _ if life.touched || again => true,
            (Waiting, _) => true,
            (Running, Waiting) => false,
            (Running, _) => true,
            (Stopping, Running | Waiting) => false,
            (Stopping, _) => true,
            (Stopped, _) => false,
        }
    }

    /// All has come to rest while jobs still run.
    pub fn check_running(&mut self) {
        self.check_index();
        self.check_notices();
        if self.options.ports && !self.world.service_quota {
            let world = &self.world;
            let without = world.pods.values().filter(|pod: &&Pod| {
                let job = world.jobs.get(&pod.job).filter(|job| job.uid == pod.owner);
                let runs = |job: &&crate::world::Job| {
                    !job.suspend
                        && !job.status.is_finished()
                        && job.deletion.is_none()
                        && !job.annotations.contains_key(HIDDEN)
                        && !world.lives.get(&job.uid).is_some_and(|life| life.touched)
                        // What is left of one that had its name may be in the way.
                        && !world
                            .lives
                            .get(&job.uid)
                            .is_some_and(|life| self.name_was_deleted(life))
                        // It may be on its way out for as long.
                        && !self.is_guarded(&job.name)
                };
                job.filter(runs).is_some()
                    && pod.phase == crate::world::Phase::Running
                    && pod.deletion.is_none()
                    && world.services.get(&pod.job) != Some(&pod.owner)
            });
            let name = without.map(|pod| pod.job.clone()).next();
            if let Some(name) = name {
                self.violate("service", format!("{name} runs without its Service"));
            }
        }
    }

    /// Of a job whose Service is refused its user is told so, and of one that has it, not.
    fn check_notices(&mut self) {
        if !self.options.ports {
            return;
        }
        for number in self.alive() {
            let Ok(views) = self.processes[number].scheduler.list() else {
                continue;
            };
            let wrong = views.iter().find(|view| {
                let JobRecord { job, notice, .. } = &*view.record;
                let owner = self.world.services.get(job.name.as_str());
                let is_reached = owner.is_some_and(|uid| uid_text(*uid) == *job.uid);
                let is_told = notice.contains("not reachable by its name");
                // The quota answers before it is seen that there is one already.
                let is_right = match self.world.service_quota {
                    true => is_told || is_reached,
                    false => !is_told,
                };
                job.status == Status::Running && !is_right
            });
            if let Some(view) = wrong {
                let (name, said) = (&view.record.job.name, &view.record.notice);
                self.violate("notice", format!("of {name} is said {said:?}"));
            }
        }
    }

    /// The index shows what the cluster holds.
    pub fn check_index(&mut self) {
        for number in self.alive() {
            let scheduler = self.processes[number].scheduler.clone();
            let Ok(views) = scheduler.list() else {
                return self.violate("ready", format!("process {number} is not ready"));
            };
            let mut listed = BTreeMap::new();
            for view in &views {
                let job = &view.record.job;
                listed.insert(job.name.to_string(), (job.uid.to_string(), job.status));
            }
            let mut held = BTreeMap::new();
            for job in self.world.jobs.values() {
                let is_single = !job.is_managed && job.owner.is_none();
                let is_there = job.deletion.is_none() && !job.annotations.contains_key(HIDDEN);
                if is_there && is_single {
                    held.insert(job.name.clone(), (uid_text(job.uid), self.status_of(job)));
                }
            }
            let free = |name: &String| !self.is_guarded(name);
            listed.retain(|name, _| free(name));
            held.retain(|name, _| free(name));
            // Times are in seconds: within one, somebody held it back and let it run again.
            for (name, (uid, status)) in &mut held {
                let is_touched = self.life(uid).is_some_and(|life| life.touched);
                let told = listed.get(name).map(|(_, told)| *told);
                let is_end = matches!(told, Some(Status::Succeeded | Status::Failed));
                if is_touched && is_end && *status == Status::Running {
                    *status = told.unwrap_or(*status);
                }
            }
            if listed != held {
                let what = format!("process {number} lists {listed:?}, the cluster holds {held:?}");
                return self.violate("index", what);
            }
            for (name, (_, status)) in &listed {
                let view = scheduler.get(name);
                if view.is_err() || view.is_ok_and(|view| view.record.job.status != *status) {
                    return self.violate("index", format!("{name} is listed and not to be had"));
                }
            }
            self.check_exit_codes(&views);
            self.check_places(number, &views);
            self.check_progress(&views);
            self.check_waiters(number);
            self.check_reader(number);
        }
    }

    fn check_exit_codes(&mut self, views: &[JobView]) {
        let mut wrong = None;
        for view in views {
            for attempt in &view.record.attempts {
                let Some(pod) = self.world.pods.get(&*attempt.name) else {
                    continue;
                };
                if let crate::world::Container::Ended { code, .. } = pod.container
                    && attempt.exit_code != Some(code)
                {
                    let said = attempt.exit_code;
                    wrong = Some(format!("{} ended with {code}, told is {said:?}", pod.name));
                }
            }
        }
        if let Some(what) = wrong {
            self.violate("exit-code", what);
        }
    }

    /// The status of a job at rest.
    pub fn status_of(&self, job: &crate::world::Job) -> Status {
        let stopped = job.annotations.contains_key(crate::world::STOPPED);
        let has_pods = self.world.pods_of(job.uid).any(Pod::may_run);
        match (
            job.status.met("Complete"),
            job.status.met("Failed"),
            job.suspend,
        ) {
            (true, ..) => Status::Succeeded,
            (_, true, _) => Status::Failed,
            (.., true) if stopped && has_pods => Status::Stopping,
            (.., true) if stopped => Status::Stopped,
            (.., true) => Status::Waiting,
            _ => Status::Running,
        }
    }

    /// How far a job is, is of this very run of it, and the cluster has what a process was told.
    fn check_progress(&mut self, views: &[JobView]) {
        for view in views {
            let record = &view.record;
            let (name, told) = (record.job.name.to_string(), record.progress.clone());
            let Some(message) = told.map(|progress| progress.message.clone()) else {
                continue;
            };
            let run = (record.job.uid.to_string(), record.job.rare.restarted);
            if self.reports.get(&*message) != Some(&run) {
                let what = format!("{name} has {message:?}, which was said of another run");
                return self.violate("progress", what);
            }
            // Nor can it be changed where somebody refuses that.
            let held = self.world.jobs.get(&name);
            let held = held.and_then(|job| job.annotations.get("job-scheduler/progress"));
            let is_kept = held.is_some_and(|held| held.ends_with(&*message));
            if !is_kept && !self.is_guarded(&name) {
                let what = format!("{name} has {message:?}, and its Job {held:?}");
                return self.violate("progress", what);
            }
        }
    }

    fn check_waiters(&mut self, number: usize) {
        let process = &self.processes[number];
        let left = process.waiters.iter().find(|(job, _)| {
            let view = process.scheduler.get(job.as_str());
            view.map_or(true, |view| view.record.job.status.is_finished())
        });
        if let Some((job, request)) = left.cloned() {
            self.violate(
                "waiter",
                format!("request {request} waits for {job} for ever"),
            );
        }
    }

    /// All has come to rest, and no job runs any more.
    pub fn check_end(&mut self) {
        self.check_index();
        self.check_pending();
        self.check_clients();
        self.check_leftovers();
        self.check_batches();
        self.check_contradictions();
        if !self.options.two {
            self.check_retention();
        }
    }

    fn check_pending(&mut self) {
        // It has a place in the cap for as long.
        let blocks = |job: &crate::world::Job| {
            let is_over = self.status_of(job).is_finished();
            // Nor can it be noted that it has stopped, where the controller did not notice.
            let is_noted = self.status_of(job) != Status::Stopped || has_noticed_suspension(job);
            let stays = self.is_guarded(&job.name) && !(is_over && is_noted);
            stays || self.cannot_be_verified(job)
        };
        let is_blocked = self.options.cap > 0 && self.world.jobs.values().any(blocks);
        let unfinished = self.world.jobs.values().find(|job| {
            let status = self.status_of(job);
            let is_held_up = is_blocked && status == Status::Waiting;
            let is_unfinished = !status.is_finished() && !is_held_up;
            // What is kept from being deleted keeps its jobs.
            let whole = job.owner.and_then(|owner| self.world.job_of(owner));
            is_unfinished
                && !job.is_managed
                && !whole.is_some_and(|whole| self.is_guarded(&whole.name))
                && job.deletion.is_none()
                && !self.cannot_be_verified(job)
                && !self.is_guarded(&job.name)
        });
        if let Some(job) = unfinished {
            let status = self.status_of(job);
            let pods: Vec<&str> = self
                .world
                .pods_of(job.uid)
                .map(|pod| pod.name.as_str())
                .collect();
            let what = format!(
                "{} is {status} for ever: suspended {}, pods {pods:?}, annotations {:?}",
                job.name, job.suspend, job.annotations
            );
            self.violate("pending", what);
        }
        let request = self.threads.iter().find_map(|thread| match thread.what {
            crate::sim::What::Request(number) => Some(number),
            _ => None,
        });
        if let Some(number) = request {
            self.violate("pending", format!("request {number} is never answered"));
        }
    }

    /// Whether nobody can tell if the payload of a job is there: the quota answers before all else,
    /// for good.
    fn cannot_be_verified(&self, job: &crate::world::Job) -> bool {
        let life = self.world.lives.get(&job.uid);
        let cut_off = life.is_some_and(|life| {
            let Some(client) = life.client.map(|client| &self.clients[client]) else {
                return false;
            };
            match client.last {
                // One with a key is sent again, and meets the same.
                None => true,
                Some(Outcome::Failed(_)) => client.key.is_some() || client.ended_since,
                // It was to be discarded by a process that ended.
                Some(Outcome::Refused(_)) => client.ended_since,
                // A create that was not answered brought it back, and who knew of that has ended.
                Some(Outcome::Job { .. }) => client.ended_since && self.name_was_deleted(life),
                _ => false,
            }
        });
        self.world.secret_quota && cut_off
    }

    /// Whether nobody can tell if a job is half of a submit: the process that knew has ended, no
    /// pod shows that it ran, and the quota answers before all else.
    fn is_half_for_all_that_is_known(&self, life: &Life) -> bool {
        let has_ended = |number: usize| self.clients[number].ended_since;
        let has_pods = self.world.pods_of(life.uid).next().is_some();
        let is_unknown =
            life.mounted && (life.ran.is_none() || !has_pods) && life.client.is_some_and(has_ended);
        let job = self.world.job_of(life.uid);
        let is_cut_off = job.is_some_and(|job| self.cannot_be_verified(job));
        is_cut_off || (self.world.secret_quota && is_unknown)
    }

    fn check_clients(&mut self) {
        for number in 0..self.clients.len() {
            let client = &self.clients[number];
            let uids: BTreeSet<&str> = client.names.iter().map(|g| g.uid.as_str()).collect();
            let lives = self.world.lives.values();
            let own = lives.filter(|life| life.client == Some(number) && life.restart_of.is_none());
            let left = own.filter(|life| {
                life.gone.is_none()
                    && life.hidden.is_none()
                    && !self.is_guarded(&life.name)
                    && !uids.contains(&*uid_text(life.uid))
            });
            let left = left.filter(|life| {
                let job = self.world.job_of(life.uid);
                !job.is_some_and(|job| self.cannot_be_verified(job))
            });
            let left: Vec<&Life> = left.collect();
            let Some(life) = left.first() else {
                continue;
            };
            let name = life.name.clone();
            let (check, why) = match (&client.last, client.key) {
                // Nobody knows of it, and nobody can.
                (None, None) => continue,
                (Some(Outcome::Failed(_)), None) if client.ended_since => continue,
                (Some(Outcome::Failed(_)), None) => {
                    ("failed", "its client was told that it failed")
                }
                // A create that was not answered brought it back, and who knew of that has ended.
                (Some(Outcome::Job { .. } | Outcome::Full), _)
                    if client.ended_since && self.name_was_deleted(life) =>
                {
                    continue;
                }
                (Some(Outcome::Job { .. }), _) => ("double", "its client has another"),
                (Some(Outcome::Refused(_)), _) => ("refused", "its client was refused for certain"),
                (Some(Outcome::Full), Some(_)) if client.in_doubt => continue,
                (Some(_), None) => ("refused", "its client was refused"),
                (_, Some(_)) => ("unanswered", "its client never had an answer"),
            };
            return self.violate(check, format!("{name} is there: {why}"));
        }
    }

    /// Whether a Secret, a Service or a hidden Job is there for nobody.
    fn check_leftovers(&mut self) {
        let world = &self.world;
        let owned = |uid: u64| world.job_of(uid).is_some();
        let mut members = world.jobs.values();
        let member = members.find(|job| job.owner.is_some_and(|owner| !owned(owner)));
        let secret = world
            .secrets
            .iter()
            .find(|(_, secret)| !owned(secret.owner));
        let service = world.services.iter().find(|(_, owner)| !owned(**owner));
        let pod = world.pods.values().find(|pod| !owned(pod.owner));
        let hidden = world.jobs.values().find(|job| {
            let used = world.jobs.values().any(|other| {
                other.name != job.name
                    && other.annotations.get(crate::world::PAYLOAD) == Some(&job.name)
            });
            job.annotations.contains_key(HIDDEN) && !used && !self.is_guarded(&job.name)
        });
        let what = secret
            .map(|(name, _)| format!("Secret {name}"))
            .or(service.map(|(name, _)| format!("Service {name}")))
            .or(pod.map(|pod| format!("Pod {}", pod.name)))
            .or(hidden.map(|job| format!("hidden Job {}", job.name)))
            .or(member.map(|job| format!("Job {}", job.name)));
        if let Some(what) = what {
            self.violate("leftover", format!("{what} belongs to no job that is kept"));
        }
    }

    /// Whether somebody of whom the scheduler did not know may have held a job back between the end
    /// of its container and its condition.
    fn may_be_contradicted(&self, life: &Life) -> bool {
        life.touched || (self.options.two && (life.stopped || life.stopped_at.is_some()))
    }

    /// No end was told that the job controller made another.
    fn check_contradictions(&mut self) {
        let mut lives = self.world.lives.values();
        if lives.any(|life| self.may_be_contradicted(life)) {
            return;
        }
        let count = |process: &crate::sim::Process| {
            process.scheduler.metrics().contradictions.load(Relaxed)
        };
        let sum: u64 = self.processes.iter().map(count).sum();
        if sum > 0 {
            self.violate("contradiction", format!("{sum} ends were told otherwise"));
        }
    }

    fn check_retention(&mut self) {
        let history = self.options.history;
        let mut wrong = None;
        for outcome in ["Succeeded", "Failed", "Stopped"] {
            let lives = || {
                self.world
                    .lives
                    .values()
                    .filter(|l| l.end() == Some(outcome) && l.batch.is_none())
            };
            let is_kept = |life: &&Life| life.gone.is_none() && life.hidden.is_none();
            let kept: Vec<&Life> = lives()
                .filter(is_kept)
                .filter(|life| !self.is_guarded(&life.name))
                .filter(|life| !self.is_half_for_all_that_is_known(life))
                .collect();
            if kept.len() > history {
                let names: Vec<&str> = kept.iter().map(|life| life.name.as_str()).collect();
                wrong = Some(format!(
                    "{} {outcome} jobs are kept, not {history}: {}",
                    names.len(),
                    names.join(", ")
                ));
            }
            let first = kept
                .iter()
                .filter_map(|life| Some((life.last_end()?, &life.name)))
                .min();
            let retired = lives().filter(|life| !is_kept(life) && !self.deleted_by_owner(life));
            // A person may resume one that is hidden already.
            let retired = retired.filter(|life| !life.touched);
            // Without those that nobody was told of, those whose payload a person took, and those
            // of the same seconds.
            let retired = retired.filter(|life| !self.world.robbed.contains(&life.name));
            let retired = retired.filter(|life| {
                let uid = uid_text(life.uid);
                self.clients
                    .iter()
                    .any(|c| c.names.iter().any(|given| given.uid == uid))
            });
            // One that displaced it may have been deleted or restarted while it was let go.
            let is_displaced = |life: &&Life| {
                let at = life.hidden.or(life.gone.map(|(at, _)| at));
                let is_alike = |other: &&Life| {
                    let was_stopped = other.stopped_at.is_some() && outcome == "Stopped";
                    let is_other = other.uid != life.uid && other.batch.is_none();
                    is_other && (was_stopped || other.end() == Some(outcome))
                };
                let others = self.world.lives.values().filter(is_alike);
                let mut others = others.filter_map(|other| {
                    let end = other.last_end().or(other.stopped_at)?;
                    let deleted = other.gone.filter(|_| self.deleted_by_owner(other));
                    let deleted = deleted.map(|(gone, _)| (end, gone));
                    other.ended_before.or(deleted)
                });
                others.any(|(end, since)| {
                    life.first_end().is_some_and(|own| end >= own)
                        && at.is_some_and(|at| at <= since + 10 * SECOND)
                })
            };
            let last = retired
                .filter(|life| !is_displaced(life))
                .filter_map(|life| Some((life.first_end()?, &life.name)))
                .max();
            if let (Some((first, kept)), Some((last, gone))) = (first, last)
                && last > first + 2_000_000
                && !(outcome == "Stopped" && self.options.skew)
            {
                wrong = Some(format!(
                    "{gone} was let go, and {kept}, which ended before, is kept"
                ));
            }
        }
        if let Some(what) = wrong {
            self.violate("retention", what);
        }
    }

    /// Ends the faults, lets everything come to rest, and checks.
    pub fn finish(&mut self) {
        self.heal();
        self.settle(40_000_000, false);
        if self.violation.is_some() {
            return;
        }
        self.check_running();
        self.check_hidden_batches();
        self.resume_touched();
        for _ in 0..8 {
            let any = self.resend_unanswered() | self.resend_batch();
            if self.violation.is_some() || !any {
                break;
            }
            self.settle(40_000_000, true);
        }
        self.resend_deleted();
        self.settle(20_000_000, true);
        self.end_stuck();
        if self.violation.is_none() {
            self.check_index();
        }
        self.settle(17 * MINUTE, true);
        if self.violation.is_none() {
            self.check_end();
        }
    }

    /// Whoever suspended a job by hand resumes it.
    fn resume_touched(&mut self) {
        let touched = self.world.jobs.values().filter(|job| {
            let ours = job.annotations.contains_key(crate::world::STOPPED)
                || job.annotations.contains_key(crate::world::QUEUED);
            job.touched && job.suspend && !ours
        });
        let names: Vec<String> = touched.map(|job| job.name.clone()).collect();
        for name in names {
            self.say(|| format!("kubectl resumes {name}"));
            self.world.kubectl_suspend(&name, false);
        }
    }

    /// Pods that wait for a Secret that a person deleted come to their time limit.
    fn end_stuck(&mut self) {
        for _ in 0..8 {
            let world = &self.world;
            let stuck = world.pods.values().find(|pod| {
                let robbed = |name: &String| world.robbed.contains(name);
                pod.may_run()
                    && pod
                        .mounts
                        .as_ref()
                        .is_some_and(|s| robbed(s) && !world.secrets.contains_key(s))
            });
            let Some(pod) = stuck else {
                return;
            };
            let (name, job) = (pod.name.clone(), pod.job.clone());
            // In a minute it can be seen that the payload is gone.
            let is_old = pod.taken.is_some_and(|taken| taken + 60 < world.seconds());
            let is_left = world.jobs.get(&job).is_some_and(|job| !job.suspend);
            let is_kept = self.is_guarded(&job) || self.has_guarded_batch(&job);
            if is_old && is_left && !world.secret_quota && !is_kept {
                let what = format!("{job} waits for ever for a payload that is gone");
                return self.violate("stuck", what);
            }
            self.say(|| format!("{name} comes to its time limit"));
            self.world.time_out(&name);
            self.settle(60_000_000, true);
        }
    }

    /// One who was told of a job that was deleted since asks for it again: it is made anew.
    fn resend_deleted(&mut self) {
        let is_gone = |client: &crate::client::Client| {
            let given = client.names.last().and_then(|given| self.life(&given.uid));
            let is_gone = given.is_some_and(|life| life.gone.is_some());
            let is_deleted = given.is_some_and(|life| self.deleted_by_owner(life));
            client.key.is_some() && !client.in_flight && is_gone && is_deleted
        };
        let number = self.clients.iter().position(is_gone);
        let process = self.alive().first().copied();
        if let (Some(number), Some(process), false) = (number, process, self.options.two) {
            self.submit(number, process);
            self.settle(40_000_000, true);
        }
    }

    fn resend_unanswered(&mut self) -> bool {
        let mut any = false;
        for number in 0..self.clients.len() {
            let client = &self.clients[number];
            let unanswered = match &client.last {
                None => client.sends > 0,
                Some(Outcome::Failed(_) | Outcome::NotReady) => true,
                Some(Outcome::Full) => client.in_doubt,
                Some(_) => false,
            };
            if client.key.is_none() || client.in_flight || !unanswered {
                continue;
            }
            any = true;
            if let Some(process) = self.process_for_resend(self.clients[number].process) {
                self.submit(number, process);
            }
        }
        any
    }
}
