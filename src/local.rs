//! `local`: every job component of a file on this machine, from the options to the signal that ends
//! it.

use crate::backend::local::{
    Amount, Bytes, Cpus, Folder, Local, MACHINE_VARIABLES, Machine, OpenError, Part, Setup, System,
    bound_logs, bytes, check_port, cpu_milli, url,
};
use crate::cli::LocalOptions;
use crate::client::{self, Address};
use crate::clock::Clock;
use crate::columns::aligned;
use crate::config::{self, ConfigError, JobComponent};
use crate::http::{self, BindError, Guard, Server};
use crate::index::Bounds;
use crate::logging;
use crate::scheduler::{Limits, Scheduler, Sibling};
use crate::sync::spawn;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Why `local` did not start, or ended.
#[derive(Debug)]
pub enum LocalError {
    Config(ConfigError),
    /// What keeps the file from running here, a line each.
    Problems(Vec<String>),
    SecretsFile {
        file: PathBuf,
        problem: String,
    },
    NoDataDir,
    Data(OpenError),
    Bind {
        component: String,
        cause: BindError,
    },
    Io {
        operation: &'static str,
        cause: io::Error,
    },
}

impl LocalError {
    /// Whether the user has something to mend before it can start at all.
    pub fn is_configuration(&self) -> bool {
        match self {
            LocalError::Config(_)
            | LocalError::Problems(_)
            | LocalError::SecretsFile { .. }
            | LocalError::NoDataDir
            | LocalError::Data(_)
            | LocalError::Bind { .. } => true,
            LocalError::Io { .. } => false,
        }
    }
}

impl fmt::Display for LocalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocalError::Config(e) => e.fmt(f),
            LocalError::Problems(lines) => f.write_str(&lines.join("\n")),
            LocalError::SecretsFile { file, problem } => {
                write!(f, "--secrets-file {}: {problem}", file.display())
            }
            LocalError::NoDataDir => f.write_str(
                "there is no place for the jobs: give --data-dir, or set XDG_STATE_HOME or HOME",
            ),
            LocalError::Data(e) => e.fmt(f),
            LocalError::Bind { component, cause } => write!(
                f,
                "{cause}: it is the schedulerPort of {component}: change it in the file, or give --port \
                 {component}=PORT"
            ),
            LocalError::Io { operation, cause } => write!(f, "{operation}: {cause}"),
        }
    }
}

fn io_error(operation: &'static str) -> impl Fn(io::Error) -> LocalError {
    move |cause| LocalError::Io { operation, cause }
}

/// This process's own environment: the value of a variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One component, served.
struct Served {
    scheduler: Arc<Scheduler>,
    server: Server,
    worker: JoinHandle<()>,
}

