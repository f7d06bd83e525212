//! The log of an attempt: a file that its processes append to.
//!
//! One that grows over its bound loses its beginning: the kernel takes back what is there, and the
//! processes go on appending. So a log is read from where its data begins.

use super::files::open_regular;
use rustix::fs::FallocateFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// What the bounding of a log leaves of its bound, in quarters: it is done now and then, not
/// always.
const KEPT_QUARTERS: u64 = 3;
/// The kernel takes back whole blocks.
const PAGE_BYTES: u64 = 4096;
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
        let opened = open_regular(&self.path, OpenOptions::new().read(true));
        let mut file = match opened {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        let length = file.metadata()?.len();
        let begin = first_whole_line(&mut file)?.min(length);
        let start = match self.tail {
            Some(lines) => tail_start(&mut file, begin, length, lines)?,
            None => begin,
        };
        file.seek(SeekFrom::Start(start))?;
        self.left = match self.follow {
            Some(_) => u64::MAX,
            None => length - start,
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
            Some(file) => {
                let skipped = skip_what_is_gone(file)?;
                self.left = self.left.saturating_sub(skipped);
                file.take(self.left).read(buffer)?
            }
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

/// Where data is at or after a place; the place itself where there is none.
fn data_from(file: &File, place: u64) -> u64 {
    // A file system that does not tell has data everywhere.
    rustix::fs::seek(file, rustix::fs::SeekFrom::Data(place)).unwrap_or(place)
}

/// Where the log begins: at 0, or after the line that lost its beginning.
fn first_whole_line(file: &mut File) -> io::Result<u64> {
    let first = data_from(file, 0);
    if first == 0 {
        return Ok(0);
    }
    let mut block = Vec::new();
    file.seek(SeekFrom::Start(first))?;
    file.take(BLOCK_BYTES).read_to_end(&mut block)?;
    let end = block.iter().position(|byte| *byte == b'\n');
    Ok(end.map_or(first, |end| first + end as u64 + 1))
}

/// Moves a reader to where there is data. Gives the bytes that it missed.
fn skip_what_is_gone(file: &mut File) -> io::Result<u64> {
    let place = file.stream_position()?;
    if place > file.metadata()?.len() {
        // It was emptied.
        file.seek(SeekFrom::Start(0))?;
        return Ok(0);
    }
    let next = data_from(file, place);
    file.seek(SeekFrom::Start(next))?;
    Ok(next - place)
}

/// Bounds every log below the folder of an application and environment.
pub fn bound(folder: &Path, limit: u64) {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let components = entries(folder).map(|component| component.path().join("logs"));
    for log in components.flat_map(|logs| entries(&logs)) {
        let is_over = log.metadata().is_ok_and(|metadata| metadata.len() > limit);
        if is_over && let Err(e) = cut(&log.path(), limit) {
            log::warn!(
                "event=log-not-bounded log={} error=\"{e}\"",
                log.path().display()
            );
        }
    }
}

/// Takes the beginning of a log away if there is more of it than the limit.
fn cut(path: &Path, limit: u64) -> io::Result<()> {
    let file = open_regular(path, OpenOptions::new().write(true))?;
    let length = file.metadata()?.len();
    if length - data_from(&file, 0).min(length) <= limit {
        return Ok(());
    }
    let gone = (length - limit / 4 * KEPT_QUARTERS) / PAGE_BYTES * PAGE_BYTES;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(&file, flags, 0, gone) {
        Ok(()) => Ok(()),
        // Where the file system cannot, all of it goes: the disk is worth more than the log.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(0),
        Err(e) => Err(e.into()),
    }
}

/// Where the last `lines` lines of the bytes from `begin` to `length` begin. A last line without an
/// end is a line.
fn tail_start(file: &mut File, begin: u64, length: u64, lines: u32) -> io::Result<u64> {
    if lines == 0 {
        return Ok(length);
    }
    let mut ends = 0;
    let mut block = Vec::new();
    let mut end = length;
    while end > begin {
        let start = end.saturating_sub(BLOCK_BYTES).max(begin);
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
    Ok(begin)
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_log_over_its_bound_keeps_its_end() {
        const LIMIT: u64 = 1 << 20;
        let scratch = Scratch::new("bound", "");
        let mut writer = OpenOptions::new().append(true).open(&scratch.0).unwrap();
        let line = |number: u64| format!("{number:099}\n");
        let follow: Follow = Box::new(|| true);
        let mut slow = Log::open(&scratch.0, None, Some(follow)).unwrap();
        let mut number = 0;
        for _ in 0..8 {
            for _ in 0..4000 {
                writer.write_all(line(number).as_bytes()).unwrap();
                number += 1;
            }
            cut(&scratch.0, LIMIT).unwrap();
        }
        let allocated = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&scratch.0).unwrap());
        assert!(allocated * 512 <= LIMIT + PAGE_BYTES, "{allocated} blocks");
        let text = read(&scratch.0, None);
        let first: u64 = text.lines().next().unwrap().parse().unwrap();
        let expected: String = (first..number).map(line).collect();
        assert!(first > 0 && text == expected, "{first}");
        assert!(text.len() as u64 > LIMIT / 2 && text.len() as u64 <= LIMIT);
        assert_eq!(
            read(&scratch.0, Some(2)),
            line(number - 2) + &line(number - 1)
        );
        assert_eq!(read(&scratch.0, Some(1_000_000)), text);
        // One that had begun to read before misses what is gone, and is given no zeros for it.
        let mut seen = Vec::new();
        slow.read_to_end(&mut seen).unwrap();
        assert!(!seen.contains(&0) && seen.ends_with(text.as_bytes()));
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
