//! The Kubernetes REST API over HTTP: the only user of ureq.

use crate::sync::Lock;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body};

/// The mounted token is replaced before it expires; the kubelet does so at 80 % of its life, an hour at the least.
const TOKEN_AGE: Duration = Duration::from_secs(60);
const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// One request and its answer, all in all.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The API server sends a bookmark about once a minute: silence for longer is a dead connection.
const WATCH_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
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
            ApiError::Lost { call, cause } => write!(f, "{call}: no answer: {cause}"),
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
    pub fn new(access: &Access) -> Result<Client, AccessError> {
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
                .max_idle_connections(access.connections)
                .max_idle_connections_per_host(access.connections)
                .max_idle_age(Duration::from_secs(60))
        };
        let calls = config().timeout_global(Some(CALL_TIMEOUT)).build();
        let watches = config()
            .timeout_recv_response(Some(CALL_TIMEOUT))
            .timeout_per_read(Some(WATCH_IDLE_TIMEOUT))
            .build();
        let token = access
            .token_file
            .clone()
            .map(Token::read)
            .transpose()
            .map_err(AccessError::Token)?;
        Ok(Client {
            calls: calls.new_agent(),
            watches: watches.new_agent(),
            url: access.url.trim_end_matches('/').to_string(),
            token,
        })
    }

    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.call("GET", path, None)
    }

    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        object: &impl Serialize,
    ) -> Result<T, ApiError> {
        self.call("POST", path, Some((JSON, &encode(object))))
    }

    /// Changes the fields that `change` names, and no other (RFC 7396).
    pub fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        change: &impl Serialize,
    ) -> Result<T, ApiError> {
        self.call("PATCH", path, Some((MERGE_PATCH, &encode(change))))
    }

    pub fn delete(&self, path: &str) -> Result<(), ApiError> {
        self.call::<serde::de::IgnoredAny>("DELETE", path, None)
            .map(|_| ())
    }

    /// Opens a watch: the frames come, a line each, until the server or the connection ends.
    pub fn watch(&self, path: &str) -> Result<impl Read + use<>, ApiError> {
        let response = self.send(&self.watches, "GET", path, None)?;
        Ok(BufReader::new(
            response
                .into_body()
                .into_with_config()
                .limit(u64::MAX)
                .reader(),
        ))
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, &[u8])>,
    ) -> Result<T, ApiError> {
        let response = self.send(&self.calls, method, path, body)?;
        let bytes = read_answer(response).map_err(|e| failed(method, path, e))?;
        serde_json::from_slice(&bytes).map_err(|e| ApiError::Malformed {
            call: call(method, path),
            cause: e.to_string(),
        })
    }

    /// Sends, with a new token if the old one is refused, and turns a status of 400 and over into an error.
    fn send(
        &self,
        agent: &Agent,
        method: &str,
        path: &str,
        body: Option<(&str, &[u8])>,
    ) -> Result<Response<Body>, ApiError> {
        let mut response = self.send_once(agent, method, path, body)?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(token) = &self.token
        {
            token.expire();
            response = self.send_once(agent, method, path, body)?;
        }
        let code = response.status().as_u16();
        if code < 400 {
            return Ok(response);
        }
        let bytes = read_answer(response).map_err(|e| failed(method, path, e))?;
        let status: ApiStatus = serde_json::from_slice(&bytes).unwrap_or_else(|_| ApiStatus {
            message: String::from_utf8_lossy(&bytes)
                .trim()
                .chars()
                .take(300)
                .collect(),
            ..ApiStatus::default()
        });
        let (reason, message) = (status.reason, status.message);
        Err(ApiError::Status {
            call: call(method, path),
            code,
            reason,
            message,
        })
    }

    fn send_once(
        &self,
        agent: &Agent,
        method: &str,
        path: &str,
        body: Option<(&str, &[u8])>,
    ) -> Result<Response<Body>, ApiError> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("Accept", "application/json");
        if let Some(token) = &self.token {
            request = request.header("Authorization", token.header()?);
        }
        let sent = match body {
            Some((content_type, body)) => request
                .header("Content-Type", content_type)
                .body(body)
                .map_err(ureq::Error::from)
                .and_then(|request| agent.run(request)),
            None => request
                .body(())
                .map_err(ureq::Error::from)
                .and_then(|request| agent.run(request)),
        };
        sent.map_err(|e| failed(method, path, e))
    }
}

/// A call by its name: what it asks for, without how.
fn call(method: &str, path: &str) -> String {
    format!("{method} {}", path.split('?').next().unwrap_or(path))
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

fn failed(method: &str, path: &str, error: ureq::Error) -> ApiError {
    let call = call(method, path);
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
        let answer = Client::new(&access)
            .ok()
            .unwrap()
            .get::<ApiStatus>("/version");
        assert!(
            matches!(answer, Err(ApiError::Unreachable { .. })),
            "{answer:?}"
        );
    }
}
