//! `sbx-gateway`: see the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use sbx_gateway::process::{Options, run};

#[expect(
    clippy::print_stderr,
    reason = "before there is a log, and for whoever started us"
)]
fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "ended");
            eprintln!("sbx-gateway: {error}");
            ExitCode::FAILURE
        }
    }
}
