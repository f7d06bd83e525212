//! The payload at its exact path: mounts that a job alone sees, where the machine allows them, root
//! or not.
//!
//! Nothing is ever made in the machine's own folders: a folder that does not exist is made in a
//! read-only copy of the nearest one that does, whose content is mounted into it. That takes dozens
//! of mounts, so it is made once, at start, in a namespace that every job then gets a copy of, with
//! its payload mounted.
//!
//! The steps are planned before the fork, as values, since between fork and exec nothing may be
//! allocated.

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The name of the file with a job's payload.
pub const PAYLOAD: &str = "payload";
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

/// The steps to an empty file that a job's payload can be mounted on.
pub struct Plan {
    file: PathBuf,
    steps: Vec<Step>,
}

impl Plan {
    /// Plans it, in the folder `path`; `staging` is an empty folder. `None` where it cannot be
    /// without a change to the machine's own folders.
    pub fn new(path: &Path, staging: &Path, host: &dyn Host) -> Option<Plan> {
        let path = path.to_owned();
        let file = path.join(PAYLOAD);
        if host.is_folder(&path) {
            let steps = vec![
                Step::Tmpfs(path.clone()),
                Step::MakeFile(file.clone()),
                Step::ReadOnly(path),
            ];
            return Some(Plan { file, steps });
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
        let mut steps = vec![Step::Tmpfs(staging.to_owned())];
        // Where the content comes from, and where the copy is made.
        let (source, copy) = if is_root {
            steps.push(Step::MakeFolder(staging.join(".machine")));
            steps.push(Step::Root {
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
                Kind::Link(to) => steps.push(Step::MakeLink { to, at }),
                Kind::Folder => {
                    steps.push(Step::MakeFolder(at.clone()));
                    steps.push(Step::Show { from, at });
                }
                Kind::File => {
                    steps.push(Step::MakeFile(at.clone()));
                    steps.push(Step::Show { from, at });
                }
            }
        }
        let mut folder = copy.clone();
        for part in path.strip_prefix(nearest).ok()? {
            folder.push(part);
            steps.push(Step::MakeFolder(folder.clone()));
        }
        steps.push(Step::MakeFile(folder.join(PAYLOAD)));
        if is_root {
            steps.extend([Step::Detach(old), Step::ReadOnly(copy)]);
        } else {
            let to = nearest.to_owned();
            steps.extend([Step::ReadOnly(copy.clone()), Step::Move { from: copy, to }]);
        }
        Some(Plan { file, steps })
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
            Step::Show { from, at } => (
                |from, at| mount::mount_bind_recursive(from, at),
                from,
                at,
                true,
            ),
            Step::ReadOnly(at) => (|at, _| read_only(at), at, empty(), true),
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

fn read_only(at: &CString) -> rustix::io::Result<()> {
    // A mount of a user's own may not lose what the one it shows is restricted by.
    let restricted = MountFlags::NOSUID | MountFlags::NODEV;
    let flags = MountFlags::BIND | MountFlags::RDONLY | restricted;
    rustix::mount::mount_remount(at, flags, c"")
}

fn c_string(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// A namespace in which a plan has been carried out, held by this process.
pub struct View {
    file: CString,
    /// `None` for root, who needs no namespace of users.
    users: Option<File>,
    mounts: File,
}

impl View {
    /// Carries a plan out, in a child that enters new namespaces and lives until they are held.
    #[allow(
        unsafe_code,
        reason = "pre_exec is the one place where a process can be changed before it is another program"
    )]
    pub fn build(plan: Plan) -> io::Result<View> {
        let file = c_string(&plan.file)?;
        let steps: io::Result<Vec<Ready>> = plan.steps.into_iter().map(Ready::new).collect();
        let steps = steps?;
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        let map = |id: u32| format!("{id} {id} 1");
        let maps = (!user.is_root()).then(|| (map(user.as_raw()), map(group.as_raw())));
        let needs_users = maps.is_some();

        let (mut built, tell_built) = io::pipe()?;
        let (held, mut tell_held) = io::pipe()?;
        let child = move || -> io::Result<()> {
            enter_new(&maps)?;
            for step in &steps {
                step.run()?;
            }
            let pid = rustix::process::getpid().as_raw_nonzero().get();
            rustix::io::write(&tell_built, &pid.to_ne_bytes())?;
            rustix::io::read(&held, &mut [0])?;
            Ok(())
        };
        let mut command = Command::new(std::env::current_exe()?);
        let quiet = command.arg("--version").stdin(Stdio::null());
        quiet.stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: the closure makes system calls only, on texts made before the fork: it allocates
        // nothing, takes no lock and touches nothing shared with another thread.
        unsafe { command.pre_exec(child) };
        // It returns only when the child is another program, which waits to be told.
        let spawning = std::thread::Builder::new()
            .name("view".to_string())
            .spawn(move || command.status())?;
        let mut pid = [0; 4];
        let outcome = built.read_exact(&mut pid).and_then(|()| {
            let namespaces = format!("/proc/{}/ns", i32::from_ne_bytes(pid));
            let open = |name: &str| File::open(format!("{namespaces}/{name}"));
            Ok(View {
                file,
                users: needs_users.then(|| open("user")).transpose()?,
                mounts: open("mnt")?,
            })
        });
        let _ = tell_held.write_all(&[0]);
        match spawning.join() {
            Ok(Ok(_)) => outcome,
            // Why it could not be built.
            Ok(Err(e)) => Err(e),
            Err(_) => Err(io::Error::other("a thread died")),
        }
    }
}

/// Into namespaces of this process's own, whose mounts follow those of the machine and not the
/// other way round.
#[allow(
    unsafe_code,
    reason = "rustix leaves it to the caller to leave FILES alone"
)]
fn enter_new(maps: &Option<(String, String)>) -> rustix::io::Result<()> {
    let flags = match maps {
        Some(_) => UnshareFlags::NEWUSER | UnshareFlags::NEWNS,
        None => UnshareFlags::NEWNS,
    };
    // SAFETY: the process has just been forked and has one thread, and FILES is not among the
    // flags.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    if let Some((users, groups)) = maps {
        // Not there, or not needed, on old kernels.
        let _ = write(c"/proc/self/setgroups", "deny");
        write(c"/proc/self/uid_map", users)?;
        write(c"/proc/self/gid_map", groups)?;
    }
    rustix::mount::mount_change(
        c"/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
}

/// Has the command told by `death` when the thread that spawns it ends, and gives it its view:
/// `view` comes with the file of the job's payload. Of this process it has neither descriptors, but
/// for the first three, nor limits.
///
/// The calling thread must live as long as the scheduler.
#[allow(
    unsafe_code,
    reason = "pre_exec is the one place where a process can be changed before it is the job's"
)]
pub fn prepare(
    command: &mut Command,
    view: Option<(&View, &Path)>,
    cwd: &Path,
    death: Signal,
) -> io::Result<()> {
    let own = view.map(|(view, payload)| OwnView::new(view, payload, cwd));
    let own = own.transpose()?;
    let scheduler = rustix::process::getpid();
    let child = move || -> io::Result<()> {
        if let Some(own) = &own {
            own.enter()?;
        }
        // After the namespace, which resets it.
        rustix::process::set_parent_process_death_signal(Some(death))?;
        crate::process::restore_file_limit();
        close_others();
        match rustix::process::getppid() {
            Some(parent) if parent == scheduler => Ok(()),
            // It ended before that was set.
            _ => Err(Errno::CHILD.into()),
        }
    };
    // SAFETY: as in `View::build`.
    unsafe { command.pre_exec(child) };
    Ok(())
}

