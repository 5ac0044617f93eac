//! The copy that takes the place of git's settings, and what is left of it by a share that was killed.
//!
//! It is written without a name, gets one of its own, and the place. The number of its inode is in that name: a copy
//! that stays because its share was killed just then is known by it, and no other file is taken for one.

use super::renames::open_directory;
use crate::limits::MAX_SCAN;
use crate::share::{Share, is_type};
use crate::tree::{self, Tree};
use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Mode as Permissions, OFlags, RenameFlags,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};

/// What no share shows, so that nobody inside has a copy open when it gets its place.
pub(super) const HIDDEN: &str = ".sbx-copy*";
/// The first name of one whose file system has no files without a name, as long as it is empty.
const EMPTY: &CStr = c".sbx-copy";
/// Before the number of the inode.
const NUMBERED: &str = ".sbx-copy-";

impl Share {
    /// Removes what an earlier share of the directory left where git has its settings in most of them. Elsewhere that
    /// is done before the next copy is made.
    pub fn remove_left_over(&self) {
        if self.is_read_only() || self.guard.is_idle() {
            return;
        }
        for directory in [b".".as_slice(), b".git"] {
            if let Ok(directory) = open_directory(self.tree.root(), directory) {
                sweep(directory);
            }
        }
    }
}

/// Puts a new file with that content in a place. It is durable before it has a name, and locked until it is in place.
pub(super) fn install(
    tree: &Tree,
    (directory, name): (BorrowedFd<'_>, &CStr),
    content: &[u8],
    mode: Permissions,
) -> io::Result<()> {
    sweep(directory);
    let (mut copy, own_name, named) = match nameless(directory, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
            let (copy, own_name) = named(directory, mode)?;
            (copy, own_name, true)
        }
        made => {
            let copy = made?;
            let own_name = own_name(&copy)?;
            (copy, own_name, false)
        }
    };
    let done = copy.write_all(content).and_then(|()| {
        copy.sync_all()?;
        if !named {
            tree.link(&copy, directory, &own_name)?;
        }
        rename(directory, &own_name, name)
    });
    done.inspect_err(|_| {
        let _gone = rustix::fs::unlinkat(directory, &own_name, AtFlags::empty());
    })
}

fn nameless(directory: BorrowedFd<'_>, mode: Permissions) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    let copy = rustix::fs::openat(directory, c".", flags, mode)?;
    rustix::fs::flock(&copy, FlockOperation::NonBlockingLockExclusive)?;
    Ok(copy.into())
}

/// Some file systems (NFS, for one) have no files without a name.
fn named(directory: BorrowedFd<'_>, mode: Permissions) -> io::Result<(File, CString)> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let copy = File::from(rustix::fs::openat(directory, EMPTY, flags, mode)?);
    let done = own_name(&copy).and_then(|own_name| {
        rustix::fs::flock(&copy, FlockOperation::NonBlockingLockExclusive)?;
        rename(directory, EMPTY, &own_name)?;
        Ok(own_name)
    });
    match done {
        Ok(own_name) => Ok((copy, own_name)),
        Err(error) => {
            let _gone = rustix::fs::unlinkat(directory, EMPTY, AtFlags::empty());
            Err(error)
        }
    }
}

fn own_name(copy: &File) -> io::Result<CString> {
    let inode = tree::stat(copy)?.stx_ino;
    Ok(CString::new(format!("{NUMBERED}{inode:x}"))?)
}

/// The one call of its kind that the jail knows.
fn rename(directory: BorrowedFd<'_>, from: &CStr, to: &CStr) -> io::Result<()> {
    let plainly = RenameFlags::empty();
    Ok(rustix::fs::renameat_with(
        directory, from, directory, to, plainly,
    )?)
}

/// Removes copies that nobody works on any more. One that cannot be removed stays hidden, and does no harm.
fn sweep(directory: impl AsFd) {
    let Ok(directory) = open_directory(directory, b".") else {
        return;
    };
    let Ok(entries) = Dir::read_from(&directory) else {
        return;
    };
    for entry in entries.take(MAX_SCAN).flatten() {
        let name = entry.file_name();
        if is_left_over(&directory, name).unwrap_or(false) {
            let _stays = rustix::fs::unlinkat(&directory, name, AtFlags::empty());
        }
    }
}

/// Whether it is a copy, by its name and its inode (or an empty file with the first name), and no share holds it.
fn is_left_over(directory: impl AsFd, name: &CStr) -> io::Result<bool> {
    let inode = name
        .to_str()
        .ok()
        .and_then(|text| text.strip_prefix(NUMBERED));
    let inode = inode.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    if inode.is_none() && name != EMPTY {
        return Ok(false);
    }
    // Whatever else has the name is not even opened.
    let stat = tree::stat_name(&directory, name)?;
    let known = inode.map_or(stat.stx_size == 0, |inode| inode == stat.stx_ino);
    if !known || !is_type(&stat, FileType::RegularFile) {
        return Ok(false);
    }
    let file = tree::open_name(&directory, name, OFlags::RDONLY)?;
    if tree::stat(&file)?.stx_ino != stat.stx_ino {
        return Ok(false);
    }
    Ok(rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    fn names(folder: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_copy_is_made_where_every_file_has_a_name_too() {
        let folder = tempfile::tempdir().unwrap();
        let directory = File::open(folder.path()).unwrap();
        let (copy, name) = named(directory.as_fd(), Permissions::from_raw_mode(0o600)).unwrap();
        let inode = copy.metadata().unwrap().ino();
        assert_eq!(name.to_str().unwrap(), format!(".sbx-copy-{inode:x}"));
        assert_eq!(names(&folder), [name.to_str().unwrap()]);
    }

    #[test]
    fn a_copy_goes_when_nobody_holds_it_any_more_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let directory = File::open(folder.path()).unwrap();
        let (copy, name) = named(directory.as_fd(), Permissions::from_raw_mode(0o600)).unwrap();
        (&copy).write_all(b"half of i").unwrap();
        fs::write(folder.path().join(".sbx-copy"), "somebody's").unwrap();
        fs::write(folder.path().join(".sbx-copy-1"), "somebody's").unwrap();
        fs::write(folder.path().join(".sbx-copy-"), "").unwrap();
        std::os::unix::fs::symlink("x", folder.path().join(".sbx-copy-2")).unwrap();
        let others = [".sbx-copy", ".sbx-copy-", ".sbx-copy-1", ".sbx-copy-2"];
        sweep(&directory);
        assert!(names(&folder).contains(&name.into_string().unwrap()));
        drop(copy);
        sweep(&directory);
        assert_eq!(names(&folder), others);
        fs::write(folder.path().join(".sbx-copy"), "").unwrap();
        sweep(&directory);
        assert_eq!(names(&folder), others[1..]);
    }
}
