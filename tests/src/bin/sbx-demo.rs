//! `./dev demo`: the main job with real parts, one line a claim, without a key, an account or an outside
//! service. Ends non-zero when a claim fails.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the demo is for reading"
)]

use sbx_e2e::Installation;
use sbx_e2e::claims::{Claim, Stage};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// A claim with its name.
type Named = (&'static str, fn(&mut Stage) -> Claim);

fn main() -> ExitCode {
    let start = Instant::now();
    match demo() {
        Ok(0) => {
            println!(
                "\nevery claim held ({:.0} s)",
                start.elapsed().as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Ok(failed) => {
            println!(
                "\n{failed} claims failed ({:.0} s)",
                start.elapsed().as_secs_f64()
            );
            ExitCode::FAILURE
        }
        Err(why) => {
            eprintln!("error: the demo could not be set up: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Number of claims that failed.
fn demo() -> Result<usize, String> {
    let root = tempfile::Builder::new()
        .prefix("sbx-demo-")
        .tempdir()
        .map_err(|e| e.to_string())?;
    // The images go where they will serve the user afterwards.
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute());
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cache = cache
        .or_else(|| Some(home?.join(".cache")))
        .ok_or("HOME is not set")?;
    let installation = Installation::new(root.path(), &cache, None)?;
    println!(
        "a project in {}; the first run builds the image, later ones are quick\n",
        root.path().display()
    );
    let result = Stage::set(installation.clone(), "demo").map(|mut stage| {
        let claims: [Named; 10] = [
            ("the agent's edit is on the host", |stage| {
                stage.edit_on_host()
            }),
            ("the sandbox has a kernel of its own", |stage| {
                stage.own_kernel()
            }),
            ("a file outside the workspace is out of reach", |stage| {
                stage.outside_out_of_reach()
            }),
            ("a container runs in a Docker Engine of its own", |stage| {
                stage.docker_runs()
            }),
            ("an allowed host answers", |stage| {
                stage.allowed_host_answers()
            }),
            ("a denied host gets 403 and the reason", |stage| {
                stage.denied_host_403()
            }),
            ("raw TCP, UDP and ICMP do not leave", |stage| {
                stage.raw_traffic_stopped()
            }),
            ("the key never enters", |stage| stage.key_stays_outside()),
            ("everything is in the log", |stage| stage.policy_log()),
            ("times", |stage| stage.times()),
        ];
        claims
            .iter()
            .filter(|(name, claim)| !show(name, claim(&mut stage)))
            .count()
    });
    for outcome in installation.tear_down() {
        if !outcome.ok() {
            eprintln!("clean-up: {outcome}");
        }
    }
    result
}

fn show(name: &str, claim: Claim) -> bool {
    match claim {
        Ok(observed) => {
            println!("✓ {name}\n    {observed}");
            true
        }
        Err(why) => {
            println!("✗ {name}\n    {}", why.replace('\n', "\n    "));
            false
        }
    }
}
