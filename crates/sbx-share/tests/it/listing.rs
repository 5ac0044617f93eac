//! Listings in pieces, as a guest's kernel asks for them.

use rustix::io::Errno;
use sbx_testkit::virtio_fs::ROOT;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::guest::{Guest, refused};

/// A guest, and the names in its root: of every length, among them some that are no text.
fn guest() -> (Guest, BTreeSet<Vec<u8>>) {
    let guest = Guest::new();
    let mut names: BTreeSet<_> = (1..=255).map(|length| vec![b'n'; length]).collect();
    names.extend((0x80..=0xff).map(|byte| vec![b'x', byte]));
    for name in &names {
        std::fs::write(guest.host("").join(OsStr::from_bytes(name)), "").unwrap();
    }
    names.extend([b".".to_vec(), b"..".to_vec()]);
    (guest, names)
}

#[test]
fn every_name_is_listed_once_whatever_room_there_is() {
    let (mut guest, names) = guest();
    // The longest name takes 280 bytes, with its node 408.
    for room in [408, 411, 512, 1000, 4096, 20_000, 1 << 20] {
        for plus in [false, true] {
            let handle = guest.fs.opendir(ROOT).unwrap();
            let (mut listed, mut offset) = (Vec::new(), 0);
            loop {
                let part = if plus {
                    guest.fs.readdirplus(ROOT, handle, offset, room)
                } else {
                    guest.fs.readdir(ROOT, handle, offset, room)
                };
                let part = part.unwrap();
                let Some(last) = part.last() else { break };
                offset = last.offset;
                listed.extend(part.into_iter().map(|entry| entry.name));
            }
            assert_eq!(listed.len(), names.len(), "room {room}, with nodes {plus}");
            assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), names, "{room}");
            guest.fs.releasedir(ROOT, handle).unwrap();
        }
    }
}

#[test]
fn a_listing_goes_on_behind_any_name_of_it() {
    let (mut guest, _) = guest();
    let handle = guest.fs.opendir(ROOT).unwrap();
    let (mut all, mut offset) = (Vec::new(), 0);
    loop {
        let part = guest.fs.readdir(ROOT, handle, offset, 4096).unwrap();
        let Some(last) = part.last() else { break };
        offset = last.offset;
        all.extend(part.into_iter().map(|entry| (entry.name, entry.offset)));
    }
    let another = guest.fs.opendir(ROOT).unwrap();
    // One after the other, and here and there.
    for step in [1, 7, 50] {
        for (index, (name, offset)) in all.iter().enumerate().step_by(step) {
            let next = guest.fs.readdir(ROOT, another, *offset, 512).unwrap();
            let next = next.first().map(|entry| entry.name.clone());
            let after = all.get(index + 1).map(|(name, _)| name.clone());
            assert_eq!(next, after, "after {}", String::from_utf8_lossy(name));
        }
    }
}

#[test]
fn room_for_not_even_one_name_is_an_error_and_not_the_end() {
    let (mut guest, _) = guest();
    let handle = guest.fs.opendir(ROOT).unwrap();
    for room in [0, 1, 24, 31] {
        let answer = guest.fs.readdir(ROOT, handle, 0, room);
        assert_eq!(refused(answer), Errno::INVAL, "{room}");
        let answer = guest.fs.readdirplus(ROOT, handle, 0, room);
        assert_eq!(refused(answer), Errno::INVAL, "{room} with nodes");
    }
}

#[test]
fn what_cannot_be_looked_at_is_listed_without_a_node_and_ends_no_list() {
    let mut guest = Guest::new();
    let mut deepest = ROOT;
    for _ in 0..sbx_share::limits::MAX_DEPTH {
        deepest = guest.fs.mkdir(deepest, "d", 0o755).unwrap().node;
    }
    let path = "d/".repeat(sbx_share::limits::MAX_DEPTH);
    for name in ["a", "b", "c"] {
        std::fs::write(guest.host(&path).join(name), "").unwrap();
    }
    let looked_up = guest.fs.lookup(deepest, "a");
    assert_eq!(refused(looked_up), Errno::NAMETOOLONG);
    let handle = guest.fs.opendir(deepest).unwrap();
    let listed = guest.fs.readdirplus(deepest, handle, 0, 4096).unwrap();
    assert!(listed.iter().all(|entry| entry.entry.is_none()));
    let names: BTreeSet<_> = listed.into_iter().map(|entry| entry.name).collect();
    let all = [".", "..", "a", "b", "c"].map(|name| name.as_bytes().to_vec());
    assert_eq!(names, BTreeSet::from(all));
    guest.assert_unharmed("a listing");
}
