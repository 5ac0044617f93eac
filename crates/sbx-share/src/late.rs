//! Masks that appear while the guest runs: a program makes `node_modules` in a package that was not there at the start.
//!
//! 1. The directory becomes one that only the guest has ([`crate::virtuals`]): nothing is made on the host, and what the
//!    host made there is out of sight.
//! 2. The guest's agent is told, by the read that it keeps pending ([`sbx_workspace::late_mask`]), and mounts a directory
//!    of the guest's disk there.
//! 3. Until it has, whoever would enter the directory, list it or make something in it gets `ESTALE`: its attributes are
//!    valid for no time, so Linux asks for them at every step into it. After that, Linux walks the path anew and looks all
//!    names up, and this look-up waits.
//! 4. The agent says that it has, and the look-ups are answered.
//!
//! Only a directory that the guest knows is waited for: the agent's own walk would otherwise stand behind another's,
//! since Linux asks for an unknown name once and lets everybody else wait for that answer. And nobody waits for longer
//! than [`MOUNT_LIMIT`]. Without an agent that reads there are no such masks, and the directory is the host's. Whoever
//! has passed the mount point just before something was mounted there is sent back as well, for [`MOUNTED_GRACE`].

use crate::limits::{MOUNT_LIMIT, MOUNTED_GRACE};
use crate::share::{Share, is_type};
use crate::tree::{self, Tree};
use crate::virtuals::Virtuals;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use sbx_workspace::late_mask::{Word, own_name};
use sbx_workspace::mask::{MAX_MASKS, Mask};
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What cargo puts into a directory that it makes beside and then renames, so that backups leave it out.
const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";

/// What is known of the agent, and what it has to do.
#[derive(Debug, Default)]
pub(crate) struct Late {
    wanted: Vec<Mask>,
    /// Where the guest has the share: at the same path as the host.
    root: PathBuf,
    /// The agent's thread, by the number that its requests carry.
    agent: Option<u32>,
    /// The newest read and its handle; reads before it are over.
    reader: (u64, u64),
    /// The guest is about to go.
    leaves: bool,
    /// What the agent was not told of yet.
    untold: VecDeque<usize>,
    /// What is not mounted, or only just.
    new: HashMap<usize, New>,
}

/// A directory that has just appeared.
#[derive(Clone, Copy, Debug)]
struct New {
    mounted: bool,
    /// Until when somebody waits for it, or is sent back.
    until: Instant,
}

impl Late {
    pub(crate) fn new(wanted: &[Mask], root: PathBuf) -> Self {
        Self {
            wanted: wanted.to_vec(),
            root,
            ..Self::default()
        }
    }

    /// Whether a directory at this path is to be the guest's own.
    fn takes(&self, path: &str) -> bool {
        let gits = path.split('/').any(|name| name == ".git");
        let fits = || own_name(&self.root.join(path)).is_some();
        !gits && self.wanted.iter().any(|mask| mask.is_at(path)) && fits()
    }

    /// Whether a name could be one, before its path is found out.
    fn may_take(&self, name: &CStr) -> bool {
        let ends = |mask: &Mask| {
            mask.as_str().rsplit('/').next().map(str::as_bytes) == Some(name.to_bytes())
        };
        self.agent.is_some() && self.wanted.iter().any(ends)
    }

    /// The agent is to mount something at this one.
    fn order(&mut self, number: usize) {
        if self.is_unmounted(number) {
            return;
        }
        if !self.untold.contains(&number) {
            self.untold.push_back(number);
        }
        let until = Instant::now() + MOUNT_LIMIT;
        let mounted = false;
        self.new.insert(number, New { mounted, until });
    }

    /// The agent says so.
    fn mounted(&mut self, number: usize) {
        if let Some(new) = self.new.get_mut(&number) {
            new.mounted = true;
            new.until = Instant::now() + MOUNTED_GRACE;
        }
    }

    /// The guest does not know this one, so it has nothing mounted there: the directory above may have gone and come back.
    pub(crate) fn remind(&mut self, number: usize) {
        if self.agent.is_some() {
            self.order(number);
        }
    }

    /// The guest has mounted anew, or has gone.
    pub(crate) fn reset(&mut self) {
        self.agent = None;
        self.leaves = false;
        self.untold.clear();
        self.new.clear();
    }

