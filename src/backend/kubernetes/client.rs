//! The Kubernetes REST API over HTTP: the only user of ureq.

use super::api::{Api, ApiError, ApiStatus, Call, Format, PROTOBUF, Patience};
use super::breaker::Breaker;
use super::wire::decode_object;
use crate::metrics::Metrics;
use crate::sync::Lock;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::config::Config;
use ureq::http::{Response, StatusCode, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, AsSendBody, Body};

/// The mounted token is replaced before it expires; the kubelet does so at 80 % of its life, an
/// hour at the least.
const TOKEN_AGE: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// One page of a list. The caller of no request waits for it.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// The API server sends a bookmark about once a minute: silence for longer is a dead connection.
const WATCH_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How often it is seen to whether a silent watch is to be doubted before that.
const WATCH_LOOK: Duration = Duration::from_secs(5);
/// A log that is followed says nothing for as long as its job does: who reads it looks up so often.
const LOG_TIMEOUT: Duration = Duration::from_secs(1);
/// Of each direction of each connection, kept with it: a Job fits, and so does the head of every
/// answer, as it must. With 16 KiB, 32 connections kept 1.2 MB more resident (measured).
const BUFFER_BYTES: usize = 8 << 10;
/// A page of a list, or an object, is never larger.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// Where the API server is and how to be believed there.
#[derive(Clone, Debug)]
pub struct Access {
    /// `https://host:port`, without a path.
    pub url: String,
    /// A file with a bearer token, read again as it rotates. None for an address that asks for
    /// none.
    pub token_file: Option<PathBuf>,
    /// A PEM file with the certificate authorities to believe.
    pub ca_file: Option<PathBuf>,
    /// Connections to keep open for calls.
    pub connections: usize,
}

/// A connection pool to one API server.
pub struct Client {
    calls: Agent,
    watches: Agent,
    url: String,
    token: Option<Token>,
    breaker: Arc<Breaker>,
    metrics: Arc<Metrics>,
}

/// Why there is no client.
#[derive(Debug)]
pub enum AccessError {
    CaFile { file: PathBuf, cause: String },
    Token(ApiError),
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessError::CaFile { file, cause } => write!(
                f,
                "--kube-ca-file {}: {cause}: name a PEM file with the API server's certificate authority",
                file.display()
            ),
            AccessError::Token(e) => write!(f, "{e}: name a readable file with --kube-token-file"),
        }
    }
}

