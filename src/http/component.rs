//! What a scheduler is configured to, as JSON: of secrets, the names.

use super::reply::Reply;
use crate::config::Quantity;
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
    command: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_limit_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backoff_limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Resources<'a>>,
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
            command: settings.command.as_deref(),
            args: settings.args.as_deref(),
            time_limit_seconds: settings.time_limit_seconds,
            backoff_limit: settings.backoff_limit,
            resources: settings.resources.as_ref().map(|resources| Resources {
                requests: texts(&resources.requests),
                limits: texts(&resources.limits),
            }),
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

fn texts(quantities: &BTreeMap<String, Quantity>) -> BTreeMap<&str, String> {
    let texts = quantities.iter();
    texts
        .map(|(name, quantity)| (name.as_str(), quantity.to_string()))
        .collect()
}
