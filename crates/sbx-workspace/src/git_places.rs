//! Where git is told to find more of its own files, and how those are protected there.

use crate::git_config::Entry;
use crate::pattern::{Pattern, PatternError, exactly};
use crate::protect::GIT;
use crate::rules::{Mode, Protection, What};
use std::path::{Path, PathBuf};

/// What a setting names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Another file of settings (`include.path`, `includeIf.*.path`). Whether a condition holds is not asked: some can be
    /// made to hold from inside.
    Settings,
    /// The directory of hooks (`core.hooksPath`). Each one counts: which comes last is decided by conditions too.
    Hooks,
}

/// What these settings name, as it is written.
pub fn named(entries: &[Entry]) -> impl Iterator<Item = (Names, &[u8])> {
    entries.iter().filter_map(|entry| {
        let subsection = entry.subsection.is_some();
        let names = match (entry.section.as_str(), subsection, entry.key.as_str()) {
            ("include", false, "path") | ("includeif", true, "path") => Names::Settings,
            ("core", false, "hookspath") => Names::Hooks,
            _ => return None,
        };
        let value = entry.value.as_deref()?;
        (!value.is_empty()).then_some((names, value))
    })
}

/// The path that a value stands for, as git expands it: relative to what the setting is about, or absolute. `None`: it
/// is somebody else's home, or git's own installation, or no text.
pub fn expand(value: &[u8], home: Option<&Path>) -> Option<PathBuf> {
    let value = std::str::from_utf8(value).ok()?;
    let value = value.strip_prefix(":(optional)").unwrap_or(value);
    if value.starts_with("%(prefix)") {
        return None;
    }
    let Some(rest) = value.strip_prefix('~') else {
        return Some(PathBuf::from(value));
    };
    let rest = match rest.strip_prefix('/') {
        Some(rest) => rest,
        None if rest.is_empty() => "",
        None => return None,
    };
    // A second slash would make it absolute.
    home.map(|home| home.join(rest.trim_start_matches('/')))
}

/// A file of settings at this place.
///
/// # Errors
/// The place cannot be a pattern.
pub fn settings(names: &[&str], mode: Mode) -> Result<Protection, PatternError> {
    protection(&exactly(names.iter().copied()), mode, What::GitConfig)
}

/// A program at this place that git runs.
///
/// # Errors
/// As [`settings`].
pub fn program(names: &[&str], mode: Mode) -> Result<Protection, PatternError> {
    protection(&exactly(names.iter().copied()), mode, What::Everything)
}

/// A directory of hooks at this place.
///
/// # Errors
/// As [`settings`]: one that is the whole workspace among them.
pub fn hooks(names: &[&str], mode: Mode) -> Result<Protection, PatternError> {
    let pattern = exactly(names.iter().copied()) + "/";
    protection(&pattern, mode, What::Everything)
}

/// A directory of hooks that is relative to the files of whoever uses it: a worktree can be made anywhere.
///
/// # Errors
/// As [`hooks`].
pub fn hooks_anywhere(names: &[&str], mode: Mode) -> Result<Protection, PatternError> {
    if names.is_empty() {
        return Err(PatternError::Everything);
    }
    let pattern = format!("**{}/", exactly(names.iter().copied()));
    protection(&pattern, mode, What::Everything)
}

/// A git directory that has another name than `.git`.
///
/// # Errors
/// As [`settings`].
pub fn git_directory(names: &[&str], mode: Mode) -> Result<Vec<Protection>, PatternError> {
    git_files(&exactly(names.iter().copied()), mode)
}

/// Git directories that are called like this one, anywhere: those that end in `.git` if it does, those of its own name if
/// that begins with `.git`. `None`: other directories may well have such a name.
///
/// # Errors
/// As [`settings`].
pub fn git_directories(name: &str, mode: Mode) -> Option<Result<Vec<Protection>, PatternError>> {
    let place = if name.as_bytes().ends_with(b".git") {
        "/*.git".to_owned()
    } else if name.starts_with(".git") {
        exactly([name])
    } else {
        return None;
    };
    Some(git_files(&format!("**{place}"), mode))
}

fn git_files(place: &str, mode: Mode) -> Result<Vec<Protection>, PatternError> {
    let entries = GIT.iter().filter_map(|(pattern, what)| {
        let (not, pattern) = match pattern.strip_prefix('!') {
            Some(pattern) => ("!", pattern),
            None => ("", *pattern),
        };
        let inside = pattern.strip_prefix("**/.git/")?;
        Some(protection(&format!("{not}{place}/{inside}"), mode, *what))
    });
    entries.collect()
}

fn protection(pattern: &str, mode: Mode, what: What) -> Result<Protection, PatternError> {
    Ok(Protection {
        pattern: Pattern::parse(pattern)?,
        mode,
        what,
    })
}
