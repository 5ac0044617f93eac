//! Running the peers' programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Runs a program to its end and returns its output.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let shown = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run `{shown}`: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "`{shown}` ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// Seconds that a program takes.
pub(crate) fn seconds(program: &str, arguments: &[&str]) -> Result<f64, String> {
    let start = Instant::now();
    output(program, arguments)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Installs a distribution package of a peer when its program is not there.
pub(crate) fn need(program: &str, packages: &[&str]) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .any(|folder| folder.join(program).is_file());
    if found {
        return Ok(());
    }
    install(program, packages)
}

/// The same for what is recognised by a file.
pub(crate) fn need_file(file: &str, packages: &[&str]) -> Result<(), String> {
    if Path::new(file).exists() {
        return Ok(());
    }
    install(file, packages)
}

fn install(what: &str, packages: &[&str]) -> Result<(), String> {
    let mut words = vec!["apt-get", "install", "-y", "-qq", "--no-install-recommends"];
    words.extend(packages);
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err(format!("the peer needs {what}, which is not installed"));
    }
    output("apt-get", &["update", "-qq"])
        .and_then(|_| output(words[0], &words[1..]))
        .map(drop)
        .map_err(|why| format!("{why}\n  try: as root, {}", words.join(" ")))
}

/// Where what is built or installed once is kept.
pub(crate) fn cache(name: &str) -> Result<PathBuf, String> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let home = home.ok_or("HOME is not set")?;
    let cache =
        std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    let folder = cache.join(name);
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    Ok(folder)
}

/// A program that was built beside this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let folder = own.parent().unwrap_or(Path::new("."));
    Ok(folder.join(name))
}
