//! `manifests`: the Kubernetes objects that run an application's schedulers, for `kubectl apply -f
//! -`.
//!
//! Pure but for [`run`], which reads the file and prints. Every field is one that the API server
//! keeps as it is written here, so that applying twice changes nothing.

mod sidecar;

use crate::cli::{ManifestsOptions, PodSecurity, Shape};
use crate::config::{self, ConfigError, JobComponent, RadixConfig};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EnvVar,
    HTTPGetAction, LocalObjectReference, Namespace, PodSecurityContext, PodSpec, PodTemplateSpec,
    Probe, ResourceRequirements, SeccompProfile, SecurityContext, Service, ServiceAccount,
    ServicePort, ServiceSpec, Volume, VolumeMount,
};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicySpec,
};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

/// What these objects are instances of. Never the label `managed-by`, which selects a component's
/// jobs and their pods.
const NAME_LABEL: &str = "app.kubernetes.io/name";
const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
const PART_OF_LABEL: &str = "app.kubernetes.io/part-of";
const SCHEDULER: &str = "job-scheduler";
/// Changes with the configuration, which is read once, at start: so a new one starts the scheduler
/// anew.
const CHECKSUM_ANNOTATION: &str = "job-scheduler/config-checksum";

/// The managed identity that a ServiceAccount stands for.
///
/// Source:
/// <https://azure.github.io/azure-workload-identity/docs/topics/service-account-labels-and-annotations.html>
const AZURE_CLIENT_ANNOTATION: &str = "azure.workload.identity/client-id";

const CONFIG_VOLUME: &str = "config";
const CONFIG_FOLDER: &str = "/etc/job-scheduler";
/// The key in the ConfigMap, and the name of the file in the scheduler's pod.
const CONFIG_FILE: &str = "radixconfig.yaml";
const PORT_NAME: &str = "http";
/// Nobody in particular, and not root: what distroless images call nonroot.
const USER: i64 = 65532;
/// It answers on for 5 s, and then a call to the API server that has begun may end, which takes 10
/// s at most.
const GRACE_SECONDS: i64 = 20;

/// The longest name of an object whose name is also in a label or a host name.
const MAX_NAME: usize = 63;
const NAME_SUFFIX: &str = "-scheduler";

/// What `kubectl apply` can keep of an object in its annotation `last-applied-configuration`: 256
/// KiB less some room.
///
/// Source:
/// <https://github.com/kubernetes/apimachinery/blob/v0.34.4/pkg/api/validation/objectmeta.go>
const MAX_APPLIED_BYTES: usize = 250_000;
/// What the values of a ConfigMap may have together. The file is the only one.
///
/// Source: <https://kubernetes.io/docs/concepts/configuration/configmap/>
const MAX_CONFIG_MAP_BYTES: usize = 1 << 20;
const _: () = assert!(config::MAX_FILE_BYTES <= MAX_CONFIG_MAP_BYTES);

/// Why there are no manifests.
#[derive(Debug)]
pub enum ManifestsError {
    /// The file, or the environment asked for.
    Config(ConfigError),
    /// A flag names a job component that is not there, or not enabled.
    Job {
        flag: &'static str,
        cause: ConfigError,
    },
    /// Two images for one job component.
    ImageTwice { job: String },
    /// Job components that are built from source, and nobody says what image that gave.
    NoImage { jobs: Vec<String> },
    /// The environment has no job component.
    NoJobs { file: String, environment: String },
    /// The list could not be printed.
    Output(io::Error),
}

impl ManifestsError {
    /// Whether the user has something to mend.
    pub fn is_configuration(&self) -> bool {
        match self {
            ManifestsError::Config(_)
            | ManifestsError::Job { .. }
            | ManifestsError::ImageTwice { .. }
            | ManifestsError::NoImage { .. }
            | ManifestsError::NoJobs { .. } => true,
            ManifestsError::Output(_) => false,
        }
    }
}

