//! The node table: what the guest's inode numbers mean.
//!
//! A node is an identity (which file) and places (where it was last seen). It holds no descriptor, so its number is
//! bounded by memory only. Places are beliefs: the host renames and replaces files at any time, so whoever reaches a
//! file through a place compares the identity and drops a place that lied.

mod saved;

use rustc_hash::FxHashMap as HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CStr, CString};
use std::io;

use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use crate::guard::Mark;
use crate::limits::{MAX_DEPTH, MAX_PLACES};
use serde::{Deserialize, Serialize};

pub(crate) use saved::SavedNode;

/// The guest's number of the root (FUSE_ROOT_ID).
pub(crate) const ROOT: u64 = 1;

/// Which file it is. Inode numbers are used again as soon as a file is gone; with the time of birth (zero where the
/// file system keeps none, and the same within a tick of its clock) a replaced file is told apart, and one of another
/// type in any case: what was found out about a directory does not hold for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    device: (u32, u32),
    inode: u64,
    born: (i64, u32),
    /// The bits of its mode that say what it is (`S_IFMT`).
    file_type: u16,
}

/// The bits of a mode that are the file's type.
const TYPE_BITS: u16 = 0o170_000;

/// A device that no kernel has.
const VIRTUAL: (u32, u32) = (u32::MAX, u32::MAX);

impl Identity {
    /// Of a directory that the host does not have.
    pub(crate) fn of_virtual(number: usize) -> Self {
        Self {
            device: VIRTUAL,
            inode: number as u64,
            born: (0, 0),
            file_type: 0,
        }
    }

    /// Which of those it is.
    pub(crate) fn virtual_number(&self) -> Option<usize> {
        let number = usize::try_from(self.inode).ok();
        number.filter(|_| self.device == VIRTUAL)
    }
}

impl From<&Statx> for Identity {
    fn from(stat: &Statx) -> Self {
        Self {
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            born: (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
            file_type: stat.stx_mode & TYPE_BITS,
        }
    }
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) parent: u64,
    pub(crate) name: CString,
}

#[derive(Debug)]
struct Node {
    identity: Identity,
    /// How many times the guest was given this node and has not yet forgotten it.
    lookups: u64,
    /// Newest first. A directory has one; a file with hard links a few.
    places: Vec<Place>,
    kind: Kind,
    /// Directories above it when it was first seen or last moved.
    depth: usize,
    /// What the rules say of it; of an epoch that never is when the places have changed since.
    mark: Mark,
}

/// What a file was when it was first seen; with the identity it does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    File,
    Directory,
    /// A link, pipe, socket or device.
    Other,
}

impl From<&Statx> for Kind {
    fn from(stat: &Statx) -> Self {
        FileType::from_raw_mode(stat.stx_mode.into()).into()
    }
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            _ => Self::Other,
        }
    }
}

impl Node {
    fn remember(&mut self, parent: u64, name: &CStr) {
        let first = self.places.first();
        if first.is_some_and(|first| first.parent == parent && *first.name == *name) {
            return;
        }
        let place = Place {
            parent,
            name: name.to_owned(),
        };
        let limit = if self.kind == Kind::Directory {
            1
        } else {
            MAX_PLACES
        };
        self.places.retain(|known| *known != place);
        self.places.insert(0, place);
        self.places.truncate(limit);
        self.mark.epoch = 0;
    }
}

/// The table. Ids are never used twice.
#[derive(Debug)]
pub(crate) struct Nodes {
    by_id: HashMap<u64, Node>,
    by_identity: HashMap<Identity, u64>,
    next: u64,
    limit: usize,
}

impl Nodes {
    /// A table with the root in it and room for `limit` more.
    pub(crate) fn new(root: Identity, limit: usize) -> Self {
        let node = Node {
            identity: root,
            lookups: 1,
            places: Vec::new(),
            kind: Kind::Directory,
            depth: 0,
            mark: Mark::default(),
        };
        Self {
            by_id: HashMap::from_iter([(ROOT, node)]),
            by_identity: HashMap::from_iter([(root, ROOT)]),
            next: ROOT + 1,
            limit,
        }
    }

