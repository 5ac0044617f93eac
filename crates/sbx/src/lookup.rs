//! From what was typed to a workspace, an agent or a sandbox.

use crate::client::{Client, encode};
use sbx_wire::api::{Sandbox, Sandboxes, Workspace};
use sbx_wire::report::Report;
use std::path::{Path, PathBuf};

/// Parses `PATH` or `PATH:ro`. The path is made absolute here (the daemon has another working directory), and its links
/// stay: whether it exists, where it leads and whether that may be shared is the daemon's to judge.
pub(crate) fn workspace(text: &str) -> Result<Workspace, Report> {
    let (path, read_only) = match text.strip_suffix(":ro") {
        Some(path) => (path, true),
        None => (text.strip_suffix(":rw").unwrap_or(text), false),
    };
    if path.is_empty() {
        return Err(Report::user(
            "workspace",
            "a workspace path is empty",
            "name a directory",
        ));
    }
    let absolute = std::path::absolute(path).map_err(|error| {
        Report::user(
            "workspace",
            format!("cannot use workspace {path:?}: {error}"),
            "name a directory",
        )
    })?;
    Ok(Workspace {
        path: absolute,
        read_only,
    })
}

/// Whether a sandbox has these workspaces, by whatever links they are named.
pub(crate) fn are(workspaces: &[Workspace], wanted: &[Workspace]) -> bool {
    let real = |wanted: &Workspace| canonical(&wanted.path);
    let same = |(own, wanted): (&Workspace, &Workspace)| {
        own.read_only == wanted.read_only && own.path == real(wanted)
    };
    workspaces.len() == wanted.len() && workspaces.iter().zip(wanted).all(same)
}

/// Links resolved where possible.
fn canonical(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf())
}

/// The working directory as workspace.
pub(crate) fn current_directory() -> Result<Workspace, Report> {
    let path = std::env::current_dir().map_err(|error| {
        Report::user(
            "workspace",
            format!("the current directory is gone: {error}"),
            "change to a directory that exists, or name one",
        )
    })?;
    Ok(Workspace {
        path,
        read_only: false,
    })
}

/// All sandboxes.
pub(crate) async fn all(client: &Client) -> Result<Vec<Sandbox>, Report> {
    let list: Sandboxes = client.get("/v1/sandboxes").await?;
    Ok(list.sandboxes)
}

/// One sandbox by name.
pub(crate) async fn one(client: &Client, name: &str) -> Result<Sandbox, Report> {
    client.get(&format!("/v1/sandboxes/{}", encode(name))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_suffix_makes_it_read_only_and_paths_become_absolute() {
        let plain = workspace("/tmp").unwrap();
        assert!(!plain.read_only);
        assert!(workspace("/tmp:ro").unwrap().read_only);
        assert!(workspace("x/y").unwrap().path.is_absolute());
        assert!(workspace("").is_err());
        assert!(workspace(":ro").is_err());
    }

    #[test]
    fn a_link_is_sent_as_it_is_written_and_means_the_same_sandbox() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("p")).unwrap();
        std::os::unix::fs::symlink("p", root.join("link")).unwrap();
        let written = workspace(root.join("link").to_str().unwrap()).unwrap();
        assert_eq!(written.path, root.join("link"));
        let own = |path: &str, read_only| {
            let path = root.join(path);
            [Workspace { path, read_only }]
        };
        let wanted = [written];
        assert!(are(&own("p", false), &wanted));
        assert!(!are(&own("p", true), &wanted));
        assert!(!are(&own("other", false), &wanted));
        assert!(!are(&[], &wanted));
    }
}