/// Serves until SIGTERM or SIGINT, and then ends the jobs that run.
pub fn run(options: &LocalOptions, environment: Environment) -> Result<(), LocalError> {
    // Everything that can be wrong is looked at first.
    let components = read_components(options)?;
    let secrets = read_secrets(options)?;
    let parts = with_secrets(components, &secrets, environment)?;
    let capacity = capacity(options)?;
    // Signals before anything that would have to be ended in order.
    let mut wanted = vec![SIGTERM, SIGINT, SIGCHLD];
    if !is_hangup_ignored() {
        // The terminal is closed. Who wants it to go on has it ignored (nohup).
        wanted.push(SIGHUP);
    }
    let mut signals = Signals::new(wanted).map_err(io_error("signals"))?;
    let folder = data_folder(options, &parts)?;
    let mut listeners = Vec::new();
    for part in &parts {
        let address = SocketAddr::new(options.address, part.component.scheduler_port);
        let listener = http::bind(address).map_err(|cause| LocalError::Bind {
            component: part.component.name.clone(),
            cause,
        });
        listeners.push(listener?);
    }
    let components: Vec<JobComponent> = parts.iter().map(|p| p.component.clone()).collect();
    let machine = Machine::open(Setup {
        folder,
        parts,
        capacity,
        variables: MACHINE_VARIABLES
            .iter()
            .filter_map(|name| Some((name.to_string(), environment(name)?)))
            .collect(),
        grace: Duration::from_secs(options.grace_seconds.into()),
        processes: Arc::new(System),
        clock: Clock::real(),
    })
    .map_err(LocalError::Data)?;

    let supervisor = spawn("supervise", {
        let machine = machine.clone();
        move || machine.supervise()
    })
    .map_err(io_error("starting a thread"))?;
    let addresses: Vec<Address> = components
        .iter()
        .map(|component| Address {
            component: component.name.clone(),
            url: address_of(options, component)
                .trim_end_matches('/')
                .to_string(),
        })
        .collect();
    let published =
        client::publish(machine.folder(), &addresses).map_err(io_error("writing addresses"))?;
    bound_logs_for_ever(machine.folder().to_path_buf(), options.log_limit)?;
    match options.logging.format {
        logging::Format::Text => {
            let table = table(options, &components, &machine, capacity);
            // Whoever closed stdout does not want to see it.
            let _ = io::stdout().write_all(table.as_bytes());
        }
        logging::Format::Json => {}
    }
    let siblings: Vec<Sibling> = components
        .iter()
        .map(|component| Sibling {
            name: component.name.clone(),
            url: address_of(options, component),
        })
        .collect();
    let mut served = Vec::new();
    for (number, (component, listener)) in components.into_iter().zip(listeners).enumerate() {
        let siblings = siblings.clone();
        let one = serve(options, &machine, number, component, siblings, listener)?;
        served.push(one);
    }

    let handle = signals.handle();
    let mut ends = signals.forever();
    for signal in ends.by_ref() {
        match signal {
            SIGCHLD => machine.child_ended(),
            _ => break,
        }
    }
    drop(published);
    let (mut schedulers, mut workers) = (Vec::new(), Vec::new());
    for Served {
        scheduler,
        server,
        worker,
    } in served
    {
        server.stop();
        schedulers.push(scheduler);
        workers.push(worker);
    }
    let running = machine.shut_down();
    match options.logging.format {
        logging::Format::Text => eprintln!("{}", farewell(running, options.grace_seconds)),
        logging::Format::Json => log::info!("event=stopping running={running}"),
    }
    // Children end while these are waited for.
    let over = spawn("end", {
        move || {
            let _ = supervisor.join();
            handle.close();
        }
    })
    .map_err(io_error("starting a thread"))?;
    for signal in ends {
        match signal {
            SIGCHLD => machine.child_ended(),
            _ => machine.kill_all(),
        }
    }
    let _ = over.join();
    for scheduler in schedulers {
        scheduler.end();
    }
    for worker in workers {
        let _ = worker.join();
    }
    Ok(())
}

/// How often the sizes of logs are looked at.
const LOOK_AT_LOGS_EVERY: Duration = Duration::from_secs(1);

/// Bounds the jobs' logs, on a thread that ends with the process.
fn bound_logs_for_ever(folder: PathBuf, limit: u64) -> Result<(), LocalError> {
    let look = move || {
        loop {
            let begun = Instant::now();
            bound_logs(&folder, limit);
            // Of many logs it takes a twentieth of the time at most.
            thread::sleep(LOOK_AT_LOGS_EVERY.max(begun.elapsed() * 20));
        }
    };
    spawn("bound-logs", look)
        .map(drop)
        .map_err(io_error("starting a thread"))
}

/// Whether this process was started with SIGHUP ignored. Source: proc_pid_status(5).
fn is_hangup_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (SIGHUP - 1) != 0)
}

fn farewell(running: usize, grace_seconds: u32) -> String {
    match running {
        0 => "job-scheduler: stopped; no job was running".to_string(),
        _ => format!(
            "job-scheduler: stopping; ending {running} running job(s), which may take {grace_seconds} s: \
             press Ctrl-C again to kill them now"
        ),
    }
}

fn read_components(options: &LocalOptions) -> Result<Vec<JobComponent>, LocalError> {
    let config = config::load(&options.file).map_err(LocalError::Config)?;
    for warning in &config.warnings {
        eprintln!("{warning}");
    }
    let first = config.environments.first().cloned().unwrap_or_default();
    let environment = options.environment.clone().unwrap_or(first);
    let mut components = config
        .job_components(&environment)
        .map_err(LocalError::Config)?;
    let file = options.file.display();
    let mut problems = give_ports(&mut components, &options.ports);
    for component in &mut components {
        component.scheduler_url = Some(url_for_jobs(options.address, component.scheduler_port));
    }
    if components.is_empty() {
        problems.push(format!(
            "{file}: spec.jobs: there is no job component in the environment {environment}: nothing to run"
        ));
    }
    let mut ports: BTreeMap<u16, &str> = BTreeMap::new();
    for component in &components {
        let (name, port) = (&component.name, component.scheduler_port);
        if component
            .settings
            .command
            .as_ref()
            .is_none_or(Vec::is_empty)
        {
            problems.push(format!(
                "{file}: spec.jobs[{name}].command: is missing: on this machine there is no image to take it from, so give it"
            ));
        }
        if let Some(other) = ports.insert(port, name) {
            problems.push(format!(
                "{file}: spec.jobs[{name}].schedulerPort: {port} is {other}'s as well: on one machine each needs a port of its own"
            ));
        }
    }
    match problems.is_empty() {
        true => Ok(components),
        false => Err(LocalError::Problems(problems)),
    }
}

