//! What `/proc/PID/status` says of who a process belongs to (`proc_pid_status(5)`).

/// Whether it is a process, not one of its further threads.
pub(super) fn is_leader(pid: i32) -> bool {
    status_id(pid, "Tgid:") == Some(pid)
}

/// The process that made this one: of a thread, the one that it belongs to.
pub(super) fn maker(pid: i32) -> Option<i32> {
    match status_id(pid, "Tgid:")? {
        leader if leader == pid => status_id(pid, "PPid:"),
        leader => Some(leader),
    }
}

/// An id in `/proc/PID/status`.
fn status_id(pid: i32, key: &str) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(key))?;
    value.trim().parse().ok()
}
