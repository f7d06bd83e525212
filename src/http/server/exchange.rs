//! A request whose head has come, and its answer.

use super::tiny::Head;
use crate::http::guard::Guard;
use crate::http::reply::Reply;
use crate::http::route::{Route, RouteError, label};
use crate::metrics::Metrics;
use socket2::SockRef;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A client that takes nothing for so long is gone.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// So is one that has not taken an answer by then, however slowly it goes on.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// The header of an answer that nothing follows.
const CLOSE: &str = "Connection: close\r\n";

pub struct Exchange<'a> {
    pub head: Head,
    pub route: Result<Route, RouteError>,
    /// Comes back in a header, and stands in the log.
    id: String,
    pub began: Instant,
    /// Whether the connection goes on after the answer.
    pub persists: bool,
    pub stream: &'a TcpStream,
    metrics: &'a Metrics,
}

impl<'a> Exchange<'a> {
    pub fn begin(
        head: Head,
        guard: &Guard,
        stream: &'a TcpStream,
        metrics: &'a Metrics,
    ) -> Exchange<'a> {
        let route = match guard.check(head.hosts(), head.values("Origin")) {
            Ok(()) => Route::parse(head.method(), &head.target),
            Err(refusal) => Err(RouteError::Refused(refusal)),
        };
        let given = head.value("X-Request-Id").filter(|id| is_request_id(id));
        Exchange {
            route,
            id: given.map_or_else(new_id, str::to_string),
            began: Instant::now(),
            persists: !head.is_before_1_1() && !head.lists("Connection", "close"),
            head,
            stream,
            metrics,
        }
    }

    /// Answers, unless the client is gone: then there is no more to be had of the connection
    /// either.
    pub fn respond(&mut self, reply: Reply) {
        let mut reply = with_length(reply);
        let head = self.answer_head(&reply);
        if self.head.is_head() {
            reply.body.clear();
        }
        self.persists &= send(self.stream, head.as_bytes(), &reply.body).is_ok();
    }

    /// What comes before an answer's body, which is counted as answered with it.
    pub fn answer_head(&self, reply: &Reply) -> String {
        let took = self.began.elapsed();
        self.metrics.request(label(&self.route), reply.code, took);
        log::debug!(
            "request={} method={} path={} code={} ms={}",
            self.id,
            self.head.method(),
            self.head.target.split('?').next().unwrap_or_default(),
            reply.code,
            took.as_millis()
        );
        reply.head(&self.id, if self.persists { "" } else { CLOSE })
    }
}

/// Answers a client whose request has no head that could be read, or that there is no room for.
pub fn refuse(reply: Reply, stream: &TcpStream, metrics: &Metrics) {
    metrics.request("none", reply.code, Duration::ZERO);
    let reply = with_length(reply);
    // A client that is gone needs no answer.
    let _ = send(stream, reply.head(&new_id(), CLOSE).as_bytes(), &reply.body);
}

fn with_length(reply: Reply) -> Reply {
    let length = reply.body.len();
    reply.with("Content-Length", length)
}

fn send(stream: &TcpStream, head: &[u8], body: &[u8]) -> io::Result<()> {
    let mut parts = [IoSlice::new(head), IoSlice::new(body)];
    send_all(stream, &mut parts, ANSWER_TIMEOUT)
}

/// All of it in one write, if the socket takes it.
pub fn send_all(
    mut stream: &TcpStream,
    mut parts: &mut [IoSlice],
    timeout: Duration,
) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    while !parts.is_empty() {
        match stream.write_vectored(parts) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut parts, count),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if Instant::now() > deadline {
            return Err(ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// Whether a client has closed its side of the connection.
pub fn is_gone(stream: &TcpStream) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    match SockRef::from(stream).recv_with_flags(&mut byte, flags) {
        Ok(count) => count == 0,
        Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

/// One that nobody has had.
pub fn new_id() -> String {
    format!("{:016x}", fastrand::u64(..))
}

/// A caller's own request id is taken over if it can do no harm in a header or a log.
fn is_request_id(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&id.len()) && id.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_client_that_hangs_up_is_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        assert!(!is_gone(&stream));
        client.write_all(b"x").unwrap();
        while stream.peek(&mut [0]).unwrap() == 0 {}
        assert!(!is_gone(&stream), "it has sent more");
        let (client, _) = (
            TcpStream::connect(listener.local_addr().unwrap()).unwrap(),
            client,
        );
        let (stream, _) = listener.accept().unwrap();
        drop(client);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_gone(&stream) {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
    }
}
