//! HTTP/1.1 as the tests need it: one connection, kept alive, and every byte of it in sight.

use serde_json::Value;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The head of a request or an answer: its first line, and headers as they came.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub first: String,
    pub headers: Vec<(String, String)>,
}

/// An answer with its body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: u16,
    pub head: Head,
    pub body: Vec<u8>,
}

impl Head {
    /// Reads up to the empty line. `None` if the peer has closed before the first byte.
    pub fn read(stream: &mut impl BufRead) -> io::Result<Option<Head>> {
        let mut first = String::new();
        if stream.read_line(&mut first)? == 0 {
            return Ok(None);
        }
        let mut head = Head {
            first: first.trim_end().to_string(),
            headers: Vec::new(),
        };
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end().split_once(':') {
                Some((name, value)) => head
                    .headers
                    .push((name.to_string(), value.trim().to_string())),
                None => return Ok(Some(head)),
            }
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Of an answer.
    pub fn code(&self) -> u16 {
        let code = self.first.split(' ').nth(1);
        code.and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    pub fn content_length(&self) -> Option<usize> {
        self.header("Content-Length")?.parse().ok()
    }

    pub fn is_chunked(&self) -> bool {
        self.header("Transfer-Encoding")
            .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }
}

/// Reads one chunk; an empty one is the last.
pub fn read_chunk(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut size = String::new();
    stream.read_line(&mut size)?;
    let bad = |_| io::Error::other(format!("the size of a chunk: {size:?}"));
    let size = usize::from_str_radix(size.trim_end(), 16).map_err(bad)?;
    let mut chunk = vec![0; size + 2];
    stream.read_exact(&mut chunk)?;
    chunk.truncate(size);
    Ok(chunk)
}

/// The body that belongs to a head.
pub fn read_body(head: &Head, stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if head.is_chunked() {
        loop {
            let chunk = read_chunk(stream)?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }
    body.resize(head.content_length().unwrap_or(0), 0);
    stream.read_exact(&mut body)?;
    Ok(body)
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in the answer: {self}"))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.body);
        let text: String = text.chars().take(500).collect();
        write!(f, "{} {text}", self.head.first)
    }
}

/// A connection that is kept alive, over any stream.
pub struct Connection<S> {
    pub stream: BufReader<S>,
    host: String,
}

impl Connection<TcpStream> {
    /// To a port of this machine. An answer that takes longer than `timeout` is an error.
    pub fn local(port: u16, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        Ok(Connection::new(stream, &format!("127.0.0.1:{port}")))
    }
}

impl<S: Read + Write> Connection<S> {
    pub fn new(stream: S, host: &str) -> Self {
        Connection {
            stream: BufReader::new(stream),
            host: host.to_string(),
        }
    }

    /// Sends a request, in one write. `headers` are whole lines.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> io::Result<()> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        if !body.is_empty() || method == "POST" {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        let mut request = request.into_bytes();
        request.extend_from_slice(body);
        let stream = self.stream.get_mut();
        stream.write_all(&request)?;
        stream.flush()
    }

    pub fn receive(&mut self) -> io::Result<Answer> {
        let eof = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let head = Head::read(&mut self.stream)?.ok_or_else(eof)?;
        let body = read_body(&head, &mut self.stream)?;
        Ok(Answer {
            code: head.code(),
            head,
            body,
        })
    }

    pub fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> io::Result<Answer> {
        self.send(method, path, headers, body)?;
        self.receive()
    }
}
