//! A process tree whose system calls are counted, and in which one process is killed at one of them (`ptrace(2)`).
//!
//! `strace -e inject` cannot do it: it counts per thread and per call, follows every process or none, and cannot be
//! told which of them is meant. Here one thread traces everything below the daemon. Only processes that are aimed
//! at are stopped at their calls; the others are followed through `fork` and `execve`, which costs next to nothing.
//! When the tracer ends, so does everything that it traces.

use super::calls::describe;
use super::role::{Part, Role, classify};
use super::status::{is_leader, maker};
use super::sys;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Stops itself until it is traced, then becomes the program.
const STOPPED_START: &str = "kill -STOP $$; exec \"$0\" \"$@\"";
/// Wakes the thread that waits for its tracees.
const BELL: Signal = Signal::WINCH;

/// What is counted, and who is killed when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Aim {
    /// Processes that make a snapshot instead of those that run a sandbox; the daemon in any case.
    pub(super) snapshot: bool,
    /// At this call of this role, counted from 1. `None`: all roles are counted and nobody is killed.
    pub(super) kill: Option<(Role, usize)>,
}

impl Aim {
    fn means(&self, part: Option<Part>) -> Option<Role> {
        let part = part?;
        let counted = part.role == Role::Daemon || part.snapshot == self.snapshot;
        let meant = self.kill.is_none_or(|(role, _)| role == part.role);
        (counted && meant).then_some(part.role)
    }
}

/// What was seen while somebody aimed.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// Calls of each role, in order.
    pub(super) calls: BTreeMap<Role, Vec<String>>,
    /// The one at which the process was killed.
    pub(super) killed_at: Option<String>,
}

#[derive(Debug)]
enum Request {
    Spawn(Box<Command>, Sender<io::Result<(i32, Option<ChildStdout>)>>),
    Aim(Option<Aim>, Sender<Seen>),
    End,
}

/// Processes that live, by id, and those that are of interest.
#[derive(Debug, Default)]
struct Living {
    tracees: BTreeMap<i32, Option<Part>>,
}

#[derive(Debug, Default)]
struct Shared {
    living: Mutex<Living>,
    changed: Condvar,
}

impl Shared {
    fn living(&self) -> MutexGuard<'_, Living> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tracer {
    requests: Sender<Request>,
    bell: i32,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Tracer {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let (requests, received) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let shared = Arc::new(Shared::default());
        let known = shared.clone();
        let thread = std::thread::Builder::new()
            .name("tracer".to_owned())
            .spawn(move || match Loop::new(received, known) {
                Ok((mut work, bell)) => {
                    let _heard = ready.send(Ok(bell));
                    work.run();
                }
                Err(error) => {
                    let _heard = ready.send(Err(error));
                }
            })?;
        let bell = started.recv().map_err(io::Error::other)??;
        Ok(Self {
            requests,
            bell,
            shared,
            thread: Some(thread),
        })
    }

    fn ask(&self, request: Request) -> io::Result<()> {
        self.requests.send(request).map_err(io::Error::other)?;
        signal(self.bell, BELL);
        Ok(())
    }

    /// Starts a program; returns its process id and its standard output, if that is a pipe.
    pub(super) fn spawn(&self, command: Command) -> io::Result<(i32, Option<ChildStdout>)> {
        let (send, answer) = mpsc::channel();
        self.ask(Request::Spawn(Box::new(command), send))?;
        answer.recv().map_err(io::Error::other)?
    }

    /// Begins to count from zero, or ends it; returns what was seen since the last time.
    pub(super) fn aim(&self, aim: Option<Aim>) -> io::Result<Seen> {
        let (send, answer) = mpsc::channel();
        self.ask(Request::Aim(aim, send))?;
        answer.recv().map_err(io::Error::other)
    }

    /// Ids of the processes that play this part now.
    pub(super) fn processes(&self, part: Part) -> Vec<i32> {
        let living = self.shared.living();
        let found = living.tracees.iter().filter(|(_, is)| **is == Some(part));
        // Of a process with several threads, the first.
        found
            .map(|(pid, _)| *pid)
            .filter(|pid| is_leader(*pid))
            .collect()
    }

