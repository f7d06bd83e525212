//! A scheduler on this machine, beside those in the cluster: its API, how soon it is ready, and how large it is.

use crate::api::{SOON, name};
use crate::cluster::{CONFIG, Cluster, within};
use crate::deployment::Access;
use crate::support;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// 100 ms are promised; a machine that does other things may be slow now and then.
const READY_LIMIT: Duration = Duration::from_millis(500);
const RESIDENT_LIMIT_KB: u64 = 10_000;
const JOBS: usize = 20;
const STARTS: usize = 7;

/// The checks that local mode passes too.
pub fn the_api_is_that_of_every_backend(cluster: &Cluster) -> Vec<String> {
    let (scheduler, _) = Scheduler::start(cluster, &Access::of("prod", "etl"));
    let mut api = support::api::Api::new(&format!("http://{}", scheduler.address));
    support::api::check(&mut api, &json!({"payload": "exit 0"}));
    support::batches::check(&mut api);
    vec![
        "shapes, errors, limits, read-your-writes and the Origin rule, as in local mode"
            .to_string(),
        "so do batches: a whole life, stop and restart, keys, refusals".to_string(),
    ]
}

pub fn ready_at_once_and_small(cluster: &Cluster) -> Vec<String> {
    let access = Access::of("prod", "etl");
    let (scheduler, _) = Scheduler::start(cluster, &access);
    let started: BTreeSet<String> = (0..JOBS)
        .map(|number| {
            let request = json!({"payload": format!("exit {}", number % 2)});
            let answer = scheduler.call("POST", "/api/v1/jobs", &request.to_string());
            name(&serde_json::from_str(body(&answer)).unwrap_or_else(|e| panic!("{e}: {answer}")))
        })
        .collect();
    for job in &started {
        let answer = scheduler.call("GET", &format!("/api/v1/jobs/{job}?wait=60s"), "");
        assert!(!answer.contains("\"Running\""), "{answer}");
    }
    // Ten of each outcome are kept, and those are they.
    within(SOON, || {
        let answer = scheduler.call("GET", "/api/v1/jobs", "");
        let list: Vec<Value> = serde_json::from_str(body(&answer)).unwrap();
        let finished = list.iter().filter(|job| job["status"] != "Running");
        let names: BTreeSet<String> = finished.map(name).collect();
        if names == started {
            Ok(())
        } else {
            Err(answer)
        }
    });
    let resident = scheduler.resident_kb();
    assert!(
        resident <= RESIDENT_LIMIT_KB,
        "{resident} kB resident with {JOBS} jobs"
    );

    let mut times: Vec<Duration> = (0..STARTS)
        .map(|_| Scheduler::start(cluster, &access).1)
        .collect();
    times.sort();
    let median = times[STARTS / 2];
    assert!(median < READY_LIMIT, "ready after {times:.1?}");

    // What large payloads leave behind: no promise, but good to know.
    let request = json!({"payload": "x".repeat(1 << 20), "command": ["true"]}).to_string();
    for _ in 0..4 {
        let answer = scheduler.call("POST", "/api/v1/jobs", &request);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let size = std::fs::metadata(&cluster.binary).unwrap().len();
    vec![
        format!("ready {median:.1?} after its start with {JOBS} jobs (median of {times:.1?})"),
        format!(
            "{resident} kB resident after it took {JOBS} jobs and saw their ends; {} kB after 4 payloads of 1 MiB",
            scheduler.resident_kb()
        ),
        format!("the binary: {size} bytes"),
    ]
}

/// The body of an answer.
fn body(answer: &str) -> &str {
    answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no body: {answer}"))
        .1
}

/// A scheduler on this machine, beside the one in the cluster.
struct Scheduler {
    process: Child,
    _log: BufReader<ChildStderr>,
    address: SocketAddr,
}

impl Scheduler {
    /// Starts it, and says how long it took until it was ready.
    fn start(cluster: &Cluster, access: &Access) -> (Scheduler, Duration) {
        let started = Instant::now();
        let mut process = Command::new(&cluster.binary)
            .args([
                "serve",
                "--config",
                CONFIG,
                "--environment=prod",
                "--component=etl",
                "--image",
                &cluster.job_image,
            ])
            .args([
                "--address=127.0.0.1",
                "--port=0",
                "--kube-url",
                &access.server,
            ])
            .arg("--kube-token-file")
            .arg(&access.token_file)
            .arg("--kube-ca-file")
            .arg(&access.ca_file)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let before = said.len();
            assert!(log.read_line(&mut said).unwrap() > 0, "it ended: {said}");
            if let Some(address) = said[before..].split("event=listening address=").nth(1) {
                break address.split(' ').next().unwrap().parse().unwrap();
            }
        };
        let scheduler = Scheduler {
            process,
            _log: log,
            address,
        };
        while !scheduler
            .call("GET", "/health/ready", "")
            .starts_with("HTTP/1.1 200")
        {
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "not ready: {}",
                scheduler.call("GET", "/health/ready", "")
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        (scheduler, started.elapsed())
    }

    fn call(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let length = body.len();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn resident_kb(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.unwrap()
            .trim()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
