//! What is asked of a rule when it is written, and not again: rules that are stored stay in force when a later
//! version asks for more.

use std::fmt;

use crate::pattern::ResourcePattern;
use crate::rule::{Decision, Rule, RuleError, too_broad};
use crate::suffix::{Registry, registry};

/// Something about a good rule that its writer should know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Caution {
    /// It opens a service on the host's loopback.
    HostService(ResourcePattern),
    /// Its wildcard stands below a suffix where a company gives names to its customers.
    SharedSuffix {
        /// The resource.
        resource: ResourcePattern,
        /// The suffix.
        suffix: String,
    },
}

impl fmt::Display for Caution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostService(resource) => write!(
                f,
                "{resource} is a service of this machine: what it can reach, the sandbox can reach through it"
            ),
            Self::SharedSuffix { resource, suffix } => write!(
                f,
                "{resource} lets in names of strangers: anybody can get one below {suffix}"
            ),
        }
    }
}

impl Rule {
    /// Checks a rule that somebody is about to add. Beyond [`Rule::validate`], an allow may not have a wildcard below
    /// a suffix of the public suffix list that a registry runs, and names the port of a service of the host.
    /// Returns what the writer should know.
    pub fn review(&self) -> Result<Vec<Caution>, RuleError> {
        self.validate()?;
        if self.decision == Decision::Deny {
            return Ok(Vec::new());
        }
        let mut cautions = Vec::new();
        for resource in &self.resources {
            if resource.host.is_loopback() {
                if resource.port.is_none() {
                    return Err(RuleError::LoopbackNeedsPort(resource.clone()));
                }
                cautions.push(Caution::HostService(resource.clone()));
            }
            cautions.extend(resource.review()?);
        }
        Ok(cautions)
    }
}

impl ResourcePattern {
    /// Checks names that somebody is about to trust: no wildcard may stand below a suffix of the public suffix list that a
    /// registry runs. Returns what the writer should know.
    pub fn review(&self) -> Result<Option<Caution>, RuleError> {
        let Some(suffix) = self.host.open_suffix() else {
            return Ok(None);
        };
        match registry(&suffix) {
            Registry::Owner => Ok(None),
            Registry::Public => Err(too_broad(self)),
            Registry::Hosting => Ok(Some(Caution::SharedSuffix {
                resource: self.clone(),
                suffix,
            })),
        }
    }
}
