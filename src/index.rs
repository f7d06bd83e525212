//! The scheduler's only picture of the jobs: small records, bounded, read without asking the backend.
//!
//! Invariants: what this process created or deleted is here before its caller is answered, and no older report undoes
//! it; a relist is built aside and swapped in whole, so that it leaves no ghosts; a job is counted as running from
//! before it is created until its last attempt is known to have ended, so that a concurrency cap holds at every instant.

use crate::job::{Attempt, Job, JobName, JobRecord, Queued, RequestKey, Status};
use crate::sync::SharedLock;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Names of discarded jobs that are kept, the latest: a create that is carried out after so many others is given up on.
const MAX_DISCARDED: usize = 10_000;

/// The jobs and their attempts. One writer path (what is observed, created, deleted), any number of readers.
pub struct Index {
    state: SharedLock<State>,
    bounds: Bounds,
}

/// How many jobs there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Unfinished jobs.
    pub unfinished: usize,
    /// Jobs running at once; 0 is no cap.
    pub running: usize,
    /// Jobs in the queue of those over the cap.
    pub waiting: usize,
}

/// There are as many jobs as there may be.
#[derive(Debug, PartialEq)]
pub enum Full {
    Unfinished { limit: usize },
    Waiting { limit: usize },
}

/// A place for one job to be created or resumed, given back when dropped.
pub struct Reservation<'a> {
    index: &'a Index,
    /// Whether the job may run at once; else it is for the queue.
    pub runs: bool,
}

/// A running place for a job that is being admitted, given back when dropped.
pub struct Slot<'a>(&'a Index);

/// Keeps the payload of a job while another job that uses it is being created.
pub struct PayloadUse<'a> {
    index: &'a Index,
    owner: JobName,
}

/// A job that is being created, until the guard is dropped.
pub struct Creating<'a> {
    index: &'a Index,
    name: JobName,
}

/// A job that is being deleted, until the guard is dropped: nobody may begin to use its payload.
pub struct Going<'a> {
    index: &'a Index,
    name: JobName,
}

/// A job went from one status to another.
#[derive(Debug, PartialEq)]
pub struct Transition {
    /// `None` for a job that was not known before.
    pub from: Option<Status>,
    pub record: Arc<JobRecord>,
}

#[derive(Default)]
struct State {
    jobs: BTreeMap<JobName, Arc<JobRecord>>,
    /// Attempts whose job is not here: not seen yet (pods and jobs are watched apart), or deleted before they ended.
    alone: HashMap<JobName, Vec<Attempt>>,
    /// Jobs that are deleted for their users and kept for their payload.
    hidden: BTreeMap<JobName, Job>,
    /// Deleted here, and perhaps still reported: a report cannot bring one back.
    deleted: HashSet<JobName>,
    /// Those of `deleted` that were gone before the running relist began; its end proves them gone.
    deleted_before_relist: HashSet<JobName>,
    /// Whether a list was asked for that has not come.
    relisting: bool,
    /// Created here since that list was asked for, so that it may not know them.
    created_since_relist: HashSet<JobName>,
    /// Given up here, the latest: the backend may yet carry out a create of theirs.
    discarded: Discarded,
    /// Jobs that are on their way to being created here.
    creating: HashSet<JobName>,
    /// The queue, first in line first.
    waiting: BTreeSet<(Queued, JobName)>,
    /// Digests of idempotency keys.
    keys: HashMap<u128, JobName>,
    /// Jobs that are there and nobody was told of: a create of theirs came late, or their request was sent again, to
    /// another scheduler, and made another job.
    unwanted: Vec<JobName>,
    unfinished: usize,
    /// Jobs that are Running or Stopping.
    running: usize,
    reserved: Reserved,
    /// Jobs that are not here and may run all the same: half created, or deleted before a pod of theirs was seen.
    ghosts: HashSet<JobName>,
    /// Payload owners of jobs that are being created.
    payload_uses: HashMap<JobName, usize>,
    /// Jobs that are being deleted.
    going: HashSet<JobName>,
}

/// The latest names, bounded.
#[derive(Default)]
struct Discarded {
    names: HashSet<JobName>,
    order: VecDeque<JobName>,
}

