//! Which host directories may be shared: rules about paths, and directories that are refused unless somebody names them.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

/// What is in a home where programs keep keys, sign-ins and settings that run something.
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
    ".local/share/opencode",
    ".local/bin",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".pgpass",
    ".bashrc",
    ".bash_profile",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".gitconfig",
    ".git-credentials",
    ".claude",
    ".claude.json",
    ".codex",
    ".copilot",
    ".cursor",
    ".factory",
    ".gemini",
    ".kiro",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".gradle/gradle.properties",
    ".m2/settings.xml",
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

/// What the user's rules do not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Not even reading, which was all that was asked for.
    Read,
    /// Writing: to read it is allowed.
    Write,
    /// Neither.
    Both,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read access",
            Self::Write => "write access",
            Self::Both => "read and write access",
        })
    }
}

/// Why a directory may not be shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// A rule says so.
    #[error("a rule denies it: {0}")]
    Denied(String),
    /// It is a home directory, or holds one.
    #[error("it is, or holds, the home directory {}", .0.display())]
    Home(PathBuf),
    /// It is, lies in or holds what programs keep there.
    #[error("it is, lies in or holds {}, where programs keep keys, sign-ins or settings that run something", .0.display())]
    Sensitive(PathBuf),
}

/// A directory may not be shared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// What is missing.
    pub missing: Missing,
    /// Why.
    pub why: Why,
}

impl MountPolicy {
    /// Whether a directory (or file) may be shared. Both paths are canonical. Denials are absolute; what is sensitive
    /// has to be named, for writing as well if it is to be written. What is directly below `/home` is a home, whoever's.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, path: &Path, read_only: bool, home: Option<&Path>) -> Result<(), Refusal> {
        // A rule about read-only mounts denies reading, hence writing too.
        let missing = if read_only {
            Missing::Read
        } else {
            Missing::Both
        };
        let denied = self.deny.iter().find(|rule| rule.names(path, home));
        if let Some(rule) = denied {
            let why = Why::Denied(rule.to_string());
            return Err(Refusal { missing, why });
        }
        let named = |read_only: bool| {
            let mut rules = self.allow.iter();
            rules.any(|rule| (read_only || !rule.read_only) && rule.names(path, home))
        };
        if named(read_only) {
            return Ok(());
        }
        let missing = if named(true) { Missing::Write } else { missing };
        let other = others_home(path);
        let mut homes = home.into_iter().chain(other.as_deref());
        let why = homes.find_map(|home| sensitive(path, home));
        why.map_or(Ok(()), |why| Err(Refusal { missing, why }))
    }
}

/// The home that a path is, or lies in, if all homes are where they usually are.
fn others_home(path: &Path) -> Option<PathBuf> {
    if path.starts_with("/root") {
        return Some(PathBuf::from("/root"));
    }
    let name = path.strip_prefix("/home").ok()?.components().next()?;
    Some(Path::new("/home").join(name))
}

fn sensitive(path: &Path, home: &Path) -> Option<Why> {
    if home.starts_with(path) {
        return Some(Why::Home(home.to_owned()));
    }
    let mut places = SENSITIVE.iter().map(|name| home.join(name));
    // What holds such a place gives it as well.
    let place = places.find(|place| path.starts_with(place) || place.starts_with(path));
    place.map(Why::Sensitive)
}
