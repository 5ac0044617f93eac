//! The client programs that the tests run and that are no packages of the distribution, or should not be installed for
//! them: once, in `target/clients`, through the machine's own pip, npm, apt and cargo.

use crate::build;
use crate::packages;
use crate::run::{self, Failure, Result, which};
use std::fs;
use std::path::Path;
use std::process::Command;

const PLACE: &str = "target/clients";
/// Holds [`VERSION`] once everything is there.
const COMPLETE: &str = "target/clients/complete";
/// To be raised with every change to the lists.
const VERSION: &str = "6\n";

/// From Python's registry: clients, and a gRPC server.
const PYTHON: &[&str] = &[
    "requests",
    "httpx[http2]",
    "websockets>=15",
    "grpcio",
    "awscli",
];
/// From npm's: versions of Node before 24 need it to use a proxy.
const NODE: &[&str] = &["undici@6"];
/// Debian packages that are unpacked, not installed: a client that is a Go program, one of registries of images, and such a
/// registry and a keychain, which would otherwise start a service; and all that a guest needs that is nothing else.
const DEBIAN: &[&str] = &[
    "busybox-static",
    "git-lfs",
    "docker-registry",
    SKOPEO,
    KEYCHAIN,
];
const SKOPEO: &str = "skopeo";
const KEYCHAIN: &str = "gnome-keyring";
/// Beginnings of the names of the libraries that these need and that few other programs do; the numbers behind them differ
/// from release to release.
const LIBRARIES: &[(&str, &[&str])] = &[
    (KEYCHAIN, &["libgck-", "libgcr-", "libp11-kit"]),
    (SKOPEO, &["libassuan", "libdevmapper", "libgpgme"]),
];
/// From Rust's: a test suite for file systems, which runs in a guest and is therefore linked statically.
const SUITE: (&str, &str) = ("pjdfstest", "=0.2.2");

/// Installs what is missing; does nothing when nothing is.
pub(crate) fn install() -> Result {
    if fs::read_to_string(COMPLETE).is_ok_and(|version| version == VERSION) {
        return Ok(());
    }
    eprintln!("installing client programs for the tests in {PLACE}");
    let failed = |error: std::io::Error| {
        Failure::new(
            format!("cannot write {PLACE}: {error}"),
            "free some space in target",
        )
    };
    if Path::new(PLACE).exists() {
        fs::remove_dir_all(PLACE).map_err(failed)?;
    }
    fs::create_dir_all(PLACE).map_err(failed)?;
    python()?;
    node()?;
    debian()?;
    suite()?;
    fs::write(COMPLETE, VERSION).map_err(failed)
}

fn python() -> Result {
    let environment = format!("{PLACE}/python");
    run::program("python3", &["-m", "venv", &environment])?;
    let pip = format!("{environment}/bin/pip");
    let mut arguments = vec!["install", "--quiet", "--disable-pip-version-check"];
    arguments.extend(PYTHON);
    run::program(&pip, &arguments)
}

fn node() -> Result {
    let place = format!("{PLACE}/node");
    let mut arguments = vec![
        "install",
        "--silent",
        "--no-fund",
        "--no-audit",
        "--prefix",
        &place,
    ];
    arguments.extend(NODE);
    run::program("npm", &arguments)
}

fn suite() -> Result {
    let (name, version) = SUITE;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let build = format!("{PLACE}/cargo-build");
    let mut command = Command::new(cargo);
    command
        .args(["install", "--quiet", "--locked", name, "--version", version])
        // Named, so that the flags are not for build scripts too.
        .args(["--target", build::GUEST_TARGET, "--target-dir", &build])
        .args(["--no-track", "--root", &format!("{PLACE}/cargo")])
        .env("RUSTFLAGS", build::STATIC);
    run::finish(&mut command, &format!("cargo install {name}"))?;
    fs::remove_dir_all(&build).map_err(|error| {
        Failure::new(
            format!("cannot remove {build}: {error}"),
            "remove it and run ./dev test again",
        )
    })
}

fn debian() -> Result {
    if which("apt-get").is_none() || which("dpkg-deb").is_none() {
        return Err(Failure::new(
            format!(
                "the tests need these packages unpacked in {PLACE}/debian: {}",
                DEBIAN.join(", ")
            ),
            "run the tests on Debian or Ubuntu",
        ));
    }
    if download().is_err() {
        packages::refresh()?;
        download()?;
    }
    let folder = fs::read_dir(PLACE)
        .map_err(|error| Failure::new(format!("{PLACE}: {error}"), "run ./dev test again"))?;
    for file in folder.flatten().map(|entry| entry.path()) {
        if file.extension().is_some_and(|extension| extension == "deb") {
            let file = file.to_string_lossy();
            run::program("dpkg-deb", &["-x", &file, &format!("{PLACE}/debian")])?;
        }
    }
    Ok(())
}

/// The libraries that a package needs, by what apt knows of it.
fn libraries(package: &str, beginnings: &[&str]) -> Result<Vec<String>> {
    let shown = "apt-cache depends";
    let output = Command::new("apt-cache")
        .args(["depends", "--recurse", "--important", package])
        .output()
        .map_err(|error| Failure::new(format!("{shown}: {error}"), "run ./dev test again"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut names: Vec<String> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .filter(|name| beginnings.iter().any(|begin| name.starts_with(begin)))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(Failure::new(
            format!("{shown} knows nothing of {package}"),
            "apt-get update",
        ));
    }
    Ok(names)
}

/// Needs no rights: the files go to the current folder.
fn download() -> Result {
    let mut needed = Vec::new();
    for (package, beginnings) in LIBRARIES {
        needed.extend(libraries(package, beginnings)?);
    }
    let mut command = Command::new("apt-get");
    command
        .args(["download", "-qq", "-o", "APT::Sandbox::User="])
        .args(DEBIAN)
        .args(needed)
        .current_dir(PLACE);
    run::finish(
        &mut command,
        &format!("apt-get download {}", DEBIAN.join(" ")),
    )
}
