//! What changes of the jobs, as it is told, and how far they are, by their own word.

use crate::api::{JOBS, SOON, name};
use crate::cluster::{Cluster, namespace, objects, within};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

/// Says to the scheduler how far the job is, with what its image has.
const REPORT: &str = r#"report() {
    rest=${JOB_PROGRESS_URL#http://}; host=${rest%%/*}
    printf 'PUT /%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Length: %s\r\n\r\n%s' \
        "${rest#*/}" "$host" "${#1}" "$1" | nc "${host%:*}" "${host#*:}"
}
"#;

pub fn what_changes_is_told_as_it_does(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let mut events = Events::open();
    for expected in ["batches", "list"] {
        let (kind, list) = events.next();
        assert!(kind == expected && list.is_array(), "{kind}: {list}");
    }

    let job = name(&etl.start(json!({"payload": "sleep 1; exit 3"})));
    let mut told = Vec::new();
    let failed = loop {
        let state = events.next_of(&job);
        told.push(state["status"].as_str().unwrap_or("gone").to_string());
        if state["podStatuses"][0]["exitCode"] == 3 && state["status"] == "Failed" {
            break state;
        }
    };
    told.dedup();
    assert_eq!(told, ["Running", "Failed"]);
    assert_eq!(failed, etl.get(&job), "as a GET has it");
    let asked = Instant::now();
    assert_eq!(etl.delete(&job).code, 200);
    assert_eq!(events.next_of(&job), json!({"name": job}));
    let took = asked.elapsed().as_secs_f64();
    vec![format!(
        "a job's way to its end, as GET has it, is told, and its deletion in {took:.2} s"
    )]
}

pub fn a_job_says_how_far_it_is(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let script = format!(
        "{REPORT} report '{{\"percent\": 40, \"message\": \"four of ten\"}}'; \
         trap 'report \"{{\\\"percent\\\": 100}}\"; exit 0' TERM; while :; do sleep 0.1; done"
    );
    let job = name(&etl.start(json!({"payload": script})));
    let state = etl.wait(&job, SOON, |job| job["progress"].is_object());
    let progress = &state["progress"];
    assert!(
        progress["percent"] == 40 && progress["message"] == "four of ten",
        "{progress}"
    );
    let kept = || {
        let selector = format!("metadata.name={job}");
        let jobs = objects("dev", &["jobs", "--field-selector", &selector]);
        let kept = jobs[0]["metadata"]["annotations"]["job-scheduler/progress"].clone();
        kept.as_str().unwrap_or_default().to_string()
    };
    let since = Instant::now();
    within(SOON, || match kept() {
        text if text.starts_with("40/") && text.ends_with("/four of ten") => Ok(()),
        other => Err(other),
    });
    let took = since.elapsed().as_secs_f64();
    assert!(took < 15.0, "{took} s");

    // Its last word, from its container's last moment, is kept with its end.
    assert_eq!(
        etl.call("POST", &format!("{JOBS}/{job}/stop"), "").code,
        200
    );
    etl.wait_for(&job, "Stopped");
    within(SOON, || match kept() {
        text if text.starts_with("100/") => Ok(()),
        other => Err(other),
    });
    let body = json!({"percent": 7}).to_string();
    let late = etl.call("PUT", &format!("{JOBS}/{job}/progress"), &body);
    assert_eq!(late.code, 400, "{late}");
    let restarted = etl
        .call("POST", &format!("{JOBS}/{job}/restart"), "")
        .json();
    assert!(restarted["progress"].is_null(), "{restarted}");
    etl.delete(&job);
    vec![format!(
        "by its JOB_PROGRESS_URL; kept with the Job after {took:.1} s, and with its end"
    )]
}

/// The events of etl in dev.
struct Events {
    kubectl: Child,
    lines: BufReader<ChildStdout>,
}

impl Events {
    /// Not with the calling shell's nc, which closes its half of the connection as it has sent the
    /// request: to the scheduler, that is a client that has gone.
    fn open() -> Events {
        let url = "http://etl:9000/api/v1/events";
        let (backend, namespace) = ("deployment/backend", namespace("dev"));
        let mut kubectl = Command::new("kubectl")
            .args(["exec", backend, "-n", &namespace, "--"])
            .args(["wget", "-q", "-O-", url])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(kubectl.stdout.take().unwrap());
        Events { kubectl, lines }
    }

    /// The next event and its data.
    #[track_caller]
    fn next(&mut self) -> (String, Value) {
        let (mut kind, mut line) = (String::new(), String::new());
        loop {
            line.clear();
            assert!(
                self.lines.read_line(&mut line).unwrap() > 0,
                "the events have ended"
            );
            if let Some(name) = line.strip_prefix("event: ") {
                kind = name.trim_end().to_string();
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return (kind, serde_json::from_str(data).unwrap());
            }
        }
    }

    /// The data of the next event of a job.
    #[track_caller]
    fn next_of(&mut self, job: &str) -> Value {
        loop {
            let (_, data) = self.next();
            if data["name"] == job {
                return data;
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}
