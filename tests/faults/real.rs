//! The faults that a proxy cannot make whole, done to the API server itself. They disturb whoever else uses the cluster.

use crate::harness::cluster::{ApiServer, Namespace};
use crate::harness::scheduler::{JOBS, Scheduler};
use crate::harness::{holds, within};
use crate::watching::{SHORT, submit_short, wait_for_all};
use serde_json::json;
use std::process::Command;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// One at a time: there is one API server.
static API_SERVER: Mutex<()> = Mutex::new(());

/// scripts/cluster, on the project's own cluster; a cluster that one has is not ours to stop.
fn cluster(command: &str) -> bool {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/cluster");
    let is_own = ApiServer::of_kubeconfig()
        .address()
        .starts_with("198.18.0.2:");
    if is_own {
        let status = Command::new(script).arg(command).status().unwrap();
        assert!(status.success(), "scripts/cluster {command}: {status}");
    }
    is_own
}

/// A scheduler that reaches the API server itself, with its certificate authority in a file that goes with `run`.
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
    let _alone = API_SERVER.lock();
    let namespace = Namespace::new("stop", SHORT);
    with_scheduler(&namespace, |scheduler| {
        let mut jobs = submit_short(scheduler, 6);
        if !cluster("stop-apiserver") {
            return println!("not tested: this cluster's API server is not ours to stop");
        }
        let (mut gets, mut refused, mut slowest) = (0, 0, Duration::ZERO);
        let stopped = Instant::now();
        while stopped.elapsed() < Duration::from_secs(20) {
            assert_eq!(scheduler.get(JOBS).code, 200);
            gets += 1;
            let began = Instant::now();
            let answer = scheduler.post(&json!({"payload": "p"}));
            slowest = slowest.max(began.elapsed());
            assert_eq!(answer.code, 503, "{answer}");
            assert!(answer.head.header("Retry-After").is_some(), "{answer}");
            refused += 1;
            sleep(Duration::from_millis(100));
        }
        cluster("start-apiserver");
        let back = Instant::now();
        within(Duration::from_secs(5), || {
            let answer = scheduler.post(&json!({"payload": "p", "variables": {"CODE": "0"}}));
            if answer.code == 200 {
                let name = answer.json()["name"].as_str().unwrap().to_string();
                jobs.push((name, "Succeeded"));
            }
            holds(answer.code == 200, || answer.to_string())
        });
        let well = back.elapsed();
        wait_for_all(scheduler, &jobs, Duration::from_secs(120));
        assert_eq!(namespace.jobs().len(), jobs.len(), "Jobs in Kubernetes");
        println!(
            "API server stopped for 20 s: {gets} GETs served, {refused} POSTs answered 503 (slowest {slowest:.1?}), taken again {well:.1?} after \
             its return, {} jobs seen to their end",
            jobs.len()
        );
        assert!(slowest < Duration::from_secs(2));
    });
}

#[test]
#[ignore = "restarts the API server of everybody"]
fn a_real_compaction_is_met_with_a_list() {
    let _alone = API_SERVER.lock();
    let namespace = Namespace::new("compact", SHORT);
    with_scheduler(&namespace, |scheduler| {
        let mut jobs = submit_short(scheduler, 3);
        wait_for_all(scheduler, &jobs, Duration::from_secs(60));
        if !cluster("compact") {
            return println!("not tested: this cluster's API server is not ours to restart");
        }
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
        let relists = scheduler.log().matches("too old").count();
        println!(
            "a compaction: {relists} watches told that their version is too old, {} jobs seen to their end",
            jobs.len()
        );
    });
}
