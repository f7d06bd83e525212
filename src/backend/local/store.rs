//! Records on disk: one file per job, written so that a power cut leaves the whole of it or nothing.
//!
//! A record is a line of JSON with what was asked, the payload as it came, and a line of JSON for
//! each change since, or for several that belong together.
//! It is created aside, synced, renamed to its name, and its folder synced; changes are appended and synced. Two syncs
//! make a job durable, one a change.
//!
//! An append that fails is undone. Whatever a failed append or a power cut leaves behind the last
//! good line is cut off before the next append, so that nothing is ever glued to it; reading passes
//! over a line that it cannot read. Who appends to a record, or removes it, is alone with it.
//!
//! ```text
//! <data-dir>/<app>-<environment>/.lock                      held by the one scheduler that uses the folder
//!                               /<component>/records/<job>  the record
//!                               /<component>/jobs/<job>/    the job's own folder; a power cut may lose it
//!                               /<component>/logs/<job>.1.log   what its first attempt printed; the same
//! ```

use super::files::{Disk, Files, Mode};
use super::work::Work;
use crate::job::{
    JobName, MAX_RESULT_BYTES, Progress, Queued, RequestKey, Sent, Status, Timestamp,
};
use crate::sync::Lock;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The version of the form of records. A scheduler reads those up to its own, and leaves a folder
/// alone that has one beyond it: to read such a job in part might run it again.
pub const FORMAT: u32 = 2;
/// Of a job that is of no batch, which earlier schedulers read as well.
pub const FORMAT_OF_SINGLES: u32 = 1;

/// What was asked, which never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The form of the record: at most [`FORMAT`].
    #[serde(default = "first_format")]
    pub version: u32,
    pub name: String,
    pub job_id: Option<String>,
    /// Seconds since 1970.
    pub created: i64,
    pub priority: i8,
    /// Orders jobs by when they came: microseconds since 1970, made unique.
    pub arrival: u64,
    pub key: Option<Key>,
    /// The finished job that this one does again.
    pub restart_of: Option<String>,
    /// The payload's length; `None` is no payload.
    pub payload: Option<u64>,
    pub work: Work,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
}

/// What a record has to do with a batch, which is there if its own record is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Batch {
    /// It stands for the batch, and never runs.
    Whole { size: u32 },
    /// It is one of the batch's jobs.
    Member { of: String, index: u32 },
}

/// The first records had no version, and the form of version 1.
fn first_format() -> u32 {
    1
}

/// As much of a [`Header`] as every version has.
#[derive(Deserialize)]
struct Format {
    #[serde(default = "first_format")]
    version: u32,
}

/// A [`RequestKey`], in hexadecimal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    key: String,
    body: String,
}

impl From<RequestKey> for Key {
    fn from(key: RequestKey) -> Key {
        Key {
            key: format!("{:x}", key.key),
            body: format!("{:x}", key.body),
        }
    }
}

impl Header {
    /// Whether it stands for a batch.
    pub fn is_whole(&self) -> bool {
        matches!(self.batch, Some(Batch::Whole { .. }))
    }

    /// The batch that it is of.
    pub fn batch_of(&self) -> Option<&str> {
        match &self.batch {
            Some(Batch::Member { of, .. }) => Some(of),
            _ => None,
        }
    }

    pub fn key(&self) -> Option<RequestKey> {
        let Key { key, body } = self.key.as_ref()?;
        Some(RequestKey {
            key: u128::from_str_radix(key, 16).ok()?,
            body: u128::from_str_radix(body, 16).ok()?,
            // A record is on disk or not: none comes late.
            sent: Sent::default(),
        })
    }
}

/// What happened to a job. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// An attempt is about to run: whatever follows, it must not be run again unknowingly.
    Begun { at: i64 },
    /// The last attempt ended.
    Ended(Ending),
    /// The job came to its end.
    Finished(End),
    /// Somebody asked to end it.
    StopAsked,
    /// It was stopped, and is to run again; `arrival` is its new place in the queue.
    Resumed { at: i64, arrival: u64 },
    /// It is out of its users' sight, and kept while its payload is copied or its key stands for it.
    Hidden,
    /// A batch is out of its users' sight, and kept while its key stands for it.
    BatchHidden { at: i64 },
    /// Its idempotency key does not stand for it any more.
    KeyForgotten,
    /// It said how far it is.
    Progress(Kept),
}

/// A [`Progress`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    percent: u8,
    message: String,
    at: i64,
}

impl From<&Progress> for Kept {
    fn from(progress: &Progress) -> Kept {
        Kept {
            percent: progress.percent,
            message: progress.message.to_string(),
            at: progress.updated.seconds(),
        }
    }
}

impl Kept {
    pub fn progress(&self) -> Progress {
        Progress {
            percent: self.percent,
            message: self.message.as_str().into(),
            updated: Timestamp::at(self.at),
        }
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub at: i64,
    /// Orders jobs by when they ended: microseconds since 1970, made unique.
    #[serde(default)]
    pub order: u64,
    pub status: EndStatus,
    pub message: String,
}

impl End {
    /// `moment` is in microseconds since 1970.
    pub fn new(moment: u64, status: EndStatus, message: String) -> End {
        End {
            at: super::machine::seconds(moment),
            order: moment,
            status,
            message,
        }
    }

