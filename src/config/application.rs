//! The whole `radixconfig.yaml`: reading the file, and picking job components from it.

use super::component::Job;
use super::error::{ConfigError, Warning};
use super::fields::{Fields, Item, Report};
use super::suggestion::suggestion;
use super::yaml::{self, YamlError};
use super::{JobComponent, names};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The most that a `radixconfig.yaml` may have: what a ConfigMap can hold.
pub const MAX_FILE_BYTES: usize = 1 << 20;

const API_VERSION: &str = "radix.equinor.com/v1";
const KIND: &str = "RadixApplication";
/// Parts of `spec` that are about other things than jobs.
const OTHER_SECTIONS: [&str; 9] = [
    "build",
    "components",
    "dnsAlias",
    "dnsAppAlias",
    "dnsExternalAlias",
    "egress",
    "network",
    "privateImageHubs",
    "subPipeline",
];

/// A `radixconfig.yaml` without an error.
#[derive(Clone, Debug)]
pub struct RadixConfig {
    /// `metadata.name`.
    pub app: String,
    /// The names in `spec.environments`, in the file's order; at least one.
    pub environments: Vec<String>,
    /// What has no effect here.
    pub warnings: Vec<Warning>,
    file: String,
    jobs: Vec<Job>,
}

/// Reads and parses a file.
pub fn load(path: &Path) -> Result<RadixConfig, ConfigError> {
    parse(&path.display().to_string(), &read_file(path)?)
}

/// The content of a file, for [`parse`]. It is read little further than [`MAX_FILE_BYTES`],
/// whatever its size.
pub fn read_file(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX) + 1;
    let outcome = File::open(path).and_then(|opened| opened.take(most).read_to_end(&mut bytes));
    match outcome {
        Ok(_) => Ok(bytes),
        Err(source) => Err(ConfigError::Io {
            file: path.display().to_string(),
            source,
        }),
    }
}

/// Reads the content of a file, which messages call `file`.
pub fn parse(file: &str, bytes: &[u8]) -> Result<RadixConfig, ConfigError> {
    let file = file.to_owned();
    if bytes.len() > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { file });
    }
    let root = match yaml::read(bytes) {
        Ok(root) => root,
        Err(YamlError::NotUtf8 { line }) => return Err(ConfigError::NotUtf8 { file, line }),
        Err(YamlError::Syntax { line, message }) => {
            return Err(ConfigError::Syntax {
                file,
                line,
                message,
            });
        }
    };
    let report = Report::default();
    let application = Item::root(root, &report).mapping().and_then(application);
    if let Some(application) = &application {
        for job in &application.jobs {
            job.check(&application.environments, &report);
        }
    }
    let (errors, warnings) = report.into_parts();
    match application {
        Some(application) if errors.is_empty() => Ok(RadixConfig {
            app: application.app,
            environments: application.environments,
            warnings: warnings
                .into_iter()
                .map(|warning| Warning {
                    file: file.clone(),
                    line: warning.line,
                    field: warning.field,
                    message: warning.message,
                })
                .collect(),
            file,
            jobs: application.jobs,
        }),
        _ => Err(ConfigError::Fields { file, errors }),
    }
}

impl RadixConfig {
    /// The names of the job components, in the file's order.
    pub fn job_names(&self) -> impl Iterator<Item = &str> {
        self.jobs.iter().map(|job| job.name.as_str())
    }

    /// A job component in an environment.
    pub fn job_component(
        &self,
        environment: &str,
        name: &str,
    ) -> Result<JobComponent, ConfigError> {
        self.check_environment(environment)?;
        let job = self.jobs.iter().find(|job| job.name == name);
        let Some(job) = job else {
            return Err(ConfigError::NoSuchJob {
                file: self.file.clone(),
                given: name.to_owned(),
                known: self.job_names().map(str::to_owned).collect(),
                suggestion: suggestion(name, self.job_names()).map(str::to_owned),
            });
        };
        match job.resolved(&self.app, environment) {
            Some(component) if job.is_enabled(environment) => Ok(component),
            _ => Err(ConfigError::Disabled {
                file: self.file.clone(),
                job: name.to_owned(),
                environment: environment.to_owned(),
            }),
        }
    }

