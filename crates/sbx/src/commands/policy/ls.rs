//! `sbx policy ls`.

use super::view;
use crate::client::encode;
use crate::commands::Context;
use crate::exit::Exit;
use crate::table;
use sbx_wire::api::{PolicyState, RuleView};
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
    /// Only rules from here
    #[arg(long, value_parser = ["local", "org", "kit"])]
    source: Option<String>,
    /// Only rules of this decision
    #[arg(long, value_parser = ["allow", "deny"])]
    decision: Option<String>,
    /// Only rules of this type: http are those with method and path; there are none of filesystem yet
    #[arg(long = "type", default_value = "all", value_parser = ["network", "filesystem", "http", "all"])]
    kind: String,
    /// Only rules that came to be this way
    #[arg(long, value_parser = ["default", "added", "provisioned", "approval"])]
    created_via: Option<String>,
    /// Only rules about this protocol
    #[arg(long, value_parser = ["tcp", "udp"])]
    protocol: Option<String>,
    /// Also rules that do not count at present
    #[arg(long)]
    include_inactive: bool,
}

impl Args {
    fn wants(&self, rule: &RuleView) -> bool {
        let is = |wanted: &Option<String>, word: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == word)
        };
        let protocols = view::protocols(rule);
        is(&self.source, view::source(rule))
            && is(&self.decision, view::decision(rule))
            && is(&self.created_via, view::created_via(rule))
            && (self.kind == "all" || self.kind == rule.resource_type)
            && (self.protocol.as_deref())
                .is_none_or(|wanted| protocols.split(',').any(|word| word == wanted))
            && (self.include_inactive || rule.status == "active")
    }
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let mut state = fetch(context, args.sandbox.as_deref()).await?;
    state.rules.retain(|rule| args.wants(rule));
    if args.json {
        let mut value = json!(state);
        if let Some(object) = value.as_object_mut() {
            object.insert("governance".to_owned(), json!({ "active": false }));
        }
        context.printer.json(&value)?;
        return Ok(Exit::Success);
    }
    if !state.initialized {
        let status = context.client.status().await?;
        for notice in &status.notices {
            context
                .printer
                .notice(&format!("note: {}", table::safe(notice)));
        }
        context
            .printer
            .notice("The global network policy has not been initialized");
        context.printer.notice("  try: sbx policy init balanced");
    }
    if state.initialized || !state.rules.is_empty() {
        context.printer.line(&render(&state.rules, &args));
    }
    for behind in &state.unconfirmed {
        let (sandbox, reason) = (&behind.sandbox, table::safe(&behind.reason));
        let text = format!("note: sandbox '{sandbox}' works with an older policy: {reason}");
        context.printer.notice(&text);
    }
    Ok(Exit::Success)
}

/// The rules that concern a sandbox, or all.
pub(super) async fn fetch(context: &Context, sandbox: Option<&str>) -> Result<PolicyState, Report> {
    let path = match sandbox {
        Some(name) => format!("/v1/policy?sandbox={}", encode(name)),
        None => "/v1/policy".to_owned(),
    };
    context.client.get(&path).await
}

fn render(rules: &[RuleView], args: &Args) -> String {
    let layers = rules.iter().any(|rule| rule.resource_type == "http");
    // Rows of one policy, in the order of the rules: wide, every rule is one of its own.
    let mut groups: Vec<Vec<&RuleView>> = Vec::new();
    for rule in rules {
        let same = |group: &&mut Vec<&RuleView>| {
            let first = group[0];
            !args.wide
                && (
                    &first.policy_id,
                    view::source(first),
                    &first.scope,
                    &first.status,
                ) == (
                    &rule.policy_id,
                    view::source(rule),
                    &rule.scope,
                    &rule.status,
                )
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(rule),
            None => groups.push(vec![rule]),
        }
    }
    let mut header = vec!["POLICY", "SOURCE", "APPLIES TO", "SUMMARY"];
    if args.include_inactive {
        header.push("STATUS");
    }
    if args.wide {
        header.extend(["TYPE", "PROTOCOL", "METHOD", "PATH", "RULE_ID", "RESOURCES"]);
    }
    let rows: Vec<Vec<String>> = groups
        .iter()
        .map(|group| {
            let rule = group[0];
            let mut row = vec![
                rule.policy_id.clone(),
                view::source(rule).to_owned(),
                rule.applies_to.clone(),
                view::summary(group, layers),
            ];
            if args.include_inactive {
                row.push(rule.status.clone());
            }
            if args.wide {
                let or_dash =
                    |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
                row.extend([
                    rule.resource_type.clone(),
                    view::protocols(rule),
                    or_dash(&rule.method),
                    or_dash(&rule.path),
                    rule.id.clone(),
                    view::resources(rule),
                ]);
            }
            row
        })
        .collect();
    table::render(&header, &rows)
}