    /// Waits until a process has ended. False: it has not.
    pub(super) fn await_end(&self, pid: i32, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut living = self.shared.living();
        while living.tracees.contains_key(&pid) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(living, left);
            living = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Its end ends all that it traces.
        let _ = self.ask(Request::End);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// Sends a signal. A process that has ended does not matter.
pub(super) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Tracees of this thread, threads among them; never the children of another thread (`waitpid(2)`).
fn all_of_this_thread() -> WaitOptions {
    WaitOptions::from_bits_retain((libc::__WALL | libc::__WNOTHREAD).cast_unsigned())
}

/// The thread's own state.
struct Loop {
    requests: Receiver<Request>,
    bell: i32,
    shared: Arc<Shared>,
    aim: Option<Aim>,
    seen: Seen,
    /// Tracees that were met before the event that says who made them.
    early: BTreeSet<i32>,
    ended: bool,
    /// The stand-in for the guest has its channel, since somebody aimed.
    guest_is_there: bool,
}

impl Loop {
    fn new(requests: Receiver<Request>, shared: Arc<Shared>) -> io::Result<(Self, i32)> {
        let mut command = Command::new("tail");
        command.args(["-f", "/dev/null"]).stdin(Stdio::null());
        let child = command.spawn()?;
        let bell = child.id().cast_signed();
        if let Err(error) = sys::seize(bell) {
            signal(bell, Signal::KILL);
            return Err(error);
        }
        let this = Self {
            requests,
            bell,
            shared,
            aim: None,
            seen: Seen::default(),
            early: BTreeSet::new(),
            ended: false,
            guest_is_there: false,
        };
        Ok((this, bell))
    }

    fn run(&mut self) {
        while !self.ended {
            match wait(all_of_this_thread()) {
                Ok(Some((pid, status))) => {
                    self.on_status(pid.as_raw_nonzero().get(), status.as_raw());
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                // Not even the bell is left.
                Err(_) => return,
            }
        }
        self.end_all();
    }

    fn end_all(&self) {
        let pids: Vec<i32> = self.shared.living().tracees.keys().copied().collect();
        for pid in pids.into_iter().chain(self.early.iter().copied()) {
            signal(pid, Signal::KILL);
        }
        signal(self.bell, Signal::KILL);
        // Until there are no children left; one that was only just made stops, and is met here first.
        while let Ok(heard) = wait(all_of_this_thread()) {
            if let Some((pid, status)) = heard
                && status.stopped()
            {
                signal(pid.as_raw_nonzero().get(), Signal::KILL);
            }
        }
    }

    fn on_status(&mut self, pid: i32, status: i32) {
        if status & 0xff != 0x7f {
            self.forget(pid);
            return;
        }
        let (signal, event) = ((status >> 8) & 0xff, status >> 16);
        if pid == self.bell {
            while let Ok(request) = self.requests.try_recv() {
                self.obey(request);
            }
            let _ = sys::go_on(pid, 0);
            return;
        }
        let mut deliver = 0;
        match event {
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                self.on_child(pid);
            }
            libc::PTRACE_EVENT_EXEC => {
                let part = classify(pid);
                self.shared.living().tracees.insert(pid, part);
            }
            // The first stop of a new tracee, an interruption by us, or a group that stops: all go on.
            libc::PTRACE_EVENT_STOP => self.on_stop(pid),
            _ if signal == libc::SIGTRAP | 0x80 => self.on_call(pid),
            // How a new one waits for us.
            _ if signal == libc::SIGSTOP => {}
            _ => deliver = signal,
        }
        self.resume(pid, deliver);
    }

    fn forget(&mut self, pid: i32) {
        self.early.remove(&pid);
        self.shared.living().tracees.remove(&pid);
        for child in self.early.clone() {
            self.adopt_orphan(child);
        }
        self.shared.changed.notify_all();
    }

    /// A new process whose maker was killed before it was heard that it made one: nobody will tell of it any more.
    fn adopt_orphan(&mut self, child: i32) {
        let maker = maker(child);
        if maker.is_some_and(|pid| self.shared.living().tracees.contains_key(&pid)) {
            return;
        }
        self.early.remove(&child);
        let part = classify(child);
        self.shared.living().tracees.insert(child, part);
        self.resume(child, 0);
    }

    /// A new process is what its parent is, until it becomes another program.
    fn on_child(&mut self, parent: i32) {
        let child = sys::event_message(parent).ok();
        let Some(child) = child.and_then(|id| i32::try_from(id).ok()) else {
            return;
        };
        let mut living = self.shared.living();
        let part = living.tracees.get(&parent).copied().flatten();
        living.tracees.insert(child, part);
        drop(living);
        if self.early.remove(&child) {
            self.resume(child, 0);
        }
    }

    fn on_stop(&mut self, pid: i32) {
        if !self.shared.living().tracees.contains_key(&pid) {
            self.early.insert(pid);
            self.adopt_orphan(pid);
        }
    }

    fn resume(&self, pid: i32, signal: i32) {
        if self.early.contains(&pid) {
            return;
        }
        let part = self.shared.living().tracees.get(&pid).copied().flatten();
        let watched = self.aim.is_some_and(|aim| aim.means(part).is_some());
        // Fails when it was killed meanwhile: then its end is the next that is heard.
        let _ = if watched {
            sys::go_on_to_call(pid, signal)
        } else {
            sys::go_on(pid, signal)
        };
    }

    fn on_call(&mut self, pid: i32) {
        let Some(aim) = self.aim else { return };
        let Some(call) = sys::call(pid) else { return };
        let part = self.shared.living().tracees.get(&pid).copied().flatten();
        let Some(role) = aim.means(part) else {
            return;
        };
        let Some(call) = describe(pid, &call) else {
            return;
        };
        if role == Role::Guest && !self.guest_is_there {
            // Before that there is no channel, which no guest can bring about: it is QEMU that listens.
            self.guest_is_there = call.starts_with("accept4");
            return;
        }
        let calls = self.seen.calls.entry(role).or_default();
        calls.push(call.clone());
        if aim.kill == Some((role, calls.len())) {
            // Before the call has done anything: a process that is to end does not make it any more.
            signal(pid, Signal::KILL);
            self.seen.killed_at = Some(call);
            self.aim = None;
        }
    }

    fn obey(&mut self, request: Request) {
        match request {
            Request::End => self.ended = true,
            Request::Spawn(command, answer) => {
                let _heard = answer.send(self.spawn(&command));
            }
            Request::Aim(aim, answer) => {
                self.aim = aim;
                self.guest_is_there = false;
                self.watch();
                let _heard = answer.send(std::mem::take(&mut self.seen));
            }
        }
    }

    /// Stops whoever is aimed at, so that it goes on as one that is watched.
    fn watch(&self) {
        let Some(aim) = self.aim else { return };
        let living = self.shared.living();
        for (pid, part) in &living.tracees {
            if aim.means(*part).is_some() {
                // One that is stopped goes on in this way by itself; one that has ended does not matter.
                let _ = sys::interrupt(*pid);
            }
        }
    }

    fn spawn(&self, command: &Command) -> io::Result<(i32, Option<ChildStdout>)> {
        let mut stopped = Command::new("sh");
        stopped
            .arg("-c")
            .arg(STOPPED_START)
            .arg(command.get_program());
        stopped.args(command.get_args()).env_clear();
        let variables = command.get_envs();
        stopped.envs(variables.filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            stopped.current_dir(folder);
        }
        let stopped = stopped.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = stopped.spawn()?;
        let pid = child.id().cast_signed();
        self.shared.living().tracees.insert(pid, None);
        sys::seize(pid)?;
        Ok((pid, child.stdout.take()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_maker_is_killed_while_making_it_ends_by_itself_or_with_the_tracer() {
        for round in 0..60_u64 {
            let tracer = Tracer::start().unwrap();
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do (:) & done"]);
            let (pid, _output) = tracer.spawn(command).unwrap();
            std::thread::park_timeout(Duration::from_millis(5 + round % 7));
            signal(pid, Signal::KILL);
            assert!(tracer.await_end(pid, Duration::from_secs(10)));
            // Half of the rounds wait for what was made, the others end it.
            let deadline = Instant::now() + Duration::from_secs(10);
            while round % 2 == 0 && !tracer.shared.living().tracees.is_empty() {
                assert!(Instant::now() < deadline, "{:?}", tracer.shared.living());
                std::thread::park_timeout(Duration::from_millis(1));
            }
            let (done, ended) = mpsc::channel();
            std::thread::spawn(move || {
                drop(tracer);
                let _heard = done.send(());
            });
            let ended = ended.recv_timeout(Duration::from_secs(10));
            assert!(ended.is_ok(), "the tracer hangs in round {round}");
        }
    }
}
