//! `sbx policy check network`.

use crate::commands::Context;
use crate::exit::Exit;
use sbx_policy::CheckReport;
use sbx_wire::api::Check;
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
    /// Ask about an HTTP request with this method
    #[arg(long)]
    method: Option<String>,
    /// and this path [default: that of the URL, or else /]
    #[arg(long, requires = "method")]
    path: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Also name the deciding rule with its layer, and the rule that came closest to deciding otherwise
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let body = Check {
        target: args.target.clone(),
        sandbox: args.sandbox,
        protocol: args.protocol,
        method: args.method,
        path: args.path,
    };
    let report: CheckReport = context.client.post("/v1/policy/check", &body).await?;
    if args.json {
        let mut value = json!(report);
        if let Some(object) = value.as_object_mut() {
            let governance = json!({
                "active": false, "organization": null, "organization_unavailable": false,
                "last_synced_status": null, "last_synced_message": null,
            });
            object.insert("governance".to_owned(), governance);
        }
        context.printer.json(&value)?;
    } else {
        let mut text = report.text(&args.target);
        if args.verbose {
            text.push_str(&report.details());
        }
        context.printer.line(text.trim_end());
    }
    Ok(if report.allowed {
        Exit::Success
    } else {
        Exit::Failure
    })
}
