//! The schedulers as sidecars of the application's own Deployment: what they need beside it, and
//! the patch that adds them to it.
//!
//! One ServiceAccount, Role, RoleBinding and ConfigMap serve all of them, since a pod has one
//! account. Only the sidecars get its token, and they listen on 127.0.0.1: the pod's own containers
//! reach them, and nobody else does.

use super::{
    CHECKSUM_ANNOTATION, CONFIG_FILE, CONFIG_FOLDER, List, NAME_LABEL, Object, PART_OF_LABEL,
    SCHEDULER, USER, arguments, checksum, container, identity_account, name, rules,
};
use crate::cli::ManifestsOptions;
use crate::config::JobComponent;
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, ConfigMapVolumeSource, Container, ExecAction, HostAlias,
    KeyToPath, Probe, ProjectedVolumeSource, SeccompProfile, SecurityContext, ServiceAccount,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The name of the objects that all sidecars of an application share.
const NAME: &str = "job-scheduler-sidecar";
const TOKEN_VOLUME: &str = "job-scheduler-token";
/// The volume's name is the pod's to have, beside the application's own.
const SIDECAR_CONFIG_VOLUME: &str = "job-scheduler-config";
/// Where Kubernetes has a token if it mounts one itself, and so where `serve` looks.
const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The program in its image.
const PROGRAM: &str = "/job-scheduler";

/// What the sidecars need beside the Deployment.
pub fn beside(components: &[JobComponent], text: &str) -> List {
    let mut items = Vec::new();
    // They are in one namespace, and of one file.
    if let Some(component) = components.first() {
        items.extend([
            Object::ServiceAccount(ServiceAccount {
                metadata: metadata(component),
                automount_service_account_token: Some(false),
                ..ServiceAccount::default()
            }),
            Object::Role(Role {
                metadata: metadata(component),
                rules: Some(rules()),
            }),
            Object::RoleBinding(binding(component)),
            Object::ConfigMap(ConfigMap {
                metadata: metadata(component),
                data: Some(BTreeMap::from([(
                    CONFIG_FILE.to_string(),
                    text.to_string(),
                )])),
                ..ConfigMap::default()
            }),
        ]);
    }
    let accounts = components.iter().filter_map(identity_account);
    items.extend(accounts.map(Object::ServiceAccount));
    List::of(items)
}

fn metadata(component: &JobComponent) -> ObjectMeta {
    ObjectMeta {
        name: Some(NAME.to_string()),
        namespace: Some(component.namespace()),
        labels: Some(BTreeMap::from([
            (NAME_LABEL.to_string(), SCHEDULER.to_string()),
            (PART_OF_LABEL.to_string(), component.app.clone()),
        ])),
        ..ObjectMeta::default()
    }
}

fn binding(component: &JobComponent) -> RoleBinding {
    RoleBinding {
        metadata: metadata(component),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_string(),
            kind: "Role".to_string(),
            name: NAME.to_string(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_string(),
            name: NAME.to_string(),
            namespace: Some(component.namespace()),
            api_group: None,
        }]),
    }
}

/// The patch that adds the sidecars to the application's Deployment, for `kubectl patch`.
pub fn patch(components: &[JobComponent], text: &str, options: &ManifestsOptions) -> Value {
    let sidecars: Vec<Container> = components.iter().map(|c| sidecar(c, options)).collect();
    let hostnames = components.iter().map(|component| component.name.clone());
    let pull_secrets = options.image_pull_secrets.iter();
    let pull_secrets: Vec<Value> = pull_secrets.map(|name| json!({ "name": name })).collect();
    let mut pod = json!({
        "serviceAccountName": NAME,
        // Or the application could use the schedulers' rights.
        "automountServiceAccountToken": false,
        "hostAliases": [HostAlias {
            ip: "127.0.0.1".to_string(),
            hostnames: Some(hostnames.collect()),
        }],
        "initContainers": sidecars,
        "volumes": volumes(),
    });
    if let (false, Some(pod)) = (pull_secrets.is_empty(), pod.as_object_mut()) {
        pod.insert("imagePullSecrets".to_string(), pull_secrets.into());
    }
    let checksum = format!("{:016x}", checksum(text.as_bytes()));
    json!({"spec": {
        // Two schedulers of one component would both admit jobs: the old one ends first.
        "replicas": 1,
        "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
        "template": {
            // A new configuration starts the pod anew.
            "metadata": {"annotations": {CHECKSUM_ANNOTATION: checksum}},
            "spec": pod,
        },
    }})
}

fn sidecar(component: &JobComponent, options: &ManifestsOptions) -> Container {
    let mut container = container(component, options);
    let ask = Some(ExecAction {
        command: Some(
            [PROGRAM, "list", "--status=none"]
                .map(str::to_string)
                .to_vec(),
        ),
    });
    let mut arguments = arguments(component, options);
    arguments.push("--address=127.0.0.1".to_string());
    let security = container.security_context.take().unwrap_or_default();
    Container {
        name: name(component),
        // A sidecar: the application's containers start once it is ready.
        restart_policy: Some("Always".to_string()),
        args: Some(arguments),
        ports: None,
        // The kubelet asks at the pod's address, where nothing listens: so it asks from within.
        startup_probe: Some(Probe {
            exec: ask.clone(),
            period_seconds: Some(1),
            timeout_seconds: Some(5),
            failure_threshold: Some(600),
            ..Probe::default()
        }),
        liveness_probe: Some(Probe {
            exec: ask,
            period_seconds: Some(30),
            timeout_seconds: Some(5),
            ..Probe::default()
        }),
        readiness_probe: None,
        // Said here, so that the application's containers may be what they are.
        security_context: Some(SecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_string(),
                ..SeccompProfile::default()
            }),
            ..security
        }),
        volume_mounts: Some(
            [
                (SIDECAR_CONFIG_VOLUME, CONFIG_FOLDER),
                (TOKEN_VOLUME, TOKEN_FOLDER),
            ]
            .map(|(name, path)| VolumeMount {
                name: name.to_string(),
                mount_path: path.to_string(),
                read_only: Some(true),
                ..VolumeMount::default()
            })
            .to_vec(),
        ),
        ..container
    }
}

/// The configuration, and the token with the authority to check the API server by.
fn volumes() -> Vec<Volume> {
    let token = ServiceAccountTokenProjection {
        path: "token".to_string(),
        ..ServiceAccountTokenProjection::default()
    };
    let authority = ConfigMapProjection {
        name: "kube-root-ca.crt".to_string(),
        items: Some(vec![KeyToPath {
            key: "ca.crt".to_string(),
            path: "ca.crt".to_string(),
            mode: None,
        }]),
        optional: None,
    };
    let sources = vec![
        VolumeProjection {
            service_account_token: Some(token),
            ..VolumeProjection::default()
        },
        VolumeProjection {
            config_map: Some(authority),
            ..VolumeProjection::default()
        },
    ];
    vec![
        Volume {
            name: SIDECAR_CONFIG_VOLUME.to_string(),
            config_map: Some(ConfigMapVolumeSource {
                name: NAME.to_string(),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: TOKEN_VOLUME.to_string(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(sources),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        },
    ]
}
