//! May this file or directory, with all that is in it, get that name?

use super::moves::says_where;
use super::{Below, Judgement};
use crate::limits::MAX_SCAN;
use crate::share::{Share, is_type};
use crate::tree;
use rustix::fs::{Dir, FileType, Mode as Permissions, OFlags};
use rustix::io::Errno;
use sbx_workspace::event::Action;
use sbx_workspace::{Mode, What};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A name in a directory that was reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    pub(crate) parent: u64,
    pub(crate) directory: BorrowedFd<'a>,
    pub(crate) name: &'a CStr,
}

/// How a rename is done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The file takes the place of one of git's, as a copy that was looked at.
    pub(crate) install: Option<u16>,
    /// What is in the directory falls under other rules now.
    pub(crate) rejudge: bool,
}

impl Share {
    /// Whether the guest may rename in this way. Nothing becomes a link to a git directory by it: git writes those
    /// plainly, and whoever has the file open under its old name could go on writing.
    pub(crate) fn check_rename(&self, from: Named<'_>, to: Named<'_>) -> io::Result<Plan> {
        let mut plan = Plan::default();
        if self.guard.is_idle() {
            return Ok(plan);
        }
        let stat = tree::stat_name(from.directory, from.name)?;
        let directory = is_type(&stat, FileType::Directory);
        let judge = |at: Named<'_>| self.judge_name(at.parent, at.name, directory);
        let (Some(old), Some(new)) = (judge(from)?, judge(to)?) else {
            return Ok(plan);
        };
        let path = |at: Named<'_>| self.shown(at.parent, at.name.to_bytes());
        if old.hidden.is_some() {
            return Err(Errno::NOENT.into());
        }
        if let Some(number) = new.hidden {
            return Err(self.guard.refuse_hidden(number, Action::Rename, &path(to)));
        }
        self.check_stays(from)?;
        if tree::stat_name(to.directory, to.name).is_ok() {
            self.check_stays(to)?;
        }
        if let Some(number) = old.protected
            && self.guard.what(number) == What::Everything
        {
            self.guard.violation(number, Action::Rename, &path(from))?;
        }
        if let Some(number) = new.protected {
            let file = is_type(&stat, FileType::RegularFile);
            match self.guard.what(number) {
                What::GitConfig | What::GitModules if file => plan.install = Some(number),
                _ => self.guard.violation(number, Action::Rename, &path(to))?,
            }
        }
        self.check_own_lock(old.lock, from, Action::Rename)?;
        if let Some(number) = new.lock {
            self.refuse_lock(number, Action::Rename, &path(to))?;
        }
        if directory {
            self.check_holds_no_lock(from, &stat)?;
        }
        if is_type(&stat, FileType::Symlink) {
            self.check_stand_in(to.parent, to.name, Action::Rename)?;
        }
        let elsewhere = directory && from.parent != to.parent;
        let in_git =
            elsewhere && (self.below(from.parent)?.in_git || self.below(to.parent)?.in_git);
        if directory && (in_git || old.below != new.below) {
            plan.rejudge = true;
            self.check_tree(from, to, (&old, &new), in_git)?;
        }
        Ok(plan)
    }

    /// Git on the host looks for settings and programs relative to some directories: elsewhere it would look where
    /// nothing is protected.
    fn check_stays(&self, at: Named<'_>) -> io::Result<()> {
        if self.guard.stay.is_empty() {
            return Ok(());
        }
        // Whatever cannot be told is no path that may be renamed.
        self.nodes().route(at.parent)?;
        let path = self.shown(at.parent, at.name.to_bytes());
        let Some(stay) = self.guard.stays(&path) else {
            return Ok(());
        };
        let why = format!(
            "git on the host finds settings or programs by where {} is",
            stay.path
        );
        self.guard.refuse(stay.mode, Action::Rename, &path, why)
    }

    /// Nothing in the directory may come under a rule by the move, or leave one.
    fn check_tree(
        &self,
        from: Named<'_>,
        to: Named<'_>,
        (old, new): (&Judgement, &Judgement),
        in_git: bool,
    ) -> io::Result<()> {
        let mut scan = Scan {
            share: self,
            root: open_directory(from.directory, from.name.to_bytes())?,
            left: MAX_SCAN,
            in_git,
            from: self.shown(from.parent, from.name.to_bytes()),
            to: self.shown(to.parent, to.name.to_bytes()),
        };
        let mut waiting = vec![(Vec::new(), old.below.clone(), new.below.clone())];
        while let Some((path, old, new)) = waiting.pop() {
            scan.directory(&path, (&old, &new), &mut waiting)?;
        }
        Ok(())
    }
}