    /// For a saved machine: the agent, and what it has not done yet.
    pub(crate) fn saved(&self) -> (Option<u32>, Vec<u32>) {
        let open = self.new.iter().filter(|(_, new)| !new.mounted);
        let open = open.filter_map(|(number, _)| u32::try_from(*number).ok());
        (self.agent, open.collect())
    }

    /// The same, in the machine that goes on. It is told once more: an agent that has done it says so.
    pub(crate) fn go_on(&mut self, agent: Option<u32>, open: impl Iterator<Item = usize>) {
        self.reset();
        self.agent = agent;
        open.for_each(|number| self.order(number));
    }

    fn is_unmounted(&self, number: usize) -> bool {
        self.new.get(&number).is_some_and(|new| !new.mounted)
    }

    /// Whether whoever would enter it is sent back: nothing is mounted there, or was when he passed the mount point.
    pub(crate) fn is_entered_anew(&self, number: usize) -> bool {
        let new = self.new.get(&number);
        new.is_some_and(|new| !new.mounted || new.until > Instant::now())
    }
}

/// The directories.
impl Share {
    /// Makes a name a directory of the guest's own, if it is to be one. Asked where the host has none, or a directory.
    pub(crate) fn begin_mask(&self, parent: u64, name: &CStr) -> io::Result<bool> {
        if !self.virtuals().late.may_take(name) {
            return Ok(false);
        }
        let path = self.path_in(parent, name)?;
        let Ok(path) = String::from_utf8(path) else {
            return Ok(false);
        };
        let mut virtuals = self.virtuals();
        if !virtuals.late.takes(&path) {
            return Ok(false);
        }
        let Some(number) = add(&mut virtuals, &path) else {
            return Ok(false);
        };
        virtuals.late.order(number);
        tracing::info!(path, "a masked directory has appeared");
        Ok(true)
    }

    /// The same for `mkdir`, which is otherwise the host's to answer.
    pub(crate) fn begin_made_mask(
        &self,
        parent: u64,
        directory: impl AsFd,
        name: &CStr,
    ) -> io::Result<bool> {
        if !self.virtuals().late.may_take(name) || tree::stat_name(directory, name).is_ok() {
            return Ok(false);
        }
        self.begin_mask(parent, name)
    }

