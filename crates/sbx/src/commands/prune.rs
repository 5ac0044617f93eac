//! `sbx prune`: removes sandboxes that are not running.

use super::Context;
use crate::client::encode;
use crate::exit::Exit;
use crate::{lookup, prompt, since};
use sbx_wire::api::{PruneCache, PrunedCache, Sandbox};
use sbx_wire::report::Report;
use sbx_wire::time::parse_rfc3339;
use serde_json::{Value, json};

/// Remove stopped sandboxes and everything in them; workspaces on the host stay
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Only those that stopped before a time: until=168h, until=2026-01-31T12:00:00Z, until=1767225600 (since= is an
    /// older spelling of until=)
    #[arg(long, value_parser = filter)]
    filter: Option<Until>,
    /// Also remove images and snapshots from the cache that no sandbox needs; they are made again when needed
    #[arg(long)]
    images: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Until(u64);

fn filter(text: &str) -> Result<Until, String> {
    let value = text
        .strip_prefix("until=")
        .or_else(|| text.strip_prefix("since="))
        .ok_or("write until=TIME, such as until=168h")?;
    // Unix time is a bare number; everything else as elsewhere.
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = value.parse().map_err(|_| "there is no such time")?;
        return Ok(Until(seconds));
    }
    since::parse(value).map(|time| Until(time.0 / 1000))
}

/// What is to be done with whom.
#[derive(Debug, Default)]
struct Plan {
    remove: Vec<Sandbox>,
    /// Stopped, and nobody knows when.
    unknown: Vec<Sandbox>,
    /// Not to be removed by accident: their files may be all that is left.
    damaged: Vec<Sandbox>,
}

fn plan(sandboxes: Vec<Sandbox>, filter: Option<Until>) -> Plan {
    let mut plan = Plan::default();
    for sandbox in sandboxes {
        let stopped = sandbox.stopped_at.as_deref().and_then(parse_rfc3339);
        match (sandbox.status.as_str(), filter, stopped) {
            ("damaged", ..) => plan.damaged.push(sandbox),
            ("stopped", None, _) => plan.remove.push(sandbox),
            ("stopped", Some(_), None) => plan.unknown.push(sandbox),
            // A time that lies ahead, because the clock was set back, is not before any other.
            ("stopped", Some(until), Some(at)) if at <= until.0 => plan.remove.push(sandbox),
            _ => {}
        }
    }
    plan
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let plan = plan(lookup::all(&context.client).await?, args.filter);
    // Whether there is anything to ask about; images that go with sandboxes are asked about with them.
    let asks = plan.remove.is_empty() && !args.force;
    let found = if args.images && (args.dry_run || asks) {
        Some(prune_cache(context, true).await?)
    } else {
        None
    };
    if args.dry_run {
        return dry_run(context, &args, &plan, found.as_ref());
    }
    let nothing = plan.remove.is_empty() && found.as_ref().is_none_or(is_empty);
    if !nothing && !confirmed(context, &args, &plan)? {
        context.printer.notice("Nothing was removed");
        return Ok(Exit::Failure);
    }
    let (removed, failed) = remove(context, &args, &plan).await;
    let cache = match found {
        // Nobody was asked, so nothing goes that came in the meantime.
        Some(found) if nothing => Ok(Some(found)),
        _ if args.images => prune_cache(context, false).await.map(Some),
        _ => Ok(None),
    };
    // What was removed before is told all the same.
    let problem = cache.as_ref().err().cloned();
    let cache = cache.unwrap_or_default();
    if args.json {
        let mut document = json!({ "removed": removed, "failed": failed });
        add(&mut document, &plan, cache.as_ref());
        if let (Some(problem), Some(object)) = (&problem, document.as_object_mut()) {
            object.insert("images_error".to_owned(), json!(problem));
        }
        context.printer.json(&document)?;
    } else {
        skipped(context, &plan);
        say_cache(context, "Removed", cache.as_ref());
        if removed.is_empty() && failed.is_empty() {
            context.printer.notice("No stopped sandboxes to remove");
        }
    }
    match problem {
        Some(problem) => Err(problem),
        None if failed.is_empty() => Ok(Exit::Success),
        None => Ok(Exit::Failure),
    }
}

/// Removes the sandboxes of a plan. Returns those that are gone and those that are not.
async fn remove(context: &mut Context, args: &Args, plan: &Plan) -> (Vec<Value>, Vec<Value>) {
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    for sandbox in &plan.remove {
        let (name, id) = (encode(&sandbox.name), encode(&sandbox.id));
        let path = format!("/v1/sandboxes/{name}?only_stopped={id}");
        match context.client.delete(&path).await {
            Ok(()) => {
                if !args.json {
                    context.printer.line(&format!("Removed {}", sandbox.name));
                }
                removed.push(row(sandbox));
            }
            Err(report) => {
                failed.push(json!({ "name": sandbox.name, "error": report }));
                context.printer.report(&report);
            }
        }
    }
    (removed, failed)
}

