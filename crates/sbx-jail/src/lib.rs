//! The jail of the helper processes: what a process that reads hostile bytes may still do.
//!
//! A helper opens what it needs, then calls [`Jail::apply`] before it starts a thread and before it reads the first
//! byte from a guest. From then on, whatever takes the process over can neither start a program nor reach a file,
//! a network or a process that the helper itself has no use for. Five layers, each one weaker alone:
//!
//! | layer | stops | if the kernel lacks it |
//! |---|---|---|
//! | `no_new_privs` | set-user-id programs | fatal |
//! | capabilities cleared (root only) | raw sockets, device nodes, mounts, foreign owners | fatal |
//! | `RLIMIT_CORE` = 0, not dumpable | secrets in core files, ptrace by a sibling | fatal |
//! | Landlock | files outside the named ones, TCP, signals and abstract sockets of others | reported |
//! | seccomp | every system call the profile does not list (QEMU: that it lists) | fatal |
//!
//! Landlock restricts the calling thread and its future children only, so [`Jail::apply`] refuses to run when the
//! process already has more than one thread.

#![deny(unsafe_code)] // but for one call in `descriptors`

mod descriptors;
mod files;
mod lists;
mod machine;
mod syscalls;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

pub use descriptors::close_on_exec_from;
pub use files::{FilesEnforced, landlock_abi};
pub use syscalls::Syscalls;

/// Which helper is being jailed. Each has its own list of system calls, see the `lists` module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The virtio-fs server: files through descriptors it already holds, no socket of its own making.
    Share,
    /// The gateway: sockets of the families IPv4 and IPv6, timers, its records and log. Its Unix sockets are open
    /// before the jail closes.
    Gateway,
    /// The supervisor: Unix sockets until [`seal_sockets`], pipes, its own files.
    Supervisor,
    /// QEMU, which is started in it: whatever it does but what a machine has no use for, on its own files. It connects
    /// to nothing, and its Unix sockets are streams.
    Machine,
}

