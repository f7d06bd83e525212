//! The cluster, through kubectl, and the application that is deployed to it.

use crate::api::Scheduler;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What a test says that could not be done on this cluster.
pub const NOT_TESTED: &str = "not tested";

pub const APP: &str = "e2e";
pub const ENVIRONMENTS: [&str; 2] = ["dev", "prod"];
pub const CONFIG: &str = "testdata/e2e/radixconfig.yaml";
/// The job components of [`CONFIG`], and the ports of their schedulers.
pub const COMPONENTS: [(&str, u16); 3] = [("compute", 8000), ("etl", 9000), ("report", 8100)];
/// In the Secret of the component `report`.
pub const DB_PASSWORD: &str = "correct horse battery staple";

pub fn namespace(environment: &str) -> String {
    format!("{APP}-{environment}")
}

/// The application, deployed in both its environments.
pub struct Cluster {
    pub binary: PathBuf,
    pub scheduler_image: String,
    /// Has busybox, and runs as root unless told otherwise.
    pub job_image: String,
    /// What the API server was asked, a JSON object a line. Only the project's own cluster has it.
    pub audit_log: Option<PathBuf>,
}

impl Cluster {
    pub fn set_up() -> Cluster {
        let variable = |name| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/e2e"))
        };
        variable("KUBECONFIG");
        let cluster = Cluster {
            binary: Path::new(env!("CARGO_MANIFEST_DIR")).join("target/job-scheduler"),
            scheduler_image: variable("SCHEDULER_IMAGE"),
            job_image: variable("JOB_IMAGE"),
            audit_log: std::env::var_os("AUDIT_LOG").map(PathBuf::from),
        };
        assert!(
            cluster.binary.exists(),
            "there is no {}: make build",
            cluster.binary.display()
        );
        println!(
            "version: {}",
            kubectl(&["version"]).trim().replace('\n', ", ")
        );
        println!("images: {}, {}", cluster.scheduler_image, cluster.job_image);

        delete_namespaces(&["--wait", "--timeout=120s"]);
        for environment in ENVIRONMENTS {
            let (_, warnings) = cluster.apply_manifests(environment);
            assert_eq!(warnings, "", "kubectl apply warned");
            let namespace = namespace(environment);
            kubectl_with(
                &["apply", "-n", &namespace, "-f", "-"],
                &cluster.backend().to_string(),
            );
            let password = format!("--from-literal=DB_PASSWORD={DB_PASSWORD}");
            kubectl(&[
                "create", "secret", "generic", "report", &password, "-n", &namespace,
            ]);
        }
        for environment in ENVIRONMENTS {
            wait_until_available(environment);
        }
        cluster
    }

    /// Deletes what was made, after a look at it if a test failed.
    pub fn tear_down(&self, failed: bool) {
        if failed {
            for (environment, (component, _)) in ENVIRONMENTS
                .iter()
                .flat_map(|e| COMPONENTS.iter().map(move |c| (e, c)))
            {
                let deployment = format!("deployment/{component}-scheduler");
                let log = try_kubectl(&[
                    "logs",
                    &deployment,
                    "--tail=30",
                    "-n",
                    &namespace(environment),
                ]);
                println!(
                    "\nlog of {component} in {environment}:\n{}",
                    text(&log.stdout)
                );
            }
        }
        if std::env::var_os("KEEP").is_none() {
            delete_namespaces(&["--wait=false"]);
        }
    }

    /// `job-scheduler manifests … | kubectl apply -f -`: what kubectl said, and its warnings.
    pub fn apply_manifests(&self, environment: &str) -> (String, String) {
        let images =
            COMPONENTS.map(|(component, _)| format!("--image={component}={}", self.job_image));
        let printed = Command::new(&self.binary)
            .args([
                "manifests",
                CONFIG,
                "--environment",
                environment,
                "--scheduler-image",
                &self.scheduler_image,
            ])
            .args(images)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        assert!(
            printed.status.success(),
            "job-scheduler manifests: {}",
            text(&printed.stderr)
        );
        let applied = output(
            Command::new("kubectl").args(["apply", "-f", "-"]),
            &printed.stdout,
        );
        assert!(
            applied.status.success(),
            "kubectl apply: {}",
            text(&applied.stderr)
        );
        (text(&applied.stdout), text(&applied.stderr))
    }

    /// The component that starts the jobs: a shell, in the namespace's restricted profile.
    fn backend(&self) -> Value {
        let labels = json!({"app": "backend"});
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "backend"},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "backend", "image": self.job_image, "command": ["sleep", "86400"],
                    "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                }],
            }}},
        })
    }

    /// The scheduler of a component, as its environment's `backend` sees it.
    pub fn scheduler(&self, environment: &str, component: &str) -> Scheduler {
        let (_, port) = COMPONENTS
            .iter()
            .find(|(name, _)| *name == component)
            .unwrap();
        Scheduler::open(&namespace(environment), component, *port)
    }

    /// The audit log, or a word that there is none.
    pub fn audit(&self) -> Result<Audit<'_>, Vec<String>> {
        match &self.audit_log {
            Some(file) => Ok(Audit {
                file,
                begin: std::fs::metadata(file).unwrap().len(),
            }),
            None => Err(vec![format!(
                "{NOT_TESTED}: only the project's own cluster tells what its API server was asked"
            )]),
        }
    }
}

