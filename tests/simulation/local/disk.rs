//! A disk in memory, which tells what is written from what is durable, and has faults on request.

use job_scheduler::backend::local::{Files, FolderEntry, Mode, OpenFile};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What goes wrong at an operation that changes the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// The process ends before it.
    EndBefore,
    /// The process ends with half of it written.
    EndInside,
    /// The process ends after it.
    EndAfter,
    /// The machine ends before it.
    PowerBefore(Keep),
    /// The machine ends after it.
    PowerAfter(Keep),
    /// The disk is full from it on; half of it is written.
    Full,
    /// It fails once.
    Broken,
    /// It takes effect, and fails all the same, once.
    BrokenAfter,
    /// It fails, as do all that follow until the disk heals.
    BrokenOn,
    /// It takes effect and fails all the same, and all that follow fail until the disk heals.
    BrokenAfterOn,
}

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keep {
    Nothing,
    Half,
    All,
}

/// What the process is ended with, as a panic.
pub struct Ended {
    pub power: Option<Keep>,
}

/// An operation that changes the disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    Open,
    Write,
    Cut,
    Sync,
    SyncFolder,
    Rename,
    Remove,
    MakeFolder,
}

impl Fault {
    fn can_strike(self, operation: Operation) -> bool {
        match self {
            Fault::EndInside => operation == Operation::Write,
            // Delayed allocation has a full disk told by the sync.
            Fault::Full => !matches!(
                operation,
                Operation::Cut | Operation::Remove | Operation::SyncFolder
            ),
            Fault::BrokenAfter | Fault::BrokenAfterOn => operation != Operation::Open,
            _ => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    Folder,
    File(usize),
}

/// A change of a folder that a power cut may undo.
#[derive(Clone, Debug)]
enum Change {
    Link(PathBuf, Node),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, Node),
}

#[derive(Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// After a sync that failed, the system takes what was written up to here for written, and
    /// never writes it again.
    given_up: usize,
}

impl Inode {
    fn sync(&mut self) {
        let durable = self.durable.len();
        self.durable.clone_from(&self.content);
        let lost = durable.min(self.content.len())..self.given_up.min(self.content.len());
        if !lost.is_empty() {
            self.durable[lost].fill(0);
        }
        self.given_up = 0;
    }

    fn fail_to_sync(&mut self) {
        self.given_up = self.content.len();
    }
}

type During = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    nodes: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    /// What of each folder is not synced, in order.
    unsynced: BTreeMap<PathBuf, Vec<Change>>,
    inodes: Vec<Inode>,
    /// What is left of a disk that is full.
    left: Option<usize>,
    /// Nothing can be changed any more.
    broken: bool,
    /// Operations that changed the disk since the last arming.
    operations: Vec<String>,
    fault: Option<(usize, Fault)>,
    /// The operation that the fault struck.
    struck: Option<usize>,
    during: Option<(usize, During)>,
    /// The process has ended: nothing it does has an effect.
    ended: bool,
}

/// What becomes of an operation.
enum Fate {
    Go,
    Then(Ended),
    /// So many bytes are written, and then the process ends.
    Torn(Ended),
    Fails(io::Error),
    FailsAfter(io::Error),
    /// So many bytes are written, and then there is no room.
    Short(usize),
}

#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

fn full() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

fn broken() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn end(ended: Ended) -> ! {
    resume_unwind(Box::new(ended))
}

/// The path with the names of jobs left out.
fn described(path: &Path) -> String {
    let text = path.strip_prefix("/data/compute").unwrap_or(path);
    let text = text.display().to_string();
    let words = text.split('/').map(|word| {
        let (aside, name) = match word.strip_prefix(".new-") {
            Some(name) => (".new-", name),
            None => ("", word),
        };
        match name.strip_prefix("compute-") {
            Some(rest) => {
                let end = rest.find('.').map_or("", |dot| &rest[dot..]);
                format!("{aside}JOB{end}")
            }
            None => word.to_string(),
        }
    });
    words.collect::<Vec<_>>().join("/")
}

