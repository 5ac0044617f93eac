//! What the standard library cannot say safely.
#![allow(unsafe_code, reason = "see the SAFETY argument")]

use rustix::process::{Pid, Signal};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Makes the program end when the calling *thread* does (`PR_SET_PDEATHSIG` follows the spawning thread, so
/// the caller must be the one thread of its process), and gives it a session of its own, so that a signal
/// from a terminal never reaches it.
pub(crate) fn tie_to_this_thread(command: &mut Command) {
    let parent = rustix::process::getpid();
    let in_child = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the call above: then nobody will send that signal.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        rustix::process::setsid()
            .map(|_: Pid| ())
            .map_err(io::Error::from)
    };
    // SAFETY: between fork and exec the closure makes three plain system calls through rustix (no libc, no
    // allocation, no lock) and captures a number; the process has one thread, so no lock is held either.
    unsafe { command.pre_exec(in_child) };
}
