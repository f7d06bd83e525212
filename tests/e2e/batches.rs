//! A batch in the cluster, as Radix documents its request.

use crate::api::SOON;
use crate::cluster::{Cluster, objects, within};
use serde_json::{Value, json};

const BATCHES: &str = "/api/v1/batches";

pub fn a_batch_is_merged_as_radix_documents_it(cluster: &Cluster) -> Vec<String> {
    let mut compute = cluster.scheduler("dev", "compute");
    let request = json!({
        "batchId": "my-batch-42",
        "defaultRadixJobComponentConfig": {
            "imageTagName": "1.0.0", "timeLimitSeconds": 200, "backoffLimit": 5,
            "resources": {"limits": {"memory": "200Mi"}}, "variables": {"EPOCHS": "5"}
        },
        "jobScheduleDescriptions": [
            {"jobId": "my-job-1", "payload": "{\"x\":10}", "timeLimitSeconds": 120, "variables": {"IN": "a"}},
            {"jobId": "my-job-2", "payload": "{\"x\":20}", "runtime": {}, "command": []},
        ]
    });
    let answer = compute.call("POST", BATCHES, &request.to_string());
    assert_eq!(answer.code, 200, "{answer}");
    let batch = answer.json();
    assert_eq!(batch["batchId"], "my-batch-42");
    let name = batch["name"].as_str().unwrap().to_string();
    let ids: Vec<&Value> = batch["jobStatuses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| &job["jobId"])
        .collect();
    assert_eq!(ids, ["my-job-1", "my-job-2"]);

    let selector = format!("job-scheduler/batch={name}");
    let mut jobs = objects("dev", &["jobs", "-l", &selector]);
    jobs.sort_by_key(|job| job["metadata"]["annotations"]["job-scheduler/index"].to_string());
    assert_eq!(jobs.len(), 2);
    let pods = jobs.iter().map(|job| &job["spec"]["template"]["spec"]);
    let limits: Vec<&Value> = pods
        .clone()
        .map(|pod| &pod["activeDeadlineSeconds"])
        .collect();
    assert_eq!(limits, [120, 200]);
    let commands: Vec<bool> = pods
        .clone()
        .map(|pod| pod["containers"][0]["command"].is_array())
        .collect();
    assert_eq!(commands, [true, false], "the second has its image's own");
    for (number, (job, pod)) in jobs.iter().zip(pods).enumerate() {
        let container = &pod["containers"][0];
        assert_eq!(job["spec"]["backoffLimit"], 5);
        assert_eq!(container["resources"]["limits"], json!({"memory": "200Mi"}));
        assert!(
            container["image"].as_str().unwrap().ends_with(":1.0.0"),
            "{container}"
        );
        let variables = container["env"].as_array().unwrap();
        let variable = |name: &str| {
            variables
                .iter()
                .find(|one| one["name"] == name)
                .map(|one| one["value"].clone())
        };
        assert_eq!(variable("EPOCHS"), Some(json!("5")));
        assert_eq!(
            variable("GREETING"),
            Some(json!("hello")),
            "the component's own"
        );
        assert_eq!(variable("IN"), (number == 0).then(|| json!("a")));
    }
    let parent = objects(
        "dev",
        &["jobs", "--field-selector", &format!("metadata.name={name}")],
    );
    assert_eq!(parent[0]["spec"]["suspend"], true);

    let payloads = format!("{name}-payloads-");
    let secrets = || {
        let secrets = objects("dev", &["secrets"]).into_iter();
        let names = secrets.filter_map(|one| Some(one["metadata"]["name"].as_str()?.to_string()));
        names.filter(|name| name.starts_with(&payloads)).count()
    };
    assert_eq!(secrets(), 1);

    // With its parent all of it goes.
    let deleted = compute.call("DELETE", &format!("{BATCHES}/{name}"), "");
    assert_eq!(deleted.code, 200, "{deleted}");
    within(SOON, || {
        let jobs = objects("dev", &["jobs", "-l", &selector]);
        match (jobs.len(), secrets()) {
            (0, 0) => Ok(()),
            left => Err(format!("{left:?} Jobs and Secrets are left")),
        }
    });
    vec!["the documented request: defaults, component and jobs as the table says; one DELETE removes all".to_string()]
}
