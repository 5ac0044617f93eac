//! `policy check`: asks the evaluator what it would answer, and says it in text and JSON.

use serde::Serialize;

use crate::evaluator::Evaluator;
use crate::host::Host;
use crate::http::HttpRequest;
use crate::intent::{Intent, IntentKind};
use crate::nearest::Nearest;
use crate::rule::{Decision, Scope, Transport};
use crate::target::Target;
use crate::verdict::{DenyKind, Inspection, ReasonCode};

/// The answer to a check; its JSON is what `policy check --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// `net:connect:tcp` or `net:connect:udp`.
    pub action: &'static str,
    /// Whether it would pass.
    pub allowed: bool,
    /// Whose rules were asked: `global` or `sandbox:NAME`.
    pub context: Scope,
    /// For denials: by a rule or for the lack of one.
    pub deny_kind: Option<DenyKind>,
    /// One sentence for people.
    pub reason: String,
    /// The stable code of the reason, the same as in the log.
    pub reason_code: ReasonCode,
    /// `net:domain` or `net:ip`.
    pub resource_type: &'static str,
    /// The resource of the rule that decided, or else the target.
    pub resource_value: String,
    /// Name or id of the rule that decided.
    pub rule: Option<String>,
    /// Its id.
    pub rule_id: Option<String>,
    /// Its scope.
    pub scope: Option<Scope>,
    /// Who wrote it: `local`, `scoped`, `kit` or `org`.
    pub origin: Option<&'static str>,
    /// The target in canonical form.
    pub target: Target,
    /// `network`, or `http` when a method and path were given.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whether every request will be judged on its own.
    pub inspection: Inspection,
    /// The rule that came closest to deciding otherwise.
    pub nearest: Option<Nearest>,
}

/// Asks whether the target may be reached. Nothing is resolved and nothing is sent. Without a
/// request the question is about the connection.
pub fn check(
    evaluator: &Evaluator,
    sandbox: Option<&str>,
    transport: Transport,
    target: &Target,
    request: Option<HttpRequest>,
) -> CheckReport {
    let kind = if request.is_some() { "http" } else { "network" };
    let name = sandbox.unwrap_or_default();
    let mut intent = Intent::new(
        name,
        transport,
        IntentKind::Tls,
        target.host.clone(),
        target.port,
    );
    if let Some(request) = request {
        intent = intent.with_http(request);
    }
    let verdict = evaluator.decide(&intent);
    let rule = verdict.rule.as_deref();
    CheckReport {
        action: match transport {
            Transport::Tcp => "net:connect:tcp",
            Transport::Udp => "net:connect:udp",
        },
        allowed: verdict.decision == Decision::Allow,
        context: sandbox.map_or(Scope::Global, |name| Scope::Sandbox(name.to_owned())),
        deny_kind: verdict.deny_kind,
        reason: verdict.reason_text(),
        reason_code: verdict.reason,
        resource_type: if matches!(target.host, Host::Ip(_)) {
            "net:ip"
        } else {
            "net:domain"
        },
        resource_value: rule.map_or_else(|| target.to_string(), |rule| rule.resource.clone()),
        rule: rule.map(|rule| rule.label().to_owned()),
        rule_id: rule.map(|rule| rule.id.clone()),
        scope: rule.map(|rule| rule.scope.clone()),
        origin: rule.map(|rule| rule.scope.origin()),
        target: target.clone(),
        kind,
        inspection: verdict.inspection,
        nearest: evaluator.nearest(&intent, &verdict),
    }
}

impl CheckReport {
    /// What `policy check` prints: one line when allowed, two when denied. `asked` is the target as
    /// the user wrote it.
    pub fn text(&self, asked: &str) -> String {
        if self.allowed {
            format!("Allowed: {asked}\n")
        } else {
            format!("Denied: {asked}\nReason: {}\n", self.reason)
        }
    }

    /// What `--verbose` adds: the deciding rule and the nearest one.
    pub fn details(&self) -> String {
        let mut lines = Vec::new();
        if self.target.host == Host::HostService {
            lines.push(format!("Target: {} (a service of the host)", self.target));
        }
        if let (Some(rule), Some(scope)) = (&self.rule, &self.scope) {
            lines.push(format!(
                "Rule: {rule} ({}, scope: {scope})",
                self.resource_value
            ));
        }
        if self.allowed && self.inspection == Inspection::Required {
            lines.push("Note: rules with method or path apply; each request is judged".into());
        }
        if let Some(nearest) = &self.nearest {
            lines.push(format!("Nearest: {nearest}"));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}
