//! `radixconfig.yaml` read once, at start, into the plain values that the rest of the program uses.
//!
//! Pure but for [`read_file`] and [`load`], which read the file. [`JobComponent`] is what
//! everything else sees: one job component in one environment, with that environment's overrides
//! applied.

mod application;
mod batch_rules;
mod component;
mod core_schema;
mod error;
pub(crate) mod fields;
mod image;
mod names;
mod quantity;
mod read;
mod settings;
mod suggestion;
#[cfg(test)]
mod tests;
pub(crate) mod tree;
mod volume;
mod yaml;

use crate::job::JobName;

pub use application::{MAX_FILE_BYTES, RadixConfig, load, parse, read_file};
pub use batch_rules::{BatchStatus, RuleCondition, RuleOperator, RuleStatus, StatusRule};
pub use error::{ConfigError, FieldError, Warning};
pub use image::ImageError;
pub use quantity::{Quantity, QuantityError};
pub(crate) use read::read_settings;
pub use settings::{
    Architecture, ExitCodes, FailureAction, FailurePolicy, FailureRule, Node, Resources, Runtime,
    Settings,
};
pub(crate) use suggestion::suggestion;

/// One job component in one environment, overrides resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct JobComponent {
    /// `metadata.name`.
    pub app: String,
    /// The environment that the overrides were taken for.
    pub environment: String,
    /// `spec.jobs[].name`: a DNS label, the scheduler's host name.
    pub name: String,
    /// The port that the component's scheduler listens on, 1024 to 65535.
    pub scheduler_port: u16,
    /// Where its jobs reach its scheduler: its Service, unless it is served elsewhere. `None` where
    /// they cannot.
    pub scheduler_url: Option<String>,
    /// The folder in the job that gets the file `payload`; absolute. Without it a job takes no
    /// payload.
    pub payload_path: Option<String>,
    /// Ports that a running job serves; names are unique.
    pub ports: Vec<Port>,
    /// Names of the environment variables that come from the component's Secret.
    pub secrets: Vec<String>,
    /// Volumes beside the payload's.
    pub volume_mounts: Vec<VolumeMount>,
    /// The workload identity of the jobs' pods.
    pub identity: Option<Identity>,
    /// Where Prometheus is to read a running job's metrics; `None` for not at all.
    pub monitoring: Option<Monitoring>,
    /// Whether the job's root file system is read-only.
    pub read_only_file_system: bool,
    /// What its batches are called; the first that holds decides.
    pub batch_status_rules: Vec<StatusRule>,
    /// What a request may override.
    pub settings: Settings,
}

/// A port of a job component.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// A DNS label of at most 15 characters (a Kubernetes port name).
    pub name: String,
    /// 1 to 65535.
    pub port: u16,
}

/// A volume, and where it is in the job.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeMount {
    /// Unique within the component, a DNS label.
    pub name: String,
    /// Absolute path in the container.
    pub path: String,
    /// What is mounted.
    pub source: VolumeSource,
}

/// What a volume holds. Claims and ConfigMaps are those of the namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum VolumeSource {
    /// A scratch folder, which ends with the attempt.
    EmptyDir {
        size_limit: Option<Quantity>,
    },
    PersistentVolumeClaim {
        claim_name: String,
        read_only: Option<bool>,
    },
    ConfigMap {
        name: String,
    },
}

/// `identity`: what a cloud's workload identity asks of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// `identity.azure.clientId`, a UUID.
    pub azure_client_id: String,
}

/// `monitoring` and `monitoringConfig`: where a job's metrics are.
#[derive(Clone, Debug, PartialEq)]
pub struct Monitoring {
    pub port: u16,
    pub path: String,
}

impl JobComponent {
    /// The namespace that Radix gives the application's environment: `<app>-<environment>`.
    pub fn namespace(&self) -> String {
        format!("{}-{}", self.app, self.environment)
    }

    /// The ServiceAccount of its jobs, if they have an identity. It is named as in Radix, since a
    /// federated credential names it.
    pub fn identity_account(&self) -> Option<String> {
        self.identity.as_ref().map(|_| format!("{}-sa", self.name))
    }

    /// What a job finds in its environment, in a cluster and on one machine alike. One without a
    /// payload has no file of it, and so no variable that names one.
    pub fn variables_of_job(
        &self,
        job: &JobName,
        has_payload: bool,
    ) -> Vec<(&'static str, String)> {
        let list = |texts: Vec<String>| format!("({})", texts.join(" "));
        let mut variables = vec![
            ("RADIX_APP", self.app.clone()),
            ("RADIX_ENVIRONMENT", self.environment.clone()),
            ("RADIX_COMPONENT", self.name.clone()),
            ("RADIX_JOB_NAME", job.to_string()),
            (
                "RADIX_PORTS",
                list(
                    self.ports
                        .iter()
                        .map(|port| port.port.to_string())
                        .collect(),
                ),
            ),
            (
                "RADIX_PORT_NAMES",
                list(self.ports.iter().map(|port| port.name.clone()).collect()),
            ),
        ];
        if let Some(path) = self.payload_path.as_ref().filter(|_| has_payload) {
            variables.push((
                "JOB_PAYLOAD_FILE",
                format!("{}/payload", path.trim_end_matches('/')),
            ));
        }
        variables.extend(self.progress_url(job));
        variables
    }

    /// Where a job says how far it is.
    pub fn progress_url(&self, job: &JobName) -> Option<(&'static str, String)> {
        let scheduler = self.scheduler_url.as_ref()?;
        let url = format!("{scheduler}/api/v1/jobs/{job}/progress");
        Some(("JOB_PROGRESS_URL", url))
    }
}
