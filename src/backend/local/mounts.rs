//! The payload at its exact path: mounts that a job alone sees, where the machine allows them, root or not.
//!
//! The steps are planned before the fork, as values, since between fork and exec nothing may be allocated. Nothing is
//! ever made in the machine's own folders: a folder that does not exist is made in a read-only copy of the nearest one
//! that does, whose content is mounted into it.

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Content that a copied folder may have: each is a mount of its own, and takes its time.
const MAX_COPIED: usize = 100;

/// One step on the way to what a job sees.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// An empty file system.
    Tmpfs(PathBuf),
    MakeFolder(PathBuf),
    MakeFile(PathBuf),
    MakeLink {
        to: PathBuf,
        at: PathBuf,
    },
    /// Shows what is at `from` at `at` as well. What cannot be shown is left out.
    Show {
        from: PathBuf,
        at: PathBuf,
    },
    /// The same for the payload, without which there is no point.
    ShowPayload {
        from: PathBuf,
        at: PathBuf,
    },
    ReadOnly(PathBuf),
    Move {
        from: PathBuf,
        to: PathBuf,
    },
    /// Makes the folder the root; the old root is at `old`.
    Root {
        new: PathBuf,
        old: PathBuf,
    },
    Detach(PathBuf),
}

/// What is in a folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    name: PathBuf,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Folder,
    File,
    Link(PathBuf),
}

/// The machine's folders, as far as a plan needs to know them.
pub trait Host {
    fn is_folder(&self, path: &Path) -> bool;
    fn is_anything(&self, path: &Path) -> bool;
    /// Whether a job could make something in the folder, which would be lost if it were copied.
    fn is_writable(&self, folder: &Path) -> bool;
    /// `None` if it cannot be told.
    fn entries(&self, folder: &Path) -> Option<Vec<Entry>>;
}

/// This machine.
pub struct ThisMachine;

impl Host for ThisMachine {
    fn is_folder(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn is_anything(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    fn is_writable(&self, folder: &Path) -> bool {
        rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok()
    }

    fn entries(&self, folder: &Path) -> Option<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in folder.read_dir().ok()? {
            let entry = entry.ok()?;
            let file_type = entry.file_type().ok()?;
            let kind = if file_type.is_dir() {
                Kind::Folder
            } else if file_type.is_symlink() {
                Kind::Link(entry.path().read_link().ok()?)
            } else {
                Kind::File
            };
            let name = entry.file_name().into();
            entries.push(Entry { name, kind });
        }
        Some(entries)
    }
}

/// The steps to a folder `path` that holds what is in a job's own folder.
pub struct View {
    path: PathBuf,
    before: Vec<Step>,
    after: Vec<Step>,
}

impl View {
    /// Plans it; `staging` is an empty folder. `None` where it cannot be without a change to the machine's own folders.
    pub fn plan(path: &Path, staging: &Path, host: &dyn Host) -> Option<View> {
        let path = path.to_owned();
        if host.is_folder(&path) {
            let (before, after) = (Vec::new(), Vec::new());
            return Some(View {
                path,
                before,
                after,
            });
        }
        let nearest = path.ancestors().find(|folder| host.is_anything(folder))?;
        let is_root = nearest == Path::new("/");
        if !host.is_folder(nearest) || (host.is_writable(nearest) && !is_root) {
            return None;
        }
        let entries = host.entries(nearest)?;
        if entries.len() > MAX_COPIED {
            return None;
        }
        let old = PathBuf::from("/.machine");
        let mut before = vec![Step::Tmpfs(staging.to_owned())];
        // Where the content comes from, and where the copy is made.
        let (source, copy) = if is_root {
            before.push(Step::MakeFolder(staging.join(".machine")));
            before.push(Step::Root {
                new: staging.to_owned(),
                old: staging.join(".machine"),
            });
            (old.clone(), PathBuf::from("/"))
        } else {
            (nearest.to_owned(), staging.to_owned())
        };
        for Entry { name, kind } in entries {
            let (from, at) = (source.join(&name), copy.join(&name));
            match kind {
                Kind::Link(to) => before.push(Step::MakeLink { to, at }),
                Kind::Folder => {
                    before.push(Step::MakeFolder(at.clone()));
                    before.push(Step::Show { from, at });
                }
                Kind::File => {
                    before.push(Step::MakeFile(at.clone()));
                    before.push(Step::Show { from, at });
                }
            }
        }
        let mut folder = copy.clone();
        for part in path.strip_prefix(nearest).ok()? {
            folder.push(part);
            before.push(Step::MakeFolder(folder.clone()));
        }
        let after = if is_root {
            vec![Step::Detach(old), Step::ReadOnly(copy)]
        } else {
            before.push(Step::ReadOnly(copy.clone()));
            before.push(Step::Move {
                from: copy,
                to: nearest.to_owned(),
            });
            Vec::new()
        };
        Some(View {
            path,
            before,
            after,
        })
    }

