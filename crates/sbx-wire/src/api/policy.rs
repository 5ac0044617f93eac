//! The part of the API about what may leave, and what did.

use crate::gateway::EgressRecord;
use sbx_policy::{CreatedVia, Decision, ResourcePattern, Rule, Scope, Transport};
use serde::{Deserialize, Serialize};

/// `policy init`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyInit {
    /// `allow-all`, `balanced` or `deny-all`.
    pub preset: String,
    /// Replace an initialised policy's preset rules instead of failing (`policy set-default`, `login`).
    pub replace: bool,
}

/// What `policy reset` did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PolicyReset {
    /// Rules that are gone.
    pub removed: usize,
    /// Sandboxes that run, and reach nothing until a preset is chosen.
    pub running: Vec<String>,
}

/// `policy ls`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PolicyState {
    /// Whether `policy init` has been done.
    pub initialized: bool,
    /// Preset chosen.
    pub preset: Option<String>,
    /// Rises with each change.
    pub generation: u64,
    /// All rules, or those that concern one sandbox.
    pub rules: Vec<RuleView>,
    /// Running sandboxes whose gateway works with an older policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unconfirmed: Vec<Unconfirmed>,
}

/// A running sandbox whose gateway works with an older policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unconfirmed {
    /// The sandbox.
    pub sandbox: String,
    /// In words.
    pub reason: String,
}

/// A rule as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// Its id.
    pub id: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// The policy it belongs to: the name of its group, or `local`.
    pub policy_id: String,
    /// Whom it is for.
    pub scope: Scope,
    /// The same for people: `all`, or the scope.
    pub applies_to: String,
    /// `network`, or `http` for rules with method and path.
    pub resource_type: String,
    /// What it says.
    pub decision: Decision,
    /// What it is about.
    pub resources: Vec<ResourcePattern>,
    /// The resources among them that are services of the host: what those can reach, sandboxes can.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_services: Vec<ResourcePattern>,
    /// Methods, for `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Path, for `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Who wrote it: `local`, `scoped`, `kit` or `org`.
    pub origin: String,
    /// `global`, `sandbox`, `kit`, `approval` or `org`.
    pub layer: String,
    /// `active`, or `inactive` when an organisation's policy leaves it out.
    pub status: String,
    /// Whether the user may remove it.
    pub editable: bool,
    /// Id of the one sandbox that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// Where it came from.
    pub provenance: Provenance,
    /// `net:connect:tcp`, `net:connect:udp`.
    pub actions: Vec<String>,
}

/// Where a rule came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The way.
    pub created_via: CreatedVia,
}

impl RuleView {
    /// The listing of a rule. `active`: [`sbx_policy::PolicyDocument::is_active`].
    pub fn new(rule: &Rule, active: bool, sandbox_id: Option<String>) -> Self {
        let host_services = rule
            .resources
            .iter()
            .filter(|resource| rule.decision == Decision::Allow && resource.host.is_loopback());
        Self {
            id: rule.id.clone(),
            name: rule.name.clone(),
            policy_id: rule.name.clone().unwrap_or_else(|| "local".to_owned()),
            scope: rule.scope.clone(),
            applies_to: match &rule.scope {
                Scope::Global => "all".to_owned(),
                other => other.to_string(),
            },
            resource_type: if rule.http.is_some() {
                "http"
            } else {
                "network"
            }
            .to_owned(),
            decision: rule.decision,
            resources: rule.resources.clone(),
            host_services: host_services.cloned().collect(),
            method: rule.http.as_ref().map(|http| http.methods.to_string()),
            path: rule.http.as_ref().map(|http| http.path.to_string()),
            origin: rule.scope.origin().to_owned(),
            layer: rule.scope.layer().to_owned(),
            status: if active { "active" } else { "inactive" }.to_owned(),
            editable: rule.scope.is_editable(),
            sandbox_id,
            provenance: Provenance {
                created_via: rule.created_via,
            },
            actions: rule
                .protocols
                .iter()
                .map(|transport| match transport {
                    Transport::Tcp => "net:connect:tcp".to_owned(),
                    Transport::Udp => "net:connect:udp".to_owned(),
                })
                .collect(),
        }
    }
}

/// `policy allow|deny network`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRule {
    /// Decision of the rule.
    pub allow: bool,
    /// Comma lists are split by the daemon.
    pub resources: Vec<String>,
    /// `None`: global.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// `tcp`, `udp`; empty: the decision's default (allow: tcp, deny: both; with a method: tcp).
    #[serde(default)]
    pub protocols: Vec<String>,
    /// Comma list of HTTP methods, or `ANY`.
    #[serde(default)]
    pub method: Option<String>,
    /// Path pattern; `None` with a method: every path.
    #[serde(default)]
    pub path: Option<String>,
}

/// A rule that was added, or was there already.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddedRule {
    /// The rule.
    pub rule: RuleView,
    /// False: a rule said exactly this already, and nothing was changed.
    pub added: bool,
    /// What its writer should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cautions: Vec<String>,
}

/// `policy rm network`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRule {
    /// By id.
    #[serde(default)]
    pub id: Option<String>,
    /// By resource, as printed; also a comma list.
    #[serde(default)]
    pub resource: Option<String>,
    /// Within this sandbox's rules.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// With the resource: of the rules with these methods.
    #[serde(default)]
    pub method: Option<String>,
    /// With the method: of the rules with this path.
    #[serde(default)]
    pub path: Option<String>,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedRules {
    /// Ids of the rules that are gone.
    pub removed: Vec<String>,
    /// Ids of the rules that lost the resource and keep others.
    #[serde(default)]
    pub narrowed: Vec<String>,
}

/// `policy check network`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Host, host:port, address or URL.
    pub target: String,
    /// As this sandbox would be judged; `None`: global rules only.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// `tcp` or `udp`; empty: tcp.
    #[serde(default)]
    pub protocol: String,
    /// One HTTP method: the question is about a request.
    #[serde(default)]
    pub method: Option<String>,
    /// Its path; `None`: that of the target's URL, or else `/`.
    #[serde(default)]
    pub path: Option<String>,
}

/// `policy log`: rows aggregated per sandbox, host, port, kind and verdict.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PolicyLog {
    /// Stopped.
    pub blocked_hosts: Vec<LogRow>,
    /// Passed.
    pub allowed_hosts: Vec<LogRow>,
    /// Rows that were left out because there were too many, the oldest first; those beyond the limit that was asked
    /// for are not among them.
    #[serde(default)]
    pub left_out: u64,
}

/// One row of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogRow {
    /// Sandbox name.
    pub vm_name: String,
    /// `network`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `host:port`.
    pub host: String,
    /// How it left.
    pub proxy_type: crate::gateway::ProxyKind,
    /// Deciding rule, in words; `-` where none.
    pub rule: String,
    /// Reason code.
    pub reason: String,
    /// RFC 3339, UTC.
    pub last_seen: String,
    /// RFC 3339, UTC: first time.
    pub since: String,
    /// Times since then.
    pub count_since: u64,
    /// The newest record.
    pub last: EgressRecord,
}

/// One line of a log that is followed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogEvent {
    /// First line: what is recorded from now on is not missed.
    Following,
    /// Something left or was stopped. The sandbox's name is the daemon's word, the rest the gateway's.
    Record(Box<EgressRecord>),
    /// Something the user should know; goes to standard error.
    Notice(String),
    /// Last line: there is nothing left to follow. The text says why.
    End(String),
}
