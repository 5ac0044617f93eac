//! Rules: who decided what about which resources, for whom.

use serde::{Deserialize, Serialize};

use crate::http::HttpMatch;
use crate::pattern::ResourcePattern;
use crate::scope::{Scope, is_plain};
use crate::suffix::is_public_top_level;

/// Most resources in one rule: far above any list written by hand, low enough to bound a request.
pub const MAX_RESOURCES: usize = 10_000;
/// Longest rule id in bytes; a UUID has 36.
pub(crate) const MAX_ID: usize = 64;
/// Longest rule name in bytes.
const MAX_RULE_NAME: usize = 200;

/// Why a rule is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// Empty, over 64 bytes, or something else than letters, digits and `-`.
    #[error("the rule id is not valid")]
    BadId,
    /// Empty, over 200 bytes, or with control characters.
    #[error("the rule name is empty, longer than 200 bytes, or has control characters")]
    BadName,
    /// No resource.
    #[error("a rule needs at least one resource")]
    NoResources,
    /// Over [`MAX_RESOURCES`].
    #[error("a rule has at most {MAX_RESOURCES} resources")]
    TooManyResources,
    /// Neither TCP nor UDP.
    #[error("a rule needs at least one protocol")]
    NoProtocols,
    /// A method or path on an address or a service of the host.
    #[error("{0}: rules with a method or a path take host names, not addresses")]
    HttpNeedsName(ResourcePattern),
    /// A method or path on UDP.
    #[error("rules with a method or a path are about TCP alone")]
    HttpNeedsTcp,
    /// An allow whose wildcard stands directly below a suffix such as `com` or `co.uk`.
    #[error("{resource} is too broad: anybody can get a name below {suffix:?}")]
    TooBroad {
        /// The refused resource.
        resource: Box<ResourcePattern>,
        /// The public suffix.
        suffix: String,
    },
    /// An allow of the host's loopback that names no port. Only when written: see [`Rule::review`].
    #[error("{0} without a port opens every service that listens on this machine")]
    LoopbackNeedsPort(ResourcePattern),
}

impl RuleError {
    /// What to write instead, if there is something to suggest.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TooBroad { suffix, .. } => Some(format!(
                "a name you trust: `**.example.{suffix}`; `**` means everything"
            )),
            Self::LoopbackNeedsPort(resource) => {
                Some(format!("`{resource}:8080`, with the port of the service"))
            }
            Self::HttpNeedsTcp => Some("leave --protocol out".into()),
            _ => None,
        }
    }
}

/// What a rule or a verdict says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// May pass.
    Allow,
    /// May not pass.
    Deny,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A set of transport protocols. Never empty once it is in a [`Rule`]. In JSON a list of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Transport>", into = "Vec<Transport>")]
pub struct Protocols {
    tcp: bool,
    udp: bool,
}

impl Protocols {
    /// TCP alone: the default of an allow.
    pub const TCP: Self = Self {
        tcp: true,
        udp: false,
    };
    /// UDP alone.
    pub const UDP: Self = Self {
        tcp: false,
        udp: true,
    };
    /// Both: the default of a deny.
    pub const ALL: Self = Self {
        tcp: true,
        udp: true,
    };
    /// Neither.
    pub(crate) const NONE: Self = Self {
        tcp: false,
        udp: false,
    };

    /// What a rule covers when nothing is said: TCP for an allow, both for a deny.
    pub const fn default_for(decision: Decision) -> Self {
        match decision {
            Decision::Allow => Self::TCP,
            Decision::Deny => Self::ALL,
        }
    }

    /// Whether the protocol is in the set.
    pub const fn contains(self, transport: Transport) -> bool {
        match transport {
            Transport::Tcp => self.tcp,
            Transport::Udp => self.udp,
        }
    }

    /// Whether the sets share a protocol.
    pub const fn overlaps(self, other: Self) -> bool {
        (self.tcp && other.tcp) || (self.udp && other.udp)
    }

    pub(crate) const fn union(self, other: Self) -> Self {
        Self {
            tcp: self.tcp || other.tcp,
            udp: self.udp || other.udp,
        }
    }

    pub(crate) const fn minus(self, other: Self) -> Self {
        Self {
            tcp: self.tcp && !other.tcp,
            udp: self.udp && !other.udp,
        }
    }

    pub(crate) const fn is_empty(self) -> bool {
        !self.tcp && !self.udp
    }

