//! `sbx secret import`: keys from this environment, once.

use super::{Context, GLOBAL, person, services};
use crate::exit::Exit;
use crate::{prompt, table};
use sbx_credentials::services::{Service, TABLE};
use sbx_wire::api::{Secrets, SetSecret, StoredSecret};
use sbx_wire::report::Report;
use sbx_wire::secret::SecretText;

/// Store keys that are set as variables of this environment
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ImportArgs {
    /// Service, e.g. anthropic
    #[arg(conflicts_with = "all")]
    service: Option<String>,
    /// Every service whose variable is set; without --force only new ones
    #[arg(long)]
    all: bool,
    /// Replace existing values
    #[arg(short, long)]
    force: bool,
    /// Only show what would be stored
    #[arg(long)]
    dry_run: bool,
}

/// A key that is there to be stored.
struct Found {
    service: &'static Service,
    /// Where it was, for people.
    variable: &'static str,
    value: SecretText,
}

pub(super) async fn run(context: &mut Context, args: ImportArgs) -> Result<Exit, Report> {
    let wanted = wanted(context, &args)?;
    let found = match wanted {
        Some(service) => vec![found(service).ok_or_else(|| not_set(service))?],
        None => TABLE.iter().filter_map(found).collect(),
    };
    if found.is_empty() {
        context
            .printer
            .notice("No variable that holds a key of a service is set");
        return Ok(Exit::Success);
    }
    let stored: Secrets = context.client.get("/v1/secrets").await?;
    let mut rows = Vec::new();
    let mut exit = Exit::Success;
    for Found {
        service,
        variable,
        value,
    } in found
    {
        let tail = last_four(value.expose());
        let mut known = stored.secrets.iter();
        let exists = known.any(|row| row.scope == GLOBAL && row.name == service.name);
        let outcome = if exists && !args.force {
            if !args.all {
                return Err(exists_already(service));
            }
            "kept as it is".to_owned()
        } else if args.dry_run {
            "would be stored".to_owned()
        } else {
            match store(context, service, value, args.force).await {
                Ok(()) => "stored".to_owned(),
                // Others are stored already: all are told.
                Err(report) if args.all => {
                    exit = context.printer.report(&report);
                    format!("refused: {}", table::safe(&report.message))
                }
                Err(report) => return Err(report),
            }
        };
        rows.push(vec![
            service.name.to_owned(),
            variable.to_owned(),
            tail,
            outcome,
        ]);
    }
    let heads = ["NAME", "VARIABLE", "SECRET", "RESULT"];
    context.printer.line(&table::render(&heads, &rows));
    Ok(exit)
}

async fn store(
    context: &mut Context,
    service: &Service,
    value: SecretText,
    force: bool,
) -> Result<(), Report> {
    let body = SetSecret {
        service: service.name.to_owned(),
        value: Some(value),
        fetched: None,
        sandbox: None,
        short_lived: None,
        endpoints: Vec::new(),
        force,
        person: person(context),
    };
    let answer: StoredSecret = context.client.post("/v1/secrets", &body).await?;
    for notice in &answer.notices {
        context.printer.notice(notice);
    }
    Ok(())
}

/// The one service that is meant; `None`: all of them.
fn wanted(context: &Context, args: &ImportArgs) -> Result<Option<&'static Service>, Report> {
    if args.all {
        return Ok(None);
    }
    let named = match &args.service {
        Some(named) => Some(named.clone()),
        None if prompt::possible(context.no_input) => {
            let set: Vec<&str> = TABLE
                .iter()
                .filter(|service| found(service).is_some())
                .map(|service| service.name)
                .collect();
            prompt::choose("Import which service's key?", &set, 0).map(str::to_owned)
        }
        None => None,
    };
    let named = named.ok_or_else(|| {
        Report::user(
            "no-service",
            "which service's key to import has to be said",
            "sbx secret import SERVICE, or sbx secret import --all",
        )
    })?;
    let service = Service::find(&named);
    service.map(Some).ok_or_else(|| {
        Report::user(
            "service-unknown",
            format!("there is no service {named:?}"),
            format!("sbx secret import {}", services().join("|")),
        )
    })
}

fn found(service: &'static Service) -> Option<Found> {
    let variable = |name: &str| std::env::var(name).ok();
    let value = service.from_variables(variable)?;
    let part = service.parts.first()?;
    let mut names = part.import.iter();
    Some(Found {
        service,
        variable: names.find(|name| variable(name).is_some_and(|value| !value.is_empty()))?,
        value: SecretText::new(value),
    })
}

fn not_set(service: &Service) -> Report {
    let needed = service.parts.iter().filter(|part| !part.optional);
    let names: Vec<String> = needed.map(|part| part.import.join(" or ")).collect();
    Report::user(
        "variable-not-set",
        format!("{} is not set in this environment", names.join(" and ")),
        format!("sbx secret set {} < FILE", service.name),
    )
}

fn exists_already(service: &Service) -> Report {
    Report::user(
        "secret-exists",
        format!("there is a secret for {} already {GLOBAL}", service.name),
        format!("sbx secret import {} --force", service.name),
    )
}

/// The end of a long value, nothing of a short one.
fn last_four(value: &str) -> String {
    let shown = value.get(value.len().saturating_sub(4)..);
    match shown {
        Some(shown) if value.len() >= 24 && value.is_ascii() => format!("****{shown}"),
        _ => "****".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_short_value_nothing_is_shown() {
        assert_eq!(last_four("hunter2"), "****");
        assert_eq!(last_four("sk-ant-api03-0123456789abcdef"), "****cdef");
    }
}
