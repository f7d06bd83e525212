//! Flags and their environment twins: the only reader of either.

mod commands;
mod given;
mod help;
mod options;

use crate::backend::local::JOB_INIT;
use crate::http::DOCUMENT;
use commands::{COMMANDS, CommandSpec, Flag, Operands};
use given::Given;
pub use options::{
    Action, ClientOptions, Command, LocalOptions, LoggingOptions, ManifestsOptions, Output,
    Payload, PodSecurity, RunOptions, ServeOptions, Shape,
};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;

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
    use std::time::Duration;

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
