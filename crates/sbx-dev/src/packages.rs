//! What the machine needs: distribution packages, the test runner, an ordinary user for the tests.
//!
//! On Debian and Ubuntu missing packages are installed through apt, with the mirror and the suite of the
//! machine's own apt configuration; elsewhere they are named.

use crate::run::{self, Failure, Result, which};
use std::fs;
use std::path::Path;
use std::process::Command;

/// What the packages are for; each needs those before it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum For {
    /// Compiling the workspace.
    Building,
    /// Running sandboxes, the demo and the long suites.
    Running,
    /// The tests, which run real clients.
    Testing,
}

/// How the presence of a package is recognised.
enum Sign {
    Program(&'static str),
    File(&'static str),
    /// Python can make environments of its own.
    PythonVenv,
}

/// Package, how to recognise it, what needs it.
const PACKAGES: &[(&str, Sign, For)] = &[
    (
        "libcap-ng-dev",
        Sign::File("/usr/include/cap-ng.h"),
        For::Building,
    ),
    ("git", Sign::Program("git"), For::Building),
    (
        "qemu-system-x86",
        Sign::Program("qemu-system-x86_64"),
        For::Running,
    ),
    ("qemu-utils", Sign::Program("qemu-img"), For::Running),
    ("mmdebstrap", Sign::Program("mmdebstrap"), For::Running),
    ("uidmap", Sign::Program("newuidmap"), For::Running),
    ("erofs-utils", Sign::Program("mkfs.erofs"), For::Running),
    ("e2fsprogs", Sign::Program("mke2fs"), For::Running),
    ("xz-utils", Sign::Program("xz"), For::Running),
    ("util-linux", Sign::Program("setpriv"), For::Running),
    (
        "ca-certificates",
        Sign::File("/etc/ssl/certs/ca-certificates.crt"),
        For::Running,
    ),
    ("npm", Sign::Program("npm"), For::Running),
    ("iproute2", Sign::Program("ip"), For::Running),
    ("openssh-client", Sign::Program("ssh-agent"), For::Testing),
    ("curl", Sign::Program("curl"), For::Testing),
    ("strace", Sign::Program("strace"), For::Testing),
    ("dbus-daemon", Sign::Program("dbus-daemon"), For::Testing),
    ("dbus-bin", Sign::Program("dbus-send"), For::Testing),
    ("python3-venv", Sign::PythonVenv, For::Testing),
];

/// Name of the ordinary user that the end-to-end tests run as when they are started by root.
pub(crate) const TEST_USER: &str = "sbx-test";

/// Installs what is missing; does nothing when nothing is.
pub(crate) fn install(purpose: For) -> Result {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(_, sign, need)| *need <= purpose && !present(sign))
        .map(|(package, ..)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if which("apt-get").is_none() {
        return Err(Failure::new(
            format!("these packages are missing (Debian's names): {list}"),
            "install them with this distribution's package manager",
        ));
    }
    eprintln!("installing packages: {list}");
    let backports = backports(&missing);
    apt(&["update", "-qq"], backports.as_ref())?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    let suite = backports
        .as_ref()
        .map(|list| list.suite.clone())
        .unwrap_or_default();
    if !suite.is_empty() {
        arguments.extend(["-t", suite.as_str()]);
    }
    arguments.extend(&missing);
    apt(&arguments, backports.as_ref())
}

fn present(sign: &Sign) -> bool {
    match sign {
        Sign::Program(name) => which(name).is_some(),
        Sign::File(path) => Path::new(path).exists(),
        Sign::PythonVenv => Command::new("python3")
            .args(["-c", "import ensurepip, venv"])
            .output()
            .is_ok_and(|output| output.status.success()),
    }
}

/// A temporary source list with the suite that has a newer QEMU.
struct Backports {
    suite: String,
    list: std::path::PathBuf,
}

/// Debian 12 has QEMU 7.2 and, in its backports, QEMU 10: the list for it, from the machine's own mirror.
/// `None` where it does not apply; QEMU 7.2 works too.
fn backports(missing: &[&str]) -> Option<Backports> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let bookworm = release
        .lines()
        .any(|line| line == "VERSION_CODENAME=bookworm");
    if !bookworm || !missing.iter().any(|package| package.starts_with("qemu")) {
        return None;
    }
    let suite = "bookworm-backports".to_owned();
    let mirror = sbx_image::apt::detect(Path::new("/etc/apt"))?.main;
    let list = std::env::temp_dir().join(format!("sbx-apt-{}.list", std::process::id()));
    let own = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    fs::write(&list, format!("{own}\ndeb {mirror} {suite} main\n")).ok()?;
    Some(Backports { suite, list })
}

/// Runs apt as root: directly, or through sudo.
fn apt(arguments: &[&str], backports: Option<&Backports>) -> Result {
    let mut words: Vec<String> = vec!["apt-get".to_owned()];
    if let Some(backports) = backports {
        words.extend([
            "-o".to_owned(),
            format!("Dir::Etc::SourceList={}", backports.list.display()),
        ]);
    }
    words.extend(arguments.iter().map(|word| (*word).to_owned()));
    if !is_root() {
        if which("sudo").is_none() {
            return Err(Failure::new(
                "installing packages needs root, and there is no sudo",
                format!("run as root: {}", words.join(" ")),
            ));
        }
        words.insert(0, "sudo".to_owned());
    }
    let shown = words.join(" ");
    let (program, rest) = words
        .split_first()
        .ok_or_else(|| Failure::new("empty command", ""))?;
    let mut command = Command::new(program);
    command.args(rest).env("DEBIAN_FRONTEND", "noninteractive");
    run::finish(&mut command, &shown)
}

/// Has apt look for what there is.
pub(crate) fn refresh() -> Result {
    apt(&["update", "-qq"], None)
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|self_| std::os::unix::fs::MetadataExt::uid(&self_) == 0)
}

/// A C++ compiler, which the fuzzer is built with and nothing else needs.
pub(crate) fn cxx() -> Result {
    if which("c++").is_some() {
        return Ok(());
    }
    if which("apt-get").is_none() {
        return Err(Failure::new(
            "there is no C++ compiler (c++), which the fuzzer needs",
            "install g++ with this distribution's package manager",
        ));
    }
    eprintln!("installing packages: g++");
    apt(&["update", "-qq"], None)?;
    apt(
        &["install", "-y", "-qq", "--no-install-recommends", "g++"],
        None,
    )
}

/// The test runner, when the toolchain has come without it.
pub(crate) fn test_runner() -> Result {
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
    command.args(["nextest", "--version"]);
    if command.output().is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    eprintln!("installing the test runner cargo-nextest");
    run::cargo(&["install", "--quiet", "--locked", "cargo-nextest"])
}

/// An ordinary user for the end-to-end tests, when they are started by root.
pub(crate) fn test_user() -> Result {
    if !is_root() {
        return Ok(());
    }
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if !known
        .lines()
        .any(|line| line.starts_with(&format!("{TEST_USER}:")))
    {
        run::program(
            "useradd",
            &["--create-home", "--shell", "/bin/sh", TEST_USER],
        )?;
    }
    let ranges = fs::read_to_string("/etc/subuid").unwrap_or_default();
    if ranges
        .lines()
        .any(|line| line.starts_with(&format!("{TEST_USER}:")))
    {
        return Ok(());
    }
    run::program(
        "usermod",
        &[
            "--add-subuids",
            "2000000-2065535",
            "--add-subgids",
            "2000000-2065535",
            TEST_USER,
        ],
    )
}
