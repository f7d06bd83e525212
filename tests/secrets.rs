//! What a scheduler says on stdout and stderr holds no payload, no secret and no token, at any level and in either form.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::Duration;
use support::api::{Api, JOBS};
use support::local::{Place, config, free_port};
use support::{Scratch, eventually};

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
const FORMATS: [&str; 2] = ["text", "json"];

/// What is planted: all that is secret begins with this, so that also a part of it is found.
const PLANTED: &str = "pl4nted";
const PAYLOAD: &str = "pl4nted-payload";
const VARIABLE: &str = "pl4nted-variable";
const FROM_FILE: &str = "pl4nted-in-the-secrets-file";
const FROM_ENVIRONMENT: &str = "pl4nted-in-the-environment";
const HEADER: &str = "pl4nted-header";
const TOKEN: &str = "pl4nted-token";
const SAID: &str = "pl4nted-by-the-job-in-its-last-words";

#[track_caller]
fn nothing_is_in(log: &str, run: &str) {
    if let Some(line) = log.lines().find(|line| line.contains(PLANTED)) {
        panic!("{run}: {line}");
    }
}

/// Sends a request with headers that are nobody's business.
fn ask(api: &mut Api, host: &str, method: &str, path: &str, body: &str) -> support::api::Response {
    let bearer = format!("Bearer {HEADER}");
    let cookie = format!("session={HEADER}");
    let headers = [
        ("Host", host),
        ("Authorization", bearer.as_str()),
        ("Proxy-Authorization", bearer.as_str()),
        ("Cookie", cookie.as_str()),
    ];
    api.ask_with(method, path, &headers, body)
}

/// Requests that are refused, and the code with which they are.
fn bad_bodies() -> [(String, u16); 8] {
    [
        (format!("{{\"payload\": \"{PAYLOAD}"), 400),
        (format!("{PAYLOAD}{{}}"), 400),
        (json!({"payload": {"x": PAYLOAD}}).to_string(), 422),
        (json!([PAYLOAD]).to_string(), 422),
        (
            json!({"payload": PAYLOAD, "variables": [VARIABLE]}).to_string(),
            422,
        ),
        (
            json!({"payload": PAYLOAD, "backoffLimit": VARIABLE}).to_string(),
            422,
        ),
        (
            json!({"payload": PAYLOAD, "variables": {"DB_PASSWORD": VARIABLE}}).to_string(),
            422,
        ),
        (json!({"payload": PAYLOAD.repeat(80_000)}).to_string(), 413),
    ]
}

#[test]
fn local_mode_says_nothing_of_what_it_is_trusted_with() {
    let lines = "payload: {path: /compute/args}\n\
                 secrets: [DB_PASSWORD, API_KEY]\n\
                 command: [sh, -c, 'cat \"$JOB_PAYLOAD_FILE\"; echo $DB_PASSWORD $API_KEY $OWN']";
    for level in LEVELS {
        for format in FORMATS {
            let run = format!("{level}, {format}");
            let place = Place::new(&[("compute", lines)]);
            let secrets = place.scratch.join("secrets");
            std::fs::write(&secrets, format!("DB_PASSWORD={FROM_FILE}\n")).unwrap();
            let secrets = secrets.to_str().unwrap();
            let options = ["--secrets-file", secrets, "--grace-seconds", "1"];
            let logging = ["--log-level", level, "--log-format", format];
            let variables = [("API_KEY", FROM_ENVIRONMENT)];
            let scheduler = place.start_with(&[&options[..], &logging].concat(), &variables);
            use_all_of_it(&mut scheduler.api(), &place);
            scheduler.end();
            let log = place.log();
            let says = |text: &str| log.contains(text);
            // It was listened to at all.
            assert_eq!(
                says("request="),
                ["debug", "trace"].contains(&level),
                "{log}"
            );
            assert_eq!(
                says("to=Failed"),
                !["error", "warn"].contains(&level),
                "{log}"
            );
            nothing_is_in(&log, &run);
        }
    }
}