impl Client {
    /// A client; reads the CA file and the token once, connects to nothing.
    pub fn new(access: &Access, metrics: Arc<Metrics>) -> Result<Client, AccessError> {
        let mut tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
        if let Some(file) = &access.ca_file {
            let bad = |cause: String| AccessError::CaFile {
                file: file.clone(),
                cause,
            };
            let certificates = read_certificates(file).map_err(bad)?;
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates));
        }
        let tls = tls.build();
        let config = || {
            Agent::config_builder()
                .tls_config(tls.clone())
                .http_status_as_error(false)
                .max_redirects(0)
                .user_agent(concat!("job-scheduler/", env!("CARGO_PKG_VERSION")))
                .timeout_connect(Some(CONNECT_TIMEOUT))
                .input_buffer_size(BUFFER_BYTES)
                .output_buffer_size(BUFFER_BYTES)
                .max_idle_connections(access.connections)
                .max_idle_connections_per_host(access.connections)
                .max_idle_age(Duration::from_secs(60))
        };
        let calls = config().timeout_global(Some(LIST_TIMEOUT)).build();
        let watches = config()
            .timeout_recv_response(Some(LIST_TIMEOUT))
            .timeout_per_read(Some(WATCH_LOOK))
            .build();
        let token = access
            .token_file
            .clone()
            .map(Token::read)
            .transpose()
            .map_err(AccessError::Token)?;
        Ok(Client {
            calls: agent(calls),
            watches: agent(watches),
            url: access.url.trim_end_matches('/').to_string(),
            token,
            breaker: Arc::default(),
            metrics,
        })
    }

    /// Asks, with a new token if the old one is refused, and turns a status of 400 and over into an
    /// error.
    fn ask(&self, call: Call) -> Result<Response<Body>, ApiError> {
        let mut response = self.send_counted(call)?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(token) = &self.token
        {
            token.expire();
            response = self.send_counted(call)?;
        }
        let code = response.status().as_u16();
        if code < 400 {
            return Ok(response);
        }
        let format = format_of(&response);
        let bytes = read_answer(response).map_err(|e| failed(call, e))?;
        let status = match format {
            Format::Json => serde_json::from_slice(&bytes).ok(),
            Format::Protobuf => decode_object::<ApiStatus>(&bytes).ok(),
        };
        let status = status.unwrap_or_else(|| ApiStatus {
            message: String::from_utf8_lossy(&bytes)
                .trim()
                .chars()
                .take(300)
                .collect(),
            ..ApiStatus::default()
        });
        let causes = status.details.causes.into_iter();
        Err(ApiError::Status {
            call: call.name(),
            code,
            reason: status.reason,
            message: status.message,
            fields: causes.map(|cause| cause.field).collect(),
        })
    }

    fn send_counted(&self, call: Call) -> Result<Response<Body>, ApiError> {
        let start = Instant::now();
        let is_breakable = matches!(call.patience, Patience::Until(_));
        if matches!(call.patience, Patience::Until(deadline) if deadline <= start) {
            return Err(ApiError::Late { call: call.name() });
        }
        if is_breakable && !self.breaker.lets_through(start) {
            let cause = "it did not answer a moment ago".to_string();
            return Err(ApiError::Unreachable {
                call: call.name(),
                cause,
            });
        }
        let answer = self.send_once(call);
        let end = Instant::now();
        match answer {
            Ok(_) => self.breaker.answered(end),
            Err(ApiError::Unreachable { .. } | ApiError::TimedOut { .. }) if is_breakable => {
                self.breaker.not_answered(start, end);
            }
            // A connection that broke says nothing of the next one.
            Err(_) if is_breakable => self.breaker.release(),
            Err(_) => {}
        }
        let code = answer
            .as_ref()
            .map_or(0, |response| response.status().as_u16());
        self.metrics.call(call.verb, code, end - start);
        answer
    }

    fn send_once(&self, call: Call) -> Result<Response<Body>, ApiError> {
        let mut request = ureq::http::Request::builder()
            .method(call.method)
            .uri(self.uri(&call))
            .header("Accept", call.accept);
        if let Some(token) = &self.token {
            request = request.header("Authorization", token.header()?);
        }
        let sent = match call.body {
            Some((content_type, body)) => request
                .header("Content-Type", content_type)
                .body(body)
                .map_err(ureq::Error::from)
                .and_then(|request| self.run(request, call.patience)),
            None => request
                .body(())
                .map_err(ureq::Error::from)
                .and_then(|r| self.run(r, call.patience)),
        };
        sent.map_err(|e| failed(call, e))
    }

    /// The API server is told, too, for how long the caller waits, so that it does nothing after
    /// that.
    ///
    /// Source: `WithRequestDeadline` in <https://github.com/kubernetes/apiserver> (`pkg/endpoints/filters`)
    fn uri(&self, call: &Call) -> String {
        let uri = format!("{}{}", self.url, call.path);
        let Patience::Until(deadline) = call.patience else {
            return uri;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let joint = if call.path.contains('?') { '&' } else { '?' };
        format!("{uri}{joint}timeout={}ms", left.as_millis().max(1))
    }

    fn run<B: AsSendBody>(
        &self,
        request: ureq::http::Request<B>,
        patience: Patience,
    ) -> Result<Response<Body>, ureq::Error> {
        match patience {
            Patience::Watch => self.watches.run(request),
            Patience::Log => {
                let request = self
                    .watches
                    .configure_request(request)
                    .timeout_recv_response(Some(LOG_TIMEOUT))
                    .timeout_per_read(Some(LOG_TIMEOUT))
                    .build();
                self.watches.run(request)
            }
            Patience::List => self.calls.run(request),
            Patience::Until(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let request = self
                    .calls
                    .configure_request(request)
                    .timeout_global(Some(left))
                    .build();
                self.calls.run(request)
            }
        }
    }
}

impl Api for Client {
    fn send(&self, call: &Call) -> Result<Vec<u8>, ApiError> {
        read_answer(self.ask(*call)?).map_err(|e| failed(*call, e))
    }

    fn open(&self, call: &Call) -> Result<(Format, Box<dyn Read + Send>), ApiError> {
        let response = self.ask(*call)?;
        let format = format_of(&response);
        let body = response.into_body().into_with_config();
        let body = PatientReader(body.limit(u64::MAX).reader());
        if call.patience != Patience::Watch {
            return Ok((format, Box::new(body)));
        }
        let body = WatchReader {
            body,
            breaker: self.breaker.clone(),
            heard: Instant::now(),
        };
        Ok((format, Box::new(body)))
    }
}

fn format_of<B>(response: &Response<B>) -> Format {
    let content_type = response.headers().get("Content-Type");
    match content_type.is_some_and(|text| text.as_bytes().starts_with(PROTOBUF.as_bytes())) {
        true => Format::Protobuf,
        false => Format::Json,
    }
}

/// Says of a read that had nothing in time that it may be repeated.
struct PatientReader<R>(R);

impl<R: Read> Read for PatientReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|e| {
            let cause = e.get_ref().and_then(|e| e.downcast_ref());
            match cause {
                Some(ureq::Error::Timeout(_)) => ErrorKind::TimedOut.into(),
                _ => e,
            }
        })
    }
}

/// Goes on reading a silent watch for as long as nothing says that it is dead.
struct WatchReader<R> {
    body: R,
    breaker: Arc<Breaker>,
    heard: Instant,
}

impl<R: Read> Read for WatchReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.body.read(buffer) {
                Err(e) if e.kind() == ErrorKind::TimedOut => {
                    let silent = self.heard.elapsed();
                    if silent >= WATCH_IDLE_TIMEOUT || self.breaker.doubts(self.heard) {
                        let message = format!("nothing came for {} s", silent.as_secs());
                        return Err(io::Error::new(ErrorKind::TimedOut, message));
                    }
                }
                read => {
                    self.heard = Instant::now();
                    return read;
                }
            }
        }
    }
}

