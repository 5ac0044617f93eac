//! Claude Code: its layer, and the settings of a new sandbox.
//!
//! The package is fetched with the host's npm and unpacked, nothing of it is run: the one program in it is
//! first executed inside a machine.

use crate::run::{self, each_line};
use crate::{ImageError, build, recipe};
use sbx_wire::guest::GuestFile;
use serde_json::json;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// The agent's command line with its default flags.
pub(crate) const COMMAND: [&str; 2] = ["claude", "--dangerously-skip-permissions"];
/// Where the package goes.
const HOME: &str = "usr/local/lib/claude-code";
/// What is taken out of the package; the first is the program.
const MEMBERS: [&str; 3] = ["claude", "package.json", "LICENSE.md"];
/// A package description larger than this is not one, bytes.
const MAX_JSON: u64 = 1 << 20;
/// How many characters of a key Claude Code remembers as approved.
const APPROVED: usize = 20;
/// User id of the agent.
const AGENT: u32 = 1000;

/// Fetches the package in `version` (a version or a tag) into `dir`, lays it out in `tree` and returns the
/// version that it really has.
pub(crate) fn fetch(
    version: &str,
    dir: &Path,
    tree: &Path,
    log: &mut File,
) -> Result<String, ImageError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if version.is_empty() || version.starts_with('-') || !version.chars().all(plain) {
        return Err(ImageError::Unexpected {
            what: "this is no version or tag of an npm package",
            detail: format!("{version:?}"),
        });
    }
    let mut pack = run::command("npm");
    pack.envs(std::env::vars_os().filter(|(name, _)| name != "PATH"))
        .args([
            "pack",
            "--ignore-scripts",
            "--silent",
            "--no-update-notifier",
            "--pack-destination",
        ])
        .arg(dir)
        .arg(format!("{}@{version}", recipe::CLAUDE_PACKAGE))
        .current_dir(dir);
    let said = run::output(&mut pack, "fetching Claude Code")?;
    each_line(said.as_bytes(), |line| {
        let _ = writeln!(log, "{line}"); // the log is a convenience: never a reason to fail
        Ok(())
    })?;
    let tarball = said
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !line.contains('/'))
        .ok_or_else(|| unexpected("npm names no package that it fetched", &said))?;
    let tarball = dir.join(tarball);
    lay_out(&tarball, tree)?;
    fs::remove_file(&tarball).map_err(ImageError::io("remove", &tarball))?;
    real_version(&tree.join(HOME).join("package.json"))
}

fn lay_out(tarball: &Path, tree: &Path) -> Result<(), ImageError> {
    let home = tree.join(HOME);
    let mut dir = tree.to_owned();
    build::open_folder(&dir)?;
    for part in Path::new(HOME) {
        dir.push(part);
        build::open_folder(&dir)?;
    }
    let mut tar = run::command("tar");
    tar.arg("-xzf").arg(tarball).arg("-C").arg(&home);
    tar.args([
        "--no-same-owner",
        "--no-same-permissions",
        "--strip-components=1",
        "--",
    ]);
    tar.args(MEMBERS.map(|name| format!("package/{name}")));
    run::output(&mut tar, "unpacking Claude Code")?;
    for name in MEMBERS {
        let path = home.join(name);
        let meta = path
            .symlink_metadata()
            .map_err(ImageError::io("read", &path))?;
        if !meta.is_file() {
            return Err(unexpected(
                "the package holds something else than a file",
                name,
            ));
        }
        let mode = if name == MEMBERS[0] { 0o755 } else { 0o644 };
        fs::set_permissions(&path, Permissions::from_mode(mode))
            .map_err(ImageError::io("set the permissions of", &path))?;
    }
    let bin = tree.join("usr/local/bin");
    build::open_folder(&bin)?;
    let link = bin.join("claude");
    symlink("../lib/claude-code/claude", &link).map_err(ImageError::io("link", &link))
}

fn real_version(path: &Path) -> Result<String, ImageError> {
    let size = path.metadata().map_err(ImageError::io("read", path))?.len();
    let text = if size <= MAX_JSON {
        fs::read(path)
    } else {
        Ok(Vec::new())
    };
    let text = text.map_err(ImageError::io("read", path))?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| {
        unexpected(
            "the package's description is unreadable",
            &error.to_string(),
        )
    })?;
    value["version"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| unexpected("the package's description has no version", ""))
}

fn unexpected(what: &'static str, detail: &str) -> ImageError {
    ImageError::Unexpected {
        what,
        detail: detail.trim().to_owned(),
    }
}

/// The settings of a new sandbox: nothing is asked at the first start, permissions are bypassed because the
/// machine is the boundary, and the key is the placeholder that the gateway replaces. `workspaces` are the
/// folders to trust, as absolute paths.
pub fn files(workspaces: &[&str], placeholder: &str) -> Vec<GuestFile> {
    let trusted = json!({
        "hasTrustDialogAccepted": true,
        "hasCompletedProjectOnboarding": true,
        "projectOnboardingSeenCount": 1,
        "allowedTools": [],
    });
    let projects: serde_json::Map<String, serde_json::Value> = workspaces
        .iter()
        .map(|path| ((*path).to_owned(), trusted.clone()))
        .collect();
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
        "apiKeyHelper": format!("echo {}", shell_word(placeholder)),
        "env": { "DISABLE_AUTOUPDATER": "1" },
    });
    let file = |name: &str, value: &serde_json::Value| GuestFile {
        path: format!("/home/agent/{name}"),
        content: format!("{value:#}\n").into_bytes(),
        mode: 0o600,
        owner: AGENT,
        only_if_missing: true,
    };
    vec![
        file(".claude.json", &state),
        file(".claude/settings.json", &settings),
    ]
}

/// Quotes for a POSIX shell.
fn shell_word(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_trust_the_workspace_and_print_the_placeholder_only() {
        let files = files(
            &["/home/me/it's"],
            "sk-ant-api03-0123456789abcdefghijklmnop",
        );
        let json = |index: usize| -> serde_json::Value {
            serde_json::from_slice(&files[index].content).unwrap()
        };
        assert_eq!(
            json(0)["projects"]["/home/me/it's"]["hasTrustDialogAccepted"],
            true
        );
        assert_eq!(
            json(0)["customApiKeyResponses"]["approved"][0],
            "6789abcdefghijklmnop"
        );
        assert_eq!(json(1)["permissions"]["defaultMode"], "bypassPermissions");
        let helper = json(1)["apiKeyHelper"].as_str().unwrap().to_owned();
        assert_eq!(helper, "echo 'sk-ant-api03-0123456789abcdefghijklmnop'");
        assert!(
            files
                .iter()
                .all(|file| file.owner == 1000 && file.mode == 0o600)
        );
    }

    #[test]
    fn placeholder_cannot_leave_its_quotes() {
        assert_eq!(shell_word("a'; rm -rf /; '"), "'a'\\''; rm -rf /; '\\'''");
    }

    #[test]
    fn version_that_is_an_option_or_an_address_is_refused() {
        let mut log = tempfile::tempfile().unwrap();
        for bad in ["", "--global", "1 2", "file:/etc", "../x"] {
            let nowhere = Path::new("/nonexistent");
            let error = fetch(bad, nowhere, nowhere, &mut log).unwrap_err();
            assert!(error.to_string().contains("no version"), "{bad}: {error}");
        }
    }
}
