//! What the guest may see and change of the tree, beyond what the host user may.
//!
//! | file | question |
//! |---|---|
//! | `mod` | what do the rules say of a name? |
//! | `events` | what was tried |
//! | `marks` | what do the rules say of a node, which has had names? |
//! | `names` | may this name be made, given away or removed? |
//! | `renames` | may this directory, with all that is in it, get that name? |
//! | `content` | may this file be written? |
//! | `install` | git's own way of writing what is protected, and how it is let through |
//! | `copy` | the copy of it that takes the place |
//! | `locks` | who made this lock of git's settings? |
//!
//! Rules are about names, and files have several, at different times and at once. So protection follows the file: a
//! node that had a protected name stays protected; a file with a name that nobody has shown to be harmless is not
//! written; and a directory gets no name that would take files in it out of a rule or bring them under one.

mod content;
mod copy;
pub(crate) mod events;
mod install;
mod locks;
mod marks;
mod moves;
mod names;
mod renames;

use events::Events;
use locks::Locks;
use rustix::io::Errno;
use sbx_workspace::event::Action;
use sbx_workspace::pattern::exactly;
use sbx_workspace::{Mode, Pattern, PatternSet, Protection, Rules, State, Stay, Step, What};
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub(crate) use content::Writing;
pub(crate) use marks::Mark;
pub(crate) use names::Made;
pub(crate) use renames::Named;

/// The rules of one share, compiled.
#[derive(Debug)]
pub(crate) struct Guard {
    hide: PatternSet,
    protect: PatternSet,
    protections: Vec<Protection>,
    stay: Vec<Stay>,
    root: Rc<Below>,
    /// The shared directory, as the host calls it.
    path: PathBuf,
    /// Rises when a directory gets a name by which the rules see what is in it differently.
    epoch: Cell<u64>,
    events: Events,
    locks: Locks,
    blocks: bool,
    /// Whatever has a file's name is the file.
    follows: bool,
}

/// What the rules remember of the way to a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Below {
    hide: State,
    protect: State,
    /// Everything in it is protected, by this rule.
    inherited: Option<u16>,
    /// It is a git directory, or in one.
    in_git: bool,
}

impl Below {
    /// Whether a name in it, or deeper, may be protected or hidden that would not be elsewhere.
    fn is_live(&self) -> bool {
        self.hide.is_live() || self.protect.is_live() || self.inherited.is_some()
    }

    /// Why no symbolic link may be here, to be taken for this directory or for a file in the place of it. Git on the host
    /// follows those in its own directories when it writes: logs, its index, the message of a commit.
    fn against_links(&self) -> Option<&'static str> {
        if self.protect.is_live() || self.inherited.is_some() {
            Some("a link in place of a directory with protected files")
        } else if self.in_git {
            Some("a link in a git directory, through which git on the host would write")
        } else {
            None
        }
    }
}

/// What the rules say of one name.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) hidden: Option<u16>,
    pub(crate) protected: Option<u16>,
    /// It is the lock of a file that this rule protects, and that git replaces by its lock.
    pub(crate) lock: Option<u16>,
    pub(crate) below: Below,
}

impl Guard {
    /// For the share of this directory; says what was tried in this file.
    pub(crate) fn new(path: &Path, rules: Rules, events: Option<File>) -> Self {
        let only = rules.only.as_deref().map(|name| [name]);
        let alone = only.map(|name| ["/*".to_owned(), format!("!{}", exactly(name))]);
        let alone = alone
            .iter()
            .flatten()
            .filter_map(|text| Pattern::parse(text).ok());
        let copy = (!rules.protect.is_empty()).then(|| Pattern::parse(copy::HIDDEN));
        let copy = copy.and_then(Result::ok);
        let hide = PatternSet::new(rules.hide.into_iter().chain(alone).chain(copy));
        let protect = PatternSet::new(rules.protect.iter().map(|entry| entry.pattern.clone()));
        let root = Below {
            hide: hide.root(),
            protect: protect.root(),
            inherited: None,
            in_git: false,
        };
        let blocks = rules.protect.iter().any(|entry| entry.mode == Mode::Block);
        Self {
            hide,
            protect,
            protections: rules.protect,
            stay: rules.stay,
            root: Rc::new(root),
            path: path.to_owned(),
            epoch: Cell::new(1),
            events: Events::new(events),
            locks: Locks::default(),
            blocks,
            follows: rules.only.is_some(),
        }
    }

    /// Whether there is no rule at all.
    pub(crate) fn is_idle(&self) -> bool {
        self.hide.is_empty() && self.protect.is_empty() && self.stay.is_empty()
    }

