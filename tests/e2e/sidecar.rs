//! An application of its own Deployment, with its scheduler as a sidecar.

use crate::cluster::{Cluster, kubectl, kubectl_with, text, try_kubectl, within};
use serde_json::{Value, json};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const CONFIG: &str = "testdata/e2e/sidecar.yaml";
const NAMESPACE: &str = "e2e-sidecar";
const JOBS: &str = "http://compute:8000/api/v1/jobs";

pub fn an_application_has_its_scheduler_as_a_sidecar(cluster: &Cluster) -> Vec<String> {
    let namespace = Namespace::create();
    let begun = Instant::now();
    let beside = manifests(cluster, &["--sidecar"]);
    kubectl_with(&["apply", "-f", "-"], &beside);
    kubectl_with(&["apply", "-f", "-"], &web(cluster).to_string());
    available();
    patch(cluster);
    available();
    let deployed = begun.elapsed();

    // The application starts a job by the component's name, waits for it, and reads its log.
    let request = r#"{"payload": "echo computing; cat \"$JOB_PAYLOAD_FILE\" | wc -l; exit 3"}"#;
    let job: Value = in_web(&["wget", "-qO-", "--post-data", request, JOBS]);
    let name = job["name"].as_str().unwrap().to_string();
    let ended: Value = in_web(&["wget", "-qO-", &format!("{JOBS}/{name}?wait=60s")]);
    assert_eq!(
        (&ended["status"], &ended["message"]),
        (&"Failed".into(), &"exit code 3".into())
    );
    let log = format!("{JOBS}/{name}/logs");
    assert_eq!(
        text(&exec("web", &["wget", "-qO-", &log]).stdout),
        "computing\n0\n"
    );

    // As people do it, with what the scheduler's own image has.
    let screen = client(&["run", "--payload", "echo hello", "--wait", "--follow"]);
    assert_eq!(
        (screen.status.code(), text(&screen.stdout).as_str()),
        (Some(0), "hello\n")
    );
    let failing = client(&["run", "--payload", "exit 7", "--wait"]);
    assert_eq!(failing.status.code(), Some(1), "{}", text(&failing.stderr));
    let list = text(&client(&["list"]).stdout);
    assert_eq!(list.lines().count(), 4, "{list}");

    no_token_in_the_application();
    nobody_else_reaches_it(cluster);

    // The pod is replaced, as in an upgrade.
    let before = pod();
    kubectl(&["delete", "pod", &before, "-n", NAMESPACE]);
    available();
    within(Duration::from_secs(60), || match pod() {
        after if after != before && !after.is_empty() => Ok(()),
        after => Err(format!("the pod is {after}")),
    });
    available();
    let jobs: Value = in_web(&["wget", "-qO-", JOBS]);
    let known: Vec<_> = jobs
        .as_array()
        .unwrap()
        .iter()
        .map(|job| &job["name"])
        .collect();
    assert!(
        known.len() == 3 && known.contains(&&name.as_str().into()),
        "{jobs}"
    );
    assert_eq!(text(&client(&["logs", &name]).stdout), "computing\n0\n");

    // The same patch again changes nothing.
    assert!(patch(cluster).contains("(no change)"));
    drop(namespace);
    vec![
        format!("deployed, patched and ready in {:.1} s", deployed.as_secs_f64()),
        "a job started, waited for and read from the application; its record and log are there after a new pod".to_string(),
        "no token in the application's container; nothing listens at the pod's address".to_string(),
    ]
}

/// A namespace of the test's own, which enforces what `manifests` would.
struct Namespace;

impl Namespace {
    fn create() -> Namespace {
        kubectl(&[
            "delete",
            "namespace",
            NAMESPACE,
            "--ignore-not-found",
            "--timeout=120s",
        ]);
        kubectl(&["create", "namespace", NAMESPACE]);
        let enforce = "pod-security.kubernetes.io/enforce=restricted";
        kubectl(&["label", "namespace", NAMESPACE, enforce]);
        Namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::env::var_os("KEEP").is_none() {
            let _ = try_kubectl(&["delete", "namespace", NAMESPACE, "--wait=false"]);
        }
    }
}

