//! A guest without a kernel: requests that no kernel would make, given to the real server. Each gets an error, or ends
//! the one server that it was given to.

use std::time::Duration;

use rustix::io::Errno;
use sbx_testkit::virtio_fs::{
    Data, Descriptor, Error, Fate, HEAD, NEXT, ROOT, Request, WRITE, Which, op, release, write,
};

use crate::guest::{Guest, refused};

/// How long a server may take over a request.
const PATIENCE: Duration = Duration::from_secs(5);

/// Names that are no names.
const BAD_NAMES: &[&[u8]] = &[
    b"",
    b".",
    b"..",
    b"/",
    b"a/b",
    b"../outside",
    b"../outside/secret",
    b"/etc/passwd",
];

#[test]
fn a_head_that_lies_about_its_length_is_refused_or_ends_its_own_share_only() {
    let mut beside = Guest::new();
    for length in [
        0,
        1,
        39,
        40,
        41,
        44,
        46,
        4096,
        1 << 20,
        (1 << 20) + 4097,
        u32::MAX,
    ] {
        for op in [op::LOOKUP, op::SYMLINK, op::RENAME2, op::CREATE, op::WRITE] {
            let mut guest = Guest::new();
            let request = Request::new(op, ROOT).bytes(&[1; 64]).name("name");
            let request = request.room(256).claiming(length);
            let what = format!("op {op} of {length} bytes");
            match guest.fs.call(&request) {
                Err(Error::Refused(_)) => guest.assert_unharmed(&what),
                Err(Error::Gone) => guest.assert_ended_or_unharmed(Fate::Ended, &what),
                other => panic!("{what}: {other:?}"),
            }
            assert_eq!(
                std::fs::read_dir(guest.host("")).unwrap().count(),
                0,
                "{what}"
            );
            beside.assert_unharmed(&what);
        }
    }
}

#[test]
fn requests_that_do_not_exist_are_refused() {
    let mut guest = Guest::new();
    for op in [0, 7, 19, 52, 63, 4096, 1 << 16, u32::MAX] {
        let request = Request::new(op, ROOT).bytes(&[0; 64]).room(256);
        assert_eq!(refused(guest.fs.call(&request)), Errno::NOSYS, "op {op}");
    }
    for op in [op::SETUPMAPPING, op::SYNCFS] {
        let request = Request::new(op, ROOT).bytes(&[0; 64]).room(64);
        assert_eq!(refused(guest.fs.call(&request)), Errno::NOSYS, "op {op}");
    }
    guest.assert_unharmed("requests that do not exist");
}

#[test]
fn every_request_cut_short_anywhere_is_refused_or_ends_its_own_share_only() {
    let mut beside = Guest::new();
    let mut guest = Guest::new();
    for op in 1..=op::TMPFILE {
        for length in [0, 1, 4, 7, 8, 15, 16, 24, 39] {
            // Neither is answered, and the second unmounts.
            if matches!(op, op::FORGET | 36 | 38 | op::BATCH_FORGET) {
                continue;
            }
            let what = format!("op {op} with {length} bytes");
            let request = Request::new(op, ROOT).bytes(&vec![0; length]);
            let request = request.room(256).data_room(4096);
            match guest.fs.call(&request) {
                Ok(_) | Err(Error::Refused(_)) => guest.assert_unharmed(&what),
                Err(Error::Gone) => {
                    guest.assert_ended_or_unharmed(Fate::Ended, &what);
                    guest = Guest::new();
                }
                Err(error) => panic!("{what}: {error}"),
            }
            beside.assert_unharmed(&what);
        }
    }
}

#[test]
fn names_that_are_paths_are_refused_in_every_request() {
    let mut guest = Guest::new();
    let (file, _) = guest.file("file");
    for name in BAD_NAMES {
        let fs = &mut guest.fs;
        let answers = [
            ("look-up", fs.lookup(ROOT, name).map(drop)),
            ("create", fs.create(ROOT, name, 0o644, 2).map(drop)),
            ("mkdir", fs.mkdir(ROOT, name, 0o755).map(drop)),
            ("mknod", fs.mknod(ROOT, name, 0o10_0644, 0).map(drop)),
            ("unlink", fs.unlink(ROOT, name)),
            ("rmdir", fs.rmdir(ROOT, name)),
            ("symlink", fs.symlink(ROOT, name, "text").map(drop)),
            ("link", fs.link(file, ROOT, name).map(drop)),
            ("rename to", fs.rename2((ROOT, b"file"), (ROOT, name), 0)),
            ("rename from", fs.rename2((ROOT, name), (ROOT, b"file"), 0)),
            ("exchange", fs.rename2((ROOT, b"file"), (ROOT, name), 2)),
        ];
        for (what, answer) in answers {
            assert_eq!(refused(answer), Errno::INVAL, "{what} of {name:?}");
        }
        guest.assert_unharmed("names that are paths");
    }
    assert_eq!(std::fs::read_dir(guest.host("")).unwrap().count(), 1);
}

