//! `sbx policy inspect`: one rule, or one policy with its rules.

use super::{ls, view};
use crate::commands::Context;
use crate::exit::Exit;
use sbx_wire::api::RuleView;
use sbx_wire::report::Report;
use serde_json::{Value, json};

/// Show one rule or policy, with the command that removes it
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Rule id (or its beginning, at least 4 characters), or name of a policy, as `policy ls` prints them
    name_or_id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Shortest beginning of an id that is looked for.
const SHORTEST: usize = 4;

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let state = ls::fetch(context, None).await?;
    let wanted = args.name_or_id.as_str();
    let policy: Vec<&RuleView> = state
        .rules
        .iter()
        .filter(|rule| rule.policy_id == wanted)
        .collect();
    if !policy.is_empty() {
        show_policy(context, &args, &policy)?;
        return Ok(Exit::Success);
    }
    let rule = find(&state.rules, wanted)?;
    if args.json {
        context.printer.json(&with_removal(rule))?;
    } else {
        context.printer.line(&describe(rule));
    }
    Ok(Exit::Success)
}

fn find<'a>(rules: &'a [RuleView], wanted: &str) -> Result<&'a RuleView, Report> {
    let shown: String = wanted
        .chars()
        .filter(|c| !c.is_control())
        .take(80)
        .collect();
    let list = "sbx policy ls --wide";
    let begins = |rule: &&RuleView| {
        rule.id == wanted || (wanted.len() >= SHORTEST && rule.id.starts_with(wanted))
    };
    let found: Vec<&RuleView> = rules.iter().filter(begins).collect();
    let exact = found.iter().find(|rule| rule.id == wanted);
    match (exact, found.as_slice()) {
        (Some(rule), _) | (None, [rule]) => Ok(rule),
        (None, []) => Err(Report::user(
            "rule-not-found",
            format!("there is no rule or policy {shown:?}"),
            list,
        )),
        (None, several) => Err(Report::user(
            "rule-ambiguous",
            format!(
                "{} rules have an id that begins with {shown:?}",
                several.len()
            ),
            list,
        )),
    }
}

fn show_policy(context: &mut Context, args: &Args, rules: &[&RuleView]) -> Result<(), Report> {
    if args.json {
        let rules: Vec<Value> = rules.iter().map(|rule| with_removal(rule)).collect();
        return context
            .printer
            .json(&json!({ "policy_id": args.name_or_id, "rules": rules }));
    }
    let layers = rules.iter().any(|rule| rule.resource_type == "http");
    context
        .printer
        .line(&format!("Policy: {}", rules[0].policy_id));
    context
        .printer
        .line(&format!("Summary: {}", view::summary(rules, layers)));
    for rule in rules {
        context.printer.line(&format!("\n{}", describe(rule)));
    }
    Ok(())
}

fn with_removal(rule: &RuleView) -> Value {
    let mut value = json!(rule);
    if let Some(object) = value.as_object_mut() {
        object.insert("remove".to_owned(), json!(view::removal(rule)));
    }
    value
}

fn describe(rule: &RuleView) -> String {
    let mut lines = vec![
        format!("Rule: {}", rule.id),
        format!("Policy: {}", rule.policy_id),
        format!("Source: {} (layer: {})", view::source(rule), rule.layer),
        format!("Applies to: {}", rule.applies_to),
        format!("Decision: {}", view::decision(rule)),
        format!("Type: {}", rule.resource_type),
        format!("Protocols: {}", view::protocols(rule)),
    ];
    if let (Some(method), Some(path)) = (&rule.method, &rule.path) {
        lines.push(format!("Requests: {method} {path}"));
    }
    lines.push(format!("Created via: {}", view::created_via(rule)));
    lines.push(format!("Status: {}", rule.status));
    lines.push("Resources:".to_owned());
    for resource in &rule.resources {
        let service = rule.host_services.contains(resource);
        let note = if service {
            "   (a service of this machine)"
        } else {
            ""
        };
        lines.push(format!("  {resource}{note}"));
    }
    lines.push(match view::removal(rule) {
        Some(command) => format!("Remove: {command}"),
        None => "Remove: not yours to remove; `sbx policy deny network` with the same resource overrides it".to_owned(),
    });
    lines.join("\n")
}
