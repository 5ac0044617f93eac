//! The names by which a path leads to its file.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Most links that are followed, as the kernel has it.
const MAX_LINKS: usize = 40;

/// What a path leads to.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// The path as it is, with each link on the way followed in turn, and at the end without any: whoever can change the
    /// file under one of these names changes what the path means.
    pub(crate) names: Vec<PathBuf>,
    /// The last of them.
    pub(crate) real: PathBuf,
    /// There are links on the way.
    pub(crate) linked: bool,
    /// Of what is there nobody could tell whether it is a link.
    pub(crate) unreadable: Option<(PathBuf, io::Error)>,
}

/// Follows an absolute path. What is not there is taken as it is written.
pub(crate) fn ways(path: &Path) -> Ways {
    let mut found = Vec::new();
    let mut left = MAX_LINKS;
    let mut unreadable = None;
    // Names since the beginning of what is followed: above that nothing depends on a name in it.
    let mut depth = 0_usize;
    let mut real = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = parts(path).collect();
    while let Some(name) = rest.pop_front() {
        if name == "." {
            continue;
        }
        if name == ".." {
            if depth > 0 {
                // A link that takes this place later would lead up from elsewhere.
                found.extend(path.file_name().map(|last| real.join(last)));
                depth -= 1;
            }
            real.pop();
            continue;
        }
        let at = real.join(&name);
        match std::fs::read_link(&at) {
            Ok(target) if left > 0 => {
                left -= 1;
                depth = 0;
                found.push(lexical(&at, &rest));
                if target.is_absolute() {
                    real = PathBuf::from("/");
                }
                rest = parts(&target).chain(rest).collect();
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                unreadable.get_or_insert_with(|| (at.clone(), error));
                (real, depth) = (at, depth + 1);
            }
            _ => (real, depth) = (at, depth + 1),
        }
    }
    found.push(real.clone());
    Ways {
        names: found,
        real,
        linked: left < MAX_LINKS,
        unreadable,
    }
}

/// Every name of what a path leads to, which no `..` in it takes from what was never meant: those are taken as written.
pub(crate) fn names(path: &Path) -> Vec<PathBuf> {
    ways(&plain(path)).names
}

/// An absolute path without `.` and `..`, as it is written.
pub(crate) fn plain(path: &Path) -> PathBuf {
    lexical(Path::new("/"), &parts(path).collect())
}

/// A path that is written in a directory, the way up at its beginning taken: that depends on no name, unless there are links
/// on the way to the directory.
pub(crate) fn join(directory: &Path, path: &Path) -> PathBuf {
    if ways(directory).linked {
        return directory.join(path);
    }
    let mut at = directory.to_owned();
    let mut rest = path.components();
    loop {
        match rest.clone().next() {
            Some(Component::ParentDir) => drop(at.pop()),
            Some(Component::CurDir) => {}
            _ => return at.join(rest.as_path()),
        }
        rest.next();
    }
}

/// Names, `.` and `..`.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::RootDir | Component::Prefix(_) => None,
        part => Some(part.as_os_str().to_owned()),
    })
}

fn lexical(start: &Path, rest: &VecDeque<OsString>) -> PathBuf {
    let mut path = start.to_owned();
    for name in rest {
        if name == ".." {
            path.pop();
        } else if name != "." {
            path.push(name);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_link_on_the_way_has_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("real/in")).unwrap();
        symlink("mid", root.join("link")).unwrap();
        symlink(root.join("real"), root.join("mid")).unwrap();
        let found = |path: &str| {
            let ways = ways(&root.join(path)).names.into_iter();
            let below = ways.map(|way| way.strip_prefix(&root).unwrap().display().to_string());
            below.collect::<Vec<_>>()
        };
        assert_eq!(found("link/f"), ["link/f", "mid/f", "real/f"]);
        assert_eq!(found("not/there"), ["not/there"]);
        // Up from where the link leads to; and from where it stands, if it becomes another.
        assert_eq!(
            found("link/in/../f"),
            ["link/f", "mid/f", "real/in/f", "real/f"]
        );
        symlink("../real/in", root.join("real/up")).unwrap();
        assert_eq!(found("real/up/f"), ["real/up/f", "real/in/f"]);
        let joined = |path: &str| join(&root.join(path), Path::new(".././../f"));
        assert_eq!(joined("real/in"), root.join("f"));
        assert_eq!(joined("link/in"), root.join("link/in/.././../f"));
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(found("loop").len(), MAX_LINKS + 1);
    }
}
