//! Keeps tiny_http awake: a connection to ourselves now and then.
//!
//! Two things in tiny_http 0.12 need it. Its thread pool takes a waiting thread for free until that thread has woken up, so
//! that of a burst of new connections some are queued behind others, and are served only when one of those is closed: with
//! clients that keep connections alive, for minutes. A new connection that ends at once makes a thread, which then serves
//! one of the queue. And the read timeout, which connections inherit from the listening socket, holds for `accept` too: a
//! server that nobody calls would end with it.

use crate::process;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// While requests come, a queued connection waits no longer than this.
const BEAT: Duration = Duration::from_millis(100);
/// Without requests for so long there is nobody to be queued behind.
const ACTIVE: Duration = Duration::from_secs(2);
/// Well below the connections' read timeout.
const IDLE_BEAT: Duration = Duration::from_secs(30);
/// An answer that takes longer comes from a queue, or from a busy machine: then a connection more does no harm.
const PROMPT: Duration = Duration::from_millis(25);
/// A beat takes no longer; the next one goes on.
const GIVE_UP: Duration = Duration::from_secs(2);

/// How the `http` thread tells the pulse that there is something to do.
#[derive(Default)]
pub struct Activity {
    requests: AtomicU64,
    resting: AtomicBool,
}

impl Activity {
    /// A request came.
    pub fn note(&self, pulse: &Thread) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if self.resting.load(Ordering::Relaxed) && self.resting.swap(false, Ordering::AcqRel) {
            pulse.unpark();
        }
    }
}

/// Beats until `stopping`, which is to be followed by an `unpark`.
pub fn run(listening: SocketAddr, activity: &Activity, stopping: &AtomicBool) {
    let own = reachable(listening);
    let mut seen = activity.requests.load(Ordering::Relaxed);
    let mut active = Instant::now();
    while !stopping.load(Ordering::Acquire) {
        if let Err(e) = beat(own) {
            log::warn!("the server cannot reach itself at {own}: {e}");
        }
        let requests = activity.requests.load(Ordering::Relaxed);
        if requests != seen {
            (seen, active) = (requests, Instant::now());
        }
        if active.elapsed() < ACTIVE {
            std::thread::sleep(BEAT);
        } else {
            activity.resting.store(true, Ordering::Release);
            std::thread::park_timeout(IDLE_BEAT);
            activity.resting.store(false, Ordering::Release);
        }
    }
}

/// The address at which a listener on `listening` is reached from here.
fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        // A socket for all IPv6 addresses serves IPv4 ones too, and not every machine has an IPv6 loopback.
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

/// Connects until a thread of the pool was there to wait for it: then none is queued. As long as all are taken, each
/// connection makes a thread, which serves it and then one of the queue, if there is any.
fn beat(own: SocketAddr) -> std::io::Result<()> {
    let deadline = Instant::now() + GIVE_UP;
    let mut threads = process::threads();
    while Instant::now() < deadline {
        let answered = connect(own)?;
        let now = process::threads();
        if answered && now <= threads {
            break;
        }
        threads = now;
    }
    Ok(())
}

/// Asks something that tiny_http answers by itself, with 400, and then closes. `false` if it was not answered promptly, as
/// when it came into the queue.
fn connect(own: SocketAddr) -> std::io::Result<bool> {
    let mut connection = TcpStream::connect_timeout(&own, GIVE_UP)?;
    connection.set_read_timeout(Some(PROMPT))?;
    connection.write_all(b"\r\n")?;
    let mut answer = [0; 64];
    loop {
        match connection.read(&mut answer) {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(false);
            }
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_reached_on_the_loopback_one() {
        let check = |listening: &str, expected: &str| {
            assert_eq!(reachable(listening.parse().unwrap()).to_string(), expected);
        };
        check("[::]:8000", "127.0.0.1:8000");
        check("0.0.0.0:8000", "127.0.0.1:8000");
        check("127.0.0.1:9000", "127.0.0.1:9000");
    }
}
