//! Git's settings (git-config(1)) as far as they can make something run.
//!
//! Guest and host both have to write them. What a guest may put there is listed (`safe`), anything else is refused
//! unless it was there before: the list of what git, and the programs around it, take for a command grows with every
//! version, the list of what an agent needs does not.

mod parse;
mod safe;

pub use parse::{Entry, ParseError, parse};

use crate::git_link;
use std::collections::HashSet;
use std::path::Path;

/// Largest file that is looked at, bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Where a file of settings is.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The workspace's root on the host.
    pub root: &'a Path,
    /// Components below it of the directory that holds the file.
    pub directory: &'a [&'a [u8]],
}

/// Why a file of settings may not take the place of another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Git would not read it, or not as we do.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// New settings that may make something run.
    #[error("{}", .0.join(", "))]
    Unsafe(Vec<String>),
}

/// Checks a repository's settings against those that were there before (`None`: none, or none that can be read).
///
/// # Errors
/// Names the settings that are refused.
pub fn check(place: Place<'_>, new: &[u8], old: Option<&[u8]>) -> Result<(), ConfigError> {
    judge(new, old, |entry| safe::setting(entry, &place))
}

/// Checks the file `.gitmodules` in the same way (gitmodules(5)).
///
/// # Errors
/// Names the settings that are refused.
pub fn check_modules(new: &[u8], old: Option<&[u8]>) -> Result<(), ConfigError> {
    judge(new, old, safe::module)
}

fn judge(new: &[u8], old: Option<&[u8]>, safe: impl Fn(&Entry) -> bool) -> Result<(), ConfigError> {
    let entries = parse(new)?;
    // What cannot be read had no settings that anybody believed.
    let known: HashSet<Entry> = old
        .and_then(|old| parse(old).ok())
        .unwrap_or_default()
        .into_iter()
        .collect();
    let mut refused: Vec<String> = entries
        .iter()
        .filter(|entry| !known.contains(*entry) && !safe(entry))
        .map(Entry::name)
        .collect();
    refused.sort();
    refused.dedup();
    if refused.is_empty() {
        Ok(())
    } else {
        Err(ConfigError::Unsafe(refused))
    }
}

/// Whether a file of settings is that of a submodule, in a worktree perhaps, and a path written in it stays in the
/// repository that has the submodule, outside of git's own files: then it does so wherever the repository is moved to.
/// Git sets the path for submodules only.
fn in_repository(place: &Place<'_>, path: &str) -> bool {
    let modules = |names: &[&[u8]]| {
        matches!(
            names,
            [b".git", b"modules", ..] | [b".git", b"worktrees", _, b"modules", ..]
        )
    };
    let mut starts = 0..place.directory.len();
    let Some(git) = starts.find(|at| modules(&place.directory[*at..])) else {
        return false;
    };
    let found = git_link::resolve_surely(place.root, place.directory, path);
    found.is_some_and(|names| {
        names.starts_with(&place.directory[..git]) && !names.contains(&b".git".as_slice())
    })
}