    /// The protocols in the set, TCP first.
    pub fn iter(self) -> impl Iterator<Item = Transport> {
        [Transport::Tcp, Transport::Udp]
            .into_iter()
            .filter(move |t| self.contains(*t))
    }
}

impl FromIterator<Transport> for Protocols {
    fn from_iter<I: IntoIterator<Item = Transport>>(list: I) -> Self {
        list.into_iter()
            .fold(Self::NONE, |set, transport| match transport {
                Transport::Tcp => set.union(Self::TCP),
                Transport::Udp => set.union(Self::UDP),
            })
    }
}

impl From<Vec<Transport>> for Protocols {
    fn from(list: Vec<Transport>) -> Self {
        list.into_iter().collect()
    }
}

impl From<Protocols> for Vec<Transport> {
    fn from(set: Protocols) -> Self {
        set.iter().collect()
    }
}

/// Where a rule came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CreatedVia {
    /// A preset.
    Default,
    /// The user.
    Added,
    /// A kit or a built-in agent at creation; not editable.
    Provisioned,
    /// An answered request.
    Approval,
}

/// One rule. The fields are public to be read and matched; [`Rule::validate`] is what makes a
/// hand-made one good, and deserialisation runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "RawRule")]
pub struct Rule {
    /// Unique in its document; a UUID made by the writer.
    pub id: String,
    /// A name for people; rules of presets have the name of their group.
    pub name: Option<String>,
    /// Whom it is for.
    pub scope: Scope,
    /// What it says.
    pub decision: Decision,
    /// What it is about: any of these.
    pub resources: Vec<ResourcePattern>,
    /// Over which transports.
    pub protocols: Protocols,
    /// Where it came from.
    pub created_via: CreatedVia,
    /// Restricts the rule to some HTTP requests; `None` is the whole host.
    pub http: Option<HttpMatch>,
}

/// What a rule looks like before it was checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    id: String,
    #[serde(default)]
    name: Option<String>,
    scope: Scope,
    decision: Decision,
    resources: Vec<ResourcePattern>,
    protocols: Protocols,
    created_via: CreatedVia,
    #[serde(default)]
    http: Option<HttpMatch>,
}

impl TryFrom<RawRule> for Rule {
    type Error = RuleError;

    fn try_from(raw: RawRule) -> Result<Self, RuleError> {
        let RawRule {
            id,
            name,
            scope,
            decision,
            resources,
            protocols,
            created_via,
            http,
        } = raw;
        let rule = Self {
            id,
            name,
            scope,
            decision,
            resources,
            protocols,
            created_via,
            http,
        };
        rule.validate()?;
        Ok(rule)
    }
}

impl Rule {
    /// Checks what the types alone do not: bounds, that method and path stand on names and TCP, and that no allow
    /// takes in a whole top-level domain. What was valid once stays so: [`Rule::review`] asks for more.
    pub fn validate(&self) -> Result<(), RuleError> {
        if !is_plain(&self.id, MAX_ID) {
            return Err(RuleError::BadId);
        }
        let bad_name = |name: &String| {
            name.is_empty() || name.len() > MAX_RULE_NAME || name.chars().any(char::is_control)
        };
        if self.name.as_ref().is_some_and(bad_name) {
            return Err(RuleError::BadName);
        }
        if self.resources.is_empty() {
            return Err(RuleError::NoResources);
        }
        if self.resources.len() > MAX_RESOURCES {
            return Err(RuleError::TooManyResources);
        }
        if self.protocols.is_empty() {
            return Err(RuleError::NoProtocols);
        }
        if self.http.is_some() {
            if self.protocols != Protocols::TCP {
                return Err(RuleError::HttpNeedsTcp);
            }
            if let Some(bad) = self.resources.iter().find(|r| !r.host.is_name()) {
                return Err(RuleError::HttpNeedsName(bad.clone()));
            }
        }
        // A deny may be as broad as it likes.
        let top_level = |resource: &&ResourcePattern| {
            let suffix = resource.host.open_suffix();
            suffix.is_some_and(|suffix| is_public_top_level(&suffix))
        };
        if self.decision == Decision::Allow
            && let Some(broad) = self.resources.iter().find(top_level)
        {
            return Err(too_broad(broad));
        }
        Ok(())
    }

    /// What listings show in the RULE column: the name, or else the id.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }
}

/// The error about a resource with a wildcard below a public suffix.
pub(crate) fn too_broad(resource: &ResourcePattern) -> RuleError {
    RuleError::TooBroad {
        resource: Box::new(resource.clone()),
        suffix: resource.host.open_suffix().unwrap_or_default(),
    }
}
