//! The spawner: a single-threaded process, started before the first guest byte, that starts the helpers.
//!
//! It reads the launch document itself and takes only [`Order`]s, so a supervisor that a guest has taken over
//! can have nothing started but what the daemon wrote down. It ends, and with it every helper, when the
//! supervisor does.

mod commands;
mod link;
mod process;
pub(crate) mod shares;
mod snapshot;

pub use link::{Link, LinkError, launch};
pub use process::run;

use serde::{Deserialize, Serialize};
use std::fmt;

/// Argument that makes the program a spawner.
pub const FLAG: &str = "--spawner";

/// A helper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// QEMU. First, so that its end is reported before the ends that follow from it.
    Machine,
    /// `sbx-gateway`.
    Gateway,
    /// The `sbx-share` with this index.
    Share(u16),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("machine"),
            Self::Gateway => f.write_str("gateway"),
            Self::Share(index) => write!(f, "share {index}"),
        }
    }
}

/// Supervisor to spawner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Start a helper that is not running.
    Start(Role),
    /// SIGTERM, or with `force` SIGKILL.
    End {
        /// Which.
        role: Role,
        /// SIGKILL.
        force: bool,
    },
    /// Write the snapshot that the launch document names: the machine is stopped.
    Keep {
        /// Everything but its memory.
        state: Vec<u8>,
    },
}

/// Spawner to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// It runs.
    Started {
        /// Which.
        role: Role,
        /// Its process id.
        pid: u32,
    },
    /// A share's socket accepts connections.
    Listening(Role),
    /// The answer to [`Order::Keep`], with the reason if it is not on disk.
    Kept(Result<(), String>),
    /// It could not be started.
    Failed {
        /// Which.
        role: Role,
        /// Why.
        reason: String,
    },
    /// It has ended and was reaped.
    Ended {
        /// Which.
        role: Role,
        /// `exit status: 1`, `signal: 9 (SIGKILL)`.
        how: String,
        /// Exit status 0.
        success: bool,
    },
}
