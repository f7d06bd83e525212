//! A request's head in tiny_http's terms, and the only user of tiny_http.
//!
//! Its methods, versions and headers are used. Its `Server` is not: what is wrong with that of 0.12
//! lies between the socket and the first line of ours, where nothing can mend it. With its file,
//! its issue if there is one, and the test in `tests/connections.rs` for it:
//!
//! - after one failed `accept`, as when out of descriptors, it accepts no more (`lib.rs`,
//!   `refined_tcp_stream.rs`; #195, #283): `running_out_of_descriptors_ends_nothing`;
//! - a head has no bound and no deadline: 8 MB of short headers took 165 MB (`client.rs`; #56):
//!   `heads_are_bounded_in_size_number_and_time`;
//! - a byte that is not ASCII gets no reply (`client.rs`; #267): `unusual_requests_are_served`;
//! - 505 waits for ever for its own request (`client.rs`): `what_is_not_http_1_1_is_told_so`;
//! - a length that cannot be read is none, and what follows is the next request; a chunked body
//!   that is cut off is a whole one (`request.rs`); who announces more bytes than there is memory
//!   ends the process (`equal_reader.rs`; #252): `a_body_whose_end_is_not_sure_starts_no_job`;
//! - trailers are an error (`request.rs`; #18):
//!   `small_chunked_bodies_are_taken_whatever_their_number`;
//! - `Connection: Upgrade`, which Java's `HttpClient` sends, has a body without an end
//!   (`request.rs`): `who_offers_an_upgrade_is_answered_as_any_other`;
//! - a new connection may wait until another one ends (`task_pool.rs`):
//!   `connections_that_are_opened_at_once_are_all_served`.
//!
//! Once a release passes them, its `Server` can take the place of `connections`, `input` and
//! `body`, with `exchange` sending through its `Request`.
//!
//! Two remedies for what is used, each to go when its test below passes without it:
//!
//! - a `Header` holds ASCII alone (#267), but a value may have any byte (RFC 9110, section 5.5):
//!   [`OPAQUE`], `a_byte_that_is_not_ascii_is_kept_as_one`;
//! - a `Method` and a `Header`'s name may be anything in ASCII; a value may have CR, LF and NUL,
//!   and loses VT and FF at its ends (no issue): [`is_token`] and [`header`],
//!   `what_is_not_a_head_is_refused`.

use super::refused::Refused;
use std::str::FromStr;
use tiny_http::{HTTPVersion, Header, Method};

/// The most headers that a request may have.
const MAX_HEADERS: usize = 100;
/// In the place of a byte that is not ASCII. No name, number or key that is looked at may have it.
const OPAQUE: char = '\u{1a}';
/// No value may have one of these: a proxy in front might read it otherwise.
const UNSOUND: [char; 5] = ['\r', '\n', '\0', '\u{b}', '\u{c}'];

/// What comes before a request's body.
#[derive(Debug)]
pub struct Head {
    method: Method,
    /// Path and query.
    pub target: String,
    /// The host in an absolute target, which goes before the header's.
    authority: Option<String>,
    version: HTTPVersion,
    headers: Vec<Header>,
}

impl Head {
    /// Reads a head, from its first line to its empty one.
    pub fn parse(bytes: &[u8]) -> Result<Head, Refused> {
        let ascii = |byte: &u8| match byte.is_ascii() {
            true => char::from(*byte),
            false => OPAQUE,
        };
        let text: String = bytes.iter().map(ascii).collect();
        let text = text.strip_suffix("\r\n\r\n");
        let text = text.ok_or(Refused::Malformed("lines that end with CR LF"))?;
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default();
        let (method, target, version) = request_line(first)?;
        let headers = lines.take(MAX_HEADERS + 1).map(header);
        let headers: Vec<Header> = headers.collect::<Result<_, _>>()?;
        if headers.len() > MAX_HEADERS {
            return Err(Refused::HeadTooLarge);
        }
        let (authority, target) = split_target(target);
        Ok(Head {
            method,
            target,
            authority,
            version,
            headers,
        })
    }

    pub fn method(&self) -> &str {
        self.method.as_str()
    }

    pub fn is_head(&self) -> bool {
        self.method == Method::Head
    }

    /// Whether the client knows no chunks and no persistent connections.
    pub fn is_before_1_1(&self) -> bool {
        self.version < HTTPVersion(1, 1)
    }

    /// What the client calls this server.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        let named = self.values("Host").filter(|_| self.authority.is_none());
        self.authority.as_deref().into_iter().chain(named)
    }

    pub fn value(&self, name: &'static str) -> Option<&str> {
        self.values(name).next()
    }

    pub fn values(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let named = self.headers.iter().filter(move |h| h.field.equiv(name));
        named.map(|header| header.value.as_str())
    }

    /// Whether a header that is a list has the token.
    pub fn lists(&self, name: &'static str, token: &str) -> bool {
        let mut tokens = self.values(name).flat_map(|value| value.split(','));
        tokens.any(|given| given.trim().eq_ignore_ascii_case(token))
    }
}

