//! Keys to reconcile: deduplicated while queued, one worker at a time for a key, delayed and
//! retried with backoff.
//!
//! Invariants, as in client-go's workqueue: a key is in `order` at most once; a key that is added
//! while a worker has it is handed out again when that worker is done, never to a second worker
//! meanwhile.

#[cfg(test)]
#[cfg(feature = "shuttle")]
mod interleavings;

use crate::clock::Clock;
use crate::sync::{Condvar, Lock};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A blocking queue of keys, shared by any number of producers and workers.
pub struct Queue<K> {
    state: Lock<State<K>>,
    changed: Condvar,
    clock: Clock,
}

/// Which keys go first.
pub trait Urgency {
    fn is_urgent(&self) -> bool;
}

impl<K: Clone + Ord + Hash + Urgency> Queue<K> {
    pub fn new(clock: Clock) -> Self {
        Queue {
            state: Lock::new(State::new()),
            changed: Condvar::new(),
            clock,
        }
    }

    /// Asks for `key` to be reconciled soon.
    pub fn add(&self, key: K) {
        self.state.lock().add(key);
        self.changed.notify_one();
    }

    /// Asks for `key` to be reconciled once `delay` has passed.
    pub fn add_after(&self, key: K, delay: Duration) {
        let due = self.clock.instant() + delay;
        self.state.lock().add_at(key, due);
        self.changed.notify_one();
    }

    /// Waits for a key; `None` when the queue is closed. The caller must say [`Queue::done`] or
    /// [`Queue::retry`] of it.
    pub fn take(&self) -> Option<K> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            let now = self.clock.instant();
            if let Some(key) = state.take(now) {
                let is_more = state.ready() > 0 || state.next_due().is_some();
                drop(state);
                // Those that wait may have been notified of this key alone, or of one that was due
                // before the next.
                if is_more {
                    self.changed.notify_one();
                }
                return Some(key);
            }
            state = match state.next_due() {
                Some(due) => {
                    let left = due.saturating_duration_since(now);
                    self.state.wait_timeout(&self.changed, state, left)
                }
                None => self.state.wait(&self.changed, state),
            };
        }
    }

    /// A key that is due, without waiting for one. What is said of [`Queue::take`] holds.
    pub fn try_take(&self) -> Option<K> {
        self.state.lock().take(self.clock.instant())
    }

    /// When a key is due, if one is in the queue.
    pub fn next_due(&self) -> Option<Instant> {
        let state = self.state.lock();
        match state.ready() {
            0 => state.next_due(),
            _ => Some(self.clock.instant()),
        }
    }

    /// The key is reconciled; its failures are forgotten.
    pub fn done(&self, key: &K) {
        // The worker itself comes for the next one.
        self.state.lock().done(key);
    }

    /// The key could not be reconciled: it comes again, later each time, with jitter.
    pub fn retry(&self, key: K) {
        let (now, jitter) = (self.clock.instant(), self.clock.jitter());
        self.state.lock().retry(key, now, jitter);
        self.changed.notify_one();
    }

    /// Lets every worker go.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

struct State<K> {
    /// Keys to hand out, in order, the urgent ones and the others; never one that is in
    /// `processing`.
    order: [VecDeque<K>; 2],
    /// Keys that wait to be handed out: all of `order`, and those of `processing` that were added
    /// again.
    dirty: HashSet<K>,
    /// Keys that a worker has.
    processing: HashSet<K>,
    /// Keys that become dirty at a time, each once.
    delayed: BTreeSet<(Instant, K)>,
    /// When each of `delayed` does.
    due: HashMap<K, Instant>,
    /// Failures in a row.
    failures: HashMap<K, u32>,
    closed: bool,
}

impl<K: Clone + Ord + Hash + Urgency> State<K> {
    fn new() -> Self {
        State {
            order: [VecDeque::new(), VecDeque::new()],
            dirty: HashSet::new(),
            processing: HashSet::new(),
            delayed: BTreeSet::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            closed: false,
        }
    }

    fn add(&mut self, key: K) {
        if self.dirty.insert(key.clone()) && !self.processing.contains(&key) {
            self.hand_out(key);
        }
    }

    fn hand_out(&mut self, key: K) {
        let [urgent, others] = &mut self.order;
        match key.is_urgent() {
            true => urgent.push_back(key),
            false => others.push_back(key),
        }
    }

    /// How many keys are to be handed out.
    fn ready(&self) -> usize {
        self.order.iter().map(VecDeque::len).sum()
    }