#[test]
fn names_without_an_end_are_refused_or_end_their_own_share_only() {
    let mut beside = Guest::new();
    let two = |op| Request::new(op, ROOT).u64(ROOT);
    let requests = [
        ("look-up", Request::new(op::LOOKUP, ROOT)),
        ("unlink", Request::new(op::UNLINK, ROOT)),
        ("mkdir", Request::new(op::MKDIR, ROOT).u64(0o755)),
        ("create", Request::new(op::CREATE, ROOT).u64(2).u64(0)),
        ("symlink", Request::new(op::SYMLINK, ROOT)),
        ("symlink's text", Request::new(op::SYMLINK, ROOT).name("n")),
        ("link", two(op::LINK)),
        ("rename", two(op::RENAME)),
        ("rename's second", two(op::RENAME).name("file")),
        ("rename2's second", two(op::RENAME2).u64(0).name("file")),
    ];
    for (what, request) in requests {
        for bytes in [b"".as_slice(), b"name", b"na\0me", b"\0", b"\0\0\0"] {
            let mut guest = Guest::new();
            guest.file("file");
            let what = format!("{what}, {bytes:?}");
            let request = request.clone().bytes(bytes).room(256);
            match guest.fs.call(&request) {
                Ok(_) | Err(Error::Refused(_)) => guest.assert_unharmed(&what),
                Err(Error::Gone) => guest.assert_ended_or_unharmed(Fate::Ended, &what),
                Err(error) => panic!("{what}: {error}"),
            }
            beside.assert_unharmed(&what);
            let names = std::fs::read_dir(guest.host("")).unwrap();
            let names: Vec<_> = names.map(|n| n.unwrap().file_name()).collect();
            assert!(names.iter().any(|n| n == "file"), "{what}: {names:?}");
            assert!(
                names.iter().all(|n| n == "file" || n == "na" || n == "n"),
                "{what}: {names:?}"
            );
        }
    }
}

#[test]
fn nodes_and_handles_that_were_not_given_are_refused() {
    let mut guest = Guest::new();
    let ((a, handle), (b, _)) = (guest.file("a"), guest.file("b"));
    let listing = guest.fs.opendir(ROOT).unwrap();
    for node in [0, b + 1, 999, u64::MAX] {
        let fs = &mut guest.fs;
        let answers = [
            ("getattr", fs.getattr(node).map(drop)),
            ("look-up", fs.lookup(node, "a").map(drop)),
            ("open", fs.open(node, 0).map(drop)),
            ("opendir", fs.opendir(node).map(drop)),
            ("create", fs.create(node, "n", 0o644, 2).map(drop)),
            ("link", fs.link(node, ROOT, "n").map(drop)),
            ("rename", fs.rename2((ROOT, b"a"), (node, b"n"), 0)),
            ("readlink", fs.readlink(node).map(drop)),
        ];
        for (what, answer) in answers {
            assert_eq!(refused(answer), Errno::STALE, "{what} of node {node}");
        }
    }
    for (node, handle) in [
        (b, handle),
        (ROOT, handle),
        (a, listing),
        (a, 0),
        (a, u64::MAX),
    ] {
        let fs = &mut guest.fs;
        let answers = [
            ("read", fs.read(node, handle, 0, 10).map(drop)),
            ("write", fs.write(node, handle, 0, b"text").map(drop)),
            ("fsync", fs.fsync(node, handle, false)),
            ("release", fs.release(node, handle)),
            ("listing", fs.readdir(node, handle, 0, 4096).map(drop)),
            (
                "listing's end",
                fs.ask(&release(op::RELEASEDIR, node, handle)).map(drop),
            ),
        ];
        for (what, answer) in answers {
            assert_eq!(refused(answer), Errno::BADF, "{what} of handle {handle}");
        }
    }
    guest.assert_unharmed("numbers that were made up");
}

