//! The private Docker Engine. Its socket is bound when the machine boots and handed over by socket
//! activation (`sd_listen_fds(3)`), so that a client that comes early waits in the socket's queue instead of
//! failing. A client that comes when there is no hope fails at once.

use super::disks::Disks;
use super::engine_config::{self, CONTAINERD_SOCKET};
use crate::agent::{Event, Mailbox};
use crate::console;
use crate::files;
use crate::reaper::Reaper;
use crate::users::Database;
use rustix::fd::OwnedFd;
use rustix::process::Signal;
use sbx_wire::guest::{DockerState, ExitStatus, Personalise, Prepare};
use std::fs;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const SOCKET: &str = "/run/docker.sock";
const DAEMON: &str = "/usr/sbin/dockerd";
const CONTAINERD: &str = "/usr/bin/containerd";
const CONTAINERD_CONFIG: &str = "/run/containerd/sbx.toml";
const LOG: &str = "/var/log/dockerd.log";
const CONFIG: &str = "/etc/docker/daemon.json";
/// What we wrote there last.
const WRITTEN: &str = "/etc/docker/daemon.json.sbx";
/// A start that takes longer has failed; clients that wait are told so. On an emulated processor that shares a busy host it
/// was seen to take more than a minute.
const READY_LIMIT: Duration = Duration::from_mins(5);
/// So many unexpected ends in [`DEATH_SPAN`] and it is not started again.
const DEATHS: usize = 5;
const DEATH_SPAN: Duration = Duration::from_mins(5);

/// See the module.
pub(super) struct Engine {
    mailbox: Mailbox,
    reaper: Reaper,
    /// `None`: given up, or not wanted.
    listener: Mutex<Option<UnixListener>>,
    /// The data disk, being mounted.
    disk: Mutex<Option<JoinHandle<io::Result<()>>>>,
    started: AtomicBool,
    /// The machine is going down: an end is expected.
    leave_alone: AtomicBool,
    state: Mutex<DockerState>,
    changed: Condvar,
}

/// What an engine is started with.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Whether at all.
    engine: bool,
    /// See [`Prepare::mtu`].
    mtu: u16,
    /// The sandbox's variables.
    env: Vec<(String, String)>,
}

impl From<&Personalise> for Wanted {
    fn from(request: &Personalise) -> Self {
        Self {
            engine: request.docker,
            mtu: request.network.mtu,
            env: request.env.clone(),
        }
    }
}

impl From<&Prepare> for Wanted {
    fn from(request: &Prepare) -> Self {
        Self {
            engine: true,
            mtu: request.mtu,
            env: request.env.clone(),
        }
    }
}

/// What the supervising thread is told.
enum News {
    Ended(ExitStatus),
    Answered,
}

