//! What jobs write, through the scheduler's API and with its own rights.

use crate::api::{JOBS, Response, SOON, Scheduler, name};
use crate::cluster::{Cluster, kubectl, namespace, text, within};
use serde_json::json;
use std::time::Instant;

pub fn a_jobs_log_is_read_through_the_api(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let job = name(&etl.start(json!({"payload": "seq 1 1000; echo done"})));
    etl.wait_for(&job, "Succeeded");
    let whole: String = (1..=1000).map(|number| format!("{number}\n")).collect();
    let whole = whole + "done\n";
    assert_eq!(log(&mut etl, &job, ""), whole);
    assert_eq!(log(&mut etl, &job, "?tail=2"), "1000\ndone\n");
    assert_eq!(log(&mut etl, &job, "?tail=0"), "");
    assert_eq!(log(&mut etl, &job, "?follow=true&tail=1"), "done\n");

    // All on one stream: what comes on two is in the order that the node read it in.
    let failing = "exec 2>&1; echo reading; cat /no/such/table; exit 3";
    let failed = name(&etl.start(json!({"payload": failing})));
    etl.wait_for(&failed, "Failed");
    let last = log(&mut etl, &failed, "?tail=1");
    assert!(last.contains("/no/such/table"), "{last}");

    let unknown = get(&mut etl, "etl-20210407105556-rkwaibwe", "");
    assert_eq!(unknown.code, 404, "{unknown}");
    vec![
        format!(
            "of a finished job: {} lines, or its last ones",
            whole.lines().count()
        ),
        "of a failed job: its last words; of an unknown one: 404".to_string(),
    ]
}

pub fn a_log_is_followed_to_the_jobs_end(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    // From before it has started.
    let job = name(&etl.start(json!({"payload": "echo one; sleep 4; echo two"})));
    let began = Instant::now();
    assert_eq!(follow(&job), "one\ntwo\n");
    let seconds = began.elapsed().as_secs_f64();
    assert!(seconds > 3.0, "{seconds} s, of a job of 4 s");
    etl.wait_for(&job, "Succeeded");

    // What it has written is there while it runs; a stop takes its pod away, and a restart makes another.
    let job =
        name(&etl.start(
            json!({"payload": "echo up; trap 'exit 143' TERM; while :; do sleep 0.1; done"}),
        ));
    etl.wait_until_started(&job);
    within(SOON, || match log(&mut etl, &job, "") {
        text if text == "up\n" => Ok(()),
        other => Err(other),
    });
    assert_eq!(
        etl.call("POST", &format!("{JOBS}/{job}/stop"), "").code,
        200
    );
    etl.wait_for(&job, "Stopped");
    // Once the pod is gone: its container goes first, and then the kubelet says that it has no
    // log.
    within(SOON, || match get(&mut etl, &job, "") {
        gone if gone.code == 404 => Ok(()),
        other => Err(other.to_string()),
    });
    let restarted = etl.call("POST", &format!("{JOBS}/{job}/restart"), "");
    assert_eq!(restarted.code, 200, "{restarted}");
    let early = log(&mut etl, &job, "");
    assert!(["", "up\n"].contains(&early.as_str()), "{early}");
    etl.delete(&job);

    // Over its attempts; while the second one is waited for, the first one's is there.
    let request = json!({"payload": "echo attempt; exit 1", "backoffLimit": 1});
    let job = name(&etl.start(request));
    within(SOON, || match log(&mut etl, &job, "") {
        text if text == "attempt\n" => Ok(()),
        other => Err(other),
    });
    assert_eq!(follow(&job), "attempt\nattempt\n");
    let job = etl.wait_for(&job, "Failed");
    assert_eq!(job["failed"], 2, "{job}");
    vec![
        format!("from before the start to the end, {seconds:.1} s, and over 2 attempts"),
        "gone with a stopped job's pod (404), and there again once it is restarted".to_string(),
    ]
}

fn get(scheduler: &mut Scheduler, job: &str, query: &str) -> Response {
    scheduler.call("GET", &format!("{JOBS}/{job}/logs{query}"), "")
}

/// The log of a job of etl to its end. Not with the calling shell's nc, which closes its half of the connection as it has sent
/// the request: to the scheduler, that is a client that has gone.
#[track_caller]
fn follow(job: &str) -> String {
    let url = format!("http://etl:9000{JOBS}/{job}/logs?follow=true");
    let wget = ["--", "wget", "-q", "-O-", &url];
    kubectl(
        &[
            &["exec", "deployment/backend", "-n", &namespace("dev")],
            &wget[..],
        ]
        .concat(),
    )
}

/// The text of a log, out of its chunks.
#[track_caller]
pub fn log(scheduler: &mut Scheduler, job: &str, query: &str) -> String {
    let response = get(scheduler, job, query);
    assert_eq!(response.code, 200, "{response}");
    let mut rest = response.body.as_slice();
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n");
        let end = end.unwrap_or_else(|| panic!("the last chunk is missing: {response}"));
        let size = usize::from_str_radix(&text(&rest[..end]), 16).unwrap();
        if size == 0 {
            return text(&whole);
        }
        whole.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 2 + size + 2..];
    }
}