impl Discarded {
    fn add(&mut self, name: &JobName) {
        if !self.names.insert(name.clone()) {
            return;
        }
        self.order.push_back(name.clone());
        if self.order.len() > MAX_DISCARDED
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
    }
}

#[derive(Default)]
struct Reserved {
    running: usize,
    waiting: usize,
}

impl Index {
    /// An empty index.
    pub fn new(bounds: Bounds) -> Index {
        Index {
            state: SharedLock::new(State::default()),
            bounds,
        }
    }

    pub fn get(&self, name: &JobName) -> Option<Arc<JobRecord>> {
        self.state.read().jobs.get(name).cloned()
    }

    /// The job that was made with this idempotency key (its digest).
    pub fn by_key(&self, key: u128) -> Option<Arc<JobRecord>> {
        let state = self.state.read();
        state
            .keys
            .get(&key)
            .and_then(|name| state.jobs.get(name))
            .cloned()
    }

    /// Jobs that are there and nobody was told of: to be discarded.
    pub fn take_unwanted(&self) -> Vec<JobName> {
        if self.state.read().unwanted.is_empty() {
            return Vec::new();
        }
        std::mem::take(&mut self.state.write().unwanted)
    }

    /// All jobs, by name, which is by the second they were made in.
    pub fn list(&self) -> Vec<Arc<JobRecord>> {
        self.state.read().jobs.values().cloned().collect()
    }

    /// The place of a job in the queue, from 1; `None` if the queue does not hold it.
    pub fn position(&self, job: &Job) -> Option<usize> {
        let key = (job.queued?, job.name.clone());
        let state = self.state.read();
        let waiting = &state.waiting;
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

    /// The queue, first in line first.
    pub fn queue(&self) -> Vec<JobName> {
        self.state
            .read()
            .waiting
            .iter()
            .map(|(_, name)| name.clone())
            .collect()
    }

    /// Takes a place for a job that is about to be created or resumed: to run if there is room and nobody waits, else in
    /// the queue.
    pub fn reserve(&self) -> Result<Reservation<'_>, Full> {
        let mut state = self.state.write();
        let Bounds {
            unfinished,
            running,
            waiting,
        } = self.bounds;
        if state.unfinished + state.reserved.running + state.reserved.waiting >= unfinished {
            return Err(Full::Unfinished { limit: unfinished });
        }
        let nobody_waits = state.waiting.is_empty() && state.reserved.waiting == 0;
        if running == 0 || (nobody_waits && state.busy() < running) {
            state.reserved.running += 1;
            return Ok(Reservation {
                index: self,
                runs: true,
            });
        }
        if state.waiting.len() + state.reserved.waiting >= waiting {
            return Err(Full::Waiting { limit: waiting });
        }
        state.reserved.waiting += 1;
        Ok(Reservation {
            index: self,
            runs: false,
        })
    }

    /// The next job of the queue, with a place to run in, if there is one.
    pub fn next_to_admit(&self) -> Option<(Arc<JobRecord>, Slot<'_>)> {
        let mut state = self.state.write();
        if self.bounds.running != 0 && state.busy() >= self.bounds.running {
            return None;
        }
        let (_, name) = state.waiting.first()?;
        let record = state.jobs.get(name).cloned()?;
        state.reserved.running += 1;
        Some((record, Slot(self)))
    }

