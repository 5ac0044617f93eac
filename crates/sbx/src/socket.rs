//! Connections to our own processes: nothing is said to a socket at which somebody else listens. The runtime folder
//! may lie in `/tmp`, where every user of the machine can make it first.

use rustix::process::geteuid;
use sbx_wire::report::Report;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;

/// Code of the report about a socket of somebody else.
pub(crate) const FOREIGN: &str = "runtime-folder";

/// Code of the report about one of ours that cannot be reached or does not answer.
pub(crate) const UNREACHABLE: &str = "unreachable";
/// Time for a listener to take one of those that wait for it.
const TAKEN: Duration = Duration::from_secs(5);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(15);

/// Connects; `None`: nobody listens there.
///
/// # Errors
/// When whoever listens is another user; nothing has been sent then. When nobody knows whether anybody listens.
pub(crate) async fn connect(socket: &Path) -> Result<Option<UnixStream>, Report> {
    let deadline = Instant::now() + TAKEN;
    let stream = loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => break stream,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            // Too many wait there already (`unix(7)`, EAGAIN), or it ended before it took us: nothing was said yet, so
            // the next attempt finds who listens there now.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::ConnectionReset
                ) && Instant::now() < deadline =>
            {
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(unreachable(socket, &error)),
        }
    };
    // The kernel's word for whoever called `listen` (`unix(7)`, SO_PEERCRED).
    let listener = stream.peer_cred().ok().map(|peer| peer.uid());
    if listener == Some(geteuid().as_raw()) {
        Ok(Some(stream))
    } else {
        Err(foreign(socket, listener))
    }
}

fn unreachable(socket: &Path, error: &io::Error) -> Report {
    let folder = socket.parent().unwrap_or(socket).display();
    Report::environment(
        UNREACHABLE,
        format!("cannot connect to {}: {error}", socket.display()),
        format!("see that {folder} is a folder that you can use; sbx diagnose tells more"),
    )
}

fn foreign(socket: &Path, listener: Option<u32>) -> Report {
    let folder = socket.parent().unwrap_or(socket);
    let owner = folder.symlink_metadata().map(|meta| meta.uid());
    let (place, problem) = match (owner, listener) {
        (Ok(owner), _) if owner != geteuid().as_raw() => {
            (folder, format!("belongs to another user (uid {owner})"))
        }
        (_, Some(uid)) => (
            socket,
            format!("is listened at by another user (uid {uid})"),
        ),
        (_, None) => (socket, "is listened at by nobody knows whom".to_owned()),
    };
    let place = place.display();
    Report::environment(
        FOREIGN,
        format!("{place} {problem}, so nothing is said to what listens there"),
        format!(
            "find out who made {place} and have it removed, or set XDG_RUNTIME_DIR to a folder of your own"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::task::{Context, Poll, Waker};

    #[tokio::test]
    async fn a_listener_that_ends_before_it_takes_us_is_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("daemon.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let mut connecting = std::pin::pin!(connect(&path));
        // In its queue, and not looked at since.
        let first = connecting
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(first, Poll::Pending), "{first:?}");
        drop(listener);
        assert!(connecting.await.unwrap().is_none());
    }
}
