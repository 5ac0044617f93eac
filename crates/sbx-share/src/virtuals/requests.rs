//! What is asked of a share about what the guest alone has.

use super::{Virtual, Virtuals};
use crate::limits::CACHE_TIME;
use crate::nodes::{Identity, Kind};
use crate::share::Share;
use rustix::io::Errno;
use std::cell::RefMut;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;
use virtiofsd::filesystem::Entry;
use virtiofsd::fuse::Attr;

/// Longest text of a link, bytes (`PATH_MAX` less its end).
const MAX_LINK: usize = 4095;

fn is_link(mode: u32) -> bool {
    mode & libc::S_IFMT == libc::S_IFLNK
}

impl Share {
    pub(crate) fn virtuals(&self) -> RefMut<'_, Virtuals> {
        self.virtuals.borrow_mut()
    }

    /// The answer to a look-up of such a name; `None`: it is none.
    pub(crate) fn look_up_virtual(&self, parent: u64, name: &CStr) -> io::Result<Option<Entry>> {
        let mut virtuals = self.virtuals();
        if !virtuals.known.contains(name.to_bytes()) {
            return Ok(None);
        }
        let directory = self.path_of(parent)?;
        let Some(number) = virtuals.find(&directory, name.to_bytes()) else {
            return Ok(None);
        };
        if virtuals.is_mask(number) && !self.knows_at(number, parent) {
            virtuals.late.remind(number);
        }
        let (identity, kind) = (Identity::of_virtual(number), virtuals.kind(number));
        let inode = self.nodes().found(identity, parent, name, kind)?;
        // Whoever would enter it asks for them first.
        let changes = virtuals.late.is_entered_anew(number);
        Ok(Some(Entry {
            inode,
            generation: 0,
            attr: virtuals.attributes(&self.owners, number),
            attr_timeout: if changes { Duration::ZERO } else { CACHE_TIME },
            entry_timeout: CACHE_TIME,
        }))
    }

    /// Whether the guest holds the node of this one.
    pub(crate) fn knows(&self, number: usize) -> bool {
        self.nodes().knows(Identity::of_virtual(number))
    }

    /// The same, in this directory. What the guest has something mounted at it does not forget, and neither what is above.
    fn knows_at(&self, number: usize, parent: u64) -> bool {
        let nodes = self.nodes();
        let place = nodes.place_of(Identity::of_virtual(number));
        place.is_some_and(|place| place.parent == parent)
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

    /// The path of a name in a directory, from the root.
    pub(crate) fn path_in(&self, parent: u64, name: &CStr) -> io::Result<Vec<u8>> {
        let mut path = self.path_of(parent)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        Ok(path)
    }

    fn virtual_number(&self, id: u64) -> Option<usize> {
        if self.virtuals().is_empty() {
            return None;
        }
        self.nodes().identity(id).ok()?.virtual_number()
    }

    /// Attributes of such a node; `None`: it is another.
    pub(crate) fn virtual_attributes(&self, id: u64) -> Option<(Attr, Duration)> {
        let number = self.virtual_number(id)?;
        Some((self.virtuals().attributes(&self.owners, number), CACHE_TIME))
    }

    /// `ESTALE` for a directory at which something is to be mounted, and is not yet.
    pub(crate) fn check_mounted(&self, id: u64) -> io::Result<()> {
        let number = self.virtual_number(id);
        if number.is_some_and(|number| self.virtuals().late.is_entered_anew(number)) {
            return Err(Errno::STALE.into());
        }
        Ok(())
    }

    /// Whether the node is a hidden directory, in which there are stand-ins and nothing else.
    pub(crate) fn holds_stand_ins_only(&self, id: u64) -> bool {
        let number = self.virtual_number(id);
        let is = |number| matches!(self.virtuals().all.get(number), Some((_, Virtual::Above)));
        number.is_some_and(is)
    }

    /// Whether the node is a directory that only the guest has.
    pub(crate) fn is_virtual_directory(&self, id: u64) -> bool {
        let number = self.virtual_number(id);
        number.is_some_and(|number| self.virtuals().kind(number) == Kind::Directory)
    }

    /// Whether the node is the file that the guest's agent reads and writes.
    pub(crate) fn is_control(&self, id: u64) -> bool {
        let number = self.virtual_number(id);
        let is = |number| {
            matches!(
                self.virtuals().all.get(number),
                Some((_, Virtual::Control(_)))
            )
        };
        number.is_some_and(is)
    }

    /// The content of a stand-in, to be read; `None`: the node is another.
    pub(crate) fn open_virtual(&self, id: u64, writes: bool) -> Option<io::Result<File>> {
        let number = self.virtual_number(id)?;
        Some(match self.virtuals().all.get(number) {
            Some((_, Virtual::Control(empty))) => empty.try_clone(),
            Some((_, Virtual::File { .. })) if writes => Err(Errno::ACCESS.into()),
            Some((_, Virtual::File { mode, .. })) if is_link(*mode) => Err(Errno::LOOP.into()),
            Some((_, Virtual::File { content, .. })) => content.try_clone(),
            _ => Err(Errno::ISDIR.into()),
        })
    }

    /// The text of a stand-in that is a link; `None`: the node is another.
    pub(crate) fn virtual_text(&self, id: u64) -> Option<io::Result<Vec<u8>>> {
        let number = self.virtual_number(id)?;
        let virtuals = self.virtuals();
        let Some((
            _,
            Virtual::File {
                content,
                size,
                mode,
            },
        )) = virtuals.all.get(number)
        else {
            return None;
        };
        if !is_link(*mode) {
            return Some(Err(Errno::INVAL.into()));
        }
        let mut text = vec![0; usize::try_from(*size).unwrap_or(0).min(MAX_LINK)];
        Some(content.read_exact_at(&mut text, 0).map(|()| text))
    }

    /// Whether a hidden directory or a stand-in may be used in that way; `None`: the node is another.
    pub(crate) fn virtual_access(&self, id: u64, writes: bool) -> Option<io::Result<()>> {
        let number = self.virtual_number(id)?;
        match self.virtuals().out_of_reach(number) {
            Errno::ACCESS if writes => Some(Err(Errno::ACCESS.into())),
            Errno::ACCESS => Some(Ok(())),
            _ => None,
        }
    }

    /// `EBUSY` for a name that is one, `EACCES` for a stand-in: something new cannot have it. What has one below it may
    /// have gone, and come again.
    pub(crate) fn check_virtual_made(&self, parent: u64, name: &CStr) -> io::Result<()> {
        let found = {
            let virtuals = self.virtuals();
            if !virtuals.known.contains(name.to_bytes()) {
                return Ok(());
            }
            virtuals.find(&self.path_of(parent)?, name.to_bytes())
        };
        match found {
            Some(number) if self.virtuals().is_mask(number) => Err(Errno::BUSY.into()),
            Some(_) => Err(Errno::ACCESS.into()),
            None => Ok(()),
        }
    }

    /// `EBUSY` for a name that is, or has below it, a directory at which the guest has something mounted; `EACCES` for a
    /// stand-in, or anything in a directory that is none of the host's.
    pub(crate) fn check_virtual(&self, parent: u64, name: &CStr) -> io::Result<()> {
        if self.virtuals().is_empty() {
            return Ok(());
        }
        let path = self.path_in(parent, name)?;
        match self.virtuals().refuse(&path) {
            Some(errno) => Err(errno.into()),
            None => Ok(()),
        }
    }
}