    /// The whole of it for one job, whose payload is in `folder`.
    fn steps(&self, folder: &Path) -> Vec<Step> {
        let mut steps = self.before.clone();
        steps.push(Step::ShowPayload {
            from: folder.to_owned(),
            at: self.path.clone(),
        });
        steps.push(Step::ReadOnly(self.path.clone()));
        steps.extend(self.after.iter().cloned());
        steps
    }
}

/// A step whose texts the kernel can take as they are.
struct Ready {
    step: fn(&CString, &CString) -> rustix::io::Result<()>,
    first: CString,
    second: CString,
    /// Whether it may fail.
    optional: bool,
}

impl Ready {
    fn new(step: Step) -> io::Result<Ready> {
        use rustix::{fs, mount, process};
        type Call = fn(&CString, &CString) -> rustix::io::Result<()>;
        let empty = PathBuf::new;
        let (step, first, second, optional): (Call, _, _, bool) = match step {
            Step::Tmpfs(at) => (
                |at, _| {
                    mount::mount(
                        c"job",
                        at,
                        c"tmpfs",
                        MountFlags::NOSUID | MountFlags::NODEV,
                        c"mode=755,size=64k",
                    )
                },
                at,
                empty(),
                false,
            ),
            Step::MakeFolder(at) => (
                |at, _| fs::mkdirat(CWD, at, Mode::from_raw_mode(0o755)),
                at,
                empty(),
                false,
            ),
            Step::MakeFile(at) => (
                |at, _| {
                    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
                    fs::openat(CWD, at, flags, Mode::from_raw_mode(0o644)).map(drop)
                },
                at,
                empty(),
                false,
            ),
            Step::MakeLink { to, at } => (|to, at| fs::symlinkat(to, CWD, at), to, at, false),
            Step::Show { from, at } => (show, from, at, true),
            Step::ShowPayload { from, at } => (show, from, at, false),
            Step::ReadOnly(at) => (
                |at, _| {
                    let flags = MountFlags::BIND
                        | MountFlags::RDONLY
                        | MountFlags::NOSUID
                        | MountFlags::NODEV;
                    mount::mount_remount(at, flags, c"")
                },
                at,
                empty(),
                true,
            ),
            Step::Move { from, to } => (|from, to| mount::mount_move(from, to), from, to, false),
            Step::Root { new, old } => (
                |new, old| {
                    process::pivot_root(new, old)?;
                    process::chdir(c"/")
                },
                new,
                old,
                false,
            ),
            Step::Detach(at) => (
                |at, _| {
                    mount::unmount(at, UnmountFlags::DETACH)?;
                    fs::unlinkat(CWD, at, fs::AtFlags::REMOVEDIR)
                },
                at,
                empty(),
                false,
            ),
        };
        Ok(Ready {
            step,
            first: c_string(&first)?,
            second: c_string(&second)?,
            optional,
        })
    }

