//! The share's state and how requests reach files.

use std::cell::{RefCell, RefMut};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags, Statx};
use rustix::io::Errno;
use rustix::process::Resource;
use sbx_workspace::Rules;
use virtiofsd::filesystem::Entry;
use virtiofsd::fuse::Attr;

use crate::descriptors::Descriptors;
use crate::guard::Guard;
use crate::handles::Handles;
use crate::limits::{
    CACHE_TIME, MAX_DIRECTORIES, MAX_HANDLES, MAX_NAME, MAX_NODES, RESERVED_DESCRIPTORS,
};
use crate::nodes::{Identity, Kind, Nodes, ROOT};
use crate::owner::{GuestOwner, Owners};
use crate::tree::{self, Reached, Tree};
use crate::virtuals::Virtuals;

/// Why a directory cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The user named a directory that is not there, is not one, or may not be read.
    #[error("cannot share {path}: {source}\n  try: an existing directory that you may read")]
    Root {
        /// As given.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The environment leaves no room for the guest's files.
    #[error(
        "the limit of open files is {limit}, and {RESERVED_DESCRIPTORS} are needed before the first file\n  try: ulimit -n 1024"
    )]
    Descriptors {
        /// The soft limit found.
        limit: usize,
    },
}

/// How much of the server one guest may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Files looked up and not forgotten, the root aside.
    pub nodes: usize,
    /// Open files and directories.
    pub handles: usize,
    /// Directories whose descriptors are kept for a while.
    pub directories: usize,
}

/// The file system of one mount.
#[derive(Debug)]
pub struct Share {
    pub(crate) tree: Tree,
    pub(crate) owners: Owners,
    read_only: bool,
    root_path: PathBuf,
    nodes: RefCell<Nodes>,
    descriptors: RefCell<Descriptors>,
    handles: RefCell<Handles>,
    pub(crate) guard: Guard,
    pub(crate) virtuals: RefCell<Virtuals>,
    /// Where bytes of the guest are looked at before they reach a file.
    pub(crate) staging: File,
}

impl Share {
    /// Shares a directory, with as many open files as the process's limit leaves. Sets the process's umask to zero: the
    /// guest has applied its own.
    pub fn open(root: &Path, owner: GuestOwner, read_only: bool) -> Result<Self, OpenError> {
        let limit = rustix::process::getrlimit(Resource::Nofile).current;
        let limit = limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        let directories = MAX_DIRECTORIES.min(limit / 8);
        let handles = limit
            .saturating_sub(RESERVED_DESCRIPTORS + directories)
            .min(MAX_HANDLES);
        if handles == 0 {
            return Err(OpenError::Descriptors { limit });
        }
        Self::with_bounds(
            root,
            owner,
            read_only,
            Bounds {
                nodes: MAX_NODES,
                handles,
                directories,
            },
        )
    }

    /// As [`Share::open`] with other bounds.
    pub fn with_bounds(
        root: &Path,
        owner: GuestOwner,
        read_only: bool,
        bounds: Bounds,
    ) -> Result<Self, OpenError> {
        let fail = |source| OpenError::Root {
            path: root.to_owned(),
            source,
        };
        let tree = Tree::open(root).map_err(fail)?;
        let stat = tree::stat(tree.root()).map_err(fail)?;
        rustix::process::umask(Mode::empty());
        Ok(Self {
            owners: Owners::new(owner, &stat),
            read_only,
            root_path: root.to_owned(),
            nodes: RefCell::new(Nodes::new(Identity::from(&stat), bounds.nodes)),
            descriptors: RefCell::new(Descriptors::new(bounds.directories)),
            handles: RefCell::new(Handles::new(bounds.handles)),
            tree,
            guard: Guard::new(root, Rules::default(), None),
            virtuals: RefCell::default(),
            staging: staging().map_err(fail)?,
        })
    }

    /// The same share under rules; what they forbid or report is said in the file `events`, a line of JSON each
    /// ([`sbx_workspace::event::Event`]).
    pub fn guarded(self, rules: Rules, events: Option<File>) -> Result<Self, OpenError> {
        let virtuals = Virtuals::new(&self.root_path, &rules, self.read_only);
        let virtuals = virtuals.map_err(|source| OpenError::Root {
            path: self.root_path.clone(),
            source,
        })?;
        let guard = Guard::new(&self.root_path, rules, events);
        Ok(Self {
            guard,
            virtuals: RefCell::new(virtuals),
            ..self
        })
    }

