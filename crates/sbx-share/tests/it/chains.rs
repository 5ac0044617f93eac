//! Chains of descriptors and rings that no driver would make. Each gets an answer, or costs the one server that it was
//! given to.

use std::time::Duration;

use sbx_testkit::virtio_fs::{
    Descriptor, EVENT_IDX, Fate, GUEST_BASE, HEAD, INDIRECT, MEMORY, NEXT, ROOT, SIZE, WRITE,
    Which, op,
};

use crate::guest::Guest;

/// How long a server may take over a chain.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the queue of requests is.
const REQUESTS: u64 = GUEST_BASE + 0x4000;

/// The bytes of a look-up of `name` in the root.
fn lookup_bytes() -> Vec<u8> {
    let length = u32::try_from(HEAD + 5).unwrap();
    let mut bytes = [length, op::LOOKUP].map(u32::to_le_bytes).concat();
    bytes.extend([9_u64, ROOT].map(u64::to_le_bytes).concat());
    bytes.extend([0; 16]);
    bytes.extend(b"name\0");
    bytes
}

fn part(at: u64, length: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor {
        at,
        length,
        flags,
        next,
    }
}

/// A chain, and what is written before it is offered.
struct Chain {
    what: &'static str,
    head: u16,
    table: Vec<Descriptor>,
}

fn chain(what: &'static str, table: &[Descriptor]) -> Chain {
    Chain {
        what,
        head: 0,
        table: table.to_vec(),
    }
}

/// Room for an answer at the second descriptor.
fn take(at: u64, length: u32) -> Descriptor {
    part(at, length, WRITE, 0)
}

/// Chains that go nowhere or around. `good` is where a look-up lies, `out` is room for its answer.
fn chains_that_do_not_end(good: u64, out: u64, length: u32) -> Vec<Chain> {
    let (one, ask) = (part(good, 1, NEXT, 1), part(good, length, NEXT, 1));
    let to = |next| part(good, length, NEXT, next);
    let head = |what, head| Chain {
        what,
        head,
        table: Vec::new(),
    };
    vec![
        chain("a loop of two", &[one, part(good, 1, NEXT, 0)]),
        chain("a loop of one", &[to(0)]),
        chain("an answer's loop", &[ask, part(out, 16, WRITE | NEXT, 1)]),
        chain("next beyond the table", &[to(999)]),
        chain("next far beyond the table", &[to(u16::MAX)]),
        head("a head beyond the table", SIZE),
        head("a head far beyond the table", u16::MAX),
    ]
}

/// Chains to places that are not the guest's, or not for this.
fn chains_to_wrong_places(good: u64, out: u64, length: u32) -> Vec<Chain> {
    let end = GUEST_BASE + MEMORY;
    let (room, ask) = (take(out, 4096), part(good, length, NEXT, 1));
    let at = |at| part(at, length, NEXT, 1);
    vec![
        chain("at zero", &[at(0), room]),
        chain("below the memory", &[at(GUEST_BASE - 1), room]),
        chain("behind the memory", &[at(end), room]),
        chain("across the end", &[at(end - 1), room]),
        chain("at the last address", &[at(u64::MAX), room]),
        chain("answer behind the memory", &[ask, take(end, 4096)]),
        chain("answer across the end", &[ask, take(end - 8, 4096)]),
        chain("answer over the request", &[ask, take(good, 4096)]),
        chain("answer over the queue", &[ask, take(REQUESTS, 4096)]),
    ]
}

