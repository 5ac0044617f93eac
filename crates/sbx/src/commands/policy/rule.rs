//! `sbx policy allow network` and `sbx policy deny network`.

use crate::commands::Context;
use crate::exit::Exit;
use sbx_wire::api::{AddRule, AddedRule};
use sbx_wire::report::Report;

/// A network destination: example.com, *.example.com, **.example.com, .example.com, host:port, 10.0.0.0/8,
/// localhost:8080 for a service of this machine
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Destinations, also as a comma list
    #[arg(required = true, value_name = "RESOURCE")]
    resources: Vec<String>,
    /// Only for this sandbox [default: all sandboxes]
    #[arg(long)]
    sandbox: Option<String>,
    /// tcp, udp or both as a comma list [default: tcp to allow, both to deny]
    #[arg(long, value_delimiter = ',')]
    protocol: Vec<String>,
    /// Only HTTP requests with these methods: a comma list, or ANY
    #[arg(long)]
    method: Option<String>,
    /// Only HTTP requests to this path; `*` stands for a part of a segment, `**` for any segments [default: /**]
    #[arg(long, requires = "method")]
    path: Option<String>,
    /// For all sandboxes (older spelling; the default)
    #[arg(short = 'g', long, hide = true, conflicts_with = "sandbox")]
    global: bool,
}

pub(crate) async fn run(context: &mut Context, args: Args, allow: bool) -> Result<Exit, Report> {
    let body = AddRule {
        allow,
        resources: args.resources,
        sandbox: args.sandbox,
        protocols: args.protocol,
        method: args.method,
        path: args.path,
    };
    let done: AddedRule = context.client.post("/v1/policy/rules", &body).await?;
    let rule = &done.rule;
    let what = if done.added {
        "Rule added to policy"
    } else {
        "Rule exists already in policy"
    };
    context.printer.line(&format!(
        "{what} {} (scope: {}): {}",
        rule.policy_id, rule.applies_to, rule.id
    ));
    for caution in &done.cautions {
        context.printer.notice(&format!("note: {caution}"));
    }
    Ok(Exit::Success)
}
