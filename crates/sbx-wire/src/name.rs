//! Sandbox names (behaviour of the known tool: 2 to 63 characters, letters, digits, hyphen, period; the
//! first alphanumeric, the last not `-` or `.`; `default` is reserved).

use serde::{Deserialize, Serialize};
use std::fmt;

/// A usable sandbox name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxName(String);

/// Why a name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Wrong length.
    #[error("a sandbox name has 2 to 63 characters, {0:?} has {1}")]
    Length(String, usize),
    /// A character that names cannot hold.
    #[error("a sandbox name holds letters, digits, '-' and '.', not {1:?} as in {0:?}")]
    Character(String, char),
    /// Bad first or last character.
    #[error(
        "a sandbox name starts with a letter or digit and does not end in '-' or '.', unlike {0:?}"
    )]
    Edge(String),
    /// Reserved.
    #[error("the name 'default' is reserved")]
    Reserved,
}

impl SandboxName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError`] says which rule was broken.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let shown: String = text.chars().take(80).collect();
        if let Some(bad) = text
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || *c == '-' || *c == '.'))
        {
            return Err(NameError::Character(shown, bad));
        }
        if !(2..=63).contains(&text.len()) {
            return Err(NameError::Length(shown, text.len()));
        }
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || text.ends_with(['-', '.']) {
            return Err(NameError::Edge(shown));
        }
        if text == "default" {
            return Err(NameError::Reserved);
        }
        Ok(Self(text.to_owned()))
    }

    /// The default name `<agent>-<base name>`: unusable characters become `-`, runs of them one.
    /// `taken` says whether a candidate is in use; a clash gets `-2`, `-3`, …
    pub fn suggest(agent: &str, base: &str, taken: impl Fn(&Self) -> bool) -> Self {
        let mut stem = String::new();
        for c in format!("{agent}-{base}").chars().take(200) {
            let c = if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            };
            if !(c == '-' && stem.ends_with('-')) {
                stem.push(c);
            }
        }
        stem.truncate(56);
        let stem = stem.trim_matches(['-', '.']).to_owned();
        let stem = if Self::parse(&stem).is_ok() {
            stem
        } else {
            format!("sandbox-{}", stem.len())
        };
        (1u32..=u32::MAX)
            .map(|n| {
                if n == 1 {
                    stem.clone()
                } else {
                    format!("{stem}-{n}")
                }
            })
            .filter_map(|candidate| Self::parse(&candidate).ok())
            .find(|candidate| !taken(candidate))
            .unwrap_or(Self(stem))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for SandboxName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<SandboxName> for String {
    fn from(name: SandboxName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_names_are_refused_with_the_rule_they_break() {
        for bad in [
            "",
            "a",
            "-ab",
            "ab-",
            "ab.",
            "a b",
            "a/b",
            "default",
            &"x".repeat(64),
            "é1",
        ] {
            assert!(SandboxName::parse(bad).is_err(), "{bad:?} passed");
        }
        for good in ["ab", "a-b.c", "A1", &"x".repeat(63)] {
            assert!(SandboxName::parse(good).is_ok(), "{good:?} refused");
        }
    }

    #[test]
    fn suggested_names_are_usable_and_avoid_clashes() {
        let free = SandboxName::suggest("claude", "my project!", |_| false);
        assert_eq!(free.as_str(), "claude-my-project");
        let second = SandboxName::suggest("claude", "x", |name| name.as_str() == "claude-x");
        assert_eq!(second.as_str(), "claude-x-2");
        for base in ["", "...", "日本", &"y".repeat(300)] {
            let name = SandboxName::suggest("shell", base, |_| false);
            assert!(
                SandboxName::parse(name.as_str()).is_ok(),
                "{base:?} gave {name}"
            );
        }
    }
}
