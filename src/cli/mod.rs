//! Flags and their environment twins: the only reader of either.

mod commands;
mod help;
mod options;

use crate::backend::local::JOB_INIT;
use crate::config::Quantity;
use crate::http::{DOCUMENT, Peers};
use commands::{COMMANDS, CommandSpec, Flag, Operands};
pub use options::{
    Action, ClientOptions, Command, LocalOptions, LoggingOptions, ManifestsOptions, Output,
    Payload, PodSecurity, RunOptions, ServeOptions, Shape,
};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

/// What is kept of a job's log on one machine: 64 MiB.
const DEFAULT_LOG_LIMIT: u64 = 64 << 20;

/// Said where `serve` finds nothing to serve.
pub const NO_CLUSTER: &str = "not in a cluster (KUBERNETES_SERVICE_HOST is not set): give --kube-url, \
                              such as http://127.0.0.1:8001 for `kubectl proxy`, or use \
                              `job-scheduler local` without a cluster";

/// What is wrong with the command line or its environment, and what to do.
#[derive(Debug, PartialEq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the arguments (without the program's name), and for what they leave out the environment.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, UsageError> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let spec = match arguments.first() {
        None => return Ok(Command::Print(help::help())),
        Some(first) => match first.to_string_lossy().as_ref() {
            "-h" | "--help" => return Ok(Command::Print(help::help())),
            "-V" | "--version" => return Ok(Command::Print(version())),
            JOB_INIT => {
                let mut words = arguments.into_iter().skip(1);
                return Ok(Command::JobInit {
                    mark: words.next().unwrap_or_default(),
                    words: words.collect(),
                });
            }
            name => find_command(name)?,
        },
    };
    // What follows `--` is another program's command line.
    let end = match spec.operands {
        Operands::Input => arguments.iter().position(|argument| argument == "--"),
        _ => None,
    };
    let words = end.map(|end| arguments.split_off(end).into_iter().skip(1));
    let mut given = Given {
        spec,
        values: HashMap::new(),
        operands: Vec::new(),
        words: words.map(|words| words.map(|word| utf8("--", word)).collect::<Result<_, _>>()),
    };
    let mut parser = lexopt::Parser::from_args(arguments.into_iter().skip(1));
    while let Some(argument) = parser.next().map_err(|error| usage(spec, error))? {
        let flag = match argument {
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => {
                return Ok(Command::Print(help::command_help(spec)));
            }
            lexopt::Arg::Long(name) => find_flag(spec, name)?,
            lexopt::Arg::Short(letter) => find_letter(spec, letter)?,
            lexopt::Arg::Value(value) => {
                given.operands.push(value);
                continue;
            }
        };
        let value = match flag.value.is_empty() {
            true => OsString::from("true"),
            false => parser.value().map_err(|error| usage(spec, error))?,
        };
        given.put(flag, utf8(flag.name, value)?)?;
    }
    for flag in spec.flags.iter().filter(|flag| !flag.variable.is_empty()) {
        if given.values.contains_key(flag.name) {
            continue;
        }
        if let Some(value) = environment(flag.variable).filter(|value| !value.is_empty()) {
            let value = utf8(flag.variable, value)?;
            let values = if flag.repeats {
                value
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(str::to_string)
                    .collect()
            } else {
                vec![value]
            };
            given.values.insert(flag.name, values);
        }
    }
    given.check_operands()?;
    match spec.name {
        "local" => given.local(&environment).map(Command::Local),
        "serve" => given.serve(in_cluster_url(environment)).map(Command::Serve),
        "manifests" => given.manifests().map(Command::Manifests),
        "validate" => given.path().map(Command::Validate),
        "openapi" => Ok(Command::Print(DOCUMENT.to_string())),
        "version" => Ok(Command::Print(version())),
        "help" => given.help().map(Command::Print),
        "completions" => given.completions().map(Command::Print),
        _ => given.client(&environment).map(Command::Client),
    }
}

