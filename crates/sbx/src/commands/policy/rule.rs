//! `sbx policy allow network` and `sbx policy deny network`.

use crate::commands::Context;
use crate::exit::Exit;
use sbx_policy::Rule;
use sbx_wire::api::AddRule;
use sbx_wire::report::Report;

/// A network destination: example.com, *.example.com, **.example.com, .example.com, host:port, 10.0.0.0/8
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
    /// For all sandboxes (older spelling; the default)
    #[arg(short = 'g', hide = true, conflicts_with = "sandbox")]
    global: bool,
}

pub(crate) async fn run(context: &mut Context, args: Args, allow: bool) -> Result<Exit, Report> {
    let scope = args
        .sandbox
        .as_deref()
        .map_or("all".to_owned(), |s| format!("sandbox:{s}"));
    let body = AddRule {
        allow,
        resources: args.resources,
        sandbox: args.sandbox,
        protocols: args.protocol,
    };
    let rule: Rule = context.client.post("/v1/policy/rules", &body).await?;
    context.printer.line(&format!(
        "Rule added to policy local (scope: {scope}): {}",
        rule.id
    ));
    Ok(Exit::Success)
}
