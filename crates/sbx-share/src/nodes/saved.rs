//! The table as it is written down for a machine that is saved.

use std::ffi::CString;

use serde::{Deserialize, Serialize};

use super::{Identity, Kind, Node, Nodes, Place, ROOT};
use crate::guard::Mark;
use crate::limits::{MAX_DEPTH, MAX_NAME, MAX_PLACES};

/// A node as it is written down; see `state`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedNode {
    id: u64,
    device: (u32, u32),
    inode: u64,
    born: (i64, u32),
    file_type: u16,
    lookups: u64,
    kind: Kind,
    depth: usize,
    /// Parent and name, newest first.
    places: Vec<(u64, Vec<u8>)>,
}

impl SavedNode {
    /// What a share can have written; `None`: this is not.
    fn node(self) -> Option<Node> {
        let plain = |name: &[u8]| {
            !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/') && name.len() <= MAX_NAME
        };
        let places: Option<Vec<Place>> = self
            .places
            .into_iter()
            .map(|(parent, name)| {
                let name = CString::new(name)
                    .ok()
                    .filter(|name| plain(name.to_bytes()))?;
                Some(Place { parent, name })
            })
            .collect();
        let places = places.filter(|places| places.len() <= MAX_PLACES)?;
        let sound = self.id > ROOT && self.lookups > 0 && self.depth <= MAX_DEPTH;
        sound.then_some(Node {
            identity: Identity {
                device: self.device,
                inode: self.inode,
                born: self.born,
                file_type: self.file_type,
            },
            lookups: self.lookups,
            places,
            kind: self.kind,
            depth: self.depth,
            mark: Mark::default(),
        })
    }
}

impl Nodes {
    /// All but the root, to be written down.
    pub(crate) fn saved(&self) -> Vec<SavedNode> {
        let nodes = self.by_id.iter().filter(|(id, _)| **id != ROOT);
        nodes
            .map(|(id, node)| SavedNode {
                id: *id,
                device: node.identity.device,
                inode: node.identity.inode,
                born: node.identity.born,
                file_type: node.identity.file_type,
                lookups: node.lookups,
                kind: node.kind,
                depth: node.depth,
                places: node
                    .places
                    .iter()
                    .map(|place| (place.parent, place.name.to_bytes().to_vec()))
                    .collect(),
            })
            .collect()
    }

    /// Takes nodes in that were written down. False, with some of them in, if no share can have written that.
    pub(crate) fn restore(&mut self, saved: Vec<SavedNode>, next: u64) -> bool {
        self.next = self.next.max(next);
        for one in saved {
            let id = one.id;
            let Some(node) = one.node() else { return false };
            let twice = self.by_identity.insert(node.identity, id).is_some();
            if twice || self.by_id.insert(id, node).is_some() || id >= self.next {
                return false;
            }
        }
        true
    }
}
