//! Jobs as processes of this machine.
//!
//! [`Machine`] is the one thing that all schedulers of a file share: what is known of each job
//! ([`table`]), what is reserved ([`admission`]), what is on disk ([`store`]), and a thread that
//! starts, watches and ends processes ([`supervisor`]). [`Local`] is one component's handle on it,
//! and the adapter to what the scheduler knows.
//!
//! Order: the record is on disk, then the caller is answered, and an attempt is marked on disk as
//! begun before it is started, so that no job is lost and none is run twice, whatever ends this
//! process or the machine. What happens to a job is written down first, then so in the table, then
//! told: what cannot be written down has not happened, and the end of an attempt is written again
//! and again. One at a time writes about a job.

mod admission;
mod batch;
mod files;
mod init;
mod logs;
mod machine;
mod mounts;
mod ports;
mod process;
mod store;
mod supervisor;
mod table;
mod work;

pub use admission::{Amount, Bytes, Cpus, bytes, cpu_milli};
pub use files::{Disk, Entry as FolderEntry, Files, Mode, OpenFile};
pub use init::{COMMAND as JOB_INIT, run as run_init};
pub use logs::bound as bound_logs;
pub use machine::{MACHINE_VARIABLES, Machine, Part, Setup};
pub use mounts::View;
pub use ports::{check as check_port, url};
pub use process::{Exit, Launch, Leader, Orphan, Processes, System};
pub use store::{Folder, OpenError};
pub use supervisor::Supervisor;

use crate::backend::{
    Backend, BackendError, Condition, CreateError, Created, CreatedBatch, HiddenKey, LogOptions,
    NewBatch, NewJob, Resend,
};
use crate::job::{Attempt, Job, JobList, JobName, JobRecord, Progress, Queued, Timestamp};
use logs::{Follow, Log};
use machine::RunningPart;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

/// One component's jobs on the machine.
pub struct Local {
    machine: Arc<Machine>,
    part: usize,
}

impl Local {
    /// `part` is the component's place in [`Setup::parts`].
    pub fn new(machine: Arc<Machine>, part: usize) -> Local {
        Local { machine, part }
    }

    fn part(&self) -> Result<&RunningPart, BackendError> {
        self.machine
            .parts
            .get(self.part)
            .ok_or_else(|| BackendError::Unavailable {
                message: format!("there is no component {}", self.part),
            })
    }
}

/// A record is written before its creator is answered, or never.
fn created(job: Job) -> Created {
    Created {
        job,
        may_come_again: false,
    }
}

impl Backend for Local {
    fn create(&self, new: &NewJob, resend: Resend) -> Result<Created, CreateError> {
        let part = self.part().map_err(CreateError::Nothing)?;
        let is_same = |job: &Job| {
            let keys = job.request().zip(new.key);
            keys.is_some_and(|(known, sent)| known.is_same_request(&sent))
        };
        match (resend, self.machine.look(self.part, &new.name)) {
            (Resend::Again, Ok(job)) if is_same(&job) => Ok(created(job)),
            _ => self.machine.create(self.part, part, new).map(created),
        }
    }

    fn create_batch(&self, new: &NewBatch, resend: Resend) -> Result<CreatedBatch, CreateError> {
        let part = self.part().map_err(CreateError::Nothing)?;
        self.machine.create_batch(self.part, part, new, resend)
    }

    fn recreate(
        &self,
        old: &Job,
        name: &JobName,
        _queued: Option<Queued>,
    ) -> Result<Created, CreateError> {
        let part = self.part().map_err(CreateError::Nothing)?;
        let again = self.machine.recreate(self.part, part, &old.name, name);
        again.map(created)
    }

    /// A job of this machine listens on the machine's own ports.
    fn expose(&self, _job: &Job) -> Result<(), BackendError> {
        Ok(())
    }

    /// A record is written with its payload or not at all.
    fn has_payload(&self, _job: &Job) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn store_payload(&self, _job: &Job, _payload: &str) -> Result<(), BackendError> {
        Ok(())
    }

    /// The machine's own queue lets jobs run.
    fn admit(&self, job: &Job) -> Result<Job, BackendError> {
        self.machine.look(self.part, &job.name)
    }

    fn stop(&self, job: &Job, _reason: &str) -> Result<Job, BackendError> {
        self.machine.stop(self.part, &job.name)
    }

    /// It is told of each stop.
    fn note_stop(&self, job: &Job) -> Result<Job, BackendError> {
        Ok(job.clone())
    }

    fn keep_progress(&self, job: &Job, progress: &Progress) -> Result<Job, BackendError> {
        self.machine.keep_progress(self.part, job, progress)
    }

    fn resume(&self, job: &Job, _queued: Option<Queued>) -> Result<Job, BackendError> {
        self.machine.resume(self.part, &job.name)
    }

    fn hide(&self, job: &Job, key: HiddenKey, at: Timestamp) -> Result<Job, BackendError> {
        self.machine.hide(self.part, &job.name, key, at)
    }

    /// What is on disk when it starts is all there is.
    fn calls_end_within(&self) -> Duration {
        Duration::ZERO
    }

    fn list(&self) -> Result<JobList, BackendError> {
        Ok(self.machine.list(self.part))
    }

    fn look(&self, name: &JobName) -> Result<Option<Job>, BackendError> {
        match self.machine.look(self.part, name) {
            Ok(job) => Ok(Some(job)),
            Err(BackendError::Gone { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn attempts(&self, name: &JobName) -> Result<Vec<Attempt>, BackendError> {
        let machine = &self.machine;
        let attempts = machine.with_entry(self.part, name, |entry| {
            entry.attempts(name, machine.next_version())
        });
        Ok(attempts.unwrap_or_default())
    }

    fn all_attempts(&self) -> Result<Vec<(JobName, Attempt)>, BackendError> {
        Ok(self.machine.attempts(self.part))
    }

    fn delete(&self, job: &Job, condition: Condition) -> Result<bool, BackendError> {
        let part = self.part()?;
        match job.batch_whole() {
            Some(_) => self.machine.delete_batch(self.part, part, job, condition),
            None => self.machine.delete(self.part, part, job, condition),
        }
    }

    fn logs(
        &self,
        record: &JobRecord,
        attempt: usize,
        options: LogOptions,
    ) -> Result<Box<dyn Read + Send>, BackendError> {
        // On disk they count from 1.
        let (name, attempt) = (&record.job.name, attempt + 1);
        let file = self.part()?.store.log(name, attempt);
        let follow = options.follow.then(|| -> Follow {
            let (machine, part, name) = (self.machine.clone(), self.part, name.clone());
            Box::new(move || machine.is_over(part, &name, attempt))
        });
        let log = Log::open(&file, options.tail, follow);
        log.map(|log| -> Box<dyn Read + Send> { Box::new(log) })
            .map_err(|e| BackendError::Unavailable {
                message: format!("the log of {name} cannot be read: {e}"),
            })
    }
}
