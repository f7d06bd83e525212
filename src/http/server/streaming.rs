//! Logs on their way to whoever reads them, each on a thread of its own.

use super::{Exchange, Front};
use crate::backend::LogOptions;
use crate::http::reply::Reply;
use crate::logs::JobLog;
use crate::sync::spawn;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Logs that are sent at once.
const MAX_STREAMS: usize = 16;
/// How often the client of a silent log is looked for.
const PEER_CHECK: Duration = Duration::from_secs(2);

impl Front {
    pub(super) fn stream(self: &Arc<Self>, exchange: Exchange, name: String, options: LogOptions) {
        if self.streams.fetch_add(1, Ordering::AcqRel) >= MAX_STREAMS {
            self.streams.fetch_sub(1, Ordering::AcqRel);
            return exchange.respond(&Reply::too_many_logs(MAX_STREAMS), &self.scheduler);
        }
        let front = self.clone();
        let run = move || {
            front.send_log(exchange, &name, options);
            front.streams.fetch_sub(1, Ordering::AcqRel);
        };
        if let Err(e) = spawn("log", run) {
            // The request went with the thread that could not start, and its client sees the connection close.
            log::error!("no thread for a log: {e}");
            self.streams.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn send_log(&self, exchange: Exchange, name: &str, options: LogOptions) {
        let mut log = match JobLog::open(&self.scheduler, name, options) {
            Ok(log) => log,
            Err(e) => return exchange.respond(&e.into(), &self.scheduler),
        };
        let reply = Reply::log();
        exchange.record(&reply, &self.scheduler);
        let Exchange { request, id, .. } = exchange;
        let with_body = *request.method() != tiny_http::Method::Head;
        let framing = match *request.http_version() < tiny_http::HTTPVersion(1, 1) {
            true => Framing::Close,
            false => Framing::Chunked,
        };
        let peer = request.remote_addr().copied();
        let mut writer = request.into_writer();
        let head = reply.head(&id, framing.header());
        let mut send = || -> io::Result<()> {
            writer.write_all(head.as_bytes())?;
            writer.flush()?;
            if with_body {
                self.copy(&mut log, &mut writer, framing, peer)?;
            }
            Ok(())
        };
        // A client that is gone misses nothing.
        let _ = send();
    }

    /// Sends a log until it ends, its client is gone or the server stops.
    fn copy(
        &self,
        log: &mut JobLog,
        writer: &mut impl Write,
        framing: Framing,
        peer: Option<SocketAddr>,
    ) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        let mut checked = Instant::now();
        while !self.stopping.load(Ordering::Acquire) {
            match log.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    framing.write(writer, buffer.get(..count).unwrap_or_default())?;
                    writer.flush()?;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::TimedOut => {
                    if checked.elapsed() >= PEER_CHECK {
                        checked = Instant::now();
                        if peer.is_some_and(is_gone) {
                            return Err(ErrorKind::BrokenPipe.into());
                        }
                    }
                }
                Err(e) => {
                    let text = format!("\n[job-scheduler: the log broke off: {e}]\n");
                    framing.write(writer, text.as_bytes())?;
                    break;
                }
            }
        }
        framing.end(writer)?;
        writer.flush()
    }
}

/// How a body of unknown length ends.
#[derive(Clone, Copy)]
enum Framing {
    Chunked,
    /// With the connection, for HTTP/1.0.
    Close,
}

impl Framing {
    fn header(self) -> &'static str {
        match self {
            Framing::Chunked => "Transfer-Encoding: chunked",
            Framing::Close => "Connection: close",
        }
    }

    fn write(self, writer: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        match self {
            Framing::Close => writer.write_all(bytes),
            Framing::Chunked => {
                write!(writer, "{:x}\r\n", bytes.len())?;
                writer.write_all(bytes)?;
                writer.write_all(b"\r\n")
            }
        }
    }

    fn end(self, writer: &mut impl Write) -> io::Result<()> {
        match self {
            Framing::Close => Ok(()),
            Framing::Chunked => writer.write_all(b"0\r\n\r\n"),
        }
    }
}

/// Whether a client has closed its connection, as the kernel knows: writing alone tells, and a silent log writes nothing.
fn is_gone(peer: SocketAddr) -> bool {
    let table = match peer {
        SocketAddr::V4(_) => "/proc/self/net/tcp",
        SocketAddr::V6(_) => "/proc/self/net/tcp6",
    };
    fs::read_to_string(table).is_ok_and(|table| !is_established(&table, peer))
}

/// Source: proc_pid_net(5); an address is in words of this machine's byte order, and state 01 is ESTABLISHED.
fn is_established(table: &str, peer: SocketAddr) -> bool {
    let octets = match peer.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = octets.chunks_exact(4).map(|word| {
        let word = word.try_into().unwrap_or_default();
        format!("{:08X}", u32::from_ne_bytes(word))
    });
    let remote = format!("{}:{:04X}", words.collect::<String>(), peer.port());
    table.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(2);
        fields.next() == Some(remote.as_str()) && fields.next() == Some("01")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_client_that_hangs_up_is_gone() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                continue;
            };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (_server, peer) = listener.accept().unwrap();
            assert!(!is_gone(peer), "{peer}");
            drop(client);
            let deadline = Instant::now() + Duration::from_secs(10);
            while !is_gone(peer) {
                assert!(Instant::now() < deadline, "{peer}");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_body_of_no_known_length_is_chunked_or_ends_with_the_connection() {
        let write = |framing: Framing| {
            let mut bytes = Vec::new();
            framing.write(&mut bytes, b"0123456789abcdef\n").unwrap();
            framing.end(&mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(
            write(Framing::Chunked),
            "11\r\n0123456789abcdef\n\r\n0\r\n\r\n"
        );
        assert_eq!(write(Framing::Close), "0123456789abcdef\n");
    }
}
