//! What `sbx diagnose` reports: `sbx-daemon --diagnose` writes this document on standard output, the command adds what
//! only it can see.

use serde::{Deserialize, Serialize};

/// Version of the report, for scripts.
pub const VERSION: &str = "1.0";

/// The whole report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// [`VERSION`].
    pub version: String,
    /// RFC 3339, UTC.
    pub generated_at: String,
    /// Version of sbx.
    pub sbx_version: String,
    /// In order of group.
    pub checks: Vec<Check>,
    /// How many checks came out how.
    pub summary: Summary,
    /// What was mended, or would be with `--repair`.
    pub repairs: Vec<Repair>,
    /// Whether a fresh daemon mends the rest: it rebuilds its database and removes leftovers when it starts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_fresh_daemon: bool,
}

/// What a check is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Group {
    /// Programs and their versions.
    Installation,
    /// What the machine and its kernel offer.
    Platform,
    /// Folders, database, sandboxes, images.
    Storage,
    /// Daemon, supervisors, gateways.
    Connection,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// Works, and something should be looked at.
    Warn,
    /// Does not work.
    Fail,
    /// Could not be looked at, or there is nothing to look at.
    Skip,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its group.
    pub group: Group,
    /// Stable name, kebab-case; of a sandbox: `sandbox:` and its name.
    pub name: String,
    /// How it came out.
    pub status: Outcome,
    /// One line.
    pub message: String,
    /// More, where there is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The next step, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Check {
    /// A check with a message only.
    pub fn new(group: Group, name: &str, status: Outcome, message: impl Into<String>) -> Self {
        Self {
            group,
            name: name.to_owned(),
            status,
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// With more to read.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With a next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// How many checks came out how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// As they should be.
    pub pass: usize,
    /// To be looked at.
    pub warn: usize,
    /// Not working.
    pub fail: usize,
    /// Not looked at.
    pub skip: usize,
}

/// Something that can be mended without losing what a user made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// Name of the check that found it.
    pub check: String,
    /// What is done, one line that begins with a verb.
    pub action: String,
    /// Whether it was done.
    pub done: bool,
    /// Why it could not be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Diagnosis {
    /// Puts the checks in order and counts them.
    pub fn new(generated_at: String, sbx_version: &str) -> Self {
        Self {
            version: VERSION.to_owned(),
            generated_at,
            sbx_version: sbx_version.to_owned(),
            checks: Vec::new(),
            summary: Summary::default(),
            repairs: Vec::new(),
            needs_fresh_daemon: false,
        }
    }

    /// Adds checks.
    pub fn extend(&mut self, checks: impl IntoIterator<Item = Check>) {
        self.checks.extend(checks);
        self.checks.sort_by_key(|check| check.group);
        let count = |status| self.checks.iter().filter(|c| c.status == status).count();
        self.summary = Summary {
            pass: count(Outcome::Pass),
            warn: count(Outcome::Warn),
            fail: count(Outcome::Fail),
            skip: count(Outcome::Skip),
        };
    }
}
