//! `ptrace(2)`: the few requests that a tracer needs. It has no safe form in the libraries that we use.
#![allow(unsafe_code, reason = "see the SAFETY arguments")]

use std::io;

/// Number and arguments of a system call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: i64,
    pub(super) arguments: [u64; 6],
}

/// Everything that the process makes is traced as well, and all of it ends with the tracer.
const OPTIONS: libc::c_int = libc::PTRACE_O_EXITKILL
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEEXEC;

/// A request whose third and fourth argument are numbers or addresses in the other process.
fn request(request: libc::c_uint, pid: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: the requests below take numbers where the prototype says pointers, and touch no memory of ours.
    let done = unsafe { libc::ptrace(request, pid, address, data) };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Begins to trace a process, which runs on.
pub(super) fn seize(pid: i32) -> io::Result<()> {
    request(libc::PTRACE_SEIZE, pid, 0, number(OPTIONS))
}

/// Has a process that is stopped go on, with a signal (0: none).
pub(super) fn go_on(pid: i32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_CONT, pid, 0, number(signal))
}

/// [`go_on`], up to the next system call.
pub(super) fn go_on_to_call(pid: i32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_SYSCALL, pid, 0, number(signal))
}

/// Stops a process that runs.
pub(super) fn interrupt(pid: i32) -> io::Result<()> {
    request(libc::PTRACE_INTERRUPT, pid, 0, 0)
}

/// What belongs to the event that the process has stopped for: the id of its new child.
pub(super) fn event_message(pid: i32) -> io::Result<u64> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the kernel writes one `unsigned long` to the address, which lives through the call.
    let done = unsafe { libc::ptrace(libc::PTRACE_GETEVENTMSG, pid, 0, &raw mut message) };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(message)
}

/// The call that a stopped process is about to make. `None`: it returns from one.
pub(super) fn call(pid: i32) -> Option<Call> {
    // SAFETY: the structure is plain numbers, for which zeros are valid.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::ptrace_syscall_info>();
    let get = libc::PTRACE_GET_SYSCALL_INFO;
    // SAFETY: the kernel writes at most `size` bytes to the address, which lives through the call.
    let done = unsafe { libc::ptrace(get, pid, size, &raw mut info) };
    if done <= 0 || info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: `op` says which member of the union was written; each is plain numbers.
    let entry = unsafe { info.u.entry };
    Some(Call {
        number: entry.nr.cast_signed(),
        arguments: entry.args,
    })
}

fn number(value: libc::c_int) -> usize {
    // Options and signals are small.
    usize::try_from(value).unwrap_or_default()
}
