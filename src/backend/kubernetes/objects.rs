//! The Kubernetes objects of one job: Job, Secret and Service, as functions of values.

use super::wire::{
    ARRIVAL_ANNOTATION, BATCH_LABEL, INDEX_ANNOTATION, JOB_ID_ANNOTATION, JOB_NAME_LABEL,
    KEY_ANNOTATION, PAYLOAD_ANNOTATION, QUEUED_ANNOTATION, RESTART_OF_ANNOTATION, key_text,
    queued_text,
};
use crate::backend::{NewJob, RESULT_VARIABLE};
use crate::config::{
    FailurePolicy, JobComponent, Monitoring, Port, Quantity, Resources, Runtime, Settings,
    VolumeSource,
};
use crate::job::{Job as JobFacts, JobName, Queued};
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource,
    EnvVar, EnvVarSource, KeyToPath, LocalObjectReference, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaimVolumeSource,
    PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements, SeccompProfile, Secret,
    SecretKeySelector, SecretVolumeSource, SecurityContext, Service, ServicePort, ServiceSpec,
    Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as KubernetesQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The label that tells jobs from other objects of the application.
pub const MANAGED_BY_LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "job-scheduler");
pub const APP_LABEL: &str = "radix-app";
pub const COMPONENT_LABEL: &str = "radix-component";

/// The key in a job's Secret, and the name of the file in the job.
const PAYLOAD: &str = "payload";
const PAYLOAD_VOLUME: &str = "job-payload";
/// What makes the webhook of Azure workload identity give a pod its token.
///
/// Source: <https://azure.github.io/azure-workload-identity/docs/topics/service-account-labels-and-annotations.html>
const AZURE_IDENTITY_LABEL: (&str, &str) = ("azure.workload.identity/use", "true");
/// Where Kubernetes reads a container's last words: what the job leaves for its caller.
///
/// Source: <https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/>
const RESULT_FILE: &str = "/dev/termination-log";
const SAFE_TO_EVICT_ANNOTATION: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";

/// Selects the jobs, and their pods, of one component.
pub fn selector(component: &JobComponent) -> String {
    let (key, value) = MANAGED_BY_LABEL;
    format!(
        "{key}={value},{APP_LABEL}={},{COMPONENT_LABEL}={}",
        component.app, component.name
    )
}

fn labels(component: &JobComponent) -> BTreeMap<String, String> {
    let (key, value) = MANAGED_BY_LABEL;
    BTreeMap::from([
        (key.to_string(), value.to_string()),
        (APP_LABEL.to_string(), component.app.clone()),
        (COMPONENT_LABEL.to_string(), component.name.clone()),
    ])
}

/// The labels of a job's pod: the job's, and what its identity asks for.
fn pod_labels(component: &JobComponent) -> BTreeMap<String, String> {
    let mut labels = labels(component);
    if component.identity.is_some() {
        let (key, value) = AZURE_IDENTITY_LABEL;
        labels.insert(key.to_string(), value.to_string());
    }
    labels
}

/// By Prometheus' custom, where the pod's metrics are.
fn pod_annotations(component: &JobComponent, settings: &Settings) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::from([(
        SAFE_TO_EVICT_ANNOTATION.to_string(),
        settings.safe_to_restart().to_string(),
    )]);
    if let Some(Monitoring { port, path }) = &component.monitoring {
        let values = [
            ("prometheus.io/scrape", "true".to_string()),
            ("prometheus.io/port", port.to_string()),
            ("prometheus.io/path", path.clone()),
        ];
        annotations.extend(values.map(|(key, value)| (key.to_string(), value)));
    }
    annotations
}

/// Where a job's payload is.
pub struct Place {
    pub secret: String,
    pub key: String,
}

/// The Job. `image` is the whole reference; `pull_secrets` are names of Secrets of the namespace.
/// `arrival` orders it among others.
pub fn job(new: &NewJob, image: &str, pull_secrets: &[String], arrival: u64) -> Job {
    let own = new.payload.map(|_| Place {
        secret: new.name.to_string(),
        key: PAYLOAD.to_string(),
    });
    job_with(new, image, pull_secrets, arrival, new.queued, own)
}

