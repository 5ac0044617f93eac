//! `sbx policy rm network`.

use crate::commands::Context;
use crate::exit::Exit;
use crate::prompt;
use sbx_wire::api::{RemoveRule, RemovedRules};
use sbx_wire::report::Report;

/// Remove rules by id or by resource
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Rule id, as printed by `policy ls --wide`
    #[arg(long, required_unless_present = "resource")]
    id: Option<String>,
    /// Resource, as it was added
    #[arg(long, conflicts_with = "id")]
    resource: Option<String>,
    /// Within the rules of this sandbox
    #[arg(long)]
    sandbox: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    if !args.force && prompt::possible(context.no_input) && !prompt::confirm("Remove the rule?") {
        context.printer.notice("Nothing was removed");
        return Ok(Exit::Failure);
    }
    let body = RemoveRule {
        id: args.id,
        resource: args.resource,
        sandbox: args.sandbox,
    };
    let done: RemovedRules = context
        .client
        .post("/v1/policy/rules/remove", &body)
        .await?;
    for id in done.removed {
        context.printer.line(&format!("Rule removed: {id}"));
    }
    Ok(Exit::Success)
}
