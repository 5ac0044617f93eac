//! System calls that change something outside of the process that makes them, or that another process notices.

use super::sys::Call;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

/// Longest path that is read from another process, bytes.
const LONGEST: usize = 512;

/// What a call is about, for people.
#[derive(Debug, Clone, Copy)]
enum About {
    /// A path in this argument.
    Path(usize),
    /// A descriptor in this argument.
    Descriptor(usize),
    Nothing,
}

/// Number, name, what it is about.
const CALLS: &[(i64, &str, About)] = &[
    (libc::SYS_accept4, "accept4", About::Descriptor(0)),
    (libc::SYS_bind, "bind", About::Descriptor(0)),
    (libc::SYS_chmod, "chmod", About::Path(0)),
    (libc::SYS_clone, "clone", About::Nothing),
    (libc::SYS_clone3, "clone3", About::Nothing),
    (libc::SYS_connect, "connect", About::Descriptor(0)),
    (
        libc::SYS_copy_file_range,
        "copy_file_range",
        About::Descriptor(2),
    ),
    (libc::SYS_execve, "execve", About::Path(0)),
    (libc::SYS_exit_group, "exit_group", About::Nothing),
    (libc::SYS_fallocate, "fallocate", About::Descriptor(0)),
    (libc::SYS_fchmod, "fchmod", About::Descriptor(0)),
    (libc::SYS_fchmodat, "fchmodat", About::Path(1)),
    (libc::SYS_fdatasync, "fdatasync", About::Descriptor(0)),
    (libc::SYS_flock, "flock", About::Descriptor(0)),
    (libc::SYS_fork, "fork", About::Nothing),
    (libc::SYS_fsync, "fsync", About::Descriptor(0)),
    (libc::SYS_ftruncate, "ftruncate", About::Descriptor(0)),
    (libc::SYS_kill, "kill", About::Nothing),
    (libc::SYS_link, "link", About::Path(1)),
    (libc::SYS_linkat, "linkat", About::Path(3)),
    (libc::SYS_listen, "listen", About::Descriptor(0)),
    (libc::SYS_memfd_create, "memfd_create", About::Path(0)),
    (libc::SYS_mkdir, "mkdir", About::Path(0)),
    (libc::SYS_mkdirat, "mkdirat", About::Path(1)),
    (libc::SYS_open, "open", About::Path(0)),
    (libc::SYS_openat, "openat", About::Path(1)),
    (
        libc::SYS_pidfd_send_signal,
        "pidfd_send_signal",
        About::Nothing,
    ),
    (libc::SYS_pipe2, "pipe2", About::Nothing),
    (libc::SYS_prctl, "prctl", About::Nothing),
    (libc::SYS_pwrite64, "pwrite64", About::Descriptor(0)),
    (libc::SYS_pwritev, "pwritev", About::Descriptor(0)),
    (libc::SYS_rename, "rename", About::Path(0)),
    (libc::SYS_renameat, "renameat", About::Path(1)),
    (libc::SYS_renameat2, "renameat2", About::Path(1)),
    (libc::SYS_rmdir, "rmdir", About::Path(0)),
    (libc::SYS_sendfile, "sendfile", About::Descriptor(0)),
    (libc::SYS_sendmsg, "sendmsg", About::Descriptor(0)),
    (libc::SYS_sendto, "sendto", About::Descriptor(0)),
    (libc::SYS_setsid, "setsid", About::Nothing),
    (libc::SYS_shutdown, "shutdown", About::Descriptor(0)),
    (libc::SYS_socket, "socket", About::Nothing),
    (libc::SYS_socketpair, "socketpair", About::Nothing),
    (libc::SYS_symlink, "symlink", About::Path(1)),
    (libc::SYS_tgkill, "tgkill", About::Nothing),
    (libc::SYS_truncate, "truncate", About::Path(0)),
    (libc::SYS_unlink, "unlink", About::Path(0)),
    (libc::SYS_unlinkat, "unlinkat", About::Path(1)),
    (libc::SYS_utimensat, "utimensat", About::Path(1)),
    (libc::SYS_vfork, "vfork", About::Nothing),
    (libc::SYS_write, "write", About::Descriptor(0)),
    (libc::SYS_writev, "writev", About::Descriptor(0)),
];

/// What the process is about to do, if the call changes something.
pub(super) fn describe(pid: i32, call: &Call) -> Option<String> {
    let (_, name, about) = CALLS.iter().find(|(number, ..)| *number == call.number)?;
    if reads_only(call) {
        return None;
    }
    let about = match about {
        About::Nothing => String::new(),
        About::Path(at) => text(pid, *call.arguments.get(*at)?),
        About::Descriptor(at) => {
            let descriptor = call.arguments.get(*at)?;
            let target = fs::read_link(format!("/proc/{pid}/fd/{descriptor}"));
            let target = target.map_or_else(|_| String::new(), |to| to.display().to_string());
            // How threads of one process wake each other.
            if target.contains("[eventfd]") {
                return None;
            }
            target
        }
    };
    Some(format!("{name} {about}").trim_end().to_owned())
}

/// Whether this is an `open` that makes nothing.
fn reads_only(call: &Call) -> bool {
    let flags = match call.number {
        libc::SYS_open => call.arguments[1],
        libc::SYS_openat => call.arguments[2],
        _ => return false,
    };
    let makes = u64::from((libc::O_CREAT | libc::O_TRUNC).unsigned_abs());
    flags & makes == 0
}

/// Text that ends with a NUL in another process; what can be read of it.
fn text(pid: i32, address: u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(memory) = File::open(format!("/proc/{pid}/mem")) {
        let mut byte = [0];
        while bytes.len() < LONGEST
            && memory
                .read_exact_at(&mut byte, address + bytes.len() as u64)
                .is_ok()
            && byte != [0]
        {
            bytes.extend(byte);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
