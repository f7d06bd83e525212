//! Answers: the JSON of jobs and errors, and the bytes of an HTTP response.

use super::guard::Refusal;
use super::route::RouteError;
use crate::backend::BackendError;
use crate::batch::request::MAX_BATCH_PAYLOAD_BYTES;
use crate::batch::summary::Summary;
use crate::config::{FieldError, StatusRule};
use crate::index::Full;
use crate::job::{
    Attempt, AttemptState, JobName, JobRecord, JobResult, Progress, Shown, Status, Timestamp,
};
use crate::request::{MAX_PAYLOAD_BYTES, RequestError};
use crate::scheduler::{BatchView, JobError, JobView, SubmitError};
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
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_name: Option<&'a str>,
    created: Time,
    started: Time,
    ended: Time,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated: Option<Time>,
    #[serde(rename = "DeploymentName", skip_serializing_if = "Option::is_none")]
    deployment_name: Option<&'static str>,
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

/// Radix says in all answers about batches when it was told of the change, if it was, and of what
/// deployment it is. Here there is neither.
const UPDATED: Time = Time(None, Unset::Null);
const DEPLOYMENT_NAME: &str = "";

/// In which answers a job is told of.
#[derive(Clone, Copy)]
enum Form {
    /// About jobs, as in the first version.
    Job,
    /// About batches, as in Radix since it has them.
    OfBatch,
}

/// A batch as its callers see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchStatus<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_id: Option<&'a str>,
    name: &'a str,
    created: Time,
    started: Time,
    ended: Time,
    status: &'static str,
    updated: Time,
    #[serde(rename = "DeploymentName")]
    deployment_name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    job_statuses: Option<Jobs<'a>>,
    job_counts: BTreeMap<&'static str, usize>,
    progress: BatchProgress,
    batch_type: &'static str,
}

#[derive(Serialize)]
struct BatchProgress {
    percent: u8,
    finished: usize,
    jobs: usize,
}

/// The jobs of a batch. Written where they go, since there may be a thousand.
struct Jobs<'a> {
    views: &'a [JobView],
    now: Timestamp,
}

impl Serialize for Jobs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let jobs = self.views.iter();
        serializer.collect_seq(jobs.map(|view| job_status(view, self.now, Form::OfBatch)))
    }
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

/// A time as text. Written where it goes, since a list has hundreds.
#[derive(Clone, Copy)]
struct Time(Option<Timestamp>, Unset);

/// What stands for a time that there is not.
#[derive(Clone, Copy)]
enum Unset {
    Empty,
    Null,
}

impl Time {
    fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Time {
        Time::from(Some(time))
    }
}

impl From<Option<Timestamp>> for Time {
    fn from(time: Option<Timestamp>) -> Time {
        Time(time, Unset::Empty)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.0, self.1) {
            (Some(time), _) => serializer.collect_str(&time),
            (None, Unset::Empty) => serializer.serialize_str(""),
            (None, Unset::Null) => serializer.serialize_none(),
        }
    }
}

/// Whether a job of the status has an end for its callers: the first version has none for one that failed.
fn has_end(status: Status) -> bool {
    matches!(status, Status::Succeeded | Status::Stopped)
}

fn job_status(view: &JobView, now: Timestamp, form: Form) -> JobStatus<'_> {
    let record = &view.record;
    let job = &record.job;
    let (is_of_batch, unset) = match form {
        Form::Job => (false, Unset::Empty),
        Form::OfBatch => (true, Unset::Null),
    };
    let is_told = is_of_batch || has_end(job.status);
    JobStatus {
        name: job.name.as_str(),
        job_id: job.job_id.as_deref(),
        batch_name: job.batch_of().map(JobName::as_str),
        created: job.created.into(),
        started: Time(job.started, unset),
        ended: Time(job.finished.filter(|_| is_told), unset),
        status: job.status.as_str(),
        updated: is_of_batch.then_some(UPDATED),
        deployment_name: is_of_batch.then_some(DEPLOYMENT_NAME),
        queue_position: view.position.filter(|_| job.status == Status::Waiting),
        message: record.message(now, view.position),
        result: text_of(record.result()),
        result_truncated: record.result().is_some_and(|result| result.is_truncated),
        urls: &job.rare.urls,
        failed: job.failed,
        restart: job.rare.restarted.into(),
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
        bytes: to_json(&job_status(view, now, Form::Job)).into(),
    });
    record.shown.set(shown.clone());
    shown
}

