//! No agent: a login shell.

use crate::home;
use crate::row::{Install, Row, Tried};

/// See the module.
pub(crate) static ROW: Row = Row {
    name: "shell",
    aliases: &[],
    title: "a shell",
    install: Install::Base,
    command: &["bash", "-l"],
    services: &[],
    variables: &[],
    network: &[],
    project_file: None,
    note_file: None,
    files: home::none,
    placeholder_in_files: None,
    tried: Tried::Job,
};
