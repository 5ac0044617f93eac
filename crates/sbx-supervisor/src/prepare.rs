//! Everything that is opened before the jail closes, and the jail.
//!
//! After this the supervisor can write to the few files that are open, and remove sockets from the runtime directory: not
//! write to its sandbox's directory, so that one taken over cannot rewrite the policy file or the launch document for
//! the next start, and not make or rename a socket, so that it cannot be taken for its gateway.

use crate::console::Console;
use crate::log::BoundedLog;
use crate::{launch, spawner};
use rustix::fs::{FlockOperation, flock};
use sbx_jail::{Jail, JailError, Profile};
use sbx_wire::launch::{Launch, files, sockets};
use std::fs::{File, Permissions};
use std::io::{self, PipeReader, Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

/// The last epoch that was used.
pub const EPOCH: &str = "epoch";
/// Time for the processes of an earlier run to end.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// Why the supervisor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The launch document is unusable.
    #[error(transparent)]
    Launch(#[from] launch::LaunchError),
    /// Another one runs.
    #[error("the sandbox in {0} is running already")]
    Running(PathBuf),
    /// A file, socket or process could not be made.
    #[error("{what}: {source}")]
    Io {
        /// Which.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Privileges could not be dropped.
    #[error(transparent)]
    Jail(#[from] JailError),
}

/// A supervisor that is ready to run, jailed.
#[derive(Debug)]
pub struct Prepared {
    /// What the run itself needs.
    pub life: Parts,
    /// `supervisor.sock`.
    pub listener: UnixListener,
    /// The spawner's process.
    pub spawner: Child,
    /// `last-exit`, empty.
    pub last_exit: File,
    /// See [`LOCK`].
    pub lock: File,
    /// See [`ALIVE`]: for waiting until it is free.
    pub alive: File,
}

/// What [`crate::life::Life`] is made from.
#[derive(Debug)]
pub struct Parts {
    /// What to start.
    pub launch: Launch,
    /// Epoch of this run's guest channel.
    pub epoch: u32,
    /// The spawner's socket.
    pub link: UnixStream,
    /// The console pipe.
    pub console_pipe: PipeReader,
    /// The console log.
    pub console: Console,
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> PrepareError {
    let what = what.into();
    move |source| PrepareError::Io { what, source }
}

/// Prepares the sandbox in `dir`. Must run while the process has one thread.
///
/// # Errors
/// See [`PrepareError`].
pub fn prepare(dir: &Path) -> Result<Prepared, PrepareError> {
    sbx_jail::close_on_exec_from(3).map_err(io_error("close_range"))?;
    // Fails if the daemon has done it already.
    let _ = rustix::process::setsid();
    let lock = take_lock(dir, files::LOCK)?;
    let last_exit = create(&dir.join(files::LAST_EXIT), false)?;
    last_exit.set_len(0).map_err(io_error(files::LAST_EXIT))?;
    let log = create(&dir.join(files::SUPERVISOR_LOG), true)?;
    start_logging(&log).map_err(io_error(files::SUPERVISOR_LOG))?;
    let mut note = last_exit.try_clone().map_err(io_error(files::LAST_EXIT))?;
    prepare_rest(dir, &log, lock, last_exit).inspect_err(|error| {
        tracing::error!("{error}");
        let _ = note.write_all(error.to_string().as_bytes());
    })
}

fn prepare_rest(
    dir: &Path,
    log: &File,
    lock: File,
    last_exit: File,
) -> Result<Prepared, PrepareError> {
    let launch = launch::load(dir)?;
    let epoch = next_epoch(&dir.join(EPOCH)).map_err(io_error(EPOCH))?;
    let console_file = create(&dir.join(files::CONSOLE), true)?;
    let console = Console::new(console_file).map_err(io_error(files::CONSOLE))?;
    remove_sockets(&launch);
    make_anew(&launch.runtime.join(sockets::MACHINE_DIR))?;
    let listener = listen(&launch.runtime.join(sockets::SUPERVISOR))?;
    let inherited = take_lock(dir, files::ALIVE)?;
    rustix::io::fcntl_setfd(inherited.as_fd(), rustix::io::FdFlags::empty())
        .map_err(|error| io_error(files::ALIVE)(error.into()))?;
    let (spawner, link, console_pipe) =
        spawner::launch(dir, log).map_err(io_error("the spawner"))?;
    drop(inherited);
    let alive = create(&dir.join(files::ALIVE), false)?;
    let enforced = Jail::new(Profile::Supervisor)
        .remove_in(&launch.runtime)
        .apply()?;
    tracing::info!(name = launch.name, id = launch.id, epoch, jail = %enforced, "supervisor");
    let life = Parts {
        launch,
        epoch,
        link,
        console_pipe,
        console,
    };
    Ok(Prepared {
        life,
        listener,
        spawner,
        last_exit,
        lock,
        alive,
    })
}

/// Opens a file of the sandbox for writing, readable by its user only.
fn create(path: &Path, append: bool) -> Result<File, PrepareError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = File::options();
    options
        .create(true)
        .mode(0o600)
        .write(!append)
        .append(append);
    options
        .open(path)
        .map_err(io_error(path.display().to_string()))
}

/// Waits a moment for an earlier run to end: its helpers die with it, QEMU takes some milliseconds.
fn take_lock(dir: &Path, name: &'static str) -> Result<File, PrepareError> {
    let file = create(&dir.join(name), false)?;
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                // There is no lock call with a time limit; an empty poll waits without a thread or a signal.
                let tick = rustix::event::Timespec {
                    tv_sec: 0,
                    tv_nsec: 10_000_000,
                };
                let _ = rustix::event::poll(&mut [], Some(&tick));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(PrepareError::Running(dir.to_owned()));
            }
            Err(error) => return Err(io_error(name)(error.into())),
        }
    }
}

