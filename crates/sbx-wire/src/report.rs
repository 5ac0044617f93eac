//! How every process states an error: who is to blame, what happened, what to do next.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Who can mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    /// The request: another argument helps.
    User,
    /// The machine around us: a missing program, a full disk.
    Environment,
    /// sbx itself.
    Bug,
}

/// An error for people and scripts: `error: …` and, indented, `try: …`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Stable code in kebab-case, e.g. `sandbox-not-found`.
    pub code: String,
    /// Who can mend it.
    pub blame: Blame,
    /// One sentence without a full stop.
    pub message: String,
    /// The next command or step, where there is one.
    #[serde(rename = "try", default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Report {
    /// An error in the request.
    pub fn user(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(code, Blame::User, message, Some(hint.into()))
    }

    /// An error of the machine around us.
    pub fn environment(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(code, Blame::Environment, message, Some(hint.into()))
    }

    /// An error in sbx.
    pub fn bug(code: &str, message: impl Into<String>) -> Self {
        Self::new(code, Blame::Bug, message, None)
    }

    fn new(code: &str, blame: Blame, message: impl Into<String>, hint: Option<String>) -> Self {
        Self {
            code: code.to_owned(),
            blame,
            message: message.into(),
            hint,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Report {}
