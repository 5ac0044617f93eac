//! The rows.

mod claude;
mod codex;
mod copilot;
mod cursor;
mod devin;
mod docker_agent;
mod droid;
mod gemini;
mod kiro;
mod opencode;
mod shell;

use crate::row::Row;

pub(crate) use shell::ROW as SHELL;

/// All of them, in the order in which people should see them.
pub(crate) const ALL: &[&Row] = &[
    &claude::ROW,
    &codex::ROW,
    &copilot::ROW,
    &cursor::ROW,
    &devin::ROW,
    &docker_agent::ROW,
    &droid::ROW,
    &gemini::ROW,
    &kiro::ROW,
    &opencode::ROW,
    &SHELL,
];
