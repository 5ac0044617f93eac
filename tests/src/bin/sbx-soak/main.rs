//! The long suites that drive sandboxes: `./dev soak NAME`.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a long suite reports as it goes"
)]

mod agents;
mod boot;
mod files;
mod fsynced;
mod kills;
mod power;

use sbx_e2e::Installation;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: ./dev soak agents [NAME]…        each agent at work, against a stand-in of its provider (all)
       ./dev soak boot [N]             N cold boots with every core busy (50)
       ./dev soak power [ITEMS [CUTS]] power cuts of a disk: of this many changes (100), at this many flushes (200)
       ./dev soak files [OPERATIONS [SEED]] random operations of host and guest in turn on one folder (100000, seed 1)
       ./dev soak fsynced [KILLS [SEED]] processes killed while host and guest write and make it last (100, seed 1)
       ./dev soak kills [--held N] [--running N] [--seed N] [--jobs N] [--cache DIR] [--only CASE]…
                                       processes killed without a guest (1000) and with one (50)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u32>().ok();
    let numbers: Option<Vec<u32>> = words.iter().skip(1).map(|word| number(word)).collect();
    if let ["kills", rest @ ..] = words.as_slice() {
        return ended(kills::run(rest));
    }
    if let ["agents", names @ ..] = words.as_slice() {
        return ended(agents::run(names));
    }
    let done = match (words.first().copied(), numbers.as_deref()) {
        (None | Some("boot"), Some([])) => boot::run(50),
        (Some("boot"), Some([count])) => boot::run(*count),
        (Some("power"), Some([])) => power::run(100, 200),
        (Some("power"), Some([items])) => power::run(*items, 200),
        (Some("power"), Some([items, cuts])) => power::run(*items, *cuts),
        (Some("files"), Some([])) => files::run(100_000, 1),
        (Some("files"), Some([operations])) => files::run(*operations, 1),
        (Some("files"), Some([operations, seed])) => files::run(*operations, *seed),
        (Some("fsynced"), Some([])) => fsynced::run(100, 1),
        (Some("fsynced"), Some([kills])) => fsynced::run(*kills, 1),
        (Some("fsynced"), Some([kills, seed])) => fsynced::run(*kills, *seed),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    ended(done)
}

fn ended(done: Result<(), String>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// An installation of its own, with this user's images; its folder.
fn setting() -> Result<(tempfile::TempDir, Installation), String> {
    let root = tempfile::Builder::new()
        .prefix("sbx-soak-")
        .tempdir_in("/var/tmp")
        .map_err(|e| e.to_string())?;
    let installation = Installation::new(root.path(), &cache()?, None)?;
    installation.sbx(["policy", "init", "deny-all"]).success()?;
    Ok((root, installation))
}

/// Where this user's images are.
fn cache() -> Result<PathBuf, String> {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .ok_or("HOME is not set")?;
    Ok(std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from))
}
