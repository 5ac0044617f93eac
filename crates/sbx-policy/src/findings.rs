//! What the matching rules say together about one question.

use std::sync::Arc;

use crate::http::HttpRequest;
use crate::index::Entry;
use crate::rule::{Decision, Transport};
use crate::target::Port;
use crate::verdict::{DenyKind, Inspection, ReasonCode, RuleRef, Verdict};

/// How far rules with method and path can be judged.
#[derive(Clone, Copy)]
pub(crate) enum Stage<'a> {
    /// This request.
    Request(&'a HttpRequest),
    /// Not yet, but each request will be.
    Later,
    /// Never.
    Opaque,
}

/// The question, without the host.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) sandbox: &'a str,
    pub(crate) transport: Transport,
    pub(crate) port: Port,
    pub(crate) stage: Stage<'a>,
}

impl Question<'_> {
    /// Whether the entry is about this question, method and path aside.
    pub(crate) fn is_met_by(&self, entry: &Entry) -> bool {
        entry.port.is_none_or(|port| port == self.port)
            && entry.protocols.contains(self.transport)
            && entry.is_for(self.sandbox)
    }
}

/// What the matching entries say together.
#[derive(Default)]
pub(crate) struct Findings<'a> {
    deny: Best<'a>,
    allow: Best<'a>,
    /// Deny or allow entries with method and path that wait for the requests.
    pending_deny: Best<'a>,
    pending_allow: Best<'a>,
    /// Whether some allow is about the host and port, whatever its methods and paths.
    opens_host: bool,
}

/// The entry to name among equals: the choice must not depend on the order of rules.
#[derive(Default)]
pub(crate) struct Best<'a>(Option<&'a Entry>);

impl<'a> Best<'a> {
    pub(crate) fn offer(&mut self, entry: &'a Entry) {
        let better = self.0.is_none_or(|old| rank(entry) < rank(old));
        if better {
            self.0 = Some(entry);
        }
    }

    pub(crate) fn rule(&self) -> Option<Arc<RuleRef>> {
        self.0.map(|entry| Arc::clone(entry.reference()))
    }
}

/// Smaller is named first: whole-host before method and path, with the port before every port, longer resource before
/// shorter.
fn rank(entry: &Entry) -> (bool, bool, std::cmp::Reverse<usize>, &str, &str) {
    let rule = entry.reference();
    (
        entry.http().is_some(),
        entry.port.is_none(),
        std::cmp::Reverse(rule.resource.len()),
        &rule.resource,
        &rule.id,
    )
}

impl<'a> Findings<'a> {
    pub(crate) fn add(&mut self, entry: &'a Entry, stage: Stage<'_>) {
        self.opens_host |= entry.decision == Decision::Allow;
        let (now, later) = match entry.decision {
            Decision::Deny => (&mut self.deny, &mut self.pending_deny),
            Decision::Allow => (&mut self.allow, &mut self.pending_allow),
        };
        match (entry.http(), stage) {
            (None, _) => now.offer(entry),
            (Some(http), Stage::Request(request)) => {
                let covered = match entry.decision {
                    Decision::Deny => http.denies(request),
                    Decision::Allow => http.allows(request),
                };
                if covered {
                    now.offer(entry);
                }
            }
            (Some(_), Stage::Later | Stage::Opaque) => later.offer(entry),
        }
    }

    pub(crate) fn verdict(&self, stage: Stage<'_>) -> Verdict {
        if let Some(deny) = self.deny.0 {
            // The gateway does not look into a connection to a host that nothing opens: the answer to a request is
            // the one that the connection gets.
            if deny.http().is_some() && !self.opens_host {
                return Verdict::default_deny();
            }
            let rule = Some(Arc::clone(deny.reference()));
            return Verdict::deny(ReasonCode::DenyRule, rule, DenyKind::Explicit);
        }
        let opaque = matches!(stage, Stage::Opaque);
        let allowed = self.allow.rule();
        if let Some(rule) = self.pending_deny.rule()
            && opaque
        {
            // Only a denial by this rule if something would have allowed the host.
            if self.opens_host {
                return Verdict::deny(ReasonCode::NotInspectable, Some(rule), DenyKind::Explicit);
            }
            return Verdict::default_deny();
        }
        if let Some(rule) = allowed {
            let mut verdict = Verdict::allow(ReasonCode::AllowRule, Some(rule));
            if self.pending_deny.0.is_some() {
                verdict.inspection = Inspection::Required;
            }
            return verdict;
        }
        match self.pending_allow.rule() {
            Some(rule) if opaque => {
                Verdict::deny(ReasonCode::NotInspectable, Some(rule), DenyKind::Implicit)
            }
            Some(rule) => {
                let verdict = Verdict::allow(ReasonCode::AllowRule, Some(rule));
                Verdict {
                    inspection: Inspection::Required,
                    ..verdict
                }
            }
            None => Verdict::default_deny(),
        }
    }
}
