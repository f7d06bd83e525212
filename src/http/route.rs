//! Method and path to a typed action. Pure.

use super::guard::Refusal;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    ListJobs,
    CreateJob,
    GetJob(String),
    DeleteJob(String),
    /// Whether the process works.
    Live,
    /// Whether every job is known.
    Ready,
}

/// Why a request asks for nothing there is.
#[derive(Debug, PartialEq)]
pub enum RouteError {
    /// No such path.
    NotFound,
    /// The path takes other methods: the value of `Allow`.
    MethodNotAllowed { allow: &'static str },
    /// The request may be a web page's.
    Refused(Refusal),
}

impl Route {
    /// The route of a method and a request target. A trailing slash and a query make no difference; HEAD is GET.
    pub fn parse(method: &str, target: &str) -> Result<Route, RouteError> {
        let path = target.split(['?', '#']).next().unwrap_or_default();
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut segments = path.split('/');
        let segments: [Option<&str>; 6] = std::array::from_fn(|_| segments.next());
        match segments {
            [Some(""), Some("api"), Some("v1"), Some("jobs"), None, None] => match method {
                "GET" | "HEAD" => Ok(Route::ListJobs),
                "POST" => Ok(Route::CreateJob),
                _ => Err(RouteError::MethodNotAllowed {
                    allow: "GET, HEAD, POST",
                }),
            },
            [
                Some(""),
                Some("api"),
                Some("v1"),
                Some("jobs"),
                Some(name),
                None,
            ] if !name.is_empty() => match method {
                "GET" | "HEAD" => Ok(Route::GetJob(name.to_string())),
                "DELETE" => Ok(Route::DeleteJob(name.to_string())),
                _ => Err(RouteError::MethodNotAllowed {
                    allow: "GET, HEAD, DELETE",
                }),
            },
            [
                Some(""),
                Some("health"),
                Some(which @ ("live" | "ready")),
                None,
                ..,
            ] => match (method, which) {
                ("GET" | "HEAD", "live") => Ok(Route::Live),
                ("GET" | "HEAD", _) => Ok(Route::Ready),
                _ => Err(RouteError::MethodNotAllowed { allow: "GET, HEAD" }),
            },
            _ => Err(RouteError::NotFound),
        }
    }

    /// Whether it is answered from memory, without a body and without the backend.
    pub fn is_read(&self) -> bool {
        match self {
            Route::ListJobs | Route::GetJob(_) | Route::Live | Route::Ready => true,
            Route::CreateJob | Route::DeleteJob(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &str, expected: Result<Route, RouteError>) {
        let (method, target) = request.split_once(' ').unwrap();
        assert_eq!(Route::parse(method, target), expected, "{request}");
    }

    #[test]
    fn every_route() {
        let job = || "compute-1".to_string();
        check("GET /api/v1/jobs", Ok(Route::ListJobs));
        check("HEAD /api/v1/jobs", Ok(Route::ListJobs));
        check("POST /api/v1/jobs", Ok(Route::CreateJob));
        check("GET /api/v1/jobs/compute-1", Ok(Route::GetJob(job())));
        check("DELETE /api/v1/jobs/compute-1", Ok(Route::DeleteJob(job())));
        check("GET /health/live", Ok(Route::Live));
        check("GET /health/ready", Ok(Route::Ready));
    }

    #[test]
    fn a_trailing_slash_and_a_query_make_no_difference() {
        check("GET /api/v1/jobs/", Ok(Route::ListJobs));
        check("POST /api/v1/jobs/?x=1", Ok(Route::CreateJob));
        check("GET /api/v1/jobs/a/", Ok(Route::GetJob("a".to_string())));
        check("GET /health/live/", Ok(Route::Live));
    }

    #[test]
    fn anything_else_is_not_there() {
        for target in [
            "/",
            "",
            "/api",
            "/api/v1",
            "/api/v1/jobs//",
            "//api/v1/jobs",
            "/api/v1/jobs/a/b",
            "/health",
        ] {
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
            "POST /health/live",
            Err(RouteError::MethodNotAllowed { allow: "GET, HEAD" }),
        );
    }
}
