//! `sbx policy ls`.

use crate::client::encode;
use crate::commands::Context;
use crate::exit::Exit;
use crate::table;
use sbx_policy::{Decision, Rule, Scope};
use sbx_wire::api::PolicyState;
use sbx_wire::report::Report;
use serde_json::json;

/// List the rules
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Rules that concern this sandbox
    sandbox: Option<String>,
    /// One line a rule
    #[arg(long)]
    wide: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Only rules of this decision
    #[arg(long, value_parser = ["allow", "deny"])]
    decision: Option<String>,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let path = match &args.sandbox {
        Some(name) => format!("/v1/policy?sandbox={}", encode(name)),
        None => "/v1/policy".to_owned(),
    };
    let mut state: PolicyState = context.client.get(&path).await?;
    if let Some(decision) = &args.decision {
        let wanted = if decision == "allow" {
            Decision::Allow
        } else {
            Decision::Deny
        };
        state.rules.retain(|rule| rule.decision == wanted);
    }
    if args.json {
        context.printer.json(&json!(state))?;
    } else if !state.initialized {
        context
            .printer
            .notice("The global network policy has not been initialized");
        context.printer.notice("  try: sbx policy init balanced");
    } else if args.wide {
        let rows: Vec<Vec<String>> = state.rules.iter().map(wide).collect();
        let header = [
            "POLICY",
            "SOURCE",
            "APPLIES TO",
            "DECISION",
            "TYPE",
            "RULE_ID",
            "RESOURCES",
        ];
        context.printer.line(&table::render(&header, &rows));
    } else {
        let header = ["POLICY", "SOURCE", "APPLIES TO", "SUMMARY"];
        context
            .printer
            .line(&table::render(&header, &summary(&state.rules)));
    }
    Ok(Exit::Success)
}

fn applies_to(scope: &Scope) -> String {
    match scope {
        Scope::Global => "all".to_owned(),
        other => other.to_string(),
    }
}

fn wide(rule: &Rule) -> Vec<String> {
    let resources: Vec<String> = rule.resources.iter().map(ToString::to_string).collect();
    let decision = if rule.decision == Decision::Allow {
        "allow"
    } else {
        "deny"
    };
    vec![
        rule.name.clone().unwrap_or_else(|| "local".to_owned()),
        "local".to_owned(),
        applies_to(&rule.scope),
        decision.to_owned(),
        "network".to_owned(),
        rule.id.clone(),
        resources.join(","),
    ]
}

/// One row a policy: counts of its resources by decision.
fn summary(rules: &[Rule]) -> Vec<Vec<String>> {
    let mut groups: Vec<(String, String, usize, usize)> = Vec::new();
    for rule in rules {
        let key = (
            rule.name.clone().unwrap_or_else(|| "local".to_owned()),
            applies_to(&rule.scope),
        );
        let at = groups
            .iter()
            .position(|(name, scope, ..)| (name, scope) == (&key.0, &key.1));
        let at = at.unwrap_or_else(|| {
            groups.push((key.0, key.1, 0, 0));
            groups.len() - 1
        });
        if rule.decision == Decision::Allow {
            groups[at].2 += rule.resources.len();
        } else {
            groups[at].3 += rule.resources.len();
        }
    }
    groups
        .into_iter()
        .map(|(name, scope, allow, deny)| {
            let counts: Vec<String> = [(allow, "allow"), (deny, "deny")]
                .iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, word)| format!("{count} {word}"))
                .collect();
            vec![
                name,
                "local".to_owned(),
                scope,
                format!("network: {}", counts.join(", ")),
            ]
        })
        .collect()
}