    /// A descriptor of the root for the jail's rules.
    pub fn root(&self) -> io::Result<OwnedFd> {
        self.tree.root().try_clone_to_owned()
    }

    /// Whether every change is refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Nodes the guest holds, the root included.
    pub fn node_count(&self) -> usize {
        self.nodes().len()
    }

    pub(crate) fn nodes(&self) -> RefMut<'_, Nodes> {
        self.nodes.borrow_mut()
    }

    pub(crate) fn descriptors(&self) -> RefMut<'_, Descriptors> {
        self.descriptors.borrow_mut()
    }

    pub(crate) fn handles(&self) -> RefMut<'_, Handles> {
        self.handles.borrow_mut()
    }

    /// The guest mounts anew or has gone: nothing it held counts any more.
    pub(crate) fn reset(&self) {
        self.handles().clear();
        self.descriptors().clear();
        self.nodes().reset();
        self.virtuals().late.reset();
    }

    /// `EROFS` on a read-only share. Asked first by every request that changes something.
    pub(crate) fn check_writable(&self) -> io::Result<()> {
        if self.read_only {
            Err(Errno::ROFS.into())
        } else {
            Ok(())
        }
    }

    /// Whether a new file may be made: the share is writable and the guest can be given a node for it.
    pub(crate) fn check_can_make(&self, parent: u64) -> io::Result<()> {
        self.check_writable()?;
        self.nodes().check_room(parent)
    }

    /// Reaches the file of a node: by one of its places if the file is still there, or through a handle the guest has
    /// on it if it has no name any more. `ESTALE` otherwise, and the guest looks the name up again.
    pub(crate) fn reach(&self, id: u64) -> io::Result<(Reached<'_>, Statx)> {
        let (reached, stat, _) = self.reach_since(id)?;
        Ok((reached, stat))
    }

    /// The same, and when the directory was found from which it was walked, if that was not the root.
    fn reach_since(&self, id: u64) -> io::Result<(Reached<'_>, Statx, Option<Duration>)> {
        if id == ROOT {
            let root = self.tree.root();
            return Ok((Reached::Root(root), tree::stat(root)?, None));
        }
        let identity = self.nodes().identity(id)?;
        if let Some(number) = identity.virtual_number() {
            // There is nothing to walk to.
            return Err(self.virtuals().out_of_reach(number).into());
        }
        loop {
            // The tables are held while the kernel walks: requests come one at a time.
            let (place, walked, since) = {
                let (nodes, mut known) = (self.nodes(), self.descriptors());
                let Some(place) = nodes.place(id) else { break };
                let route = nodes.route_from(id, |node| known.get_since(node));
                let since = route.as_ref().ok().and_then(|(start, _)| start.as_ref());
                let since = since.map(|(_, since)| *since);
                let walked = route.and_then(|(start, names)| {
                    let root = self.tree.root();
                    let start = start.as_ref().map_or(root, |(above, _)| above.as_fd());
                    Tree::walk_from(start, &names)
                });
                (place, walked, since)
            };
            match walked {
                Ok(fd) => {
                    let stat = tree::stat(&fd)?;
                    let found = Identity::from(&stat);
                    if found == identity {
                        return Ok((Reached::Named(fd), stat, since));
                    }
                    // A file that is shared alone is mounted as such: nobody looks its name up again.
                    if self.guard.follows_names()
                        && place.parent == ROOT
                        && is_type(&stat, FileType::RegularFile)
                    {
                        self.nodes().replaced(identity, found);
                        return Ok((Reached::Named(fd), stat, since));
                    }
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
            self.nodes().drop_place(id, &place);
        }
        // A file with a name somewhere has left the places the guest may look at, perhaps the whole tree; only one
        // without any name is certainly still the guest's own.
        let open = self.handles().of_node(id).ok_or(Errno::STALE)?;
        let stat = tree::stat(&open)?;
        if stat.stx_nlink > 0 || is_type(&stat, FileType::Directory) {
            return Err(Errno::STALE.into());
        }
        Ok((Reached::Open(open), stat, None))
    }

    /// Reaches a directory in which a name is to be used.
    pub(crate) fn reach_directory(&self, id: u64) -> io::Result<Reached<'_>> {
        if let Some(directory) = self.at_hand(id) {
            return Ok(directory);
        }
        match self.reach_since(id)? {
            (Reached::Named(fd), stat, since) if is_type(&stat, FileType::Directory) => {
                let directory = Rc::new(fd);
                self.descriptors().insert(id, Rc::clone(&directory), since);
                Ok(Reached::Directory(directory))
            }
            (reached, stat, _) if is_type(&stat, FileType::Directory) => Ok(reached),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    /// Opens the regular file of a node. Pipes, sockets and devices are the guest kernel's own; opening one here would
    /// act on the host.
    pub(crate) fn open_file(&self, id: u64, flags: OFlags) -> io::Result<File> {
        let writes = flags & OFlags::RWMODE != OFlags::RDONLY || flags.contains(OFlags::TRUNC);
        if let Some(opened) = self.open_virtual(id, writes) {
            return opened;
        }
        // What is opened for reading cannot be cut afterwards, and must not be before it was looked at.
        let cut_to_read = flags.contains(OFlags::TRUNC) && flags & OFlags::RWMODE == OFlags::RDONLY;
        if !cut_to_read && let Some((file, stat)) = self.open_by_name(id, flags) {
            if writes {
                self.check_open_to_write(id, &stat)?;
            }
            if flags.contains(OFlags::TRUNC) {
                rustix::fs::ftruncate(&file, 0)?;
            }
            return Ok(file);
        }
        let (reached, stat) = self.reach(id)?;
        match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::RegularFile if writes => {
                self.check_open_to_write(id, &stat)?;
                Ok(self.tree.reopen(reached, flags)?.into())
            }
            FileType::RegularFile => Ok(self.tree.reopen(reached, flags)?.into()),
            FileType::Directory => Err(Errno::ISDIR.into()),
            FileType::Symlink => Err(Errno::LOOP.into()),
            _ => Err(Errno::PERM.into()),
        }
    }

    /// Hands a file that was just seen at a place to the guest.
    pub(crate) fn entry(&self, parent: u64, name: &CStr, stat: &Statx) -> io::Result<Entry> {
        let inode = self
            .nodes()
            .found(Identity::from(stat), parent, name, Kind::from(stat))?;
        Ok(Entry {
            inode,
            generation: 0, // node ids are never used twice
            attr: self.owners.attributes(stat),
            attr_timeout: CACHE_TIME,
            entry_timeout: CACHE_TIME,
        })
    }

    /// As [`Share::entry`], for a name that was just made in a reached directory.
    pub(crate) fn new_entry(
        &self,
        parent: u64,
        directory: impl AsFd,
        name: &CStr,
    ) -> io::Result<Entry> {
        let stat = tree::stat_name(directory, name)?;
        self.entry(parent, name, &stat)
    }

    pub(crate) fn attributes(&self, stat: &Statx) -> (Attr, Duration) {
        (self.owners.attributes(stat), CACHE_TIME)
    }
}

fn staging() -> io::Result<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(rustix::fs::memfd_create("sbx-share", flags)?.into())
}

