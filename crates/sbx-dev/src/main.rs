//! The project's own tasks. `./dev` builds and runs this.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stderr,
    reason = "a development tool talks to the person who called it"
)]

mod build;
mod clients;
mod failures;
mod fuzz;
mod guards;
mod house;
mod packages;
mod run;

use run::{Failure, Result};
use std::process::ExitCode;

const USAGE: &str = "\
usage: ./dev VERB

  setup          install what is missing and build everything (the other verbs call it)
  demo           one command shows the main job done, with real parts
  test           lint, unit, property, process-level and end-to-end tests
  soak [NAME]    long suites: agents, boot, power, files, fsynced, fuzz, guards, kills
  bench NAME [--json]   side by side with peers: start, attach, density, proxy, credentials, net,
                        fs, fs --guest
  lint           formatting, clippy, house rules
  fmt            format the code";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["setup"] => setup(),
        ["demo", rest @ ..] => setup().and_then(|()| program("sbx-demo", rest)),
        ["test", rest @ ..] => test(rest),
        ["soak", "fuzz", rest @ ..] => fuzz::run(rest),
        ["soak", "guards", rest @ ..] => guards::run(rest),
        ["soak", rest @ ..] => setup().and_then(|()| program("sbx-soak", rest)),
        ["bench", rest @ ..] => setup().and_then(|()| program("sbx-bench", rest)),
        ["lint"] => packages::install(packages::For::Building).and_then(|()| lint()),
        ["fmt"] => run::cargo(&["fmt", "--all"]),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { message, hint }) => {
            eprintln!("error: {message}");
            if let Some(hint) = hint {
                eprintln!("  try: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Installs what is missing, builds everything, puts the helper binaries beside `sbx`.
fn setup() -> Result {
    packages::install(packages::For::Running)?;
    build::everything()
}

fn lint() -> Result {
    run::cargo(&["fmt", "--all", "--check"])?;
    house::check()?;
    // The fuzzer's workspace has a lock file of its own, and nothing else finds out that it is out of date.
    run::cargo(&[
        "fetch",
        "--quiet",
        "--locked",
        "--manifest-path",
        "fuzz/Cargo.toml",
    ])?;
    run::cargo(&[
        "clippy",
        "--release",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])
}

/// The runner's closing line is the last thing printed.
fn test(rest: &[&str]) -> Result {
    setup()?;
    packages::test_runner()?;
    packages::test_user()?;
    packages::install(packages::For::Testing)?;
    clients::install()?;
    lint()?;
    let mut arguments = vec!["nextest", "run", "--release", "--locked", "--workspace"];
    arguments.extend(rest);
    // That of an earlier run says nothing of this one.
    let report = std::path::Path::new(failures::REPORT);
    let _ = std::fs::remove_file(report);
    run::cargo(&arguments).inspect_err(|_| eprint!("{}", failures::summary(report)))
}

fn program(name: &str, arguments: &[&str]) -> Result {
    run::program(&format!("target/release/{name}"), arguments)
}