    /// Keeps the payload of `owner` until the guard is dropped; `None` if it is about to go.
    pub fn use_payload(&self, owner: &JobName) -> Option<PayloadUse<'_>> {
        let mut state = self.state.write();
        if state.going.contains(owner) {
            return None;
        }
        *state.payload_uses.entry(owner.clone()).or_insert(0) += 1;
        Some(PayloadUse {
            index: self,
            owner: owner.clone(),
        })
    }

    /// Lets a job go, unless another uses its payload: then `None`, and it must be hidden instead.
    pub fn let_go(&self, name: &JobName) -> Option<Going<'_>> {
        let mut state = self.state.write();
        if state.uses_payload(name) {
            return None;
        }
        state.going.insert(name.clone());
        Some(Going {
            index: self,
            name: name.clone(),
        })
    }

    /// Hidden jobs whose payload nobody uses any more.
    pub fn hidden_and_unused(&self) -> Vec<JobName> {
        let state = self.state.read();
        state
            .hidden
            .keys()
            .filter(|owner| !state.uses_payload(owner))
            .cloned()
            .collect()
    }

    /// A job is about to be created here: until the guard is dropped, a report of it is no news.
    pub fn creating(&self, name: &JobName) -> Creating<'_> {
        self.state.write().creating.insert(name.clone());
        Creating {
            index: self,
            name: name.clone(),
        }
    }

    pub fn is_being_created(&self, name: &JobName) -> bool {
        self.state.read().creating.contains(name)
    }

    /// A job was created or changed here. Returns its record, which may already be newer.
    pub fn created(&self, job: Job) -> Arc<JobRecord> {
        let mut state = self.state.write();
        let name = job.name.clone();
        if state.relisting {
            state.created_since_relist.insert(name.clone());
        }
        let fallback = JobRecord {
            job: job.clone(),
            attempts: Vec::new(),
        };
        state.put(job);
        state
            .jobs
            .get(&name)
            .cloned()
            .unwrap_or_else(|| Arc::new(fallback))
    }

    /// A job was deleted here: it is out, whatever is still reported of it. Its attempts count as running until they end.
    /// Returns whether it may yet get an attempt that is not known of: then [`Index::forget`] it once that has had its time.
    pub fn deleted(&self, name: &JobName) -> bool {
        let mut state = self.state.write();
        let record = state.take(name);
        if state.hidden.remove(name).is_some() || record.is_some() {
            // One that is not here was reported gone already, and no report of it can follow.
            state.deleted.insert(name.clone());
        }
        record.is_some_and(|record| state.part_with(&record))
    }

    /// A job was given up whose create may yet be carried out. It counts as running until it is forgotten, and is unwanted
    /// whenever it is reported.
    pub fn discarded(&self, name: &JobName) {
        let mut state = self.state.write();
        if let Some(record) = state.take(name) {
            state.part_with(&record);
        }
        state.discarded.add(name);
        state.ghosts.insert(name.clone());
    }

    /// A job may exist that was not reported yet: it counts as running until it is seen or forgotten.
    pub fn may_exist(&self, name: &JobName) {
        self.state.write().ghosts.insert(name.clone());
    }

    /// Nothing runs under this name any more but for the attempts that are known.
    pub fn forget(&self, name: &JobName) {
        self.state.write().ghosts.remove(name);
    }

    /// The backend reports a job. Returns the transition if its status changed.
    pub fn job_seen(&self, job: Job) -> Option<Transition> {
        self.state.write().put(job)
    }

    /// The backend reports that a job is gone. Returns whether it was here: then [`Index::forget`] it once a pod that was
    /// made at the last moment has had its time.
    pub fn job_gone(&self, name: &JobName) -> bool {
        let mut state = self.state.write();
        state.deleted.remove(name);
        state.hidden.remove(name);
        let Some(record) = state.take(name) else {
            return false;
        };
        state.part_with(&record);
        true
    }

    /// A list of all jobs is about to be asked for.
    pub fn relist_begins(&self) {
        let mut state = self.state.write();
        let deleted = std::mem::take(&mut state.deleted);
        state.deleted_before_relist.extend(deleted);
        state.created_since_relist.clear();
        state.relisting = true;
    }

    /// The list that was begun: what is not in it is gone, but for what was created meanwhile. Returns the transitions
    /// and the jobs that are gone, each to be forgotten as one of [`Index::job_gone`].
    pub fn relisted(&self, jobs: Vec<Job>) -> (Vec<Transition>, Vec<JobName>) {
        let listed: HashSet<&JobName> = jobs.iter().map(|job| &job.name).collect();
        let mut state = self.state.write();
        state.deleted_before_relist.clear();
        let created_since_relist = std::mem::take(&mut state.created_since_relist);
        state.relisting = false;
        let is_gone =
            |name: &JobName| !listed.contains(name) && !created_since_relist.contains(name);
        let gone: Vec<JobName> = state
            .jobs
            .keys()
            .filter(|name| is_gone(name))
            .cloned()
            .collect();
        let no_longer_hidden: Vec<JobName> = state
            .hidden
            .keys()
            .filter(|name| is_gone(name))
            .cloned()
            .collect();
        for name in no_longer_hidden {
            state.hidden.remove(&name);
        }
        for name in &gone {
            if let Some(record) = state.take(name) {
                state.part_with(&record);
            }
        }
        (
            jobs.into_iter().filter_map(|job| state.put(job)).collect(),
            gone,
        )
    }

    /// The backend reports an attempt of a job, which need not be known yet.
    pub fn attempt_seen(&self, job: &JobName, attempt: Attempt) {
        self.state.write().change_attempts(job, |attempts| {
            match attempts.iter_mut().find(|known| known.name == attempt.name) {
                Some(known) if known.version >= attempt.version => {}
                Some(known) => *known = attempt,
                None => attempts.push(attempt),
            }
            sort(attempts);
        });
    }

    /// The backend reports that an attempt is gone. How a finished one ended stays known while its job is.
    pub fn attempt_gone(&self, job: &JobName, attempt: &str) {
        let mut state = self.state.write();
        let known = state.jobs.contains_key(job);
        state.change_attempts(job, |attempts| {
            attempts.retain(|one| &*one.name != attempt || (known && one.state.is_finished()));
        });
    }

    /// All attempts there are.
    pub fn attempts_relisted(&self, attempts: Vec<(JobName, Attempt)>) {
        let mut by_job: HashMap<JobName, Vec<Attempt>> = HashMap::new();
        for (job, attempt) in attempts {
            by_job.entry(job).or_default().push(attempt);
        }
        by_job.values_mut().for_each(|attempts| sort(attempts));
        let mut state = self.state.write();
        for (name, record) in &mut state.jobs {
            let listed = by_job.remove(name).unwrap_or_default();
            if record.attempts != listed {
                Arc::make_mut(record).attempts = listed;
            }
        }
        state.alone = by_job;
    }
}

