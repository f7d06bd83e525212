//! What the index is made of, and the one way to change it.

use super::capacity::Reserved;
use super::changes::{Changes, Sight};
use super::fate::{Fate, Flight, Tombstone, is_live};
use super::{ATTEMPTS_COME_WITHIN, CALLS_END_WITHIN, Change, Transition};
use crate::job::{Attempt, Job, JobName, JobRecord, Queued, RequestKey, Status};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

/// Where a picture of a job is from.
#[derive(Clone, Copy, PartialEq)]
pub enum Source {
    /// The answer to a call, or a watch: what is newer counts.
    Report,
    /// A list that is newer than what is known.
    List,
}

#[derive(Default)]
pub struct State {
    /// By name, which is by the second they were made in. Some are hidden.
    pub jobs: BTreeMap<JobName, Arc<JobRecord>>,
    pub fates: HashMap<JobName, Fate>,
    /// The queue, first in line first.
    pub waiting: BTreeSet<(Queued, JobName)>,
    /// Digests of idempotency keys.
    pub keys: HashMap<u128, JobName>,
    pub tally: Tally,
    pub reserved: Reserved,
    pub is_open: bool,
    /// Ends are told as attempts show them: no call of a process before this one is on its way any
    /// more that could make another of one.
    pub concludes: bool,
    /// No attempt comes to a job that was held back.
    pub is_exact: bool,
    /// Lists that were begun.
    pub lists: u64,
    /// The highest version that was reported.
    pub reported: u64,
    /// Of the last list: what it did not show and is no newer was gone by then.
    pub listed: u64,
    pub changes: Changes,
}

/// What is counted of a name.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    pub unfinished: usize,
    /// Runs, may run, or is about to.
    pub busy: usize,
    pub unanswered: usize,
}

impl Tally {
    pub fn of(record: Option<&JobRecord>, fate: Option<&Fate>) -> Tally {
        let runs = |record: &JobRecord| {
            matches!(record.job.status, Status::Running | Status::Stopping)
                || is_live(&record.attempts)
        };
        // What stands for a batch never runs.
        let record = record.filter(|record| record.job.batch().is_none());
        let is_busy = record.is_some_and(runs) || fate.is_some_and(Fate::may_run);
        Tally {
            unfinished: usize::from(record.is_some_and(|r| !r.job.status.is_finished())),
            busy: usize::from(is_busy),
            unanswered: usize::from(fate.is_some_and(|fate| fate.unanswered.is_some())),
        }
    }

    /// In this order nothing goes below zero.
    pub fn replace(&mut self, before: Tally, after: Tally) {
        self.unfinished = self.unfinished + after.unfinished - before.unfinished;
        self.busy = self.busy + after.busy - before.busy;
        self.unanswered = self.unanswered + after.unanswered - before.unanswered;
    }
}

impl State {
    pub fn position(&self, job: &Job) -> Option<usize> {
        let key = (job.queued?, job.name.clone());
        let waiting = &self.waiting;
        if !waiting.contains(&key) {
            return None;
        }
        // From both ends: most that ask are among the last, who have just come, or among the first.
        let ends = waiting.iter().zip(waiting.iter().rev());
        let (before, (first, _)) = ends
            .enumerate()
            .find(|(_, (first, last))| **first == key || **last == key)?;
        match *first == key {
            true => Some(before + 1),
            false => Some(waiting.len() - before),
        }
    }

    /// What finds the places of many jobs in the queue.
    pub fn positions(&self) -> impl Fn(&Job) -> Option<usize> {
        let queue: Vec<_> = self.waiting.iter().collect();
        move |job| {
            let queued = job.queued?;
            let found = queue.binary_search_by(|(other, name)| {
                other.cmp(&queued).then_with(|| name.cmp(&job.name))
            });
            found.ok().map(|before| before + 1)
        }
    }

    pub fn uses_payload(&self, owner: &JobName) -> bool {
        self.fates
            .get(owner)
            .is_some_and(|fate| fate.has(Flight::Pin))
            || self
                .jobs
                .values()
                .any(|r| r.job.rare.payload_of.as_ref() == Some(owner))
    }

