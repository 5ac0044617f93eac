//! The jail of QEMU: a program of somebody else's, so it is closed around the process that becomes QEMU.
//!
//! A machine that was taken over keeps the two disks of its sandbox, what all machines of the image may read, and the
//! sockets on which it listens. It opens no other file of the user and connects to nothing: not by itself, and not
//! because a supervisor that was taken over asks it to by its monitor.

use crate::launch;
use sbx_jail::{Jail, JailError, Profile};
use sbx_wire::launch::{Accel, Launch, sockets};
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Argument that makes the program become QEMU.
pub const FLAG: &str = "--machine";

/// Where systems keep programs, libraries and firmware. Nothing of a user's is there.
const SYSTEM: [&str; 9] = [
    "/usr",
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/gnu/store",
    "/run/current-system",
    "/home/linuxbrew/.linuxbrew",
];
/// What lies beside the folder of a QEMU that is elsewhere. Without the first, it was not installed there: it may lie in
/// somebody's home, and so may other things.
const BESIDE: [&str; 4] = ["share/qemu", "lib", "lib64", "libexec"];
/// What QEMU and its libraries look up about the host. None of it tells of another process.
const FACTS: [&str; 12] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/meminfo",
    "/proc/sys/vm",
    "/sys/devices/system",
    "/sys/kernel/mm",
];

/// Becomes the QEMU of the sandbox in `dir`, with these arguments. Returns only when that fails.
pub fn become_machine(dir: &Path, arguments: &[OsString]) -> io::Error {
    match confined(dir) {
        Ok(qemu) => Command::new(qemu).args(arguments).exec(),
        Err(error) => error,
    }
}

fn confined(dir: &Path) -> io::Result<PathBuf> {
    let launch = launch::load(dir).map_err(io::Error::other)?;
    let enforced = jail(&launch).apply().map_err(|error: JailError| {
        io::Error::other(format!("the machine cannot be confined: {error}"))
    })?;
    // Where QEMU's own complaints go, which it may be the reason for.
    let _nobody_reads = writeln!(
        io::stderr(),
        "QEMU is confined (machine.confine): {enforced}"
    );
    Ok(launch.programs.qemu)
}

fn jail(launch: &Launch) -> Jail {
    let there = |path: &&Path| path.exists();
    let machine = &launch.machine;
    let mut jail = Jail::new(Profile::Machine)
        .execute(&launch.programs.qemu)
        .read_only(&machine.kernel)
        .read_only(&machine.initramfs)
        .read_write(&machine.upper)
        .read_write(&machine.docker)
        .sockets_in(launch.runtime.join(sockets::MACHINE_DIR))
        .device("/dev/null");
    let shared = machine.lowers.iter().chain(&machine.bases);
    jail = shared.fold(jail, Jail::read_only);
    let known = SYSTEM.iter().map(Path::new).filter(there);
    jail = known.fold(jail, Jail::execute);
    let beside = beside(&launch.programs.qemu);
    let beside = beside.iter().map(PathBuf::as_path).filter(there);
    jail = beside.fold(jail, Jail::execute);
    let facts = FACTS.iter().map(Path::new).filter(there);
    jail = facts.fold(jail, Jail::read_only);
    // Of the process that is going to be QEMU.
    jail = jail.read_only("/proc/self");
    match machine.accel {
        Accel::Kvm => jail.device("/dev/kvm"),
        Accel::Tcg => jail,
    }
}

/// Folders with what belongs to a QEMU that was installed with a prefix of its own.
fn beside(qemu: &Path) -> Vec<PathBuf> {
    let real = qemu.canonicalize();
    let prefix = real.as_deref().ok().and_then(Path::parent);
    let Some(prefix) = prefix.and_then(Path::parent) else {
        return Vec::new();
    };
    if !prefix.join(BESIDE[0]).is_dir() {
        return Vec::new();
    }
    BESIDE.iter().map(|name| prefix.join(name)).collect()
}
