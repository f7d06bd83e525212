//! The body of a request to start a job, and what its headers add.

use crate::config::fields::{Fields, Item, Report};
use crate::config::tree::{JsonError, Node, Value, shown};
use crate::config::{FieldError, JobComponent, Settings, read_settings};
use crate::job::{RequestKey, Sent};
use crate::trace::TraceContext;
use std::fmt;

/// The largest payload, in bytes: what a Kubernetes Secret holds.
pub const MAX_PAYLOAD_BYTES: usize = 1_048_576;

/// A request to start a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobRequest {
    /// What the job gets in the file `payload`, to the byte. Its size is for the caller to judge.
    pub payload: Option<String>,
    /// The caller's own id for the job: 1 to 253 characters.
    pub job_id: Option<String>,
    /// Its place in the scheduler's queue, where there is one: -100 to 100, higher first.
    pub priority: i8,
    /// What this job has otherwise than its component.
    pub settings: Settings,
    /// The trace that it is part of, as the request's headers tell.
    pub trace: Option<TraceContext>,
}

/// Of a job's variables, command and arguments together, in bytes. A page of a list holds many
/// jobs, and Linux starts no process with a longer argument.
const MAX_DESCRIPTION_BYTES: usize = 131_072;

impl JobRequest {
    /// What the job goes by: the component's settings with the request's on top.
    pub fn settings_for(&self, component: &JobComponent) -> Settings {
        let mut settings = component.settings.overridden_by(&self.settings);
        if let Some(trace) = &self.trace {
            trace.add_to(&mut settings.variables, &component.secrets);
        }
        settings
    }

    /// What of it this component's jobs cannot have.
    pub fn check(&self, component: &JobComponent) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut error = |field: String, message: String| {
            errors.push(FieldError {
                field,
                line: None,
                message,
            })
        };
        if self.payload.is_some() && component.payload_path.is_none() {
            let message = format!(
                "the job component {} takes none: set payload.path for it in radixconfig.yaml, or leave the payload out",
                component.name
            );
            error("payload".to_string(), message);
        }
        for name in &component.secrets {
            if self.settings.variables.contains_key(name) {
                let message = "comes from the component's Secret: give the variable another name";
                error(format!("variables.{name}"), message.to_string());
            }
        }
        let bytes = description_bytes(&component.settings.overridden_by(&self.settings));
        if bytes > MAX_DESCRIPTION_BYTES {
            let message = format!(
                "variables, command and args take {bytes} bytes together, and may take {MAX_DESCRIPTION_BYTES}: \
                 send what is long as the payload"
            );
            error("variables".to_string(), message);
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors),
        }
    }
}

/// What variables, command and arguments take.
pub fn description_bytes(settings: &Settings) -> usize {
    let variables = settings.variables.iter();
    let variables = variables.map(|(name, value)| name.len() + value.len());
    let words = settings.command.iter().chain(&settings.args).flatten();
    variables.chain(words.map(String::len)).sum()
}

/// An idempotency key that cannot be one.
#[derive(Debug, PartialEq)]
pub struct BadKey;

/// The digests by which a request with an idempotency key is told again. A key has 1 to 255 visible
/// ASCII characters.
pub fn request_key(key: &str, body: &[u8]) -> Result<RequestKey, BadKey> {
    if !(1..=255).contains(&key.len()) || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(BadKey);
    }
    Ok(RequestKey {
        key: digest(key.as_bytes()),
        body: digest(body),
        sent: Sent::default(),
    })
}

/// The first half of SHA-256: enough that no two keys of one scheduler ever meet by chance.
fn digest(bytes: &[u8]) -> u128 {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .take(16)
        .fold(0, |number, byte| number << 8 | u128::from(*byte))
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

/// Reads the body of a request to start a job. An empty one asks for a job with everything as
/// configured, and a field that is null is one that is not set.
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
        false => Item::root(node, &report)
            .mapping()
            .map(|fields| job_request(fields, 0)),
    };
    let (errors, _) = report.into_parts();
    match request {
        Some(request) if errors.is_empty() => Ok(request),
        _ => Err(RequestError::Fields(errors)),
    }
}

