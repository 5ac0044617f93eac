//! Processes and sockets without an owner: of a sandbox that is gone, or whose supervisor is.
//!
//! A helper dies with its spawner, and the spawner with the supervisor, so there are none unless the kernel was kept
//! from doing its part. One is known by its name and by the sandbox's folder in its arguments: both can be read also
//! where a process is not dumpable. Process ids are never stored, and a process is ended through a descriptor of it,
//! which cannot come to mean another one.

use super::Finding;
use super::fix::Fix;
use super::sandboxes::runs;
use crate::lifecycle;
use crate::reconcile;
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};
use sbx_wire::diagnosis::{Check, Group, Outcome};
use sbx_wire::home::Home;
use sbx_wire::launch::files::LOCK;
use sbx_wire::report::Report;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// What a sandbox consists of, by the last part of the path it was started with.
const PROGRAMS: [&str; 4] = [
    "sbx-supervisor",
    "sbx-gateway",
    "sbx-share",
    "qemu-system-x86_64",
];
/// A supervisor takes its lock this soon after its start, clock ticks (1/100 s): a younger one is no stray.
const YOUNG: u64 = 30 * 100;

/// A process that nobody supervises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stray {
    pid: i32,
    program: String,
    sandbox: String,
    /// Clock ticks from the boot of the host to its start: with the pid, an identity.
    started: u64,
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (pid {}) of sandbox {}",
            self.program, self.pid, self.sandbox
        )
    }
}

impl Stray {
    /// Ends it, if it is still the same process.
    pub(super) fn end(&self) -> Result<(), Report> {
        let failed = |error: rustix::io::Errno| {
            let hint = format!("kill {}", self.pid);
            Report::environment("stray", format!("cannot end {self}: {error}"), hint)
        };
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(());
        };
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        // Looked at again now that the descriptor holds on to whatever has this id.
        if started(self.pid) != Some(self.started) {
            return Ok(());
        }
        match pidfd_send_signal(&process, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }
}

pub(super) fn look(home: &Home) -> Vec<Finding> {
    vec![processes(home), sockets(home)]
}

fn check(name: &str, status: Outcome, message: impl Into<String>) -> Check {
    Check::new(Group::Storage, name, status, message)
}

fn processes(home: &Home) -> Finding {
    let strays = now().map_or_else(Vec::new, |now| find(home, now));
    if strays.is_empty() {
        return check("processes", Outcome::Pass, "every process has an owner").into();
    }
    let names: Vec<String> = strays.iter().map(Stray::to_string).collect();
    Finding {
        check: check(
            "processes",
            Outcome::Fail,
            format!("{} processes run without a supervisor", strays.len()),
        )
        .detail(names.join("; "))
        .hint("sbx diagnose --repair ends them"),
        fixes: strays.into_iter().map(Fix::End).collect(),
    }
}

/// Folders of sockets of sandboxes of which nothing runs.
fn sockets(home: &Home) -> Finding {
    let mut stale = Vec::new();
    for entry in fs::read_dir(&home.runtime).into_iter().flatten().flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if reconcile::is_id(&id) && !runs(&home.sandbox_dir(&id)) && !is_young(&entry.path()) {
            stale.push(entry.path());
        }
    }
    if stale.is_empty() {
        return check("sockets", Outcome::Pass, "every socket has an owner").into();
    }
    let names: Vec<String> = stale
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    Finding {
        check: check(
            "sockets",
            Outcome::Warn,
            format!(
                "{} folders of sockets are left of sandboxes that ended",
                stale.len()
            ),
        )
        .detail(names.join(", "))
        .hint("sbx diagnose --repair removes them; a start does, too"),
        fixes: stale.into_iter().map(Fix::Sockets).collect(),
    }
}

/// A sandbox that is being started has its folder before its supervisor has the lock.
fn is_young(path: &Path) -> bool {
    let modified = path.metadata().and_then(|meta| meta.modified());
    modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() < YOUNG / 100))
}

