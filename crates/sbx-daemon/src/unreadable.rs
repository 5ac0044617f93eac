//! What cannot be read in a workspace, or of git's beside it: nobody can tell what is in it.

use rustix::process::geteuid;
use sbx_wire::report::Report;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The first of each kind.
#[derive(Debug, Default)]
pub(crate) struct Unreadable {
    /// Its owner, who is whoever runs this, took the right to read it away: a guest can do that in an earlier run.
    own: Option<PathBuf>,
    /// Somebody else's, as a database in a container leaves it, or one that fails.
    other: Option<(PathBuf, String)>,
}

impl Unreadable {
    /// Whether everything could be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_none() && self.other.is_none()
    }

    /// A path without links that could not be read. What is absent or no directory is nothing.
    pub(crate) fn note(&mut self, path: &Path, error: &io::Error) {
        if absent(error) {
            return;
        }
        let mut above = path.ancestors();
        let seen = above.find_map(|at| Some((at, at.symlink_metadata().ok()?)));
        let own = seen.filter(|(_, meta)| {
            let wanted = if meta.is_dir() { 0o500 } else { 0o400 };
            meta.uid() == geteuid().as_raw() && meta.mode() & wanted != wanted
        });
        match own {
            Some((at, _)) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.own.get_or_insert_with(|| at.to_owned());
            }
            _ => {
                let other = || (path.to_owned(), error.to_string());
                self.other.get_or_insert_with(other);
            }
        }
    }

    /// What the user is told, once for all of them.
    ///
    /// # Errors
    /// One of them is the user's own.
    pub(crate) fn said(self, all: &mut Vec<String>) -> Result<(), Report> {
        if let Some(own) = self.own {
            let shown = own.display();
            let rights = if own.is_dir() { "u+rwx" } else { "u+rw" };
            return Err(Report::user(
                "workspace-unreadable",
                format!(
                    "{shown} cannot be read, which is yours: nobody can tell where git on the host takes hooks and settings \
                     from"
                ),
                format!("chmod {rights} {}", shell_word(&own)),
            ));
        }
        all.extend(self.other.map(|(path, error)| {
            format!(
                "{} and perhaps others cannot be read ({error}): they were not looked at for hooks and settings of git",
                path.display()
            )
        }));
        Ok(())
    }

    /// Those of another search as well.
    pub(crate) fn add(&mut self, other: Self) {
        self.own = self.own.take().or(other.own);
        self.other = self.other.take().or(other.other);
    }
}

/// A path as one word of a shell's (POSIX, 2.2.2): the guest names directories.
pub(crate) fn shell_word(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// There is no such file.
pub(crate) fn absent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}
