//! What the evaluator answers, with everything that check, log and block page show.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::address::AddressClass;
use crate::datagram::RESOLVER_PORTS;
use crate::pattern::ResourcePattern;
use crate::rule::Decision;
use crate::scope::Scope;
use crate::target::Port;

/// The command after which rules open UDP.
const OPENS_UDP: &str = "sbx settings set feature.udp-egress true";

/// Why a verdict is what it is. The JSON and log spelling is snake case and stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReasonCode {
    /// A rule allows it.
    AllowRule,
    /// A rule denies it.
    DenyRule,
    /// No rule allows it.
    DefaultDeny,
    /// The address belongs to a range that only a rule naming it opens.
    AddressBlocked,
    /// The name resolved to nothing.
    NoAddress,
    /// A rule about methods and paths covers the host, and this connection cannot be looked into.
    NotInspectable,
    /// A name that is answered without asking anybody: an alias of the host.
    LocalName,
    /// UDP that the setting does not open, or to everybody at once.
    UdpBlocked,
    /// UDP to a port of resolvers: the sandbox has one of its own.
    ForeignResolver,
}

impl ReasonCode {
    /// The stable spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowRule => "allow_rule",
            Self::DenyRule => "deny_rule",
            Self::DefaultDeny => "default_deny",
            Self::AddressBlocked => "address_blocked",
            Self::NoAddress => "no_address",
            Self::NotInspectable => "not_inspectable",
            Self::LocalName => "local_name",
            Self::UdpBlocked => "udp_blocked",
            Self::ForeignResolver => "foreign_resolver",
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a denial comes from a rule or from the lack of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DenyKind {
    /// A deny rule matched.
    Explicit,
    /// Nothing allowed it.
    Implicit,
}

/// Whether an allowed connection has to be opened so that each request is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inspection {
    /// Every request to the host and port would get the same answer.
    NotNeeded,
    /// Rules with method or path cover the host: judge every request, and if the connection cannot
    /// be opened, ask again as [`crate::IntentKind::Opaque`].
    Required,
}

/// The rule that decided, as logs and explanations name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleRef {
    /// The id of the rule.
    pub id: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its scope.
    pub scope: Scope,
    /// The resource of the rule that matched, in canonical text.
    pub resource: String,
}

impl RuleRef {
    /// Whether the resource names this port, and does not just cover every one.
    pub fn names_port(&self, port: Port) -> bool {
        let resource = ResourcePattern::parse(&self.resource);
        resource.is_ok_and(|resource| resource.port == Some(port))
    }

    /// The name, or else the id.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}, scope: {})",
            self.label(),
            self.resource,
            self.scope
        )
    }
}

/// The answer to an intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Pass or not.
    pub decision: Decision,
    /// Why.
    pub reason: ReasonCode,
    /// The rule that decided; `None` when no rule did.
    pub rule: Option<Arc<RuleRef>>,
    /// For denials: by a rule or for the lack of one.
    pub deny_kind: Option<DenyKind>,
    /// For allowed connections: whether requests have to be judged one by one.
    pub inspection: Inspection,
    /// The addresses that may be dialled, in the order they came, once addresses are known. Nothing
    /// else may be. Empty for the host service and while nothing is resolved.
    pub pinned: Vec<IpAddr>,
    /// For [`ReasonCode::AddressBlocked`], and [`ReasonCode::UdpBlocked`] by the address: the address and its kind.
    pub blocked_address: Option<(IpAddr, AddressClass)>,
}

impl Verdict {
    /// Whether it may pass.
    pub fn is_allowed(&self) -> bool {
        self.decision == Decision::Allow
    }

    /// Whether a tunnel through the proxy that this allows has to begin with TLS for the host: always on port 443, and
    /// elsewhere unless the rule that allowed it names the port.
    pub fn tunnel_needs_tls(&self, port: Port) -> bool {
        let named = self.rule.as_ref().is_some_and(|rule| rule.names_port(port));
        port == Port::HTTPS || !named
    }

    pub(crate) fn allow(reason: ReasonCode, rule: Option<Arc<RuleRef>>) -> Self {
        Self {
            decision: Decision::Allow,
            reason,
            rule,
            deny_kind: None,
            inspection: Inspection::NotNeeded,
            pinned: Vec::new(),
            blocked_address: None,
        }
    }

    pub(crate) fn deny(reason: ReasonCode, rule: Option<Arc<RuleRef>>, kind: DenyKind) -> Self {
        Self {
            decision: Decision::Deny,
            deny_kind: Some(kind),
            ..Self::allow(reason, rule)
        }
    }

    pub(crate) fn default_deny() -> Self {
        Self::deny(ReasonCode::DefaultDeny, None, DenyKind::Implicit)
    }

    pub(crate) fn address_blocked(ip: IpAddr, class: AddressClass) -> Self {
        let verdict = Self::deny(ReasonCode::AddressBlocked, None, DenyKind::Implicit);
        Self {
            blocked_address: Some((ip, class)),
            ..verdict
        }
    }

    /// UDP that no rule opens; see [`crate::never_by_udp`]. Without an address it is the setting or the port.
    pub(crate) fn udp_refused(reason: ReasonCode, ip: Option<IpAddr>) -> Self {
        let blocked = ip.filter(|_| reason == ReasonCode::UdpBlocked);
        Self {
            blocked_address: blocked.map(|ip| (ip, AddressClass::Multicast)),
            ..Self::deny(reason, None, DenyKind::Implicit)
        }
    }

    /// The reason as one sentence without a full stop, for people.
    pub fn reason_text(&self) -> String {
        let rule = self
            .rule
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        match self.reason {
            ReasonCode::AllowRule => format!("Allowed by rule {rule}"),
            ReasonCode::DenyRule => format!("Denied by rule {rule}"),
            ReasonCode::DefaultDeny => "No matching allow rule (default deny)".into(),
            ReasonCode::AddressBlocked => match self.blocked_address {
                Some((ip, class)) if class.can_be_opened() => format!(
                    "Address {ip} is {class}: blocked unless a rule names it (address check)"
                ),
                Some((ip, class)) => format!("Address {ip} is {class}: always blocked"),
                None => "The name needs a rule that names it exactly (address check)".into(),
            },
            ReasonCode::NoAddress => "The name has no address".into(),
            ReasonCode::NotInspectable => format!(
                "Rule {rule} needs method and path, and this connection cannot be inspected"
            ),
            ReasonCode::LocalName => "A name of the host, answered locally".into(),
            ReasonCode::UdpBlocked => match self.blocked_address {
                Some((ip, class)) => format!("Address {ip} is {class}: no UDP goes there"),
                None => format!("UDP is closed: {OPENS_UDP} lets rules open it"),
            },
            ReasonCode::ForeignResolver => format!(
                "The ports of resolvers ({}) are closed over UDP: the sandbox has a resolver of its own",
                RESOLVER_PORTS.map(|port| port.to_string()).join(", ")
            ),
        }
    }
}
