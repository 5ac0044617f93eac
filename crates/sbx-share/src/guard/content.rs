//! May this file be written?

use crate::nodes::{Identity, Place};
use crate::share::{Share, is_type};
use crate::tree;
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;
use sbx_workspace::event::Action;
use sbx_workspace::{Mode, What, git_link};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use virtiofsd::filesystem::ZeroCopyReader;

/// How a file may be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    /// As the guest likes.
    Free,
    /// As a whole that is looked at first.
    Link,
}

impl Share {
    /// Whether the guest may change a file's content, and how. `EACCES` if not.
    pub(crate) fn check_write(&self, id: u64) -> io::Result<Writing> {
        self.check_lock(id, Action::Write)?;
        let Some(number) = self.protection(id)? else {
            return Ok(Writing::Free);
        };
        if self.guard.what(number) == What::GitLink && self.guard.mode(number) == Mode::Block {
            return Ok(Writing::Link);
        }
        let path = self.shown_node(id);
        self.guard.violation(number, Action::Write, &path)?;
        Ok(Writing::Free)
    }

    /// The same for a file that is about to be opened: all of its names must be known.
    pub(crate) fn check_open_to_write(&self, id: u64, stat: &Statx) -> io::Result<Writing> {
        let writing = self.check_write(id)?;
        self.check_names(id, stat)?;
        Ok(writing)
    }

    /// Whether the guest may change a file's attributes. `size`: it is to be cut or extended to this.
    pub(crate) fn check_change(&self, id: u64, stat: &Statx, size: Option<u64>) -> io::Result<()> {
        self.check_lock(id, Action::Change)?;
        let Some(number) = self.protection(id)? else {
            return self.check_names(id, stat);
        };
        let refused = match self.guard.what(number) {
            What::Everything => true,
            // Git tries on a new repository's settings whether modes are kept.
            What::GitConfig | What::GitModules => size.is_some(),
            // A part of a link is another link.
            What::GitLink => size.is_some_and(|size| size != 0),
        };
        if refused {
            let path = self.shown_node(id);
            self.guard.violation(number, Action::Change, &path)?;
        }
        Ok(())
    }

    /// Whether a range of a file may be changed without its new content being seen.
    pub(crate) fn check_unseen(&self, id: u64) -> io::Result<()> {
        match self.check_write(id)? {
            Writing::Free => Ok(()),
            Writing::Link => Err(Errno::ACCESS.into()),
        }
    }

    /// A file with several names is changed under all of them, so each must be known, in the tree, and unprotected.
    /// Names outside of the tree, and those that the guest has not shown us, are not.
    fn check_names(&self, id: u64, stat: &Statx) -> io::Result<()> {
        if !self.guard.blocks || stat.stx_nlink == 0 || !is_type(stat, FileType::RegularFile) {
            return Ok(());
        }
        // It has a name that nobody has judged.
        if !self.nodes().has_place(id) {
            return Err(Errno::STALE.into());
        }
        if stat.stx_nlink == 1 {
            return Ok(());
        }
        let known = self.names_known(id, stat);
        if known >= stat.stx_nlink {
            return Ok(());
        }
        let why = format!(
            "it has {} names, and {known} are known here",
            stat.stx_nlink
        );
        let path = self.shown_node(id);
        self.guard.refuse(Mode::Block, Action::Write, &path, why)
    }

    /// Names under which the file is where it was last seen.
    fn names_known(&self, id: u64, stat: &Statx) -> u32 {
        let identity = Identity::from(stat);
        let places = self.nodes().places(id);
        let is_there = |place: &&Place| {
            let found = self
                .reach_directory(place.parent)
                .and_then(|directory| tree::stat_name(directory, &place.name));
            found.is_ok_and(|found| Identity::from(&found) == identity)
        };
        u32::try_from(places.iter().filter(is_there).count()).unwrap_or(0)
    }

    /// Whether a file that the guest has open may still be written: the host may have moved it since, or given it one
    /// more name. Looked at as often as names are.
    pub(crate) fn check_open(&self, (id, handle): (u64, u64), file: &File) -> io::Result<()> {
        if !self.guard.blocks || !self.handles().is_due(handle) {
            return Ok(());
        }
        let stat = tree::stat(file)?;
        match stat.stx_nlink {
            0 => {}
            _ if !is_type(&stat, FileType::RegularFile) => {}
            1 if self.names_known(id, &stat) == 1 => {}
            1 => self.check_moved(file)?,
            _ => self.check_names(id, &stat)?,
        }
        self.handles().judged(handle);
        Ok(())
    }

    /// Whether a file with one name, which nobody has shown us, is in the tree and unprotected there.
    fn check_moved(&self, file: &File) -> io::Result<()> {
        let path = self.tree.path_of(file)?.ok_or(Errno::STALE)?;
        let mut below = Rc::clone(&self.guard.root);
        let mut names = path.split(|byte| *byte == b'/').peekable();
        while let Some(name) = names.next() {
            let judged = self.guard.judge(&below, name, names.peek().is_some());
            if judged.hidden.is_some() {
                return Err(Errno::STALE.into());
            }
            if let Some(number) = judged.protected.or(judged.lock) {
                return self.guard.violation(number, Action::Write, &path);
            }
            below = Rc::new(judged.below);
        }
        Ok(())
    }

    /// Writes a link to a git directory, if it is one as a whole.
    pub(crate) fn write_git_link(
        &self,
        id: u64,
        file: &File,
        mut from: impl ZeroCopyReader,
        (size, offset): (usize, u64),
    ) -> io::Result<usize> {
        let before = file.metadata()?.len();
        let whole = offset == 0 && size <= git_link::MAX_BYTES && before <= size as u64;
        let place = self.nodes().place(id);
        let (true, Some(place)) = (whole, place) else {
            return Err(Errno::ACCESS.into());
        };
        // Copied out of the guest's memory before it is looked at: the guest may change it at any time.
        let staged = &self.staging;
        staged.set_len(0)?;
        let count = from.write_to_file_at(staged, size, 0, None)?;
        // One that carries less than it says would leave the end of the old link behind the new one.
        if count != size {
            return Err(Errno::INVAL.into());
        }
        let mut content = vec![0; count];
        staged.read_exact_at(&mut content, 0)?;
        self.check_git_link(place.parent, place.name.to_bytes(), &content, Action::Write)?;
        file.write_all_at(&content, 0)?;
        Ok(count)
    }

    /// Whether a link to a git directory may have this content.
    pub(super) fn check_git_link(
        &self,
        parent: u64,
        name: &[u8],
        content: &[u8],
        action: Action,
    ) -> io::Result<()> {
        let checked = {
            let nodes = self.nodes();
            let route: Vec<&[u8]> = nodes
                .route(parent)?
                .iter()
                .map(|name| name.to_bytes())
                .collect();
            git_link::check(&self.guard.path, &route, name, content)
        };
        checked.or_else(|error| {
            let path = self.shown(parent, name);
            self.guard
                .refuse(Mode::Block, action, &path, error.to_string())
        })
    }
}