/// A long list, of which nothing is kept.
fn many(views: &[JobView], now: Timestamp) -> Vec<u8> {
    let mut body = Vec::with_capacity(views.len() * JOB_BYTES);
    for (number, view) in views.iter().enumerate() {
        body.push(if number == 0 { b'[' } else { b',' });
        let _ = serde_json::to_writer(&mut body, &job_status(view, now, Form::Job));
    }
    body.push(b']');
    body
}

fn of_view<'a>(
    view: &'a BatchView,
    rules: &[StatusRule],
    jobs_at: Option<Timestamp>,
) -> BatchStatus<'a> {
    let views = &view.jobs;
    let jobs = jobs_at.map(|now| Jobs { views, now });
    batch_status(&view.whole, &view.summary(rules), jobs)
}

fn batch_status<'a>(
    whole: &'a JobRecord,
    summary: &Summary,
    job_statuses: Option<Jobs<'a>>,
) -> BatchStatus<'a> {
    let job = &whole.job;
    let counts = Status::ALL.into_iter().zip(summary.counts);
    BatchStatus {
        batch_id: job.batch_id(),
        name: job.name.as_str(),
        created: job.created.into(),
        started: Time(summary.started, Unset::Null),
        ended: Time(summary.ended, Unset::Null),
        status: summary.status.as_str(),
        updated: UPDATED,
        deployment_name: DEPLOYMENT_NAME,
        job_statuses,
        job_counts: counts.map(|(s, count)| (s.as_str(), count)).collect(),
        progress: BatchProgress {
            percent: summary.percent,
            finished: summary.finished,
            jobs: summary.jobs,
        },
        batch_type: "batch",
    }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    to_json_of(JOB_BYTES, value)
}

