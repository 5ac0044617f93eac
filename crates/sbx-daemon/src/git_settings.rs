//! Where more of git's own files are in a workspace than the list of protected names says: files of settings that
//! others include, directories that they name for hooks, and git directories of other names.
//!
//! Read at each start. Nothing new joins them from inside: settings that are written there name none (`git_config`).

use crate::git_repositories::{self, MAX_LOOKED_AT, MAX_REPOSITORIES, Repository};
use crate::guard::read;
use crate::links::ways;
use sbx_wire::report::Report;
use sbx_workspace::git_places::{self, Names};
use sbx_workspace::{
    Mode, PatternError, PatternSet, Protection, What, git_config, git_link, protect,
};
use std::collections::{BTreeSet, VecDeque};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Most files of settings that are read, and how deep they may include each other (as git has it).
const MAX_FILES: usize = 1024;
const MAX_DEPTH: usize = 10;
/// Most places in one workspace that are protected by what was found.
const MAX_PLACES: usize = 256;
/// Most entries of one directory of hooks or worktrees that are looked at.
const MAX_ENTRIES: usize = 1024;

/// Whose settings count beyond those of the workspace's repositories.
#[derive(Debug)]
pub(crate) struct User {
    /// What `~` stands for.
    pub(crate) home: Option<PathBuf>,
    /// The machine's and the user's own settings.
    pub(crate) settings: Vec<PathBuf>,
}

impl User {
    /// Whoever runs this.
    pub(crate) fn own() -> Self {
        let home = std::env::home_dir();
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.filter(|path| path.is_absolute());
        let config = config.or_else(|| Some(home.as_ref()?.join(".config")));
        let user = home.as_ref().map(|home| home.join(".gitconfig"));
        let mut settings = vec![PathBuf::from("/etc/gitconfig")];
        settings.extend(config.map(|config| config.join("git/config")));
        settings.extend(user);
        Self { home, settings }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) protections: Vec<Protection>,
    /// What could not be looked at, for the user.
    pub(crate) notices: Vec<String>,
}

/// Finds what is to be protected in a workspace, with this mode.
///
/// # Errors
/// Hooks are taken from the workspace's root itself, or there are too many places.
pub(crate) fn find(root: &Path, user: &User, mode: Mode) -> Result<Found, Report> {
    let git_repositories::Found {
        repositories, cut, ..
    } = git_repositories::find(root);
    let worktrees = repositories.iter().filter_map(|one| one.worktree.clone());
    let list = protect::git(mode);
    let mut follow = Follow {
        root,
        user,
        mode,
        worktrees: worktrees.collect(),
        set: PatternSet::new(list.iter().map(|entry| entry.pattern.clone())),
        list,
        known: BTreeSet::new(),
        seen: BTreeSet::new(),
        waiting: VecDeque::new(),
        found: Found::default(),
    };
    for settings in &user.settings {
        follow.settings(settings, 0)?;
    }
    for repository in &repositories {
        follow.repository(repository)?;
    }
    while let Some((path, depth)) = follow.waiting.pop_front() {
        follow.read(&path, depth)?;
    }
    if cut {
        follow.found.notices.push(format!(
            "{} has more than {MAX_LOOKED_AT} names or {MAX_REPOSITORIES} repositories: not every repository in it was \
             looked at for hooks and settings that the host's git takes from other places",
            root.display()
        ));
    }
    Ok(follow.found)
}

struct Follow<'a> {
    root: &'a Path,
    user: &'a User,
    mode: Mode,
    /// Of every repository: whose settings name a relative place is not asked.
    worktrees: Vec<PathBuf>,
    /// What is protected anyway.
    list: Vec<Protection>,
    set: PatternSet,
    /// Patterns that were found.
    known: BTreeSet<String>,
    /// Files of settings and directories of hooks.
    seen: BTreeSet<PathBuf>,
    waiting: VecDeque<(PathBuf, usize)>,
    found: Found,
}

