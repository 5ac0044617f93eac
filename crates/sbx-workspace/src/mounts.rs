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
    /// The path that it is written with.
    fn own(&self, home: Option<&Path>) -> Option<PathBuf> {
        match (self.home, home) {
            (true, home) => home.map(|home| home.join(&self.path)),
            (false, _) => Some(self.path.clone()),
        }
    }

    /// Whether it reaches a path, if its own is this one.
    fn reaches(&self, own: &Path, path: &Path) -> bool {
        match self.reach {
            Reach::Itself => path == own,
            Reach::Children => path.parent() == Some(own),
            Reach::Below => path != own && path.starts_with(own),
        }
    }

    /// Whether it reaches this path as it is written itself.
    fn names(&self, path: &Path, home: Option<&Path>) -> bool {
        self.own(home).is_some_and(|own| self.reaches(&own, path))
    }
}

/// Every name of the place to which an absolute path leads: as it is written, with each link on the way followed in turn,
/// and at last without any. What is not there has the name that is written. To follow links is the caller's, who bounds it.
pub type Ways<'a> = &'a dyn Fn(&Path) -> Vec<PathBuf>;

/// A directory (or file) that somebody wants to share.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its path without links.
    pub real: &'a Path,
    /// As somebody wrote it, absolute and without `..`. Links on the way are the caller's [`Ways`] to find.
    pub written: &'a Path,
    /// It is not to be written.
    pub read_only: bool,
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
    /// Whether a directory (or file) may be shared. The home is canonical. Denials are absolute; what is sensitive has to
    /// be named, for writing as well if it is to be written. What is directly below `/home` is a home, whoever's.
    ///
    /// What forbids is looked for under every name of either side: `~/.config` may be a link, and so may what somebody
    /// asks for. What allows counts only as it is written, for the path without links: what a link leads to on the way of
    /// an allowance may be a guest's choice, if it lies in a workspace, and would open whatever the guest likes.
    ///
    /// # Errors
    /// Why not.
    pub fn check(
        &self,
        asked: Asked<'_>,
        home: Option<&Path>,
        ways: Ways<'_>,
    ) -> Result<(), Refusal> {
        let read_only = asked.read_only;
        let mut names = ways(asked.written);
        names.push(asked.real.to_owned());
        // A rule about read-only mounts denies reading, hence writing too.
        let missing = if read_only {
            Missing::Read
        } else {
            Missing::Both
        };
        let denied = self.deny.iter().find(|rule| {
            let own = rule.own(home).map(|own| ways(&own)).unwrap_or_default();
            let mut pairs = own
                .iter()
                .flat_map(|own| names.iter().map(move |name| (own, name)));
            pairs.any(|(own, name)| rule.reaches(own, name))
        });
        if let Some(rule) = denied {
            let why = Why::Denied(rule.to_string());
            return Err(Refusal { missing, why });
        }
        let named = |read_only: bool| {
            let mut rules = self.allow.iter();
            rules.any(|rule| (read_only || !rule.read_only) && rule.names(asked.real, home))
        };
        if named(read_only) {
            return Ok(());
        }
        let missing = if named(true) { Missing::Write } else { missing };
        let others = others_homes(&names, ways);
        let mut homes = home.into_iter().chain(others.iter().map(PathBuf::as_path));
        let why = homes.find_map(|home| sensitive(&names, home, ways));
        why.map_or(Ok(()), |why| Err(Refusal { missing, why }))
    }
}

/// The homes that a path is, or lies in, if all homes are where they usually are, or where links there lead.
fn others_homes(names: &[PathBuf], ways: Ways<'_>) -> Vec<PathBuf> {
    let mut homes = Vec::new();
    for root in ways(Path::new("/root")) {
        if names.iter().any(|name| name.starts_with(&root)) {
            homes.push(root);
        }
    }
    for base in ways(Path::new("/home")) {
        for name in names {
            let below = name.strip_prefix(&base).ok();
            let first = below.and_then(|below| below.components().next());
            homes.extend(first.map(|first| base.join(first)));
        }
    }
    homes
}

fn sensitive(names: &[PathBuf], home: &Path, ways: Ways<'_>) -> Option<Why> {
    if ways(home)
        .iter()
        .any(|home| names.iter().any(|name| home.starts_with(name)))
    {
        return Some(Why::Home(home.to_owned()));
    }
    // What holds such a place gives it as well, and what holds a link to it may lead it elsewhere.
    let touches = |place: &PathBuf| {
        let mut names = names.iter();
        names.any(|name| name.starts_with(place) || place.starts_with(name))
    };
    let mut places = SENSITIVE.iter().map(|name| home.join(name));
    let place = places.find(|place| ways(place).iter().any(touches));
    place.map(Why::Sensitive)
}