/// Whether the spawner and every helper have ended.
pub fn all_ended(alive: &File) -> bool {
    !matches!(
        flock(alive, FlockOperation::NonBlockingLockExclusive),
        Err(rustix::io::Errno::WOULDBLOCK)
    )
}

fn start_logging(log: &File) -> io::Result<()> {
    let writer = BoundedLog::new(log.try_clone()?)?;
    // Fails only when a logger is set already, as in a test.
    let _ = tracing_subscriber::fmt()
        // It would say on standard error that it cannot write, and panic where that fails too: on a full disk, say.
        .log_internal_errors(false)
        .with_writer(writer)
        .with_ansi(false)
        .try_init();
    Ok(())
}

/// The epoch after the last one. A file that cannot be understood is an old or damaged one: any number that was
/// certainly not used in this boot of the machine does, and there is none before the machine starts.
fn next_epoch(path: &Path) -> io::Result<u32> {
    let last = match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let epoch = u32::checked_add(last, 1).unwrap_or(1);
    let new = path.with_extension("new");
    std::fs::write(&new, epoch.to_string())?;
    std::fs::rename(&new, path)?;
    Ok(epoch)
}

/// Fills `bytes` from the kernel's random generator.
pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)?;
    }
    Ok(())
}

/// Makes an empty folder of the user's alone. An earlier machine may have left there what it wanted.
fn make_anew(path: &Path) -> Result<(), PrepareError> {
    let gone = match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let made = gone.and_then(|()| std::fs::DirBuilder::new().mode(0o700).create(path));
    made.map_err(io_error(path.display().to_string()))
}

/// Removes every socket that a run leaves in the runtime directory.
pub fn remove_sockets(launch: &Launch) {
    let fixed = [
        sockets::SUPERVISOR,
        sockets::GATEWAY,
        sockets::FRAMES,
        sockets::QMP,
        sockets::GUEST,
    ];
    let shares = (0..launch.shares.len()).map(sockets::share);
    for name in fixed.map(str::to_owned).into_iter().chain(shares) {
        // Mostly it is not there.
        let _ = std::fs::remove_file(launch.runtime.join(name));
    }
    let _ = std::fs::remove_dir(launch.runtime.join(sockets::MACHINE_DIR));
}

fn listen(path: &Path) -> Result<UnixListener, PrepareError> {
    let listener = UnixListener::bind(path).map_err(io_error(path.display().to_string()))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(io_error(path.display().to_string()))?;
    Ok(listener)
}

/// Writes why the run ended: one line.
pub fn write_last_exit(file: &mut File, reason: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(reason.replace('\n', " ").as_bytes())?;
    file.sync_all()
}

/// Reads what [`write_last_exit`] wrote.
///
/// # Errors
/// When there is no such file.
pub fn read_last_exit(dir: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(dir.join(files::LAST_EXIT))?
        .take(4096)
        .read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_rise_from_run_to_run() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(EPOCH);
        assert_eq!(next_epoch(&path).unwrap(), 1);
        assert_eq!(next_epoch(&path).unwrap(), 2);
        std::fs::write(&path, "junk").unwrap();
        assert_eq!(next_epoch(&path).unwrap(), 1);
    }
}