impl Engine {
    /// Binds the socket and begins to mount the data disk.
    pub(super) fn bind(disks: &Disks, mailbox: Mailbox, reaper: Reaper) -> io::Result<Self> {
        let disks = disks.clone();
        let disk = std::thread::Builder::new().name("docker-disk".into());
        let disk = disk.spawn(move || disks.mount_docker())?;
        let listener = UnixListener::bind(SOCKET)?;
        // Without such a group the socket is root's alone.
        let group = Database::read().group_id("docker").unwrap_or(0);
        std::os::unix::fs::chown(SOCKET, Some(0), Some(group))?;
        fs::set_permissions(SOCKET, std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
        Ok(Self {
            mailbox,
            reaper,
            listener: Mutex::new(Some(listener)),
            disk: Mutex::new(Some(disk)),
            started: AtomicBool::new(false),
            leave_alone: AtomicBool::new(false),
            state: Mutex::new(DockerState::Starting),
            changed: Condvar::new(),
        })
    }

    /// From now on an end of the engine is nobody's business.
    pub(super) fn leave_alone(&self) {
        self.leave_alone.store(true, Ordering::SeqCst);
        // Whoever looks at it between two waits has looked, or hears this.
        drop(self.state.lock());
        self.changed.notify_all();
    }

    /// Waits so long, or until the machine goes down.
    fn is_left_alone_within(&self, time: Duration) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |_: &mut DockerState| !self.leave_alone.load(Ordering::SeqCst);
        let waited = self.changed.wait_timeout_while(state, time, waits);
        let (_state, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
        !outcome.timed_out()
    }

    /// Starts and supervises the engine, once; returns at the end of it.
    pub(super) fn run(&self, wanted: &Wanted) {
        if self.started.swap(true, Ordering::SeqCst) {
            return;
        }
        let outcome = if wanted.engine {
            self.tell(DockerState::Starting);
            self.disk()
                .and_then(|()| prepare(wanted))
                .and_then(|()| self.supervise(wanted))
        } else {
            Err(io::Error::other("not wanted for this sandbox"))
        };
        if let Err(error) = outcome {
            self.give_up(&error.to_string());
        }
    }

    /// Waits for the data disk.
    fn disk(&self) -> io::Result<()> {
        let mounting = self
            .disk
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mounting = mounting.ok_or_else(|| io::Error::other("its disk was asked for before"))?;
        mounting
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("mounting its disk panicked")))
    }

    fn tell(&self, state: DockerState) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&state);
        self.changed.notify_all();
        self.mailbox.send(Event::Docker(state));
    }

    /// Waits until the engine answers, or until there is no hope.
    pub(super) fn await_ready(&self) -> io::Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let starting = |state: &mut DockerState| matches!(state, DockerState::Starting);
        let (state, _) = self
            .changed
            .wait_timeout_while(state, READY_LIMIT, starting)
            .unwrap_or_else(PoisonError::into_inner);
        match &*state {
            DockerState::Ready { .. } => Ok(()),
            DockerState::Failed(why) => Err(io::Error::other(why.clone())),
            DockerState::Starting => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Closes the socket: whoever waits in its queue is refused, and so is whoever comes.
    fn give_up(&self, reason: &str) {
        let listener = self
            .listener
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(listener);
        let _ = fs::remove_file(SOCKET);
        if !self.leave_alone.load(Ordering::SeqCst) {
            console::debug(&format!("docker engine: {reason}"));
            self.tell(DockerState::Failed(reason.to_owned()));
        }
    }

    /// Keeps the engine running. Returns with the reason when it is not to be started again.
    fn supervise(&self, wanted: &Wanted) -> io::Result<()> {
        let mut deaths: Vec<Instant> = Vec::new();
        loop {
            let (tell, news) = mpsc::channel();
            // Started together, they start up on two processors; the engine's own way is one after the
            // other, which takes seconds longer under emulation.
            let containerd = self.spawn(containerd(), wanted, &tell)?;
            let engine = self.spawn(self.dockerd()?, wanted, &tell)?;
            console::debug("docker engine started");
            let ended = self.accompany(tell, &news);
            // Neither is of use without the other.
            for pid in [engine, containerd] {
                self.reaper.signal_group(pid, Signal::KILL);
            }
            let status = ended?;
            if self.leave_alone.load(Ordering::SeqCst) {
                return Err(io::Error::other("the machine is shutting down"));
            }
            deaths.retain(|death| death.elapsed() < DEATH_SPAN);
            deaths.push(Instant::now());
            let text = format!("dockerd ended ({status:?}): {}", last_log_line());
            if deaths.len() >= DEATHS {
                return Err(io::Error::other(format!(
                    "{text}; given up after {DEATHS} times"
                )));
            }
            self.mailbox.send(Event::Log(text));
            self.tell(DockerState::Starting);
            if self.is_left_alone_within(pause(deaths.len())) {
                return Err(io::Error::other("the machine is shutting down"));
            }
        }
    }

    /// From the start of the process to its end: says when it answers, and ends it when it does not.
    fn accompany(
        &self,
        tell: mpsc::Sender<News>,
        news: &mpsc::Receiver<News>,
    ) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + READY_LIMIT;
        let pinger = std::thread::Builder::new()
            .name("ping".into())
            .stack_size(128 << 10);
        pinger.spawn(move || {
            if ping(deadline) {
                // Nobody listens when the engine has ended in the meantime.
                let _ = tell.send(News::Answered);
            }
        })?;
        let mut ready = false;
        loop {
            let left = if ready {
                Duration::MAX
            } else {
                deadline.saturating_duration_since(Instant::now())
            };
            match news.recv_timeout(left) {
                Ok(News::Ended(status)) => return Ok(status),
                Ok(News::Answered) => {
                    ready = true;
                    let uptime_ms = console::uptime_ms();
                    console::debug("docker engine answers");
                    self.tell(DockerState::Ready { uptime_ms });
                }
                Err(RecvTimeoutError::Timeout) => {
                    let limit = READY_LIMIT.as_secs();
                    return Err(io::Error::other(format!(
                        "no answer within {limit} s: {}",
                        last_log_line()
                    )));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("its end was not noticed"));
                }
            }
        }
    }

    fn spawn(
        &self,
        mut command: Command,
        wanted: &Wanted,
        tell: &mpsc::Sender<News>,
    ) -> io::Result<u32> {
        let log = fs::OpenOptions::new().create(true).append(true).open(LOG)?;
        command
            .env_clear()
            .envs(engine_config::environment(&wanted.env))
            .current_dir("/")
            .process_group(0)
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        let tell = tell.clone();
        let child = self.reaper.spawn(&mut command, move |status| {
            // Nobody listens when the other one's end was noticed first.
            let _ = tell.send(News::Ended(status));
        })?;
        Ok(child.id())
    }

    fn dockerd(&self) -> io::Result<Command> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = listener
            .as_ref()
            .ok_or_else(|| io::Error::other("the socket is closed"))?;
        let mut command = Command::new("/proc/self/exe");
        command
            .args([
                "activate",
                DAEMON,
                "--host",
                "fd://",
                "--containerd",
                CONTAINERD_SOCKET,
            ])
            .stdin(OwnedFd::from(listener.try_clone()?));
        Ok(command)
    }
}

