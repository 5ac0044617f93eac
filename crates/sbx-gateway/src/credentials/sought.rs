//! What is looked for in the answers of the targets that have the same bindings: every value that one of them was given,
//! and those that are here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sbx_credentials::scrub::Scrub;
use sbx_policy::Target;

use super::given::Given;
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
    by_target: HashMap<Target, Arc<Scrub>>,
    /// Names of a pattern have the same values more often than not.
    by_values: HashMap<Vec<u64>, Arc<Scrub>>,
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

    /// What finds them in an answer of this target to a request that `supplied` were written into.
    pub fn at(&self, target: &Target, supplied: &[Supplied]) -> Arc<Scrub> {
        // Read first: what changes after it is found the next time.
        let changes = self.changes();
        let reads_tokens = supplied.iter().any(|one| one.part == Part::Asks);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.changes != changes {
            *made = Made {
                changes,
                ..Made::default()
            };
        }
        if let Some(scrub) = made.by_target.get(target).filter(|_| !reads_tokens) {
            return scrub.clone();
        }
        let mut given = self.given.at(target, &self.bound);
        if reads_tokens {
            // What is issued is read here, and may be what was issued before.
            given.retain(|(_, one)| one.part != Part::Token);
            return Arc::new(self.scrub(&given, supplied));
        }
        let mut numbers: Vec<u64> = given.iter().map(|(number, _)| *number).collect();
        // Pushed out by others since: for this answer alone.
        let is_known = |one: &Supplied| {
            let same = |(_, known): &(u64, Supplied)| Arc::ptr_eq(&known.material, &one.material);
            given.iter().any(same) || self.is_here(one)
        };
        if !supplied.iter().all(is_known) {
            return Arc::new(self.scrub(&given, supplied));
        }
        numbers.shrink_to_fit();
        let scrub = made.by_values.entry(numbers);
        let scrub = scrub.or_insert_with(|| Arc::new(self.scrub(&given, &[])));
        let scrub = scrub.clone();
        if made.by_target.len() >= limits::BOUND_TARGETS {
            made.by_target.clear();
        }
        made.by_target.insert(target.clone(), scrub.clone());
        scrub
    }

    fn is_here(&self, one: &Supplied) -> bool {
        let here = |bound: &Arc<BoundCredential>| match &bound.supply {
            Supply::Here(material) => Arc::ptr_eq(material, &one.material),
            Supply::Unavailable(_) | Supply::OnDemand => false,
        };
        self.bound.iter().any(here)
    }

    fn scrub(&self, given: &[(u64, Supplied)], supplied: &[Supplied]) -> Scrub {
        let here = self.bound.iter().filter_map(|bound| match &bound.supply {
            Supply::Here(material) => Some(bound.values(material)),
            Supply::Unavailable(_) | Supply::OnDemand => None,
        });
        let given = given.iter().map(|(_, one)| one).chain(supplied);
        let given = given.map(|one| one.credential.values(&one.material));
        Scrub::new(here.chain(given).flatten()).unwrap_or_else(Scrub::of_nothing)
    }
}
