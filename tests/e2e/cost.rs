//! What the schedulers ask of the API server.

use crate::api::{JOBS, name};
use crate::cluster::{Cluster, within};
use serde_json::{Value, json};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The API server writes an entry a little after its answer.
const WRITTEN: Duration = Duration::from_secs(1);

fn is_watch(call: &Value) -> bool {
    call["verb"] == "watch"
}

pub fn no_get_reaches_the_api_server(cluster: &Cluster) -> Vec<String> {
    const GETS: u32 = 200;
    let mut etl = cluster.scheduler("dev", "etl");
    let job = name(&etl.start(json!({"payload": "exit 0"})));
    etl.wait_for(&job, "Succeeded");
    sleep(WRITTEN);
    let audit = match cluster.audit() {
        Ok(audit) => audit,
        Err(none) => return none,
    };
    let started = Instant::now();
    for _ in 0..GETS / 2 {
        etl.list();
        etl.get(&job);
    }
    let took = started.elapsed();
    sleep(WRITTEN);
    let calls = audit.calls("dev", "etl");
    let other: Vec<&Value> = calls.iter().filter(|call| !is_watch(call)).collect();
    assert!(other.is_empty(), "{other:?}");
    vec![format!(
        "{GETS} GETs, {:.1} ms each through a pod: {} calls of the API server ({} watches renewed)",
        took.as_secs_f64() * 1e3 / f64::from(GETS),
        other.len(),
        calls.len()
    )]
}

pub fn a_post_with_a_payload_costs_two_writes_before_the_answer(cluster: &Cluster) -> Vec<String> {
    let mut proved = Vec::new();
    let cases: [(&str, &[&str]); 2] = [
        ("etl", &["jobs", "secrets"]),
        ("compute", &["jobs", "secrets", "services"]),
    ];
    for (component, expected) in cases {
        let mut scheduler = cluster.scheduler("dev", component);
        let audit = match cluster.audit() {
            Ok(audit) => audit,
            Err(none) => return none,
        };
        let job = name(
            &scheduler.start(json!({"payload": "trap 'exit 0' TERM; while :; do sleep 0.1; done"})),
        );
        let is_done =
            |calls: &[Value]| calls.iter().filter(|call| !is_watch(call)).count() >= expected.len();
        within(Duration::from_secs(10), || {
            Some(audit.calls("dev", component))
                .filter(|calls| is_done(calls))
                .ok_or(format!("{:?}", audit.calls("dev", component)))
        });
        sleep(WRITTEN);
        let mut calls: Vec<Value> = audit
            .calls("dev", component)
            .into_iter()
            .filter(|call| !is_watch(call))
            .collect();
        calls.sort_by_key(|call| call["requestReceivedTimestamp"].to_string());
        let made: Vec<String> = calls
            .iter()
            .map(|call| {
                format!("{} {}", call["verb"], call["objectRef"]["resource"]).replace('"', "")
            })
            .collect();
        let wanted: Vec<String> = expected
            .iter()
            .map(|resource| format!("create {resource}"))
            .collect();
        assert_eq!(made, wanted, "{calls:?}");
        for (call, next) in calls.iter().zip(&calls[1..]) {
            let (done, begun) = (&call["stageTimestamp"], &next["requestReceivedTimestamp"]);
            assert!(
                done.as_str() <= begun.as_str(),
                "{next} began before {call} was done"
            );
        }
        scheduler.delete(&job);
        proved.push(format!(
            "POST {JOBS} of {component}: {}{}",
            made[..2].join(", "),
            if made.len() > 2 {
                "; its Service is made after that"
            } else {
                ""
            }
        ));
    }
    proved
}
