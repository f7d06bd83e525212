//! This process as the operating system has it: its limits, its panics, its size.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::OnceLock;

/// Has a panic in a thread that a library started end the process too, since what waits for that thread would wait for
/// ever. To be called once, at start.
pub fn watch_foreign_threads() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        // The message is left out: it may quote what a caller sent.
        log::error!(
            "thread={} event=panic at={place}",
            thread.name().unwrap_or("unnamed")
        );
        if thread.name().is_none() {
            std::process::exit(1);
        }
    }));
}

/// Has glibc's allocator give memory back. To be called first, before there are threads.
///
/// Left to itself it raises the size from which a buffer is a mapping of its own with the first large one that is freed,
/// and then keeps the memory of many; and it has an arena for each of up to 16 threads. Four payloads of 1 MiB left 20 MB
/// resident, and 9 MB with this (measured).
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)] // mallopt has no other interface than C's, and the environment variables that say the same are read before main.
pub fn bound_allocator() {
    const MAPPED_FROM_BYTES: libc::c_int = 128 * 1024;
    const ARENAS: libc::c_int = 2;
    // SAFETY: mallopt takes two integers and touches only the allocator's own state, under its own lock.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES);
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}

/// Other allocators do as they do.
#[cfg(not(target_env = "gnu"))]
pub fn bound_allocator() {}

/// Has the allocator give back what is free. To be called after a large list, which takes much and leaves it in pieces:
/// one of 10,000 jobs left 5 MB (measured).
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)] // malloc_trim has no other interface than C's.
pub fn give_memory_back() {
    // SAFETY: malloc_trim takes an integer, and touches what is free alone, under the allocator's own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other allocators do as they do.
#[cfg(not(target_env = "gnu"))]
pub fn give_memory_back() {}

/// How many files may be open.
pub fn file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// Raises the soft limit on open files to the hard one: each connection is a file, and Linux's default soft limit of 1024
/// is there for programs that use select(2).
pub fn raise_file_limit() {
    let given = getrlimit(Resource::Nofile);
    let Rlimit { maximum, .. } = given;
    let _ = GIVEN_FILE_LIMIT.set(given);
    if let Err(e) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        log::warn!("the limit on open files stays as it is: {e}");
    }
}

/// What the limit on open files was before it was raised.
static GIVEN_FILE_LIMIT: OnceLock<Rlimit> = OnceLock::new();

/// Has this process the limit on open files that the scheduler was given: what a job's program is to
/// find. It may be called between fork and exec.
pub fn restore_file_limit() {
    if let Some(given) = GIVEN_FILE_LIMIT.get() {
        let _ = setrlimit(Resource::Nofile, *given);
    }
}

/// Threads of this process; 0 where there is no /proc.
pub fn threads() -> u64 {
    // The name, in parentheses, may hold spaces; the count is the 18th field after it (proc_pid_stat(5)).
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    after_name
        .split_whitespace()
        .nth(17)
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

/// What the operating system knows of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process {
    pub resident_bytes: u64,
    pub open_files: u64,
    pub threads: u64,
}

impl Process {
    /// Reads Linux's /proc; zeros where there is none.
    pub fn read() -> Process {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next())
                .and_then(|number| number.parse::<u64>().ok())
        };
        Process {
            resident_bytes: field("VmRSS:").unwrap_or(0) * 1024,
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
            threads: threads(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_itself() {
        let process = Process::read();
        assert!(
            process.resident_bytes > 0 && process.open_files > 2 && process.threads > 0,
            "{process:?}"
        );
    }

    #[test]
    fn the_limit_on_open_files_is_raised() {
        raise_file_limit();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
