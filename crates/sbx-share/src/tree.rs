//! Reaching files beneath the root, and only there.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;
use rustix::path::DecInt;

use crate::share::component;

/// Bytes of a path in one call; longer ones are walked in pieces. The kernel's limit is 4096 with the final zero.
const MAX_PATH: usize = 4000;

/// How often a walk is tried again that met a rename at the wrong moment.
const WALK_ATTEMPTS: usize = 4;

/// No link of any kind, no way up, nothing outside.
pub(crate) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// What may be asked about a file in one `statx`.
const STAT: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// A file that was reached: the descriptor stands for exactly this file, whatever happens to its names.
#[derive(Debug)]
pub(crate) enum Reached<'root> {
    /// The root itself.
    Root(BorrowedFd<'root>),
    /// Reached by name: an `O_PATH` descriptor.
    Named(OwnedFd),
    /// A directory that was reached a moment ago, or now and will be again.
    Directory(Rc<OwnedFd>),
    /// No name left, but the guest has it open.
    Open(Rc<File>),
}

impl AsFd for Reached<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(fd) => *fd,
            Self::Named(fd) => fd.as_fd(),
            Self::Directory(fd) => fd.as_fd(),
            Self::Open(file) => file.as_fd(),
        }
    }
}

/// The shared directory and the door through which a reached file is opened.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    /// `/proc/self/fd`: the only way to open, change the mode of, or link the very file behind an `O_PATH` descriptor
    /// without naming it again, for a user without privileges.
    descriptors: OwnedFd,
}

impl Tree {
    /// Opens the root. A link at its end is not followed.
    pub(crate) fn open(root: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptors = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::open(root, flags, Mode::empty())?,
            descriptors: rustix::fs::open("/proc/self/fd", descriptors, Mode::empty())?,
        })
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Walks the names from the root.
    #[cfg(test)]
    fn walk(&self, names: &[&CStr]) -> io::Result<OwnedFd> {
        Self::walk_from(self.root(), names)
    }

    /// Walks the names from a directory. Links and directories that are none any more are `ELOOP` and `ENOTDIR`.
    pub(crate) fn walk_from(start: BorrowedFd<'_>, names: &[&CStr]) -> io::Result<OwnedFd> {
        let mut reached: Option<OwnedFd> = None;
        let mut names = names.iter().peekable();
        while names.peek().is_some() {
            let mut path = Vec::new();
            while let Some(name) = names.next_if(|name| path.len() + name.count_bytes() < MAX_PATH)
            {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name.to_bytes());
            }
            let from = reached.as_ref().map_or(start, AsFd::as_fd);
            reached = Some(open_beneath(from, &path)?);
        }
        Ok(reached.ok_or(Errno::INVAL)?)
    }

    /// Opens a reached file for use. The type must have been checked: opening a pipe or a device acts on it.
    pub(crate) fn reopen(&self, file: impl AsFd, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(rustix::fs::openat(
            &self.descriptors,
            DecInt::from_fd(file.as_fd()),
            flags,
            Mode::empty(),
        )?)
    }

    /// Where an open file is now, from the root, by the name under which it was opened; `None`: elsewhere.
    pub(crate) fn path_of(&self, file: impl AsFd) -> io::Result<Option<Vec<u8>>> {
        let read = |fd: BorrowedFd<'_>| {
            rustix::fs::readlinkat(&self.descriptors, DecInt::from_fd(fd), Vec::new())
        };
        let (root, path) = (read(self.root())?, read(file.as_fd())?);
        let root = root
            .to_bytes()
            .strip_suffix(b"/")
            .unwrap_or(root.to_bytes());
        let path = path.to_bytes().strip_prefix(root);
        Ok(path.and_then(|path| Some(path.strip_prefix(b"/")?.to_vec())))
    }

    /// Changes the mode of a reached file.
    pub(crate) fn chmod(&self, file: impl AsFd, mode: Mode) -> io::Result<()> {
        Ok(rustix::fs::chmodat(
            &self.descriptors,
            DecInt::from_fd(file.as_fd()),
            mode,
            AtFlags::empty(),
        )?)
    }

    /// Gives a reached file one more name.
    pub(crate) fn link(&self, file: impl AsFd, parent: impl AsFd, name: &CStr) -> io::Result<()> {
        let old = DecInt::from_fd(file.as_fd());
        Ok(rustix::fs::linkat(
            &self.descriptors,
            old,
            parent,
            name,
            AtFlags::SYMLINK_FOLLOW,
        )?)
    }

    /// Whether this process may use a reached file in that way.
    pub(crate) fn access(&self, file: impl AsFd, access: rustix::fs::Access) -> io::Result<()> {
        Ok(rustix::fs::accessat(
            &self.descriptors,
            DecInt::from_fd(file.as_fd()),
            access,
            AtFlags::EACCESS,
        )?)
    }
}

/// Opens a name in a reached directory for use, if it is no link. One component, neither of the two that lead elsewhere,
/// is beneath that directory by itself. Whatever it is may be opened, so the caller has reason to believe that it is a
/// regular file, and looks.
pub(crate) fn open_name(directory: impl AsFd, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(
        directory,
        component(name)?,
        flags,
        Mode::empty(),
    )?)
}

fn open_beneath(from: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut attempt = 0;
    loop {
        attempt += 1;
        match rustix::fs::openat2(from, path, flags, Mode::empty(), BENEATH) {
            Err(Errno::AGAIN | Errno::INTR) if attempt < WALK_ATTEMPTS => {}
            Err(Errno::MFILE) => return Err(Errno::NFILE.into()),
            result => return Ok(result?),
        }
    }
}

/// Attributes of an open or reached file.
pub(crate) fn stat(file: impl AsFd) -> io::Result<Statx> {
    Ok(rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, STAT)?)
}

/// Attributes of one name in a reached directory; a link is described, not followed.
pub(crate) fn stat_name(directory: impl AsFd, name: &CStr) -> io::Result<Statx> {
    Ok(rustix::fs::statx(
        directory,
        name,
        AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        STAT,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The identity check would catch most of it again; here the walk is alone.
    #[test]
    fn a_walk_follows_no_link_and_no_way_up() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        std::fs::write(folder.path().join("d/f"), "").unwrap();
        std::os::unix::fs::symlink("d", folder.path().join("inside")).unwrap();
        std::os::unix::fs::symlink("/proc/self/root", folder.path().join("outside")).unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        let code = |names: &[&CStr]| tree.walk(names).unwrap_err().raw_os_error();
        tree.walk(&[c"d", c"f"]).unwrap();
        assert_eq!(code(&[c"inside", c"f"]), Some(libc::ELOOP));
        assert_eq!(code(&[c"outside", c"etc"]), Some(libc::ELOOP));
        assert_eq!(code(&[c"..", c"etc"]), Some(libc::EXDEV));
        assert_eq!(code(&[c"/etc/passwd"]), Some(libc::EXDEV));
        let link = tree.walk(&[c"inside"]).unwrap();
        assert_eq!(
            stat(link).unwrap().stx_mode & 0o170_000,
            0o120_000,
            "a link itself is reached"
        );
    }
}
