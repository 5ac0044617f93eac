//! Locks of git's settings: who made this one?
//!
//! Git makes `config.lock` if nobody has it, writes it, and renames it to `config` by its path, the host's git without
//! asking anybody. So a lock that the host has made is not written, moved, removed or exchanged from inside, and one of the
//! guest's is never where the host's could be taken for it: it is made under its name, as git does it, and no directory
//! above it is renamed meanwhile.

use super::renames::Named;
use crate::limits::{MAX_DEPTH, MAX_LOCKS};
use crate::nodes::Identity;
use crate::share::Share;
use crate::tree;
use rustix::fs::{Mode as Permissions, OFlags, Statx};
use rustix::io::Errno;
use sbx_workspace::Mode;
use sbx_workspace::event::Action;
use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Locks that the guest has made through this share.
#[derive(Debug, Default)]
pub(super) struct Locks(RefCell<Vec<Lock>>);

/// One of them, in a directory that is held: the guest may forget its node, and the host may move it.
#[derive(Debug)]
struct Lock {
    directory: OwnedFd,
    name: CString,
    identity: Identity,
}

impl Lock {
    fn is_there(&self) -> bool {
        let found = tree::stat_name(&self.directory, &self.name);
        found.is_ok_and(|found| Identity::from(&found) == self.identity)
    }

    /// Whether a directory is above it, in a tree with this root.
    fn is_below(&self, above: Identity, root: Identity) -> io::Result<bool> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = self.directory.try_clone()?;
        for _ in 0..=MAX_DEPTH {
            let here = Identity::from(&tree::stat(&at)?);
            if here == above || here == root {
                return Ok(here == above);
            }
            at = rustix::fs::openat(&at, c"..", flags, Permissions::empty())?;
        }
        // The host has moved it, very deep or out of the tree.
        Ok(false)
    }
}

impl Locks {
    /// Whether a lock is one of the guest's that is still where it was made.
    pub(super) fn own(&self, identity: Identity) -> bool {
        // Its number may be that of the host's next one as soon as it is gone.
        let is = |lock: &Lock| lock.identity == identity && lock.is_there();
        self.0.borrow().iter().any(is)
    }

    /// Forgets those that are gone; whether there is room for one more.
    fn has_room(&self) -> bool {
        let mut locks = self.0.borrow_mut();
        locks.retain(Lock::is_there);
        locks.len() < MAX_LOCKS
    }
}

impl Share {
    /// `ENFILE` if the guest has too many locks for one more to be known for its own.
    pub(super) fn check_room_for_lock(&self, number: u16) -> io::Result<()> {
        if self.guard.mode(number) == Mode::Report || self.guard.locks.has_room() {
            Ok(())
        } else {
            Err(Errno::NFILE.into())
        }
    }

    /// A regular file was just made by the guest, where nothing was.
    pub(crate) fn note_made(
        &self,
        parent: u64,
        directory: impl AsFd,
        name: &CStr,
        stat: &Statx,
    ) -> io::Result<()> {
        let judged = self.judge_name(parent, name, false)?;
        let lock = judged.is_some_and(|judged| judged.lock.is_some());
        if lock && self.guard.locks.has_room() {
            self.guard.locks.0.borrow_mut().push(Lock {
                directory: directory.as_fd().try_clone_to_owned()?,
                name: name.to_owned(),
                identity: Identity::from(stat),
            });
        }
        Ok(())
    }

    /// Whether the guest may do this with a name that the rule `lock` takes for a lock's, and which it must have made.
    pub(super) fn check_own_lock(
        &self,
        lock: Option<u16>,
        at: Named<'_>,
        action: Action,
    ) -> io::Result<()> {
        let Some(number) = lock else {
            return Ok(());
        };
        let Ok(stat) = tree::stat_name(at.directory, at.name) else {
            return Ok(());
        };
        if self.guard.locks.own(Identity::from(&stat)) {
            return Ok(());
        }
        self.refuse_lock(number, action, &self.shown(at.parent, at.name.to_bytes()))
    }

    /// The same for a node.
    pub(super) fn check_lock(&self, id: u64, action: Action) -> io::Result<()> {
        let Some(number) = self.judged(id)?.lock else {
            return Ok(());
        };
        let identity = self.nodes().identity(id)?;
        if self.guard.locks.own(identity) {
            return Ok(());
        }
        self.refuse_lock(number, action, &self.shown_node(id))
    }

    /// No directory is renamed while a lock of the guest's is in it: the host's git would find it at the path of its own.
    pub(super) fn check_holds_no_lock(&self, at: Named<'_>, stat: &Statx) -> io::Result<()> {
        let locks = &self.guard.locks;
        locks.has_room();
        if locks.0.borrow().is_empty() {
            return Ok(());
        }
        let root = Identity::from(&tree::stat(self.tree.root())?);
        for lock in locks.0.borrow().iter() {
            if lock.is_below(Identity::from(stat), root)? {
                let path = self.shown(at.parent, at.name.to_bytes());
                let why = "git inside holds a lock in it".to_owned();
                let mode = self.guard.usual_mode();
                self.guard.refuse(mode, Action::Rename, &path, why)?;
            }
        }
        Ok(())
    }

    /// Something was tried with a lock that is not the guest's.
    pub(super) fn refuse_lock(&self, number: u16, action: Action, path: &[u8]) -> io::Result<()> {
        let pattern = self.guard.protect.pattern(number);
        let why = pattern.map_or_else(String::new, |file| format!("the lock of {file}"));
        self.guard
            .refuse(self.guard.mode(number), action, path, why)
    }
}
