//! The rule that came closest to deciding otherwise: the allow that a denied user wants to know, and the deny that
//! just misses something allowed.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::evaluator::Evaluator;
use crate::index::Entry;
use crate::intent::Intent;
use crate::rule::Decision;
use crate::verdict::{RuleRef, Verdict};

/// Why a rule did not decide, nearest miss first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nearest {
    /// The rule.
    pub rule: Arc<RuleRef>,
    /// What it says.
    pub decision: Decision,
    /// What was missing.
    pub miss: Miss,
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.decision {
            Decision::Allow => "allows",
            Decision::Deny => "denies",
        };
        write!(f, "{} ", self.rule)?;
        match self.miss {
            Miss::Overruled => write!(f, "{verb} this, but is overruled"),
            Miss::Request => write!(f, "{verb} other methods or paths"),
            Miss::Port => write!(f, "{verb} another port"),
            Miss::Protocol => write!(f, "{verb} another protocol"),
            Miss::Sandbox => write!(f, "{verb} this for another sandbox"),
            Miss::Name => write!(f, "{verb} a related name"),
        }
    }
}

impl Evaluator {
    /// The rule of the other decision that came closest; among equals the choice does not depend on the order of
    /// rules. Looks only at rules about the host and names around it; for something allowed only at denies that
    /// would cover the host itself, because a deny of a neighbour is no surprise.
    pub fn nearest(&self, intent: &Intent, verdict: &Verdict) -> Option<Nearest> {
        let other = match verdict.decision {
            Decision::Allow => Decision::Deny,
            Decision::Deny => Decision::Allow,
        };
        let mut best: Option<((Miss, &str, &str), &Entry)> = None;
        let mut offer = |entry, miss| {
            let entry: &Entry = entry;
            if entry.decision != other {
                return;
            }
            let rule = entry.reference();
            let key = (miss, rule.resource.as_str(), rule.id.as_str());
            if best.is_none_or(|(old, _)| key < old) {
                best = Some((key, entry));
            }
        };
        self.index()
            .matching(&intent.host, |entry| offer(entry, miss_of(entry, intent)));
        if let Some(name) = intent.host.name()
            && other == Decision::Allow
        {
            self.index().related(name, |entry| offer(entry, Miss::Name));
        }
        best.map(|((miss, ..), entry)| Nearest {
            rule: Arc::clone(entry.reference()),
            decision: other,
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
    } else if entry.http().is_some() {
        Miss::Request
    } else {
        Miss::Overruled
    }
}
