//! Flags and their environment twins: the only reader of either.

use crate::config::Quantity;
use crate::http::DOCUMENT;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// One flag of a command.
struct Flag {
    /// Without the dashes.
    name: &'static str,
    /// The environment variable that says the same; empty for none.
    variable: &'static str,
    /// What stands for its value in the help; empty for a flag that has none.
    value: &'static str,
    help: &'static str,
    repeats: bool,
}

const fn flag(
    name: &'static str,
    variable: &'static str,
    value: &'static str,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        variable,
        value,
        help,
        repeats: false,
    }
}

const fn list(
    name: &'static str,
    variable: &'static str,
    value: &'static str,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        variable,
        value,
        help,
        repeats: true,
    }
}

struct CommandSpec {
    name: &'static str,
    /// The operand, or an empty text.
    operand: &'static str,
    summary: &'static str,
    flags: &'static [Flag],
}

/// A flag without a value; its variable is `true` or `false`.
const fn switch(name: &'static str, variable: &'static str, help: &'static str) -> Flag {
    flag(name, variable, "", help)
}

const HISTORY_LIMIT: Flag = flag(
    "history-limit",
    "RADIX_JOB_SCHEDULERS_PER_ENVIRONMENT_HISTORY_LIMIT",
    "N",
    "finished jobs to keep of each outcome (default 10)",
);
const MAX_JOBS: Flag = flag(
    "max-jobs",
    "JOB_SCHEDULER_MAX_JOBS",
    "N",
    "unfinished jobs to take; POST answers 429 over it (default 10000)",
);
const LOG_LEVEL: Flag = flag(
    "log-level",
    "LOG_LEVEL",
    "LEVEL",
    "error, warn, info (default), debug or trace",
);
const LOG_FORMAT: Flag = flag(
    "log-format",
    "LOG_FORMAT",
    "FORMAT",
    "text (default) or json",
);

