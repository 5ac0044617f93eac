//! Claude Code.

use crate::home::{self, Seed};
use crate::row::{Body, Install, Layer, Package, Program, Row, Tried};
use sbx_wire::guest::GuestFile;
use serde_json::{Map, Value, json};

/// How many characters of a key Claude Code remembers as approved.
const APPROVED: usize = 20;

/// See the module.
pub(crate) static ROW: Row = Row {
    name: "claude",
    aliases: &[],
    title: "Claude Code",
    // One self-contained program: Node.js is not needed, and the install script of the package around it only
    // copies that program.
    install: Install::Layer(Layer {
        packages: &[Package {
            name: "@anthropic-ai/claude-code-linux-x64",
            platform: "",
            version: None,
            from: "package",
            to: "usr/local/lib/claude-code",
            keep: &["claude", "package.json", "LICENSE.md"],
            omit: &[],
            executable: &["claude"],
        }],
        programs: &[Program {
            name: "claude",
            body: Body::Link("../lib/claude-code/claude"),
        }],
        check: &["claude", "--version"],
        space_mib: 1200,
    }),
    command: &["claude", "--dangerously-skip-permissions"],
    services: &["anthropic", "github"],
    // Telemetry and update checks: nobody asked for them, and they double the time to an answer.
    variables: &[("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")],
    network: &[
        "platform.claude.com",
        "claude.com",
        "downloads.claude.ai",
        "mcp-proxy.anthropic.com",
        "bridge.claudeusercontent.com",
    ],
    project_file: Some("CLAUDE.md"),
    note_file: Some(".claude/CLAUDE.md"),
    files,
    placeholder_in_files: Some("anthropic"),
    tried: Tried::Job,
};

/// Nothing is asked at the first start, and permissions are bypassed. The key comes by variable alone, and only
/// while a secret is stored: a helper that always prints it would keep those without a key from signing in,
/// and makes the key travel in two headers.
fn files(seed: &Seed<'_>) -> Vec<GuestFile> {
    let trusted = json!({
        "hasTrustDialogAccepted": true,
        "hasCompletedProjectOnboarding": true,
        "projectOnboardingSeenCount": 1,
        "allowedTools": [],
    });
    let projects: Map<String, Value> = seed
        .workspaces
        .iter()
        .map(|path| ((*path).to_owned(), trusted.clone()))
        .collect();
    let placeholder = (seed.placeholder)("anthropic");
    let skip = placeholder.chars().count().saturating_sub(APPROVED);
    let approved: String = placeholder.chars().skip(skip).collect();
    let state = json!({
        "numStartups": 1,
        "theme": "dark",
        "hasCompletedOnboarding": true,
        "bypassPermissionsModeAccepted": true,
        "autoUpdates": false,
        "customApiKeyResponses": { "approved": [approved], "rejected": [] },
        "projects": projects,
    });
    let settings = json!({
        "permissions": { "defaultMode": "bypassPermissions" },
        "skipDangerousModePermissionPrompt": true,
        "env": { "DISABLE_AUTOUPDATER": "1" },
    });
    vec![
        home::json(".claude.json", &state),
        home::json(".claude/settings.json", &settings),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_trust_the_workspace_and_hold_no_key() {
        let key = "sk-ant-api03-0123456789abcdefghijklmnop";
        let files = files(&Seed {
            workspaces: &["/home/me/it's"],
            placeholder: &|_| key.to_owned(),
            tokens: &|_| None,
        });
        let json =
            |index: usize| -> Value { serde_json::from_slice(&files[index].content).unwrap() };
        let state = json(0);
        assert_eq!(
            state["projects"]["/home/me/it's"]["hasTrustDialogAccepted"],
            true
        );
        assert_eq!(
            state["customApiKeyResponses"]["approved"][0],
            "6789abcdefghijklmnop"
        );
        assert_eq!(json(1)["permissions"]["defaultMode"], "bypassPermissions");
        for file in &files {
            assert!(!String::from_utf8_lossy(&file.content).contains(key));
            assert!(file.owner == 1000 && file.mode == 0o600);
        }
    }
}
