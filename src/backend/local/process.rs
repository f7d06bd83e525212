//! Processes: starting a job's, ending them all, and finding what is left of them.
//!
//! A job's first process is an [`init`], which ends once nothing is left of the job, whoever else
//! ends. Were it killed itself, what it leaves is still found: this process is the reaper of its
//! descendants, so that one whose parent ends becomes its child, and every process of a job has the
//! variable [`MARK`] in its environment and the job's log as its output.

use super::files::open_regular;
use super::init;
use super::mounts::{self, Plan, ThisMachine, View};
use super::ports;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The variable that tells whose a process is: the path of the job's folder.
pub const MARK: &str = "JOB_SCHEDULER_JOB";

/// The operations on processes below the supervisor: the seam where simulated ones stand in.
pub trait Processes: Send + Sync {
    /// Makes this process the one that gets the orphans among its descendants.
    fn adopt_orphans(&self) -> io::Result<()>;

    /// Kills every process of the jobs in a folder, with its descendants. Gives how many there
    /// were, and how many are left after `patience`.
    fn kill_marked(&self, folder: &Path, patience: Duration) -> (usize, usize);

    /// How a component's jobs come to see their payload at its path, if the machine allows it.
    fn view(&self, component: &str, path: &Path, folder: &Path) -> Option<View>;

    /// Starts a job's first process, whose job is killed when the calling thread ends.
    fn start(&self, launch: &Launch) -> io::Result<Leader>;

    /// Sends a signal to the job's processes: those of its group, and with SIGKILL all.
    fn signal_group(&self, leader: Pid, signal: Signal);

    /// Forgets the child if it has exited.
    fn collect_leader(&self, leader: Pid) -> Option<Exit>;

    /// The children that live, without those that `is_running` knows. Those that have exited are
    /// forgotten.
    fn orphans(&self, is_running: &dyn Fn(Pid) -> bool) -> Vec<Orphan>;

    fn kill(&self, pid: Pid);

    /// Why a process that starts now could not listen at a port of the machine.
    fn check_port(&self, port: u16) -> Result<(), String>;
}

/// The first process of a job.
#[derive(Clone, Copy, Debug)]
pub struct Leader {
    pub pid: Pid,
    /// When it started, in the kernel's ticks.
    pub started: u64,
}

/// A process that came to this one when its parent ended.
#[derive(Debug)]
pub struct Orphan {
    pub pid: Pid,
    pub group: i32,
    pub started: u64,
    /// What tells which job it is of: its folder, its log.
    pub traces: Vec<PathBuf>,
}

/// The machine's own processes.
pub struct System;

impl Processes for System {
    fn adopt_orphans(&self) -> io::Result<()> {
        adopt_orphans()
    }

    fn kill_marked(&self, folder: &Path, patience: Duration) -> (usize, usize) {
        kill_marked(folder, patience)
    }

    fn view(&self, component: &str, path: &Path, folder: &Path) -> Option<View> {
        view(component, path, folder)
    }

    fn start(&self, launch: &Launch) -> io::Result<Leader> {
        let pid = spawn(launch)?;
        let started = stat(pid).map_or(0, |stat| stat.started);
        Ok(Leader { pid, started })
    }

    fn signal_group(&self, leader: Pid, signal: Signal) {
        signal_group(leader, signal);
    }

    fn collect_leader(&self, leader: Pid) -> Option<Exit> {
        collect_leader(leader)
    }

    fn orphans(&self, is_running: &dyn Fn(Pid) -> bool) -> Vec<Orphan> {
        loop {
            let mut reaped = false;
            let mut orphans = Vec::new();
            for pid in children().into_iter().filter(|pid| !is_running(*pid)) {
                let stat = stat(pid);
                let traces = traces(pid).collect();
                // Asked last: one that has exited has no traces.
                if reap(pid).is_some() {
                    reaped = true;
                } else if let Some(stat) = stat {
                    orphans.push(Orphan {
                        pid,
                        group: stat.group,
                        started: stat.started,
                        traces,
                    });
                }
            }
            // One that has exited may have left children, which came here after they were listed.
            if !reaped {
                return orphans;
            }
        }
    }

    fn kill(&self, pid: Pid) {
        kill(pid);
    }

    fn check_port(&self, port: u16) -> Result<(), String> {
        ports::check(port)
    }
}