const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "serve",
        operand: "",
        summary: "Run the scheduler of one job component, in a Kubernetes cluster",
        flags: &[
            flag(
                "config",
                "JOB_SCHEDULER_CONFIG",
                "FILE",
                "the application's radixconfig.yaml (default /etc/job-scheduler/radixconfig.yaml)",
            ),
            flag(
                "component",
                "RADIX_COMPONENT",
                "NAME",
                "the job component, one of spec.jobs",
            ),
            flag(
                "environment",
                "RADIX_ENVIRONMENT",
                "NAME",
                "the environment, one of spec.environments",
            ),
            flag(
                "app",
                "RADIX_APP",
                "NAME",
                "the application; must be metadata.name of the file",
            ),
            flag(
                "image",
                "JOB_SCHEDULER_IMAGE",
                "REF",
                "the image of the jobs, for a component that has src and no image",
            ),
            list(
                "image-pull-secret",
                "JOB_SCHEDULER_IMAGE_PULL_SECRETS",
                "NAME",
                "a Secret to pull the jobs' image with (repeat; comma-separated in the variable)",
            ),
            flag(
                "address",
                "JOB_SCHEDULER_ADDRESS",
                "IP",
                "the address to listen on (default: all, IPv6 and IPv4)",
            ),
            flag(
                "port",
                "JOB_SCHEDULER_PORT",
                "PORT",
                "the port to listen on (default: the component's schedulerPort)",
            ),
            list(
                "allow-host",
                "JOB_SCHEDULER_ALLOW_HOSTS",
                "NAME",
                "a name that requests may call this scheduler by, beside those of its Service (repeat; \
                 comma-separated in the variable)",
            ),
            HISTORY_LIMIT,
            MAX_JOBS,
            flag(
                "max-running",
                "JOB_SCHEDULER_MAX_RUNNING",
                "N",
                "jobs that run at once; the others wait in a queue (default 0: no cap)",
            ),
            flag(
                "max-waiting",
                "JOB_SCHEDULER_MAX_WAITING",
                "N",
                "jobs that wait in the queue; POST answers 429 over it (default 1000)",
            ),
            flag(
                "kube-url",
                "JOB_SCHEDULER_KUBE_URL",
                "URL",
                "the API server (default: the cluster that this runs in)",
            ),
            flag(
                "kube-token-file",
                "JOB_SCHEDULER_KUBE_TOKEN_FILE",
                "FILE",
                "a file with a bearer token, read again as it changes",
            ),
            flag(
                "kube-ca-file",
                "JOB_SCHEDULER_KUBE_CA_FILE",
                "FILE",
                "the API server's certificate authority, PEM",
            ),
            LOG_LEVEL,
            LOG_FORMAT,
        ],
    },
    CommandSpec {
        name: "local",
        operand: "FILE",
        summary: "Run the schedulers of all job components of a radixconfig.yaml on this machine",
        flags: &[
            flag(
                "environment",
                "RADIX_ENVIRONMENT",
                "NAME",
                "the environment, one of spec.environments (default: the first)",
            ),
            flag(
                "data-dir",
                "JOB_SCHEDULER_DATA_DIR",
                "DIR",
                "where jobs are kept (default $XDG_STATE_HOME/job-scheduler, or ~/.local/state/job-scheduler)",
            ),
            flag(
                "cpus",
                "JOB_SCHEDULER_CPUS",
                "N",
                "CPUs for running jobs to reserve, such as 4 or 500m (default: the machine's)",
            ),
            flag(
                "memory",
                "JOB_SCHEDULER_MEMORY",
                "SIZE",
                "memory for running jobs to reserve, such as 8Gi (default: the machine's)",
            ),
            flag(
                "secrets-file",
                "JOB_SCHEDULER_SECRETS_FILE",
                "FILE",
                "KEY=VALUE lines with the components' secrets (default: this process's environment)",
            ),
            flag(
                "grace-seconds",
                "JOB_SCHEDULER_GRACE_SECONDS",
                "N",
                "seconds from SIGTERM to SIGKILL for a job that is ended (default 30)",
            ),
            flag(
                "address",
                "JOB_SCHEDULER_ADDRESS",
                "IP",
                "the address to listen on (default 127.0.0.1)",
            ),
            switch(
                "allow-network",
                "JOB_SCHEDULER_ALLOW_NETWORK",
                "let --address be one that others can reach: whoever can, runs commands on this machine as you",
            ),
            HISTORY_LIMIT,
            MAX_JOBS,
            LOG_LEVEL,
            LOG_FORMAT,
        ],
    },
    CommandSpec {
        name: "manifests",
        operand: "FILE",
        summary: "Print the Kubernetes objects that run the schedulers, for kubectl apply -f -",
        flags: &[
            flag(
                "environment",
                "RADIX_ENVIRONMENT",
                "NAME",
                "the environment, one of spec.environments",
            ),
            flag(
                "scheduler-image",
                "JOB_SCHEDULER_SCHEDULER_IMAGE",
                "REF",
                "the image of job-scheduler itself",
            ),
            list(
                "image",
                "",
                "JOB=REF",
                "the image of a job component that has src and no image (repeat)",
            ),
            list("job", "", "NAME", "only this job component (repeat)"),
            list(
                "image-pull-secret",
                "JOB_SCHEDULER_IMAGE_PULL_SECRETS",
                "NAME",
                "a Secret to pull images with (repeat; comma-separated in the variable)",
            ),
        ],
    },
    CommandSpec {
        name: "openapi",
        operand: "",
        summary: "Print the OpenAPI document of the API, for generators of clients",
        flags: &[],
    },
];

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub enum Command {
    Serve(ServeOptions),
    Local(LocalOptions),
    Manifests(ManifestsOptions),
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
    pub data_dir: Option<PathBuf>,
    pub cpus: Option<Quantity>,
    pub memory: Option<Quantity>,
    pub secrets_file: Option<PathBuf>,
    pub grace_seconds: u32,
    pub address: IpAddr,
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
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoggingOptions {
    pub level: log::LevelFilter,
    pub format: crate::logging::Format,
}

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
    let mut parser = lexopt::Parser::from_args(arguments);
    let spec = match parser.next().map_err(usage)? {
        None => return Ok(Command::Print(help())),
        Some(lexopt::Arg::Short('h') | lexopt::Arg::Long("help")) => {
            return Ok(Command::Print(help()));
        }
        Some(lexopt::Arg::Short('V') | lexopt::Arg::Long("version")) => {
            return Ok(Command::Print(format!(
                "job-scheduler {}\n",
                env!("CARGO_PKG_VERSION")
            )));
        }
        Some(lexopt::Arg::Value(name)) => {
            let name = utf8("command", name)?;
            if name == "help" {
                return Ok(Command::Print(help()));
            }
            find_command(&name)?
        }
        Some(other) => return Err(usage(other.unexpected())),
    };
    let mut given = Given {
        spec,
        values: HashMap::new(),
        operand: None,
    };
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => {
                return Ok(Command::Print(command_help(spec)));
            }
            lexopt::Arg::Long(name) => {
                let flag = find_flag(spec, name)?;
                let value = match flag.value.is_empty() {
                    true => OsString::from("true"),
                    false => parser.value().map_err(usage)?,
                };
                given.put(flag, utf8(flag.name, value)?)?;
            }
            lexopt::Arg::Value(value) if given.operand.is_none() && !spec.operand.is_empty() => {
                given.operand = Some(PathBuf::from(value));
            }
            other => return Err(usage(other.unexpected())),
        }
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
    match spec.name {
        "local" => given.local().map(Command::Local),
        "serve" => given.serve(in_cluster_url(environment)).map(Command::Serve),
        "openapi" => Ok(Command::Print(DOCUMENT.to_string())),
        _ => given.manifests().map(Command::Manifests),
    }
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
    operand: Option<PathBuf>,
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
            max_running: self
                .parsed("max-running", "a whole number from 0")?
                .unwrap_or(0),
            max_waiting: self
                .parsed("max-waiting", "a whole number from 0")?
                .unwrap_or(1000),
            kube_url: self.text("kube-url"),
            in_cluster_url,
            kube_token_file: self.text("kube-token-file").map(PathBuf::from),
            kube_ca_file: self.text("kube-ca-file").map(PathBuf::from),
            logging: self.logging()?,
        })
    }

    fn local(mut self) -> Result<LocalOptions, UsageError> {
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
            file: self.operand()?,
            environment: self.text("environment"),
            data_dir: self.text("data-dir").map(PathBuf::from),
            cpus: self.parsed("cpus", "a number of CPUs, such as 4 or 500m")?,
            memory: self.parsed("memory", "a size, such as 8Gi")?,
            secrets_file: self.text("secrets-file").map(PathBuf::from),
            grace_seconds: self
                .parsed("grace-seconds", "a whole number of seconds")?
                .unwrap_or(30),
            address,
            history_limit: self.history_limit()?,
            max_jobs: self.max_jobs()?,
            logging: self.logging()?,
        })
    }

    fn history_limit(&mut self) -> Result<usize, UsageError> {
        let limit = self.parsed("history-limit", "a whole number from 0")?;
        Ok(limit.unwrap_or(10))
    }

    fn max_jobs(&mut self) -> Result<usize, UsageError> {
        let limit = self.parsed("max-jobs", "a whole number from 0")?;
        Ok(limit.unwrap_or(10_000))
    }

    fn manifests(mut self) -> Result<ManifestsOptions, UsageError> {
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
            file: self.operand()?,
            environment: self.required("environment")?,
            scheduler_image: self.required("scheduler-image")?,
            jobs: self.list("job"),
            image_pull_secrets: self.list("image-pull-secret"),
        })
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

    fn operand(&mut self) -> Result<PathBuf, UsageError> {
        let (operand, name) = (self.spec.operand, self.spec.name);
        self.operand.take().ok_or_else(|| {
            UsageError(format!(
                "{operand} is missing: job-scheduler {name} radixconfig.yaml …"
            ))
        })
    }

    fn list(&mut self, name: &str) -> Vec<String> {
        self.values.remove(name).unwrap_or_default()
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.values.remove(name).and_then(|mut values| values.pop())
    }

    fn required(&mut self, name: &'static str) -> Result<String, UsageError> {
        let flag = self.spec.flags.iter().find(|flag| flag.name == name);
        self.text(name).ok_or_else(|| {
            let twin = flag.filter(|flag| !flag.variable.is_empty());
            let twin = twin
                .map(|flag| format!(", or set {}", flag.variable))
                .unwrap_or_default();
            let value = flag.map_or("", |flag| flag.value);
            UsageError(format!("--{name} is missing: give --{name} {value}{twin}"))
        })
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

fn usage(error: lexopt::Error) -> UsageError {
    UsageError(format!("{error}: see job-scheduler --help"))
}

fn utf8(what: &str, value: OsString) -> Result<String, UsageError> {
    value
        .into_string()
        .map_err(|_| UsageError(format!("{what}: is not UTF-8 text")))
}

fn find_command(name: &str) -> Result<&'static CommandSpec, UsageError> {
    COMMANDS
        .iter()
        .find(|command| command.name == name)
        .ok_or_else(|| {
            let names: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
            UsageError(format!(
                "unknown command `{name}`: give one of {}",
                names.join(", ")
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

fn help() -> String {
    let mut text = String::from(
        "job-scheduler runs on-demand jobs behind an HTTP API: POST a payload, a job runs with it in a file.\n\nUsage:\n",
    );
    for command in COMMANDS {
        let _ = writeln!(
            text,
            "  job-scheduler {:10} {:5} {}",
            command.name, command.operand, command.summary
        );
    }
    text.push_str("\njob-scheduler COMMAND --help lists a command's flags; each may also be set in the environment.\n");
    text.push_str(
        "Exit codes: 0 done, 1 failed while running, 2 bad usage or bad configuration.\n",
    );
    text
}

fn command_help(spec: &CommandSpec) -> String {
    let operand = if spec.operand.is_empty() {
        String::new()
    } else {
        format!(" {}", spec.operand)
    };
    let mut text = format!(
        "{}\n\nUsage: job-scheduler {}{operand} [FLAG VALUE]…\n\nFlags:\n",
        spec.summary, spec.name
    );
    for flag in spec.flags {
        let _ = writeln!(
            text,
            "  {}\n      {}",
            format!("--{} {}", flag.name, flag.value).trim_end(),
            flag.help
        );
        if !flag.variable.is_empty() {
            let _ = writeln!(text, "      environment: {}", flag.variable);
        }
    }
    text
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
        check(
            "serv",
            "unknown command `serv`: give one of serve, local, manifests, openapi",
        );
        check(
            "serve",
            "--component is missing: give --component NAME, or set RADIX_COMPONENT",
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
            "FILE is missing: job-scheduler manifests radixconfig.yaml …",
        );
        check(
            "manifests f --image compute --environment dev --scheduler-image x",
            "--image compute: give JOB=REF, such as compute=registry.example.com/compute:1",
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
            for flag in command.flags {
                assert!(
                    text.contains(&format!("  --{}", flag.name)) && text.contains(flag.variable)
                );
            }
        }
    }
}