fn read_answer(response: Response<Body>) -> Result<Vec<u8>, ureq::Error> {
    response
        .into_body()
        .into_with_config()
        .limit(MAX_ANSWER_BYTES)
        .read_to_vec()
}

fn failed(call: Call, error: ureq::Error) -> ApiError {
    let call = call.name();
    let cause = error.to_string();
    match error {
        ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::BadUri(_)
        | ureq::Error::Tls(_)
        | ureq::Error::Rustls(_)
        | ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
            ApiError::Unreachable { call, cause }
        }
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            ApiError::Unreachable { call, cause }
        }
        ureq::Error::Timeout(_) => ApiError::TimedOut { call, cause },
        _ => ApiError::Lost { call, cause },
    }
}

fn read_certificates(file: &std::path::Path) -> Result<Vec<Certificate<'static>>, String> {
    let pem = std::fs::read(file).map_err(|e| e.to_string())?;
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| e.to_string())? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        Err("no certificate in it".to_string())
    } else {
        Ok(certificates)
    }
}

fn agent(config: Config) -> Agent {
    Agent::with_parts(config, DefaultConnector::default(), Lookup::default())
}

/// Finds a server's address. ureq's own way takes a thread for each call that has a timeout, and
/// most API servers are known by an address that needs no finding.
#[derive(Debug, Default)]
struct Lookup(DefaultResolver);

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let Some(address) = literal_address(uri) else {
            return self.0.resolve(uri, config, timeout);
        };
        let mut addresses = self.empty();
        addresses.push(address);
        Ok(addresses)
    }
}

fn literal_address(uri: &Uri) -> Option<SocketAddr> {
    let ip = uri.host()?.trim_matches(['[', ']']).parse().ok()?;
    let default = match uri.scheme_str()? {
        "https" => 443,
        _ => 80,
    };
    Some(SocketAddr::new(ip, uri.port_u16().unwrap_or(default)))
}

/// A bearer token in a file that somebody replaces now and then.
struct Token {
    file: PathBuf,
    cached: Lock<CachedToken>,
}

struct CachedToken {
    header: String,
    read: Option<Instant>,
}

impl Token {
    fn read(file: PathBuf) -> Result<Token, ApiError> {
        let token = Token {
            file,
            cached: Lock::new(CachedToken {
                header: String::new(),
                read: None,
            }),
        };
        token.header().map(|_| token)
    }

    /// The `Authorization` header, at most [`TOKEN_AGE`] old.
    fn header(&self) -> Result<String, ApiError> {
        if let Some(header) = self.fresh() {
            return Ok(header);
        }
        let text = std::fs::read_to_string(&self.file).map_err(|e| ApiError::Token {
            file: self.file.clone(),
            cause: e.to_string(),
        })?;
        let header = format!("Bearer {}", text.trim());
        *self.cached.lock() = CachedToken {
            header: header.clone(),
            read: Some(Instant::now()),
        };
        Ok(header)
    }

    fn fresh(&self) -> Option<String> {
        let cached = self.cached.lock();
        cached
            .read
            .is_some_and(|read| read.elapsed() < TOKEN_AGE)
            .then(|| cached.header.clone())
    }

    fn expire(&self) {
        self.cached.lock().read = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::api::Calls;
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_replaced_token_is_used_once_the_old_one_is_refused() {
        let file = std::env::temp_dir().join(format!("job-scheduler-token-{}", std::process::id()));
        std::fs::write(&file, "first\n").unwrap();
        let token = Token::read(file.clone()).unwrap();
        std::fs::write(&file, "second\n").unwrap();
        assert_eq!(token.header().unwrap(), "Bearer first");
        token.expire();
        assert_eq!(token.header().unwrap(), "Bearer second");
        std::fs::remove_file(&file).unwrap();
        token.expire();
        assert!(matches!(token.header(), Err(ApiError::Token { .. })));
    }

    #[test]
    fn an_address_needs_no_lookup() {
        let check = |uri: &'static str, expected: Option<&str>| {
            let found = literal_address(&Uri::from_static(uri));
            assert_eq!(found, expected.map(|text| text.parse().unwrap()), "{uri}");
        };
        check("https://10.96.0.1:6443/api", Some("10.96.0.1:6443"));
        check("https://10.96.0.1/api", Some("10.96.0.1:443"));
        check("http://[fd00::1]/api", Some("[fd00::1]:80"));
        check("https://kubernetes.default.svc/api", None);
    }

    #[test]
    fn a_refused_connection_is_known_not_to_have_asked() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let access = Access {
            url: format!("http://127.0.0.1:{port}"),
            token_file: None,
            ca_file: None,
            connections: 1,
        };
        let client = Client::new(&access, Arc::default()).ok().unwrap();
        let calls = Calls::new(Arc::new(client), Clock::real());
        let answer = calls.get::<ApiStatus>("/version", Instant::now() + LIST_TIMEOUT);
        assert!(
            matches!(answer, Err(ApiError::Unreachable { .. })),
            "{answer:?}"
        );
    }
}