/// Directories to look at: the path from the one that is moved, and what the rules remember at both ends. Bounded by
/// what is looked at altogether.
type Waiting = Vec<(Vec<u8>, Below, Below)>;

struct Scan<'a> {
    share: &'a Share,
    /// What is moved.
    root: OwnedFd,
    left: usize,
    /// It moves from or to a place within a git directory.
    in_git: bool,
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Scan<'_> {
    fn directory(
        &mut self,
        path: &[u8],
        (old, new): (&Below, &Below),
        waiting: &mut Waiting,
    ) -> io::Result<()> {
        let inner = path.strip_prefix(b"/").unwrap_or(b".");
        let directory = open_directory(&self.root, inner)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.left == 0 {
                let why = "there is too much in it to be looked at".to_owned();
                return self.refuse(Mode::Block, &self.to, why);
            }
            self.left -= 1;
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    let stat = tree::stat_name(&directory, name)?;
                    FileType::from_raw_mode(stat.stx_mode.into())
                }
                kind => kind,
            };
            let mut below_path = path.to_vec();
            below_path.push(b'/');
            below_path.extend_from_slice(name.to_bytes());
            let judge = |below| {
                self.share
                    .guard
                    .judge(below, name.to_bytes(), kind == FileType::Directory)
            };
            let (old, new) = (judge(old), judge(new));
            self.entry(&below_path, (&old, &new))?;
            if kind == FileType::Symlink {
                self.stand_in(&below_path, &new)?;
            }
            if self.in_git && kind != FileType::Directory {
                self.relative(&directory, name, &below_path)?;
            }
            // In a git directory no link was made, but for those beside, and nothing is protected where no rule is live.
            let becomes_git = new.below.in_git && !old.below.in_git;
            let live = old.below.is_live() || new.below.is_live() || becomes_git;
            if kind == FileType::Directory && live {
                waiting.push((below_path, old.below, new.below));
            }
        }
        Ok(())
    }

    /// One file or directory in what is moved.
    fn entry(&self, path: &[u8], (old, new): (&Judgement, &Judgement)) -> io::Result<()> {
        let guard = &self.share.guard;
        let full = |start: &[u8]| [start, path].concat();
        if old.hidden != new.hidden {
            let why =
                "what is hidden in it would be hidden no more, or the other way round".to_owned();
            return self.refuse(Mode::Block, &full(&self.to), why);
        }
        if let (true, Some(number)) = (old.lock != new.lock, old.lock.or(new.lock)) {
            let share = self.share;
            share.refuse_lock(number, Action::Rename, &full(&self.to))?;
        }
        if old.protected == new.protected {
            return Ok(());
        }
        if let Some(number) = old.protected {
            guard.violation(number, Action::Rename, &full(&self.from))?;
        }
        if let Some(number) = new.protected {
            guard.violation(number, Action::Rename, &full(&self.to))?;
        }
        Ok(())
    }

    /// A file in what is moved from or to a place within a git directory. What says where something is, from where it is
    /// itself, was looked at there.
    fn relative(&self, directory: &OwnedFd, name: &CStr, path: &[u8]) -> io::Result<()> {
        if !says_where(directory, name)? {
            return Ok(());
        }
        let mode = self.share.guard.usual_mode();
        let why = "it says where something is, from where it is itself".to_owned();
        self.refuse(mode, &[&self.to, path].concat(), why)
    }

    /// A link in what is moved.
    fn stand_in(&self, path: &[u8], new: &Judgement) -> io::Result<()> {
        let Some(why) = new.below.against_links() else {
            return Ok(());
        };
        let mode = self.share.guard.usual_mode();
        self.refuse(mode, &[&self.to, path].concat(), why.to_owned())
    }

    fn refuse(&self, mode: Mode, path: &[u8], why: String) -> io::Result<()> {
        self.share.guard.refuse(mode, Action::Rename, path, why)
    }
}

/// Opens a directory by its path below another; no link is followed.
pub(super) fn open_directory(directory: impl AsFd, path: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat2(directory, path, flags, Permissions::empty(), tree::BENEATH);
    Ok(opened?)
}
