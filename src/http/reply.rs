//! Answers: the JSON of jobs and errors, and the bytes of an HTTP response.

use super::guard::Refusal;
use super::route::RouteError;
use crate::backend::BackendError;
use crate::batch::request::MAX_BATCH_PAYLOAD_BYTES;
use crate::config::FieldError;
use crate::index::Full;
use crate::job::{Attempt, AttemptState, JobResult, Progress, Shown, Status, Timestamp};
use crate::request::{MAX_PAYLOAD_BYTES, RequestError};
use crate::scheduler::{JobError, JobView, SubmitError};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;
use time::OffsetDateTime;
use time::macros::format_description;

pub const JSON: &str = "application/json";
/// What a job with one attempt takes, a little over.
const JOB_BYTES: usize = 640;
/// Of a list of more jobs what each is shown as is not kept: it takes more memory than the jobs.
const MAX_KEPT: usize = 1_000;

/// An answer to a request.
#[derive(Debug, PartialEq)]
pub struct Reply {
    pub code: u16,
    pub content_type: &'static str,
    /// Headers beyond Date, Content-Type and those that tell where the body ends.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

/// A job as its callers see it: the four fields of the first version, and what was added since.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JobStatus<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_id: Option<&'a str>,
    created: Time,
    started: Time,
    ended: Time,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_position: Option<usize>,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    result: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    result_truncated: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    urls: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_zero")]
    failed: u32,
    #[serde(skip_serializing_if = "Time::is_none")]
    restart: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_of: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<JobProgress<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pod_statuses: Vec<PodStatus<'a>>,
}

#[derive(Serialize)]
struct JobProgress<'a> {
    percent: u8,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    updated: Time,
}

impl<'a> From<&'a Progress> for JobProgress<'a> {
    fn from(progress: &'a Progress) -> JobProgress<'a> {
        JobProgress {
            percent: progress.percent,
            message: &progress.message,
            updated: progress.updated.into(),
        }
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_false(answer: &bool) -> bool {
    !*answer
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus<'a> {
    name: &'a str,
    created: Time,
    #[serde(skip_serializing_if = "Time::is_none")]
    start_time: Time,
    #[serde(skip_serializing_if = "Time::is_none")]
    container_started: Time,
    #[serde(skip_serializing_if = "Time::is_none")]
    end_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    status_message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    result: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    result_truncated: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    image: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    image_id: &'a str,
    pod_index: usize,
    restart_count: u32,
    replica_status: ReplicaStatus,
}

#[derive(Serialize)]
struct ReplicaStatus {
    status: &'static str,
}

/// A time as text, empty for none. Written where it goes, since a list has hundreds.
#[derive(Clone, Copy)]
struct Time(Option<Timestamp>);

impl Time {
    fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Time {
        Time(Some(time))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(time) => serializer.collect_str(&time),
            None => serializer.serialize_str(""),
        }
    }
}

/// Whether a job of the status has an end for its callers: the first version has none for one that failed.
fn has_end(status: Status) -> bool {
    matches!(status, Status::Succeeded | Status::Stopped)
}

fn job_status(view: &JobView, now: Timestamp) -> JobStatus<'_> {
    let record = &view.record;
    let job = &record.job;
    JobStatus {
        name: job.name.as_str(),
        job_id: job.job_id.as_deref(),
        created: job.created.into(),
        started: Time(job.started),
        ended: Time(job.finished.filter(|_| has_end(job.status))),
        status: job.status.as_str(),
        queue_position: view.position.filter(|_| job.status == Status::Waiting),
        message: record.message(now, view.position),
        result: text_of(record.result()),
        result_truncated: record.result().is_some_and(|result| result.is_truncated),
        urls: &job.rare.urls,
        failed: job.failed,
        restart: Time(job.rare.restarted),
        restart_of: job.rare.restart_of.as_ref().map(|name| name.as_str()),
        progress: record.progress.as_deref().map(JobProgress::from),
        pod_statuses: record.attempts.iter().enumerate().map(pod_status).collect(),
    }
}

