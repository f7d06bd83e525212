//! Logs on their way to whoever reads them.

use super::exchange::{Exchange, is_gone};
use crate::http::reply::Reply;
use crate::logs::JobLog;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How often the client of a silent log is looked for.
const LOOK: Duration = Duration::from_secs(2);

/// Bytes of a body as they are sent.
type Framed = fn(&[u8]) -> Vec<u8>;

/// Sends a log until it ends, its client is gone or the server stops.
pub fn send(exchange: &mut Exchange, log: &mut JobLog, is_stopping: impl Fn() -> bool) {
    let mut stream = exchange.stream;
    // In HTTP/1.0, a body of no known length ends with the connection.
    let (framed, reply): (Framed, _) = match exchange.head.is_before_1_1() {
        true => (<[u8]>::to_vec, Reply::log()),
        false => (chunk, Reply::log().with("Transfer-Encoding", "chunked")),
    };
    let head = exchange.answer_head(&reply);
    let mut sent = stream.write_all(head.as_bytes());
    if !exchange.head.is_head() {
        sent = sent.and_then(|()| copy(log, stream, framed, is_stopping));
    }
    // A client that is gone misses nothing.
    exchange.persists &= sent.is_ok();
}

fn copy(
    log: &mut JobLog,
    mut stream: &TcpStream,
    framed: Framed,
    is_stopping: impl Fn() -> bool,
) -> io::Result<()> {
    // Not on the stack: every connection's would be as large, since this is part of its one function.
    let (mut buffer, mut looked) = (vec![0; 16 * 1024], Instant::now());
    while !is_stopping() {
        match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => stream.write_all(&framed(buffer.get(..count).unwrap_or_default()))?,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::TimedOut => {
                if looked.elapsed() >= LOOK {
                    looked = Instant::now();
                    if is_gone(stream) {
                        return Err(ErrorKind::BrokenPipe.into());
                    }
                }
            }
            Err(e) => {
                let text = format!("\n[job-scheduler: the log broke off: {e}]\n");
                stream.write_all(&framed(text.as_bytes()))?;
                break;
            }
        }
    }
    stream.write_all(&framed(b""))
}

/// The last chunk is the empty one.
fn chunk(bytes: &[u8]) -> Vec<u8> {
    let size = format!("{:x}\r\n", bytes.len());
    [size.as_bytes(), bytes, b"\r\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::chunk;

    #[test]
    fn a_chunk_is_told_by_its_size() {
        assert_eq!(
            chunk(b"0123456789abcdef\n"),
            b"11\r\n0123456789abcdef\n\r\n"
        );
        assert_eq!(chunk(b""), b"0\r\n\r\n");
    }
}
