//! Places that were found, and how they come under protection.

use super::Follow;
use super::bounds::Bound;
use sbx_wire::report::Report;
use sbx_workspace::git_places;
use sbx_workspace::{PatternError, PatternSet, Protection, Stay, What};
use std::path::Path;

/// What is at a place. Rules are in this order, of which the last decides: a directory of hooks that is named as a file of
/// settings too stays one of hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Git,
    Settings,
    Program,
    Hooks,
}

/// Protections, and what they cover.
#[derive(Debug)]
pub(super) struct Cover {
    list: Vec<Protection>,
    set: PatternSet,
}

impl Cover {
    pub(super) fn new(list: Vec<Protection>) -> Self {
        let mut cover = Self {
            list,
            set: PatternSet::default(),
        };
        cover.add(Vec::new());
        cover
    }

    fn add(&mut self, more: Vec<Protection>) {
        self.list.extend(more);
        self.set = PatternSet::new(self.list.iter().map(|entry| entry.pattern.clone()));
    }

    fn what(&self, names: &[&str], directory: bool) -> Option<What> {
        let names = names.iter().map(|name| name.as_bytes());
        let number = self.set.walk(names, directory).matched()?;
        self.list.get(usize::from(number)).map(|one| one.what)
    }

    /// Whether such a thing needs no more protection there.
    fn covers(&self, names: &[&str], kind: Kind) -> bool {
        let everything = |directory| self.what(names, directory) == Some(What::Everything);
        match kind {
            Kind::Git => {
                let covers = |name| self.what(&[names, &[name]].concat(), false).is_some();
                covers("config") && covers("commondir")
            }
            Kind::Settings => self.what(names, false).is_some(),
            Kind::Program => everything(false),
            Kind::Hooks => {
                self.what(&[names, &["any"]].concat(), false).is_some() || everything(true)
            }
        }
    }
}

impl Follow<'_> {
    /// Protects one of the names by which something is found. `base`: where it is relative to, if it is.
    pub(super) fn place(
        &mut self,
        way: &Path,
        kind: Kind,
        base: Option<&Path>,
    ) -> Result<(), Report> {
        let Some(names) = self.below(way) else {
            return Ok(());
        };
        if self.anywhere.covers(&names, kind) {
            return Ok(());
        }
        if let Some(base) = base {
            self.stay(base)?;
        }
        if self.all.covers(&names, kind) {
            return Ok(());
        }
        let one = |made: Result<Protection, _>| made.map(|one| vec![one]);
        let made = match kind {
            Kind::Git => git_places::git_directory(&names, self.mode),
            Kind::Settings => one(git_places::settings(&names, self.mode)),
            Kind::Program => one(git_places::program(&names, self.mode)),
            Kind::Hooks => one(git_places::hooks(&names, self.mode)),
        };
        self.add((way, kind), made)?;
        Ok(())
    }

    /// Protects names anywhere, of which a file of settings or a directory is the reason.
    pub(super) fn everywhere(
        &mut self,
        reason: (&Path, Kind),
        made: Result<Vec<Protection>, PatternError>,
    ) -> Result<(), Report> {
        let added = self.add(reason, made)?;
        self.anywhere.add(added);
        Ok(())
    }

    /// A directory of the workspace stays where it is, because something is found relative to it.
    fn stay(&mut self, base: &Path) -> Result<(), Report> {
        let real = self.ways(base).real;
        let Some(names) = self.below(&real) else {
            return Ok(());
        };
        let path = names.join("/");
        if path.is_empty() || self.stays.iter().any(|stay| stay.path == path) {
            return Ok(());
        }
        if self.spend(Bound::Stays, 1)? && self.spend(Bound::Text, path.len())? {
            let mode = self.mode;
            self.stays.push(Stay { path, mode });
        }
        Ok(())
    }

    /// The names of a path below the root. `None`: it is elsewhere, or cannot be protected.
    fn below<'p>(&mut self, path: &'p Path) -> Option<Vec<&'p str>> {
        let names = path.strip_prefix(self.root).ok()?.iter();
        let names: Option<Vec<&str>> = names.map(|name| name.to_str()).collect();
        if names.is_none() {
            self.skip(path, "its name is no text");
        }
        names
    }

    /// Returns what was not there before.
    fn add(
        &mut self,
        (place, kind): (&Path, Kind),
        made: Result<Vec<Protection>, PatternError>,
    ) -> Result<Vec<Protection>, Report> {
        let made = match made {
            Ok(made) => made,
            // The guest may have chosen the name.
            Err(error) if self.spent.nested && error != PatternError::Everything => {
                self.skip(place, &error.to_string());
                return Ok(Vec::new());
            }
            Err(error) => {
                let shown = place.display();
                return Err(Report::user(
                    "git-hooks-everywhere",
                    format!(
                        "{shown} cannot be protected, from which git on the host takes settings or hooks: {error}"
                    ),
                    "git config --show-origin --get-all core.hooksPath, there, and choose a directory; or: --protect off",
                ));
            }
        };
        let known = |one: &Protection| self.all.list.iter().any(|known| known == one);
        let made: Vec<Protection> = made.into_iter().filter(|one| !known(one)).collect();
        if made.is_empty() {
            return Ok(made);
        }
        // A directory of git's is one of the first, and many of the others: those may be the guest's.
        let count = if self.spent.nested { made.len() } else { 1 };
        let text = made.iter().map(|one| one.pattern.as_str().len()).sum();
        if !self.spend(Bound::Places, count)? || !self.spend(Bound::Text, text)? {
            return Ok(Vec::new());
        }
        self.found
            .extend(made.iter().map(|one| (kind, one.clone())));
        self.all.add(made.clone());
        Ok(made)
    }
}
