//! What each agent is given in its sandbox.

use sbx_agents::{Agent, Facts};
use sbx_policy::{Decision, PolicyDocument, Rule};
use sbx_wire::report::Report;

/// The agent with this name.
pub(crate) fn find(name: &str) -> Result<Agent, Report> {
    name.parse().map_err(|_| {
        let known: Vec<&str> = Agent::all().map(|agent| agent.name).collect();
        let shown: String = name.chars().filter(|c| !c.is_control()).take(60).collect();
        Report::user(
            "agent-unknown",
            format!("there is no agent '{shown}'"),
            format!("sbx run {}", known.join("|")),
        )
    })
}

/// What its note says of a sandbox.
pub(crate) fn facts(
    sandbox: &str,
    workspaces: Vec<(String, bool)>,
    rules: &PolicyDocument,
    services: Vec<String>,
) -> Facts {
    Facts {
        sandbox: sandbox.to_owned(),
        workspaces,
        rules: rules.rules.iter().map(line).collect(),
        services,
    }
}

/// A rule for the agent to read: whom it blocks or lets through, not who made it.
fn line(rule: &Rule) -> String {
    let decision = match rule.decision {
        Decision::Allow => "allow",
        Decision::Deny => "deny",
    };
    let resources: Vec<String> = rule.resources.iter().map(ToString::to_string).collect();
    let some = rule.http.as_ref().map_or("", |_| " (some requests only)");
    format!("{decision} {}{some}", resources.join(", "))
}

/// Variables that the agent needs besides those of every sandbox.
pub(crate) fn variables(agent: Agent) -> Vec<(String, String)> {
    agent
        .variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The service whose placeholder its files hold.
pub(crate) fn service(agent: Agent) -> Option<&'static str> {
    agent.placeholder_in_files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_found_by_name_and_by_alias_and_others_are_refused_with_the_list() {
        assert_eq!(find("cagent").unwrap().name, "docker-agent");
        let report = find("no\u{1b}such").unwrap_err();
        assert_eq!(report.code, "agent-unknown");
        assert!(report.message.contains("'nosuch'"), "{}", report.message);
        assert!(report.hint.unwrap().contains("claude|codex|copilot|"));
    }
}
