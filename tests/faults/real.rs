//! The faults that a proxy cannot make whole, done to the API server itself. They disturb whoever
//! else uses the cluster, the other tests, too: `make test-faults` runs them after those.

use crate::harness::cluster::{ApiServer, Namespace};
use crate::harness::scheduler::Scheduler;
use crate::harness::{holds, within};
use crate::outage::endure;
use crate::watching::{SHORT, submit_short, wait_for_all};
use serde_json::json;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

/// One at a time: there is one API server.
static API_SERVER: Mutex<()> = Mutex::new(());

/// Whether it is the project's own; a cluster that one has is not ours to stop.
fn is_own_cluster() -> bool {
    let api = ApiServer::of_kubeconfig();
    api.address().starts_with("198.18.0.2:")
}

/// scripts/cluster.
fn cluster(command: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster");
    let status = Command::new(script).arg(command).status().unwrap();
    assert!(status.success(), "scripts/cluster {command}: {status}");
}

/// A cluster that one has is not ours to stop: make test-faults leaves these tests out there.
fn must_be_own_cluster() {
    assert!(
        is_own_cluster(),
        "this stops the API server: run it without KUBECONFIG, on the project's own cluster"
    );
}

/// A scheduler that reaches the API server itself, with its certificate authority in a file that
/// goes with `run`.
fn with_scheduler(namespace: &Namespace, run: impl FnOnce(&Scheduler)) {
    let api = ApiServer::of_kubeconfig();
    let file = std::env::temp_dir().join(format!("{}-ca.crt", namespace.name));
    std::fs::write(&file, api.ca()).unwrap();
    let flags = [
        "--kube-ca-file",
        file.to_str().unwrap(),
        "--history-limit",
        "1000",
    ];
    run(&Scheduler::start(
        namespace,
        &format!("https://{}", api.address()),
        &flags,
    ));
    std::fs::remove_file(&file).unwrap();
}

#[test]
#[ignore = "stops the API server of everybody for 20 s"]
fn the_api_server_itself_is_stopped_for_20_seconds() {
    must_be_own_cluster();
    let _alone = API_SERVER.lock();
    let namespace = Namespace::new("stop", SHORT);
    with_scheduler(&namespace, |scheduler| {
        let (begin, end) = (|| cluster("stop-apiserver"), || cluster("start-apiserver"));
        endure("API server stopped", &namespace, scheduler, 20, begin, end);
    });
}

#[test]
#[ignore = "restarts the API server of everybody"]
fn a_real_compaction_is_met_with_a_list() {
    must_be_own_cluster();
    let _alone = API_SERVER.lock();
    let namespace = Namespace::new("compact", SHORT);
    with_scheduler(&namespace, |scheduler| {
        let mut jobs = submit_short(scheduler, 3);
        wait_for_all(scheduler, &jobs, Duration::from_secs(60));
        let relists = || {
            let text = scheduler.get("/metrics").body;
            let text = String::from_utf8(text).unwrap();
            let of_kind = |line: &str| {
                let value = line.strip_prefix("job_scheduler_watch_relists_total{")?;
                value.rsplit(' ').next()?.parse::<u32>().ok()
            };
            text.lines().filter_map(of_kind).collect::<Vec<_>>()
        };
        let before = relists();
        cluster("compact");
        within(Duration::from_secs(20), || {
            let answer = scheduler.post(&json!({"payload": "p", "variables": {"CODE": "0"}}));
            if answer.code == 200 {
                let name = answer.json()["name"].as_str().unwrap().to_string();
                jobs.push((name, "Succeeded"));
            }
            holds(answer.code == 200, || answer.to_string())
        });
        wait_for_all(scheduler, &jobs, Duration::from_secs(120));
        assert_eq!(scheduler.list().len(), jobs.len());
        // Told that its version is too old, or after some refusals, each has listed again.
        let after = relists();
        let pairs = before.iter().zip(&after);
        assert!(
            before.len() == 2 && pairs.into_iter().all(|(b, a)| a > b),
            "{before:?} {after:?}"
        );
        println!(
            "a compaction: both watches have listed again, {} jobs seen to their end, 0 lost, 0 doubled",
            jobs.len()
        );
    });
}
