//! `sbx secret set-custom`.

use super::source::SourceArgs;
use super::{Context, person, stored, value};
use crate::exit::Exit;
use sbx_wire::api::{SetCustom, StoredSecret};
use sbx_wire::report::Report;

/// Store a secret of your own: sandboxes hold a placeholder, and requests to its hosts get the value in its place
#[derive(Debug, Clone, clap::Args)]
#[command(group(clap::ArgGroup::new("fetched").args(["command", "reference"]).conflicts_with("value")))]
pub(crate) struct SetCustomArgs {
    /// Host that it is bound to, as in network rules (api.example.com, *.example.com, example.com:8443); repeatable
    #[arg(long = "host", value_name = "HOST", required = true)]
    hosts: Vec<String>,
    /// Variable that holds the placeholder in sandboxes made afterwards
    #[arg(long, value_name = "NAME")]
    env: Option<String>,
    /// The value; visible to others in the process list, prefer standard input
    #[arg(short = 't', long, visible_alias = "token")]
    value: Option<String>,
    /// What the placeholder looks like, with {rand} for what is random in it [default: sbx-cs-{rand}]
    #[arg(long, value_name = "PATTERN")]
    placeholder: Option<String>,
    /// Replace it in bodies of requests too, not only in headers and the URL
    #[arg(long)]
    in_body: bool,
    /// Only for this sandbox [default: all sandboxes]
    #[arg(long)]
    sandbox: Option<String>,
    /// Replace an existing value; the placeholder stays
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    source: SourceArgs,
}

pub(super) async fn run(context: &mut Context, args: SetCustomArgs) -> Result<Exit, Report> {
    let fetched = args.source.fetched();
    let what = args.env.clone().unwrap_or_else(|| args.hosts.join(","));
    let value = match &fetched {
        Some(_) => None,
        None => {
            let command = format!(
                "sbx secret set-custom --host {}",
                args.hosts.join(" --host ")
            );
            Some(value::obtain(context, args.value, &what, &command).await?)
        }
    };
    let body = SetCustom {
        hosts: args.hosts,
        env: args.env,
        value,
        fetched,
        placeholder: args.placeholder,
        in_body: args.in_body,
        sandbox: args.sandbox,
        force: args.force,
        person: person(context),
    };
    let answer: StoredSecret = context.client.post("/v1/secrets/custom", &body).await?;
    stored(&mut context.printer, &answer);
    if let Some(placeholder) = &answer.placeholder {
        context.printer.line(&format!("Placeholder: {placeholder}"));
        if let Some(env) = &body.env {
            context.printer.notice(&format!(
                "Sandboxes made from now on have it as {env}; in others: export {env}={placeholder}"
            ));
        }
    }
    Ok(Exit::Success)
}
