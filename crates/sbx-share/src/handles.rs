//! What the guest has open: the only descriptors it can make the server hold.

use rustc_hash::FxHashMap as HashMap;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::descriptors::now;
use crate::directory::Directory;
use crate::limits::CACHE_TIME;

/// One open file or directory.
#[derive(Clone, Debug)]
pub(crate) enum Open {
    /// A regular file, and how it was opened.
    File(Rc<File>, OFlags),
    /// A directory, with the entries read ahead.
    Directory(Rc<Directory>),
}

impl Open {
    fn file(&self) -> Rc<File> {
        match self {
            Self::File(file, _) => Rc::clone(file),
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

/// One handle.
#[derive(Debug)]
struct Held {
    node: u64,
    open: Open,
    /// When the rules were last asked about the names that the file had then.
    judged: Duration,
    /// The next handle of the same node.
    beside: Option<u64>,
}

/// The table of handles. Numbers are never used twice.
#[derive(Debug)]
pub(crate) struct Handles {
    open: HashMap<u64, Held>,
    /// The newest handle of each node, to reach a file that has no name left. The others hang on it.
    by_node: HashMap<u64, u64>,
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
        self.hold(handle, node, open);
        Ok(handle)
    }

    fn hold(&mut self, handle: u64, node: u64, open: Open) {
        let beside = self.by_node.insert(node, handle);
        let held = Held {
            node,
            open,
            judged: now(),
            beside,
        };
        self.open.insert(handle, held);
    }

    fn get(&self, node: u64, handle: u64) -> io::Result<&Open> {
        let held = self.open.get(&handle).filter(|held| held.node == node);
        Ok(held.map(|held| &held.open).ok_or(Errno::BADF)?)
    }

    /// The file behind a handle of this node, directories included. `EBADF` for any other number.
    pub(crate) fn any(&self, node: u64, handle: u64) -> io::Result<Rc<File>> {
        Ok(self.get(node, handle)?.file())
    }

    /// The regular file behind a handle of this node. `EBADF` otherwise.
    pub(crate) fn file(&self, node: u64, handle: u64) -> io::Result<Rc<File>> {
        match self.get(node, handle)? {
            Open::File(file, _) => Ok(Rc::clone(file)),
            Open::Directory(_) => Err(Errno::BADF.into()),
        }
    }

    /// The directory behind a handle of this node. `EBADF` otherwise.
    pub(crate) fn directory(&self, node: u64, handle: u64) -> io::Result<Rc<Directory>> {
        match self.get(node, handle)? {
            Open::Directory(directory) => Ok(Rc::clone(directory)),
            Open::File(..) => Err(Errno::BADF.into()),
        }
    }

    /// Whether the names of the file behind a handle have to be looked at again, before it is written.
    pub(crate) fn is_due(&self, handle: u64) -> bool {
        let held = self.open.get(&handle);
        held.is_some_and(|held| now().saturating_sub(held.judged) >= CACHE_TIME)
    }

    /// They were, and nothing forbids it.
    pub(crate) fn judged(&mut self, handle: u64) {
        if let Some(held) = self.open.get_mut(&handle) {
            held.judged = now();
        }
    }

    /// Any file that the guest has open for this node.
    pub(crate) fn of_node(&self, node: u64) -> Option<Rc<File>> {
        let handle = self.by_node.get(&node)?;
        self.open.get(handle).map(|held| held.open.file())
    }

    /// Closes a handle of this node. `EBADF` for any other number.
    pub(crate) fn remove(&mut self, node: u64, handle: u64) -> io::Result<()> {
        self.get(node, handle)?;
        let Some(gone) = self.open.remove(&handle) else {
            return Err(Errno::BADF.into());
        };
        let first = self.by_node.get(&node).copied();
        match (first, gone.beside) {
            (Some(first), Some(beside)) if first == handle => {
                self.by_node.insert(node, beside);
            }
            (Some(first), None) if first == handle => {
                self.by_node.remove(&node);
            }
            (first, beside) => self.unhang(first, handle, beside),
        }
        Ok(())
    }

    /// A handle that hung on others of its node, of which this is the newest, is gone.
    fn unhang(&mut self, newest: Option<u64>, gone: u64, beside: Option<u64>) {
        let mut at = newest;
        while let Some(held) = at.and_then(|handle| self.open.get_mut(&handle)) {
            if held.beside == Some(gone) {
                held.beside = beside;
                return;
            }
            at = held.beside;
        }
    }

    /// All of them: handle, node, and what is open.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u64, u64, &Open)> {
        self.open
            .iter()
            .map(|(handle, held)| (*handle, held.node, &held.open))
    }

    /// The number of the next handle.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Takes in what had this number in a saved machine. `ENFILE` when the table is full.
    pub(crate) fn put_back(&mut self, handle: u64, node: u64, open: Open) -> io::Result<()> {
        self.check_room()?;
        if self.open.contains_key(&handle) {
            return Err(Errno::BADF.into());
        }
        self.hold(handle, node, open);
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
