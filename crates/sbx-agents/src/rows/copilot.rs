//! GitHub Copilot CLI.

use crate::home::{self, Seed};
use crate::row::{Body, Install, Layer, Package, Program, Row, Tried};
use sbx_wire::guest::GuestFile;
use serde_json::json;

/// See the module.
pub(crate) static ROW: Row = Row {
    name: "copilot",
    aliases: &[],
    title: "GitHub Copilot CLI",
    // One program with Node.js in it, which unpacks itself below the agent's home when it first runs.
    install: Install::Layer(Layer {
        packages: &[Package {
            name: "@github/copilot-linux-x64",
            platform: "",
            version: None,
            from: "package",
            to: "usr/local/lib/copilot",
            keep: &["copilot", "package.json", "LICENSE.md"],
            omit: &[],
            executable: &["copilot"],
        }],
        programs: &[Program {
            name: "copilot",
            body: Body::Link("../lib/copilot/copilot"),
        }],
        check: &["copilot", "--version"],
        space_mib: 700,
    }),
    command: &["copilot", "--yolo"],
    services: &["github", "copilot"],
    variables: &[("COPILOT_AUTO_UPDATE", "false")],
    // Accounts of single people are served by names below the last one.
    network: &["api.github.com", ".githubcopilot.com"],
    project_file: Some("AGENTS.md"),
    note_file: Some(".copilot/copilot-instructions.md"),
    files,
    placeholder_in_files: None,
    tried: Tried::Job,
};

/// The workspaces are trusted, no banner delays the first answer, and nothing is updated behind the image's back.
fn files(seed: &Seed<'_>) -> Vec<GuestFile> {
    let state = json!({ "trustedFolders": seed.workspaces });
    let settings = json!({ "banner": "never", "autoUpdate": false });
    vec![
        home::json(".copilot/config.json", &state),
        home::json(".copilot/settings.json", &settings),
    ]
}
