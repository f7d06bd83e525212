//! The API as its callers see it, over plain HTTP/1.1.

use super::contract;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub const JOBS: &str = "/api/v1/jobs";

/// A connection to a scheduler.
pub struct Api {
    /// Host and port.
    authority: String,
    connection: Option<BufReader<TcpStream>>,
}

#[derive(Debug)]
pub struct Response {
    pub code: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {text}"))
    }
}

impl Api {
    /// `base_url` is such as `http://localhost:8000`.
    pub fn new(base_url: &str) -> Api {
        let authority = base_url.trim_start_matches("http://").trim_end_matches('/');
        Api {
            authority: authority.to_string(),
            connection: None,
        }
    }

    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Sends a request with `Host` as it should be.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Response {
        let host = self.authority.clone();
        self.ask_with(method, path, &[("Host", &host)], body)
    }

    /// Sends a request with exactly these headers, but for `Content-Length`. One that a connection loses is not sent again.
    pub fn ask_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        self.try_ask(method, path, headers, body)
            .unwrap_or_else(|e| panic!("{method} {path} at {}: {e}", self.authority))
    }

    pub fn try_ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Response> {
        let outcome = self.exchange(method, path, headers, body);
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }

    fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Response> {
        if self.connection.is_none() {
            let stream = TcpStream::connect(&self.authority)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(60)))?;
            self.connection = Some(BufReader::new(stream));
        }
        let connection = self.connection.as_mut().unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        request += "\r\n";
        request += body;
        connection.get_mut().write_all(request.as_bytes())?;

        let bad = |text: &str| std::io::Error::other(format!("not HTTP: {text:?}"));
        let mut line = String::new();
        connection.read_line(&mut line)?;
        let code = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let code = code.ok_or_else(|| bad(&line))?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            connection.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad(&line))?;
            headers.push((name.to_lowercase(), value.trim().to_string()));
        }
        let mut response = Response {
            code,
            headers,
            body: Vec::new(),
        };
        let length = response
            .header("content-length")
            .map_or(0, |l| l.parse().unwrap());
        if method != "HEAD" {
            response.body.resize(length, 0);
            connection.read_exact(&mut response.body)?;
        }
        if response.header("connection") == Some("close") {
            self.connection = None;
        }
        let headers = response.headers.iter();
        let headers: Vec<_> = headers.map(|(n, v)| (n.as_str(), v.as_str())).collect();
        contract::check(method, path, code, &headers, &response.body);
        Ok(response)
    }

    /// Submits a job that must be taken; gives its state as answered.
    #[track_caller]
    pub fn submit(&mut self, request: &Value) -> Value {
        let response = self.ask("POST", JOBS, &request.to_string());
        assert_eq!(response.code, 200, "{}", response.json());
        response.json()
    }

    /// The state of a job that must be there.
    #[track_caller]
    pub fn job(&mut self, name: &str) -> Value {
        let response = self.ask("GET", &format!("{JOBS}/{name}"), "");
        assert_eq!(response.code, 200, "{}", response.json());
        response.json()
    }

    #[track_caller]
    pub fn list(&mut self) -> Vec<Value> {
        let response = self.ask("GET", JOBS, "");
        assert_eq!(response.code, 200, "{}", response.json());
        response.json().as_array().unwrap().clone()
    }

    /// Waits until a job has a status.
    #[track_caller]
    pub fn wait_for(&mut self, name: &str, status: &str) -> Value {
        let mut last = Value::Null;
        let deadline = std::time::Instant::now() + super::PATIENCE;
        while std::time::Instant::now() < deadline {
            last = self.job(name);
            if last["status"] == status {
                return last;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("never {status}: {last}");
    }
}

/// What every backend's API does, whatever its jobs are: `quick` is a request for a job that succeeds within seconds, of
/// a component with a `payload.path`.
pub fn check(api: &mut Api, quick: &Value) {
    answers_have_the_first_versions_shape(api, quick);
    what_was_done_is_seen_at_once(api, quick);
    errors_are_status_objects(api);
    limits_are_named(api, quick);
    web_pages_are_refused(api, quick);
}

fn answers_have_the_first_versions_shape(api: &mut Api, quick: &Value) {
    let created = api.submit(quick);
    let name = created["name"].as_str().unwrap().to_string();
    for field in ["name", "started", "ended", "status"] {
        assert!(created[field].is_string(), "{field}: {created}");
    }
    assert_eq!(created["ended"], "");
    let (rest, random) = name.rsplit_once('-').unwrap();
    let (_, second) = rest.rsplit_once('-').unwrap();
    assert_eq!((second.len(), random.len()), (14, 8), "{name}");

    let done = api.wait_for(&name, "Succeeded");
    assert_eq!(done["name"], created["name"]);
    for field in ["started", "ended"] {
        let time = done[field].as_str().unwrap();
        assert!(time.len() == 20 && time.ends_with('Z'), "{field}: {done}");
    }
    let listed = api.list();
    let is_it = |job: &&Value| job["name"] == done["name"];
    let found = listed
        .iter()
        .find(is_it)
        .unwrap_or_else(|| panic!("{listed:?}"));
    for field in ["status", "created", "started", "ended"] {
        assert_eq!(found[field], done[field], "{field}");
    }
    let response = api.ask("GET", JOBS, "");
    assert_eq!(response.header("content-type"), Some("application/json"));

    let response = api.ask("DELETE", &format!("{JOBS}/{name}"), "");
    let expected = json!({
        "status": "Success",
        "message": format!("job {name} successfully deleted"),
        "code": 200
    });
    assert_eq!((response.code, response.json()), (200, expected));
}

fn what_was_done_is_seen_at_once(api: &mut Api, quick: &Value) {
    let name = api.submit(quick)["name"].as_str().unwrap().to_string();
    assert!(api.list().iter().any(|job| job["name"] == name.as_str()));
    assert_eq!(api.job(&name)["name"], name.as_str());
    assert_eq!(api.ask("DELETE", &format!("{JOBS}/{name}/"), "").code, 200);
    assert_eq!(api.ask("GET", &format!("{JOBS}/{name}"), "").code, 404);
    assert_eq!(api.ask("DELETE", &format!("{JOBS}/{name}"), "").code, 404);
    assert!(api.list().iter().all(|job| job["name"] != name.as_str()));
}

fn errors_are_status_objects(api: &mut Api) {
    let cases: &[(&str, &str, &str, u16, &str, &str)] = &[
        ("POST", JOBS, "payload", 400, "BadRequest", "line 1"),
        (
            "POST",
            JOBS,
            "{\"payload\": \"x\"",
            400,
            "BadRequest",
            "line 1",
        ),
        ("POST", JOBS, "[]", 422, "Invalid", "must be an object"),
        ("POST", JOBS, "{\"payload\": 1}", 422, "Invalid", "payload"),
        (
            "POST",
            JOBS,
            "{\"payloads\": \"x\"}",
            422,
            "Invalid",
            "payloads",
        ),
        (
            "POST",
            JOBS,
            "{\"timeLimitSeconds\": 0}",
            422,
            "Invalid",
            "timeLimitSeconds",
        ),
        ("GET", "/api/v1/jobs/none", "", 404, "NotFound", "none"),
        ("DELETE", "/api/v1/jobs/none", "", 404, "NotFound", "none"),
        ("GET", "/api/v1/jobs/..%2f..", "", 404, "NotFound", ""),
        ("GET", "/api/v2/jobs", "", 404, "NotFound", "/api/v1/jobs"),
        ("PUT", JOBS, "", 405, "MethodNotAllowed", "POST"),
    ];
    for (method, path, body, code, reason, named) in cases {
        let response = api.ask(method, path, body);
        let status = response.json();
        assert_eq!(response.code, *code, "{method} {path} {body}: {status}");
        assert_eq!(status["status"], "Failure");
        assert_eq!(status["code"], *code);
        assert_eq!(status["reason"], *reason);
        let message = status["message"].as_str().unwrap();
        assert!(message.contains(named), "{method} {path} {body}: {message}");
        if *code == 405 {
            assert!(response.header("allow").unwrap().contains("GET"));
        }
    }
}

fn limits_are_named(api: &mut Api, quick: &Value) {
    let mut request = quick.clone();
    request["payload"] = "x".repeat(1_048_577).into();
    let response = api.ask("POST", JOBS, &request.to_string());
    let message = response.json()["message"].to_string();
    assert_eq!(response.code, 413, "{message}");
    assert!(
        message.contains("1048576") && message.contains("1048577"),
        "{message}"
    );

    request["payload"] = "x".repeat(1_048_576).into();
    let name = api.submit(&request)["name"].as_str().unwrap().to_string();
    assert_eq!(api.ask("DELETE", &format!("{JOBS}/{name}"), "").code, 200);
}

/// What browsers send with a page's `fetch`, form or script.
fn web_pages_are_refused(api: &mut Api, quick: &Value) {
    let host = api.authority.clone();
    let before = api.list().len();
    for origin in ["https://evil.example", "http://localhost:3000", "null"] {
        for body in [quick.to_string(), String::new(), "a=b".to_string()] {
            let headers = [
                ("Host", host.as_str()),
                ("Origin", origin),
                ("Content-Type", "text/plain;charset=UTF-8"),
                ("Sec-Fetch-Mode", "no-cors"),
                ("Sec-Fetch-Site", "cross-site"),
            ];
            let response = api.ask_with("POST", JOBS, &headers, &body);
            assert_eq!(response.code, 403, "{origin}: {}", response.json());
            assert_eq!(response.json()["reason"], "Forbidden");
        }
    }
    assert_eq!(api.list().len(), before);
    let own = format!("http://{host}");
    let response = api.ask_with("GET", JOBS, &[("Host", &host), ("Origin", &own)], "");
    assert_eq!(response.code, 200, "its own page");
}
