//! `sbx login`: there is no account; this chooses the policy preset.

use super::Context;
use crate::exit::Exit;
use sbx_wire::report::Report;

/// Choose the network policy to start with (no account is needed)
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(context: &mut Context, _args: Args) -> Result<Exit, Report> {
    context.require_policy().await?;
    context
        .printer
        .line("No account is needed, and the network policy is set: sbx policy ls");
    Ok(Exit::Success)
}
