//! `sbx secret set`.

use super::{Context, services, stored, value};
use crate::exit::Exit;
use crate::prompt;
use sbx_wire::api::{SetSecret, StoredSecret};
use sbx_wire::report::Report;

/// Store a secret; the value is read from standard input or asked for
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SetArgs {
    /// Service, e.g. anthropic (ANTHROPIC_API_KEY works too)
    service: Option<String>,
    /// The value; visible to others in the process list, prefer standard input
    #[arg(short, long)]
    token: Option<String>,
    /// Only for this sandbox [default: all sandboxes]
    #[arg(long)]
    sandbox: Option<String>,
    /// Replace an existing value
    #[arg(short, long)]
    force: bool,
    /// For all sandboxes (older spelling; the default)
    #[arg(short = 'g', long, hide = true, conflicts_with = "sandbox")]
    global: bool,
}

pub(super) async fn run(context: &mut Context, args: SetArgs) -> Result<Exit, Report> {
    let service = service(context, args.service)?;
    let command = format!("sbx secret set {service}");
    let body = SetSecret {
        value: value::obtain(context, args.token, &service, &command)?,
        service,
        sandbox: args.sandbox,
        force: args.force,
    };
    let answer: StoredSecret = context.client.post("/v1/secrets", &body).await?;
    stored(&mut context.printer, &answer);
    Ok(Exit::Success)
}

/// The service that was named, or one that is chosen.
fn service(context: &Context, named: Option<String>) -> Result<String, Report> {
    if let Some(named) = named {
        return Ok(named);
    }
    let services = services();
    let chosen = prompt::possible(context.no_input)
        .then(|| prompt::choose("Secret for which service?", &services, 0))
        .flatten();
    chosen.map(str::to_owned).ok_or_else(|| {
        Report::user(
            "no-service",
            "which service the secret is for has to be said",
            format!("sbx secret set {}", services.join("|")),
        )
    })
}
