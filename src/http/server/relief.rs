//! One thread takes requests, so that those of a connection come in order, and answers them from memory. A client that does
//! not take its answer, or sends a body that is only read away, holds it up: then another takes its place, and it ends once
//! it is free. To make an answer may take long, too, and holds up nobody for it: two of them at once would take twice the
//! memory.

use super::Front;
use super::order::Turn;
use crate::sync::{Lock, spawn};
use std::cell::OnceCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How often the thread is looked after. One that is at the same answer at two looks is relieved.
const LOOK: Duration = Duration::from_millis(20);
/// Without an answer for so long it is not looked after until the next one.
const ACTIVE: Duration = Duration::from_secs(1);
/// Threads that take requests or are held up.
const MAX_READERS: usize = 256;

thread_local! {
    static POST: OnceCell<Arc<Post>> = const { OnceCell::new() };
}

/// Does what a client may hold up. The thread that takes requests is relieved meanwhile, if it takes long.
pub(super) fn held_up<T>(send: impl FnOnce() -> T) -> T {
    POST.with(|post| {
        let step = || post.get().into_iter().for_each(|post| post.step());
        step();
        let sent = send();
        step();
        sent
    })
}

/// The place of the thread that takes requests.
struct Post {
    /// Odd while it sends an answer.
    steps: AtomicU64,
    serving: Lock<Serving>,
    relieved: AtomicBool,
    /// The other thread looks no more.
    resting: Arc<AtomicBool>,
    watcher: Thread,
}

#[derive(Default)]
struct Serving {
    /// Whose request it is.
    peer: Option<SocketAddr>,
    /// Of one that holds it up: what else comes from there would hold up the next, too.
    turn: Option<Turn>,
}

impl Post {
    /// Sequentially consistent, here and in [`run`]: either this step is seen before the rest, or the rest here.
    fn step(&self) {
        self.steps.fetch_add(1, Ordering::SeqCst);
        if self.resting.load(Ordering::SeqCst) && self.resting.swap(false, Ordering::SeqCst) {
            self.watcher.unpark();
        }
    }
}

/// Has requests taken until the server stops, which is to be followed by an `unpark`.
pub(super) fn run(front: &Arc<Front>) {
    let resting = Arc::new(AtomicBool::new(false));
    let mut readers: Vec<JoinHandle<()>> = Vec::new();
    let mut last = 0;
    let mut begin = |readers: &mut Vec<JoinHandle<()>>| -> Arc<Post> {
        let post = Arc::new(Post {
            steps: AtomicU64::new(0),
            serving: Lock::default(),
            relieved: AtomicBool::new(false),
            resting: resting.clone(),
            watcher: std::thread::current(),
        });
        let (front, its) = (front.clone(), post.clone());
        let run = move || {
            POST.with(|post| {
                post.get_or_init(|| its.clone());
            });
            take_requests(&front, &its);
        };
        match spawn(format!("http-{last}"), run) {
            Ok(reader) => readers.push(reader),
            Err(e) => {
                log::error!("no thread to take requests: {e}");
                std::process::exit(1);
            }
        }
        last += 1;
        post
    };
    let mut post = begin(&mut readers);
    let (mut seen, mut changed) = (0, Instant::now());
    while !front.is_stopping() {
        let steps = post.steps.load(Ordering::SeqCst);
        if steps != seen {
            (seen, changed) = (steps, Instant::now());
        } else if steps % 2 == 1 {
            readers.retain(|reader| !reader.is_finished());
            if readers.len() < MAX_READERS {
                post.relieved.store(true, Ordering::Release);
                {
                    let mut serving = post.serving.lock();
                    serving.turn = serving.peer.map(|peer| Turn::begin(front, peer));
                }
                post = begin(&mut readers);
                seen = 0;
                log::debug!("event=relieved readers={}", readers.len());
            }
        } else if changed.elapsed() >= ACTIVE {
            resting.store(true, Ordering::SeqCst);
            if post.steps.load(Ordering::SeqCst) == seen && !front.is_stopping() {
                std::thread::park();
            }
            resting.store(false, Ordering::SeqCst);
            continue;
        }
        std::thread::sleep(LOOK);
    }
    for _ in &readers {
        front.inner.unblock();
    }
    for reader in readers {
        let _ = reader.join();
    }
}

fn take_requests(front: &Arc<Front>, post: &Post) {
    while !post.relieved.load(Ordering::Acquire) {
        match front.inner.recv() {
            Ok(request) => {
                post.serving.lock().peer = request.remote_addr().copied();
                front.take(request);
                let turn = {
                    let mut serving = post.serving.lock();
                    serving.peer = None;
                    serving.turn.take()
                };
                drop(turn);
            }
            Err(_) if front.is_stopping() => return,
            Err(_) if front.was_woken() => front.take_up(),
            Err(e) => {
                // tiny_http accepts no more after one failed accept: start again rather than listen in vain.
                log::error!("the server accepts no more connections: {e}");
                std::process::exit(1);
            }
        }
    }
}