    /// The earliest time that is asked for counts: whoever comes then may ask again.
    fn add_at(&mut self, key: K, due: Instant) {
        match self.due.get(&key) {
            Some(known) if *known <= due => return,
            Some(known) => drop(self.delayed.remove(&(*known, key.clone()))),
            None => {}
        }
        self.due.insert(key.clone(), due);
        self.delayed.insert((due, key));
    }

    fn take(&mut self, now: Instant) -> Option<K> {
        while self.next_due().is_some_and(|due| due <= now) {
            if let Some((_, key)) = self.delayed.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
        let [urgent, others] = &mut self.order;
        let key = urgent.pop_front().or_else(|| others.pop_front())?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone());
        Some(key)
    }

    fn next_due(&self) -> Option<Instant> {
        self.delayed.first().map(|(due, _)| *due)
    }

    fn done(&mut self, key: &K) {
        self.failures.remove(key);
        self.release(key);
    }

    fn retry(&mut self, key: K, now: Instant, jitter: f64) {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let backoff = FIRST_BACKOFF
            .saturating_mul(1 << (*failures).min(16))
            .min(MAX_BACKOFF);
        *failures += 1;
        self.release(&key);
        self.add_at(key, now + backoff.mul_f64(0.5 + jitter / 2.0));
    }

    fn release(&mut self, key: &K) {
        self.processing.remove(key);
        if self.dirty.contains(key) {
            self.hand_out(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Urgency for &str {
        fn is_urgent(&self) -> bool {
            self.starts_with('!')
        }
    }

    #[test]
    fn urgent_keys_go_first() {
        let (mut queue, now) = (State::new(), Instant::now());
        for key in ["a", "!b", "c", "!d"] {
            queue.add(key);
        }
        let taken = [(); 5].map(|()| queue.take(now));
        assert_eq!(taken, [Some("!b"), Some("!d"), Some("a"), Some("c"), None]);
    }

    #[test]
    fn a_key_is_queued_once() {
        let (mut queue, now) = (State::new(), Instant::now());
        queue.add("a");
        queue.add("b");
        queue.add("a");
        assert_eq!(
            (queue.take(now), queue.take(now), queue.take(now)),
            (Some("a"), Some("b"), None)
        );
    }

    #[test]
    fn a_key_added_while_processed_comes_again_when_its_worker_is_done() {
        let (mut queue, now) = (State::new(), Instant::now());
        queue.add("a");
        queue.take(now);
        queue.add("a");
        assert_eq!(queue.take(now), None);
        queue.done(&"a");
        assert_eq!(queue.take(now), Some("a"));
        queue.done(&"a");
        assert_eq!(queue.take(now), None);
    }

    #[test]
    fn a_failed_key_comes_later_each_time_until_it_succeeds() {
        let (mut queue, mut now) = (State::new(), Instant::now());
        queue.add("a");
        let mut waits = Vec::new();
        for _ in 0..12 {
            queue.take(now);
            queue.retry("a", now, 1.0);
            assert_eq!(queue.take(now), None);
            let due = queue.next_due().unwrap();
            waits.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(waits[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(waits.last(), Some(&30_000));
        queue.take(now);
        queue.done(&"a");
        assert!(
            queue.failures.is_empty() && queue.processing.is_empty() && queue.next_due().is_none()
        );
    }

    #[test]
    fn a_delayed_key_waits_for_its_time() {
        let (mut queue, now) = (State::new(), Instant::now());
        let soon = now + Duration::from_secs(1);
        queue.add_at("a", soon);
        assert_eq!(queue.take(now), None);
        assert_eq!(queue.take(soon), Some("a"));
    }

    #[test]
    fn of_several_times_for_a_key_the_earliest_counts() {
        let (mut queue, now) = (State::new(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        for seconds in [5, 3, 9, 3] {
            queue.add_at("a", at(seconds));
        }
        assert_eq!(queue.take(at(2)), None);
        assert_eq!(queue.take(at(3)), Some("a"));
        queue.done(&"a");
        assert_eq!((queue.take(at(20)), queue.next_due()), (None, None));
        assert!(queue.due.is_empty());
    }

    #[test]
    fn closing_lets_workers_go() {
        let queue = std::sync::Arc::new(Queue::<&str>::new(Clock::real()));
        let worker = std::thread::spawn({
            let queue = queue.clone();
            move || queue.take()
        });
        queue.close();
        assert_eq!(worker.join().unwrap(), None);
    }
}
