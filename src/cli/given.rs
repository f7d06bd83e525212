//! What was given for a command's flags, made into its options.

use super::commands::{CommandSpec, Flag, Operands};
use super::help;
use super::{
    Action, ClientOptions, LocalOptions, LoggingOptions, ManifestsOptions, NO_CLUSTER, Output,
    Payload, PodSecurity, RunOptions, ServeOptions, Shape, UsageError, find_command, utf8,
};
use crate::config::Quantity;
use crate::http::Peers;
use std::collections::HashMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// What is kept of a job's log on one machine: 64 MiB.
const DEFAULT_LOG_LIMIT: u64 = 64 << 20;

/// What was given for a command's flags.
pub(super) struct Given {
    pub(super) spec: &'static CommandSpec,
    pub(super) values: HashMap<&'static str, Vec<String>>,
    pub(super) operands: Vec<OsString>,
    /// What follows `--`.
    pub(super) words: Option<Result<Vec<String>, UsageError>>,
}

impl Given {
    pub(super) fn put(&mut self, flag: &'static Flag, value: String) -> Result<(), UsageError> {
        let values = self.values.entry(flag.name).or_default();
        if !values.is_empty() && !flag.repeats {
            return Err(UsageError(format!(
                "--{} is given twice: give it once",
                flag.name
            )));
        }
        values.push(value);
        Ok(())
    }

    pub(super) fn serve(
        mut self,
        in_cluster_url: Option<String>,
    ) -> Result<ServeOptions, UsageError> {
        let required = self.require(&["component", "environment"]);
        if let (Err(UsageError(missing)), None) = (&required, &in_cluster_url)
            && !self.values.contains_key("kube-url")
        {
            return Err(UsageError(format!("{missing}\n{NO_CLUSTER}")));
        }
        required?;
        Ok(ServeOptions {
            config: self
                .text("config")
                .unwrap_or("/etc/job-scheduler/radixconfig.yaml".to_string())
                .into(),
            component: self.required("component")?,
            environment: self.required("environment")?,
            app: self.text("app"),
            image: self.text("image"),
            image_pull_secrets: self.list("image-pull-secret"),
            address: self.parsed("address", "an IP address, such as 127.0.0.1")?,
            port: self.parsed("port", "a port, 1 to 65535 (0 lets the system choose)")?,
            allowed_hosts: self.list("allow-host"),
            history_limit: self.history_limit()?,
            max_jobs: self.max_jobs()?,
            max_running: self.max_running()?,
            max_waiting: self.max_waiting()?,
            kube_url: self.text("kube-url"),
            in_cluster_url,
            kube_token_file: self.text("kube-token-file").map(PathBuf::from),
            kube_ca_file: self.text("kube-ca-file").map(PathBuf::from),
            logging: self.logging()?,
        })
    }