fn sort(attempts: &mut [Attempt]) {
    attempts.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
}

impl State {
    /// Jobs that run, may run, or are about to.
    fn busy(&self) -> usize {
        let lives =
            |attempts: &[Attempt]| attempts.iter().any(|attempt| !attempt.state.is_finished());
        let alone = self
            .alone
            .iter()
            .filter(|(name, attempts)| lives(attempts) && !self.ghosts.contains(name));
        self.running + self.reserved.running + self.ghosts.len() + alone.count()
    }

    fn uses_payload(&self, owner: &JobName) -> bool {
        self.payload_uses.contains_key(owner)
            || self
                .jobs
                .values()
                .any(|record| record.job.payload_of.as_ref() == Some(owner))
    }

    /// Takes in a job unless it was deleted or a newer version of it is here.
    fn put(&mut self, job: Job) -> Option<Transition> {
        if self.deleted.contains(&job.name) || self.deleted_before_relist.contains(&job.name) {
            return None;
        }
        if self.discarded.names.contains(&job.name) {
            self.unwanted.push(job.name);
            return None;
        }
        if job.hidden {
            self.take(&job.name);
            self.hidden.insert(job.name.clone(), job);
            return None;
        }
        if self
            .jobs
            .get(&job.name)
            .is_some_and(|known| known.job.version >= job.version)
        {
            return None;
        }
        let (from, attempts) = match self.take(&job.name) {
            Some(known) => (Some(known.job.status), known.attempts.clone()),
            None => (None, self.alone.remove(&job.name).unwrap_or_default()),
        };
        self.ghosts.remove(&job.name);
        let to = job.status;
        let record = Arc::new(JobRecord { job, attempts });
        self.count(&record.job);
        self.jobs.insert(record.job.name.clone(), record.clone());
        (from != Some(to)).then_some(Transition { from, record })
    }

    fn take(&mut self, name: &JobName) -> Option<Arc<JobRecord>> {
        let record = self.jobs.remove(name)?;
        self.discount(&record.job);
        Some(record)
    }

    /// A job leaves: its attempts that go on count as running until their end is reported. Returns whether it may yet get
    /// one that is not known of, and counts as running for that.
    fn part_with(&mut self, record: &JobRecord) -> bool {
        let alive = record
            .attempts
            .iter()
            .filter(|attempt| !attempt.state.is_finished());
        let alive: Vec<Attempt> = alive.cloned().collect();
        if !alive.is_empty() {
            self.alone.insert(record.job.name.clone(), alive);
        }
        let may_start = record.job.status == Status::Running && record.attempts.is_empty();
        if may_start {
            self.ghosts.insert(record.job.name.clone());
        }
        may_start
    }

