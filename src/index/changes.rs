//! What has changed of the jobs, for those who follow them: names, by the number of their last
//! change. A follower is given each job as it is when it looks, so that it may skip what has been
//! overtaken, is never given an older state after a newer one, and costs nothing while it is slow.
//! A batch changes with each of its jobs.
//!
//! Numbers are given under the index's own lock, with the change.

use super::Index;
use super::state::State;
use crate::job::{Attempt, Job, JobName, JobRecord, RareFields, Status};
use crate::sync::{Condvar, Lock, ReadGuard, SharedLock, WriteGuard};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU64;
use std::ops::{Bound, Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The last changes that are told of. Who knows none of them is given a list, which is about as
/// much as so many.
const MAX_KEPT: usize = 4096;
/// Who may follow the changes at once.
pub const MAX_FOLLOWERS: usize = 64;
/// Of the queue, so many from its front are told as their places change.
const PLACES: usize = 100;
/// Places change with every job that leaves the queue: they are told no more often than this.
const PLACES_EVERY: Duration = Duration::from_secs(1);

/// A job or a batch that has changed.
pub struct Changed<'a> {
    /// Of its last change: grows over all of them.
    pub number: u64,
    pub name: &'a JobName,
    /// `None` if it is gone. That of a batch stands for it.
    pub record: Option<&'a Arc<JobRecord>>,
    state: &'a State,
}

impl Changed<'_> {
    /// Its place in the queue, from 1; `None` if the queue does not hold it.
    pub fn position(&self) -> Option<usize> {
        self.state.position(&self.record?.job)
    }

    /// The jobs of a batch, in their order.
    pub fn jobs(&self) -> Vec<Arc<JobRecord>> {
        self.state.jobs_of(self.name)
    }
}

/// The jobs that have changed last, by the number of their last change: each once, the last
/// [`MAX_KEPT`].
#[derive(Default)]
pub(super) struct Changes {
    last: u64,
    names: BTreeMap<u64, JobName>,
    /// Of those that are gone, and in `names`; a job that is there has its own
    /// ([`JobRecord::changed`]).
    numbers: HashMap<JobName, u64>,
    /// The last number that was forgotten: who knows no later one has missed something.
    forgotten: u64,
    /// The first places in the queue, as they were told last, and when.
    places: Vec<(usize, JobName)>,
    places_told: Option<Instant>,
    /// The queue has moved since.
    places_moved: bool,
}

impl Changes {
    /// The job has changed, whose change before had the number `known`.
    fn note(&mut self, name: &JobName, known: Option<NonZeroU64>) -> Option<NonZeroU64> {
        self.last += 1;
        let known = known.map(NonZeroU64::get);
        if let Some(known) = known.or_else(|| self.numbers.remove(name)) {
            self.names.remove(&known);
        }
        self.names.insert(self.last, name.clone());
        if self.names.len() > MAX_KEPT
            && let Some((oldest, name)) = self.names.pop_first()
        {
            self.numbers.remove(&name);
            self.forgotten = oldest;
        }
        // With it its place is told as it is now, which may not be the one that was told last.
        self.places.retain(|(_, told)| told != name);
        NonZeroU64::new(self.last)
    }

    /// The job is gone.
    fn note_gone(&mut self, name: &JobName, known: Option<NonZeroU64>) {
        self.note(name, known);
        self.numbers.insert(name.clone(), self.last);
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        assert!(self.numbers.len() <= self.names.len());
        self.names.len()
    }

    /// What followers are to be called for, if it changes.
    fn seen(&self) -> (u64, bool) {
        (self.last, self.places_moved)
    }

    /// What was seen of a job before and after a change, `None` where there was nothing to see.
    /// `known` is the number of its change before; returns that of its last.
    pub fn compare(
        &mut self,
        name: &JobName,
        known: Option<NonZeroU64>,
        before: Option<Sight>,
        after: Option<Sight>,
    ) -> Option<NonZeroU64> {
        self.places_moved |= before.and_then(|s| s.place) != after.and_then(|s| s.place);
        if !Sight::is_news(before, after) {
            return known;
        }
        if after.is_none() {
            self.note_gone(name, known);
            return None;
        }
        self.note(name, known)
    }
}

/// Digests of what users see of a job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sight {
    state: u64,
    /// Its place in a queue, which changes with other jobs.
    place: Option<u64>,
}

impl Sight {
    /// Whether something else is seen of a job than before, its place in a queue aside.
    pub fn is_news(before: Option<Sight>, after: Option<Sight>) -> bool {
        before.map(|sight| sight.state) != after.map(|sight| sight.state)
    }

