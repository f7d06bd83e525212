//! What the command line asks for, as plain values.

use crate::config::Quantity;
use crate::http::Peers;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub enum Command {
    Serve(ServeOptions),
    Local(LocalOptions),
    Manifests(ManifestsOptions),
    /// Checks this file, and starts nothing.
    Validate(PathBuf),
    /// Runs a job's command, below a scheduler of this machine: nothing for people.
    JobInit {
        mark: OsString,
        words: Vec<OsString>,
    },
    /// Asks a scheduler.
    Client(ClientOptions),
    /// A text to print, and no more.
    Print(String),
}

/// Options of `serve`.
#[derive(Debug, PartialEq)]
pub struct ServeOptions {
    pub config: PathBuf,
    pub component: String,
    pub environment: String,
    pub app: Option<String>,
    pub image: Option<String>,
    pub image_pull_secrets: Vec<String>,
    pub address: Option<IpAddr>,
    pub port: Option<u16>,
    /// Names that requests may call this scheduler by, beside its own.
    pub allowed_hosts: Vec<String>,
    pub history_limit: usize,
    pub max_jobs: usize,
    /// 0 is no cap.
    pub max_running: usize,
    pub max_waiting: usize,
    pub kube_url: Option<String>,
    /// The API server of the cluster that this runs in, as Kubernetes tells every pod.
    pub in_cluster_url: Option<String>,
    pub kube_token_file: Option<PathBuf>,
    pub kube_ca_file: Option<PathBuf>,
    pub logging: LoggingOptions,
}

/// Options of `local`.
#[derive(Debug, PartialEq)]
pub struct LocalOptions {
    pub file: PathBuf,
    pub environment: Option<String>,
    /// As given, or else the user's own; `None` if neither is known.
    pub data_dir: Option<PathBuf>,
    pub cpus: Option<Quantity>,
    pub memory: Option<Quantity>,
    pub secrets_file: Option<PathBuf>,
    /// Bytes of an attempt's log that are kept.
    pub log_limit: u64,
    pub grace_seconds: u32,
    pub address: IpAddr,
    /// Ports other than `schedulerPort`, with the component where one is named.
    pub ports: Vec<(Option<String>, u16)>,
    pub peers: Peers,
    /// Names that are served beside the usual ones.
    pub allowed_hosts: Vec<String>,
    pub history_limit: usize,
    pub max_jobs: usize,
    pub logging: LoggingOptions,
}

/// Options of `manifests`.
#[derive(Debug, PartialEq)]
pub struct ManifestsOptions {
    pub file: PathBuf,
    pub environment: String,
    pub scheduler_image: String,
    /// Job component and image.
    pub images: Vec<(String, String)>,
    pub jobs: Vec<String>,
    pub image_pull_secrets: Vec<String>,
    pub pod_security: PodSecurity,
    pub shape: Shape,
    /// Flags of `serve` and their values, for the schedulers.
    pub passed: Vec<(&'static str, String)>,
}

/// The Pod Security profile that the namespace enforces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PodSecurity {
    None,
    Baseline,
    Restricted,
}

/// What is printed of the schedulers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// All of them, each as a Deployment.
    Deployments,
    /// What they need as sidecars of another Deployment.
    Beside,
    /// The patch that makes them sidecars of another Deployment.
    Patch,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoggingOptions {
    pub level: log::LevelFilter,
    pub format: crate::logging::Format,
}

/// Options of the commands that ask a scheduler.
#[derive(Debug, PartialEq)]
pub struct ClientOptions {
    /// Where the scheduler is, without a slash at its end; `None` for one of this machine.
    pub url: Option<String>,
    /// Which of this machine's.
    pub component: Option<String>,
    /// Where the schedulers of this machine say what they listen on.
    pub data_dir: Option<PathBuf>,
    pub output: Output,
    /// Whether a terminal may get colours.
    pub colour: bool,
    pub action: Action,
}

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Output {
    Text,
    /// What the scheduler answers, as it is.
    Json,
}

/// What a scheduler is asked for.
#[derive(Debug, PartialEq)]
pub enum Action {
    Run(Box<RunOptions>),
    /// Of these statuses; empty for all.
    List {
        statuses: Vec<String>,
    },
    Get {
        name: String,
    },
    Logs {
        name: String,
        follow: bool,
        tail: Option<u32>,
    },
    Wait {
        name: String,
        timeout: Option<Duration>,
    },
    Stop {
        names: Vec<String>,
    },
    StopAll,
    Restart {
        name: String,
    },
    Delete {
        names: Vec<String>,
    },
}

/// Options of `run`.
#[derive(Debug, PartialEq)]
pub struct RunOptions {
    pub payload: Payload,
    pub wait: bool,
    pub follow: bool,
    pub timeout: Option<Duration>,
    pub job_id: Option<String>,
    pub priority: Option<i8>,
    pub image: Option<String>,
    pub image_tag_name: Option<String>,
    /// Name and value.
    pub variables: Vec<(String, String)>,
    pub time_limit_seconds: Option<u32>,
    pub backoff_limit: Option<u32>,
    /// The words after `--`, in place of the configured command and arguments.
    pub command: Option<Vec<String>>,
    pub idempotency_key: Option<String>,
}

/// Where a payload comes from.
#[derive(Debug, PartialEq)]
pub enum Payload {
    None,
    Text(String),
    File(PathBuf),
    StandardInput,
}
