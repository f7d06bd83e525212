//! `spec.jobs[]`: what a job component and its `environmentConfig` say, and the two laid over one
//! another.

use super::batch_rules::{StatusRule, batch_status_rules};
use super::fields::{Fields, Item, Report};
use super::image::has_placeholder;
use super::read::read_settings;
use super::settings::pick;
use super::suggestion::suggestion;
use super::volume::{self, volume_mounts};
use super::{Identity, JobComponent, Monitoring, Port, Settings, VolumeMount, names};
use std::collections::BTreeSet;

/// What a job does not have, and why.
const REFUSED: [(&str, &str); 5] = [
    (
        "publicPort",
        "a job cannot be exposed to the Internet: remove it",
    ),
    (
        "ingressConfiguration",
        "a job cannot be exposed to the Internet: remove it",
    ),
    ("replicas", "a job always has one replica: remove it"),
    (
        "horizontalScaling",
        "a job always has one replica: remove it",
    ),
    (
        "alwaysPullImageOnDeploy",
        "a job always pulls its image when it starts: remove it",
    ),
];

/// What Radix has for jobs and this scheduler does not.
const UNSERVED: [(&str, &str); 7] = [
    ("authentication", NO_EFFECT),
    ("cron", NO_EFFECT),
    ("healthChecks", NO_EFFECT),
    ("network", NO_EFFECT),
    ("notifications", NO_EFFECT),
    ("runAsNonRoot", "has no effect: a job never runs as root"),
    (
        "secretRefs",
        "has no effect, since no Azure Key Vault is read: name the variables in `secrets`, and put \
         their values in a Secret that has the job component's name",
    ),
];
const NO_EFFECT: &str = "has no effect: this scheduler does not serve it";

/// How the image is built, which happens elsewhere: what image that gave is not in this file.
const BUILT_ELSEWHERE: [&str; 2] = ["src", "dockerfileName"];

/// Items of a list of a job component, which all are looked at with one another.
pub const MAX_ITEMS: usize = 100;
/// Where metrics are, by custom and by Radix's default.
const METRICS_PATH: &str = "/metrics";

/// One of `spec.jobs`.
#[derive(Clone, Debug)]
pub struct Job {
    pub name: String,
    field: String,
    line: u32,
    base: Level,
    environments: Vec<Override>,
}

/// One of a job's `environmentConfig`.
#[derive(Clone, Debug)]
struct Override {
    environment: String,
    field: String,
    line: u32,
    level: Level,
}

/// What a job component and an environment of it may both say. `None` is not said.
#[derive(Clone, Debug, Default)]
struct Level {
    enabled: Option<bool>,
    scheduler_port: Option<u16>,
    payload_path: Option<String>,
    ports: Option<Vec<Port>>,
    secrets: Option<Vec<String>>,
    volume_mounts: Vec<VolumeMount>,
    identity: Option<Identity>,
    monitoring: Option<bool>,
    monitoring_config: Option<MonitoringConfig>,
    read_only_file_system: Option<bool>,
    batch_status_rules: Option<Vec<StatusRule>>,
    settings: Settings,
}

/// `monitoringConfig`, as it is written.
#[derive(Clone, Debug, Default)]
struct MonitoringConfig {
    port_name: Option<String>,
    path: Option<String>,
}

