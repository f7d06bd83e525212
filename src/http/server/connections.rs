//! Connections: each has a thread, on which its requests are answered one after the other. So a
//! client that is slow to send, to wait or to take holds up nobody but itself.
//!
//! The threads accept connections themselves. As one takes a connection, it starts another if none
//! is left to accept the next: so there are as many as connections, and a few that are there before
//! theirs comes.

use super::exchange::{Exchange, SEND_TIMEOUT, refuse};
use super::front::Front;
use super::input::Input;
use super::refused::Refused;
use crate::http::reply::Reply;
use crate::process;
use crate::sync::{Condvar, Lock, STACK_BYTES};
use socket2::SockRef;
use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Connections at once, and no more than half of the files that may be open. Beyond, the one whose
/// client has said nothing for the longest time is closed for a new one.
const MAX_CONNECTIONS: usize = 4096;
/// Threads that are kept although nobody needs them: to start one takes longer than most requests.
const MAX_SPARE: usize = 16;
/// A client that is refused in the middle of its request is listened to for so long, or it might
/// not see why.
const LINGER: Duration = Duration::from_secs(5);
/// After a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(20);
/// While a request is served: in its time, not the client's.
const BUSY: u64 = u64::MAX;

pub struct Connections {
    listener: TcpListener,
    pub front: Front,
    state: Lock<State>,
    thread_ended: Condvar,
    began: Instant,
    /// In which second from the beginning it was told last that connections are refused.
    warned: AtomicU64,
    limit: usize,
}

#[derive(Default)]
struct State {
    /// By their file descriptors.
    open: HashMap<RawFd, Arc<Connection>>,
    /// All of them, and those among them that wait for a connection.
    threads: usize,
    accepting: usize,
}

struct Connection {
    stream: TcpStream,
    /// In milliseconds from the beginning, or [`BUSY`].
    idle_since: AtomicU64,
}

impl Connections {
    /// Accepts from `listener`, from [`Connections::start`] on.
    pub fn new(listener: TcpListener, front: Front) -> Arc<Connections> {
        Arc::new(Connections {
            listener,
            front,
            state: Lock::default(),
            thread_ended: Condvar::new(),
            began: Instant::now(),
            warned: AtomicU64::new(BUSY),
            limit: MAX_CONNECTIONS.min(process::file_limit() / 2),
        })
    }

    /// Starts a thread that accepts.
    pub fn start(self: &Arc<Self>) -> io::Result<()> {
        let connections = self.clone();
        let builder = thread::Builder::new().name("http".to_string());
        // Counted before it runs.
        let mut state = self.state.lock();
        builder
            .stack_size(STACK_BYTES)
            .spawn(move || connections.run())?;
        state.threads += 1;
        state.accepting += 1;
        Ok(())
    }

    /// Accepts and serves, until the server stops or enough others accept.
    fn run(self: &Arc<Self>) {
        while !self.front.is_stopping() {
            let Ok(stream) = self.accept().inspect_err(|e| self.make_room(e)) else {
                continue;
            };
            let connection = Arc::new(Connection {
                idle_since: AtomicU64::new(BUSY),
                stream,
            });
            let number = connection.stream.as_raw_fd();
            self.state.lock().open.insert(number, connection.clone());
            // A panic is that connection's alone.
            let _ = catch_unwind(AssertUnwindSafe(|| self.serve(&connection)));
            let mut state = self.state.lock();
            state.open.remove(&number);
            if state.accepting >= MAX_SPARE {
                break;
            }
            state.accepting += 1;
        }
        self.state.lock().threads -= 1;
        self.thread_ended.notify_all();
    }

    /// The next connection. This thread no longer accepts then, and another does.
    fn accept(self: &Arc<Self>) -> io::Result<TcpStream> {
        let (stream, _) = self.listener.accept()?;
        stream.set_write_timeout(Some(SEND_TIMEOUT))?;
        let was_last = {
            let mut state = self.state.lock();
            state.accepting -= 1;
            state.accepting == 0
        };
        if was_last {
            self.start()
                .inspect_err(|_| self.state.lock().accepting += 1)?;
        }
        Ok(stream)
    }

    /// Out of descriptors, threads or memory, or a client that has gone before it was accepted.
    fn make_room(&self, error: &io::Error) {
        if self.front.is_stopping() || error.kind() == io::ErrorKind::ConnectionAborted {
            return;
        }
        let second = self.now() / 1000;
        if self.warned.swap(second, Ordering::Relaxed) != second {
            log::warn!("event=refused a connection could not be served: {error}");
        }
        self.close_longest_idle();
        thread::sleep(PAUSE);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(0)
    }

    /// Answers a connection's requests until it is closed.
    fn serve(&self, connection: &Connection) {
        let (stream, metrics) = (&connection.stream, self.front.scheduler.metrics());
        if self.state.lock().open.len() > self.limit && !self.close_longest_idle() {
            return refuse(Reply::busy(), stream, metrics);
        }
        let mut input = Input::new(stream);
        let peer = self.front.guard.check_peer(stream);
        loop {
            connection.idle_since.store(self.now(), Ordering::SeqCst);
            if self.front.is_stopping() {
                return;
            }
            let head = peer.map_err(Refused::Stranger).and_then(|()| input.head());
            connection.idle_since.store(BUSY, Ordering::SeqCst);
            match head {
                Ok(None) => return,
                Ok(Some(head)) => {
                    let mut exchange = Exchange::begin(head, &self.front.guard, stream, metrics);
                    exchange.persists &= !self.front.closes_connections();
                    self.front.serve(&mut exchange, &mut input);
                    if exchange.persists {
                        continue;
                    }
                }
                Err(refused) => refuse(refused.into(), stream, metrics),
            }
            // Or what its client still sends would have the kernel take back the answer.
            connection.idle_since.store(self.now(), Ordering::SeqCst);
            if stream.shutdown(Shutdown::Write).is_ok() {
                input.read_away(LINGER);
            }
            return;
        }
    }

    /// Whether there was one.
    fn close_longest_idle(&self) -> bool {
        let state = self.state.lock();
        let connections = state.open.values();
        let longest = connections.min_by_key(|c| c.idle_since.load(Ordering::SeqCst));
        // Until its thread has seen that, it is not chosen again.
        longest.is_some_and(|c| {
            c.idle_since.swap(BUSY, Ordering::SeqCst) != BUSY
                && c.stream.shutdown(Shutdown::Both).is_ok()
        })
    }

    /// Closes those whose client says nothing, and the others after their answer, or after
    /// `patience`: then only calls of the backend go on to their end. Waits for that.
    pub fn close(&self, patience: Duration) {
        self.front.stop();
        // Wakes those that accept.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock();
        for connection in state.open.values() {
            if connection.idle_since.load(Ordering::SeqCst) != BUSY {
                // What has come is read; there is nothing after it.
                let _ = connection.stream.shutdown(Shutdown::Read);
            }
        }
        while state.threads > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                for connection in state.open.values() {
                    let _ = connection.stream.shutdown(Shutdown::Both);
                }
                state = self.state.wait(&self.thread_ended, state);
            } else {
                state = self.state.wait_timeout(&self.thread_ended, state, left);
            }
        }
    }
}