    fn run(&self) -> rustix::io::Result<()> {
        match (self.step)(&self.first, &self.second) {
            Err(_) if self.optional => Ok(()),
            outcome => outcome,
        }
    }
}

fn show(from: &CString, at: &CString) -> rustix::io::Result<()> {
    rustix::mount::mount_bind_recursive(from, at)
}

fn c_string(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Has the command killed when the thread that spawns it ends, and gives it its view. `view` comes with the folder of
/// the job's payload.
///
/// The calling thread must live as long as the scheduler.
#[allow(
    unsafe_code,
    reason = "pre_exec is the one place where a process can be changed before it is the job's"
)]
pub fn prepare(command: &mut Command, view: Option<(&View, &Path)>, cwd: &Path) -> io::Result<()> {
    let mut namespace = None;
    if let Some((view, folder)) = view {
        let steps: io::Result<Vec<Ready>> =
            view.steps(folder).into_iter().map(Ready::new).collect();
        namespace = Some(Namespace::new(steps?, cwd)?);
    }
    let scheduler = rustix::process::getpid();
    let child = move || -> io::Result<()> {
        if let Some(namespace) = &namespace {
            namespace.enter()?;
        }
        // After the namespace, which resets it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        match rustix::process::getppid() {
            Some(parent) if parent == scheduler => Ok(()),
            // It ended before that was set.
            _ => Err(Errno::CHILD.into()),
        }
    };
    // SAFETY: the closure makes system calls only, on texts made before the fork: it allocates nothing, takes no lock and
    // touches nothing shared with another thread.
    unsafe { command.pre_exec(child) };
    Ok(())
}

/// Mounts of a process's own, made by itself.
struct Namespace {
    steps: Vec<Ready>,
    cwd: CString,
    /// What maps the user and the group to themselves; `None` for root, who needs no namespace of users.
    maps: Option<(String, String)>,
}

impl Namespace {
    fn new(steps: Vec<Ready>, cwd: &Path) -> io::Result<Namespace> {
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        let map = |id: u32| format!("{id} {id} 1");
        Ok(Namespace {
            steps,
            cwd: c_string(cwd)?,
            maps: (!user.is_root()).then(|| (map(user.as_raw()), map(group.as_raw()))),
        })
    }

    #[allow(
        unsafe_code,
        reason = "rustix leaves it to the caller to leave FILES alone"
    )]
    fn enter(&self) -> rustix::io::Result<()> {
        let flags = match self.maps {
            Some(_) => UnshareFlags::NEWUSER | UnshareFlags::NEWNS,
            None => UnshareFlags::NEWNS,
        };
        // SAFETY: the process has just been forked and has one thread, and FILES is not among the flags.
        unsafe { rustix::thread::unshare_unsafe(flags) }?;
        if let Some((users, groups)) = &self.maps {
            // Not there, or not needed, on old kernels.
            let _ = write(c"/proc/self/setgroups", "deny");
            write(c"/proc/self/uid_map", users)?;
            write(c"/proc/self/gid_map", groups)?;
        }
        rustix::mount::mount_change(
            c"/",
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
        )?;
        for step in &self.steps {
            step.run()?;
        }
        rustix::process::chdir(&self.cwd)
    }
}

