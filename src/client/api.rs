//! A scheduler's API over HTTP, for the commands that ask one.

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;
use ureq::http::{Request, Response};
use ureq::{Agent, Body};

/// What a call may take beside the time that it asks the scheduler to wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A list of 20,000 jobs with long messages has less.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// Calls one scheduler.
pub struct Api {
    agent: Agent,
    url: String,
}

/// An answer, whatever its code.
pub struct Answer {
    pub code: u16,
    pub body: String,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
}

/// There is no answer.
#[derive(Debug)]
pub struct NoAnswer {
    url: String,
    cause: String,
    is_refused: bool,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NoAnswer {
            url,
            cause,
            is_refused,
        } = self;
        match is_refused {
            true => write!(
                f,
                "{url}: nothing listens there: start the scheduler, or give --url"
            ),
            false => write!(f, "{url}: {cause}"),
        }
    }
}

impl Api {
    /// `url` has no slash at its end.
    pub fn new(url: &str) -> Api {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // The scheduler is near, and its clients' proxy leads elsewhere.
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .build();
        Api {
            agent: config.into(),
            url: url.to_string(),
        }
    }

    /// Asks, and gives up after the usual time and `waits`.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
        waits: Duration,
    ) -> Result<Answer, NoAnswer> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let timeout = Some(CALL_TIMEOUT + waits);
        let sent = match body {
            Some(body) => request
                .header("Content-Type", "application/json")
                .body(body)
                .map_err(ureq::Error::from)
                .and_then(|request| {
                    let request = self.agent.configure_request(request);
                    self.agent.run(request.timeout_global(timeout).build())
                }),
            None => request
                .body(())
                .map_err(ureq::Error::from)
                .and_then(|request| {
                    let request = self.agent.configure_request(request);
                    self.agent.run(request.timeout_global(timeout).build())
                }),
        };
        sent.and_then(answer).map_err(|e| self.no_answer(e))
    }

    /// Opens a log. A `Err` within the `Ok` is the scheduler's refusal.
    pub fn log(&self, path: &str) -> Result<Result<impl Read + use<>, Answer>, NoAnswer> {
        let url = format!("{}{path}", self.url);
        let response = self
            .agent
            .get(url)
            .config()
            .timeout_recv_response(Some(CALL_TIMEOUT))
            .build()
            .call()
            .map_err(|e| self.no_answer(e))?;
        match response.status().as_u16() {
            200 => Ok(Ok(response.into_body().into_reader())),
            _ => answer(response).map(Err).map_err(|e| self.no_answer(e)),
        }
    }

    fn no_answer(&self, error: ureq::Error) -> NoAnswer {
        let is_refused = match &error {
            ureq::Error::ConnectionFailed => true,
            ureq::Error::Io(cause) => cause.kind() == io::ErrorKind::ConnectionRefused,
            _ => false,
        };
        NoAnswer {
            url: self.url.clone(),
            cause: error.to_string(),
            is_refused,
        }
    }
}

fn answer(response: Response<Body>) -> Result<Answer, ureq::Error> {
    let retry_after = response
        .headers()
        .get("Retry-After")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let code = response.status().as_u16();
    let body = response
        .into_body()
        .into_with_config()
        .limit(MAX_ANSWER_BYTES)
        .lossy_utf8(true)
        .read_to_string()?;
    Ok(Answer {
        code,
        body,
        retry_after,
    })
}
