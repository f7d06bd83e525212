//! The server: sockets, threads and bounds.
//!
//! In the order in which a request comes: [`listener`] has the socket; [`connections`] accepts, and
//! each connection has a thread; [`front`] has its body read and decides who answers. The
//! connection's own thread does from memory: at once, when a job has finished ([`waiting`]), or as
//! a log is written ([`log_stream`]) or jobs change ([`event_stream`]). A `write` thread does with
//! the backend. [`exchange`] sends the answer, [`body`] knows how a body ends, [`input`] has what
//! the client sends, and [`tiny`] says what a head is. Each knows only of those after it.

mod body;
mod connections;
mod event_stream;
mod exchange;
mod front;
mod input;
mod listener;
mod log_stream;
mod refused;
mod tiny;
mod waiting;

use super::guard::Guard;
use crate::scheduler::Scheduler;
use crate::sync::spawn;
use connections::Connections;
use front::Front;
pub use listener::{BindError, bind, bind_all};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Threads that call the backend: as many as clients that are to be served at full speed, since
/// each call is mostly waiting. With 32 clients, 16 threads made 0.80 as many jobs as the two
/// writes alone do, and 32 made 0.95 (measured). Each that is in use costs some 0.2 MB with its
/// connection; as the one that was idle for the shortest time goes first, few clients use few of
/// them.
pub const WRITERS: usize = 32;
/// A client that has not taken its answer by then, when the server stops, gets no more of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running server.
pub struct Server {
    connections: Arc<Connections>,
    writers: Vec<JoinHandle<()>>,
}

impl Server {
    /// Serves a scheduler on a listener from [`bind`].
    pub fn start(
        listener: TcpListener,
        scheduler: &Arc<Scheduler>,
        guard: &Guard,
    ) -> io::Result<Server> {
        let (front, calls) = Front::new(scheduler, guard);
        let mut writers = Vec::new();
        for number in 0..WRITERS {
            let calls = calls.clone();
            let run = move || {
                while let Some(call) = calls.take() {
                    call();
                }
            };
            writers.push(spawn(format!("write-{number}"), run)?);
        }
        let connections = Connections::new(listener, front);
        connections.start()?;
        Ok(Server {
            connections,
            writers,
        })
    }

    /// Answers on, and closes each connection with its answer: for the time in which the address is
    /// still known to some; who follows the jobs is let go. Then it is to be stopped.
    pub fn drain(&self) {
        self.connections.front.drain();
    }

    /// Takes no more requests, finishes those that were taken, and waits for the threads.
    pub fn stop(self) {
        self.connections.close(PATIENCE);
        // The writers end when the last of the others has let go of the front.
        drop(self.connections);
        for writer in self.writers {
            let _ = writer.join();
        }
    }
}
