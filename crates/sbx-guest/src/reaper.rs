//! The one place that waits for children: started programs and, as PID 1, everybody's orphans.
//!
//! `std` waits for a child itself when its `exec` failed, and would panic if somebody else had collected it
//! first. So a child that nobody has registered is collected only while no start is under way.

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus};
use sbx_wire::guest::ExitStatus;
use std::collections::HashMap;
use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

type OnExit = Box<dyn FnOnce(ExitStatus) + Send>;

#[derive(Default)]
struct State {
    /// Children whose end somebody wants to know.
    watched: HashMap<i32, OnExit>,
    /// Starts under way.
    starting: usize,
    /// The last wait found no child at all.
    childless: bool,
}

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub struct Reaper {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Reaper {
    /// Starts the waiting thread.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start() -> io::Result<Self> {
        let reaper = Self::default();
        let waiter = reaper.clone();
        std::thread::Builder::new()
            .name("reaper".into())
            .stack_size(128 << 10)
            .spawn(move || {
                loop {
                    waiter.wait_once();
                }
            })?;
        Ok(reaper)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between statements; a panicking callback does not spoil it.
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spawns `command`; `on_exit` runs on the waiting thread once the child has ended and must be brief.
    /// The returned handle is for its pipes and pid: waiting on it would find the child gone.
    ///
    /// # Errors
    /// Those of [`Command::spawn`].
    pub fn spawn(
        &self,
        command: &mut Command,
        on_exit: impl FnOnce(ExitStatus) + Send + 'static,
    ) -> io::Result<Child> {
        self.lock().starting += 1;
        let child = command.spawn();
        let mut state = self.lock();
        state.starting -= 1;
        if let Ok(child) = &child {
            state
                .watched
                .insert(child.id().cast_signed(), Box::new(on_exit));
            state.childless = false;
        }
        self.shared.1.notify_all();
        child
    }

    /// Sends a signal to the process group that the watched child `pid` leads. The lock keeps the number
    /// from being collected and given to somebody else in between. `false`: it has ended.
    pub fn signal_group(&self, pid: u32, signal: Signal) -> bool {
        let state = self.lock();
        let pid = pid.cast_signed();
        let Some(group) = Pid::from_raw(pid).filter(|_| state.watched.contains_key(&pid)) else {
            return false;
        };
        rustix::process::kill_process_group(group, signal).is_ok()
    }

    /// Waits until there is no child left, at most `limit`. Says whether that happened.
    pub fn wait_childless(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while !state.childless {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            state = self.wait(state, left);
        }
        true
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        match self.shared.1.wait_timeout(state, limit) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }

    /// Waits for one event: a child ended, or (without children) a start.
    fn wait_once(&self) {
        /// Only while a start hangs (a dead share) with an orphan waiting: how often others are looked after.
        const RETRY: Duration = Duration::from_millis(50);
        match rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(_) => {
                let mut state = self.lock();
                if !collect(&mut state) && state.starting > 0 {
                    drop(self.wait(state, RETRY));
                }
            }
            Err(Errno::CHILD) => {
                let mut state = self.lock();
                // A start may have ended between the wait and the lock: then there is a child again.
                if state.watched.is_empty() {
                    state.childless = state.starting == 0;
                    self.shared.1.notify_all();
                    // An orphan's parent is a descendant of something that was started, so until the
                    // next start there is nothing to wait for.
                    drop(self.wait(state, Duration::from_mins(1)));
                }
            }
            // Interrupted; nothing else is documented.
            Err(_) => {}
        }
    }
}

/// Collects what has ended. Says whether anything was.
fn collect(state: &mut State) -> bool {
    let mut any = false;
    let watched: Vec<i32> = state.watched.keys().copied().collect();
    for pid in watched {
        let ended = rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::NOHANG);
        if let Ok(Some((_, status))) = ended {
            any = true;
            deliver(state, pid, status);
        }
    }
    while state.starting == 0 {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                any = true;
                deliver(state, pid.as_raw_nonzero().get(), status);
            }
            _ => break,
        }
    }
    any
}

fn deliver(state: &mut State, pid: i32, status: WaitStatus) {
    if let Some(on_exit) = state.watched.remove(&pid) {
        on_exit(exit_status(status));
    }
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(byte(code)),
        (None, Some(signal)) => ExitStatus::Signal(byte(signal)),
        (None, None) => ExitStatus::Code(u8::MAX),
    }
}

#[cfg(test)]
#[expect(
    clippy::zombie_processes,
    reason = "the reaper under test waits for them"
)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    // One test: a process has one set of children, and a second reaper would collect the first one's.
    #[test]
    fn ends_are_reported_and_a_failed_exec_is_not_stolen_from_std() {
        let reaper = Reaper::start().unwrap();
        let (tx, rx) = mpsc::channel();
        for round in 0..50 {
            let tx = tx.clone();
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &format!("exit {round}")]);
            reaper
                .spawn(&mut command, move |status| tx.send(status).unwrap())
                .unwrap();
            assert!(
                reaper
                    .spawn(&mut Command::new("/nonexistent"), |_| ())
                    .is_err()
            );
        }
        let mut codes: Vec<u8> = (0..50).map(|_| rx.recv().unwrap().code()).collect();
        codes.sort_unstable();
        assert_eq!(codes, (0..50).collect::<Vec<u8>>());
        assert!(reaper.wait_childless(Duration::from_secs(10)));

        let mut command = Command::new("sleep");
        command.arg("1000");
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = reaper
            .spawn(&mut command, move |status| tx.send(status).unwrap())
            .unwrap();
        assert!(reaper.signal_group(child.id(), Signal::TERM));
        assert_eq!(rx.recv().unwrap(), ExitStatus::Signal(15));
        assert!(!reaper.signal_group(child.id(), Signal::TERM));
    }
}
