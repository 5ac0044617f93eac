//! What is in the guest's tree only.
//!
//! - **Masks**: directories at which the guest mounts a directory of its own disk. Nothing of that is ever on the host,
//!   and what the host has under such a name is not shown. More may appear while the guest runs ([`crate::late`]), for
//!   which there is a file that no listing shows.
//! - **Stand-ins**: hidden files that git has in its index. They read as what git has, so that git inside neither finds
//!   them deleted nor changed, and nobody sees what the host's files say beyond that.
//!
//! Here is the table; what is asked of a share about it is in `requests`.

mod requests;

use crate::late::Late;
use crate::nodes::Kind;
use crate::owner::Owners;
use rustix::fs::{FileType, MemfdFlags, SealFlags};
use rustix::io::Errno;
use sbx_workspace::Rules;
use sbx_workspace::late_mask::CONTROL;
use sbx_workspace::rules::StandIn;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::rc::Rc;
use virtiofsd::fuse::Attr;

/// One of them.
#[derive(Debug)]
enum Virtual {
    Mask,
    /// A directory that is hidden, with stand-ins in it.
    Above,
    /// What the guest's agent reads and writes. Its descriptor is of an empty file that stays so.
    Control(File),
    /// A stand-in; a link's content is its text.
    File {
        content: File,
        size: u64,
        mode: u32,
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
    pub(crate) kind: FileType,
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
    /// The same for listings; whoever has the directory open shares it.
    listed: HashMap<Vec<u8>, Rc<Vec<Name>>>,
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
        let mode = match (stand_in.link, stand_in.executable) {
            (true, _) => libc::S_IFLNK | 0o777,
            (false, true) => libc::S_IFREG | 0o755,
            (false, false) => libc::S_IFREG | 0o644,
        };
        let file = Virtual::File {
            content,
            size,
            mode,
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
        if !matches!(self.all[number].1, Virtual::Control(_)) {
            let kind = self.file_type(number);
            let listed = self.listed.entry(parent.to_vec()).or_default();
            Rc::make_mut(listed).push(Name {
                bytes: name.to_vec(),
                kind,
            });
        }
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
    pub(crate) fn names(&self, directory: &[u8]) -> Rc<Vec<Name>> {
        self.listed.get(directory).cloned().unwrap_or_default()
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

    fn file_type(&self, number: usize) -> FileType {
        match self.all.get(number) {
            Some((_, Virtual::File { mode, .. })) => FileType::from_raw_mode(*mode),
            Some((_, Virtual::Control(_))) => FileType::RegularFile,
            _ => FileType::Directory,
        }
    }

    fn kind(&self, number: usize) -> Kind {
        Kind::from(self.file_type(number))
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

    /// Why nothing of the host's is where one of them is. For a mask `ESTALE`: whoever walks there anew finds what the guest
    /// has mounted. What is hidden stays so, whoever comes again.
    pub(crate) fn out_of_reach(&self, number: usize) -> Errno {
        match self.all.get(number) {
            Some((_, Virtual::Above | Virtual::File { .. })) => Errno::ACCESS,
            _ => Errno::STALE,
        }
    }

    fn attributes(&self, owners: &Owners, number: usize) -> Attr {
        let common = Attr {
            ino: u64::MAX - number as u64,
            nlink: 1,
            blksize: 4096,
            ..owners.own()
        };
        match self.all.get(number) {
            Some((_, Virtual::File { size, mode, .. })) => Attr {
                mode: *mode,
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

/// A file of nothing that stays so, whatever the guest does with its handle.
fn empty_file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("sbx-share", flags)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_lists_a_directory_shares_its_names_and_keeps_those_of_then() {
        let mut virtuals = Virtuals::default();
        virtuals.add("d/a", Virtual::Mask);
        let (first, second) = (virtuals.names(b"d"), virtuals.names(b"d"));
        assert!(Rc::ptr_eq(&first, &second));
        virtuals.add("d/b", Virtual::Above);
        assert_eq!((first.len(), virtuals.names(b"d").len()), (1, 2));
        assert!(virtuals.names(b"").is_empty());
    }
}
