//! An agent's layer, made of npm packages.
//!
//! The packages are fetched with the host's npm and unpacked; nothing of them is run: their programs are first
//! executed inside a machine.

use crate::run::{self, each_line};
use crate::{ImageError, build};
use sbx_agents::{Body, Layer, Package};
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Where programs go.
const BIN: &str = "usr/local/bin";
/// A package description larger than this is not one, bytes.
const MAX_JSON: u64 = 1 << 20;

/// What the layer is made of, for its key.
pub(crate) fn text(layer: &Layer) -> String {
    let mut text = String::new();
    for package in layer.packages {
        // Writing to a String cannot fail.
        let _ = write!(text, " {package:?}");
    }
    for program in layer.programs {
        let _ = write!(text, " {program:?}");
    }
    text
}

/// Fetches the packages of `layer` into `dir` and lays them out in `tree`. The agent's own comes in `version`, a
/// version or a tag. Returns the versions that all of them really have, by name.
pub(crate) fn fetch(
    layer: &Layer,
    version: &str,
    dir: &Path,
    tree: &Path,
    log: &mut File,
) -> Result<Vec<(String, String)>, ImageError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if version.is_empty() || version.starts_with('-') || !version.chars().all(plain) {
        return Err(unexpected(
            "this is no version or tag of an npm package",
            &format!("{version:?}"),
        ));
    }
    build::open_folder(tree)?;
    let mut versions = Vec::new();
    for package in layer.packages {
        let wanted = wanted(package, package.version.unwrap_or(version))?;
        let tarball = pack(package, &wanted, dir, log)?;
        let found = lay_out(package, &dir.join(&tarball), tree)?;
        fs::remove_file(dir.join(&tarball)).map_err(ImageError::io("remove", dir))?;
        versions.push((package.name.to_owned(), found));
    }
    open_folders(tree, Path::new(BIN))?;
    for program in layer.programs {
        let path = tree.join(BIN).join(program.name);
        match program.body {
            Body::Link(target) => symlink(target, &path).map_err(ImageError::io("link", &path))?,
            Body::Script(text) => {
                fs::write(&path, text).map_err(ImageError::io("write", &path))?;
                set_mode(&path, 0o755)?;
            }
        }
    }
    Ok(versions)
}

/// npm with the caller's settings: they say where the registry is.
fn npm(dir: &Path) -> std::process::Command {
    let mut npm = run::command("npm");
    npm.envs(std::env::vars_os().filter(|(name, _)| name != "PATH"))
        .current_dir(dir);
    npm
}

/// The version to ask for. Builds for a platform are named after a version, not after a tag.
fn wanted(package: &Package, version: &str) -> Result<String, ImageError> {
    if package.platform.is_empty() {
        return Ok(version.to_owned());
    }
    let mut view = npm(Path::new("."));
    view.args(["view", "--no-update-notifier", "--json"])
        .arg(format!("{}@{version}", package.name))
        .arg("version");
    let said = run::output(&mut view, "looking up a package")
        .map_err(|error| unavailable(package, version, error))?;
    let found: serde_json::Value = serde_json::from_str(&said)
        .map_err(|error| unexpected("npm names no version", &error.to_string()))?;
    let found = found
        .as_str()
        .ok_or_else(|| unexpected("npm names no version", &said))?;
    Ok(format!("{found}{}", package.platform))
}

/// Fetches a package; returns its file name in `dir`.
fn pack(
    package: &Package,
    version: &str,
    dir: &Path,
    log: &mut File,
) -> Result<String, ImageError> {
    let mut pack = npm(dir);
    pack.args([
        "pack",
        "--ignore-scripts",
        "--silent",
        "--no-update-notifier",
        "--pack-destination",
    ])
    .arg(dir)
    .arg(format!("{}@{version}", package.name));
    let said = run::output(&mut pack, "fetching a package")
        .map_err(|error| unavailable(package, version, error))?;
    each_line(said.as_bytes(), |line| {
        let _ = writeln!(log, "{line}"); // the log is a convenience: never a reason to fail
        Ok(())
    })?;
    said.lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !line.contains('/'))
        .map(str::to_owned)
        .ok_or_else(|| unexpected("npm names no package that it fetched", &said))
}

/// A registry that does not have the package, or cannot be reached, is the usual reason.
fn unavailable(package: &Package, version: &str, error: ImageError) -> ImageError {
    match error {
        ImageError::Tool { tail, .. } => ImageError::PackageUnavailable {
            package: format!("{}@{version}", package.name),
            tail,
        },
        other => other,
    }
}

/// Unpacks what is kept of a package and returns its version.
fn lay_out(package: &Package, tarball: &Path, tree: &Path) -> Result<String, ImageError> {
    open_folders(tree, Path::new(package.to))?;
    let home = tree.join(package.to);
    let depth = Path::new(package.from).components().count();
    let mut tar = run::command("tar");
    tar.arg("-xzf").arg(tarball).arg("-C").arg(&home);
    tar.args(["--no-same-owner", "--no-same-permissions"]);
    tar.arg(format!("--strip-components={depth}"));
    tar.args(
        package
            .omit
            .iter()
            .map(|pattern| format!("--exclude={pattern}")),
    );
    tar.arg("--");
    tar.args(
        package
            .keep
            .iter()
            .map(|name| format!("{}/{name}", package.from)),
    );
    run::output(&mut tar, "unpacking a package")?;
    settle(&home)?;
    for name in package.executable {
        let path = home.join(name);
        if !path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
            return Err(unexpected("the package has no such program", name));
        }
        set_mode(&path, 0o755)?;
    }
    let mut description = run::command("tar");
    description.args(["--to-stdout", "-xzf"]).arg(tarball);
    description.args(["--", "package/package.json"]);
    let text = run::output(&mut description, "reading a package's description")?;
    real_version(&text)
}

