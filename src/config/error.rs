//! What can be wrong with a `radixconfig.yaml`, said so that it can be mended: file, line, field,
//! fix.

use std::fmt;
use std::io;

/// A field that is wrong, in `radixconfig.yaml` or in a request.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    /// Where it is, such as `spec.jobs[compute].schedulerPort`; empty for the document as a whole.
    pub field: String,
    /// The line of the file, from 1. A request has none.
    pub line: Option<u32>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// Something in `radixconfig.yaml` that has no effect here. The file is used all the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Warning {
    /// The name of the file.
    pub file: String,
    /// The line of the file, from 1.
    pub line: Option<u32>,
    /// Where it is, such as `spec.jobs[compute].notifications`.
    pub field: String,
    /// What has no effect, and what to do.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, &self.file, self.line)?;
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Why a `radixconfig.yaml` is of no use. Each is the user's to mend.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Io { file: String, source: io::Error },
    /// The file is over [`MAX_FILE_BYTES`](super::MAX_FILE_BYTES).
    TooLarge { file: String },
    /// The file is not text; `line` is the line of the first byte that is not.
    NotUtf8 { file: String, line: u32 },
    /// The file is not YAML, or YAML of a kind that a configuration has no use for.
    Syntax {
        file: String,
        line: u32,
        message: String,
    },
    /// Fields are wrong: all of them, in the file's order.
    Fields {
        file: String,
        errors: Vec<FieldError>,
    },
    /// The environment asked for is not in `spec.environments`.
    NoSuchEnvironment {
        file: String,
        given: String,
        known: Vec<String>,
    },
    /// The job component asked for is not in `spec.jobs`.
    NoSuchJob {
        file: String,
        given: String,
        known: Vec<String>,
        suggestion: Option<String>,
    },
    /// The job component asked for has `enabled: false` in the environment.
    Disabled {
        file: String,
        job: String,
        environment: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Io { file, source } => write!(f, "{file}: cannot be read: {source}"),
            ConfigError::TooLarge { file } => write!(
                f,
                "{file}: is over {} bytes, which no radixconfig.yaml needs: give the right file",
                super::MAX_FILE_BYTES
            ),
            ConfigError::NotUtf8 { file, line } => write!(
                f,
                "{file}:{line}: is not UTF-8 text: save the file as UTF-8, or give the right file"
            ),
            ConfigError::Syntax {
                file,
                line,
                message,
            } => write!(f, "{file}:{line}: {message}"),
            ConfigError::Fields { file, errors } => {
                for (number, error) in errors.iter().enumerate() {
                    if number > 0 {
                        f.write_str("\n")?;
                    }
                    place(f, file, error.line)?;
                    write!(f, "{error}")?;
                }
                Ok(())
            }
            ConfigError::NoSuchEnvironment { file, given, known } => write!(
                f,
                "{file}: spec.environments: there is no environment `{given}`: give one of {}",
                known.join(", ")
            ),
            ConfigError::NoSuchJob {
                file,
                given,
                known,
                suggestion,
            } => {
                write!(f, "{file}: spec.jobs: there is no job component `{given}`")?;
                match suggestion {
                    Some(name) => write!(f, ": did you mean `{name}`?"),
                    None if known.is_empty() => write!(f, ": the file has none"),
                    None => write!(f, ": give one of {}", known.join(", ")),
                }
            }
            ConfigError::Disabled {
                file,
                job,
                environment,
            } => write!(
                f,
                "{file}: spec.jobs[{job}].enabled: the job component is not enabled in `{environment}`: \
                 set `enabled: true` there to run it"
            ),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

fn place(f: &mut fmt::Formatter<'_>, file: &str, line: Option<u32>) -> fmt::Result {
    match line {
        Some(line) => write!(f, "{file}:{line}: "),
        None => write!(f, "{file}: "),
    }
}