/// `now`: clock ticks since boot.
fn find(home: &Home, now: u64) -> Vec<Stray> {
    let roots = [home.sandboxes(), home.runtime.clone()];
    let mut found: Vec<Stray> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| stray(home, &roots, pid, now))
        .collect();
    found.sort_by_key(|stray| stray.pid);
    found
}

fn stray(home: &Home, roots: &[PathBuf], pid: i32, now: u64) -> Option<Stray> {
    let before = started(pid)?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = String::from_utf8_lossy(&arguments).into_owned();
    let program = arguments.split('\0').next()?.rsplit('/').next()?;
    if !PROGRAMS.contains(&program) || !is_ours(pid) {
        return None;
    }
    let sandbox = roots.iter().find_map(|root| {
        let behind = arguments.split(root.to_str()?).nth(1)?;
        let id: String = behind.strip_prefix('/')?.chars().take(12).collect();
        reconcile::is_id(&id).then_some(id)
    })?;
    let owned = !lifecycle::is_free(&home.sandbox_dir(&sandbox).join(LOCK));
    if owned || now.saturating_sub(before) < YOUNG {
        return None;
    }
    Some(Stray {
        pid,
        program: program.to_owned(),
        sandbox,
        started: before,
    })
}

/// Whether its effective user is ours (`proc_pid_status(5)`).
fn is_ours(pid: i32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let uid = text.lines().find_map(|line| {
        let ids = line.strip_prefix("Uid:")?;
        ids.split_whitespace().nth(1)?.parse::<u32>().ok()
    });
    uid == Some(geteuid().as_raw())
}

/// Field 22 of `/proc/PID/stat`; the name in field 2 may hold anything.
fn started(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// Clock ticks since boot.
fn now() -> Option<u64> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let (seconds, rest) = text.split_once('.')?;
    let hundredths: u64 = rest.get(..2)?.parse().ok()?;
    Some(seconds.parse::<u64>().ok()? * 100 + hundredths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FlockOperation, flock};
    use std::process::{Child, Command};

    /// A process with this name and these arguments that waits.
    fn waiting(name: &str, place: &Path) -> Child {
        let line = format!("exec -a {name} tail -f /dev/null {}/file", place.display());
        let mut command = Command::new("bash");
        let child = command.arg("-c").arg(line).spawn().unwrap();
        let id = child.id();
        // Until it is that program.
        while !fs::read(format!("/proc/{id}/cmdline"))
            .is_ok_and(|text| text.starts_with(name.as_bytes()))
        {
            std::thread::yield_now();
        }
        child
    }

    #[test]
    fn only_a_process_that_nobody_supervises_is_found_and_only_that_one_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home {
            state: folder.path().join("state"),
            cache: folder.path().join("cache"),
            config: folder.path().join("config"),
            runtime: folder.path().join("run"),
        };
        let dir = |id: &str| {
            let dir = home.sandbox_dir(id);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("file"), "").unwrap();
            dir
        };
        let (lost, owned) = (dir("00000000000a"), dir("00000000000b"));
        let lock = fs::File::create(owned.join(LOCK)).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let mut stray = waiting("sbx-gateway", &lost);
        let others = [
            waiting("vi", &lost),
            waiting("sbx-gateway", &owned),
            waiting("sbx-gateway", folder.path()),
        ];
        let now = now().unwrap();
        // Too young to be told from one that is being started.
        assert_eq!(find(&home, now), []);
        let found = find(&home, now + YOUNG + 100);
        let pids: Vec<i32> = found.iter().map(|stray| stray.pid).collect();
        assert_eq!(pids, [i32::try_from(stray.id()).unwrap()]);
        // A process id that has become another process's, as after a reboot.
        for other in &others {
            let reused = Stray {
                pid: i32::try_from(other.id()).unwrap(),
                started: found[0].started.wrapping_sub(1),
                ..found[0].clone()
            };
            reused.end().unwrap();
        }
        found[0].end().unwrap();
        assert!(!stray.wait().unwrap().success());
        for mut other in others {
            assert_eq!(other.try_wait().unwrap(), None);
            other.kill().unwrap();
            other.wait().unwrap();
        }
        // It is gone: nothing to do, and nothing to signal.
        found[0].end().unwrap();
    }
}