impl fmt::Display for ManifestsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestsError::Config(e) => e.fmt(f),
            ManifestsError::Job { flag, cause } => write!(f, "{flag}: {cause}"),
            ManifestsError::ImageTwice { job } => {
                write!(f, "--image {job}=… is given twice: give it once")
            }
            ManifestsError::NoImage { jobs } => {
                let flags: Vec<_> = jobs
                    .iter()
                    .map(|job| format!("--image {job}=REF"))
                    .collect();
                write!(
                    f,
                    "no image is known for {}: set `image`, or, for a job component that is built from `src`, \
                     say which image that gave with {}",
                    jobs.join(", "),
                    flags.join(" ")
                )
            }
            ManifestsError::NoJobs { file, environment } => write!(
                f,
                "{file}: spec.jobs: no job component is enabled in `{environment}`, so there is nothing to run"
            ),
            ManifestsError::Output(cause) => write!(f, "standard output: {cause}"),
        }
    }
}

/// Reads the file and prints the list, or nothing of it. Warnings go to standard error.
pub fn run(options: &ManifestsOptions, out: &mut impl Write) -> Result<(), ManifestsError> {
    let file = options.file.display().to_string();
    let bytes = config::read_file(&options.file).map_err(ManifestsError::Config)?;
    let config = config::parse(&file, &bytes).map_err(ManifestsError::Config)?;
    for warning in &config.warnings {
        eprintln!("{warning}");
    }
    // Nothing is lost: only UTF-8 is parsed.
    let text = String::from_utf8_lossy(&bytes);
    let (json, is_too_large) = match options.shape {
        Shape::Patch => {
            let components = components(&config, options)?;
            let patch = sidecar::patch(&components, &text, options);
            (serde_json::to_string_pretty(&patch), false)
        }
        Shape::Deployments | Shape::Beside => {
            let list = list(&config, &text, options)?;
            let is_too_large = list.is_too_large_to_apply();
            (serde_json::to_string_pretty(&list), is_too_large)
        }
    };
    if is_too_large {
        eprintln!(
            "{file}: is too large for `kubectl apply`, which keeps a second copy of it in an annotation: \
             use `kubectl apply --server-side`"
        );
    }
    let json = json.map_err(|e| ManifestsError::Output(e.into()))?;
    writeln!(out, "{json}")
        .and_then(|()| out.flush())
        .map_err(ManifestsError::Output)
}

/// Kubernetes' own list of objects of any kind.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct List {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<Object>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Object {
    Namespace(Namespace),
    ServiceAccount(ServiceAccount),
    Role(Role),
    RoleBinding(RoleBinding),
    ConfigMap(ConfigMap),
    Deployment(Box<Deployment>),
    Service(Box<Service>),
    NetworkPolicy(NetworkPolicy),
}

impl List {
    fn of(items: Vec<Object>) -> List {
        List {
            api_version: "v1",
            kind: "List",
            items,
        }
    }

    fn is_too_large_to_apply(&self) -> bool {
        let large = |object: &Object| match object {
            Object::ConfigMap(map) => {
                serde_json::to_string(map).is_ok_and(|json| json.len() > MAX_APPLIED_BYTES)
            }
            _ => false,
        };
        self.items.iter().any(large)
    }
}

/// The namespace, and what runs the scheduler of each job component that is asked for, in the
/// file's order.
///
/// `text` is the file that `config` was parsed from: each scheduler gets it as it is, and takes its
/// own part from it.
pub fn list(
    config: &RadixConfig,
    text: &str,
    options: &ManifestsOptions,
) -> Result<List, ManifestsError> {
    let components = components(config, options)?;
    if options.shape == Shape::Beside {
        return Ok(sidecar::beside(&components, text));
    }
    // It is the same for all of them.
    let namespace = components
        .first()
        .map(|c| namespace(c, options.pod_security));
    let namespace = namespace.map(Object::Namespace);
    let mut items = Vec::from_iter(namespace);
    for component in &components {
        items.extend([
            Object::ServiceAccount(service_account(component)),
            Object::Role(role(component)),
            Object::RoleBinding(role_binding(component)),
            Object::ConfigMap(config_map(component, text)),
            Object::Deployment(Box::new(deployment(component, text, options))),
            Object::Service(Box::new(service(component))),
            Object::NetworkPolicy(network_policy(component)),
        ]);
        items.extend(identity_account(component).map(Object::ServiceAccount));
    }
    Ok(List::of(items))
}