/// Why a process could not be jailed. All of them are fatal to a helper: it must not read guest bytes.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// Bug in the caller: Landlock would not cover the other threads.
    #[error("the jail must be applied before threads start, and {0} are running")]
    ThreadsRunning(usize),
    /// Bug in the caller: the profile never grants this.
    #[error("profile {profile:?} does not allow {wanted}")]
    BeyondProfile {
        /// The profile that was asked.
        profile: Profile,
        /// What it was asked for.
        wanted: &'static str,
    },
    /// A path that was to stay reachable cannot be opened.
    #[error("cannot open {path} for the jail: {source}")]
    Path {
        /// The path as given.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A system call that sets a layer up failed.
    #[error("{what} failed: {source}")]
    Os {
        /// The layer.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Landlock is there and refused the rules.
    #[error("Landlock refused the rules: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// The seccomp filter could not be built or installed.
    #[error("seccomp filter: {0}")]
    Seccomp(#[from] seccompiler::Error),
}

/// What a process keeps. Nothing is reachable that was not named here; descriptors that are already open stay open.
#[derive(Debug)]
#[must_use = "a jail does nothing until it is applied"]
pub struct Jail {
    profile: Profile,
    files: Vec<files::Grant>,
    tcp: bool,
}

impl Jail {
    /// A jail without any file, with the sockets of the profile: Unix for `Supervisor`, none for `Share` and
    /// `Gateway` (TCP is asked for with [`Jail::connect_tcp_any`]).
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            files: Vec::new(),
            tcp: false,
        }
    }

    /// Keep this file, or everything beneath this directory, readable. Not to be executed.
    pub fn read_only(self, path: impl AsRef<Path>) -> Self {
        self.grant(path.as_ref(), files::Access::Read)
    }

    /// Keep this file, or everything beneath this directory, readable and writable (also create, remove, rename).
    /// Device nodes cannot be created.
    pub fn read_write(self, path: impl AsRef<Path>) -> Self {
        self.grant(path.as_ref(), files::Access::Write)
    }

    /// Keep this file, or everything beneath this directory, readable and executable. `Machine` only.
    pub fn execute(self, path: impl AsRef<Path>) -> Self {
        self.grant(path.as_ref(), files::Access::Execute)
    }

    /// Keep this device usable. `Machine` only.
    pub fn device(self, path: impl AsRef<Path>) -> Self {
        self.grant(path.as_ref(), files::Access::Device)
    }

    /// Allow names to be removed beneath this directory, and nothing else of it.
    pub fn remove_in(self, path: impl AsRef<Path>) -> Self {
        self.grant(path.as_ref(), files::Access::Remove)
    }

    /// Allow Unix sockets to be bound and names to be removed beneath this directory. `Machine` only.
    pub fn sockets_in(self, path: impl AsRef<Path>) -> Self {
        self.grant(path.as_ref(), files::Access::Sockets)
    }

    fn grant(mut self, path: &Path, access: files::Access) -> Self {
        self.files.push(files::Grant::path(path, access));
        self
    }

    /// Like [`Jail::read_only`] for a directory or file that is already open (`O_PATH` is enough).
    pub fn read_only_fd(mut self, fd: OwnedFd) -> Self {
        self.files.push(files::Grant::fd(fd, files::Access::Read));
        self
    }

    /// Like [`Jail::read_write`] for a directory or file that is already open (`O_PATH` is enough).
    pub fn read_write_fd(mut self, fd: OwnedFd) -> Self {
        self.files.push(files::Grant::fd(fd, files::Access::Write));
        self
    }

    /// Allow sockets of the families IPv4 and IPv6: TCP to any address, and UDP. `Gateway` only. Listening on a TCP
    /// port stays refused where Landlock knows TCP (ABI 4).
    pub fn connect_tcp_any(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// No socket of the families IPv4 and IPv6. The default.
    pub fn no_tcp(mut self) -> Self {
        self.tcp = false;
        self
    }

    /// Drops everything that was not kept, for good.
    ///
    /// Call it in `main` before the first thread and the first guest byte. When it fails, some layers may already
    /// hold: end the process.
    pub fn apply(self) -> Result<Enforced, JailError> {
        self.check()?;
        let threads = count_threads()?;
        if threads != 1 {
            return Err(JailError::ThreadsRunning(threads));
        }
        let grants = files::open(self.files)?;
        let filters = syscalls::compile(self.profile, self.tcp)?;

        rustix::thread::set_no_new_privs(true).map_err(os("no_new_privs"))?;
        drop_capabilities(self.profile)?;
        rustix::process::setrlimit(
            Resource::Core,
            Rlimit {
                current: Some(0),
                maximum: Some(0),
            },
        )
        .map_err(os("RLIMIT_CORE"))?;
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(os("PR_SET_DUMPABLE"))?;
        let files = files::restrict(&grants, self.tcp)?;
        let syscalls = filters.install()?;
        Ok(Enforced { files, syscalls })
    }

    fn check(&self) -> Result<(), JailError> {
        let beyond = |wanted| {
            Err(JailError::BeyondProfile {
                profile: self.profile,
                wanted,
            })
        };
        if self.tcp && self.profile != Profile::Gateway {
            return beyond("TCP");
        }
        let machines = self.files.iter().any(files::Grant::is_for_machines);
        if machines && self.profile != Profile::Machine {
            return beyond("programs, devices or new sockets");
        }
        Ok(())
    }
}

/// Takes away what is left of making and connecting sockets, on every thread and for good: `socket`, `socketpair` and
/// `connect` fail with `EPERM`. Connections that are open stay, and a listening socket still accepts.
///
/// Landlock does not govern connections to Unix sockets by path, and the daemon tells its callers apart by user only:
/// a process that could still connect could command the daemon. The supervisor calls this once it is connected to the
/// machine and before it reads the first byte from the guest. `Gateway` and `Share` need it not: they never have a
/// Unix socket to make.
pub fn seal_sockets() -> Result<(), JailError> {
    syscalls::seal_sockets()
}

/// What the kernel really enforces since [`Jail::apply`]. `Display` is the line for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforced {
    /// What Landlock does.
    pub files: FilesEnforced,
    /// What the seccomp filter does.
    pub syscalls: Syscalls,
}

impl fmt::Display for Enforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.files, self.syscalls)
    }
}

fn os(what: &'static str) -> impl Fn(rustix::io::Errno) -> JailError {
    move |errno| JailError::Os {
        what,
        source: errno.into(),
    }
}

fn count_threads() -> Result<usize, JailError> {
    let path = Path::new("/proc/self/task");
    let tasks = std::fs::read_dir(path).map_err(|source| JailError::Path {
        path: path.into(),
        source,
    })?;
    Ok(tasks.count())
}

/// Root without its powers. The share keeps the two that let root work on a workspace that belongs to somebody else
/// as root always could; QEMU reads an image whose files another user has built. A program that root starts has all that
/// it may have at most, so that is less as well.
fn drop_capabilities(profile: Profile) -> Result<(), JailError> {
    let held = rustix::thread::capabilities(None).map_err(os("capget"))?;
    let wanted = match profile {
        Profile::Share => CapabilitySet::DAC_OVERRIDE | CapabilitySet::FOWNER,
        Profile::Machine => CapabilitySet::DAC_READ_SEARCH,
        Profile::Gateway | Profile::Supervisor => CapabilitySet::empty(),
    };
    if profile == Profile::Machine && held.effective.contains(CapabilitySet::SETPCAP) {
        bound_capabilities(wanted)?;
    }
    let keep = held.permitted & wanted;
    let sets = CapabilitySets {
        effective: held.effective & keep,
        permitted: keep,
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(os("capset"))
}

/// What programs that are started from now on have at most.
fn bound_capabilities(most: CapabilitySet) -> Result<(), JailError> {
    for capability in CapabilitySet::all().difference(most).iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The kernel is older than this one.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(os("PR_CAPBSET_DROP")(error)),
        }
    }
    Ok(())
}
