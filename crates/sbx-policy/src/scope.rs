//! Whom a rule is for.

use std::fmt;
use std::str::FromStr;

use crate::rule::MAX_ID;
use crate::text::serde_as_text;

/// Longest sandbox name in a scope.
const MAX_SANDBOX_NAME: usize = 63;

/// Why a text is not a scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a scope: global, org, sandbox:NAME, kit:NAME or approval:ID@NAME")]
pub struct ScopeError(String);

/// Whom a rule is for. Text and JSON: `global`, `org`, `sandbox:NAME`, `kit:NAME`,
/// `approval:ID@NAME`, where NAME is a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every sandbox: presets and the user.
    Global,
    /// One sandbox; removed with it.
    Sandbox(String),
    /// One sandbox, written by its kit or built-in agent.
    Kit(String),
    /// One sandbox, granted as the answer to a request.
    Approval {
        /// The request.
        id: String,
        /// The sandbox.
        sandbox: String,
    },
    /// Every sandbox: the organisation.
    Org,
}

impl Scope {
    /// The one sandbox that the rule is for; `None` for all.
    pub fn sandbox(&self) -> Option<&str> {
        match self {
            Self::Global | Self::Org => None,
            Self::Sandbox(name) | Self::Kit(name) | Self::Approval { sandbox: name, .. } => {
                Some(name)
            }
        }
    }

    /// Whether the user may change rules of this scope.
    pub fn is_editable(&self) -> bool {
        matches!(
            self,
            Self::Global | Self::Sandbox(_) | Self::Approval { .. }
        )
    }

    /// The word for the scope's kind: `global`, `sandbox`, `kit`, `approval` or `org`.
    pub fn layer(&self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Sandbox(_) => "sandbox",
            Self::Kit(_) => "kit",
            Self::Approval { .. } => "approval",
            Self::Org => "org",
        }
    }

    /// The word for the scope's writer in rule JSON: `local`, `scoped`, `kit` or `org`.
    pub fn origin(&self) -> &'static str {
        match self {
            Self::Global => "local",
            Self::Sandbox(_) | Self::Approval { .. } => "scoped",
            Self::Kit(_) => "kit",
            Self::Org => "org",
        }
    }
}

/// Whether the text is short and free of anything that could break a scope or a listing.
pub(crate) fn is_plain(text: &str, max: usize) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    !text.is_empty() && text.len() <= max && text.bytes().all(good)
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let bad = || ScopeError(text.chars().take(80).collect());
        let sandbox = |name: &str| {
            is_plain(name, MAX_SANDBOX_NAME)
                .then(|| name.to_owned())
                .ok_or_else(bad)
        };
        match text.split_once(':') {
            None if text == "global" => Ok(Self::Global),
            None if text == "org" => Ok(Self::Org),
            Some(("sandbox", name)) => sandbox(name).map(Self::Sandbox),
            Some(("kit", name)) => sandbox(name).map(Self::Kit),
            Some(("approval", rest)) => {
                let (id, name) = rest.split_once('@').ok_or_else(bad)?;
                if !is_plain(id, MAX_ID) {
                    return Err(bad());
                }
                Ok(Self::Approval {
                    id: id.to_owned(),
                    sandbox: sandbox(name)?,
                })
            }
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Org => f.write_str("org"),
            Self::Sandbox(name) => write!(f, "sandbox:{name}"),
            Self::Kit(name) => write!(f, "kit:{name}"),
            Self::Approval { id, sandbox } => write!(f, "approval:{id}@{sandbox}"),
        }
    }
}

serde_as_text!(Scope);