    /// Grows from one end to the next. Old records know but the second.
    pub fn order(&self) -> u64 {
        let second = u64::try_from(self.at).unwrap_or(0);
        self.order.max(second.saturating_mul(1_000_000))
    }
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    pub at: i64,
    pub succeeded: bool,
    /// `None` where nobody was there to see it.
    pub exit_code: Option<i32>,
    /// CamelCase, as in `DeadlineExceeded`; empty where there is none.
    pub reason: String,
    pub message: String,
    /// What it left in its result file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Left>,
}

/// A [`crate::job::JobResult`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Left {
    pub text: Box<str>,
    pub is_truncated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum EndStatus {
    Succeeded,
    Failed,
    Stopped,
}

impl From<EndStatus> for Status {
    fn from(status: EndStatus) -> Status {
        match status {
            EndStatus::Succeeded => Status::Succeeded,
            EndStatus::Failed => Status::Failed,
            EndStatus::Stopped => Status::Stopped,
        }
    }
}

/// A job as its record tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub header: Header,
    /// When each attempt began, and how it ended.
    pub attempts: Vec<(i64, Option<Ending>)>,
    pub end: Option<End>,
    /// Its place in the queue, if it waits.
    pub queued: Queued,
    /// Attempts before it was last resumed, which count no more.
    pub resumed_after: usize,
    pub resumed: Option<i64>,
    pub stop_asked: bool,
    pub hidden: bool,
    /// When a batch was.
    pub hidden_at: Option<i64>,
    pub key_forgotten: bool,
    pub progress: Option<Kept>,
}

impl Record {
    pub fn new(header: Header) -> Record {
        let queued = Queued {
            priority: header.priority,
            arrival: header.arrival,
        };
        Record {
            header,
            attempts: Vec::new(),
            end: None,
            queued,
            resumed_after: 0,
            resumed: None,
            stop_asked: false,
            hidden: false,
            hidden_at: None,
            key_forgotten: false,
            progress: None,
        }
    }

    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Begun { at } => self.attempts.push((*at, None)),
            Change::Ended(ending) => {
                if let Some((_, end)) = self.attempts.last_mut() {
                    *end = Some(ending.clone());
                }
            }
            Change::Finished(end) => self.end = Some(end.clone()),
            Change::StopAsked => self.stop_asked = true,
            Change::Resumed { at, arrival } => {
                self.end = None;
                self.stop_asked = false;
                self.resumed = Some(*at);
                self.resumed_after = self.attempts.len();
                // As in a cluster, where what it had is not kept once it was let run.
                self.queued = Queued {
                    priority: 0,
                    arrival: *arrival,
                };
                self.progress = None;
            }
            Change::Hidden => self.hidden = true,
            Change::BatchHidden { at } => (self.hidden, self.hidden_at) = (true, Some(*at)),
            Change::KeyForgotten => self.key_forgotten = true,
            Change::Progress(kept) => self.progress = Some(kept.clone()),
        }
    }

    /// The attempts that count: those since it was last resumed.
    pub fn current(&self) -> &[(i64, Option<Ending>)] {
        self.attempts.get(self.resumed_after..).unwrap_or_default()
    }

    /// The latest time in it, in microseconds since 1970.
    pub fn latest(&self) -> u64 {
        let ended = |end: &Option<Ending>| end.as_ref().map_or(0, |end| end.at);
        let attempts = self.attempts.iter();
        let attempts = attempts.map(|(began, end)| (*began).max(ended(end)));
        let micros = attempts.max().and_then(|at| u64::try_from(at).ok());
        let micros = micros.unwrap_or(0).saturating_mul(1_000_000);
        micros
            .max(self.end.as_ref().map_or(0, End::order))
            .max(self.queued.arrival)
    }

    /// Whether an attempt has begun and not ended.
    pub fn is_running(&self) -> bool {
        self.end.is_none() && matches!(self.attempts.last(), Some((_, None)))
    }
}