/// The job components to run, each with an image.
fn components(
    config: &RadixConfig,
    options: &ManifestsOptions,
) -> Result<Vec<JobComponent>, ManifestsError> {
    let environment = &options.environment;
    let mut components = config
        .job_components(environment)
        .map_err(ManifestsError::Config)?;
    for name in &options.jobs {
        let found = config.job_component(environment, name);
        found.map_err(|cause| ManifestsError::Job {
            flag: "--job",
            cause,
        })?;
    }
    for (index, (name, _)) in options.images.iter().enumerate() {
        // One that is not asked for, or not enabled, does no harm: the flags may be the same for
        // every environment.
        if let Err(cause @ ConfigError::NoSuchJob { .. }) = config.job_component(environment, name)
        {
            return Err(ManifestsError::Job {
                flag: "--image",
                cause,
            });
        }
        let mut before = options.images.iter().take(index);
        if before.any(|(other, _)| other == name) {
            return Err(ManifestsError::ImageTwice { job: name.clone() });
        }
    }
    if !options.jobs.is_empty() {
        components.retain(|component| options.jobs.contains(&component.name));
    }
    if components.is_empty() {
        return Err(ManifestsError::NoJobs {
            file: options.file.display().to_string(),
            environment: environment.clone(),
        });
    }
    let without_image = components
        .iter()
        .filter(|c| c.settings.image.is_none() && image_of(c, options).is_none());
    let jobs: Vec<_> = without_image.map(|c| c.name.clone()).collect();
    match jobs.is_empty() {
        true => Ok(components),
        false => Err(ManifestsError::NoImage { jobs }),
    }
}

/// The image that the flags give a job component.
fn image_of<'o>(component: &JobComponent, options: &'o ManifestsOptions) -> Option<&'o str> {
    let mut images = options.images.iter();
    images
        .find(|(job, _)| *job == component.name)
        .map(|(_, image)| image.as_str())
}

/// The name of everything of a scheduler but its Service: `<component>-scheduler`.
///
/// A component's name that leaves no room for the ending is cut, and gets its checksum so that it
/// stays unlike others.
fn name(component: &JobComponent) -> String {
    let name = &component.name;
    if name.len() + NAME_SUFFIX.len() <= MAX_NAME {
        return format!("{name}{NAME_SUFFIX}");
    }
    let short = checksum(name.as_bytes()) & 0xffff_ffff;
    let ending = format!("-{short:08x}{NAME_SUFFIX}");
    let cut: String = name.chars().take(MAX_NAME - ending.len()).collect();
    format!("{}{ending}", cut.trim_end_matches('-'))
}

fn labels(component: &JobComponent) -> BTreeMap<String, String> {
    let mut labels = selector(component);
    labels.insert(PART_OF_LABEL.to_string(), component.app.clone());
    labels
}

/// The labels of a scheduler's pod, which no job's pod has.
fn selector(component: &JobComponent) -> BTreeMap<String, String> {
    BTreeMap::from([
        (NAME_LABEL.to_string(), SCHEDULER.to_string()),
        (INSTANCE_LABEL.to_string(), component.name.clone()),
    ])
}

fn metadata(component: &JobComponent, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(component.namespace()),
        labels: Some(labels(component)),
        ..ObjectMeta::default()
    }
}

fn namespace(component: &JobComponent, pod_security: PodSecurity) -> Namespace {
    let mut labels = BTreeMap::from([(PART_OF_LABEL.to_string(), component.app.clone())]);
    let profile = match pod_security {
        PodSecurity::None => None,
        PodSecurity::Baseline => Some("baseline"),
        PodSecurity::Restricted => Some("restricted"),
    };
    if let Some(profile) = profile {
        // With `warn`, a Deployment whose pods would be refused is told of as it is applied.
        for mode in ["enforce", "warn"] {
            let key = format!("pod-security.kubernetes.io/{mode}");
            labels.insert(key, profile.to_string());
        }
    }
    Namespace {
        metadata: ObjectMeta {
            name: Some(component.namespace()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}

fn service_account(component: &JobComponent) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(component, name(component)),
        ..ServiceAccount::default()
    }
}

/// The account of the jobs' pods, if they have an identity. It may do nothing in the cluster.
fn identity_account(component: &JobComponent) -> Option<ServiceAccount> {
    let identity = component.identity.as_ref()?;
    let mut metadata = metadata(component, component.identity_account()?);
    metadata.annotations = Some(BTreeMap::from([(
        AZURE_CLIENT_ANNOTATION.to_string(),
        identity.azure_client_id.clone(),
    )]));
    Some(ServiceAccount {
        metadata,
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    })
}

fn role(component: &JobComponent) -> Role {
    Role {
        metadata: metadata(component, name(component)),
        rules: Some(rules()),
    }
}

/// All that a scheduler may do. It can create Secrets and never read one.
fn rules() -> Vec<PolicyRule> {
    let list = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
    let rule = |group: &str, resource: &str, verbs: &[&str]| PolicyRule {
        api_groups: Some(list(&[group])),
        resources: Some(list(&[resource])),
        verbs: list(verbs),
        ..PolicyRule::default()
    };
    vec![
        rule(
            "batch",
            "jobs",
            &["create", "get", "list", "watch", "patch", "delete"],
        ),
        rule("", "pods", &["list", "watch"]),
        rule("", "pods/log", &["get"]),
        rule("", "services", &["create"]),
        rule("", "secrets", &["create"]),
    ]
}

fn role_binding(component: &JobComponent) -> RoleBinding {
    RoleBinding {
        metadata: metadata(component, name(component)),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".to_string(),
            kind: "Role".to_string(),
            name: name(component),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_string(),
            name: name(component),
            namespace: Some(component.namespace()),
            api_group: None,
        }]),
    }
}

