//! What runs the jobs. The scheduler sees a backend through [`Backend`], and a backend tells what
//! it observes to an [`Observer`].

pub mod kubernetes;
pub mod local;

use crate::config::{JobComponent, Settings};
use crate::job::{
    Attempt, Job, JobList, JobName, JobRecord, ListBegun, Progress, Queued, RequestKey, Timestamp,
};
use std::fmt;
use std::io::Read;
use std::time::Duration;

/// The variable that tells a job where it may leave its result.
pub const RESULT_VARIABLE: &str = "JOB_RESULT_FILE";

/// A job to be created.
#[derive(Debug)]
pub struct NewJob<'a> {
    pub name: JobName,
    pub component: &'a JobComponent,
    /// The component's settings with the request's on top.
    pub settings: &'a Settings,
    /// The caller's own name for the job.
    pub job_id: Option<&'a str>,
    /// At most 1 MiB; an empty payload is a file of no bytes, `None` is no file.
    pub payload: Option<&'a str>,
    /// Kept with the job, so that the request can be told again after a restart.
    pub key: Option<RequestKey>,
    /// -100 to 100, higher ones first, for a backend that has a queue of its own.
    pub priority: i8,
    /// Its place in the scheduler's queue: it must not run before [`Backend::admit`]. `None` lets
    /// it run at once.
    pub queued: Option<Queued>,
}

/// A batch to be created.
#[derive(Debug)]
pub struct NewBatch<'a> {
    pub name: JobName,
    pub component: &'a JobComponent,
    /// The caller's own name for the batch.
    pub batch_id: Option<&'a str>,
    /// At least one. They go into the scheduler's queue in their order, if it has one.
    pub jobs: &'a [NewJob<'a>],
    /// Kept with the batch, so that the request can be told again after a restart.
    pub key: Option<RequestKey>,
    /// Orders it among jobs, and its own jobs behind it: microseconds since 1970, of which so many
    /// as it has jobs are its own.
    pub arrival: u64,
}

/// Where jobs run. Every call is idempotent: it may be repeated after a failure whose outcome is
/// unknown. The job that a call returns is its state as just stored, with its new version.
pub trait Backend: Send + Sync {
    /// Creates the job and its payload; on return both are durable. With `resend`, an earlier call
    /// for the same job may have come through.
    fn create(&self, new: &NewJob, resend: Resend) -> Result<Created, CreateError>;

    /// Creates a batch: on return all of it is durable, and none of it runs yet. With `resend`, an
    /// earlier call for the same batch may have come through, or a part of it.
    fn create_batch(&self, new: &NewBatch, resend: Resend) -> Result<CreatedBatch, CreateError>;

    /// Creates a job that does again what the finished job `old` did, with the same payload and
    /// settings.
    fn recreate(
        &self,
        old: &Job,
        name: &JobName,
        queued: Option<Queued>,
    ) -> Result<Created, CreateError>;

    /// Makes the running job reachable by its name, if it has ports.
    fn expose(&self, job: &Job) -> Result<(), BackendError>;

    /// Checks that an unfinished job has its payload, its own or another's, which a crash between
    /// the two writes leaves it without.
    fn has_payload(&self, job: &Job) -> Result<bool, BackendError>;

    /// Stores the payload of a job that a crash may have left without; one that is there stays.
    fn store_payload(&self, job: &Job, payload: &str) -> Result<(), BackendError>;

    /// Lets a queued job run, if it is still as described.
    fn admit(&self, job: &Job) -> Result<Job, BackendError>;

    /// Ends the job's processes and keeps its record: it becomes Stopping, then Stopped. A job that
    /// waits must still be as described. `reason` is for its user; empty where somebody asked for
    /// it.
    fn stop(&self, job: &Job, reason: &str) -> Result<Job, BackendError>;

    /// Notes that a stop has been carried out of which the backend itself will not tell
    /// ([`Job::is_stop_unnoticed`]), if the job is still as described.
    fn note_stop(&self, job: &Job) -> Result<Job, BackendError>;

    /// Keeps with the job how far it is, if it is still as described.
    fn keep_progress(&self, job: &Job, progress: &Progress) -> Result<Job, BackendError>;

    /// Runs a stopped job again in place, at once or from the queue, if it is still as described.
    /// How far it was is forgotten.
    fn resume(&self, job: &Job, queued: Option<Queued>) -> Result<Job, BackendError>;

    /// Takes the job out of its users' sight, while its payload or its key is still needed. `at` is
    /// kept with it: when that is, or for a batch when it came to its end, by which its key counts.
    fn hide(&self, job: &Job, key: HiddenKey, at: Timestamp) -> Result<Job, BackendError>;