    /// Before a directory is renamed to the name of one that would be the guest's own. `EXDEV`: whoever can copies it
    /// into the one that he makes then. Cargo cannot, and is content with one that is there.
    pub(crate) fn check_renamed_to_mask(
        &self,
        source: (BorrowedFd<'_>, &CStr),
        target: (u64, BorrowedFd<'_>, &CStr),
    ) -> io::Result<()> {
        let (parent, directory, name) = target;
        if !self.virtuals().late.may_take(name) || tree::stat_name(directory, name).is_ok() {
            return Ok(());
        }
        let moved = tree::stat_name(source.0, source.1)?;
        if !is_type(&moved, FileType::Directory) {
            return Ok(());
        }
        let path = String::from_utf8(self.path_in(parent, name)?);
        if !path.is_ok_and(|path| self.virtuals().late.takes(&path)) {
            return Ok(());
        }
        if is_cargos(source.0, source.1)? && self.begin_mask(parent, name)? {
            return Err(Errno::EXIST.into());
        }
        Err(Errno::XDEV.into())
    }

    /// The directory for which a look-up by this thread of the guest's has to wait.
    pub(crate) fn awaited(&self, parent: u64, name: &CStr, thread: u32) -> Option<usize> {
        let virtuals = self.virtuals();
        if virtuals.late.new.is_empty() || virtuals.late.agent == Some(thread) {
            return None;
        }
        let directory = self.path_of(parent).ok()?;
        let number = virtuals.find(&directory, name.to_bytes())?;
        (virtuals.late.is_unmounted(number) && self.knows(number)).then_some(number)
    }

    /// Whether nobody has to wait for it any more.
    pub(crate) fn is_settled(&self, number: usize) -> bool {
        !self.virtuals().late.is_unmounted(number)
    }

    /// How long it takes at most until somebody has waited for long enough.
    pub(crate) fn wait_limit(&self) -> Option<Duration> {
        let virtuals = self.virtuals();
        let first = virtuals.late.new.values().map(|new| new.until).min()?;
        Some(first.saturating_duration_since(Instant::now()))
    }

    /// Nobody waits any more for what should be mounted by now.
    pub(crate) fn give_up(&self) {
        let now = Instant::now();
        let mut virtuals = self.virtuals();
        virtuals.late.new.retain(|number, new| {
            let waits = new.until > now;
            if !waits && !new.mounted {
                tracing::warn!(number, "nothing was mounted at a masked directory in time");
            }
            waits
        });
    }
}

/// What the agent and the share say to each other.
impl Share {
    /// Somebody opens the file, who is to be told what there is.
    pub(crate) fn opened_control(&self) {
        self.virtuals().late.leaves = false;
    }

    /// A handle is closed. If it was the agent's, there is none any more, and what appears from now on is the host's.
    pub(crate) fn closed_control(&self, handle: u64) {
        let mut virtuals = self.virtuals();
        if virtuals.late.agent.is_some() && virtuals.late.reader.1 == handle {
            virtuals.late.agent = None;
        }
    }

    /// The agent reads. What is said before goes to nobody any more.
    pub(crate) fn listen(&self, thread: u32, unique: u64, handle: u64) {
        let mut virtuals = self.virtuals();
        virtuals.late.agent = Some(thread);
        virtuals.late.reader = (unique, handle);
    }

    /// What there is to say to the reader with this number, in at most so many bytes. `None`: he has to wait.
    pub(crate) fn news(&self, unique: u64, room: usize) -> Option<Vec<u8>> {
        let mut virtuals = self.virtuals();
        let mut news = Vec::new();
        if virtuals.late.reader.0 != unique {
            return Some(news);
        }
        if virtuals.late.leaves {
            Word::End.put(&mut news);
            news.truncate(room);
            return Some(news);
        }
        while let Some(number) = virtuals.late.untold.front().copied() {
            let before = news.len();
            if let Some(path) = virtuals.path(number) {
                Word::Mount(path).put(&mut news);
            }
            if news.len() > room {
                news.truncate(before);
                break;
            }
            virtuals.late.untold.pop_front();
        }
        (!news.is_empty()).then_some(news)
    }

    /// What is said by a thread of the guest's: the agent's, or the one that takes the guest down.
    pub(crate) fn told(&self, words: &[u8], thread: u32) {
        for word in Word::all(words) {
            let agent = self.virtuals().late.agent;
            match word {
                Word::Mounted(path) | Word::Failed(path) if agent == Some(thread) => {
                    self.told_of(path, matches!(word, Word::Mounted(_)));
                }
                // The agent says it before it reads for the first time.
                Word::Kept(path) if agent.is_none_or(|agent| agent == thread) => self.keep(path),
                Word::Leave => self.virtuals().late.leaves = true,
                _ => {}
            }
        }
    }

    fn told_of(&self, path: &str, mounted: bool) {
        let mut virtuals = self.virtuals();
        let Some(number) = virtuals.find_path(path) else {
            return;
        };
        if mounted {
            virtuals.late.mounted(number);
        } else {
            tracing::warn!(path, "nothing can be mounted at a masked directory");
            virtuals.late.new.remove(&number);
        }
    }

    /// What is on the disk for a path, unless the directory above has gone.
    fn keep(&self, path: &str) {
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        let names: Result<Vec<CString>, _> = above
            .split('/')
            .filter(|name| !name.is_empty())
            .map(CString::new)
            .collect();
        let Ok(names) = names else { return };
        let names: Vec<&CStr> = names.iter().map(CString::as_c_str).collect();
        let root = self.tree.root();
        let is_there = names.is_empty() || Tree::walk_from(root, &names).is_ok();
        let mut virtuals = self.virtuals();
        if is_there && virtuals.late.takes(path) {
            add(&mut virtuals, path);
        }
    }
}

/// One more, or the one that is there. `None`: there is no room, or something else has that path.
fn add(virtuals: &mut Virtuals, path: &str) -> Option<usize> {
    if let Some(known) = virtuals.find_path(path) {
        return virtuals.is_mask(known).then_some(known);
    }
    if virtuals.masks() >= MAX_MASKS {
        tracing::warn!(
            path,
            "on the host: there are {MAX_MASKS} masked directories"
        );
        return None;
    }
    virtuals.add_mask(path)
}

/// Whether a directory is what cargo renames into place: there is nothing in it but its mark.
fn is_cargos(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::new(directory)?.take(4) {
        if ![&b"."[..], b"..", CACHE_TAG].contains(&entry?.file_name().to_bytes()) {
            return Ok(false);
        }
    }
    Ok(true)
}
