//! A job's first process: this program again, as `init` is to a machine.
//!
//! It starts the job's command, is the reaper of all that comes of it, and ends once none of that is
//! left. So nothing that a job starts outlives it, whatever it does to hide: what loses its parent
//! becomes this process's child. If the scheduler is killed, the kernel tells this process, which
//! kills them all.
//!
//! It writes to its standard input, a pipe, why the command could not be started; the pipe is closed
//! once it has.

use super::mounts;
use super::process::{self, MARK};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// What has it kill all of the job.
pub const KILL_ALL: Signal = Signal::QUIT;
/// The first argument by which this program becomes one.
pub const COMMAND: &str = "job-init";
/// As in a container whose program cannot be started.
const CANNOT_START: u8 = 128;

/// Runs a job: `mark` is its value of [`MARK`], and `words` its command line.
pub fn run(mark: &OsString, words: &[OsString]) -> ExitCode {
    match Init::start(mark, words) {
        Ok(init) => end_like(init.wait()),
        Err(e) => {
            let code = e.raw_os_error().unwrap_or(libc::EIO);
            let _ = rustix::io::write(rustix::stdio::stdin(), &code.to_ne_bytes());
            ExitCode::from(CANNOT_START)
        }
    }
}

struct Init {
    signals: Signals,
    /// The job's command, and leader of its group.
    main: Pid,
}

impl Init {
    fn start(mark: &OsString, words: &[OsString]) -> io::Result<Init> {
        let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        // Without the scheduler's terminal.
        rustix::process::setsid()?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let signals = Signals::new([SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env(MARK, mark)
            .stdin(std::process::Stdio::null())
            // A signal to the job's own group does not meet this process.
            .process_group(0);
        mounts::prepare(&mut command, None, Path::new("."), Signal::KILL)?;
        let child = command.spawn()?;
        let main = Pid::from_raw(child.id().cast_signed()).ok_or(io::ErrorKind::Other)?;
        // With the input the scheduler is told, and the log is the job's alone.
        let null = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        rustix::stdio::dup2_stdin(&null)?;
        Ok(Init { signals, main })
    }

    /// Until no process of the job is left. Gives how its command ended.
    fn wait(mut self) -> Option<WaitStatus> {
        let mut ended = None;
        let mut kills_all = false;
        for signal in self.signals.forever() {
            match signal {
                SIGCHLD => {}
                SIGQUIT => kills_all = true,
                other => {
                    if let Some(signal) = Signal::from_named_raw(other) {
                        pass_on(self.main, signal);
                    }
                }
            }
            loop {
                match rustix::process::wait(WaitOptions::NOHANG) {
                    Ok(Some((pid, status))) if pid == self.main => ended = Some(status),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return ended,
                }
            }
            // What is killed may leave children of its own: these come here, and its end is told.
            if kills_all || ended.is_some() {
                for child in process::children() {
                    process::kill(child);
                }
            }
        }
        ended
    }
}

fn pass_on(main: Pid, signal: Signal) {
    // A group that is gone has nothing left to end.
    let _ = rustix::process::kill_process_group(main, signal);
    // One that is stopped (SIGSTOP) would not see it.
    let _ = rustix::process::kill_process_group(main, Signal::CONT);
}

/// Ends as the job's command did, so that the scheduler sees it.
fn end_like(status: Option<WaitStatus>) -> ExitCode {
    if let Some(signal) = status.and_then(WaitStatus::terminating_signal) {
        let none = rustix::process::Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
        let _ = signal_hook::low_level::emulate_default_handler(signal);
    }
    let code = status.and_then(WaitStatus::exit_status).unwrap_or(0);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
