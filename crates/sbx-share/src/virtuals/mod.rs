//! What is in the guest's tree only.
//!
//! - **Masks**: directories at which the guest mounts a directory of its own disk. Nothing of that is ever on the host,
//!   and what the host has under such a name is not shown. More may appear while the guest runs ([`crate::late`]), for
//!   which there is a file that no listing shows.
//! - **Stand-ins**: hidden files that git has in its index. They read as what git has, so that git inside neither finds
//!   them deleted nor changed, and nobody sees what the host's files say beyond that.

use crate::late::Late;
use crate::limits::CACHE_TIME;
use crate::nodes::{Identity, Kind};
use crate::owner::Owners;
use crate::share::Share;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use sbx_workspace::Rules;
use sbx_workspace::late_mask::CONTROL;
use sbx_workspace::rules::StandIn;
use std::cell::RefMut;
use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;
use virtiofsd::filesystem::Entry;
use virtiofsd::fuse::Attr;

/// One of them.
#[derive(Debug)]
enum Virtual {
    Mask,
    /// A directory that is hidden, with stand-ins in it.
    Above,
    /// What the guest's agent reads and writes. Its descriptor is of an empty file that stays so.
    Control(File),
    File {
        content: File,
        size: u64,
        executable: bool,
    },
}

impl Virtual {
    fn is_mask(&self) -> bool {
        matches!(self, Self::Mask)
    }
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
    all: Vec<(String, Virtual)>,
    /// Those that the rules name; the others have appeared since.
    first: usize,
    /// All last components: most names are none.
    known: HashSet<Vec<u8>>,
    /// By the directory that they are in: their last components, and their numbers.
    inside: HashMap<Vec<u8>, Vec<(Vec<u8>, usize)>>,
    pub(crate) late: Late,
}

impl Virtuals {
    /// Those of the rules; what is no plain relative path, or cannot be read, is left out.
    pub(crate) fn new(root: &Path, rules: &Rules, read_only: bool) -> io::Result<Self> {
        let mut virtuals = Self::default();
        for path in &rules.masks {
            virtuals.add(path, Virtual::Mask);
        }
        for stand_in in &rules.stand_ins {
            virtuals.add_stand_in(stand_in);
        }
        // Nothing can be made in a read-only share, so nothing appears.
        if !read_only && !rules.late_masks.is_empty() {
            virtuals.late = Late::new(&rules.late_masks, root.to_owned());
            virtuals.add(CONTROL, Virtual::Control(empty_file()?));
        }
        virtuals.first = virtuals.all.len();
        Ok(virtuals)
    }

    fn add_stand_in(&mut self, stand_in: &StandIn) {
        let Ok(content) = File::open(&stand_in.content) else {
            return;
        };
        let Ok(size) = content.metadata().map(|meta| meta.len()) else {
            return;
        };
        let executable = stand_in.executable;
        let file = Virtual::File {
            content,
            size,
            executable,
        };
        self.add(&stand_in.path, file);
        for above in &stand_in.hidden_above {
            self.add(above, Virtual::Above);
        }
    }

    fn add(&mut self, path: &str, what: Virtual) {
        let plain = path.split('/').all(|name| !matches!(name, "" | "." | ".."));
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (parent, name) = (parent.as_bytes(), name.as_bytes());
        if !plain || path.contains('\0') || self.find(parent, name).is_some() {
            return;
        }
        let number = self.all.len();
        self.all.push((path.to_owned(), what));
        self.known.insert(name.to_vec());
        let inside = self.inside.entry(parent.to_vec()).or_default();
        inside.push((name.to_vec(), number));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// One more mask; its number, if its path can be one.
    pub(crate) fn add_mask(&mut self, path: &str) -> Option<usize> {
        self.add(path, Virtual::Mask);
        self.find_path(path)
    }

    /// How many masks there are.
    pub(crate) fn masks(&self) -> usize {
        let masks = self.all.iter().filter(|(_, what)| what.is_mask());
        masks.count()
    }

    pub(crate) fn is_mask(&self, number: usize) -> bool {
        self.all.get(number).is_some_and(|(_, what)| what.is_mask())
    }

    /// The path of one, from the root.
    pub(crate) fn path(&self, number: usize) -> Option<&str> {
        self.all.get(number).map(|(path, _)| &**path)
    }

    /// The paths of those that the rules name, and of those that have appeared since.
    pub(crate) fn appeared(&self) -> (Vec<String>, Vec<String>) {
        let paths = self.all.iter().map(|(path, _)| path.clone());
        let mut first: Vec<String> = paths.collect();
        let appeared = first.split_off(self.first);
        (first, appeared)
    }

    /// Names in a directory, by its path.
    pub(crate) fn names(&self, directory: &[u8]) -> Vec<Name> {
        let inside = self.inside.get(directory).into_iter().flatten();
        let listed =
            |number: usize| !matches!(self.all.get(number), Some((_, Virtual::Control(_))));
        let inside = inside.filter(|(_, number)| listed(*number));
        let named = inside.map(|(name, number)| Name {
            bytes: name.clone(),
            directory: self.kind(*number) == Kind::Directory,
        });
        named.collect()
    }

    pub(crate) fn find_path(&self, path: &str) -> Option<usize> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.find(directory.as_bytes(), name.as_bytes())
    }

    pub(crate) fn find(&self, directory: &[u8], name: &[u8]) -> Option<usize> {
        let inside = self.inside.get(directory)?;
        let found = inside.iter().find(|(known, _)| known == name)?;
        Some(found.1)
    }

    fn kind(&self, number: usize) -> Kind {
        match self.all.get(number) {
            Some((_, Virtual::File { .. } | Virtual::Control(_))) => Kind::File,
            _ => Kind::Directory,
        }
    }

    /// Why nothing may be done with this path: it is one of them, or has a mask below it.
    fn refuse(&self, path: &[u8]) -> Option<Errno> {
        self.all.iter().find_map(|(known, what)| {
            let rest = known.as_bytes().strip_prefix(path)?;
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
            Some((_, Virtual::Control(_))) => Attr {
                mode: libc::S_IFREG | 0o600,
                uid: 0.into(),
                gid: 0.into(),
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
            Some((_, Virtual::File { content, .. })) => content.try_clone(),
            _ => Err(Errno::ISDIR.into()),
        })
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

/// A file of nothing that stays so, whatever the guest does with its handle.
fn empty_file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("sbx-share", flags)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(file.into())
}
