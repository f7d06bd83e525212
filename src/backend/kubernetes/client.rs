//! The Kubernetes REST API over HTTP: the only user of ureq.

use super::breaker::Breaker;
use super::protobuf::{Malformed, Message, Value};
use super::wire::decode_object;
use crate::metrics::Metrics;
use crate::sync::Lock;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
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

/// The mounted token is replaced before it expires; the kubelet does so at 80 % of its life, an hour at the least.
const TOKEN_AGE: Duration = Duration::from_secs(60);
const JSON: &str = "application/json";
const ANY: &str = "application/json, */*";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// As the API server likes best, or else in JSON.
const WATCHED: &str = "application/vnd.kubernetes.protobuf;stream=watch, application/json";
/// Of an object that is not looked at: a Secret would come back with all of its payload.
///
/// Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches>
const METADATA_ALONE: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// One page of a list. The caller of no request waits for it.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// Enough to send what is nearly too late, and to be told so.
const MIN_TIMEOUT: Duration = Duration::from_millis(20);
/// The API server sends a bookmark about once a minute: silence for longer is a dead connection.
const WATCH_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// How often it is seen to whether a silent watch is to be doubted before that.
const WATCH_LOOK: Duration = Duration::from_secs(5);
/// A log that is followed says nothing for as long as its job does: who reads it looks up so often.
const LOG_TIMEOUT: Duration = Duration::from_secs(1);
/// Of each direction of each connection, kept with it: a Job fits, and so does the head of every answer, as it must. With
/// 16 KiB, 32 connections kept 1.2 MB more resident (measured).
const BUFFER_BYTES: usize = 8 << 10;
/// A page of a list, or an object, is never larger.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// Where the API server is and how to be believed there.
#[derive(Clone, Debug)]
pub struct Access {
    /// `https://host:port`, without a path.
    pub url: String,
    /// A file with a bearer token, read again as it rotates. None for an address that asks for none.
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
    breaker: Breaker,
    metrics: Arc<Metrics>,
}

/// What is sent.
#[derive(Clone, Copy)]
struct Call<'a> {
    /// As in [`crate::metrics::VERBS`].
    verb: &'static str,
    method: &'static str,
    path: &'a str,
    /// Content type and content.
    body: Option<(&'static str, &'a [u8])>,
    /// What is to be answered with: an `Accept` header.
    accept: &'static str,
    patience: Patience,
}

/// How long an answer is waited for.
#[derive(Clone, Copy)]
enum Patience {
    /// Somebody waits for it, until then; with the breaker.
    Until(Instant),
    /// A watch's own list, which has a backoff of its own.
    List,
    /// For as long as it says something now and then.
    Watch,
    /// A read gives up after [`LOG_TIMEOUT`], and may be repeated.
    Log,
}

impl Call<'_> {
    /// The call by its name: what it asks for, without how.
    fn name(&self) -> String {
        format!(
            "{} {}",
            self.method,
            self.path.split('?').next().unwrap_or(self.path)
        )
    }
}

/// Why a call failed, and on what.
#[derive(Debug)]
pub enum ApiError {
    /// Kubernetes answered with an error. `call` is method and path.
    Status {
        call: String,
        code: u16,
        reason: String,
        message: String,
    },
    /// No connection was made: nothing was asked.
    Unreachable { call: String, cause: String },
    /// No answer came in time: whether it was done is unknown.
    TimedOut { call: String, cause: String },
    /// The answer was lost: whether it was done is unknown.
    Lost { call: String, cause: String },
    /// The answer is not what it should be.
    Malformed { call: String, cause: String },
    /// The token file could not be read.
    Token { file: PathBuf, cause: String },
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiError::Status {
                call,
                code,
                message,
                ..
            } => write!(f, "{call}: {code}: {message}"),
            ApiError::Unreachable { call, cause } => {
                write!(f, "{call}: the API server is out of reach: {cause}")
            }
            ApiError::TimedOut { call, cause } | ApiError::Lost { call, cause } => {
                write!(f, "{call}: the API server did not answer: {cause}")
            }
            ApiError::Malformed { call, cause } => write!(f, "{call}: not understood: {cause}"),
            ApiError::Token { file, cause } => write!(f, "token file {}: {cause}", file.display()),
        }
    }
}

impl ApiError {
    /// The status code, if Kubernetes answered.
    pub fn code(&self) -> Option<u16> {
        match self {
            ApiError::Status { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Kubernetes' answer to what it could not do.
///
/// Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/>
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ApiStatus {
    pub code: u16,
    pub reason: String,
    pub message: String,
}

impl<'a> Message<'a> for ApiStatus {
    fn take(&mut self, field: u32, value: Value<'a>) -> Result<(), Malformed> {
        match field {
            3 => self.message = value.text()?,
            4 => self.reason = value.text()?,
            6 => self.code = value.number()?,
            _ => {}
        }
        Ok(())
    }
}

/// How the API server writes what it answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Format {
    /// One value, or one on each line of a watch.
    Json,
    /// One object, or events with their lengths before them.
    Protobuf,
}

impl Format {
    fn of<B>(response: &Response<B>) -> Format {
        let content_type = response.headers().get("Content-Type");
        match content_type.is_some_and(|text| text.as_bytes().starts_with(PROTOBUF.as_bytes())) {
            true => Format::Protobuf,
            false => Format::Json,
        }
    }
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
            breaker: Breaker::default(),
            metrics,
        })
    }

