//! Builds images on behalf of the daemon: see `sbx_image::worker`. Reads one job, writes JSON lines, ends.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|flag| flag == "--version")
    {
        let version = env!("CARGO_PKG_VERSION");
        return match writeln!(std::io::stdout(), "sbx-image-worker {version}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let Ok(worker) = std::env::current_exe() else {
        return ExitCode::FAILURE;
    };
    if sbx_image::worker::main(&worker, std::io::stdin(), &mut std::io::stdout()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
