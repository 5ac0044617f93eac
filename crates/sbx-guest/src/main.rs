//! `sbx-guest`: PID 1 of a sandbox's virtual machine, or one of its small other roles.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    if std::process::id() == 1 {
        sbx_guest::init::run();
    }
    // Under the name of another program it is in that one's place.
    match Path::new(&name).file_name().and_then(OsStr::to_str) {
        Some("runc") => {
            let error = sbx_guest::runc::run(args);
            sbx_guest::console::say(&error.to_string());
            return ExitCode::from(127);
        }
        Some(name) if sbx_guest::browser::NAMES.contains(&name) => {
            return ExitCode::from(sbx_guest::browser::run(args));
        }
        _ => {}
    }
    let result = match args.next().as_deref().and_then(|role| role.to_str()) {
        Some("agent") => sbx_guest::plain::run(),
        Some("activate") => sbx_guest::init::activate(args),
        _ => {
            sbx_guest::console::say(
                "runs as PID 1, or as `sbx-guest agent` on a socket as standard input",
            );
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            sbx_guest::console::say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