    /// Forgets everything but the root: the guest has mounted anew. Ids go on counting.
    pub(crate) fn reset(&mut self) {
        let root = self.by_id[&ROOT].identity;
        let next = self.next;
        *self = Self {
            next,
            ..Self::new(root, self.limit)
        };
    }

    /// The id of the next node.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Whether the guest holds a node of this file.
    pub(crate) fn knows(&self, identity: Identity) -> bool {
        self.by_identity.contains_key(&identity)
    }

    /// Where a file was last seen, if the guest holds a node of it.
    pub(crate) fn place_of(&self, identity: Identity) -> Option<Place> {
        self.place(*self.by_identity.get(&identity)?)
    }

    /// `ENFILE` when a file that is not known yet would find no room, `ENAMETOOLONG` when it would lie too deep: asked
    /// before the host makes one in this directory.
    pub(crate) fn check_room(&self, parent: u64) -> io::Result<()> {
        if self.by_id.len() > self.limit {
            Err(Errno::NFILE.into())
        } else if self.depth_in(parent) > MAX_DEPTH {
            Err(Errno::NAMETOOLONG.into())
        } else {
            Ok(())
        }
    }

    fn depth_in(&self, parent: u64) -> usize {
        self.by_id.get(&parent).map_or(0, |node| node.depth) + 1
    }

    /// The file with this identity was just seen at this place and its node is handed to the guest.
    /// `ENFILE` when the table is full.
    pub(crate) fn found(
        &mut self,
        identity: Identity,
        parent: u64,
        name: &CStr,
        kind: Kind,
    ) -> io::Result<u64> {
        let depth = self.depth_in(parent);
        let room = self.check_room(parent);
        match self.by_identity.entry(identity) {
            Entry::Occupied(known) => {
                let id = *known.get();
                let node = self
                    .by_id
                    .get_mut(&id)
                    .expect("both maps hold the same nodes");
                node.lookups = node.lookups.saturating_add(1);
                if id != ROOT {
                    node.remember(parent, name);
                }
                Ok(id)
            }
            Entry::Vacant(slot) => {
                room?;
                let id = self.next;
                self.next += 1;
                slot.insert(id);
                self.by_id.insert(
                    id,
                    Node {
                        identity,
                        lookups: 1,
                        places: vec![Place {
                            parent,
                            name: name.to_owned(),
                        }],
                        kind,
                        depth,
                        mark: Mark::default(),
                    },
                );
                Ok(id)
            }
        }
    }

    /// The guest drops `count` of its references. More than it has is taken as all. Whether a directory is gone.
    pub(crate) fn forget(&mut self, id: u64, count: u64) -> bool {
        if id == ROOT {
            return false;
        }
        let Entry::Occupied(mut node) = self.by_id.entry(id) else {
            return false;
        };
        node.get_mut().lookups = node.get().lookups.saturating_sub(count);
        if node.get().lookups == 0 {
            let gone = node.remove();
            self.by_identity.remove(&gone.identity);
            return gone.kind == Kind::Directory;
        }
        false
    }

    /// The file was renamed by the guest.
    pub(crate) fn moved(&mut self, identity: Identity, from: &Place, to: &Place) {
        let depth = self.depth_in(to.parent);
        let Some(node) = self
            .by_identity
            .get(&identity)
            .and_then(|id| self.by_id.get_mut(id))
        else {
            return;
        };
        node.depth = depth;
        node.places.retain(|place| place != from);
        node.remember(to.parent, &to.name);
    }

    /// The node is another file from now on: a copy took the place of the one that it was.
    pub(crate) fn replaced(&mut self, old: Identity, new: Identity) {
        if self.by_identity.contains_key(&new) {
            return;
        }
        if let Some(id) = self.by_identity.remove(&old) {
            self.by_identity.insert(new, id);
            if let Some(node) = self.by_id.get_mut(&id) {
                node.identity = new;
            }
        }
    }

    /// What the rules were found to say of a node.
    pub(crate) fn mark(&self, id: u64) -> Option<Mark> {
        self.by_id.get(&id).map(|node| node.mark.clone())
    }

