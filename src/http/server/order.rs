//! One request of a connection at a time: what a client sends before its last request is answered is put aside.
//!
//! tiny_http hands over such a request at once, and then holds up whoever answers it until the one before is answered: two
//! connections with a request that waits for a job, and another behind it, would hold up all that is answered from memory.

use super::relief::held_up;
use super::{Exchange, Front, MAX_PARKED};
use crate::http::reply::Reply;
use crate::sync::Lock;
use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests of one connection that are put aside. The next one is refused when it is its turn, and ends the connection.
const MAX_ASIDE: usize = 16;

/// The connections that have an unanswered request which another thread than that of their next one is to answer.
#[derive(Default)]
pub struct Order {
    state: Lock<State>,
    /// How many there are, to know without the lock that there are none.
    open: AtomicUsize,
}

#[derive(Default)]
struct State {
    connections: HashMap<SocketAddr, Open>,
    /// Connections that have been answered and have more.
    ready: VecDeque<SocketAddr>,
}

#[derive(Default)]
struct Open {
    /// One, but for a moment.
    turns: usize,
    /// What the connection has sent since.
    behind: VecDeque<Next>,
}

enum Next {
    Serve(Box<Exchange>),
    /// An answer, and where it goes to. The request itself is not kept.
    Refuse(Box<dyn Write + Send>, Vec<u8>),
}

/// The unanswered request of a connection: the next one is taken up when this is dropped, which must be after the answer.
pub struct Turn {
    front: Arc<Front>,
    peer: SocketAddr,
}

impl Turn {
    /// A turn for a request that is handed to another thread, or held up. To be begun before the connection's next one is
    /// taken, so that it finds it.
    pub fn begin(front: &Arc<Front>, peer: SocketAddr) -> Turn {
        let order = &front.order;
        let mut state = order.state.lock();
        state.connections.entry(peer).or_default().turns += 1;
        order.open.store(state.connections.len(), Ordering::Release);
        Turn {
            front: front.clone(),
            peer,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let order = &self.front.order;
        let mut state = order.state.lock();
        let Some(open) = state.connections.get_mut(&self.peer) else {
            return;
        };
        open.turns -= 1;
        if open.turns > 0 {
            return;
        }
        if open.behind.is_empty() {
            state.connections.remove(&self.peer);
            order.open.store(state.connections.len(), Ordering::Release);
        } else {
            state.ready.push_back(self.peer);
            drop(state);
            self.front.wake();
        }
    }
}

impl Front {
    /// Puts a request aside if its connection has an unanswered one; else gives it back.
    pub(super) fn put_aside(&self, exchange: Exchange) -> Option<Exchange> {
        let order = &self.order;
        if order.open.load(Ordering::Acquire) == 0 {
            return Some(exchange);
        }
        let mut state = order.state.lock();
        let peer = exchange.request.remote_addr();
        let Some(open) = peer.and_then(|peer| state.connections.get_mut(peer)) else {
            return Some(exchange);
        };
        let behind = &mut open.behind;
        let parked = &self.scheduler.metrics().parked;
        let is_too_many = behind.len() >= MAX_ASIDE || parked.load(Ordering::Acquire) >= MAX_PARKED;
        // One with a body that is not read yet is the last of its connection until then.
        if !is_too_many || exchange.has_unread_body() {
            parked.fetch_add(1, Ordering::AcqRel);
            behind.push_back(Next::Serve(Box::new(exchange)));
            return None;
        }
        let (writer, bytes) = exchange.into_answer(&Reply::too_many_aside(), &self.scheduler);
        if !matches!(behind.back(), Some(Next::Refuse(..))) {
            behind.push_back(Next::Refuse(writer, bytes));
        }
        // Those after it get no answer: nothing is kept of them, and to drop a writer that wrote nothing holds up nobody.
        None
    }

    /// Takes up the next request of a connection that has been answered.
    pub(super) fn take_up(self: &Arc<Self>) {
        let order = &self.order;
        let (turn, next) = {
            let mut state = order.state.lock();
            let Some(peer) = state.ready.pop_front() else {
                return;
            };
            let open = state.connections.entry(peer).or_default();
            open.turns += 1;
            let next = open.behind.pop_front();
            let front = self.clone();
            (Turn { front, peer }, next)
        };
        match next {
            Some(Next::Serve(mut exchange)) => {
                self.scheduler
                    .metrics()
                    .parked
                    .fetch_sub(1, Ordering::AcqRel);
                exchange.turn = Some(turn);
                self.dispatch(*exchange);
            }
            Some(Next::Refuse(mut writer, bytes)) => {
                // A client that is gone needs no answer.
                let _ = held_up(|| writer.write_all(&bytes).and_then(|()| writer.flush()));
                drop(writer);
                drop(turn);
            }
            None => {}
        }
    }
}