/// A job as its users see it. It is made anew when the record has changed, or what is not of the
/// record: see [`Shown::beside`].
fn shown(view: &JobView, now: Timestamp) -> Arc<Shown> {
    let record = &view.record;
    let beside = (view.position, record.lacks_pod(now));
    if let Some(known) = record.shown.get().filter(|shown| shown.beside == beside) {
        return known;
    }
    let shown = Arc::new(Shown {
        beside,
        bytes: to_json(&job_status(view, now)).into(),
    });
    record.shown.set(shown.clone());
    shown
}

/// A long list, of which nothing is kept.
fn many(views: &[JobView], now: Timestamp) -> Vec<u8> {
    let mut body = Vec::with_capacity(views.len() * JOB_BYTES);
    for (number, view) in views.iter().enumerate() {
        body.push(if number == 0 { b'[' } else { b',' });
        let _ = serde_json::to_writer(&mut body, &job_status(view, now));
    }
    body.push(b']');
    body
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    // A buffer that grows is copied over and over.
    let mut bytes = Vec::with_capacity(JOB_BYTES);
    // Plain structs with string keys always serialize.
    let _ = serde_json::to_writer(&mut bytes, value);
    bytes
}

fn text_of(result: Option<&JobResult>) -> &str {
    result.map_or("", |result| &result.text)
}

fn pod_status((pod_index, attempt): (usize, &Attempt)) -> PodStatus<'_> {
    PodStatus {
        name: &attempt.name,
        created: attempt.created.into(),
        start_time: Time(attempt.started),
        container_started: Time(attempt.started),
        end_time: Time(attempt.finished),
        exit_code: attempt.exit_code,
        reason: &attempt.reason,
        status_message: &attempt.message,
        result: text_of(attempt.result.as_deref()),
        result_truncated: attempt.result.as_ref().is_some_and(|r| r.is_truncated),
        image: &attempt.image,
        image_id: &attempt.image_id,
        pod_index,
        restart_count: attempt.restarts,
        replica_status: ReplicaStatus {
            status: match attempt.state {
                AttemptState::Pending => "Pending",
                AttemptState::Failing => "Failing",
                AttemptState::Running => "Running",
                AttemptState::Succeeded => "Succeeded",
                AttemptState::Failed => "Failed",
            },
        },
    }
}

/// The outcome of a call that returns no job.
#[derive(Serialize)]
struct Outcome<'a> {
    status: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    code: u16,
}

impl Reply {
    pub(super) fn json(code: u16, value: &impl Serialize) -> Reply {
        Reply::of_bytes(code, to_json(value))
    }

    fn of_bytes(code: u16, body: Vec<u8>) -> Reply {
        Reply {
            code,
            content_type: JSON,
            headers: Vec::new(),
            body,
        }
    }

    /// A job that somebody looks at, as others may.
    pub fn job(view: &JobView, now: Timestamp) -> Reply {
        Reply::of_bytes(200, shown(view, now).bytes.to_vec())
    }

    /// A job that has just changed, and mostly does again before anybody looks: nothing is kept.
    pub fn changed_job(view: &JobView, now: Timestamp) -> Reply {
        Reply::of_bytes(200, to_json(&job_status(view, now)))
    }