/// The Job, with this place in the queue, and its payload in that one.
pub fn job_with(
    new: &NewJob,
    image: &str,
    pull_secrets: &[String],
    arrival: u64,
    queued: Option<Queued>,
    payload: Option<Place>,
) -> Job {
    let component = new.component;
    let arrival = (ARRIVAL_ANNOTATION.to_string(), arrival.to_string());
    let mut annotations = BTreeMap::from([arrival]);
    if let Some(place) = &payload {
        annotations.insert(PAYLOAD_ANNOTATION.to_string(), place.secret.clone());
    }
    if let Some(id) = new.job_id {
        annotations.insert(JOB_ID_ANNOTATION.to_string(), id.to_string());
    }
    if let Some(key) = new.key {
        annotations.insert(KEY_ANNOTATION.to_string(), key_text(key));
    }
    if let Some(queued) = queued {
        annotations.insert(QUEUED_ANNOTATION.to_string(), queued_text(queued));
    }
    Job {
        metadata: ObjectMeta {
            annotations: Some(annotations),
            ..metadata(component, &new.name)
        },
        spec: Some(JobSpec {
            suspend: queued.map(|_| true),
            backoff_limit: Some(to_i32(new.settings.backoff_limit.unwrap_or(0))),
            // A replacement starts once the failed pod is gone for good, so that two never run at
            // once.
            pod_replacement_policy: Some("Failed".to_string()),
            pod_failure_policy: new.settings.failure_policy.as_ref().map(pod_failure_policy),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels(component)),
                    annotations: Some(pod_annotations(component, new.settings)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod_spec(new, image, pull_secrets, payload)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// The Job that does again what `old` (as the API server gave it) did: its template, under another
/// name.
///
/// What Kubernetes and this scheduler put on the old one for itself is left behind.
pub fn job_again(
    old: &Value,
    component: &JobComponent,
    name: &JobName,
    queued: Option<Queued>,
    arrival: u64,
) -> Value {
    let mut spec = old.get("spec").cloned().unwrap_or_default();
    if let Some(spec) = spec.as_object_mut() {
        for own in ["selector", "manualSelector", "suspend"] {
            spec.remove(own);
        }
        if queued.is_some() {
            spec.insert("suspend".to_string(), Value::Bool(true));
        }
    }
    if let Some(metadata) = spec
        .pointer_mut("/template/metadata")
        .and_then(Value::as_object_mut)
    {
        metadata.insert("labels".to_string(), json!(pod_labels(component)));
    }
    if let Some(env) = spec
        .pointer_mut("/template/spec/containers/0/env")
        .and_then(Value::as_array_mut)
    {
        let own = [("RADIX_JOB_NAME", name.to_string())];
        for (own, value) in own.into_iter().chain(component.progress_url(name)) {
            let named = env
                .iter_mut()
                .filter(|v| v.get("name") == Some(&json!(own)));
            named.for_each(|variable| *variable = json!({"name": own, "value": value}));
        }
    }
    let annotation = |name: &str| {
        old.pointer("/metadata/annotations")
            .and_then(|all| all.get(name))
    };
    let old_name = old
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let mut annotations = BTreeMap::from([
        (RESTART_OF_ANNOTATION, json!(old_name)),
        (ARRIVAL_ANNOTATION, json!(arrival.to_string())),
    ]);
    for kept in [PAYLOAD_ANNOTATION, JOB_ID_ANNOTATION, INDEX_ANNOTATION] {
        if let Some(value) = annotation(kept) {
            annotations.insert(kept, value.clone());
        }
    }
    if let Some(queued) = queued {
        annotations.insert(QUEUED_ANNOTATION, json!(queued_text(queued)));
    }
    let mut labels = labels(component);
    let of_old = |field: &str| old.get("metadata").and_then(|metadata| metadata.get(field));
    let batch = of_old("labels").and_then(|labels| labels.get(BATCH_LABEL)?.as_str());
    labels.extend(batch.map(|batch| (BATCH_LABEL.to_string(), batch.to_string())));
    let mut again = json!({
        "metadata": {
            "name": name.as_str(),
            "namespace": component.namespace(),
            "labels": labels,
            "annotations": annotations,
        },
        "spec": spec,
    });
    let owners = of_old("ownerReferences").filter(|_| batch.is_some());
    let metadata = again.get_mut("metadata").and_then(Value::as_object_mut);
    if let (Some(owners), Some(metadata)) = (owners, metadata) {
        // It goes with its batch.
        metadata.insert("ownerReferences".to_string(), owners.clone());
    }
    again
}

fn pod_spec(new: &NewJob, image: &str, pull_secrets: &[String], payload: Option<Place>) -> PodSpec {
    let (component, settings) = (new.component, new.settings);
    let pull_secrets: Vec<_> = pull_secrets
        .iter()
        .map(|name| LocalObjectReference { name: name.clone() })
        .collect();
    let (volumes, volume_mounts) = volumes(new, payload);
    PodSpec {
        restart_policy: Some("Never".to_string()),
        active_deadline_seconds: Some(i64::from(settings.time_limit_seconds())),
        service_account_name: component.identity_account(),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        affinity: affinity(settings),
        tolerations: tolerations(settings),
        image_pull_secrets: some_list(pull_secrets),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: settings.run_as_user.map(i64::from),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_string(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![Container {
            name: component.name.clone(),
            image: Some(image.to_string()),
            image_pull_policy: Some("Always".to_string()),
            command: some_list(settings.command.clone().unwrap_or_default()),
            args: some_list(settings.args.clone().unwrap_or_default()),
            env: Some(environment(new)),
            ports: some_list(component.ports.iter().map(container_port).collect()),
            resources: settings.resources.as_ref().map(resources),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                privileged: Some(false),
                read_only_root_filesystem: Some(component.read_only_file_system),
                capabilities: Some(Capabilities {
                    drop: Some(vec!["ALL".to_string()]),
                    add: None,
                }),
                ..SecurityContext::default()
            }),
            // By default, and said because what the job finds in its environment must fit.
            termination_message_path: Some(RESULT_FILE.to_string()),
            // Else a failed job's log would come instead of a result.
            termination_message_policy: Some("File".to_string()),
            volume_mounts: some_list(volume_mounts),
            ..Container::default()
        }],
        volumes: some_list(volumes),
        ..PodSpec::default()
    }
}

/// The job's environment: its own variables, then those from the component's Secret, then what
/// every job gets.
fn environment(new: &NewJob) -> Vec<EnvVar> {
    let component = new.component;
    let plain = |name: &str, value: String| EnvVar {
        name: name.to_string(),
        value: Some(value),
        value_from: None,
    };
    let secret = |name: &String| EnvVar {
        name: name.clone(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: component.name.clone(),
                key: name.clone(),
                optional: Some(false),
            }),
            ..EnvVarSource::default()
        }),
    };
    let own = new
        .settings
        .variables
        .iter()
        .map(|(name, value)| plain(name, value.clone()));
    let given = component
        .variables_of_job(&new.name, new.payload.is_some())
        .into_iter()
        .chain([(RESULT_VARIABLE, RESULT_FILE.to_string())])
        .map(|(name, value)| plain(name, value));
    own.chain(component.secrets.iter().map(secret))
        .chain(given)
        .collect()
}

