//! What a client sends, as it comes: bounded, and with a deadline for the whole.

use super::refused::Refused;
use super::tiny::Head;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The most bytes that a request's head may have.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The line in front of a chunk, and one behind the last.
const MAX_LINE_BYTES: usize = 4 * 1024;
/// What is read at once: much for a head, and little for thousands of connections.
const BUFFER_BYTES: usize = 4 * 1024;
/// From a head's first byte to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection is kept this long without a byte from its client.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// The bytes that have come and were not used yet, and where others come from.
pub struct Input<'a>(BufReader<Timed<'a>>);

struct Timed<'a> {
    stream: &'a TcpStream,
    /// Until when it is read; without one, each read may take [`IDLE_TIMEOUT`].
    deadline: Option<Instant>,
    /// What the stream has been given, as most requests need no other.
    timeout: Duration,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
            let timeout = self.deadline.map_or(IDLE_TIMEOUT, left);
            if timeout.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            if timeout != self.timeout {
                self.stream.set_read_timeout(Some(timeout))?;
                self.timeout = timeout;
            }
            match self.stream.read(buffer) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }
}

impl From<io::Error> for Refused {
    /// Why a read has failed.
    fn from(error: io::Error) -> Refused {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Refused::Late,
            _ => Refused::CutOff,
        }
    }
}

impl<'a> Input<'a> {
    pub fn new(stream: &'a TcpStream) -> Self {
        let timed = Timed {
            stream,
            deadline: None,
            timeout: Duration::ZERO,
        };
        Input(BufReader::with_capacity(BUFFER_BYTES, timed))
    }

    pub fn is_empty(&self) -> bool {
        self.0.buffer().is_empty()
    }

    /// What is read from now on must have come within `timeout`.
    pub fn expect_within(&mut self, timeout: Duration) {
        self.0.get_mut().deadline = Some(Instant::now() + timeout);
    }

    /// The next request's head. `None` if the client has closed the connection or says nothing
    /// more.
    pub fn head(&mut self) -> Result<Option<Head>, Refused> {
        self.0.get_mut().deadline = None;
        let first = loop {
            match self.0.fill_buf() {
                // A client may send an empty line in front (RFC 9112, section 2.2).
                Ok([b'\r' | b'\n', ..]) => self.0.consume(1),
                Ok([first, ..]) => break *first,
                Ok([]) | Err(_) => return Ok(None),
            }
        };
        // No method begins so, and a client that speaks TLS would wait for an answer.
        if !first.is_ascii_graphic() {
            return Err(Refused::Malformed("plain text, and this server no TLS"));
        }
        self.expect_within(HEAD_TIMEOUT);
        let mut head = Vec::new();
        loop {
            let line = self.line(&mut head, MAX_HEAD_BYTES, Refused::HeadTooLarge)?;
            // The first empty line ends it, however that is written.
            if matches!(line, b"\n" | b"\r\n") {
                return Head::parse(&head).map(Some);
            }
        }
    }

    /// A line of a chunked body, without its end.
    pub fn chunk_line(&mut self) -> Result<Vec<u8>, Refused> {
        let mut line = Vec::new();
        let too_long = Refused::Malformed("short lines between chunks");
        let line = self.line(&mut line, MAX_LINE_BYTES, too_long)?;
        let line = line.strip_suffix(b"\r\n").map(<[u8]>::to_vec);
        line.ok_or(Refused::Malformed("lines that end with CR LF"))
    }

    /// Puts a line with its end behind `bytes`, which become `most` at most.
    fn line<'b>(
        &mut self,
        bytes: &'b mut Vec<u8>,
        most: usize,
        too_long: Refused,
    ) -> Result<&'b [u8], Refused> {
        let start = bytes.len();
        let mut rest = self.0.by_ref().take(most.saturating_sub(start) as u64);
        rest.read_until(b'\n', bytes)?;
        let is_full = bytes.len() >= most;
        match bytes.get(start..) {
            Some(line) if line.ends_with(b"\n") => Ok(line),
            _ if is_full => Err(too_long),
            _ => Err(Refused::CutOff),
        }
    }

    /// Puts some bytes behind `body`, at least one and at most `limit`. How many they are.
    pub fn some(&mut self, body: &mut Vec<u8>, limit: usize) -> Result<usize, Refused> {
        let ready = self.0.fill_buf()?;
        let count = ready.len().min(limit);
        body.extend_from_slice(ready.get(..count).unwrap_or_default());
        self.0.consume(count);
        match count {
            0 => Err(Refused::CutOff),
            _ => Ok(count),
        }
    }

    /// Reads away what comes until the client closes, or for so long.
    pub fn read_away(&mut self, how_long: Duration) {
        self.expect_within(how_long);
        while let Ok(count @ 1..) = self.0.fill_buf().map(<[u8]>::len) {
            self.0.consume(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    /// What is read of `sent`, which comes in pieces of `piece` bytes: a head, and what is left.
    fn read(sent: &[u8], piece: usize) -> (Result<Option<String>, Refused>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nodelay(true).unwrap();
        let (stream, _) = listener.accept().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for bytes in sent.chunks(piece) {
                    client.write_all(bytes).unwrap();
                }
            });
            let mut input = Input::new(&stream);
            let head = input.head().map(|head| head.map(|head| head.target));
            let mut rest = Vec::new();
            input.0.read_to_end(&mut rest).unwrap();
            (head, rest)
        })
    }

    #[track_caller]
    fn check(sent: &[u8], head: Result<Option<&str>, &str>, rest: &[u8]) {
        // Byte by byte, as a slow client sends it, and at once.
        for piece in [1, sent.len().max(1)] {
            let (found, left) = read(sent, piece);
            let found = found.map_err(|error| format!("{error:?}"));
            match (found.as_ref(), head) {
                (Ok(found), Ok(head)) => assert_eq!(found.as_deref(), head),
                (Err(found), Err(head)) => assert!(found.starts_with(head), "{found}"),
                _ => panic!("{found:?}"),
            }
            assert_eq!(left, rest);
        }
    }

    #[test]
    fn a_head_ends_with_its_first_empty_line() {
        check(b"GET /a HTTP/1.1\r\n\r\nGET", Ok(Some("/a")), b"GET");
        check(b"\r\n\n\rGET /b HTTP/1.1\r\n\r\n", Ok(Some("/b")), b"");
        check(b"a\r\nb\r\n\r\n\r\n", Err("Malformed"), b"\r\n");
        check(b"a\n\nb", Err("Malformed"), b"b");
        check(b"a\n\r\nb", Err("Malformed"), b"b");
        check(b"a\r\nb\r\n\r", Err("CutOff"), b"");
        check(b"\x16\x03\x01", Err("Malformed"), b"\x16\x03\x01");
        check(b"\r\n", Ok(None), b"");
        check(b"", Ok(None), b"");
    }

    #[test]
    fn a_head_and_a_line_may_have_so_many_bytes() {
        let head = |bytes: usize| {
            let lines = "GET / HTTP/1.1\r\nX: \r\n\r\n";
            lines.replace("X: ", &format!("X: {}", "x".repeat(bytes - lines.len())))
        };
        let (most, more) = (head(MAX_HEAD_BYTES), head(MAX_HEAD_BYTES + 1));
        assert_eq!(read(most.as_bytes(), 1000), (Ok(Some("/".into())), vec![]));
        assert_eq!(
            read(more.as_bytes(), 1000),
            (Err(Refused::HeadTooLarge), b"\n".to_vec())
        );
    }
}
