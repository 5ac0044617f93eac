//! Which host directories may be shared: rules about paths, and directories that are refused unless somebody names them.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// Directories of a home in which programs keep keys, sign-ins and settings that run something.
const SENSITIVE: &[&str] = &[
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".config",
    ".kube",
    ".docker",
    ".password-store",
    ".mozilla",
    ".thunderbird",
    ".local/share/keyrings",
    ".local/bin",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".bashrc",
    ".profile",
    ".zshrc",
    ".git-credentials",
    ".claude",
    ".claude.json",
    ".codex",
    ".gemini",
    ".cargo/credentials.toml",
];

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reach {
    /// The directory.
    Itself,
    /// Directories in it.
    Children,
    /// Everything below it.
    Below,
}

/// A rule for mounts: an absolute path, or one that begins with `~`; alone, with `/*` (one more component) or with
/// `/**` (any number). A suffix `:ro` makes it about read-only mounts alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRule {
    text: String,
    /// Relative: below the home.
    path: PathBuf,
    home: bool,
    reach: Reach,
    read_only: bool,
}

/// A text is no [`MountRule`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no rule for mounts: write an absolute path or ~, then nothing, /* or /**, then nothing or :ro"
)]
pub struct NoMountRule(String);

impl FromStr for MountRule {
    type Err = NoMountRule;

    fn from_str(text: &str) -> Result<Self, NoMountRule> {
        let no = || NoMountRule(text.to_owned());
        let (rest, read_only) = match text.strip_suffix(":ro") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (rest, reach) = if let Some(rest) = rest.strip_suffix("/**") {
            (rest, Reach::Below)
        } else if let Some(rest) = rest.strip_suffix("/*") {
            (rest, Reach::Children)
        } else {
            (rest, Reach::Itself)
        };
        let (home, rest) = match rest.strip_prefix('~') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        // What is left of `/**` alone is nothing.
        let plain = rest.starts_with('/') || (rest.is_empty() && (home || reach != Reach::Itself));
        let names = Path::new(rest).components();
        let odd = names
            .clone()
            .any(|part| matches!(part, Component::ParentDir | Component::CurDir));
        if !plain || odd || rest.contains(['*', '?', '[']) || rest.chars().any(char::is_control) {
            return Err(no());
        }
        let path: PathBuf = if home {
            names
                .filter(|part| matches!(part, Component::Normal(_)))
                .collect()
        } else {
            Path::new("/").join(rest)
        };
        Ok(Self {
            text: text.to_owned(),
            path,
            home,
            reach,
            read_only,
        })
    }
}

impl fmt::Display for MountRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl MountRule {
    fn names(&self, path: &Path, home: Option<&Path>) -> bool {
        let own = match (self.home, home) {
            (true, Some(home)) => home.join(&self.path),
            (true, None) => return false,
            (false, _) => self.path.clone(),
        };
        match self.reach {
            Reach::Itself => path == own,
            Reach::Children => path.parent() == Some(&own),
            Reach::Below => path != own && path.starts_with(&own),
        }
    }
}

/// The rules that a machine's user has made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountPolicy {
    /// Directories that may be shared although they are sensitive.
    pub allow: Vec<MountRule>,
    /// Directories that may not be shared, whatever else is said.
    pub deny: Vec<MountRule>,
}

/// Why a directory may not be shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A rule says so.
    #[error("a rule denies it: {0}")]
    Denied(String),
    /// It is a home directory, or holds one.
    #[error("it is, or holds, your home directory")]
    Home,
    /// It holds keys, sign-ins or settings that run something, or lies in such a directory.
    #[error("it holds what programs of yours keep in ~/{0}")]
    Sensitive(String),
}

impl MountPolicy {
    /// Whether a directory (or file) may be shared. Both paths are canonical. Denials are absolute; what is sensitive
    /// has to be named, for writing as well if it is to be written.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, path: &Path, read_only: bool, home: Option<&Path>) -> Result<(), Refusal> {
        // A rule about read-only mounts denies reading, hence writing too.
        let denied = self.deny.iter().find(|rule| rule.names(path, home));
        if let Some(rule) = denied {
            return Err(Refusal::Denied(rule.to_string()));
        }
        let named = self
            .allow
            .iter()
            .any(|rule| (read_only || !rule.read_only) && rule.names(path, home));
        let Some(home) = home.filter(|_| !named) else {
            return Ok(());
        };
        if home.starts_with(path) {
            return Err(Refusal::Home);
        }
        let sensitive = SENSITIVE.iter().find(|name| {
            let own = home.join(name);
            path.starts_with(&own)
        });
        match sensitive {
            Some(name) => Err(Refusal::Sensitive((*name).to_owned())),
            None => Ok(()),
        }
    }
}
