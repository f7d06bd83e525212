//! What must hold however the threads are interleaved.

use super::schedules::{Time, check};
use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

const SCHEDULES: usize = 2000;

#[test]
fn a_key_has_one_turn_at_a_time_and_all_get_theirs() {
    check(SCHEDULES, || {
        let (turns, clock) = (Turns::new(), Time::start().clock());
        let inside = [const { AtomicUsize::new(0) }; 2];
        let work = |key: usize| {
            let turn = turns.wait(key, Duration::from_secs(3600), &clock);
            assert!(turn.is_some(), "the turns before it were given back");
            assert_eq!(inside[key].fetch_add(1, Ordering::SeqCst), 0, "{key}");
            thread::yield_now();
            inside[key].fetch_sub(1, Ordering::SeqCst);
        };
        thread::scope(|scope| {
            for key in [0, 0, 0, 1] {
                scope.spawn(move || work(key));
            }
        });
        assert!(turns.taken.lock().is_empty());
    });
}

/// A thread may be woken by nobody, and a token that another has set for it is such a case.
fn wake_for_nothing(threads: &[Thread]) {
    for _ in 0..2 {
        threads.iter().for_each(Thread::unpark);
    }
}

#[test]
fn each_item_is_taken_once_and_then_all_are_let_go() {
    const CAPACITY: usize = 2;
    check(SCHEDULES, || {
        let (giver, taker) = handover(CAPACITY);
        let takers: Vec<_> = (0..3)
            .map(|_| {
                let taker = taker.clone();
                thread::spawn(move || std::iter::from_fn(|| taker.take()).collect::<Vec<u32>>())
            })
            .collect();
        let handles: Vec<Thread> = takers.iter().map(|t| t.thread().clone()).collect();
        let waker = thread::spawn(move || wake_for_nothing(&handles));
        let giver = Arc::new(giver);
        let givers: Vec<_> = [[0, 1, 2], [3, 4, 5]]
            .into_iter()
            .map(|items| {
                let (giver, taker) = (giver.clone(), taker.clone());
                thread::spawn(move || {
                    for item in items {
                        while let Err(same) = giver.give(item) {
                            assert_eq!(same, item);
                            thread::yield_now();
                        }
                        assert!(taker.0.state.lock().waiting.len() <= CAPACITY);
                    }
                })
            })
            .collect();
        drop(giver);
        for thread in givers.into_iter().chain([waker]) {
            thread.join().unwrap();
        }
        let mut all = Vec::new();
        for taker in takers {
            let taken = taker.join().unwrap();
            // First in, first out: what one gave in order, one cannot take in another.
            let of = |giver| taken.iter().filter(move |item| *item / 3 == giver);
            assert!(of(0).is_sorted() && of(1).is_sorted(), "{taken:?}");
            all.extend(taken);
        }
        all.sort_unstable();
        assert!(all.into_iter().eq(0..6));
        assert!(taker.0.state.lock().idle.is_empty());
    });
}

#[test]
fn no_item_waits_for_a_busy_thread_while_another_is_idle() {
    check(SCHEDULES, || {
        let (giver, taker) = handover(2);
        let both_have_one = Arc::new(shuttle::sync::Barrier::new(3));
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let (taker, both_have_one) = (taker.clone(), both_have_one.clone());
                thread::spawn(move || {
                    while taker.take().is_some() {
                        both_have_one.wait();
                    }
                })
            })
            .collect();
        // One alone: if all were woken, the other would find what it was not woken for.
        let first = [takers[0].thread().clone()];
        let waker = thread::spawn(move || wake_for_nothing(&first));
        for item in 0..2 {
            assert!(giver.give(item).is_ok());
            // One that stood there twice would be woken in vain, in another's stead.
            let line = giver.0.state.lock();
            let idle: HashSet<_> = line.idle.iter().map(Thread::id).collect();
            assert_eq!(idle.len(), line.idle.len());
        }
        waker.join().unwrap();
        both_have_one.wait();
        drop(giver);
        for taker in takers {
            taker.join().unwrap();
        }
    });
}