    /// What is counted of a job that comes in; [`State::discount`] is its mirror.
    fn count(&mut self, job: &Job) {
        self.unfinished += usize::from(!job.status.is_finished());
        self.running += usize::from(matches!(job.status, Status::Running | Status::Stopping));
        if let (Status::Waiting, Some(queued)) = (job.status, job.queued) {
            self.waiting.insert((queued, job.name.clone()));
        }
        if let Some(key) = job.key {
            self.count_key(key, &job.name);
        }
    }

    fn count_key(&mut self, key: RequestKey, name: &JobName) {
        let other = self.keys.get(&key.key).filter(|other| *other != name);
        let other_sent = other
            .and_then(|other| self.jobs.get(other))
            .and_then(|record| record.job.key);
        match (other.cloned(), other_sent) {
            (Some(_), Some(other_key)) if other_key.sent > key.sent => {
                self.unwanted.push(name.clone())
            }
            (Some(other), Some(_)) => {
                self.unwanted.push(other);
                self.keys.insert(key.key, name.clone());
            }
            _ => {
                self.keys.insert(key.key, name.clone());
            }
        }
    }

    fn discount(&mut self, job: &Job) {
        self.unfinished -= usize::from(!job.status.is_finished());
        self.running -= usize::from(matches!(job.status, Status::Running | Status::Stopping));
        if let Some(queued) = job.queued {
            self.waiting.remove(&(queued, job.name.clone()));
        }
        if let Some(key) = job
            .key
            .filter(|key| self.keys.get(&key.key) == Some(&job.name))
        {
            self.keys.remove(&key.key);
        }
    }