/// Why the data folder cannot be used.
#[derive(Debug)]
pub enum OpenError {
    /// Another scheduler has it.
    Locked {
        folder: PathBuf,
        pid: String,
    },
    /// A later version of the scheduler has used it.
    Newer {
        record: PathBuf,
        version: u32,
    },
    Io {
        path: PathBuf,
        cause: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Locked { folder, pid } => write!(
                f,
                "another scheduler (process {pid}) uses {}: stop it, or give another --data-dir",
                folder.display()
            ),
            OpenError::Newer { record, version } => write!(
                f,
                "{}: is of version {version}, and this scheduler reads records up to version \
                 {FORMAT}: start the scheduler that wrote it, or give another --data-dir",
                record.display()
            ),
            OpenError::Io { path, cause } => write!(
                f,
                "the data folder cannot be used: {}: {cause}: give another --data-dir",
                path.display()
            ),
        }
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> OpenError {
    move |cause| OpenError::Io {
        path: path.to_owned(),
        cause,
    }
}

/// A scheduler that was killed as it began a process has left that its lock, until it runs.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// The folder of one application in one environment, which only one process uses at a time.
pub struct Folder {
    path: PathBuf,
    files: Arc<dyn Files>,
    /// Held as long as it is open.
    _lock: Option<File>,
}

impl Folder {
    /// Makes the folder if need be, and takes it for this process.
    pub fn open(path: &Path) -> Result<Folder, OpenError> {
        Disk.make_folder(path).map_err(at(path))?;
        let path = path.canonicalize().map_err(at(path))?;
        let lock_file = path.join(".lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_file)
            .map_err(at(&lock_file))?;
        let mut taken = lock.try_lock();
        for _ in 0..LOCK_TRIES {
            if !matches!(taken, Err(TryLockError::WouldBlock)) {
                break;
            }
            thread::sleep(LOCK_PAUSE);
            taken = lock.try_lock();
        }
        match taken {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = (&mut lock).take(20).read_to_string(&mut pid);
                let pid = pid.trim().to_string();
                return Err(OpenError::Locked { folder: path, pid });
            }
            Err(TryLockError::Error(cause)) => return Err(at(&lock_file)(cause)),
        }
        // It is there to be told alone: on a full disk there is none.
        let _ = lock
            .set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Folder {
            path,
            files: Arc::new(Disk),
            _lock: Some(lock),
        })
    }

    /// A folder of files that nobody else has, and so without a lock.
    pub fn of(files: Arc<dyn Files>, path: &Path) -> Folder {
        Folder {
            path: path.to_owned(),
            files,
            _lock: None,
        }
    }

    /// Absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The records of one component.
    pub fn store(&self, component: &str) -> Result<Store, OpenError> {
        let path = self.path.join(component);
        let store = Store {
            files: self.files.clone(),
            records: path.join("records"),
            jobs: path.join("jobs"),
            logs: path.join("logs"),
            lengths: Lock::default(),
        };
        for folder in [&store.records, &store.jobs, &store.logs] {
            self.files.make_folder(folder).map_err(at(folder))?;
        }
        // The folders must outlive a power cut, and so must what a process wrote that was killed
        // before it synced it: it is about to be told.
        self.files.sync_all(&self.path).map_err(at(&self.path))?;
        Ok(store)
    }
}

/// The records of one component.
pub struct Store {
    files: Arc<dyn Files>,
    records: PathBuf,
    jobs: PathBuf,
    logs: PathBuf,
    /// How much of each record is good: what is behind it was never acknowledged.
    lengths: Lock<HashMap<JobName, u64>>,
}

/// What a record that is not finished yet is called.
const ASIDE: &str = ".new-";

/// Why a record was not created, changed or removed.
#[derive(Debug)]
pub struct NotWritten {
    pub cause: io::Error,
    /// It may be so all the same, at the latest after a power cut.
    pub in_doubt: bool,
}

impl fmt::Display for NotWritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl From<io::Error> for NotWritten {
    fn from(cause: io::Error) -> NotWritten {
        NotWritten {
            cause,
            in_doubt: false,
        }
    }
}

impl Store {
    /// Keeps a new job: on return it and its payload outlive a power cut. What an earlier call left
    /// of it in doubt is replaced.
    pub fn create(
        &self,
        name: &JobName,
        header: &Header,
        payload: Option<&[u8]>,
        changes: &[Change],
    ) -> Result<(), NotWritten> {
        // No other process uses the folder, and this one gives a name once.
        if self.has(name) {
            return Err(NotWritten::from(io::Error::from(ErrorKind::AlreadyExists)));
        }
        let (aside, record) = (
            self.records.join(format!("{ASIDE}{name}")),
            self.record(name),
        );
        let write = || -> io::Result<usize> {
            let (head, payload) = (line(header)?, payload.unwrap_or_default());
            let mut tail = vec![b'\n'];
            for change in changes {
                tail.extend(line(change)?);
            }
            let parts = [&head, payload, &tail];
            let mut file = self.files.open(&aside, Mode::Replace)?;
            for part in parts {
                file.write_all(part)?;
            }
            file.sync()?;
            Ok(parts.iter().map(|part| part.len()).sum())
        };
        let length = write().inspect_err(|_| {
            // What stays is nobody's, and goes at the next start.
            let _ = self.files.remove_file(&aside);
        })?;
        let renamed = self.files.rename(&aside, &record);
        let shown = renamed.and_then(|()| self.files.sync_folder(&self.records));
        shown.map_err(|cause| {
            let _ = self.files.remove_file(&aside);
            let in_doubt = self.remove(name).is_err();
            NotWritten { cause, in_doubt }
        })?;
        self.lengths.lock().insert(name.clone(), length as u64);
        Ok(())
    }