    /// The one way to change what is known of a name: what is counted and found by other means than
    /// the name follows.
    pub fn change<T>(
        &mut self,
        name: &JobName,
        change: impl FnOnce(&mut Option<Arc<JobRecord>>, &mut Fate) -> T,
    ) -> T {
        let mut record = self.jobs.remove(name);
        let known = self.fates.remove(name);
        let before = Tally::of(record.as_deref(), known.as_ref());
        let seen = Sight::of(record.as_deref());
        let changed = record.as_ref().and_then(|record| record.changed);
        let is_complete = |record: &Option<Arc<JobRecord>>| record.as_ref()?.job.batch();
        let was_complete = is_complete(&record);
        let batch_of = |record: &Option<Arc<JobRecord>>| record.as_ref()?.job.batch_of().cloned();
        let was_of = batch_of(&record);
        if let Some(queued) = record.as_ref().and_then(|record| record.queued()) {
            self.waiting.remove(&(queued, name.clone()));
        }
        let mut fate = known.unwrap_or_default();
        if let Some(key) =
            request(record.as_deref(), &fate).filter(|k| self.keys.get(&k.key) == Some(name))
        {
            self.keys.remove(&key.key);
        }
        let result = change(&mut record, &mut fate);
        let is_complete = is_complete(&record);
        if let Some(queued) = record.as_ref().and_then(|record| record.queued()) {
            self.waiting.insert((queued, name.clone()));
        }
        if let Some(key) = request(record.as_deref(), &fate) {
            self.keys.entry(key.key).or_insert_with(|| name.clone());
        }
        self.tally
            .replace(before, Tally::of(record.as_deref(), Some(&fate)));
        let sight = Sight::of(record.as_deref());
        let changed = self.changes.compare(name, changed, seen, sight);
        let batch = was_of.or_else(|| batch_of(&record));
        let batch = batch.filter(|_| Sight::is_news(seen, sight));
        if let Some(mut record) = record {
            if record.changed != changed {
                Arc::make_mut(&mut record).changed = changed;
            }
            record.shown.clear();
            self.jobs.insert(name.clone(), record);
        }
        if !fate.is_empty() {
            self.fates.insert(name.clone(), fate);
        }
        if was_complete != is_complete {
            self.show_jobs_of(name, is_complete == Some(true));
        }
        if let Some(batch) = batch {
            self.note_batch(&batch);
        }
        result
    }

    /// The jobs of a batch are as if they were not there, until it is complete and once it is gone.
    pub fn show_jobs_of(&mut self, batch: &JobName, is_complete: bool) {
        let names = self.of_batch(batch).map(|(name, _)| name.clone());
        for name in names.collect::<Vec<_>>() {
            self.change_record(&name, |record| record.awaits_batch = !is_complete);
        }
    }

    /// See [`Index::jobs_of`].
    pub fn jobs_of(&self, batch: &JobName) -> Vec<Arc<JobRecord>> {
        let records = self.of_batch(batch).map(|(_, record)| record);
        let seen = records.filter(|record| !record.job.hidden);
        let mut jobs: Vec<_> = seen.cloned().collect();
        jobs.sort_by_key(|record| (record.job.batch_index(), record.job.arrival));
        // One that was done again is out of sight soon: see `overtaken`.
        jobs.reverse();
        jobs.dedup_by_key(|record| record.job.batch_index());
        jobs.reverse();
        jobs
    }

