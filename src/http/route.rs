//! Method and path to a typed action. Pure.

use super::guard::Refusal;
use crate::backend::LogOptions;
use crate::config::suggestion;
use crate::job::{JobFilter, Status};
use crate::request::is_job_id;
use std::time::Duration;

/// The longest that a request may ask to wait.
pub const MAX_WAIT_SECONDS: u64 = 300;
/// Parameters of a query that are looked at.
const MAX_PARAMETERS: usize = 100;
/// The most jobs of a list that a request may ask for by number.
const MAX_LIMIT: usize = 1_000_000;
/// The most lines of a log that a request may ask for by number.
const MAX_TAIL_LINES: u32 = 1_000_000;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    ListJobs(JobFilter),
    CreateJob,
    /// `wait`: answer when the job has finished, or after so long.
    GetJob {
        name: String,
        wait: Option<Duration>,
    },
    DeleteJob {
        name: String,
    },
    StopJob {
        name: String,
    },
    RestartJob {
        name: String,
    },
    /// The job says how far it is.
    PutProgress {
        name: String,
    },
    /// What the job has written.
    GetLog {
        name: String,
        options: LogOptions,
    },
    /// What changes of the jobs, as it does.
    Events,
    /// Every unfinished job.
    StopJobs,
    /// `summary`: counts instead of jobs.
    ListBatches {
        summary: bool,
    },
    CreateBatch,
    /// `wait`: answer when all of its jobs have finished, or after so long.
    GetBatch {
        name: String,
        summary: bool,
        wait: Option<Duration>,
    },
    DeleteBatch {
        name: String,
    },
    StopBatch {
        name: String,
    },
    /// Every unfinished job of every batch.
    StopBatches,
    /// `all`: what has succeeded, too.
    RestartBatch {
        name: String,
        all: bool,
    },
    /// `job` is its whole name, or the part that its batch's has not.
    GetBatchJob {
        batch: String,
        job: String,
        wait: Option<Duration>,
    },
    StopBatchJob {
        batch: String,
        job: String,
    },
    RestartBatchJob {
        batch: String,
        job: String,
    },
    /// What the scheduler is configured to.
    Component,
    /// The page on which people look at it.
    Console,
    /// Whether the process works.
    Live,
    /// Whether every job is known.
    Ready,
    /// What is counted, for Prometheus.
    Metrics,
    /// What this API is, as an OpenAPI document.
    Document,
}

/// Why a request asks for nothing there is.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteError {
    /// No such path.
    NotFound,
    /// The path takes other methods: the value of `Allow`.
    MethodNotAllowed { allow: &'static str },
    /// The request may be a web page's.
    Refused(Refusal),
    /// A parameter is not what it may be.
    BadValue { parameter: Parameter, given: String },
    /// A parameter has no meaning here, and one of nearly its name has.
    NearParameter { given: String, meant: &'static str },
}

/// A parameter of a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Parameter {
    Wait,
    Follow,
    Tail,
    Status,
    JobId,
    Limit,
    Summary,
    All,
}

impl Parameter {
    pub fn as_str(self) -> &'static str {
        match self {
            Parameter::Wait => "wait",
            Parameter::Follow => "follow",
            Parameter::Tail => "tail",
            Parameter::Status => "status",
            Parameter::JobId => "jobId",
            Parameter::Limit => "limit",
            Parameter::Summary => "summary",
            Parameter::All => "all",
        }
    }

    /// What it may be, as advice.
    pub fn allowed(self) -> String {
        match self {
            Parameter::Wait => {
                format!("give seconds or minutes, such as 30s or 2m, up to {MAX_WAIT_SECONDS}s")
            }
            Parameter::Follow | Parameter::Summary | Parameter::All => {
                "give true or false".to_string()
            }
            Parameter::Tail => format!("give a number of lines from 0 to {MAX_TAIL_LINES}"),
            Parameter::Status => {
                let all = Status::ALL.map(Status::as_str).join(", ");
                format!("give one or more of {all}, with commas between them")
            }
            Parameter::JobId => {
                "give one id of 1 to 253 characters, percent-encoded, without control characters"
                    .to_string()
            }
            Parameter::Limit => format!("give one number of jobs from 1 to {MAX_LIMIT}"),
        }
    }

    fn refuse(self, given: &str) -> RouteError {
        RouteError::BadValue {
            parameter: self,
            given: given.chars().take(40).collect(),
        }
    }
}