/// Gives components the ports that the flags say, and tells which flags are about none.
fn give_ports(components: &mut [JobComponent], ports: &[(Option<String>, u16)]) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, port) in ports {
        let names: Vec<String> = components.iter().map(|c| c.name.clone()).collect();
        let found = match (name, &mut *components) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(name), all) => all.iter_mut().find(|component| component.name == *name),
        };
        match (found, name) {
            (Some(component), _) => component.scheduler_port = *port,
            (None, Some(name)) => problems.push(format!(
                "--port {name}={port}: there is no job component {name}: give one of {}",
                names.join(", ")
            )),
            (None, None) => problems.push(format!(
                "--port {port}: there is not one job component but {}: say whose it is, as --port \
                 NAME={port}",
                names.len()
            )),
        }
    }
    problems
}

/// `KEY=VALUE` lines; empty ones and those that begin with `#` are left out. A value is taken as it
/// is.
fn read_secrets(options: &LocalOptions) -> Result<Option<BTreeMap<String, String>>, LocalError> {
    let Some(file) = &options.secrets_file else {
        return Ok(None);
    };
    let problem = |problem: String| LocalError::SecretsFile {
        file: file.clone(),
        problem,
    };
    let text = fs::read_to_string(file).map_err(|e| problem(e.to_string()))?;
    let mut secrets = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| problem(format!("line {number} is not KEY=VALUE")))?;
        secrets.insert(name.trim().to_string(), value.to_string());
    }
    Ok(Some(secrets))
}

/// Gives each component its secrets: from the file, or else from this process's own environment.
fn with_secrets(
    components: Vec<JobComponent>,
    file: &Option<BTreeMap<String, String>>,
    environment: Environment,
) -> Result<Vec<Part>, LocalError> {
    let mut problems = Vec::new();
    let mut parts = Vec::new();
    for component in components {
        let mut secrets = BTreeMap::new();
        for name in &component.secrets {
            let in_file = file.as_ref().and_then(|file| file.get(name).cloned());
            match in_file.or_else(|| environment(name)) {
                Some(value) => {
                    secrets.insert(name.clone(), value);
                }
                None => problems.push(format!(
                    "the secret {name} of the job component {} is nowhere: set it in the environment, or in a --secrets-file",
                    component.name
                )),
            }
        }
        parts.push(Part { component, secrets });
    }
    match problems.is_empty() {
        true => Ok(parts),
        false => Err(LocalError::Problems(problems)),
    }
}

/// What jobs may reserve: as the flags say, or else all that the machine has.
fn capacity(options: &LocalOptions) -> Result<Amount, LocalError> {
    let cpus = || {
        let cpus = std::thread::available_parallelism().map_err(io_error("counting CPUs"))?;
        Ok(cpus.get() as u64 * 1000)
    };
    let memory = || {
        let text = fs::read_to_string("/proc/meminfo").map_err(io_error("/proc/meminfo"))?;
        Ok(total_memory(&text).unwrap_or(u64::MAX))
    };
    Ok(Amount {
        cpu_milli: options
            .cpus
            .as_ref()
            .map_or_else(cpus, |cpus| Ok(cpu_milli(cpus)))?,
        memory: options
            .memory
            .as_ref()
            .map_or_else(memory, |memory| Ok(bytes(memory)))?,
    })
}

/// Source: proc_meminfo(5).
fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn data_folder(options: &LocalOptions, parts: &[Part]) -> Result<Folder, LocalError> {
    let data_dir = options.data_dir.as_ref().ok_or(LocalError::NoDataDir)?;
    // There is a component, or there would have been an error.
    let name = parts.first().map(|part| part.component.namespace());
    Folder::open(&data_dir.join(name.unwrap_or_default())).map_err(LocalError::Data)
}

