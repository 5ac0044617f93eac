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
const VERSION: &str = "7\n";

/// From Python's registry: clients, and a gRPC server.
const PYTHON: &[&str] = &[
    "requests",
    "httpx[http2]",
    "websockets>=15",
    "grpcio",
    "awscli",
];
/// From npm's: versions of Node before 24 need the first to use a proxy; npm itself, for a guest.
const NODE: &[&str] = &["undici@6", "npm@10"];
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
const AWS_CLI: &str = "awscli";
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
    let all = || {
        let mut names: Vec<String> = DEBIAN.iter().map(ToString::to_string).collect();
        for (package, beginnings) in LIBRARIES {
            names.extend(libraries(package, beginnings)?);
        }
        Ok(names)
    };
    let place = format!("{PLACE}/debian");
    if all().and_then(|names| unpack(&names, &place)).is_err() {
        packages::refresh()?;
        unpack(&all()?, &place)?;
    }
    aws_cli()
}

/// Version 2 of the AWS CLI, which Python's registry does not have, where the distribution's is that.
fn aws_cli() -> Result {
    let output = Command::new("apt-cache").args(["policy", AWS_CLI]).output();
    let known = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let candidate = known.unwrap_or_default();
    let candidate = candidate
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "));
    if !candidate.is_some_and(|version| version.starts_with("2.")) {
        eprintln!("note: without version 2 of the AWS CLI, which this distribution does not have");
        return Ok(());
    }
    let mut names = libraries(AWS_CLI, &["python3-"])?;
    names.push(AWS_CLI.to_owned());
    unpack(&names, &format!("{PLACE}/aws-cli-2"))
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

/// Downloads packages and unpacks them into a folder of their own, for which nobody needs rights.
fn unpack(packages: &[String], place: &str) -> Result {
    let failed = |error: std::io::Error| {
        Failure::new(format!("cannot write {place}: {error}"), "free some space")
    };
    fs::create_dir_all(place).map_err(failed)?;
    let mut command = Command::new("apt-get");
    command
        .args(["download", "-qq", "-o", "APT::Sandbox::User="])
        .args(packages)
        .current_dir(place);
    run::finish(
        &mut command,
        &format!("apt-get download {}", packages.join(" ")),
    )?;
    let entries = fs::read_dir(place).map_err(failed)?;
    for file in entries.flatten().map(|entry| entry.path()) {
        if file.extension().is_some_and(|extension| extension == "deb") {
            run::program("dpkg-deb", &["-x", &file.to_string_lossy(), place])?;
            fs::remove_file(&file).map_err(failed)?;
        }
    }
    Ok(())
}
