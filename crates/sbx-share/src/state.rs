//! The share's part of a saved machine: which numbers the guest has for which files, and what it has open.
//!
//! A machine that is saved with the share mounted goes on with the numbers it was given. They are written down with the
//! identities of their files; what is not there any more when the machine goes on is stale (`ESTALE`), as if the host had
//! removed it meanwhile. Open files are opened again by name, so one that has none any more is lost (`EBADF`).

use crate::handles::Open;
use crate::limits::{MAX_HANDLES, MAX_NODES, MAX_STATE};
use crate::nodes::SavedNode;
use crate::share::Share;
use rustix::fs::OFlags;
use sbx_workspace::mask::MAX_MASKS;
use serde::{Deserialize, Serialize};
use std::io;
use std::rc::Rc;

/// Version of the format.
const VERSION: u32 = 3;

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    next_node: u64,
    nodes: Vec<SavedNode>,
    next_handle: u64,
    handles: Vec<SavedHandle>,
    masks: SavedMasks,
}

/// Directories that are the guest's own.
#[derive(Serialize, Deserialize)]
struct SavedMasks {
    /// Paths that the rules name: their numbers come first.
    first: Vec<String>,
    /// What has appeared since, in order.
    appeared: Vec<String>,
    agent: Option<u32>,
    /// Numbers of those at which nothing is mounted yet.
    unmounted: Vec<u32>,
}

/// One open file or directory.
#[derive(Serialize, Deserialize)]
struct SavedHandle {
    handle: u64,
    node: u64,
    /// How it was opened; `None`: a directory.
    flags: Option<u32>,
}

impl Share {
    /// The state, to be written down.
    pub(crate) fn saved(&self) -> io::Result<Vec<u8>> {
        let saved = {
            let (nodes, handles) = (self.nodes(), self.handles());
            Saved {
                version: VERSION,
                next_node: nodes.next(),
                nodes: nodes.saved(),
                next_handle: handles.next(),
                handles: handles
                    .all()
                    .map(|(handle, node, open)| SavedHandle {
                        handle,
                        node,
                        flags: open.flags(),
                    })
                    .collect(),
                masks: self.saved_masks(),
            }
        };
        postcard::to_allocvec(&saved).map_err(io::Error::other)
    }

    /// Takes a state over, in place of the present one. What it says was written by a share, but is checked as if a
    /// guest had said it.
    pub(crate) fn take_over(&self, state: &[u8]) -> io::Result<()> {
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        if state.len() as u64 > MAX_STATE {
            return Err(broken());
        }
        let saved: Saved = postcard::from_bytes(state).map_err(|_| broken())?;
        if saved.version != VERSION
            || saved.nodes.len() > MAX_NODES
            || saved.handles.len() > MAX_HANDLES
        {
            return Err(broken());
        }
        self.reset();
        if !self.take_over_masks(&saved.masks) {
            return Err(broken());
        }
        let taken = self.nodes().restore(saved.nodes, saved.next_node);
        if !taken {
            self.reset();
            return Err(broken());
        }
        let mut lost = 0;
        for known in saved.handles {
            let open = self.open_again(known.node, known.flags);
            let kept =
                open.and_then(|open| self.handles().put_back(known.handle, known.node, open));
            lost += usize::from(kept.is_err());
        }
        self.handles().go_on_from(saved.next_handle);
        tracing::info!(
            nodes = self.node_count(),
            lost,
            "restored with the guest's mount"
        );
        Ok(())
    }

    fn saved_masks(&self) -> SavedMasks {
        let virtuals = self.virtuals();
        let (first, appeared) = virtuals.appeared();
        let (agent, unmounted) = virtuals.late.saved();
        SavedMasks {
            first,
            appeared,
            agent,
            unmounted,
        }
    }

    /// False if the numbers are of other rules than this share's, or no share can have written that.
    fn take_over_masks(&self, saved: &SavedMasks) -> bool {
        let mut virtuals = self.virtuals();
        let (first, appeared) = virtuals.appeared();
        if first != saved.first || !appeared.is_empty() || saved.appeared.len() > MAX_MASKS {
            return false;
        }
        for (place, path) in saved.appeared.iter().enumerate() {
            if virtuals.add_mask(path) != Some(first.len() + place) {
                return false;
            }
        }
        let unmounted = saved.unmounted.iter();
        let unmounted = unmounted.filter_map(|number| usize::try_from(*number).ok());
        let unmounted: Vec<usize> = unmounted.filter(|at| virtuals.is_mask(*at)).collect();
        virtuals.late.go_on(saved.agent, unmounted.into_iter());
        true
    }

    fn open_again(&self, node: u64, flags: Option<u32>) -> io::Result<Open> {
        let Some(flags) = flags else {
            return Ok(Open::Directory(Rc::new(self.opened_directory(node)?)));
        };
        // Opened before, so nothing is cut or made now.
        let flags = OFlags::from_bits_retain(flags) - OFlags::TRUNC;
        let file = self.open_file(node, flags)?;
        Ok(Open::File(Rc::new(file), flags))
    }
}
