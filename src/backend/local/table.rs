//! What is known of each job, and what follows from it: the picture that is on disk, in memory.

use super::admission::{Admission, Amount, Place};
use super::store::{Batch, EndStatus, Ending, NotWritten, Record};
use super::work::Next;
use crate::backend::BackendError;
use crate::job::{
    Attempt, AttemptState, BatchPart, Job, JobName, JobResult, RareFields, Status, Timestamp,
};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

/// What is told of a job whose end waits for the disk.
pub(super) const END_NOT_WRITTEN: &str = "it has ended, which cannot be written down";
/// The reason of an attempt that ended because somebody asked.
pub(super) const STOPPED: &str = "Stopped";

/// All jobs, of all components.
pub(super) struct Table {
    pub(super) jobs: BTreeMap<JobName, Entry>,
    pub(super) admission: Admission,
    /// No job is taken or started any more.
    pub(super) closed: bool,
}

/// One job.
pub(super) struct Entry {
    pub(super) part: usize,
    pub(super) record: Record,
    /// Where it waits; `None` unless it does.
    pub(super) place: Option<Place>,
    /// What of the disk keeps it from going on.
    pub(super) held: Option<Arc<str>>,
    /// Where it is reached, while it has processes.
    pub(super) urls: BTreeMap<String, String>,
    /// Deleted, and its processes are ending.
    pub(super) deleted: bool,
    /// The version of its end, from when that was first told: of jobs that ended in the same second,
    /// the one with the later version ended later.
    pub(super) end_version: Cell<Option<u64>>,
    /// The scheduler before this one left it running, and its end is still to be written down.
    pub(super) cut_short: bool,
}

impl Table {
    /// A job that is not deleted.
    pub(super) fn entry(
        &mut self,
        part: usize,
        name: &JobName,
    ) -> Result<&mut Entry, BackendError> {
        let entry = self.jobs.get_mut(name);
        entry
            .filter(|entry| entry.part == part && !entry.deleted)
            .ok_or_else(|| gone(name))
    }

    /// Whether a job of this need may be taken.
    pub(super) fn check(&self, need: Amount) -> Result<(), BackendError> {
        if self.closed {
            return Err(BackendError::Unavailable {
                message: "the scheduler is stopping".to_string(),
            });
        }
        self.admission.check(need).map_err(|refused| {
            let message = refused.to_string();
            BackendError::Invalid { message }
        })
    }
}

pub(super) fn gone(name: &JobName) -> BackendError {
    BackendError::Gone {
        message: format!("job {name} is gone"),
    }
}

/// It was restarted at the last moment.
pub(super) fn changed(name: &JobName) -> BackendError {
    BackendError::Changed {
        message: format!("job {name} has changed"),
    }
}

pub(super) fn not_removed(NotWritten { cause, in_doubt }: NotWritten) -> BackendError {
    let message = format!("the job cannot be removed from the disk: {cause}");
    match in_doubt {
        true => BackendError::Unanswered { message },
        false => BackendError::Unavailable { message },
    }
}

pub(super) fn not_written(NotWritten { cause, in_doubt }: NotWritten) -> BackendError {
    if cause.kind() == ErrorKind::NotFound {
        let message = "the job's record was removed by another hand".to_string();
        return BackendError::Gone { message };
    }
    let message = format!("the job cannot be written to disk: {cause}");
    match in_doubt {
        true => BackendError::Unanswered { message },
        false => BackendError::Unavailable { message },
    }
}

impl Entry {
    pub(super) fn new(part: usize, record: Record) -> Entry {
        Entry {
            part,
            record,
            place: None,
            held: None,
            urls: BTreeMap::new(),
            deleted: false,
            end_version: Cell::new(None),
            cut_short: false,
        }
    }

    /// Whether an attempt may begin.
    pub(super) fn waits(&self) -> bool {
        let record = &self.record;
        let is_open = record.end.is_none() && !record.header.is_whole();
        is_open && !record.is_running() && !self.deleted
    }

    pub(super) fn status(&self) -> Status {
        match &self.record.end {
            Some(end) => end.status.into(),
            None if self.record.stop_asked || self.cut_short => Status::Stopping,
            None if self.record.current().is_empty() => Status::Waiting,
            None => Status::Running,
        }
    }