/// Reads what a job is to be, with this priority where it says none.
pub fn job_request(mut fields: Fields<'_>, default_priority: i8) -> JobRequest {
    let request = JobRequest {
        payload: fields.take("payload").and_then(payload),
        job_id: fields.take("jobId").and_then(job_id),
        priority: fields
            .take("priority")
            .and_then(priority)
            .unwrap_or(default_priority),
        settings: read_settings(&mut fields),
        trace: None,
    };
    fields.refuse(&FIXED);
    fields.finish();
    request
}

/// A caller's own id for a job or a batch.
pub fn job_id(item: Item<'_>) -> Option<String> {
    let (report, field, line) = item.place();
    let id = item.string()?;
    if !is_job_id(&id) {
        let message = "must be 1 to 253 characters without control characters";
        report.error(&field, line, message);
        return None;
    }
    Some(id)
}

/// A place among others of a queue, higher ones first.
pub fn priority(item: Item<'_>) -> Option<i8> {
    item.integer(-100..=100)
}

/// Whether a job may have this id of its caller's.
pub fn is_job_id(text: &str) -> bool {
    (1..=253).contains(&text.chars().count()) && !text.contains(char::is_control)
}

/// How far a job says that it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ProgressReport {
    /// 0 to 100.
    pub percent: u8,
    /// At most [`MAX_MESSAGE`] characters, none of them a control character.
    pub message: String,
}

/// Characters of the message that a job may send of its progress.
pub const MAX_MESSAGE: usize = 256;

/// Reads the body of a request in which a job says how far it is.
pub fn parse_progress(body: &[u8]) -> Result<ProgressReport, RequestError> {
    let node = Node::from_json(body)?;
    let report = Report::default();
    if !matches!(node.value, Value::Mapping(_)) {
        let message = format!(
            "the request body must be an object, such as {{\"percent\": 40}}, not {}",
            node.described()
        );
        report.error("", 0, message);
        return Err(RequestError::Fields(report.into_parts().0));
    }
    let progress = Item::root(node, &report).mapping().and_then(progress);
    let (errors, _) = report.into_parts();
    match progress {
        Some(progress) if errors.is_empty() => Ok(progress),
        _ => Err(RequestError::Fields(errors)),
    }
}

fn progress(mut fields: Fields<'_>) -> Option<ProgressReport> {
    let percent = fields.require("percent", "give a number from 0 to 100");
    let percent = percent.and_then(percent_of);
    let message = fields.take("message").and_then(|item| {
        let (report, field, line) = item.place();
        let message = item.string()?;
        let is_good = message.chars().count() <= MAX_MESSAGE && !message.contains(char::is_control);
        if !is_good {
            let wanted = format!("must be at most {MAX_MESSAGE} characters, on one line");
            report.error(&field, line, wanted);
        }
        is_good.then_some(message)
    });
    fields.finish();
    Some(ProgressReport {
        percent: percent?,
        message: message.unwrap_or_default(),
    })
}

