//! `./dev bench NAME [--json]`: figures side by side with peers in the same run. One line a figure.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures are what this prints"
)]

mod debian_vm;
mod figure;
mod podman;
mod start;
mod tool;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|word| word == "--json");
    let names: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|word| *word != "--json")
        .collect();
    let figures = match names.as_slice() {
        ["start"] => start::run(),
        _ => {
            eprintln!("usage: ./dev bench start [--json]");
            return ExitCode::from(2);
        }
    };
    match figures {
        Ok(figures) => {
            for figure in figures {
                println!("{}", figure.line(json));
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
