//! What Kubernetes itself tells of the ends of jobs, and when.

use super::cluster::{Namespace, name_of};
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
    let (api, path, jobs) = (namespace.api.clone(), namespace.jobs_path(), told.clone());
    std::thread::spawn(move || {
        api.watch(&path, |frame| {
            let object = &frame["object"];
            let conditions = object["status"]["conditions"].as_array();
            for condition in conditions.into_iter().flatten() {
                let status = match condition["type"].as_str() {
                    Some("Complete") => "Succeeded",
                    Some("Failed") => "Failed",
                    _ => continue,
                };
                let mut jobs = jobs.lock().unwrap();
                let name = name_of(object);
                jobs.conditions
                    .entry(name)
                    .or_insert((status, Instant::now()));
            }
            Arc::strong_count(&jobs) > 1
        });
    });
    let (api, path) = (namespace.api.clone(), namespace.core_path("pods"));
    let pods = told.clone();
    std::thread::spawn(move || {
        api.watch(&path, |frame| {
            let pod = &frame["object"];
            let state = &pod["status"]["containerStatuses"][0]["state"];
            if state["terminated"].is_object() {
                let job = pod["metadata"]["labels"]["batch.kubernetes.io/job-name"].as_str();
                let job = job.unwrap_or_default().to_string();
                let mut told = pods.lock().unwrap();
                told.containers.entry(job).or_insert_with(Instant::now);
            }
            Arc::strong_count(&pods) > 1
        });
    });
    told
}
