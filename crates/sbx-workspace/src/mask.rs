//! Directories of a workspace that are on the sandbox's own disk: what package managers and compilers fill, fast and
//! apart from what the host has under the same name.

use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Most directories that are masked in one workspace.
pub const MAX_MASKS: usize = 64;

/// Files whose presence says that a directory of this name will be made beside them.
const BESIDE: &[(&str, &[&str])] = &[
    ("node_modules", &["package.json"]),
    ("target", &["Cargo.toml", "pom.xml"]),
    (".venv", &["pyproject.toml", "requirements.txt", "setup.py"]),
    ("venv", &["pyproject.toml", "requirements.txt", "setup.py"]),
    ("vendor", &["go.mod", "composer.json"]),
    (
        "build",
        &["build.gradle", "build.gradle.kts", "CMakeLists.txt"],
    ),
    (".gradle", &["build.gradle", "build.gradle.kts"]),
    ("__pycache__", &[]),
];

/// A name, which is masked wherever it is, or would be; or a path from the workspace's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mask(String);

/// A text is no [`Mask`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a name nor a path below the workspace")]
pub struct NoMask(String);

impl FromStr for Mask {
    type Err = NoMask;

    fn from_str(text: &str) -> Result<Self, NoMask> {
        let path = text
            .strip_prefix("./")
            .unwrap_or(text)
            .trim_end_matches('/');
        let plain = path
            .split('/')
            .all(|name| !matches!(name, "" | "." | ".." | ".git") && name.len() <= 255);
        if !plain || path.len() > 1024 || path.chars().any(char::is_control) {
            return Err(NoMask(text.to_owned()));
        }
        Ok(Self(path.to_owned()))
    }
}

impl TryFrom<String> for Mask {
    type Error = NoMask;

    fn try_from(text: String) -> Result<Self, NoMask> {
        text.parse()
    }
}

impl From<Mask> for String {
    fn from(mask: Mask) -> Self {
        mask.0
    }
}

impl Mask {
    /// The path from the root, if it is about one place.
    pub fn path(&self) -> Option<&str> {
        self.0.contains('/').then_some(&*self.0)
    }

    /// Whether it is to be masked in a directory with these names in it.
    pub fn applies(&self, mut has: impl FnMut(&str) -> bool) -> bool {
        let manifests = BESIDE.iter().find(|(name, _)| *name == self.0);
        let manifests = manifests.map_or(&[][..], |(_, manifests)| manifests);
        has(&self.0) || manifests.iter().any(|manifest| has(manifest))
    }

    /// Whether it is about a directory of this name at this path from the root.
    pub fn is_at(&self, path: &str) -> bool {
        match self.path() {
            Some(only) => only == path,
            None => path.rsplit('/').next() == Some(&*self.0),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_anywhere_and_a_path_in_one_place() {
        let mask = |text: &str| text.parse::<Mask>().unwrap();
        assert!(mask("target").is_at("target") && mask("target").is_at("a/b/target"));
        assert!(!mask("target").is_at("target/a") && !mask("target").is_at("a/targets"));
        assert!(mask("a/out").is_at("a/out") && !mask("a/out").is_at("b/a/out"));
    }
}
