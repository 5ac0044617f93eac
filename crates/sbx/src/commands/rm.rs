//! `sbx rm`: ends sandboxes and deletes what they hold.

use super::Context;
use crate::client::encode;
use crate::exit::Exit;
use crate::{lookup, prompt};
use sbx_wire::report::Report;

/// Remove sandboxes and everything in them; workspaces on the host stay
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Sandboxes
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    sandboxes: Vec<String>,
    /// Remove all sandboxes
    #[arg(long)]
    all: bool,
    /// Do not ask, and remove even while sessions are attached
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let names = if args.all {
        lookup::all(&context.client)
            .await?
            .into_iter()
            .map(|sandbox| sandbox.name)
            .collect()
    } else {
        for name in &args.sandboxes {
            lookup::one(&context.client, name).await?;
        }
        args.sandboxes
    };
    if names.is_empty() {
        context.printer.notice("No sandboxes to remove");
        return Ok(Exit::Success);
    }
    if !args.force {
        let list = names.join(" ");
        if !prompt::possible(context.no_input) {
            return Err(Report::user(
                "confirmation",
                format!("removing {list} needs a confirmation and there is no terminal to ask on"),
                format!("sbx rm --force {list}"),
            ));
        }
        if !prompt::confirm(&format!("Remove {list} and everything in it?")) {
            context.printer.notice("Nothing was removed");
            return Ok(Exit::Failure);
        }
    }
    let mut exit = Exit::Success;
    for name in &names {
        let path = format!("/v1/sandboxes/{}?force={}", encode(name), args.force);
        match context.client.delete(&path).await {
            Ok(()) => context.printer.line(&format!("Removed {name}")),
            Err(report) => exit = context.printer.report(&report),
        }
    }
    Ok(exit)
}
