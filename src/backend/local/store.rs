//! Records on disk: one file per job, written so that a power cut leaves the whole of it or nothing.
//!
//! A record is a line of JSON with what was asked, the payload as it came, and a line of JSON for each change since.
//! It is created aside, synced, renamed to its name, and its folder synced; changes are appended and synced. A last line
//! that a power cut left half is cut off when the record is read. Two syncs make a job durable, one a change.
//!
//! ```text
//! <data-dir>/<app>-<environment>/.lock                      held by the one scheduler that uses the folder
//!                               /<component>/records/<job>  the record
//!                               /<component>/jobs/<job>/    the job's own folder; a power cut may lose it
//!                               /<component>/logs/<job>.1.log   what its first attempt printed; the same
//! ```

use super::work::Work;
use crate::job::{JobName, Queued, RequestKey, Sent, Status};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What was asked, which never changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
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
    Finished {
        at: i64,
        status: EndStatus,
        message: String,
    },
    /// Somebody asked to end it.
    StopAsked,
    /// It was stopped, and is to run again; `arrival` is its new place in the queue.
    Resumed { at: i64, arrival: u64 },
    /// It is out of its users' sight, and kept while its payload is copied or its key stands for it.
    Hidden,
    /// Its idempotency key does not stand for it any more.
    KeyForgotten,
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
    /// When, how and why the job ended.
    pub end: Option<(i64, EndStatus, String)>,
    /// Its place in the queue, if it waits.
    pub queued: Queued,
    /// Attempts before it was last resumed, which count no more.
    pub resumed_after: usize,
    pub resumed: Option<i64>,
    pub stop_asked: bool,
    pub hidden: bool,
    pub key_forgotten: bool,
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
            key_forgotten: false,
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
            Change::Finished {
                at,
                status,
                message,
            } => self.end = Some((*at, *status, message.clone())),
            Change::StopAsked => self.stop_asked = true,
            Change::Resumed { at, arrival } => {
                self.end = None;
                self.stop_asked = false;
                self.resumed = Some(*at);
                self.resumed_after = self.attempts.len();
                self.queued.arrival = *arrival;
            }
            Change::Hidden => self.hidden = true,
            Change::KeyForgotten => self.key_forgotten = true,
        }
    }

    /// The attempts that count: those since it was last resumed.
    pub fn current(&self) -> &[(i64, Option<Ending>)] {
        self.attempts.get(self.resumed_after..).unwrap_or_default()
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

/// The folder of one application in one environment, which only one process uses at a time.
pub struct Folder {
    path: PathBuf,
    /// Held as long as it is open.
    _lock: File,
}

impl Folder {
    /// Makes the folder if need be, and takes it for this process.
    pub fn open(path: &Path) -> Result<Folder, OpenError> {
        make_folder(path).map_err(at(path))?;
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
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = (&mut lock).take(20).read_to_string(&mut pid);
                let pid = pid.trim().to_string();
                return Err(OpenError::Locked { folder: path, pid });
            }
            Err(TryLockError::Error(cause)) => return Err(at(&lock_file)(cause)),
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(at(&lock_file))?;
        Ok(Folder { path, _lock: lock })
    }

    /// Absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The records of one component.
    pub fn store(&self, component: &str) -> Result<Store, OpenError> {
        let path = self.path.join(component);
        let store = Store {
            records: path.join("records"),
            jobs: path.join("jobs"),
            logs: path.join("logs"),
        };
        for folder in [&store.records, &store.jobs, &store.logs] {
            make_folder(folder).map_err(at(folder))?;
        }
        // The folders themselves must outlive a power cut too.
        for folder in [&self.path, &path] {
            sync_folder(folder).map_err(at(folder))?;
        }
        Ok(store)
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The records of one component.
pub struct Store {
    records: PathBuf,
    jobs: PathBuf,
    logs: PathBuf,
}

/// What a record that is not finished yet is called.
const ASIDE: &str = ".new-";

impl Store {
    /// Keeps a new job: on return it and its payload outlive a power cut. On an error nothing of it is left.
    pub fn create(
        &self,
        header: &Header,
        payload: Option<&[u8]>,
        changes: &[Change],
    ) -> io::Result<()> {
        let aside = self.records.join(format!("{ASIDE}{}", header.name));
        let record = self.records.join(&header.name);
        let write = || -> io::Result<()> {
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&aside)?;
            // A large payload goes past the buffer.
            let mut writer = BufWriter::new(file);
            writer.write_all(&line(header)?)?;
            writer.write_all(payload.unwrap_or_default())?;
            writer.write_all(b"\n")?;
            for change in changes {
                writer.write_all(&line(change)?)?;
            }
            writer.flush()?;
            writer.get_ref().sync_all()?;
            fs::rename(&aside, &record)?;
            sync_folder(&self.records)
        };
        // No other process uses the folder, and this one gives a name once.
        if record.symlink_metadata().is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        write().inspect_err(|_| {
            let _ = fs::remove_file(&aside);
            let _ = fs::remove_file(&record);
        })
    }

    /// Adds to a record; on return it outlives a power cut. A record that is gone stays gone.
    pub fn append(&self, name: &JobName, changes: &[Change]) -> io::Result<()> {
        self.append_unsynced(name, changes)?
            .map_or(Ok(()), |record| record.sync_data())
    }

    /// The same, but for the power cut: gives the record, to be synced.
    pub fn append_unsynced(&self, name: &JobName, changes: &[Change]) -> io::Result<Option<File>> {
        let mut bytes = Vec::new();
        for change in changes {
            bytes.extend(line(change)?);
        }
        let opened = OpenOptions::new().append(true).open(self.record(name));
        match opened {
            Ok(mut file) => {
                file.write_all(&bytes)?;
                Ok(Some(file))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Forgets a job. What it left in its folder is [`Store::clear`]'s.
    pub fn remove(&self, name: &JobName) -> io::Result<bool> {
        match fs::remove_file(self.record(name)) {
            Ok(()) => sync_folder(&self.records).map(|()| true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Removes what a job left: its folder and its logs.
    pub fn clear(&self, name: &JobName) -> io::Result<()> {
        for attempt in 1.. {
            match fs::remove_file(self.log(name, attempt)) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::NotFound => break,
                Err(e) => return Err(e),
            }
        }
        match fs::remove_dir_all(self.job_folder(name)) {
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
        let mut record = BufReader::new(File::open(self.records.join(&header.name))?);
        record.skip_until(b'\n')?;
        record.take(length).read_to_end(&mut payload)?;
        match payload.len() as u64 == length {
            true => Ok(Some(payload)),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Writes a payload to a file that its owner alone can read.
    pub fn write_payload(payload: &[u8], to: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(to)?;
        file.write_all(payload)
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

    /// Reads all records, mends what a power cut left half, and removes what belongs to no record.
    pub fn load(&self) -> Result<Vec<Record>, OpenError> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.records).map_err(at(&self.records))? {
            let path = entry.map_err(at(&self.records))?.path();
            if file_name(&path).starts_with(ASIDE) {
                fs::remove_file(&path).map_err(at(&path))?;
                continue;
            }
            match read_record(&path).map_err(at(&path))? {
                Some(record) if record.header.name == file_name(&path) => records.push(record),
                _ => log::warn!(
                    "file={} event=skipped reason=\"it is not the record of a job\"",
                    path.display()
                ),
            }
        }
        for folder in [&self.jobs, &self.logs] {
            for entry in fs::read_dir(folder).map_err(at(folder))? {
                let path = entry.map_err(at(folder))?.path();
                let job = file_name(&path).split('.').next().unwrap_or_default();
                if self.records.join(job).exists() {
                    continue;
                }
                let removed = match path.is_dir() {
                    true => fs::remove_dir_all(&path),
                    false => fs::remove_file(&path),
                };
                if let Err(e) = removed {
                    log::warn!("path={} event=left error=\"{e}\"", path.display());
                }
            }
        }
        records.sort_by_key(|record| record.queued.arrival);
        Ok(records)
    }
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// `None` for a file that is no record.
fn read_record(path: &Path) -> io::Result<Option<Record>> {
    let mut reader = BufReader::new(OpenOptions::new().read(true).write(true).open(path)?);
    let mut bytes = Vec::new();
    reader.read_until(b'\n', &mut bytes)?;
    let Ok(header) = serde_json::from_slice::<Header>(&bytes) else {
        return Ok(None);
    };
    let mut good = bytes.len() as u64 + header.payload.unwrap_or(0) + 1;
    if reader.seek(SeekFrom::End(0))? < good {
        return Ok(None);
    }
    reader.seek(SeekFrom::Start(good))?;
    let mut record = Record::new(header);
    loop {
        bytes.clear();
        reader.read_until(b'\n', &mut bytes)?;
        match serde_json::from_slice::<Change>(&bytes) {
            Ok(change) if bytes.ends_with(b"\n") => record.apply(&change),
            _ => break,
        }
        good += bytes.len() as u64;
    }
    if !bytes.is_empty() {
        reader.into_inner().set_len(good)?;
    }
    Ok(Some(record))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            name: name.to_string(),
            job_id: None,
            created: 1,
            priority: 0,
            arrival,
            key: None,
            restart_of: None,
            payload: payload.map(|p| p.len() as u64),
            work: Work::default(),
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
        })
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let scratch = Scratch::new();
        let store = Folder::open(&scratch.0).unwrap().store("compute").unwrap();
        let payload = "{\"x\": 1}\nline\0 two\n";
        let (b, a) = (header("b", 1, Some(payload)), header("a", 2, None));
        store
            .create(&a, None, &[Change::Begun { at: 2 }, ended()])
            .unwrap();
        store.create(&b, Some(payload.as_bytes()), &[]).unwrap();
        let finished = Change::Finished {
            at: 4,
            status: EndStatus::Failed,
            message: String::new(),
        };
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
    fn a_name_is_given_once() {
        let scratch = Scratch::new();
        let store = Folder::open(&scratch.0).unwrap().store("compute").unwrap();
        store
            .create(&header("a", 1, Some("first")), Some(b"first"), &[])
            .unwrap();
        let again = store.create(&header("a", 2, None), None, &[]);
        assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
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
        store.append(&name("a"), &[ended()]).unwrap();
        assert!(store.load().unwrap().is_empty());
    }

    /// The states that a power cut, or a kill, can leave a record in: any prefix of what was written.
    #[test]
    fn a_record_cut_off_anywhere_is_whole_or_nothing() {
        let scratch = Scratch::new();
        let store = Folder::open(&scratch.0).unwrap().store("compute").unwrap();
        let payload = "pay\nload";
        let header = header("a", 1, Some(payload));
        store
            .create(
                &header,
                Some(payload.as_bytes()),
                &[Change::Begun { at: 2 }],
            )
            .unwrap();
        let path = store.record(&name("a"));
        let begun = fs::metadata(&path).unwrap().len();
        let created = begun - line(&Change::Begun { at: 2 }).unwrap().len() as u64;
        store.append(&name("a"), &[ended()]).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let records = store.load().unwrap();
            let good = match length as u64 {
                l if l == whole.len() as u64 => Some((1, true)),
                l if l >= begun => Some((1, false)),
                l if l >= created => Some((0, false)),
                _ => None,
            };
            let seen = records.first().map(|r| {
                let ended = r.attempts.last().is_some_and(|(_, end)| end.is_some());
                (r.attempts.len(), ended)
            });
            assert_eq!(seen, good, "{length} of {} bytes", whole.len());
            if good.is_some() {
                // What comes next is not glued to the half line.
                store
                    .append(&name("a"), &[Change::Begun { at: 9 }])
                    .unwrap();
                let records = store.load().unwrap();
                assert_eq!(records[0].attempts.last(), Some(&(9, None)), "{length}");
            }
        }
    }

    #[test]
    fn what_belongs_to_no_record_is_removed_at_start() {
        let scratch = Scratch::new();
        let store = Folder::open(&scratch.0).unwrap().store("compute").unwrap();
        store.create(&header("a", 1, None), None, &[]).unwrap();
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
