//! The other side of a virtio-fs server: what QEMU and a guest's kernel do together, without either. It connects to a
//! server's socket, gives it memory and two queues (vhost-user; VIRTIO 1.2, sections 2.7 and 5.11) and asks it in FUSE.
//!
//! Everything on the wire is written here by hand, byte by byte: a hostile guest is not bound by a library's types.
//! [`Client`] has the calls of a well-behaved guest, [`Device`] takes any bytes and any chain of descriptors.
//!
//! One descriptor for each part of a request, as Linux does it (`fs/fuse/virtio_fs.c`), which QEMU's server in C relies
//! on: head, arguments and data one after the other, then head, arguments and data of the answer.

mod attr;
mod client;
mod device;
mod memory;
mod queue;
mod setup;
mod vhost;
mod wire;

use std::time::Duration;

pub use attr::{Attr, Entry, Listed, SetAttr};
pub use client::Client;
pub use client::{
    create, created, forget, getattr, handle, list, lookup, open, read, release, write,
};
pub use device::{Answer, Begun, Device, Fate, Which};
pub use memory::{GUEST_BASE, MEMORY, Memory};
pub use queue::{Descriptor, INDIRECT, NEXT, Queue, SIZE, WRITE};
pub use setup::{EVENT_IDX, LOG_ALL};
pub use vhost::{Vhost, message};
pub use wire::{Data, Fields, HEAD, Request, op};

use rustix::io::Errno;

/// The node of the share's root.
pub const ROOT: u64 = 1;
/// Most bytes of data in one request.
pub const MOST: u32 = 1 << 20;
/// A server that says nothing for this long does not answer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Why a request has no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with an error number.
    #[error("refused: {0}")]
    Refused(Errno),
    /// The server hung up.
    #[error("the server has gone")]
    Gone,
    /// The server said nothing in time.
    #[error("the server does not answer")]
    Silent,
    /// What came is no answer.
    #[error("the answer is wrong: {0}")]
    Wrong(String),
    /// Our own side failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<Errno> for Error {
    /// Of a system call of ours, not of the server.
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

/// What a call comes to.
pub type Result<T> = std::result::Result<T, Error>;
