//! Values that were written into requests. Who was given one may keep it and show it in any later answer, whatever is asked
//! for then: so each is looked for as long as it is in force, and a while longer. Kept from one generation to the next.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sbx_policy::Target;
use tokio::time::Instant;

use super::{BoundCredential, Part, Supplied};
use crate::limits;

/// See the module.
#[derive(Debug, Default)]
pub struct Given {
    state: Mutex<State>,
    /// Goes up whenever something else is to be looked for.
    changes: AtomicU64,
    /// Whether there are values of bindings that are no more.
    former: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// By service; what was used last stands last.
    values: HashMap<String, VecDeque<Value>>,
    numbers: u64,
    /// What is bound now; `None` until the first change.
    bound: Option<Vec<Arc<BoundCredential>>>,
}

#[derive(Debug)]
struct Value {
    number: u64,
    supplied: Supplied,
    /// `None`: it is in force.
    until: Option<Instant>,
    /// Its binding is no more.
    former: bool,
}

impl Value {
    fn is(&self, other: &Supplied) -> bool {
        let one = &self.supplied;
        is_same_text(one, other) && is_same_binding(&one.credential, &other.credential)
    }

    fn length(&self) -> usize {
        self.supplied.material.text.expose().len()
    }
}

/// Whether two stand for the same value.
pub fn is_same_text(one: &Supplied, other: &Supplied) -> bool {
    Arc::ptr_eq(&one.material, &other.material) || one.material.text == other.material.text
}

/// Whether the binding of a value is none of these.
fn is_former(value: &Supplied, bound: &[Arc<BoundCredential>]) -> bool {
    let own = &value.credential;
    match value.part {
        Part::Token => !bound.iter().any(|one| one.service == own.service),
        Part::Value | Part::Asks => !bound.iter().any(|one| is_same_binding(one, own)),
    }
}

fn is_same_binding(one: &Arc<BoundCredential>, other: &Arc<BoundCredential>) -> bool {
    Arc::ptr_eq(one, other)
        || one.service == other.service
            && one.placeholder == other.placeholder
            && one.hosts == other.hosts
}

impl Given {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Another number than before: something else is to be looked for.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Notes a value before it is written. What it replaces is looked for a while longer.
    pub fn give(&self, supplied: &Supplied) {
        // In the place of a token that is not known any more.
        if supplied.material.text.expose().is_empty() {
            return;
        }
        let now = Instant::now();
        let until = match supplied.part {
            Part::Value | Part::Asks => None,
            // One among many that are good for a short time, and nobody says when one is over.
            Part::Token => Some(now + limits::GIVEN_KEPT),
        };
        let mut state = self.lock();
        let state = &mut *state;
        // It was asked for under what was bound before, and came later.
        let now_bound = state.bound.as_deref();
        let former = now_bound.is_some_and(|bound| is_former(supplied, bound));
        let until = until.or_else(|| former.then(|| now + limits::GIVEN_KEPT));
        if former {
            self.former.store(true, Ordering::Release);
        }
        let service = &supplied.credential.service;
        if !state.values.contains_key(service) {
            state.values.insert(service.clone(), VecDeque::new());
        }
        let Some(values) = state.values.get_mut(service) else {
            return;
        };
        let known = values.iter().rposition(|value| value.is(supplied));
        let known = known.and_then(|place| values.remove(place));
        let is_new = known.is_none();
        let number = known.map_or(state.numbers, |value| value.number);
        if is_new {
            state.numbers += 1;
            replace(values, supplied, now);
        }
        values.push_back(Value {
            number,
            supplied: supplied.clone(),
            until,
            former,
        });
        if is_new {
            values.retain(|value| value.until.is_none_or(|until| now < until));
            bound(values);
            self.changed();
        }
    }

    /// These are bound from now on: what belongs to none of them is looked for a while longer.
    pub fn settle(&self, bound: &[Arc<BoundCredential>]) {
        let now = Instant::now();
        let mut any = false;
        let mut state = self.lock();
        state.bound = Some(bound.to_vec());
        for value in state.values.values_mut().flatten() {
            value.former = is_former(&value.supplied, bound);
            if value.former {
                value.until.get_or_insert(now + limits::GIVEN_KEPT);
            }
        }
        for values in state.values.values_mut() {
            values.retain(|value| value.until.is_none_or(|until| now < until));
            any |= values.iter().any(|value| value.former);
        }
        state.values.retain(|_, values| !values.is_empty());
        self.former.store(any, Ordering::Release);
        drop(state);
        self.changed();
    }

    /// Whether a target to which nothing is bound was given a value that was bound to it.
    pub fn was_bound(&self, target: &Target) -> bool {
        if !self.former.load(Ordering::Acquire) {
            return false;
        }
        let now = Instant::now();
        let state = self.lock();
        let mut values = state.values.values().flatten();
        values.any(|value| {
            let kept = value.until.is_none_or(|until| now < until);
            let one = &value.supplied.credential;
            // What of a key of AWS leaves is worth nothing, and objects there have checksums.
            kept && one.aws().is_none() && one.hosts.contains(target)
        })
    }

    /// What may come back from a target to which `bound` is bound, each with a number that it has for good.
    pub fn at(&self, target: &Target, bound: &[Arc<BoundCredential>]) -> Vec<(u64, Supplied)> {
        let state = self.lock();
        let mut found = Vec::new();
        for value in state.values.values().flatten() {
            let one = &value.supplied.credential;
            // The same secret may have another form elsewhere.
            let is_own = |own: &Arc<BoundCredential>| {
                own.service == one.service && own.placeholder == one.placeholder
            };
            if one.hosts.contains(target) || bound.iter().any(is_own) {
                found.push((value.number, value.supplied.clone()));
            }
        }
        found.sort_unstable_by_key(|(number, _)| *number);
        found
    }
}

/// Another value has taken the place of those that stood for the same.
fn replace(values: &mut VecDeque<Value>, by: &Supplied, now: Instant) {
    for value in values {
        let one = &value.supplied;
        let same = one.credential.placeholder == by.credential.placeholder;
        if same && one.material.text != by.material.text {
            value.until.get_or_insert(now + limits::GIVEN_KEPT);
        }
    }
}

/// Forgets what was used longest ago, beyond what is kept of a service.
fn bound(values: &mut VecDeque<Value>) {
    let mut length: usize = values.iter().map(Value::length).sum();
    while values.len() > limits::GIVEN || values.len() > 1 && length > limits::GIVEN_BYTES {
        let Some(gone) = values.pop_front() else {
            return;
        };
        length -= gone.length();
    }
}

#[cfg(test)]
#[path = "given_tests.rs"]
mod tests;
