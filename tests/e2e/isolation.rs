//! Which scheduler has which jobs, and what a job knows.

use crate::api::{JOBS, name};
use crate::cluster::{COMPONENTS, Cluster, DB_PASSWORD, ENVIRONMENTS, kubectl, logs, namespace};
use serde_json::json;

pub fn components_and_environments_keep_to_themselves(cluster: &Cluster) -> Vec<String> {
    let script = json!({"command": ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"], "runAsUser": 1000});
    let job = name(&cluster.scheduler("dev", "report").start(script));
    let mut proved = Vec::new();
    for environment in ENVIRONMENTS {
        for (component, port) in COMPONENTS {
            // etl in prod is the test's that restarts it.
            if (environment, component) == ("prod", "etl") {
                continue;
            }
            let mut scheduler = cluster.scheduler(environment, component);
            let is_here = (environment, component) == ("dev", "report");
            let list = scheduler.list();
            let place = format!("http://{component}:{port} in {}", namespace(environment));
            assert_eq!(
                list.iter().any(|other| other["name"] == job.as_str()),
                is_here,
                "{place}: {list:?}"
            );
            let got = scheduler.call("GET", &format!("{JOBS}/{job}"), "");
            assert_eq!(got.code, if is_here { 200 } else { 404 }, "{place}: {got}");
            if !is_here {
                let response = scheduler.delete(&job);
                assert_eq!(response.code, 404, "{place}: {response}");
            }
            proved.push(format!(
                "{place}: {} a job of report in dev",
                if is_here { "knows" } else { "knows nothing of" }
            ));
        }
    }
    let mut report = cluster.scheduler("dev", "report");
    for (host, port) in [("compute", 9000), ("etl", 8000), ("nobody", 8000)] {
        let answer = report.backend.get(host, port, JOBS);
        assert!(answer.is_none(), "http://{host}:{port} answers: {answer:?}");
    }
    proved.push("compute:9000 and etl:8000 do not answer".to_string());
    assert_eq!(
        report.get(&job)["status"],
        "Running",
        "others' DELETE did nothing"
    );
    assert_eq!(report.delete(&job).code, 200);
    proved
}

pub fn a_job_knows_where_it_is_and_has_its_secrets(cluster: &Cluster) -> Vec<String> {
    let as_user = json!({"runAsUser": 1000});
    let env = json!({"payload": "", "command": ["env"]});
    let cases = [
        (
            "dev",
            "compute",
            env.clone(),
            vec![
                "RADIX_PORTS=(3000)",
                "RADIX_PORT_NAMES=(http)",
                "JOB_PAYLOAD_FILE=/compute/args/payload",
                "GREETING=hello",
            ],
        ),
        (
            "dev",
            "etl",
            env,
            vec![
                "RADIX_PORTS=()",
                "RADIX_PORT_NAMES=()",
                "JOB_PAYLOAD_FILE=/etl/in/payload",
            ],
        ),
        (
            "dev",
            "report",
            as_user.clone(),
            vec!["LEVEL=base", "GREETING=good day"],
        ),
        (
            "prod",
            "report",
            as_user,
            vec!["LEVEL=production", "GREETING=good day"],
        ),
    ];
    let password = format!("DB_PASSWORD={DB_PASSWORD}");
    let mut proved = Vec::new();
    for (environment, component, request, expected) in cases {
        let mut scheduler = cluster.scheduler(environment, component);
        let job = name(&scheduler.start(request));
        scheduler.wait_for(&job, "Succeeded");
        let printed = logs(environment, &job);
        let mut expected: Vec<String> = expected.iter().map(|line| (*line).to_string()).collect();
        expected.extend([
            "RADIX_APP=e2e".to_string(),
            format!("RADIX_COMPONENT={component}"),
            format!("RADIX_ENVIRONMENT={environment}"),
            format!("RADIX_JOB_NAME={job}"),
            format!("JOB_PROGRESS_URL={}/{job}/progress", scheduler.jobs_url()),
        ]);
        if component == "report" {
            expected.push(password.clone());
        }
        for line in &expected {
            assert!(
                printed.lines().any(|printed| printed == line),
                "{line} is not in the job's environment:\n{printed}"
            );
        }
        for other in ["KUBERNETES_SERVICE_TOKEN", "COMPUTE_PORT="] {
            assert!(
                !printed.contains(other),
                "{other} is in the job's environment:\n{printed}"
            );
        }
        proved.push(format!(
            "{component} in {environment}: {}",
            expected.join(", ")
        ));
    }
    proved
}

/// Whoever may read a pod's log is not told by it what the jobs are trusted with.
pub fn a_schedulers_log_holds_no_payload_secret_or_token(cluster: &Cluster) -> Vec<String> {
    let namespace = namespace("prod");
    let deployments = ["compute", "report"].map(|name| format!("deployment/{name}-scheduler"));
    for deployment in &deployments {
        kubectl(&[
            "set",
            "env",
            deployment,
            "LOG_LEVEL=trace",
            "-n",
            &namespace,
        ]);
        kubectl(&[
            "rollout",
            "status",
            deployment,
            "--timeout=60s",
            "-n",
            &namespace,
        ]);
    }
    let payload = "a payload that is nobody else's business";
    let mut compute = cluster.scheduler("prod", "compute");
    let cat = json!({"payload": payload, "command": ["sh", "-c", "tee /dev/termination-log < $JOB_PAYLOAD_FILE; exit 3"]});
    let job = name(&compute.start(cat));
    compute.wait_for(&job, "Failed");
    let refused = compute.call("POST", JOBS, &json!({"payload": [payload]}).to_string());
    assert_eq!(refused.code, 422, "{refused}");
    let mut report = cluster.scheduler("prod", "report");
    let script = "echo $DB_PASSWORD > /dev/termination-log; exit 3";
    let request = json!({"command": ["sh", "-c", script], "runAsUser": 1000});
    let job = name(&report.start(request));
    let failed = report.wait_for(&job, "Failed");
    assert!(
        failed.to_string().contains(DB_PASSWORD),
        "it was there to be logged: {failed}"
    );

    let mut proved = Vec::new();
    for deployment in &deployments {
        let log = kubectl(&["logs", deployment, "--tail=-1", "-n", &namespace]);
        for expected in ["request=", "to=Failed"] {
            assert!(log.contains(expected), "{expected} is not in\n{log}");
        }
        // Every token of a service account is a JSON object in base64: it begins with {".
        for planted in [payload, DB_PASSWORD, "Bearer", "eyJ"] {
            assert!(
                !log.contains(planted),
                "{deployment}: {planted} is in\n{log}"
            );
        }
        proved.push(format!(
            "{deployment}, at trace: {} lines, none has them",
            log.lines().count()
        ));
    }
    proved
}
