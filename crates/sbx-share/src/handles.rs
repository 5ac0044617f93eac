//! What the guest has open: the only descriptors it can make the server hold.

use rustc_hash::FxHashMap as HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::directory::Directory;

/// One open file or directory.
#[derive(Clone, Debug)]
pub(crate) enum Open {
    /// A regular file, and how it was opened.
    File(Arc<File>, OFlags),
    /// A directory, with the entries read ahead.
    Directory(Arc<Directory>),
}

impl Open {
    fn file(&self) -> Arc<File> {
        match self {
            Self::File(file, _) => Arc::clone(file),
            Self::Directory(directory) => directory.file(),
        }
    }

    /// How a file was opened; `None`: it is a directory.
    pub(crate) fn flags(&self) -> Option<u32> {
        match self {
            Self::File(_, flags) => Some(flags.bits()),
            Self::Directory(_) => None,
        }
    }
}

/// The table of handles. Numbers are never used twice.
#[derive(Debug)]
pub(crate) struct Handles {
    open: HashMap<u64, (u64, Open)>,
    /// Handles by node, to reach a file that has no name left.
    by_node: HashMap<u64, Vec<u64>>,
    next: u64,
    limit: usize,
}

impl Handles {
    /// A table for at most `limit` handles.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            open: HashMap::default(),
            by_node: HashMap::default(),
            next: 1,
            limit,
        }
    }

    /// `ENFILE` when there is no room for one more: asked before the host is.
    pub(crate) fn check_room(&self) -> io::Result<()> {
        if self.open.len() < self.limit {
            Ok(())
        } else {
            Err(Errno::NFILE.into())
        }
    }

    /// Takes in an open file of a node. `ENFILE` when the table is full.
    pub(crate) fn insert(&mut self, node: u64, open: Open) -> io::Result<u64> {
        self.check_room()?;
        let handle = self.next;
        self.next += 1;
        self.open.insert(handle, (node, open));
        self.by_node.entry(node).or_default().push(handle);
        Ok(handle)
    }

    /// The file behind a handle of this node, directories included. `EBADF` for any other number.
    pub(crate) fn any(&self, node: u64, handle: u64) -> io::Result<Arc<File>> {
        match self.open.get(&handle) {
            Some((owner, open)) if *owner == node => Ok(open.file()),
            _ => Err(Errno::BADF.into()),
        }
    }

    /// The regular file behind a handle of this node. `EBADF` otherwise.
    pub(crate) fn file(&self, node: u64, handle: u64) -> io::Result<Arc<File>> {
        match self.open.get(&handle) {
            Some((owner, Open::File(file, _))) if *owner == node => Ok(Arc::clone(file)),
            _ => Err(Errno::BADF.into()),
        }
    }

    /// The directory behind a handle of this node. `EBADF` otherwise.
    pub(crate) fn directory(&self, node: u64, handle: u64) -> io::Result<Arc<Directory>> {
        match self.open.get(&handle) {
            Some((owner, Open::Directory(directory))) if *owner == node => {
                Ok(Arc::clone(directory))
            }
            _ => Err(Errno::BADF.into()),
        }
    }

    /// Any file that the guest has open for this node.
    pub(crate) fn of_node(&self, node: u64) -> Option<Arc<File>> {
        let handle = self.by_node.get(&node)?.first()?;
        self.open.get(handle).map(|(_, open)| open.file())
    }

    /// Closes a handle of this node. `EBADF` for any other number.
    pub(crate) fn remove(&mut self, node: u64, handle: u64) -> io::Result<()> {
        self.any(node, handle)?;
        self.open.remove(&handle);
        if let Some(handles) = self.by_node.get_mut(&node) {
            handles.retain(|known| *known != handle);
            if handles.is_empty() {
                self.by_node.remove(&node);
            }
        }
        Ok(())
    }

    /// All of them: handle, node, and what is open.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u64, u64, &Open)> {
        self.open
            .iter()
            .map(|(handle, (node, open))| (*handle, *node, open))
    }

    /// The number of the next handle.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Takes in what had this number in a saved machine. `ENFILE` when the table is full.
    pub(crate) fn put_back(&mut self, handle: u64, node: u64, open: Open) -> io::Result<()> {
        self.check_room()?;
        self.open.insert(handle, (node, open));
        self.by_node.entry(node).or_default().push(handle);
        self.go_on_from(handle.saturating_add(1));
        Ok(())
    }

    /// Numbers below this one were given out.
    pub(crate) fn go_on_from(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Closes everything.
    pub(crate) fn clear(&mut self) {
        self.open.clear();
        self.by_node.clear();
    }
}