fn volumes(new: &NewJob, payload: Option<Place>) -> (Vec<Volume>, Vec<VolumeMount>) {
    let path = new.component.payload_path.as_ref();
    let payload = path.zip(payload).map(|(path, place)| {
        let volume = Volume {
            name: PAYLOAD_VOLUME.to_string(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(place.secret),
                items: Some(vec![KeyToPath {
                    key: place.key,
                    path: PAYLOAD.to_string(),
                    mode: None,
                }]),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        };
        let mount = VolumeMount {
            name: PAYLOAD_VOLUME.to_string(),
            mount_path: path.clone(),
            read_only: Some(true),
            ..VolumeMount::default()
        };
        (volume, mount)
    });
    let others = new.component.volume_mounts.iter().map(|mount| {
        let volume = volume(&mount.name, &mount.source);
        let mount = VolumeMount {
            name: mount.name.clone(),
            mount_path: mount.path.clone(),
            ..VolumeMount::default()
        };
        (volume, mount)
    });
    payload.into_iter().chain(others).unzip()
}

fn volume(name: &str, source: &VolumeSource) -> Volume {
    let mut volume = Volume {
        name: name.to_string(),
        ..Volume::default()
    };
    match source {
        VolumeSource::EmptyDir { size_limit } => {
            volume.empty_dir = Some(EmptyDirVolumeSource {
                size_limit: size_limit.as_ref().map(quantity),
                ..EmptyDirVolumeSource::default()
            });
        }
        VolumeSource::PersistentVolumeClaim {
            claim_name,
            read_only,
        } => {
            volume.persistent_volume_claim = Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim_name.clone(),
                read_only: *read_only,
            });
        }
        VolumeSource::ConfigMap { name } => {
            volume.config_map = Some(ConfigMapVolumeSource {
                name: name.clone(),
                ..ConfigMapVolumeSource::default()
            });
        }
    }
    volume
}