fn manifests(cluster: &Cluster, flags: &[&str]) -> String {
    let image = format!("--image=compute={}", cluster.job_image);
    let printed = Command::new(&cluster.binary)
        .args(["manifests", CONFIG, "--environment=sidecar", &image])
        .args(flags)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    text(&printed.stdout)
}

/// Adds the sidecar to the Deployment, as the documentation has it.
fn patch(cluster: &Cluster) -> String {
    let image = format!("--scheduler-image={}", cluster.scheduler_image);
    let patch = manifests(cluster, &["--sidecar-patch", &image]);
    let file = std::env::temp_dir().join(format!("sidecar-{}.json", std::process::id()));
    std::fs::write(&file, patch).unwrap();
    let path = file.to_str().unwrap();
    let said = kubectl(&[
        "patch",
        "deployment",
        "web",
        "-n",
        NAMESPACE,
        "--patch-file",
        path,
    ]);
    std::fs::remove_file(&file).unwrap();
    said
}

/// The application: a web server, with the rights of any other.
fn web(cluster: &Cluster) -> Value {
    deployment(
        "web",
        &cluster.job_image,
        &["httpd", "-f", "-p", "3000", "-h", "/etc"],
    )
}

fn deployment(name: &str, image: &str, command: &[&str]) -> Value {
    let labels = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": name, "image": image, "command": command,
                "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                    "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"},
                },
            }],
        }}},
    })
}

fn available() {
    for name in ["web", "other"] {
        let deployment = format!("deployment/{name}");
        if try_kubectl(&["get", &deployment, "-n", NAMESPACE])
            .status
            .success()
        {
            kubectl(&[
                "rollout",
                "status",
                &deployment,
                "--timeout=120s",
                "-n",
                NAMESPACE,
            ]);
        }
    }
}

/// The application's one pod that is not ending.
fn pod() -> String {
    let pods = kubectl(&[
        "get", "pods", "-l", "app=web", "-o", "json", "-n", NAMESPACE,
    ]);
    let pods: Value = serde_json::from_str(&pods).unwrap();
    let mut live = pods["items"].as_array().unwrap().iter();
    let live = live.find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    live.map(|pod| pod["metadata"]["name"].as_str().unwrap().to_string())
        .unwrap_or_default()
}

fn exec(container: &str, command: &[&str]) -> Output {
    let target = if container == "other" {
        "deployment/other"
    } else {
        "deployment/web"
    };
    let before = ["exec", target, "-n", NAMESPACE, "-c", container, "--"];
    try_kubectl(&[&before, command].concat())
}

/// What the application is answered.
#[track_caller]
fn in_web(command: &[&str]) -> Value {
    let output = exec("web", command);
    let answer = text(&output.stdout);
    serde_json::from_str(&answer)
        .unwrap_or_else(|e| panic!("{command:?}: {e}: {answer} {}", text(&output.stderr)))
}

fn client(arguments: &[&str]) -> Output {
    exec(
        "compute-scheduler",
        &[&["/job-scheduler"], arguments].concat(),
    )
}

fn no_token_in_the_application() {
    let folder = "/var/run/secrets/kubernetes.io/serviceaccount";
    let looked = exec("web", &["ls", folder]);
    assert!(!looked.status.success(), "{}", text(&looked.stdout));
    let said = text(&looked.stderr);
    assert!(said.contains("No such file"), "{said}");
}

fn nobody_else_reaches_it(cluster: &Cluster) {
    let other = deployment("other", &cluster.job_image, &["sleep", "86400"]);
    kubectl_with(&["apply", "-f", "-"], &other.to_string());
    available();
    let ip = kubectl(&[
        "get",
        "pod",
        &pod(),
        "-o",
        "jsonpath={.status.podIP}",
        "-n",
        NAMESPACE,
    ]);
    let ask = |address: String| {
        let asked = exec("other", &["wget", "-qO-", &format!("http://{address}")]);
        text(&asked.stdout) + &text(&asked.stderr)
    };
    let application = ask(format!("{ip}:3000/hostname"));
    assert!(
        application.contains("web-"),
        "the pod is not reached at all: {application}"
    );
    let scheduler = ask(format!("{ip}:8000/api/v1/jobs"));
    assert!(scheduler.contains("refused"), "{scheduler}");
}
