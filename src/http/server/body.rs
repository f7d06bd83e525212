//! A request's body: one way for all, whatever their size and form.

use super::input::Input;
use super::refused::{MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES, Refused};
use super::tiny::Head;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A body that has not arrived by then will not.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of bodies in memory at once, from their reading to their answer. What a writer makes of a
/// body takes about four times as much again, and all of it must fit in the 128 MiB that the
/// scheduler's pod may have.
const MAX_HELD_BYTES: usize = 22 << 20;
const MAX_TRAILERS: usize = 100;

/// Which bodies a request may have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Plain,
    /// It may be larger. Less is made of it, as its payloads are stored a few at a time: four
    /// fifths of it count.
    Batch,
}

impl Kind {
    fn limit(self) -> usize {
        match self {
            Kind::Plain => MAX_BODY_BYTES,
            Kind::Batch => MAX_BATCH_BODY_BYTES,
        }
    }

    /// What so many bytes count.
    fn charge(self, bytes: usize) -> usize {
        match self {
            Kind::Plain => bytes,
            Kind::Batch => bytes - bytes / 5,
        }
    }
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Framing {
    Length(usize),
    Chunked,
}

/// A body that has arrived. Its bytes are counted with those of all others until it is dropped.
pub struct Body {
    pub bytes: Vec<u8>,
    kind: Kind,
    /// What it counts of `all`.
    charged: usize,
    all: Arc<AtomicUsize>,
}

impl Framing {
    /// Source: RFC 9112, section 6.3.
    pub fn of(head: &Head, kind: Kind) -> Result<Framing, Refused> {
        let (lengths, codings) = ("Content-Length", "Transfer-Encoding");
        let (mut lengths, mut codings) = (head.values(lengths), head.values(codings));
        match (codings.next(), lengths.next()) {
            (None, None) => Ok(Framing::Length(0)),
            (Some(coding), None) if !head.is_before_1_1() => {
                let is_chunked = coding.eq_ignore_ascii_case("chunked") && codings.next().is_none();
                is_chunked
                    .then_some(Framing::Chunked)
                    .ok_or(Refused::UnknownCoding)
            }
            (Some(_), _) => Err(Refused::Malformed(
                "either Content-Length or Transfer-Encoding, and HTTP/1.0 the former alone",
            )),
            (None, Some(length)) => {
                let is_number = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
                if !is_number || lengths.next().is_some() {
                    return Err(Refused::Malformed("one number as Content-Length"));
                }
                // A number that is too large to be one is too large for a body.
                let limit = kind.limit();
                let bytes = length.parse().ok().filter(|bytes| *bytes <= limit);
                let too_large = Refused::BodyTooLarge(limit);
                bytes.map(Framing::Length).ok_or(too_large)
            }
        }
    }
}

impl Body {
    pub fn read(
        framing: Framing,
        kind: Kind,
        input: &mut Input,
        all: &Arc<AtomicUsize>,
        timeout: Duration,
    ) -> Result<Body, Refused> {
        input.expect_within(timeout);
        let mut body = Body {
            bytes: Vec::new(),
            kind,
            charged: 0,
            all: all.clone(),
        };
        match framing {
            Framing::Length(length) => body.add(length, input)?,
            Framing::Chunked => body.add_chunks(input)?,
        }
        Ok(body)
    }

    fn add(&mut self, length: usize, input: &mut Input) -> Result<(), Refused> {
        self.bytes.reserve(length);
        let end = self.bytes.len() + length;
        while self.bytes.len() < end {
            let missing = end - self.bytes.len();
            input.some(&mut self.bytes, missing)?;
            let more = self.kind.charge(self.bytes.len()) - self.charged;
            self.charged += more;
            if self.all.fetch_add(more, Ordering::AcqRel) + more > MAX_HELD_BYTES {
                return Err(Refused::NoRoom);
            }
        }
        Ok(())
    }

    /// Source: RFC 9112, section 7.1. Extensions and trailers are read and not looked at.
    fn add_chunks(&mut self, input: &mut Input) -> Result<(), Refused> {
        let malformed = Refused::Malformed;
        loop {
            let size = chunk_size(&input.chunk_line()?);
            let size = size.ok_or(malformed("a size before each chunk"))?;
            let limit = self.kind.limit();
            if self.bytes.len().saturating_add(size) > limit {
                return Err(Refused::BodyTooLarge(limit));
            }
            if size == 0 {
                break;
            }
            self.add(size, input)?;
            if !input.chunk_line()?.is_empty() {
                return Err(malformed("chunks of the size that is told"));
            }
        }
        for _ in 0..MAX_TRAILERS {
            if input.chunk_line()?.is_empty() {
                return Ok(());
            }
        }
        Err(malformed("few trailers"))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.all.fetch_sub(self.charged, Ordering::AcqRel);
    }
}

fn chunk_size(line: &[u8]) -> Option<usize> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    let is_number = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = str::from_utf8(digits).ok().filter(|_| is_number)?;
    usize::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    #[track_caller]
    fn framing(headers: &str, expected: Option<Framing>, refusal: &str) {
        let head = format!(
            "POST / HTTP/1.1\r\n{}\r\n\r\n",
            headers.replace('|', "\r\n")
        );
        let found = Framing::of(&Head::parse(head.as_bytes()).unwrap(), Kind::Plain);
        match (&found, expected) {
            (Ok(framing), Some(expected)) => assert_eq!(*framing, expected),
            (Err(error), None) => assert!(format!("{error:?}").starts_with(refusal), "{error:?}"),
            _ => panic!("{headers}: {found:?}"),
        }
    }

