//! `validate`: a configuration checked in all its environments, with nothing started.

use crate::columns::aligned;
use crate::config::{self, ConfigError, JobComponent, RadixConfig};
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

/// Why a file was not found right.
#[derive(Debug)]
pub enum ValidateError {
    Config(ConfigError),
    Output(io::Error),
}

impl ValidateError {
    /// Whether the user has something to mend.
    pub fn is_configuration(&self) -> bool {
        matches!(self, ValidateError::Config(_))
    }
}

impl fmt::Display for ValidateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValidateError::Config(e) => e.fmt(f),
            ValidateError::Output(e) => write!(f, "standard output: {e}"),
        }
    }
}

/// Reads the file, and prints what each environment has. Warnings go to standard error.
pub fn run(file: &Path, out: &mut impl Write) -> Result<(), ValidateError> {
    let config = config::load(file).map_err(ValidateError::Config)?;
    for warning in &config.warnings {
        eprintln!("{warning}");
    }
    let text = report(&config).map_err(ValidateError::Config)?;
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(ValidateError::Output)
}

/// A line for each job component of each environment, and what keeps it from running somewhere.
fn report(config: &RadixConfig) -> Result<String, ConfigError> {
    let header = ["ENVIRONMENT", "COMPONENT", "PORT", "PAYLOAD", "IMAGE"];
    let mut rows = vec![header.map(str::to_string)];
    for environment in &config.environments {
        let components = config.job_components(environment)?;
        for component in &components {
            rows.push(row(environment, component));
        }
        if components.is_empty() {
            rows.push([environment, "none", "-", "-", "-"].map(str::to_string));
        }
    }
    Ok(aligned(&rows))
}

fn row(environment: &str, component: &JobComponent) -> [String; 5] {
    let payload = component.payload_path.as_deref().unwrap_or("none taken");
    let image = match (
        &component.settings.image,
        component.settings.image_reference(),
    ) {
        (None, _) => format!("built from source: give --image {}=REF", component.name),
        (_, Ok(image)) => image,
        (Some(image), Err(_)) => format!("{image}, the tag by each request"),
    };
    [
        environment.to_string(),
        component.name.clone(),
        component.scheduler_port.to_string(),
        payload.to_string(),
        image,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_environment_has_its_components() {
        let text = "{metadata: {name: a}, spec: {environments: [{name: dev}, {name: prod}], jobs: [\
                    {name: compute, schedulerPort: 8000, image: 'i:{imageTagName}', payload: {path: /in}, \
                    environmentConfig: [{environment: prod, enabled: false}]}, \
                    {name: etl, schedulerPort: 9000, environmentConfig: [{environment: prod, enabled: false}, \
                    {environment: dev, image: 'e:1'}]}]}}";
        let config = config::parse("f", text.as_bytes()).unwrap();
        assert_eq!(
            report(&config).unwrap(),
            "ENVIRONMENT  COMPONENT  PORT  PAYLOAD     IMAGE\n\
             dev          compute    8000  /in         i:{imageTagName}, the tag by each request\n\
             dev          etl        9000  none taken  e:1\n\
             prod         none       -     -           -\n"
        );
    }
}