    /// One object.
    pub fn get<T: DeserializeOwned>(&self, path: &str, deadline: Instant) -> Result<T, ApiError> {
        self.call(Call {
            verb: "get",
            method: "GET",
            path,
            body: None,
            accept: ANY,
            patience: Patience::Until(deadline),
        })
    }

    /// One page of a list.
    pub fn list<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.call(Call {
            verb: "list",
            method: "GET",
            path,
            body: None,
            accept: ANY,
            patience: Patience::List,
        })
    }

    /// Creates an object, and reads what became of it.
    pub fn create<T: DeserializeOwned>(
        &self,
        path: &str,
        object: &impl Serialize,
        deadline: Instant,
    ) -> Result<T, ApiError> {
        self.post(path, object, ANY, deadline)
    }

    /// Creates an object of which nothing more is to be known than that it was made.
    pub fn create_unread(
        &self,
        path: &str,
        object: &impl Serialize,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        self.post::<IgnoredAny>(path, object, METADATA_ALONE, deadline)
            .map(|_| ())
    }

    fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        object: &impl Serialize,
        accept: &'static str,
        deadline: Instant,
    ) -> Result<T, ApiError> {
        let (body, patience) = (encode(object), Patience::Until(deadline));
        self.call(Call {
            verb: "create",
            method: "POST",
            path,
            body: Some((JSON, &body)),
            accept,
            patience,
        })
    }

    /// Changes the fields that `change` names, and no other (RFC 7396).
    pub fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        change: &impl Serialize,
        deadline: Instant,
    ) -> Result<T, ApiError> {
        let (body, patience) = (encode(change), Patience::Until(deadline));
        self.call(Call {
            verb: "patch",
            method: "PATCH",
            path,
            body: Some((MERGE_PATCH, &body)),
            accept: ANY,
            patience,
        })
    }

    pub fn delete(&self, path: &str, deadline: Instant) -> Result<(), ApiError> {
        let patience = Patience::Until(deadline);
        let call = Call {
            verb: "delete",
            method: "DELETE",
            path,
            body: None,
            accept: ANY,
            patience,
        };
        self.call::<IgnoredAny>(call).map(|_| ())
    }

    /// Opens a watch: its frames come until the server or the connection ends, or that is silent for so long that it must be
    /// dead. In protobuf, if the server has that: all API servers do, but not all that stands for one.
    pub fn watch(&self, path: &str) -> Result<(Format, impl Read + use<'_>), ApiError> {
        let call = Call {
            verb: "watch",
            method: "GET",
            path,
            body: None,
            accept: WATCHED,
            patience: Patience::Watch,
        };
        let response = self.send(call)?;
        let format = Format::of(&response);
        let body = response.into_body().into_with_config();
        let body = WatchReader {
            body: PatientReader(body.limit(u64::MAX).reader()),
            breaker: &self.breaker,
            heard: Instant::now(),
        };
        Ok((format, body))
    }

    /// Opens a log: its bytes as they come. A read that fails with `TimedOut` may be repeated.
    pub fn log(&self, path: &str) -> Result<impl Read + Send + use<>, ApiError> {
        let response = self.send(Call {
            verb: "get",
            method: "GET",
            path,
            body: None,
            accept: ANY,
            patience: Patience::Log,
        })?;
        let body = response.into_body().into_with_config();
        Ok(PatientReader(body.limit(u64::MAX).reader()))
    }

    fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, ApiError> {
        let bytes = read_answer(self.send(call)?).map_err(|e| failed(call, e))?;
        serde_json::from_slice(&bytes).map_err(|e| ApiError::Malformed {
            call: call.name(),
            cause: e.to_string(),
        })
    }

    /// Sends, with a new token if the old one is refused, and turns a status of 400 and over into an error.
    fn send(&self, call: Call) -> Result<Response<Body>, ApiError> {
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
        let format = Format::of(&response);
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
        let (reason, message) = (status.reason, status.message);
        Err(ApiError::Status {
            call: call.name(),
            code,
            reason,
            message,
        })
    }

    fn send_counted(&self, call: Call) -> Result<Response<Body>, ApiError> {
        let start = Instant::now();
        let is_breakable = matches!(call.patience, Patience::Until(_));
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
            .uri(format!("{}{}", self.url, call.path))
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
                let left = deadline
                    .saturating_duration_since(Instant::now())
                    .max(MIN_TIMEOUT);
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
struct WatchReader<'a, R> {
    body: R,
    breaker: &'a Breaker,
    heard: Instant,
}

impl<R: Read> Read for WatchReader<'_, R> {
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

fn encode(object: &impl Serialize) -> Vec<u8> {
    // Our objects are plain structs with string keys, which always serialize.
    serde_json::to_vec(object).unwrap_or_default()
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

/// Finds a server's address. ureq's own way takes a thread for each call that has a timeout, and most API servers are
/// known by an address that needs no finding.
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
    use super::*;

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
        let answer = client.get::<ApiStatus>("/version", Instant::now() + LIST_TIMEOUT);
        assert!(
            matches!(answer, Err(ApiError::Unreachable { .. })),
            "{answer:?}"
        );
    }
}
