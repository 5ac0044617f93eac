//! `sbx policy log`.

use super::follow;
use crate::client::encode;
use crate::commands::Context;
use crate::exit::Exit;
use crate::since::{self, Since};
use crate::table;
use sbx_wire::api::{LogRow, PolicyLog};
use sbx_wire::gateway::ProxyKind;
use sbx_wire::report::Report;

/// Show what was blocked and what passed
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Only this sandbox
    pub(super) sandbox: Option<String>,
    /// Print JSON; with --follow, one document a line
    #[arg(long)]
    pub(super) json: bool,
    /// Most rows per section; 0: all
    #[arg(long, default_value_t = 0, conflicts_with = "follow")]
    limit: u32,
    /// Print only hosts
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Which decisions to show; those of filesystem are not logged
    #[arg(long = "type", default_value = "all", value_parser = ["all", "network", "filesystem"])]
    kind: String,
    /// Only what was blocked
    #[arg(long, conflicts_with_all = ["allowed", "decision"])]
    blocked: bool,
    /// Only what passed
    #[arg(long, conflicts_with = "decision")]
    allowed: bool,
    /// Only records of this decision
    #[arg(long, value_parser = ["allow", "deny"])]
    decision: Option<String>,
    /// Only hosts that this covers, written as in a rule; also a comma list
    #[arg(long, value_name = "PATTERN")]
    host: Option<String>,
    /// Only what happened since: 10m, 2h, 3d, or a time in UTC
    #[arg(long, value_name = "WHEN", value_parser = since::parse)]
    pub(super) since: Option<Since>,
    /// Go on with what happens from now on (or since --since), until Ctrl-C
    #[arg(short, long)]
    follow: bool,
}

impl Args {
    /// Whether records of this type are shown.
    pub(super) fn wants(&self, kind: &str) -> bool {
        self.kind == "all" || self.kind == kind
    }

    /// The query, without a time.
    pub(super) fn query(&self) -> String {
        let decision = match (self.blocked, self.allowed) {
            (true, _) => Some("deny"),
            (_, true) => Some("allow"),
            _ => self.decision.as_deref(),
        };
        let fields = [
            ("sandbox", self.sandbox.as_deref()),
            ("decision", decision),
            ("host", self.host.as_deref()),
        ];
        fields
            .iter()
            .filter_map(|(name, value)| value.map(|value| format!("&{name}={}", encode(value))))
            .collect()
    }
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    if args.follow {
        return follow::run(context, &args).await;
    }
    let since = args.since.map_or(0, |since| since.0);
    let path = format!(
        "/v1/policy/log?limit={}&since_ms={since}{}",
        args.limit,
        args.query()
    );
    let mut log: PolicyLog = context.client.get(&path).await?;
    for rows in [&mut log.blocked_hosts, &mut log.allowed_hosts] {
        rows.retain(|row| args.wants(&row.kind));
    }
    if log.left_out > 0 {
        let text = format!(
            "{} rows are left out, those not seen for longest",
            log.left_out
        );
        context.printer.notice(&text);
    }
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

/// The word for how something left.
pub(super) fn proxy(kind: ProxyKind) -> &'static str {
    match kind {
        ProxyKind::Forward => "forward",
        ProxyKind::ForwardBypass => "forward-bypass",
        ProxyKind::Transparent => "transparent",
        ProxyKind::Network => "network",
        ProxyKind::Dns => "dns",
        ProxyKind::BrowserOpen => "browser-open",
        ProxyKind::SshAgent => "ssh-agent",
    }
}

fn cells(row: &LogRow) -> Vec<String> {
    let cells = [
        &row.vm_name,
        &row.kind,
        &row.host,
        proxy(row.proxy_type),
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
