//! Which addresses were given to the guest for which name. A connection to an address is judged by the
//! names it was resolved for, and a TLS or HTTP client may use a name only with an address of that name.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sbx_policy::HostName;

use crate::addresses::{SYNTHETIC_BASE, SYNTHETIC_COUNT};
use crate::generation::Generation;
use crate::limits;
use crate::pin_file::{Line, PinFile};
use crate::resolver;

/// Longest time for which an answer is given again without asking, whatever its TTL says.
const LONGEST_FRESH: Duration = Duration::from_mins(5);
/// Shortest: a page asks for the same name several times within a second.
const SHORTEST_FRESH: Duration = Duration::from_secs(1);

/// Names and addresses, bounded, shared by DNS and all connections.
#[derive(Debug, Default)]
pub struct Pins {
    inner: Mutex<Inner>,
    /// Where they are kept for the next gateway. Locked before `inner`.
    file: Mutex<Option<PinFile>>,
}

#[derive(Debug, Default)]
struct Inner {
    names: HashMap<HostName, Pinned>,
    by_address: HashMap<Ipv4Addr, HashSet<HostName>>,
}

#[derive(Debug)]
struct Pinned {
    /// Newest answer, and until when it is given again.
    fresh: Vec<Ipv4Addr>,
    fresh_until: Instant,
    /// Every address that was given out.
    all: Vec<Given>,
    used: Instant,
}

/// An address that was given out.
#[derive(Debug, Clone, Copy)]
struct Given {
    address: Ipv4Addr,
    /// When that ends.
    until: Instant,
    /// Until when the file says it counts.
    kept: Option<Instant>,
}

impl Pins {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an answer. Returns for how long it may be used again.
    pub fn insert(&self, name: &HostName, addresses: &[Ipv4Addr], ttl: Duration) -> Duration {
        let fresh = ttl.clamp(SHORTEST_FRESH, LONGEST_FRESH);
        let left = ttl.clamp(fresh, limits::PIN_TTL) + limits::PIN_GRACE;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let unkept = self.lock().insert(name, addresses, Some(fresh), left);
        if let Some(file) = file.as_mut()
            && !unkept.is_empty()
        {
            let line = Line {
                left,
                name: name.clone(),
                addresses: unkept,
            };
            self.keep(file, &line);
        }
        fresh
    }

    /// Writes a line to the file, and now and then all of it anew.
    fn keep(&self, file: &mut PinFile, line: &Line) {
        let kept = match file.append(line) {
            Ok(true) => file.rewrite(&self.lock().lines()),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "pins cannot be kept for a gateway after this one");
        }
    }

    /// Takes over what an earlier gateway gave to the guest, and keeps its own pins in the same file. What the
    /// generation does not allow any more is left out.
    pub fn continue_in(&self, path: &Path, generation: &Generation) {
        let (file, lines) = match PinFile::open(path) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "pins are not kept");
                return;
            }
        };
        let mut inner = self.lock();
        for line in lines {
            let verdict = generation
                .evaluator
                .name_may_resolve(&generation.sandbox, &line.name);
            if verdict.is_allowed() {
                let may = resolver::allowed_addresses(generation, &line.name, &line.addresses);
                inner.insert(&line.name, &may, None, line.left);
            }
        }
        let names = inner.names.len();
        drop(inner);
        if names > 0 {
            tracing::info!(names, "pins of an earlier gateway");
        }
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    }

    /// The newest answer for the name, while it is fresh, and for how long it stays so.
    pub fn fresh(&self, name: &HostName) -> Option<(Vec<Ipv4Addr>, Duration)> {
        let now = Instant::now();
        let mut inner = self.lock();
        let pinned = inner.names.get_mut(name)?;
        pinned.used = now;
        let left = pinned.fresh_until.checked_duration_since(now)?;
        (!pinned.fresh.is_empty()).then(|| (pinned.fresh.clone(), left))
    }

    /// Whether the address was given out for the name.
    pub fn contains(&self, name: &HostName, address: Ipv4Addr) -> bool {
        let now = Instant::now();
        let mut inner = self.lock();
        let Some(pinned) = inner.names.get_mut(name) else {
            return false;
        };
        pinned.used = now;
        pinned
            .all
            .iter()
            .any(|given| given.address == address && given.until > now)
    }

    /// The names that the address was given out for, in a stable order.
    pub fn names_of(&self, address: Ipv4Addr) -> Vec<HostName> {
        let now = Instant::now();
        let inner = self.lock();
        let Some(names) = inner.by_address.get(&address) else {
            return Vec::new();
        };
        let live = |name: &&HostName| {
            inner.names.get(*name).is_some_and(|pinned| {
                pinned
                    .all
                    .iter()
                    .any(|given| given.address == address && given.until > now)
            })
        };
        let mut names: Vec<HostName> = names.iter().filter(live).cloned().collect();
        names.sort_unstable();
        names
    }
}