    pub fn jobs(views: &[JobView], now: Timestamp) -> Reply {
        if views.len() > MAX_KEPT {
            return Reply::of_bytes(200, many(views, now));
        }
        let jobs: Vec<_> = views.iter().map(|view| shown(view, now)).collect();
        let length: usize = jobs.iter().map(|job| job.bytes.len() + 1).sum();
        let mut body = Vec::with_capacity(length + 2);
        body.push(b'[');
        for (number, job) in jobs.iter().enumerate() {
            if number > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&job.bytes);
        }
        body.push(b']');
        Reply::of_bytes(200, body)
    }

    /// Text in Prometheus' form.
    pub fn text(text: String) -> Reply {
        Reply {
            code: 200,
            content_type: "text/plain; version=0.0.4",
            headers: Vec::new(),
            body: text.into_bytes(),
        }
    }

    /// JSON as it is.
    pub fn document(json: &str) -> Reply {
        Reply {
            code: 200,
            content_type: "application/json",
            headers: Vec::new(),
            body: json.into(),
        }
    }

    pub fn success(message: &str) -> Reply {
        Reply::json(
            200,
            &Outcome {
                status: "Success",
                message,
                reason: "",
                code: 200,
            },
        )
    }

    /// An error, as a Status object.
    pub fn failure(code: u16, reason: &str, message: &str) -> Reply {
        Reply::json(
            code,
            &Outcome {
                status: "Failure",
                message,
                reason,
                code,
            },
        )
    }

    pub(super) fn with(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.headers.push((name, value.to_string()));
        self
    }

    pub fn not_ready() -> Reply {
        Reply::failure(
            503,
            "ServiceUnavailable",
            "the scheduler has just started and does not know its jobs yet: try again",
        )
        .with("Retry-After", 1)
    }

    pub fn busy() -> Reply {
        Reply::failure(
            503,
            "ServiceUnavailable",
            "too many requests are being served: try again",
        )
        .with("Retry-After", 1)
    }

    pub fn bad_key() -> Reply {
        Reply::failure(
            400,
            "BadRequest",
            "the header Idempotency-Key must have 1 to 255 visible ASCII characters",
        )
    }

    pub fn report_too_large(limit: usize, bytes: usize) -> Reply {
        let message = format!("the body may have {limit} bytes, and has {bytes}");
        Reply::failure(413, "RequestEntityTooLarge", &message)
    }

    pub fn too_many_waiting(limit: usize) -> Reply {
        let message = format!(
            "{limit} requests wait for jobs to finish, which is as many as may: ask without wait"
        );
        Reply::failure(429, "TooManyRequests", &message).with("Retry-After", 5)
    }

    pub fn too_many_logs(limit: usize) -> Reply {
        let message =
            format!("{limit} logs are being read, which is as many as may at once: try again");
        Reply::failure(429, "TooManyRequests", &message).with("Retry-After", 5)
    }

    pub fn too_many_readers(limit: usize) -> Reply {
        let message = format!("{limit} read the events, which is as many as may: try again");
        Reply::failure(503, "ServiceUnavailable", &message).with("Retry-After", 5)
    }

    /// What comes before a log. What a job writes is nobody's page.
    pub fn log() -> Reply {
        Reply::stream("text/plain; charset=utf-8")
    }

    /// What comes before events.
    pub fn events() -> Reply {
        Reply::stream("text/event-stream")
    }

    fn stream(content_type: &'static str) -> Reply {
        Reply {
            code: 200,
            content_type,
            headers: vec![
                ("Cache-Control", "no-store".to_string()),
                ("X-Content-Type-Options", "nosniff".to_string()),
            ],
            body: Vec::new(),
        }
    }

    pub fn panicked() -> Reply {
        Reply::failure(
            500,
            "InternalError",
            "the scheduler failed on this request; its log says where",
        )
    }

    /// What comes before the body; `lines` are further headers, each with its end.
    pub fn head(&self, request_id: &str, lines: &str) -> String {
        let mut head = format!(
            "HTTP/1.1 {} {}\r\nDate: {}\r\nContent-Type: {}\r\nX-Request-Id: {request_id}\r\n{lines}",
            self.code,
            phrase(self.code),
            http_date(),
            self.content_type,
        );
        for (name, value) in &self.headers {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        head
    }
}