/// Whether an error of a walk says that the place is wrong, rather than that this process may not or cannot look.
fn is_gone(error: &io::Error) -> bool {
    let gone = [
        Errno::NOENT,
        Errno::NOTDIR,
        Errno::LOOP,
        Errno::STALE,
        Errno::XDEV,
    ];
    Errno::from_io_error(error).is_some_and(|errno| gone.contains(&errno))
}

pub(crate) fn is_type(stat: &Statx, wanted: FileType) -> bool {
    FileType::from_raw_mode(stat.stx_mode.into()) == wanted
}

/// One component of a path: neither empty, nor a way up, nor a way down. The guest's kernel sends no other; a guest
/// without one might.
pub(crate) fn component(name: &CStr) -> io::Result<&CStr> {
    match name.to_bytes() {
        b"" | b"." | b".." => Err(Errno::INVAL.into()),
        bytes if bytes.contains(&b'/') => Err(Errno::INVAL.into()),
        bytes if bytes.len() > MAX_NAME => Err(Errno::NAMETOOLONG.into()),
        _ => Ok(name),
    }
}

/// The permission bits a guest may give to a file: not set-user-id, not set-group-id. On the host such a file would
/// run with the rights of the host user for everybody.
pub(crate) fn safe_mode(mode: u32, umask: u32) -> Mode {
    Mode::from_raw_mode(mode & !umask & 0o1777)
}