/// Answered from memory, or through the backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cost {
    Memory,
    Backend,
}

impl Route {
    /// The route of a method and a request target. A trailing slash makes no difference; HEAD is GET.
    pub fn parse(method: &str, target: &str) -> Result<Route, RouteError> {
        let target = target.split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.strip_suffix('/').unwrap_or(path);
        let segments: Vec<&str> = path.splitn(9, '/').collect();
        if let ["", "api", "v1", "batches", of_batches @ ..] = segments.as_slice() {
            return parse_batches(method, of_batches, query);
        }
        let (is_get, is_post) = (matches!(method, "GET" | "HEAD"), method == "POST");
        let only = |allow| Err(RouteError::MethodNotAllowed { allow });
        match segments.as_slice() {
            ["", "api", "v1", "jobs"] => match method {
                "POST" => Ok(Route::CreateJob),
                _ if is_get => Ok(Route::ListJobs(parse_filter(query)?)),
                _ => only("GET, HEAD, POST"),
            },
            ["", "api", "v1", "jobs", "stop"] if is_post => Ok(Route::StopJobs),
            ["", "api", "v1", "jobs", "stop"] => only("POST"),
            ["", "api", "v1", "jobs", name] if !name.is_empty() => {
                let name = name.to_string();
                match method {
                    "DELETE" => Ok(Route::DeleteJob { name }),
                    _ if is_get => Ok(Route::GetJob {
                        name,
                        wait: parse_wait(query, &["wait"])?,
                    }),
                    _ => only("GET, HEAD, DELETE"),
                }
            }
            ["", "api", "v1", "jobs", name, "stop"] if is_post => Ok(Route::StopJob {
                name: name.to_string(),
            }),
            ["", "api", "v1", "jobs", name, "restart"] if is_post => Ok(Route::RestartJob {
                name: name.to_string(),
            }),
            ["", "api", "v1", "jobs", _, "stop" | "restart"] => only("POST"),
            ["", "api", "v1", "jobs", name, "progress"] if method == "PUT" => {
                Ok(Route::PutProgress {
                    name: name.to_string(),
                })
            }
            ["", "api", "v1", "jobs", _, "progress"] => only("PUT"),
            ["", "api", "v1", "jobs", name, "logs"] if is_get => Ok(Route::GetLog {
                name: name.to_string(),
                options: parse_log_options(query)?,
            }),
            ["", "api", "v1", "component"] if is_get => Ok(Route::Component),
            ["", "api", "v1", "events"] if is_get => Ok(Route::Events),
            ["", "api", "v1", "jobs", _, "logs"] | ["", "api", "v1", "component" | "events"] => {
                only("GET, HEAD")
            }
            [""] if is_get => Ok(Route::Console),
            [""] => only("GET, HEAD"),
            ["", "health", "live"] if is_get => Ok(Route::Live),
            ["", "health", "ready"] if is_get => Ok(Route::Ready),
            ["", "metrics"] if is_get => Ok(Route::Metrics),
            ["", "openapi.json" | "swagger.json"] if is_get => Ok(Route::Document),
            ["", "metrics" | "openapi.json" | "swagger.json"] => only("GET, HEAD"),
            ["", "health", "live" | "ready"] => only("GET, HEAD"),
            _ => Err(RouteError::NotFound),
        }
    }

    /// Bodies of such a request may be as large as a batch.
    pub fn takes_batch(&self) -> bool {
        *self == Route::CreateBatch
    }

    /// What it takes to answer.
    pub fn cost(&self) -> Cost {
        match self {
            Route::ListJobs(_)
            | Route::GetJob { .. }
            | Route::ListBatches { .. }
            | Route::GetBatch { .. }
            | Route::GetBatchJob { .. }
            | Route::PutProgress { .. }
            | Route::GetLog { .. }
            | Route::Events
            | Route::Component
            | Route::Console
            | Route::Live
            | Route::Ready
            | Route::Metrics
            | Route::Document => Cost::Memory,
            Route::CreateJob
            | Route::DeleteJob { .. }
            | Route::StopJob { .. }
            | Route::RestartJob { .. }
            | Route::StopJobs
            | Route::CreateBatch
            | Route::DeleteBatch { .. }
            | Route::StopBatch { .. }
            | Route::StopBatches
            | Route::RestartBatch { .. }
            | Route::StopBatchJob { .. }
            | Route::RestartBatchJob { .. } => Cost::Backend,
        }
    }
}