impl SimDisk {
    pub fn new() -> SimDisk {
        let disk = SimDisk::default();
        for path in ["/", "/data"] {
            disk.state().nodes.insert(path.into(), Node::Folder);
            disk.state().durable.insert(path.into(), Node::Folder);
        }
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a fault strike the operation that comes after so many others.
    pub fn arm(&self, after: usize, fault: Option<Fault>) {
        let mut state = self.state();
        state.operations.clear();
        state.fault = fault.map(|fault| (after, fault));
        state.struck = None;
    }

    /// Does something before the operation that comes after so many others.
    pub fn during(&self, after: usize, what: During) {
        let mut state = self.state();
        let at = state.operations.len() + after;
        state.during = Some((at, what));
    }

    /// The operations since the disk was armed, and the one that the fault has struck.
    pub fn operations(&self) -> (Vec<String>, Option<usize>) {
        let state = self.state();
        (state.operations.clone(), state.struck)
    }

    pub fn fill(&self, left: usize) {
        self.state().left = Some(left);
    }

    /// There is room, and no fault.
    pub fn heal(&self) {
        let mut state = self.state();
        (state.left, state.fault, state.during) = (None, None, None);
        state.broken = false;
    }

    /// Whether nothing can be changed any more.
    pub fn is_broken(&self) -> bool {
        self.state().broken
    }

    /// The process that used the disk has ended, with the machine or alone.
    pub fn end(&self, power: Option<Keep>) {
        let mut state = self.state();
        state.ended = true;
        state.fault = None;
        state.during = None;
        if let Some(keep) = power {
            state.cut_power(keep);
        }
    }

    /// Another process uses the disk.
    pub fn begin(&self) {
        self.state().ended = false;
    }

    /// All there is, by path.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().nodes.keys().cloned().collect()
    }

    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        match state.nodes.get(path)? {
            Node::Folder => None,
            Node::File(inode) => Some(state.inodes[*inode].content.clone()),
        }
    }

    /// Puts something there by another hand.
    pub fn put(&self, path: &Path, content: Option<&[u8]>) {
        let mut state = self.state();
        let node = match content {
            None => Node::Folder,
            Some(content) => {
                state.inodes.push(Inode {
                    content: content.to_vec(),
                    durable: content.to_vec(),
                    given_up: 0,
                });
                Node::File(state.inodes.len() - 1)
            }
        };
        state.nodes.insert(path.into(), node);
        state.durable.insert(path.into(), node);
    }

    /// Takes note of an operation, and says what becomes of it. `size` is of what is written.
    fn operate(&self, operation: Operation, path: &Path, size: usize) -> io::Result<Fate> {
        let mut state = self.state();
        if state.ended {
            return Err(broken());
        }
        let number = state.operations.len();
        if let Some((_, during)) = state.during.take_if(|(at, _)| *at <= number) {
            drop(state);
            during();
            state = self.state();
            if state.ended {
                return Err(broken());
            }
        }
        let number = state.operations.len();
        let text = format!("{operation:?} {}", described(path)).to_lowercase();
        state.operations.push(text.replace("job", "JOB"));
        let due = |(at, fault): &mut (usize, Fault)| number >= *at && fault.can_strike(operation);
        if let Some((_, fault)) = state.fault.take_if(due) {
            state.struck = Some(number);
            let ended = |power| Ended { power };
            return Ok(match fault {
                Fault::EndBefore => {
                    drop(state);
                    end(ended(None))
                }
                Fault::PowerBefore(keep) => {
                    drop(state);
                    end(ended(Some(keep)))
                }
                Fault::EndInside => Fate::Torn(ended(None)),
                Fault::EndAfter => Fate::Then(ended(None)),
                Fault::PowerAfter(keep) => Fate::Then(ended(Some(keep))),
                Fault::Full => {
                    state.left = Some(0);
                    match operation {
                        Operation::Write => Fate::Short(size / 2),
                        _ => Fate::Fails(full()),
                    }
                }
                Fault::Broken => Fate::Fails(broken()),
                Fault::BrokenAfter => Fate::FailsAfter(broken()),
                Fault::BrokenOn => {
                    state.broken = true;
                    Fate::Fails(broken())
                }
                Fault::BrokenAfterOn => {
                    state.broken = true;
                    Fate::FailsAfter(broken())
                }
            });
        }
        if state.broken {
            return Ok(Fate::Fails(broken()));
        }
        Ok(match (operation, state.left) {
            (Operation::Write, Some(left)) if left < size => {
                state.left = Some(0);
                Fate::Short(left)
            }
            (Operation::Write, Some(left)) => {
                state.left = Some(left - size);
                Fate::Go
            }
            (Operation::Open | Operation::MakeFolder | Operation::Rename, Some(0)) => {
                Fate::Fails(full())
            }
            _ => Fate::Go,
        })
    }

    /// Changes the disk, with the fate of the operation.
    fn change<T>(
        &self,
        fate: Fate,
        effect: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        match fate {
            Fate::Go | Fate::Torn(_) | Fate::Short(_) => effect(&mut self.state()),
            Fate::Then(ended) => {
                let _ = effect(&mut self.state());
                end(ended)
            }
            Fate::Fails(e) => Err(e),
            Fate::FailsAfter(e) => effect(&mut self.state()).and(Err(e)),
        }
    }
}

