//! What a scheduler is configured to, as JSON: of secrets, the names.

use super::reply::Reply;
use crate::config::{FailureRule, Node, Quantity, Runtime, StatusRule, VolumeMount, VolumeSource};
use crate::scheduler::{Scheduler, Sibling};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Component<'a> {
    app: &'a str,
    environment: &'a str,
    name: &'a str,
    version: &'static str,
    scheduler_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_tag_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_limit_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backoff_limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_policy: Option<Policy<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    safe_to_restart: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Resources<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Gpus<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<Place<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_as_user: Option<u32>,
    read_only_file_system: bool,
    volume_mounts: Vec<Mount<'a>>,
    batch_status_rules: Vec<BatchRule>,
    variables: &'a BTreeMap<String, String>,
    secrets: &'a [String],
    ports: BTreeMap<&'a str, u16>,
    limits: Limits,
    siblings: Vec<Beside<'a>>,
}

#[derive(Serialize)]
struct Resources<'a> {
    requests: BTreeMap<&'a str, String>,
    limits: BTreeMap<&'a str, String>,
}

#[derive(Serialize)]
struct Policy<'a> {
    rules: Vec<Rule<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule<'a> {
    action: &'static str,
    on_exit_codes: Codes<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BatchRule {
    condition: &'static str,
    operator: &'static str,
    job_statuses: Vec<&'static str>,
    batch_status: &'static str,
}

#[derive(Serialize)]
struct Codes<'a> {
    operator: &'static str,
    values: &'a [i32],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Gpus<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu: Option<&'a str>,
    /// Text, as in radixconfig.yaml.
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu_count: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Place<'a> {
    Architecture(&'static str),
    NodeType(&'a str),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mount<'a> {
    name: &'a str,
    path: &'a str,
    #[serde(flatten)]
    source: Source<'a>,
}

/// One of them, under the name that radixconfig.yaml has for it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Source<'a> {
    EmptyDir(EmptyDir),
    #[serde(rename_all = "camelCase")]
    PersistentVolumeClaim {
        claim_name: &'a str,
        read_only: bool,
    },
    ConfigMap {
        name: &'a str,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EmptyDir {
    #[serde(skip_serializing_if = "Option::is_none")]
    size_limit: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Limits {
    history: usize,
    jobs: usize,
    /// 0 is as many as there are.
    running: usize,
    waiting: usize,
}

#[derive(Serialize)]
struct Beside<'a> {
    name: &'a str,
    url: &'a str,
}

pub fn reply(scheduler: &Scheduler) -> Reply {
    let component = scheduler.component();
    let (settings, limits) = (&component.settings, scheduler.limits());
    let (ports, siblings) = (component.ports.iter(), scheduler.siblings().iter());
    Reply::json(
        200,
        &Component {
            app: &component.app,
            environment: &component.environment,
            name: &component.name,
            version: env!("CARGO_PKG_VERSION"),
            scheduler_port: component.scheduler_port,
            payload_path: component.payload_path.as_deref(),
            image: settings.image.as_deref(),
            image_tag_name: settings.image_tag_name.as_deref(),
            command: settings.command.as_deref(),
            args: settings.args.as_deref(),
            time_limit_seconds: settings.time_limit_seconds,
            backoff_limit: settings.backoff_limit,
            failure_policy: settings.failure_policy.as_ref().map(|policy| Policy {
                rules: policy.rules.iter().map(rule).collect(),
            }),
            safe_to_restart: settings.safe_to_restart,
            resources: settings.resources.as_ref().map(|resources| Resources {
                requests: texts(&resources.requests),
                limits: texts(&resources.limits),
            }),
            node: settings.node.as_ref().map(|Node { gpu, gpu_count }| Gpus {
                gpu: gpu.as_deref(),
                gpu_count: gpu_count.map(|count| count.to_string()),
            }),
            runtime: settings.runtime.as_ref().and_then(|runtime| match runtime {
                Runtime::Any => None,
                Runtime::Architecture(architecture) => {
                    Some(Place::Architecture(architecture.as_str()))
                }
                Runtime::NodeType(name) => Some(Place::NodeType(name)),
            }),
            run_as_user: settings.run_as_user,
            read_only_file_system: component.read_only_file_system,
            volume_mounts: component.volume_mounts.iter().map(mount).collect(),
            batch_status_rules: component
                .batch_status_rules
                .iter()
                .map(batch_rule)
                .collect(),
            variables: &settings.variables,
            secrets: &component.secrets,
            ports: ports.map(|port| (port.name.as_str(), port.port)).collect(),
            limits: Limits {
                history: limits.history,
                jobs: limits.bounds.unfinished,
                running: limits.bounds.running,
                waiting: limits.bounds.waiting,
            },
            siblings: siblings
                .map(|Sibling { name, url }| Beside { name, url })
                .collect(),
        },
    )
}

fn rule(rule: &FailureRule) -> Rule<'_> {
    let (operator, values) = rule.on_exit_codes.parts();
    Rule {
        action: rule.action.as_str(),
        on_exit_codes: Codes { operator, values },
    }
}

fn batch_rule(rule: &StatusRule) -> BatchRule {
    BatchRule {
        condition: rule.condition.as_str(),
        operator: rule.operator.as_str(),
        job_statuses: rule.job_statuses.iter().map(|s| s.as_str()).collect(),
        batch_status: rule.batch_status.as_str(),
    }
}

fn mount(mount: &VolumeMount) -> Mount<'_> {
    Mount {
        name: &mount.name,
        path: &mount.path,
        source: match &mount.source {
            VolumeSource::EmptyDir { size_limit } => Source::EmptyDir(EmptyDir {
                size_limit: size_limit.as_ref().map(Quantity::to_string),
            }),
            VolumeSource::PersistentVolumeClaim {
                claim_name,
                read_only,
            } => Source::PersistentVolumeClaim {
                claim_name,
                read_only: read_only.unwrap_or(false),
            },
            VolumeSource::ConfigMap { name } => Source::ConfigMap { name },
        },
    }
}

fn texts(quantities: &BTreeMap<String, Quantity>) -> BTreeMap<&str, String> {
    let texts = quantities.iter();
    texts
        .map(|(name, quantity)| (name.as_str(), quantity.to_string()))
        .collect()
}
