//! Files that say where a git directory is: `.git` of a worktree or submodule (gitrepository-layout(5), `gitdir: PATH`)
//! and `commondir` (a path). A git directory that is not called `.git` is not protected, so none may be named.

use std::path::Path;

/// Longest such file that is looked at, bytes.
pub const MAX_BYTES: usize = 4096;

/// Why a link may not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It is not what git writes.
    #[error("it is no link to a git directory")]
    Form,
    /// The place is outside of the workspace, or not in a directory called `.git`.
    #[error("it names a place that is not protected: {0}")]
    Place(String),
}

/// Checks the whole content of such a file: `name` in the directory whose components below `root` are given.
///
/// # Errors
/// Why git on the host must not find it there.
pub fn check(
    root: &Path,
    directory: &[&[u8]],
    name: &[u8],
    content: &[u8],
) -> Result<(), LinkError> {
    let text = std::str::from_utf8(content).map_err(|_| LinkError::Form)?;
    let text = if name == b".git" {
        text.strip_prefix("gitdir: ").ok_or(LinkError::Form)?
    } else {
        text
    };
    let path = text.trim_end_matches(['\n', '\r']);
    if path.is_empty() || path.chars().any(char::is_control) {
        return Err(LinkError::Form);
    }
    let place =
        resolve_surely(root, directory, path).ok_or_else(|| LinkError::Place(path.to_owned()))?;
    let last = place.iter().rposition(|name| *name == b".git");
    let inside = last.map(|at| &place[at + 1..]);
    match inside {
        Some(
            [] | [b"modules", _, ..] | [b"worktrees", _] | [b"worktrees", _, b"modules", _, ..],
        ) => Ok(()),
        _ => Err(LinkError::Place(path.to_owned())),
    }
}

/// The components below `root` of a path that is written in a directory below it. `None`: it is outside.
pub fn resolve<'a>(root: &'a Path, directory: &[&'a [u8]], path: &'a str) -> Option<Vec<&'a [u8]>> {
    let (mut place, rest) = match Path::new(path).strip_prefix(root) {
        Ok(rest) => (Vec::new(), rest.to_str()?),
        Err(_) if path.starts_with('/') => return None,
        Err(_) => (directory.to_vec(), path),
    };
    for name in rest.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                place.pop()?;
            }
            name => place.push(name.as_bytes()),
        }
    }
    Some(place)
}

/// As [`resolve`]; `None` as well where nobody can tell, for what is above a name depends on whether the name is a
/// symbolic link, now or later. Git writes ways up at the beginning only.
pub(crate) fn resolve_surely<'a>(
    root: &'a Path,
    directory: &[&'a [u8]],
    path: &'a str,
) -> Option<Vec<&'a [u8]>> {
    let first = |name: &&str| matches!(*name, "" | "." | "..");
    let mut rest = path.split('/').skip_while(first);
    if rest.any(|name| name == "..") {
        return None;
    }
    resolve(root, directory, path)
}