fn serve(
    options: &LocalOptions,
    machine: &Arc<Machine>,
    number: usize,
    component: JobComponent,
    siblings: Vec<Sibling>,
    listener: TcpListener,
) -> Result<Served, LocalError> {
    let guard = Guard::only(options.address, component.scheduler_port, &component.name);
    let guard = guard.and(&options.allowed_hosts).of(options.peers);
    let limits = Limits {
        history: options.history_limit,
        bounds: Bounds {
            unfinished: options.max_jobs,
            // What may run at once is the machine's to say.
            running: 0,
            waiting: options.max_jobs,
        },
    };
    let scheduler = Arc::new(Scheduler::new(
        component,
        Arc::new(Local::new(machine.clone(), number)),
        limits,
        Clock::real(),
        Arc::default(),
    ));
    // Before anybody asks.
    scheduler.beside(siblings);
    machine.observe(number, scheduler.clone());
    let server =
        Server::start(listener, &scheduler, &guard).map_err(io_error("starting the server"))?;
    let component = scheduler.component();
    let unused = without_effect(component);
    if !unused.is_empty() {
        log::debug!(
            "component={} event=without-effect fields={}",
            component.name,
            unused.join(",")
        );
    }
    let worker = spawn(format!("work-{number}"), {
        let scheduler = scheduler.clone();
        move || scheduler.work()
    })
    .map_err(io_error("starting a thread"))?;
    log::debug!(
        "event=listening port={} component={} namespace={} version={}",
        component.scheduler_port,
        component.name,
        component.namespace(),
        env!("CARGO_PKG_VERSION")
    );
    Ok(Served {
        scheduler,
        server,
        worker,
    })
}

/// What is set for a component and means nothing on one machine.
fn without_effect(component: &JobComponent) -> Vec<&'static str> {
    let settings = &component.settings;
    [
        ("image", settings.image.is_some()),
        ("imageTagName", settings.image_tag_name.is_some()),
        ("node", settings.node.is_some()),
        ("readOnlyFileSystem", component.read_only_file_system),
        ("runAsUser", settings.run_as_user.is_some()),
        ("runtime", settings.runtime.is_some()),
        ("safeToRestart", settings.safe_to_restart.is_some()),
        ("volumeMounts", !component.volume_mounts.is_empty()),
    ]
    .into_iter()
    .filter_map(|(field, is_set)| is_set.then_some(field))
    .collect()
}

/// Where jobs, which are on this machine, reach their scheduler.
fn url_for_jobs(address: IpAddr, port: u16) -> String {
    let address = match address {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    format!("http://{}", SocketAddr::new(address, port))
}

/// Where a component is served, with a slash at its end.
fn address_of(options: &LocalOptions, component: &JobComponent) -> String {
    let host = match options.address {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => format!("[{address}]"),
    };
    format!("http://{host}:{}/", component.scheduler_port)
}

/// Where a running job of a component is reached: at its own ports, since it is a process of this
/// machine. One job at a time can have them.
fn job_ports(component: &JobComponent) -> String {
    let ports = component.ports.iter().map(|port| {
        let number = port.port;
        match check_port(number) {
            Ok(()) => url(number),
            Err(why) => format!("{number} ({}) {why}", port.name),
        }
    });
    let ports: Vec<String> = ports.collect();
    match ports.is_empty() {
        true => "-".to_string(),
        false => ports.join(", "),
    }
}

/// What runs where, for whoever started it.
fn table(
    options: &LocalOptions,
    components: &[JobComponent],
    machine: &Machine,
    capacity: Amount,
) -> String {
    let mut rows = vec![["COMPONENT", "JOBS", "PAYLOAD", "A JOB'S PORTS"].map(str::to_string)];
    for (number, component) in components.iter().enumerate() {
        let payload = match &component.payload_path {
            None => "none taken".to_string(),
            Some(path) if machine.has_view(number) => format!("{path}/payload"),
            Some(path) => format!("$JOB_PAYLOAD_FILE ({path} cannot be made here)"),
        };
        rows.push([
            component.name.clone(),
            format!("{}api/v1/jobs", address_of(options, component)),
            payload,
            job_ports(component),
        ]);
    }
    let mut text = aligned(&rows);
    text.push_str(&format!(
        "{} CPU and {} of memory for jobs, which are kept in {}\n",
        Cpus(capacity.cpu_milli),
        Bytes(capacity.memory),
        machine.folder().display()
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_the_kernel_says() {
        let meminfo = "MemTotal:       24683284 kB\nMemFree:        20803600 kB\n";
        assert_eq!(total_memory(meminfo), Some(24_683_284 * 1024));
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
    }
}