fn containerd() -> Command {
    let mut command = Command::new(CONTAINERD);
    command
        .args(["--config", CONTAINERD_CONFIG, "--log-level", "warn"])
        .stdin(Stdio::null());
    command
}

/// Configuration and log.
fn prepare(wanted: &Wanted) -> io::Result<()> {
    if !Path::new(DAEMON).exists() {
        return Err(io::Error::other("the image has no dockerd"));
    }
    let path = Path::new(CONFIG);
    let config = engine_config::dockerd(wanted.mtu);
    if let Some(parent) = path.parent() {
        files::scaffold(parent, Some(0))?;
    }
    // A configuration that the user changed is the user's: it differs from what we wrote last.
    let ours = match fs::read(path) {
        Ok(present) => {
            present == config.as_bytes() || fs::read(WRITTEN).is_ok_and(|last| last == present)
        }
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if ours {
        files::write(path, config.as_bytes(), 0o644, 0)?;
        files::write(Path::new(WRITTEN), config.as_bytes(), 0o644, 0)?;
    }
    if let Some(parent) = Path::new(CONTAINERD_CONFIG).parent() {
        files::scaffold(parent, Some(0))?;
    }
    files::write(
        Path::new(CONTAINERD_CONFIG),
        engine_config::containerd().as_bytes(),
        0o644,
        0,
    )?;
    fs::write(LOG, "")
}

/// Asks until there is an answer. The connection waits in the socket's queue, so one is usually enough; it
/// breaks when an engine accepted it and died.
fn ping(deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        if ping_once(left).unwrap_or(false) {
            return true;
        }
        if !Path::new(SOCKET).exists() {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

fn ping_once(limit: Duration) -> io::Result<bool> {
    let mut stream = UnixStream::connect(SOCKET)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(head.starts_with(b"HTTP/1.") && &head[8..] == b" 200")
}

fn last_log_line() -> String {
    last_line(Path::new(LOG))
}

/// Time before the next start after so many ends: 1, 2, 4 and 8 s. What fails at once, such as on a full disk, would use
/// them all up in a moment.
fn pause(deaths: usize) -> Duration {
    Duration::from_secs(1 << deaths.saturating_sub(1).min(DEATHS))
}

/// A log has no bound while its machine runs: only its end is read.
fn last_line(log: &Path) -> String {
    /// Enough for one line of the engine's.
    const TAIL: u64 = 2000;
    let end = || -> io::Result<Vec<u8>> {
        let mut log = fs::File::open(log)?;
        let size = log.metadata()?.len();
        log.seek(io::SeekFrom::Start(size.saturating_sub(TAIL)))?;
        let mut end = Vec::new();
        log.take(TAIL).read_to_end(&mut end)?;
        Ok(end)
    };
    let end = end().unwrap_or_default();
    String::from_utf8_lossy(&end)
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("its log is empty")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_the_last_line_with_words_in_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        assert_eq!(last_line(&log), "its log is empty");
        fs::write(&log, format!("first\n{}\nno space\n \n", "x".repeat(5000))).unwrap();
        assert_eq!(last_line(&log), "no space");
    }

    #[test]
    fn an_engine_that_ends_at_once_is_started_again_after_longer_and_longer() {
        let pauses: Vec<u64> = (1..DEATHS).map(|deaths| pause(deaths).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8]);
    }
}