impl Job {
    /// Reads a job component. It is `None` if even its name is wrong; the report knows whether the
    /// rest is right.
    pub fn read(mut item: Item<'_>, environments: &[String]) -> Option<Job> {
        item.name_by("name");
        let mut fields = item.mapping()?;
        let name = fields
            .require("name", "give the job component's name, such as compute")
            .and_then(|item| item.parsed(names::service_name));
        fields.leave(&BUILT_ELSEWHERE);
        let has_port = fields.has("schedulerPort");
        let base = Level::read(&mut fields);
        if !has_port {
            fields.missing(
                "schedulerPort",
                "give the port that the job component's scheduler listens on, such as 8000",
            );
        }
        let mut overrides: Vec<Override> = Vec::new();
        let items = fields
            .take("environmentConfig")
            .and_then(|item| item.items_within(0..=MAX_ITEMS));
        for item in items.into_iter().flatten() {
            let Some(over) = Override::read(item, environments) else {
                continue;
            };
            if overrides.iter().any(|o| o.environment == over.environment) {
                let message = format!(
                    "environment `{}` is there twice: make one of them",
                    over.environment
                );
                fields.report().error(&over.field, over.line, message);
            } else {
                overrides.push(over);
            }
        }
        let (field, line) = (fields.field.clone(), fields.line);
        fields.finish();
        Some(Job {
            name: name?,
            field,
            line,
            base,
            environments: overrides,
        })
    }

    fn over(&self, environment: &str) -> Option<&Override> {
        self.environments
            .iter()
            .find(|over| over.environment == environment)
    }

    /// Whether the job component is to be there in the environment.
    pub fn is_enabled(&self, environment: &str) -> bool {
        let over = self.over(environment).and_then(|over| over.level.enabled);
        over.or(self.base.enabled).unwrap_or(true)
    }

    /// The job component in an environment. `None` if it has no port, which is an error of the
    /// file.
    pub fn resolved(&self, app: &str, environment: &str) -> Option<JobComponent> {
        let level = self.over(environment).map(|over| &over.level);
        self.with(level, app, environment)
    }

    fn with(&self, over: Option<&Level>, app: &str, environment: &str) -> Option<JobComponent> {
        let nothing = Level::default();
        let over = over.unwrap_or(&nothing);
        let base = &self.base;
        let scheduler_port = over.scheduler_port.or(base.scheduler_port)?;
        Some(JobComponent {
            app: app.to_owned(),
            environment: environment.to_owned(),
            name: self.name.clone(),
            scheduler_port,
            scheduler_url: Some(format!("http://{}:{scheduler_port}", self.name)),
            payload_path: pick(&over.payload_path, &base.payload_path),
            ports: pick(&over.ports, &base.ports).unwrap_or_default(),
            secrets: pick(&over.secrets, &base.secrets).unwrap_or_default(),
            volume_mounts: volume::merged(&base.volume_mounts, &over.volume_mounts),
            identity: pick(&over.identity, &base.identity),
            monitoring: self.monitoring(over).unwrap_or_default(),
            read_only_file_system: pick(&over.read_only_file_system, &base.read_only_file_system)
                .unwrap_or(false),
            batch_status_rules: pick(&over.batch_status_rules, &base.batch_status_rules)
                .unwrap_or_default(),
            settings: base.settings.in_environment(&over.settings),
        })
    }

    /// Where the metrics of a running job are, if anybody is to read them.
    fn monitoring(&self, over: &Level) -> Result<Option<Monitoring>, String> {
        let base = &self.base;
        if over.monitoring.or(base.monitoring) != Some(true) {
            return Ok(None);
        }
        let ports = pick(&over.ports, &base.ports).unwrap_or_default();
        let config = pick(&over.monitoring_config, &base.monitoring_config).unwrap_or_default();
        let port = match &config.port_name {
            Some(name) => ports
                .iter()
                .find(|port| port.name == *name)
                .ok_or_else(|| {
                    format!(
                        "monitoringConfig.portName: `{name}` is not one of `ports`: add it there"
                    )
                })?,
            None => ports
                .first()
                .ok_or("monitoring: needs one of `ports` to read the metrics from: add it")?,
        };
        Ok(Some(Monitoring {
            port: port.port,
            path: config.path.unwrap_or(METRICS_PATH.to_owned()),
        }))
    }

