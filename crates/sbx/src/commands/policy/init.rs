//! `sbx policy init`: the preset to start with, once. `policy set-default` is the older spelling, which may
//! also replace an earlier choice.

use crate::commands::Context;
use crate::exit::Exit;
use crate::prompt;
use sbx_wire::api::PolicyInit;
use sbx_wire::report::Report;

/// Choose the preset that the global policy starts with
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// allow-all (Open), balanced (Balanced) or deny-all (Locked Down); without one, asks on a terminal
    #[arg(value_parser = ["allow-all", "balanced", "deny-all"])]
    preset: Option<String>,
}

/// `replace`: an earlier choice, too.
pub(crate) async fn run(context: &mut Context, args: Args, replace: bool) -> Result<Exit, Report> {
    let preset = match args.preset {
        Some(preset) => preset,
        None => choose_preset(context)?,
    };
    let body = PolicyInit {
        preset: preset.clone(),
        replace,
    };
    let _: serde_json::Value = context.client.post("/v1/policy/init", &body).await?;
    context
        .printer
        .line(&format!("Global network policy initialized: {preset}"));
    Ok(Exit::Success)
}

/// Asks for a preset; without a terminal an error that names the three.
pub(crate) fn choose_preset(context: &Context) -> Result<String, Report> {
    let missing = |message: &str| {
        let hint = "sbx policy init balanced   (or: allow-all, deny-all)";
        Report::user("policy-not-initialized", message, hint)
    };
    if !prompt::possible(context.no_input) {
        return Err(missing(
            "the global network policy has not been initialized",
        ));
    }
    let options = [
        "balanced   what development needs: AI services, package managers, code hosts",
        "allow-all  everything may leave, all of it is recorded",
        "deny-all   nothing leaves until you allow it",
    ];
    let question = "Which network policy shall sandboxes start with?";
    prompt::choose(question, &options, 0)
        .and_then(|option| option.split_whitespace().next())
        .map(str::to_owned)
        .ok_or_else(|| missing("no policy was chosen"))
}