    /// Adds to a record; on return it outlives a power cut. On an error nothing is added, unless
    /// the disk fails to undo it as well.
    pub fn append(&self, name: &JobName, changes: &[Change]) -> Result<(), NotWritten> {
        // Several are one line: a power cut leaves all of them, or none.
        let bytes = match changes {
            [change] => line(change)?,
            changes => line(&changes)?,
        };
        let known = self.lengths.lock().get(name).copied();
        let good = known.ok_or(io::Error::from(ErrorKind::NotFound))?;
        let opened = self.files.open(&self.record(name), Mode::Append);
        let mut file = opened.inspect_err(|e| {
            if e.kind() == ErrorKind::NotFound {
                // Another hand has removed it.
                self.lengths.lock().remove(name);
            }
        })?;
        let length = file.length()?;
        if length < good {
            let message = "it is shorter than it was written";
            return Err(NotWritten::from(io::Error::other(message)));
        }
        if length > good {
            file.cut(good)?;
        }
        let written = file.write_all(&bytes).and_then(|()| file.sync());
        if let Err(cause) = written {
            let undone = file.cut(good).and_then(|()| file.sync());
            let in_doubt = undone.is_err();
            return Err(NotWritten { cause, in_doubt });
        }
        // Unless it was disowned meanwhile.
        if let Some(length) = self.lengths.lock().get_mut(name) {
            *length = good + bytes.len() as u64;
        }
        Ok(())
    }

