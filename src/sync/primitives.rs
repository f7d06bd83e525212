//! Where locks and threads come from: the standard library, or, with the feature `shuttle`, a scheduler that runs one
//! thread at a time and chooses at each of their steps which goes on, so that a test meets the orders it would not.

#[cfg(feature = "shuttle")]
use shuttle as source;
#[cfg(not(feature = "shuttle"))]
use std as source;

pub use condvar::{Condvar, wait, wait_timeout};
pub use source::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use source::thread;

#[cfg(not(feature = "shuttle"))]
mod condvar {
    use super::{Mutex, MutexGuard, PoisonError};
    pub use std::sync::Condvar;
    use std::sync::LockResult;
    use std::time::Duration;

    pub fn wait<'a, T>(
        condvar: &Condvar,
        _: &'a Mutex<T>,
        guard: MutexGuard<'a, T>,
    ) -> LockResult<MutexGuard<'a, T>> {
        condvar.wait(guard)
    }

    pub fn wait_timeout<'a, T>(
        condvar: &Condvar,
        _: &'a Mutex<T>,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<MutexGuard<'a, T>> {
        let guard = condvar.wait_timeout(guard, timeout);
        guard
            .map(|(guard, _)| guard)
            .map_err(|poisoned| PoisonError::new(poisoned.into_inner().0))
    }
}

/// Shuttle's own condition variable never times out.
#[cfg(feature = "shuttle")]
mod condvar {
    use super::{Mutex, MutexGuard, PoisonError, thread};
    use shuttle::rand::Rng;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, LockResult, Mutex as StdMutex};
    use std::time::Duration;

    #[derive(Default)]
    pub struct Condvar {
        waiters: StdMutex<Vec<Waiter>>,
    }

    struct Waiter {
        thread: thread::Thread,
        has_timeout: bool,
        is_woken: Arc<AtomicBool>,
    }

    impl Condvar {
        pub const fn new() -> Self {
            Condvar {
                waiters: StdMutex::new(Vec::new()),
            }
        }

        /// Wakes any one: which, is for the system to say.
        pub fn notify_one(&self) {
            self.wake(|waiters| {
                let count = waiters.len();
                let one = (count > 0).then(|| shuttle::rand::thread_rng().gen_range(0..count));
                one.map(|one| waiters.swap_remove(one))
                    .into_iter()
                    .collect()
            });
        }

        pub fn notify_all(&self) {
            self.wake(std::mem::take);
        }

        /// Time has passed: those that wait for no longer than that wake.
        pub fn time_out(&self) {
            self.wake(|waiters| {
                waiters
                    .extract_if(.., |waiter| waiter.has_timeout)
                    .collect()
            });
        }

        fn wake(&self, choose: impl FnOnce(&mut Vec<Waiter>) -> Vec<Waiter>) {
            // Others may run before.
            thread::sleep(Duration::ZERO);
            let woken = choose(&mut self.waiters.lock().unwrap_or_else(PoisonError::into_inner));
            for waiter in woken {
                waiter.is_woken.store(true, Ordering::SeqCst);
                waiter.thread.unpark();
            }
        }

        fn wait<'a, T>(
            &self,
            mutex: &'a Mutex<T>,
            guard: MutexGuard<'a, T>,
            has_timeout: bool,
        ) -> LockResult<MutexGuard<'a, T>> {
            // Others may run before this unlocks, and none from then until the thread parks.
            drop(guard);
            let is_woken = Arc::new(AtomicBool::new(false));
            let waiter = Waiter {
                thread: thread::current(),
                has_timeout,
                is_woken: is_woken.clone(),
            };
            let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
            waiters.push(waiter);
            drop(waiters);
            while !is_woken.load(Ordering::SeqCst) {
                thread::park();
            }
            mutex.lock()
        }
    }

    pub fn wait<'a, T>(
        condvar: &Condvar,
        mutex: &'a Mutex<T>,
        guard: MutexGuard<'a, T>,
    ) -> LockResult<MutexGuard<'a, T>> {
        condvar.wait(mutex, guard, false)
    }

    pub fn wait_timeout<'a, T>(
        condvar: &Condvar,
        mutex: &'a Mutex<T>,
        guard: MutexGuard<'a, T>,
        _: Duration,
    ) -> LockResult<MutexGuard<'a, T>> {
        condvar.wait(mutex, guard, true)
    }
}
