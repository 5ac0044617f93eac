//! How many requests wait for a directory that has just appeared, and in how many pieces their answers come.

use std::time::Duration;

use sbx_testkit::virtio_fs::{Data, Descriptor, Fate, HEAD, NEXT, SIZE, WRITE, Which, op, write};
use sbx_workspace::late_mask::Word;

use crate::guest::Guest;
use crate::late_mask::{AGENT, Control, PATIENCE, node, told, with_agent};

/// Where nothing comes.
const MOMENT: Duration = Duration::from_millis(2);
/// After which nothing more comes.
const LULL: Duration = Duration::from_secs(1);
/// Bytes of a look-up's answer.
const ANSWER: u32 = 16 + 128;

/// A guest whose look-ups of `pkg/node_modules` wait; the first descriptor is of such a look-up, and where the room for
/// an answer begins is told.
fn waiting() -> (Guest, Control, u64) {
    let (mut guest, control, reads) = with_agent();
    let package = node(&mut guest, "pkg");
    guest.fs.mkdir(package, "node_modules", 0o755).unwrap();
    told(&mut guest, &reads, PATIENCE).unwrap();
    let _listens = control.reads(&mut guest);
    let device = guest.fs.device();
    let at = device.scratch();
    let name = b"node_modules\0";
    let length = u32::try_from(HEAD + name.len()).unwrap();
    let mut bytes = [length, op::LOOKUP].map(u32::to_le_bytes).concat();
    bytes.extend([9, package].map(u64::to_le_bytes).concat());
    bytes.extend([1000_u32, 1000, 42, 0].map(u32::to_le_bytes).concat());
    bytes.extend(name);
    device.memory().write(at, &bytes).unwrap();
    let ask = Descriptor {
        at,
        length,
        flags: NEXT,
        next: 1,
    };
    device.put(Which::Requests, 0, &ask).unwrap();
    (guest, control, at + 0x1000)
}

/// The agent says that it is mounted; what comes of that, and of what waited.
fn mounted(guest: &mut Guest, control: Control) -> Vec<Fate> {
    let mut words = Vec::new();
    Word::Mounted("pkg/node_modules").put(&mut words);
    let length = u32::try_from(words.len()).unwrap();
    let says = write(control.node, control.handle, 0, length, Data::Bytes(&words));
    let device = guest.fs.device();
    device.begin(says.by(AGENT)).unwrap();
    let mut fates = Vec::new();
    loop {
        match device.fate(Which::Requests, LULL).unwrap() {
            Fate::Silent => return fates,
            fate => fates.push(fate),
        }
        if fates.last() == Some(&Fate::Ended) {
            return fates;
        }
    }
}

#[test]
fn half_a_queue_of_requests_waits_and_beyond_the_oldest_look_up_is_answered() {
    let (mut guest, control, at) = waiting();
    let device = guest.fs.device();
    let room = Descriptor {
        at,
        length: ANSWER,
        flags: WRITE,
        next: 0,
    };
    device.put(Which::Requests, 1, &room).unwrap();
    // The agent's own read waits as well, and is not what is answered.
    let most = SIZE / 2 - 1;
    for number in 0..most {
        let fate = device.offer(Which::Requests, 0, MOMENT).unwrap();
        assert_eq!(fate, Fate::Silent, "{number}");
    }
    for number in 0..20 {
        let fate = device.offer(Which::Requests, 0, PATIENCE).unwrap();
        assert_eq!(fate, Fate::Back(ANSWER), "{number}");
    }
    // All others are answered when it is mounted.
    let fates = mounted(&mut guest, control);
    let answered = fates.iter().filter(|fate| **fate == Fate::Back(ANSWER));
    assert_eq!(answered.count(), usize::from(most));
    guest.assert_unharmed("requests that wait");
}

#[test]
fn an_answer_that_waits_and_is_wanted_in_more_pieces_than_are_kept_ends_its_own_share() {
    for (pieces, each, fits) in [(64, 3, true), (144, 1, false)] {
        let (mut guest, control, at) = waiting();
        let device = guest.fs.device();
        for number in 1..=pieces {
            let last = number == pieces;
            let piece = Descriptor {
                at: at + u64::from(number) * u64::from(each),
                length: each,
                flags: WRITE | if last { 0 } else { NEXT },
                next: if last { 0 } else { number + 1 },
            };
            device.put(Which::Requests, number, &piece).unwrap();
        }
        let fate = device.offer(Which::Requests, 0, MOMENT).unwrap();
        assert_eq!(fate, Fate::Silent);
        let fates = mounted(&mut guest, control);
        if fits {
            assert!(fates.contains(&Fate::Back(ANSWER)), "{fates:?}");
            guest.assert_unharmed("an answer in pieces");
        } else {
            assert_eq!(fates.last(), Some(&Fate::Ended), "{fates:?}");
            guest.assert_ended_saying("makes no sense", "an answer in pieces");
        }
    }
}
