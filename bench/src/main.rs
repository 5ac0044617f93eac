//! `./dev bench NAME [--json]`: figures side by side with peers in the same run. One line a figure.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures are what this prints"
)]

mod attach;
mod debian_vm;
mod density;
mod figure;
mod front;
mod fs;
mod net;
mod podman;
mod proxy;
mod srt;
mod start;
mod tool;
mod tree;

use std::process::ExitCode;

const USAGE: &str = "\
usage: ./dev bench NAME [--json]

  start           from nothing to a first program; beside podman, srt and a stock Debian VM
  density         memory and processor time of many idle sandboxes
  attach          coming back to an agent that runs, until its screen is painted
  proxy [PEER…]   the gateway as an intercepting proxy; beside squid, mitmproxy, hudsucker
  credentials     writing a credential and looking for it in the answer; beside plain interception
  net             bytes in and out of a guest; beside QEMU's user network and passt
  fs              requests to the share from a client on the host; beside both virtiofsd, in Rust and in C
  fs --guest      git and npm in a guest; beside virtiofsd in C in the same guest, and its own disk";

fn main() -> ExitCode {
    let mut words = std::env::args();
    let name = words.next().unwrap_or_default();
    let arguments: Vec<String> = words.collect();
    if name.ends_with(front::QEMU) {
        eprintln!("{}", front::become_qemu(&arguments));
        return ExitCode::FAILURE;
    }
    let json = arguments.iter().any(|word| word == "--json");
    let names: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|word| *word != "--json")
        .collect();
    let figures = match names.as_slice() {
        ["start"] => start::run(),
        ["density"] => density::run(),
        ["attach"] => attach::run(),
        ["net"] => net::run(),
        ["fs"] => fs::run(),
        ["credentials"] => proxy::injection(),
        ["fs", "--guest"] => fs::guest::run(),
        ["proxy", peers @ ..] => proxy::run(peers),
        // Processes of a benchmark that are started by itself.
        ["part", "load"] => proxy::load_part().map(|()| Vec::new()),
        ["part", "gateway", port, folder] => proxy::gateway_part(port, folder).map(|()| Vec::new()),
        _ => {
            eprintln!("{USAGE}");
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
