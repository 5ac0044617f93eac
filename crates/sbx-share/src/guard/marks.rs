//! What the rules say of a node.

use super::Below;
use crate::limits::MAX_DEPTH;
use crate::nodes::{Kind, ROOT};
use crate::share::Share;
use rustix::io::Errno;
use std::io;
use std::rc::Rc;

/// What was found out about a node, and in which epoch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark {
    pub(crate) epoch: u64,
    pub(crate) protected: Option<u16>,
    /// Files only: the rule of which it is a lock, by a name that it has now.
    pub(crate) lock: Option<u16>,
    /// Directories only.
    pub(crate) below: Option<Rc<Below>>,
}

impl Share {
    /// What the rules remember of the way to a directory. `ENOTDIR` for anything else: rules that hold for files of a name
    /// do not hold for a directory of that name, so a file that was taken for one would lose its mark.
    pub(crate) fn below(&self, id: u64) -> io::Result<Rc<Below>> {
        let epoch = self.guard.epoch();
        let mut nodes = self.nodes();
        if id != ROOT && nodes.kind(id).is_some_and(|kind| kind != Kind::Directory) {
            return Err(Errno::NOTDIR.into());
        }
        let (mut at, mut way) = (id, Vec::new());
        let mut below = loop {
            if at == ROOT {
                break Rc::clone(&self.guard.root);
            }
            let mark = nodes.mark(at).ok_or(Errno::STALE)?;
            if let (true, Some(below)) = (mark.epoch == epoch, &mark.below) {
                break Rc::clone(below);
            }
            if way.len() == MAX_DEPTH {
                return Err(Errno::NAMETOOLONG.into());
            }
            let place = nodes.place(at).ok_or(Errno::STALE)?;
            way.push((at, place.name));
            at = place.parent;
        };
        for (id, name) in way.into_iter().rev() {
            let judged = self.guard.judge(&below, name.to_bytes(), true);
            below = if judged.below == *below {
                below
            } else {
                Rc::new(judged.below)
            };
            let mark = Mark {
                epoch,
                protected: judged.protected,
                lock: None,
                below: Some(Rc::clone(&below)),
            };
            nodes.set_mark(id, mark);
        }
        Ok(below)
    }

    /// The rule that protects a node under any name it has, or had while the guest knew it. `ESTALE` if nothing can be said
    /// of any: the guest has forgotten what is above it, which Linux does not do while it knows what is in there.
    pub(super) fn protection(&self, id: u64) -> io::Result<Option<u16>> {
        Ok(self.judged(id)?.protected)
    }

    /// All that the rules say of a node.
    pub(super) fn judged(&self, id: u64) -> io::Result<Mark> {
        if id == ROOT || self.guard.protect.is_empty() {
            return Ok(Mark::default());
        }
        let epoch = self.guard.epoch();
        let (places, directory, before) = {
            let nodes = self.nodes();
            let mark = nodes.mark(id).ok_or(Errno::STALE)?;
            if mark.epoch == epoch {
                return Ok(mark);
            }
            (
                nodes.places(id),
                nodes.kind(id) == Some(Kind::Directory),
                mark.protected,
            )
        };
        if directory {
            self.below(id)?;
            return Ok(self.nodes().mark(id).unwrap_or_default());
        }
        let (mut protected, nameless, mut judges) = (before, places.is_empty(), 0);
        let mut lock = None;
        for place in places {
            // The guest has forgotten that directory. The name is counted when the file is opened to be written.
            let Ok(below) = self.below(place.parent) else {
                continue;
            };
            judges += 1;
            let judged = self.guard.judge(&below, place.name.to_bytes(), false);
            protected = protected.or(judged.protected);
            lock = lock.or(judged.lock);
        }
        if judges == 0 && !nameless && protected.is_none() {
            return Err(Errno::STALE.into());
        }
        let mark = Mark {
            epoch,
            protected,
            lock,
            below: None,
        };
        self.nodes().set_mark(id, mark.clone());
        Ok(mark)
    }

    /// The path of a name from the root, for events. What cannot be told any more is left out.
    pub(super) fn shown(&self, parent: u64, name: &[u8]) -> Vec<u8> {
        let nodes = self.nodes();
        let route = nodes.route(parent).unwrap_or_default();
        let mut path = Vec::new();
        for part in route {
            path.extend_from_slice(part.to_bytes());
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// The path of a node.
    pub(super) fn shown_node(&self, id: u64) -> Vec<u8> {
        let place = self.nodes().place(id);
        place.map_or_else(
            || b"(a file without a name)".to_vec(),
            |place| self.shown(place.parent, place.name.to_bytes()),
        )
    }
}
