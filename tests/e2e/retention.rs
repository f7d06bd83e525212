//! Which finished jobs are kept.

use crate::api::{SOON, name};
use crate::cluster::{Cluster, kubectl, namespace, signal, within};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const KEPT: usize = 10;

pub fn the_10_latest_of_each_outcome_are_kept_with_their_secrets_and_services(
    cluster: &Cluster,
) -> Vec<String> {
    let begin = Instant::now();
    let mut compute = cluster.scheduler("prod", "compute");
    let mut start = |script: &str| {
        name(
            &compute
                .start(json!({"payload": script, "command": ["sh", "-c", ". $JOB_PAYLOAD_FILE"]})),
        )
    };

    // The first to start is the last to end: latest is by the end.
    let slow = start("trap 'exit 0' USR1; while :; do sleep 0.1; done");
    let early = [start("exit 0"), start("exit 1"), start("exit 1")];
    let outcome = |job: &Value| job["status"] == "Succeeded" || job["status"] == "Failed";
    for job in &early {
        compute.wait(job, SOON, outcome);
    }
    // Times are whole seconds: those to come end in a later one.
    std::thread::sleep(Duration::from_millis(1100));
    let mut start = |script: &str| {
        name(
            &compute
                .start(json!({"payload": script, "command": ["sh", "-c", ". $JOB_PAYLOAD_FILE"]})),
        )
    };
    let succeeding: Vec<String> = (0..KEPT).map(|_| start("exit 0")).collect();
    let failing: Vec<String> = (0..KEPT).map(|_| start("exit 1")).collect();

    // The two first failures go as the 11th and the 12th finish, the first success as the 11th does.
    let expected: BTreeSet<&String> = succeeding.iter().chain(&failing).chain([&slow]).collect();
    let list = within(SOON, || {
        let list = compute.list();
        let finished = list.iter().filter(|job| outcome(job)).count();
        let names: BTreeSet<String> = list.iter().map(name).collect();
        if finished == 2 * KEPT && names.iter().eq(expected.iter().copied()) {
            Ok(list)
        } else {
            Err(format!("{list:?}"))
        }
    });
    assert_eq!(
        list.iter()
            .filter(|job| job["status"] == "Succeeded")
            .count(),
        KEPT
    );

    // Once the slow one ends, one of the earliest second's successes goes: which of them, the times do not tell.
    let succeeded = || list.iter().filter(|job| job["status"] == "Succeeded");
    let first_end = succeeded().filter_map(|job| job["ended"].as_str()).min();
    let of_first_second = succeeded().filter(|job| job["ended"].as_str() == first_end);
    let earliest: BTreeSet<String> = of_first_second.map(name).collect();
    std::thread::sleep(Duration::from_millis(1100));
    signal("prod", &slow);
    compute.wait_for(&slow, "Succeeded");
    let before: BTreeSet<String> = expected.into_iter().cloned().collect();
    let expected = within(SOON, || {
        let names: BTreeSet<String> = compute.list().iter().map(name).collect();
        let gone: Vec<&String> = before.difference(&names).collect();
        match gone.as_slice() {
            [one] if earliest.contains(*one) && names.is_subset(&before) => Ok(names),
            _ => Err(format!(
                "{gone:?} are gone, and one of {earliest:?} should be"
            )),
        }
    });
    let earliest: Vec<String> = before.difference(&expected).cloned().collect();
    for (index, job) in early.iter().chain(&earliest).enumerate() {
        let response = compute.call("GET", &format!("{}/{job}", crate::api::JOBS), "");
        assert_eq!(response.code, 404, "job {index} is to be gone: {response}");
    }

    // And so of their objects: each job has one of each kind, and nobody else has.
    let kinds = ["job.batch", "secret", "service"];
    let wanted: BTreeSet<String> = kinds
        .iter()
        .flat_map(|kind| expected.iter().map(move |name| format!("{kind}/{name}")))
        .collect();
    within(SOON, || {
        let selector = "app.kubernetes.io/managed-by=job-scheduler,radix-component=compute";
        let there = kubectl(&[
            "get",
            "jobs,secrets,services",
            "-o",
            "name",
            "-l",
            selector,
            "-n",
            &namespace("prod"),
        ]);
        let there: BTreeSet<String> = there.lines().map(str::to_string).collect();
        if there == wanted {
            Ok(())
        } else {
            Err(format!(
                "{:?}",
                there.symmetric_difference(&wanted).collect::<Vec<_>>()
            ))
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    vec![
        format!(
            "12 successes and 12 failures in {seconds:.1} s: {} jobs are left, and {} objects of theirs",
            expected.len(),
            wanted.len()
        ),
        "one that started first and ended last is among them".to_string(),
    ]
}
