//! Cursor CLI.

use crate::home::{self, Seed};
use crate::row::{Install, Recipe, Row, Tried};
use sbx_wire::guest::GuestFile;
use serde_json::json;

/// See the module.
pub(crate) static ROW: Row = Row {
    name: "cursor",
    aliases: &["cursor-agent"],
    title: "Cursor CLI",
    install: Install::Inside(Recipe {
        program: "cursor-agent",
        script: "curl -fsSL https://cursor.com/install | bash",
    }),
    command: &["cursor-agent", "--yolo"],
    services: &["cursor", "github"],
    variables: &[],
    network: &["cursor.com", "downloads.cursor.com", ".cursor.sh"],
    project_file: Some("AGENTS.md"),
    note_file: None,
    files,
    placeholder_in_files: None,
    tried: Tried::Never,
};

/// Its agent channel in HTTP/1.1: a long stream of HTTP/2 would have to pass the gateway unread.
fn files(_: &Seed<'_>) -> Vec<GuestFile> {
    let config = json!({
        "version": 1,
        "permissions": { "allow": ["Shell(*)", "Read(**)", "Write(**)"], "deny": [] },
        "network": { "useHttp1ForAgent": true },
    });
    vec![home::json(".cursor/cli-config.json", &config)]
}
