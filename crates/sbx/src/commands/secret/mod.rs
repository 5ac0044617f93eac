//! `sbx secret`: values that the gateway writes into requests and the guest never sees.

mod import;
mod ls;
mod rm;
mod set;
mod set_custom;
mod source;
mod value;

use super::Context;
use crate::exit::Exit;
use crate::printer::Printer;
use sbx_wire::api::StoredSecret;
use sbx_wire::report::Report;
use std::io::IsTerminal;

/// Scope of what every sandbox may use, as it is shown.
const GLOBAL: &str = "(global)";

/// Keys that agents use and never see
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Set(set::SetArgs),
    SetCustom(set_custom::SetCustomArgs),
    Import(import::ImportArgs),
    Ls(ls::LsArgs),
    Rm(rm::RmArgs),
}

pub(crate) async fn run(context: &mut Context, command: Command) -> Result<Exit, Report> {
    match command {
        Command::Set(args) => set::run(context, args).await,
        Command::SetCustom(args) => set_custom::run(context, args).await,
        Command::Import(args) => import::run(context, args).await,
        Command::Ls(args) => ls::run(context, args).await,
        Command::Rm(args) => rm::run(context, args).await,
    }
}

/// Says what was stored and what somebody should know about it.
fn stored(printer: &mut Printer, stored: &StoredSecret) {
    for notice in &stored.notices {
        printer.notice(notice);
    }
    let (name, scope) = (&stored.name, &stored.scope);
    printer.line(&format!(
        "Stored secret {name} for {scope} ({})",
        stored.store
    ));
}

/// Whether somebody may see the keychain ask for a password.
fn person(context: &Context) -> bool {
    !context.no_input && std::io::stderr().is_terminal()
}

/// The services, for a question or a hint.
fn services() -> Vec<&'static str> {
    sbx_credentials::services::TABLE
        .iter()
        .map(|service| service.name)
        .collect()
}
