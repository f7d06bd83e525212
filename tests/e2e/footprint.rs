//! How soon the scheduler is ready, and how large it is.

use crate::api::name;
use crate::cluster::{CONFIG, Cluster};
use crate::deployment::Access;
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// 100 ms are promised; a machine that does other things may be slow now and then.
const READY_LIMIT: Duration = Duration::from_millis(500);
const RESIDENT_LIMIT_KB: u64 = 10_000;
const JOBS: usize = 20;
const STARTS: usize = 7;

pub fn ready_at_once_and_small(cluster: &Cluster) -> Vec<String> {
    // The jobs that the test of retention has left, or as many that are made now.
    let mut compute = cluster.scheduler("prod", "compute");
    for number in compute.list().len()..JOBS {
        let job = compute.start_script(if number % 2 == 0 { "exit 0" } else { "exit 1" });
        compute.wait(&job, crate::api::SOON, |job| job["status"] != "Running");
    }
    let access = Access::of("prod", "compute");
    let mut times = Vec::new();
    for _ in 0..STARTS {
        times.push(Scheduler::start(cluster, &access).1);
    }
    times.sort();
    let median = times[STARTS / 2];
    assert!(median < READY_LIMIT, "ready after {times:?}");

    let (scheduler, _) = Scheduler::start(cluster, &access);
    let jobs: Vec<serde_json::Value> =
        serde_json::from_str(&scheduler.get("/api/v1/jobs")).unwrap();
    assert_eq!(jobs.len(), JOBS);
    for _ in 0..50 {
        scheduler.get("/api/v1/jobs");
        scheduler.get(&format!("/api/v1/jobs/{}", name(&jobs[0])));
    }
    let resident = scheduler.resident_kb();
    assert!(
        resident <= RESIDENT_LIMIT_KB,
        "{resident} kB resident with {JOBS} jobs"
    );

    // What a few large payloads leave behind: no promise, but good to know.
    let body = json!({"payload": "x".repeat(1 << 20), "command": ["true"]}).to_string();
    for _ in 0..4 {
        let answer = scheduler.call("POST", "/api/v1/jobs", &body);
        assert!(answer.contains("\"Running\""), "{answer}");
    }
    let size = std::fs::metadata(&cluster.binary).unwrap().len();
    vec![
        format!(
            "ready {} ms after its start (median; {times:?})",
            median.as_millis()
        ),
        format!(
            "{resident} kB resident with {JOBS} jobs after 100 GETs; {} kB after 4 payloads of 1 MiB",
            scheduler.resident_kb()
        ),
        format!("the binary: {size} bytes"),
    ]
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
        let (token, ca) = (access.token_file(), access.ca_file());
        let started = Instant::now();
        let mut process = Command::new(&cluster.binary)
            .args([
                "serve",
                "--config",
                CONFIG,
                "--environment=prod",
                "--component=compute",
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
            .arg(token)
            .arg("--kube-ca-file")
            .arg(ca)
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
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The body of a GET.
    fn get(&self, path: &str) -> String {
        let answer = self.call("GET", path, "");
        answer.split_once("\r\n\r\n").unwrap().1.to_string()
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
