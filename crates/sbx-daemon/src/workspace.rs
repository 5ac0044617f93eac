//! Which host directories may be shared.

use crate::daemon::Daemon;
use crate::{links, settings};
use rustix::fs::{Access, access};
use sbx_wire::api::Workspace;
use sbx_wire::home::Home;
use sbx_wire::launch::MAX_SHARES;
use sbx_wire::report::Report;
use sbx_workspace::mounts::{Asked, Missing, Refusal, Why};
use std::path::{Path, PathBuf};

/// Directories that are the machine's own, or that would hide the guest's.
const REFUSED: [&str; 8] = [
    "/",
    "/usr",
    "/var",
    "/run",
    "/home",
    "/home/agent",
    "/tmp",
    "/opt",
];
/// Directories that are refused with everything below them.
const REFUSED_TREES: [&str; 11] = [
    "/proc", "/sys", "/dev", "/boot", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
    "/etc",
];
/// Longest path, bytes (`PATH_MAX` with its NUL).
const MAX_PATH: usize = 4095;

/// Checks workspaces and makes their paths canonical. Returns them with notices for the user.
pub(crate) fn check(
    daemon: &Daemon,
    wanted: &[Workspace],
) -> Result<(Vec<Workspace>, Vec<String>), Report> {
    let policy = settings::mounts(daemon.store().settings())?;
    let user = std::env::home_dir().map(|home| home.canonicalize().unwrap_or(home));
    if wanted.len() > MAX_SHARES {
        let message = format!(
            "{} workspaces were given, {MAX_SHARES} are possible",
            wanted.len()
        );
        return Err(Report::user(
            "workspace-too-many",
            message,
            "share a directory above them",
        ));
    }
    let mut checked: Vec<Workspace> = Vec::new();
    let mut notices = Vec::new();
    for workspace in wanted {
        let path = canonical(workspace)?;
        refuse_roots(&path)?;
        refuse_own_folders(&daemon.home, &path)?;
        let read_only = workspace.read_only;
        let asked = Asked {
            real: &path,
            written: &links::plain(&workspace.path),
            read_only,
        };
        policy
            .check(asked, user.as_deref(), &links::names)
            .map_err(|refusal| refused(&path, read_only, &refusal))?;
        check_access(&path, read_only)?;
        if checked.iter().any(|other| other.path == path) {
            let message = format!("workspace {} was given twice", path.display());
            return Err(Report::user(
                "workspace-twice",
                message,
                "name each directory once",
            ));
        }
        if !read_only && daemon.programs.starts_with(&path) {
            notices.push(format!(
                "{} holds sbx's own programs: what runs in the sandbox can change them",
                path.display()
            ));
        }
        checked.push(Workspace { path, read_only });
    }
    if let Some(first) = checked.first().filter(|first| first.path.is_file()) {
        let message = format!("the first workspace, {}, is a file", first.path.display());
        let next = "name the directory to work in first, then files";
        return Err(Report::user("workspace-not-a-directory", message, next));
    }
    Ok((checked, notices))
}

fn refused(path: &Path, read_only: bool, refusal: &Refusal) -> Report {
    let shown = path.display();
    let suffix = if read_only { ":ro" } else { "" };
    let allow = settings::MOUNTS_ALLOW;
    let next = match (&refusal.why, refusal.missing) {
        (Why::Denied(_), _) => format!("sbx settings get {}", settings::MOUNTS_DENY),
        (_, Missing::Write) => {
            format!("share it read-only: {shown}:ro, or: sbx settings set {allow} '{shown}'")
        }
        _ => format!(
            "name your project's own directory, or: sbx settings set {allow} '{shown}{suffix}'"
        ),
    };
    let message = format!(
        "mount policy denied {} to {shown}: {refusal}",
        refusal.missing
    );
    Report::user("workspace-refused", message, next)
}

/// Checks workspaces of a sandbox that is started again: they may have gone since.
pub(crate) fn check_again(workspaces: &[Workspace]) -> Result<(), Report> {
    for workspace in workspaces {
        if canonical(workspace)? != workspace.path {
            let message = format!("workspace {} has become a link", workspace.path.display());
            return Err(Report::user(
                "workspace-moved",
                message,
                "put the directory back in its place",
            ));
        }
        check_access(&workspace.path, workspace.read_only)?;
    }
    Ok(())
}

