//! What must hold however the threads are interleaved.

use super::*;
use crate::sync::schedules::{Time, check};
use shuttle::sync::Barrier;
use shuttle::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

const SCHEDULES: usize = 1000;

impl Urgency for usize {
    fn is_urgent(&self) -> bool {
        *self == 0
    }
}

/// A queue, and what is known of each of its keys.
struct World<const KEYS: usize> {
    queue: Queue<usize>,
    time: Arc<Time>,
    /// How often each is to be added.
    adds: usize,
    /// How often each was, counted before it is.
    added: [AtomicUsize; KEYS],
    /// What its last worker saw of that.
    seen: [AtomicUsize; KEYS],
    at_work: [AtomicUsize; KEYS],
}

impl<const KEYS: usize> World<KEYS> {
    fn new(adds: usize) -> Self {
        let time = Time::start();
        World {
            queue: Queue::new(time.clock()),
            time,
            adds,
            added: [const { AtomicUsize::new(0) }; KEYS],
            seen: [const { AtomicUsize::new(0) }; KEYS],
            at_work: [const { AtomicUsize::new(0) }; KEYS],
        }
    }

    fn add(&self, key: usize, delay: Duration) {
        self.added[key].fetch_add(1, SeqCst);
        match delay.is_zero() {
            true => self.queue.add(key),
            false => self.queue.add_after(key, delay),
        }
    }

    /// Works until no key has anything left that no worker saw, which lets all go. What `is_done` is not of is retried.
    fn work(&self, is_done: impl Fn(usize) -> bool) {
        while let Some(key) = self.queue.take() {
            assert_eq!(self.at_work[key].fetch_add(1, SeqCst), 0, "{key}");
            let seen = self.added[key].load(SeqCst);
            let is_done = is_done(key);
            thread::yield_now();
            self.at_work[key].fetch_sub(1, SeqCst);
            if !is_done {
                self.queue.retry(key);
                continue;
            }
            self.seen[key].fetch_max(seen, SeqCst);
            self.queue.done(&key);
            if self.seen.iter().all(|seen| seen.load(SeqCst) == self.adds) {
                self.queue.close();
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.queue.state.lock().closed
    }

    fn let_time_pass(&self) {
        while !self.is_closed() {
            self.queue.let_time_pass(&self.time);
        }
    }
}

impl<K: Clone + Ord + Hash + Urgency> Queue<K> {
    /// Nothing happens until the next key is due, if one is to come.
    pub fn let_time_pass(&self, time: &Time) {
        if let Some(due) = self.next_due() {
            time.reach(due);
            self.changed.time_out();
        }
        thread::yield_now();
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_key_that_is_added_reaches_a_worker_later_and_never_two_at_once() {
    check(SCHEDULES, || {
        let world = World::<2>::new(2);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| world.work(|_| true));
            }
            for keys in [[0, 1], [1, 0]] {
                let world = &world;
                scope.spawn(move || keys.map(|key| world.add(key, Duration::ZERO)));
            }
        });
    });
}

#[test]
fn a_key_that_is_delayed_or_retried_reaches_a_worker_later_and_never_two_at_once() {
    check(SCHEDULES, || {
        let world = World::<2>::new(2);
        let failed = [const { AtomicUsize::new(0) }; 2];
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| world.work(|key| failed[key].fetch_add(1, SeqCst) > 0));
            }
            for adds in [[(0, 0), (1, 2)], [(1, 1), (0, 1)]] {
                let world = &world;
                scope.spawn(move || adds.map(|(key, delay)| world.add(key, SECOND * delay)));
            }
            scope.spawn(|| world.let_time_pass());
        });
    });
}

/// Each key is worked on twice, and ends its work when the others are worked on, too; so a key that nobody is woken for
/// holds up all.
fn check_all_are_worked_on_at_once(delay: fn(usize) -> Duration) {
    const KEYS: usize = 2;
    let world = World::<KEYS>::new(2);
    let barrier = Barrier::new(KEYS);
    thread::scope(|scope| {
        for _ in 0..KEYS {
            scope.spawn(|| {
                world.work(|key| {
                    barrier.wait();
                    if world.added[key].load(SeqCst) < 2 {
                        world.add(key, delay(key));
                    }
                    true
                });
            });
        }
        (0..KEYS).for_each(|key| world.add(key, delay(key)));
        scope.spawn(|| world.let_time_pass());
    });
}

#[test]
fn no_key_waits_for_a_busy_worker_while_another_is_idle() {
    check(SCHEDULES, || {
        check_all_are_worked_on_at_once(|_| Duration::ZERO)
    });
}

#[test]
fn no_key_that_is_due_waits_for_a_busy_worker_while_another_is_idle() {
    check(SCHEDULES, || check_all_are_worked_on_at_once(|_| SECOND));
    check(SCHEDULES, || {
        check_all_are_worked_on_at_once(|key| SECOND * (1 + key as u32))
    });
}

#[test]
fn closing_lets_all_workers_go_whatever_is_left() {
    check(SCHEDULES, || {
        let world = World::<3>::new(usize::MAX);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| world.work(|key| key > 0));
            }
            scope.spawn(|| (0..3).for_each(|key| world.add(key, SECOND * (key as u32 / 2))));
            scope.spawn(|| world.queue.close());
        });
    });
}