    fn change_attempts(&mut self, job: &JobName, change: impl FnOnce(&mut Vec<Attempt>)) {
        match self.jobs.get_mut(job) {
            Some(record) => change(&mut Arc::make_mut(record).attempts),
            None => {
                let mut attempts = self.alone.remove(job).unwrap_or_default();
                change(&mut attempts);
                if !attempts.is_empty() {
                    self.alone.insert(job.clone(), attempts);
                }
            }
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let reserved = &mut self.index.state.write().reserved;
        match self.runs {
            true => reserved.running -= 1,
            false => reserved.waiting -= 1,
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.state.write().reserved.running -= 1;
    }
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        self.index.state.write().creating.remove(&self.name);
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.index.state.write().going.remove(&self.name);
    }
}

impl Drop for PayloadUse<'_> {
    fn drop(&mut self) {
        let mut state = self.index.state.write();
        if let Some(uses) = state.payload_uses.get_mut(&self.owner) {
            *uses -= 1;
            if *uses == 0 {
                state.payload_uses.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::AttemptState;

    use crate::job::Status::{Failed, Running, Stopped, Stopping, Succeeded, Waiting};

    fn name(text: &str) -> JobName {
        JobName::parse(text).unwrap()
    }

    fn job(name: &str, status: Status, version: u64) -> Job {
        Job::sample(name, status, version)
    }

    fn attempt(name: &str, state: AttemptState, version: u64) -> Attempt {
        Attempt::sample(name, state, version)
    }

    fn queued(name: &str, priority: i8, arrival: u64) -> Job {
        Job {
            queued: Some(Queued { priority, arrival }),
            ..job(name, Waiting, 1)
        }
    }

    fn unbounded() -> Index {
        Index::new(Bounds {
            unfinished: 99,
            running: 0,
            waiting: 99,
        })
    }

    fn capped(running: usize) -> Index {
        Index::new(Bounds {
            unfinished: 99,
            running,
            waiting: 3,
        })
    }

    fn names(index: &Index) -> String {
        index
            .list()
            .iter()
            .map(|r| format!("{}:{}", r.job.name, r.job.status))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_created_job_is_not_undone_by_an_older_report() {
        let index = unbounded();
        index.created(job("a", Succeeded, 5));
        assert_eq!(index.job_seen(job("a", Running, 4)), None);
        assert_eq!(names(&index), "a:Succeeded");
    }

    #[test]
    fn a_report_before_the_creators_answer_is_not_undone_by_it() {
        let index = unbounded();
        index.job_seen(job("a", Succeeded, 7));
        assert_eq!(index.created(job("a", Running, 5)).job.status, Succeeded);
    }

    #[test]
    fn a_deleted_job_stays_out_until_it_is_reported_gone() {
        let index = unbounded();
        index.created(job("a", Running, 1));
        index.deleted(&name("a"));
        assert_eq!(index.job_seen(job("a", Failed, 2)), None);
        assert_eq!(names(&index), "");
        index.job_gone(&name("a"));
        assert!(index.state.read().deleted.is_empty());
    }

    #[test]
    fn a_relist_leaves_no_ghosts_and_keeps_what_was_done_meanwhile() {
        let index = unbounded();
        for ghost in ["a", "b"] {
            index.job_seen(job(ghost, Running, 1));
        }
        index.relist_begins();
        index.created(job("new", Running, 3));
        index.deleted(&name("b"));
        let (_, gone) = index.relisted(vec![job("b", Running, 1), job("c", Failed, 2)]);
        assert_eq!(
            (names(&index).as_str(), gone),
            ("c:Failed new:Running", vec![name("a")])
        );
    }

    #[test]
    fn what_was_deleted_before_a_relist_needs_no_mark_after_it() {
        let index = unbounded();
        index.created(job("a", Running, 1));
        index.deleted(&name("a"));
        index.relist_begins();
        index.job_seen(job("a", Running, 2));
        assert_eq!(names(&index), "", "a report of before the relist");
        index.relisted(vec![]);
        assert!(
            index.state.read().deleted.is_empty()
                && index.state.read().deleted_before_relist.is_empty()
        );
    }

    #[test]
    fn a_discarded_job_is_unwanted_whenever_it_is_reported() {
        let index = capped(1);
        index.discarded(&name("a"));
        assert!(!index.reserve().ok().unwrap().runs, "it may run");
        index.forget(&name("a"));
        assert!(index.reserve().ok().unwrap().runs);
        for _ in 0..2 {
            assert_eq!(index.job_seen(job("a", Running, 1)), None);
            assert_eq!(index.take_unwanted(), [name("a")]);
            index.job_gone(&name("a"));
            index.relist_begins();
            index.relisted(vec![job("a", Running, 2)]);
            assert_eq!(index.take_unwanted(), [name("a")]);
        }
        assert_eq!(names(&index), "");
    }

    #[test]
    fn what_is_kept_of_jobs_that_are_not_here_is_bounded() {
        let index = unbounded();
        for number in 0..MAX_DISCARDED + 5 {
            index.discarded(&name(&format!("d-{number}")));
            index.forget(&name(&format!("d-{number}")));
            // Reported gone before the answer to its deletion.
            let done = name(&format!("j-{number}"));
            index.created(job(done.as_str(), Succeeded, 1));
            index.job_gone(&done);
            index.deleted(&done);
        }
        let state = index.state.read();
        assert_eq!(state.discarded.names.len(), MAX_DISCARDED);
        assert_eq!(state.discarded.order.len(), MAX_DISCARDED);
        assert!(state.deleted.is_empty() && state.created_since_relist.is_empty());
        assert!(state.ghosts.is_empty() && state.alone.is_empty());
    }

    #[test]
    fn transitions_are_told_once() {
        let index = unbounded();
        let told = |t: Option<Transition>| t.map(|t| (t.from, t.record.job.status));
        assert_eq!(
            told(index.job_seen(job("a", Running, 1))),
            Some((None, Running))
        );
        assert_eq!(told(index.job_seen(job("a", Running, 2))), None);
        assert_eq!(
            told(index.job_seen(job("a", Failed, 3))),
            Some((Some(Running), Failed))
        );
        assert_eq!(index.relisted(vec![job("a", Failed, 3)]), (vec![], vec![]));
    }

    #[test]
    fn attempts_may_come_before_their_job() {
        let index = unbounded();
        index.attempt_seen(&name("a"), attempt("p", AttemptState::Running, 1));
        index.job_seen(job("a", Running, 1));
        assert_eq!(index.get(&name("a")).unwrap().attempts.len(), 1);
        assert!(index.state.read().alone.is_empty());
        index.attempt_seen(&name("b"), attempt("q", AttemptState::Running, 1));
        index.attempt_gone(&name("b"), "q");
        assert!(index.state.read().alone.is_empty());
    }

    #[test]
    fn how_a_finished_attempt_ended_outlives_its_pod() {
        let index = unbounded();
        index.job_seen(job("a", Running, 1));
        index.attempt_seen(&name("a"), attempt("p", AttemptState::Failed, 1));
        index.attempt_seen(&name("a"), attempt("q", AttemptState::Running, 1));
        index.attempt_gone(&name("a"), "p");
        index.attempt_gone(&name("a"), "q");
        assert_eq!(index.get(&name("a")).unwrap().attempts.len(), 1);
        index.attempts_relisted(vec![(name("a"), attempt("r", AttemptState::Running, 1))]);
        assert_eq!(&*index.get(&name("a")).unwrap().attempts[0].name, "r");
    }

    #[test]
    fn unfinished_jobs_are_bounded() {
        let index = Index::new(Bounds {
            unfinished: 2,
            running: 0,
            waiting: 0,
        });
        let first = index.reserve().ok().unwrap();
        index.created(job("a", Running, 1));
        drop(first);
        let second = index.reserve().ok().unwrap();
        assert_eq!(index.reserve().err(), Some(Full::Unfinished { limit: 2 }));
        drop(second);
        index.created(job("b", Running, 1));
        assert!(index.reserve().is_err());
        index.job_seen(job("a", Succeeded, 2));
        assert!(index.reserve().is_ok());
        index.deleted(&name("b"));
        index.relist_begins();
        index.relisted(vec![]);
        assert_eq!(index.state.read().unfinished, 0);
    }

    #[test]
    fn the_cap_counts_what_runs_and_what_is_about_to() {
        let index = capped(2);
        let first = index.reserve().ok().unwrap();
        let second = index.reserve().ok().unwrap();
        let third = index.reserve().ok().unwrap();
        assert_eq!((first.runs, second.runs, third.runs), (true, true, false));
        index.created(job("a", Running, 1));
        index.created(queued("c", 0, 1));
        drop((first, second, third));
        let (next, slot) = index.next_to_admit().unwrap();
        assert_eq!(next.job.name, name("c"));
        assert!(
            index.next_to_admit().is_none(),
            "the slot is taken while c is being admitted"
        );
        index.job_seen(job("c", Running, 2));
        drop(slot);
        assert!(!index.reserve().ok().unwrap().runs);
        index.job_seen(job("a", Stopping, 2));
        assert!(
            !index.reserve().ok().unwrap().runs,
            "a stopping job still runs"
        );
        index.job_seen(job("a", Stopped, 3));
        assert!(index.reserve().ok().unwrap().runs);
    }

    #[test]
    fn nobody_overtakes_the_queue() {
        let index = capped(1);
        index.created(queued("a", 0, 1));
        assert!(!index.reserve().ok().unwrap().runs);
        assert_eq!(index.next_to_admit().unwrap().0.job.name, name("a"));
    }

    #[test]
    fn the_queue_is_by_priority_then_arrival() {
        let index = capped(1);
        for (job, priority, arrival) in [("a", 0, 1), ("b", 0, 2), ("c", 5, 3), ("d", -5, 0)] {
            index.created(queued(job, priority, arrival));
        }
        let order: Vec<_> = index.queue().iter().map(JobName::to_string).collect();
        assert_eq!(order, ["c", "a", "b", "d"]);
        let places = [
            ("a", 0, 1),
            ("b", 0, 2),
            ("c", 5, 3),
            ("d", -5, 0),
            ("e", 0, 9),
        ]
        .map(|(job, priority, arrival)| index.position(&queued(job, priority, arrival)));
        assert_eq!(places, [Some(2), Some(3), Some(1), Some(4), None]);
        assert_eq!(index.position(&job("b", Running, 1)), None);
    }

    #[test]
    fn the_queue_is_bounded() {
        let index = capped(1);
        for (arrival, job) in (0..3).zip(["a", "b", "c"]) {
            index.created(queued(job, 0, arrival));
        }
        assert_eq!(index.reserve().err(), Some(Full::Waiting { limit: 3 }));
    }

    #[test]
    fn a_deleted_job_holds_its_slot_until_its_attempts_end() {
        let index = capped(1);
        index.created(job("a", Running, 1));
        index.attempt_seen(&name("a"), attempt("p", AttemptState::Running, 1));
        assert!(!index.deleted(&name("a")));
        assert!(!index.reserve().ok().unwrap().runs);
        index.attempt_seen(&name("a"), attempt("p", AttemptState::Failed, 2));
        assert!(index.reserve().ok().unwrap().runs);
        index.attempt_gone(&name("a"), "p");
        assert!(index.state.read().alone.is_empty());
    }

    #[test]
    fn a_job_deleted_before_its_pod_was_seen_holds_its_slot_until_it_is_forgotten() {
        let index = capped(1);
        index.created(job("a", Running, 1));
        assert!(index.deleted(&name("a")));
        assert!(!index.reserve().ok().unwrap().runs);
        index.forget(&name("a"));
        assert!(index.reserve().ok().unwrap().runs);
        index.may_exist(&name("b"));
        assert!(!index.reserve().ok().unwrap().runs);
        index.job_seen(job("b", Failed, 1));
        assert!(index.reserve().ok().unwrap().runs);
        // The same if others delete it, seen by the watch or by a list.
        index.job_seen(job("c", Running, 1));
        assert!(index.job_gone(&name("c")));
        assert!(!index.reserve().ok().unwrap().runs);
        index.forget(&name("c"));
        index.job_seen(job("d", Running, 1));
        index.relist_begins();
        assert!(index.relisted(vec![]).1.contains(&name("d")));
        assert!(!index.reserve().ok().unwrap().runs);
        index.forget(&name("d"));
        assert!(index.reserve().ok().unwrap().runs);
    }

    #[test]
    fn a_key_finds_its_job_while_that_is_kept() {
        let index = unbounded();
        index.created(Job {
            key: Some(RequestKey {
                key: 7,
                body: 1,
                sent: 0,
            }),
            ..job("a", Running, 1)
        });
        assert_eq!(index.by_key(7).unwrap().job.name, name("a"));
        index.job_seen(Job {
            key: Some(RequestKey {
                key: 7,
                body: 1,
                sent: 0,
            }),
            ..job("a", Failed, 2)
        });
        assert_eq!(index.by_key(7).unwrap().job.status, Failed);
        index.deleted(&name("a"));
        assert!(index.by_key(7).is_none() && index.state.read().keys.is_empty());
    }

    #[test]
    fn of_two_jobs_of_one_key_the_one_sent_later_counts() {
        let with_key = |name: &str, sent| Job {
            key: Some(RequestKey {
                key: 7,
                body: 1,
                sent,
            }),
            ..job(name, Running, 1)
        };
        for order in [["early", "late"], ["late", "early"]] {
            let index = unbounded();
            for name in order {
                index.job_seen(with_key(name, if name == "late" { 2 } else { 1 }));
            }
            assert_eq!(index.by_key(7).unwrap().job.name, name("late"), "{order:?}");
            assert_eq!(index.take_unwanted(), [name("early")]);
            assert_eq!(index.take_unwanted(), []);
            index.deleted(&name("early"));
            assert_eq!(index.by_key(7).unwrap().job.name, name("late"));
        }
    }

    #[test]
    fn a_hidden_job_is_kept_while_its_payload_is_used() {
        let index = unbounded();
        index.created(Job {
            payload_of: Some(name("a")),
            ..job("b", Running, 1)
        });
        index.created(job("a", Failed, 1));
        index.job_seen(Job {
            hidden: true,
            ..job("a", Failed, 2)
        });
        assert_eq!(names(&index), "b:Running");
        assert_eq!(index.hidden_and_unused(), []);
        let being_created = index.use_payload(&name("a"));
        index.deleted(&name("b"));
        assert_eq!(index.hidden_and_unused(), []);
        assert!(index.let_go(&name("a")).is_none());
        drop(being_created);
        assert_eq!(index.hidden_and_unused(), [name("a")]);
        let going = index.let_go(&name("a"));
        assert!(going.is_some() && index.use_payload(&name("a")).is_none());
        index.deleted(&name("a"));
        assert!(index.state.read().hidden.is_empty());
    }
}
