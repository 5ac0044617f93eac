//! The policy as it is stored by the daemon and handed to gateways.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::http::HttpMatch;
use crate::pattern::ResourcePattern;
use crate::review::Caution;
use crate::rule::{Decision, Rule, RuleError};
use crate::scope::Scope;
use crate::text::shell_word;

/// Most rules in one document: ten times the size that decisions are measured with.
pub const MAX_RULES: usize = 100_000;

/// Why a document could not be changed. [`DocumentError::hint`] says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The rule itself is not valid.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// Over [`MAX_RULES`].
    #[error("a policy has at most {MAX_RULES} rules")]
    TooManyRules,
    /// The id is taken.
    #[error("a rule with the id {0} exists already")]
    DuplicateId(String),
    /// The same resource, in the same scope, is decided the other way.
    #[error("conflict with the existing {decision} rule {label} for {resource} (scope: {scope})")]
    Conflict {
        /// `allow` or `deny`.
        decision: &'static str,
        /// Name or id of the existing rule.
        label: String,
        /// Id of the existing rule.
        id: String,
        /// The resource both are about.
        resource: Box<ResourcePattern>,
        /// The scope both are in.
        scope: Box<Scope>,
        /// The method and path both are about.
        http: Option<Box<HttpMatch>>,
    },
}

impl DocumentError {
    /// The next step, if there is one to suggest.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Conflict {
                resource,
                scope,
                http,
                ..
            } => Some(removal_command(resource, http.as_deref(), scope)),
            Self::Rule(error) => error.hint(),
            _ => None,
        }
    }
}

/// A whole policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyDocument {
    /// Grows by at least one with every change; says which policy a record was decided on.
    pub generation: u64,
    /// In no particular order: order never decides.
    pub rules: Vec<Rule>,
    /// Whether an organisation governs: then only its allow rules count, while every deny does.
    #[serde(default)]
    pub governed: bool,
}

/// What a removal by resource took away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Rules that are gone.
    pub rules: usize,
    /// Rules that lost the resource and keep others.
    pub narrowed: usize,
}

impl PolicyDocument {
    /// A policy without an organisation.
    pub fn new(generation: u64, rules: Vec<Rule>) -> Self {
        Self {
            generation,
            rules,
            governed: false,
        }
    }

    /// Adds a rule, and returns what its writer should know. Refused without a change when it does not pass
    /// [`Rule::review`] or contradicts a rule of the same scope on the same resource; a wider or narrower resource is
    /// no contradiction. Does not touch the generation.
    pub fn add(&mut self, rule: Rule) -> Result<Vec<Caution>, DocumentError> {
        let cautions = rule.review()?;
        if self.rules.len() >= MAX_RULES {
            return Err(DocumentError::TooManyRules);
        }
        let resources: HashSet<&ResourcePattern> = rule.resources.iter().collect();
        for old in &self.rules {
            if old.id == rule.id {
                return Err(DocumentError::DuplicateId(rule.id));
            }
            if let Some(resource) = contradiction(old, &rule, &resources) {
                return Err(DocumentError::Conflict {
                    decision: match old.decision {
                        Decision::Allow => "allow",
                        Decision::Deny => "deny",
                    },
                    label: old.label().to_owned(),
                    id: old.id.clone(),
                    resource: Box::new(resource.clone()),
                    scope: Box::new(old.scope.clone()),
                    http: old.http.clone().map(Box::new),
                });
            }
        }
        self.rules.push(rule);
        Ok(cautions)
    }

    /// The same policy without the rules for other sandboxes: it decides alike for the one that is named. With no name,
    /// the rules for all.
    #[must_use]
    pub fn reduced_to(&self, sandbox: Option<&str>) -> Self {
        let concerns = |rule: &&Rule| rule.scope.sandbox().is_none_or(|own| Some(own) == sandbox);
        Self {
            generation: self.generation,
            rules: self.rules.iter().filter(concerns).cloned().collect(),
            governed: self.governed,
        }
    }

    /// A rule that says already what `rule` does, whatever either is called.
    pub fn same(&self, rule: &Rule) -> Option<&Rule> {
        let said = |rule: &Rule| {
            let mut resources: Vec<String> =
                rule.resources.iter().map(ToString::to_string).collect();
            resources.sort_unstable();
            resources
        };
        let wanted = said(rule);
        self.rules.iter().find(|old| {
            old.scope == rule.scope
                && old.decision == rule.decision
                && old.protocols == rule.protocols
                && old.http == rule.http
                && old.resources.len() == rule.resources.len()
                && said(old) == wanted
        })
    }

    /// Whether the rule counts: under an organisation the allows of others do not, while their denies do.
    pub fn is_active(&self, rule: &Rule) -> bool {
        is_active(self.governed, rule)
    }

    /// Removes the rule with the id and returns it. Whether it may go
    /// ([`Scope::is_editable`]) is the caller's to ask.
    pub fn remove(&mut self, id: &str) -> Option<Rule> {
        let at = self.rules.iter().position(|rule| rule.id == id)?;
        Some(self.rules.remove(at))
    }

    /// Removes a resource from every rule of the scope with the same HTTP qualifier; rules left
    /// without a resource go.
    pub fn remove_resource(
        &mut self,
        scope: &Scope,
        resource: &ResourcePattern,
        http: Option<&HttpMatch>,
    ) -> Removed {
        let mut removed = Removed::default();
        self.rules.retain_mut(|rule| {
            if rule.scope != *scope || rule.http.as_ref() != http {
                return true;
            }
            let before = rule.resources.len();
            rule.resources.retain(|r| r != resource);
            if rule.resources.is_empty() {
                removed.rules += 1;
                return false;
            }
            removed.narrowed += usize::from(rule.resources.len() < before);
            true
        });
        removed
    }

    /// Removes the rules of a sandbox, when the sandbox is removed. Returns how many.
    pub fn remove_sandbox(&mut self, sandbox: &str) -> usize {
        let before = self.rules.len();
        self.rules
            .retain(|rule| rule.scope.sandbox() != Some(sandbox));
        before - self.rules.len()
    }
}

/// The command that removes a resource from the rules of a scope.
pub fn removal_command(
    resource: &ResourcePattern,
    http: Option<&HttpMatch>,
    scope: &Scope,
) -> String {
    let mut command = format!(
        "sbx policy rm network --resource {}",
        shell_word(&resource.to_string())
    );
    if let Some(http) = http {
        let path = shell_word(&http.path.to_string());
        command.push_str(&format!(" --method {} --path {path}", http.methods));
    }
    if let Some(name) = scope.sandbox() {
        command.push_str(&format!(" --sandbox {name}"));
    }
    command
}

/// Whether the rule counts in a policy that an organisation governs or not.
pub(crate) fn is_active(governed: bool, rule: &Rule) -> bool {
    !governed || rule.decision == Decision::Deny || rule.scope == Scope::Org
}

/// The resource on which two rules of one scope say opposite things.
fn contradiction<'a>(
    old: &'a Rule,
    new: &Rule,
    resources: &HashSet<&ResourcePattern>,
) -> Option<&'a ResourcePattern> {
    let opposed = old.decision != new.decision
        && old.scope == new.scope
        && old.http == new.http
        && old.protocols.overlaps(new.protocols);
    old.resources
        .iter()
        .filter(|_| opposed)
        .find(|resource| resources.contains(resource))
}