    pub(super) fn local(
        mut self,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<LocalOptions, UsageError> {
        let address = self
            .parsed("address", "an IP address, such as 127.0.0.1")?
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let network = self.parsed("allow-network", "true or false")?;
        if !address.is_loopback() && network != Some(true) {
            return Err(UsageError(format!(
                "--address {address}: others can reach it, and whoever can runs commands on this machine as you: leave it \
                 out, or add --allow-network"
            )));
        }
        Ok(LocalOptions {
            file: self.path()?,
            environment: self.text("environment"),
            data_dir: self.data_dir(environment),
            cpus: self.amount("cpus", "a number of CPUs over 0, such as 4 or 500m")?,
            memory: self.amount("memory", "a size over 0, such as 8Gi")?,
            secrets_file: self.text("secrets-file").map(PathBuf::from),
            log_limit: self.log_limit()?,
            grace_seconds: self
                .parsed("grace-seconds", "a whole number of seconds")?
                .unwrap_or(30),
            address,
            peers: match self.parsed("allow-other-users", "true or false")? {
                Some(true) => Peers::Anybody,
                // Those who come from elsewhere are nobody's here.
                _ if network == Some(true) => Peers::Anybody,
                _ => Peers::OwnUser,
            },
            ports: self.ports()?,
            allowed_hosts: self.list("allow-host"),
            history_limit: self.history_limit()?,
            max_jobs: self.max_jobs()?,
            logging: self.logging()?,
        })
    }

    fn log_limit(&mut self) -> Result<u64, UsageError> {
        const EXPECTED: &str = "a size of at least 1Mi, such as 64Mi";
        let Some(limit) = self.amount("log-limit", EXPECTED)? else {
            return Ok(DEFAULT_LOG_LIMIT);
        };
        match u64::try_from(limit.milli / 1000) {
            Ok(bytes) if bytes >= 1 << 20 => Ok(bytes),
            _ => Err(UsageError(format!("--log-limit {limit}: give {EXPECTED}"))),
        }
    }

    fn ports(&mut self) -> Result<Vec<(Option<String>, u16)>, UsageError> {
        let ports = self.list("port").into_iter();
        let ports = ports.map(|text| {
            let (job, number) = match text.split_once('=') {
                Some((job, number)) => (Some(job.to_string()), number),
                None => (None, text.as_str()),
            };
            match number.parse() {
                Ok(port) if port > 0 => Ok((job, port)),
                _ => Err(UsageError(format!(
                    "--port {text}: give a port, 1 to 65535, or JOB=PORT, such as compute=8001"
                ))),
            }
        });
        ports.collect()
    }

    fn history_limit(&mut self) -> Result<usize, UsageError> {
        let limit = self.parsed("history-limit", "a whole number from 0")?;
        Ok(limit.unwrap_or(10))
    }

    fn max_jobs(&mut self) -> Result<usize, UsageError> {
        let limit = self.parsed("max-jobs", "a whole number from 0")?;
        Ok(limit.unwrap_or(10_000))
    }

    fn max_running(&mut self) -> Result<usize, UsageError> {
        let limit = self.parsed("max-running", "a whole number from 0")?;
        Ok(limit.unwrap_or(0))
    }

    fn max_waiting(&mut self) -> Result<usize, UsageError> {
        let limit = self.parsed("max-waiting", "a whole number from 0")?;
        Ok(limit.unwrap_or(1000))
    }

    pub(super) fn manifests(mut self) -> Result<ManifestsOptions, UsageError> {
        let shape = match (self.text("sidecar"), self.text("sidecar-patch")) {
            (None, None) => Shape::Deployments,
            (Some(_), None) => Shape::Beside,
            (None, Some(_)) => Shape::Patch,
            (Some(_), Some(_)) => {
                return Err(UsageError(
                    "--sidecar and --sidecar-patch print different things: give one at a time"
                        .to_string(),
                ));
            }
        };
        match shape {
            Shape::Beside => self.require(&["environment"])?,
            _ => self.require(&["environment", "scheduler-image"])?,
        }
        let pod_security = match self.text("pod-security").as_deref() {
            None | Some("restricted") => PodSecurity::Restricted,
            Some("baseline") => PodSecurity::Baseline,
            Some("none") => PodSecurity::None,
            Some(other) => {
                return Err(UsageError(format!(
                    "--pod-security {other}: give none, baseline or restricted"
                )));
            }
        };
        let passed = self.passed()?;
        let images = self
            .list("image")
            .into_iter()
            .map(|image| match image.split_once('=') {
                Some((job, reference)) if !job.is_empty() && !reference.is_empty() => {
                    Ok((job.to_string(), reference.to_string()))
                }
                _ => Err(UsageError(format!(
                    "--image {image}: give JOB=REF, such as compute=registry.example.com/compute:1"
                ))),
            });
        Ok(ManifestsOptions {
            images: images.collect::<Result<_, _>>()?,
            file: self.path()?,
            environment: self.required("environment")?,
            scheduler_image: self.text("scheduler-image").unwrap_or_default(),
            jobs: self.list("job"),
            image_pull_secrets: self.list("image-pull-secret"),
            pod_security,
            shape,
            passed,
        })
    }

    /// Flags that are for `serve`, found right as `serve` would.
    fn passed(&mut self) -> Result<Vec<(&'static str, String)>, UsageError> {
        const PASSED: [&str; 7] = [
            "allow-host",
            "history-limit",
            "max-jobs",
            "max-running",
            "max-waiting",
            "log-level",
            "log-format",
        ];
        let given = PASSED.iter().flat_map(|name| {
            let values = self.values.get(name).into_iter().flatten();
            values.map(|value| (*name, value.clone()))
        });
        let given = given.collect();
        self.history_limit()?;
        self.max_jobs()?;
        self.max_running()?;
        self.max_waiting()?;
        self.logging()?;
        Ok(given)
    }

    fn logging(&mut self) -> Result<LoggingOptions, UsageError> {
        let level = self
            .parsed("log-level", "error, warn, info, debug or trace")?
            .unwrap_or(log::LevelFilter::Info);
        let format = match self.text("log-format").as_deref() {
            None | Some("text") => crate::logging::Format::Text,
            Some("json") => crate::logging::Format::Json,
            Some(other) => {
                return Err(UsageError(format!(
                    "--log-format {other}: give text or json"
                )));
            }
        };
        Ok(LoggingOptions { level, format })
    }

    /// Whether there are as many operands as the command takes.
    pub(super) fn check_operands(&self) -> Result<(), UsageError> {
        let (count, name) = (self.operands.len(), self.spec.name);
        let most = match self.spec.operands {
            Operands::None => 0,
            Operands::One(_) | Operands::Optional(_) | Operands::Input => 1,
            Operands::Many(_) => usize::MAX,
        };
        if let Some(extra) = self.operands.get(most) {
            let extra = extra.to_string_lossy();
            return Err(UsageError(format!(
                "`{extra}` is one too many: see job-scheduler {name} --help"
            )));
        }
        let example = match self.spec.operands {
            Operands::One("FILE") => "radixconfig.yaml",
            Operands::One("SHELL") => "bash",
            Operands::One(_) | Operands::Many(_) => "compute-20261124090332-lpf3yfob",
            Operands::None | Operands::Optional(_) | Operands::Input => return Ok(()),
        };
        match self.spec.operands {
            Operands::One(operand) | Operands::Many(operand)
                if count == 0 && !self.values.contains_key("all") =>
            {
                Err(UsageError(format!(
                    "{operand} is missing: job-scheduler {name} {example}"
                )))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn path(&mut self) -> Result<PathBuf, UsageError> {
        Ok(self.operands.pop().map(PathBuf::from).unwrap_or_default())
    }

    fn name(&mut self) -> Result<String, UsageError> {
        utf8("NAME", self.operands.pop().unwrap_or_default())
    }

    pub(super) fn help(mut self) -> Result<String, UsageError> {
        match self.operands.pop() {
            None => Ok(help::help()),
            Some(name) => find_command(&name.to_string_lossy()).map(help::command_help),
        }
    }

    pub(super) fn completions(mut self) -> Result<String, UsageError> {
        let shell = self.name()?;
        help::completions(&shell).ok_or_else(|| {
            let known = help::SHELLS.join(", ");
            UsageError(format!(
                "there are no completions for `{shell}`: give one of {known}"
            ))
        })
    }

    fn data_dir(&mut self, environment: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        let given = self.text("data-dir").map(PathBuf::from);
        given.or_else(|| state_dir(environment))
    }

    pub(super) fn client(
        mut self,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<ClientOptions, UsageError> {
        let url = self.text("url").map(|url| base_url(&url)).transpose()?;
        let output = match self.text("output").as_deref() {
            None | Some("text") => Output::Text,
            Some("json") => Output::Json,
            Some(other) => return Err(UsageError(format!("--output {other}: give text or json"))),
        };
        let component = self.text("component");
        let data_dir = self.data_dir(&environment);
        let no_colour = environment("NO_COLOR").is_some_and(|value| !value.is_empty());
        let action = self.action(output)?;
        Ok(ClientOptions {
            url,
            component,
            data_dir,
            output,
            colour: !no_colour,
            action,
        })
    }

    fn action(mut self, output: Output) -> Result<Action, UsageError> {
        Ok(match self.spec.name {
            "run" => Action::Run(Box::new(self.run(output)?)),
            "list" => Action::List {
                statuses: self.list("status"),
            },
            "get" => Action::Get { name: self.name()? },
            "logs" => Action::Logs {
                follow: self.text("follow").is_some(),
                tail: self.parsed("tail", "a number of lines")?,
                name: self.name()?,
            },
            "wait" => Action::Wait {
                timeout: self.timeout()?,
                name: self.name()?,
            },
            "restart" => Action::Restart { name: self.name()? },
            "stop" if self.values.contains_key("all") => match self.operands.is_empty() {
                true => Action::StopAll,
                false => return Err(UsageError("--all: give it, or names, not both".to_string())),
            },
            "stop" => Action::Stop {
                names: self.names()?,
            },
            _ => Action::Delete {
                names: self.names()?,
            },
        })
    }

    fn names(&mut self) -> Result<Vec<String>, UsageError> {
        let names = self.operands.drain(..);
        names.map(|name| utf8("NAME", name)).collect()
    }

    fn run(mut self, output: Output) -> Result<RunOptions, UsageError> {
        let (wait, follow) = (self.text("wait").is_some(), self.text("follow").is_some());
        if follow && output == Output::Json {
            return Err(UsageError(
                "--follow prints what the job writes, which is no JSON: leave it or --output out"
                    .to_string(),
            ));
        }
        let timeout = self.timeout()?;
        if timeout.is_some() && !wait {
            return Err(UsageError("--timeout: needs --wait".to_string()));
        }
        let variables = self.list("variable").into_iter();
        let variables = variables.map(|variable| match variable.split_once('=') {
            Some((name, value)) => Ok((name.to_string(), value.to_string())),
            None => Err(UsageError(format!(
                "--variable {variable}: give NAME=VALUE"
            ))),
        });
        let command = self.words.take().transpose()?;
        if command.as_ref().is_some_and(Vec::is_empty) {
            return Err(UsageError(
                "nothing follows `--`: give the command to run, such as -- sh -c date".to_string(),
            ));
        }
        Ok(RunOptions {
            variables: variables.collect::<Result<_, _>>()?,
            payload: self.payload()?,
            wait,
            follow,
            timeout,
            job_id: self.text("job-id"),
            priority: self.parsed("priority", "a whole number from -100 to 100")?,
            image: self.text("image"),
            image_tag_name: self.text("image-tag-name"),
            time_limit_seconds: self.parsed("time-limit-seconds", "a whole number of seconds")?,
            backoff_limit: self.parsed("backoff-limit", "a whole number from 0")?,
            command,
            idempotency_key: self.text("idempotency-key"),
        })
    }

    fn payload(&mut self) -> Result<Payload, UsageError> {
        let text = self.text("payload").map(Payload::Text);
        let file = self.text("payload-file").map(|file| match file.as_str() {
            "-" => Payload::StandardInput,
            file => Payload::File(file.into()),
        });
        let input = match self.operands.pop() {
            None => None,
            Some(operand) if operand == "-" => Some(Payload::StandardInput),
            Some(operand) => {
                let operand = operand.to_string_lossy();
                return Err(UsageError(format!(
                    "`{operand}`: give --payload TEXT, --payload-file FILE or `-` for standard input; \
                     a command to run goes after `--`"
                )));
            }
        };
        let mut given = [text, file, input].into_iter().flatten();
        match (given.next(), given.next()) {
            (_, Some(_)) => Err(UsageError(
                "there are two payloads: give one of --payload, --payload-file and `-`".to_string(),
            )),
            (payload, None) => Ok(payload.unwrap_or(Payload::None)),
        }
    }

    fn timeout(&mut self) -> Result<Option<Duration>, UsageError> {
        let Some(text) = self.text("timeout") else {
            return Ok(None);
        };
        match seconds(&text) {
            Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
            None => Err(UsageError(format!(
                "--timeout {text}: give a time, such as 90s, 10m or 2h"
            ))),
        }
    }

    /// A quantity over 0.
    fn amount(&mut self, name: &str, expected: &str) -> Result<Option<Quantity>, UsageError> {
        let quantity: Option<Quantity> = self.parsed(name, expected)?;
        match &quantity {
            Some(quantity) if quantity.milli == 0 => {
                Err(UsageError(format!("--{name} {quantity}: give {expected}")))
            }
            _ => Ok(quantity),
        }
    }

    fn list(&mut self, name: &str) -> Vec<String> {
        self.values.remove(name).unwrap_or_default()
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.values.remove(name).and_then(|mut values| values.pop())
    }

    /// Whether all these flags are given; if not, says so of all that are missing.
    fn require(&self, names: &[&'static str]) -> Result<(), UsageError> {
        let flags = self.spec.flags.iter();
        let missing = flags
            .filter(|flag| names.contains(&flag.name) && !self.values.contains_key(flag.name))
            .map(|flag| {
                let (name, value) = (flag.name, flag.value);
                let twin = match flag.variable {
                    "" => String::new(),
                    variable => format!(", or set {variable}"),
                };
                format!("--{name} is missing: give --{name} {value}{twin}")
            });
        let missing: Vec<String> = missing.collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(UsageError(missing.join("\n"))),
        }
    }

    fn required(&mut self, name: &'static str) -> Result<String, UsageError> {
        self.require(&[name])?;
        Ok(self.text(name).unwrap_or_default())
    }

    fn parsed<T: std::str::FromStr>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, UsageError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| UsageError(format!("--{name} {text}: give {expected}")))
    }
}

/// `90s`, `10m`, `2h`, or seconds alone.
fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = match text.strip_suffix('h') {
        Some(hours) => (hours, 3600),
        None => match text.strip_suffix('m') {
            Some(minutes) => (minutes, 60),
            None => (text.strip_suffix('s').unwrap_or(text), 1),
        },
    };
    let number: u64 = number.parse().ok()?;
    number.checked_mul(unit)
}

/// The part of a scheduler's URL that its paths follow.
fn base_url(url: &str) -> Result<String, UsageError> {
    let base = url.trim_end_matches('/');
    let base = base.strip_suffix("/jobs").unwrap_or(base);
    let base = base.strip_suffix("/api/v1").unwrap_or(base);
    match base.strip_prefix("http://") {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@']) => {
            Ok(base.to_string())
        }
        _ => Err(UsageError(format!(
            "--url {url}: give http://HOST:PORT, such as http://compute:8000"
        ))),
    }
}

/// Where jobs of this machine are kept if nothing else is said: the user's own place for state.
///
/// Source: <https://specifications.freedesktop.org/basedir-spec/latest/>
fn state_dir(environment: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    let state = set("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".local/state")));
    state.map(|state| state.join("job-scheduler"))
}
