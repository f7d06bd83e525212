//! A scheduler in local mode: the built binary, ports that were free, a folder of its own.

use super::api::Api;
use super::{Scratch, eventually};
use std::fmt::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// A port that nothing listens on. Each is given once, so that the tests of a process do not meet.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below what the system gives to connections.
    let _ = NEXT.compare_exchange(
        0,
        10_000 + u16::try_from(std::process::id() % 20_000).unwrap(),
        Ordering::SeqCst,
        Ordering::SeqCst,
    );
    loop {
        let port = NEXT.fetch_add(1, Ordering::SeqCst);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A radixconfig.yaml with these job components: name, port, and further lines at their level.
pub fn config(components: &[(&str, u16, &str)]) -> String {
    let mut text =
        String::from("metadata:\n  name: test\nspec:\n  environments:\n    - name: dev\n  jobs:\n");
    for (name, port, lines) in components {
        write!(text, "    - name: {name}\n      schedulerPort: {port}\n").unwrap();
        for line in lines.lines() {
            writeln!(text, "      {line}").unwrap();
        }
    }
    text
}

/// A folder with a configuration, which schedulers run on, one after the other.
pub struct Place {
    pub scratch: Scratch,
    pub ports: Vec<u16>,
}

impl Place {
    /// Components by name and further lines.
    pub fn new(components: &[(&str, &str)]) -> Place {
        let scratch = Scratch::new();
        let with_ports: Vec<(&str, u16, &str)> = components
            .iter()
            .map(|(name, lines)| (*name, free_port(), *lines))
            .collect();
        std::fs::write(scratch.join("radixconfig.yaml"), config(&with_ports)).unwrap();
        let ports = with_ports.iter().map(|(_, port, _)| *port).collect();
        Place { scratch, ports }
    }

    pub fn data(&self) -> std::path::PathBuf {
        self.scratch.join("data")
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_job-scheduler"));
        command
            .arg("local")
            .arg(self.scratch.join("radixconfig.yaml"))
            .arg("--data-dir")
            .arg(self.data())
            .args(arguments)
            .env("SCRATCH", self.scratch.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs one that is not expected to start.
    pub fn fail(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn start(&self, arguments: &[&str]) -> Running<'_> {
        self.start_with(arguments, &[])
    }

    /// With variables in its environment.
    pub fn start_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Running<'_> {
        let mut command = self.command(arguments);
        command.envs(variables.iter().copied());
        self.run(command)
    }

    /// Started by a program, whose last arguments are the scheduler's command.
    pub fn start_by(&self, program: &[&str], arguments: &[&str]) -> Running<'_> {
        let own = self.command(arguments);
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(own.get_program());
        command.args(own.get_args()).stdin(Stdio::null());
        self.run(command)
    }

    fn run(&self, mut command: Command) -> Running<'_> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.scratch.join("scheduler.log"))
            .unwrap();
        let mut child = command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        for port in &self.ports {
            eventually("the scheduler listens", || {
                if let Some(status) = child.try_wait().unwrap() {
                    panic!("the scheduler ended with {status}: {}", self.log());
                }
                let mut api = Api::new(&format!("localhost:{port}"));
                let host = format!("localhost:{port}");
                let answer = api.try_ask("GET", "/health/ready", &[("Host", &host)], "");
                answer.ok().filter(|response| response.code == 200)
            });
        }
        Running { place: self, child }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.join("scheduler.log")).unwrap_or_default()
    }

    /// The processes of its jobs, by what their environment says, and what they run.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let mark = format!("JOB_SCHEDULER_JOB={}", self.data().display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let marked = |v: &[u8]| v.starts_with(mark.as_bytes());
            if environment.split(|byte| *byte == 0).any(marked) {
                let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&command).replace('\0', " ")));
            }
        }
        found
    }

    #[track_caller]
    pub fn no_process_is_left(&self) {
        let left = self.processes();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A scheduler that runs, killed when dropped.
pub struct Running<'a> {
    place: &'a Place,
    pub child: Child,
}

impl Running<'_> {
    pub fn api(&self) -> Api {
        self.api_of(0)
    }

    /// Of the component of this number.
    pub fn api_of(&self, component: usize) -> Api {
        Api::new(&format!("localhost:{}", self.place.ports[component]))
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(status.unwrap().success());
    }

    /// As a crash or an impatient user does it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits for that.
    #[track_caller]
    pub fn end(mut self) {
        self.signal("TERM");
        let status = eventually("the scheduler ends", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", self.place.log());
    }

    /// A line of `/proc/PID/status`, such as `VmRSS`.
    pub fn status(&self, name: &str) -> u64 {
        let path = Path::new("/proc").join(self.child.id().to_string());
        let text = std::fs::read_to_string(path.join("status")).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        let number = line.trim_start_matches(':').trim();
        number.trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
