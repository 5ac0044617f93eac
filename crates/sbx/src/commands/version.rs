//! `sbx version`.

use super::Context;
use crate::exit::Exit;
use sbx_wire::report::Report;
use serde_json::json;

/// Print the version of the command and of the daemon
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let client = env!("CARGO_PKG_VERSION");
    // A version question must not start a daemon.
    let daemon = context.client.status_if_running().await.ok().flatten();
    if args.json {
        let server = match &daemon {
            Some(daemon) => json!({ "version": daemon.version, "state": "running" }),
            None => json!({ "state": "unavailable" }),
        };
        context
            .printer
            .json(&json!({ "client": { "version": client }, "server": server }))?;
    } else {
        context.printer.line(&format!("Client version: {client}"));
        let server = daemon.map_or_else(|| "not running".to_owned(), |daemon| daemon.version);
        context.printer.line(&format!("Server version: {server}"));
    }
    Ok(Exit::Success)
}