/// Gives everything below `dir` the permission bits that an image should have. A package holds files and folders:
/// anything else could lead out of it.
fn settle(dir: &Path) -> Result<(), ImageError> {
    for entry in fs::read_dir(dir).map_err(ImageError::io("read", dir))? {
        let entry = entry.map_err(ImageError::io("read", dir))?;
        let (path, kind) = (
            entry.path(),
            entry.file_type().map_err(ImageError::io("read", dir))?,
        );
        if kind.is_dir() {
            set_mode(&path, 0o755)?;
            settle(&path)?;
        } else if kind.is_file() {
            set_mode(&path, 0o644)?;
        } else {
            return Err(unexpected(
                "the package holds something else than files and folders",
                &entry.file_name().to_string_lossy(),
            ));
        }
    }
    Ok(())
}

/// Makes the folders of a path, each one open to everybody.
fn open_folders(tree: &Path, path: &Path) -> Result<(), ImageError> {
    let mut dir = tree.to_owned();
    for part in path {
        dir.push(part);
        build::open_folder(&dir)?;
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<(), ImageError> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(ImageError::io("set the permissions of", path))
}

fn real_version(text: &str) -> Result<String, ImageError> {
    if text.len() as u64 >= MAX_JSON {
        return Err(unexpected("the package's description is too long", ""));
    }
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use sbx_agents::{Agent, Install};
    use std::process::Command;

    const PACKAGE: Package = Package {
        name: "example",
        platform: "",
        version: None,
        from: "package/vendor",
        to: "usr/local/lib/example",
        keep: &["bin", "data.json"],
        omit: &["*/bin/extra"],
        executable: &["bin/tool"],
    };

    /// A package made of a shell line's files.
    fn tarball(dir: &Path, line: &str) -> std::path::PathBuf {
        let script = format!(
            "mkdir -p package/vendor/bin/extra && cd package && echo '{{\"version\":\"1.2.3\"}}' >package.json && \
             cd vendor && echo tool >bin/tool && echo x >bin/extra/x && echo {{}} >data.json && echo no >other && \
             chmod -R u+w,g+w,o+w . && {line} && cd ../.. && tar -czf p.tgz package"
        );
        let done = Command::new("sh")
            .args(["-ec", &script])
            .current_dir(dir)
            .status();
        assert!(done.unwrap().success());
        dir.join("p.tgz")
    }

    #[test]
    fn what_is_kept_is_laid_out_with_the_bits_of_an_image_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        let version = lay_out(&PACKAGE, &tarball(dir.path(), "true"), &tree).unwrap();
        assert_eq!(version, "1.2.3");
        let home = tree.join(PACKAGE.to);
        let mode = |name: &str| home.join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("bin/tool"), 0o755);
        assert_eq!(mode("data.json"), 0o644);
        assert_eq!(mode("bin"), 0o755);
        assert!(!home.join("bin/extra").exists() && !home.join("other").exists());
    }

    #[test]
    fn link_in_a_package_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        let tarball = tarball(dir.path(), "ln -s /etc/passwd bin/link");
        let error = lay_out(&PACKAGE, &tarball, &tree).unwrap_err();
        assert!(error.to_string().contains("something else"), "{error}");
    }

    #[test]
    fn program_that_the_package_lacks_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        let tarball = tarball(dir.path(), "mv bin/tool bin/other");
        let error = lay_out(&PACKAGE, &tarball, &tree).unwrap_err();
        assert!(error.to_string().contains("bin/tool"), "{error}");
    }

    #[test]
    fn version_that_is_an_option_or_an_address_is_refused() {
        let agent: Agent = "claude".parse().unwrap();
        let Install::Layer(layer) = &agent.install else {
            panic!("no layer");
        };
        let mut log = tempfile::tempfile().unwrap();
        for bad in ["", "--global", "1 2", "file:/etc", "../x"] {
            let nowhere = Path::new("/nonexistent");
            let error = fetch(layer, bad, nowhere, nowhere, &mut log).unwrap_err();
            assert!(error.to_string().contains("no version"), "{bad}: {error}");
        }
    }

    #[test]
    fn package_that_cannot_be_fetched_names_the_next_step() {
        let tool = ImageError::Tool {
            program: "npm".into(),
            doing: "fetching a package",
            status: "exit status: 1".into(),
            tail: "npm error code E404".into(),
        };
        let report = unavailable(&PACKAGE, "latest", tool).report();
        assert_eq!(report.code, "package-unavailable");
        assert!(report.message.contains("example@latest") && report.message.contains("E404"));
        assert!(report.hint.unwrap().contains("npm view example@latest"));
    }
}