fn use_all_of_it(api: &mut Api, place: &Place) {
    let host = format!("localhost:{}", place.ports[0]);
    let mut ask = |method: &str, path: &str, body: &str| ask(api, &host, method, path, body);
    let end_of = |ask: &mut dyn FnMut(&str, &str, &str) -> support::api::Response, body: Value| {
        let made = ask("POST", &format!("{JOBS}?token={HEADER}"), &body.to_string());
        assert_eq!(made.code, 200, "{}", made.json());
        let name = made.json()["name"].as_str().unwrap().to_string();
        let path = format!("{JOBS}/{name}");
        let job = ask("GET", &format!("{path}?wait=60s&token={HEADER}"), "");
        (path, job.json())
    };
    let request = json!({"payload": PAYLOAD, "variables": {"OWN": VARIABLE}});
    let (good, job) = end_of(&mut ask, request);
    assert_eq!(job["status"], "Succeeded", "{job}");
    let log = std::fs::read_to_string(
        place
            .data()
            .join("test-dev/compute/logs")
            .join(format!("{}.1.log", job["name"].as_str().unwrap())),
    );
    let printed = format!("{PAYLOAD}{FROM_FILE} {FROM_ENVIRONMENT} {VARIABLE}\n");
    assert_eq!(log.unwrap(), printed, "the job has it all");

    for (body, code) in bad_bodies() {
        let answer = ask("POST", JOBS, &body);
        assert_eq!(answer.code, code, "{}", answer.json());
    }
    // A program that is not there, by the name that a secret gives it.
    let (_, job) = end_of(&mut ask, json!({"command": ["$(DB_PASSWORD)"]}));
    assert_eq!(job["podStatuses"][0]["reason"], "StartError", "{job}");
    assert!(!job.to_string().contains(PLANTED), "{job}");
    let (_, job) = end_of(&mut ask, json!({"payload": PAYLOAD, "command": ["false"]}));
    assert_eq!(job["status"], "Failed", "{job}");

    let running = json!({"payload": PAYLOAD, "command": ["sleep", "1000"]});
    let made = ask("POST", JOBS, &running.to_string()).json();
    let running = format!("{JOBS}/{}", made["name"].as_str().unwrap());
    for (method, path, code) in [
        ("POST", format!("{running}/stop"), 200),
        ("POST", format!("{good}/stop"), 400),
        ("POST", format!("{good}/restart"), 200),
        ("GET", JOBS.to_string(), 200),
        ("GET", "/api/v1/component".to_string(), 200),
        ("GET", "/metrics".to_string(), 200),
        ("GET", format!("/nowhere?token={HEADER}"), 404),
        ("PUT", JOBS.to_string(), 405),
        ("DELETE", running.clone(), 200),
        ("DELETE", running.clone(), 404),
    ] {
        let answer = ask(method, &path, "");
        assert_eq!(answer.code, code, "{method} {path}");
        let text = String::from_utf8(answer.body).unwrap();
        assert!(!text.contains(PLANTED), "{method} {path}: {text}");
    }
    assert!(read_log(&host, &good).contains(&printed));
    let other = [("Host", HEADER), ("Origin", HEADER)];
    assert_eq!(api.ask_with("GET", JOBS, &other, "").code, 403);
}

/// The log of a job as it is sent, chunks and all.
fn read_log(host: &str, job: &str) -> String {
    let mut stream = TcpStream::connect(host).unwrap();
    let request = format!("GET {job}/logs?token={HEADER} HTTP/1.1\r\nHost: {host}\r\n");
    write!(
        stream,
        "{request}Cookie: {HEADER}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_secrets_file_that_is_refused_is_not_quoted() {
    let place = Place::new(&[("compute", "command: ['true']\nsecrets: [DB_PASSWORD]")]);
    let secrets = place.scratch.join("secrets");
    for text in [FROM_FILE.to_string(), format!("OTHER={FROM_FILE}\n")] {
        std::fs::write(&secrets, text).unwrap();
        let output = place.fail(&["--secrets-file", secrets.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        nothing_is_in(&String::from_utf8(output.stderr).unwrap(), "refused");
    }
}

/// As much of Kubernetes as it takes to run a job to its end: it refuses the token once, and the first Secrets.
struct ApiServer {
    url: String,
    /// Frames of the watches of jobs and of pods.
    frames: [Mutex<Vec<Value>>; 2],
    asked: Mutex<Vec<String>>,
}

impl ApiServer {
    fn start() -> Arc<ApiServer> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Arc::new(ApiServer {
            url: format!("http://{}", listener.local_addr().unwrap()),
            frames: Default::default(),
            asked: Mutex::default(),
        });
        let (serving, accepting) = (server.clone(), listener);
        spawn(move || {
            for stream in accepting.incoming() {
                let serving = serving.clone();
                // A scheduler that is gone takes no answer.
                spawn(move || serving.answer(stream.unwrap()));
            }
        });
        server
    }

    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if lines.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let lower = head.to_lowercase();
        assert!(lower.contains(&format!("authorization: bearer {TOKEN}")));
        let length = lower.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        lines.read_exact(&mut body)?;
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let path = target.split('?').next().unwrap();
        let what = format!("{method} {}", path.rsplit('/').next().unwrap());
        let times = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(what.clone());
            asked.iter().filter(|other| **other == what).count()
        };
        if target.contains("watch=1") {
            return self.watch(stream, usize::from(what == "GET pods"));
        }
        let list = json!({"metadata": {"resourceVersion": "1"}, "items": []});
        let refusal = |code: u16, message: &str| json!({"code": code, "reason": "Refused", "message": message});
        let (code, answer) = match (what.as_str(), times) {
            ("GET jobs" | "GET pods", _) => (200, list),
            ("POST jobs", 1) => (401, refusal(401, "Unauthorized")),
            ("POST jobs", _) => (201, self.run(serde_json::from_slice(&body).unwrap())),
            ("POST secrets", 1) => (500, refusal(500, "etcd has no leader")),
            ("POST secrets", 2) => (403, refusal(403, "quota exceeded")),
            ("POST secrets", _) => (201, json!({})),
            ("DELETE", _) => (200, json!({})),
            _ => (404, refusal(404, "not found")),
        };
        let answer = answer.to_string();
        let length = answer.len();
        write!(
            stream,
            "HTTP/1.1 {code} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}"
        )
    }

    /// Takes a Job, and has it fail with last words of its own.
    fn run(&self, mut job: Value) -> Value {
        let name = job["metadata"]["name"].clone();
        let mut frames = [&self.frames[0], &self.frames[1]].map(|frames| frames.lock().unwrap());
        // Each version is later than all before.
        let version = (frames[0].len() + 1) * 1000;
        let time = "2021-04-07T09:08:37Z";
        for (field, value) in [
            ("uid", json!(format!("u{version}"))),
            ("resourceVersion", json!(version.to_string())),
            ("creationTimestamp", json!(time)),
        ] {
            job["metadata"][field] = value;
        }
        let mut failed = job.clone();
        failed["metadata"]["resourceVersion"] = json!((version + 100).to_string());
        failed["status"] = json!({"failed": 1, "startTime": time, "conditions": [{
            "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often",
            "lastTransitionTime": time,
        }]});
        frames[0].push(json!({"type": "MODIFIED", "object": failed}));
        frames[1].push(json!({"type": "ADDED", "object": {
            "metadata": {
                "name": format!("{}-x", name.as_str().unwrap()), "creationTimestamp": time,
                "resourceVersion": (version + 50).to_string(),
                "labels": {"batch.kubernetes.io/job-name": name},
            },
            "status": {"phase": "Failed", "containerStatuses": [
                {"state": {"terminated": {"exitCode": 3, "reason": "Error", "message": SAID}}},
            ]},
        }}));
        job
    }

    fn watch(&self, mut stream: TcpStream, kind: usize) -> std::io::Result<()> {
        write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        let mut sent = 0;
        loop {
            let frames = self.frames[kind].lock().unwrap().clone();
            // Pods first, so that the end of a job is seen with its reason.
            if kind == 0 && frames.len() > sent {
                sleep(Duration::from_millis(300));
            }
            for frame in &frames[sent..] {
                writeln!(stream, "{frame}")?;
            }
            sent = frames.len();
            sleep(Duration::from_millis(10));
        }
    }
}

