//! The short way to a node's file: by the name under which it was last seen, in a directory that is at hand.

use std::ffi::CStr;
use std::fs::File;

use rustix::fs::{FileType, OFlags, Statx};

use crate::nodes::{Identity, Kind, ROOT};
use crate::share::{Share, is_type};
use crate::tree::{self, Reached};

impl Share {
    /// A directory that needs no walk.
    pub(crate) fn at_hand(&self, id: u64) -> Option<Reached<'_>> {
        if id == ROOT {
            return Some(Reached::Root(self.tree.root()));
        }
        self.descriptors().get(id).map(Reached::Directory)
    }

    /// Does something with the name under which a node was last seen, in its directory. What is found there need not be
    /// the node's file, whose identity comes with it. `None`: it has no name, or its directory cannot be reached.
    fn by_name<T>(
        &self,
        id: u64,
        work: impl Fn(Kind, &Reached<'_>, &CStr) -> T,
    ) -> Option<(Identity, T)> {
        // The second time its directory is at hand.
        for _ in 0..2 {
            let parent = {
                let nodes = self.nodes();
                let (identity, kind, place) = nodes.by_name(id)?;
                if let Some(directory) = self.at_hand(place.parent) {
                    return Some((identity, work(kind, &directory, &place.name)));
                }
                place.parent
            };
            self.reach_directory(parent).ok()?;
        }
        None
    }

    /// Attributes of a node by the name it was last seen under, if it is still there. Shorter than reaching it.
    pub(crate) fn stat_by_name(&self, id: u64) -> Option<Statx> {
        let (identity, stat) = self.by_name(id, |_, directory, name| {
            tree::stat_name(directory, name).ok()
        })?;
        stat.filter(|stat| Identity::from(stat) == identity)
    }

    /// Opens the file of a node by the name it was last seen under, if it is still there. What is wrong otherwise is
    /// found out on the long way.
    pub(crate) fn open_by_name(&self, id: u64, flags: OFlags) -> Option<(File, Statx)> {
        let (identity, opened) = self.by_name(id, |kind, directory, name| match kind {
            Kind::File => tree::open_name(directory, name, flags - OFlags::TRUNC).ok(),
            Kind::Directory | Kind::Other => None,
        })?;
        let opened = opened?;
        let stat = tree::stat(&opened).ok()?;
        let same = Identity::from(&stat) == identity && is_type(&stat, FileType::RegularFile);
        same.then(|| (opened.into(), stat))
    }
}