    /// Notes what the rules say of a node.
    pub(crate) fn set_mark(&mut self, id: u64, mark: Mark) {
        if let Some(node) = self.by_id.get_mut(&id) {
            node.mark = mark;
        }
    }

    /// What the node is.
    pub(crate) fn kind(&self, id: u64) -> Option<Kind> {
        self.by_id.get(&id).map(|node| node.kind)
    }

    /// Every place where the node is believed to be.
    pub(crate) fn places(&self, id: u64) -> Vec<Place> {
        let node = self.by_id.get(&id);
        node.map_or_else(Vec::new, |node| node.places.clone())
    }

    /// Whether it is believed to be anywhere.
    pub(crate) fn has_place(&self, id: u64) -> bool {
        let node = self.by_id.get(&id);
        node.is_some_and(|node| !node.places.is_empty())
    }

    /// The place turned out to be wrong.
    pub(crate) fn drop_place(&mut self, id: u64, place: &Place) {
        if let Some(node) = self.by_id.get_mut(&id) {
            node.places.retain(|known| known != place);
        }
    }

    /// What the node is, and the newest place where it was seen.
    pub(crate) fn by_name(&self, id: u64) -> Option<(Identity, Kind, &Place)> {
        let node = self.by_id.get(&id)?;
        Some((node.identity, node.kind, node.places.first()?))
    }

    /// Which file the guest means. `ESTALE` for an id it was never given or has forgotten.
    pub(crate) fn identity(&self, id: u64) -> io::Result<Identity> {
        self.by_id
            .get(&id)
            .map(|node| node.identity)
            .ok_or_else(|| Errno::STALE.into())
    }

    /// The newest place where the node was seen.
    pub(crate) fn place(&self, id: u64) -> Option<Place> {
        self.by_id
            .get(&id)
            .and_then(|node| node.places.first().cloned())
    }

    /// As [`Nodes::route`], from the nearest directory on the way for which `known` has something, which is returned.
    pub(crate) fn route_from<T>(
        &self,
        id: u64,
        mut known: impl FnMut(u64) -> Option<T>,
    ) -> io::Result<(Option<T>, Vec<&CStr>)> {
        let mut names = Vec::new();
        let mut at = id;
        let mut start = None;
        while at != ROOT {
            if names.len() == MAX_DEPTH {
                return Err(Errno::NAMETOOLONG.into());
            }
            let node = self.by_id.get(&at).ok_or(Errno::STALE)?;
            let place = node.places.first().ok_or(Errno::STALE)?;
            names.push(place.name.as_c_str());
            at = place.parent;
            start = known(at);
            if start.is_some() {
                break;
            }
        }
        names.reverse();
        Ok((start, names))
    }

    /// The names from the root to the node through its newest place, outermost first; empty for the root.
    /// `ESTALE` when a directory on the way is unknown, `ENAMETOOLONG` beyond [`MAX_DEPTH`] (or in a circle, which
    /// beliefs of different age can form).
    pub(crate) fn route(&self, id: u64) -> io::Result<Vec<&CStr>> {
        let (_, names) = self.route_from(id, |_| None::<()>)?;
        Ok(names)
    }

