//! The share's own state on its way to or from a saved machine (`VHOST_USER_PROTOCOL_F_DEVICE_STATE`).
//!
//! QEMU reads or writes the other end of a pipe while it waits for nothing, so a thread of ours passes the bytes. It
//! has nothing else: the state itself is made and taken over between two requests.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::thread::{self, JoinHandle};

use crate::limits::MAX_STATE;
use crate::share::Share;

/// A transfer that has begun.
pub(super) enum Transfer {
    /// Bytes are being written.
    Save(JoinHandle<io::Result<()>>),
    /// Bytes are being read.
    Load(JoinHandle<io::Result<Vec<u8>>>),
}

impl Transfer {
    /// Writes down what the share knows of its guest.
    pub(super) fn save(share: &Share, mut to: File) -> io::Result<Self> {
        let state = share.saved()?;
        let thread = thread::Builder::new().spawn(move || to.write_all(&state))?;
        Ok(Self::Save(thread))
    }

    /// Reads what another share has written down; it is taken over when all of it is there.
    pub(super) fn load(from: File) -> io::Result<Self> {
        let thread = thread::Builder::new().spawn(move || {
            let mut state = Vec::new();
            from.take(MAX_STATE + 1).read_to_end(&mut state)?;
            Ok(state)
        })?;
        Ok(Self::Load(thread))
    }

    /// Waits for its end. What was read is in the share then.
    pub(super) fn finish(self, share: &Share) -> io::Result<()> {
        let gone = |_| io::Error::other("the transfer has ended early");
        match self {
            Self::Save(thread) => thread.join().map_err(gone)?,
            Self::Load(thread) => share.take_over(&thread.join().map_err(gone)??),
        }
    }
}
