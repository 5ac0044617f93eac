//! The policy verbs, on the stored document.

use crate::random;
use crate::store::Policy;
use sbx_policy::{
    CheckReport, CreatedVia, Decision, DocumentError, Evaluator, Preset, Protocols,
    ResourcePattern, Rule, Scope, Target, Transport,
};
use sbx_wire::api::{AddRule, CheckResult, RemoveRule};
use sbx_wire::name::SandboxName;
use sbx_wire::report::Report;

/// What is missing before `policy init`.
pub(crate) fn not_initialized() -> Report {
    Report::user(
        "policy-not-initialized",
        "the global network policy has not been initialized",
        "sbx policy init balanced   (or: allow-all, deny-all)",
    )
}

/// `policy init`: the preset's rules. With `replace`, those of an earlier preset go.
pub(crate) fn init(policy: &mut Policy, preset: &str, replace: bool) -> Result<(), Report> {
    let preset: Preset = preset.parse().map_err(|error: sbx_policy::UnknownPreset| {
        Report::user(
            "preset-unknown",
            error.to_string(),
            "sbx policy init balanced",
        )
    })?;
    if let Some(current) = &policy.preset
        && !replace
    {
        return Err(Report::user(
            "policy-already-initialized",
            format!("the global network policy is initialized already ({current})"),
            format!("sbx policy set-default {preset} to replace it; sbx policy ls shows the rules"),
        ));
    }
    policy
        .document
        .rules
        .retain(|rule| rule.created_via != CreatedVia::Default || rule.scope != Scope::Global);
    for rule in sbx_policy::preset(preset) {
        policy
            .document
            .add(rule)
            .map_err(|error| document_report(&error))?;
    }
    policy.preset = Some(preset.as_str().to_owned());
    Ok(())
}

/// The rule that a request asks for.
pub(crate) fn parse_rule(request: &AddRule) -> Result<Rule, Report> {
    let decision = if request.allow {
        Decision::Allow
    } else {
        Decision::Deny
    };
    let scope = scope(request.sandbox.as_deref())?;
    let mut resources: Vec<ResourcePattern> = Vec::new();
    for text in &request.resources {
        for resource in ResourcePattern::parse_list(text).map_err(|error| pattern_report(&error))? {
            if !resources.contains(&resource) {
                resources.push(resource);
            }
        }
    }
    let protocols = if request.protocols.is_empty() {
        Protocols::default_for(decision)
    } else {
        let parsed = request.protocols.iter().map(|text| transport(text));
        parsed.collect::<Result<Vec<Transport>, _>>()?.into()
    };
    let rule = Rule {
        id: random::uuid()?,
        name: None,
        scope,
        decision,
        resources,
        protocols,
        created_via: CreatedVia::Added,
        http: None,
    };
    rule.validate().map_err(|error| {
        Report::user(
            "rule-invalid",
            error.to_string(),
            "sbx policy allow network example.com",
        )
    })?;
    Ok(rule)
}

/// Adds a rule; one that says exactly the same already is returned instead.
pub(crate) fn add(policy: &mut Policy, rule: Rule) -> Result<Rule, Report> {
    if let Some(same) = same(policy, &rule) {
        return Ok(same.clone());
    }
    policy
        .document
        .add(rule.clone())
        .map_err(|error| document_report(&error))?;
    Ok(rule)
}

/// A rule that already says what `rule` does.
pub(crate) fn same<'a>(policy: &'a Policy, rule: &Rule) -> Option<&'a Rule> {
    policy.document.rules.iter().find(|old| {
        (
            &old.scope,
            old.decision,
            &old.resources,
            old.protocols,
            &old.http,
        ) == (
            &rule.scope,
            rule.decision,
            &rule.resources,
            rule.protocols,
            &rule.http,
        )
    })
}

