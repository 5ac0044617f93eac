//! The guest channel. Everything that comes out of it is a claim by a hostile party.
//!
//! | module | |
//! |---|---|
//! | `opening` | preamble with epoch and nonce |
//! | [`channel`] | frames to the guest, and its sessions |
//! | `reader` | the task that reads and writes; what the guest says |
//! | [`session`] | one running program: windows, buffers, end |

pub mod channel;
mod opening;
mod reader;
pub mod session;

pub use channel::{Guest, GuestEvent, open};
pub use session::{End, Session};

use sbx_wire::frame::FrameError;
use std::io;

/// Why the channel broke. After any of them the guest is not used any more.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The socket failed.
    #[error("the guest channel failed: {0}")]
    Io(#[from] io::Error),
    /// QEMU closed it.
    #[error("the guest channel was closed")]
    Closed,
    /// The guest broke the framing.
    #[error("the guest broke the protocol: {0}")]
    Frame(#[from] FrameError),
    /// The guest broke another rule.
    #[error("the guest broke the protocol: {0}")]
    Rule(&'static str),
    /// The guest speaks a version we do not.
    #[error("the guest speaks protocol version {0}, this version of sbx speaks {oldest} to {newest}",
        oldest = sbx_wire::guest::OLDEST_VERSION, newest = sbx_wire::guest::VERSION)]
    Version(u16),
}

impl GuestError {
    /// Whether this may just be how the end of QEMU looks from here.
    pub fn may_be_the_machines_end(&self) -> bool {
        matches!(self, Self::Closed | Self::Io(_))
    }
}
