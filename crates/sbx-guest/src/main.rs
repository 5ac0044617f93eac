//! `sbx-guest`: PID 1 of a sandbox's virtual machine, or one of its small other roles.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if std::process::id() == 1 {
        sbx_guest::init::run();
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