    /// Has what an append that failed has left outlive no power cut, and no restart.
    pub fn undo(&self, name: &JobName) -> io::Result<()> {
        let Some(good) = self.lengths.lock().get(name).copied() else {
            return Ok(());
        };
        let mut file = match self.files.open(&self.record(name), Mode::Append) {
            // Another hand has removed it.
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        if file.length()? > good {
            file.cut(good)?;
        }
        file.sync()
    }

    /// Whether there is a record of the job.
    pub fn has(&self, name: &JobName) -> bool {
        self.lengths.lock().contains_key(name)
    }

    /// A record that may be there, or that cannot be removed, is of no job any more.
    pub fn disown(&self, name: &JobName) {
        self.lengths.lock().remove(name);
    }

    /// Forgets a job; on return that outlives a power cut. What the job left in its folder is
    /// [`Store::clear`]'s. On an error, [`Store::has`] tells whether it is there still.
    pub fn remove(&self, name: &JobName) -> Result<bool, NotWritten> {
        let is_gone = |e: &io::Error| e.kind() == ErrorKind::NotFound;
        let record = self.record(name);
        let there = match self.files.remove_file(&record) {
            Ok(()) => true,
            Err(e) if is_gone(&e) => false,
            // It may have been removed all the same.
            Err(e) => match self.files.open(&record, Mode::Read) {
                Err(now) if is_gone(&now) => true,
                _ => return Err(e.into()),
            },
        };
        self.lengths.lock().remove(name);
        // Where there is none, an earlier call may have removed it, and failed here.
        let synced = self.files.sync_folder(&self.records);
        synced.map(|()| there).map_err(|cause| NotWritten {
            cause,
            in_doubt: true,
        })
    }

    /// Removes what a job left: its folder and its logs, of so many attempts and one that was
    /// prepared. An attempt that did not come to run has none.
    pub fn clear(&self, name: &JobName, attempts: usize) -> io::Result<()> {
        for attempt in 1..=attempts + 1 {
            match self.files.remove_file(&self.log(name, attempt)) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        match self.files.remove_folder(&self.job_folder(name)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// The payload in a job's record, if it has one.
    pub fn payload(&self, header: &Header) -> io::Result<Option<Vec<u8>>> {
        let Some(length) = header.payload else {
            return Ok(None);
        };
        let mut payload = Vec::new();
        let mut record = BufReader::new(
            self.files
                .open(&self.records.join(&header.name), Mode::Read)?,
        );
        record.skip_until(b'\n')?;
        record.take(length).read_to_end(&mut payload)?;
        match payload.len() as u64 == length {
            true => Ok(Some(payload)),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Makes what an attempt needs on disk: the job's folder, its log, and its payload in a file,
    /// which only its owner can read.
    ///
    /// Few folders and files, since on a disk each takes a tenth of a millisecond or more.
    pub fn prepare(
        &self,
        name: &JobName,
        attempt: usize,
        payload: Option<(&Path, &[u8])>,
    ) -> io::Result<()> {
        self.files.make_folder(&self.job_folder(name))?;
        if let Some((file, payload)) = payload {
            self.write_payload(name, file, payload)?;
        }
        match self.files.open(&self.log(name, attempt), Mode::New) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    }

    /// Writes a payload to a file in the job's folder.
    pub fn write_payload(&self, name: &JobName, file: &Path, payload: &[u8]) -> io::Result<()> {
        let folder = self.job_folder(name);
        if let Some(parent) = file.parent().filter(|parent| *parent != folder) {
            self.files.make_folder(parent)?;
        }
        let open = || self.files.open(file, Mode::New);
        let opened = open().or_else(|e| match e.kind() {
            // An earlier attempt's, or what it has put in its place.
            ErrorKind::AlreadyExists => self.files.remove_file(file).and_then(|()| open()),
            _ => Err(e),
        });
        opened?.write_all(payload).inspect_err(|_| {
            // It would keep a full disk full.
            let _ = self.files.remove_file(file);
        })
    }

    /// What an attempt has left in its result file: its last [`MAX_RESULT_BYTES`], if it is longer.
    pub fn result(&self, name: &JobName, attempt: usize) -> io::Result<Option<Left>> {
        let opened = self
            .files
            .open(&self.result_file(name, attempt), Mode::ReadForeign);
        let mut file = match opened {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let most = MAX_RESULT_BYTES as u64;
        let start = file.length()?.saturating_sub(most);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(start))?;
        file.take(most).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        Ok((!text.is_empty()).then(|| Left {
            text: text.into(),
            is_truncated: start > 0,
        }))
    }

    /// Where an attempt may leave a result; each has a file of its own, for none is to be told
    /// what an earlier one has left.
    pub fn result_file(&self, name: &JobName, attempt: usize) -> PathBuf {
        self.job_folder(name).join(format!(".result.{attempt}"))
    }

    pub fn job_folder(&self, name: &JobName) -> PathBuf {
        self.jobs.join(name.as_str())
    }

    /// Gets what an attempt prints; they are numbered from 1.
    pub fn log(&self, name: &JobName, attempt: usize) -> PathBuf {
        self.logs.join(format!("{name}.{attempt}.log"))
    }

    fn record(&self, name: &JobName) -> PathBuf {
        self.records.join(name.as_str())
    }

    /// Reads all records, and removes what belongs to none.
    pub fn load(&self) -> Result<Vec<Record>, OpenError> {
        let mut records = Vec::new();
        let entries = self.files.list(&self.records).map_err(at(&self.records))?;
        for entry in &entries {
            let path = self.records.join(&entry.name);
            if entry.name.starts_with(ASIDE) && !entry.is_folder {
                self.remove_what_is_left(&path, false);
                continue;
            }
            let read = match entry.is_folder {
                true => None,
                false => self.read_record(&path)?,
            };
            let name = JobName::parse(&entry.name);
            match name.zip(read) {
                Some((name, (record, length))) if record.header.name == entry.name => {
                    self.lengths.lock().insert(name, length);
                    records.push(record);
                }
                _ => log::warn!(
                    "path={} event=skipped reason=\"it is not the record of a job\"",
                    path.display()
                ),
            }
        }
        let mut names: HashSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        for name in self.remove_parts(&mut records, &names) {
            names.remove(name.as_str());
        }
        for folder in [&self.jobs, &self.logs] {
            for entry in self.files.list(folder).map_err(at(folder))? {
                let job = entry.name.split('.').next().unwrap_or_default();
                // What was skipped keeps what is its.
                if !names.contains(job) {
                    self.remove_what_is_left(&folder.join(&entry.name), entry.is_folder);
                }
            }
        }
        records.sort_by_key(|record| record.queued.arrival);
        Ok(records)
    }

    /// Removes the jobs of batches that are not there: those were never acknowledged, or deleted.
    /// Where a batch's own record is among `names` and cannot be read, its jobs stay on disk, and
    /// are left alone as it is. Returns what was removed.
    fn remove_parts(&self, records: &mut Vec<Record>, names: &HashSet<&str>) -> Vec<String> {
        let wholes = records.iter().filter(|record| record.header.is_whole());
        let wholes: HashSet<String> = wholes.map(|record| record.header.name.clone()).collect();
        let is_part = |record: &mut Record| {
            let batch = record.header.batch_of();
            batch.is_some_and(|batch| !wholes.contains(batch))
        };
        let (damaged, parts): (Vec<Record>, Vec<Record>) =
            records.extract_if(.., is_part).partition(|record| {
                record
                    .header
                    .batch_of()
                    .is_some_and(|of| names.contains(of))
            });
        for Record { header, .. } in &damaged {
            let name = &header.name;
            log::warn!("job={name} event=skipped reason=\"its batch's record cannot be read\"");
        }
        let parts = parts.into_iter().map(|record| record.header.name);
        let parts: Vec<String> = parts.collect();
        for name in parts.iter().filter_map(|name| JobName::parse(name)) {
            if let Err(e) = self.remove(&name) {
                log::warn!("job={name} event=left error=\"{e}\"");
            }
        }
        parts
    }

    fn remove_what_is_left(&self, path: &Path, is_folder: bool) {
        let removed = match is_folder {
            true => self.files.remove_folder(path),
            false => self.files.remove_file(path),
        };
        if let Err(e) = removed {
            log::warn!("path={} event=left error=\"{e}\"", path.display());
        }
    }

    /// A record, and how much of its file is good. `None` for a file that is no record.
    fn read_record(&self, path: &Path) -> Result<Option<(Record, u64)>, OpenError> {
        let file = self.files.open(path, Mode::Read).map_err(at(path))?;
        let mut reader = BufReader::new(file);
        let mut bytes = Vec::new();
        reader.read_until(b'\n', &mut bytes).map_err(at(path))?;
        if let Ok(Format { version }) = serde_json::from_slice::<Format>(&bytes)
            && version > FORMAT
        {
            let record = path.to_owned();
            return Err(OpenError::Newer { record, version });
        }
        let Ok(header) = serde_json::from_slice::<Header>(&bytes) else {
            return Ok(None);
        };
        let good = bytes.len() as u64 + header.payload.unwrap_or(0) + 1;
        if reader.seek(SeekFrom::End(0)).map_err(at(path))? < good {
            return Ok(None);
        }
        reader.seek(SeekFrom::Start(good)).map_err(at(path))?;
        let mut record = Record::new(header);
        let changes = read_changes(&mut reader, &mut record);
        let length = good + changes.map_err(at(path))?;
        Ok(Some((record, length)))
    }
}

/// What was written down at once.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    One(Change),
    Several(Vec<Change>),
}

/// Applies the changes that follow. Gives their length, without a last one that is not whole.
fn read_changes(reader: &mut impl BufRead, record: &mut Record) -> io::Result<u64> {
    let (mut length, mut bytes) = (0, Vec::new());
    loop {
        bytes.clear();
        reader.read_until(b'\n', &mut bytes)?;
        if !bytes.ends_with(b"\n") {
            return Ok(length);
        }
        length += bytes.len() as u64;
        match serde_json::from_slice::<Line>(&bytes) {
            Ok(Line::One(change)) => record.apply(&change),
            Ok(Line::Several(changes)) => changes.iter().for_each(|change| record.apply(change)),
            // What follows was written all the same: that the job has ended, perhaps.
            Err(e) => log::warn!(
                "job={} event=line-skipped error=\"{e}\"",
                record.header.name
            ),
        }
    }
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A folder of the test's own, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Scratch {
            let path = std::env::temp_dir().join(format!(
                "job-scheduler-store-{}-{:x}",
                std::process::id(),
                fastrand::u64(..)
            ));
            fs::create_dir(&path).unwrap();
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn header(name: &str, arrival: u64, payload: Option<&str>) -> Header {
        Header {
            version: FORMAT_OF_SINGLES,
            name: name.to_string(),
            job_id: None,
            created: 1,
            priority: 0,
            arrival,
            key: None,
            restart_of: None,
            payload: payload.map(|p| p.len() as u64),
            work: Work::default(),
            batch: None,
        }
    }

    fn name(text: &str) -> JobName {
        JobName::parse(text).unwrap()
    }

    fn ended() -> Change {
        Change::Ended(Ending {
            at: 3,
            succeeded: false,
            exit_code: Some(1),
            reason: "Error".to_string(),
            message: "two\nlines".to_string(),
            result: Some(Left {
                text: "three\nof\u{fffd}them".into(),
                is_truncated: true,
            }),
        })
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let scratch = Scratch::new();
        let store = Folder::open(&scratch.0).unwrap().store("compute").unwrap();
        let payload = "{\"x\": 1}\nline\0 two\n";
        let (b, a) = (header("b", 1, Some(payload)), header("a", 2, None));
        store
            .create(&name("a"), &a, None, &[Change::Begun { at: 2 }, ended()])
            .unwrap();
        store
            .create(&name("b"), &b, Some(payload.as_bytes()), &[])
            .unwrap();
        let finished = Change::Finished(End {
            at: 4,
            order: 4_000_001,
            status: EndStatus::Failed,
            message: String::new(),
        });
        store
            .append(&name("a"), std::slice::from_ref(&finished))
            .unwrap();

        let mut expected = Record::new(a);
        for change in [Change::Begun { at: 2 }, ended(), finished] {
            expected.apply(&change);
        }
        assert_eq!(store.load().unwrap(), [Record::new(b.clone()), expected]);
        assert_eq!(store.payload(&b).unwrap().unwrap(), payload.as_bytes());
        assert!(store.remove(&name("b")).unwrap());
        assert!(!store.remove(&name("b")).unwrap());
        assert_eq!(store.load().unwrap().len(), 1);
    }

    #[test]
    fn a_restarted_job_has_no_priority() {
        let mut record = Record::new(Header {
            priority: 5,
            ..header("a", 1, None)
        });
        assert_eq!(record.queued.priority, 5);
        record.apply(&Change::Resumed { at: 3, arrival: 7 });
        let queued = Queued {
            priority: 0,
            arrival: 7,
        };
        assert_eq!(record.queued, queued);
    }

    #[test]
    fn a_name_is_given_once() {
        let scratch = Scratch::new();
        let store = Folder::open(&scratch.0).unwrap().store("compute").unwrap();
        store
            .create(
                &name("a"),
                &header("a", 1, Some("first")),
                Some(b"first"),
                &[],
            )
            .unwrap();
        let again = store.create(&name("a"), &header("a", 2, None), None, &[]);
        let again = again.unwrap_err();
        assert_eq!(again.cause.kind(), ErrorKind::AlreadyExists);
        assert!(!again.in_doubt);
        assert_eq!(
            store.load().unwrap(),
            [Record::new(header("a", 1, Some("first")))]
        );
        assert_eq!(fs::read_dir(&store.records).unwrap().count(), 1);
    }

    #[test]
    fn a_change_of_a_record_that_is_gone_does_not_bring_it_back() {
        let scratch = Scratch::new();
        let store = Folder::open(&scratch.0).unwrap().store("compute").unwrap();
        let appended = store.append(&name("a"), &[ended()]);
        assert_eq!(appended.unwrap_err().cause.kind(), ErrorKind::NotFound);
        assert!(store.load().unwrap().is_empty());
    }

    /// The states that a power cut, or a kill, can leave a record in: any prefix of what was written.
    #[test]
    fn a_record_cut_off_anywhere_is_whole_or_nothing() {
        let scratch = Scratch::new();
        let folder = Folder::open(&scratch.0).unwrap();
        let store = folder.store("compute").unwrap();
        let payload = "pay\nload";
        let header = header("a", 1, Some(payload));
        store
            .create(
                &name("a"),
                &header,
                Some(payload.as_bytes()),
                &[Change::Begun { at: 2 }],
            )
            .unwrap();
        let path = store.record(&name("a"));
        let begun = fs::metadata(&path).unwrap().len();
        let created = begun - line(&Change::Begun { at: 2 }).unwrap().len() as u64;
        let failed = End::new(4_000_000, EndStatus::Failed, String::new());
        let both = [ended(), Change::Finished(failed)];
        store.append(&name("a"), &both).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            // Another process finds it.
            let store = folder.store("compute").unwrap();
            let records = store.load().unwrap();
            let good = match length as u64 {
                l if l == whole.len() as u64 => Some((1, true)),
                l if l >= begun => Some((1, false)),
                l if l >= created => Some((0, false)),
                _ => None,
            };
            let seen = records.first().map(|r| {
                let ended = r.attempts.last().is_some_and(|(_, end)| end.is_some());
                assert_eq!(r.end.is_some(), ended, "{length}: what is one change is so");
                (r.attempts.len(), ended)
            });
            assert_eq!(seen, good, "{length} of {} bytes", whole.len());
            if good.is_some() {
                // What comes next is not glued to the half line.
                store
                    .append(&name("a"), &[Change::Begun { at: 9 }])
                    .unwrap();
                let records = folder.store("compute").unwrap().load().unwrap();
                assert_eq!(records[0].attempts.last(), Some(&(9, None)), "{length}");
            }
        }
    }

    #[test]
    fn an_ending_of_before_there_were_results_is_read() {
        let line = r#"{"Ended":{"at":3,"succeeded":true,"exit_code":0,"reason":"","message":""}}"#;
        match serde_json::from_str(line).unwrap() {
            Change::Ended(ending) => assert_eq!(ending.result, None),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_result_is_what_the_file_ends_with() {
        let scratch = Scratch::new();
        let store = Folder::open(&scratch.0).unwrap().store("compute").unwrap();
        let job = name("a");
        let read = || {
            store
                .result(&job, 1)
                .unwrap()
                .map(|l| (l.text.to_string(), l.is_truncated))
        };
        assert_eq!(read(), None, "there is no folder");
        fs::create_dir(store.job_folder(&job)).unwrap();
        assert_eq!(read(), None);
        let file = store.result_file(&job, 1);
        let check = |content: &[u8], expected: Option<(&str, bool)>| {
            fs::write(&file, content).unwrap();
            let expected = expected.map(|(text, is_cut)| (text.to_string(), is_cut));
            assert_eq!(read(), expected);
        };
        check(b"", None);
        check(b"done\n\0", Some(("done\n\0", false)));
        check(b"a\xffb", Some(("a\u{fffd}b", false)));
        let most = "x".repeat(MAX_RESULT_BYTES);
        check(most.as_bytes(), Some((&most, false)));
        check(format!("ab{most}").as_bytes(), Some((&most, true)));
    }

    #[test]
    fn a_result_that_is_no_file_is_not_waited_for_nor_followed() {
        let scratch = Scratch::new();
        let store = Folder::open(&scratch.0).unwrap().store("compute").unwrap();
        let job = name("a");
        fs::create_dir(store.job_folder(&job)).unwrap();
        let other = scratch.0.join("other");
        fs::write(&other, "not the job's").unwrap();
        std::os::unix::fs::symlink(&other, store.result_file(&job, 1)).unwrap();
        assert!(store.result(&job, 1).is_err());
        fs::create_dir(store.result_file(&job, 2)).unwrap();
        assert!(store.result(&job, 2).is_err());
        let pipe = store.result_file(&job, 3);
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        assert!(store.result(&job, 3).is_err());
    }

    #[test]
    fn what_belongs_to_no_record_is_removed_at_start() {
        let scratch = Scratch::new();
        let store = Folder::open(&scratch.0).unwrap().store("compute").unwrap();
        store
            .create(&name("a"), &header("a", 1, None), None, &[])
            .unwrap();
        fs::write(store.records.join(".new-b"), "half").unwrap();
        for job in ["a", "b"] {
            fs::create_dir_all(store.job_folder(&name(job)).join("x")).unwrap();
            fs::write(store.log(&name(job), 2), "").unwrap();
        }
        assert_eq!(store.load().unwrap().len(), 1);
        assert!(!store.records.join(".new-b").exists());
        assert!(store.job_folder(&name("a")).exists());
        assert!(!store.job_folder(&name("b")).exists());
        assert!(store.log(&name("a"), 2).exists());
        assert!(!store.log(&name("b"), 2).exists());
    }

    #[test]
    fn what_is_no_record_does_not_prevent_the_start() {
        let scratch = Scratch::new();
        let store = Folder::open(&scratch.0).unwrap().store("compute").unwrap();
        store
            .create(&name("a"), &header("a", 1, None), None, &[])
            .unwrap();
        for stray in ["b", ".new-c", ".git"] {
            fs::create_dir_all(store.records.join(stray).join("x")).unwrap();
        }
        fs::write(store.records.join("d"), "{\"name\": \"d\"}\n").unwrap();
        fs::write(store.records.join("notes.txt"), "").unwrap();
        fs::create_dir_all(store.job_folder(&name("d"))).unwrap();
        assert_eq!(store.load().unwrap().len(), 1);
        assert!(store.records.join("b/x").exists(), "it is somebody else's");
        assert!(store.job_folder(&name("d")).exists());
    }

    #[test]
    fn a_record_of_a_later_version_prevents_the_start_and_one_without_is_of_the_first() {
        let scratch = Scratch::new();
        let store = Folder::open(&scratch.0).unwrap().store("compute").unwrap();
        let created = header("a", 1, None);
        store.create(&name("a"), &created, None, &[]).unwrap();
        let path = store.record(&name("a"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("{\"version\":1,"), "{text}");

        fs::write(&path, text.replace("\"version\":1,", "")).unwrap();
        assert_eq!(store.load().unwrap(), [Record::new(created)]);

        fs::write(&path, text.replace("\"version\":1", "\"version\":3")).unwrap();
        let error = store.load().unwrap_err().to_string();
        let expected = "a: is of version 3, and this scheduler reads records up to version 2: \
                        start the scheduler that wrote it, or give another --data-dir";
        assert!(error.ends_with(expected), "{error}");
    }

    #[test]
    fn jobs_of_a_batch_go_with_its_record_and_stay_where_that_is_damaged() {
        let scratch = Scratch::new();
        let store = Folder::open(&scratch.0).unwrap().store("compute").unwrap();
        let of = |text: &str, batch: Batch| {
            let mut header = header(text, 1, None);
            (header.version, header.batch) = (FORMAT, Some(batch));
            store.create(&name(text), &header, None, &[]).unwrap();
        };
        let member = |of: &str| Batch::Member {
            of: of.to_string(),
            index: 0,
        };
        of("a", Batch::Whole { size: 1 });
        of("a-1", member("a"));
        of("b", Batch::Whole { size: 1 });
        of("b-1", member("b"));
        of("c-1", member("c"));
        fs::write(store.record(&name("b")), "damaged\n").unwrap();
        let loaded = store.load().unwrap();
        let mut loaded: Vec<&str> = loaded.iter().map(|r| r.header.name.as_str()).collect();
        loaded.sort_unstable();
        assert_eq!(loaded, ["a", "a-1"]);
        assert!(store.has(&name("b-1")), "it may be mended");
        assert!(!store.has(&name("c-1")), "it was never acknowledged");
    }

    #[test]
    fn a_line_that_cannot_be_read_hides_no_other() {
        let scratch = Scratch::new();
        let folder = Folder::open(&scratch.0).unwrap();
        let store = folder.store("compute").unwrap();
        let begun = [Change::Begun { at: 2 }];
        store
            .create(&name("a"), &header("a", 1, None), None, &begun)
            .unwrap();
        let path = store.record(&name("a"));
        let glued =
            fs::read_to_string(&path).unwrap() + "{\"Ended\":{\"at\"{\"Begun\":{\"at\":5}}\n";
        fs::write(&path, glued).unwrap();
        let store = folder.store("compute").unwrap();
        store.load().unwrap();
        store.append(&name("a"), &[ended()]).unwrap();
        let records = folder.store("compute").unwrap().load().unwrap();
        assert!(records[0].attempts[0].1.is_some());
    }

    #[test]
    fn a_folder_has_one_scheduler() {
        let scratch = Scratch::new();
        let first = Folder::open(&scratch.0).unwrap();
        match Folder::open(&scratch.0) {
            Err(OpenError::Locked { pid, .. }) => {
                assert_eq!(pid, std::process::id().to_string())
            }
            _ => panic!("both have it"),
        }
        drop(first);
        assert!(Folder::open(&scratch.0).is_ok());
    }
}