fn delete_namespaces(options: &[&str]) {
    let namespaces = ENVIRONMENTS.map(namespace);
    let mut arguments = vec!["delete", "namespace", "--ignore-not-found"];
    arguments.extend(namespaces.iter().map(String::as_str));
    arguments.extend(options);
    kubectl(&arguments);
}

pub fn wait_until_available(environment: &str) {
    let namespace = namespace(environment);
    kubectl(&[
        "wait",
        "deployment",
        "--all",
        "--for=condition=Available",
        "--timeout=120s",
        "-n",
        &namespace,
    ]);
}

/// Runs kubectl and returns what it printed; fails with what it complained of.
#[track_caller]
pub fn kubectl(arguments: &[&str]) -> String {
    kubectl_with(arguments, "")
}

#[track_caller]
pub fn kubectl_with(arguments: &[&str], input: &str) -> String {
    let output = output(Command::new("kubectl").args(arguments), input.as_bytes());
    assert!(
        output.status.success(),
        "kubectl {}: {}",
        arguments.join(" "),
        text(&output.stderr)
    );
    text(&output.stdout)
}

pub fn try_kubectl(arguments: &[&str]) -> Output {
    output(Command::new("kubectl").args(arguments), b"")
}

/// Objects as Kubernetes has them.
#[track_caller]
pub fn objects(environment: &str, arguments: &[&str]) -> Vec<Value> {
    let namespace = namespace(environment);
    let arguments = [&["get", "-o", "json", "-n", &namespace], arguments].concat();
    let list: Value = serde_json::from_str(&kubectl(&arguments)).unwrap();
    list["items"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| panic!("no list: {list}"))
}

/// What a job's container printed.
#[track_caller]
pub fn logs(environment: &str, job: &str) -> String {
    kubectl(&["logs", &format!("job/{job}"), "-n", &namespace(environment)])
}

/// Runs a command in a running job's container.
#[track_caller]
pub fn exec(environment: &str, job: &str, command: &[&str]) -> String {
    let (namespace, job) = (namespace(environment), format!("job/{job}"));
    kubectl(&[&["exec", &job, "-n", &namespace, "--"], command].concat())
}

/// Sends SIGUSR1 to a running job. It ends by that, and would take a command in its container with
/// it.
#[track_caller]
pub fn signal(environment: &str, job: &str) {
    let command = "(sleep 0.2; kill -USR1 1) > /dev/null 2>&1 &";
    exec(environment, job, &["sh", "-c", command]);
}

fn output(command: &mut Command, input: &[u8]) -> Output {
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    // A child that ends before it has read it all says why.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asks until the answer is there; fails with the last word on why it is not.
#[track_caller]
pub fn within<T>(limit: Duration, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) if started.elapsed() > limit => panic!("not within {limit:?}: {last}"),
            Err(_) => sleep(Duration::from_millis(100)),
        }
    }
}

/// What the API server was asked from some moment on.
pub struct Audit<'a> {
    file: &'a Path,
    begin: u64,
}

impl Audit<'_> {
    /// The calls of a component's scheduler so far, oldest first.
    pub fn calls(&self, environment: &str, component: &str) -> Vec<Value> {
        let user = account(environment, component);
        let bytes = std::fs::read(self.file).unwrap();
        let new = text(&bytes[usize::try_from(self.begin).unwrap()..]);
        let calls = new
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        calls
            .filter(|call| call["user"]["username"] == user.as_str())
            .collect()
    }
}

/// The name by which Kubernetes knows a component's scheduler.
pub fn account(environment: &str, component: &str) -> String {
    format!(
        "system:serviceaccount:{}:{component}-scheduler",
        namespace(environment)
    )
}
