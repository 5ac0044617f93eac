//! The vhost-user side: one socket, one QEMU, one mount.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use sbx_jail::{Enforced, Jail, JailError, Profile};

use crate::Share;
use crate::device::{self, DeviceError};

/// Why the server did not start or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Something that is not a socket has that name.
    #[error("{0} exists and is not a socket\n  try: another --socket")]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error(
        "cannot listen on {path}: {source}\n  try: a shorter path (at most 107 bytes) in a folder of your own"
    )]
    Listen {
        /// As given.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The process could not drop its privileges, so it must not serve.
    #[error("cannot jail the share: {0}")]
    Jail(#[from] JailError),
    /// Root of the share lost before the jail was closed.
    #[error("cannot hold the root of the share: {0}")]
    Root(#[source] io::Error),
    /// The socket is broken.
    #[error("cannot take QEMU's connection: {0}")]
    Accept(#[source] io::Error),
    /// The device was ended by what its guest or QEMU did.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Listens, readable and writable for the user only. A socket of that name is replaced: it is left over, for the
/// supervisor gives every share a name of its own, and asking would take the one connection its server waits for.
pub fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ServeError::NotASocket(path.into()));
        }
        Ok(_) => std::fs::remove_file(path).map_err(|source| ServeError::Listen {
            path: path.into(),
            source,
        })?,
        Err(_) => {} // nothing there; if it cannot be looked at, bind says why
    }
    let before = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    listener.map_err(|source| ServeError::Listen {
        path: path.into(),
        source,
    })
}

/// Drops every privilege that serving does not need: files beneath the root only.
pub fn jail(share: &Share) -> Result<Enforced, ServeError> {
    let root = share.root().map_err(ServeError::Root)?;
    let jail = Jail::new(Profile::Share);
    let jail = if share.is_read_only() {
        jail.read_only_fd(root)
    } else {
        jail.read_write_fd(root)
    };
    Ok(jail.apply()?)
}

/// Serves the first connection until QEMU hangs up.
pub fn serve(share: Share, listener: UnixListener) -> Result<(), ServeError> {
    let (qemu, _) = listener.accept().map_err(ServeError::Accept)?;
    drop(listener); // no second client
    tracing::info!("QEMU has connected");
    device::run(share, qemu)?;
    tracing::info!("QEMU has gone");
    Ok(())
}
