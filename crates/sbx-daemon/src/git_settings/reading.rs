//! What is read: files of settings, links to git directories, and what is in those.

use super::Follow;
use super::bounds::{Bound, MAX_ENTRIES};
use crate::links::{self, Ways};
use crate::unreadable::absent;
use sbx_wire::report::Report;
use sbx_workspace::git_places::{self, Names};
use sbx_workspace::{git_config, git_link};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Most values of one file below the root that are followed.
pub(super) const MAX_VALUES: usize = 256;

impl Follow<'_> {
    /// Follows what the files of settings name that are known by now.
    pub(super) fn follow(&mut self) -> Result<(), Report> {
        while let Some((path, depth)) = self.waiting.pop_front() {
            self.read(&path, depth)?;
        }
        Ok(())
    }

    fn read(&mut self, path: &Path, depth: usize) -> Result<(), Report> {
        if !self.spend(Bound::Bytes, 1)? {
            return Ok(());
        }
        let content = match content(path) {
            Ok(Some(content)) => content,
            Ok(None) => {
                self.skip(path, "it is no plain file of at most 1 MiB");
                return Ok(());
            }
            Err(error) if absent(&error) => return Ok(()),
            Err(error) => {
                let real = self.ways(path).real;
                self.unreadable.note(&real, &error);
                return Ok(());
            }
        };
        if !self.spend(Bound::Bytes, content.len())? {
            return Ok(());
        }
        let entries = match git_config::parse(&content) {
            Ok(entries) => entries,
            Err(error) => {
                self.skip(path, &error.to_string());
                return Ok(());
            }
        };
        for (number, (names, value)) in git_places::named(&entries).enumerate() {
            if self.spent.nested && number == MAX_VALUES {
                self.skip(path, &format!("it names more than {MAX_VALUES} of them"));
                return Ok(());
            }
            if !self.spend(Bound::Values, 1)? {
                return Ok(());
            }
            self.value((path, depth), names, value)?;
        }
        Ok(())
    }

    fn value(
        &mut self,
        (path, depth): (&Path, usize),
        names: Names,
        value: &[u8],
    ) -> Result<(), Report> {
        let Some(value) = git_places::expand(value, self.user.home.as_deref()) else {
            let shown = String::from_utf8_lossy(value).escape_debug().to_string();
            self.skip(path, &format!("nobody can tell where {shown} is"));
            return Ok(());
        };
        match names {
            Names::Settings if value.is_absolute() => self.settings(&value, depth + 1, None),
            Names::Settings => {
                for above in self.directories(path) {
                    self.settings(&links::join(&above, &value), depth + 1, Some(&above))?;
                }
                Ok(())
            }
            Names::Hooks => self.named_hooks(path, &value),
        }
    }

    /// The line in a file that leads to a git directory.
    pub(super) fn text(&mut self, path: &Path) -> Option<String> {
        let content = sbx_files::plain(path, git_link::MAX_BYTES);
        let content = content.inspect_err(|error| self.unreadable.note(path, error));
        let text = String::from_utf8(content.ok()??).ok()?;
        Some(text.trim_end_matches(['\n', '\r']).to_owned())
    }

    /// What is in a directory of git's, and whether it is a link; nothing if it is none.
    pub(super) fn entries(&mut self, directory: &Path) -> Result<Vec<(PathBuf, bool)>, Report> {
        let real = self.ways(directory).real;
        let mut found = Vec::new();
        let entries = std::fs::read_dir(&real).and_then(|entries| {
            for entry in entries {
                let entry = entry?;
                let link = entry.file_type()?.is_symlink();
                // Git's examples, which anybody may make, run under no name of theirs.
                if !link && entry.file_name().as_bytes().ends_with(b".sample") {
                    continue;
                }
                if found.len() > MAX_ENTRIES {
                    break;
                }
                found.push((directory.join(entry.file_name()), link));
            }
            Ok(())
        });
        if let Err(error) = entries {
            self.unreadable.note(&real, &error);
        }
        if found.len() > MAX_ENTRIES {
            if !self.spent.nested {
                self.spend(Bound::Entries, usize::MAX)?;
            }
            self.skip(directory, "there are too many files in it");
            found.truncate(MAX_ENTRIES);
        }
        Ok(found)
    }

    /// Where what a file of settings includes is looked for: beside the file, by its name and where it really is.
    fn directories(&mut self, settings: &Path) -> Vec<PathBuf> {
        let found = self.ways(settings);
        let written = found.linked.then(|| settings.to_owned());
        let files = written.into_iter().chain([found.real]);
        let parent = |file: PathBuf| Some(file.parent()?.to_owned());
        files.filter_map(parent).collect()
    }

    pub(super) fn ways(&mut self, path: &Path) -> Ways {
        let mut ways = links::ways(path);
        if let Some((at, error)) = ways.unreadable.take() {
            self.unreadable.note(&at, &error);
        }
        ways
    }

    pub(super) fn skip(&mut self, path: &Path, why: &str) {
        self.notices.add(format!(
            "git's settings in {} were not followed to hooks and further settings: {why}",
            path.display()
        ));
    }
}

/// As git reads it: links are followed. `None`: it is no plain file, or too large.
fn content(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Of a pipe the opening would wait.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    sbx_files::whole(file, git_config::MAX_BYTES)
}
