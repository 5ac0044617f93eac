//! Builds images on behalf of the daemon: see `sbx_image::worker`. Reads one job, writes JSON lines, ends.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let Ok(worker) = std::env::current_exe() else {
        return ExitCode::FAILURE;
    };
    if sbx_image::worker::main(&worker, std::io::stdin(), &mut std::io::stdout()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
