//! Files of git's that say where something is, from where they are themselves: looked at there, they mean another place
//! when what holds them is moved. Those in a git directory may name what has no `.git` on its way; those outside mean a
//! protected place, or one outside of the workspace, wherever they are moved to.

use crate::tree;
use rustix::fs::{Mode, OFlags};
use sbx_workspace::git_config::{self, Entry};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd;

/// Whether a file is one of them.
pub(super) fn says_where(directory: impl AsFd, name: &CStr) -> io::Result<bool> {
    match name.to_bytes() {
        b".git" | b"commondir" | b"gitdir" => Ok(true),
        b"config" | b"config.worktree" => names_worktree(directory, name),
        _ => Ok(false),
    }
}

/// Whether settings say where the files of a repository are; what cannot be read may.
fn names_worktree(directory: impl AsFd, name: &CStr) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(directory, name, flags, Mode::empty(), tree::BENEATH)?;
    let mut content = Vec::new();
    let most = git_config::MAX_BYTES as u64 + 1;
    File::from(opened).take(most).read_to_end(&mut content)?;
    if content.len() > git_config::MAX_BYTES {
        return Ok(true);
    }
    let says = |entry: &Entry| (entry.section.as_str(), entry.key.as_str()) == ("core", "worktree");
    Ok(git_config::parse(&content).map_or(true, |entries| entries.iter().any(says)))
}
