//! What a request may say for its own job.

use crate::api::{SOON, name};
use crate::cluster::{Cluster, logs, objects};
use serde_json::{Value, json};
use std::time::Instant;

pub fn a_request_overrides_its_component(cluster: &Cluster) -> Vec<String> {
    let mut compute = cluster.scheduler("dev", "compute");
    let job = name(&compute.start(json!({
        "payload": "from the payload",
        "command": ["sh", "-c"],
        "args": ["id -u; echo $GREETING $LEVEL $EXTRA; cat $JOB_PAYLOAD_FILE"],
        "variables": {"GREETING": "good evening", "EXTRA": "1.10"},
        "runAsUser": 2000,
        "timeLimitSeconds": 77,
        "backoffLimit": 4,
        "runtime": {"architecture": architecture()},
        "resources": {"requests": {"cpu": "30m", "memory": "20Mi"}},
        "failurePolicy": {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [7]}}]},
    })));
    compute.wait_for(&job, "Succeeded");
    let printed = logs("dev", &job);
    assert_eq!(printed, "2000\ngood evening base 1.10\nfrom the payload");

    let jobs = objects(
        "dev",
        &["jobs", "--field-selector", &format!("metadata.name={job}")],
    );
    let spec = &jobs[0]["spec"];
    let pod = &spec["template"]["spec"];
    let architectures = &pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ["nodeSelectorTerms"];
    let facts = [
        ("timeLimitSeconds", &pod["activeDeadlineSeconds"], json!(77)),
        ("backoffLimit", &spec["backoffLimit"], json!(4)),
        (
            "failurePolicy",
            &spec["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"],
            json!([7]),
        ),
        (
            "resources",
            &pod["containers"][0]["resources"]["requests"],
            json!({"cpu": "30m", "memory": "20Mi"}),
        ),
        // Of memory, the limit is as the request where only that is given.
        (
            "resources",
            &pod["containers"][0]["resources"]["limits"],
            json!({"memory": "20Mi"}),
        ),
        (
            "runtime",
            &architectures[0]["matchExpressions"][0]["values"],
            json!([architecture()]),
        ),
    ];
    for (field, got, expected) in facts {
        assert_eq!(*got, expected, "{field}");
    }

    // `[]` is the image's own command, which ends at once: a shell without input.
    let job = name(&compute.start(json!({"command": [], "args": []})));
    compute.wait_for(&job, "Succeeded");
    let image_tag = name(&compute.start(json!({"imageTagName": "not-there"})));
    let jobs = objects(
        "dev",
        &[
            "jobs",
            "--field-selector",
            &format!("metadata.name={image_tag}"),
        ],
    );
    let image = &jobs[0]["spec"]["template"]["spec"]["containers"][0]["image"];
    assert!(image.as_str().unwrap().ends_with(":not-there"), "{image}");
    compute.delete(&image_tag);
    vec![
        format!("the job printed {printed:?}"),
        format!(
            "timeLimitSeconds, backoffLimit, failurePolicy, runtime, resources, command [], image {image} as requested"
        ),
    ]
}

/// Kubernetes' name of this machine's, which the cluster is taken to have too.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    }
}

pub fn a_job_ends_at_its_time_limit(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let started = Instant::now();
    let job = etl.start(json!({"payload": "trap 'exit 5' TERM; while :; do sleep 0.1; done", "timeLimitSeconds": 3}));
    let job = etl.wait_for(&name(&job), "Failed");
    let seconds = started.elapsed().as_secs_f64();
    assert!(seconds >= 3.0, "{seconds} s: {job}");
    let message = job["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("DeadlineExceeded"), "{job}");
    vec![format!(
        "a limit of 3 s: Failed after {seconds:.1} s with \"{message}\""
    )]
}

pub fn a_failed_job_is_tried_again_as_often_as_asked(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let job = name(&etl.start(json!({"payload": "exit 9", "backoffLimit": 1})));
    let between = etl.wait(&job, SOON, |job| job["podStatuses"][0]["exitCode"] == 9);
    assert_eq!(between["status"], "Running", "{between}");
    let job = etl.wait_for(&job, "Failed");
    assert_eq!(exit_codes(&job), [9, 9], "{job}");
    assert_eq!(job["failed"], 2, "{job}");
    let message = job["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("exit code 9") && message.contains('2'),
        "{job}"
    );
    vec![format!(
        "backoffLimit 1: Running between two attempts, then Failed with \"{message}\""
    )]
}

pub fn a_failure_policy_decides_by_exit_code(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("dev", "etl");
    let rule = json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}});
    let job = etl.start(
        json!({"payload": "exit 42", "backoffLimit": 5, "failurePolicy": {"rules": [rule]}}),
    );
    let job = etl.wait_for(&name(&job), "Failed");
    assert_eq!(exit_codes(&job), [42], "{job}");
    vec![format!(
        "backoffLimit 5, FailJob on 42: one attempt, then Failed with {}",
        job["message"]
    )]
}

fn exit_codes(job: &Value) -> Vec<i64> {
    let pods = job["podStatuses"]
        .as_array()
        .unwrap_or_else(|| panic!("no podStatuses: {job}"));
    pods.iter()
        .filter_map(|pod| pod["exitCode"].as_i64())
        .collect()
}
