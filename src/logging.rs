//! Log lines on stderr, `key=value` or JSON. The message itself is `key=value` already.

use crate::job::Timestamp;
use log::{Level, LevelFilter, Metadata, Record};
use std::io::Write;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Format {
    Text,
    Json,
}

struct Logger {
    format: Format,
}

/// Starts logging. Libraries say only what goes wrong in them, and nothing of what they carry.
pub fn start(level: LevelFilter, format: Format) {
    if log::set_boxed_logger(Box::new(Logger { format })).is_ok() {
        log::set_max_level(level);
    }
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.target().starts_with("job_scheduler") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let (time, level) = (Timestamp::now(), record.level().as_str().to_lowercase());
        let line = match self.format {
            // What others say may hold line breaks; a log line is one line.
            Format::Text => format!(
                "{time} {level:5} {}\n",
                record.args().to_string().replace('\n', " ")
            ),
            Format::Json => {
                let message = record.args().to_string();
                format!(
                    "{}\n",
                    serde_json::json!({"time": time.to_string(), "level": level, "message": message})
                )
            }
        };
        // Where stderr is gone there is nobody to tell.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