/// Source: RFC 9112, section 3.
fn request_line(line: &str) -> Result<(Method, &str, HTTPVersion), Refused> {
    let malformed = Refused::Malformed("a first line such as `GET /api/v1/jobs HTTP/1.1`");
    let words: Vec<&str> = line.splitn(4, ' ').collect();
    let [method, target, version] = words[..] else {
        return Err(malformed);
    };
    let numbers = version.strip_prefix("HTTP/").map(str::as_bytes);
    let Some([major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9']) = numbers else {
        return Err(malformed);
    };
    let is_target = !target.is_empty() && target.bytes().all(|b| b.is_ascii_graphic() || b == 0x1a);
    match Method::from_str(method) {
        Ok(_) if *major != b'1' => Err(Refused::Version),
        Ok(verb) if is_token(method) && is_target => {
            Ok((verb, target, HTTPVersion(1, (minor - b'0').min(1))))
        }
        _ => Err(malformed),
    }
}

fn header(line: &str) -> Result<Header, Refused> {
    let is_sound = line
        .split_once(':')
        .is_some_and(|(name, value)| is_token(name) && !value.contains(UNSOUND));
    let header = Header::from_str(line).ok().filter(|_| is_sound);
    header.ok_or(Refused::Malformed("headers of the form `Name: value`"))
}

/// Source: RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

/// The host of a target in absolute form, as a client sends it that takes this for a proxy, and the
/// rest.
///
/// Source: RFC 9112, section 3.2.2.
fn split_target(target: &str) -> (Option<String>, String) {
    let after = |scheme: &str| {
        let (given, rest) = target.split_at_checked(scheme.len())?;
        given.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let Some(rest) = after("http://").or_else(|| after("https://")) else {
        return (None, target.to_string());
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let slash = if path.starts_with('/') { "" } else { "/" };
    (Some(authority.to_string()), format!("{slash}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &str) -> Result<Head, Refused> {
        Head::parse(lines.replace('\n', "\r\n").as_bytes())
    }

    #[test]
    fn a_head_is_read() {
        let head = head("POST /a?b=c HTTP/1.1\nHost: x:1\nconnection: a, Close\nX:\n\n").unwrap();
        assert_eq!((head.method(), head.target.as_str()), ("POST", "/a?b=c"));
        assert!(!head.is_before_1_1() && !head.is_head());
        assert_eq!(head.hosts().collect::<Vec<_>>(), ["x:1"]);
        assert_eq!(head.value("X"), Some(""));
        assert!(head.lists("Connection", "close") && !head.lists("Connection", "keep-alive"));
    }

    #[test]
    fn a_target_with_a_host_is_as_good() {
        let check = |target: &str, host: &str, path: &str| {
            let head = head(&format!("GET {target} HTTP/1.0\nHost: other\n\n")).unwrap();
            assert_eq!(head.hosts().collect::<Vec<_>>(), [host], "{target}");
            assert_eq!(head.target.as_str(), path, "{target}");
            assert!(head.is_before_1_1());
        };
        check(
            "http://compute:8000/api/v1/jobs",
            "compute:8000",
            "/api/v1/jobs",
        );
        check("HTTP://compute?a=b", "compute", "/?a=b");
        check("https://compute", "compute", "/");
        check("/http://compute", "other", "/http://compute");
        check("*", "other", "*");
    }

    #[test]
    fn another_version_is_told_from_no_head() {
        assert_eq!(head("PRI * HTTP/2.0\n\n").unwrap_err(), Refused::Version);
        assert_eq!(head("GET / HTTP/3.0\n\n").unwrap_err(), Refused::Version);
        assert!(!head("GET / HTTP/1.2\n\n").unwrap().is_before_1_1());
    }

    #[test]
    fn what_is_not_a_head_is_refused() {
        for bytes in [
            "\n\n",
            "GET /\n\n",
            "GET  / HTTP/1.1\n\n",
            "GET / HTTP/1.1 \n\n",
            "GET / http/1.1\n\n",
            "GET / HTTP/1.10\n\n",
            "GET / HTTP/+1.1\n\n",
            "G(T / HTTP/1.1\n\n",
            "GET /\u{7f} HTTP/1.1\n\n",
            "GET / HTTP/1.1\nX\n\n",
            "GET / HTTP/1.1\nX : y\n\n",
            "GET / HTTP/1.1\nX: y\n z\n\n",
            "GET / HTTP/1.1\n: y\n\n",
            "GET / HTTP/1.1\nX: a\0b\n\n",
            "GET / HTTP/1.1\nX: a\rb\n\n",
            "GET / HTTP/1.1\nTransfer-Encoding: \u{b}chunked\n\n",
            "GET / HTTP/1.1\nContent-Length: 5\u{c}\n\n",
            "GET / HTTP/1.1\nX(Y: z\n\n",
        ] {
            let outcome = head(bytes);
            assert!(
                matches!(outcome, Err(Refused::Malformed(_))),
                "{bytes}: {outcome:?}"
            );
        }
        for bytes in [
            &b"GET / HTTP/1.1\n\n"[..],
            b"GET / HTTP/1.1\r\nX: y\nZ: a\r\n\r\n",
        ] {
            assert!(matches!(Head::parse(bytes), Err(Refused::Malformed(_))));
        }
        let many = format!("GET / HTTP/1.1\n{}\n", "a:\n".repeat(MAX_HEADERS + 1));
        assert_eq!(head(&many).unwrap_err(), Refused::HeadTooLarge);
    }

    #[test]
    fn a_byte_that_is_not_ascii_is_kept_as_one() {
        let head = head("GET /é HTTP/1.1\nX-Foo: é\nHost: x\n\n").unwrap();
        assert_eq!(head.value("X-Foo"), Some("\u{1a}\u{1a}"));
        assert_eq!(head.target.as_str(), "/\u{1a}\u{1a}");
        assert_eq!(head.value("Host"), Some("x"));
    }
}
