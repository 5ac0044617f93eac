//! OpenCode.

use crate::home::{self, Seed};
use crate::row::{Body, Install, Layer, Package, Program, Row, Tried};
use sbx_wire::guest::GuestFile;
use serde_json::json;

/// The usual variables switch its Google provider on, which reads its key from one of its own.
const START: &str = r#"#!/bin/sh
if [ -n "$GEMINI_API_KEY" ] && [ -z "$GOOGLE_GENERATIVE_AI_API_KEY" ]; then
    export GOOGLE_GENERATIVE_AI_API_KEY="$GEMINI_API_KEY"
fi
exec /usr/local/lib/opencode/bin/opencode "$@"
"#;

/// See the module.
pub(crate) static ROW: Row = Row {
    name: "opencode",
    aliases: &[],
    title: "OpenCode",
    // One program. The build for older processors runs on every host, also where emulation lacks AVX2; the
    // install script of the package around it only chooses between the two.
    install: Install::Layer(Layer {
        packages: &[Package {
            name: "opencode-linux-x64-baseline",
            platform: "",
            version: None,
            from: "package",
            to: "usr/local/lib/opencode",
            keep: &["bin/opencode", "package.json"],
            omit: &[],
            executable: &["bin/opencode"],
        }],
        programs: &[Program {
            name: "opencode",
            body: Body::Script(START),
        }],
        check: &["opencode", "--version"],
        space_mib: 600,
    }),
    command: &["opencode"],
    services: &["openai", "anthropic", "google", "xai", "groq"],
    variables: &[
        ("OPENCODE_DISABLE_AUTOUPDATE", "true"),
        ("OPENCODE_DISABLE_LSP_DOWNLOAD", "true"),
    ],
    network: &["models.dev", "opencode.ai"],
    project_file: Some("AGENTS.md"),
    note_file: Some(".config/opencode/AGENTS.md"),
    files,
    placeholder_in_files: None,
    tried: Tried::Job,
};

/// Everything is permitted, nothing is shared or updated.
fn files(_: &Seed<'_>) -> Vec<GuestFile> {
    let config = json!({
        "$schema": "https://opencode.ai/config.json",
        "permission": "allow",
        "share": "disabled",
        "autoupdate": false,
    });
    vec![home::json(".config/opencode/opencode.json", &config)]
}
