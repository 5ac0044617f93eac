//! `sbx policy profile`: rule sets of an organisation that sandboxes choose among.

use crate::commands::Context;
use crate::exit::Exit;
use sbx_wire::report::Report;
use serde_json::json;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Ls(Args),
}

/// List the profiles
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print only names
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) fn run(context: &mut Context, command: &Command) -> Result<Exit, Report> {
    let Command::Ls(args) = command;
    // Only organisations have them, and nobody can belong to one yet.
    if args.json {
        context.printer.json(&json!({ "profiles": [] }))?;
    } else if !args.quiet {
        context
            .printer
            .line("No profiles: they are an organisation's, and none governs this installation");
    }
    Ok(Exit::Success)
}
