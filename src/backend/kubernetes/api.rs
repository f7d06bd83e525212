//! The calls to an API server: what is asked, and what may come of it. [`Api`] carries a call out;
//! [`Calls`] has one method for each that the scheduler makes.

use super::protobuf::{Malformed, Message, Value};
use crate::clock::Clock;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

const JSON: &str = "application/json";
const ANY: &str = "application/json, */*";
pub(super) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// As the API server likes best, or else in JSON.
const WATCHED: &str = "application/vnd.kubernetes.protobuf;stream=watch, application/json";
/// Of an object that is not looked at: a Secret would come back with all of its payload.
///
/// Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches>
const METADATA_ALONE: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// Who carries out calls: a connection to an API server, or a model of one.
pub trait Api: Send + Sync {
    /// Asks, and reads the answer whole.
    fn send(&self, call: &Call) -> Result<Vec<u8>, ApiError>;

    /// Asks for what has no end of its own, a watch or a log, and gives what comes.
    fn open(&self, call: &Call) -> Result<(Format, Box<dyn Read + Send>), ApiError>;
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// As in [`crate::metrics::VERBS`].
    pub verb: &'static str,
    pub method: &'static str,
    /// Path and query.
    pub path: &'a str,
    /// Content type and content.
    pub body: Option<(&'static str, &'a [u8])>,
    /// What is to be answered with: an `Accept` header.
    pub accept: &'static str,
    pub patience: Patience,
}

impl Call<'_> {
    /// The call by its name: what it asks for, without how.
    pub fn name(&self) -> String {
        let path = self.path.split('?').next().unwrap_or(self.path);
        format!("{} {path}", self.method)
    }
}

/// How long an answer is waited for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Patience {
    /// Somebody waits for it, until then; with the breaker.
    Until(Instant),
    /// A watch's own list, which has a backoff of its own.
    List,
    /// For as long as it says something now and then.
    Watch,
    /// A read gives up after a second, and may be repeated.
    Log,
}

/// How the API server writes what it answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Format {
    /// One value, or one on each line of a watch.
    Json,
    /// One object, or events with their lengths before them.
    Protobuf,
}

/// Why a call failed, and on what.
#[derive(Clone, Debug)]
pub enum ApiError {
    /// Kubernetes answered with an error. `call` is method and path.
    Status {
        call: String,
        code: u16,
        reason: String,
        message: String,
        /// The fields that are wrong.
        fields: Vec<String>,
    },
    /// No connection was made: nothing was asked.
    Unreachable { call: String, cause: String },
    /// It was too late to ask.
    Late { call: String },
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
            ApiError::Late { call } => {
                write!(f, "{call}: not sent: the time for it was over")
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

    /// Kubernetes' word for the kind of error, such as `AlreadyExists`; empty if it did not answer.
    pub fn reason(&self) -> &str {
        match self {
            ApiError::Status { reason, .. } => reason,
            _ => "",
        }
    }

    /// Whether Kubernetes names this field as wrong.
    pub fn is_about(&self, field: &str) -> bool {
        matches!(self, ApiError::Status { fields, .. } if fields.iter().any(|f| f == field))
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
    pub details: StatusDetails,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct StatusDetails {
    pub causes: Vec<StatusCause>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct StatusCause {
    pub field: String,
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

/// The calls that the scheduler makes. None is sent after its deadline.
#[derive(Clone)]
pub struct Calls {
    api: Arc<dyn Api>,
    clock: Clock,
}

impl Calls {
    pub fn new(api: Arc<dyn Api>, clock: Clock) -> Calls {
        Calls { api, clock }
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
    pub fn list<T: DeserializeOwned>(&self, path: &str, patience: Patience) -> Result<T, ApiError> {
        self.call(Call {
            verb: "list",
            method: "GET",
            path,
            body: None,
            accept: ANY,
            patience,
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
        self.call(Call {
            verb: "create",
            method: "POST",
            path,
            body: Some((JSON, &encode(object))),
            accept,
            patience: Patience::Until(deadline),
        })
    }

    /// Changes the fields that `change` names, and no other (RFC 7396).
    pub fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        change: &impl Serialize,
        deadline: Instant,
    ) -> Result<T, ApiError> {
        self.call(Call {
            verb: "patch",
            method: "PATCH",
            path,
            body: Some((MERGE_PATCH, &encode(change))),
            accept: ANY,
            patience: Patience::Until(deadline),
        })
    }

    /// Deletes an object, as `options` (a DeleteOptions) say.
    pub fn delete(
        &self,
        path: &str,
        options: &impl Serialize,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        self.call::<IgnoredAny>(Call {
            verb: "delete",
            method: "DELETE",
            path,
            body: Some((JSON, &encode(options))),
            accept: ANY,
            patience: Patience::Until(deadline),
        })
        .map(|_| ())
    }

    /// Opens a watch: its frames come until the server or the connection ends, or that is silent
    /// for so long that it must be dead. In protobuf, if the server has that: all API servers do,
    /// but not all that stands for one.
    pub fn watch(&self, path: &str) -> Result<(Format, Box<dyn Read + Send>), ApiError> {
        self.api.open(&Call {
            verb: "watch",
            method: "GET",
            path,
            body: None,
            accept: WATCHED,
            patience: Patience::Watch,
        })
    }

    /// Opens a log: its bytes as they come. A read that fails with `TimedOut` may be repeated.
    pub fn log(&self, path: &str) -> Result<Box<dyn Read + Send>, ApiError> {
        let opened = self.api.open(&Call {
            verb: "get",
            method: "GET",
            path,
            body: None,
            accept: ANY,
            patience: Patience::Log,
        });
        opened.map(|(_, bytes)| bytes)
    }

    fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, ApiError> {
        // A process that was held up (stopped, swapped out, its machine asleep) must not do late
        // what others have long decided without it.
        if matches!(call.patience, Patience::Until(deadline) if deadline <= self.clock.instant()) {
            return Err(ApiError::Late { call: call.name() });
        }
        let bytes = self.api.send(&call)?;
        serde_json::from_slice(&bytes).map_err(|e| ApiError::Malformed {
            call: call.name(),
            cause: e.to_string(),
        })
    }
}

fn encode(object: &impl Serialize) -> Vec<u8> {
    // Our objects are plain structs with string keys, which always serialize.
    serde_json::to_vec(object).unwrap_or_default()
}