fn is_empty(cache: &PrunedCache) -> bool {
    cache.images.is_empty() && cache.snapshots.is_empty() && cache.leftovers.is_empty()
}

fn dry_run(
    context: &mut Context,
    args: &Args,
    plan: &Plan,
    cache: Option<&PrunedCache>,
) -> Result<Exit, Report> {
    if args.json {
        let rows: Vec<Value> = plan.remove.iter().map(row).collect();
        let mut document = json!({ "would_remove": rows });
        add(&mut document, plan, cache);
        context.printer.json(&document)?;
        return Ok(Exit::Success);
    }
    for sandbox in &plan.remove {
        let when = sandbox.stopped_at.as_deref().unwrap_or("an unknown time");
        let line = format!("Would remove {} (stopped at {when})", sandbox.name);
        context.printer.line(&line);
    }
    skipped(context, plan);
    say_cache(context, "Would remove", cache);
    if plan.remove.is_empty() {
        context.printer.notice("No stopped sandboxes to remove");
    }
    Ok(Exit::Success)
}

fn confirmed(context: &mut Context, args: &Args, plan: &Plan) -> Result<bool, Report> {
    if args.force {
        return Ok(true);
    }
    let names: Vec<&str> = plan.remove.iter().map(|s| s.name.as_str()).collect();
    let mut parts = Vec::new();
    if !names.is_empty() {
        parts.push(format!("{} and everything in it", names.join(" ")));
    }
    if args.images {
        parts.push("the images and snapshots that no sandbox needs".to_owned());
    }
    let what = parts.join(", and ");
    if args.json || !prompt::possible(context.no_input) {
        let images = if args.images { " --images" } else { "" };
        return Err(Report::user(
            "confirmation",
            format!("removing {what} needs a confirmation and there is no terminal to ask on"),
            format!("sbx prune{images} --force, after a look at sbx prune{images} --dry-run"),
        ));
    }
    Ok(prompt::confirm(&format!("Remove {what}?")))
}

async fn prune_cache(context: &Context, dry_run: bool) -> Result<PrunedCache, Report> {
    let body = PruneCache { dry_run };
    context.client.post("/v1/cache/prune", &body).await
}

/// The keys that scripts know.
fn row(sandbox: &Sandbox) -> Value {
    let paths: Vec<String> = sandbox
        .workspaces
        .iter()
        .map(|workspace| workspace.path.display().to_string())
        .collect();
    let mut row = json!({ "name": sandbox.name, "agent": sandbox.agent, "workspaces": paths });
    if let (Some(at), Some(object)) = (&sandbox.stopped_at, row.as_object_mut()) {
        object.insert("stopped_at".to_owned(), json!(at));
    }
    row
}

fn add(document: &mut Value, plan: &Plan, cache: Option<&PrunedCache>) {
    let names = |list: &[Sandbox]| list.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
    let Some(object) = document.as_object_mut() else {
        return;
    };
    object.insert(
        "skipped_unknown_stop".to_owned(),
        json!(names(&plan.unknown)),
    );
    if !plan.damaged.is_empty() {
        object.insert("skipped_damaged".to_owned(), json!(names(&plan.damaged)));
    }
    if let Some(cache) = cache {
        object.insert("images".to_owned(), json!(cache.images));
        object.insert("snapshots".to_owned(), json!(cache.snapshots));
        object.insert("leftovers".to_owned(), json!(cache.leftovers));
    }
}

fn skipped(context: &mut Context, plan: &Plan) {
    for sandbox in &plan.unknown {
        let line = format!("Skipped {}: nobody knows when it stopped", sandbox.name);
        context.printer.notice(&line);
    }
    for sandbox in &plan.damaged {
        let line = format!("Skipped {}: it is damaged (sbx diagnose)", sandbox.name);
        context.printer.notice(&line);
    }
}

fn say_cache(context: &mut Context, verb: &str, cache: Option<&PrunedCache>) {
    let kinds = cache.iter().flat_map(|cache| {
        [
            ("image", &cache.images),
            ("snapshot", &cache.snapshots),
            ("leftover", &cache.leftovers),
        ]
    });
    for (kind, keys) in kinds {
        for key in keys {
            context.printer.line(&format!("{verb} {kind} {key}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_filter_are_spans_dates_and_unix_time() {
        assert_eq!(filter("until=1767225600"), Ok(Until(1_767_225_600)));
        assert_eq!(filter("until=2026-01-01"), Ok(Until(1_767_225_600)));
        assert_eq!(filter("since=1970-01-01T00:00:09Z"), Ok(Until(9)));
        assert!(filter("until=168h").is_ok());
        for bad in [
            "",
            "until=",
            "168h",
            "until=yesterday",
            "label=x",
            "until=99999999999999999999",
        ] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
