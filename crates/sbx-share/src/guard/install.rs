//! Git's own way of writing its settings, and how it is let through.
//!
//! Git writes `config.lock` and renames it to `config`. The guest may write its own lock as it likes. At the rename it is
//! read, looked at, and a copy of what was read takes the place: whoever still has the lock open or mapped writes to a
//! file without a name.

use super::copy;
use super::renames::Named;
use crate::share::Share;
use crate::tree;
use rustix::fs::{AtFlags, Mode as Permissions, OFlags};
use sbx_workspace::event::Action;
use sbx_workspace::git_config::{self, ConfigError, Place};
use sbx_workspace::{Mode, What};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd;

impl Share {
    /// Puts a copy of a file in the place of one of git's, if its content may be there. In report mode the caller
    /// renames: `false`.
    pub(crate) fn install(&self, number: u16, from: Named<'_>, to: Named<'_>) -> io::Result<bool> {
        let path = self.shown(to.parent, to.name.to_bytes());
        let refuse = |why: String| {
            let mode = self.guard.mode(number);
            self.guard.refuse(mode, Action::Configure, &path, why)
        };
        let Some(new) = read(from.directory, from.name, git_config::MAX_BYTES)? else {
            refuse(format!("larger than {} KiB", git_config::MAX_BYTES >> 10))?;
            return Ok(false);
        };
        let old = match read(to.directory, to.name, git_config::MAX_BYTES) {
            Ok(old) => old,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Err(error) = self.check_settings(number, to, &new, old.as_deref()) {
            let why = match error {
                ConfigError::Unsafe(names) => {
                    format!("settings that may run something: {}", names.join(", "))
                }
                ConfigError::Parse(error) => error.to_string(),
            };
            refuse(why)?;
            return Ok(false);
        }
        if self.guard.mode(number) == Mode::Report {
            return Ok(false);
        }
        let mode = tree::stat_name(from.directory, from.name)?.stx_mode;
        let mode = Permissions::from_raw_mode(u32::from(mode) & 0o666);
        // Not by way of the guest's own name, which another share of the same files may use at any time.
        copy::install(&self.tree, (to.directory, to.name), &new, mode)?;
        rustix::fs::unlinkat(from.directory, from.name, AtFlags::empty())?;
        Ok(true)
    }

    fn check_settings(
        &self,
        number: u16,
        to: Named<'_>,
        new: &[u8],
        old: Option<&[u8]>,
    ) -> Result<(), ConfigError> {
        if self.guard.what(number) == What::GitModules {
            return git_config::check_modules(new, old);
        }
        let nodes = self.nodes();
        let route = nodes.route(to.parent).unwrap_or_default();
        let directory: Vec<&[u8]> = route.iter().map(|name| name.to_bytes()).collect();
        let place = Place {
            root: &self.guard.path,
            directory: &directory,
        };
        git_config::check(place, new, old)
    }
}

/// Reads a regular file of at most `limit` bytes; `None`: it is larger, or no regular file.
fn read(directory: impl AsFd, name: &CStr, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(
        directory,
        name,
        flags,
        Permissions::empty(),
    )?);
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut content)?;
    Ok((content.len() <= limit).then_some(content))
}