    /// Whether a node in the root is whatever has its name, rather than the file that it was.
    pub(crate) fn follows_names(&self) -> bool {
        self.follows
    }

    fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// What was found out about names may not hold any more.
    pub(crate) fn forget_marks(&self) {
        // It never comes round to the one of what was not judged.
        self.epoch.set(self.epoch.get().saturating_add(1));
    }

    /// One name in a directory.
    pub(crate) fn judge(&self, below: &Below, name: &[u8], directory: bool) -> Judgement {
        let hide = self.hide.step(&below.hide, name, directory);
        let protect = self.protect.step(&below.protect, name, directory);
        let decided = decided(below, &protect);
        // What git writes in ways of its own are files.
        let protected =
            decided.filter(|number| !directory || self.what(*number) == What::Everything);
        let in_git = below.in_git || directory && self.is_git_directory(&protect.below);
        Judgement {
            hidden: hide.matched(),
            protected,
            lock: self.lock(below, name),
            below: Below {
                hide: hide.below,
                protect: protect.below,
                inherited: protected.filter(|_| directory),
                in_git,
            },
        }
    }

    /// The rule of the file that git replaces by one of this name.
    fn lock(&self, below: &Below, name: &[u8]) -> Option<u16> {
        let file = name.strip_suffix(b".lock")?;
        let step = self.protect.step(&below.protect, file, false);
        decided(below, &step).filter(|number| match self.what(*number) {
            What::GitConfig | What::GitModules => true,
            What::Everything => below.in_git,
            What::GitLink => false,
        })
    }

    /// Whether the rules take a directory for one of git's, whatever it is called: `commondir` in it would say where
    /// another is. Only git's own list has such rules.
    fn is_git_directory(&self, state: &State) -> bool {
        let link = || self.protect.step(state, b"commondir", false).matched();
        state.is_live() && link().is_some_and(|number| self.what(number) == What::GitLink)
    }

    /// Whether a name in a directory reads as absent.
    pub(crate) fn hides(&self, below: &Below, name: &[u8], directory: bool) -> bool {
        let step = self.hide.step(&below.hide, name, directory);
        step.matched().is_some()
    }

    /// Whether anything is hidden at all.
    pub(crate) fn hides_anything(&self) -> bool {
        !self.hide.is_empty()
    }

    /// The rule by which a path from the root keeps its name: it, or what it holds, stays where it is.
    fn stays(&self, path: &[u8]) -> Option<&Stay> {
        let held = |stay: &&Stay| {
            let rest = stay.path.as_bytes().strip_prefix(path);
            rest.is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
        };
        self.stay.iter().find(held)
    }

    fn what(&self, number: u16) -> What {
        let entry = self.protections.get(usize::from(number));
        entry.map_or(What::Everything, |entry| entry.what)
    }

    /// What becomes of what no single rule forbids.
    fn usual_mode(&self) -> Mode {
        if self.blocks {
            Mode::Block
        } else {
            Mode::Report
        }
    }

    fn mode(&self, number: u16) -> Mode {
        let entry = self.protections.get(usize::from(number));
        entry.map_or(Mode::Block, |entry| entry.mode)
    }

    /// Something that a rule forbids or reports was tried. `EACCES` if it is forbidden.
    fn violation(&self, number: u16, action: Action, path: &[u8]) -> io::Result<()> {
        let pattern = self.protect.pattern(number);
        let why = pattern.map_or_else(String::new, |pattern| format!("protected: {pattern}"));
        self.refuse(self.mode(number), action, path, why)
    }

    /// Says it; `EACCES` unless it is only reported.
    fn refuse(&self, mode: Mode, action: Action, path: &[u8], why: String) -> io::Result<()> {
        self.events.say(action, mode, path, why);
        match mode {
            Mode::Report => Ok(()),
            Mode::Block => Err(Errno::ACCESS.into()),
        }
    }

    /// The guest wants to use a hidden name for something of its own.
    fn refuse_hidden(&self, number: u16, action: Action, path: &[u8]) -> io::Error {
        let pattern = self.hide.pattern(number);
        let why = pattern.map_or_else(String::new, |pattern| format!("hidden: {pattern}"));
        self.events.say(action, Mode::Block, path, why);
        Errno::ACCESS.into()
    }
}

/// The rule that protects a name in a directory, by what the patterns say of it.
fn decided(below: &Below, step: &Step) -> Option<u16> {
    match step.decides {
        Some((number, true)) => Some(number),
        Some((_, false)) => None,
        None => below.inherited,
    }
}