fn canonical(workspace: &Workspace) -> Result<PathBuf, Report> {
    let path = &workspace.path;
    let shown = path.display();
    if !path.is_absolute() {
        let message = format!("workspace {shown} is not an absolute path");
        return Err(Report::user(
            "workspace-relative",
            message,
            "give the whole path, from /",
        ));
    }
    let real = path.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Report::user(
            "workspace-missing",
            format!("workspace {shown} does not exist"),
            format!("mkdir -p {shown}"),
        ),
        _ => Report::user(
            "workspace-unreadable",
            format!("workspace {shown} cannot be reached: {error}"),
            format!("ls -ld {shown}"),
        ),
    })?;
    let file = workspace.read_only && real.is_file();
    if !real.is_dir() && !file {
        let message = format!("workspace {shown} is not a directory");
        return Err(Report::user(
            "workspace-not-a-directory",
            message,
            format!("name the directory it lies in, or share the file read-only: {shown}:ro"),
        ));
    }
    let plain = real
        .to_str()
        .is_some_and(|text| text.len() <= MAX_PATH && !text.chars().any(char::is_control));
    if !plain {
        let message = format!("workspace {shown} has a path that is not plain text");
        return Err(Report::user(
            "workspace-path",
            message,
            "rename the directory",
        ));
    }
    Ok(real)
}

fn refuse_roots(path: &Path) -> Result<(), Report> {
    let refused = REFUSED.iter().any(|root| path == Path::new(root))
        || REFUSED_TREES.iter().any(|root| path.starts_with(root));
    if !refused {
        return Ok(());
    }
    Err(Report::user(
        "workspace-refused",
        format!(
            "{} cannot be a workspace: it belongs to the system",
            path.display()
        ),
        "name your project's own directory",
    ))
}

/// The state folder holds secrets, the certificate authority's key and every sandbox's rules.
fn refuse_own_folders(home: &Home, path: &Path) -> Result<(), Report> {
    for own in [&home.state, &home.config, &home.cache, &home.runtime] {
        // What holds a link on the way to it may lead it elsewhere.
        let names = links::names(own);
        let holds = names.iter().any(|own| own.starts_with(path));
        if holds || names.iter().any(|own| path.starts_with(own)) {
            return Err(Report::user(
                "workspace-holds-sbx",
                format!(
                    "workspace {} would give the sandbox {}, where sbx keeps secrets and rules",
                    path.display(),
                    own.display()
                ),
                "name your project's own directory, or set SBX_HOME to a folder outside of it",
            ));
        }
    }
    Ok(())
}

fn check_access(path: &Path, read_only: bool) -> Result<(), Report> {
    let readable = if path.is_file() {
        Access::READ_OK
    } else {
        Access::READ_OK | Access::EXEC_OK
    };
    let wanted = if read_only {
        readable
    } else {
        readable | Access::WRITE_OK
    };
    if access(path, wanted).is_ok() {
        return Ok(());
    }
    let shown = path.display();
    if access(path, readable).is_ok() {
        return Err(Report::user(
            "workspace-not-writable",
            format!("you may not write to workspace {shown}"),
            format!("share it read-only: {shown}:ro"),
        ));
    }
    Err(Report::user(
        "workspace-unreadable",
        format!("you may not read workspace {shown}"),
        format!("ls -ld {shown}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_the_system_are_refused_and_those_below_a_home_are_not() {
        let refused = [
            "/",
            "/usr",
            "/etc",
            "/etc/ssl",
            "/var",
            "/proc",
            "/proc/1",
            "/sys",
            "/dev",
            "/bin",
            "/sbin",
            "/lib",
            "/lib64",
            "/boot",
            "/run",
            "/tmp",
            "/home",
            "/home/agent",
        ];
        for path in refused {
            assert!(refuse_roots(Path::new(path)).is_err(), "{path} passed");
        }
        for path in [
            "/root/p",
            "/tmp/p",
            "/home/agent/p",
            "/home/u",
            "/usr/local/src/p",
            "/var/tmp/p",
            "/library",
        ] {
            assert!(refuse_roots(Path::new(path)).is_ok(), "{path} refused");
        }
    }
}