/// A process that ends with its test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_scheduler_of_a_cluster_says_nothing_of_what_it_is_trusted_with() {
    for level in LEVELS {
        for format in FORMATS {
            let scratch = Scratch::new();
            let (server, port) = (ApiServer::start(), free_port());
            let lines = "image: a:1\npayload: {path: /compute/args}\nsecrets: [DB_PASSWORD]";
            std::fs::write(
                scratch.join("radixconfig.yaml"),
                config(&[("compute", port, lines)]),
            )
            .unwrap();
            std::fs::write(scratch.join("token"), TOKEN).unwrap();
            let log = std::fs::File::create(scratch.join("log")).unwrap();
            let mut child = Killed(
                Command::new(env!("CARGO_BIN_EXE_job-scheduler"))
                    .args(["serve", "--address", "127.0.0.1", "--config"])
                    .arg(scratch.join("radixconfig.yaml"))
                    .args(["--component", "compute", "--environment", "dev"])
                    .args(["--kube-url", &server.url])
                    .arg("--kube-token-file")
                    .arg(scratch.join("token"))
                    .args(["--log-level", level, "--log-format", format])
                    .stdin(Stdio::null())
                    .stdout(log.try_clone().unwrap())
                    .stderr(log)
                    .spawn()
                    .unwrap(),
            );
            let host = format!("127.0.0.1:{port}");
            let mut api = Api::new(&host);
            eventually("the scheduler is ready", || {
                assert_eq!(child.0.try_wait().unwrap(), None, "it ended");
                let ready = api.try_ask("GET", "/health/ready", &[("Host", &host)], "");
                ready.ok().filter(|answer| answer.code == 200)
            });
            let body = json!({"payload": PAYLOAD, "variables": {"OWN": VARIABLE}}).to_string();
            let mut ask =
                |method: &str, path: &str, body: &str| ask(&mut api, &host, method, path, body);
            let mut codes = String::new();
            for _ in 0..2 {
                let answer = ask("POST", JOBS, &body);
                write!(codes, "{} ", answer.code).unwrap();
                if answer.code == 200 {
                    let name = answer.json()["name"].as_str().unwrap().to_string();
                    let job = ask("GET", &format!("{JOBS}/{name}?wait=60s"), "").json();
                    // Its caller is told.
                    assert_eq!(job["message"], SAID, "{job}");
                }
            }
            assert_eq!(
                codes, "503 200 ",
                "the payload of the first one was refused"
            );
            for (body, code) in bad_bodies() {
                assert_eq!(ask("POST", JOBS, &body).code, code);
            }
            drop(child);
            let log = std::fs::read_to_string(scratch.join("log")).unwrap();
            let says = log.contains("to=Failed");
            assert_eq!(says, !["error", "warn"].contains(&level), "{log}");
            nothing_is_in(&log, &format!("{level}, {format}"));
        }
    }
}
