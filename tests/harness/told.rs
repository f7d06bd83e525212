//! What Kubernetes itself tells of the ends of jobs, and when.

use super::cluster::{Namespace, name_of};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// What Kubernetes tells of jobs.
#[derive(Default)]
pub struct Told {
    /// Its own condition, and when it came.
    pub conditions: BTreeMap<String, (&'static str, Instant)>,
    /// When the status of a pod first said that its container has ended.
    pub containers: BTreeMap<String, Instant>,
}

/// Watches until nobody has the answer any more.
pub fn watch(namespace: &Namespace) -> Arc<Mutex<Told>> {
    let told: Arc<Mutex<Told>> = Arc::default();
    follow(namespace, namespace.jobs_path(), &told, |told, job| {
        let conditions = job["status"]["conditions"].as_array();
        for condition in conditions.into_iter().flatten() {
            let status = match condition["type"].as_str() {
                Some("Complete") => "Succeeded",
                Some("Failed") => "Failed",
                _ => continue,
            };
            let first = (status, Instant::now());
            told.conditions.entry(name_of(job)).or_insert(first);
        }
    });
    follow(
        namespace,
        namespace.core_path("pods"),
        &told,
        |told, pod| {
            let state = &pod["status"]["containerStatuses"][0]["state"];
            if state["terminated"].is_object() {
                let job = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"].as_str();
                let job = job.unwrap_or_default().to_string();
                told.containers.entry(job).or_insert_with(Instant::now);
            }
        },
    );
    told
}

/// Watches again where a watch ends: the API server closes one whose reader is slow.
fn follow(
    namespace: &Namespace,
    path: String,
    told: &Arc<Mutex<Told>>,
    note: impl Fn(&mut Told, &Value) + Send + 'static,
) {
    let (api, told) = (namespace.api.clone(), Arc::downgrade(told));
    std::thread::spawn(move || {
        while told.strong_count() > 0 {
            api.watch(&path, |frame| {
                let told = told.upgrade();
                if let Some(told) = &told {
                    note(&mut told.lock().unwrap(), &frame["object"]);
                }
                told.is_some()
            });
        }
    });
}
