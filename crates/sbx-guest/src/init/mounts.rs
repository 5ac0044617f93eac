//! Kernel file systems, modules, and the move from the initramfs into the real root.

use super::disks::Disks;
use super::shims;
use crate::console;
use crate::files::at;
use crate::ssh_agent;
use rustix::fd::OwnedFd;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

const MODULES: &str = "/modules";
const NEW_ROOT: &str = "/newroot";

/// A kernel file system: type, mount point, flags, options.
type Entry = (&'static str, &'static str, MountFlags, &'static CStr);

const PLAIN: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// What finding the disks and the port takes.
const EARLY: [Entry; 3] = [
    ("proc", "/proc", PLAIN, c""),
    ("sysfs", "/sys", PLAIN, c""),
    ("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=0755"),
];

/// What programs expect on top.
const LATE: [Entry; 4] = [
    // 5 is the group `tty` in every Debian; a terminal is handed to its user when it is made.
    (
        "devpts",
        "/dev/pts",
        MountFlags::NOSUID.union(MountFlags::NOEXEC),
        c"gid=5,mode=0620,ptmxmode=0666",
    ),
    (
        "tmpfs",
        "/dev/shm",
        MountFlags::NOSUID.union(MountFlags::NODEV),
        c"mode=1777",
    ),
    (
        "tmpfs",
        "/run",
        MountFlags::NOSUID.union(MountFlags::NODEV),
        c"mode=0755",
    ),
    ("cgroup2", "/sys/fs/cgroup", PLAIN, c"nsdelegate"),
];

fn mount_all(root: &Path, entries: &[Entry]) -> io::Result<()> {
    for (kind, target, flags, options) in entries {
        let target = root.join(target.trim_start_matches('/'));
        if !target.is_dir() {
            fs::create_dir_all(&target).map_err(|error| at(&target, &error))?;
        }
        mount(*kind, &target, *kind, *flags, *options)
            .map_err(|error| at(&target, &io::Error::from(error)))?;
    }
    Ok(())
}

/// In the initramfs.
pub(super) fn early() -> io::Result<()> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    mount_all(Path::new("/"), &EARLY)
}

/// Loads the modules of the initramfs in the order of their names: until the root can be mounted here, the
/// rest beside it. One that fails is reported; whether the machine can do without it shows.
pub(super) fn load_modules() {
    let mut modules = open_modules().into_iter();
    while !Disks::mountable()
        && let Some(module) = modules.next()
    {
        load(&module);
    }
    let rest: Vec<Module> = modules.collect();
    let spawned = std::thread::Builder::new()
        .name("modules".into())
        .spawn(move || {
            rest.iter().for_each(load);
            console::debug("modules loaded");
        });
    if let Err(error) = spawned {
        console::say(&format!("no thread for the modules: {error}"));
    }
}

/// A module, open: its path ends to lead anywhere when the root is entered.
type Module = (PathBuf, fs::File);

fn open_modules() -> Vec<Module> {
    let Ok(entries) = fs::read_dir(MODULES) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let open = |path: PathBuf| {
        let file = fs::File::open(&path).ok()?;
        // The initramfs is memory: with its last descriptor a module is given back.
        let _ = fs::remove_file(&path);
        Some((path, file))
    };
    paths.into_iter().filter_map(open).collect()
}

fn load((path, file): &Module) {
    match rustix::system::finit_module(file, c"", 0) {
        Ok(()) => console::debug(&format!("loaded {}", path.display())),
        Err(rustix::io::Errno::EXIST) => {}
        Err(error) => console::say(&format!("module {}: {error}", path.display())),
    }
}

/// Mounts the real root and makes it this process's (and every later one's) root. Returns a handle on the
/// writable disk, which no path leads to afterwards.
pub(super) fn enter_root(disks: &Disks) -> io::Result<OwnedFd> {
    let root = Path::new(NEW_ROOT);
    fs::create_dir_all(root)?;
    disks.mount_root(root)?;
    let upper = Disks::hold_upper()?;
    console::debug("root mounted");
    mount_all(root, &EARLY)?;
    rustix::process::chdir(root)?;
    // A mere chroot would leave the mount tree's root elsewhere, and user namespaces refuse to be made
    // by a process whose root is not one (`user_namespaces(7)`).
    rustix::mount::mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    rustix::process::chdir("/")?;
    mount_all(Path::new("/"), &LATE)?;
    // As systemd does it: the Docker Engine refuses binds with `rslave` or `rshared` of what is not shared. What is
    // mounted below later is shared as well.
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    mount_change("/", shared)?;
    links();
    cgroups();
    limits();
    shims::install()?;
    if let Err(error) = ssh_agent::start() {
        console::say(&format!("programs inside find no SSH agent: {error}"));
    }
    Ok(upper)
}

/// Names that programs expect; the image may have some already.
fn links() {
    for (target, link) in [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("/run", "/var/run"),
        ("/proc/self/mounts", "/etc/mtab"),
    ] {
        let _ = symlink(target, link);
    }
    let _ = fs::create_dir("/run/lock");
    for (path, mode) in [("/run/lock", 0o1777), ("/dev/fuse", 0o666)] {
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
    }
}

/// Hands every controller to the groups below the root: the Docker Engine limits its containers by them.
fn cgroups() {
    let available = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    for controller in available.split_whitespace() {
        let _ = fs::write(
            "/sys/fs/cgroup/cgroup.subtree_control",
            format!("+{controller}"),
        );
    }
}

/// Limits that every program inherits, and the kernel's knobs that development tools run into.
fn limits() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // The kernel gives PID 1 1024 and 4096, too few for the Docker Engine and for file watchers.
    let files = Rlimit {
        current: Some(65_536),
        maximum: Some(1_048_576),
    };
    if let Err(error) = setrlimit(Resource::Nofile, files) {
        console::say(&format!("limit of open files: {error}"));
    }
    for (knob, value) in [
        ("fs/inotify/max_user_watches", "524288"),
        ("fs/inotify/max_user_instances", "1024"),
        ("vm/max_map_count", "262144"),
        ("net/ipv4/ping_group_range", "0 2147483647"),
        // A connection begins with room for what the gateway may have on its way (`WIDE_SEND_BUFFER` there). With the
        // kernel's 128 KiB, two of the largest segments, the kernel threw segments away that it had offered to take,
        // before it gave the connection more (`TCPRcvQDrop`): a second of silence each time. Containers inherit it.
        ("net/ipv4/tcp_rmem", "4096 1048576 6291456"),
    ] {
        let _ = fs::write(Path::new("/proc/sys").join(knob), value);
    }
}