/// A route below `/api/v1/batches`.
fn parse_batches(method: &str, segments: &[&str], query: &str) -> Result<Route, RouteError> {
    let (is_get, is_post) = (matches!(method, "GET" | "HEAD"), method == "POST");
    let only = |allow| Err(RouteError::MethodNotAllowed { allow });
    match segments {
        [] if is_post => Ok(Route::CreateBatch),
        [] if is_get => Ok(Route::ListBatches {
            summary: parse_flag(query, &["summary"], Parameter::Summary)?,
        }),
        [] => only("GET, HEAD, POST"),
        ["stop"] if is_post => Ok(Route::StopBatches),
        ["stop"] => only("POST"),
        [name] if !name.is_empty() => {
            let name = name.to_string();
            match method {
                "DELETE" => Ok(Route::DeleteBatch { name }),
                _ if is_get => Ok(Route::GetBatch {
                    name,
                    summary: parse_flag(query, &["wait", "summary"], Parameter::Summary)?,
                    wait: parse_wait(query, &["wait", "summary"])?,
                }),
                _ => only("GET, HEAD, DELETE"),
            }
        }
        [name, "stop"] if is_post => Ok(Route::StopBatch {
            name: name.to_string(),
        }),
        [name, "restart"] if is_post => Ok(Route::RestartBatch {
            name: name.to_string(),
            all: parse_flag(query, &["all"], Parameter::All)?,
        }),
        [_, "stop" | "restart"] => only("POST"),
        [batch, "jobs", job] if is_get && !job.is_empty() => Ok(Route::GetBatchJob {
            batch: batch.to_string(),
            job: job.to_string(),
            wait: parse_wait(query, &["wait"])?,
        }),
        [batch, "jobs", job, "stop"] if is_post => Ok(Route::StopBatchJob {
            batch: batch.to_string(),
            job: job.to_string(),
        }),
        [batch, "jobs", job, "restart"] if is_post => Ok(Route::RestartBatchJob {
            batch: batch.to_string(),
            job: job.to_string(),
        }),
        [_, "jobs", job] if !job.is_empty() => only("GET, HEAD"),
        [_, "jobs", _, "stop" | "restart"] => only("POST"),
        _ => Err(RouteError::NotFound),
    }
}

/// The route as metrics call it, one of [`crate::metrics::ROUTES`].
pub fn label(route: &Result<Route, RouteError>) -> &'static str {
    match route {
        Ok(Route::ListJobs(_)) => "list",
        Ok(Route::CreateJob) => "create",
        Ok(Route::GetJob { wait: Some(_), .. }) => "wait",
        Ok(Route::GetJob { wait: None, .. }) => "get",
        Ok(Route::DeleteJob { .. }) => "delete",
        Ok(Route::StopJob { .. }) => "stop",
        Ok(Route::StopJobs) => "stop-all",
        Ok(Route::RestartJob { .. }) => "restart",
        Ok(Route::ListBatches { .. }) => "list-batches",
        Ok(Route::CreateBatch) => "create-batch",
        Ok(Route::GetBatch { wait: Some(_), .. }) => "wait-batch",
        Ok(Route::GetBatch { wait: None, .. }) => "get-batch",
        Ok(Route::DeleteBatch { .. }) => "delete-batch",
        Ok(Route::StopBatch { .. }) => "stop-batch",
        Ok(Route::StopBatches) => "stop-all-batches",
        Ok(Route::RestartBatch { .. }) => "restart-batch",
        // They are asked of a job, by another path.
        Ok(Route::GetBatchJob { wait: Some(_), .. }) => "wait",
        Ok(Route::GetBatchJob { wait: None, .. }) => "get",
        Ok(Route::StopBatchJob { .. }) => "stop",
        Ok(Route::RestartBatchJob { .. }) => "restart",
        Ok(Route::PutProgress { .. }) => "progress",
        Ok(Route::GetLog { .. }) => "logs",
        Ok(Route::Events) => "events",
        Ok(Route::Component) => "component",
        Ok(Route::Console) => "console",
        Ok(Route::Live | Route::Ready) => "health",
        Ok(Route::Metrics) => "metrics",
        Ok(Route::Document) => "document",
        Err(_) => "none",
    }
}