    /// What parts of the component have against one another, in it alone or with an environment's.
    fn conflicts(&self, over: &Level) -> Vec<String> {
        let mut conflicts = self
            .with(Some(over), "", "")
            .map(|component| component.conflicts())
            .unwrap_or_default();
        conflicts.extend(self.monitoring(over).err());
        conflicts.extend(volume::clashes(
            &self.base.volume_mounts,
            &over.volume_mounts,
        ));
        conflicts
    }

    /// Reports what is wrong only where parts of a job component come together, in it alone or with
    /// an environment's.
    pub fn check(&self, environments: &[String], report: &Report) {
        // Without a port there is an error already.
        let Some(base) = self.with(None, "", "") else {
            return;
        };
        let wrong = self.conflicts(&Level::default());
        for message in &wrong {
            report.error(&self.field, self.line, message);
        }
        if base.lacks_tag() && self.environments.len() < environments.len() {
            report.warn(&self.field, self.line, LACKS_TAG);
        }
        for over in &self.environments {
            let Some(component) = self.with(Some(&over.level), "", "") else {
                continue;
            };
            for message in self.conflicts(&over.level) {
                if !wrong.contains(&message) {
                    report.error(&over.field, over.line, message);
                }
            }
            if component.lacks_tag() {
                report.warn(&over.field, over.line, LACKS_TAG);
            }
        }
    }
}

const LACKS_TAG: &str =
    "imageTagName is not set, and the image has `{imageTagName}`: each request must give one";

impl JobComponent {
    fn lacks_tag(&self) -> bool {
        let image = self.settings.image.as_deref();
        image.is_some_and(has_placeholder) && self.settings.image_tag_name.is_none()
    }

    /// What its parts have against one another.
    fn conflicts(&self) -> Vec<String> {
        let mut conflicts = Vec::new();
        for name in &self.secrets {
            if self.settings.variables.contains_key(name) {
                conflicts.push(format!(
                    "`{name}` is both a variable and a secret: rename one"
                ));
            }
        }
        for (index, mount) in self.volume_mounts.iter().enumerate() {
            let (name, path) = (&mount.name, &mount.path);
            let mut others = self.volume_mounts.iter().take(index);
            if let Some(other) = others.find(|other| other.path == *path) {
                let other = &other.name;
                conflicts.push(format!(
                    "the volume mounts `{other}` and `{name}` have the same path {path}: change one"
                ));
            }
            let payload = self.payload_path.as_deref();
            if payload.is_some_and(|payload| names::is_inside(path, payload)) {
                conflicts.push(format!(
                    "the volume mount `{name}` is in payload.path, which is read-only: change its path {path}"
                ));
            }
        }
        conflicts
    }
}

impl Override {
    fn read(mut item: Item<'_>, environments: &[String]) -> Option<Override> {
        item.name_by("environment");
        let mut fields = item.mapping()?;
        let environment = fields
            .require("environment", "give one of spec.environments")
            .and_then(|item| item.parsed(|text| known_environment(text, environments)));
        // As in Radix, it says nothing, where a job's request ends what the component asks for.
        if fields.is_empty_mapping("resources") {
            fields.leave(&["resources"]);
        }
        let level = Level::read(&mut fields);
        fields.refuse(&[("name", "is the same in every environment: remove it")]);
        fields.leave(&BUILT_ELSEWHERE);
        let (field, line) = (fields.field.clone(), fields.line);
        fields.finish();
        Some(Override {
            environment: environment?,
            field,
            line,
            level,
        })
    }
}

fn known_environment(text: &str, environments: &[String]) -> Result<String, String> {
    if environments.iter().any(|known| known == text) {
        return Ok(text.to_owned());
    }
    let known = environments.iter().map(String::as_str);
    let text = super::tree::shown(text);
    Err(match suggestion(&text, known) {
        Some(name) => format!("`{text}` is not in spec.environments: did you mean `{name}`?"),
        None => format!(
            "`{text}` is not in spec.environments, which has {}",
            environments.join(", ")
        ),
    })
}

