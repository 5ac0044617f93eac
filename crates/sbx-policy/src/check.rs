//! `policy check`: asks the evaluator what it would answer, and says it in text and JSON.

use serde::{Deserialize, Serialize};

use crate::evaluator::Evaluator;
use crate::host::Host;
use crate::http::HttpRequest;
use crate::intent::{Intent, IntentKind};
use crate::nearest::Nearest;
use crate::rule::Transport;
use crate::scope::Scope;
use crate::target::{Port, Target};
use crate::verdict::{DenyKind, Inspection, ReasonCode};

/// The answer to a check; its JSON is what `policy check --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// `net:connect:tcp` or `net:connect:udp`.
    pub action: String,
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
    pub resource_type: String,
    /// The resource of the rule that decided, or else the target.
    pub resource_value: String,
    /// Name or id of the rule that decided.
    pub rule: Option<String>,
    /// Its id.
    pub rule_id: Option<String>,
    /// Its scope.
    pub scope: Option<Scope>,
    /// Its layer: `global`, `sandbox`, `kit`, `approval` or `org`.
    pub layer: Option<String>,
    /// Who wrote it: `local`, `scoped`, `kit` or `org`.
    pub origin: Option<String>,
    /// The target in canonical form.
    pub target: Target,
    /// `network`, or `http` when a method and path were given.
    #[serde(rename = "type")]
    pub kind: String,
    /// The method that was asked about; `ANY` stands for one that no list of methods can name.
    pub method: Option<String>,
    /// The path that was asked about, normalised.
    pub path: Option<String>,
    /// Whether every request will be judged on its own.
    pub inspection: Inspection,
    /// Whether the target is a service of the host: what it can reach, the sandbox can.
    pub host_service: bool,
    /// Whether a tunnel through the proxy has to begin with TLS: no rule names the port.
    pub tls_only: bool,
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
    let mut intent = Intent::new(
        sandbox.unwrap_or_default(),
        transport,
        IntentKind::Tls,
        target.host.clone(),
        target.port,
    );
    let asked = request.as_ref().map(|request| {
        let method = request
            .method
            .map_or("ANY".to_owned(), |method| method.to_string());
        (method, request.path.to_string())
    });
    if let Some(request) = request {
        intent = intent.with_http(request);
    }
    let verdict = evaluator.decide(&intent);
    let rule = verdict.rule.as_deref();
    let (method, path) = asked.unzip();
    CheckReport {
        action: match transport {
            Transport::Tcp => "net:connect:tcp",
            Transport::Udp => "net:connect:udp",
        }
        .to_owned(),
        allowed: verdict.is_allowed(),
        context: sandbox.map_or(Scope::Global, |name| Scope::Sandbox(name.to_owned())),
        deny_kind: verdict.deny_kind,
        reason: verdict.reason_text(),
        reason_code: verdict.reason,
        resource_type: match target.host {
            Host::Ip(_) => "net:ip",
            Host::Name(_) | Host::HostService => "net:domain",
        }
        .to_owned(),
        resource_value: rule.map_or_else(|| target.to_string(), |rule| rule.resource.clone()),
        rule: rule.map(|rule| rule.label().to_owned()),
        rule_id: rule.map(|rule| rule.id.clone()),
        scope: rule.map(|rule| rule.scope.clone()),
        layer: rule.map(|rule| rule.scope.layer().to_owned()),
        origin: rule.map(|rule| rule.scope.origin().to_owned()),
        target: target.clone(),
        kind: kind.to_owned(),
        method,
        path,
        inspection: verdict.inspection,
        host_service: target.host.is_loopback(),
        tls_only: verdict.is_allowed()
            && transport == Transport::Tcp
            && intent.kind == IntentKind::Tls
            && !matches!(target.port, Port::HTTP | Port::HTTPS)
            && verdict.tunnel_needs_tls(target.port),
        nearest: evaluator.nearest(&intent, &verdict),
    }
}

impl CheckReport {
    /// What `policy check` prints: one line when allowed, two when denied, and what must not be overlooked. `asked`
    /// is the target as the user wrote it.
    pub fn text(&self, asked: &str) -> String {
        let mut text = if self.allowed {
            format!("Allowed: {asked}\n")
        } else {
            format!("Denied: {asked}\nReason: {}\n", self.reason)
        };
        if self.allowed && self.host_service {
            text.push_str("Note: a service of this machine: what it can reach, the sandbox can reach through it\n");
        }
        if self.allowed && self.inspection == Inspection::Required {
            text.push_str("Note: rules with method or path apply; each request is judged (ask with --method, --path)\n");
        }
        if self.tls_only {
            text.push_str(&format!(
                "Note: no rule names port {}: a tunnel through the proxy has to begin with TLS there\n",
                self.target.port
            ));
        }
        text
    }

    /// What `--verbose` adds: the target as it was judged, the deciding rule and the nearest one.
    pub fn details(&self) -> String {
        let mut text = format!("Target: {} ({})\n", self.target, self.action);
        if let (Some(method), Some(path)) = (&self.method, &self.path) {
            text.push_str(&format!("Request: {method} {path}\n"));
        }
        match (&self.rule, &self.rule_id, &self.scope, &self.layer) {
            (Some(rule), Some(id), Some(scope), Some(layer)) => text.push_str(&format!(
                "Rule: {rule} ({}; layer: {layer}, scope: {scope}, id: {id})\n",
                self.resource_value
            )),
            _ => text.push_str("Rule: none\n"),
        }
        match &self.nearest {
            Some(nearest) => text.push_str(&format!("Nearest: {nearest}\n")),
            None => text.push_str("Nearest: no rule comes close to deciding otherwise\n"),
        }
        text
    }
}
