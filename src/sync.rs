//! Locks whose poison is handled in one place, threads whose death ends the process, and how work
//! is handed to them.

#[cfg(test)]
#[cfg(feature = "shuttle")]
mod interleavings;
mod primitives;
#[cfg(test)]
#[cfg(feature = "shuttle")]
pub mod schedules;

pub use primitives::Condvar;
pub use primitives::{RwLockReadGuard as ReadGuard, RwLockWriteGuard as WriteGuard};

use crate::clock::Clock;
use primitives::thread::{self, Thread};
use primitives::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// A mutex. What it guards is whole even after a panic, since no code of ours leaves it half
/// changed across a call that can panic; so a poisoned lock is used on.
#[derive(Default)]
pub struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub const fn new(value: T) -> Self {
        Lock(Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub fn into_inner(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unlocks until it is notified, or for no reason.
    pub fn wait<'a>(&'a self, condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        primitives::wait(condvar, &self.0, guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Lock::wait`], for `timeout` at most.
    pub fn wait_timeout<'a>(
        &'a self,
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> MutexGuard<'a, T> {
        primitives::wait_timeout(condvar, &self.0, guard, timeout)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lock for one writer path and many readers; poison as in [`Lock`].
pub struct SharedLock<T>(RwLock<T>);

impl<T> SharedLock<T> {
    pub const fn new(value: T) -> Self {
        SharedLock(RwLock::new(value))
    }

    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that was made of what it is kept with, and is cleared when that changes. A copy has
/// none: who makes one is about to change it.
pub struct Memo<T>(Lock<Option<Arc<T>>>);

impl<T> Memo<T> {
    pub fn get(&self) -> Option<Arc<T>> {
        self.0.lock().clone()
    }

    pub fn set(&self, value: Arc<T>) {
        *self.0.lock() = Some(value);
    }

    pub fn clear(&self) {
        *self.0.lock() = None;
    }
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Memo(Lock::new(None))
    }
}

impl<T> Clone for Memo<T> {
    fn clone(&self) -> Self {
        Memo::default()
    }
}

/// Of equals the same can be made.
impl<T> PartialEq for Memo<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> fmt::Debug for Memo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memo")
    }
}

/// Stack of our threads: none recurses deeply, and 50 of them at the platform's 8 MiB would look
/// alarming. It is addresses, and little memory: a thread uses what its calls need.
pub const STACK_BYTES: usize = 512 * 1024;

/// Starts a named thread that the process cannot do without: if it panics, the process ends with
/// exit code 1, so that the platform starts it again. All state that matters is outside the
/// process.
pub fn spawn(
    name: impl Into<String>,
    run: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let name = name.into();
    std::thread::Builder::new()
        .name(name.clone())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
                log::error!("thread={name} died, and the scheduler cannot go on without it");
                std::process::exit(1);
            }
        })
}

/// How often who waits for a turn looks whether it has come.
const TURN_LOOK: Duration = Duration::from_millis(5);

/// One at a time for each key: who comes second waits.
pub struct Turns<K> {
    taken: Lock<HashSet<K>>,
}

/// A turn, given back when dropped.
pub struct Turn<'a, K: Copy + Eq + Hash> {
    turns: &'a Turns<K>,
    key: K,
}

impl<K: Copy + Eq + Hash> Turns<K> {
    pub fn new() -> Self {
        Turns {
            taken: Lock::new(HashSet::new()),
        }
    }

    /// Waits for the key to be free; `None` if it is not within `timeout`.
    pub fn wait(&self, key: K, timeout: Duration, clock: &Clock) -> Option<Turn<'_, K>> {
        let deadline = clock.instant() + timeout;
        while !self.taken.lock().insert(key) {
            if clock.instant() >= deadline {
                return None;
            }
            // Two requests of one key at a time are rare, so that looking again now and then costs
            // nothing.
            clock.sleep(TURN_LOOK);
        }
        Some(Turn { turns: self, key })
    }
}

impl<K: Copy + Eq + Hash> Default for Turns<K> {
    fn default() -> Self {
        Turns::new()
    }
}

impl<K: Copy + Eq + Hash> Drop for Turn<'_, K> {
    fn drop(&mut self) {
        self.turns.taken.lock().remove(&self.key);
    }
}

/// A way to hand work to a group of threads, of which at most `capacity` waits in line.
///
/// The thread that became idle last is woken first, and no other with it: where there is little to
/// do, few threads do it, and only their stacks and connections are in use.
pub fn handover<T>(capacity: usize) -> (Giver<T>, Taker<T>) {
    let shared = Arc::new(Handover {
        state: Lock::new(Line {
            waiting: VecDeque::new(),
            idle: Vec::new(),
            is_closed: false,
        }),
        capacity,
    });
    (Giver(shared.clone()), Taker(shared))
}

/// The end of those who hand over. Dropped, it lets the takers go once they have taken what waits.
pub struct Giver<T>(Arc<Handover<T>>);

/// The end of the threads that do the work, each with a clone.
pub struct Taker<T>(Arc<Handover<T>>);

struct Handover<T> {
    state: Lock<Line<T>>,
    capacity: usize,
}

struct Line<T> {
    waiting: VecDeque<T>,
    /// Threads that found nothing and were not woken since, the latest last.
    idle: Vec<Thread>,
    is_closed: bool,
}

impl<T> Giver<T> {
    /// Gives the item back if as many wait as may.
    pub fn give(&self, item: T) -> Result<(), T> {
        let mut line = self.0.state.lock();
        if line.waiting.len() >= self.0.capacity {
            return Err(item);
        }
        line.waiting.push_back(item);
        let woken = line.idle.pop();
        drop(line);
        if let Some(thread) = woken {
            thread.unpark();
        }
        Ok(())
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        let mut line = self.0.state.lock();
        line.is_closed = true;
        let idle = std::mem::take(&mut line.idle);
        drop(line);
        idle.iter().for_each(Thread::unpark);
    }
}

impl<T> Clone for Taker<T> {
    fn clone(&self) -> Self {
        Taker(self.0.clone())
    }
}

impl<T> Taker<T> {
    /// Waits for an item; `None` once nothing waits and nobody can hand over more.
    pub fn take(&self) -> Option<T> {
        let this = thread::current();
        let mut line = self.0.state.lock();
        loop {
            // Whoever is woken may find that a thread which was about to be idle was faster.
            if let Some(item) = line.waiting.pop_front() {
                return Some(item);
            }
            if line.is_closed {
                return None;
            }
            line.idle.push(this.clone());
            drop(line);
            thread::park();
            line = self.0.state.lock();
            // It may have been woken by nobody.
            line.idle.retain(|thread| thread.id() != this.id());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_turn_at_a_time() {
        let (turns, clock) = (Turns::new(), Clock::real());
        let wait = |key| turns.wait(key, Duration::ZERO, &clock);
        let first = wait(1);
        assert!(first.is_some() && wait(1).is_none());
        assert!(wait(2).is_some());
        drop(first);
        assert!(wait(1).is_some());
    }

    /// Threads that take until there is no more, and what each of them is told of what it took.
    fn takers(taker: &Taker<u32>, count: usize) -> Vec<JoinHandle<Vec<u32>>> {
        let run = |taker: Taker<u32>| move || std::iter::from_fn(|| taker.take()).collect();
        let takers = std::iter::repeat_with(|| std::thread::spawn(run(taker.clone())));
        takers.take(count).collect()
    }

    fn wait_for_idle(giver: &Giver<u32>, count: usize) {
        while giver.0.state.lock().idle.len() < count {
            thread::yield_now();
        }
    }

    #[test]
    fn what_is_too_much_to_wait_is_given_back() {
        let (giver, taker) = handover(2);
        assert_eq!(
            [1, 2, 3].map(|item| giver.give(item)),
            [Ok(()), Ok(()), Err(3)]
        );
        assert_eq!(taker.take(), Some(1));
        assert_eq!(giver.give(4), Ok(()));
    }

    #[test]
    fn what_waits_is_taken_although_nobody_can_hand_over_more() {
        let (giver, taker) = handover(2);
        giver.give(1).and(giver.give(2)).unwrap();
        drop(giver);
        let taken = std::iter::from_fn(|| taker.take());
        assert_eq!(taken.collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn idle_takers_end_with_the_giver() {
        let (giver, taker) = handover(1);
        let threads = takers(&taker, 3);
        wait_for_idle(&giver, 3);
        drop(giver);
        for thread in threads {
            assert!(thread.join().unwrap().is_empty());
        }
    }

    #[test]
    fn who_became_idle_last_is_woken_first() {
        let (giver, taker) = handover(1);
        let mut threads = takers(&taker, 1);
        wait_for_idle(&giver, 1);
        threads.extend(takers(&taker, 1));
        for item in 1..=3 {
            wait_for_idle(&giver, 2);
            giver.give(item).unwrap();
        }
        // Whoever is let go may else be faster than the one that was woken.
        wait_for_idle(&giver, 2);
        drop(giver);
        let taken: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(taken, [vec![], vec![1, 2, 3]]);
    }

    #[test]
    fn each_item_is_taken_once_by_any_number_of_threads() {
        let (giver, taker) = handover(8);
        let threads = takers(&taker, 4);
        for item in 0..10_000 {
            while giver.give(item).is_err() {
                thread::yield_now();
            }
        }
        drop(giver);
        let taken = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap());
        let mut taken: Vec<_> = taken.collect();
        taken.sort_unstable();
        assert!(taken.into_iter().eq(0..10_000));
    }
}