    /// What is known of a batch's jobs, whose names all begin with its own.
    pub fn of_batch<'a>(
        &'a self,
        batch: &'a JobName,
    ) -> impl Iterator<Item = (&'a JobName, &'a Arc<JobRecord>)> {
        let later = (Bound::Excluded(batch), Bound::Unbounded);
        let of_its_name = self.jobs.range(later).take_while(|(name, _)| {
            let rest = name.as_str().strip_prefix(batch.as_str());
            rest.is_some_and(|rest| rest.starts_with('-'))
        });
        of_its_name.filter(|(_, record)| record.job.batch_of() == Some(batch))
    }

    /// Ends the job if its attempts show that it has ended.
    pub fn conclude(&mut self, name: &JobName) -> Change {
        self.conclude_after(name, |_, _| ())
    }

    /// The same after a change of what is known of it.
    pub fn conclude_after(
        &mut self,
        name: &JobName,
        change: impl FnOnce(&mut Option<Arc<JobRecord>>, &mut Fate),
    ) -> Change {
        let concludes = self.concludes;
        let mut concerns_retention = false;
        let from = self.change(name, |record, fate| {
            let may_lack = |record: &Arc<JobRecord>| record.may_lack_payload();
            let lacked = record.as_ref().is_some_and(may_lack);
            change(record, fate);
            let record = record.as_mut()?;
            let from = record.job.status;
            Arc::make_mut(record).conclude(!concludes || fate.may_be_stopped());
            concerns_retention = lacked && !may_lack(record) && from.is_finished();
            (from != record.job.status).then_some(from)
        });
        let transition = from.and_then(|from| self.transition(name, Some(from)));
        let goes_on = |t: &Transition| t.record.job.status == Status::Running;
        Change {
            contradicts: transition.as_ref().is_some_and(goes_on),
            transition,
            concerns_retention,
            ..Change::default()
        }
    }

    /// To what the job is now. Its record is shared once nothing of it is changed any more: of a
    /// shared one, a change makes another.
    pub fn transition(&self, name: &JobName, from: Option<Status>) -> Option<Transition> {
        let record = self.jobs.get(name)?.clone();
        Some(Transition { from, record })
    }

    pub fn change_record(&mut self, name: &JobName, change: impl FnOnce(&mut JobRecord)) {
        self.change(name, |record, _| {
            if let Some(record) = record {
                change(Arc::make_mut(record));
            }
        });
    }

    /// Takes in a job unless it is gone or given up, or a newer version of it is here.
    pub fn put(&mut self, job: Job, now: Instant, source: Source) -> Change {
        let (name, key, listed) = (job.name.clone(), job.request(), self.listed);
        let (is_exact, concludes) = (self.is_exact, self.concludes);
        let awaits_batch = job.batch_of().is_some_and(|batch| {
            let whole = self.jobs.get(batch);
            whole.and_then(|whole| whole.job.batch()) != Some(true)
        });
        let is_same =
            |known: &Arc<JobRecord>| (&known.job.uid, known.job.version) == (&job.uid, job.version);
        // As are most of a list.
        let is_known = self.jobs.get(&name).is_some_and(is_same);
        let mut moved = None;
        let put = |record: &mut Option<Arc<JobRecord>>, fate: &mut Fate| {
            let is_old = match record {
                Some(known) => known.job.version >= job.version,
                None => job.version <= listed,
            };
            if fate.is_gone(&job.uid) || (source == Source::Report && is_old) {
                return Change::default();
            }
            let before = fate.may_start;
            let is_another = |known: &mut Arc<JobRecord>| known.job.uid != job.uid;
            if let Some(known) = record.take_if(is_another) {
                // The one that had the name went without a word.
                fate.bury(&known, now + ATTEMPTS_COME_WITHIN);
                fate.close();
            }
            if fate.closed.is_some() {
                if job.status == Status::Running {
                    fate.may_start = Some(now + ATTEMPTS_COME_WITHIN);
                }
                fate.given_up = fate.given_up.or(key.map(|key| key.key));
                return Change {
                    doubtful: fate.doubtful_since(before, &name),
                    unwanted: Some(job.name),
                    ..Change::default()
                };
            }
            let known = record.take();
            let from = known.as_ref().map(|known| known.job.status);
            // It was let run, and is held back: the backend may just be starting an attempt.
            let is_news = !known.as_ref().is_some_and(|r| r.job.is_stop_unnoticed());
            let was_let_run = from == Some(Status::Running)
                || fate.unanswered.is_some()
                || (is_news && job.is_stop_unnoticed());
            // One that has stopped was noticed to be held back.
            let may_start = job.status.is_held_back() && job.status != Status::Stopped;
            if !is_exact && was_let_run && may_start {
                fate.may_start = Some(now + ATTEMPTS_COME_WITHIN);
            } else if from.is_some() && job.status == Status::Stopped {
                fate.may_start = None;
            }
            (fate.unanswered, fate.request) = (None, None);
            let concerns_retention = job.hidden && !known.as_ref().is_some_and(|r| r.job.hidden);
            let contradicts = known.as_ref().is_some_and(|r| r.is_contradicted_by(&job));
            let mut new = match known {
                Some(known) => known.with(job),
                None => {
                    let attempts = take_own(&mut fate.orphans, &job);
                    JobRecord::new(job, attempts)
                }
            };
            new.awaits_batch = awaits_batch;
            new.conclude(!concludes || fate.may_be_stopped());
            moved = (from != Some(new.job.status)).then_some(from);
            *record = Some(Arc::new(new));
            Change {
                transition: None,
                unwanted: None,
                doubtful: fate.doubtful_since(before, &name),
                contradicts,
                concerns_retention,
            }
        };
        let mut result = match is_known {
            true => Change::default(),
            false => self.change(&name, put),
        };
        result.transition = moved.and_then(|from| self.transition(&name, from));
        if let Some(key) = key.filter(|_| self.jobs.contains_key(&name)) {
            result.unwanted = result.unwanted.or_else(|| self.claim(key, &name));
        }
        result
    }

    /// Of two jobs of one request, the one that was sent later counts. Returns the other, if there
    /// is one.
    pub fn claim(&mut self, key: RequestKey, name: &JobName) -> Option<JobName> {
        let known = self.keys.entry(key.key).or_insert_with(|| name.clone());
        let other = Some(known.clone()).filter(|other| other != name)?;
        let other_key = self
            .jobs
            .get(&other)
            .and_then(|record| record.job.request());
        // One that is only in doubt is looked at again when it is seen.
        if other_key.is_some_and(|other_key| (other_key.sent, &other) > (key.sent, name)) {
            return Some(name.clone());
        }
        self.keys.insert(key.key, name.clone());
        other_key.map(|_| other)
    }

    /// A record leaves.
    pub fn bury(&mut self, name: &JobName, is_awaited: bool, now: Instant) {
        let (lists, concludes) = (self.lists, self.concludes);
        self.change(name, |record, fate| {
            if let Some(record) = record.take() {
                fate.bury(&record, now + ATTEMPTS_COME_WITHIN);
                if !concludes {
                    // A process before this one may have sent its create more than once.
                    fate.late = fate.late.max(Some(now + CALLS_END_WITHIN));
                }
                fate.entomb(&record.job.uid, is_awaited, lists);
                fate.close();
            }
            fate.settle_tombstones();
        });
    }

    /// The list that has come was begun later, and knows of them.
    pub fn forget_old_tombstones(&mut self, lists: u64) {
        let is_old = |gone: &Tombstone| gone.lists < lists;
        let old = self.fates.iter();
        let old = old.filter(|(_, fate)| fate.tombstones.iter().any(is_old));
        let old: Vec<JobName> = old.map(|(name, _)| name.clone()).collect();
        for name in old {
            self.change(&name, |_, fate| fate.settle(is_old));
        }
    }
}

