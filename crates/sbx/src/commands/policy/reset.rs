//! `sbx policy reset`: back to the state before `policy init`.

use super::choose_preset;
use crate::commands::Context;
use crate::exit::Exit;
use crate::prompt;
use sbx_wire::api::{PolicyInit, PolicyReset};
use sbx_wire::report::Report;
use serde_json::json;

/// Remove every rule and the chosen preset; running sandboxes reach nothing until one is chosen again
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let terminal = prompt::possible(context.no_input);
    if !args.force {
        if !terminal {
            return Err(Report::user(
                "confirmation",
                "removing the whole policy needs a confirmation and there is no terminal to ask on",
                "sbx policy reset --force",
            ));
        }
        if !prompt::confirm("Remove every rule, of all sandboxes?") {
            context.printer.notice("Nothing was removed");
            return Ok(Exit::Failure);
        }
    }
    let done: PolicyReset = context.client.post("/v1/policy/reset", &json!({})).await?;
    context
        .printer
        .line(&format!("Policy reset: {} rules removed", done.removed));
    if !done.running.is_empty() {
        context.printer.notice(&format!(
            "note: {} running, reaching nothing until a preset is chosen",
            done.running.join(", ")
        ));
    }
    if !terminal {
        context
            .printer
            .notice("  try: sbx policy init balanced   (or: allow-all, deny-all)");
        return Ok(Exit::Success);
    }
    let body = PolicyInit {
        preset: choose_preset(context)?,
        replace: false,
    };
    let _: serde_json::Value = context.client.post("/v1/policy/init", &body).await?;
    context.printer.line(&format!(
        "Global network policy initialized: {}",
        body.preset
    ));
    Ok(Exit::Success)
}
