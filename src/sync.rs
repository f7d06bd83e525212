//! Locks whose poison is handled in one place, and threads whose death ends the process.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A mutex. What it guards is whole even after a panic, since no code of ours leaves it half changed across a call that
/// can panic; so a poisoned lock is used on.
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

    pub fn wait<'a>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wait_timeout<'a>(
        condvar: &Condvar,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> MutexGuard<'a, T> {
        condvar
            .wait_timeout(guard, timeout)
            .unwrap_or_else(PoisonError::into_inner)
            .0
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

/// Stack of our threads: none recurses deeply, and 30 of them at the platform's 8 MiB would look alarming.
const STACK_BYTES: usize = 512 * 1024;

/// Starts a named thread that the process cannot do without: if it panics, the process ends with exit code 1, so that
/// the platform starts it again. All state that matters is outside the process.
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

/// One at a time for each key: who comes second waits.
pub struct Turns<K> {
    taken: Lock<HashSet<K>>,
    freed: Condvar,
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
            freed: Condvar::new(),
        }
    }

    /// Waits for the key to be free; `None` if it is not within `timeout`.
    pub fn wait(&self, key: K, timeout: Duration) -> Option<Turn<'_, K>> {
        let deadline = Instant::now() + timeout;
        let mut taken = self.taken.lock();
        while taken.contains(&key) {
            let left = deadline.checked_duration_since(Instant::now())?;
            taken = Lock::wait_timeout(&self.freed, taken, left);
        }
        taken.insert(key);
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
        self.turns.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_turn_at_a_time() {
        let turns = Turns::new();
        let first = turns.wait(1, Duration::ZERO);
        assert!(first.is_some() && turns.wait(1, Duration::ZERO).is_none());
        assert!(turns.wait(2, Duration::ZERO).is_some());
        drop(first);
        assert!(turns.wait(1, Duration::ZERO).is_some());
    }
}
