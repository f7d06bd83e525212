//! The scheduler's only picture of the jobs: small records, bounded, read without asking the
//! backend.
//!
//! Invariants: what this process created or deleted is here before its caller is answered, and no
//! older report undoes it; a relist is built aside and swapped in whole, so that it leaves no
//! ghosts; a job is counted as running from before it is created until nothing of it can run any
//! more, so that a concurrency cap holds at every instant.

mod capacity;
mod changes;
mod fate;
mod state;
#[cfg(test)]
pub(crate) mod tests;

pub use capacity::{Bounds, Full, Reservation};
pub use changes::{Changed, Follower, MAX_FOLLOWERS};
pub use fate::{Flight, InFlight, is_live};

use crate::clock::Clock;
use crate::job::{
    Attempt, Job, JobList, JobName, JobRecord, ListBegun, Progress, RequestKey, Status,
};
use changes::Followed;
use fate::Fate;
use state::{Source, State, merge, sort, still, take_own};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// A job that was suspended or deleted gets no attempt any more after this.
pub const ATTEMPTS_COME_WITHIN: Duration = Duration::from_secs(5);
/// A call that was not answered has no effect any more after this.
pub const CALLS_END_WITHIN: Duration = Duration::from_secs(15);

/// How long a name that was given up is remembered: a create that is carried out later than this is
/// taken for a job.
pub const ABORTED_FOR: Duration = Duration::from_secs(600);

/// The jobs and their attempts. One writer path (what is observed, created, deleted), any number of
/// readers.
pub struct Index {
    state: Followed,
    bounds: Bounds,
    clock: Clock,
}

/// A job went from one status to another.
#[derive(Debug, PartialEq)]
pub struct Transition {
    /// `None` for a job that was not known before.
    pub from: Option<Status>,
    pub record: Arc<JobRecord>,
}

/// What follows from a report of a job.
#[derive(Debug, Default, PartialEq)]
pub struct Change {
    /// Its status changed.
    pub transition: Option<Transition>,
    /// A job that nobody was told of, to be discarded: this one, or another of the same request.
    pub unwanted: Option<JobName>,
    /// A job that may get an attempt although it is held back or gone: to be looked at once that
    /// can no longer be.
    pub doubtful: Option<JobName>,
    /// The backend tells another end than its attempts did.
    pub contradicts: bool,
    /// Retention has something to decide: it is out of its users' sight now, or one that has
    /// finished is found to have had its payload.
    pub concerns_retention: bool,
}

/// What is known of an idempotency key.
#[derive(Debug, PartialEq)]
pub enum Keyed {
    /// It made this job.
    Job(Arc<JobRecord>),
    /// It was sent to make a job of this name, and whether it did is unknown.
    InDoubt { name: JobName, request: RequestKey },
}

impl Index {
    /// An empty index.
    pub fn new(bounds: Bounds, clock: Clock) -> Index {
        Index {
            state: Followed::new(State::default()),
            bounds,
            clock,
        }
    }

    /// The job of this name, unless it is out of sight.
    pub fn get(&self, name: &JobName) -> Option<Arc<JobRecord>> {
        let state = self.state.read();
        let record = state.jobs.get(name)?;
        record.is_seen().then(|| record.clone())
    }

    /// The job of this name, in sight or not.
    pub fn known(&self, name: &JobName) -> Option<Arc<JobRecord>> {
        self.state.read().jobs.get(name).cloned()
    }

    /// What is known of the request with this idempotency key (its digest).
    pub fn by_key(&self, key: u128) -> Option<Keyed> {
        let state = self.state.read();
        let name = state.keys.get(&key)?;
        if let Some(record) = state.jobs.get(name) {
            return Some(Keyed::Job(record.clone()));
        }
        let request = state.fates.get(name)?.request?;
        let name = name.clone();
        Some(Keyed::InDoubt { name, request })
    }

    /// All jobs in sight, by name, which is by the second they were made in.
    pub fn list(&self) -> Vec<Arc<JobRecord>> {
        self.all(JobRecord::is_seen)
    }