/// Chains of wrong lengths, kinds and orders.
fn chains_of_wrong_parts(good: u64, out: u64, length: u32) -> Vec<Chain> {
    let (room, ask) = (take(out, 4096), part(good, length, NEXT, 1));
    let of = |length| part(good, length, NEXT, 1);
    let (all, rest) = (u32::MAX, part(good, u32::MAX, NEXT, 2));
    let first = part(out, 4096, WRITE | NEXT, 1);
    let alone = part(good, length, 0, 0);
    vec![
        chain("of length zero", &[of(0), room]),
        chain("all of length zero", &[of(0), take(out, 0)]),
        chain("of all length", &[of(all), room]),
        chain("answer of all length", &[ask, take(out, all)]),
        chain("longer than 4 GiB", &[of(all), rest, room]),
        chain("half a head", &[of(20), room]),
        chain("one byte less than a head", &[of(39), room]),
        chain("half a name", &[of(length - 2), room]),
        chain("nothing to read", &[room]),
        chain("no room for an answer", &[alone]),
        chain("room for half a head", &[ask, take(out, 8)]),
        chain("room for the head alone", &[ask, take(out, 16)]),
        chain("the answer first", &[first, alone]),
        chain(
            "an unknown flag",
            &[part(good, length, NEXT | 0x80, 1), room],
        ),
    ]
}

/// Tables in memory, which nobody agreed upon. The one at `good` holds a look-up's bytes as descriptors.
fn indirect_chains(good: u64) -> Vec<Chain> {
    let end = GUEST_BASE + MEMORY;
    let chain = |what, at, length, flags| chain(what, &[part(at, length, flags, 0)]);
    vec![
        chain("an indirect table of rubbish", good, 48, INDIRECT),
        chain("an empty indirect table", good, 0, INDIRECT),
        chain("an indirect table of half a descriptor", good, 24, INDIRECT),
        chain("a huge indirect table", good, 65_535 * 16, INDIRECT),
        chain("an indirect table too long", good, u32::MAX - 15, INDIRECT),
        chain("an indirect table behind the memory", end, 48, INDIRECT),
        chain(
            "an indirect table that is the queue",
            REQUESTS,
            16,
            INDIRECT,
        ),
        chain("an indirect table that goes on", good, 48, INDIRECT | NEXT),
        chain("an indirect table to write", good, 48, INDIRECT | WRITE),
    ]
}

fn chains(good: u64, out: u64) -> Vec<Chain> {
    let length = u32::try_from(lookup_bytes().len()).unwrap();
    let mut chains = chains_that_do_not_end(good, out, length);
    chains.extend(chains_to_wrong_places(good, out, length));
    chains.extend(chains_of_wrong_parts(good, out, length));
    chains.extend(indirect_chains(good));
    chains
}

#[test]
fn a_wrong_chain_is_refused_or_ends_its_own_share_only() {
    let mut beside = Guest::new();
    let mut guest = Guest::new();
    let place = guest.fs.device().scratch();
    let mut ended = 0;
    for Chain { what, head, table } in chains(place, place + 0x1_0000) {
        if guest.server.0.try_wait().unwrap().is_some() {
            guest = Guest::new();
            ended += 1;
        }
        let device = guest.fs.device();
        device.memory().write(place, &lookup_bytes()).unwrap();
        // The rest of the table is what earlier requests have left: also something that a guest can do.
        for (index, descriptor) in (0..).zip(&table) {
            device.put(Which::Requests, index, descriptor).unwrap();
        }
        let fate = device.offer(Which::Requests, head, PATIENCE).unwrap();
        guest.assert_ended_or_unharmed(fate, what);
        beside.assert_unharmed(what);
    }
    assert!(ended > 0, "no chain was wrong enough to end a server");
}

#[test]
fn a_ring_that_claims_more_than_it_holds_ends_its_own_share_and_says_why() {
    let mut beside = Guest::new();
    for features in [0, EVENT_IDX] {
        for claimed in [SIZE + 2, 1_000, 40_000, u16::MAX] {
            let mut guest = Guest::taking(features);
            let device = guest.fs.device();
            let [_, _, available] = device.queue(Which::Requests).places();
            device.memory().publish(available + 2, claimed).unwrap();
            device.queue(Which::Requests).kick().unwrap();
            let fate = device.fate(Which::Requests, PATIENCE).unwrap();
            let what = format!("{claimed} claimed, features {features:#x}");
            assert_eq!(fate, Fate::Ended, "{what}");
            guest.assert_ended_saying("the ring makes no sense", &what);
            beside.assert_unharmed(&what);
        }
    }
}