impl Level {
    fn read(fields: &mut Fields<'_>) -> Level {
        fields.refuse(&REFUSED);
        fields.unserved(&UNSERVED);
        Level {
            enabled: fields.take("enabled").and_then(Item::boolean),
            scheduler_port: fields
                .take("schedulerPort")
                .and_then(|item| item.integer(1024..=65535)),
            payload_path: fields.take("payload").and_then(payload_path),
            ports: fields.take("ports").and_then(ports),
            secrets: fields.take("secrets").and_then(secrets),
            volume_mounts: fields
                .take("volumeMounts")
                .and_then(volume_mounts)
                .unwrap_or_default(),
            identity: fields.take("identity").and_then(identity),
            monitoring: fields.take("monitoring").and_then(Item::boolean),
            monitoring_config: fields.take("monitoringConfig").and_then(monitoring_config),
            read_only_file_system: fields.take("readOnlyFileSystem").and_then(Item::boolean),
            batch_status_rules: fields.take("batchStatusRules").and_then(batch_status_rules),
            settings: read_settings(fields),
        }
    }
}

fn payload_path(item: Item<'_>) -> Option<String> {
    if item.is_text() {
        item.error("must be a mapping, such as `payload: {path: /compute/args}`");
        return None;
    }
    let mut fields = item.mapping()?;
    let path = fields
        .require(
            "path",
            "give the folder to mount the payload in, such as /compute/args",
        )
        .and_then(|item| item.parsed(names::folder));
    fields.finish();
    path
}

fn ports(item: Item<'_>) -> Option<Vec<Port>> {
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let mut ports = Vec::new();
    for item in item.items_within(0..=MAX_ITEMS)? {
        let Some(mut fields) = item.mapping() else {
            continue;
        };
        let name = fields
            .require("name", "give the port a name, such as http")
            .and_then(|item| item.parsed(names::port_name));
        let port = fields
            .require("port", "give the port's number, such as 3000")
            .and_then(|item| item.integer(1..=65535));
        if let Some(name) = &name
            && !names.insert(name.clone())
        {
            fields.error(format!("the port name `{name}` is there twice: rename one"));
        }
        if let Some(port) = port
            && !numbers.insert(port)
        {
            fields.error(format!("the port {port} is there twice: remove one"));
        }
        fields.finish();
        if let (Some(name), Some(port)) = (name, port) {
            ports.push(Port { name, port });
        }
    }
    Some(ports)
}

fn secrets(item: Item<'_>) -> Option<Vec<String>> {
    let mut secrets: Vec<String> = Vec::new();
    let mut seen = BTreeSet::new();
    for item in item.items_within(0..=MAX_ITEMS)? {
        let (report, field, line) = item.place();
        let Some(name) = item.parsed(names::secret_name) else {
            continue;
        };
        if seen.insert(name.clone()) {
            secrets.push(name);
        } else {
            report.error(&field, line, format!("`{name}` is there twice: remove one"));
        }
    }
    Some(secrets)
}

fn identity(item: Item<'_>) -> Option<Identity> {
    let mut fields = item.mapping()?;
    let client_id = fields
        .require("azure", "give `azure: {clientId: …}`, or remove `identity`")
        .and_then(Item::mapping)
        .and_then(|mut azure| {
            let client_id = azure
                .require("clientId", "give the client id of the managed identity")
                .and_then(|item| item.parsed(names::uuid));
            azure.finish();
            client_id
        });
    fields.finish();
    Some(Identity {
        azure_client_id: client_id?,
    })
}

fn monitoring_config(item: Item<'_>) -> Option<MonitoringConfig> {
    let mut fields = item.mapping()?;
    let config = MonitoringConfig {
        port_name: fields
            .take("portName")
            .and_then(|item| item.parsed(names::port_name)),
        path: fields
            .take("path")
            .and_then(|item| item.parsed(names::url_path)),
    };
    fields.finish();
    Some(config)
}
