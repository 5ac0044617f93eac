//! What a share is told of its workspace.

use crate::mask::Mask;
use crate::pattern::Pattern;
use crate::protect::Level;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What happens when the guest wants to write to what is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It is done, and said.
    Report,
    /// It is refused (`EACCES`), and said.
    Block,
}

/// Which writes a protection is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Every one: the name and all below it.
    #[default]
    Everything,
    /// Git's settings: written only as a whole, by git's own way of a lock file that takes their place, and only
    /// with settings that run nothing ([`crate::git_config`]).
    GitConfig,
    /// The submodules of a repository, likewise.
    GitModules,
    /// A file that names a git directory: written only with a place that is protected itself
    /// ([`crate::git_link`]).
    GitLink,
}

/// Names that are protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// Which names; one that begins with `!` takes names out again.
    pub pattern: Pattern,
    /// What happens.
    pub mode: Mode,
    /// Which writes.
    #[serde(default, skip_serializing_if = "is_everything")]
    pub what: What,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_everything(what: &What) -> bool {
    *what == What::Everything
}

/// What somebody chose for a sandbox, beyond the settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guarding {
    /// How much of the list is protected; `None`: as the settings say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protect: Option<Level>,
    /// Names that are protected as well, whatever the level.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protect_paths: Vec<Pattern>,
    /// Names that are hidden, after those of the settings and before those of `.sbxignore`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hide: Vec<Pattern>,
    /// Directories that are on the sandbox's own disk, after those of the settings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mask: Vec<Mask>,
}

impl Guarding {
    /// Nothing was chosen.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Everything a share knows beyond its directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// In order; of those that match, the last decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protect: Vec<Protection>,
    /// Names that read as absent; in order as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hide: Vec<Pattern>,
    /// The directory is there for the sake of this one file in it: all else is hidden, and whatever file has the name
    /// is the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
    /// Paths from the root of directories that are the guest's own, whatever the host has there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<String>,
    /// What becomes such a directory if it appears later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late_masks: Vec<Mask>,
    /// Hidden files that git knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stand_ins: Vec<StandIn>,
    /// Directories that stay where they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stay: Vec<Stay>,
}

/// A directory that is neither renamed nor exchanged nor replaced, and neither are those that hold it: git on the host
/// finds settings or programs relative to it, which are protected where they are found now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stay {
    /// From the root.
    pub path: String,
    /// What happens when the guest wants to.
    pub mode: Mode,
}

/// What the guest finds in place of a hidden file that is in git's index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandIn {
    /// From the root.
    pub path: String,
    /// Directories above it that are hidden, from the root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden_above: Vec<String>,
    /// A file of the host with what git has.
    pub content: PathBuf,
    /// Git has it as a program.
    #[serde(default)]
    pub executable: bool,
    /// Git has it as a symbolic link, with that content as its text.
    #[serde(default)]
    pub link: bool,
}

impl Rules {
    /// Nothing is protected and nothing hidden.
    pub fn is_empty(&self) -> bool {
        self.protect.is_empty()
            && self.hide.is_empty()
            && self.only.is_none()
            && self.masks.is_empty()
            && self.late_masks.is_empty()
            && self.stay.is_empty()
    }
}
