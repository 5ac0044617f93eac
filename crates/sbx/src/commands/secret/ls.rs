//! `sbx secret ls`.

use super::{Context, GLOBAL};
use crate::exit::Exit;
use crate::table;
use sbx_wire::api::{CustomRow, SecretRow, Secrets};
use sbx_wire::report::Report;

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

pub(super) async fn run(context: &mut Context, args: LsArgs) -> Result<Exit, Report> {
    let mut secrets: Secrets = context.client.get("/v1/secrets").await?;
    let scope = if args.global {
        Some(GLOBAL.to_owned())
    } else {
        args.sandbox
    };
    let shown = |row: &str| scope.as_ref().is_none_or(|scope| row == scope);
    let named = |name: &str| args.service.as_ref().is_none_or(|service| name == service);
    secrets
        .secrets
        .retain(|row| shown(&row.scope) && named(&row.name));
    secrets
        .custom
        .retain(|row| shown(&row.scope) && named(&row.name));
    let printer = &mut context.printer;
    if args.json {
        printer.json(&secrets)?;
    } else if args.quiet {
        let names = secrets.secrets.iter().map(|row| &row.name);
        for name in names.chain(secrets.custom.iter().map(|row| &row.name)) {
            printer.line(&table::safe(name));
        }
    } else if secrets.secrets.is_empty() && secrets.custom.is_empty() {
        let scope = scope.as_deref().unwrap_or("all");
        let scope = table::safe(scope);
        printer.line(&format!("No secrets found for scope \"{scope}\"."));
    } else {
        printer.line(&tables(&secrets));
    }
    Ok(Exit::Success)
}

fn tables(secrets: &Secrets) -> String {
    let mut parts = Vec::new();
    if !secrets.secrets.is_empty() {
        let rows: Vec<_> = secrets.secrets.iter().map(row).collect();
        let heads = ["SCOPE", "TYPE", "NAME", "SECRET", "STORE"];
        parts.push(table::render(&heads, &rows));
    }
    if !secrets.custom.is_empty() {
        let rows: Vec<_> = secrets.custom.iter().map(custom_row).collect();
        let heads = ["SCOPE", "TARGETS", "ENV", "PLACEHOLDER", "SECRET", "STORE"];
        parts.push(format!("CUSTOM SECRETS\n{}", table::render(&heads, &rows)));
    }
    parts.join("\n\n")
}

fn row(row: &SecretRow) -> Vec<String> {
    let cells = [&row.scope, &row.kind, &row.name, &row.secret, &row.store];
    cells.map(|cell| table::safe(cell)).to_vec()
}

fn custom_row(row: &CustomRow) -> Vec<String> {
    let (targets, env) = (row.targets.join(","), row.env.clone().unwrap_or_default());
    let (placeholder, secret) = (&row.placeholder, &row.secret);
    let cells = [&row.scope, &targets, &env, placeholder, secret, &row.store];
    cells.map(|cell| table::safe(cell)).to_vec()
}