    /// The jobs of a batch, in their order, but for those that were deleted of it, each with its
    /// place in the queue, from 1, where that holds it.
    pub fn jobs_of(&self, batch: &JobName) -> Vec<(Arc<JobRecord>, Option<usize>)> {
        let state = self.state.read();
        let position = state.positions();
        let jobs = state.jobs_of(batch).into_iter();
        jobs.map(|record| (record.clone(), position(&record.job)))
            .collect()
    }

    /// Whether a job of the batch has not come to its end.
    pub fn has_unfinished(&self, batch: &JobName) -> bool {
        let state = self.state.read();
        let mut jobs = state.of_batch(batch).map(|(_, record)| &record.job);
        jobs.any(|job| !job.hidden && !job.status.is_finished())
    }

    /// Jobs of batches that are in sight although another has their place: one that does them
    /// again.
    pub fn overtaken(&self) -> Vec<Arc<JobRecord>> {
        let of_batches = |record: &JobRecord| record.is_seen() && record.job.batch_of().is_some();
        let mut jobs = self.all(of_batches);
        let place = |job: &Job| (job.batch_of().cloned(), job.batch_index());
        jobs.sort_by_cached_key(|record| (place(&record.job), record.job.arrival));
        let pairs = jobs.iter().zip(jobs.iter().skip(1));
        let overtaken = pairs.filter(|(one, next)| place(&one.job) == place(&next.job));
        // It may yet be given up. What runs is not lost sight of.
        let overtaken = overtaken.filter(|(one, next)| {
            one.job.status.is_finished() && !self.is_being_created(&next.job.name)
        });
        overtaken.map(|(one, _)| one.clone()).collect()
    }

    /// The jobs that are `wanted`, in sight or not.
    pub fn all(&self, wanted: impl Fn(&JobRecord) -> bool) -> Vec<Arc<JobRecord>> {
        let state = self.state.read();
        let records = state.jobs.values().filter(|record| wanted(record));
        records.cloned().collect()
    }

    /// The jobs in sight that are `wanted`, in the order in which they came, each with its place in
    /// the queue, from 1, where that holds it.
    pub fn in_order(&self, wanted: impl Fn(&Job) -> bool) -> Vec<(Arc<JobRecord>, Option<usize>)> {
        let state = self.state.read();
        let position = state.positions();
        let visible = state.jobs.values().filter(|record| record.is_seen());
        let records = visible.filter(|record| wanted(&record.job));
        let mut list: Vec<_> = records
            .map(|record| (record.clone(), position(&record.job)))
            .collect();
        drop(position);
        drop(state);
        // It keeps those of one moment in the order of their names.
        list.sort_by_key(|(record, _)| record.job.arrival);
        list
    }

    /// The hidden jobs whose payload nobody uses, and that nothing is about to delete.
    pub fn hidden_and_unused(&self) -> Vec<Arc<JobRecord>> {
        let state = self.state.read();
        let hidden = state.jobs.values().filter(|record| record.job.hidden);
        let unused = hidden.filter(|record| !state.uses_payload(&record.job.name));
        unused.cloned().collect()
    }

    /// The place of a job in the queue, from 1; `None` if the queue does not hold it.
    pub fn position(&self, job: &Job) -> Option<usize> {
        self.state.read().position(job)
    }

