//! Arguments, run, exit code.

use job_scheduler::cli::{self, Command};
use job_scheduler::{local, logging, serve};
use std::process::ExitCode;

const FAILED: u8 = 1;
const BAD_USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os().skip(1), |name| std::env::var_os(name)) {
        Ok(command) => command,
        Err(e) => return fail(BAD_USAGE, &e),
    };
    match command {
        Command::Print(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Command::Serve(options) => {
            logging::start(options.logging.level, options.logging.format);
            match serve::run(&options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) => fail(
                    if e.is_configuration() {
                        BAD_USAGE
                    } else {
                        FAILED
                    },
                    &e,
                ),
            }
        }
        Command::Local(options) => {
            logging::start(options.logging.level, options.logging.format);
            match local::run(&options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(e) if e.is_configuration() => fail(BAD_USAGE, &e),
                Err(e) => fail(FAILED, &e),
            }
        }
        Command::Manifests(_) => ExitCode::SUCCESS,
    }
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("job-scheduler: {error}");
    ExitCode::from(code)
}
