//! What is in the guest's tree only.
//!
//! - **Masks**: directories at which the guest mounts a directory of its own disk. Nothing of that is ever on the host,
//!   and what the host has under such a name is not shown.
//! - **Stand-ins**: hidden files that git has in its index. They read as what git has, so that git inside neither finds
//!   them deleted nor changed, and nobody sees what the host's files say beyond that.

use crate::limits::CACHE_TIME;
use crate::nodes::{Identity, Kind};
use crate::owner::Owners;
use crate::share::Share;
use rustix::io::Errno;
use sbx_workspace::rules::StandIn;
use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::time::Duration;
use virtiofsd::filesystem::Entry;
use virtiofsd::fuse::Attr;

/// One of them.
#[derive(Debug)]
enum Virtual {
    Mask,
    /// A directory that is hidden, with stand-ins in it.
    Above,
    File {
        content: File,
        size: u64,
        executable: bool,
    },
}

/// A name in a directory, for its listing.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) bytes: Vec<u8>,
    pub(crate) directory: bool,
}

/// The table: by path from the root.
#[derive(Debug, Default)]
pub(crate) struct Virtuals {
    all: Vec<(Vec<u8>, Virtual)>,
    /// By the directory that they are in: their last components, and their numbers.
    inside: HashMap<Vec<u8>, Vec<(Vec<u8>, usize)>>,
}

impl Virtuals {
    /// For these paths; what is no plain relative path, or cannot be read, is left out.
    pub(crate) fn new(masks: &[String], stand_ins: &[StandIn]) -> Self {
        let mut virtuals = Self::default();
        for path in masks {
            virtuals.add(path, Virtual::Mask);
        }
        for stand_in in stand_ins {
            let Ok(content) = File::open(&stand_in.content) else {
                continue;
            };
            let Ok(size) = content.metadata().map(|meta| meta.len()) else {
                continue;
            };
            let executable = stand_in.executable;
            let file = Virtual::File {
                content,
                size,
                executable,
            };
            virtuals.add(&stand_in.path, file);
            for above in &stand_in.hidden_above {
                virtuals.add(above, Virtual::Above);
            }
        }
        virtuals
    }

    fn add(&mut self, path: &str, what: Virtual) {
        let plain = path.split('/').all(|name| !matches!(name, "" | "." | ".."));
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (parent, name) = (parent.as_bytes(), name.as_bytes());
        if !plain || path.contains('\0') || self.find(parent, name).is_some() {
            return;
        }
        let number = self.all.len();
        self.all.push((path.as_bytes().to_vec(), what));
        let inside = self.inside.entry(parent.to_vec()).or_default();
        inside.push((name.to_vec(), number));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Names in a directory, by its path.
    pub(crate) fn names(&self, directory: &[u8]) -> Vec<Name> {
        let inside = self.inside.get(directory).into_iter().flatten();
        let named = inside.map(|(name, number)| Name {
            bytes: name.clone(),
            directory: self.kind(*number) == Kind::Directory,
        });
        named.collect()
    }

    fn find(&self, directory: &[u8], name: &[u8]) -> Option<usize> {
        let inside = self.inside.get(directory)?;
        let found = inside.iter().find(|(known, _)| known == name)?;
        Some(found.1)
    }

    fn kind(&self, number: usize) -> Kind {
        match self.all.get(number) {
            Some((_, Virtual::File { .. })) => Kind::File,
            _ => Kind::Directory,
        }
    }

    /// Why nothing may be done with this path: it is one of them, or has a mask below it.
    fn refuse(&self, path: &[u8]) -> Option<Errno> {
        self.all.iter().find_map(|(known, what)| {
            let rest = known.strip_prefix(path)?;
            match what {
                Virtual::Mask if rest.is_empty() || rest.starts_with(b"/") => Some(Errno::BUSY),
                _ if rest.is_empty() => Some(Errno::ACCESS),
                _ => None,
            }
        })
    }

    fn attributes(&self, owners: &Owners, number: usize) -> Attr {
        let common = Attr {
            ino: u64::MAX - number as u64,
            nlink: 1,
            blksize: 4096,
            ..owners.own()
        };
        match self.all.get(number) {
            Some((
                _,
                Virtual::File {
                    size, executable, ..
                },
            )) => Attr {
                mode: libc::S_IFREG | if *executable { 0o755 } else { 0o644 },
                size: *size,
                blocks: size.div_ceil(512),
                ..common
            },
            _ => Attr {
                mode: libc::S_IFDIR | 0o755,
                nlink: 2,
                ..common
            },
        }
    }
}

impl Share {
    /// The answer to a look-up of such a name; `None`: it is none.
    pub(crate) fn look_up_virtual(&self, parent: u64, name: &CStr) -> io::Result<Option<Entry>> {
        if self.virtuals.is_empty() {
            return Ok(None);
        }
        let directory = self.path_of(parent)?;
        let Some(number) = self.virtuals.find(&directory, name.to_bytes()) else {
            return Ok(None);
        };
        let (identity, kind) = (Identity::of_virtual(number), self.virtuals.kind(number));
        let inode = self.nodes().found(identity, parent, name, kind)?;
        Ok(Some(Entry {
            inode,
            generation: 0,
            attr: self.virtuals.attributes(&self.owners, number),
            attr_timeout: CACHE_TIME,
            entry_timeout: CACHE_TIME,
        }))
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

    fn virtual_number(&self, id: u64) -> Option<usize> {
        if self.virtuals.is_empty() {
            return None;
        }
        self.nodes().identity(id).ok()?.virtual_number()
    }

    /// Attributes of such a node; `None`: it is another.
    pub(crate) fn virtual_attributes(&self, id: u64) -> Option<(Attr, Duration)> {
        let number = self.virtual_number(id)?;
        Some((self.virtuals.attributes(&self.owners, number), CACHE_TIME))
    }

    /// Whether the node is a directory that only the guest has.
    pub(crate) fn is_virtual_directory(&self, id: u64) -> bool {
        let number = self.virtual_number(id);
        number.is_some_and(|number| self.virtuals.kind(number) == Kind::Directory)
    }

    /// The content of a stand-in, to be read; `None`: the node is another.
    pub(crate) fn open_virtual(&self, id: u64, writes: bool) -> Option<io::Result<File>> {
        let number = self.virtual_number(id)?;
        Some(match self.virtuals.all.get(number) {
            Some((_, Virtual::File { .. })) if writes => Err(Errno::ACCESS.into()),
            Some((_, Virtual::File { content, .. })) => content.try_clone(),
            _ => Err(Errno::ISDIR.into()),
        })
    }

    /// `EBUSY` for a name that is, or has below it, a directory at which the guest has something mounted; `EACCES` for a
    /// stand-in, or anything in a directory that is none of the host's.
    pub(crate) fn check_virtual(&self, parent: u64, name: &CStr) -> io::Result<()> {
        if self.virtuals.is_empty() {
            return Ok(());
        }
        let mut path = self.path_of(parent)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        match self.virtuals.refuse(&path) {
            Some(errno) => Err(errno.into()),
            None => Ok(()),
        }
    }
}