    /// `None` for a job that is out of sight. Each field is named, so that one that is new is thought
    /// of.
    pub fn of(record: Option<&JobRecord>) -> Option<Sight> {
        let record = record.filter(|record| record.is_told())?;
        let JobRecord {
            job,
            attempts,
            notice,
            awaits_batch: _,
            is_whole: _,
            is_early: _,
            shown: _,
            changed: _,
            progress,
        } = record;
        let Job {
            name: _,
            uid,
            job_id,
            created,
            started,
            finished,
            status,
            suspension: _,
            is_suspension_earlier: _,
            retries: _,
            arrival: _,
            failed,
            has_payload: _,
            queued,
            key: _,
            is_rerun: _,
            hidden: _,
            progress: _,
            version: _,
            rare,
        } = job;
        let RareFields {
            message,
            payload_of: _,
            position,
            urls,
            restarted,
            restart_of,
            batch: _,
        } = &**rare;
        let waits = *status == Status::Waiting && (queued.is_some() || position.is_some());
        let mut state = DefaultHasher::new();
        (uid, job_id, created, started, finished, status).hash(&mut state);
        (failed, urls, restarted, restart_of, notice, progress).hash(&mut state);
        // A backend's own queue says with it what the job waits for.
        Some(message).filter(|_| !waits).hash(&mut state);
        for attempt in attempts {
            let Attempt {
                name,
                job_uid: _,
                created,
                started,
                finished,
                state: attempt_state,
                is_over: _,
                is_certain: _,
                exit_code,
                result,
                reason,
                message,
                image,
                image_id,
                restarts,
                version: _,
            } = attempt;
            (name, created, started, finished, attempt_state).hash(&mut state);
            (exit_code, result, reason, message).hash(&mut state);
            (image, image_id, restarts).hash(&mut state);
        }
        let mut place = DefaultHasher::new();
        (queued.map(|q| (q.priority, q.arrival)), position, message).hash(&mut place);
        Some(Sight {
            state: state.finish(),
            place: waits.then(|| place.finish()),
        })
    }
}

impl State {
    /// What is told of a job or a batch that is there has changed, beside its record.
    fn note(&mut self, name: &JobName) {
        if let Some(record) = self.jobs.get_mut(name) {
            let record = Arc::make_mut(record);
            record.changed = self.changes.note(name, record.changed);
        }
    }

    /// What is told of one of a batch's jobs has changed, and so of the batch, if it is in sight.
    pub(super) fn note_batch(&mut self, batch: &JobName) {
        let whole = self.jobs.get(batch);
        if whole.is_some_and(|whole| whole.job.batch() == Some(true)) {
            self.note(batch);
        }
    }

    /// Tells those of the first places in the queue that are other jobs' than when they were told
    /// last.
    fn tell_places(&mut self, now: Instant) {
        let queue = self.waiting.iter().map(|(_, name)| name.clone());
        let mut places: Vec<(usize, JobName)> = (1..=PLACES).zip(queue).collect();
        let of_backend = self.jobs.values().filter_map(|record| {
            let job = &record.job;
            let position = job.rare.position.filter(|_| record.is_seen())?;
            (position <= PLACES).then(|| (position, job.name.clone()))
        });
        places.extend(of_backend);
        let told = std::mem::take(&mut self.changes.places);
        for (_, name) in places.iter().filter(|place| !told.contains(place)) {
            self.note(name);
        }
        self.changes.places = places;
        self.changes.places_moved = false;
        self.changes.places_told = Some(now);
    }
}

/// One who is told of changes, until it is dropped.
pub struct Follower<'a> {
    index: &'a Index,
}

impl Index {
    /// Follows the changes. `None` if as many do as may: [`MAX_FOLLOWERS`].
    pub fn follow(&self) -> Option<Follower<'_>> {
        let follower = Follower { index: self };
        let others = self.state.bell.followers.fetch_add(1, Ordering::SeqCst);
        (others < MAX_FOLLOWERS).then_some(follower)
    }

    pub fn followers(&self) -> usize {
        self.state.bell.followers.load(Ordering::SeqCst)
    }

    /// Time alone has changed what is said of a running job: that it has no attempt.
    pub fn remark(&self, name: &JobName) {
        let mut state = self.state.write();
        let is_alone = |r: &Arc<JobRecord>| {
            r.job.status == Status::Running && r.attempts.is_empty() && r.is_seen()
        };
        if state.jobs.get(name).is_some_and(is_alone) {
            state.note(name);
        }
    }

    /// Has the followers that wait look up.
    pub fn call_followers(&self) {
        self.state.bell.ring();
    }
}

