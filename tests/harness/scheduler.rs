//! The built binary as a process outside the cluster.

use super::cluster::Namespace;
use super::http::{Answer, Connection};
use super::{unique, within};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

pub const JOBS: &str = "/api/v1/jobs";
/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The binary under test: `JOB_SCHEDULER`, or the one that cargo has built with the tests.
pub fn binary() -> PathBuf {
    std::env::var_os("JOB_SCHEDULER").map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_job-scheduler")),
        PathBuf::from,
    )
}

/// A scheduler's process, its folder and its port, which a new process may take over.
pub struct Scheduler {
    child: Child,
    arguments: Vec<String>,
    folder: PathBuf,
    pub port: u16,
}

impl Scheduler {
    /// Starts it and waits until it is ready. It reaches the API server by `kube_url`.
    pub fn start(namespace: &Namespace, kube_url: &str, flags: &[&str]) -> Scheduler {
        let scheduler = Scheduler::launch(namespace, kube_url, flags);
        scheduler.wait_until_ready(PATIENCE);
        scheduler
    }

    pub fn launch(namespace: &Namespace, kube_url: &str, flags: &[&str]) -> Scheduler {
        let folder = std::env::temp_dir().join(format!("job-scheduler-{}", unique()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("radixconfig.yaml"), &namespace.config).unwrap();
        std::fs::write(folder.join("token"), &namespace.scheduler_token).unwrap();
        let port = free_port();
        let path = |name: &str| folder.join(name).to_str().unwrap().to_string();
        let mut arguments = vec![
            "serve".to_string(),
            "--config".to_string(),
            path("radixconfig.yaml"),
            "--address".to_string(),
            "127.0.0.1".to_string(),
            "--port".to_string(),
            port.to_string(),
            "--kube-url".to_string(),
            kube_url.to_string(),
            "--kube-token-file".to_string(),
            path("token"),
        ];
        arguments.extend(namespace.flags());
        arguments.extend(flags.iter().map(|flag| flag.to_string()));
        let child = run(&arguments, &folder);
        Scheduler {
            child,
            arguments,
            folder,
            port,
        }
    }

    /// One of a single component on this machine, with these further lines in its configuration.
    #[allow(dead_code, reason = "the benchmark alone has it")]
    pub fn start_local(component: &str) -> Scheduler {
        let folder = std::env::temp_dir().join(format!("job-scheduler-{}", unique()));
        std::fs::create_dir_all(&folder).unwrap();
        let port = free_port();
        let config = format!(
            "metadata: {{name: test}}\nspec:\n  environments: [{{name: dev}}]\n  jobs:\n    \
             - name: compute\n      schedulerPort: {port}\n      {component}\n"
        );
        let file = folder.join("radixconfig.yaml");
        std::fs::write(&file, config).unwrap();
        let data = folder.join("data");
        // The load generator leaves the port out.
        let host = ["--allow-host", "127.0.0.1"];
        let arguments = [
            "local",
            file.to_str().unwrap(),
            "--data-dir",
            data.to_str().unwrap(),
        ];
        let arguments = arguments.iter().chain(&host).map(|text| text.to_string());
        let arguments: Vec<String> = arguments.collect();
        let child = run(&arguments, &folder);
        let scheduler = Scheduler {
            child,
            arguments,
            folder,
            port,
        };
        scheduler.wait_until_ready(PATIENCE);
        scheduler
    }

    pub fn token_file(&self) -> PathBuf {
        self.folder.join("token")
    }

    /// What it has logged so far, all its processes.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    /// Ends it as a crash would, kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, with the same flags.
    pub fn start_again(&mut self) {
        self.child = run(&self.arguments, &self.folder);
    }

    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    #[track_caller]
    pub fn wait_until_ready(&self, limit: Duration) {
        within(limit, || match self.ask("GET", "/health/ready", &[], b"") {
            Ok(answer) if answer.code == 200 => Ok(()),
            Ok(answer) => Err(answer.to_string()),
            Err(e) => Err(format!("{e}; log: {}", self.log())),
        });
    }

    pub fn connect(&self) -> io::Result<Connection<std::net::TcpStream>> {
        Connection::local(self.port, PATIENCE)
    }

    /// Asks on a connection of its own.
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> io::Result<Answer> {
        self.connect()?.ask(method, path, headers, body)
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
            .unwrap_or_else(|e| panic!("GET {path}: {e}; log: {}", self.log()))
    }

    #[track_caller]
    pub fn post(&self, body: &Value) -> Answer {
        self.ask("POST", JOBS, &[], body.to_string().as_bytes())
            .unwrap_or_else(|e| panic!("POST: {e}; log: {}", self.log()))
    }

    /// Submits a job and returns its name.
    #[track_caller]
    pub fn submit(&self, body: &Value) -> String {
        let answer = self.post(body);
        assert_eq!(answer.code, 200, "{answer}");
        answer.json()["name"].as_str().unwrap().to_string()
    }

    #[track_caller]
    pub fn list(&self) -> Vec<Value> {
        let answer = self.get(JOBS);
        assert_eq!(answer.code, 200, "{answer}");
        answer.json().as_array().unwrap().clone()
    }

    /// The job, or an empty value if there is none.
    #[track_caller]
    pub fn job(&self, name: &str) -> Value {
        let answer = self.get(&format!("{JOBS}/{name}"));
        match answer.code {
            404 => Value::Null,
            _ => answer.json(),
        }
    }

    /// Waits until the job has the status; returns how long it took.
    #[track_caller]
    pub fn wait_for(&self, name: &str, status: &str, limit: Duration) -> Duration {
        let started = Instant::now();
        within(limit, || {
            let job = self.job(name);
            super::holds(job["status"] == status, || format!("{name}: {job}"))
        });
        started.elapsed()
    }

    /// A number of `/proc/PID/status`, as `Threads` or `VmRSS` (kB).
    pub fn proc_status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with(field))
            .unwrap_or_else(|| panic!("no {field}"));
        let number = line.split_whitespace().nth(1).unwrap();
        number.parse().unwrap()
    }

    /// Its number among processes.
    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let end = lines.len().saturating_sub(40);
            println!(
                "the end of the scheduler's log:\n{}",
                lines[end..].join("\n")
            );
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn run(arguments: &[String], folder: &std::path::Path) -> Child {
    let log: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    Command::new(binary())
        .args(arguments)
        .env_clear()
        .stderr(log)
        .spawn()
        .unwrap()
}

/// A port that nobody listens on, for a process that is about to.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
