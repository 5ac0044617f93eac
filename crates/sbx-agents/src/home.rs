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
    /// Gives what stands for the tokens of a sign-in at a service, where that is what it works with.
    pub tokens: &'a dyn Fn(&str) -> Option<Tokens>,
}

/// What stands for the tokens of a sign-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// For the access token.
    pub access: String,
    /// For the refresh token.
    pub refresh: String,
    /// For the one that says who signed in.
    pub id: String,
    /// The claims in that.
    pub claims: Value,
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
