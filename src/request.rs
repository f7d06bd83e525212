//! The body of a request to start a job.

use crate::config::fields::{Fields, Item, Report};
use crate::config::tree::{JsonError, Node, Value};
use crate::config::{FieldError, Settings, read_settings};
use std::fmt;

/// A request to start a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobRequest {
    /// What the job gets in the file `payload`, to the byte. Its size is for the caller to judge.
    pub payload: Option<String>,
    /// The caller's own id for the job: 1 to 253 characters.
    pub job_id: Option<String>,
    /// What this job has otherwise than its component.
    pub settings: Settings,
}

/// Why a body is not a request. No message holds any of the payload.
#[derive(Debug)]
pub enum RequestError {
    /// The body is not JSON; the message has the line and the column.
    NotJson { message: String },
    /// The body is JSON, and fields of it are wrong: all of them.
    Fields(Vec<FieldError>),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::NotJson { message } => {
                write!(f, "the request body is not JSON: {message}")
            }
            RequestError::Fields(errors) => {
                for (number, error) in errors.iter().enumerate() {
                    if number > 0 {
                        f.write_str("; ")?;
                    }
                    error.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for RequestError {}

impl From<JsonError> for RequestError {
    fn from(error: JsonError) -> RequestError {
        RequestError::NotJson {
            message: error.to_string(),
        }
    }
}

/// What only `radixconfig.yaml` may set.
const FIXED: [(&str, &str); 8] = [
    ("enabled", IS_FIXED),
    ("environmentConfig", IS_FIXED),
    (
        "name",
        "is the scheduler's to give: remove it, and send `jobId` to have an id of your own",
    ),
    ("ports", IS_FIXED),
    ("readOnlyFileSystem", IS_FIXED),
    ("schedulerPort", IS_FIXED),
    ("secrets", IS_FIXED),
    ("volumeMounts", IS_FIXED),
];
const IS_FIXED: &str = "is the same for all jobs: remove it, and set it in radixconfig.yaml";

/// Reads the body of a request to start a job. An empty one asks for a job with everything as configured, and a field
/// that is null is one that is not set.
pub fn parse_request(body: &[u8]) -> Result<JobRequest, RequestError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(JobRequest::default());
    }
    let node = Node::from_json(body)?;
    let report = Report::default();
    if !matches!(node.value, Value::Mapping(_)) {
        let message = format!(
            "the request body must be an object, such as {{\"payload\": \"…\"}}, not {}",
            node.described()
        );
        report.error("", 0, message);
    }
    let request = match report.has_errors() {
        true => None,
        false => Item::root(node, &report).mapping().map(job_request),
    };
    let (errors, _) = report.into_parts();
    match request {
        Some(request) if errors.is_empty() => Ok(request),
        _ => Err(RequestError::Fields(errors)),
    }
}

fn job_request(mut fields: Fields<'_>) -> JobRequest {
    let request = JobRequest {
        payload: fields.take("payload").and_then(payload),
        job_id: fields.take("jobId").and_then(|item| {
            let (report, field, line) = item.place();
            let id = item.string()?;
            let is_good = (1..=253).contains(&id.chars().count()) && !id.contains(char::is_control);
            if !is_good {
                let message = "must be 1 to 253 characters without control characters";
                report.error(&field, line, message);
            }
            is_good.then_some(id)
        }),
        settings: read_settings(&mut fields),
    };
    fields.refuse(&FIXED);
    fields.finish();
    request
}

fn payload(item: Item<'_>) -> Option<String> {
    if item.is_text() {
        return item.string();
    }
    item.error(format!(
        "must be a string, not {}: send an object as its JSON text, such as \"{{\\\"x\\\": 10}}\"",
        item.described()
    ));
    None
}