impl State {
    fn parent_is_there(&self, path: &Path) -> io::Result<()> {
        match path.parent().and_then(|parent| self.nodes.get(parent)) {
            Some(Node::Folder) => Ok(()),
            Some(Node::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn log(&mut self, path: &Path, change: Change) {
        let folder = path.parent().unwrap_or(path).to_path_buf();
        self.unsynced.entry(folder).or_default().push(change);
    }

    fn link(&mut self, path: &Path, node: Node) {
        self.nodes.insert(path.into(), node);
        self.log(path, Change::Link(path.into(), node));
    }

    fn unlink(&mut self, path: &Path) {
        if let (Some(Node::File(inode)), Some(left)) = (self.nodes.remove(path), &mut self.left) {
            *left += self.inodes[inode].content.len();
        }
        self.log(path, Change::Unlink(path.into()));
    }

    fn make_durable(&mut self, change: Change) {
        match change {
            Change::Link(path, node) => {
                self.durable.insert(path, node);
            }
            Change::Unlink(path) => {
                self.durable.remove(&path);
            }
            Change::Rename(from, to, node) => {
                self.durable.remove(&from);
                self.durable.insert(to, node);
            }
        }
    }

    fn cut_power(&mut self, keep: Keep) {
        for (_, mut changes) in std::mem::take(&mut self.unsynced) {
            let kept = match keep {
                Keep::Nothing => 0,
                Keep::Half => changes.len() / 2,
                Keep::All => changes.len(),
            };
            changes.truncate(kept);
            for change in changes {
                self.make_durable(change);
            }
        }
        let there: Vec<PathBuf> = self.durable.keys().cloned().collect();
        let has_folder = |path: &PathBuf| path.ancestors().all(|a| there.iter().any(|p| p == a));
        self.nodes = self.durable.clone();
        self.nodes.retain(|path, _| has_folder(path));
        self.durable = self.nodes.clone();
        for inode in &mut self.inodes {
            let common = inode.content.iter().zip(&inode.durable);
            let common = common.take_while(|(a, b)| a == b).count();
            match keep {
                Keep::Nothing => inode.content.clone_from(&inode.durable),
                Keep::Half => inode.content.truncate(common.midpoint(inode.content.len())),
                Keep::All => {}
            }
            inode.durable.clone_from(&inode.content);
        }
    }
}

impl Files for SimDisk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn OpenFile>> {
        let node = self.state().nodes.get(path).copied();
        let inode = match (node, mode) {
            (Some(Node::Folder), _) => return Err(ErrorKind::IsADirectory.into()),
            (Some(Node::File(_)), Mode::New) => return Err(ErrorKind::AlreadyExists.into()),
            (None, Mode::Read | Mode::ReadForeign | Mode::Append) => {
                return Err(ErrorKind::NotFound.into());
            }
            (Some(Node::File(inode)), Mode::Read | Mode::ReadForeign | Mode::Append) => inode,
            (Some(Node::File(inode)), Mode::Replace) => {
                let fate = self.operate(Operation::Open, path, 0)?;
                self.change(fate, |state| {
                    state.inodes[inode].content.clear();
                    Ok(inode)
                })?
            }
            (None, Mode::New | Mode::Replace) => {
                self.state().parent_is_there(path)?;
                let fate = self.operate(Operation::Open, path, 0)?;
                self.change(fate, |state| {
                    // Somebody may have removed it meanwhile.
                    state.parent_is_there(path)?;
                    state.inodes.push(Inode::default());
                    let inode = state.inodes.len() - 1;
                    state.link(path, Node::File(inode));
                    Ok(inode)
                })?
            }
        };
        Ok(Box::new(SimFile {
            disk: self.clone(),
            path: path.to_owned(),
            inode,
            position: 0,
        }))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<FolderEntry>> {
        let state = self.state();
        let inside = |path: &&PathBuf| path.parent() == Some(folder);
        let entries = state.nodes.iter().filter(|(path, _)| inside(path));
        Ok(entries
            .map(|(path, node)| FolderEntry {
                name: path.file_name().unwrap().to_str().unwrap().to_string(),
                is_folder: *node == Node::Folder,
            })
            .collect())
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        for folder in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            let known = self.state().nodes.get(folder).copied();
            match known {
                Some(Node::Folder) => continue,
                Some(Node::File(_)) => return Err(ErrorKind::AlreadyExists.into()),
                None => {}
            }
            let fate = self.operate(Operation::MakeFolder, folder, 0)?;
            self.change(fate, |state| {
                if folder.parent().is_some() {
                    state.parent_is_there(folder)?;
                }
                state.link(folder, Node::Folder);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let fate = self.operate(Operation::SyncFolder, path, 0)?;
        self.change(fate, |state| {
            for change in state.unsynced.remove(path).unwrap_or_default() {
                state.make_durable(change);
            }
            Ok(())
        })
    }

    fn sync_all(&self, folder: &Path) -> io::Result<()> {
        let fate = self.operate(Operation::SyncFolder, folder, 0)?;
        self.change(fate, |state| {
            for change in std::mem::take(&mut state.unsynced).into_values().flatten() {
                state.make_durable(change);
            }
            state.inodes.iter_mut().for_each(Inode::sync);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let fate = self.operate(Operation::Rename, to, 0)?;
        self.change(fate, |state| {
            let node = state.nodes.remove(from).ok_or(ErrorKind::NotFound)?;
            state.nodes.insert(to.into(), node);
            state.log(to, Change::Rename(from.into(), to.into(), node));
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        match self.state().nodes.get(path) {
            None => return Err(ErrorKind::NotFound.into()),
            Some(Node::Folder) => return Err(ErrorKind::IsADirectory.into()),
            Some(Node::File(_)) => {}
        }
        let fate = self.operate(Operation::Remove, path, 0)?;
        self.change(fate, |state| {
            state.unlink(path);
            Ok(())
        })
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        match self.state().nodes.get(path) {
            None => return Err(ErrorKind::NotFound.into()),
            Some(Node::File(_)) => return Err(ErrorKind::NotADirectory.into()),
            Some(Node::Folder) => {}
        }
        let fate = self.operate(Operation::Remove, path, 0)?;
        self.change(fate, |state| {
            let all = state.nodes.keys().filter(|below| below.starts_with(path));
            for below in all.cloned().collect::<Vec<_>>().into_iter().rev() {
                state.unlink(&below);
            }
            Ok(())
        })
    }
}

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    inode: usize,
    position: usize,
}

impl OpenFile for SimFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let fate = self
            .disk
            .operate(Operation::Write, &self.path, bytes.len())?;
        let (count, after) = match fate {
            Fate::Torn(ended) => (bytes.len() / 2, Fate::Then(ended)),
            Fate::Short(count) => (count, Fate::FailsAfter(full())),
            fate => (bytes.len(), fate),
        };
        let inode = self.inode;
        self.disk.change(after, |state| {
            state.inodes[inode].content.extend(&bytes[..count]);
            Ok(())
        })
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].content.len() as u64)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let fate = self.disk.operate(Operation::Cut, &self.path, 0)?;
        let inode = self.inode;
        self.disk.change(fate, |state| {
            let inode = &mut state.inodes[inode];
            inode.content.truncate(length as usize);
            inode.given_up = inode.given_up.min(length as usize);
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        let fate = self.disk.operate(Operation::Sync, &self.path, 0)?;
        let inode = self.inode;
        if let Fate::Fails(_) = &fate {
            let mut state = self.disk.state();
            // What a disk was not given that fails for long stays to be written.
            if !state.broken {
                state.inodes[inode].fail_to_sync();
            }
        }
        self.disk.change(fate, |state| {
            state.inodes[inode].sync();
            Ok(())
        })
    }
}

impl Read for SimFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        let content = &state.inodes[self.inode].content;
        let rest = content.get(self.position..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }
}

impl Seek for SimFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let length = self.length()? as i64;
        let position = match to {
            SeekFrom::Start(at) => at as i64,
            SeekFrom::End(by) => length + by,
            SeekFrom::Current(by) => self.position as i64 + by,
        };
        self.position = usize::try_from(position).map_err(io::Error::other)?;
        Ok(self.position as u64)
    }
}
