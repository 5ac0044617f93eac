//! The policy verbs, on the stored document.

mod check;
mod parse;
mod remove;

pub(crate) use check::check;
pub(crate) use parse::{parse_resources, parse_rule};
pub(crate) use remove::remove;

use crate::store::Policy;
use parse::document_report;
use sbx_policy::{
    Caution, CreatedVia, Decision, DenyKind, Evaluator, Intent, IntentKind, Port, Preset,
    ReasonCode, ResourcePattern, Rule, Scope, Transport,
};
use sbx_wire::api::{AddedRule, RuleView};
use sbx_wire::report::Report;

/// Largest policy as JSON, bytes: gateways take lines of [`sbx_wire::gateway::MAX_LINE`], with certificates and
/// credentials beside the policy.
const MAX_POLICY: usize = 8 << 20;
const _: () = assert!(MAX_POLICY * 2 <= sbx_wire::gateway::MAX_LINE);
/// Resources of a new rule that are asked about whether a deny overrules them.
const MAX_ASKED: usize = 100;

/// What a rule about UDP says when it is written and UDP is closed.
const UDP_CLOSED: &str =
    "UDP is closed: over UDP the rule opens nothing until sbx settings set feature.udp-egress true";

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

/// `policy reset`: everything that the user may change goes, and with it the choice of a preset. Returns how many
/// rules that were.
pub(crate) fn reset(policy: &mut Policy) -> usize {
    let before = policy.document.rules.len();
    policy
        .document
        .rules
        .retain(|rule| !rule.scope.is_editable());
    policy.preset = None;
    before - policy.document.rules.len()
}

/// Adds a rule; one that says exactly the same already is returned instead. `udp`: whether rules may open UDP;
/// `sandbox_id`: of the sandbox that it is for.
pub(crate) fn add(
    policy: &mut Policy,
    udp: bool,
    rule: &Rule,
    sandbox_id: Option<String>,
) -> Result<AddedRule, Report> {
    let view = |policy: &Policy, rule: &Rule| {
        RuleView::new(rule, policy.document.is_active(rule), sandbox_id)
    };
    if let Some(same) = policy.document.same(rule) {
        return Ok(AddedRule {
            rule: view(policy, same),
            added: false,
            cautions: Vec::new(),
        });
    }
    let cautions = policy
        .document
        .add(rule.clone())
        .map_err(|error| document_report(&error))?;
    let size = serde_json::to_vec(&policy.document).map_or(usize::MAX, |json| json.len());
    if size > MAX_POLICY {
        return Err(Report::user(
            "policy-too-large",
            "the policy would be larger than 8 MiB",
            "fewer rules with wildcards, e.g. `**.example.com`, or address ranges",
        ));
    }
    let mut cautions: Vec<String> = cautions.iter().map(Caution::to_string).collect();
    cautions.extend(overruled(policy, rule));
    if !udp && rule.decision == Decision::Allow && rule.protocols.contains(Transport::Udp) {
        cautions.push(UDP_CLOSED.to_owned());
    }
    Ok(AddedRule {
        rule: view(policy, rule),
        added: true,
        cautions,
    })
}

/// What a new allow does not open, because a deny covers it or because no UDP ever goes there.
fn overruled(policy: &Policy, rule: &Rule) -> Vec<String> {
    let rules = &policy.document.rules;
    let denies = rules.iter().any(|rule| rule.decision == Decision::Deny);
    let udp = rule.protocols.contains(Transport::Udp);
    if rule.decision == Decision::Deny || !(denies || udp) {
        return Vec::new();
    }
    // Whether UDP is open at all is said of the whole rule.
    let evaluator = Evaluator::new(&policy.document).opening_udp(true);
    let mut found = Vec::new();
    for resource in rule.resources.iter().take(MAX_ASKED) {
        for transport in rule.protocols.iter() {
            let denial = denial(&evaluator, rule, resource, transport);
            found.extend(denial.filter(|text| !found.contains(text)));
        }
    }
    found
}

fn denial(
    evaluator: &Evaluator,
    rule: &Rule,
    resource: &ResourcePattern,
    transport: Transport,
) -> Option<String> {
    // A wildcard is no host: what it covers is decided name by name.
    let host = resource.host.to_string().parse().ok()?;
    let port = resource.port.unwrap_or(Port::HTTPS);
    let sandbox = rule.scope.sandbox().unwrap_or_default();
    let kind = IntentKind::Tls;
    let verdict = evaluator.decide(&Intent::new(sandbox, transport, kind, host, port));
    match (verdict.reason, verdict.deny_kind, &verdict.rule) {
        (ReasonCode::UdpBlocked | ReasonCode::ForeignResolver, ..) => Some(format!(
            "{resource} stays denied: {}",
            verdict.reason_text()
        )),
        (_, Some(DenyKind::Explicit), Some(deny)) => {
            Some(format!("{resource} stays denied: {deny} counts first"))
        }
        _ => None,
    }
}