/// Has all descriptors but the first three closed as another program begins, such as those that the
/// scheduler was started with.
#[allow(unsafe_code, reason = "no library has it")]
fn close_others() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: it changes a flag of descriptors, and no memory. Kernels before 5.11 do not have it.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}

/// A copy of a view for one job.
struct OwnView {
    file: CString,
    users: Option<File>,
    mounts: File,
    payload: CString,
    cwd: CString,
}

impl OwnView {
    fn new(view: &View, payload: &Path, cwd: &Path) -> io::Result<OwnView> {
        Ok(OwnView {
            file: view.file.clone(),
            users: view.users.as_ref().map(File::try_clone).transpose()?,
            mounts: view.mounts.try_clone()?,
            payload: c_string(payload)?,
            cwd: c_string(cwd)?,
        })
    }

    #[allow(
        unsafe_code,
        reason = "rustix leaves it to the caller to leave FILES alone"
    )]
    fn enter(&self) -> rustix::io::Result<()> {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        if let Some(users) = &self.users {
            move_into_link_name_space(users.as_fd(), Some(LinkNameSpaceType::User))?;
        }
        move_into_link_name_space(self.mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
        // SAFETY: the process has just been forked and has one thread, and FILES is not among the
        // flags.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
        rustix::mount::mount_bind(&self.payload, &self.file)?;
        // Not allowed where the disk is restricted in other ways; the payload is there all the
        // same.
        let _ = read_only(&self.file);
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

    /// A machine that has these paths: folders end in `/`, `!` marks one that the user may write
    /// into.
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

    /// The steps to a folder at `path`, a line each; `none` where there is no way.
    fn steps(path: &str, machine: &'static [&'static str]) -> Vec<String> {
        let staging = Path::new("/data/mount");
        let Some(plan) = Plan::new(Path::new(path), staging, &Fake(machine)) else {
            return vec!["none".to_string()];
        };
        let text = |step| match step {
            Step::Tmpfs(at) => format!("tmpfs {}", at.display()),
            Step::MakeFolder(at) => format!("mkdir {}", at.display()),
            Step::MakeFile(at) => format!("touch {}", at.display()),
            Step::MakeLink { to, at } => format!("ln {} {}", to.display(), at.display()),
            Step::Show { from, at } => format!("bind {} {}", from.display(), at.display()),
            Step::ReadOnly(at) => format!("ro {}", at.display()),
            Step::Move { from, to } => format!("mv {} {}", from.display(), to.display()),
            Step::Root { new, old } => format!("root {} {}", new.display(), old.display()),
            Step::Detach(at) => format!("umount {}", at.display()),
        };
        plan.steps.into_iter().map(text).collect()
    }

    #[test]
    fn a_folder_that_exists_is_covered() {
        assert_eq!(
            steps("/mnt/args", &["/", "/mnt/", "/mnt/args/!"]),
            ["tmpfs /mnt/args", "touch /mnt/args/payload", "ro /mnt/args"]
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
                "touch /compute/args/payload",
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
                "touch /data/mount/a/b/payload",
                "ro /data/mount",
                "mv /data/mount /mnt",
            ]
        );
    }

    #[test]
    fn there_is_no_way_where_something_of_the_jobs_would_be_lost() {
        let none = ["none"];
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