/// The Secret that holds the payload, exactly as it came. Owned by the Job: Kubernetes deletes it
/// with the Job.
pub fn secret(component: &JobComponent, job: &JobFacts, payload: &str) -> Secret {
    let payload = (PAYLOAD.to_string(), ByteString(payload.as_bytes().to_vec()));
    secret_of(component, job, BTreeMap::from([payload]))
}

/// A Secret of the Job's name, owned by it.
pub fn secret_of(
    component: &JobComponent,
    job: &JobFacts,
    data: BTreeMap<String, ByteString>,
) -> Secret {
    Secret {
        metadata: owned(component, job),
        immutable: Some(true),
        // In base64, which is as long whatever the payload: as text in JSON, a mebibyte of control
        // characters would take six, and the API server reads three of a request.
        data: Some(data),
        type_: Some("Opaque".to_string()),
        string_data: None,
    }
}

/// The Service that makes the running job's name a host name; `None` if the component has no ports.
pub fn service(component: &JobComponent, job: &JobFacts) -> Option<Service> {
    if component.ports.is_empty() {
        return None;
    }
    let port = |port: &Port| ServicePort {
        name: Some(port.name.clone()),
        port: i32::from(port.port),
        protocol: Some("TCP".to_string()),
        ..ServicePort::default()
    };
    Some(Service {
        metadata: owned(component, job),
        spec: Some(ServiceSpec {
            // Headless: no cluster IP and no kube-proxy rules for something that lives for seconds.
            cluster_ip: Some("None".to_string()),
            // A job has no readiness probe: its caller connects when it likes.
            publish_not_ready_addresses: Some(true),
            selector: Some(BTreeMap::from([(
                JOB_NAME_LABEL.to_string(),
                job.name.to_string(),
            )])),
            ports: Some(component.ports.iter().map(port).collect()),
            ..ServiceSpec::default()
        }),
        status: None,
    })
}

/// Of an object of this component.
pub fn metadata(component: &JobComponent, name: &JobName) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_string()),
        namespace: Some(component.namespace()),
        labels: Some(labels(component)),
        ..ObjectMeta::default()
    }
}

fn owned(component: &JobComponent, job: &JobFacts) -> ObjectMeta {
    ObjectMeta {
        owner_references: Some(vec![owner(job)]),
        ..metadata(component, &job.name)
    }
}

