//! Codex.

use crate::home::{self, Seed, Tokens};
use crate::row::{Body, Install, Layer, Package, Program, Row, Tried};
use sbx_wire::guest::GuestFile;
use serde_json::{Value, json};
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

/// Codex has tokens refreshed that it takes for old. Those here are the daemon's to refresh, and a placeholder does not
/// grow old.
const LAST_REFRESH: &str = "2100-01-01T00:00:00Z";

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
    let mut files = vec![home::file(".codex/config.toml", config)];
    files.extend(
        (seed.tokens)("openai").map(|tokens| home::json(".codex/auth.json", &auth(&tokens))),
    );
    files
}

/// What a login inside would have written.
fn auth(tokens: &Tokens) -> Value {
    let account = &tokens.claims["https://api.openai.com/auth"]["chatgpt_account_id"];
    json!({
        "auth_mode": "chatgpt",
        "OPENAI_API_KEY": null,
        "tokens": {
            "id_token": tokens.id,
            "access_token": tokens.access,
            "refresh_token": tokens.refresh,
            "account_id": account,
        },
        "last_refresh": LAST_REFRESH,
    })
}

/// A TOML basic string. Its escapes are those of JSON, but for the control character DEL.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_of_the_host_is_found_where_a_login_would_be_and_nothing_else() {
        let tokens = Tokens {
            access: "access-placeholder".to_owned(),
            refresh: "refresh-placeholder".to_owned(),
            id: "id-placeholder".to_owned(),
            claims: json!({"https://api.openai.com/auth": {"chatgpt_account_id": "account-1"}}),
        };
        let files = files(&Seed {
            workspaces: &[],
            placeholder: &|_| String::new(),
            tokens: &|service| (service == "openai").then(|| tokens.clone()),
        });
        assert_eq!(files[1].path, "/home/agent/.codex/auth.json");
        let auth: Value = serde_json::from_slice(&files[1].content).unwrap();
        assert_eq!(auth["tokens"]["access_token"], "access-placeholder");
        assert_eq!(auth["tokens"]["account_id"], "account-1");
        assert!(files[1].only_if_missing && files[1].mode == 0o600);
    }

    #[test]
    fn workspace_is_trusted_whatever_is_in_its_name() {
        let files = files(&Seed {
            workspaces: &["/home/me/a \"b\"\\c\n"],
            placeholder: &|_| String::new(),
            tokens: &|_| None,
        });
        let text = String::from_utf8(files[0].content.clone()).unwrap();
        assert!(
            text.contains("[projects.\"/home/me/a \\\"b\\\"\\\\c\\n\"]\ntrust_level = \"trusted\""),
            "{text}"
        );
    }
}
