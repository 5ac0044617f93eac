//! Memory and state of a machine that comes from a snapshot or is to become one. QEMU gets descriptors; the files
//! are opened here, by the names in the launch document.

use sbx_machine::args::{Life, MEMORY_FD, STATE_FD};
use sbx_machine::snapshot::{inherit_as, load_memory, load_state, memory, save_memory, save_state};
use sbx_wire::launch::{Launch, Origin};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

/// How the machine of this launch comes to life.
pub(super) fn life(launch: &Launch) -> Life {
    match launch.origin {
        Origin::Boot => Life::Boot,
        Origin::Restore(_) => Life::Restore,
        Origin::Save(_) => Life::Save,
    }
}

/// What the machine inherits, and what is kept of it.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// Until the machine has been started.
    pub(super) inherited: Vec<OwnedFd>,
    /// The memory, if it is to be saved.
    pub(super) kept: Option<File>,
}

/// Makes what the machine of this launch inherits.
pub(super) fn prepare(launch: &Launch) -> io::Result<Prepared> {
    let bytes = u64::from(launch.machine.memory_mib) << 20;
    match &launch.origin {
        Origin::Boot => Ok(Prepared::default()),
        Origin::Restore(files) => {
            let memory = load_memory(&files.memory, bytes)?;
            let state = load_state(&files.state)?;
            let inherited = vec![
                inherit_as(memory.as_fd(), MEMORY_FD)?,
                inherit_as(state.as_fd(), STATE_FD)?,
            ];
            let kept = None;
            Ok(Prepared { inherited, kept })
        }
        Origin::Save(_) => {
            let memory = memory(bytes)?;
            Ok(Prepared {
                inherited: vec![inherit_as(memory.as_fd(), MEMORY_FD)?],
                kept: Some(memory),
            })
        }
    }
}

/// Writes the snapshot of this launch.
pub(super) fn keep(launch: &Launch, memory: Option<File>, state: &[u8]) -> io::Result<()> {
    let (Origin::Save(files), Some(memory)) = (&launch.origin, memory) else {
        return Err(io::Error::other("there is nothing to be saved"));
    };
    save_state(state, &files.state)?;
    save_memory(&memory, &files.memory).map(drop)
}
