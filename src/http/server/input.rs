//! What a client sends, as it comes: bounded, and with a deadline for the whole.

use super::refused::Refused;
use super::tiny::Head;
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The most bytes that a request's head may have.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The line in front of a chunk, and one behind the last.
const MAX_LINE_BYTES: usize = 4 * 1024;
/// From a head's first byte to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is kept this long without a byte from its client.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// The bytes that have come and were not used yet, and where others come from.
pub struct Input<'a> {
    stream: &'a TcpStream,
    bytes: Vec<u8>,
    used: usize,
    timeout: Duration,
}

impl<'a> Input<'a> {
    /// Of a stream whose read timeout is [`IDLE_TIMEOUT`].
    pub fn new(stream: &'a TcpStream) -> Self {
        Input {
            stream,
            bytes: Vec::new(),
            used: 0,
            timeout: IDLE_TIMEOUT,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.ready().is_empty()
    }

    fn ready(&self) -> &[u8] {
        self.bytes.get(self.used..).unwrap_or_default()
    }

    /// Waits for more, until the deadline.
    fn fill(&mut self, deadline: Instant) -> Result<(), Refused> {
        match self.wait(deadline.saturating_duration_since(Instant::now())) {
            Ok(count) if count > 0 => Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Refused::Late)
            }
            Ok(_) | Err(_) => Err(Refused::CutOff),
        }
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<usize> {
        if timeout.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        if timeout != self.timeout {
            self.stream.set_read_timeout(Some(timeout))?;
            self.timeout = timeout;
        }
        let mut buffer = [0; 4096];
        let count = loop {
            match self.stream.read(&mut buffer) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        self.bytes.drain(..self.used);
        self.used = 0;
        self.bytes
            .extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }

    /// The next request's head. `None` if the client has closed the connection or says nothing
    /// more.
    pub fn head(&mut self) -> Result<Option<Head>, Refused> {
        // A client may send an empty line in front (RFC 9112, section 2.2).
        while self
            .ready()
            .first()
            .is_none_or(|byte| b"\r\n".contains(byte))
        {
            if !self.is_empty() {
                self.used += 1;
            } else if !matches!(self.wait(IDLE_TIMEOUT), Ok(count) if count > 0) {
                return Ok(None);
            }
        }
        let deadline = Instant::now() + HEAD_TIMEOUT;
        let mut seen = 0;
        loop {
            let ready = self.ready();
            // No method begins so, and a client that speaks TLS would wait for an answer.
            if ready.first().is_some_and(|byte| !byte.is_ascii_graphic()) {
                return Err(Refused::Malformed("plain text, and this server no TLS"));
            }
            if let Some(length) = head_length(ready, seen).filter(|l| *l <= MAX_HEAD_BYTES) {
                let head = Head::parse(ready.get(..length).unwrap_or_default());
                self.used += length;
                return head.map(Some);
            }
            if ready.len() >= MAX_HEAD_BYTES {
                return Err(Refused::HeadTooLarge);
            }
            seen = ready.len();
            self.fill(deadline)?;
        }
    }

    /// A line of a chunked body, without its end.
    pub fn line(&mut self, deadline: Instant) -> Result<Vec<u8>, Refused> {
        loop {
            let ready = self.ready();
            if let Some(end) = ready.iter().position(|byte| *byte == b'\n') {
                let line = ready.get(..end).and_then(|line| line.strip_suffix(b"\r"));
                let line = line.map(<[u8]>::to_vec);
                self.used += end + 1;
                return line.ok_or(Refused::Malformed("lines that end with CR LF"));
            }
            if ready.len() > MAX_LINE_BYTES {
                return Err(Refused::Malformed("short lines between chunks"));
            }
            self.fill(deadline)?;
        }
    }

    /// Puts some bytes behind `body`, at least one and at most `limit`. How many they are.
    pub fn some(
        &mut self,
        body: &mut Vec<u8>,
        limit: usize,
        deadline: Instant,
    ) -> Result<usize, Refused> {
        if self.is_empty() {
            self.fill(deadline)?;
        }
        let ready = self.ready();
        let taken = ready.get(..limit).unwrap_or(ready);
        body.extend_from_slice(taken);
        let count = taken.len();
        self.used += count;
        Ok(count)
    }

    /// Reads away what comes until the client closes, or for so long.
    pub fn read_away(&mut self, how_long: Duration) {
        let deadline = Instant::now() + how_long;
        while self.fill(deadline).is_ok() {
            self.used = self.bytes.len();
        }
    }
}

/// How long the head is that `bytes` begin with, if it has come whole. A head ends with its first
/// empty line, however that is written, and nothing before `seen` ends one.
fn head_length(bytes: &[u8], seen: usize) -> Option<usize> {
    let from = seen.saturating_sub(3);
    let mut ends = bytes
        .iter()
        .enumerate()
        .skip(from)
        .filter(|(_, b)| **b == b'\n');
    ends.find_map(|(end, _)| match bytes.get(end + 1..) {
        Some([b'\n', ..]) => Some(end + 2),
        Some([b'\r', b'\n', ..]) => Some(end + 3),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_its_first_empty_line() {
        let check = |bytes: &[u8], length: Option<usize>| {
            assert_eq!(head_length(bytes, 0), length);
            // Byte by byte, as a slow client sends it.
            let seen = (1..=bytes.len()).find_map(|end| head_length(&bytes[..end], end - 1));
            assert_eq!(seen, length);
        };
        check(b"GET / HTTP/1.1\r\n\r\nGET", Some(18));
        check(b"a\r\nb\r\n\r\n\r\n", Some(8));
        check(b"a\n\nb", Some(3));
        check(b"a\n\r\nb", Some(4));
        check(b"a\r\nb\r\n\r", None);
        check(b"", None);
    }
}
