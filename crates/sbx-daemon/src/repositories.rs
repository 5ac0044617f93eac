//! The repositories of a workspace, as far as all of them lies in it.
//!
//! The guest may have written any of it. What it says to be elsewhere is not looked at: another repository of the host is
//! nothing that a guest may have read to it.

use crate::{git_repositories, places};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use sbx_workspace::git_link;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Most repositories.
pub(crate) const MAX_REPOSITORIES: usize = 32;
/// Largest index, bytes.
const MAX_INDEX: u64 = 64 << 20;

/// Nothing outside of the directory, and no link on the way.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// Paths from the root of directories that look like repositories, nearest to it first (its own path is empty); and whether
/// there may be more, beyond the bounds or where nobody may read. Submodules are among them, and repositories that somebody
/// made in another one.
pub(crate) fn find(root: &Path) -> (Vec<String>, bool) {
    let all = git_repositories::find(root);
    let below = |worktree: PathBuf| Some(worktree.strip_prefix(root).ok()?.to_owned());
    let below: Vec<PathBuf> = all.worktrees.into_iter().filter_map(below).collect();
    let texts = below.iter().filter_map(|path| path.to_str());
    let found: Vec<String> = texts.take(MAX_REPOSITORIES).map(str::to_owned).collect();
    // Beyond the bound, or of no text as a path.
    let left_out = found.len() < below.len();
    let all_seen = all.cut.is_empty() && all.unreadable.is_empty();
    (found, !all_seen || left_out)
}

/// Copies a repository's index, for git to be asked about: it may be a link to another repository's by the time that git
/// looks. Git finds objects wherever the repository says that they are, but by the hashes in that index, which the guest
/// can read anyhow, or has written: then it knows the content.
pub(crate) fn copy_index(root: &Path, repository: &str, to: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root_directory = rustix::fs::open(root, flags, Mode::empty())?;
    let directory = git_directory(root, &root_directory, repository)?;
    let (file, length) = open_file(&directory, "index")?;
    if length > MAX_INDEX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut copy = File::create(to)?;
    io::copy(&mut file.take(MAX_INDEX), &mut copy)?;
    copy.flush()
}

/// The directory with git's own files: `.git`, or the one that a file of that name says, as in a submodule.
fn git_directory(root: &Path, root_directory: &OwnedFd, repository: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open =
        |path: &str| rustix::fs::openat2(root_directory, path, flags, Mode::empty(), BENEATH);
    let git = places::join(repository, ".git");
    match open(&git) {
        Err(rustix::io::Errno::NOTDIR) => {}
        opened => return Ok(opened?),
    }
    let (file, _) = open_file(root_directory, &git)?;
    let mut text = String::new();
    let limit = git_link::MAX_BYTES as u64;
    file.take(limit).read_to_string(&mut text)?;
    let place = text.strip_prefix("gitdir: ").map(str::trim_end);
    let above: Vec<&[u8]> = repository
        .split('/')
        .filter(|name| !name.is_empty())
        .map(str::as_bytes)
        .collect();
    let names = place.and_then(|place| git_link::resolve(root, &above, place));
    let path = names.map(|names| names.join(&b'/'));
    let path = path.and_then(|path| String::from_utf8(path).ok());
    let path = path.ok_or(io::ErrorKind::InvalidData)?;
    Ok(open(&path)?)
}

/// A regular file, and its length.
fn open_file(directory: impl AsFd, path: &str) -> io::Result<(File, u64)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(directory, path, flags, Mode::empty(), BENEATH)?;
    let file = File::from(opened);
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((file, meta.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn a_repository_whose_path_is_no_text_is_said_to_be_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let name = std::ffi::OsStr::from_bytes(b"\xff");
        std::fs::create_dir_all(folder.path().join(name).join(".git")).unwrap();
        assert_eq!(find(folder.path()), (Vec::new(), true));
    }

    #[test]
    fn repositories_beyond_the_bound_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            std::fs::create_dir_all(folder.path().join(path).join(".git")).unwrap();
        };
        make("");
        make("a/b/c/d/e/6");
        make("a/b/c/d/e/f/7");
        assert_eq!(find(folder.path()).0, ["", "a/b/c/d/e/6", "a/b/c/d/e/f/7"]);
        for number in 2..=MAX_REPOSITORIES {
            make(&format!("r{number}"));
        }
        let (found, more) = find(folder.path());
        assert_eq!((found.len(), more), (MAX_REPOSITORIES, true));
        assert_eq!(found[0], "");
    }
}
