//! What the verbs take, from text to types, and how their errors are said.

use crate::random;
use sbx_policy::{
    CreatedVia, Decision, DocumentError, HttpMatch, HttpMatchError, PathPattern, Protocols,
    ResourcePattern, Rule, RuleError, Scope, Transport,
};
use sbx_wire::api::AddRule;
use sbx_wire::name::SandboxName;
use sbx_wire::report::Report;

/// The rule that a request asks for.
pub(crate) fn parse_rule(request: &AddRule) -> Result<Rule, Report> {
    let decision = if request.allow {
        Decision::Allow
    } else {
        Decision::Deny
    };
    let http = http_match(request.method.as_deref(), request.path.as_deref())?;
    let protocols = match (request.protocols.is_empty(), &http) {
        (true, None) => Protocols::default_for(decision),
        (true, Some(_)) => Protocols::TCP,
        (false, _) => {
            let parsed = request.protocols.iter().map(|text| transport(text));
            parsed.collect::<Result<Protocols, _>>()?
        }
    };
    let mut resources: Vec<ResourcePattern> = Vec::new();
    for text in &request.resources {
        for resource in parse_resources(text)? {
            if !resources.contains(&resource) {
                resources.push(resource);
            }
        }
    }
    let rule = Rule {
        id: random::uuid()?,
        name: None,
        scope: scope(request.sandbox.as_deref())?,
        decision,
        resources,
        protocols,
        created_via: CreatedVia::Added,
        http,
    };
    rule.review().map_err(|error| rule_report(&error))?;
    Ok(rule)
}

/// The method and path of a rule.
pub(super) fn http_match(
    method: Option<&str>,
    path: Option<&str>,
) -> Result<Option<HttpMatch>, Report> {
    let refuse = |text: String| {
        let hint = "sbx policy allow network api.example.com --method GET,POST --path '/v1/**'";
        Report::user("http-invalid", text, hint)
    };
    let parsed = |error: HttpMatchError| refuse(error.to_string());
    match (method, path) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(refuse(
            "a path needs a method: ANY stands for all of them".to_owned(),
        )),
        (Some(method), path) => Ok(Some(HttpMatch {
            methods: method.parse().map_err(parsed)?,
            path: path.map_or(Ok(PathPattern::everything()), |path| {
                path.parse().map_err(parsed)
            })?,
        })),
    }
}

pub(super) fn scope(sandbox: Option<&str>) -> Result<Scope, Report> {
    let Some(name) = sandbox else {
        return Ok(Scope::Global);
    };
    let name = SandboxName::parse(name)
        .map_err(|error| Report::user("name-invalid", error.to_string(), "sbx ls"))?;
    Ok(Scope::Sandbox(name.as_str().to_owned()))
}

pub(super) fn transport(text: &str) -> Result<Transport, Report> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Transport::Tcp),
        "udp" => Ok(Transport::Udp),
        _ => Err(Report::user(
            "protocol-unknown",
            format!(
                "{:?} is not a protocol",
                text.chars().take(20).collect::<String>()
            ),
            "write tcp, udp or tcp,udp",
        )),
    }
}

/// A comma list of resources, as rules and filters of the log have them.
pub(crate) fn parse_resources(text: &str) -> Result<Vec<ResourcePattern>, Report> {
    ResourcePattern::parse_list(text).map_err(|error| {
        let hint = error
            .hint()
            .unwrap_or_else(|| "sbx policy allow network example.com:443".to_owned());
        Report::user("resource-invalid", error.to_string(), hint)
    })
}

fn rule_report(error: &RuleError) -> Report {
    let code = match error {
        RuleError::TooBroad { .. } | RuleError::LoopbackNeedsPort(_) => "resource-invalid",
        _ => "rule-invalid",
    };
    let hint = error
        .hint()
        .unwrap_or_else(|| "sbx policy allow network example.com".to_owned());
    Report::user(code, error.to_string(), hint)
}

pub(super) fn document_report(error: &DocumentError) -> Report {
    if let DocumentError::Rule(error) = error {
        return rule_report(error);
    }
    let code = match error {
        DocumentError::Conflict { .. } => "policy-conflict",
        _ => "rule-invalid",
    };
    let hint = error
        .hint()
        .unwrap_or_else(|| "sbx policy ls --wide".to_owned());
    Report::user(code, error.to_string(), hint)
}
