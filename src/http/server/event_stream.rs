//! Events on their way to whoever follows the jobs.

use super::exchange::{Exchange, is_gone, send_all};
use crate::http::events::{COMMENT, END, Events, RETRY};
use crate::http::reply::Reply;
use crate::index::Follower;
use crate::scheduler::Scheduler;
use socket2::SockRef;
use std::io::{self, IoSlice, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// A reader that has nothing to read for so long is sent a comment.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// How often the client of a silent stream is looked for.
const LOOK: Duration = Duration::from_secs(2);
/// After some events: what changes meanwhile is sent together, and once.
const PAUSE: Duration = Duration::from_millis(20);
/// Events that are sent together.
const TOGETHER: usize = 32;
/// A reader that has not taken them, or a list, by then is slow, and is cut: at its next look at
/// the time, which it has after each write.
const TAKE_TIMEOUT: Duration = Duration::from_secs(15);
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// So much is on its way to a reader before it counts as slow.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// What a reader is given who does not know what there is.
#[derive(Clone, Copy)]
pub enum List {
    Jobs,
    /// Without their jobs.
    Batches,
}

/// Makes a list, and sends it.
type Lists<'a> = &'a dyn Fn(List, &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()>;

/// A reader of events.
pub struct Reader<'a> {
    pub scheduler: &'a Scheduler,
    pub events: &'a Events,
    pub follower: Follower<'a>,
}

impl Reader<'_> {
    /// Sends events until the client is gone or slow, or it is over.
    pub fn serve(&self, exchange: &mut Exchange, list: Lists, is_over: impl Fn() -> bool) {
        let stream = exchange.stream;
        // It ends when one of both goes.
        exchange.persists = false;
        let head = exchange.answer_head(&Reply::events());
        // Without them it is found to be slow later.
        let _ = SockRef::from(stream).set_send_buffer_size(SEND_BUFFER_BYTES);
        let _ = stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let last = exchange.head.value("Last-Event-ID");
        let last = last.and_then(|id| self.events.number(id));
        let mut sent = (&mut &*stream).write_all(head.as_bytes());
        if !exchange.head.is_head() {
            sent = sent
                .and_then(|()| send(stream, &[RETRY]))
                .and_then(|()| self.follow(stream, last, list, is_over));
        }
        if sent.is_err() {
            log::debug!("event=reader-cut");
        }
        // There is nothing more to be had of it either.
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn follow(
        &self,
        stream: &TcpStream,
        mut last: Option<u64>,
        list: Lists,
        is_over: impl Fn() -> bool,
    ) -> io::Result<()> {
        let mut sent = Instant::now();
        // Once for all: what a thread has had of many sizes, glibc keeps for it.
        let mut events = Vec::with_capacity(TOGETHER);
        loop {
            let rules = self.scheduler.batch_status_rules();
            let (follower, told) = (&self.follower, (rules, self.scheduler.now()));
            let known = last.and_then(|last| self.events.since(last, follower, told, &mut events));
            let Some(number) = known else {
                // Before the list is made: what changes meanwhile is told after it.
                let number = follower.last_change();
                // Who has the number has all.
                let batches = Events::head_without_id("batches");
                list(List::Batches, &mut |all| {
                    send(stream, &[&*batches, all, END])
                })?;
                let jobs = self.events.head(number, "list");
                list(List::Jobs, &mut |all| send(stream, &[&*jobs, all, END]))?;
                (last, sent) = (Some(number), Instant::now());
                continue;
            };
            if is_over() {
                return Ok(());
            }
            if !events.is_empty() {
                send(stream, &events)?;
                (last, sent) = (Some(number), Instant::now());
                let is_all = events.len() < TOGETHER;
                events.clear();
                if is_all {
                    thread::sleep(PAUSE);
                }
                continue;
            }
            if sent.elapsed() >= COMMENT_EVERY {
                send(stream, &[COMMENT])?;
                sent = Instant::now();
            }
            if is_gone(stream) {
                return Ok(());
            }
            let left = COMMENT_EVERY.saturating_sub(sent.elapsed());
            self.follower.wait(number, LOOK.min(left), &is_over);
        }
    }
}

/// At most [`TOGETHER`] parts.
fn send(stream: &TcpStream, parts: &[impl AsRef<[u8]>]) -> io::Result<()> {
    let mut slices = [IoSlice::new(&[]); TOGETHER];
    let mut count = 0;
    for (slice, part) in slices.iter_mut().zip(parts) {
        *slice = IoSlice::new(part.as_ref());
        count += 1;
    }
    send_all(
        stream,
        slices.get_mut(..count).unwrap_or_default(),
        TAKE_TIMEOUT,
    )
}