/// What a job is started with.
pub struct Launch<'a> {
    /// The program and its arguments; not empty.
    pub command: &'a [String],
    pub environment: &'a BTreeMap<String, String>,
    pub folder: &'a Path,
    /// Gets all output.
    pub log: &'a Path,
    /// What it sees, and the file with its payload.
    pub view: Option<(&'a View, &'a Path)>,
}

/// Makes this process the one that gets the orphans among its descendants.
fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(
        rustix::process::getpid(),
    ))?)
}

/// Starts a job's init, and with it the job's command.
fn spawn(launch: &Launch) -> io::Result<Pid> {
    let log = open_log(launch.log)?;
    let (mut why_not, told) = io::pipe()?;
    let mut environment = launch.environment.clone();
    // It is the command's alone, so that who looks for it finds the job's processes before their
    // init.
    let mark = environment.remove(MARK).unwrap_or_default();
    // Not by its path, where another version may be by now.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(init::COMMAND)
        .arg(mark)
        .args(launch.command)
        .env_clear()
        .envs(&environment)
        .current_dir(launch.folder)
        .stdin(told)
        .stdout(log.try_clone()?)
        .stderr(log);
    mounts::prepare(&mut command, launch.view, launch.folder, init::KILL_ALL)?;
    let mut child = command.spawn()?;
    // This process's copy of the pipe goes with it.
    drop(command);
    let mut code = Vec::new();
    why_not.read_to_end(&mut code)?;
    if let Ok(code) = <[u8; 4]>::try_from(code) {
        let _ = child.wait();
        return Err(io::Error::from_raw_os_error(i32::from_ne_bytes(code)));
    }
    Pid::from_raw(child.id().cast_signed()).ok_or_else(|| io::Error::other("no process id"))
}

/// Opens a log to be added to, and makes it if need be.
fn open_log(path: &Path) -> io::Result<fs::File> {
    let mut options = OpenOptions::new();
    open_regular(path, options.append(true).create(true).mode(0o600))
}

/// How the jobs of a component see their payload at its path; tried out, since a machine may allow
/// the one half and not the other.
fn view(component: &str, path: &Path, folder: &Path) -> Option<View> {
    let (staging, sample) = (folder.join(".mount"), folder.join(".sample"));
    fs::create_dir_all(&staging).ok()?;
    fs::write(&sample, b"").ok()?;
    let Some(plan) = Plan::new(path, &staging, &ThisMachine) else {
        log::debug!(
            "component={component} event=no-view reason=\"{} is not there, and nowhere to make it\"",
            path.display()
        );
        return None;
    };
    let no_view = |reason: &dyn std::fmt::Display| {
        log::debug!("component={component} event=no-view reason=\"{reason}\"");
    };
    let view = View::build(plan).inspect_err(|e| no_view(e)).ok()?;
    let mut command = Command::new(std::env::current_exe().ok()?);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let tried = mounts::prepare(&mut command, Some((&view, &sample)), folder, Signal::KILL)
        .and_then(|()| command.status());
    match tried {
        Ok(status) if status.success() => Some(view),
        Ok(status) => {
            no_view(&status);
            None
        }
        Err(e) => {
            no_view(&e);
            None
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// As shells and container runtimes have it: 128 and the signal.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }

    fn of(status: WaitStatus) -> Exit {
        match (status.exit_status(), status.terminating_signal()) {
            (_, Some(signal)) => Exit::Signal(signal),
            (code, None) => Exit::Code(code.unwrap_or(0)),
        }
    }
}

/// Forgets the child if it has exited.
fn collect_leader(pid: Pid) -> Option<Exit> {
    let waited = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    match waited {
        Ok(waited) => waited.map(|(_, status)| Exit::of(status)),
        // Nobody else waits for our children; were it so, the job is over.
        Err(_) => Some(Exit::Signal(Signal::KILL.as_raw())),
    }
}

/// Forgets the child if it has exited.
fn reap(pid: Pid) -> Option<Exit> {
    let waited = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    waited.ok().flatten().map(|(_, status)| Exit::of(status))
}

fn signal_group(leader: Pid, signal: Signal) {
    let passed = match signal {
        Signal::KILL => init::KILL_ALL,
        other => other,
    };
    // One that is gone has nothing left to end.
    let _ = rustix::process::kill_process(leader, passed);
    let _ = rustix::process::kill_process(leader, Signal::CONT);
}

pub fn kill(pid: Pid) {
    let _ = rustix::process::kill_process(pid, Signal::KILL);
}

/// The children of this process, those of its main and of the calling thread: the one gets orphans,
/// the other starts jobs.
pub fn children() -> Vec<Pid> {
    let of_thread = |thread: Pid| {
        fs::read_to_string(format!(
            "/proc/self/task/{}/children",
            thread.as_raw_nonzero()
        ))
    };
    let (main, this) = (rustix::process::getpid(), rustix::thread::gettid());
    match (of_thread(main), of_thread(this)) {
        (Ok(main), Ok(this)) => main
            .split_whitespace()
            .chain(this.split_whitespace())
            .filter_map(parse_pid)
            .collect(),
        // A kernel without CONFIG_PROC_CHILDREN.
        _ => all()
            .filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == main.as_raw_nonzero().get()))
            .collect(),
    }
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::from_raw)
}

