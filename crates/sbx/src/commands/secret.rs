//! `sbx secret`: values that the gateway writes into requests and the guest never sees.

use super::Context;
use crate::exit::Exit;
use crate::{prompt, table};
use sbx_wire::api::{RemoveSecret, Secrets, SetSecret};
use sbx_wire::report::Report;
use sbx_wire::secret::SecretText;
use std::io::{IsTerminal, Read};

/// Longest secret, bytes.
const MAX_SECRET: u64 = 64 << 10;

/// Keys that agents use and never see
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Set(SetArgs),
    Ls(LsArgs),
    Rm(RmArgs),
}

/// Store a secret; the value is read from standard input or asked for
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SetArgs {
    /// Service, e.g. anthropic (ANTHROPIC_API_KEY works too)
    service: String,
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

/// List secrets, masked
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LsArgs {
    /// Only global ones
    #[arg(short = 'g', long, conflicts_with = "sandbox")]
    global: bool,
    /// Only those of this sandbox
    #[arg(long)]
    sandbox: Option<String>,
    /// Only this service
    #[arg(long)]
    service: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print only names
    #[arg(short, long)]
    quiet: bool,
}

/// Remove a secret
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RmArgs {
    /// Service
    service: String,
    /// Of this sandbox [default: the global one]
    #[arg(long)]
    sandbox: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// The global one (older spelling; the default)
    #[arg(short = 'g', long, hide = true, conflicts_with = "sandbox")]
    global: bool,
}

pub(crate) async fn run(context: &mut Context, command: Command) -> Result<Exit, Report> {
    match command {
        Command::Set(args) => set(context, args).await,
        Command::Ls(args) => ls(context, args).await,
        Command::Rm(args) => rm(context, args).await,
    }
}

async fn set(context: &mut Context, args: SetArgs) -> Result<Exit, Report> {
    let value = match args.token {
        Some(token) => {
            context.printer.notice(
                "warning: a value on the command line can be read by others in the process list",
            );
            token
        }
        None => read_value(context, &args.service)?,
    };
    let value = value.trim_end_matches(['\r', '\n']).to_owned();
    if value.is_empty() {
        return Err(Report::user(
            "no-value",
            format!("no value for '{}' came in", args.service),
            format!("sbx secret set {} < FILE", args.service),
        ));
    }
    let scope = args
        .sandbox
        .clone()
        .unwrap_or_else(|| "(global)".to_owned());
    let body = SetSecret {
        service: args.service.clone(),
        value: SecretText::new(value),
        sandbox: args.sandbox,
        force: args.force,
    };
    let _: serde_json::Value = context.client.post("/v1/secrets", &body).await?;
    context
        .printer
        .line(&format!("Stored secret {} for {scope}", args.service));
    Ok(Exit::Success)
}

fn read_value(context: &Context, service: &str) -> Result<String, Report> {
    if prompt::possible(context.no_input) {
        return prompt::hidden(&format!("Value for {service} (not shown): "));
    }
    if std::io::stdin().is_terminal() {
        return Err(Report::user(
            "no-value",
            format!("a value for '{service}' is needed and prompting is off"),
            format!("sbx secret set {service} < FILE"),
        ));
    }
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(MAX_SECRET + 1)
        .read_to_string(&mut text)
        .map_err(|error| {
            Report::user(
                "secret-input",
                format!("cannot read the value: {error}"),
                "pass it as text",
            )
        })?;
    if text.len() as u64 > MAX_SECRET {
        return Err(Report::user(
            "secret-input",
            "the value is over 64 KiB",
            "store a shorter one",
        ));
    }
    Ok(text)
}

async fn ls(context: &mut Context, args: LsArgs) -> Result<Exit, Report> {
    let mut secrets: Secrets = context.client.get("/v1/secrets").await?;
    let scope = if args.global {
        Some("(global)".to_owned())
    } else {
        args.sandbox
    };
    secrets.secrets.retain(|row| {
        scope.as_ref().is_none_or(|scope| row.scope == *scope)
            && args
                .service
                .as_ref()
                .is_none_or(|service| row.name == *service)
    });
    if args.json {
        context.printer.json(&secrets)?;
    } else if args.quiet {
        for row in &secrets.secrets {
            context.printer.line(&row.name);
        }
    } else if secrets.secrets.is_empty() {
        let scope = scope.as_deref().unwrap_or("all");
        context
            .printer
            .line(&format!("No secrets found for scope \"{scope}\"."));
    } else {
        let rows: Vec<Vec<String>> = secrets
            .secrets
            .iter()
            .map(|row| {
                vec![
                    row.scope.clone(),
                    row.kind.clone(),
                    row.name.clone(),
                    row.secret.clone(),
                ]
            })
            .collect();
        context
            .printer
            .line(&table::render(&["SCOPE", "TYPE", "NAME", "SECRET"], &rows));
    }
    Ok(Exit::Success)
}

async fn rm(context: &mut Context, args: RmArgs) -> Result<Exit, Report> {
    if !args.force
        && prompt::possible(context.no_input)
        && !prompt::confirm(&format!("Remove secret {}?", args.service))
    {
        context.printer.notice("Nothing was removed");
        return Ok(Exit::Failure);
    }
    let body = RemoveSecret {
        service: args.service.clone(),
        sandbox: args.sandbox,
    };
    let _: serde_json::Value = context.client.post("/v1/secrets/remove", &body).await?;
    context
        .printer
        .line(&format!("Removed secret {}", args.service));
    Ok(Exit::Success)
}