    #[test]
    fn the_end_of_a_body_is_told_in_one_way() {
        framing("X: y", Some(Framing::Length(0)), "");
        framing("Content-Length: 17", Some(Framing::Length(17)), "");
        framing("Transfer-Encoding: Chunked", Some(Framing::Chunked), "");
        for length in ["-1", "+1", "2, 2", "", "0x1", "1 1", "2|Content-Length: 2"] {
            framing(&format!("Content-Length: {length}"), None, "Malformed");
        }
        framing(
            "Content-Length: 1|Transfer-Encoding: chunked",
            None,
            "Malformed",
        );
        for coding in ["gzip, chunked", "chunked, chunked", "identity", ""] {
            framing(
                &format!("Transfer-Encoding: {coding}"),
                None,
                "UnknownCoding",
            );
        }
        framing(
            "Transfer-Encoding: chunked|Transfer-Encoding: chunked",
            None,
            "UnknownCoding",
        );
        framing("Content-Length: 99999999", None, "BodyTooLarge");
        framing("Content-Length: 18446744073709551617", None, "BodyTooLarge");
    }

    #[test]
    fn a_batchs_body_may_be_larger_and_a_fifth_of_it_does_not_count() {
        let length = MAX_BODY_BYTES + 1;
        let head = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        let head = Head::parse(head.as_bytes()).unwrap();
        let of = |kind| Framing::of(&head, kind);
        assert_eq!(of(Kind::Plain), Err(Refused::BodyTooLarge(MAX_BODY_BYTES)));
        assert_eq!(of(Kind::Batch), Ok(Framing::Length(length)));

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        client.write_all(&[b'x'; 1001]).unwrap();
        let (all, mut input) = (Arc::default(), Input::new(&stream));
        let framing = Framing::Length(1001);
        let body = Body::read(framing, Kind::Batch, &mut input, &all, BODY_TIMEOUT).unwrap();
        assert_eq!(body.bytes.len(), 1001);
        assert_eq!(all.load(Ordering::Acquire), 801);
        drop(body);
        assert_eq!(all.load(Ordering::Acquire), 0);
        // The largest alone fits, and another beside it does not.
        let charge = Kind::Batch.charge(MAX_BATCH_BODY_BYTES);
        assert!((MAX_HELD_BYTES / 2..MAX_HELD_BYTES).contains(&charge));
    }

    fn read(sent: &[u8]) -> Result<Vec<u8>, Refused> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        client.write_all(sent).unwrap();
        drop(client);
        let all = Arc::new(AtomicUsize::new(MAX_HELD_BYTES - 1000));
        let mut input = Input::new(&stream);
        let outcome = Body::read(
            Framing::Chunked,
            Kind::Plain,
            &mut input,
            &all,
            BODY_TIMEOUT,
        );
        let bytes = outcome.map(|body| body.bytes.clone());
        assert_eq!(
            all.load(Ordering::Acquire),
            MAX_HELD_BYTES - 1000,
            "given back"
        );
        bytes
    }

    /// However busy its client is.
    #[test]
    fn a_body_has_a_deadline_as_a_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let slow = std::thread::spawn(move || {
            while client.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let (began, timeout) = (Instant::now(), Duration::from_millis(100));
        let (framing, mut input) = (Framing::Length(1 << 20), Input::new(&stream));
        let outcome = Body::read(framing, Kind::Plain, &mut input, &Arc::default(), timeout);
        assert_eq!(outcome.err(), Some(Refused::Late));
        assert!(began.elapsed() >= timeout);
        drop(stream);
        slow.join().unwrap();
    }

    #[test]
    fn chunks_are_put_together() {
        for sent in [
            "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
            "5;a=b\r\nhello\r\n06 \r\n world\r\n00\r\nTrailer: x\r\nOther: y\r\n\r\n",
            "b\r\nhello world\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(read(sent.as_bytes()).unwrap(), b"hello world", "{sent}");
        }
    }

    #[test]
    fn chunks_that_are_cut_off_or_wrong_are_no_body() {
        let whole = "5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n";
        for end in 0..whole.len() {
            let outcome = read(&whole.as_bytes()[..end]);
            assert!(
                matches!(outcome, Err(Refused::CutOff)),
                "{end}: {outcome:?}"
            );
        }
        for sent in [
            "x\r\n",
            "-5\r\n",
            "+5\r\n",
            "\r\n",
            "5\nhello",
            "5\r\nhello!\r\n",
        ] {
            let outcome = read(sent.as_bytes());
            assert!(
                matches!(outcome, Err(Refused::Malformed(_))),
                "{sent}: {outcome:?}"
            );
        }
        let many = format!("0\r\n{}\r\n", "a: b\r\n".repeat(MAX_TRAILERS));
        assert!(matches!(read(many.as_bytes()), Err(Refused::Malformed(_))));
        let (large, full) = (
            "ffffffffffffffff\r\n",
            format!("3e9\r\n{}", "x".repeat(1001)),
        );
        assert!(matches!(
            read(large.as_bytes()),
            Err(Refused::BodyTooLarge(_))
        ));
        assert!(matches!(read(full.as_bytes()), Err(Refused::NoRoom)));
    }
}