fn all() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| parse_pid(entry.file_name().to_str()?))
}

/// What the kernel says of a process.
#[derive(Debug, PartialEq)]
struct Stat {
    state: char,
    parent: i32,
    group: i32,
    /// When it started, in ticks since the machine did.
    started: u64,
}

fn stat(pid: Pid) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
}

/// Source: proc_pid_stat(5). The second field is a name in brackets that may hold anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    Some(Stat {
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
        group: fields.next()?.parse().ok()?,
        started: fields.nth(16)?.parse().ok()?,
    })
}

/// What tells which job a process is of: the folder that its environment names, and the log that it
/// writes to, for one that has cleared its environment.
fn traces(pid: Pid) -> impl Iterator<Item = PathBuf> {
    let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let outputs = ["fd/1", "fd/2"].map(|output| process.join(output));
    let logs = outputs.into_iter().filter_map(|output| {
        let file = fs::read_link(output).ok()?;
        (file.extension()? == "log").then_some(file)
    });
    mark(&process).into_iter().chain(logs)
}

fn mark(process: &Path) -> Option<PathBuf> {
    let environment = fs::read(process.join("environ")).ok()?;
    let value = environment.split(|byte| *byte == 0).find_map(|variable| {
        let (name, value) = variable.split_at_checked(MARK.len())?;
        (name == MARK.as_bytes()).then(|| value.strip_prefix(b"="))?
    })?;
    std::str::from_utf8(value).ok().map(PathBuf::from)
}

/// Kills every process of the jobs in a folder, with its descendants. Gives how many there were,
/// and how many are left after `patience`.
fn kill_marked(folder: &Path, patience: Duration) -> (usize, usize) {
    let deadline = std::time::Instant::now() + patience;
    let mut found = std::collections::HashSet::new();
    loop {
        let left = marked(folder);
        found.extend(left.iter().copied());
        if left.is_empty() || std::time::Instant::now() >= deadline {
            return (found.len(), left.len());
        }
        for pid in left {
            kill(pid);
        }
        // They are not this process's children: nothing tells when they are gone.
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// The living processes of the jobs in a folder, with their descendants.
fn marked(folder: &Path) -> Vec<Pid> {
    let this = rustix::process::getpid();
    let living: Vec<(Pid, Stat)> = all()
        .filter(|pid| *pid != this)
        .filter_map(|pid| stat(pid).map(|stat| (pid, stat)))
        .filter(|(_, stat)| !matches!(stat.state, 'Z' | 'X'))
        .collect();
    let mut ours: Vec<Pid> = living
        .iter()
        .map(|(pid, _)| *pid)
        .filter(|pid| traces(*pid).any(|trace| trace.starts_with(folder)))
        .collect();
    let mut next = 0;
    while let Some(parent) = ours.get(next).copied() {
        let children = living
            .iter()
            .filter(|(_, stat)| stat.parent == parent.as_raw_nonzero().get());
        let new: Vec<Pid> = children
            .map(|(pid, _)| *pid)
            .filter(|pid| !ours.contains(pid))
            .collect();
        ours.extend(new);
        next += 1;
    }
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_read_whatever_the_process_is_called() {
        let fields = "S 7 8 9 0 -1 4194304 100 0 0 0 1 2 3 4 20 0 1 0 123456 1000 10";
        for name in ["sh", "a b", "a) Z (b", ") ) "] {
            assert_eq!(
                parse_stat(&format!("42 ({name}) {fields}\n")),
                Some(Stat {
                    state: 'S',
                    parent: 7,
                    group: 8,
                    started: 123_456
                }),
                "{name}"
            );
        }
        assert_eq!(parse_stat("42 (sh)"), None);
    }

    #[test]
    fn an_exit_has_a_code_as_in_a_container() {
        assert_eq!(Exit::Code(3).code(), 3);
        assert_eq!(Exit::Signal(9).code(), 137);
    }
}