/// The Job as an owner: what it owns is deleted with it.
pub fn owner(job: &JobFacts) -> OwnerReference {
    OwnerReference {
        api_version: "batch/v1".to_string(),
        kind: "Job".to_string(),
        name: job.name.to_string(),
        uid: job.uid.to_string(),
        controller: None,
        block_owner_deletion: Some(false),
    }
}

fn pod_failure_policy(policy: &FailurePolicy) -> PodFailurePolicy {
    let rules = policy.rules.iter().map(|rule| {
        let (operator, values) = rule.on_exit_codes.parts();
        PodFailurePolicyRule {
            action: rule.action.as_str().to_string(),
            on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                operator: operator.to_string(),
                values: values.to_vec(),
                container_name: None,
            }),
            on_pod_conditions: None,
        }
    });
    PodFailurePolicy {
        rules: rules.collect(),
    }
}

const GPU_LABEL: &str = "radix-node-gpu";
const GPU_COUNT_LABEL: &str = "radix-node-gpu-count";
const NODE_TYPE_LABEL: &str = "radix-nodetype";
const ARCHITECTURE_LABEL: &str = "kubernetes.io/arch";

/// Where the pod may run: what `runtime` says, else what `node` says.
fn affinity(settings: &Settings) -> Option<Affinity> {
    let requirement = |key: &str, operator: &str, values: Vec<String>| NodeSelectorRequirement {
        key: key.to_string(),
        operator: operator.to_string(),
        values: Some(values),
    };
    let mut required = Vec::new();
    match (&settings.runtime, &settings.node) {
        (Some(Runtime::NodeType(pool)), _) => {
            required.push(requirement(NODE_TYPE_LABEL, "In", vec![pool.clone()]))
        }
        (runtime, node) => {
            if let Some(Runtime::Architecture(architecture)) = runtime {
                let name = architecture.as_str().to_string();
                required.push(requirement(ARCHITECTURE_LABEL, "In", vec![name]));
            }
            if let Some(gpus) = node.as_ref().and_then(|node| node.gpu.as_ref()) {
                let names = || {
                    gpus.split(',')
                        .map(str::trim)
                        .filter(|name| !name.is_empty())
                };
                let wanted: Vec<_> = names()
                    .filter(|n| !n.starts_with('-'))
                    .map(str::to_string)
                    .collect();
                let unwanted: Vec<_> = names()
                    .filter_map(|n| n.strip_prefix('-'))
                    .map(str::to_string)
                    .collect();
                for (operator, values) in [("In", wanted), ("NotIn", unwanted)] {
                    if !values.is_empty() {
                        required.push(requirement(GPU_LABEL, operator, values));
                    }
                }
            }
            if let Some(count) = node.as_ref().and_then(|node| node.gpu_count) {
                required.push(requirement(
                    GPU_COUNT_LABEL,
                    "Gt",
                    vec![count.saturating_sub(1).to_string()],
                ));
            }
        }
    }
    (!required.is_empty()).then(|| Affinity {
        node_affinity: Some(NodeAffinity {
            required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                node_selector_terms: vec![NodeSelectorTerm {
                    match_expressions: Some(required),
                    match_fields: None,
                }],
            }),
            ..NodeAffinity::default()
        }),
        ..Affinity::default()
    })
}

/// The taints of the nodes that [`affinity`] leads to.
fn tolerations(settings: &Settings) -> Option<Vec<Toleration>> {
    let toleration = |key: &str, operator: &str, value: Option<String>| Toleration {
        key: Some(key.to_string()),
        operator: Some(operator.to_string()),
        value,
        effect: Some("NoSchedule".to_string()),
        toleration_seconds: None,
    };
    match (&settings.runtime, &settings.node) {
        (Some(Runtime::NodeType(pool)), _) => Some(vec![toleration(
            NODE_TYPE_LABEL,
            "Equal",
            Some(pool.clone()),
        )]),
        (_, Some(node)) if node.gpu.is_some() || node.gpu_count.is_some() => {
            Some(vec![toleration(GPU_COUNT_LABEL, "Exists", None)])
        }
        _ => None,
    }
}