    /// Nodes in the table, the root included.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(inode: u64) -> Identity {
        Identity {
            device: (0, 1),
            inode,
            born: (0, 0),
            file_type: 0o100_000,
        }
    }

    fn table(limit: usize) -> Nodes {
        Nodes::new(identity(2), limit)
    }

    fn code<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
        result.unwrap_err().raw_os_error()
    }

    #[test]
    fn a_file_that_took_over_the_number_of_a_directory_is_another_node() {
        let folder = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(folder.path()).unwrap();
        let mut stat = crate::tree::stat(&directory).unwrap();
        let mut nodes = table(10);
        let mut found = |stat: &Statx| {
            let id = nodes.found(Identity::from(stat), ROOT, c".git", Kind::from(stat));
            let id = id.unwrap();
            (id, nodes.kind(id).unwrap())
        };
        let (before, kind) = found(&stat);
        assert_eq!(kind, Kind::Directory);
        // Born in the same tick, or where no time of birth is kept.
        stat.stx_mode = 0o100_644;
        let (after, kind) = found(&stat);
        assert_eq!(kind, Kind::File);
        assert_ne!(before, after);
    }

    #[test]
    fn one_file_is_one_node_under_all_its_names() {
        let mut nodes = table(10);
        let first = nodes.found(identity(7), ROOT, c"a", Kind::File).unwrap();
        assert_eq!(
            nodes.found(identity(7), ROOT, c"b", Kind::File).unwrap(),
            first
        );
        assert_eq!(nodes.route(first).unwrap(), [c"b"]);
        nodes.drop_place(
            first,
            &Place {
                parent: ROOT,
                name: c"b".into(),
            },
        );
        assert_eq!(nodes.route(first).unwrap(), [c"a"]);
    }

    #[test]
    fn a_node_lives_until_every_reference_is_forgotten_and_its_id_never_returns() {
        let mut nodes = table(10);
        let id = nodes.found(identity(7), ROOT, c"a", Kind::File).unwrap();
        nodes.found(identity(7), ROOT, c"a", Kind::File).unwrap();
        nodes.forget(id, 1);
        assert_eq!(nodes.identity(id).unwrap(), identity(7));
        nodes.forget(id, u64::MAX);
        assert_eq!(code(nodes.identity(id)), Some(libc::ESTALE));
        assert_eq!(nodes.len(), 1);
        assert_ne!(
            nodes.found(identity(7), ROOT, c"a", Kind::File).unwrap(),
            id
        );
        nodes.reset();
        assert!(nodes.found(identity(8), ROOT, c"b", Kind::File).unwrap() > id + 1);
    }

    #[test]
    fn the_root_cannot_be_forgotten() {
        let mut nodes = table(10);
        nodes.forget(ROOT, u64::MAX);
        assert!(nodes.route(ROOT).unwrap().is_empty());
    }

    #[test]
    fn moving_a_directory_moves_what_is_in_it() {
        let mut nodes = table(10);
        let directory = nodes
            .found(identity(7), ROOT, c"old", Kind::Directory)
            .unwrap();
        let file = nodes
            .found(identity(8), directory, c"f", Kind::File)
            .unwrap();
        let old = Place {
            parent: ROOT,
            name: c"old".into(),
        };
        nodes.moved(
            identity(7),
            &old,
            &Place {
                parent: ROOT,
                name: c"new".into(),
            },
        );
        assert_eq!(nodes.route(file).unwrap(), [c"new", c"f"]);
    }

    #[test]
    fn a_full_table_refuses_new_files_and_serves_known_ones() {
        let mut nodes = table(2);
        let known = nodes.found(identity(7), ROOT, c"a", Kind::File).unwrap();
        nodes.found(identity(8), ROOT, c"b", Kind::File).unwrap();
        assert_eq!(
            code(nodes.found(identity(9), ROOT, c"c", Kind::File)),
            Some(libc::ENFILE)
        );
        assert_eq!(
            nodes.found(identity(7), ROOT, c"a", Kind::File).unwrap(),
            known
        );
    }

    #[test]
    fn a_circle_of_stale_places_ends() {
        let mut nodes = table(10);
        let a = nodes
            .found(identity(7), ROOT, c"a", Kind::Directory)
            .unwrap();
        let b = nodes.found(identity(8), a, c"b", Kind::Directory).unwrap();
        nodes.found(identity(7), b, c"a", Kind::Directory).unwrap();
        assert_eq!(code(nodes.route(a)), Some(libc::ENAMETOOLONG));
    }

    #[test]
    fn hard_links_beyond_the_bound_push_the_oldest_out() {
        let mut nodes = table(10);
        let names: Vec<CString> = (0..MAX_PLACES + 3)
            .map(|n| CString::new(n.to_string()).unwrap())
            .collect();
        for name in &names {
            nodes.found(identity(7), ROOT, name, Kind::File).unwrap();
        }
        assert_eq!(nodes.by_id[&2].places.len(), MAX_PLACES);
        assert_eq!(&nodes.by_id[&2].places[0].name, names.last().unwrap());
    }
}
