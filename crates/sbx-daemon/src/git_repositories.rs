//! The repositories that a workspace has, lies in, or is.
//!
//! What is below the workspace's root may be the guest's: it is opened without following a link.

use crate::folding;
use crate::unreadable::Unreadable;
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Most names that are looked at for them, nearest to the workspace's root first.
pub(crate) const MAX_LOOKED_AT: usize = 100_000;
/// Most repositories with a `.git`, and most directories that look like one of git's.
pub(crate) const MAX_REPOSITORIES: usize = 512;

/// Nothing outside of the directory, and no link on the way.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);
/// What a directory of git's has.
const LOOKS: [&str; 3] = ["HEAD", "objects", "refs"];

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Directories that have a `.git`, which may be a file or a link.
    pub(crate) worktrees: Vec<PathBuf>,
    /// Directories that are git's by what is in them, or look so: anybody can make one.
    pub(crate) bare: Vec<PathBuf>,
    /// Why not everything was looked at; empty: it was.
    pub(crate) cut: BTreeSet<Cut>,
    /// What could not be.
    pub(crate) unreadable: Unreadable,
    /// The first directory, the root or below it, in which names have several spellings ([`crate::folding`]).
    pub(crate) folding: Option<PathBuf>,
}

/// Why not everything was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cut {
    Names,
    Repositories,
    Path,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Names => write!(f, "it has more than {MAX_LOOKED_AT} names"),
            Self::Repositories => write!(f, "it has more than {MAX_REPOSITORIES} repositories"),
            Self::Path => f.write_str("a path in it is too long to be opened"),
        }
    }
}

/// Finds them.
pub(crate) fn find(root: &Path) -> Found {
    Search::new(root).found
}

/// A search, which can go on in directories of git's.
#[derive(Debug)]
pub(crate) struct Search<'a> {
    root: &'a Path,
    /// `None`: it is no directory.
    top: Option<OwnedFd>,
    left: usize,
    folds: fn(&OwnedFd) -> bool,
    pub(crate) found: Found,
}

impl<'a> Search<'a> {
    /// Finds those above the root, at the root and below it. What links lead to in the workspace is found where it is.
    pub(crate) fn new(root: &'a Path) -> Self {
        Self::with(root, |directory| folding::is_marked(directory))
    }

    /// As [`Search::new`], with another way to know where names are folded.
    fn with(root: &'a Path, folds: fn(&OwnedFd) -> bool) -> Self {
        let mut search = Self {
            root,
            top: directory(root).ok(),
            left: MAX_LOOKED_AT,
            folds,
            found: Found::default(),
        };
        for near in root.ancestors() {
            let has = |name: &str| near.join(name).symlink_metadata().is_ok();
            search.found.note(near, has);
        }
        let Some(top) = search.top.take() else {
            return search;
        };
        search.walk((&top, root), Path::new(""), |found, directory, here| {
            if directory != root {
                found.note(directory, |name| here.contains(&name));
            }
        });
        search.top = Some(top);
        search
    }

    /// Submodules, which have theirs in that of their repository: in `modules` of this directory of git's, whose path has
    /// no link in it.
    pub(crate) fn modules(&mut self, git: &Path) -> Vec<PathBuf> {
        let mut modules = Vec::new();
        let top = match git.strip_prefix(self.root) {
            Ok(below) => self.top.as_ref().map(|top| open(top, below, OFlags::PATH)),
            Err(_) => Some(directory(git)),
        };
        let top = match top {
            Some(Ok(top)) => top,
            Some(Err(error)) => {
                self.found.unreadable.note(git, &error.into());
                return modules;
            }
            None => return modules,
        };
        self.walk(
            (&top, git),
            Path::new("modules"),
            |found, directory, here| {
                if !LOOKS.iter().all(|name| here.contains(name)) {
                    return;
                }
                if modules.len() < MAX_REPOSITORIES {
                    modules.push(directory.to_owned());
                } else {
                    found.cut.insert(Cut::Repositories);
                }
            },
        );
        modules
    }

    /// A regular file below the root of at most so many bytes. `None`: it is another, or absent.
    pub(crate) fn read(&self, path: &Path, limit: usize) -> Option<Vec<u8>> {
        let below = path.strip_prefix(self.root).ok()?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = open(self.top.as_ref()?, below, flags).ok()?;
        sbx_files::whole(File::from(file), limit).ok().flatten()
    }

    /// Shows each directory from one on that is `start` below another, and which of the names that matter are in it.
    fn walk(
        &mut self,
        (top, path): (&OwnedFd, &Path),
        start: &Path,
        mut show: impl FnMut(&mut Found, &Path, &[&'static str]),
    ) {
        let mut waiting = VecDeque::from([start.to_owned()]);
        while let Some(below) = waiting.pop_front() {
            match self.directory((top, path), &below, &mut waiting) {
                Ok(here) => show(&mut self.found, &path.join(&below), &here),
                Err(Errno::NAMETOOLONG) => drop(self.found.cut.insert(Cut::Path)),
                // A link, since it was seen.
                Err(Errno::LOOP) => {}
                Err(error) => {
                    let error = io::Error::from(error);
                    self.found.unreadable.note(&path.join(&below), &error);
                }
            }
            if self.left == 0 {
                self.found.cut.insert(Cut::Names);
                return;
            }
        }
    }

    fn directory(
        &mut self,
        (top, path): (&OwnedFd, &Path),
        below: &Path,
        waiting: &mut VecDeque<PathBuf>,
    ) -> Result<Vec<&'static str>, Errno> {
        let directory = open(top, below, OFlags::DIRECTORY | OFlags::NONBLOCK)?;
        if self.found.folding.is_none() && (self.folds)(&directory) {
            self.found.folding = Some(path.join(below));
        }
        let mut here = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            let mut known = LOOKS.into_iter().chain([".git"]);
            here.extend(known.find(|known| name.to_bytes() == known.as_bytes()));
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                    let stat = rustix::fs::statat(&directory, name, flags);
                    stat.map_or(FileType::Unknown, |stat| {
                        FileType::from_raw_mode(stat.st_mode)
                    })
                }
                kind => kind,
            };
            if name.to_bytes() != b".git" && kind == FileType::Directory {
                waiting.push_back(below.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
            }
        }
        Ok(here)
    }
}

