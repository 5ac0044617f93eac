//! `sbx stop`: ends sandboxes, keeps what they hold.

use super::Context;
use crate::client::encode;
use crate::exit::Exit;
use sbx_wire::report::Report;

/// Stop sandboxes; their files stay
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Sandboxes
    #[arg(required = true)]
    sandboxes: Vec<String>,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let mut exit = Exit::Success;
    for name in &args.sandboxes {
        let path = format!("/v1/sandboxes/{}/stop", encode(name));
        match context
            .client
            .post::<_, serde_json::Value>(&path, &())
            .await
        {
            Ok(_) => context.printer.line(&format!("Stopped {name}")),
            Err(report) => exit = context.printer.report(&report),
        }
    }
    Ok(exit)
}
