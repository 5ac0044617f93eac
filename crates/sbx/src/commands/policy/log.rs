//! `sbx policy log`.

use crate::client::encode;
use crate::commands::Context;
use crate::exit::Exit;
use crate::table;
use sbx_wire::api::{LogRow, PolicyLog};
use sbx_wire::gateway::ProxyKind;
use sbx_wire::report::Report;

/// Show what was blocked and what passed
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Only this sandbox
    sandbox: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Most rows per section; 0: all
    #[arg(long, default_value_t = 0)]
    limit: u32,
    /// Print only hosts
    #[arg(short, long)]
    quiet: bool,
    /// Which decisions to show
    #[arg(long = "type", default_value = "all", value_parser = ["all", "network"])]
    kind: String,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let mut path = format!("/v1/policy/log?limit={}", args.limit);
    if let Some(name) = &args.sandbox {
        path.push_str(&format!("&sandbox={}", encode(name)));
    }
    let log: PolicyLog = context.client.get(&path).await?;
    if args.json {
        context.printer.json(&log)?;
    } else if args.quiet {
        for row in log.blocked_hosts.iter().chain(&log.allowed_hosts) {
            context.printer.line(&table::safe(&row.host));
        }
    } else if log.blocked_hosts.is_empty() && log.allowed_hosts.is_empty() {
        context.printer.line("No policy log entries found");
    } else {
        for (title, rows) in [
            ("Blocked requests:", &log.blocked_hosts),
            ("Allowed requests:", &log.allowed_hosts),
        ] {
            if !rows.is_empty() {
                let header = [
                    "SANDBOX",
                    "TYPE",
                    "HOST",
                    "PROXY",
                    "RULE",
                    "REASON",
                    "LAST SEEN",
                    "COUNT",
                ];
                let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
                context
                    .printer
                    .line(&format!("{title}\n{}", table::render(&header, &rows)));
            }
        }
    }
    Ok(Exit::Success)
}

fn cells(row: &LogRow) -> Vec<String> {
    let proxy = match row.proxy_type {
        ProxyKind::Forward => "forward",
        ProxyKind::ForwardBypass => "forward-bypass",
        ProxyKind::Transparent => "transparent",
        ProxyKind::Network => "network",
        ProxyKind::Dns => "dns",
    };
    let cells = [
        &row.vm_name,
        &row.kind,
        &row.host,
        proxy,
        &row.rule,
        &row.reason,
        &row.last_seen,
    ];
    cells
        .iter()
        .map(|cell| table::safe(cell))
        .chain([row.count_since.to_string()])
        .collect()
}