/// `status=Failed,Stopped`, also given in parts, `jobId=mine` and `limit=20`, up to [`MAX_LIMIT`].
fn parse_filter(query: &str) -> Result<JobFilter, RouteError> {
    check_names(query, &["status", "jobId", "limit"])?;
    let mut filter = JobFilter::default();
    for pair in query.split('&').take(MAX_PARAMETERS) {
        let (name, given) = pair.split_once('=').unwrap_or((pair, ""));
        match name {
            "status" => {
                let bad = || Parameter::Status.refuse(given);
                for text in decoded(given).ok_or_else(bad)?.split(',') {
                    let status = Status::parse(text).ok_or_else(bad)?;
                    if !filter.statuses.contains(&status) {
                        filter.statuses.push(status);
                    }
                }
            }
            "jobId" => {
                let id = decoded(given).filter(|id| is_job_id(id));
                let id = id.filter(|_| filter.job_id.is_none());
                filter.job_id = Some(id.ok_or_else(|| Parameter::JobId.refuse(given))?);
            }
            "limit" => {
                let is_number = given.bytes().all(|byte| byte.is_ascii_digit());
                let limit = given.parse().ok().filter(|_| is_number);
                let limit = limit.filter(|limit| (1..=MAX_LIMIT).contains(limit));
                let limit = limit.filter(|_| filter.limit.is_none());
                filter.limit = Some(limit.ok_or_else(|| Parameter::Limit.refuse(given))?);
            }
            _ => {}
        }
    }
    Ok(filter)
}

/// A value as a form has it: `+` is a space, and `%` stands before a byte's two digits. `None`
/// where it is not, or no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut parts = text.split('%');
    let plain = |part: &str| part.replace('+', " ").into_bytes();
    bytes.extend(parts.next().map(plain).unwrap_or_default());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
        bytes.extend(plain(rest));
    }
    String::from_utf8(bytes).ok()
}

/// `follow=true` and `tail=100`, up to [`MAX_TAIL_LINES`].
fn parse_log_options(query: &str) -> Result<LogOptions, RouteError> {
    let follow = parse_flag(query, &["follow", "tail"], Parameter::Follow)?;
    let tail = match value(query, "tail") {
        None => None,
        Some(given) => Some(
            given
                .parse()
                .ok()
                .filter(|lines| *lines <= MAX_TAIL_LINES && !given.starts_with('+'))
                .ok_or_else(|| Parameter::Tail.refuse(given))?,
        ),
    };
    Ok(LogOptions { follow, tail })
}

