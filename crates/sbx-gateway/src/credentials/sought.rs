//! What is looked for in the answers of the targets that have the same bindings: every value that one of them was given,
//! and those that are here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sbx_credentials::scrub::Scrub;
use sbx_policy::Target;

use super::given::{Given, is_same_text};
use super::{BoundCredential, Part, Supplied, Supply};
use crate::limits;

/// See the module.
#[derive(Debug, Default)]
pub struct Sought {
    given: Arc<Given>,
    bound: Vec<Arc<BoundCredential>>,
    made: Mutex<Made>,
}

/// What was made since something changed.
#[derive(Debug, Default)]
struct Made {
    changes: u64,
    by_target: HashMap<Target, Known>,
    /// Names of a pattern have the same values more often than not.
    by_values: HashMap<Vec<u64>, Arc<Scrub>>,
    /// For requests whose own values were pushed out by others since. Where these stand in memory tells them apart: the
    /// entry keeps them there.
    pushed_out: HashMap<(Vec<u64>, Vec<usize>), Known>,
}

/// What finds these values, and those that are here.
#[derive(Debug)]
struct Known {
    values: Vec<Supplied>,
    scrub: Arc<Scrub>,
}

impl Sought {
    /// For targets to which these are bound.
    pub fn new(given: &Arc<Given>, bound: &[Arc<BoundCredential>]) -> Self {
        Self {
            given: given.clone(),
            bound: bound.to_vec(),
            made: Mutex::default(),
        }
    }

    /// Another number than before: what [`Self::at`] gave is not all any more.
    pub fn changes(&self) -> u64 {
        self.given.changes()
    }

    /// Notes a value before it is written.
    pub fn give(&self, supplied: &Supplied) {
        self.given.give(supplied);
    }

    /// What finds them in an answer of this target to a request that `supplied` were written into. `captured`: it is read
    /// here, and what it issues may be a token that was issued before, which stays in it.
    pub fn at(&self, target: &Target, supplied: &[Supplied], captured: bool) -> Arc<Scrub> {
        // Read first: what changes after it is found the next time.
        let changes = self.changes();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.changes != changes {
            *made = Made {
                changes,
                ..Made::default()
            };
        }
        if let Some(known) = made.by_target.get(target)
            && !captured
            && self.are_among(&known.values, supplied)
        {
            return known.scrub.clone();
        }
        let mut given = self.given.at(target, &self.bound);
        if captured {
            given.retain(|(_, one)| one.part != Part::Token);
        }
        let (numbers, values): (Vec<u64>, Vec<Supplied>) = given.into_iter().unzip();
        if !self.are_among(&values, supplied) {
            let places = |one: &Supplied| {
                [
                    Arc::as_ptr(&one.credential).addr(),
                    Arc::as_ptr(&one.material).addr(),
                ]
            };
            let own = supplied.iter().flat_map(places).collect();
            let known = made.pushed_out.entry((numbers, own));
            let known = known.or_insert_with(|| Known {
                scrub: Arc::new(self.scrub(values.iter().chain(supplied))),
                values: supplied.to_vec(),
            });
            return known.scrub.clone();
        }
        let scrub = made.by_values.entry(numbers);
        let scrub = scrub.or_insert_with(|| Arc::new(self.scrub(values.iter())));
        let scrub = scrub.clone();
        if !captured {
            if made.by_target.len() >= limits::BOUND_TARGETS {
                made.by_target.clear();
            }
            let known = Known {
                values,
                scrub: scrub.clone(),
            };
            made.by_target.insert(target.clone(), known);
        }
        scrub
    }

    /// Whether what finds `values` finds these as well.
    fn are_among(&self, values: &[Supplied], supplied: &[Supplied]) -> bool {
        let is_same = |known: &Supplied, one: &Supplied| {
            known.credential.placeholder == one.credential.placeholder && is_same_text(known, one)
        };
        supplied.iter().all(|one| {
            // In the place of a token that is not known any more.
            one.material.text.expose().is_empty()
                || values.iter().any(|known| is_same(known, one))
                || self.is_here(one)
        })
    }

    fn is_here(&self, one: &Supplied) -> bool {
        let here = |bound: &Arc<BoundCredential>| match &bound.supply {
            Supply::Here(material) => Arc::ptr_eq(material, &one.material),
            Supply::Unavailable(_) | Supply::OnDemand => false,
        };
        self.bound.iter().any(here)
    }

    fn scrub<'a>(&'a self, given: impl Iterator<Item = &'a Supplied>) -> Scrub {
        let here = self.bound.iter().filter_map(|bound| match &bound.supply {
            Supply::Here(material) => Some(bound.values(material)),
            Supply::Unavailable(_) | Supply::OnDemand => None,
        });
        let given = given.map(|one| one.credential.values(&one.material));
        Scrub::new(here.chain(given).flatten()).unwrap_or_else(Scrub::of_nothing)
    }
}
