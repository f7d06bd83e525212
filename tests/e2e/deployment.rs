//! What `job-scheduler manifests` makes, and what it lets the scheduler do.

use crate::cluster::{Cluster, account, kubectl, namespace, text, try_kubectl};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

pub fn manifests_applied_twice_change_nothing(cluster: &Cluster) -> Vec<String> {
    let (said, warnings) = cluster.apply_manifests("dev");
    assert_eq!(warnings, "");
    let changed: Vec<&str> = said
        .lines()
        .filter(|line| !line.ends_with(" unchanged"))
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
    let namespace: Value = serde_json::from_str(&kubectl(&[
        "get",
        "namespace",
        &namespace("dev"),
        "-o",
        "json",
    ]))
    .unwrap();
    let enforced = &namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
    assert_eq!(enforced, "restricted", "{namespace}");
    vec![format!(
        "{} objects, applied a second time: all unchanged, no warning under the profile {enforced}",
        said.lines().count()
    )]
}

pub fn the_scheduler_may_create_secrets_and_never_read_one(_: &Cluster) -> Vec<String> {
    let namespace = namespace("dev");
    let user = account("dev", "compute");
    let may = |verb: &str, resource: &str| {
        let asked = try_kubectl(&[
            "auth", "can-i", verb, resource, "--as", &user, "-n", &namespace,
        ]);
        text(&asked.stdout).trim().to_string()
    };
    for verb in [
        "get",
        "list",
        "watch",
        "update",
        "patch",
        "delete",
        "deletecollection",
    ] {
        assert_eq!(may(verb, "secrets"), "no", "{verb} secrets");
    }
    for verb in ["create", "get", "list", "watch", "patch", "delete"] {
        assert_eq!(may(verb, "jobs.batch"), "yes", "{verb} jobs");
    }
    assert_eq!(
        (
            may("create", "secrets").as_str(),
            may("create", "pods").as_str()
        ),
        ("yes", "no")
    );

    // And what it is told when it asks. kubectl would show its own certificate, if it read the kubeconfig.
    let access = Access::of("dev", "compute");
    let ask = |verb: &[&str]| {
        let asked = Command::new("kubectl")
            .args([
                "--kubeconfig=/dev/null",
                "--server",
                &access.server,
                "--token",
                &access.token,
                "-n",
                &namespace,
            ])
            .args(["--certificate-authority", access.ca_file.to_str().unwrap()])
            .args(verb)
            .output()
            .unwrap();
        (
            asked.status.success(),
            text(&asked.stdout) + &text(&asked.stderr),
        )
    };
    let (listed, jobs) = ask(&["get", "jobs"]);
    assert!(listed, "its own token does not even list jobs: {jobs}");
    for verb in [
        &["get", "secrets"][..],
        &["get", "secret", "report"],
        &["get", "secrets", "--watch-only"],
    ] {
        let (done, said) = ask(verb);
        assert!(!done && said.contains("Forbidden"), "{verb:?}: {said}");
    }
    vec!["create: yes; get, list, watch, update, patch, delete: no; get and list with its own token: 403 Forbidden".to_string()]
}

/// What a scheduler needs to reach the API server from outside the cluster. The files go with it.
pub struct Access {
    pub server: String,
    pub token: String,
    pub token_file: PathBuf,
    pub ca_file: PathBuf,
}

impl Access {
    pub fn of(environment: &str, component: &str) -> Access {
        let namespace = namespace(environment);
        let account = format!("{component}-scheduler");
        let server = "jsonpath={.clusters[0].cluster.server}";
        let server = kubectl(&["config", "view", "--minify", "-o", server]);
        let token = kubectl(&["create", "token", &account, "-n", &namespace]);
        let ca = r"jsonpath={.data.ca\.crt}";
        let ca = kubectl(&[
            "get",
            "configmap",
            "kube-root-ca.crt",
            "-o",
            ca,
            "-n",
            &namespace,
        ]);
        let write = |name: &str, content: &str| {
            let name = format!("job-scheduler-e2e-{}-{account}.{name}", std::process::id());
            let file = std::env::temp_dir().join(name);
            std::fs::write(&file, content).unwrap();
            file
        };
        Access {
            server,
            token_file: write("token", &token),
            ca_file: write("crt", &ca),
            token: token.trim().to_string(),
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        for file in [&self.token_file, &self.ca_file] {
            let _ = std::fs::remove_file(file);
        }
    }
}
