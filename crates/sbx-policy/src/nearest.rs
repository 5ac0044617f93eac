//! The rule that came closest to deciding otherwise: what a denied user wants to know.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::evaluator::Evaluator;
use crate::index::Entry;
use crate::intent::Intent;
use crate::rule::Decision;
use crate::verdict::{RuleRef, Verdict};

/// Why a rule did not decide, nearest miss first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Miss {
    /// It allows this, but a deny or the address check counts first.
    Overruled,
    /// It is about other methods or paths.
    Request,
    /// It is about another port.
    Port,
    /// It is about another protocol.
    Protocol,
    /// It is for another sandbox.
    Sandbox,
    /// It is about a name above, below or beside this one.
    Name,
}

/// A rule that nearly decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// The rule.
    pub rule: Arc<RuleRef>,
    /// What was missing.
    pub miss: Miss,
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.miss {
            Miss::Overruled => "allows this, but is overruled",
            Miss::Request => "allows other methods or paths",
            Miss::Port => "allows another port",
            Miss::Protocol => "allows another protocol",
            Miss::Sandbox => "is for another sandbox",
            Miss::Name => "allows a related name",
        };
        write!(f, "{} {what}", self.rule)
    }
}

impl Evaluator {
    /// For a denial, the allow rule that came closest; among equals the choice does not depend on
    /// the order of rules. Looks only at rules about the host and names around it.
    pub fn nearest(&self, intent: &Intent, verdict: &Verdict) -> Option<Nearest> {
        if verdict.is_allowed() {
            return None;
        }
        let mut best: Option<((Miss, &str, &str), &Entry)> = None;
        let mut offer = |entry, miss| {
            let entry: &Entry = entry;
            let key = (miss, entry.rule.resource.as_str(), entry.rule.id.as_str());
            if entry.decision == Decision::Allow && best.is_none_or(|(old, _)| key < old) {
                best = Some((key, entry));
            }
        };
        self.index()
            .matching(&intent.host, |entry| offer(entry, miss_of(entry, intent)));
        if let Some(name) = intent.host.name() {
            self.index().related(name, |entry| offer(entry, Miss::Name));
        }
        best.map(|((miss, ..), entry)| Nearest {
            rule: Arc::clone(&entry.rule),
            miss,
        })
    }
}

fn miss_of(entry: &Entry, intent: &Intent) -> Miss {
    if !entry.is_for(&intent.sandbox) {
        Miss::Sandbox
    } else if !entry.protocols.contains(intent.transport) {
        Miss::Protocol
    } else if entry.port.is_some_and(|port| port != intent.port) {
        Miss::Port
    } else if entry.http.is_some() {
        Miss::Request
    } else {
        Miss::Overruled
    }
}
