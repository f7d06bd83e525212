//! A job's end is told once its container has ended, and it is the end that Kubernetes makes of it
//! later, whatever kind of end it is.

use crate::harness::cluster::{ApiServer, Namespace, name_of};
use crate::harness::scheduler::Scheduler;
use crate::harness::told;
use crate::harness::{holds, percentile, within};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a job does, what of the request makes it so, and how it may end.
struct Kind {
    name: &'static str,
    script: &'static str,
    settings: fn() -> Value,
    ends: &'static [&'static str],
}

const KINDS: &[Kind] = &[
    Kind {
        name: "exit 0",
        script: "exit 0",
        settings: || json!({}),
        ends: &["Succeeded"],
    },
    Kind {
        name: "exit 3",
        script: "exit 3",
        settings: || json!({}),
        ends: &["Failed"],
    },
    Kind {
        name: "killed",
        script: "sleep 60 & kill -9 $!; wait $!; exit $?",
        settings: || json!({}),
        ends: &["Failed"],
    },
    Kind {
        name: "out of memory",
        script: "x=0123456789abcdef; while :; do x=$x$x; done",
        settings: || json!({"resources": {"limits": {"memory": "16Mi"}}}),
        ends: &["Failed"],
    },
    // It ends well, and too late.
    Kind {
        name: "out of time",
        script: "trap 'exit 0' TERM; sleep 60 & wait",
        settings: || json!({"timeLimitSeconds": 2}),
        ends: &["Failed"],
    },
    Kind {
        name: "deleted pod",
        script: "trap 'exit 0' TERM; sleep 60 & wait",
        settings: || json!({}),
        ends: &["Succeeded", "Failed"],
    },
    Kind {
        name: "retried",
        script: "exit 1",
        settings: || json!({"backoffLimit": 1}),
        ends: &["Failed"],
    },
    Kind {
        name: "ignored",
        script: "n=$(head -c1 /dev/urandom | od -An -tu1); exit $((n % 4 ? 0 : 42))",
        settings: || {
            let codes = json!({"operator": "In", "values": [42]});
            json!({"failurePolicy": {"rules": [{"action": "Ignore", "onExitCodes": codes}]}})
        },
        ends: &["Succeeded"],
    },
];

/// Deletes the pod once it runs, as a person does.
fn delete_pod(namespace: &Namespace, job: &str) {
    let path = namespace.core_path("pods");
    let selected = format!("{path}?labelSelector=batch.kubernetes.io%2Fjob-name%3D{job}");
    let pod = within(Duration::from_secs(60), || {
        let pods = namespace.api.list(&selected);
        let running = pods.iter().find(|pod| pod["status"]["phase"] == "Running");
        running.map(name_of).ok_or(format!("{job} does not run"))
    });
    namespace.api.call("DELETE", &format!("{path}/{pod}"), None);
}

fn ends_are_told_once(count: usize, limit: Duration) {
    let namespace = Namespace::new("ends", "");
    let url = format!("https://{}", ApiServer::of_kubeconfig().address());
    let folder = tempfile(namespace.name.as_str());
    std::fs::write(&folder, ApiServer::of_kubeconfig().ca()).unwrap();
    let running = 24.min(count).to_string();
    let flags = [
        "--kube-ca-file",
        folder.to_str().unwrap(),
        "--history-limit",
        "5000",
        "--max-running",
        &running,
        "--max-jobs",
        "5000",
        "--max-waiting",
        "5000",
    ];
    let scheduler = Scheduler::start(&namespace, &url, &flags);
    let told = told::watch(&namespace);
    let mut kinds = BTreeMap::new();
    for number in 0..count {
        let kind = &KINDS[number % KINDS.len()];
        let mut request = (kind.settings)();
        request["command"] = json!(["sh", "-c", kind.script]);
        request["runAsUser"] = json!(1000);
        kinds.insert(scheduler.submit(&request), kind);
    }
    for (job, _) in kinds.iter().filter(|(_, kind)| kind.name == "deleted pod") {
        within(limit, || {
            let job = scheduler.job(job);
            holds(job["status"] == "Running", || job.to_string())
        });
        delete_pod(&namespace, job);
    }
    within(limit, || {
        let seen = told.lock().unwrap().conditions.len();
        holds(seen == count, || {
            format!("{seen} of {count} have a condition")
        })
    });
    let told = told.lock().unwrap();
    // The log has it after the watch has it.
    let log = within(Duration::from_secs(10), || {
        let log = scheduler.log();
        let ends = log.lines().filter(|line| end_of(line).is_some()).count();
        holds(ends >= count, || format!("{ends} ends are logged")).map(|()| log)
    });
    let mut ends: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (job, status) in log.lines().filter_map(end_of) {
        ends.entry(job).or_default().push(status);
    }
    let mut by_kind: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for (job, kind) in &kinds {
        let (condition, _) = told.conditions[job];
        assert_eq!(ends[job.as_str()], [condition], "{job}, {}", kind.name);
        assert!(
            kind.ends.contains(&condition),
            "{job}, {}: {condition}",
            kind.name
        );
        *by_kind
            .entry(kind.name)
            .or_default()
            .entry(condition)
            .or_default() += 1;
    }
    let metrics = String::from_utf8(scheduler.get("/metrics").body).unwrap();
    assert!(
        metrics.contains("job_scheduler_contradictions_total 0"),
        "{metrics}"
    );
    let mut lags: Vec<Duration> = kinds
        .iter()
        .filter(|(_, kind)| kind.name == "exit 0")
        .map(|(job, _)| {
            told.conditions[job]
                .1
                .saturating_duration_since(told.containers[job])
        })
        .collect();
    println!(
        "{count} jobs, each told once and as its condition: {by_kind:?}; the condition came {:.2?} after the container's end (median)",
        percentile(&mut lags, 50)
    );
    let _ = std::fs::remove_file(&folder);
}

fn tempfile(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("{name}-ca.crt"))
}

/// The job and its end, of a line of the log that tells one.
fn end_of(line: &str) -> Option<(&str, &str)> {
    let job = line.split("job=").nth(1)?.split(' ').next()?;
    let to = line.split(" to=").nth(1)?.split(' ').next()?;
    matches!(to, "Succeeded" | "Failed").then_some((job, to))
}

#[test]
fn each_end_is_told_once_and_as_kubernetes_makes_it() {
    ends_are_told_once(2 * KINDS.len(), Duration::from_secs(180));
}

#[test]
#[ignore = "takes some 15 minutes"]
fn a_thousand_ends_are_told_once_and_as_kubernetes_makes_them() {
    ends_are_told_once(1000, Duration::from_secs(3000));
}