impl Follower<'_> {
    /// The number of the last change.
    pub fn last_change(&self) -> u64 {
        self.index.state.read().changes.last
    }

    /// Looks at the jobs and batches that have changed after this number, by the number of their
    /// last change: the first `limit` of them. In `look` nothing of the index may be called.
    /// Returns the number up to which all is known then; `None` for who has missed something, or is
    /// ahead of all there was.
    pub fn changed_since(
        &self,
        number: u64,
        limit: usize,
        mut look: impl FnMut(Changed),
    ) -> Option<u64> {
        let state = &*self.index.state.read();
        let Changes {
            names,
            forgotten,
            last,
            ..
        } = &state.changes;
        if !(forgotten..=last).contains(&&number) {
            return None;
        }
        let (mut known, later) = (number, (Bound::Excluded(number), Bound::Unbounded));
        for (number, name) in names.range(later).take(limit) {
            known = *number;
            look(Changed {
                number: *number,
                name,
                record: state.jobs.get(name).filter(|record| record.is_told()),
                state,
            });
        }
        Some(known)
    }

    /// Waits until something has changed after this number, until `is_over`, for `timeout`, or for
    /// no reason.
    pub fn wait(&self, number: u64, timeout: Duration, is_over: impl Fn() -> bool) {
        let index = self.index;
        // Before the look, so that nothing is missed.
        let rung = index.state.bell.rung();
        let now = index.clock.instant();
        let places_due = self.places_due(now);
        if places_due.is_some_and(|due| due <= now) {
            index.state.write().tell_places(now);
        }
        if is_over() || self.last_change() > number {
            return;
        }
        let until_due = places_due.map(|due| due.saturating_duration_since(now));
        let timeout = timeout.min(until_due.unwrap_or(timeout));
        index.state.bell.wait(rung, timeout);
    }

    /// When the places in the queue are to be told, if they have moved.
    fn places_due(&self, now: Instant) -> Option<Instant> {
        let changes = &self.index.state.read().changes;
        let due = changes.places_told.map_or(now, |told| told + PLACES_EVERY);
        changes.places_moved.then_some(due)
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        let bell = &self.index.state.bell;
        bell.followers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The state of an index. Followers are called once a write of it that changed something is
/// unlocked.
pub(super) struct Followed {
    state: SharedLock<State>,
    bell: Bell,
}

#[derive(Default)]
struct Bell {
    followers: AtomicUsize,
    count: Lock<u64>,
    changed: Condvar,
}

impl Bell {
    /// How often it has rung.
    fn rung(&self) -> u64 {
        *self.count.lock()
    }

    fn ring(&self) {
        *self.count.lock() += 1;
        self.changed.notify_all();
    }

    /// Waits until it rings again.
    fn wait(&self, rung: u64, timeout: Duration) {
        let count = self.count.lock();
        if *count == rung && !timeout.is_zero() {
            drop(self.count.wait_timeout(&self.changed, count, timeout));
        }
    }
}

impl Followed {
    pub fn new(state: State) -> Followed {
        Followed {
            state: SharedLock::new(state),
            bell: Bell::default(),
        }
    }

    pub fn read(&self) -> ReadGuard<'_, State> {
        self.state.read()
    }

    pub fn write(&self) -> Writing<'_> {
        let state = self.state.write();
        Writing {
            before: state.changes.seen(),
            state,
            call: Call {
                bell: &self.bell,
                is_due: false,
            },
        }
    }
}

/// A write. Its fields are dropped in their order: unlocked first, called then.
pub(super) struct Writing<'a> {
    before: (u64, bool),
    state: WriteGuard<'a, State>,
    call: Call<'a>,
}

struct Call<'a> {
    bell: &'a Bell,
    is_due: bool,
}

impl Deref for Writing<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Writing<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.call.is_due = self.state.changes.seen() != self.before;
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.is_due && self.bell.followers.load(Ordering::SeqCst) > 0 {
            self.bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_before_it_rings_does_not_wait() {
        let (bell, began) = (Bell::default(), Instant::now());
        let rung = bell.rung();
        bell.ring();
        bell.wait(rung, Duration::from_secs(60));
        assert!(began.elapsed() < Duration::from_secs(30));
        bell.wait(bell.rung(), Duration::ZERO);
    }

    #[test]
    fn who_is_not_called_waits_for_the_time() {
        let (bell, began) = (Bell::default(), Instant::now());
        // It may wake for no reason, if seldom.
        let waits = (0..20).map(|_| {
            let began = Instant::now();
            bell.wait(bell.rung(), Duration::from_millis(20));
            began.elapsed() >= Duration::from_millis(20)
        });
        assert!(waits.filter(|waited| *waited).count() > 10);
        assert!(began.elapsed() >= Duration::from_millis(200));
    }

    #[test]
    fn the_last_changes_are_kept_and_no_more() {
        let (mut changes, kept) = (Changes::default(), MAX_KEPT as u64);
        for number in 1..=kept + 2 {
            let name = JobName::parse(&format!("j{number}")).unwrap();
            changes.note_gone(&name, None);
            assert_eq!(changes.forgotten, number.saturating_sub(kept));
        }
        assert_eq!(changes.len(), MAX_KEPT);
    }
}