#[test]
fn a_write_takes_no_more_than_was_sent() {
    let mut guest = Guest::new();
    let (node, handle) = guest.file("f");
    for claimed in [0, 3, 5, 4096, 1 << 20, u32::MAX] {
        let request = write(node, handle, 0, claimed, Data::Bytes(b"text"));
        let taken = match guest.fs.call(&request) {
            Ok(answer) => u32::from_le_bytes(*answer.first_chunk().unwrap()),
            Err(Error::Refused(_)) => 0,
            Err(error) => panic!("{claimed} claimed: {error}"),
        };
        assert!(taken <= 4, "{taken} of 4 bytes were taken");
        let size = std::fs::metadata(guest.host("f")).unwrap().len();
        assert!(size <= 4, "{claimed} claimed, {size} written");
        guest.assert_unharmed("a write that lies");
    }
}

#[test]
fn listings_of_absurd_sizes_are_refused_or_short() {
    let mut guest = Guest::new();
    for name in ["a", "b", "c"] {
        guest.file(name);
    }
    let handle = guest.fs.opendir(ROOT).unwrap();
    for op in [op::READDIR, op::READDIRPLUS] {
        for size in [0, 1, 23, 24, 31, 4096, 1 << 20, (1 << 20) + 1, u32::MAX] {
            for room in [0, 8, 100, 4096] {
                for offset in [0, 1, u64::MAX] {
                    let request = Request::new(op, ROOT).u64(handle).u64(offset);
                    let request = request.u32(size).bytes(&[0; 20]).data_room(room);
                    match guest.fs.call(&request) {
                        Ok(bytes) => assert!(bytes.len() <= room.min(size) as usize),
                        Err(Error::Refused(_)) => {}
                        Err(error) => panic!("{op} {size} {room} {offset}: {error}"),
                    }
                }
            }
        }
    }
    guest.assert_unharmed("absurd listings");
}

#[test]
fn forgetting_what_is_not_known_or_more_than_was_said_ends_its_own_share_or_nothing() {
    let mut beside = Guest::new();
    let one = |count: u32| Request::new(op::BATCH_FORGET, 0).u32(count).u32(0);
    let requests = [
        ("the root", Request::new(op::FORGET, ROOT).u64(u64::MAX)),
        ("nobody", Request::new(op::FORGET, 999).u64(1)),
        ("nothing", Request::new(op::FORGET, ROOT)),
        ("a batch of none", one(0)),
        ("a batch that lies", one(u32::MAX).u64(ROOT).u64(1)),
        ("a batch that lies a little", one(2).u64(ROOT).u64(1)),
        ("half a batch", Request::new(op::BATCH_FORGET, 0).u32(1)),
        (
            "a batch of nobody",
            one(2).u64(0).u64(1).u64(77).u64(u64::MAX),
        ),
    ];
    for which in [Which::Urgent, Which::Requests] {
        for (what, request) in &requests {
            let mut guest = Guest::new();
            guest.file("f");
            match guest.fs.device().ask(which, request) {
                Ok(_) => guest.assert_unharmed(what),
                Err(Error::Gone) => guest.assert_ended_or_unharmed(Fate::Ended, what),
                Err(error) => panic!("{what}: {error}"),
            }
            beside.assert_unharmed(what);
        }
    }
}

#[test]
fn an_answer_without_room_for_its_head_ends_its_own_share_only() {
    let mut beside = Guest::new();
    for op in [
        op::READ,
        op::READDIR,
        op::READDIRPLUS,
        op::GETATTR,
        op::STATFS,
    ] {
        for room in [0, 1, 15] {
            let mut guest = Guest::new();
            let (_, handle) = guest.file("f");
            let what = format!("op {op} with {room} bytes of room");
            let device = guest.fs.device();
            let at = device.scratch();
            let length = u32::try_from(HEAD).unwrap() + 40;
            let mut bytes = [length, op].map(u32::to_le_bytes).concat();
            bytes.extend([9, ROOT].map(u64::to_le_bytes).concat());
            bytes.extend([0; 16]);
            bytes.extend([handle, 0, 4096, 0, 0].map(u64::to_le_bytes).concat());
            device.memory().write(at, &bytes).unwrap();
            let ask = Descriptor {
                at,
                length,
                flags: if room > 0 { NEXT } else { 0 },
                next: 1,
            };
            let take = Descriptor {
                at: at + 0x1000,
                length: room,
                flags: WRITE,
                next: 0,
            };
            for (index, descriptor) in [(0, ask), (1, take)] {
                device.put(Which::Requests, index, &descriptor).unwrap();
            }
            let fate = device.offer(Which::Requests, 0, PATIENCE).unwrap();
            guest.assert_ended_or_unharmed(fate, &what);
            beside.assert_unharmed(&what);
        }
    }
}
