//! The domain: job names, times, states and records. Pure; knows neither the wire nor a backend.

use crate::finished::{End, Retries, finished, has_gone_on};
use crate::sync::Memo;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU64;
use std::ops::Deref;
use std::sync::Arc;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// The longest name of a Kubernetes object that is also a host name: a DNS label.
const MAX_NAME: usize = 63;
/// `-yyyymmddhhmmss-` and 8 characters.
const SUFFIX: usize = 1 + 14 + 1 + 8;

/// The name of a job: `<component>-<yyyymmddhhmmss>-<8 of a-z0-9>`, at most 63 characters, a DNS
/// label.
///
/// It is also the host name of the running job, and names sort by the second they were made in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobName(Arc<str>);

impl JobName {
    /// A new name. The component's part is cut where the whole would be too long, never the rest.
    pub fn generate(component: &str, now: Timestamp, random: &mut fastrand::Rng) -> JobName {
        let cut: String = component.chars().take(MAX_NAME - SUFFIX).collect();
        let random: String = (0..8)
            .map(|_| char::from_digit(random.u32(0..36), 36).unwrap_or('0'))
            .collect();
        JobName(format!("{}-{}-{random}", cut.trim_end_matches('-'), now.compact()).into())
    }

    /// A name as it comes from outside; `None` unless it is a DNS label, so that it can go into a
    /// path.
    pub fn parse(text: &str) -> Option<JobName> {
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fits = (1..=MAX_NAME).contains(&text.len()) && text.chars().all(label);
        (fits && !text.starts_with('-') && !text.ends_with('-')).then(|| JobName(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A moment in whole seconds since 1970, UTC. Displays as RFC 3339, `2021-04-07T09:08:37Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(NonZeroU64);

impl Timestamp {
    /// So many seconds since 1970.
    pub const fn at(seconds: i64) -> Timestamp {
        // In the order of the seconds, and never 0, so that an `Option` of it is no larger.
        match NonZeroU64::new(seconds.cast_unsigned() ^ (1 << 63)) {
            Some(ordered) => Timestamp(ordered),
            None => Timestamp(NonZeroU64::MIN),
        }
    }

    /// Since 1970.
    pub const fn seconds(self) -> i64 {
        (self.0.get() ^ (1 << 63)).cast_signed()
    }

    /// The system clock's now.
    pub fn now() -> Timestamp {
        Timestamp::at(OffsetDateTime::now_utc().unix_timestamp())
    }

    /// An RFC 3339 time; fractions of a second are dropped.
    pub fn parse(text: &str) -> Option<Timestamp> {
        OffsetDateTime::parse(text, &Rfc3339)
            .ok()
            .map(|t| Timestamp::at(t.unix_timestamp()))
    }

    /// In microseconds since 1970.
    pub fn micros(self) -> u64 {
        u64::try_from(self.seconds())
            .unwrap_or(0)
            .saturating_mul(1_000_000)
    }

    /// Seconds from `earlier` to this, at least 0.
    pub fn seconds_since(self, earlier: Timestamp) -> i64 {
        (self.seconds() - earlier.seconds()).max(0)
    }

    fn date_time(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// `yyyymmddhhmmss`, as names have it.
    pub fn compact(self) -> String {
        let form = format_description!("[year][month][day][hour][minute][second]");
        self.date_time().format(form).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 20];
        let mut rest = text.as_mut_slice();
        // It fails for a year of more than four digits alone.
        match self.date_time().format_into(&mut rest, &Rfc3339) {
            Ok(_) => f.write_str(std::str::from_utf8(&text).unwrap_or_default()),
            Err(_) => Ok(()),
        }
    }
}

/// The state of a job as its users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Held back by the scheduler's queue.
    Waiting,
    /// Accepted and not held back; it may still be pulling its image.
    Running,
    /// Asked to stop, not gone yet.
    Stopping,
    /// Ended because somebody asked; kept as a record.
    Stopped,
    /// Exit code 0.
    Succeeded,
    /// Any other end.
    Failed,
}

impl Status {
    /// Every status, in the order of a job's life.
    pub const ALL: [Status; 6] = [
        Status::Waiting,
        Status::Running,
        Status::Stopping,
        Status::Stopped,
        Status::Succeeded,
        Status::Failed,
    ];

    /// The status of this name.
    pub fn parse(text: &str) -> Option<Status> {
        Status::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Status::Waiting => "Waiting",
            Status::Running => "Running",
            Status::Stopping => "Stopping",
            Status::Stopped => "Stopped",
            Status::Succeeded => "Succeeded",
            Status::Failed => "Failed",
        }
    }

    /// Whether the job must not run in it, and may run again.
    pub fn is_held_back(self) -> bool {
        match self {
            Status::Waiting | Status::Stopping | Status::Stopped => true,
            Status::Running | Status::Succeeded | Status::Failed => false,
        }
    }

    /// Whether the job has come to its end.
    pub fn is_finished(self) -> bool {
        matches!(self, Status::Stopped | Status::Succeeded | Status::Failed)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of a job itself; its attempts are [`Attempt`]s.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub name: JobName,
    /// The backend's identity of this job, which a later job of the same name would not have.
    pub uid: Box<str>,
    /// The caller's own name for the job.
    pub job_id: Option<Box<str>>,
    pub created: Timestamp,
    /// Orders jobs by when they came: microseconds since 1970 on a scheduler's clock, or the second
    /// of its creation where those are not known.
    pub arrival: u64,
    /// When it began to run; a resumed job begins again.
    pub started: Option<Timestamp>,
    /// When it came to its end, whichever.
    pub finished: Option<Timestamp>,
    pub status: Status,
    /// Since when the backend has held it back, as far as it has noticed what it was asked.
    pub suspension: Option<Timestamp>,
    /// That is of before it was last let run, so that the backend has not noticed that either.
    pub is_suspension_earlier: bool,
    /// Attempts that failed, as far as the backend has counted them.
    pub failed: u32,
    /// What follows from them; `None` where the backend tells of each end at once, or by rules that
    /// are not known.
    pub retries: Option<Retries>,
    /// Whether it was submitted with a payload.
    pub has_payload: bool,
    /// Its place in the scheduler's queue; `None` unless the queue holds it.
    pub queued: Option<Queued>,
    /// The request that made it, where the request had an idempotency key. Boxed, as most have
    /// none.
    pub key: Option<Box<RequestKey>>,
    /// Whether it was stopped before and runs again, whoever let it.
    pub is_rerun: bool,
    /// Deleted for its users, and kept only because another job uses its payload.
    pub hidden: bool,
    /// How far it was when that was last kept with it: what is known may be newer
    /// ([`JobRecord::progress`]).
    pub progress: Option<Arc<Progress>>,
    /// The backend's version of this record, which grows with each change.
    pub version: u64,
    pub rare: Rare,
}

/// What most jobs lack, apart from the others' records so that those are small.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rare(Option<Box<RareFields>>);

/// All of it may be missing.
#[derive(Clone, Debug, PartialEq)]
pub struct RareFields {
    /// Why the job is in its state, as far as itself tells; empty where there is nothing to say.
    pub message: String,
    /// The job whose stored payload this one uses, where it has none of its own.
    pub payload_of: Option<JobName>,
    /// How many it is from the front of a queue of the backend's own, from 1; `None` unless that
    /// holds it.
    pub position: Option<usize>,
    /// Where it is reached while it runs, by the names of its ports; empty where its own name is its
    /// host name.
    pub urls: BTreeMap<String, String>,
    /// When it was last restarted in place.
    pub restarted: Option<Timestamp>,
    /// The finished job that this one does again.
    pub restart_of: Option<JobName>,
    /// What it has to do with a batch, where it has.
    pub batch: Option<BatchPart>,
}

/// What a job has to do with a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchPart {
    /// It stands for the batch, and never runs.
    Whole {
        /// The caller's own name for the batch.
        id: Option<Box<str>>,
        /// How many jobs it has.
        size: u32,
        /// Whether all of it is there: until then, none of it is.
        is_complete: bool,
    },
    /// It is one of the batch's jobs.
    Member {
        of: JobName,
        /// Its place in the batch, from 0.
        index: u32,
        /// Where the backend has its payload, if it has one.
        payload: Option<Box<str>>,
    },
}

impl RareFields {
    pub const NONE: RareFields = RareFields {
        message: String::new(),
        payload_of: None,
        position: None,
        urls: BTreeMap::new(),
        restarted: None,
        restart_of: None,
        batch: None,
    };
}

impl From<RareFields> for Rare {
    fn from(fields: RareFields) -> Rare {
        Rare((fields != RareFields::NONE).then(|| Box::new(fields)))
    }
}

impl Deref for Rare {
    type Target = RareFields;

    fn deref(&self) -> &RareFields {
        static NONE: RareFields = RareFields::NONE;
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl Job {
    /// The request that made it.
    pub fn request(&self) -> Option<RequestKey> {
        self.key.as_deref().copied()
    }

    /// Whether it stands for a batch; if so, whether all of that is there.
    pub fn batch_whole(&self) -> Option<bool> {
        match self.rare.batch {
            Some(BatchPart::Whole { is_complete, .. }) => Some(is_complete),
            _ => None,
        }
    }

    /// Whether it stands for a batch; if so, whether that is in sight of its users.
    pub fn batch(&self) -> Option<bool> {
        let is_complete = self.batch_whole()?;
        Some(is_complete && !self.hidden)
    }

    /// How many jobs the batch has that it stands for, if all of that is there.
    pub fn complete_batch_size(&self) -> Option<usize> {
        match self.rare.batch {
            Some(BatchPart::Whole {
                size,
                is_complete: true,
                ..
            }) => usize::try_from(size).ok(),
            _ => None,
        }
    }

    /// Its caller's own id for the batch that it stands for.
    pub fn batch_id(&self) -> Option<&str> {
        match &self.rare.batch {
            Some(BatchPart::Whole { id, .. }) => id.as_deref(),
            _ => None,
        }
    }

    /// Its place in its batch, from 0.
    pub fn batch_index(&self) -> u32 {
        match self.rare.batch {
            Some(BatchPart::Member { index, .. }) => index,
            _ => 0,
        }
    }

    /// The batch that it is a job of.
    pub fn batch_of(&self) -> Option<&JobName> {
        match &self.rare.batch {
            Some(BatchPart::Member { of, .. }) => Some(of),
            _ => None,
        }
    }

    /// It is Stopping, and the backend may never say that it has stopped: what stopped it came so
    /// soon after what let it run that neither may have been noticed.
    pub fn is_stop_unnoticed(&self) -> bool {
        self.status == Status::Stopping && self.is_suspension_earlier
    }
}

/// How far a job is, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Progress {
    /// 0 to 100.
    pub percent: u8,
    /// Empty where it says nothing.
    pub message: Box<str>,
    /// When it said so.
    pub updated: Timestamp,
}

/// A place in the queue: higher priorities first, then earlier arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// -100 to 100.
    pub priority: i8,
    /// Microseconds since 1970 on the scheduler's clock, which never gives the same twice.
    pub arrival: u64,
}

impl Ord for Queued {
    fn cmp(&self, other: &Queued) -> std::cmp::Ordering {
        other
            .priority
            .cmp(&self.priority)
            .then(self.arrival.cmp(&other.arrival))
    }
}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Queued) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// An idempotency key and the body that came with it, as digests: neither is kept as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestKey {
    pub key: u128,
    pub body: u128,
    /// When the job was sent to the backend. A scheduler that dies may leave one on its way, which
    /// arrives after the request was sent again: then the later one counts.
    pub sent: Sent,
}

/// When something was sent, by a clock that all schedulers share as far as there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent {
    /// The highest version that the backend had reported: no process that starts later has a lower
    /// one.
    pub version: u64,
    /// Microseconds since 1970 on the scheduler's clock, which never gives the same twice.
    pub micros: u64,
}

impl RequestKey {
    /// Whether both came with the same key and the same body.
    pub fn is_same_request(&self, other: &RequestKey) -> bool {
        (self.key, self.body) == (other.key, other.body)
    }
}

/// One run of a job's container: a pod, or a process.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    pub name: Box<str>,
    /// Digest of the uid of its job; `None` where no name is used again.
    pub job_uid: Option<u64>,
    pub created: Timestamp,
    pub started: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    pub state: AttemptState,
    /// Whether nothing of it can run any more: its place is free.
    pub is_over: bool,
    /// Whether its container has ended, and nothing is known that could still make it another end.
    pub is_certain: bool,
    pub exit_code: Option<i32>,
    /// CamelCase, as in `OOMKilled` or `ImagePullBackOff`; empty where there is none.
    pub reason: Box<str>,
    /// The reason in a sentence; empty where there is none.
    pub message: Box<str>,
    pub image: Box<str>,
    pub image_id: Box<str>,
    pub restarts: u32,
    pub result: Option<Box<JobResult>>,
    /// The backend's version of this record, which grows with each change.
    pub version: u64,
}

/// The most bytes that a result may have; of a longer one the last are kept, as Kubernetes does.
pub const MAX_RESULT_BYTES: usize = 4096;

/// What an attempt has left for its job's caller in the file that `JOB_RESULT_FILE` names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JobResult {
    /// Not empty; at most [`MAX_RESULT_BYTES`] characters. What was not UTF-8 is U+FFFD.
    pub text: Box<str>,
    /// It is the end of something longer, or may be, where the backend does not tell.
    pub is_truncated: bool,
}

impl JobResult {
    /// `None` where nothing was left.
    pub fn new(text: &str, is_truncated: bool) -> Option<Box<JobResult>> {
        let last = text.char_indices().rev().take(MAX_RESULT_BYTES).last();
        let (start, _) = last?;
        Some(Box::new(JobResult {
            text: text.get(start..)?.into(),
            is_truncated: is_truncated || start > 0,
        }))
    }
}

/// A digest of a job's uid, by which its attempts are told from those of a job that had its name
/// before.
pub fn uid_digest(uid: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    hasher.finish()
}

impl Attempt {
    /// Whether it is one of this very job.
    pub fn is_of(&self, job: &Job) -> bool {
        self.job_uid.is_none_or(|uid| uid == uid_digest(&job.uid))
    }

    /// An end that was beyond doubt stays one, though somebody deletes the pod before it is over.
    pub fn keep_end_of(&mut self, before: &Attempt) {
        if before.is_certain && !self.is_over {
            let version = self.version;
            *self = Attempt {
                version,
                ..before.clone()
            };
        }
    }
}

/// Where an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptState {
    /// Not running yet: to be scheduled, pulling its image, waiting for a volume.
    Pending,
    /// Something keeps it from starting; `reason` says what.
    Failing,
    Running,
    Succeeded,
    Failed,
}

impl AttemptState {
    /// Whether its processes have ended.
    pub fn is_finished(self) -> bool {
        matches!(self, AttemptState::Succeeded | AttemptState::Failed)
    }
}

/// A job and its attempts, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRecord {
    pub job: Job,
    pub attempts: Vec<Attempt>,
    /// Whether its status is an end that its attempts show and the backend's own record does not
    /// yet.
    pub is_early: bool,
    /// What the scheduler has to say of it to its user: what it could not do for it, and why. Empty
    /// where there is nothing.
    pub notice: Box<str>,
    /// It is of a batch that is not complete, or gone: it is as if it were not there.
    pub awaits_batch: bool,
    /// Whether it is known to have its payload: it was acknowledged, somebody looked, or a
    /// container has started, which none does without it.
    pub is_whole: bool,
    /// What its users are shown. Whoever changes the record clears it.
    pub shown: Memo<Shown>,
    /// How far it is.
    pub progress: Option<Arc<Progress>>,
    /// The number of its last change among those of all jobs, where anything of it is seen.
    pub changed: Option<NonZeroU64>,
}

/// A record as its users are shown it: made once, since that takes longer than to send it.
#[derive(Debug)]
pub struct Shown {
    /// The job's place in the queue, and whether it lacks a pod: all that is not of the record.
    pub beside: (Option<usize>, bool),
    pub bytes: Box<[u8]>,
}

/// Which jobs of a list are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobFilter {
    /// Those in one of them; empty is any.
    pub statuses: Vec<Status>,
    /// Those with this id of their caller's.
    pub job_id: Option<String>,
    /// Of these the latest so many.
    pub limit: Option<usize>,
}

impl JobFilter {
    /// Whether the job is one of those that are counted.
    pub fn takes(&self, job: &Job) -> bool {
        let has_status = self.statuses.is_empty() || self.statuses.contains(&job.status);
        let has_id = self.job_id.is_none() || self.job_id.as_deref() == job.job_id.as_deref();
        has_status && has_id
    }
}

/// What was known when a list of all jobs was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListBegun {
    /// Lists that had been asked for, with this one.
    pub lists: u64,
    /// The highest version that had been reported.
    pub version: u64,
}

/// All jobs that there were at a version.
#[derive(Debug, Default)]
pub struct JobList {
    pub jobs: Vec<Job>,
    pub version: u64,
}

/// Seconds after which a running job without a single pod is worth a remark.
pub const NO_POD_REMARK_SECONDS: i64 = 4;

/// Whether the container of one of the attempts has started.
pub fn has_started(attempts: &[Attempt]) -> bool {
    attempts.iter().any(|attempt| attempt.started.is_some())
}

impl JobRecord {
    /// `attempts` are all of this very job.
    pub fn new(job: Job, attempts: Vec<Attempt>) -> JobRecord {
        JobRecord {
            is_whole: has_started(&attempts),
            is_early: false,
            progress: job.progress.clone(),
            job,
            attempts,
            notice: "".into(),
            awaits_batch: false,
            shown: Memo::default(),
            changed: None,
        }
    }

    /// Its place in the scheduler's queue, if it waits there for its turn.
    pub fn queued(&self) -> Option<Queued> {
        self.job.queued.filter(|_| !self.awaits_batch)
    }

    /// Whether its users see it as a job.
    pub fn is_seen(&self) -> bool {
        !self.job.hidden && !self.awaits_batch && self.job.batch().is_none()
    }

    /// Whether its users are told of it, or of the batch that it stands for.
    pub fn is_told(&self) -> bool {
        self.is_seen() || self.job.batch() == Some(true)
    }

    /// The same with a newer report of the job. An end that was told stays until the backend's own
    /// record tells one, and when it was stays then.
    pub fn with(&self, mut job: Job) -> JobRecord {
        let is_early = self.is_early && job.status == Status::Running && !self.has_begun_anew(&job);
        if is_early {
            job.status = self.job.status;
        }
        if is_early || (self.is_early && job.status == self.job.status) {
            job.finished = self.job.finished;
            job.failed = job.failed.max(self.job.failed);
        }
        // Somebody else may hold it back and let it run again, and leaves no word of it.
        let is_resumed = self.job.status.is_held_back() && self.job.queued.is_none();
        let is_resumed = is_resumed || (self.is_early && self.has_begun_anew(&job));
        let is_resumed = is_resumed && job.status == Status::Running;
        job.is_rerun |= self.job.is_rerun || is_resumed;
        let was_restarted = job.rare.restarted != self.job.rare.restarted
            || (self.job.status.is_finished() && !job.status.is_finished());
        // What was not kept yet is newer than what was, unless it is of an earlier run.
        let progress = match was_restarted || self.is_progress_kept() {
            true => job.progress.clone(),
            false => self.progress.clone(),
        };
        JobRecord {
            job,
            progress,
            is_early,
            ..self.clone()
        }
    }

    /// Whether the backend's own record tells another end than was told.
    pub fn is_contradicted_by(&self, job: &Job) -> bool {
        let is_other = match job.status {
            Status::Running => self.has_begun_anew(job),
            status => status != self.job.status,
        };
        self.is_early && is_other
    }

    /// Whether, by a newer report, it has begun anew since: somebody held it back and let it run
    /// again, which nobody may have told.
    fn has_begun_anew(&self, job: &Job) -> bool {
        self.job.started != job.started
    }

    /// Ends the job if its attempts show that it has ended; with `is_held`, not before the backend's
    /// own record says so. An end that was followed by another attempt is none.
    pub fn conclude(&mut self, is_held: bool) {
        if self.is_early && has_gone_on(&self.attempts, self.job.finished) {
            (self.job.status, self.job.finished) = (Status::Running, None);
            self.is_early = false;
        }
        let job = &self.job;
        let is_open = job.status == Status::Running && !is_held;
        let is_over = matches!(job.status, Status::Succeeded | Status::Failed) && !self.is_early;
        if !is_open && !is_over {
            return;
        }
        let Some(End { status, at, failed }) = finished(job, &self.attempts) else {
            return;
        };
        if is_open || status == job.status {
            (self.job.status, self.job.finished) = (status, Some(at));
            self.job.failed = failed;
            self.is_early = is_open;
        }
    }

    /// Changes what is known of its attempts.
    pub fn change_attempts(&mut self, change: impl FnOnce(&mut Vec<Attempt>)) {
        change(&mut self.attempts);
        self.is_whole |= has_started(&self.attempts);
    }

    /// Whether what is known of its progress is kept with the job.
    pub fn is_progress_kept(&self) -> bool {
        self.progress == self.job.progress
    }

    /// Whether its payload may be missing: it has one, and nothing has shown yet that it is stored.
    pub fn may_lack_payload(&self) -> bool {
        self.job.has_payload && !self.is_whole
    }

    /// Whether its payload may be missing and it still needs it, or its jobs if it stands for a
    /// batch. One that is hidden was whole.
    pub fn needs_payload(&self) -> bool {
        let is_over = matches!(self.job.status, Status::Succeeded | Status::Failed);
        let is_over = is_over || self.job.hidden;
        match (self.job.batch_whole(), self.job.batch_of()) {
            (Some(is_complete), _) => !is_complete && !self.job.hidden,
            // What they have is there before they are.
            (None, Some(_)) => false,
            (None, None) => !is_over && self.may_lack_payload(),
        }
    }

    /// Whether it runs and has not had a single pod for so long that it is worth a remark.
    pub fn lacks_pod(&self, now: Timestamp) -> bool {
        let began = self.job.started.unwrap_or(self.job.created);
        self.job.status == Status::Running
            && self.attempts.is_empty()
            && now.seconds_since(began) >= NO_POD_REMARK_SECONDS
    }

    /// Why the job is in its state, for its user; empty where there is nothing to say. `position`
    /// is its place in the queue, from 1.
    pub fn message(&self, now: Timestamp, position: Option<usize>) -> String {
        if self.job.status == Status::Waiting && !self.notice.is_empty() {
            return self.notice.to_string();
        }
        // A backend with a queue of its own says what the job waits for.
        if let (Status::Waiting, Some(position), true) =
            (self.job.status, position, self.job.rare.message.is_empty())
        {
            return format!("position {position} of the queue: as many jobs run as may at once");
        }
        let last = self.attempts.last();
        match (self.job.status, last) {
            (Status::Failed, Some(last)) if last.state == AttemptState::Failed => {
                let why = last.explanation();
                match self.attempts.len() {
                    1 => why,
                    n => format!("{why} (the last of {n} attempts)"),
                }
            }
            (Status::Running, Some(last)) if last.state == AttemptState::Failing => {
                last.explanation()
            }
            (Status::Running, Some(last)) if last.state == AttemptState::Failed => {
                format!(
                    "attempt {} failed: {}",
                    self.attempts.len(),
                    last.explanation()
                )
            }
            (Status::Running, None) if self.lacks_pod(now) => {
                format!(
                    "Kubernetes has made no pod yet: a quota, an admission rule or a busy controller \
                     (kubectl describe job {} tells)",
                    self.job.name
                )
            }
            (Status::Running, _) if self.job.rare.message.is_empty() => self.notice.to_string(),
            _ => self.job.rare.message.to_string(),
        }
    }

    /// What the last attempt that has finished has left.
    pub fn result(&self) -> Option<&JobResult> {
        let mut attempts = self.attempts.iter().rev();
        let finished = attempts.find(|attempt| attempt.state.is_finished());
        finished?.result.as_deref()
    }

    /// The latest attempt that has started, and its index.
    pub fn latest_started(&self) -> Option<(usize, &Attempt)> {
        let started = |attempt: &Attempt| {
            !matches!(attempt.state, AttemptState::Pending | AttemptState::Failing)
        };
        let attempts = self.attempts.iter().enumerate();
        attempts.rev().find(|(_, attempt)| started(attempt))
    }

    /// Why the job is in its state, for the scheduler's own log: without what a container or its
    /// runtime says, for that may hold a payload or a secret's value.
    pub fn reason(&self) -> String {
        match self.attempts.last() {
            Some(last)
                if self.job.status == Status::Failed && last.state == AttemptState::Failed =>
            {
                last.explained("")
            }
            _ => self.job.rare.message.to_string(),
        }
    }
}

impl Attempt {
    fn explanation(&self) -> String {
        self.explained(&self.message)
    }

    /// Its reason, and beside that the message or, where there is none, the exit code.
    fn explained(&self, message: &str) -> String {
        let text = match (message.is_empty(), self.exit_code) {
            (false, _) => message.to_string(),
            (true, Some(code)) => exit_text(code),
            (true, None) => String::new(),
        };
        match (&*self.reason, text.is_empty()) {
            // "Error" is what a runtime calls every exit code but 0.
            ("" | "Error", _) => text,
            (reason, true) => reason.to_string(),
            (reason, false) => format!("{reason}: {text}"),
        }
    }
}

/// An exit code in words. 128 + n is how shells and container runtimes report signal n.
fn exit_text(code: i32) -> String {
    match signal_name(code - 128) {
        Some(signal) => format!("exit code {code} ({signal})"),
        None => format!("exit code {code}"),
    }
}

/// The name of a signal that ends a process.
pub fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}

#[cfg(test)]
impl Job {
    /// A job for tests: made in second 0, with nothing to it.
    pub(crate) fn sample(name: &str, status: Status, version: u64) -> Job {
        Job {
            name: JobName(name.into()),
            uid: "u".into(),
            job_id: None,
            created: Timestamp::at(0),
            arrival: 0,
            started: None,
            finished: None,
            status,
            suspension: None,
            is_suspension_earlier: false,
            failed: 0,
            retries: None,
            has_payload: false,
            queued: None,
            key: None,
            is_rerun: false,
            hidden: false,
            progress: None,
            version,
            rare: Rare::default(),
        }
    }
}

#[cfg(test)]
impl Attempt {
    /// An attempt for tests.
    pub(crate) fn sample(name: &str, state: AttemptState, version: u64) -> Attempt {
        Attempt {
            name: name.into(),
            is_over: state.is_finished(),
            is_certain: false,
            job_uid: None,
            created: Timestamp::at(0),
            started: None,
            finished: None,
            state,
            exit_code: None,
            reason: "".into(),
            message: "".into(),
            image: "".into(),
            image_id: "".into(),
            restarts: 0,
            result: None,
            version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::at(1_617_796_556); // 2021-04-07T11:55:56Z

    #[test]
    fn a_name_is_component_second_and_eight_random_characters() {
        let name = JobName::generate("compute", NOON, &mut fastrand::Rng::with_seed(1)).to_string();
        assert!(name.starts_with("compute-20210407115556-"), "{name}");
        assert_eq!(name.len(), "compute-20210407115556-rkwaibwe".len());
        assert!(JobName::parse(&name).is_some());
    }

    #[test]
    fn only_the_components_part_of_a_long_name_is_cut() {
        for length in 1..=63 {
            let component: String = "a-".chars().cycle().take(length - 1).chain(['b']).collect();
            let name = JobName::generate(&component, NOON, &mut fastrand::Rng::with_seed(2));
            assert!(JobName::parse(name.as_str()).is_some(), "{name}");
            assert!(name.as_str().contains("-20210407115556-"), "{name}");
        }
    }

    #[test]
    fn a_name_from_outside_must_be_a_dns_label() {
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "a/b", "A", "a.b", "..", "a%2f", "ä", &long] {
            assert_eq!(JobName::parse(bad), None, "{bad}");
        }
        assert!(JobName::parse("compute-20210407115556-rkwaibwe").is_some());
    }

    #[test]
    fn times_are_rfc_3339_in_utc_with_seconds() {
        assert_eq!(NOON.to_string(), "2021-04-07T11:55:56Z");
        for text in [
            "2021-04-07T11:55:56Z",
            "2021-04-07T11:55:56.999Z",
            "2021-04-07T13:55:56+02:00",
        ] {
            assert_eq!(Timestamp::parse(text), Some(NOON), "{text}");
        }
        assert_eq!(Timestamp::parse("yesterday"), None);
    }

    fn record(status: Status, attempts: Vec<Attempt>) -> JobRecord {
        let mut job = Job::sample("compute-20210407115556-rkwaibwe", status, 1);
        (job.created, job.started) = (NOON, Some(NOON));
        job.rare = RareFields {
            message: "BackoffLimitExceeded".to_string(),
            ..RareFields::NONE
        }
        .into();
        JobRecord::new(job, attempts)
    }

    fn attempt(
        state: AttemptState,
        exit_code: Option<i32>,
        reason: &str,
        message: &str,
    ) -> Attempt {
        let (reason, message) = (reason.into(), message.into());
        Attempt {
            exit_code,
            reason,
            message,
            ..Attempt::sample("pod", state, 1)
        }
    }

    #[test]
    fn progress_that_is_not_kept_yet_is_newer_and_ends_with_its_run() {
        let progress = |percent: u8| {
            Some(Arc::new(Progress {
                percent,
                message: "".into(),
                updated: NOON,
            }))
        };
        let percent = |record: &JobRecord| record.progress.as_ref().map(|p| p.percent);
        let job = |status: Status, kept: Option<u8>| {
            let mut job = Job::sample("a", status, 1);
            job.progress = kept.and_then(progress);
            job
        };
        // After a start, what was kept is all that is known.
        let mut record = JobRecord::new(job(Status::Running, Some(5)), vec![]);
        assert_eq!(
            (percent(&record), record.is_progress_kept()),
            (Some(5), true)
        );
        record.progress = progress(7);
        let later = record.with(job(Status::Running, Some(6)));
        assert_eq!(
            (percent(&later), later.is_progress_kept()),
            (Some(7), false)
        );
        let kept = record.with(job(Status::Succeeded, Some(7)));
        assert_eq!((percent(&kept), kept.is_progress_kept()), (Some(7), true));
        // Another scheduler's word.
        assert_eq!(
            percent(&kept.with(job(Status::Succeeded, Some(9)))),
            Some(9)
        );

        let mut restarted = job(Status::Running, None);
        restarted.rare = RareFields {
            restarted: Some(NOON),
            ..RareFields::NONE
        }
        .into();
        assert_eq!(percent(&record.with(restarted)), None);
        let stopped = record.with(job(Status::Stopped, None));
        assert_eq!(percent(&stopped), Some(7));
        assert_eq!(percent(&stopped.with(job(Status::Waiting, None))), None);
    }

    #[test]
    fn an_end_that_another_run_followed_is_taken_back() {
        let at = |seconds| Some(Timestamp::at(seconds));
        let job = |started, version| Job {
            started: at(started),
            ..Job::sample("a", Status::Running, version)
        };
        let attempt = |name: &str, state, created| Attempt {
            created: Timestamp::at(created),
            finished: at(created + 1).filter(|_| state == AttemptState::Succeeded),
            is_over: state == AttemptState::Succeeded,
            is_certain: true,
            ..Attempt::sample(name, state, 1)
        };
        let early = || {
            let done = attempt("p", AttemptState::Succeeded, 10);
            let mut record = JobRecord::new(job(10, 1), vec![done]);
            record.conclude(false);
            assert_eq!(record.job.status, Status::Succeeded);
            record
        };
        // The backend has not noticed yet.
        assert_eq!(early().with(job(10, 2)).job.status, Status::Succeeded);
        let anew = early().with(job(12, 2));
        assert_eq!(anew.job.status, Status::Running);
        assert!(anew.job.is_rerun && !anew.is_early);
        assert!(early().is_contradicted_by(&job(12, 2)));
        assert!(!early().is_contradicted_by(&job(10, 2)));

        let mut followed = early();
        let next = |created| attempt("q", AttemptState::Pending, created);
        followed.change_attempts(|attempts| attempts.push(next(11)));
        followed.conclude(true);
        let job = &followed.job;
        assert_eq!((job.status, job.finished), (Status::Running, None));
        followed.conclude(false);
        assert_eq!(followed.job.status, Status::Running);
    }

    #[test]
    fn an_attempt_that_waits_hides_no_log() {
        use AttemptState::{Failed, Failing, Pending, Running};
        let check = |states: &[AttemptState], expected: Option<usize>| {
            let attempts = states.iter().map(|state| attempt(*state, None, "", ""));
            let record = record(Status::Running, attempts.collect());
            let found = record.latest_started().map(|(index, _)| index);
            assert_eq!(found, expected, "{states:?}");
        };
        check(&[], None);
        check(&[Pending], None);
        check(&[Running], Some(0));
        check(&[Failed, Pending], Some(0));
        check(&[Failed, Failed, Failing], Some(1));
        check(&[Failed, Running], Some(1));
    }

    #[test]
    fn a_result_is_that_of_the_last_attempt_that_has_finished() {
        use AttemptState::{Failed, Pending, Running, Succeeded};
        let left = |state, text: &str| Attempt {
            result: JobResult::new(text, false),
            ..Attempt::sample("pod", state, 1)
        };
        let check = |attempts: Vec<Attempt>, expected: Option<&str>| {
            let record = record(Status::Running, attempts);
            assert_eq!(record.result().map(|result| &*result.text), expected);
        };
        check(vec![], None);
        check(vec![left(Running, "early")], None);
        check(vec![left(Failed, "1"), left(Pending, "")], Some("1"));
        check(vec![left(Failed, "1"), left(Succeeded, "2")], Some("2"));
        check(vec![left(Failed, "1"), left(Succeeded, "")], None);
    }

    #[test]
    fn a_result_is_bounded_and_none_where_there_is_nothing() {
        assert_eq!(JobResult::new("", true), None);
        let check = |text: &str, expected: &str, is_truncated| {
            let result = JobResult::new(text, false).unwrap();
            assert_eq!(
                (&*result.text, result.is_truncated),
                (expected, is_truncated)
            );
        };
        check("x", "x", false);
        let most = "é".repeat(MAX_RESULT_BYTES);
        check(&most, &most, false);
        check(&format!("a{most}"), &most, true);
    }

    #[test]
    fn a_result_is_not_why_a_job_failed() {
        let mut last = attempt(AttemptState::Failed, Some(3), "Error", "");
        last.result = JobResult::new("secret", false);
        let record = record(Status::Failed, vec![last]);
        assert_eq!(record.message(NOON, None), "exit code 3");
        assert_eq!(record.reason(), "exit code 3");
    }

    #[test]
    fn the_log_is_not_told_what_a_container_says() {
        let last = attempt(
            AttemptState::Failed,
            Some(128),
            "StartError",
            "exec: secret",
        );
        let record = record(Status::Failed, vec![last]);
        assert_eq!(record.message(NOON, None), "StartError: exec: secret");
        assert_eq!(record.reason(), "StartError: exit code 128");
    }

    #[test]
    fn the_message_says_why() {
        use AttemptState::{Failed, Failing};
        let check = |status, attempts: Vec<Attempt>, expected: &str| {
            assert_eq!(record(status, attempts).message(NOON, None), expected);
        };
        let exit_3 = || attempt(Failed, Some(3), "Error", "");
        check(Status::Failed, vec![exit_3()], "exit code 3");
        check(
            Status::Failed,
            vec![exit_3(), exit_3()],
            "exit code 3 (the last of 2 attempts)",
        );
        check(
            Status::Failed,
            vec![attempt(Failed, Some(137), "Error", "")],
            "exit code 137 (SIGKILL)",
        );
        check(
            Status::Failed,
            vec![attempt(Failed, Some(137), "OOMKilled", "")],
            "OOMKilled: exit code 137 (SIGKILL)",
        );
        check(Status::Failed, vec![], "BackoffLimitExceeded");
        check(
            Status::Running,
            vec![exit_3()],
            "attempt 1 failed: exit code 3",
        );
        check(
            Status::Running,
            vec![attempt(Failing, None, "ImagePullBackOff", "no such image")],
            "ImagePullBackOff: no such image",
        );
        let late = Timestamp::at(NOON.seconds() + 60);
        assert!(
            record(Status::Running, vec![])
                .message(late, None)
                .contains("no pod yet")
        );
    }
}
