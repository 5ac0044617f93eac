//! The repositories that a workspace has, lies in, or is.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

/// Most names that are looked at for them, nearest to the workspace's root first.
pub(crate) const MAX_LOOKED_AT: usize = 100_000;
/// Most repositories.
pub(crate) const MAX_REPOSITORIES: usize = 512;

/// One of them.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Repository {
    /// Its `.git`, which may be a file or a link, or the directory that is one of git's itself.
    pub(crate) entry: PathBuf,
    /// Where its files are.
    pub(crate) worktree: Option<PathBuf>,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) repositories: Vec<Repository>,
    /// Not everything was looked at.
    pub(crate) cut: bool,
    /// Something could not be read.
    pub(crate) unreadable: bool,
}

/// Finds them. Links are not followed: what they lead to in the workspace is found where it is.
pub(crate) fn find(root: &Path) -> Found {
    let mut found = Found::default();
    for above in root.ancestors().skip(1) {
        let has = |name: &str| above.join(name).symlink_metadata().is_ok();
        found.note(above, has);
    }
    let mut left = MAX_LOOKED_AT;
    found.below(root, &mut left);
    // Submodules have theirs in the one of their repository.
    let mut next = 0;
    while let Some(repository) = found.repositories.get(next) {
        let modules = repository.entry.join("modules");
        found.below(&modules, &mut left);
        next += 1;
    }
    found
}

impl Found {
    /// A directory with these names in it.
    fn note(&mut self, directory: &Path, has: impl Fn(&str) -> bool) {
        let mut add = |repository| {
            self.cut |= self.repositories.len() == MAX_REPOSITORIES;
            if !self.cut {
                self.repositories.push(repository);
            }
        };
        if has(".git") {
            add(Repository {
                entry: directory.join(".git"),
                worktree: Some(directory.to_owned()),
            });
        }
        if has("HEAD") && has("objects") && has("refs") {
            add(Repository {
                entry: directory.to_owned(),
                worktree: None,
            });
        }
    }

    fn below(&mut self, root: &Path, left: &mut usize) {
        let mut waiting = VecDeque::from([root.to_owned()]);
        while let Some(directory) = waiting.pop_front() {
            let entries = match std::fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) => {
                    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
                    let kind = error.kind();
                    self.cut |= kind == InvalidFilename;
                    self.unreadable |= !matches!(kind, InvalidFilename | NotADirectory | NotFound);
                    continue;
                }
            };
            let mut here = Vec::new();
            for entry in entries.flatten() {
                if *left == 0 {
                    self.cut = true;
                    return;
                }
                *left -= 1;
                let name = entry.file_name();
                let known = ["HEAD", "objects", "refs", ".git"];
                here.extend(known.into_iter().find(|known| name == *known));
                if name != ".git" && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    waiting.push_back(entry.path());
                }
            }
            self.note(&directory, |name| here.contains(&name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_above_below_and_within_each_other_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for path in [
            "top/.git/modules/deep/er/objects",
            "top/.git/modules/deep/er/refs",
            "top/w/bare.git/objects",
            "top/w/bare.git/refs",
            "top/w/a/b/nested/.git",
            "top/w/tree",
        ] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        for path in [
            "top/.git/modules/deep/er/HEAD",
            "top/w/bare.git/HEAD",
            "top/w/tree/.git",
        ] {
            std::fs::write(root.join(path), "").unwrap();
        }
        let found = find(&root.join("top/w"));
        assert!(!found.cut);
        let entries = found.repositories.iter().filter_map(|found| {
            let entry = found.entry.strip_prefix(&root).ok()?;
            Some((entry.to_str()?, found.worktree.is_some()))
        });
        assert_eq!(
            entries.collect::<Vec<_>>(),
            [
                ("top/.git", true),
                ("top/w/bare.git", false),
                ("top/w/tree/.git", true),
                ("top/w/a/b/nested/.git", true),
                ("top/.git/modules/deep/er", false),
            ]
        );
    }
}
