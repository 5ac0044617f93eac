//! Kiro CLI.

use crate::home;
use crate::row::{Install, Recipe, Row, Tried};

/// See the module.
pub(crate) static ROW: Row = Row {
    name: "kiro",
    aliases: &["kiro-cli"],
    title: "Kiro CLI",
    install: Install::Inside(Recipe {
        program: "kiro-cli",
        script: "curl -fsSL https://cli.kiro.dev/install | bash",
    }),
    command: &["kiro-cli", "chat", "--trust-all-tools"],
    // It signs in by itself, with a code on another device; what it gets stays in the sandbox.
    services: &[],
    variables: &[],
    network: &[".kiro.dev", ".amazonaws.com", ".awsapps.com"],
    project_file: None,
    note_file: Some(".kiro/steering/sandbox.md"),
    files: home::none,
    placeholder_in_files: None,
    tried: Tried::Never,
};
