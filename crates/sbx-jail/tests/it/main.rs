//! The jail, tried on a process of its own for each fact: this binary starts itself again as a probe, the probe jails
//! itself and reports what it could still do.

mod facts;
mod probe;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Names the probe that a child process runs, instead of the tests.
const PROBE: &str = "SBX_JAIL_PROBE";

fn main() -> ExitCode {
    if let Ok(name) = std::env::var(PROBE) {
        return probe::run(&name);
    }
    let trials = facts::FACTS
        .iter()
        .map(|(name, fact)| Trial::test(*name, || fact().map_err(Into::into)))
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