impl Found {
    /// A directory with these names in it.
    fn note(&mut self, directory: &Path, has: impl Fn(&str) -> bool) {
        let mut add = |list: &mut Vec<PathBuf>| {
            if list.len() < MAX_REPOSITORIES {
                list.push(directory.to_owned());
            } else {
                self.cut.insert(Cut::Repositories);
            }
        };
        if has(".git") {
            add(&mut self.worktrees);
        }
        if LOOKS.into_iter().all(has) {
            add(&mut self.bare);
        }
    }
}

/// A directory of the host's.
fn directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// What is below it, by a way without links.
fn open(top: &OwnedFd, below: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let below = if below.as_os_str().is_empty() {
        Path::new(".")
    } else {
        below
    };
    rustix::fs::openat2(top, below, flags | OFlags::CLOEXEC, Mode::empty(), BENEATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(root: &Path, directories: &[&str], files: &[&str]) {
        for path in directories {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        for path in files {
            std::fs::write(root.join(path), "").unwrap();
        }
    }

    #[test]
    fn repositories_above_below_and_within_each_other_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        make(
            &root,
            &[
                "top/.git/modules/deep/er/objects",
                "top/.git/modules/deep/er/refs",
                "top/w/bare.git/objects",
                "top/w/bare.git/refs",
                "top/w/a/b/nested/.git",
                "top/w/tree",
            ],
            &[
                "top/.git/modules/deep/er/HEAD",
                "top/w/bare.git/HEAD",
                "top/w/tree/.git",
            ],
        );
        let w = root.join("top/w");
        let mut search = Search::new(&w);
        let modules = search.modules(&root.join("top/.git"));
        let found = search.found;
        assert!(found.cut.is_empty());
        let below = |list: &[PathBuf]| -> Vec<String> {
            let list = list.iter().filter_map(|path| path.strip_prefix(&root).ok());
            list.map(|path| path.display().to_string()).collect()
        };
        let worktrees = ["top", "top/w/tree", "top/w/a/b/nested"];
        assert_eq!(below(&found.worktrees), worktrees);
        assert_eq!(below(&found.bare), ["top/w/bare.git"]);
        assert_eq!(below(&modules), ["top/.git/modules/deep/er"]);
    }

    #[test]
    fn what_only_looks_like_one_of_gits_takes_no_place_of_a_repository() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..=MAX_REPOSITORIES {
            let below = |name: &str| format!("{number}/{name}");
            let (objects, refs, head) = (below("objects"), below("refs"), below("HEAD"));
            make(folder.path(), &[&objects, &refs], &[&head]);
        }
        make(folder.path(), &["a/b/c/.git"], &[]);
        let found = find(folder.path());
        assert_eq!(found.worktrees, [folder.path().join("a/b/c")]);
        assert_eq!(found.bare.len(), MAX_REPOSITORIES);
        assert_eq!(found.cut, BTreeSet::from([Cut::Repositories]));
    }

    #[test]
    fn a_path_that_is_too_long_hides_no_repository_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), &["a/.git", "b/c/d/e/f/g/.git"], &[]);
        let name = "n".repeat(200);
        let mut deep = directory(folder.path()).unwrap();
        for _ in 0..25 {
            rustix::fs::mkdirat(&deep, &name, Mode::RWXU).unwrap();
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            deep = rustix::fs::openat(&deep, &name, flags, Mode::empty()).unwrap();
        }
        let found = find(folder.path());
        assert_eq!(found.worktrees.len(), 2);
        assert_eq!(found.cut, BTreeSet::from([Cut::Path]));
    }

    #[test]
    fn the_first_directory_in_which_names_are_folded_is_known() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), &["a/b", "c"], &[]);
        assert_eq!(find(folder.path()).folding, None);
        // Such a file system is not to be had here: another sign stands for it.
        let sticky = Mode::from_raw_mode(0o1700);
        rustix::fs::chmod(folder.path().join("a/b"), sticky).unwrap();
        let search = Search::with(folder.path(), |directory| {
            let mode = rustix::fs::fstat(directory).unwrap().st_mode;
            mode & 0o1000 != 0
        });
        assert_eq!(search.found.folding, Some(folder.path().join("a/b")));
    }

    #[test]
    fn links_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("w");
        let module = ["outside/m/objects", "outside/m/refs"];
        make(folder.path(), &module, &["outside/m/HEAD"]);
        make(&root, &[".git"], &[]);
        let outside = folder.path().join("outside");
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join(".git/modules")).unwrap();
        let mut search = Search::new(&root);
        assert_eq!(search.modules(&root.join(".git")), Vec::<PathBuf>::new());
        assert_eq!(search.found.bare, Vec::<PathBuf>::new());
        assert_eq!(search.read(&root.join("link/m/HEAD"), 10), None);
        assert_eq!(
            search.modules(&folder.path().join("w")),
            Vec::<PathBuf>::new()
        );
    }
}
