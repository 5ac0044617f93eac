//! `sbx secret rm`.

use super::{Context, GLOBAL, person};
use crate::exit::Exit;
use crate::prompt;
use sbx_wire::api::{RemoveSecret, RemovedSecrets, Secrets};
use sbx_wire::report::Report;

/// Remove a secret; requests that need it fail from then on
#[derive(Debug, Clone, clap::Args)]
#[command(group(clap::ArgGroup::new("meant").args(["service", "registry", "placeholder", "all"])))]
pub(crate) struct RmArgs {
    /// Service
    service: Option<String>,
    /// Of this sandbox [default: the global one]
    #[arg(long)]
    sandbox: Option<String>,
    /// Everything in the scope
    #[arg(long)]
    all: bool,
    /// The logins of this registry
    #[arg(long, value_name = "HOST")]
    registry: Option<String>,
    /// With --registry: only the login that all sandboxes may use
    #[arg(long, requires = "registry", conflicts_with = "sandbox")]
    all_sandboxes: bool,
    /// The custom secret with this placeholder
    #[arg(long, value_name = "TEXT")]
    placeholder: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// The global one (older spelling; the default)
    #[arg(short = 'g', long, hide = true, conflicts_with = "sandbox")]
    global: bool,
}

pub(super) async fn run(context: &mut Context, args: RmArgs) -> Result<Exit, Report> {
    let mut body = RemoveSecret {
        service: args.service,
        registry: args.registry,
        placeholder: args.placeholder,
        all: args.all,
        sandbox: args.sandbox,
        all_sandboxes: args.all_sandboxes,
        person: person(context),
    };
    let named = body
        .service
        .as_ref()
        .or(body.registry.as_ref())
        .or(body.placeholder.as_ref());
    let what = match named {
        Some(name) => Some(format!("secret {name}")),
        None if body.all => {
            let scope = body.sandbox.as_deref().unwrap_or(GLOBAL);
            Some(format!("all secrets of {scope}"))
        }
        None => match pick(context).await? {
            // Whoever picked one has answered already.
            Some(picked) => {
                body = picked;
                None
            }
            None => {
                context.printer.notice("Nothing was removed");
                return Ok(Exit::Failure);
            }
        },
    };
    if let Some(what) = what.filter(|_| !args.force)
        && !confirmed(context, &what)?
    {
        context.printer.notice("Nothing was removed");
        return Ok(Exit::Failure);
    }
    let answer: RemovedSecrets = context.client.post("/v1/secrets/remove", &body).await?;
    for notice in &answer.notices {
        context.printer.notice(notice);
    }
    for removed in &answer.removed {
        context.printer.line(&format!(
            "Removed secret {} of {}",
            removed.name, removed.scope
        ));
    }
    Ok(Exit::Success)
}

fn confirmed(context: &Context, what: &str) -> Result<bool, Report> {
    if !prompt::possible(context.no_input) {
        return Err(Report::user(
            "confirmation",
            format!("removing {what} needs a confirmation and there is no terminal to ask on"),
            "sbx secret rm --force with the same arguments, after a look at sbx secret ls",
        ));
    }
    Ok(prompt::confirm(&format!("Remove {what}?")))
}

/// Has the person at the terminal choose one.
async fn pick(context: &mut Context) -> Result<Option<RemoveSecret>, Report> {
    if !prompt::possible(context.no_input) {
        return Err(Report::user(
            "no-service",
            "which secret to remove has to be said",
            "sbx secret rm SERVICE; sbx secret ls shows what there is",
        ));
    }
    let secrets: Secrets = context.client.get("/v1/secrets").await?;
    let mut options = Vec::new();
    for row in &secrets.secrets {
        let sandbox = (!row.scope.starts_with('(')).then(|| row.scope.clone());
        let mut meant = RemoveSecret {
            sandbox,
            person: true,
            ..RemoveSecret::default()
        };
        if row.kind == "registry" {
            meant.all_sandboxes = row.scope == GLOBAL;
            meant.registry = Some(row.name.clone());
        } else {
            meant.service = Some(row.name.clone());
        }
        options.push((format!("{} {} {}", row.name, row.scope, row.secret), meant));
    }
    for row in &secrets.custom {
        let meant = RemoveSecret {
            placeholder: Some(row.placeholder.clone()),
            person: true,
            ..RemoveSecret::default()
        };
        options.push((format!("{} {} {}", row.name, row.scope, row.secret), meant));
    }
    let nothing = "none of them";
    let mut lines: Vec<&str> = options.iter().map(|(line, _)| line.as_str()).collect();
    lines.push(nothing);
    let last = lines.len() - 1;
    let chosen = prompt::choose("Remove which secret?", &lines, last);
    let chosen = options
        .iter()
        .find(|(line, _)| Some(line.as_str()) == chosen);
    Ok(chosen.map(|(_, meant)| meant.clone()))
}
