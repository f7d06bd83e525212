//! The file operations below records: the seam where a simulated disk stands in for the machine's.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// A file system, as far as records, payloads and logs need one. What was written, made, renamed
/// or removed outlives this process at once, and a power cut only once it was synced.
pub trait Files: Send + Sync {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn OpenFile>>;

    /// What is in a folder, in no order, but for what has a name that is not UTF-8: it is not ours.
    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>>;

    /// Makes a folder and those above it, for their owner alone. One that is there stays.
    fn make_folder(&self, path: &Path) -> io::Result<()>;

    /// Has what was made, renamed and removed in the folder outlive a power cut.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;

    /// Has everything in the folder and below it outlive a power cut.
    fn sync_all(&self, folder: &Path) -> io::Result<()>;

    /// Replaces what is at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with all that is in it, whatever its permissions.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;
}

/// A file that is open.
pub trait OpenFile: Read + Seek + Send {
    /// On an error, any part of it may have been written.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    fn length(&self) -> io::Result<u64>;

    /// Cuts off what is behind `length`.
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// Has the content outlive a power cut.
    fn sync(&mut self) -> io::Result<()>;
}

/// What a file is opened for. One that is made can be read by its owner alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    Read,
    /// To be read too, and made by a job: it is refused unless it is a file, and never waited for.
    ReadForeign,
    /// What is written goes behind what is there, in a file that there must be.
    Append,
    /// The file is made, and must not be there yet.
    New,
    /// The file is made, or emptied.
    Replace,
}

/// Something in a folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub name: String,
    pub is_folder: bool,
}

/// The machine's own files.
pub struct Disk;

impl Files for Disk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Box<dyn OpenFile>> {
        let mut options = OpenOptions::new();
        match mode {
            Mode::Read => options.read(true),
            Mode::ReadForeign => {
                return Ok(Box::new(open_regular(path, options.read(true))?));
            }
            Mode::Append => options.read(true).append(true),
            Mode::New => options.write(true).create_new(true).mode(0o600),
            Mode::Replace => options.write(true).create(true).truncate(true).mode(0o600),
        };
        Ok(Box::new(options.open(path)?))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                let is_folder = entry.file_type()?.is_dir();
                entries.push(Entry { name, is_folder });
            }
        }
        Ok(entries)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Syncs the whole file system, which for many files takes less than to sync each.
    fn sync_all(&self, folder: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(folder)?)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                open_up(path)?;
                fs::remove_dir_all(path)
            }
            removed => removed,
        }
    }
}

/// Lets what is in the folders of a job be removed, of which it may have made some read-only.
fn open_up(path: &Path) -> io::Result<()> {
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        fs::set_permissions(&folder, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // Of the entry itself: what a link points at is not the job's.
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Opens a file, and nothing else that the job may have put in its place: that is not waited for.
pub(super) fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let file = options.custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a file")),
    }
}

impl OpenFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }

    fn length(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
