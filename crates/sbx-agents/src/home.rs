//! Files in the agent's home.

use sbx_wire::guest::GuestFile;
use serde_json::Value;

/// User and group id of the agent inside.
const AGENT: u32 = 1000;

/// What the files of a new sandbox are made from.
pub struct Seed<'a> {
    /// Folders that the agent works in, as absolute paths; they are to be trusted.
    pub workspaces: &'a [&'a str],
    /// Gives a service's placeholder, empty when there is none.
    pub placeholder: &'a dyn Fn(&str) -> String,
}

impl std::fmt::Debug for Seed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seed")
            .field("workspaces", &self.workspaces)
            .finish_non_exhaustive()
    }
}

/// No files.
pub(crate) fn none(_: &Seed<'_>) -> Vec<GuestFile> {
    Vec::new()
}

/// A file below the agent's home, for the agent alone. What is there already is the agent's or the user's.
pub(crate) fn file(name: &str, content: impl Into<Vec<u8>>) -> GuestFile {
    GuestFile {
        path: format!("/home/agent/{name}"),
        content: content.into(),
        mode: 0o600,
        owner: AGENT,
        only_if_missing: true,
    }
}

/// The same with a JSON document.
pub(crate) fn json(name: &str, value: &Value) -> GuestFile {
    file(name, format!("{value:#}\n"))
}
