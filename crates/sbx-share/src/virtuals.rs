//! Directories that are in the guest's tree only: there the guest mounts a directory of its own disk, and nothing of
//! that is ever on the host. What the host has under such a name is not shown.

use crate::limits::CACHE_TIME;
use crate::nodes::{Identity, Kind};
use crate::owner::Owners;
use crate::share::Share;
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::time::Duration;
use virtiofsd::filesystem::Entry;
use virtiofsd::fuse::Attr;

/// The table: paths from the root.
#[derive(Debug, Default)]
pub(crate) struct Virtuals {
    paths: Vec<Vec<u8>>,
    /// By the directory that they are in: their last components, and their numbers.
    inside: HashMap<Vec<u8>, Vec<(Vec<u8>, usize)>>,
}

impl Virtuals {
    /// For these paths; what is no plain relative path is left out.
    pub(crate) fn new(paths: &[String]) -> Self {
        let mut virtuals = Self::default();
        for path in paths {
            let plain = path.split('/').all(|name| !matches!(name, "" | "." | ".."));
            if !plain || path.contains('\0') {
                continue;
            }
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            let number = virtuals.paths.len();
            virtuals.paths.push(path.as_bytes().to_vec());
            let inside = virtuals
                .inside
                .entry(parent.as_bytes().to_vec())
                .or_default();
            inside.push((name.as_bytes().to_vec(), number));
        }
        virtuals
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Names in a directory, by its path.
    pub(crate) fn names(&self, directory: &[u8]) -> Vec<Vec<u8>> {
        let inside = self.inside.get(directory).into_iter().flatten();
        inside.map(|(name, _)| name.clone()).collect()
    }

    fn find(&self, directory: &[u8], name: &[u8]) -> Option<usize> {
        let inside = self.inside.get(directory)?;
        let found = inside.iter().find(|(known, _)| known == name)?;
        Some(found.1)
    }

    /// Whether one of them is at this path or below it.
    fn touches(&self, path: &[u8]) -> bool {
        self.paths.iter().any(|known| {
            let rest = known.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        })
    }
}

impl Share {
    /// The answer to a look-up of such a name; `None`: it is none.
    pub(crate) fn look_up_virtual(&self, parent: u64, name: &CStr) -> io::Result<Option<Entry>> {
        let Some(number) = self.virtual_at(parent, name)? else {
            return Ok(None);
        };
        let identity = Identity::of_virtual(number);
        let inode = self
            .nodes()
            .found(identity, parent, name, Kind::Directory)?;
        Ok(Some(Entry {
            inode,
            generation: 0,
            attr: attributes(&self.owners, number),
            attr_timeout: CACHE_TIME,
            entry_timeout: CACHE_TIME,
        }))
    }

    fn virtual_at(&self, parent: u64, name: &CStr) -> io::Result<Option<usize>> {
        if self.virtuals.is_empty() {
            return Ok(None);
        }
        let directory = self.path_of(parent)?;
        Ok(self.virtuals.find(&directory, name.to_bytes()))
    }

    /// The path of a directory from the root.
    pub(crate) fn path_of(&self, id: u64) -> io::Result<Vec<u8>> {
        let nodes = self.nodes();
        let route: Vec<&[u8]> = nodes
            .route(id)?
            .iter()
            .map(|name| name.to_bytes())
            .collect();
        Ok(route.join(&b'/'))
    }

    /// Attributes of such a directory; `None`: the node is another.
    pub(crate) fn virtual_attributes(&self, id: u64) -> Option<(Attr, Duration)> {
        if self.virtuals.is_empty() {
            return None;
        }
        let number = self.nodes().identity(id).ok()?.virtual_number()?;
        Some((attributes(&self.owners, number), CACHE_TIME))
    }

    /// `EBUSY` for a name that is, or has below it, such a directory: the guest has something mounted there.
    pub(crate) fn check_virtual(&self, parent: u64, name: &CStr) -> io::Result<()> {
        if self.virtuals.is_empty() {
            return Ok(());
        }
        let mut path = self.path_of(parent)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        if self.virtuals.touches(&path) {
            return Err(Errno::BUSY.into());
        }
        Ok(())
    }
}

fn attributes(owners: &Owners, number: usize) -> Attr {
    Attr {
        ino: u64::MAX - number as u64,
        mode: libc::S_IFDIR | 0o755,
        nlink: 2,
        blksize: 4096,
        ..owners.own()
    }
}
