//! Descriptors of directories that were used lately.
//!
//! Nearly every request is about a name in a directory, and walking there from the root costs more than the rest of it.
//! The table is bounded (second chance: what was not used for a whole round goes first) and what it says is believed
//! for [`CACHE_TIME`], like everything the guest keeps; then the way is walked anew.

use crate::limits::CACHE_TIME;
use rustc_hash::FxHashMap as HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// One directory.
#[derive(Debug)]
struct Slot {
    node: u64,
    directory: Rc<OwnedFd>,
    /// When it was last found by its name.
    found: Duration,
    /// Used since the hand passed by.
    used: bool,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Descriptors {
    slots: Vec<Slot>,
    by_node: HashMap<u64, usize>,
    hand: usize,
    limit: usize,
}

impl Descriptors {
    /// A table for at most `limit` directories.
    pub(crate) fn new(limit: usize) -> Self {
        // The first time, the way to ask without a system call is looked for, which the jail would not allow.
        now();
        Self {
            slots: Vec::new(),
            by_node: HashMap::default(),
            hand: 0,
            limit,
        }
    }

    /// The directory of a node, if it was found lately.
    pub(crate) fn get(&mut self, node: u64) -> Option<Rc<OwnedFd>> {
        self.get_since(node).map(|(directory, _)| directory)
    }

    /// The same, and when it was found.
    pub(crate) fn get_since(&mut self, node: u64) -> Option<(Rc<OwnedFd>, Duration)> {
        let slot = &mut self.slots[*self.by_node.get(&node)?];
        if now().saturating_sub(slot.found) >= CACHE_TIME {
            return None;
        }
        slot.used = true;
        Some((Rc::clone(&slot.directory), slot.found))
    }

    /// The directory of a node was found just now, from one above it that was found at this time, or from the root.
    pub(crate) fn insert(&mut self, node: u64, directory: Rc<OwnedFd>, since: Option<Duration>) {
        let slot = Slot {
            node,
            directory,
            found: since.unwrap_or_else(now),
            used: true,
        };
        if let Some(index) = self.by_node.get(&node) {
            self.slots[*index] = slot;
        } else if self.slots.len() < self.limit {
            self.by_node.insert(node, self.slots.len());
            self.slots.push(slot);
        } else if let Some(index) = self.turn() {
            self.by_node.remove(&self.slots[index].node);
            self.by_node.insert(node, index);
            self.slots[index] = slot;
        }
    }

    /// Whose turn it is to go.
    fn turn(&mut self) -> Option<usize> {
        // The second round finds one at the latest.
        for _ in 0..2 * self.slots.len() {
            let index = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            if !std::mem::take(&mut self.slots[index].used) {
                return Some(index);
            }
        }
        None
    }

    /// The node is gone, or is not what it was.
    pub(crate) fn remove(&mut self, node: u64) {
        let Some(index) = self.by_node.remove(&node) else {
            return;
        };
        self.slots.swap_remove(index);
        if let Some(moved) = self.slots.get(index) {
            self.by_node.insert(moved.node, index);
        }
        self.hand = 0;
    }

    /// Closes everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.limit);
    }
}

/// Time since the host was started, to a few milliseconds: what is asked with nearly every request is asked cheaply.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    Duration::try_from(now).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor() -> Rc<OwnedFd> {
        Rc::new(std::fs::File::open("/").unwrap().into())
    }

    fn known(table: &mut Descriptors, nodes: std::ops::Range<u64>) -> Vec<u64> {
        nodes.filter(|node| table.get(*node).is_some()).collect()
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut table = Descriptors::new(3);
        for node in 0..3 {
            table.insert(node, descriptor(), None);
        }
        // The hand takes everybody's first chance, and the first of them goes.
        table.insert(3, descriptor(), None);
        assert_eq!(known(&mut table, 1..2), [1]);
        table.insert(4, descriptor(), None);
        let left = known(&mut table, 0..5);
        assert_eq!(left, [1, 3, 4], "2 was not used since");
    }

    #[test]
    fn what_is_removed_is_gone_and_the_others_are_found() {
        let mut table = Descriptors::new(3);
        for node in 0..3 {
            table.insert(node, descriptor(), None);
        }
        table.remove(0);
        table.remove(7);
        assert_eq!(known(&mut table, 0..4), [1, 2]);
        table.insert(3, descriptor(), None);
        assert_eq!(known(&mut table, 0..4), [1, 2, 3]);
        table.clear();
        assert_eq!(known(&mut table, 0..4), Vec::<u64>::new());
    }
}