    /// Deletes this very job and all that belongs to it. `false` if it is gone.
    fn delete(&self, job: &Job, condition: Condition) -> Result<bool, BackendError>;

    /// How long after the end of a process what it has asked for may still be done.
    fn calls_end_within(&self) -> Duration;

    /// All jobs there are at this moment.
    fn list(&self) -> Result<JobList, BackendError>;

    /// The job of this name as it is stored at this moment; `None` if there is none.
    fn look(&self, name: &JobName) -> Result<Option<Job>, BackendError>;

    /// The attempts that there are at this moment of the job of this name, which may be gone
    /// itself.
    fn attempts(&self, name: &JobName) -> Result<Vec<Attempt>, BackendError>;

    /// All attempts that there are at this moment, each with the name of its job.
    fn all_attempts(&self) -> Result<Vec<(JobName, Attempt)>, BackendError>;

    /// What an attempt of the job, which has started, has written; `attempt` is its index. With
    /// `follow`, a read waits for more for about a second, then fails with `TimedOut` and may be
    /// repeated; 0 bytes are the end of the attempt.
    fn logs(
        &self,
        record: &JobRecord,
        attempt: usize,
        options: LogOptions,
    ) -> Result<Box<dyn Read + Send>, BackendError>;
}

/// Which part of a log is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogOptions {
    /// Whether also what is still to be written.
    pub follow: bool,
    /// The last so many lines of what is written already; `None` is all of it.
    pub tail: Option<u32>,
}

/// A job that was created.
#[derive(Debug)]
pub struct Created {
    pub job: Job,
    /// It took more than one try, and one that was not answered may yet be carried out: should the
    /// job be deleted before that, it would be there again.
    pub may_come_again: bool,
}

/// A batch that was created.
#[derive(Debug)]
pub struct CreatedBatch {
    /// What stands for it.
    pub whole: Job,
    /// Its jobs, in no order.
    pub jobs: Vec<Created>,
    /// As of [`Created`].
    pub may_come_again: bool,
}

/// Whether a hidden job's idempotency key goes on standing for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HiddenKey {
    Kept,
    Forgotten,
}

/// What a deletion depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition {
    /// Whatever has become of the job.
    Whatever,
    /// Nothing has changed of it.
    Unchanged,
}

/// Whether the same create may have been sent before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Resend {
    First,
    Again,
}

/// Who is told what a backend observes. A backend calls it from one thread for jobs and one for
/// attempts.
pub trait Observer: Send + Sync {
    /// A list of all jobs is about to be asked for.
    fn jobs_relist_begins(&self) -> ListBegun;
    /// The list that was begun.
    fn jobs_relisted(&self, list: JobList, begun: ListBegun);
    fn job_seen(&self, job: Job);
    /// A job is gone; its version is that of its end.
    fn job_gone(&self, job: &Job);
    /// A job has left a queue of the backend's own after so long.
    fn job_waited(&self, time: Duration);
    /// All attempts there are.
    fn attempts_relisted(&self, attempts: Vec<(JobName, Attempt)>);
    fn attempt_seen(&self, job: &JobName, attempt: Attempt);
    fn attempt_gone(&self, job: &JobName, attempt: &str);
}

/// Why a backend did not do what it was asked.
#[derive(Debug, PartialEq)]
pub enum BackendError {
    /// The job as described cannot be; the caller's to mend.
    Invalid { message: String },
    /// There is no such job any more.
    Gone { message: String },
    /// The backend refuses for now: a quota, missing rights.
    Refused { message: String },
    /// The job has changed meanwhile: nothing was done.
    Changed { message: String },
    /// The backend is out of reach or failing, and nothing was done; the caller may try again.
    Unavailable { message: String },
    /// The backend did not answer: whether it was done is unknown. The caller may try again.
    Unanswered { message: String },
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendError::Invalid { message }
            | BackendError::Gone { message }
            | BackendError::Refused { message }
            | BackendError::Changed { message }
            | BackendError::Unavailable { message }
            | BackendError::Unanswered { message } => f.write_str(message),
        }
    }
}

/// Why a job was not created.
#[derive(Debug)]
pub enum CreateError {
    /// A job of this name exists already: take another name.
    NameTaken,
    /// Nothing of it exists.
    Nothing(BackendError),
    /// The job exists, and its payload certainly not: delete it.
    Incomplete(BackendError),
    /// It may exist, or be without its payload: delete it, or send the same again.
    Unanswered(BackendError),
}