    /// The job components that are enabled in an environment, in the file's order.
    pub fn job_components(&self, environment: &str) -> Result<Vec<JobComponent>, ConfigError> {
        self.check_environment(environment)?;
        let enabled = self.jobs.iter().filter(|job| job.is_enabled(environment));
        Ok(enabled
            .filter_map(|job| job.resolved(&self.app, environment))
            .collect())
    }

    fn check_environment(&self, environment: &str) -> Result<(), ConfigError> {
        if self.environments.iter().any(|known| known == environment) {
            return Ok(());
        }
        Err(ConfigError::NoSuchEnvironment {
            file: self.file.clone(),
            given: environment.to_owned(),
            known: self.environments.clone(),
        })
    }
}

struct Application {
    app: String,
    environments: Vec<String>,
    jobs: Vec<Job>,
}

/// Reads all of the file, whatever is wrong with a part of it. `None` means that the report has an
/// error.
fn application(mut fields: Fields<'_>) -> Option<Application> {
    if let Some(item) = fields.take("apiVersion") {
        item.parsed(|text| is(API_VERSION, text));
    }
    if let Some(item) = fields.take("kind") {
        item.parsed(|text| is(KIND, text));
    }
    // `kubectl get -o yaml` adds it.
    fields.leave(&["status"]);
    let app = fields
        .require(
            "metadata",
            "give the application's name, as `metadata: {name: app}`",
        )
        .and_then(Item::mapping)
        .and_then(|mut metadata| {
            // The rest of it is any Kubernetes object's, so it is not looked at.
            metadata
                .require("name", "give the application's name")
                .and_then(|item| item.parsed(names::dns_label))
        });
    let spec = fields
        .require("spec", "give the application's environments and jobs")
        .and_then(Item::mapping);
    fields.finish();
    let mut spec = spec?;
    let environments = spec
        .require("environments", "give at least one, as `- name: dev`")
        .and_then(|item| environments(item, app.as_deref()));
    let known = environments.clone().unwrap_or_default();
    let jobs = spec.take("jobs").and_then(|item| jobs(item, &known));
    spec.leave(&OTHER_SECTIONS);
    spec.finish();
    Some(Application {
        app: app?,
        environments: environments?,
        jobs: jobs.unwrap_or_default(),
    })
}

fn is(expected: &str, text: &str) -> Result<(), String> {
    match text == expected {
        true => Ok(()),
        false => Err(format!(
            "must be {expected}, not `{}`",
            super::tree::shown(text)
        )),
    }
}

fn environments(item: Item<'_>, app: Option<&str>) -> Option<Vec<String>> {
    let (report, field, line) = item.place();
    let items = item.items_within(0..=100)?;
    if items.is_empty() {
        report.error(&field, line, "must have at least one, as `- name: dev`");
        return None;
    }
    let mut environments: Vec<String> = Vec::new();
    for item in items {
        let Some(mut fields) = item.mapping() else {
            continue;
        };
        let name = fields
            .require("name", "give the environment's name, such as dev")
            .and_then(|item| item.parsed(names::dns_label));
        if let Some(name) = name {
            let namespace = format!("{}-{name}", app.unwrap_or_default());
            if environments.contains(&name) {
                fields.error(format!("environment `{name}` is there twice: remove one"));
            } else if !names::is_dns_label(&namespace) && app.is_some() {
                fields.error(format!(
                    "the namespace {namespace} is over 63 characters: shorten metadata.name or this name"
                ));
            }
            environments.push(name);
        }
        fields.leave(&["build", "egress", "network", "subPipeline"]);
        fields.finish();
    }
    Some(environments)
}

fn jobs(item: Item<'_>, environments: &[String]) -> Option<Vec<Job>> {
    let mut jobs: Vec<Job> = Vec::new();
    for item in item.items_within(0..=1000)? {
        let (report, field, line) = item.place();
        let Some(job) = Job::read(item, environments) else {
            continue;
        };
        if jobs.iter().any(|other| other.name == job.name) {
            let message = format!(
                "the job component `{}` is there twice: rename one",
                job.name
            );
            report.error(&field, line, message);
        } else {
            jobs.push(job);
        }
    }
    Some(jobs)
}
