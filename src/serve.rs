//! `serve`: the parts put together, from the options to the signal that ends it.

use crate::backend::Observer;
use crate::backend::kubernetes::{Access, AccessError, Client, Kubernetes};
use crate::cli::{NO_CLUSTER, ServeOptions};
use crate::clock::Clock;
use crate::config::{self, ConfigError, JobComponent};
use crate::http::{self, BindError, Guard};
use crate::index::Bounds;
use crate::metrics::Metrics;
use crate::scheduler::{Limits, Scheduler};
use crate::sync::spawn;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where Kubernetes mounts a pod's service account.
///
/// Source: <https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/>
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// From SIGTERM on, the cluster's nodes still send connections here until each has been told not
/// to: they would be swallowed, and their clients would wait for a minute.
const DRAIN: Duration = Duration::from_secs(5);
const LOOK_FOR_SIGNALS_EVERY: Duration = Duration::from_millis(50);
/// Workers that do what follows from what is observed.
const WORKERS: usize = 2;

/// Why `serve` did not start, or ended.
#[derive(Debug)]
pub enum ServeError {
    Config(ConfigError),
    OtherApp {
        given: String,
        file: PathBuf,
        app: String,
    },
    NoImage {
        component: String,
    },
    NoCluster,
    Access(AccessError),
    Bind(BindError),
    Io {
        operation: &'static str,
        cause: io::Error,
    },
}

impl ServeError {
    /// Whether the user has something to mend before it can start at all.
    pub fn is_configuration(&self) -> bool {
        match self {
            ServeError::Config(_)
            | ServeError::OtherApp { .. }
            | ServeError::NoImage { .. }
            | ServeError::NoCluster
            | ServeError::Access(_) => true,
            ServeError::Bind(_) | ServeError::Io { .. } => false,
        }
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Config(e) => e.fmt(f),
            ServeError::OtherApp { given, file, app } => write!(
                f,
                "--app {given}: {} is about the application {app}: give its own file, or leave --app out",
                file.display()
            ),
            ServeError::NoImage { component } => write!(
                f,
                "the job component {component} has no image: set `image`, or, if it is built from `src`, \
                 say which image that gave with --image REF"
            ),
            ServeError::NoCluster => f.write_str(NO_CLUSTER),
            ServeError::Access(e) => e.fmt(f),
            ServeError::Bind(e) => e.fmt(f),
            ServeError::Io { operation, cause } => write!(f, "{operation}: {cause}"),
        }
    }
}

fn io_error(operation: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |cause| ServeError::Io { operation, cause }
}

/// Serves until SIGTERM or SIGINT.
pub fn run(options: &ServeOptions) -> Result<(), ServeError> {
    let component = read_component(options)?;
    let metrics = Arc::new(Metrics::default());
    let client = Client::new(&access(options)?, metrics.clone()).map_err(ServeError::Access)?;
    let port = options.port.unwrap_or(component.scheduler_port);
    // Signals first: one that comes while starting must end it in order too.
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(io_error("signals"))?;
    let listener = match options.address {
        Some(ip) => http::bind(SocketAddr::new(ip, port)),
        None => http::bind_all(port),
    };
    let listener = listener.map_err(ServeError::Bind)?;
    let listening = listener
        .local_addr()
        .map_err(io_error("listening address"))?;

    let clock = Clock::real();
    let kubernetes = Arc::new(Kubernetes::new(
        Arc::new(client),
        clock.clone(),
        component.clone(),
        options.image_pull_secrets.clone(),
        metrics.clone(),
    ));
    let limits = Limits {
        history: options.history_limit,
        bounds: Bounds {
            unfinished: options.max_jobs,
            running: options.max_running,
            waiting: options.max_waiting,
        },
    };
    let scheduler = Arc::new(Scheduler::new(
        component,
        kubernetes.clone(),
        limits,
        clock,
        metrics,
    ));
    let observer: Arc<dyn Observer> = scheduler.clone();
    kubernetes
        .watch(&observer)
        .map_err(io_error("starting a thread"))?;
    let guard = {
        let component = scheduler.component();
        let (name, namespace) = (&component.name, component.namespace());
        let domain = cluster_domain(&namespace);
        Guard::service(name, &namespace, &domain).and(&options.allowed_hosts)
    };
    let server = http::Server::start(listener, &scheduler, &guard)
        .map_err(io_error("starting the server"))?;
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        let scheduler = scheduler.clone();
        workers.push(
            spawn(format!("work-{number}"), move || scheduler.work())
                .map_err(io_error("starting a thread"))?,
        );
    }
    let component = scheduler.component();
    log::info!(
        "event=listening address={listening} component={} namespace={} version={}",
        component.name,
        component.namespace(),
        env!("CARGO_PKG_VERSION")
    );

    let signal = signals.forever().next().unwrap_or_default();
    if signal == SIGTERM {
        log::info!("event=draining signal={signal} seconds={}", DRAIN.as_secs());
        server.drain();
        wait_for_any(&mut signals, DRAIN);
    }
    log::info!("event=stopping signal={signal}");
    server.stop();
    scheduler.end();
    for worker in workers {
        let _ = worker.join();
    }
    // The watches only read, and end with the process.
    Ok(())
}

