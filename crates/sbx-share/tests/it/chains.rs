//! Chains of descriptors and rings that no driver would make. Each gets an answer, or costs the one server that it was
//! given to.

use std::time::Duration;

use sbx_testkit::virtio_fs::{
    Descriptor, Device, Fate, GUEST_BASE, HEAD, INDIRECT, MEMORY, NEXT, ROOT, SIZE, WRITE, Which,
    op,
};

use crate::guest::Guest;

/// How long a server may take over a chain.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where nothing is expected.
const BRIEFLY: Duration = Duration::from_millis(500);

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

/// Chains that are wrong. `good` is where a look-up lies, `out` is room for its answer.
fn chains(good: u64, out: u64) -> Vec<Chain> {
    let length = u32::try_from(lookup_bytes().len()).unwrap();
    let end = GUEST_BASE + MEMORY;
    let ask = part(good, length, NEXT, 1);
    let take = part(out, 4096, WRITE, 0);
    let chain = |what, table: &[Descriptor]| Chain {
        what,
        head: 0,
        table: table.to_vec(),
    };
    let mut chains = vec![
        chain(
            "a loop of two",
            &[part(good, 1, NEXT, 1), part(good, 1, NEXT, 0)],
        ),
        chain("a loop of one", &[part(good, length, NEXT, 0)]),
        chain("an answer's loop", &[ask, part(out, 16, WRITE | NEXT, 1)]),
        chain("next beyond the table", &[part(good, length, NEXT, 999)]),
        chain(
            "next far beyond the table",
            &[part(good, length, NEXT, 65_535)],
        ),
        chain("at zero", &[part(0, length, NEXT, 1), take]),
        chain(
            "below the memory",
            &[part(GUEST_BASE - 1, length, NEXT, 1), take],
        ),
        chain("behind the memory", &[part(end, length, NEXT, 1), take]),
        chain("across the end", &[part(end - 1, length, NEXT, 1), take]),
        chain(
            "at the last address",
            &[part(u64::MAX, length, NEXT, 1), take],
        ),
        chain(
            "answer behind the memory",
            &[ask, part(end, 4096, WRITE, 0)],
        ),
        chain(
            "answer across the end",
            &[ask, part(end - 8, 4096, WRITE, 0)],
        ),
        chain("of length zero", &[part(good, 0, NEXT, 1), take]),
        chain(
            "all of length zero",
            &[part(good, 0, NEXT, 1), part(out, 0, WRITE, 0)],
        ),
        chain("of all length", &[part(good, u32::MAX, NEXT, 1), take]),
        chain(
            "answer of all length",
            &[ask, part(out, u32::MAX, WRITE, 0)],
        ),
        chain(
            "longer than 4 GiB",
            &[
                part(good, u32::MAX, NEXT, 1),
                part(good, u32::MAX, NEXT, 2),
                part(out, 4096, WRITE, 0),
            ],
        ),
        chain("half a head", &[part(good, 20, NEXT, 1), take]),
        chain(
            "one byte less than a head",
            &[part(good, 39, NEXT, 1), take],
        ),
        chain("half a name", &[part(good, length - 2, NEXT, 1), take]),
        chain("nothing to read", &[take]),
        chain("no room for an answer", &[part(good, length, 0, 0)]),
        chain("room for half a head", &[ask, part(out, 8, WRITE, 0)]),
        chain("room for the head alone", &[ask, part(out, 16, WRITE, 0)]),
        chain(
            "the answer first",
            &[part(out, 4096, WRITE | NEXT, 1), part(good, length, 0, 0)],
        ),
        chain(
            "the answer over the request",
            &[ask, part(good, 4096, WRITE, 0)],
        ),
        chain(
            "the answer over the queue",
            &[ask, part(GUEST_BASE + 0x4000, 4096, WRITE, 0)],
        ),
        chain(
            "an unknown flag",
            &[part(good, length, NEXT | 0x80, 1), take],
        ),
    ];
    chains.extend(indirect_chains(good));
    chains.push(Chain {
        what: "a head beyond the table",
        head: SIZE,
        table: Vec::new(),
    });
    chains.push(Chain {
        what: "a head far beyond the table",
        head: u16::MAX,
        table: Vec::new(),
    });
    chains
}

/// Tables in memory, which nobody agreed upon. The one at `good` holds a look-up's bytes as descriptors.
fn indirect_chains(good: u64) -> Vec<Chain> {
    let end = GUEST_BASE + MEMORY;
    let chain = |what, at, length, flags| Chain {
        what,
        head: 0,
        table: vec![part(at, length, flags, 0)],
    };
    vec![
        chain("an indirect table of rubbish", good, 48, INDIRECT),
        chain("an empty indirect table", good, 0, INDIRECT),
        chain("an indirect table of half a descriptor", good, 24, INDIRECT),
        chain("a huge indirect table", good, 65_535 * 16, INDIRECT),
        chain("an indirect table too long", good, u32::MAX - 15, INDIRECT),
        chain("an indirect table behind the memory", end, 48, INDIRECT),
        chain(
            "an indirect table that is the queue",
            GUEST_BASE + 0x4000,
            16,
            INDIRECT,
        ),
        chain("an indirect table that goes on", good, 48, INDIRECT | NEXT),
        chain("an indirect table to write", good, 48, INDIRECT | WRITE),
    ]
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
        put(device, &table);
        let fate = device.offer(Which::Requests, head, PATIENCE).unwrap();
        guest.assert_ended_or_unharmed(fate, what);
        beside.assert_unharmed(what);
    }
    assert!(ended > 0, "no chain was wrong enough to end a server");
}

fn put(device: &mut Device, table: &[Descriptor]) {
    // The rest of the table is what earlier requests have left: also something that a guest can do.
    for (index, descriptor) in (0..).zip(table) {
        let bytes = descriptor.bytes();
        let [place, ..] = device.queue(Which::Requests).places();
        let at = place + u64::from(index as u16) * 16;
        device.memory().write(at, &bytes).unwrap();
    }
}

#[test]
fn a_ring_that_claims_more_than_it_holds_costs_its_own_share_only() {
    let mut beside = Guest::new();
    for claimed in [SIZE + 2, 1_000, 40_000, u16::MAX] {
        let mut guest = Guest::new();
        let device = guest.fs.device();
        let [_, _, available] = device.queue(Which::Requests).places();
        device.memory().publish(available + 2, claimed).unwrap();
        device.queue(Which::Requests).kick().unwrap();
        let fate = device.fate(Which::Requests, BRIEFLY).unwrap();
        let what = format!("{claimed} claimed");
        if fate == Fate::Silent {
            // Nobody serves this queue any more, and the process ends with its guest.
            drop(guest.fs);
            assert!(guest.server.0.wait().unwrap().success(), "{what}");
        } else {
            guest.assert_ended_or_unharmed(fate, &what);
        }
        beside.assert_unharmed(&what);
    }
}