fn config_map(component: &JobComponent, text: &str) -> ConfigMap {
    ConfigMap {
        metadata: metadata(component, name(component)),
        data: Some(BTreeMap::from([(
            CONFIG_FILE.to_string(),
            text.to_string(),
        )])),
        ..ConfigMap::default()
    }
}

fn deployment(component: &JobComponent, text: &str, options: &ManifestsOptions) -> Deployment {
    let checksum = format!("{:016x}", checksum(text.as_bytes()));
    Deployment {
        metadata: metadata(component, name(component)),
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            // Two schedulers of one component would both let jobs go and both admit jobs: the old
            // one ends first.
            strategy: Some(DeploymentStrategy {
                type_: Some("Recreate".to_string()),
                rolling_update: None,
            }),
            selector: LabelSelector {
                match_labels: Some(selector(component)),
                match_expressions: None,
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(component)),
                    annotations: Some(BTreeMap::from([
                        (CHECKSUM_ANNOTATION.to_string(), checksum),
                        ("prometheus.io/scrape".to_string(), "true".to_string()),
                        ("prometheus.io/path".to_string(), "/metrics".to_string()),
                        (
                            "prometheus.io/port".to_string(),
                            component.scheduler_port.to_string(),
                        ),
                    ])),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod_spec(component, options)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn pod_spec(component: &JobComponent, options: &ManifestsOptions) -> PodSpec {
    let pull_secrets: Vec<_> = options
        .image_pull_secrets
        .iter()
        .map(|name| LocalObjectReference { name: name.clone() })
        .collect();
    PodSpec {
        service_account_name: Some(name(component)),
        // Said here, so that it holds whatever the cluster's default is.
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_string(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(component, options)],
        volumes: Some(vec![Volume {
            name: CONFIG_VOLUME.to_string(),
            config_map: Some(ConfigMapVolumeSource {
                name: name(component),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        }]),
        ..PodSpec::default()
    }
}

fn container(component: &JobComponent, options: &ManifestsOptions) -> Container {
    Container {
        name: SCHEDULER.to_string(),
        image: Some(options.scheduler_image.clone()),
        args: Some(arguments(component, options)),
        // So that `kubectl exec … -- /job-scheduler list` knows whom to ask.
        env: Some(vec![EnvVar {
            name: "JOB_SCHEDULER_URL".to_string(),
            value: Some(format!("http://127.0.0.1:{}", component.scheduler_port)),
            value_from: None,
        }]),
        ports: Some(vec![ContainerPort {
            name: Some(PORT_NAME.to_string()),
            container_port: i32::from(component.scheduler_port),
            protocol: Some("TCP".to_string()),
            ..ContainerPort::default()
        }]),
        // Asked every second so that a scheduler which has listed its jobs is used at once. It is
        // read from memory.
        readiness_probe: Some(Probe {
            period_seconds: Some(1),
            timeout_seconds: Some(2),
            ..probe("/health/ready")
        }),
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            timeout_seconds: Some(5),
            ..probe("/health/live")
        }),
        resources: Some(resources()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_string()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: CONFIG_VOLUME.to_string(),
            mount_path: CONFIG_FOLDER.to_string(),
            read_only: Some(true),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

/// The scheduler's command line. The image's entry point is the program.
fn arguments(component: &JobComponent, options: &ManifestsOptions) -> Vec<String> {
    let mut arguments = vec![
        "serve".to_string(),
        format!("--app={}", component.app),
        format!("--environment={}", component.environment),
        format!("--component={}", component.name),
        format!("--config={CONFIG_FOLDER}/{CONFIG_FILE}"),
    ];
    let image = image_of(component, options).map(|image| format!("--image={image}"));
    let secrets = options.image_pull_secrets.iter();
    arguments.extend(image);
    arguments.extend(secrets.map(|name| format!("--image-pull-secret={name}")));
    let passed = options.passed.iter();
    arguments.extend(passed.map(|(flag, value)| format!("--{flag}={value}")));
    arguments
}

fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_string()),
            port: IntOrString::String(PORT_NAME.to_string()),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}

/// No limit on CPU: the scheduler needs next to none of it, and a burst of requests should not be
/// throttled.
fn resources() -> ResourceRequirements {
    let memory = |text: &str| ("memory".to_string(), Quantity(text.to_string()));
    ResourceRequirements {
        requests: Some(BTreeMap::from([
            ("cpu".to_string(), Quantity("10m".to_string())),
            memory("16Mi"),
        ])),
        limits: Some(BTreeMap::from([memory("128Mi")])),
        claims: None,
    }
}

/// Named exactly as the component: that is the host name which the application's other components
/// know.
fn service(component: &JobComponent) -> Service {
    Service {
        metadata: metadata(component, component.name.clone()),
        spec: Some(ServiceSpec {
            selector: Some(selector(component)),
            ports: Some(vec![ServicePort {
                name: Some(PORT_NAME.to_string()),
                port: i32::from(component.scheduler_port),
                protocol: Some("TCP".to_string()),
                target_port: Some(IntOrString::String(PORT_NAME.to_string())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Lets only pods of the same namespace, which is one environment of one application, reach the
/// scheduler.
fn network_policy(component: &JobComponent) -> NetworkPolicy {
    NetworkPolicy {
        metadata: metadata(component, name(component)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(selector(component)),
                match_expressions: None,
            }),
            policy_types: Some(vec!["Ingress".to_string()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                from: Some(vec![NetworkPolicyPeer {
                    pod_selector: Some(LabelSelector::default()),
                    ..NetworkPolicyPeer::default()
                }]),
                ports: None,
            }]),
            egress: None,
        }),
    }
}

/// FNV-1a, 64 bits: tells one text from another, on every machine and in every version the same.
/// Nothing depends on it being hard to forge, so it needs no cryptographic hash, and the standard
/// library's may change.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::kubernetes::{APP_LABEL, COMPONENT_LABEL, MANAGED_BY_LABEL};
    use crate::cli::{self, Command};
    use crate::golden;

    /// What the command line makes of a file of `testdata/manifests`.
    fn list_of(file: &str, flags: &str) -> Result<List, String> {
        let path = golden::testdata(&format!("manifests/{file}"));
        let bytes = std::fs::read(path).unwrap();
        list_of_text(&format!("{file} {flags}"), &bytes)
    }

    fn list_of_text(arguments: &str, bytes: &[u8]) -> Result<List, String> {
        let line = format!("manifests {arguments} --scheduler-image registry.example.com/js:1");
        let arguments = line.split_whitespace().map(Into::into);
        let Ok(Command::Manifests(options)) = cli::parse(arguments, |_| None) else {
            panic!("{line}")
        };
        let config = config::parse(&options.file.display().to_string(), bytes).unwrap();
        let text = std::str::from_utf8(bytes).unwrap();
        list(&config, text, &options).map_err(|e| {
            assert!(e.is_configuration());
            e.to_string()
        })
    }

    fn component(name: &str) -> JobComponent {
        let text = format!(
            "{{metadata: {{name: a}}, spec: {{environments: [{{name: dev}}], jobs: [{{name: {name}, schedulerPort: 8000}}]}}}}"
        );
        let config = config::parse("f", text.as_bytes()).unwrap();
        config.job_component("dev", name).unwrap()
    }

    #[test]
    fn the_objects_of_one_job_component() {
        golden::check(
            "manifests-one",
            &list_of("one.yaml", "--environment dev").unwrap(),
        );
    }

    #[test]
    fn the_objects_of_several_job_components_with_every_flag() {
        let flags = "--environment dev --image etl=registry.example.com/etl:2 --image-pull-secret hub \
                     --image-pull-secret mirror";
        golden::check(
            "manifests-several",
            &list_of("several.yaml", flags).unwrap(),
        );
    }

    #[test]
    fn an_environment_has_its_own_settings_and_components() {
        golden::check(
            "manifests-prod",
            &list_of("several.yaml", "--environment prod").unwrap(),
        );
    }

    #[test]
    fn an_identity_is_an_account_of_the_jobs() {
        let flags = "--environment prod --image compute=registry.example.com/compute:1";
        golden::check("manifests-radix", &list_of("radix.yaml", flags).unwrap());
    }

    #[test]
    fn what_sidecars_need_and_the_patch_that_adds_them() {
        let beside = "--environment dev --image etl=e:1 --sidecar";
        golden::check(
            "manifests-sidecar",
            &list_of("several.yaml", beside).unwrap(),
        );
        let line = "manifests f --environment dev --image etl=e:1 --sidecar-patch --max-running 2 \
                    --image-pull-secret hub --scheduler-image registry.example.com/js:1";
        let parsed = cli::parse(line.split_whitespace().map(Into::into), |_| None);
        let Ok(Command::Manifests(options)) = parsed else {
            panic!("{parsed:?}")
        };
        let text = std::fs::read_to_string(golden::testdata("manifests/several.yaml")).unwrap();
        let config = config::parse("f", text.as_bytes()).unwrap();
        let patch = sidecar::patch(&components(&config, &options).unwrap(), &text, &options);
        golden::check("manifests-sidecar-patch", &patch);
    }

    #[test]
    fn a_namespace_enforces_the_profile_that_is_asked_for() {
        let labels = |flags: &str| {
            let items = list_of("one.yaml", &format!("--environment dev {flags}"))
                .unwrap()
                .items;
            match items.into_iter().next() {
                Some(Object::Namespace(namespace)) => namespace.metadata.labels.unwrap(),
                other => panic!("{other:?}"),
            }
        };
        let enforced = "pod-security.kubernetes.io/enforce";
        assert_eq!(labels("")[enforced], "restricted");
        assert_eq!(labels("--pod-security baseline")[enforced], "baseline");
        assert_eq!(labels("--pod-security none").get(enforced), None);
    }

    #[test]
    fn only_the_jobs_asked_for() {
        let names = |flags: &str| -> Vec<String> {
            let items = list_of("several.yaml", flags).unwrap().items;
            let services = items.into_iter().filter_map(|item| match item {
                Object::Service(service) => service.metadata.name,
                _ => None,
            });
            services.collect()
        };
        assert_eq!(names("--environment dev --job compute"), ["compute"]);
        let both = "--environment dev --job etl --job compute --job etl --image etl=e";
        assert_eq!(names(both), ["compute", "etl"]);
        // The same images for every environment.
        assert_eq!(names("--environment prod --image etl=e"), ["compute"]);
    }

    #[test]
    fn errors_name_the_flag_and_the_fix() {
        #[track_caller]
        fn check(flags: &str, expected: &str) {
            assert_eq!(
                list_of("several.yaml", flags).err().as_deref(),
                Some(expected)
            );
        }
        check(
            "--environment dev",
            "no image is known for etl: set `image`, or, for a job component that is built from `src`, say which \
             image that gave with --image etl=REF",
        );
        check(
            "--environment dev --image comput=c",
            "--image: several.yaml: spec.jobs: there is no job component `comput`: did you mean `compute`?",
        );
        check(
            "--environment dev --job et",
            "--job: several.yaml: spec.jobs: there is no job component `et`: did you mean `etl`?",
        );
        check(
            "--environment prod --job etl",
            "--job: several.yaml: spec.jobs[etl].enabled: the job component is not enabled in `prod`: \
             set `enabled: true` there to run it",
        );
        check(
            "--environment test",
            "several.yaml: spec.environments: there is no environment `test`: give one of dev, prod, idle",
        );
        check(
            "--environment idle",
            "several.yaml: spec.jobs: no job component is enabled in `idle`, so there is nothing to run",
        );
        check(
            "--environment dev --image etl=a --image etl=b",
            "--image etl=… is given twice: give it once",
        );
    }

    #[test]
    fn names_fit_and_stay_apart() {
        assert_eq!(name(&component("compute")), "compute-scheduler");
        let longest_uncut = "a".repeat(53);
        assert_eq!(
            name(&component(&longest_uncut)),
            format!("{longest_uncut}-scheduler")
        );
        let mut names: Vec<_> = (54..=63)
            .flat_map(|length| ["x", "y"].map(|end| "a".repeat(length - 1) + end))
            .chain(["a".repeat(43) + "-" + &"b".repeat(19)])
            .map(|component_name| name(&component(&component_name)))
            .collect();
        for name in &names {
            assert!(name.len() <= MAX_NAME && !name.contains("--"), "{name}");
        }
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    /// A job selector asks for all three labels of a job, so a pod without one of them is never
    /// taken for a job's.
    #[test]
    fn a_scheduler_is_never_taken_for_a_job_nor_a_job_for_a_scheduler() {
        let labels_of_jobs = [MANAGED_BY_LABEL.0, APP_LABEL, COMPONENT_LABEL];
        for key in labels(&component("compute")).keys() {
            assert!(!labels_of_jobs.contains(&key.as_str()), "{key}");
        }
    }

    #[test]
    fn the_scheduler_understands_its_own_arguments() {
        let items = list_of(
            "several.yaml",
            "--environment dev --image etl=e:1 --image-pull-secret a --image-pull-secret b --max-running 3 \
             --max-waiting 4 --max-jobs 5 --history-limit 6 --log-level debug --log-format json",
        );
        let Some(Object::Deployment(deployment)) = items.unwrap().items.into_iter().nth(12) else {
            panic!("the 6th of the second component's objects is its Deployment");
        };
        let spec = deployment.spec.and_then(|spec| spec.template.spec).unwrap();
        let arguments = spec.containers[0].args.clone().unwrap();
        let parsed = cli::parse(arguments.into_iter().map(Into::into), |_| None);
        let Ok(Command::Serve(options)) = parsed else {
            panic!("{parsed:?}")
        };
        assert_eq!(options.app.as_deref(), Some("shop"));
        assert_eq!(options.component, "etl");
        assert_eq!(options.environment, "dev");
        assert_eq!(options.image.as_deref(), Some("e:1"));
        assert_eq!(options.image_pull_secrets, ["a", "b"]);
        let limits = [
            options.max_running,
            options.max_waiting,
            options.max_jobs,
            options.history_limit,
        ];
        assert_eq!(limits, [3, 4, 5, 6]);
        assert_eq!(options.logging.level, log::LevelFilter::Debug);
        assert_eq!(options.logging.format, crate::logging::Format::Json);
        assert_eq!(
            options.config.to_str(),
            Some("/etc/job-scheduler/radixconfig.yaml")
        );
    }

    #[test]
    fn the_pods_change_with_the_file_and_only_then() {
        // Source of the values: <http://www.isthe.com/chongo/tech/comp/fnv/>
        assert_eq!(checksum(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(checksum(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(checksum(b"foobar"), 0x8594_4171_f739_67e8);
        let template = |text: &str| {
            let list = list_of_text("f --environment dev --image compute=c", text.as_bytes());
            let items = list.unwrap().items;
            let deployment = items.into_iter().find_map(|item| match item {
                Object::Deployment(deployment) => deployment.spec,
                _ => None,
            });
            deployment.unwrap().template
        };
        let text = std::fs::read_to_string(golden::testdata("manifests/one.yaml")).unwrap();
        assert_eq!(template(&text), template(&text));
        assert_ne!(template(&text), template(&(text.clone() + "# more\n")));
    }

    #[test]
    fn a_file_that_kubectl_cannot_keep_twice_is_told_of() {
        let text = std::fs::read_to_string(golden::testdata("manifests/one.yaml")).unwrap();
        let too_large = |size: usize| {
            let text = format!("{text}#{}\n", "x".repeat(size));
            let list = list_of_text("f --environment dev", text.as_bytes());
            list.unwrap().is_too_large_to_apply()
        };
        assert!(!too_large(200_000));
        assert!(too_large(255_000));
    }
}
