//! A Debian root file system with programs in many languages, for containers. Made once per machine, with
//! the archive of the machine's own apt, at the host's speed: a guest would take many minutes.

use crate::installation::{Installation, run};
use std::fs;
use std::path::{Path, PathBuf};

/// What is in it besides the essential packages.
const PACKAGES: [&str; 8] = [
    "ca-certificates",
    "curl",
    "default-jre-headless",
    "nodejs",
    "openssl",
    "python3-pip",
    "python3-requests",
    "rhino",
];
/// Rises with every change to what is made of the packages.
const RECIPE: u32 = 2;
/// What [`Debian::base`] is without: a guest reads it from [`Debian::tree`].
const LARGE: [&str; 10] = [
    "./usr/lib/jvm",
    "./usr/lib/x86_64-linux-gnu/gconv",
    "./usr/lib/x86_64-linux-gnu/libicu*",
    "./usr/lib/x86_64-linux-gnu/libnode*",
    "./usr/lib/x86_64-linux-gnu/perl*",
    "./usr/share/java",
    "./usr/share/nodejs/@types",
    "./usr/share/nodejs/corepack",
    "./var/cache",
    "./var/lib/dpkg",
];

/// See the module.
#[derive(Debug, Clone)]
pub struct Debian {
    /// Holds the other two.
    pub folder: PathBuf,
    /// All of it, unpacked.
    pub tree: PathBuf,
    /// What makes a container of its own, as a tar file: all but the largest parts of Java and Node.js.
    pub base: PathBuf,
}

impl Debian {
    /// Finds it in `cache`, or makes it.
    ///
    /// # Errors
    /// Which program failed, with its output.
    pub fn new(installation: &Installation, cache: &Path) -> Result<Self, String> {
        let folder = cache.join(format!("debian-{RECIPE}-{}", PACKAGES.join("-")));
        let this = |folder: &Path| Self {
            folder: folder.to_path_buf(),
            tree: folder.join("tree"),
            base: folder.join("base.tar"),
        };
        if folder.is_dir() {
            return Ok(this(&folder));
        }
        let new = folder.with_extension(std::process::id().to_string());
        make(installation, &new, &this(&new))?;
        fs::rename(&new, &folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(this(&folder))
    }
}

fn make(installation: &Installation, folder: &Path, parts: &Debian) -> Result<(), String> {
    fs::create_dir_all(&parts.tree).map_err(|error| format!("{}: {error}", folder.display()))?;
    for folder in [folder, &parts.tree] {
        installation.own(folder)?;
    }
    let archive = sbx_image::apt::detect(Path::new("/etc/apt"))
        .ok_or("apt's configuration names no Debian archive")?;
    let whole = folder.join("whole.tar").display().to_string();
    let tree = parts.tree.display().to_string();
    let base = parts.base.display().to_string();
    let mut words = vec![
        "--mode=unshare".to_owned(),
        "--variant=essential".to_owned(),
    ];
    let options = folder.join("apt-options");
    let text = sbx_image::apt::options().map_err(|error| error.to_string())?;
    fs::write(&options, text).map_err(|error| format!("{}: {error}", options.display()))?;
    installation.own(&options)?;
    words.push(format!("--aptopt={}", options.display()));
    let no_text = ["doc", "locale", "man"].map(|name| format!("path-exclude=/usr/share/{name}/*"));
    words.extend(no_text.map(|option| format!("--dpkgopt={option}")));
    // Java's package links its manual there.
    words.push("--extract-hook=mkdir -p \"$1/usr/share/man/man1\"".to_owned());
    words.push(format!("--include={}", PACKAGES.join(",")));
    words.extend([sbx_image::SUITE.to_owned(), whole.clone()]);
    words.extend(sbx_image::apt::lines(&archive));
    done(installation, "/usr/bin/mmdebstrap", words)?;
    let extract = ["-C", &tree, "--exclude=./dev/*", "-xf", &whole];
    done(installation, "/usr/bin/tar", extract)?;
    let mut words = vec!["-C", &tree, "-cf", &base, "--owner=0", "--group=0"];
    let without: Vec<String> = LARGE
        .iter()
        .map(|part| format!("--exclude={part}"))
        .collect();
    words.extend(without.iter().map(String::as_str));
    words.push(".");
    done(installation, "/usr/bin/tar", words)?;
    fs::remove_file(&whole).map_err(|error| format!("{whole}: {error}"))
}

fn done<S: Into<std::ffi::OsString>>(
    installation: &Installation,
    program: &str,
    words: impl IntoIterator<Item = S>,
) -> Result<(), String> {
    let mut command = installation.program(program, words);
    // These look for programs that an ordinary user has no reason to.
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    run(command, b"").success().map(drop)
}
