//! The scheduler's only picture of the jobs: small records, bounded, read without asking the backend.
//!
//! Invariants: what this process created or deleted is here before its caller is answered, and no older report undoes
//! it; a relist is built aside and swapped in whole, so that it leaves no ghosts.

use crate::job::{Attempt, AttemptState, Job, JobName, JobRecord, Status};
use crate::sync::SharedLock;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// The jobs and their attempts. One writer path (what is observed, created, deleted), any number of readers.
pub struct Index {
    state: SharedLock<State>,
    max_unfinished: usize,
}

/// The index has as many unfinished jobs as it may.
#[derive(Debug, PartialEq)]
pub struct Full {
    pub limit: usize,
}

/// A place for one job to be created, given back when dropped.
pub struct Reservation<'a>(&'a Index);

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
    /// Attempts whose job has not been seen yet: pods and jobs are watched apart.
    early: HashMap<JobName, Vec<Attempt>>,
    /// Deleted here, and perhaps still reported: a report cannot bring one back.
    deleted: HashSet<JobName>,
    /// Those of `deleted` that were gone before the running relist began; its end proves them gone.
    deleted_before_relist: HashSet<JobName>,
    /// Created here since the last relist began, so that it may not know them.
    created_since_relist: HashSet<JobName>,
    unfinished: usize,
    reserved: usize,
}

impl Index {
    /// An empty index that takes at most `max_unfinished` unfinished jobs from [`Index::reserve`].
    pub fn new(max_unfinished: usize) -> Index {
        Index {
            state: SharedLock::new(State::default()),
            max_unfinished,
        }
    }

    pub fn get(&self, name: &JobName) -> Option<Arc<JobRecord>> {
        self.state.read().jobs.get(name).cloned()
    }

    /// All jobs, by name, which is by the second they were made in.
    pub fn list(&self) -> Vec<Arc<JobRecord>> {
        self.state.read().jobs.values().cloned().collect()
    }

    /// Takes a place for a job that is about to be created.
    pub fn reserve(&self) -> Result<Reservation<'_>, Full> {
        let mut state = self.state.write();
        if state.unfinished + state.reserved >= self.max_unfinished {
            return Err(Full {
                limit: self.max_unfinished,
            });
        }
        state.reserved += 1;
        Ok(Reservation(self))
    }

    /// A job was created here. Returns its record, which may already be newer.
    pub fn created(&self, job: Job) -> Arc<JobRecord> {
        let mut state = self.state.write();
        let name = job.name.clone();
        state.created_since_relist.insert(name.clone());
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

    /// A job was deleted here: it is out, whatever is still reported of it.
    pub fn deleted(&self, name: &JobName) {
        let mut state = self.state.write();
        state.take(name);
        state.early.remove(name);
        state.deleted.insert(name.clone());
    }

    /// The backend reports a job. Returns the transition if its status changed.
    pub fn job_seen(&self, job: Job) -> Option<Transition> {
        self.state.write().put(job)
    }

    /// The backend reports that a job is gone.
    pub fn job_gone(&self, name: &JobName) -> bool {
        let mut state = self.state.write();
        state.deleted.remove(name);
        state.take(name)
    }

    /// A list of all jobs is about to be asked for.
    pub fn relist_begins(&self) {
        let mut state = self.state.write();
        let deleted = std::mem::take(&mut state.deleted);
        state.deleted_before_relist.extend(deleted);
        state.created_since_relist.clear();
    }

    /// The list that was begun: what is not in it is gone, but for what was created meanwhile. Returns the transitions.
    pub fn relisted(&self, jobs: Vec<Job>) -> Vec<Transition> {
        let mut state = self.state.write();
        state.deleted_before_relist.clear();
        let listed: HashSet<&JobName> = jobs.iter().map(|job| &job.name).collect();
        let gone: Vec<JobName> = state
            .jobs
            .keys()
            .filter(|name| !listed.contains(name) && !state.created_since_relist.contains(name))
            .cloned()
            .collect();
        for name in &gone {
            state.take(name);
        }
        jobs.into_iter().filter_map(|job| state.put(job)).collect()
    }

    /// The backend reports an attempt of a job, which need not be known yet.
    pub fn attempt_seen(&self, job: &JobName, attempt: Attempt) {
        let mut state = self.state.write();
        if !state.is_deleted(job) {
            state.change_attempts(job, |attempts| {
                match attempts.iter_mut().find(|known| known.name == attempt.name) {
                    Some(known) if known.version >= attempt.version => {}
                    Some(known) => *known = attempt,
                    None => attempts.push(attempt),
                }
                attempts.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
            });
        }
    }

    /// The backend reports that an attempt is gone. How a finished one ended stays known.
    pub fn attempt_gone(&self, job: &JobName, attempt: &str) {
        let ended =
            |state: AttemptState| matches!(state, AttemptState::Succeeded | AttemptState::Failed);
        let mut state = self.state.write();
        let known = state.jobs.contains_key(job);
        state.change_attempts(job, |attempts| {
            attempts.retain(|known_one| {
                &*known_one.name != attempt || (known && ended(known_one.state))
            });
        });
    }

    /// All attempts there are.
    pub fn attempts_relisted(&self, attempts: Vec<(JobName, Attempt)>) {
        let mut by_job: HashMap<JobName, Vec<Attempt>> = HashMap::new();
        for (job, attempt) in attempts {
            by_job.entry(job).or_default().push(attempt);
        }
        let mut state = self.state.write();
        state.early.clear();
        let names: Vec<JobName> = state.jobs.keys().cloned().collect();
        for name in names {
            let mut listed = by_job.remove(&name).unwrap_or_default();
            listed.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
            state.change_attempts(&name, |attempts| *attempts = listed);
        }
        by_job.retain(|name, _| !state.is_deleted(name));
        state.early = by_job;
    }
}