    /// `version` is later than that of what was told before, in case there is something new to tell.
    pub(super) fn job(&self, name: &JobName, version: u64) -> Job {
        let known = self.end_version.get();
        let version = known.filter(|_| !self.record.hidden).unwrap_or(version);
        let ended = self.record.end.as_ref().map(|_| version);
        self.end_version.set(ended);
        let header = &self.record.header;
        // One that was stopped has not failed, as in Kubernetes.
        let failed = |(_, end): &&(i64, Option<Ending>)| {
            end.as_ref()
                .is_some_and(|end| !end.succeeded && end.reason != STOPPED)
        };
        let place = self.place.filter(|_| self.status() == Status::Waiting);
        let message = match (&self.record.end, place, &self.held) {
            (Some(end), _, _) => end.message.clone(),
            (None, Some(place), Some(held)) => {
                format!("position {} of the queue: {held}", place.position)
            }
            (None, None, Some(held)) => held.to_string(),
            (None, Some(place), None) => place.to_string(),
            (None, None, None) => String::new(),
        };
        let rare = RareFields {
            message,
            // Each has a copy of its own.
            payload_of: None,
            position: place.map(|place| place.position),
            urls: self.urls.clone(),
            restarted: self.record.resumed.map(Timestamp::at),
            restart_of: header.restart_of.as_deref().and_then(JobName::parse),
            batch: header.batch.as_ref().and_then(|batch| match batch {
                Batch::Whole { size } => Some(BatchPart::Whole {
                    id: header.job_id.as_deref().map(Box::from),
                    size: *size,
                    is_complete: true,
                }),
                Batch::Member { of, index } => Some(BatchPart::Member {
                    of: JobName::parse(of)?,
                    index: *index,
                    payload: None,
                }),
            }),
        };
        Job {
            name: name.clone(),
            uid: format!("{:x}", header.arrival).into(),
            job_id: header.job_id.as_deref().map(Box::from),
            created: Timestamp::at(header.created),
            arrival: header.arrival,
            started: self
                .record
                .current()
                .first()
                .map(|(at, _)| Timestamp::at(*at)),
            finished: match &self.record.end {
                Some(end) => Some(Timestamp::at(end.at)),
                None => self.record.hidden_at.map(Timestamp::at),
            },
            status: self.status(),
            suspension: None,
            is_suspension_earlier: false,
            failed: u32::try_from(self.record.attempts.iter().filter(failed).count())
                .unwrap_or(u32::MAX),
            retries: None,
            has_payload: header.payload.is_some(),
            // The queue is the machine's, over all components, and not the scheduler's.
            queued: None,
            key: header
                .key()
                .filter(|_| !self.record.key_forgotten)
                .map(Box::new),
            is_rerun: self.record.resumed.is_some(),
            hidden: self.record.hidden,
            progress: self
                .record
                .progress
                .as_ref()
                .map(|kept| Arc::new(kept.progress())),
            version,
            rare: rare.into(),
        }
    }

    pub(super) fn attempts(&self, name: &JobName, version: u64) -> Vec<Attempt> {
        (1..)
            .zip(&self.record.attempts)
            .map(|(number, attempt)| read_attempt(name, number, attempt, version))
            .collect()
    }
}

pub(super) fn read_attempt(
    job: &JobName,
    number: usize,
    (began, end): &(i64, Option<Ending>),
    version: u64,
) -> Attempt {
    let state = match end {
        None => AttemptState::Running,
        Some(end) if end.succeeded => AttemptState::Succeeded,
        Some(_) => AttemptState::Failed,
    };
    let left = end.as_ref().and_then(|end| end.result.as_ref());
    Attempt {
        name: format!("{job}-{number}").into(),
        job_uid: None,
        created: Timestamp::at(*began),
        started: Some(Timestamp::at(*began)),
        finished: end.as_ref().map(|end| Timestamp::at(end.at)),
        state,
        is_over: state.is_finished(),
        is_certain: false,
        exit_code: end.as_ref().and_then(|end| end.exit_code),
        reason: end.as_ref().map_or("", |end| &end.reason).into(),
        message: end.as_ref().map_or("", |end| &end.message).into(),
        image: "".into(),
        image_id: "".into(),
        restarts: 0,
        result: left.and_then(|left| JobResult::new(&left.text, left.is_truncated)),
        version,
    }
}

/// What follows when the last attempt has ended by itself or by its time limit.
pub(super) fn after_attempt(record: &Record) -> Result<EndStatus, Duration> {
    let succeeded =
        |(_, end): &(i64, Option<Ending>)| end.as_ref().is_some_and(|end| end.succeeded);
    if record.attempts.last().is_some_and(succeeded) {
        return Ok(EndStatus::Succeeded);
    }
    let codes: Vec<i32> = record
        .current()
        .iter()
        .map(|(_, end)| end.as_ref().and_then(|end| end.exit_code).unwrap_or(0))
        .collect();
    match record.header.work.after_failure(&codes) {
        Next::Fail => Ok(EndStatus::Failed),
        Next::TryAgain { delay } => Err(delay),
    }
}
