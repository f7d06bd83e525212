//! The commands and their flags, as tables: what is parsed, what the help says and what a shell
//! completes are the same.

/// One flag of a command.
pub struct Flag {
    /// Without the dashes.
    pub name: &'static str,
    /// The letter that says the same.
    pub short: Option<char>,
    /// The environment variable that says the same; empty for none.
    pub variable: &'static str,
    /// What stands for its value in the help; empty for a flag that has none.
    pub value: &'static str,
    pub help: &'static str,
    pub repeats: bool,
}

const fn flag(
    name: &'static str,
    variable: &'static str,
    value: &'static str,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        short: None,
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
        short: None,
        variable,
        value,
        help,
        repeats: true,
    }
}

/// A flag without a value; its variable is `true` or `false`.
const fn switch(name: &'static str, variable: &'static str, help: &'static str) -> Flag {
    flag(name, variable, "", help)
}

/// A flag that is for the schedulers: this process's own environment says nothing of it.
const fn passed(flag: Flag) -> Flag {
    Flag {
        variable: "",
        ..flag
    }
}

const fn lettered(letter: char, flag: Flag) -> Flag {
    Flag {
        short: Some(letter),
        ..flag
    }
}

/// What a command takes beside its flags.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operands {
    None,
    One(&'static str),
    /// One, or none.
    Optional(&'static str),
    /// At least one, but for a flag that stands for all.
    Many(&'static str),
    /// `-` for standard input, and after `--` the words of a command line.
    Input,
}

pub struct CommandSpec {
    pub name: &'static str,
    pub operands: Operands,
    pub summary: &'static str,
    /// What to know beside the flags; may be empty.
    pub notes: &'static str,
    pub examples: &'static [&'static str],
    pub flags: &'static [Flag],
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
const ALLOW_HOST: Flag = list(
    "allow-host",
    "JOB_SCHEDULER_ALLOW_HOSTS",
    "NAME",
    "a name that requests may call a scheduler by, beside those of its Service (repeat; \
     comma-separated in the variable)",
);
const MAX_RUNNING: Flag = flag(
    "max-running",
    "JOB_SCHEDULER_MAX_RUNNING",
    "N",
    "jobs that run at once; the others wait in a queue (default 0: no cap)",
);
const MAX_WAITING: Flag = flag(
    "max-waiting",
    "JOB_SCHEDULER_MAX_WAITING",
    "N",
    "jobs that wait in the queue; POST answers 429 over it (default 1000)",
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
const URL: Flag = flag(
    "url",
    "JOB_SCHEDULER_URL",
    "URL",
    "the scheduler, such as http://compute:8000 (default: the one on this machine or in this pod)",
);
const COMPONENT: Flag = flag(
    "component",
    "JOB_SCHEDULER_COMPONENT",
    "NAME",
    "which job component of this machine, where it has several",
);
const CLIENT_DATA_DIR: Flag = flag(
    "data-dir",
    "JOB_SCHEDULER_DATA_DIR",
    "DIR",
    "the --data-dir of the scheduler on this machine, if it was given one",
);
const OUTPUT: Flag = lettered(
    'o',
    flag(
        "output",
        "",
        "FORMAT",
        "text (default), or json: what the scheduler answers",
    ),
);
const TIMEOUT: Flag = flag(
    "timeout",
    "",
    "TIME",
    "the longest to wait for the job's end, such as 90s or 10m (default: no limit)",
);
const WAITING: &str = "Exit codes: 0 Succeeded, 1 Failed, 3 Stopped, 4 gone (deleted or retired), \
                       5 the scheduler cannot be reached or refuses, 6 not finished within --timeout; \
                       2 bad usage.";
const ASKING: &str = "Exit codes: 0 done, 2 bad usage, 4 no such job, 5 the scheduler cannot be \
                      reached or refuses.";

pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "local",
        operands: Operands::One("FILE"),
        summary: "Run the schedulers of all job components of a radixconfig.yaml on this machine",
        notes: "",
        examples: &[
            "job-scheduler local radixconfig.yaml",
            "job-scheduler local radixconfig.yaml --environment prod --cpus 2 --memory 4Gi",
        ],
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
                "where jobs are kept (default $XDG_STATE_HOME/job-scheduler, or \
                 ~/.local/state/job-scheduler)",
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
                "log-limit",
                "JOB_SCHEDULER_LOG_LIMIT",
                "SIZE",
                "the most of a job's log that is kept, which is its end (default 64Mi)",
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
            list(
                "port",
                "JOB_SCHEDULER_PORT",
                "[JOB=]PORT",
                "another port than a component's schedulerPort; JOB= says whose, where there are \
                 several (repeat; comma-separated in the variable)",
            ),
            list(
                "allow-host",
                "JOB_SCHEDULER_ALLOW_HOSTS",
                "NAME",
                "a name that requests may call this machine by, at any port: for a name of compose, or \
                 localhost for a forwarded port (repeat; comma-separated in the variable)",
            ),
            switch(
                "allow-other-users",
                "JOB_SCHEDULER_ALLOW_OTHER_USERS",
                "serve the other users of this machine too: whoever asks runs commands as you",
            ),
            switch(
                "allow-network",
                "JOB_SCHEDULER_ALLOW_NETWORK",
                "let --address be one that others can reach: whoever can, runs commands on this \
                 machine as you",
            ),
            HISTORY_LIMIT,
            MAX_JOBS,
            LOG_LEVEL,
            LOG_FORMAT,
        ],
    },
    CommandSpec {
        name: "serve",
        operands: Operands::None,
        summary: "Run the scheduler of one job component, in a Kubernetes cluster",
        notes: "",
        examples: &["job-scheduler serve --component compute --environment dev"],
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
            ALLOW_HOST,
            HISTORY_LIMIT,
            MAX_JOBS,
            MAX_RUNNING,
            MAX_WAITING,
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
        name: "manifests",
        operands: Operands::One("FILE"),
        summary: "Print the Kubernetes objects that run the schedulers, for kubectl apply -f -",
        notes: "",
        examples: &[
            "job-scheduler manifests radixconfig.yaml --environment dev \\\n    \
             --scheduler-image registry.example.com/job-scheduler:1 | kubectl apply -f -",
            "job-scheduler manifests radixconfig.yaml --environment dev --sidecar | kubectl apply -f -",
            "job-scheduler manifests radixconfig.yaml --environment dev --sidecar-patch \\\n    \
             --scheduler-image registry.example.com/job-scheduler:1 > patch.json",
        ],
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
            flag(
                "pod-security",
                "",
                "PROFILE",
                "what the namespace enforces of all its pods, the application's own too: none, \
                 baseline or restricted (default)",
            ),
            switch(
                "sidecar",
                "",
                "only what the schedulers need as sidecars of the application's own Deployment",
            ),
            switch(
                "sidecar-patch",
                "",
                "the patch that makes them so, for kubectl patch deployment NAME --patch-file",
            ),
            passed(ALLOW_HOST),
            passed(HISTORY_LIMIT),
            passed(MAX_JOBS),
            passed(MAX_RUNNING),
            passed(MAX_WAITING),
            passed(LOG_LEVEL),
            passed(LOG_FORMAT),
        ],
    },
    CommandSpec {
        name: "validate",
        operands: Operands::One("FILE"),
        summary: "Check a radixconfig.yaml in all its environments, and start nothing",
        notes: "Exit codes: 0 it is right (warnings may have been given), 2 it is not.",
        examples: &["job-scheduler validate radixconfig.yaml"],
        flags: &[],
    },
    CommandSpec {
        name: "run",
        operands: Operands::Input,
        summary: "Start a job, and wait for its end if asked to",
        notes: "Prints the job's name, or with --follow what the job writes. It is sent with an \
                Idempotency-Key, so that it is safe to send again while the scheduler is away.\n\n\
                Without --wait the exit codes are 0 accepted, 2 bad usage or a wrong field, 5 the \
                scheduler cannot be reached or refuses. With it: 0 Succeeded, 1 Failed, 3 Stopped, \
                4 gone (deleted or retired), 6 not finished within --timeout.",
        examples: &[
            "job-scheduler run --payload '{\"x\": 10}' --wait --follow",
            "job-scheduler run --payload-file input.json --job-id order-17 --output json",
            "generate | job-scheduler run - --wait",
            "job-scheduler run --wait --follow -- sh -c 'echo instead of the configured command'",
        ],
        flags: &[
            flag(
                "payload",
                "",
                "TEXT",
                "what the job finds in its payload file",
            ),
            flag(
                "payload-file",
                "",
                "FILE",
                "a file with the payload; `-` as an operand takes standard input",
            ),
            lettered(
                'w',
                switch(
                    "wait",
                    "",
                    "wait for the job's end; the exit code tells which",
                ),
            ),
            lettered(
                'f',
                switch("follow", "", "print what the job writes, until its end"),
            ),
            TIMEOUT,
            flag("job-id", "", "ID", "an id of your own for the job"),
            flag(
                "priority",
                "",
                "N",
                "its place in the queue, -100 to 100, higher first (default 0)",
            ),
            flag("image", "", "REF", "another image than the component's"),
            flag("image-tag-name", "", "TAG", "another tag than the image's"),
            list(
                "variable",
                "",
                "NAME=VALUE",
                "an environment variable of the job (repeat)",
            ),
            flag(
                "time-limit-seconds",
                "",
                "N",
                "seconds that an attempt may run",
            ),
            flag("backoff-limit", "", "N", "attempts after the first"),
            flag(
                "idempotency-key",
                "",
                "KEY",
                "the same key makes the same job, however often it is sent (default: a new one)",
            ),
            URL,
            COMPONENT,
            CLIENT_DATA_DIR,
            OUTPUT,
        ],
    },
    CommandSpec {
        name: "list",
        operands: Operands::None,
        summary: "Show the jobs that are kept",
        notes: ASKING,
        examples: &[
            "job-scheduler list",
            "job-scheduler list --status Running --status Waiting",
            "job-scheduler list --output json | jq '.[].name'",
        ],
        flags: &[
            list("status", "", "STATUS", "only jobs of this status (repeat)"),
            URL,
            COMPONENT,
            CLIENT_DATA_DIR,
            OUTPUT,
        ],
    },
    CommandSpec {
        name: "get",
        operands: Operands::One("NAME"),
        summary: "Show a job and its attempts",
        notes: ASKING,
        examples: &["job-scheduler get compute-20261124090332-lpf3yfob"],
        flags: &[URL, COMPONENT, CLIENT_DATA_DIR, OUTPUT],
    },
    CommandSpec {
        name: "logs",
        operands: Operands::One("NAME"),
        summary: "Print what a job's latest attempt has written",
        notes: ASKING,
        examples: &[
            "job-scheduler logs -f compute-20261124090332-lpf3yfob",
            "job-scheduler logs --tail 20 compute-20261124090332-lpf3yfob",
        ],
        flags: &[
            lettered(
                'f',
                switch("follow", "", "go on until the job has finished"),
            ),
            flag("tail", "", "N", "begin with the last N lines"),
            URL,
            COMPONENT,
            CLIENT_DATA_DIR,
        ],
    },
    CommandSpec {
        name: "wait",
        operands: Operands::One("NAME"),
        summary: "Wait for a job's end",
        notes: WAITING,
        examples: &["job-scheduler wait compute-20261124090332-lpf3yfob --timeout 10m"],
        flags: &[TIMEOUT, URL, COMPONENT, CLIENT_DATA_DIR, OUTPUT],
    },
    CommandSpec {
        name: "stop",
        operands: Operands::Many("NAME"),
        summary: "End jobs, and keep their records",
        notes: ASKING,
        examples: &[
            "job-scheduler stop compute-20261124090332-lpf3yfob",
            "job-scheduler stop --all",
        ],
        flags: &[
            switch("all", "", "every unfinished job"),
            URL,
            COMPONENT,
            CLIENT_DATA_DIR,
            OUTPUT,
        ],
    },
    CommandSpec {
        name: "restart",
        operands: Operands::One("NAME"),
        summary: "Run a job again: a stopped one in place, a finished one as a new job",
        notes: ASKING,
        examples: &["job-scheduler restart compute-20261124090332-lpf3yfob"],
        flags: &[URL, COMPONENT, CLIENT_DATA_DIR, OUTPUT],
    },
    CommandSpec {
        name: "delete",
        operands: Operands::Many("NAME"),
        summary: "Delete jobs, running or not, with their payloads",
        notes: ASKING,
        examples: &["job-scheduler delete compute-20261124090332-lpf3yfob"],
        flags: &[URL, COMPONENT, CLIENT_DATA_DIR, OUTPUT],
    },
    CommandSpec {
        name: "openapi",
        operands: Operands::None,
        summary: "Print the OpenAPI document of the API, for generators of clients",
        notes: "",
        examples: &["job-scheduler openapi > job-scheduler.json"],
        flags: &[],
    },
    CommandSpec {
        name: "completions",
        operands: Operands::One("SHELL"),
        summary: "Print what completes commands and flags in bash, zsh or fish",
        notes: "",
        examples: &[
            "source <(job-scheduler completions bash)   # in ~/.bashrc",
            "source <(job-scheduler completions zsh)    # in ~/.zshrc, after compinit",
            "job-scheduler completions fish | source    # in ~/.config/fish/config.fish",
        ],
        flags: &[],
    },
    CommandSpec {
        name: "help",
        operands: Operands::Optional("COMMAND"),
        summary: "Show what a command does and takes",
        notes: "",
        examples: &["job-scheduler help run"],
        flags: &[],
    },
    CommandSpec {
        name: "version",
        operands: Operands::None,
        summary: "Print the version",
        notes: "",
        examples: &["job-scheduler version"],
        flags: &[],
    },
];
