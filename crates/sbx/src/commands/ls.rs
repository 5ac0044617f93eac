//! `sbx ls`: the sandboxes.

use super::Context;
use crate::exit::Exit;
use crate::{lookup, table};
use sbx_wire::api::Sandbox;
use sbx_wire::report::Report;
use serde_json::{Value, json};

/// List sandboxes
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print only names
    #[arg(short, long)]
    quiet: bool,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let sandboxes = lookup::all(&context.client).await?;
    if args.json {
        let rows: Vec<Value> = sandboxes.iter().map(shape).collect();
        context.printer.json(&json!({ "sandboxes": rows }))?;
    } else if args.quiet {
        for sandbox in &sandboxes {
            context.printer.line(&sandbox.name);
        }
    } else if sandboxes.is_empty() {
        context
            .printer
            .notice("No sandboxes yet. Make one with: sbx run claude");
    } else {
        let rows: Vec<Vec<String>> = sandboxes.iter().map(row).collect();
        let header = ["SANDBOX", "AGENT", "STATUS", "PORTS", "WORKSPACE"];
        context.printer.line(&table::render(&header, &rows));
        let explained = ["unresponsive", "damaged"];
        for sandbox in sandboxes
            .iter()
            .filter(|s| explained.contains(&s.status.as_str()))
        {
            let reason = sandbox
                .status_reason
                .as_deref()
                .unwrap_or("no reason known");
            context
                .printer
                .notice(&format!("{}: {}", sandbox.name, table::safe(reason)));
        }
    }
    Ok(Exit::Success)
}

fn row(sandbox: &Sandbox) -> Vec<String> {
    let workspace = sandbox.workspaces.first().map_or_else(
        || "-".to_owned(),
        |workspace| table::safe(&workspace.path.display().to_string()),
    );
    let (name, agent) = (sandbox.name.clone(), sandbox.agent.clone());
    vec![
        name,
        agent,
        sandbox.status.clone(),
        String::new(),
        workspace,
    ]
}

/// The JSON that scripts know: workspaces as plain paths, primary first; absent fields omitted.
fn shape(sandbox: &Sandbox) -> Value {
    let mut value = json!(sandbox);
    let paths: Vec<String> = sandbox
        .workspaces
        .iter()
        .map(|w| w.path.display().to_string())
        .collect();
    if let Some(object) = value.as_object_mut() {
        object.insert("workspaces".to_owned(), json!(paths));
        object.remove("processes");
        object.remove("dir");
    }
    value
}
