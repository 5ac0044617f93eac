//! Where more of git's own files are in a workspace than the list of protected names says: files of settings that
//! others include, directories that they name for hooks, and git directories of other names.
//!
//! Read at each start. Nothing new joins them from inside: settings that are written there name none (`git_config`).

mod bounds;
mod protecting;
mod reading;

use crate::git_repositories::Search;
use crate::links;
use crate::unreadable::{Unreadable, absent};
use bounds::{Bound, Notices, Spent};
use protecting::{Cover, Kind};
use sbx_wire::report::Report;
use sbx_workspace::git_places;
use sbx_workspace::{Mode, Protection, Stay, git_config, protect};
use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

/// How deep files of settings may include each other (as git has it).
const MAX_DEPTH: usize = 10;
/// As many directories that look like one of git's are protected one by one; of more, those that are called as git
/// calls them are protected by their names.
const MAX_ALONE: usize = 8;

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
    /// Directories relative to which something was found.
    pub(crate) stay: Vec<Stay>,
    /// What could not be looked at, for the user.
    pub(crate) notices: Vec<String>,
}

/// Finds what is to be protected in a workspace, with this mode.
///
/// # Errors
/// Hooks are taken from the workspace's root itself, there are too many places, or something of the user's cannot be
/// read.
pub(crate) fn find(root: &Path, user: &User, mode: Mode) -> Result<Found, Report> {
    let list = protect::git(mode);
    let mut follow = Follow {
        root,
        user,
        mode,
        worktrees: Vec::new(),
        relative: BTreeSet::new(),
        anywhere: Cover::new(list.clone()),
        all: Cover::new(list),
        seen: Seen::default(),
        waiting: VecDeque::new(),
        found: Vec::new(),
        stays: Vec::new(),
        notices: Notices::default(),
        unreadable: Unreadable::default(),
        spent: Spent::default(),
    };
    let mut search = Search::new(root);
    follow.first(&search)?;
    follow.spent.begin_nested();
    follow.nested(&mut search)?;
    follow.done(search)
}

struct Follow<'a> {
    root: &'a Path,
    user: &'a User,
    mode: Mode,
    /// Of every repository so far: whose settings name a relative place is not asked.
    worktrees: Vec<PathBuf>,
    /// Those relative places.
    relative: BTreeSet<PathBuf>,
    /// What is protected wherever its repository is, and everything that is.
    anywhere: Cover,
    all: Cover,
    seen: Seen,
    waiting: VecDeque<(PathBuf, usize)>,
    found: Vec<(Kind, Protection)>,
    stays: Vec<Stay>,
    notices: Notices,
    unreadable: Unreadable,
    spent: Spent,
}

/// What was followed: what is named as one thing may be named as another too.
#[derive(Default)]
struct Seen {
    /// Files of settings, with what they are relative to; and those of them that are read.
    settings: BTreeSet<(PathBuf, Option<PathBuf>)>,
    read: BTreeSet<PathBuf>,
    hooks: BTreeSet<(PathBuf, Option<PathBuf>)>,
    /// Git directories.
    /// In the order in which they were found, and to be looked up.
    git: Vec<PathBuf>,
    known: BTreeSet<PathBuf>,
}