fn version() -> String {
    format!("job-scheduler {}\n", env!("CARGO_PKG_VERSION"))
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

/// Source: <https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/>
fn in_cluster_url(environment: impl Fn(&str) -> Option<OsString>) -> Option<String> {
    let host = environment("KUBERNETES_SERVICE_HOST")?.into_string().ok()?;
    let port = environment("KUBERNETES_SERVICE_PORT").and_then(|port| port.into_string().ok());
    let port = port.as_deref().unwrap_or("443");
    Some(if host.contains(':') {
        format!("https://[{host}]:{port}")
    } else {
        format!("https://{host}:{port}")
    })
}

/// What was given for a command's flags.
struct Given {
    spec: &'static CommandSpec,
    values: HashMap<&'static str, Vec<String>>,
    operands: Vec<OsString>,
    /// What follows `--`.
    words: Option<Result<Vec<String>, UsageError>>,
}

impl Given {
    fn put(&mut self, flag: &'static Flag, value: String) -> Result<(), UsageError> {
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

    fn serve(mut self, in_cluster_url: Option<String>) -> Result<ServeOptions, UsageError> {
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

    fn local(
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

    fn manifests(mut self) -> Result<ManifestsOptions, UsageError> {
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
    fn check_operands(&self) -> Result<(), UsageError> {
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

    fn path(&mut self) -> Result<PathBuf, UsageError> {
        Ok(self.operands.pop().map(PathBuf::from).unwrap_or_default())
    }

    fn name(&mut self) -> Result<String, UsageError> {
        utf8("NAME", self.operands.pop().unwrap_or_default())
    }

    fn help(mut self) -> Result<String, UsageError> {
        match self.operands.pop() {
            None => Ok(help::help()),
            Some(name) => find_command(&name.to_string_lossy()).map(help::command_help),
        }
    }

    fn completions(mut self) -> Result<String, UsageError> {
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

    fn client(
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

fn usage(spec: &CommandSpec, error: lexopt::Error) -> UsageError {
    UsageError(format!("{error}: see job-scheduler {} --help", spec.name))
}

fn utf8(what: &str, value: OsString) -> Result<String, UsageError> {
    value
        .into_string()
        .map_err(|_| UsageError(format!("{what}: is not UTF-8 text")))
}

fn find_command(name: &str) -> Result<&'static CommandSpec, UsageError> {
    let found = COMMANDS.iter().find(|command| command.name == name);
    found.ok_or_else(|| {
        let names = COMMANDS.iter().map(|command| command.name);
        let message = match name.strip_prefix("--") {
            Some(flag) => match crate::config::suggestion(flag, ["help", "version"]) {
                Some(flag) => format!("unknown flag {name}: did you mean --{flag}?"),
                None => {
                    format!("{name}: give a command before its flags, see job-scheduler --help")
                }
            },
            None => match crate::config::suggestion(name, names.clone()) {
                Some(near) => format!("unknown command `{name}`: did you mean `{near}`?"),
                None => {
                    let names: Vec<&str> = names.collect();
                    format!("unknown command `{name}`: give one of {}", names.join(", "))
                }
            },
        };
        UsageError(message)
    })
}

fn find_letter(spec: &'static CommandSpec, letter: char) -> Result<&'static Flag, UsageError> {
    let found = spec.flags.iter().find(|flag| flag.short == Some(letter));
    found.ok_or_else(|| {
        let name = spec.name;
        UsageError(format!(
            "unknown flag -{letter}: see job-scheduler {name} --help"
        ))
    })
}

fn find_flag(spec: &'static CommandSpec, name: &str) -> Result<&'static Flag, UsageError> {
    spec.flags
        .iter()
        .find(|flag| flag.name == name)
        .ok_or_else(|| {
            let suggestion =
                crate::config::suggestion(name, spec.flags.iter().map(|flag| flag.name));
            let suggestion = suggestion
                .map(|name| format!("did you mean --{name}? "))
                .unwrap_or_default();
            UsageError(format!(
                "unknown flag --{name}: {suggestion}see job-scheduler {} --help",
                spec.name
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &str, environment: &[(&str, &str)]) -> Result<Command, String> {
        let find = |name: &str| {
            environment
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| OsString::from(value))
        };
        parse(arguments.split_whitespace().map(OsString::from), find).map_err(|e| e.to_string())
    }

    fn serve(arguments: &str, environment: &[(&str, &str)]) -> ServeOptions {
        match run(arguments, environment) {
            Ok(Command::Serve(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_flag_beats_its_environment_twin() {
        let twins = [
            ("RADIX_COMPONENT", "etl"),
            ("RADIX_ENVIRONMENT", "dev"),
            ("LOG_LEVEL", "debug"),
        ];
        let options = serve("serve --component compute", &twins);
        assert_eq!(
            (options.component.as_str(), options.environment.as_str()),
            ("compute", "dev")
        );
        assert_eq!(options.logging.level, log::LevelFilter::Debug);
        assert_eq!((options.history_limit, options.port), (10, None));
    }

    #[test]
    fn every_flag_has_its_value_either_way() {
        let options = serve(
            "serve --component=c --environment e --port 0 --image-pull-secret a --image-pull-secret b",
            &[
                ("RADIX_JOB_SCHEDULERS_PER_ENVIRONMENT_HISTORY_LIMIT", "3"),
                ("RADIX_APP", ""),
            ],
        );
        assert_eq!(options.image_pull_secrets, ["a", "b"]);
        assert!(options.allowed_hosts.is_empty());
        assert_eq!(
            (options.history_limit, options.port, options.app),
            (3, Some(0), None)
        );
        let allowed = [("JOB_SCHEDULER_ALLOW_HOSTS", "a.example,b")];
        let options = serve("serve --component c --environment e", &allowed);
        assert_eq!(options.allowed_hosts, ["a.example", "b"]);
        let environment = [("JOB_SCHEDULER_IMAGE_PULL_SECRETS", "x, y,")];
        assert_eq!(
            serve("serve --component c --environment e", &environment).image_pull_secrets,
            ["x", "y"]
        );
    }

    #[test]
    fn errors_say_what_to_do() {
        let check = |arguments: &str, expected: &str| {
            assert_eq!(run(arguments, &[]), Err(expected.to_string()))
        };
        check("serv", "unknown command `serv`: did you mean `serve`?");
        let missing = "--component is missing: give --component NAME, or set RADIX_COMPONENT\n\
                       --environment is missing: give --environment NAME, or set RADIX_ENVIRONMENT";
        check("serve", &format!("{missing}\n{NO_CLUSTER}"));
        check("serve --kube-url http://a", missing);
        check(
            "--verison",
            "unknown flag --verison: did you mean --version?",
        );
        check(
            "--url x list",
            "--url: give a command before its flags, see job-scheduler --help",
        );
        check("hlep", "unknown command `hlep`: did you mean `help`?");
        check(
            "local f --cpus 0",
            "--cpus 0: give a number of CPUs over 0, such as 4 or 500m",
        );
        check(
            "local f --log-limit 1k",
            "--log-limit 1k: give a size of at least 1Mi, such as 64Mi",
        );
        check(
            "local f --port compute=0",
            "--port compute=0: give a port, 1 to 65535, or JOB=PORT, such as compute=8001",
        );
        check(
            "local f --memory 0Mi",
            "--memory 0Mi: give a size over 0, such as 8Gi",
        );
        check(
            "local a b",
            "`b` is one too many: see job-scheduler local --help",
        );
        check(
            "completions tcsh",
            "there are no completions for `tcsh`: give one of bash, zsh, fish",
        );
        check(
            "serve --componant x",
            "unknown flag --componant: did you mean --component? see job-scheduler serve --help",
        );
        check(
            "serve --component a --environment b --port x",
            "--port x: give a port, 1 to 65535 (0 lets the system choose)",
        );
        check(
            "serve --component a --component b",
            "--component is given twice: give it once",
        );
        check(
            "manifests --environment dev --scheduler-image x",
            "FILE is missing: job-scheduler manifests radixconfig.yaml",
        );
        check(
            "manifests f --image compute --environment dev --scheduler-image x",
            "--image compute: give JOB=REF, such as compute=registry.example.com/compute:1",
        );
    }

    #[test]
    fn manifests_take_what_is_for_the_schedulers() {
        let manifests = |arguments: &str| match run(
            &format!("manifests f --environment e {arguments}"),
            &[("LOG_LEVEL", "debug")],
        ) {
            Ok(Command::Manifests(options)) => Ok(options),
            Err(message) => Err(message),
            other => panic!("{other:?}"),
        };
        let options = manifests("--scheduler-image i --max-running 2 --log-format json").unwrap();
        // This process's own environment is not the schedulers'.
        let passed = [
            ("max-running", "2".to_string()),
            ("log-format", "json".to_string()),
        ];
        assert_eq!(options.passed, passed);
        assert_eq!(options.pod_security, PodSecurity::Restricted);
        assert_eq!(manifests("--sidecar").unwrap().shape, Shape::Beside);
        let error = |arguments: &str| manifests(arguments).unwrap_err();
        assert_eq!(
            error("--sidecar-patch"),
            "--scheduler-image is missing: give --scheduler-image REF, or set JOB_SCHEDULER_SCHEDULER_IMAGE"
        );
        assert_eq!(
            error("--sidecar --sidecar-patch"),
            "--sidecar and --sidecar-patch print different things: give one at a time"
        );
        assert_eq!(
            error("--scheduler-image i --max-running many"),
            "--max-running many: give a whole number from 0"
        );
        assert_eq!(
            error("--scheduler-image i --pod-security strict"),
            "--pod-security strict: give none, baseline or restricted"
        );
    }

    #[test]
    fn the_network_is_let_in_only_by_a_flag_that_says_so() {
        let address =
            |arguments: &str, environment: &[(&str, &str)]| match run(arguments, environment) {
                Ok(Command::Local(options)) => options.address.to_string(),
                Err(message) => message,
                other => panic!("{other:?}"),
            };
        let refused = "--address 0.0.0.0: others can reach it, and whoever can runs commands on this machine as you: leave \
                       it out, or add --allow-network";
        assert_eq!(address("local f", &[]), "127.0.0.1");
        assert_eq!(address("local f --address ::1", &[]), "::1");
        assert_eq!(address("local f --address 0.0.0.0", &[]), refused);
        assert_eq!(
            address("local f --address 0.0.0.0 --allow-network", &[]),
            "0.0.0.0"
        );
        let twin = [("JOB_SCHEDULER_ALLOW_NETWORK", "true")];
        assert_eq!(address("local --address 0.0.0.0 f", &twin), "0.0.0.0");
    }

    #[test]
    fn help_names_every_command_and_flag() {
        let Ok(Command::Print(text)) = run("--help", &[]) else {
            panic!()
        };
        for command in COMMANDS {
            assert!(text.contains(command.summary));
            let Ok(Command::Print(text)) = run(&format!("{} --help", command.name), &[]) else {
                panic!()
            };
            assert_eq!(
                run(&format!("help {}", command.name), &[]),
                Ok(Command::Print(text.clone()))
            );
            assert!(!command.examples.is_empty(), "{}", command.name);
            for flag in command.flags {
                assert!(text.contains(&format!("--{}", flag.name)) && text.contains(flag.variable));
            }
        }
    }

    /// Of the examples that are one command of this program, with what a shell would make of them.
    #[test]
    fn the_examples_are_right() {
        for example in COMMANDS.iter().flat_map(|command| command.examples) {
            let example = example.replace("\\\n", "").replace('\'', "");
            let ours = example.split(['|', '>', '#', '<', '(', ')']);
            let ours = ours
                .map(str::trim)
                .find_map(|part| part.strip_prefix("job-scheduler "));
            let arguments = ours.expect(&example).replace("{\"x\": 10}", "x");
            let outcome = run(&arguments, &[]);
            assert!(outcome.is_ok(), "{example}: {outcome:?}");
        }
    }

    #[test]
    fn a_client_is_told_what_to_ask_for() {
        let client =
            |arguments: &str, environment: &[(&str, &str)]| match run(arguments, environment) {
                Ok(Command::Client(options)) => options,
                other => panic!("{other:?}"),
            };
        let options = client(
            "run --payload x -wf --variable A=b=c --priority -5 -- sh -c --wait",
            &[
                ("JOB_SCHEDULER_URL", "http://compute:8000/api/v1/jobs/"),
                ("HOME", "/h"),
            ],
        );
        assert_eq!(options.url.as_deref(), Some("http://compute:8000"));
        assert_eq!(
            options.data_dir,
            Some("/h/.local/state/job-scheduler".into())
        );
        assert!(options.colour);
        let Action::Run(run_options) = options.action else {
            panic!()
        };
        assert_eq!(run_options.payload, Payload::Text("x".to_string()));
        assert!(run_options.wait && run_options.follow);
        assert_eq!(run_options.priority, Some(-5));
        assert_eq!(
            run_options.variables,
            [("A".to_string(), "b=c".to_string())]
        );
        assert_eq!(run_options.command.unwrap(), ["sh", "-c", "--wait"]);
        let options = client("stop a b -o json", &[("NO_COLOR", "1")]);
        assert_eq!((options.output, options.colour), (Output::Json, false));
        assert_eq!(
            options.action,
            Action::Stop {
                names: vec!["a".to_string(), "b".to_string()]
            }
        );
        assert_eq!(client("stop --all", &[]).action, Action::StopAll);
        let wait = Action::Wait {
            name: "a".to_string(),
            timeout: Some(Duration::from_secs(600)),
        };
        assert_eq!(client("wait --timeout 10m a", &[]).action, wait);
    }

    #[test]
    fn a_client_gets_errors_that_say_what_to_do() {
        #[track_caller]
        fn check(arguments: &str, expected: &str) {
            assert_eq!(run(arguments, &[]), Err(expected.to_string()));
        }
        check(
            "run x",
            "`x`: give --payload TEXT, --payload-file FILE or `-` for standard input; a command to run goes \
             after `--`",
        );
        check(
            "run - --payload x",
            "there are two payloads: give one of --payload, --payload-file and `-`",
        );
        check("run --timeout 5", "--timeout: needs --wait");
        check(
            "run --",
            "nothing follows `--`: give the command to run, such as -- sh -c date",
        );
        check(
            "run -f -o json",
            "--follow prints what the job writes, which is no JSON: leave it or --output out",
        );
        check(
            "list --url https://a",
            "--url https://a: give http://HOST:PORT, such as http://compute:8000",
        );
        check(
            "stop",
            "NAME is missing: job-scheduler stop compute-20261124090332-lpf3yfob",
        );
        check("stop --all a", "--all: give it, or names, not both");
        check("get -x a", "unknown flag -x: see job-scheduler get --help");
        check(
            "wait a --timeout x",
            "--timeout x: give a time, such as 90s, 10m or 2h",
        );
    }
}
