//! How rules are shown: words for their parts, and counts for groups of them.

use sbx_policy::{CreatedVia, Decision};
use sbx_wire::api::RuleView;

/// The word for what a rule says.
pub(super) fn decision(rule: &RuleView) -> &'static str {
    match rule.decision {
        Decision::Allow => "allow",
        Decision::Deny => "deny",
    }
}

/// Who wrote it, in the words of the SOURCE column.
pub(super) fn source(rule: &RuleView) -> &str {
    match rule.origin.as_str() {
        "scoped" => "local",
        other => other,
    }
}

/// How it came to be.
pub(super) fn created_via(rule: &RuleView) -> &'static str {
    match rule.provenance.created_via {
        CreatedVia::Default => "default",
        CreatedVia::Added => "added",
        CreatedVia::Provisioned => "provisioned",
        CreatedVia::Approval => "approval",
    }
}

/// Its transports as a comma list.
pub(super) fn protocols(rule: &RuleView) -> String {
    let words = rule
        .actions
        .iter()
        .filter_map(|action| action.rsplit(':').next());
    words.collect::<Vec<_>>().join(",")
}

/// Its resources as a comma list.
pub(super) fn resources(rule: &RuleView) -> String {
    let words: Vec<String> = rule.resources.iter().map(ToString::to_string).collect();
    words.join(",")
}

/// The command that removes it, if the user may.
pub(super) fn removal(rule: &RuleView) -> Option<String> {
    rule.editable
        .then(|| format!("sbx policy rm network --id {}", rule.id))
}

/// Counts per type and decision: `network: 42 allow, 1 deny`. `layers`: whether rules with method and path are about,
/// so that both kinds are told apart. Services of the host are named: they are ways out of their own.
pub(super) fn summary(rules: &[&RuleView], layers: bool) -> String {
    let count = |kind: &str, decision: Decision| -> usize {
        let matching = rules
            .iter()
            .filter(|rule| rule.resource_type == kind && rule.decision == decision);
        matching.map(|rule| rule.resources.len()).sum()
    };
    let mut parts = Vec::new();
    for (kind, label) in [("network", "network (L4)"), ("http", "http (L7)")] {
        let counts: Vec<String> = [(Decision::Allow, "allow"), (Decision::Deny, "deny")]
            .iter()
            .map(|(decision, word)| (count(kind, *decision), word))
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}"))
            .collect();
        if !counts.is_empty() {
            let label = if layers { label } else { kind };
            parts.push(format!("{label}: {}", counts.join(", ")));
        }
    }
    let services = host_services(rules);
    if !services.is_empty() {
        parts.push(format!("services of this machine: {}", services.join(", ")));
    }
    parts.join("; ")
}

/// The services of the host that the rules open.
pub(super) fn host_services(rules: &[&RuleView]) -> Vec<String> {
    let mut services: Vec<String> = rules
        .iter()
        .flat_map(|rule| rule.host_services.iter().map(ToString::to_string))
        .collect();
    services.sort_unstable();
    services.dedup();
    services
}