impl Follow<'_> {
    /// The user's settings, and those of the repositories that the root is in or is: the host's alone.
    fn first(&mut self, search: &Search<'_>) -> Result<(), Report> {
        for settings in &self.user.settings {
            self.settings(settings, 0, None)?;
        }
        let found = &search.found;
        let near = |path: &&PathBuf| self.root.starts_with(path);
        self.worktrees = found.worktrees.iter().filter(near).cloned().collect();
        let bare: Vec<PathBuf> = found.bare.iter().filter(near).cloned().collect();
        for worktree in self.worktrees.clone() {
            self.repository(&worktree.join(".git"), Some(&worktree))?;
        }
        for directory in bare {
            // In a repository anybody may have made it look like one.
            if directory != self.root || !self.worktrees.contains(&directory) {
                self.repository(&directory, None)?;
            }
        }
        self.follow()
    }

    /// Those below it.
    fn nested(&mut self, search: &mut Search<'_>) -> Result<(), Report> {
        let root = self.root;
        let below = |path: &PathBuf| !root.starts_with(path);
        let worktrees = std::mem::take(&mut search.found.worktrees);
        let worktrees: Vec<PathBuf> = worktrees.into_iter().filter(below).collect();
        for value in self.relative.clone() {
            for worktree in &worktrees {
                self.hooks(&links::join(worktree, &value), Some(worktree))?;
            }
        }
        self.worktrees.extend(worktrees.iter().cloned());
        for worktree in &worktrees {
            self.repository(&worktree.join(".git"), Some(worktree))?;
        }
        let mut walked: Vec<PathBuf> = Vec::new();
        let mut next = 0;
        while let Some(git) = self.seen.git.get(next).cloned() {
            next += 1;
            if walked.iter().any(|above| git.starts_with(above)) {
                continue;
            }
            for module in search.modules(&git) {
                self.repository(&module, None)?;
            }
            walked.push(git.join("modules"));
        }
        self.follow()?;
        let bare = std::mem::take(&mut search.found.bare);
        self.bare(search, &bare)
    }

    /// Directories that are git's by their looks alone: anybody can make them, and what their settings say.
    fn bare(&mut self, search: &Search<'_>, all: &[PathBuf]) -> Result<(), Report> {
        let known = |path: &&PathBuf| !self.seen.known.contains(*path);
        let all: Vec<&PathBuf> = all.iter().filter(known).collect();
        let mut silent = Vec::new();
        for directory in &all {
            let name = directory.file_name().and_then(|name| name.to_str());
            let name = name.filter(|_| all.len() > MAX_ALONE && **directory != *self.root);
            match name.and_then(|name| git_places::git_directories(name, self.mode)) {
                Some(made) => self.everywhere((directory, Kind::Git), made)?,
                None => self.place(directory, Kind::Git, None)?,
            }
            if !self.spend(Bound::Bytes, 1)? {
                continue;
            }
            let content = search.read(&directory.join("config"), git_config::MAX_BYTES);
            let content = content.unwrap_or_default();
            if self.spend(Bound::Bytes, content.len())?
                && let Ok(entries) = git_config::parse(&content)
                && git_places::named(&entries).next().is_some()
            {
                silent.push(directory.display());
            }
        }
        if let Some(first) = silent.first() {
            self.notices.add(format!(
                "{first} looks like a directory of git's, and its settings name hooks or further settings: they were not \
                 followed, nor those of {} others like it",
                silent.len() - 1
            ));
        }
        Ok(())
    }

    /// What the user is told at the end.
    fn done(mut self, search: Search<'_>) -> Result<Found, Report> {
        for cut in &search.found.cut {
            self.notices.add(format!(
                "not every repository in {} was looked at for hooks and settings that the host's git takes from other \
                 places: {cut}",
                self.root.display()
            ));
        }
        // The root itself is judged with its rules.
        if let Some(below) = search.found.folding.filter(|below| below != self.root) {
            self.notices.add(format!(
                "{} is on a file system that takes other spellings of a name for the same (.GIT for .git): in it, and \
                 perhaps in others, protected and hidden names are not guarded",
                below.display()
            ));
        }
        self.unreadable.add(search.found.unreadable);
        let mut notices = Vec::new();
        self.unreadable.said(&mut notices)?;
        notices.extend(self.notices.all());
        self.found.sort_by_key(|(kind, _)| *kind);
        Ok(Found {
            protections: self.found.into_iter().map(|(_, one)| one).collect(),
            stay: self.stays,
            notices,
        })
    }

    /// A `.git`, or a directory that is one of git's.
    fn repository(&mut self, entry: &Path, worktree: Option<&Path>) -> Result<(), Report> {
        let Some(own) = self.git_directory(entry, worktree)? else {
            return Ok(());
        };
        let mut all = vec![own.clone()];
        let common = self.text(&own.join("commondir"));
        if let Some(text) = common {
            let base = (!text.starts_with('/')).then_some(own.as_path());
            all.extend(self.git_directory(&links::join(&own, Path::new(&text)), base)?);
        }
        for directory in all {
            if !self.seen.known.insert(directory.clone()) {
                continue;
            }
            self.seen.git.push(directory.clone());
            self.hooks(&directory.join("hooks"), Some(&directory))?;
            let names = ["config", "config.worktree"];
            for (worktree, _) in self.entries(&directory.join("worktrees"))? {
                // A guest makes worktrees too. What is not there yet in one of them is protected as all of them are.
                for place in names.map(|name| worktree.join(name)) {
                    let looked = place.symlink_metadata();
                    if !looked.is_err_and(|error| absent(&error)) {
                        self.settings(&place, 0, Some(&worktree))?;
                    }
                }
            }
            for name in names {
                self.settings(&directory.join(name), 0, Some(&directory))?;
            }
        }
        Ok(())
    }

    /// The directory that a name, or what a file of that name says, leads to. It is protected.
    fn git_directory(
        &mut self,
        entry: &Path,
        base: Option<&Path>,
    ) -> Result<Option<PathBuf>, Report> {
        let (mut ways, mut base) = (self.ways(entry), base);
        if ways.real.is_file() {
            let text = self.text(&ways.real);
            let Some(path) = text
                .as_deref()
                .and_then(|text| text.strip_prefix("gitdir: "))
            else {
                return Ok(None);
            };
            base = base.filter(|_| !path.starts_with('/'));
            let above = ways.real.parent().unwrap_or(&ways.real);
            ways = self.ways(&links::join(above, Path::new(path)));
        }
        for way in ways.names {
            self.place(&way, Kind::Git, base)?;
        }
        Ok(Some(ways.real))
    }

    /// A file of settings, whether it is there or not. `base`: what its path is relative to.
    fn settings(&mut self, path: &Path, depth: usize, base: Option<&Path>) -> Result<(), Report> {
        if depth > MAX_DEPTH {
            self.skip(path, "files include each other too deep");
            return Ok(());
        }
        let known = (path.to_owned(), base.map(Path::to_owned));
        if self.seen.settings.contains(&known) || !self.spend(Bound::Files, 1)? {
            return Ok(());
        }
        self.seen.settings.insert(known);
        for way in self.ways(path).names {
            self.place(&way, Kind::Settings, base)?;
        }
        if self.seen.read.insert(path.to_owned()) {
            self.waiting.push_back((path.to_owned(), depth));
        }
        Ok(())
    }

    fn named_hooks(&mut self, settings: &Path, value: &Path) -> Result<(), Report> {
        if value.is_absolute() {
            return self.hooks(value, None);
        }
        let mut names = Vec::new();
        for part in value.components() {
            match part {
                std::path::Component::Normal(name) => names.extend(name.to_str()),
                std::path::Component::ParentDir => drop(names.pop()),
                _ => {}
            }
        }
        let made = git_places::hooks_anywhere(&names, self.mode);
        self.everywhere((settings, Kind::Hooks), made.map(|one| vec![one]))?;
        self.relative.insert(value.to_owned());
        for worktree in self.worktrees.clone() {
            self.hooks(&links::join(&worktree, value), Some(&worktree))?;
        }
        Ok(())
    }

    /// A directory of hooks, whether it is there or not; and what the links in it lead to.
    fn hooks(&mut self, directory: &Path, base: Option<&Path>) -> Result<(), Report> {
        let known = (directory.to_owned(), base.map(Path::to_owned));
        if self.seen.hooks.contains(&known) || !self.spend(Bound::Hooks, 1)? {
            return Ok(());
        }
        self.seen.hooks.insert(known);
        for way in self.ways(directory).names {
            self.place(&way, Kind::Hooks, base)?;
        }
        for (entry, link) in self.entries(directory)? {
            if !link {
                continue;
            }
            // The first is the entry, in the directory.
            for way in self.ways(&entry).names.into_iter().skip(1) {
                self.place(&way, Kind::Program, Some(directory))?;
            }
        }
        Ok(())
    }

    fn spend(&mut self, bound: Bound, amount: usize) -> Result<bool, Report> {
        let notices = &mut self.notices;
        self.spent.spend((bound, amount), self.root, notices)
    }
}

#[cfg(test)]
mod tests;
