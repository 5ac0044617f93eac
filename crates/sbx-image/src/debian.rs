//! The Debian root file system, by mmdebstrap. Runs inside the build's namespaces.

use crate::request::AptSources;
use crate::worker::{Reporter, Step};
use crate::{ImageError, apt, recipe, run};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use tempfile::{Builder, NamedTempFile};

/// What no sandbox reads: left out when a package is unpacked, now and when the agent installs one.
const EXCLUDED: [&str; 5] = [
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/share/lintian/*",
];

/// What apt is told wherever it works on the tree: dropping to the user _apt fails where a parent folder belongs to the
/// caller alone.
const APT_OPTIONS: &str = "APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n";

/// Installs `packages` on top of `minbase` into `tree` and leaves apt's package lists there. `on_line` is given
/// every line that mmdebstrap, apt and dpkg write.
pub(crate) fn bootstrap(
    tree: &Path,
    packages: &[&str],
    archive: &AptSources,
    log: &mut File,
    on_line: &mut dyn FnMut(&str) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let work = tree.parent().unwrap_or(tree);
    let options = apt_options(work)?;
    let mut command = run::command("mmdebstrap");
    command
        // What a failed run leaves, a folder for keys, goes with the build's own.
        .env("TMPDIR", work)
        // Inside its own namespaces this process is root already.
        .args([
            "--mode=root",
            "--variant=minbase",
            "--format=directory",
            "--verbose",
        ])
        // The package lists are still needed for a kernel.
        .arg("--skip=cleanup/apt")
        .arg(format!("--aptopt={}", options.path().display()))
        // Stays in an image: nobody needs a sandbox's packages to survive a power cut half unpacked.
        .arg("--dpkgopt=force-unsafe-io")
        .args(EXCLUDED.map(|path| format!("--dpkgopt=path-exclude={path}")))
        .arg(format!("--include={}", packages.join(",")))
        .arg(recipe::SUITE)
        .arg(tree);
    command.args(apt::lines(archive));
    run::lines(&mut command, "installing Debian", log, on_line)?;
    nothing_mounted_below(tree)
}

/// What apt is told, in a file of the caller's alone that goes with the answer.
fn apt_options(dir: &Path) -> Result<NamedTempFile, ImageError> {
    let text = format!("{APT_OPTIONS}{}", apt::options()?);
    let new = Builder::new().prefix("apt-options").tempfile_in(dir);
    let mut file = new.map_err(ImageError::io("write to", dir))?;
    let written = file.write_all(text.as_bytes());
    written.map_err(ImageError::io("write", file.path()))?;
    Ok(file)
}

/// The configuration with which the host's apt works on `tree`, as text of an apt.conf(5).
pub(crate) fn apt_config(tree: &Path) -> Result<String, ImageError> {
    let dir = tree
        .to_str()
        .filter(|dir| !dir.contains(['"', '\\', '\n']))
        .ok_or_else(|| ImageError::Unexpected {
            what: "the cache folder's name cannot be written into apt's configuration",
            detail: tree.display().to_string(),
        })?;
    Ok(format!(
        "APT::Architecture \"amd64\";\nAPT::Architectures \"amd64\";\nAPT::Sandbox::User \"root\";\n\
         Dir \"{dir}\";\nDir::State::Status \"{dir}/var/lib/dpkg/status\";\n\
         Dir::Etc::Trusted \"/etc/apt/trusted.gpg\";\nDir::Etc::TrustedParts \"/etc/apt/trusted.gpg.d/\";\n"
    ))
}

/// Writes the archive into the image for the agent's own `apt install`.
pub(crate) fn write_sources(tree: &Path, archive: &AptSources) -> Result<(), ImageError> {
    let mut text = String::new();
    for (uri, suites) in apt::suites(archive) {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "Types: deb\nURIs: {uri}\nSuites: {}\nComponents: main\n\
             Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp\n\n",
            suites.join(" ")
        );
    }
    let path = tree.join("etc/apt/sources.list.d/debian.sources");
    fs::write(&path, text).map_err(ImageError::io("write", &path))?;
    let old = tree.join("etc/apt/sources.list");
    fs::remove_file(&old).map_err(ImageError::io("remove", &old))
}

/// Turns mmdebstrap's, apt's and dpkg's lines into steps and details.
pub(crate) fn report(line: &str, reporter: &mut Reporter) -> Result<(), ImageError> {
    if let Some(stage) = line.strip_prefix("I: ") {
        let step = match stage {
            stage if stage.starts_with("downloading packages") => Step::Download,
            stage if stage.starts_with("extracting archives") => Step::Extract,
            stage if stage.starts_with("installing essential") => Step::Essential,
            stage if stage.starts_with("installing remaining") => Step::Packages,
            _ => return Ok(()),
        };
        return reporter.step(step);
    }
    match detail(line) {
        Some(detail) => reporter.detail(&detail),
        None => Ok(()),
    }
}

/// What a line of apt or dpkg says about a package.
pub(crate) fn detail(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let (verb, package) = match words.next()? {
        // Get:12 ADDRESS SUITE/COMPONENT ARCHITECTURE PACKAGE …
        word if word.starts_with("Get:") => ("fetching", words.nth(3)?),
        "Unpacking" => ("unpacking", words.next()?),
        "Setting" => ("setting up", words.nth(1)?),
        _ => return None,
    };
    Some(format!("{verb} {package}"))
}

/// The tree is about to be copied and removed: a mount that was left in it would go the same way.
fn nothing_mounted_below(tree: &Path) -> Result<(), ImageError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(path).map_err(ImageError::io("read", path))?;
    // Field 5 is the mount point, with white space in octal (proc_pid_mountinfo(5)).
    let escaped = tree.to_string_lossy().replace(' ', "\\040");
    let prefix = format!("{escaped}/");
    match text.lines().find(|l| {
        l.split(' ')
            .nth(4)
            .is_some_and(|at| at.starts_with(&prefix))
    }) {
        None => Ok(()),
        Some(mount) => Err(ImageError::Unexpected {
            what: "something is still mounted in the new root file system",
            detail: mount.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_apt_and_dpkg_become_details() {
        let get = "Get:7 http://a.example/debian trixie/main amd64 libc6 amd64 2.41-12 [2,848 kB]";
        assert_eq!(detail(get).as_deref(), Some("fetching libc6"));
        assert_eq!(
            detail("Unpacking git (1:2.47) ...").as_deref(),
            Some("unpacking git")
        );
        assert_eq!(
            detail("Setting up git (1:2.47) ...").as_deref(),
            Some("setting up git")
        );
        assert_eq!(detail("Reading package lists..."), None);
        assert_eq!(detail(""), None);
    }

    #[test]
    fn folder_that_would_end_the_quotes_is_refused() {
        assert!(apt_config(Path::new("/tmp/a\"b")).is_err());
        assert!(
            apt_config(Path::new("/tmp/a b"))
                .unwrap()
                .contains("Dir \"/tmp/a b\";")
        );
    }
}