impl Inner {
    /// Remembers addresses for so long, and gives them as a fresh answer for `fresh`. Those that the file does not have
    /// for about as long come back; they count as kept from now on.
    fn insert(
        &mut self,
        name: &HostName,
        addresses: &[Ipv4Addr],
        fresh: Option<Duration>,
        left: Duration,
    ) -> Vec<Ipv4Addr> {
        if addresses.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        let until = now + left;
        self.make_room(name);
        let pinned = self.names.entry(name.clone()).or_insert_with(|| Pinned {
            fresh: Vec::new(),
            fresh_until: now,
            all: Vec::new(),
            used: now,
        });
        pinned.used = now;
        let current: Vec<Ipv4Addr> = addresses
            .iter()
            .copied()
            .take(limits::PINNED_ADDRESSES)
            .collect();
        let mut unkept = Vec::new();
        for address in &current {
            let old = pinned.all.iter().position(|old| old.address == *address);
            let mut kept = old.and_then(|at| pinned.all.remove(at).kept);
            // What came from the file is in it.
            if fresh.is_none() {
                kept = Some(until);
            } else if kept.is_none_or(|kept| kept + limits::PIN_GRACE / 2 < until) {
                kept = Some(until);
                unkept.push(*address);
            }
            pinned.all.push(Given {
                address: *address,
                until,
                kept,
            });
        }
        if let Some(fresh) = fresh {
            pinned.fresh.clone_from(&current);
            pinned.fresh_until = now + fresh;
        }
        let surplus = pinned.all.len().saturating_sub(limits::PINNED_ADDRESSES);
        let gone: Vec<Given> = pinned.all.drain(..surplus).collect();
        for given in gone {
            self.forget(given.address, name);
        }
        for address in current {
            self.by_address
                .entry(address)
                .or_default()
                .insert(name.clone());
        }
        unkept
    }

    /// What the file has to hold, least used first. Addresses that end at other times need lines of their own.
    fn lines(&self) -> Vec<Line> {
        let now = Instant::now();
        let mut names: Vec<_> = self.names.iter().collect();
        names.sort_unstable_by_key(|(_, pinned)| pinned.used);
        let mut lines: Vec<Line> = Vec::new();
        for (name, pinned) in names {
            for given in &pinned.all {
                let left = given.until.saturating_duration_since(now);
                match lines.last_mut() {
                    Some(line) if line.name == *name && line.left == left => {
                        line.addresses.push(given.address);
                    }
                    _ if left.is_zero() => {}
                    _ => lines.push(Line {
                        left,
                        name: name.clone(),
                        addresses: vec![given.address],
                    }),
                }
            }
        }
        lines
    }

    fn make_room(&mut self, name: &HostName) {
        if self.names.len() < limits::PINNED_NAMES || self.names.contains_key(name) {
            return;
        }
        let oldest = self.names.iter().min_by_key(|(_, pinned)| pinned.used);
        let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
            return;
        };
        if let Some(pinned) = self.names.remove(&oldest) {
            for given in pinned.all {
                self.forget(given.address, &oldest);
            }
        }
    }

    fn forget(&mut self, address: Ipv4Addr, name: &HostName) {
        if let Some(names) = self.by_address.get_mut(&address) {
            names.remove(name);
            if names.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }
}

/// Gives each name an address of our own making, the same one every time the same set is given, and
/// for a single name almost always the same whatever the set: a restarted gateway must recognise what
/// the guest still has in its cache.
pub fn synthetic_addresses(
    names: impl IntoIterator<Item = HostName>,
) -> HashMap<HostName, Ipv4Addr> {
    let mut sorted: Vec<HostName> = names.into_iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut taken = HashSet::new();
    let mut given = HashMap::new();
    for name in sorted {
        let mut slot = fnv(name.as_str()) % (SYNTHETIC_COUNT - 2) + 1;
        while !taken.insert(slot) {
            slot = slot % (SYNTHETIC_COUNT - 2) + 1;
        }
        given.insert(name, Ipv4Addr::from(u32::from(SYNTHETIC_BASE) + slot));
    }
    given
}

/// FNV-1a, 32 bits.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    #[test]
    fn an_address_is_known_for_its_names_only() {
        let pins = Pins::default();
        let address = Ipv4Addr::new(203, 0, 113, 7);
        pins.insert(&name("a.test"), &[address], Duration::from_mins(1));
        assert!(pins.contains(&name("a.test"), address));
        assert!(!pins.contains(&name("b.test"), address));
        assert_eq!(pins.names_of(address), [name("a.test")]);
        assert!(pins.names_of(Ipv4Addr::new(203, 0, 113, 8)).is_empty());
    }

    #[test]
    fn the_number_of_names_and_addresses_is_bounded() {
        let pins = Pins::default();
        for i in 0..u32::try_from(limits::PINNED_NAMES).unwrap() + 10 {
            let address = Ipv4Addr::from(0xcb00_0000 + i);
            pins.insert(
                &name(&format!("n{i}.test")),
                &[address],
                Duration::from_mins(1),
            );
        }
        let many: Vec<Ipv4Addr> = (0..100).map(|i| Ipv4Addr::from(0x0800_0000 + i)).collect();
        for chunk in many.chunks(10) {
            pins.insert(&name("many.test"), chunk, Duration::from_mins(1));
        }
        let inner = pins.lock();
        assert!(inner.names.len() <= limits::PINNED_NAMES);
        assert!(inner.names[&name("many.test")].all.len() <= limits::PINNED_ADDRESSES);
        assert!(inner.by_address.len() <= limits::PINNED_NAMES + limits::PINNED_ADDRESSES);
    }

    #[test]
    fn synthetic_addresses_are_stable_and_distinct() {
        let names = || (0..200).map(|i| name(&format!("h{i}.test")));
        let first = synthetic_addresses(names());
        assert_eq!(first, synthetic_addresses(names()));
        let distinct: HashSet<_> = first.values().collect();
        assert_eq!(distinct.len(), 200);
        assert!(first.values().all(|a| crate::addresses::is_synthetic(*a)));
    }
}
