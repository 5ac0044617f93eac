//! Short ways to write policies and questions.

use std::net::IpAddr;

use sbx_policy::{
    CreatedVia, Decision, Evaluator, HttpMatch, Intent, IntentKind, PolicyDocument, Protocols,
    ResourcePattern, Rule, Scope, Target, Transport, Verdict,
};

/// The sandbox that questions come from.
pub(crate) const SANDBOX: &str = "claude-app";

/// A rule from text: `allow example.com,10.0.0.0/8` or `deny ... @sandbox:x`.
pub(crate) fn rule(id: &str, text: &str) -> Rule {
    let (decision, rest) = text.split_once(' ').unwrap();
    let decision = match decision {
        "allow" => Decision::Allow,
        "deny" => Decision::Deny,
        other => panic!("{other}"),
    };
    let (resources, scope) = rest.split_once(" @").unwrap_or((rest, "global"));
    Rule {
        id: id.to_owned(),
        name: None,
        scope: scope.parse().unwrap(),
        decision,
        resources: ResourcePattern::parse_list(resources).unwrap(),
        protocols: Protocols::default_for(decision),
        created_via: CreatedVia::Added,
        http: None,
    }
}

/// A rule with method and path.
pub(crate) fn http_rule(id: &str, text: &str, methods: &str, path: &str) -> Rule {
    let http = HttpMatch {
        methods: methods.parse().unwrap(),
        path: path.parse().unwrap(),
    };
    Rule {
        http: Some(http),
        protocols: Protocols::TCP,
        ..rule(id, text)
    }
}

pub(crate) fn document(rules: &[&str]) -> PolicyDocument {
    let rules = rules
        .iter()
        .enumerate()
        .map(|(n, text)| rule(&format!("r{n}"), text))
        .collect();
    PolicyDocument::new(7, rules)
}

pub(crate) fn evaluator(rules: &[&str]) -> Evaluator {
    Evaluator::new(&document(rules))
}

/// A TLS connection to the target.
pub(crate) fn intent(target: &str) -> Intent {
    let Target { host, port } = target.parse().unwrap();
    Intent::new(SANDBOX, Transport::Tcp, IntentKind::Tls, host, port)
}

pub(crate) fn ask(evaluator: &Evaluator, target: &str) -> Verdict {
    evaluator.decide(&intent(target))
}

pub(crate) fn allowed(rules: &[&str], target: &str) -> bool {
    ask(&evaluator(rules), target).is_allowed()
}

/// Whether the name, resolved to the addresses, may be dialled, and where.
pub(crate) fn resolved(rules: &[&str], target: &str, addresses: &[&str]) -> Verdict {
    let addresses = addresses.iter().map(|text| ip(text)).collect();
    evaluator(rules).decide(&intent(target).with_resolved(addresses))
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}