fn container_port(port: &Port) -> ContainerPort {
    ContainerPort {
        name: Some(port.name.clone()),
        container_port: i32::from(port.port),
        protocol: Some("TCP".to_string()),
        ..ContainerPort::default()
    }
}

fn resources(resources: &Resources) -> ResourceRequirements {
    let list = |list: &BTreeMap<String, Quantity>| {
        (!list.is_empty()).then(|| {
            list.iter()
                .map(|(name, value)| (name.clone(), quantity(value)))
                .collect()
        })
    };
    ResourceRequirements {
        requests: list(&resources.requests),
        limits: list(&resources.limits),
        claims: None,
    }
}

fn quantity(quantity: &Quantity) -> KubernetesQuantity {
    KubernetesQuantity(quantity.text.clone())
}

fn to_i32(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// Kubernetes takes an empty list for "not set"; leaving it out says the same in fewer words.
fn some_list<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Settings};
    use crate::golden;
    use crate::job::{JobName, RequestKey, Sent, Status};
    use crate::request::parse_request;

    const ARRIVAL: u64 = 1_617_796_556_000_001;

    fn name(component: &JobComponent) -> JobName {
        JobName::parse(&format!("{}-20210407115556-rkwaibwe", component.name)).unwrap()
    }

    /// The job component of a file of `testdata/objects`.
    fn component(file: &str) -> JobComponent {
        let config = config::load(&golden::testdata(&format!("objects/{file}"))).unwrap();
        let mut components = config.job_components("dev").unwrap();
        components.remove(0)
    }

    /// As the API server answered to the creation of the Job.
    fn created(component: &JobComponent) -> JobFacts {
        JobFacts {
            uid: "8d6f2f0e-5a1b-4c3d-9e8f-0a1b2c3d4e5f".into(),
            ..JobFacts::sample(name(component).as_str(), Status::Running, 1)
        }
    }

    fn new<'a>(
        component: &'a JobComponent,
        settings: &'a Settings,
        payload: Option<&'a str>,
    ) -> NewJob<'a> {
        NewJob {
            name: name(component),
            component,
            settings,
            job_id: None,
            payload,
            priority: 0,
            key: None,
            queued: None,
        }
    }

    /// The Job of a file's component for a request, compared with a golden file.
    #[track_caller]
    fn check_job(golden_name: &str, file: &str, request: &str) {
        let component = component(file);
        let request = parse_request(request.as_bytes()).unwrap();
        let settings = request.settings_for(&component);
        let mut new = new(&component, &settings, request.payload.as_deref());
        new.job_id = request.job_id.as_deref();
        let image = settings.image_reference().unwrap();
        golden::check(golden_name, &job(&new, &image, &[], ARRIVAL));
    }

    #[test]
    fn a_job_of_a_component_that_sets_nothing() {
        check_job("job-minimal", "minimal.yaml", "");
    }

    #[test]
    fn a_job_of_a_component_that_sets_everything() {
        let component = component("full.yaml");
        let mut new = new(&component, &component.settings, Some("{\"x\": 1}"));
        new.job_id = Some("order 17");
        let image = component.settings.image_reference().unwrap();
        let pull_secrets = ["hub".to_string(), "mirror".to_string()];
        golden::check("job-full", &job(&new, &image, &pull_secrets, ARRIVAL));
    }

    /// What real files of Radix have: keys in another case, Azure's volumes, overrides of one
    /// field.
    #[test]
    fn a_job_of_a_component_as_radix_users_write_it() {
        let config = config::load(&golden::testdata("manifests/radix.yaml")).unwrap();
        let component = config.job_component("prod", "compute").unwrap();
        let new = new(&component, &component.settings, Some("p"));
        golden::check("job-radix", &job(&new, "i", &[], ARRIVAL));
    }

    #[test]
    fn a_payload_of_no_bytes_is_a_file_and_no_payload_is_none() {
        let component = component("full.yaml");
        let job_with = |payload| {
            job(
                &new(&component, &component.settings, payload),
                "i",
                &[],
                ARRIVAL,
            )
        };
        let volumes = |job: Job| -> Vec<String> {
            let pod = job.spec.and_then(|spec| spec.template.spec).unwrap();
            let names = pod.volumes.unwrap_or_default().into_iter().map(|v| v.name);
            names.collect()
        };
        let files = |job: &Job| -> Vec<String> {
            let pod = job
                .spec
                .clone()
                .and_then(|spec| spec.template.spec)
                .unwrap();
            let variables = pod.containers[0].env.clone().unwrap_or_default();
            let files = variables
                .into_iter()
                .filter(|v| v.name == "JOB_PAYLOAD_FILE");
            files.filter_map(|variable| variable.value).collect()
        };
        let (empty, none) = (job_with(Some("")), job_with(None));
        assert_eq!(files(&empty), ["/train/args/payload"]);
        assert_eq!(files(&none), [""; 0]);
        assert_eq!(empty, job_with(Some("something")));
        let noted = none.metadata.annotations.clone().unwrap();
        assert!(noted.keys().eq([ARRIVAL_ANNOTATION]), "{noted:?}");
        let others = ["scratch", "tmp", "models", "settings"];
        assert_eq!(
            volumes(empty),
            [["job-payload"].as_slice(), &others].concat()
        );
        assert_eq!(volumes(none), others);
    }

    #[test]
    fn a_request_overrides_the_component() {
        check_job(
            "job-overrides",
            "full.yaml",
            r#"{
                "jobId": "17", "payload": "p", "imageTagName": "2", "timeLimitSeconds": 60, "backoffLimit": 0,
                "resources": {"requests": {"cpu": "1"}}, "variables": {"LOG_LEVEL": "debug", "EXTRA": "1"},
                "command": [], "args": ["--epochs", "1"], "runAsUser": 2000,
                "failurePolicy": {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "NotIn", "values": [1]}}]},
                "runtime": {"architecture": "amd64"}
            }"#,
        );
    }

    #[test]
    fn a_job_over_the_cap_is_created_suspended_with_its_place_in_the_queue() {
        let component = component("minimal.yaml");
        let mut new = new(&component, &component.settings, None);
        new.queued = Some(Queued {
            priority: 5,
            arrival: 1_617_796_556_000_001,
        });
        new.key = Some(RequestKey {
            key: 1,
            body: 2,
            sent: Sent {
                version: 3,
                micros: 5,
            },
        });
        golden::check("job-queued", &job(&new, "i", &[], ARRIVAL));
    }

    #[test]
    fn a_job_done_again_is_the_old_ones_template_under_a_new_name() {
        let component = component("full.yaml");
        let mut new = new(&component, &component.settings, Some("{\"x\": 1}"));
        new.job_id = Some("order 17");
        new.key = Some(RequestKey {
            key: 1,
            body: 2,
            sent: Sent {
                version: 3,
                micros: 5,
            },
        });
        let mut old = serde_json::to_value(job(&new, "i", &[], ARRIVAL)).unwrap();
        // What the API server and its controllers add.
        let own = json!({"batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "old"});
        old["spec"]["selector"] = json!({"matchLabels": own});
        old["spec"]["suspend"] = json!(false);
        old["spec"]["template"]["metadata"]["labels"] = own;
        old["metadata"]["uid"] = json!("u");
        old["status"] = json!({"failed": 1});
        let name = JobName::parse("compute-20210407120000-aaaaaaaa").unwrap();
        golden::check(
            "job-again",
            &job_again(&old, &component, &name, None, ARRIVAL),
        );
        let queued = Queued {
            priority: 0,
            arrival: 7,
        };
        let queued = job_again(&old, &component, &name, Some(queued), 7);
        assert_eq!(queued["spec"]["suspend"], true);
        assert_eq!(queued["metadata"]["annotations"][QUEUED_ANNOTATION], "0/7");
    }

    /// What differs from a job that sets nothing, as the part of the pod that says where it runs.
    #[track_caller]
    fn check_placement(golden_name: &str, request: &str) {
        let component = component("minimal.yaml");
        let request = parse_request(request.as_bytes()).unwrap();
        let new = new(&component, &request.settings, None);
        let pod = pod_spec(&new, "i", &[], None);
        golden::check(golden_name, &(pod.affinity, pod.tolerations));
    }

    #[test]
    fn gpus_lead_to_the_nodes_that_have_them() {
        check_placement(
            "placement-gpu",
            r#"{"node": {"gpu": "nvidia-v100, -nvidia-k80", "gpuCount": "2"}}"#,
        );
        check_placement("placement-gpu-count", r#"{"node": {"gpuCount": "1"}}"#);
    }

    #[test]
    fn a_node_type_stands_above_gpus_and_an_architecture_beside_them() {
        check_placement(
            "placement-node-type",
            r#"{"node": {"gpu": "nvidia-v100"}, "runtime": {"nodeType": "gpu-a100"}}"#,
        );
        check_placement(
            "placement-architecture",
            r#"{"node": {"gpu": "nvidia-v100"}, "runtime": {"architecture": "arm64"}}"#,
        );
        check_placement("placement-anywhere", "{}");
    }

    #[test]
    fn every_rule_of_a_failure_policy_in_its_order() {
        let request = r#"{"failurePolicy": {"rules": [
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [1, 42]}},
            {"action": "Count", "onExitCodes": {"operator": "In", "values": [2]}},
            {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [0, 3]}}]}}"#;
        let request = parse_request(request.as_bytes()).unwrap();
        let policy = pod_failure_policy(&request.settings.failure_policy.unwrap());
        golden::check("failure-policy", &policy);
    }

    #[test]
    fn the_secret_holds_the_payload_as_it_came() {
        let component = component("full.yaml");
        let payload = " {\"text\": \"æ\u{1F600}\"}\r\n\t\"quoted\" \\ \u{0}\u{7f} \n\n";
        let secret = secret(&component, &created(&component), payload);
        golden::check("secret", &secret);
        let text = serde_json::to_string(&secret).unwrap();
        let read: Secret = serde_json::from_str(&text).unwrap();
        assert_eq!(read.data.unwrap()["payload"].0, payload.as_bytes());
    }

    /// What the API server reads of a request: 3 MiB.
    #[test]
    fn a_secret_of_the_largest_payload_fits_a_request_whatever_is_in_it() {
        let component = component("full.yaml");
        for character in ["x", "\u{1}", "\"", "é"] {
            let payload = character.repeat((1 << 20) / character.len());
            let secret = secret(&component, &created(&component), &payload);
            assert!(
                serde_json::to_vec(&secret).unwrap().len() < 3 << 20,
                "{character:?}"
            );
        }
    }

    #[test]
    fn the_secret_of_an_empty_payload_has_its_key() {
        let component = component("full.yaml");
        golden::check(
            "secret-empty",
            &secret(&component, &created(&component), ""),
        );
    }

    #[test]
    fn the_service_has_the_components_ports() {
        let with_ports = component("full.yaml");
        golden::check("service", &service(&with_ports, &created(&with_ports)));
        let without = component("minimal.yaml");
        assert_eq!(service(&without, &created(&without)), None);
    }

    #[test]
    fn the_selector_asks_for_all_labels_of_a_job_and_its_pod() {
        let component = component("minimal.yaml");
        let job = job(
            &new(&component, &component.settings, None),
            "i",
            &[],
            ARRIVAL,
        );
        let pod = job.spec.and_then(|spec| spec.template.metadata).unwrap();
        assert_eq!(job.metadata.labels, pod.labels);
        let terms = pod.labels.unwrap().into_iter();
        let terms: Vec<_> = terms.map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(terms.join(","), selector(&component));
    }
}
