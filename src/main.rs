//! Arguments, run, exit code.

use job_scheduler::cli::{self, Command, LoggingOptions};
use job_scheduler::{backend, client, local, logging, manifests, process, serve, validate};
use std::io::Write;
use std::process::ExitCode;

const FAILED: u8 = 1;
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    process::bound_allocator();
    let command = match cli::parse(std::env::args_os().skip(1), |name| std::env::var_os(name)) {
        Ok(command) => command,
        Err(e) => return fail(BAD_USAGE, &e),
    };
    match command {
        Command::Print(text) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => fail(FAILED, &format_args!("standard output: {e}")),
        },
        Command::Serve(options) => {
            start(options.logging);
            match serve::run(&options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => fail(exit_code(e.is_configuration()), &e),
            }
        }
        Command::Manifests(options) => {
            match manifests::run(&options, &mut std::io::stdout().lock()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => fail(exit_code(e.is_configuration()), &e),
            }
        }
        Command::JobInit { mark, words } => backend::local::run_init(&mark, &words),
        Command::Validate(file) => match validate::run(&file, &mut std::io::stdout().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => fail(exit_code(e.is_configuration()), &e),
        },
        Command::Client(options) => match client::run(&options) {
            Ok(code) => ExitCode::from(code),
            Err(e) => fail(e.exit_code(), &e),
        },
        Command::Local(options) => {
            start(options.logging);
            match local::run(&options, &|name| std::env::var(name).ok()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => fail(exit_code(e.is_configuration()), &e),
            }
        }
    }
}

/// What every command that stays does first.
fn start(options: LoggingOptions) {
    logging::start(options.level, options.format);
    process::watch_foreign_threads();
    process::raise_file_limit();
}

fn exit_code(is_configuration: bool) -> u8 {
    if is_configuration { BAD_USAGE } else { FAILED }
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("job-scheduler: {error}");
    ExitCode::from(code)
}
