//! How much is looked at. What the host alone has written is followed to its end or refused; what may be the guest's has
//! bounds of its own, so that it hides nothing of the host's.

use crate::unreadable::shell_word;
use sbx_wire::report::Report;
use std::collections::BTreeSet;
use std::path::Path;

/// Most things that the user is told one by one.
pub(super) const MAX_NOTICES: usize = 20;

/// What has a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bound {
    /// Files of settings.
    Files,
    /// Their bytes.
    Bytes,
    /// Values in them that name hooks or further settings.
    Values,
    /// Directories of hooks.
    Hooks,
    /// Places that are protected.
    Places,
    /// Bytes of the patterns for them.
    Text,
    /// Directories that stay where they are.
    Stays,
    /// Entries of one directory of hooks or worktrees.
    Entries,
}

impl Bound {
    /// For the user's and the root's own settings, and for those of repositories below the root.
    const fn limits(self) -> (usize, usize) {
        match self {
            Self::Files => (4096, 1024),
            Self::Bytes => (64 << 20, 16 << 20),
            Self::Values | Self::Hooks => (1024, 4096),
            Self::Places => (MAX_PLACES, MAX_NESTED_PLACES),
            // The first is bounded with all other patterns of a share.
            Self::Text => (usize::MAX, 24 << 10),
            Self::Stays => (128, 128),
            Self::Entries => (MAX_ENTRIES, MAX_ENTRIES),
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Files => "files of settings",
            Self::Bytes => "bytes of settings",
            Self::Values => "settings that name hooks or further settings",
            Self::Hooks => "directories of hooks",
            Self::Places => "places",
            Self::Text => "bytes of names",
            Self::Stays => "repositories with places that are relative to them",
            Self::Entries => "files in one directory of git's",
        }
    }
}

/// Most entries of one directory of hooks or worktrees that are looked at.
pub(super) const MAX_ENTRIES: usize = 4096;
/// Most places in one workspace that are protected by what the user's and the root's own settings say.
pub(super) const MAX_PLACES: usize = 256;
/// Most by what is found in repositories below the root: patterns, of which a git directory of another name takes 23.
pub(super) const MAX_NESTED_PLACES: usize = 320;

/// What is left of each.
#[derive(Debug, Default)]
pub(super) struct Spent {
    /// It is repositories below the root that are looked at.
    pub(super) nested: bool,
    amounts: [usize; 8],
    said: BTreeSet<Bound>,
}

impl Spent {
    /// From now on it is those below the root.
    pub(super) fn begin_nested(&mut self) {
        *self = Self {
            nested: true,
            ..Self::default()
        };
    }

    /// Whether there is so much left.
    ///
    /// # Errors
    /// There is not, and it is the user's or the root's own.
    pub(super) fn spend(
        &mut self,
        (bound, amount): (Bound, usize),
        root: &Path,
        notices: &mut Notices,
    ) -> Result<bool, Report> {
        let (first, nested) = bound.limits();
        let limit = if self.nested { nested } else { first };
        let spent = &mut self.amounts[bound as usize];
        if spent.saturating_add(amount) <= limit {
            *spent += amount;
            return Ok(true);
        }
        if bound == Bound::Bytes {
            // They were read to be counted: no more are.
            *spent = limit;
        }
        let shown = root.display();
        let many = format!("more than {limit} {}", bound.what());
        if !self.nested {
            return Err(Report::user(
                "git-places-too-many",
                format!(
                    "git on the host takes settings or hooks for {shown} from too many places: {many}"
                ),
                match bound {
                    Bound::Entries => format!(
                        "git -C {} worktree prune, and remove what is not needed in .git/hooks; or: --protect off",
                        shell_word(root)
                    ),
                    _ => format!(
                        "git -C {} config --list --show-origin shows them: remove what is not needed; or: --protect off",
                        shell_word(root)
                    ),
                },
            ));
        }
        if self.said.insert(bound) {
            notices.add(format!(
                "the repositories below {shown} have {many}: not everything was followed and protected from which git on the \
                 host takes hooks and settings"
            ));
        }
        Ok(false)
    }
}

/// What could not be looked at, for the user.
#[derive(Debug, Default)]
pub(super) struct Notices {
    said: Vec<String>,
    unsaid: usize,
}

impl Notices {
    pub(super) fn add(&mut self, notice: String) {
        if self.said.len() < MAX_NOTICES {
            self.said.push(notice);
        } else {
            self.unsaid += 1;
        }
    }

    pub(super) fn all(mut self) -> Vec<String> {
        if self.unsaid > 0 {
            self.said.push(format!(
                "{} more things about git's settings could not be followed",
                self.unsaid
            ));
        }
        self.said
    }
}
