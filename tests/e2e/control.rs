//! What callers do to jobs besides starting and deleting them.

use crate::api::{JOBS, SOON, name};
use crate::cluster::{Cluster, logs, objects, within};
use crate::logs::log;
use serde_json::{Value, json};
use std::time::Instant;

/// Runs until it is told to end, and says how it was.
const UNTIL_STOPPED: &str = "trap 'exit 143' TERM; while :; do sleep 0.1; done";

pub fn a_job_is_stopped_and_restarted(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let job = name(&etl.start(json!({"payload": UNTIL_STOPPED})));
    etl.wait_until_started(&job);
    let pods = || {
        objects(
            "dev",
            &["pods", "-l", &format!("batch.kubernetes.io/job-name={job}")],
        )
    };

    let response = etl.call("POST", &format!("{JOBS}/{job}/stop"), "");
    let expected = json!({"status": "Success", "message": format!("job {job} successfully stopped"), "code": 200});
    assert_eq!((response.code, response.json()), (200, expected));
    let status = etl.get(&job)["status"].to_string();
    assert!(
        ["\"Stopping\"", "\"Stopped\""].contains(&status.as_str()),
        "{status}"
    );
    let started = Instant::now();
    etl.wait_for(&job, "Stopped");
    let stopped = started.elapsed().as_secs_f64();
    within(SOON, || {
        Some(pods())
            .filter(Vec::is_empty)
            .ok_or_else(|| format!("a stopped job has pods: {:?}", pods()))
    });
    let state = etl.get(&job);
    let (began, ended) = (state["started"].as_str(), state["ended"].as_str());
    assert!(began > Some("2") && ended >= began, "{state}");

    // In place, with its payload.
    let response = etl.call("POST", &format!("{JOBS}/{job}/restart"), "");
    assert_eq!(response.code, 200, "{response}");
    assert_eq!(name(&response.json()), job);
    etl.wait_for(&job, "Running");
    within(SOON, || match pods().as_slice() {
        [pod] if pod["status"]["phase"] == "Running" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let running = etl.call("POST", &format!("{JOBS}/{job}/restart"), "");
    assert!(
        (400..500).contains(&running.code),
        "a running job is not restarted: {running}"
    );
    assert_eq!(etl.delete(&job).code, 200);

    // One that has finished: as a new job, with the same payload.
    let first = name(&etl.start(json!({"payload": "echo again"})));
    etl.wait_for(&first, "Succeeded");
    let response = etl.call("POST", &format!("{JOBS}/{first}/restart"), "");
    assert_eq!(response.code, 200, "{response}");
    let second = response.json();
    assert_eq!(second["restartOf"], first.as_str(), "{second}");
    let second = name(&second);
    etl.wait_for(&second, "Succeeded");
    assert_eq!(logs("dev", &second), "again\n");
    vec![
        format!(
            "stopped, and without a pod, {stopped:.1} s after the stop; its end is told; restarted under its own name"
        ),
        "a finished job restarted as another, which read the same payload".to_string(),
    ]
}

pub fn an_end_is_waited_for_without_polling(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let job = name(&etl.start(json!({"payload": UNTIL_STOPPED})));
    let started = Instant::now();
    let response = etl.call("GET", &format!("{JOBS}/{job}?wait=2s"), "");
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(response.json()["status"], "Running", "{response}");
    assert!((2.0..10.0).contains(&seconds), "{seconds} s");
    etl.delete(&job);

    let job = name(&etl.start(json!({"payload": "sleep 1"})));
    let mut waited: Vec<Value> = Vec::new();
    // Longer than the job takes, and shorter than the calling shell's patience.
    while waited.last().is_none_or(|last| last["status"] == "Running") {
        assert!(waited.len() < 4, "{waited:?}");
        waited.push(
            etl.call("GET", &format!("{JOBS}/{job}?wait=25s"), "")
                .json(),
        );
    }
    assert_eq!(
        waited.len(),
        1,
        "one GET is enough for a job of seconds: {waited:?}"
    );
    assert_eq!(waited[0]["status"], "Succeeded", "{waited:?}");
    vec![format!(
        "a running job after {seconds:.2} s of wait=2s; one GET with wait=25s answered with the end"
    )]
}

pub fn a_job_is_part_of_its_requests_trace(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    // Kubernetes would put a variable's value in the place of $(HOME).
    let (state, print) = ("a=$(HOME)$$,b=2", "echo \"[$TRACEPARENT][$TRACESTATE]\"");
    let mut start = |headers: &[(&str, &str)], script: &str| {
        let body = json!({"payload": script}).to_string();
        let response = etl.call_with(headers, "POST", JOBS, &body);
        assert_eq!(response.code, 200, "{response}");
        name(&response.json())
    };
    let valid = [("traceparent", parent), ("tracestate", state)];
    let traced = start(&valid, print);
    let invalid = start(
        &[("traceparent", "00-0af7-b7ad-01"), ("tracestate", state)],
        print,
    );
    let stopped = start(&valid, &format!("{print}; {UNTIL_STOPPED}"));
    let expected = format!("[{parent}][{state}]\n");
    for (job, expected) in [(&traced, expected.as_str()), (&invalid, "[][]\n")] {
        etl.wait_for(job, "Succeeded");
        assert_eq!(logs("dev", job), expected);
    }
    let again = etl.call("POST", &format!("{JOBS}/{traced}/restart"), "");
    let again = name(&again.json());
    etl.wait_for(&again, "Succeeded");
    assert_eq!(logs("dev", &again), expected);
    etl.wait_until_started(&stopped);
    etl.call("POST", &format!("{JOBS}/{stopped}/stop"), "");
    etl.wait_for(&stopped, "Stopped");
    etl.call("POST", &format!("{JOBS}/{stopped}/restart"), "");
    within(SOON, || {
        let said = log(&mut etl, &stopped, "");
        (said == expected).then_some(()).ok_or(said)
    });
    assert_eq!(etl.delete(&stopped).code, 200);
    vec![format!(
        "{}, and after a restart of either kind",
        expected.trim_end()
    )]
}

pub fn a_request_that_is_sent_again_starts_no_second_job(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let key = format!("e2e-{}-{:?}", std::process::id(), Instant::now()).replace(' ', "");
    let body = json!({"payload": UNTIL_STOPPED}).to_string();
    let mut post = |body: &str| etl.call_with(&[("Idempotency-Key", &key)], "POST", JOBS, body);
    let answers = [post(&body), post(&body), post(&body)].map(|response| {
        assert_eq!(response.code, 200, "{response}");
        name(&response.json())
    });
    let other = post(&json!({"payload": "exit 0"}).to_string());
    assert!(answers.iter().all(|job| *job == answers[0]), "{answers:?}");
    assert!(
        (400..500).contains(&other.code),
        "the same key with another body: {other}"
    );
    let jobs = objects(
        "dev",
        &[
            "jobs",
            "--field-selector",
            &format!("metadata.name={}", answers[0]),
        ],
    );
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!(etl.delete(&answers[0]).code, 200);
    let message = other.json()["message"].to_string();
    vec![format!(
        "3 POSTs with one Idempotency-Key: one job; another body with that key: {} {message}",
        other.code
    )]
}
