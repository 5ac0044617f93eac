//! How the engine gets its socket.

use rustix::fd::AsFd as _;
use rustix::io::FdFlags;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::{fs, io};

/// The role that turns standard input into the one passed socket and becomes the given program: only the
/// process itself can put its own id into the environment before it does.
///
/// # Errors
/// When there is no program, the socket cannot be passed, or the program cannot be run.
pub fn activate(mut args: impl Iterator<Item = OsString>) -> io::Result<()> {
    /// First descriptor that `sd_listen_fds(3)` looks at.
    const FIRST: i32 = 3;
    let program = args
        .next()
        .ok_or_else(|| io::Error::other("activate: no program"))?;
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), FIRST)?;
    if std::os::fd::AsRawFd::as_raw_fd(&socket) != FIRST {
        return Err(io::Error::other("activate: descriptor 3 is taken"));
    }
    rustix::io::fcntl_setfd(&socket, FdFlags::empty())?;
    let null = fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(null.as_fd())?;
    let error = Command::new(program)
        .args(args)
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", std::process::id().to_string())
        .exec();
    Err(error)
}
