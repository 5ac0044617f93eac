//! One pattern for names in a workspace.

use crate::glob::{self, Component, Glob};
use serde::{Deserialize, Serialize};

/// Longest pattern, bytes.
pub const MAX_LENGTH: usize = 1024;
/// Most components of one pattern.
pub const MAX_SEGMENTS: usize = 64;

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// More than [`MAX_LENGTH`] or [`MAX_SEGMENTS`].
    #[error("it is longer than {MAX_LENGTH} bytes or {MAX_SEGMENTS} components")]
    TooLong,
    /// A NUL or a line end, which no pattern in a file can hold.
    #[error("it contains a control character")]
    Control,
    /// Ends in a backslash.
    #[error("it ends in a backslash")]
    Escape,
    /// `[` without its `]`, a range that runs backwards, or a named class.
    #[error("a character class in it is not complete or not supported")]
    Class,
    /// `.` or `..` as a component.
    #[error("'.' and '..' match nothing")]
    Dots,
    /// The root itself.
    #[error("it matches the whole workspace")]
    Everything,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    Literal(Box<[u8]>),
    Glob(Glob),
    /// `**`: any number of components, none included.
    Depth,
}

impl Segment {
    pub(crate) fn fits(&self, name: &[u8]) -> bool {
        match self {
            Self::Literal(text) => **text == *name,
            Self::Glob(glob) => glob.fits(name),
            Self::Depth => true,
        }
    }
}

/// A pattern as in gitignore(5), which can only be one that means something. A slash at the beginning or in the
/// middle ties it to the workspace's root; a slash at the end makes it match directories only; `!` takes back what an
/// earlier pattern said. In bytes: names need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    pub(crate) segments: Vec<Segment>,
    pub(crate) negated: bool,
    pub(crate) directories: bool,
}

impl Pattern {
    /// Reads one.
    ///
    /// # Errors
    /// What about it cannot be meant.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_LENGTH {
            return Err(PatternError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::Control);
        }
        let (negated, rest) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let directories = rest.ends_with('/');
        let rest = rest.trim_end_matches('/');
        let tied = rest.contains('/');
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        if rest.is_empty() {
            return Err(if text.contains('/') {
                PatternError::Everything
            } else {
                PatternError::Empty
            });
        }
        let mut segments = Vec::new();
        if !tied {
            segments.push(Segment::Depth);
        }
        for component in rest.split('/') {
            match component {
                "" => {}
                "." | ".." => return Err(PatternError::Dots),
                "**" if segments.last() == Some(&Segment::Depth) => {}
                "**" => segments.push(Segment::Depth),
                _ => segments.push(match glob::parse(component.as_bytes())? {
                    Component::Literal(text) => Segment::Literal(text),
                    Component::Glob(glob) => Segment::Glob(glob),
                }),
            }
        }
        // What ends in `/**` matches everything inside, and not the directory itself.
        if segments.last() == Some(&Segment::Depth) {
            match glob::parse(b"*")? {
                Component::Glob(any) => segments.push(Segment::Glob(any)),
                Component::Literal(_) => return Err(PatternError::Everything),
            }
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(PatternError::TooLong);
        }
        Ok(Self {
            text: text.to_owned(),
            segments,
            negated,
            directories,
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// A path from the root, components with slashes between, as a pattern that matches it alone.
pub fn exactly<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for name in names {
        text.push('/');
        for c in name.chars() {
            if matches!(c, '*' | '?' | '[' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
    }
    text
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        Self::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}
