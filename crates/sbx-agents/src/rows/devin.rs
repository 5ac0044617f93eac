//! Devin CLI.

use crate::home;
use crate::row::{Install, Recipe, Row, Tried};

/// See the module.
pub(crate) static ROW: Row = Row {
    name: "devin",
    aliases: &[],
    title: "Devin CLI",
    install: Install::Inside(Recipe {
        program: "devin",
        script: "curl -fsSL https://cli.devin.ai/install.sh | bash",
    }),
    command: &[
        "devin",
        "--permission-mode",
        "dangerous",
        "--respect-workspace-trust=false",
    ],
    services: &["devin"],
    variables: &[],
    network: &[".devin.ai"],
    project_file: Some("AGENTS.md"),
    note_file: None,
    files: home::none,
    placeholder_in_files: None,
    tried: Tried::Never,
};
