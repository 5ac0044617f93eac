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
    /// Resource, as it was added; also a comma list
    #[arg(long, conflicts_with = "id")]
    resource: Option<String>,
    /// Of rules with these HTTP methods, as they were added
    #[arg(long, requires = "resource")]
    method: Option<String>,
    /// Of rules with this HTTP path, as it was added
    #[arg(long, requires = "method")]
    path: Option<String>,
    /// Within the rules of this sandbox
    #[arg(long)]
    sandbox: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Within the rules for all sandboxes (older spelling; the default)
    #[arg(short = 'g', long, hide = true, conflicts_with = "sandbox")]
    global: bool,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    if !args.force && prompt::possible(context.no_input) && !prompt::confirm("Remove the rule?") {
        context.printer.notice("Nothing was removed");
        return Ok(Exit::Failure);
    }
    let body = RemoveRule {
        id: args.id,
        resource: args.resource.clone(),
        sandbox: args.sandbox,
        method: args.method,
        path: args.path,
    };
    let done: RemovedRules = context
        .client
        .post("/v1/policy/rules/remove", &body)
        .await?;
    for id in done.removed {
        context.printer.line(&format!("Rule removed: {id}"));
    }
    let resource = args.resource.unwrap_or_default();
    for id in done.narrowed {
        context
            .printer
            .line(&format!("Resource {resource} removed from rule: {id}"));
    }
    Ok(Exit::Success)
}
