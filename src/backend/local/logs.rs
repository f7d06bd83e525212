//! The log of an attempt: a file that its processes append to.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// How often a log that is followed is looked at.
const POLL: Duration = Duration::from_millis(150);
/// What the search for the last lines holds in memory.
const BLOCK_BYTES: u64 = 64 * 1024;

/// Tells whether the attempt is over.
pub type Follow = Box<dyn Fn() -> bool + Send>;

pub struct Log {
    path: PathBuf,
    tail: Option<u32>,
    /// `None` while there is no such file.
    file: Option<File>,
    /// Bytes still to give: a log that is not followed ends where it ended when it was opened.
    left: u64,
    follow: Option<Follow>,
}

impl Log {
    /// A file that is not there is an empty log.
    pub fn open(path: &Path, tail: Option<u32>, follow: Option<Follow>) -> io::Result<Log> {
        let mut log = Log {
            path: path.to_path_buf(),
            tail,
            file: None,
            left: 0,
            follow,
        };
        log.try_open()?;
        Ok(log)
    }

    fn try_open(&mut self) -> io::Result<()> {
        // The job may have put something else in its place: that is not waited for.
        let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(&self.path);
        let mut file = match opened {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        let start = match self.tail {
            Some(lines) => tail_start(&mut file, metadata.len(), lines)?,
            None => 0,
        };
        file.seek(SeekFrom::Start(start))?;
        self.left = match self.follow {
            Some(_) => u64::MAX,
            None => metadata.len() - start,
        };
        self.file = Some(file);
        Ok(())
    }
}

impl Read for Log {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Asked first, so that what was written before the end is read.
        let is_over = self.follow.as_ref().is_none_or(|is_over| is_over());
        if self.file.is_none() {
            self.try_open()?;
        }
        let count = match &mut self.file {
            Some(file) => file.take(self.left).read(buffer)?,
            None => 0,
        };
        self.left = self.left.saturating_sub(count as u64);
        if count == 0 && !is_over {
            sleep(POLL);
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(count)
    }
}

/// Where the last `lines` lines of the first `length` bytes begin. A last line without an end is a line.
fn tail_start(file: &mut File, length: u64, lines: u32) -> io::Result<u64> {
    if lines == 0 {
        return Ok(length);
    }
    let mut ends = 0;
    let mut block = Vec::new();
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.take(end - start).read_to_end(&mut block)?;
        // `after` is the place behind a byte, from the last one on.
        for (after, byte) in (start + 1..=end).rev().zip(block.iter().rev()) {
            // The end of the last line is not the start of another.
            if *byte == b'\n' && after < length {
                ends += 1;
                if ends == lines {
                    return Ok(after);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, text: &str) -> Scratch {
            let name = format!("job-scheduler-log-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::write(&path, text).unwrap();
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn read(path: &Path, tail: Option<u32>) -> String {
        let mut text = String::new();
        let mut log = Log::open(path, tail, None).unwrap();
        log.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_tail_is_the_last_lines() {
        let check = |text: &str, lines: u32, expected: &str| {
            let scratch = Scratch::new("tail", text);
            assert_eq!(
                read(&scratch.0, Some(lines)),
                expected,
                "{lines} of {text:?}"
            );
        };
        check("a\nb\nc\n", 0, "");
        check("a\nb\nc\n", 1, "c\n");
        check("a\nb\nc", 1, "c");
        check("a\nb\nc", 2, "b\nc");
        check("a\n\n\n", 2, "\n\n");
        check("a\nb\n", 3, "a\nb\n");
        check("", 3, "");
        check("\n", 1, "\n");
    }

    #[test]
    fn a_tail_is_found_across_blocks() {
        let block = usize::try_from(BLOCK_BYTES).unwrap();
        let (long, longer) = ("x".repeat(block - 1), "y".repeat(2 * block));
        let text = format!("first\n{longer}\n{long}\n");
        let scratch = Scratch::new("blocks", &text);
        assert_eq!(read(&scratch.0, Some(1)), format!("{long}\n"));
        assert_eq!(read(&scratch.0, Some(2)), format!("{longer}\n{long}\n"));
        assert_eq!(read(&scratch.0, Some(3)), text);
        assert_eq!(read(&scratch.0, None), text);
    }

    #[test]
    fn a_followed_log_is_read_to_the_attempts_end() {
        let scratch = Scratch::new("follow", "one\n");
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let follow: Follow = Box::new(move || is_over.load(Ordering::Acquire));
        let mut log = Log::open(&scratch.0, None, Some(follow)).unwrap();
        let mut buffer = [0; 100];
        let mut next = || log.read(&mut buffer).map_err(|e| e.kind());
        assert_eq!(next(), Ok(4));
        assert_eq!(next(), Err(ErrorKind::TimedOut));
        let mut file = OpenOptions::new().append(true).open(&scratch.0).unwrap();
        file.write_all(b"two\nthree\n").unwrap();
        over.store(true, Ordering::Release);
        assert_eq!(next(), Ok(10));
        assert_eq!(next(), Ok(0));
    }

    #[test]
    fn no_file_is_an_empty_log_and_a_link_is_none() {
        let scratch = Scratch::new("link", "secret");
        let path = scratch.0.with_extension("absent");
        assert_eq!(read(&path, None), "");
        std::os::unix::fs::symlink(&scratch.0, &path).unwrap();
        let opened = Log::open(&path, None, None);
        fs::remove_file(&path).unwrap();
        assert!(opened.is_err());
    }
}
