//! Connections to our own processes: nothing is said to a socket at which somebody else listens. The runtime folder
//! may lie in `/tmp`, where every user of the machine can make it first.

use rustix::process::geteuid;
use sbx_wire::report::Report;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use tokio::net::UnixStream;

/// Code of the report about a socket of somebody else.
pub(crate) const FOREIGN: &str = "runtime-folder";

/// Connects; `None`: nobody listens there.
///
/// # Errors
/// When whoever listens is another user. Nothing has been sent then.
pub(crate) async fn connect(socket: &Path) -> Result<Option<UnixStream>, Report> {
    let Ok(stream) = UnixStream::connect(socket).await else {
        return Ok(None);
    };
    // The kernel's word for whoever called `listen` (`unix(7)`, SO_PEERCRED).
    let listener = stream.peer_cred().ok().map(|peer| peer.uid());
    if listener == Some(geteuid().as_raw()) {
        Ok(Some(stream))
    } else {
        Err(foreign(socket, listener))
    }
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
