//! Method and path to a typed action. Pure.

use super::guard::Refusal;
use crate::backend::LogOptions;
use crate::config::suggestion;
use std::time::Duration;

/// The longest that a request may ask to wait.
pub const MAX_WAIT_SECONDS: u64 = 300;
/// Parameters of a query that are looked at.
const MAX_PARAMETERS: usize = 100;
/// The most lines of a log that a request may ask for by number.
pub const MAX_TAIL_LINES: u32 = 1_000_000;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    ListJobs,
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
    /// The query's `wait` is not a time to wait.
    BadWait { given: String },
    /// A parameter has no meaning here, and one of nearly its name has.
    NearParameter { given: String, meant: &'static str },
    /// A parameter of a log is not what it may be.
    BadLogOption {
        parameter: &'static str,
        given: String,
    },
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
        let segments: Vec<&str> = path.splitn(8, '/').collect();
        let (is_get, is_post) = (matches!(method, "GET" | "HEAD"), method == "POST");
        let only = |allow| Err(RouteError::MethodNotAllowed { allow });
        match segments.as_slice() {
            ["", "api", "v1", "jobs"] => match method {
                "POST" => Ok(Route::CreateJob),
                _ if is_get => Ok(Route::ListJobs),
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
                        wait: parse_wait(query)?,
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

    /// What it takes to answer.
    pub fn cost(&self) -> Cost {
        match self {
            Route::ListJobs
            | Route::GetJob { .. }
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
            | Route::StopJobs => Cost::Backend,
        }
    }
}

/// The route as metrics call it, one of [`crate::metrics::ROUTES`].
pub fn label(route: &Result<Route, RouteError>) -> &'static str {
    match route {
        Ok(Route::ListJobs) => "list",
        Ok(Route::CreateJob) => "create",
        Ok(Route::GetJob { wait: Some(_), .. }) => "wait",
        Ok(Route::GetJob { wait: None, .. }) => "get",
        Ok(Route::DeleteJob { .. }) => "delete",
        Ok(Route::StopJob { .. }) => "stop",
        Ok(Route::StopJobs) => "stop-all",
        Ok(Route::RestartJob { .. }) => "restart",
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

/// `follow=true` and `tail=100`, up to [`MAX_TAIL_LINES`].
fn parse_log_options(query: &str) -> Result<LogOptions, RouteError> {
    check_names(query, &["follow", "tail"])?;
    let value = |name: &str| {
        let pairs = query
            .split('&')
            .map(|p| p.split_once('=').unwrap_or((p, "")));
        pairs.filter(|(key, _)| *key == name).map(|(_, v)| v).next()
    };
    let bad = |parameter, given: &str| RouteError::BadLogOption {
        parameter,
        given: given.chars().take(40).collect(),
    };
    let follow = match value("follow") {
        None | Some("false") => false,
        Some("true") => true,
        Some(given) => return Err(bad("follow", given)),
    };
    let tail = match value("tail") {
        None => None,
        Some(given) => Some(
            given
                .parse()
                .ok()
                .filter(|lines| *lines <= MAX_TAIL_LINES && !given.starts_with('+'))
                .ok_or_else(|| bad("tail", given))?,
        ),
    };
    Ok(LogOptions { follow, tail })
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
fn parse_wait(query: &str) -> Result<Option<Duration>, RouteError> {
    check_names(query, &["wait"])?;
    let Some(given) = query.split('&').find_map(|pair| pair.strip_prefix("wait=")) else {
        return Ok(None);
    };
    let bad = || RouteError::BadWait {
        given: given.chars().take(40).collect(),
    };
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

    #[test]
    fn every_route() {
        let name = || "compute-1".to_string();
        check("GET /api/v1/jobs", Ok(Route::ListJobs));
        check("HEAD /api/v1/jobs", Ok(Route::ListJobs));
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
    fn a_trailing_slash_and_an_unknown_query_make_no_difference() {
        check("GET /api/v1/jobs/", Ok(Route::ListJobs));
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
            check(
                &target,
                Err(RouteError::BadWait {
                    given: given.to_string(),
                }),
            );
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
                Err(RouteError::BadLogOption {
                    parameter: found,
                    given: text,
                }) => assert_eq!((found, text.as_str()), (parameter, given)),
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