fn write(path: &std::ffi::CStr, text: &str) -> rustix::io::Result<()> {
    let file = rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, text.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that has these paths: folders end in `/`, `!` marks one that the user may write into.
    struct Fake(&'static [&'static str]);

    impl Fake {
        fn find(&self, path: &Path) -> Option<&'static str> {
            let path = path.to_str().unwrap();
            let bare = |entry: &str| entry.trim_end_matches(['!', '/']).to_string();
            self.0
                .iter()
                .find(|entry| bare(entry) == path.trim_end_matches('/'))
                .copied()
        }
    }

    impl Host for Fake {
        fn is_folder(&self, path: &Path) -> bool {
            self.find(path)
                .is_some_and(|entry| entry.contains("/!") || entry.ends_with('/'))
        }

        fn is_anything(&self, path: &Path) -> bool {
            self.find(path).is_some()
        }

        fn is_writable(&self, folder: &Path) -> bool {
            self.find(folder).is_some_and(|entry| entry.ends_with('!'))
        }

        fn entries(&self, folder: &Path) -> Option<Vec<Entry>> {
            let inside = self.0.iter().filter_map(|entry| {
                let path = Path::new(entry.trim_end_matches('!'));
                (path.parent() == Some(folder)).then(|| Entry {
                    name: path.file_name().unwrap().into(),
                    kind: match entry.trim_end_matches('!').ends_with('/') {
                        true => Kind::Folder,
                        false => Kind::File,
                    },
                })
            });
            Some(inside.collect())
        }
    }

    /// The steps for a payload at `path`, a line each; empty where there is no way.
    fn steps(path: &str, machine: &'static [&'static str]) -> Vec<String> {
        let staging = Path::new("/data/mount");
        let Some(view) = View::plan(Path::new(path), staging, &Fake(machine)) else {
            return Vec::new();
        };
        let text = |step| match step {
            Step::Tmpfs(at) => format!("tmpfs {}", at.display()),
            Step::MakeFolder(at) => format!("mkdir {}", at.display()),
            Step::MakeFile(at) => format!("touch {}", at.display()),
            Step::MakeLink { to, at } => format!("ln {} {}", to.display(), at.display()),
            Step::Show { from, at } => format!("bind {} {}", from.display(), at.display()),
            Step::ShowPayload { from, at } => {
                format!("payload {} {}", from.display(), at.display())
            }
            Step::ReadOnly(at) => format!("ro {}", at.display()),
            Step::Move { from, to } => format!("mv {} {}", from.display(), to.display()),
            Step::Root { new, old } => format!("root {} {}", new.display(), old.display()),
            Step::Detach(at) => format!("umount {}", at.display()),
        };
        view.steps(Path::new("/data/job"))
            .into_iter()
            .map(text)
            .collect()
    }

    #[test]
    fn a_folder_that_exists_is_covered() {
        assert_eq!(
            steps("/mnt/args", &["/", "/mnt/", "/mnt/args/!"]),
            ["payload /data/job /mnt/args", "ro /mnt/args"]
        );
    }

    #[test]
    fn a_folder_of_the_root_is_made_in_a_root_of_the_jobs_own() {
        assert_eq!(
            steps("/compute/args", &["/!", "/usr/", "/swap"]),
            [
                "tmpfs /data/mount",
                "mkdir /data/mount/.machine",
                "root /data/mount /data/mount/.machine",
                "mkdir /usr",
                "bind /.machine/usr /usr",
                "touch /swap",
                "bind /.machine/swap /swap",
                "mkdir /compute",
                "mkdir /compute/args",
                "payload /data/job /compute/args",
                "ro /compute/args",
                "umount /.machine",
                "ro /",
            ]
        );
    }

    #[test]
    fn a_folder_elsewhere_is_made_in_a_copy_of_the_nearest() {
        assert_eq!(
            steps("/mnt/a/b", &["/", "/mnt/", "/mnt/disk/"]),
            [
                "tmpfs /data/mount",
                "mkdir /data/mount/disk",
                "bind /mnt/disk /data/mount/disk",
                "mkdir /data/mount/a",
                "mkdir /data/mount/a/b",
                "ro /data/mount",
                "mv /data/mount /mnt",
                "payload /data/job /mnt/a/b",
                "ro /mnt/a/b",
            ]
        );
    }

    #[test]
    fn there_is_no_way_where_something_of_the_jobs_would_be_lost() {
        let none: [&str; 0] = [];
        assert_eq!(
            steps("/tmp/args", &["/", "/tmp/!"]),
            none,
            "what the job makes in /tmp"
        );
        assert_eq!(
            steps("/etc/passwd/args", &["/", "/etc/", "/etc/passwd"]),
            none,
            "a file is in the way"
        );
    }
}
