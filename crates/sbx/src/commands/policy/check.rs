//! `sbx policy check network`.

use crate::commands::Context;
use crate::exit::Exit;
use sbx_wire::api::{Check, CheckResult};
use sbx_wire::report::Report;
use serde_json::json;

/// Say whether a destination would be allowed: exit code 0 if so, 1 if not
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Host (port 443), host:port, address or URL
    target: String,
    /// As this sandbox would be judged
    #[arg(long)]
    sandbox: Option<String>,
    /// tcp or udp
    #[arg(long, default_value = "tcp", value_parser = ["tcp", "udp"])]
    protocol: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Also name the deciding rule
    #[arg(long)]
    verbose: bool,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let body = Check {
        target: args.target,
        sandbox: args.sandbox,
        protocol: args.protocol,
    };
    let result: CheckResult = context.client.post("/v1/policy/check", &body).await?;
    if args.json {
        let mut value = json!(result);
        if let Some(object) = value.as_object_mut() {
            object.insert("governance".to_owned(), json!({ "active": false }));
        }
        context.printer.json(&value)?;
    } else {
        let word = if result.allowed { "Allowed" } else { "Denied" };
        context.printer.line(&format!("{word}: {}", result.target));
        if !result.allowed || args.verbose {
            context.printer.line(&format!("Reason: {}", result.reason));
        }
        if let (true, Some(rule)) = (args.verbose, &result.rule) {
            context.printer.line(&format!("Rule: {rule}"));
        }
    }
    Ok(if result.allowed {
        Exit::Success
    } else {
        Exit::Failure
    })
}