    /// A call that changes or deletes the job, or pins its payload, is in flight until the guard is
    /// dropped. `None` if what is in flight or kept already forbids it: a payload that is about to
    /// go cannot be used, and one that is used must not go.
    pub fn begin(&self, name: &JobName, flight: Flight) -> Option<InFlight<'_>> {
        let mut state = self.state.write();
        let is_forbidden = match flight {
            Flight::Create | Flight::Change | Flight::Stop => false,
            Flight::Deletion => state.uses_payload(name),
            Flight::Pin => state.fates.get(name).is_some_and(Fate::is_going),
        };
        if is_forbidden {
            return None;
        }
        state.change(name, |_, fate| fate.flights.push(flight));
        drop(state);
        let name = name.clone();
        Some(InFlight {
            index: self,
            name,
            flight,
        })
    }

    /// Whether a call is in flight here that creates or changes the job.
    pub fn is_changing(&self, name: &JobName) -> bool {
        self.has_fate(name, Fate::is_changing)
    }

    /// Whether a call is in flight here that creates the job.
    pub fn is_being_created(&self, name: &JobName) -> bool {
        self.has_fate(name, |fate| fate.has(Flight::Create))
    }

    fn has_fate(&self, name: &JobName, is_so: impl FnOnce(&Fate) -> bool) -> bool {
        self.state.read().fates.get(name).is_some_and(is_so)
    }

    /// A job as the answer to a call shows it. Returns its record, which may already be newer;
    /// `None` if it is gone again, which leaves a doubt if it was let run.
    pub fn answered(&self, job: Job) -> (Option<Arc<JobRecord>>, Change) {
        let (name, uid, now) = (job.name.clone(), job.uid.clone(), self.clock.instant());
        let was_let_run = job.status == Status::Running;
        let mut state = self.state.write();
        let mut change = state.put(job, now, Source::Report);
        let record = state.jobs.get(&name).filter(|record| record.job.uid == uid);
        let record = record.cloned();
        if record.is_none() && was_let_run {
            let until = Some(now + ATTEMPTS_COME_WITHIN);
            state.change(&name, |_, fate| fate.may_start = until);
            change.doubtful = Some(name);
        }
        (record, change)
    }

    /// The job is known to be whole: it was acknowledged, or its payload was found to be stored.
    pub fn confirm(&self, name: &JobName) {
        let mut state = self.state.write();
        state.change_record(name, |record| record.is_whole = true);
    }

    /// What the scheduler has to say of a job to its user; empty where there is nothing.
    pub fn notice(&self, name: &JobName, text: &str) {
        let mut state = self.state.write();
        if state.jobs.get(name).is_some_and(|r| &*r.notice != text) {
            state.change_record(name, |record| record.notice = text.into());
        }
    }

    /// A job says how far it is. `false` if it has finished or is gone.
    pub fn set_progress(&self, name: &JobName, progress: Progress) -> bool {
        let mut state = self.state.write();
        let is_unfinished = |r: &Arc<JobRecord>| r.is_seen() && !r.job.status.is_finished();
        let takes = state.jobs.get(name).is_some_and(is_unfinished);
        if takes {
            state.change_record(name, |record| record.progress = Some(Arc::new(progress)));
        }
        takes
    }

    /// This very job was deleted here: it is out, whatever is still reported of it.
    pub fn deleted(&self, job: &Job) {
        let now = self.clock.instant();
        let mut state = self.state.write();
        // Another may have come under its name already.
        let is_here = |record: &Arc<JobRecord>| record.job.uid == job.uid;
        if state.jobs.get(&job.name).is_some_and(is_here) {
            state.bury(&job.name, true, now);
        }
    }

    /// A deletion, or a batch's leave from its users' sight, was not answered, and may yet be
    /// carried out.
    pub fn deletion_unanswered(&self, name: &JobName) {
        let until = Some(self.clock.instant() + CALLS_END_WITHIN);
        let mut state = self.state.write();
        state.change(name, |_, fate| fate.deletion_may_come = until);
    }

    /// The backend reports that a job is gone. Returns whether it was here.
    pub fn job_gone(&self, job: &Job) -> bool {
        let Job {
            name, uid, version, ..
        } = job;
        let mut state = self.state.write();
        state.reported = state.reported.max(*version);
        let is_known = state.jobs.get(name).is_some_and(|r| r.job.uid == *uid);
        if !is_known {
            state.change(name, |_, fate| {
                if fate.is_changing() && !fate.is_gone(uid) {
                    // The answer to its create is still to come.
                    fate.entomb(uid, false, 0);
                }
                fate.settle(|gone| gone.uid == *uid);
            });
            return false;
        }
        state.bury(name, false, self.clock.instant());
        true
    }

    /// A job was given up whose create may yet be carried out. It counts as running while that is
    /// in doubt, and is unwanted whenever it is reported.
    pub fn aborted(&self, name: &JobName) {
        let now = self.clock.instant();
        let mut state = self.state.write();
        state.change(name, |record, fate| {
            let is_news = fate.closed.is_none();
            if let Some(record) = record.take() {
                fate.bury(&record, now + ATTEMPTS_COME_WITHIN);
            }
            fate.closed = Some(now + ABORTED_FOR);
            fate.request = None;
            if is_news {
                fate.unanswered = Some(now + CALLS_END_WITHIN);
            }
        });
    }

    /// The request with this key is given up, and a part of it is there under this name.
    pub fn give_up(&self, name: &JobName, key: u128) {
        let mut state = self.state.write();
        state.change(name, |_, fate| fate.given_up = Some(key));
    }

    /// Nothing is left of what was given up under this name.
    pub fn nothing_is_left(&self, name: &JobName) {
        let mut state = self.state.write();
        state.change(name, |_, fate| fate.given_up = None);
    }

    /// Whether a request with this key was given up of which a part may be there.
    pub fn is_given_up(&self, key: u128) -> bool {
        let state = self.state.read();
        let mut fates = state.fates.values();
        fates.any(|fate| fate.given_up == Some(key))
    }

    /// A job that is given up was there, as described, and is deleted: if it was let run, it may
    /// yet get an attempt within so long.
    pub fn discarded(&self, job: &Job, within: Duration) {
        let until = self.clock.instant() + within;
        self.state.write().change(&job.name, |_, fate| {
            if job.status == Status::Running {
                fate.may_start = Some(until);
            }
        });
    }

    /// This very job is deleted, of which there is no record: lists that were begun before may yet
    /// have it.
    pub fn deleted_unseen(&self, job: &Job) {
        let mut state = self.state.write();
        let lists = state.lists;
        state.change(&job.name, |record, fate| {
            // Its end may have been told before the answer came.
            if record.is_none() && !fate.is_gone(&job.uid) {
                fate.entomb(&job.uid, true, lists);
            }
        });
    }

    /// A create was not answered: unless the job was reported already, it may exist. Sent again,
    /// the request takes its name.
    pub fn create_unanswered(&self, name: &JobName, request: RequestKey) {
        let until = self.clock.instant() + CALLS_END_WITHIN;
        self.state.write().change(name, |record, fate| {
            fate.late = Some(until);
            if !fate.tombstones.is_empty() {
                // It was there, and somebody deleted it meanwhile.
                fate.close();
                fate.given_up = Some(request.key);
            } else if record.is_none() {
                fate.unanswered = Some(until);
                fate.request = Some(request);
            }
        });
    }

    /// A change that lets the job run, if it is still as described, was not answered: unless a
    /// newer report of it has come, it may run. If it is gone, it may have been let run before.
    pub fn change_unanswered(&self, job: &Job) {
        let now = self.clock.instant();
        let mut state = self.state.write();
        state.change(&job.name, |record, fate| match record {
            Some(known) if known.job.version <= job.version => {
                fate.unanswered = Some(now + CALLS_END_WITHIN);
            }
            Some(_) => {}
            None => fate.may_start = Some(now + ATTEMPTS_COME_WITHIN),
        });
    }

    /// A stop was not answered, and may yet be carried out.
    pub fn stop_unanswered(&self, name: &JobName) {
        let until = Some(self.clock.instant() + CALLS_END_WITHIN);
        let mut state = self.state.write();
        state.change(name, |_, fate| fate.stop_may_come = until);
    }

    /// No call of a process before this one is on its way any more: from now on ends are told as
    /// attempts show them.
    pub fn conclude_all(&self) -> Vec<Change> {
        let mut state = self.state.write();
        state.concludes = true;
        let jobs = state.jobs.iter();
        let with_attempts = jobs.filter(|(_, record)| !record.attempts.is_empty());
        let names: Vec<JobName> = with_attempts.map(|(name, _)| name.clone()).collect();
        names.iter().map(|name| state.conclude(name)).collect()
    }

    /// A stop that was not answered is not carried out any more, if its time is over.
    pub fn no_stop_comes(&self, name: &JobName) -> Change {
        let now = self.clock.instant();
        let mut state = self.state.write();
        state.conclude_after(name, |_, fate| {
            fate.stop_may_come = still(fate.stop_may_come, now);
        })
    }

    /// Whether the job has come to its end, now that no stop may come first.
    pub fn conclude(&self, name: &JobName) -> Change {
        self.state.write().conclude(name)
    }

    /// For how much longer something may begin to run, or stop, under this name that no report
    /// shows; `None` where there is no doubt.
    pub fn doubt(&self, name: &JobName) -> Option<Duration> {
        let state = self.state.read();
        let until = state.fates.get(name)?.doubt()?;
        Some(until.saturating_duration_since(self.clock.instant()))
    }

    /// The doubt is resolved: the job is as it was last reported, and no attempt of it runs that
    /// was not.
    pub fn resolved(&self, name: &JobName) {
        let now = self.clock.instant();
        let mut state = self.state.write();
        state.change(name, |_, fate| {
            fate.may_start = still(fate.may_start, now);
            fate.unanswered = still(fate.unanswered, now);
            fate.request = fate.request.filter(|_| fate.unanswered.is_some());
        });
    }

    /// The job is there, and a write that makes it or its payload was not answered and may yet be
    /// carried out. If what comes `is_held` back until it is let run, it takes no place.
    pub fn may_come_again(&self, name: &JobName, is_held: bool) {
        let until = Some(self.clock.instant() + CALLS_END_WITHIN);
        let mut state = self.state.write();
        state.change(name, |_, fate| match is_held {
            true => fate.late_and_held = until,
            false => fate.late = until,
        });
    }

    /// Whether a write that makes this job or its payload, and that was not answered, could be
    /// carried out until a moment ago.
    pub fn could_come_late(&self, name: &JobName) -> bool {
        self.has_fate(name, |fate| fate.late.or(fate.late_and_held).is_some())
    }

    /// Whether what takes the job or the batch away, and was not answered, could be carried out
    /// until a moment ago.
    pub fn could_be_gone(&self, name: &JobName) -> bool {
        self.has_fate(name, |fate| fate.deletion_may_come.is_some())
    }

    /// Whether another job under this name is to be deleted.
    pub fn is_closed(&self, name: &JobName) -> bool {
        self.has_fate(name, |fate| fate.closed.is_some())
    }

    /// What could be carried out late under this name is not any more, if its time is over.
    pub fn nothing_comes(&self, name: &JobName) {
        let now = self.clock.instant();
        self.state.write().change(name, |_, fate| {
            fate.late = still(fate.late, now);
            fate.late_and_held = still(fate.late_and_held, now);
            fate.deletion_may_come = still(fate.deletion_may_come, now);
        });
    }

    /// Nothing can come under this name any more, if its time is over; else returns how long it is
    /// till then.
    pub fn forget(&self, name: &JobName) -> Option<Duration> {
        self.nothing_comes(name);
        let now = self.clock.instant();
        self.state.write().change(name, |_, fate| {
            fate.closed = still(fate.closed, now);
            let late = [fate.late, fate.late_and_held];
            let times = late
                .into_iter()
                .chain([fate.closed, fate.deletion_may_come]);
            let until = times.flatten().min()?;
            Some(until - now)
        })
    }

    /// The highest version of the backend's that was reported: what is sent now is later than that.
    pub fn version(&self) -> u64 {
        self.state.read().reported
    }

    /// The backend reports a job.
    pub fn job_seen(&self, job: Job) -> Change {
        let mut state = self.state.write();
        state.reported = state.reported.max(job.version);
        state.put(job, self.clock.instant(), Source::Report)
    }

    /// A list of all jobs is about to be asked for.
    pub fn relist_begins(&self) -> ListBegun {
        let mut state = self.state.write();
        state.lists += 1;
        ListBegun {
            lists: state.lists,
            version: state.reported,
        }
    }

    /// The list that was begun: what is not in it is gone, but for what has changed since. Returns
    /// what follows, and the jobs that are gone.
    pub fn relisted(&self, list: JobList, begun: ListBegun) -> (Vec<Change>, Vec<JobName>) {
        let JobList { jobs, version } = list;
        let now = self.clock.instant();
        let mut state = self.state.write();
        // A cluster that was restored from a backup begins again at a lower version: then nothing
        // known holds.
        let is_older = version < begun.version;
        // Two may list at a time, and a watch may have told meanwhile what became of a job that is
        // not here.
        let is_latest = is_older || version >= state.reported;
        // Nothing can have gone that was never here.
        let is_first = state.listed == 0;
        state.reported = match is_older {
            true => version,
            false => version.max(state.reported),
        };
        // Of two lists, the one that was answered first may come last.
        state.listed = match is_older {
            true => version,
            false => version.max(state.listed),
        };
        state.forget_old_tombstones(begun.lists);
        let is_before = |known: &JobRecord| is_older || known.job.version <= version;
        let listed: HashSet<&JobName> = jobs.iter().map(|job| &job.name).collect();
        let known = state.jobs.iter().filter(|(_, known)| is_before(known));
        let gone = known.filter(|(name, _)| !listed.contains(name));
        let gone: Vec<JobName> = gone.map(|(name, _)| name.clone()).collect();
        // Most are as they are known: there may be many.
        let mut changes = Vec::new();
        for job in jobs {
            let is_newer = match state.jobs.get(&job.name) {
                Some(known) => is_before(known),
                None => is_latest || is_first,
            };
            let source = match is_newer {
                true => Source::List,
                false => Source::Report,
            };
            let change = state.put(job, now, source);
            changes.extend(Some(change).filter(|change| *change != Change::default()));
        }
        for name in &gone {
            state.bury(name, false, now);
        }
        (changes, gone)
    }

    /// The backend reports an attempt of a job, which need not be known yet.
    pub fn attempt_seen(&self, job: &JobName, attempt: Attempt) -> Change {
        let mut state = self.state.write();
        state.conclude_after(job, |record, fate| match record {
            Some(record) if attempt.is_of(&record.job) => {
                Arc::make_mut(record).change_attempts(|attempts| merge(attempts, attempt));
            }
            _ => merge(&mut fate.orphans, attempt),
        })
    }

    /// The backend reports that an attempt is gone. How a finished one ended stays known while its
    /// job is.
    pub fn attempt_gone(&self, job: &JobName, attempt: &str) {
        let mut state = self.state.write();
        state.change(job, |record, fate| {
            fate.orphans.retain(|one| &*one.name != attempt);
            if let Some(record) = record {
                let attempts = &mut Arc::make_mut(record).attempts;
                if let Some(gone) = attempts.iter_mut().find(|one| &*one.name == attempt) {
                    gone.is_over |= gone.is_certain;
                }
                attempts.retain(|one| &*one.name != attempt || one.is_over);
            }
        });
    }

    /// Whether an attempt of this name is known, of a job that is here or of one that is gone.
    pub fn knows_attempt(&self, job: &JobName, attempt: &str) -> bool {
        let state = self.state.read();
        let own = state.jobs.get(job).map(|record| &record.attempts[..]);
        let orphans = state.fates.get(job).map(|fate| &fate.orphans[..]);
        let known = own.into_iter().chain(orphans).flatten();
        known
            .map(|known| &*known.name)
            .any(|known| known == attempt)
    }

    /// All attempts there are.
    pub fn attempts_relisted(&self, attempts: Vec<(JobName, Attempt)>) -> Vec<Change> {
        let mut by_job: HashMap<JobName, Vec<Attempt>> = HashMap::new();
        for (job, attempt) in attempts {
            by_job.entry(job).or_default().push(attempt);
        }
        let mut state = self.state.write();
        let with_orphans = state
            .fates
            .iter()
            .filter(|(_, fate)| !fate.orphans.is_empty());
        let with_attempts = state
            .jobs
            .iter()
            .filter(|(_, record)| !record.attempts.is_empty());
        let known = with_orphans
            .map(|(name, _)| name)
            .chain(with_attempts.map(|(name, _)| name));
        for name in known.cloned().collect::<Vec<_>>() {
            by_job.entry(name).or_default();
        }
        let mut changes = Vec::new();
        for (name, mut listed) in by_job {
            sort(&mut listed);
            changes.push(state.conclude_after(&name, |record, fate| {
                if let Some(record) = record {
                    let mut own = take_own(&mut listed, &record.job);
                    for attempt in &mut own {
                        let known = record.attempts.iter().find(|one| one.name == attempt.name);
                        known
                            .into_iter()
                            .for_each(|known| attempt.keep_end_of(known));
                    }
                    Arc::make_mut(record).change_attempts(|attempts| *attempts = own);
                }
                fate.orphans = listed;
            }));
        }
        changes
    }
}