/// The first value of a parameter.
fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// `true` or `false`, which it is if left out. `known` are the parameters that there are here.
fn parse_flag(
    query: &str,
    known: &[&'static str],
    parameter: Parameter,
) -> Result<bool, RouteError> {
    check_names(query, known)?;
    let given = value(query, parameter.as_str()).unwrap_or("false");
    // Clients in Python send `True`.
    match given.to_ascii_lowercase().as_str() {
        "false" => Ok(false),
        "true" => Ok(true),
        _ => Err(parameter.refuse(given)),
    }
}

/// Refuses a parameter that is nearly one of `known`: unheard, it would be a surprise. Others are
/// let pass, since clients and proxies add some of their own.
fn check_names(query: &str, known: &[&'static str]) -> Result<(), RouteError> {
    for pair in query.split('&').take(MAX_PARAMETERS) {
        let name = pair.split('=').next().unwrap_or_default();
        if known.contains(&name) {
            continue;
        }
        if let Some(meant) = suggestion(name, known.iter().copied()) {
            let given = name.chars().take(40).collect();
            let meant = known.iter().find(|known| **known == meant);
            let meant = meant.copied().unwrap_or_default();
            return Err(RouteError::NearParameter { given, meant });
        }
    }
    Ok(())
}

/// `wait=30s`, `wait=2m` or seconds alone, up to [`MAX_WAIT_SECONDS`].
fn parse_wait(query: &str, known: &[&'static str]) -> Result<Option<Duration>, RouteError> {
    check_names(query, known)?;
    let Some(given) = query.split('&').find_map(|pair| pair.strip_prefix("wait=")) else {
        return Ok(None);
    };
    let bad = || Parameter::Wait.refuse(given);
    let (number, unit) = match given.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (given.strip_suffix('s').unwrap_or(given), 1),
    };
    // Rust would take a plus sign as well, which in a query stands for a space.
    let digits = Some(number).filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    let number: u64 = digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(bad)?;
    let seconds = number
        .checked_mul(unit)
        .filter(|seconds| *seconds <= MAX_WAIT_SECONDS)
        .ok_or_else(bad)?;
    Ok(Some(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &str, expected: Result<Route, RouteError>) {
        let (method, target) = request.split_once(' ').unwrap();
        assert_eq!(Route::parse(method, target), expected, "{request}");
    }

    fn get(wait: Option<u64>) -> Route {
        Route::GetJob {
            name: "compute-1".to_string(),
            wait: wait.map(Duration::from_secs),
        }
    }

    fn list_of(statuses: &[Status], job_id: Option<&str>, limit: Option<usize>) -> Route {
        Route::ListJobs(JobFilter {
            statuses: statuses.to_vec(),
            job_id: job_id.map(str::to_string),
            limit,
        })
    }

    #[test]
    fn a_list_is_of_the_jobs_that_are_asked_for() {
        use Status::{Failed, Stopped, Waiting};
        let check = |query: &str, statuses: &[Status], job_id, limit| {
            let request = format!("GET /api/v1/jobs?{query}");
            super::tests::check(&request, Ok(list_of(statuses, job_id, limit)));
        };
        check("", &[], None, None);
        check("status=Failed", &[Failed], None, None);
        check("status=Failed,Stopped", &[Failed, Stopped], None, None);
        let parts = "status=Failed%2cWaiting&x=1&status=Stopped&status=Failed";
        check(parts, &[Failed, Waiting, Stopped], None, None);
        check("jobId=mine&limit=20", &[], Some("mine"), Some(20));
        check(
            "jobId=night+97%2B%c3%A9%26=",
            &[],
            Some("night 97+é&="),
            None,
        );
        check("limit=1000000", &[], None, Some(1_000_000));
    }

    #[test]
    fn what_is_asked_for_in_a_wrong_way_is_refused() {
        let check = |query: &str, parameter: Parameter, given: &str| {
            let given = given.to_string();
            let request = format!("GET /api/v1/jobs?{query}");
            super::tests::check(&request, Err(RouteError::BadValue { parameter, given }));
        };
        for given in [
            "",
            "failed",
            "Failed,",
            "Failed,Done",
            "Failed;Stopped",
            "%",
            "%4",
            "%+1",
        ] {
            check(&format!("status={given}"), Parameter::Status, given);
        }
        for given in ["", "a%0ab", "%ff", "%é", "\u{1a}"] {
            check(&format!("jobId={given}"), Parameter::JobId, given);
        }
        check(
            &format!("jobId={}", "x".repeat(254)),
            Parameter::JobId,
            &"x".repeat(40),
        );
        check("jobId=a&jobId=b", Parameter::JobId, "b");
        for given in [
            "",
            "0",
            "-1",
            "+1",
            "1000001",
            "1.0",
            "ten",
            "99999999999999999999",
        ] {
            check(&format!("limit={given}"), Parameter::Limit, given);
        }
        check("limit=1&limit=2", Parameter::Limit, "2");
        check("limit", Parameter::Limit, "");
    }

    #[test]
    fn every_route() {
        let name = || "compute-1".to_string();
        check("GET /api/v1/jobs", Ok(list_of(&[], None, None)));
        check("HEAD /api/v1/jobs", Ok(list_of(&[], None, None)));
        check("POST /api/v1/jobs", Ok(Route::CreateJob));
        check("GET /api/v1/jobs/compute-1", Ok(get(None)));
        check(
            "DELETE /api/v1/jobs/compute-1",
            Ok(Route::DeleteJob { name: name() }),
        );
        check(
            "POST /api/v1/jobs/compute-1/stop",
            Ok(Route::StopJob { name: name() }),
        );
        check(
            "POST /api/v1/jobs/compute-1/restart",
            Ok(Route::RestartJob { name: name() }),
        );
        check(
            "GET /api/v1/jobs/compute-1/logs",
            Ok(Route::GetLog {
                name: name(),
                options: LogOptions::default(),
            }),
        );
        check("GET /api/v1/component", Ok(Route::Component));
        check("GET /api/v1/events?x=1", Ok(Route::Events));
        check(
            "PUT /api/v1/jobs/compute-1/progress",
            Ok(Route::PutProgress { name: name() }),
        );
        check("GET /", Ok(Route::Console));
        check("POST /api/v1/jobs/stop", Ok(Route::StopJobs));
        check("GET /health/live", Ok(Route::Live));
        check("GET /health/ready", Ok(Route::Ready));
        check("GET /metrics", Ok(Route::Metrics));
        check("GET /openapi.json", Ok(Route::Document));
        check("GET /swagger.json", Ok(Route::Document));
        check("GET /metrics", Ok(Route::Metrics));
    }

    #[test]
    fn every_route_of_batches() {
        let name = || "b-1".to_string();
        let list = |summary| Ok(Route::ListBatches { summary });
        check("POST /api/v1/batches", Ok(Route::CreateBatch));
        check("GET /api/v1/batches/", list(false));
        check("GET /api/v1/batches?summary=true", list(true));
        check("GET /api/v1/batches?x=1&summary=False", list(false));
        let get = |summary, wait: Option<u64>| {
            let (name, wait) = (name(), wait.map(Duration::from_secs));
            Ok(Route::GetBatch {
                name,
                summary,
                wait,
            })
        };
        check("GET /api/v1/batches/b-1", get(false, None));
        let target = "HEAD /api/v1/batches/b-1?summary=true&wait=2m";
        check(target, get(true, Some(120)));
        let check_name = |request: &str, route: fn(String) -> Route| {
            check(request, Ok(route(name())));
        };
        check_name("DELETE /api/v1/batches/b-1", |name| Route::DeleteBatch {
            name,
        });
        check_name("POST /api/v1/batches/b-1/stop", |name| Route::StopBatch {
            name,
        });
        check("POST /api/v1/batches/stop", Ok(Route::StopBatches));
        check_name("POST /api/v1/batches/b-1/restart", |name| {
            Route::RestartBatch { name, all: false }
        });
        check_name("POST /api/v1/batches/b-1/restart?all=true", |name| {
            Route::RestartBatch { name, all: true }
        });
        let (batch, job) = (name, || "j".to_string());
        let wait = Some(Duration::from_secs(1));
        let (of, own) = (batch(), job());
        let one = Route::GetBatchJob {
            batch: of,
            job: own,
            wait,
        };
        check("GET /api/v1/batches/b-1/jobs/j?wait=1", Ok(one));
        let (of, own) = (batch(), job());
        let stop = Route::StopBatchJob {
            batch: of,
            job: own,
        };
        check("POST /api/v1/batches/b-1/jobs/j/stop/", Ok(stop));
        let (batch, job) = (batch(), job());
        let restart = Route::RestartBatchJob { batch, job };
        check("POST /api/v1/batches/b-1/jobs/j/restart", Ok(restart));

        for (request, allow) in [
            ("PUT /api/v1/batches", "GET, HEAD, POST"),
            ("GET /api/v1/batches/stop", "POST"),
            ("POST /api/v1/batches/b-1", "GET, HEAD, DELETE"),
            ("GET /api/v1/batches/b-1/restart", "POST"),
            ("DELETE /api/v1/batches/b-1/jobs/j", "GET, HEAD"),
            ("GET /api/v1/batches/b-1/jobs/j/stop", "POST"),
        ] {
            check(request, Err(RouteError::MethodNotAllowed { allow }));
        }
        for target in [
            "//",
            "/b-1/jobs",
            "/b-1/jobs//",
            "/b-1/jobs/j/logs",
            "/b-1/x",
        ] {
            let request = format!("GET /api/v1/batches{target}");
            check(&request, Err(RouteError::NotFound));
        }
        check(
            "GET /api/v1/batches?summary=yes",
            Err(Parameter::Summary.refuse("yes")),
        );
        check(
            "POST /api/v1/batches/b-1/restart?all=1",
            Err(Parameter::All.refuse("1")),
        );
        let given = "sumary".to_string();
        let near = RouteError::NearParameter {
            given,
            meant: "summary",
        };
        check("GET /api/v1/batches?sumary=true", Err(near));
    }

    #[test]
    fn a_trailing_slash_and_an_unknown_query_make_no_difference() {
        check("GET /api/v1/jobs/", Ok(list_of(&[], None, None)));
        check("POST /api/v1/jobs/?x=1", Ok(Route::CreateJob));
        check("GET /api/v1/jobs/compute-1/?x=1#y", Ok(get(None)));
        check("POST /api/v1/jobs/stop/", Ok(Route::StopJobs));
        check("GET /health/live/", Ok(Route::Live));
    }

    #[test]
    fn a_parameter_that_is_nearly_one_is_refused() {
        let near = |given: &str, meant| {
            let given = given.to_string();
            Err(RouteError::NearParameter { given, meant })
        };
        check("GET /api/v1/jobs/compute-1?wiat=1", near("wiat", "wait"));
        check(
            "GET /api/v1/jobs/compute-1?x=1&Wait=1",
            near("Wait", "wait"),
        );
        check(
            "GET /api/v1/jobs/compute-1/logs?folow=true",
            near("folow", "follow"),
        );
        check("GET /api/v1/jobs?jobid=1", near("jobid", "jobId"));
        check("GET /api/v1/jobs?state=Failed", near("state", "status"));
        check("GET /api/v1/jobs/compute-1?_=1&cache=no&", Ok(get(None)));
    }

    #[test]
    fn a_wait_is_seconds_or_minutes_up_to_a_bound() {
        for (given, seconds) in [
            ("30s", 30),
            ("30", 30),
            ("5m", 300),
            ("0", 0),
            ("300s", 300),
        ] {
            check(
                &format!("GET /api/v1/jobs/compute-1?wait={given}"),
                Ok(get(Some(seconds))),
            );
        }
        for given in [
            "",
            "x",
            "+1",
            "-1s",
            "301",
            "6m",
            "1h",
            "99999999999999999999m",
        ] {
            let target = format!("GET /api/v1/jobs/compute-1?a=b&wait={given}");
            check(&target, Err(Parameter::Wait.refuse(given)));
        }
    }

    #[test]
    fn a_log_is_followed_or_not_and_has_a_tail() {
        let get = |query: &str| {
            Route::parse("GET", &format!("/api/v1/jobs/compute-1/logs?{query}")).map(|route| {
                match route {
                    Route::GetLog { options, .. } => (options.follow, options.tail),
                    other => panic!("{other:?}"),
                }
            })
        };
        assert_eq!(get("follow=true&tail=10"), Ok((true, Some(10))));
        assert_eq!(get("x=1&follow=false"), Ok((false, None)));
        assert_eq!(get("tail=0"), Ok((false, Some(0))));
        for bad in [
            "follow",
            "follow=yes",
            "tail=",
            "tail=-1",
            "tail=+1",
            "tail=1000001",
        ] {
            let (parameter, given) = bad.split_once('=').unwrap_or((bad, ""));
            match get(bad) {
                Err(RouteError::BadValue {
                    parameter: found,
                    given: text,
                }) => assert_eq!((found.as_str(), text.as_str()), (parameter, given)),
                other => panic!("{bad}: {other:?}"),
            }
        }
    }

    #[test]
    fn anything_else_is_not_there() {
        let long = format!("/{}", "a/".repeat(100));
        let targets = [
            "/api",
            "/api/v1",
            "/api/v1/jobs//",
            "//api/v1/jobs",
            "/api/v1/jobs/a/b",
            "/health",
            &long,
        ];
        for target in targets {
            check(&format!("GET {target}"), Err(RouteError::NotFound));
        }
        check("GET http://other/api/v1/jobs", Err(RouteError::NotFound));
    }

    #[test]
    fn another_method_is_told_which_there_are() {
        check(
            "PUT /api/v1/jobs",
            Err(RouteError::MethodNotAllowed {
                allow: "GET, HEAD, POST",
            }),
        );
        check(
            "POST /api/v1/jobs/a",
            Err(RouteError::MethodNotAllowed {
                allow: "GET, HEAD, DELETE",
            }),
        );
        check(
            "GET /api/v1/jobs/stop",
            Err(RouteError::MethodNotAllowed { allow: "POST" }),
        );
        check(
            "GET /api/v1/jobs/a/stop",
            Err(RouteError::MethodNotAllowed { allow: "POST" }),
        );
        check(
            "POST /openapi.json",
            Err(RouteError::MethodNotAllowed { allow: "GET, HEAD" }),
        );
        check(
            "POST /health/live",
            Err(RouteError::MethodNotAllowed { allow: "GET, HEAD" }),
        );
    }
}