/// Removes by id or by resource and returns the ids of the rules that were removed or narrowed.
pub(crate) fn remove(policy: &mut Policy, request: &RemoveRule) -> Result<Vec<String>, Report> {
    let absent = |what: String| Report::user("rule-not-found", what, "sbx policy ls --wide");
    match (&request.id, &request.resource) {
        (Some(id), None) => {
            let shown: String = id.chars().take(80).collect();
            let rule = policy.document.rules.iter().find(|rule| rule.id == *id);
            let rule =
                rule.ok_or_else(|| absent(format!("there is no rule with the id {shown:?}")))?;
            if let Some(sandbox) = &request.sandbox
                && rule.scope.sandbox() != Some(sandbox)
            {
                return Err(absent(format!(
                    "rule {shown} does not belong to sandbox '{sandbox}'"
                )));
            }
            if !rule.scope.is_editable() {
                return Err(Report::user(
                    "rule-not-editable",
                    format!("rule {shown} was not made by you (scope: {})", rule.scope),
                    "sbx policy deny network with the same resource overrides it",
                ));
            }
            policy.document.remove(id);
            Ok(vec![id.clone()])
        }
        (None, Some(text)) => {
            let scope = scope(request.sandbox.as_deref())?;
            let resource = ResourcePattern::parse(text).map_err(|error| pattern_report(&error))?;
            let hit = |rule: &&Rule| {
                rule.scope == scope && rule.http.is_none() && rule.resources.contains(&resource)
            };
            let ids: Vec<String> = policy
                .document
                .rules
                .iter()
                .filter(hit)
                .map(|rule| rule.id.clone())
                .collect();
            if ids.is_empty() {
                return Err(absent(format!(
                    "no rule of scope {scope} has the resource {resource}"
                )));
            }
            policy.document.remove_resource(&scope, &resource, None);
            Ok(ids)
        }
        _ => Err(Report::user(
            "rule-unnamed",
            "name a rule either by its id or by its resource",
            "sbx policy rm network --id ID",
        )),
    }
}

/// `policy check`.
pub(crate) fn check(
    policy: &Policy,
    target: &str,
    sandbox: Option<&str>,
    protocol: &str,
) -> Result<CheckResult, Report> {
    let transport = transport(if protocol.is_empty() { "tcp" } else { protocol })?;
    let parsed = Target::parse(target).map_err(|error| {
        Report::user(
            "target-invalid",
            format!("not a destination: {error}"),
            "sbx policy check network example.com:443",
        )
    })?;
    let evaluator = Evaluator::new(&policy.for_sandbox(sandbox));
    let report = sbx_policy::check(&evaluator, sandbox, transport, &parsed, None);
    Ok(result(report, target))
}

fn result(report: CheckReport, asked: &str) -> CheckResult {
    CheckResult {
        action: if report.allowed { "allow" } else { "deny" }.to_owned(),
        allowed: report.allowed,
        deny_kind: report.deny_kind.map(|kind| {
            match kind {
                sbx_policy::DenyKind::Explicit => "explicit",
                sbx_policy::DenyKind::Implicit => "implicit",
            }
            .to_owned()
        }),
        reason: report.reason,
        reason_code: report.reason_code.as_str().to_owned(),
        resource_type: report.resource_type.to_owned(),
        resource_value: report.resource_value,
        rule: report.rule_id,
        origin: report.origin.map(str::to_owned),
        target: asked.to_owned(),
        kind: report.kind.to_owned(),
    }
}

fn scope(sandbox: Option<&str>) -> Result<Scope, Report> {
    let Some(name) = sandbox else {
        return Ok(Scope::Global);
    };
    let name = SandboxName::parse(name)
        .map_err(|error| Report::user("name-invalid", error.to_string(), "sbx ls"))?;
    Ok(Scope::Sandbox(name.as_str().to_owned()))
}

fn transport(text: &str) -> Result<Transport, Report> {
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

fn pattern_report(error: &sbx_policy::PatternError) -> Report {
    let hint = error
        .hint()
        .unwrap_or_else(|| "sbx policy allow network example.com:443".to_owned());
    Report::user("resource-invalid", error.to_string(), hint)
}

fn document_report(error: &DocumentError) -> Report {
    let code = match error {
        DocumentError::Conflict { .. } => "policy-conflict",
        _ => "rule-invalid",
    };
    let hint = error
        .hint()
        .unwrap_or_else(|| "sbx policy ls --wide".to_owned());
    Report::user(code, error.to_string(), hint)
}