/// Source: RFC 9110, section 15.
fn phrase(code: u16) -> &'static str {
    match code {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Source: RFC 9110, section 5.6.7.
fn http_date() -> String {
    let form = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    OffsetDateTime::now_utc().format(form).unwrap_or_default()
}

impl From<&RouteError> for Reply {
    fn from(error: &RouteError) -> Reply {
        match error {
            RouteError::BadValue { parameter, given } => Reply::failure(
                400,
                "BadRequest",
                &format!("{}={given}: {}", parameter.as_str(), parameter.allowed()),
            ),
            RouteError::NearParameter { given, meant } => Reply::failure(
                400,
                "BadRequest",
                &format!("there is no parameter `{given}`: did you mean `{meant}`?"),
            ),
            RouteError::NotFound => Reply::failure(
                404,
                "NotFound",
                "no such path: the jobs are at /api/v1/jobs",
            ),
            RouteError::MethodNotAllowed { allow } => {
                Reply::failure(405, "MethodNotAllowed", &format!("this path takes {allow}"))
                    .with("Allow", allow)
            }
            RouteError::Refused(Refusal::Host { given, served }) => Reply::failure(
                403,
                "Forbidden",
                &format!(
                    "this scheduler does not answer to the host `{given}`: send the request to {served}, or start it \
                     with --allow-host for that name"
                ),
            ),
            RouteError::Refused(Refusal::Origin { given }) => Reply::failure(
                403,
                "Forbidden",
                &format!("a web page of another site ({given}) may not use this scheduler"),
            ),
        }
    }
}

impl From<RequestError> for Reply {
    fn from(error: RequestError) -> Reply {
        match error {
            RequestError::NotJson { .. } => Reply::failure(400, "BadRequest", &error.to_string()),
            RequestError::Fields(errors) => invalid(&errors),
        }
    }
}

fn invalid(errors: &[FieldError]) -> Reply {
    let messages: Vec<String> = errors.iter().map(FieldError::to_string).collect();
    Reply::failure(422, "Invalid", &messages.join("; "))
}

impl From<SubmitError> for Reply {
    fn from(error: SubmitError) -> Reply {
        match error {
            SubmitError::NotReady => Reply::not_ready(),
            SubmitError::Fields(errors) => invalid(&errors),
            SubmitError::PayloadTooLarge { bytes } => Reply::failure(
                413,
                "RequestEntityTooLarge",
                &format!("the payload may have {MAX_PAYLOAD_BYTES} bytes (1 MiB) and has {bytes}"),
            ),
            SubmitError::BatchTooLarge { bytes } => Reply::failure(
                413,
                "RequestEntityTooLarge",
                &format!(
                    "the payloads of a batch may have {MAX_BATCH_PAYLOAD_BYTES} bytes (16 MiB) together \
                     and have {bytes}: send two"
                ),
            ),
            SubmitError::KeyReused { job } => Reply::failure(
                422,
                "Invalid",
                &format!(
                    "this Idempotency-Key came with another body, for the job {job}: use a new key for a new job"
                ),
            ),
            SubmitError::Full(full) => full.into(),
            SubmitError::Backend(error) => error.into(),
        }
    }
}

impl From<JobError> for Reply {
    fn from(error: JobError) -> Reply {
        match error {
            JobError::NotReady => Reply::not_ready(),
            JobError::NotFound { name } => Reply::failure(
                404,
                "NotFound",
                &format!(
                    "job {name} is not found: it may have been deleted, or let go for later ones"
                ),
            ),
            JobError::NoLog { message } => Reply::failure(404, "NotFound", &message),
            JobError::BadState { message } => Reply::failure(400, "BadRequest", &message),
            JobError::Full(full) => full.into(),
            JobError::TooOften { message } => {
                Reply::failure(429, "TooManyRequests", &message).with("Retry-After", 1)
            }
            JobError::Backend(error) => error.into(),
        }
    }
}

impl From<Full> for Reply {
    fn from(full: Full) -> Reply {
        let message = match full {
            Full::Unfinished { limit } => format!(
                "{limit} jobs are unfinished, which is as many as this scheduler takes: try again when some have finished"
            ),
            Full::Waiting { limit } => format!(
                "{limit} jobs wait in the queue, which is as many as it takes: try again when some have started"
            ),
        };
        Reply::failure(429, "TooManyRequests", &message).with("Retry-After", 5)
    }
}

impl From<BackendError> for Reply {
    fn from(error: BackendError) -> Reply {
        match error {
            BackendError::Invalid { message } => Reply::failure(422, "Invalid", &message),
            BackendError::Gone { message } | BackendError::Refused { message } => {
                Reply::failure(503, "ServiceUnavailable", &message).with("Retry-After", 10)
            }
            BackendError::Changed { message }
            | BackendError::Unavailable { message }
            | BackendError::Unanswered { message } => {
                Reply::failure(503, "ServiceUnavailable", &message).with("Retry-After", 1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Job, JobRecord, Queued, RareFields};
    use std::sync::Arc;

    fn fields(job: Job, position: Option<usize>) -> serde_json::Value {
        let attempts = Vec::new();
        let record = Arc::new(JobRecord::new(job, attempts));
        let reply = Reply::job(&JobView { record, position }, Timestamp::at(0));
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// What the record of a view is shown as, and whether the bytes are those of before.
    fn shown_again(view: &JobView, second: i64, before: &Arc<Shown>) -> (String, bool) {
        let now = shown(view, Timestamp::at(second));
        let text = String::from_utf8_lossy(&now.bytes).into_owned();
        (text, Arc::ptr_eq(&now, before))
    }

    #[test]
    fn a_job_is_rendered_once_until_it_changes_or_what_is_told_beside_it_does() {
        let mut job = Job::sample("a", Status::Waiting, 1);
        job.queued = Some(Queued {
            priority: 0,
            arrival: 1,
        });
        let mut view = JobView {
            record: Arc::new(JobRecord::new(job, Vec::new())),
            position: Some(2),
        };
        let before = shown(&view, Timestamp::at(0));
        assert!(shown_again(&view, 60, &before).1, "nothing has changed");
        view.position = Some(1);
        let (text, is_same) = shown_again(&view, 60, &before);
        assert!(!is_same && text.contains("position 1 of"), "{text}");

        let running = Job::sample("a", Status::Running, 2);
        view.record = Arc::new(view.record.with(running));
        view.position = None;
        let before = shown(&view, Timestamp::at(0));
        assert!(
            shown_again(&view, 3, &before).1,
            "it is early to remark on it"
        );
        let (text, is_same) = shown_again(&view, 4, &before);
        assert!(!is_same && text.contains("no pod yet"), "{text}");
        let late = shown(&view, Timestamp::at(5));
        assert!(shown_again(&view, 6, &late).1);
        // A list has the same.
        let list = Reply::jobs(std::slice::from_ref(&view), Timestamp::at(6)).body;
        assert_eq!(list, [b"[", &*late.bytes, b"]"].concat());
        assert_eq!(Reply::jobs(&[], Timestamp::at(6)).body, b"[]");
        let views = std::iter::repeat_with(|| JobView {
            record: view.record.clone(),
            position: view.position,
        });
        let views: Vec<JobView> = views.take(MAX_KEPT + 1).collect();
        let long = Reply::jobs(&views, Timestamp::at(6)).body;
        let one = list
            .strip_prefix(b"[")
            .and_then(|list| list.strip_suffix(b"]"));
        let expected = vec![one.unwrap(); views.len()].join(&b","[..]);
        assert_eq!(long[1..long.len() - 1], expected);
    }

    #[test]
    fn a_waiting_job_has_its_place_in_either_backends_queue() {
        let mut job = Job::sample("a", Status::Waiting, 1);
        assert!(fields(job.clone(), None)["queuePosition"].is_null());
        job.queued = Some(Queued {
            priority: 0,
            arrival: 1,
        });
        let waiting = fields(job.clone(), Some(3));
        assert_eq!(waiting["queuePosition"], 3);
        let text = "position 3 of the queue: as many jobs run as may at once";
        assert_eq!(waiting["message"], text);
        // A backend's own word on it.
        job.rare = RareFields {
            message: "position 3 of the queue: needs 1 CPU".to_string(),
            ..RareFields::NONE
        }
        .into();
        assert_eq!(fields(job.clone(), Some(3))["message"], *job.rare.message);
        job.status = Status::Running;
        assert!(fields(job, Some(3))["queuePosition"].is_null());
    }

    #[test]
    fn a_job_that_failed_has_no_end_as_in_the_first_version() {
        for (status, ended) in [
            (Status::Succeeded, "1970-01-01T00:00:09Z"),
            (Status::Stopped, "1970-01-01T00:00:09Z"),
            (Status::Failed, ""),
        ] {
            let mut job = Job::sample("a", status, 1);
            job.finished = Some(Timestamp::at(9));
            assert_eq!(fields(job, None)["ended"], ended, "{status}");
        }
    }
}