/// A number, of which the whole percents count: 100 is all of it, and no less.
fn percent_of(item: Item<'_>) -> Option<u8> {
    if item.is_text() {
        item.error("must be a number from 0 to 100, without quotes");
        return None;
    }
    item.parsed_number(|text| {
        let number: Option<f64> = text.parse().ok();
        let number = number.filter(|number| (0.0..=100.0).contains(number));
        number
            .map(|number| number as u8)
            .ok_or_else(|| format!("must be a number from 0 to 100, not {}", shown(text)))
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ExitCodes, Runtime};

    fn parsed(body: &str) -> JobRequest {
        parse_request(body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    #[track_caller]
    fn refused(body: &str, expected: &str) {
        let error = parse_request(body.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{body}");
    }

    #[test]
    fn progress_is_a_number_and_a_short_text() {
        let check = |body: &str, percent: u8, message: &str| {
            let message = message.to_string();
            let expected = ProgressReport { percent, message };
            assert_eq!(parse_progress(body.as_bytes()).unwrap(), expected, "{body}");
        };
        check(r#"{"percent": 0}"#, 0, "");
        check(r#"{"percent": 100, "message": "done"}"#, 100, "done");
        check(r#"{"PERCENT": 33.9, "message": null}"#, 33, "");
        check(r#"{"percent": 99.999999}"#, 99, "");
        check(r#"{"percent": 1e1}"#, 10, "");
        let long = "ä".repeat(256);
        check(
            &format!(r#"{{"percent": 1, "message": "{long}"}}"#),
            1,
            &long,
        );

        let refused = |body: &str, expected: &str| {
            let error = parse_progress(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{body}: {error}");
        };
        refused("", "not JSON");
        refused("{", "not JSON");
        refused("40", "must be an object");
        refused("{}", "percent: is missing");
        refused(r#"{"percent": null}"#, "percent: is missing");
        for bad in ["-1", "100.5", "101", "1e300", "true", "[]"] {
            refused(&format!(r#"{{"percent": {bad}}}"#), "percent: must be");
        }
        refused(
            r#"{"percent": "40"}"#,
            "percent: must be a number from 0 to 100, without quotes",
        );
        refused(r#"{"percent": 1, "message": 1}"#, "message: must be text");
        refused(
            r#"{"percent": 1, "message": "a\nb"}"#,
            "message: must be at most 256 characters",
        );
        refused(
            &format!(r#"{{"percent": 1, "message": "{long}x"}}"#),
            "message: must be at most",
        );
        refused(r#"{"percent": 1, "massage": "x"}"#, "massage");
    }

    #[test]
    fn an_empty_body_asks_for_the_job_as_configured() {
        for body in [
            "",
            " \r\n\t",
            "{}",
            r#"{"payload": null, "jobId": null, "node": null}"#,
        ] {
            assert_eq!(parsed(body), JobRequest::default());
        }
    }

    #[test]
    fn a_payload_is_kept_to_the_byte() {
        #[track_caller]
        fn check(body: &str, payload: &str) {
            assert_eq!(parsed(body).payload.as_deref(), Some(payload));
        }
        check(r#"{"payload": ""}"#, "");
        check(r#"{"payload": "  \n x \r\n "}"#, "  \n x \r\n ");
        check(
            r#"{"payload": "{\"x\": 10, \"y\": 20}"}"#,
            r#"{"x": 10, "y": 20}"#,
        );
        check(
            "{\"payload\": \"\\u0000\\ud834\\udd1e æ\u{feff}\"}",
            "\0𝄞 æ\u{feff}",
        );
        let long = "é".repeat(1 << 20);
        check(&format!(r#"{{"payload": "{long}"}}"#), &long);
    }

    #[test]
    fn every_setting_is_read() {
        let request = parsed(
            r#"{
                "jobId": "job 1", "image": "a:{imageTagName}", "imageTagName": "2", "timeLimitSeconds": 60,
                "backoffLimit": 0, "safeToRestart": false, "runAsUser": 1000,
                "failurePolicy": {"rules": [{"action": "Count", "onExitCodes": {"operator": "In", "values": [3]}}]},
                "resources": {"requests": {"cpu": 0.5}, "limits": {"memory": "1Gi"}},
                "node": {"gpu": "v100", "gpuCount": "2"}, "runtime": {"nodeType": "gpu", "architecture": ""},
                "variables": {"A": "1.10", "B": 2, "C": true}, "command": [], "args": ["x", 1]
            }"#,
        );
        assert_eq!(request.job_id.as_deref(), Some("job 1"));
        let settings = request.settings;
        assert_eq!(settings.image_reference().as_deref(), Ok("a:2"));
        assert_eq!(settings.time_limit_seconds, Some(60));
        assert_eq!(settings.backoff_limit, Some(0));
        assert_eq!(settings.safe_to_restart, Some(false));
        assert_eq!(settings.run_as_user, Some(1000));
        let rule = &settings.failure_policy.unwrap().rules[0];
        assert_eq!(rule.on_exit_codes, ExitCodes::In(vec![3]));
        let resources = settings.resources.unwrap();
        assert_eq!(resources.requests["cpu"].milli, 500);
        assert_eq!(resources.requests["memory"], resources.limits["memory"]);
        assert_eq!(settings.node.unwrap().gpu_count, Some(2));
        assert_eq!(settings.runtime, Some(Runtime::NodeType("gpu".to_owned())));
        let variables: Vec<_> = settings
            .variables
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(variables, ["A=1.10", "B=2", "C=true"]);
        assert_eq!(settings.command, Some(vec![]));
        assert_eq!(settings.args.unwrap(), ["x", "1"]);
    }

    #[test]
    fn a_body_that_is_not_json_is_refused_with_the_place() {
        refused(
            "{",
            "the request body is not JSON: EOF while parsing an object at line 1 column 1",
        );
        refused(
            "{}x",
            "the request body is not JSON: trailing characters at line 1 column 3",
        );
        refused(
            r#"{"payload": "a", "payload": "b"}"#,
            "the request body is not JSON: the key `payload` is there twice at line 1 column 32",
        );
        refused(
            "[1]",
            "the request body must be an object, such as {\"payload\": \"…\"}, not a list",
        );
        refused(
            "\"x\"",
            "the request body must be an object, such as {\"payload\": \"…\"}, not text",
        );
        refused(
            "null",
            "the request body must be an object, such as {\"payload\": \"…\"}, not nothing",
        );
        assert!(parse_request(b"{\"payload\": \"\xff\"}").is_err());
    }

    #[test]
    fn wrong_fields_are_refused_by_name_and_all_at_once() {
        refused(
            r#"{"payload": {"x": 10}}"#,
            r#"payload: must be a string, not a mapping: send an object as its JSON text, such as "{\"x\": 10}""#,
        );
        refused(
            r#"{"payload": 1}"#,
            r#"payload: must be a string, not a number: send an object as its JSON text, such as "{\"x\": 10}""#,
        );
        refused(
            r#"{"payloads": "x", "timeLimitSeconds": "60", "resources": {"limits": {"cpu": "lots"}}}"#,
            "timeLimitSeconds: must be a whole number, without quotes; \
             resources.limits.cpu: must be a number with one of the suffixes m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei, \
             or none, such as 250m or 1Gi, not `lots`; \
             payloads: is not a field: did you mean `payload`?",
        );
        refused(
            r#"{"variables": {"RATIO": 1.10}}"#,
            "variables.RATIO: must be text: put the number in quotes, so that it stays as written",
        );
        refused(
            r#"{"timeLimitSeconds": 1.5, "backoffLimit": 1e30}"#,
            "timeLimitSeconds: must be a whole number from 1 to 2147483647, not 1.5; \
             backoffLimit: must be a whole number from 0 to 2147483647, not 1000000000000000000000000000000",
        );
        refused(
            r#"{"jobId": ""}"#,
            "jobId: must be 1 to 253 characters without control characters",
        );
        refused(
            r#"{"jobId": "a\nb"}"#,
            "jobId: must be 1 to 253 characters without control characters",
        );
        refused(r#"{"jobId": 1}"#, "jobId: must be text, not a number");
        refused(
            r#"{"volumeMounts": [], "name": "x"}"#,
            "volumeMounts: is the same for all jobs: remove it, and set it in radixconfig.yaml; \
             name: is the scheduler's to give: remove it, and send `jobId` to have an id of your own",
        );
    }

    /// As Go reads JSON, and so Radix' own scheduler.
    #[test]
    fn a_field_may_be_in_any_case() {
        let request =
            parsed(r#"{"Payload": "x", "JOBID": "1", "Resources": {"Limits": {"cpu": 1}}}"#);
        assert_eq!(request.payload.as_deref(), Some("x"));
        assert_eq!(request.job_id.as_deref(), Some("1"));
        assert!(request.settings.resources.is_some());
        refused(
            r#"{"payload": "x", "Payload": "y"}"#,
            "Payload: is `payload` again, in another case: remove one",
        );
    }

    #[test]
    fn a_message_stays_on_one_line_and_short() {
        let body = format!(r#"{{"a\n{}": 1}}"#, "x".repeat(100_000));
        let error = parse_request(body.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("a\\nxxx") && error.len() < 500, "{error}");
        let many: Vec<String> = (0..10_000).map(|n| format!("\"k{n}\": 1")).collect();
        let error = parse_request(format!("{{{}}}", many.join(",")).as_bytes()).unwrap_err();
        assert!(matches!(error, RequestError::Fields(errors) if errors.len() <= 50));
    }
}