/// The request that a name belongs to.
fn request(record: Option<&JobRecord>, fate: &Fate) -> Option<RequestKey> {
    record.map_or(fate.request, |record| record.job.request())
}

/// Until when what could be so until then still may; `None` once that is over.
pub fn still(until: Option<Instant>, now: Instant) -> Option<Instant> {
    until.filter(|until| *until > now)
}

/// In the order in which they ran. Times are in seconds: of the same, one has ended before the next
/// is made.
pub fn sort(attempts: &mut [Attempt]) {
    // One that never began has no time of its end.
    let is_open = |a: &Attempt| !a.is_over && a.finished.is_none();
    let place = |a: &Attempt| (a.created, is_open(a), a.finished);
    attempts.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.name.cmp(&b.name)));
}

/// Takes out the attempts that are of this very job.
pub fn take_own(attempts: &mut Vec<Attempt>, job: &Job) -> Vec<Attempt> {
    attempts.extract_if(.., |one| one.is_of(job)).collect()
}

/// Takes an attempt in, unless a newer report of it is there.
pub fn merge(attempts: &mut Vec<Attempt>, attempt: Attempt) {
    match attempts.iter_mut().find(|known| known.name == attempt.name) {
        Some(known) if known.version >= attempt.version => {}
        Some(known) => {
            let before = std::mem::replace(known, attempt);
            known.keep_end_of(&before);
        }
        None => attempts.push(attempt),
    }
    sort(attempts);
}
