//! Codex.

use crate::home::{self, Seed};
use crate::row::{Body, Install, Layer, Package, Program, Row, Tried};
use sbx_wire::guest::GuestFile;
use std::fmt::Write as _;

/// Codex reads an API key from its own file and nowhere else. So the key that the sandbox's variable holds now,
/// a placeholder, is put there; a file that came from a login stays.
const START: &str = r#"#!/bin/sh
auth="${CODEX_HOME:-$HOME/.codex}/auth.json"
if [ -n "$OPENAI_API_KEY" ] && { [ ! -e "$auth" ] || ! grep -q '"tokens"' "$auth"; }; then
    (umask 077; mkdir -p "${auth%/*}"
     printf '{"auth_mode":"apikey","OPENAI_API_KEY":"%s"}\n' "$OPENAI_API_KEY" >"$auth")
fi
exec /usr/local/lib/codex/bin/codex "$@"
"#;

/// See the module.
pub(crate) static ROW: Row = Row {
    name: "codex",
    aliases: &[],
    title: "Codex",
    // The package for a platform is a version of the package itself. It holds a static program with what it
    // starts: its JavaScript host and ripgrep. Its voice needs a sound card, and its bubblewrap a sandbox.
    install: Install::Layer(Layer {
        packages: &[Package {
            name: "@openai/codex",
            platform: "-linux-x64",
            version: None,
            from: "package/vendor/x86_64-unknown-linux-musl",
            to: "usr/local/lib/codex",
            keep: &["bin", "codex-path", "codex-resources", "codex-package.json"],
            omit: &["*/codex-resources/voice"],
            executable: &[
                "bin/codex",
                "bin/codex-code-mode-host",
                "codex-path/rg",
                "codex-resources/bwrap",
            ],
        }],
        programs: &[Program {
            name: "codex",
            body: Body::Script(START),
        }],
        check: &["codex", "--version"],
        space_mib: 1200,
    }),
    command: &["codex", "--dangerously-bypass-approvals-and-sandbox"],
    services: &["openai", "github"],
    variables: &[],
    network: &["auth.openai.com", "chatgpt.com"],
    project_file: Some("AGENTS.md"),
    note_file: Some(".codex/AGENTS.md"),
    files,
    placeholder_in_files: None,
    tried: Tried::Job,
};

/// Nothing is asked, nothing is confined twice, and nothing is sent that nobody asked for.
fn files(seed: &Seed<'_>) -> Vec<GuestFile> {
    let mut config = String::from(
        "approval_policy = \"never\"\n\
         sandbox_mode = \"danger-full-access\"\n\
         check_for_update_on_startup = false\n\
         \n[analytics]\nenabled = false\n\
         \n[feedback]\nenabled = false\n\
         \n[features]\nplugins = false\napps = false\n",
    );
    for path in seed.workspaces {
        // Writing to a String cannot fail.
        let _ = write!(
            config,
            "\n[projects.{}]\ntrust_level = \"trusted\"\n",
            quoted(path)
        );
    }
    vec![home::file(".codex/config.toml", config)]
}

/// A TOML basic string. Its escapes are those of JSON, but for the control character DEL.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_is_trusted_whatever_is_in_its_name() {
        let files = files(&Seed {
            workspaces: &["/home/me/a \"b\"\\c\n"],
            placeholder: &|_| String::new(),
        });
        let text = String::from_utf8(files[0].content.clone()).unwrap();
        assert!(
            text.contains("[projects.\"/home/me/a \\\"b\\\"\\\\c\\n\"]\ntrust_level = \"trusted\""),
            "{text}"
        );
    }
}
