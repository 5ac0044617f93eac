//! What a share says when the guest tried what the rules forbid or report.

use crate::rules::Mode;
use serde::{Deserialize, Serialize};

/// What the guest wanted to do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Make it, as a file, directory, link or anything else.
    Create,
    /// Change its content.
    Write,
    /// Change its mode, times or size.
    Change,
    /// Remove it.
    Remove,
    /// Give it another name, or another file its name.
    Rename,
    /// Give it one more name, or another file its name.
    Link,
    /// Put a git setting into it that may run something on the host.
    Configure,
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Write => "write",
            Self::Change => "change",
            Self::Remove => "remove",
            Self::Rename => "rename",
            Self::Link => "link",
            Self::Configure => "configure",
        })
    }
}

/// Reason of an event about the workspace itself: there is no room for more of its mode.
const FULL: &str = "the list is full: what follows is not in it";

/// One line of a share's file of events, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
    /// The file, from the workspace's root; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// What was tried.
    pub action: Action,
    /// Whether it was refused ([`Mode::Block`]) or done ([`Mode::Report`]).
    pub mode: Mode,
    /// The pattern, or what else was the reason.
    pub why: String,
}

impl Event {
    /// The last one of its mode. Who does not know it shows a change of the workspace's root, and why.
    pub fn full(unix_ms: u64, mode: Mode) -> Self {
        Self {
            unix_ms,
            path: String::new(),
            action: Action::Change,
            mode,
            why: FULL.to_owned(),
        }
    }

    /// Whether it is [`Event::full`].
    pub fn is_full(&self) -> bool {
        self.path.is_empty() && self.why == FULL
    }
}
