//! All state that matters is in the cluster.

use crate::api::{JOBS, SOON, Scheduler, name};
use crate::cluster::{
    APP, Cluster, kubectl, kubectl_with, namespace, objects, signal, wait_until_available, within,
};
use serde_json::{Value, json};
use std::time::Instant;

const DEPLOYMENT: &str = "deployment/etl-scheduler";
const PODS: &str = "app.kubernetes.io/name=job-scheduler,app.kubernetes.io/instance=etl";

pub fn a_restarted_scheduler_knows_every_job(cluster: &Cluster) -> Vec<String> {
    let mut etl = cluster.scheduler("prod", "etl");
    let until_told = "trap 'exit 0' USR1; while :; do sleep 0.1; done";
    let [running, finishing] = [0, 1].map(|_| name(&etl.start(json!({"payload": until_told}))));
    let succeeding = name(&etl.start(json!({"payload": "exit 0", "jobId": "nightly"})));
    let failing = name(&etl.start(json!({"payload": "exit 4", "backoffLimit": 0})));
    etl.wait_until_started(&running);
    etl.wait_until_started(&finishing);
    etl.wait_for(&succeeding, "Succeeded");
    etl.wait_for(&failing, "Failed");
    let progress = json!({"percent": 40, "message": "four of ten"}).to_string();
    let path = format!("{JOBS}/{running}/progress");
    assert_eq!(etl.call("PUT", &path, &progress).code, 200);
    within(SOON, || {
        let selector = format!("metadata.name={running}");
        let jobs = objects("prod", &["jobs", "--field-selector", &selector]);
        let kept = &jobs[0]["metadata"]["annotations"]["job-scheduler/progress"];
        kept.is_string().then_some(()).ok_or(jobs[0].to_string())
    });
    let before = etl.list();

    // Killed at once, without a chance to say good-bye.
    let pod = objects("prod", &["pods", "-l", PODS])[0]["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_string();
    let killed = Instant::now();
    kubectl(&[
        "delete",
        "pod",
        &pod,
        "--force",
        "--grace-period=0",
        "-n",
        &namespace("prod"),
    ]);
    let after = ready_again(&mut etl);
    let away = killed.elapsed().as_secs_f64();
    assert_eq!(
        after, before,
        "the list after the kill is not the one before"
    );

    // One job ends while there is no scheduler, and one is as a crash between its two writes leaves it.
    kubectl(&[
        "scale",
        DEPLOYMENT,
        "--replicas=0",
        "-n",
        &namespace("prod"),
    ]);
    within(SOON, || {
        Some(objects("prod", &["pods", "-l", PODS]))
            .filter(Vec::is_empty)
            .ok_or("the scheduler's pod is still there".to_string())
    });
    let half = "etl-20210407105556-rkwaibwe";
    kubectl_with(
        &["apply", "-n", &namespace("prod"), "-f", "-"],
        &half_made_job(half, &cluster.job_image).to_string(),
    );
    let made = Instant::now();
    signal("prod", &finishing);
    within(SOON, || {
        let jobs = objects(
            "prod",
            &[
                "jobs",
                "--field-selector",
                &format!("metadata.name={finishing}"),
            ],
        );
        if jobs[0]["status"]["succeeded"] == 1 {
            Ok(())
        } else {
            Err(jobs[0]["status"].to_string())
        }
    });
    kubectl(&[
        "scale",
        DEPLOYMENT,
        "--replicas=1",
        "-n",
        &namespace("prod"),
    ]);
    wait_until_available("prod");
    let after = ready_again(&mut etl);
    let status = |name: &str| {
        let job = after
            .iter()
            .find(|job| job["name"] == name)
            .unwrap_or_else(|| panic!("{name} is not in {after:?}"));
        job["status"].as_str().unwrap().to_string()
    };
    assert_eq!(status(&finishing), "Succeeded");
    assert_eq!(status(&running), "Running");

    within(SOON, || {
        let left = objects(
            "prod",
            &["jobs", "--field-selector", &format!("metadata.name={half}")],
        );
        let response = etl.call("GET", &format!("{}/{half}", JOBS), "");
        if left.is_empty() && response.code == 404 {
            Ok(())
        } else {
            Err(format!("{response}"))
        }
    });
    let seconds = made.elapsed().as_secs_f64();
    // What has its Secret stays, and still runs.
    let job = etl.get(&running);
    assert_eq!(job["status"], "Running", "{job}");
    assert_eq!(etl.delete(&running).code, 200);
    vec![
        format!(
            "killed and back after {away:.1} s, with the same list of {} jobs",
            before.len()
        ),
        "a job that ended while there was no scheduler is Succeeded".to_string(),
        format!(
            "a Job without its Secret is gone {seconds:.1} s after it was made; one that has its Secret runs on"
        ),
    ]
}

/// The list, once the scheduler answers again.
fn ready_again(etl: &mut Scheduler) -> Vec<Value> {
    within(SOON, || match etl.backend.get("etl", 9000, JOBS) {
        Some(response) if response.code == 200 => {
            Ok(serde_json::from_slice(&response.body).unwrap())
        }
        other => Err(format!("{other:?}")),
    })
}

/// A Job as it is created, and no Secret.
fn half_made_job(name: &str, image: &str) -> Value {
    let labels = json!({"app.kubernetes.io/managed-by": "job-scheduler", "radix-app": APP, "radix-component": "etl"});
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "labels": labels, "annotations": {"job-scheduler/payload": name}},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "etl", "image": image, "command": ["true"],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "payload", "mountPath": "/etl/in"}],
            }],
            "volumes": [{"name": "payload", "secret": {"secretName": name}}],
        }}},
    })
}
