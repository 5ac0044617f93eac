//! What the daemon takes hold of before it serves: its folders, its lock, its socket.
//!
//! The runtime folder may lie in `/tmp`, where others can make names before us: a folder that is not ours
//! alone is refused, never repaired.

use crate::error::io_report;
use crate::files;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use sbx_wire::home::Home;
use sbx_wire::report::Report;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::{UnixListener, UnixStream};

/// Time for a daemon that was told to end: its farewell takes up to 2 s twice.
const LEAVING: Duration = Duration::from_secs(6);
/// Between two attempts to take its lock.
const POLL: Duration = Duration::from_millis(10);

/// Held as long as the daemon lives.
#[derive(Debug)]
pub(crate) struct Held {
    /// The daemon's lock: released by the kernel when this process ends, however it ends.
    pub(crate) lock: File,
    /// Where commands connect.
    pub(crate) listener: UnixListener,
}

/// No core files, no tracing by others of the same user: this process holds secrets.
pub(crate) fn harden() -> Result<(), Report> {
    let fail = |what, error| {
        Report::environment(
            "harden",
            format!("{what} failed: {error}"),
            "run on Linux 3.17 or newer",
        )
    };
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none).map_err(|e| fail("RLIMIT_CORE", e))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| fail("PR_SET_DUMPABLE", e))
}

/// Takes the lock and the socket.
pub(crate) async fn take_hold(home: &Home) -> Result<Held, Report> {
    for folder in [&home.state, &home.cache, &home.config] {
        files::private_dir(folder)?;
        close(folder)?;
    }
    files::private_dir(&home.sandboxes())?;
    let lock = lock(&home.daemon_lock(), &home.daemon_socket()).await?;
    private_runtime(&home.runtime)?;
    let socket = home.daemon_socket();
    // We hold the lock and the folder is ours alone: what lies here belongs to a daemon that has ended.
    match fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(socket_taken(&socket, &error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&socket).map_err(|error| socket_taken(&socket, &error))?;
    Ok(Held { lock, listener })
}

fn socket_taken(socket: &Path, error: &io::Error) -> Report {
    Report::environment(
        "socket-taken",
        format!("cannot listen on {}: {error}", socket.display()),
        format!("remove {} if it is not yours to keep", socket.display()),
    )
}

/// Takes the lock. A daemon that no longer answers is on its way out: it is waited for.
pub(crate) async fn lock(path: &Path, socket: &Path) -> Result<File, Report> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| io_report("open", path, &error))?;
    let deadline = Instant::now() + LEAVING;
    while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(io_report("lock", path, &error.into()));
        }
        if Instant::now() < deadline && UnixStream::connect(socket).await.is_err() {
            tokio::time::sleep(POLL).await;
            continue;
        }
        let mut pid = String::new();
        // Only for the message.
        let _ = Read::by_ref(&mut file).take(20).read_to_string(&mut pid);
        let folder = path.parent().unwrap_or(path).display().to_string();
        return Err(Report::user(
            "daemon-runs",
            format!(
                "another daemon (pid {}) works on {folder} already",
                pid.trim()
            ),
            "sbx daemon status, or sbx daemon restart to replace it",
        ));
    }
    let note = |file: &mut File| -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    // Only for the message above: a full disk is no reason not to start.
    let _ = note(&mut file);
    Ok(file)
}

/// Makes sure that a folder of ours is for us alone: whoever made it first may have made it open. What others could write
/// would be booted, or obeyed.
fn close(path: &Path) -> Result<(), Report> {
    let meta = fs::metadata(path).map_err(|error| io_report("look at", path, &error))?;
    let us = rustix::process::geteuid().as_raw();
    if meta.uid() != us {
        return Err(Report::environment(
            "folder-of-another",
            format!(
                "{} belongs to the user with id {}, who could change what sbx keeps there (it runs as {us})",
                path.display(),
                meta.uid()
            ),
            format!(
                "run sbx as that user, give the folder to the user with id {us}, or point SBX_HOME at another one",
            ),
        ));
    }
    if meta.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|error| io_report("close", path, &error))?;
    }
    Ok(())
}

/// Makes the runtime folder, or makes sure that an existing one belongs to us alone.
fn private_runtime(path: &Path) -> Result<(), Report> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_report("make", path, &error)),
    }
    let meta = fs::symlink_metadata(path).map_err(|error| io_report("look at", path, &error))?;
    let problem = if !meta.is_dir() {
        "is not a folder"
    } else if meta.uid() != rustix::process::geteuid().as_raw() {
        "belongs to another user"
    } else if meta.mode() & 0o077 != 0 {
        "is open to other users"
    } else {
        return Ok(());
    };
    Err(Report::environment(
        "runtime-folder",
        format!(
            "{} {problem}, so it is not used for sockets",
            path.display()
        ),
        format!("find out who made {}, then remove it", path.display()),
    ))
}

/// A folder for one sandbox's sockets, inside the runtime folder.
pub(crate) fn sandbox_runtime(home: &Home, id: &str) -> Result<PathBuf, Report> {
    private_runtime(&home.runtime)?;
    let path = home.sandbox_runtime(id);
    private_runtime(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn folder_that_is_open_is_closed_and_one_of_another_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        close(&open).unwrap();
        assert_eq!(fs::metadata(&open).unwrap().mode() & 0o777, 0o700);
        // As root everything can be given away; an ordinary user finds what is root's.
        let others = if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&open, Some(65534), None).unwrap();
            open
        } else {
            "/usr".into()
        };
        let mode = || fs::metadata(&others).unwrap().mode();
        let before = mode();
        let report = close(&others).unwrap_err();
        assert_eq!(report.code, "folder-of-another");
        assert!(report.message.contains(&others.display().to_string()));
        assert_eq!(mode(), before);
    }

    #[test]
    fn runtime_folder_made_by_somebody_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink(dir.path(), at("link")).unwrap();
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("open")).unwrap();
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["link", "file", "open"] {
            assert_eq!(
                private_runtime(&at(name)).unwrap_err().code,
                "runtime-folder",
                "{name}"
            );
        }
        private_runtime(&at("ours")).unwrap();
        private_runtime(&at("ours")).unwrap();
    }
}