/// `bytes` is about how many it is: a buffer that grows is copied over and over.
fn to_json_of(bytes: usize, value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(bytes);
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
        start_time: attempt.started.into(),
        container_started: attempt.started.into(),
        end_time: attempt.finished.into(),
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
        Reply::of_bytes(200, to_json(&job_status(view, now, Form::Job)))
    }

    /// A job of a batch, where that is asked for it.
    pub fn batch_job(view: &JobView, now: Timestamp) -> Reply {
        Reply::of_bytes(200, to_json(&job_status(view, now, Form::OfBatch)))
    }

    /// A batch with its jobs.
    pub fn batch(view: &BatchView, rules: &[StatusRule], now: Timestamp) -> Reply {
        let bytes = (view.jobs.len() + 1) * JOB_BYTES;
        Reply::of_bytes(200, to_json_of(bytes, &of_view(view, rules, Some(now))))
    }

    /// A batch without its jobs.
    pub fn batch_summary(whole: &JobRecord, summary: &Summary) -> Reply {
        Reply::of_bytes(200, to_json(&batch_status(whole, summary, None)))
    }

    /// Batches, with their jobs as they are at that time where one is given.
    pub fn batches(views: &[BatchView], rules: &[StatusRule], jobs_at: Option<Timestamp>) -> Reply {
        let jobs = views.iter().map(|view| view.jobs.len());
        let jobs: usize = jobs_at.map_or(0, |_| jobs.sum());
        let bytes = (views.len() + jobs + 1) * JOB_BYTES;
        let views = views.iter().map(|view| of_view(view, rules, jobs_at));
        Reply::of_bytes(200, to_json_of(bytes, &views.collect::<Vec<_>>()))
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
                "no such path: the jobs are at /api/v1/jobs, batches at /api/v1/batches",
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
            SubmitError::PayloadTooLarge { index, bytes } => {
                let whose = match index {
                    Some((index, Some(id))) => format!("of job {index} (jobId {id}) "),
                    Some((index, None)) => format!("of job {index} "),
                    None => String::new(),
                };
                let message = format!(
                    "the payload {whose}may have {MAX_PAYLOAD_BYTES} bytes (1 MiB) and has {bytes}"
                );
                Reply::failure(413, "RequestEntityTooLarge", &message)
            }
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
            JobError::BatchNotFound { name } => Reply::failure(
                404,
                "NotFound",
                &format!(
                    "batch {name} is not found: it may have been deleted, or let go for later ones"
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
    use crate::job::{BatchPart, Job, Queued, RareFields};

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
    fn a_batch_has_its_jobs_and_null_for_the_times_that_it_has_not() {
        let batch = JobName::parse("batch-a-1").unwrap();
        let mut whole = Job::sample("batch-a-1", Status::Stopped, 1);
        whole.rare = RareFields {
            batch: Some(BatchPart::Whole {
                id: Some("mine".into()),
                size: 2,
                is_complete: true,
            }),
            ..RareFields::NONE
        }
        .into();
        let view = |name: &str, status, index| {
            let mut job = Job::sample(name, status, 1);
            job.finished = status.is_finished().then_some(Timestamp::at(9));
            job.started = None;
            let (of, payload) = (batch.clone(), None);
            let part = BatchPart::Member { of, index, payload };
            job.rare = RareFields {
                batch: Some(part),
                ..RareFields::NONE
            }
            .into();
            let record = Arc::new(JobRecord::new(job, Vec::new()));
            let position = None;
            JobView { record, position }
        };
        let batch = BatchView {
            whole: Arc::new(JobRecord::new(whole, Vec::new())),
            jobs: vec![
                view("batch-a-1-b", Status::Failed, 0),
                view("batch-a-1-c", Status::Waiting, 1),
            ],
        };
        let now = Timestamp::at(20);
        let text = |reply: Reply| String::from_utf8(reply.body).unwrap();
        let jobs = "\"jobStatuses\":[{\"name\":\"batch-a-1-b\",\"batchName\":\"batch-a-1\",\
             \"created\":\"1970-01-01T00:00:00Z\",\"started\":null,\
             \"ended\":\"1970-01-01T00:00:09Z\",\"status\":\"Failed\",\"updated\":null,\
             \"DeploymentName\":\"\"},{\"name\":\"batch-a-1-c\",\"batchName\":\"batch-a-1\",\
             \"created\":\"1970-01-01T00:00:00Z\",\"started\":null,\"ended\":null,\
             \"status\":\"Waiting\",\"updated\":null,\"DeploymentName\":\"\"}],";
        let counts = "\"jobCounts\":{\"Failed\":1,\"Running\":0,\"Stopped\":0,\"Stopping\":0,\
             \"Succeeded\":0,\"Waiting\":1},\"progress\":{\"percent\":50,\"finished\":1,\"jobs\":2},\
             \"batchType\":\"batch\"}";
        let head = "{\"batchId\":\"mine\",\"name\":\"batch-a-1\",\
             \"created\":\"1970-01-01T00:00:00Z\",\"started\":null,\"ended\":null,\
             \"status\":\"Active\",\"updated\":null,\"DeploymentName\":\"\",";
        let (whole, short) = (format!("{head}{jobs}{counts}"), format!("{head}{counts}"));
        assert_eq!(text(Reply::batch(&batch, &[], now)), whole);
        let summary = batch.summary(&[]);
        assert_eq!(text(Reply::batch_summary(&batch.whole, &summary)), short);
        let two = [batch];
        assert_eq!(text(Reply::batches(&two, &[], None)), format!("[{short}]"));
        let all = Reply::batches(&two, &[], Some(now));
        assert_eq!(text(all), format!("[{whole}]"));
        assert_eq!(text(Reply::batches(&[], &[], Some(now))), "[]");
        // By its other path the first version's form.
        let job = fields(two[0].jobs[1].record.job.clone(), None);
        assert_eq!(
            (&job["started"], &job["updated"]),
            (&"".into(), &serde_json::Value::Null)
        );
        assert_eq!(job["batchName"], "batch-a-1");
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
