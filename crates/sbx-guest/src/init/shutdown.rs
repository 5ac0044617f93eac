//! The end of the machine: processes, then file systems, then power. Every step is bounded, because what it
//! waits for may be a share whose server is gone.

use super::masks;
use crate::console;
use crate::mounts_table;
use crate::reaper::Reaper;
use rustix::fd::{AsRawFd as _, OwnedFd};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, Signal};
use rustix::system::RebootCommand;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// Time for processes to be collected after SIGKILL. What is stuck in the kernel stays.
const KILL_LIMIT: Duration = Duration::from_secs(2);
/// Time after which shells are hung up: the programs on their terminals may need a moment after SIGTERM.
const HANG_UP_AFTER: Duration = Duration::from_secs(1);
/// Time for the shares to be unmounted.
const SHARE_LIMIT: Duration = Duration::from_secs(3);

/// Takes the machine down. `upper`: the writable disk, when it is mounted.
pub(super) fn run(grace: Duration, reaper: &Reaper, upper: Option<&OwnedFd>) -> ! {
    console::debug("shutting down");
    signal_all(Signal::TERM);
    // A stopped process takes its SIGTERM only when it is continued.
    signal_all(Signal::CONT);
    let rest = grace.saturating_sub(HANG_UP_AFTER);
    let mut ended = reaper.wait_childless(grace.min(HANG_UP_AFTER));
    if !ended && !rest.is_zero() {
        hang_up_terminals();
        ended = reaper.wait_childless(rest);
    }
    if !ended {
        signal_all(Signal::KILL);
        if !reaper.wait_childless(KILL_LIMIT) {
            console::say("shutdown: some processes do not end");
        }
    }
    console::debug("processes ended");
    unmount_all();
    if let Some(upper) = upper {
        settle(upper);
    }
    console::debug("disks settled");
    power_off()
}

/// Everybody but this process (`kill(2)` with pid -1).
fn signal_all(signal: Signal) {
    // Fails only when there is nobody.
    let _ = rustix::process::kill_process_group(Pid::INIT, signal);
}

/// Hangs up whoever has a terminal: an interactive shell ignores SIGTERM. To others SIGHUP means something else.
fn hang_up_terminals() {
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        let stat = std::fs::read(process.path().join("stat")).unwrap_or_default();
        if pid != Pid::INIT && has_terminal(&stat) {
            // Fails only when it has ended.
            let _ = rustix::process::kill_process(pid, Signal::HUP);
        }
    }
}

/// Whether the process with this `stat` has a controlling terminal (`proc_pid_stat(5)`, `tty_nr`).
fn has_terminal(stat: &[u8]) -> bool {
    // Its name may hold anything.
    let name_end = stat.iter().rposition(|byte| *byte == b')');
    let fields = String::from_utf8_lossy(&stat[name_end.map_or(0, |end| end + 1)..]);
    // After the name: state, parent, group, session, terminal.
    let terminal = fields.split_whitespace().nth(4);
    terminal.is_some_and(|terminal| terminal != "0")
}

/// Unmounts shares and the Docker disk with all that is mounted below it, last mounted first.
fn unmount_all() {
    let mounts = mounts_table::all();
    let shares_of_all = || mounts.iter().filter(|mount| mount.kind == "virtiofs");
    let mut shares = Vec::new();
    let mut disks = Vec::new();
    for mount in mounts.iter().rev() {
        let point = &mount.point;
        let in_a_share = || shares_of_all().any(|share| point.starts_with(&share.point));
        if mount.kind == "virtiofs" {
            // Wherever it is: what waits for its server has a limit.
            shares.push(point.clone());
        } else if point.starts_with(super::disks::DOCKER_ROOT) {
            disks.push(point.clone());
        } else if in_a_share() {
            // A directory of the disk, which keeps the share busy.
            shares.push(point.clone());
        }
    }
    let (done, wait) = mpsc::channel();
    let spawned = std::thread::Builder::new()
        .name("shares".into())
        .spawn(move || {
            for share in &shares {
                masks::leave(share);
            }
            for share in shares {
                let _ = rustix::mount::unmount(&share, UnmountFlags::empty());
            }
            let _ = done.send(());
        });
    if spawned.is_err() || wait.recv_timeout(SHARE_LIMIT).is_err() {
        console::say("shutdown: a share does not let go");
    }
    for target in disks {
        if rustix::mount::unmount(&target, UnmountFlags::empty()).is_err() {
            // Still in use by something that could not be killed: at least nothing more is written.
            let _ = rustix::mount::mount_remount(&target, MountFlags::RDONLY, c"");
        }
    }
}

/// Writes everything out and leaves the root's disk marked clean: an overlay cannot be unmounted by the
/// process that runs in it, but both file systems can be made read-only.
fn settle(upper: &OwnedFd) {
    if let Err(error) = rustix::mount::mount_remount("/", MountFlags::RDONLY, c"") {
        console::say(&format!("shutdown: root stays writable: {error}"));
    }
    let _ = rustix::fs::syncfs(upper);
    let path = format!("/proc/self/fd/{}", upper.as_raw_fd());
    if let Err(error) = rustix::mount::mount_remount(Path::new(&path), MountFlags::RDONLY, c"") {
        console::say(&format!("shutdown: upper disk stays writable: {error}"));
    }
}

/// Off, at once.
pub(super) fn power_off() -> ! {
    loop {
        if let Err(error) = rustix::system::reboot(RebootCommand::PowerOff) {
            console::say(&format!("power off: {error}"));
        }
        std::thread::park_timeout(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_terminal_is_told_from_others() {
        assert!(has_terminal(b"12 (bash) S 1 12 12 34816 12 4194560 1"));
        assert!(!has_terminal(b"12 (dockerd) S 1 12 12 0 -1 4194560 1"));
        assert!(!has_terminal(b"12 (a) S 1 1 1 5 (b\xff) S 1 12 12 0 -1 1"));
        assert!(!has_terminal(b""));
    }
}
