//! `sbx`: the command. One verb, one file under `commands/`; everything printed goes through
//! [`printer::Printer`], every failure is a [`Report`], every exit code an [`exit::Exit`].
#![forbid(unsafe_code)]

mod answer;
mod attach;
mod cli;
mod client;
mod commands;
mod detach;
mod environment;
mod exit;
mod guarding;
mod lookup;
mod printer;
mod prompt;
mod signals;
mod since;
mod socket;
mod table;

use clap::Parser;
use sbx_wire::report::Report;

fn main() {
    let code = run().code();
    // The thread that reads standard input may be blocked in `read`; returning would wait for it.
    std::process::exit(code);
}

fn run() -> exit::Exit {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let usage_error = error.use_stderr();
            return match error.print() {
                Ok(()) if !usage_error => exit::Exit::Success,
                _ => exit::Exit::Usage,
            };
        }
    };
    let (leave, mut left) = tokio::sync::mpsc::channel(1);
    let mut context = match commands::Context::new(&cli.global, leave) {
        Ok(context) => context,
        Err(report) => return printer::Printer::new(false).report(&report),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let report = Report::environment(
                "runtime",
                format!("cannot start the event loop: {error}"),
                "check the limits on open files and threads (`ulimit -a`)",
            );
            return context.printer.report(&report);
        }
    };
    let result = runtime.block_on(async {
        tokio::select! {
            result = commands::dispatch(&mut context, cli.command) => result,
            Some(kind) = left.recv() => Ok(exit::Exit::signal(kind)),
        }
    });
    runtime.shutdown_background();
    match result {
        Ok(exit) => context.printer.conclude(exit),
        Err(report) => context.printer.report(&report),
    }
}