/// Waits, or until another signal has come.
fn wait_for_any(signals: &mut Signals, time: Duration) {
    let deadline = Instant::now() + time;
    while signals.pending().next().is_none() && Instant::now() < deadline {
        std::thread::sleep(LOOK_FOR_SIGNALS_EVERY);
    }
}

/// The domain of the cluster, as Kubernetes tells it in the first of the names that a pod's are
/// looked up in.
///
/// Source: <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>
fn cluster_domain(namespace: &str) -> String {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut words = text
        .lines()
        .filter(|line| line.starts_with("search"))
        .flat_map(str::split_whitespace);
    let domain = words.find_map(|word| word.strip_prefix(namespace)?.strip_prefix(".svc."));
    domain.unwrap_or("cluster.local").to_string()
}

fn read_component(options: &ServeOptions) -> Result<JobComponent, ServeError> {
    let config = config::load(&options.config).map_err(ServeError::Config)?;
    for warning in &config.warnings {
        eprintln!("{warning}");
    }
    if let Some(given) = options.app.as_ref().filter(|given| **given != config.app) {
        let (given, file) = (given.clone(), options.config.clone());
        return Err(ServeError::OtherApp {
            given,
            file,
            app: config.app,
        });
    }
    let mut component = config
        .job_component(&options.environment, &options.component)
        .map_err(ServeError::Config)?;
    if let Some(image) = &options.image {
        component.settings.image = Some(image.clone());
    }
    if options.address.is_some_and(|address| address.is_loopback()) {
        // Its own pod's containers alone reach it, and no job's.
        component.scheduler_url = None;
    }
    if component.settings.image.is_none() {
        return Err(ServeError::NoImage {
            component: component.name,
        });
    }
    Ok(component)
}

/// Where the API server is: as the flags say, else as Kubernetes tells every pod.
fn access(options: &ServeOptions) -> Result<Access, ServeError> {
    let mounted = |name: &str| PathBuf::from(SERVICE_ACCOUNT).join(name);
    let (url, token_file, ca_file) = match &options.kube_url {
        Some(url) => (
            url.clone(),
            options.kube_token_file.clone(),
            options.kube_ca_file.clone(),
        ),
        None => {
            let url = options
                .in_cluster_url
                .clone()
                .ok_or(ServeError::NoCluster)?;
            let token = options
                .kube_token_file
                .clone()
                .unwrap_or_else(|| mounted("token"));
            let ca = options
                .kube_ca_file
                .clone()
                .unwrap_or_else(|| mounted("ca.crt"));
            (url, Some(token), Some(ca))
        }
    };
    Ok(Access {
        url,
        token_file,
        ca_file,
        connections: http::WRITERS + WORKERS,
    })
}