impl State {
    fn is_deleted(&self, name: &JobName) -> bool {
        self.deleted.contains(name) || self.deleted_before_relist.contains(name)
    }

    /// Takes in a job unless it was deleted or a newer version of it is here.
    fn put(&mut self, job: Job) -> Option<Transition> {
        if self.is_deleted(&job.name) {
            return None;
        }
        let (from, attempts) = match self.jobs.get(&job.name) {
            Some(known) if known.job.version >= job.version => return None,
            Some(known) => (Some(known.job.status), known.attempts.clone()),
            None => (None, self.early.remove(&job.name).unwrap_or_default()),
        };
        let (name, to) = (job.name.clone(), job.status);
        let record = Arc::new(JobRecord { job, attempts });
        self.jobs.insert(name, record.clone());
        self.unfinished += usize::from(!to.is_finished());
        self.unfinished -= usize::from(from.is_some_and(|from| !from.is_finished()));
        (from != Some(to)).then_some(Transition { from, record })
    }

    fn take(&mut self, name: &JobName) -> bool {
        let Some(record) = self.jobs.remove(name) else {
            return false;
        };
        self.unfinished -= usize::from(!record.job.status.is_finished());
        true
    }

    fn change_attempts(&mut self, job: &JobName, change: impl FnOnce(&mut Vec<Attempt>)) {
        match self.jobs.get_mut(job) {
            Some(record) => change(&mut Arc::make_mut(record).attempts),
            None => {
                let mut attempts = self.early.remove(job).unwrap_or_default();
                change(&mut attempts);
                if !attempts.is_empty() {
                    self.early.insert(job.clone(), attempts);
                }
            }
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.0.state.write().reserved -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Timestamp;

    fn name(text: &str) -> JobName {
        JobName::parse(text).unwrap()
    }

    fn job(text: &str, status: Status, version: u64) -> Job {
        Job {
            name: name(text),
            uid: "".into(),
            job_id: None,
            created: Timestamp(0),
            started: None,
            finished: None,
            status,
            message: "".into(),
            failed: 0,
            has_payload: false,
            version,
        }
    }

    fn attempt(text: &str, state: AttemptState, version: u64) -> Attempt {
        Attempt {
            name: text.into(),
            created: Timestamp(0),
            started: None,
            finished: None,
            state,
            exit_code: None,
            reason: "".into(),
            message: "".into(),
            image: "".into(),
            image_id: "".into(),
            restarts: 0,
            version,
        }
    }

    fn names(index: &Index) -> String {
        index
            .list()
            .iter()
            .map(|r| format!("{}:{}", r.job.name, r.job.status))
            .collect::<Vec<_>>()
            .join(" ")
    }

    use Status::{Failed, Running, Succeeded};

    #[test]
    fn a_created_job_is_not_undone_by_an_older_report() {
        let index = Index::new(9);
        index.created(job("a", Succeeded, 5));
        assert_eq!(index.job_seen(job("a", Running, 4)), None);
        assert_eq!(names(&index), "a:Succeeded");
    }

    #[test]
    fn a_report_before_the_creators_answer_is_not_undone_by_it() {
        let index = Index::new(9);
        index.job_seen(job("a", Succeeded, 7));
        assert_eq!(index.created(job("a", Running, 5)).job.status, Succeeded);
    }

    #[test]
    fn a_deleted_job_stays_out_until_it_is_reported_gone() {
        let index = Index::new(9);
        index.created(job("a", Running, 1));
        index.deleted(&name("a"));
        assert_eq!(index.job_seen(job("a", Failed, 2)), None);
        index.attempt_seen(&name("a"), attempt("p", AttemptState::Failed, 1));
        assert_eq!(names(&index), "");
        index.job_gone(&name("a"));
        assert!(index.state.read().deleted.is_empty() && index.state.read().early.is_empty());
    }

    #[test]
    fn a_relist_leaves_no_ghosts_and_keeps_what_was_done_meanwhile() {
        let index = Index::new(9);
        for ghost in ["a", "b"] {
            index.job_seen(job(ghost, Running, 1));
        }
        index.relist_begins();
        index.created(job("new", Running, 3));
        index.deleted(&name("b"));
        index.relisted(vec![job("b", Running, 1), job("c", Failed, 2)]);
        assert_eq!(names(&index), "c:Failed new:Running");
    }

    #[test]
    fn what_was_deleted_before_a_relist_needs_no_mark_after_it() {
        let index = Index::new(9);
        index.created(job("a", Running, 1));
        index.deleted(&name("a"));
        index.relist_begins();
        index.job_seen(job("a", Running, 2));
        assert_eq!(names(&index), "", "a report of before the relist");
        index.relisted(vec![]);
        assert!(!index.state.read().is_deleted(&name("a")));
    }

    #[test]
    fn transitions_are_told_once() {
        let index = Index::new(9);
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
        assert_eq!(index.relisted(vec![job("a", Failed, 3)]), []);
    }

    #[test]
    fn attempts_may_come_before_their_job() {
        let index = Index::new(9);
        index.attempt_seen(&name("a"), attempt("p", AttemptState::Running, 1));
        index.job_seen(job("a", Running, 1));
        assert_eq!(index.get(&name("a")).unwrap().attempts.len(), 1);
        assert!(index.state.read().early.is_empty());
        index.attempt_seen(&name("b"), attempt("q", AttemptState::Running, 1));
        index.attempt_gone(&name("b"), "q");
        assert!(index.state.read().early.is_empty());
    }

    #[test]
    fn how_a_finished_attempt_ended_outlives_its_pod() {
        let index = Index::new(9);
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
        let index = Index::new(2);
        let first = index.reserve().ok().unwrap();
        index.created(job("a", Running, 1));
        drop(first);
        let second = index.reserve().ok().unwrap();
        assert_eq!(index.reserve().err(), Some(Full { limit: 2 }));
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
}
