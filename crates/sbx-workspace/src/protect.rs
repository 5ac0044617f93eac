//! What is protected unless somebody says otherwise: files of a workspace that run, or decide what runs, on the host.

use crate::pattern::{Pattern, PatternError};
use crate::rules::{Mode, Protection, What};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// How much is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Nothing.
    Off,
    /// Every change is done, and said.
    Report,
    /// Git's own files are blocked, which hinders no work; the others, which people let agents write, are reported.
    #[default]
    Standard,
    /// Everything on the list is blocked.
    Block,
}

impl Level {
    /// Every level, least first.
    pub const ALL: [Self; 4] = [Self::Off, Self::Report, Self::Standard, Self::Block];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Report => "report",
            Self::Standard => "standard",
            Self::Block => "block",
        }
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no [`Level`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not one of off, report, standard, block")]
pub struct NoLevel(String);

impl FromStr for Level {
    type Err = NoLevel;

    fn from_str(text: &str) -> Result<Self, NoLevel> {
        let found = Self::ALL.into_iter().find(|level| level.as_str() == text);
        found.ok_or_else(|| NoLevel(text.to_owned()))
    }
}

/// Git's own files, in every repository of the workspace. `*.sample` hooks never run; git makes them in each new
/// repository.
pub(crate) const GIT: &[(&str, What)] = &[
    ("**/.git", What::GitLink),
    // The old form of a remote: where a push goes if no setting says so.
    ("**/.git/remotes/*", What::Everything),
    ("**/.git/branches/*", What::Everything),
    ("**/.git/worktrees/*/**/remotes/*", What::Everything),
    ("**/.git/worktrees/*/**/branches/*", What::Everything),
    ("**/.git/modules/**/remotes/*", What::Everything),
    ("**/.git/modules/**/branches/*", What::Everything),
    // Names of branches, and their logs, are anybody's.
    ("!**/.git/worktrees/*/**/refs/**", What::Everything),
    ("!**/.git/modules/**/refs/**", What::Everything),
    ("**/.git/hooks/*", What::Everything),
    ("!**/.git/hooks/*.sample", What::Everything),
    ("**/.git/config", What::GitConfig),
    ("**/.git/config.worktree", What::GitConfig),
    ("**/.git/commondir", What::GitLink),
    // Without a commondir, git takes such a directory for a repository of its own.
    // Deeper are the submodules that are checked out in it.
    ("**/.git/worktrees/*/**/hooks/*", What::Everything),
    ("!**/.git/worktrees/*/**/hooks/*.sample", What::Everything),
    ("**/.git/worktrees/*/**/config", What::GitConfig),
    ("**/.git/worktrees/*/**/config.worktree", What::GitConfig),
    ("**/.git/worktrees/*/**/commondir", What::GitLink),
    ("**/.git/modules/**/hooks/*", What::Everything),
    ("!**/.git/modules/**/hooks/*.sample", What::Everything),
    ("**/.git/modules/**/config", What::GitConfig),
    ("**/.git/modules/**/config.worktree", What::GitConfig),
    ("**/.git/modules/**/commondir", What::GitLink),
    // Decides what a sandbox may see.
    (".sbxignore", What::Everything),
];

/// What other programs of the host run or believe.
const OTHERS: &[(&str, What)] = &[
    ("**/.gitmodules", What::GitModules),
    ("**/.gitattributes", What::Everything),
    // Continuous integration.
    ("**/.github/workflows/", What::Everything),
    ("**/.github/actions/", What::Everything),
    ("**/.gitea/workflows/", What::Everything),
    ("**/.forgejo/workflows/", What::Everything),
    ("**/.gitlab-ci.yml", What::Everything),
    ("**/.circleci/", What::Everything),
    ("**/.buildkite/", What::Everything),
    ("**/.woodpecker/", What::Everything),
    ("**/.woodpecker.yml", What::Everything),
    ("**/.drone.yml", What::Everything),
    ("**/.travis.yml", What::Everything),
    ("**/Jenkinsfile", What::Everything),
    ("**/azure-pipelines.yml", What::Everything),
    ("**/bitbucket-pipelines.yml", What::Everything),
    // Hooks of tools that install themselves into git.
    ("**/.husky/", What::Everything),
    ("**/.pre-commit-config.yaml", What::Everything),
    ("**/lefthook.yml", What::Everything),
    // Editors.
    ("**/.vscode/", What::Everything),
    ("**/*.code-workspace", What::Everything),
    ("**/.idea/", What::Everything),
    ("**/.run/", What::Everything),
    ("**/.zed/", What::Everything),
    ("**/.exrc", What::Everything),
    ("**/.nvim.lua", What::Everything),
    ("**/.devcontainer/", What::Everything),
    ("**/.devcontainer.json", What::Everything),
    // Shells.
    ("**/.envrc", What::Everything),
    ("**/.mise.toml", What::Everything),
    ("**/mise.toml", What::Everything),
    // Agents.
    ("**/.claude/", What::Everything),
    ("**/.codex/", What::Everything),
    ("**/.cursor/", What::Everything),
    ("**/.gemini/", What::Everything),
    ("**/.kiro/", What::Everything),
    ("**/.factory/", What::Everything),
    ("**/.opencode/", What::Everything),
    ("**/opencode.json", What::Everything),
    ("**/opencode.jsonc", What::Everything),
    ("**/.mcp.json", What::Everything),
    ("**/AGENTS.md", What::Everything),
    ("**/AGENTS.override.md", What::Everything),
    ("**/CLAUDE.md", What::Everything),
    ("**/CLAUDE.local.md", What::Everything),
    ("**/GEMINI.md", What::Everything),
    ("**/.github/copilot-instructions.md", What::Everything),
    ("**/.github/instructions/", What::Everything),
    ("**/.cursorrules", What::Everything),
    // A file or a directory.
    ("**/.clinerules", What::Everything),
];

/// What happens at a level to what guest and host must not both write: git's own files. `None`: nothing.
pub fn git_mode(level: Level) -> Option<Mode> {
    match level {
        Level::Off => None,
        Level::Report => Some(Mode::Report),
        Level::Standard | Level::Block => Some(Mode::Block),
    }
}

/// The list at a level.
pub fn standard(level: Level) -> Vec<Protection> {
    let Some(mode) = git_mode(level) else {
        return Vec::new();
    };
    let others = match level {
        Level::Block => Mode::Block,
        _ => Mode::Report,
    };
    let mut list = git(mode);
    list.extend(OTHERS.iter().filter_map(|entry| read(entry, others)));
    list
}

/// The part of it that is git's.
pub fn git(mode: Mode) -> Vec<Protection> {
    GIT.iter().filter_map(|entry| read(entry, mode)).collect()
}

/// An entry of the list, which is ours: a test reads every one.
fn read((pattern, what): &(&str, What), mode: Mode) -> Option<Protection> {
    Some(Protection {
        pattern: Pattern::parse(pattern).ok()?,
        mode,
        what: *what,
    })
}

/// A pattern that somebody added to the list.
///
/// # Errors
/// What about it cannot be meant.
pub fn added(pattern: &str, mode: Mode) -> Result<Protection, PatternError> {
    Ok(Protection {
        pattern: Pattern::parse(pattern)?,
        mode,
        what: What::Everything,
    })
}

/// Entries of the list that are no patterns: none.
pub fn broken() -> impl Iterator<Item = (&'static str, PatternError)> {
    let all = GIT.iter().chain(OTHERS);
    all.filter_map(|(text, _)| Some((*text, Pattern::parse(text).err()?)))
}
