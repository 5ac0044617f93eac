//! `sbx policy init`: the preset to start with, once. `policy set-default` is the older spelling, which may
//! also replace an earlier choice.

use crate::commands::Context;
use crate::exit::Exit;
use sbx_wire::api::PolicyInit;
use sbx_wire::report::Report;

/// Choose the preset that the global policy starts with
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// allow-all (Open), balanced (Balanced) or deny-all (Locked Down)
    #[arg(value_parser = ["allow-all", "balanced", "deny-all"])]
    preset: String,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let replace = std::env::args_os().any(|argument| argument == "set-default");
    let body = PolicyInit {
        preset: args.preset.clone(),
        replace,
    };
    let _: serde_json::Value = context.client.post("/v1/policy/init", &body).await?;
    context.printer.line(&format!(
        "Global network policy initialized: {}",
        args.preset
    ));
    Ok(Exit::Success)
}