impl Follow<'_> {
    fn repository(&mut self, repository: &Repository) -> Result<(), Report> {
        let Some(own) = self.git_directory(&repository.entry)? else {
            return Ok(());
        };
        let mut all = vec![own.clone()];
        if let Ok(Some(text)) = read(&own.join("commondir"), git_link::MAX_BYTES)
            && let Ok(text) = std::str::from_utf8(&text)
        {
            all.extend(self.git_directory(&own.join(text.trim_end_matches(['\n', '\r'])))?);
        }
        for directory in all {
            self.hooks(&directory.join("hooks"))?;
            let worktrees = self.entries(&directory.join("worktrees"));
            for place in worktrees.into_iter().chain([directory]) {
                for name in ["config", "config.worktree"] {
                    self.settings(&place.join(name), 0)?;
                }
            }
        }
        Ok(())
    }

    /// The directory that a name, or what a file of that name says, leads to. It is protected.
    fn git_directory(&mut self, entry: &Path) -> Result<Option<PathBuf>, Report> {
        let mut ways = ways(entry);
        if ways.real.is_file() {
            let Ok(Some(text)) = read(&ways.real, git_link::MAX_BYTES) else {
                return Ok(None);
            };
            let text = std::str::from_utf8(&text).ok();
            let Some(path) = text.and_then(|text| text.strip_prefix("gitdir: ")) else {
                return Ok(None);
            };
            let above = ways.real.parent().unwrap_or(&ways.real);
            ways = crate::links::ways(&above.join(path.trim_end_matches(['\n', '\r'])));
        }
        for way in ways.names {
            let Some(names) = self.below(&way) else {
                continue;
            };
            let covered = |name: &'static str| self.covers(&[&names, &[name][..]].concat());
            if covered("config") && covered("commondir") {
                continue;
            }
            self.add(&way, git_places::git_directory(&names, self.mode))?;
        }
        Ok(Some(ways.real))
    }

    /// A file of settings, whether it is there or not.
    fn settings(&mut self, path: &Path, depth: usize) -> Result<(), Report> {
        if !self.seen.insert(path.to_owned()) {
            return Ok(());
        }
        if depth > MAX_DEPTH || self.seen.len() > MAX_FILES {
            self.skip(
                path,
                "there are too many, or they include each other too deep",
            );
            return Ok(());
        }
        for way in ways(path).names {
            if let Some(names) = self.below(&way)
                && !self.covers(&names)
            {
                let made = git_places::settings(&names, self.mode);
                self.add(&way, made.map(|one| vec![one]))?;
            }
        }
        self.waiting.push_back((path.to_owned(), depth));
        Ok(())
    }

    /// Follows what a file of settings names.
    fn read(&mut self, path: &Path, depth: usize) -> Result<(), Report> {
        let content = match content(path) {
            Ok(Some(content)) => content,
            Ok(None) => {
                self.skip(path, "it is no plain file of at most 1 MiB");
                return Ok(());
            }
            Err(error) if absent(&error) => return Ok(()),
            Err(error) => {
                self.skip(path, &error.to_string());
                return Ok(());
            }
        };
        let entries = match git_config::parse(&content) {
            Ok(entries) => entries,
            Err(error) => {
                self.skip(path, &error.to_string());
                return Ok(());
            }
        };
        for (names, value) in git_places::named(&entries) {
            let Some(value) = git_places::expand(value, self.user.home.as_deref()) else {
                let shown = String::from_utf8_lossy(value).escape_debug().to_string();
                self.skip(path, &format!("nobody can tell where {shown} is"));
                continue;
            };
            match names {
                Names::Settings => {
                    for above in directories(path) {
                        self.settings(&above.join(&value), depth + 1)?;
                    }
                }
                Names::Hooks => self.named_hooks(path, &value)?,
            }
        }
        Ok(())
    }

    fn named_hooks(&mut self, settings: &Path, value: &Path) -> Result<(), Report> {
        if value.is_absolute() {
            return self.hooks(value);
        }
        let mut names = Vec::new();
        for part in value.components() {
            match part {
                std::path::Component::Normal(name) => names.extend(name.to_str()),
                std::path::Component::ParentDir => drop(names.pop()),
                _ => {}
            }
        }
        self.add(
            settings,
            git_places::hooks_anywhere(&names, self.mode).map(|one| vec![one]),
        )?;
        for worktree in self.worktrees.clone() {
            self.hooks(&worktree.join(value))?;
        }
        Ok(())
    }

    /// A directory of hooks, whether it is there or not; and what the links in it lead to.
    fn hooks(&mut self, directory: &Path) -> Result<(), Report> {
        if !self.seen.insert(directory.to_owned()) {
            return Ok(());
        }
        for way in ways(directory).names {
            if let Some(names) = self.below(&way)
                && !self.covers(&[&names[..], &["any"]].concat())
                && !self.covers_directory(&names)
            {
                let made = git_places::hooks(&names, self.mode);
                self.add(&way, made.map(|one| vec![one]))?;
            }
        }
        for entry in self.entries(directory) {
            if !entry.is_symlink() {
                continue;
            }
            // The first is the entry, in the directory.
            for way in ways(&entry).names.into_iter().skip(1) {
                if let Some(names) = self.below(&way) {
                    let made = git_places::program(&names, self.mode);
                    self.add(&way, made.map(|one| vec![one]))?;
                }
            }
        }
        Ok(())
    }

    /// The names of a path below the root. `None`: it is elsewhere, or no text, which no workspace's path is.
    fn below<'p>(&self, path: &'p Path) -> Option<Vec<&'p str>> {
        let names = path.strip_prefix(self.root).ok()?.iter();
        names.map(|name| name.to_str()).collect()
    }

    /// Whether the list protects a file.
    fn covers(&self, names: &[&str]) -> bool {
        let names = names.iter().map(|name| name.as_bytes());
        self.set.walk(names, false).matched().is_some()
    }

    /// Whether what was found protects a directory with all that is in it.
    fn covers_directory(&self, names: &[&str]) -> bool {
        let bytes = names.iter().map(|name| name.as_bytes());
        let matched = self.set.walk(bytes, true).matched();
        matched
            .and_then(|number| self.list.get(usize::from(number)))
            .is_some_and(|one| one.what == What::Everything)
    }

    fn add(
        &mut self,
        place: &Path,
        made: Result<Vec<Protection>, PatternError>,
    ) -> Result<(), Report> {
        let made = made.map_err(|error| {
            Report::user(
                "git-hooks-everywhere",
                format!(
                    "{} cannot be protected, from which git on the host takes settings or hooks: {error}",
                    place.display()
                ),
                "git config --show-origin --get-all core.hooksPath, and choose a directory; or: --protect off",
            )
        })?;
        for one in made {
            if !self.known.insert(one.pattern.to_string()) {
                continue;
            }
            if self.found.protections.len() == MAX_PLACES {
                return Err(Report::user(
                    "git-places-too-many",
                    format!(
                        "git on the host takes settings or hooks from more than {MAX_PLACES} places in {}",
                        self.root.display()
                    ),
                    "share a directory with fewer repositories",
                ));
            }
            self.found.protections.push(one.clone());
            self.list.push(one);
            self.set = PatternSet::new(self.list.iter().map(|entry| entry.pattern.clone()));
        }
        Ok(())
    }

    /// What is in a directory; nothing if it is none.
    fn entries(&mut self, directory: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        let paths = entries.flatten().map(|entry| entry.path());
        let mut paths: Vec<PathBuf> = paths.take(MAX_ENTRIES + 1).collect();
        if paths.len() > MAX_ENTRIES {
            self.skip(directory, "there are too many files in it");
            paths.truncate(MAX_ENTRIES);
        }
        paths
    }

    fn skip(&mut self, path: &Path, why: &str) {
        self.found.notices.push(format!(
            "git's settings in {} were not followed to hooks and further settings: {why}",
            path.display()
        ));
    }
}

/// Where what a file of settings includes is looked for: beside the file, by its name and where it really is.
fn directories(settings: &Path) -> impl Iterator<Item = PathBuf> {
    let found = ways(settings);
    let written = found.linked.then(|| settings.to_owned());
    let files = written.into_iter().chain([found.real]);
    files.filter_map(|file| Some(file.parent()?.to_owned()))
}

/// As git reads it: links are followed. `None`: it is no plain file, or too large.
fn content(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // Of a pipe the opening would wait.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    crate::guard::whole(file, git_config::MAX_BYTES)
}

fn absent(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

#[cfg(test)]
mod tests;
