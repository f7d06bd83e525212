//! The log of a job: of its latest attempt that has started and, if it is followed, of those that come after it.

use crate::backend::{BackendError, LogOptions};
use crate::job::{JobName, JobRecord};
use crate::scheduler::{JobError, Scheduler};
use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

/// How often a job is looked at whose log is waited for.
const POLL: Duration = Duration::from_millis(200);

/// A log as it is read. A read that fails with `TimedOut` found nothing new within about a second, and may be repeated:
/// who reads looks up in between.
pub struct JobLog {
    scheduler: Arc<Scheduler>,
    name: JobName,
    options: LogOptions,
    /// The attempt that is read, or was read last.
    attempt: Option<Box<str>>,
    log: Option<Box<dyn Read + Send>>,
}

/// What there is to read after what was read.
enum Next {
    /// The attempt of this index.
    Attempt(Arc<JobRecord>, usize),
    /// An attempt may still come.
    Later,
    Nothing,
}

impl JobLog {
    /// Opens the log of a job. One that has not started has an empty one.
    pub fn open(
        scheduler: &Arc<Scheduler>,
        name: &str,
        options: LogOptions,
    ) -> Result<JobLog, JobError> {
        let record = scheduler.get(name)?.record;
        let job = &record.job;
        if job.status.is_finished() && job.started.is_some() && record.attempts.is_empty() {
            let message = format!("the log of {name} is gone: Kubernetes has removed its pod");
            return Err(JobError::NoLog { message });
        }
        let mut log = JobLog {
            scheduler: scheduler.clone(),
            name: job.name.clone(),
            options,
            attempt: None,
            log: None,
        };
        if let Next::Attempt(record, attempt) = log.next() {
            match log.begin(&record, attempt) {
                Ok(()) => {}
                // It went as the job was stopped, which has been restarted since: another attempt is to come.
                Err(BackendError::Gone { .. }) if !record.job.status.is_finished() => {}
                Err(BackendError::Gone { message }) => return Err(JobError::NoLog { message }),
                Err(e) => return Err(JobError::Backend(e)),
            }
        }
        Ok(log)
    }

    fn next(&self) -> Next {
        let Ok(view) = self.scheduler.get(self.name.as_str()) else {
            return Next::Nothing;
        };
        let record = view.record;
        // What has not started has written nothing: while it waits, what the one before it wrote is still the latest.
        let latest = record.latest_started();
        match latest.filter(|(_, attempt)| self.attempt.as_ref() != Some(&attempt.name)) {
            Some((index, _)) => Next::Attempt(record, index),
            None if record.job.status.is_finished() => Next::Nothing,
            None => Next::Later,
        }
    }

    fn begin(&mut self, record: &JobRecord, attempt: usize) -> Result<(), BackendError> {
        let tail = match self.attempt {
            None => self.options.tail,
            // Of a later attempt, nothing has been seen.
            Some(_) => None,
        };
        self.attempt = record.attempts.get(attempt).map(|a| a.name.clone());
        let options = LogOptions {
            tail,
            ..self.options
        };
        self.log = Some(self.scheduler.backend().logs(record, attempt, options)?);
        Ok(())
    }
}

impl Read for JobLog {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(log) = &mut self.log {
                match log.read(buffer) {
                    Ok(0) => self.log = None,
                    outcome => return outcome,
                }
            }
            if !self.options.follow {
                return Ok(0);
            }
            match self.next() {
                Next::Attempt(record, attempt) => self
                    .begin(&record, attempt)
                    .map_err(|e| io::Error::other(e.to_string()))?,
                Next::Later => {
                    sleep(POLL);
                    return Err(ErrorKind::TimedOut.into());
                }
                Next::Nothing => return Ok(0),
            }
        }
    }
}
