//! The scheduler's API as another component of the application calls it: from its pod, by name, in plain HTTP/1.1.

use crate::cluster::{text, within};
use crate::contract;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// How long a job of an instant may take, on a machine that has much to do.
pub const SOON: Duration = Duration::from_secs(60);
pub const JOBS: &str = "/api/v1/jobs";

const END: &[u8] = b"--end--\n";
/// For each line of host, port and length, and a request of that length: prints the answer, and a line that ends it. Nothing
/// is sent before the last answer is here, so `head` finds no more than it should take.
const SHELL: &str = r#"while read -r host port length; do
    head -c "$length" | { busybox timeout 30 nc -w 3 "$host" "$port" 2>/dev/null; cat >/dev/null; }
    printf '\n--end--\n'
done"#;

/// A shell in the `backend` of an environment.
pub struct Backend {
    kubectl: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

#[derive(Debug)]
pub struct Response {
    pub code: u16,
    /// Status line and headers.
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in the answer: {self}"))
    }
}

impl std::fmt::Display for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n\n{}", self.head, text(&self.body))
    }
}

impl Backend {
    pub fn open(namespace: &str) -> Backend {
        let mut kubectl = Command::new("kubectl")
            .args([
                "exec",
                "-i",
                "deployment/backend",
                "-n",
                namespace,
                "--",
                "sh",
                "-c",
                SHELL,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = kubectl.stdin.take().unwrap();
        let output = BufReader::new(kubectl.stdout.take().unwrap());
        Backend {
            kubectl,
            input,
            output,
        }
    }

    /// Asks a host and port for a path; `None` if nothing answers there.
    pub fn get(&mut self, host: &str, port: u16, path: &str) -> Option<Response> {
        self.ask(host, port, &format!("GET {path}"), &[], "")
    }

    /// Sends a request, such as `GET /`, to a host and port; `None` if nothing answers there.
    pub fn ask(
        &mut self,
        host: &str,
        port: u16,
        request: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Response> {
        let mut request =
            format!("{request} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n");
        for (name, value) in headers {
            write!(request, "{name}: {value}\r\n").unwrap();
        }
        if !body.is_empty() {
            write!(request, "Content-Length: {}\r\n", body.len()).unwrap();
        }
        write!(request, "\r\n{body}").unwrap();
        let answer = self.send(host, port, request.as_bytes());
        let split = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = text(&answer[..split]);
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let code = code.unwrap_or_else(|| panic!("not a status line: {head}"));
        Some(Response {
            code,
            head,
            body: answer[split + 4..].to_vec(),
        })
    }

    /// Sends bytes to a host and port, and returns what comes back until the other side closes.
    fn send(&mut self, host: &str, port: u16, request: &[u8]) -> Vec<u8> {
        let line = format!("{host} {port} {}\n", request.len());
        let sent = self.input.write_all(&[line.as_bytes(), request].concat());
        sent.expect("the shell in the backend has ended");
        self.input.flush().unwrap();
        let mut answer = Vec::new();
        loop {
            let before = answer.len();
            let read = self.output.read_until(b'\n', &mut answer).unwrap();
            assert!(
                read > 0,
                "the shell in the backend has ended: {}",
                text(&answer)
            );
            if &answer[before..] == END {
                answer.truncate(before - 1);
                return answer;
            }
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

/// The scheduler of one component.
pub struct Scheduler {
    pub backend: Backend,
    component: String,
    port: u16,
}

impl Scheduler {
    pub fn open(namespace: &str, component: &str, port: u16) -> Scheduler {
        Scheduler {
            backend: Backend::open(namespace),
            component: component.to_string(),
            port,
        }
    }

    /// Where its jobs are, by its own name.
    pub fn jobs_url(&self) -> String {
        format!("http://{}:{}{JOBS}", self.component, self.port)
    }

    #[track_caller]
    pub fn call(&mut self, method: &str, path: &str, body: &str) -> Response {
        self.call_with(&[], method, path, body)
    }

    #[track_caller]
    pub fn call_with(
        &mut self,
        headers: &[(&str, &str)],
        method: &str,
        path: &str,
        body: &str,
    ) -> Response {
        let (request, component, port) = (format!("{method} {path}"), &self.component, self.port);
        let response = self.backend.ask(component, port, &request, headers, body);
        let response =
            response.unwrap_or_else(|| panic!("no answer from {component}:{port} to {request}"));
        let headers = response.head.lines().skip(1);
        let headers: Vec<_> = headers.filter_map(|line| line.split_once(": ")).collect();
        contract::check(method, path, response.code, &headers, &response.body);
        response
    }

    /// Starts a job, and returns its state as answered.
    #[track_caller]
    pub fn start(&mut self, request: Value) -> Value {
        let response = self.call("POST", JOBS, &request.to_string());
        assert_eq!(response.code, 200, "{response}");
        response.json()
    }

    #[track_caller]
    pub fn get(&mut self, job: &str) -> Value {
        let response = self.call("GET", &format!("{JOBS}/{job}"), "");
        assert_eq!(response.code, 200, "{response}");
        response.json()
    }

    #[track_caller]
    pub fn list(&mut self) -> Vec<Value> {
        let response = self.call("GET", JOBS, "");
        assert_eq!(response.code, 200, "{response}");
        serde_json::from_slice(&response.body).unwrap_or_else(|e| panic!("{e}: {response}"))
    }

    #[track_caller]
    pub fn delete(&mut self, job: &str) -> Response {
        self.call("DELETE", &format!("{JOBS}/{job}"), "")
    }

    /// The job once it is as wanted.
    #[track_caller]
    pub fn wait(&mut self, job: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        within(limit, || {
            let state = self.get(job);
            if wanted(&state) {
                Ok(state)
            } else {
                Err(state.to_string())
            }
        })
    }

    #[track_caller]
    pub fn wait_for(&mut self, job: &str, status: &str) -> Value {
        self.wait(job, SOON, |job| job["status"] == status)
    }

    /// The job once its container runs.
    #[track_caller]
    pub fn wait_until_started(&mut self, job: &str) -> Value {
        self.wait(job, SOON, |job| {
            job["podStatuses"][0]["replicaStatus"]["status"] == "Running"
        })
    }
}

#[track_caller]
pub fn name(job: &Value) -> String {
    job["name"]
        .as_str()
        .unwrap_or_else(|| panic!("no name: {job}"))
        .to_string()
}
