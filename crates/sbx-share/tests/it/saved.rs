//! A machine that is saved with the share mounted goes on with it.

use crate::guest::{Guest, refused};
use crate::support::{Bench, ROOT, agent, errno, read_host};
use rustix::io::Errno;
use sbx_share::Share;
use sbx_testkit::virtio_fs::{GUEST_BASE, LOG_ALL, MEMORY, Vhost, Which, message};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use virtiofsd::filesystem::{FileSystem as _, FsOptions, SerializableFileSystem as _};

/// What a share writes down, in a file to be read.
fn saved(share: &Share) -> File {
    let mut file = tempfile::tempfile().unwrap();
    share.serialize(file.try_clone().unwrap()).unwrap();
    file.rewind().unwrap();
    file
}

/// The same directory, served by a new share that took over.
fn taken_over(mut bench: Bench) -> Bench {
    let state = saved(&bench.share);
    let share = bench.again();
    share.init(FsOptions::empty()).unwrap();
    share.deserialize_and_apply(state).unwrap();
    bench.share = share;
    bench
}

#[test]
fn numbers_and_open_files_are_the_same_afterwards() {
    let bench = Bench::new();
    let directory = bench.mkdir(ROOT, c"d", 0o755).unwrap();
    let (file, handle) = bench.create(directory, c"f", 0o644, libc::O_RDWR).unwrap();
    bench.write(file, handle, "before", 0, 0).unwrap();
    bench.share.link(agent(), file, ROOT, c"second").unwrap();
    bench.host_write("e", "e");
    let reader = bench.node("e").unwrap();
    let read_only = bench.open(reader, libc::O_RDONLY).unwrap();
    let listing = bench
        .share
        .opendir(agent(), directory, 0)
        .unwrap()
        .0
        .unwrap();

    let bench = taken_over(bench);
    assert_eq!(bench.read(file, handle).unwrap(), "before");
    bench.write(file, handle, "after!", 0, 0).unwrap();
    assert_eq!(read_host(bench.host("second")), "after!");
    assert_eq!(
        errno(bench.write(reader, read_only, "x", 0, 0)),
        libc::EBADF
    );
    assert_eq!(bench.node("d/f").unwrap(), file);
    let entries = bench.share.readdir(agent(), directory, listing, 4096, 0);
    assert!(entries.is_ok());
    // What is given out now was not given out before.
    let (new, newer) = bench.create(ROOT, c"new", 0o644, libc::O_RDWR).unwrap();
    assert!(new > reader && newer > listing);
    // References count on.
    bench.release(file, handle);
    bench.share.forget(agent(), file, 3);
    assert_eq!(errno(bench.attr(file)), libc::ESTALE);
}

#[test]
fn what_went_meanwhile_is_stale_and_nothing_else_takes_its_place() {
    let bench = Bench::new();
    let (gone, held) = bench.create(ROOT, c"gone", 0o644, libc::O_RDWR).unwrap();
    let (replaced, _) = bench
        .create(ROOT, c"replaced", 0o644, libc::O_RDWR)
        .unwrap();
    let state = saved(&bench.share);
    std::fs::remove_file(bench.host("gone")).unwrap();
    std::fs::remove_file(bench.host("replaced")).unwrap();
    bench.host_write("replaced", "another");
    let mut bench = bench;
    bench.share = bench.again();
    bench.share.deserialize_and_apply(state).unwrap();
    assert_eq!(errno(bench.attr(gone)), libc::ESTALE);
    assert_eq!(errno(bench.read(gone, held)), libc::EBADF);
    assert_eq!(errno(bench.open(replaced, libc::O_RDONLY)), libc::ESTALE);
}

#[test]
fn a_state_that_no_share_wrote_is_refused_and_the_share_is_empty() {
    let bench = Bench::new();
    bench.host_write("f", "");
    bench.node("f").unwrap();
    let mut good = Vec::new();
    std::io::Read::read_to_end(&mut saved(&bench.share), &mut good).unwrap();
    let tried = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let share = bench.again();
        let result = share.deserialize_and_apply(file);
        (result.map_err(|error| error.kind()), share.node_count())
    };
    assert_eq!(tried(&good), (Ok(()), 2));
    let refused = (Err(std::io::ErrorKind::InvalidData), 1);
    for cut in 0..good.len() {
        assert_eq!(tried(&good[..cut]), refused, "cut at {cut}");
    }
    // A name that is a way up.
    let mut up = good.clone();
    let at = up.iter().rposition(|byte| *byte == b'f').unwrap();
    up[at] = b'/';
    assert_eq!(tried(&up), refused);
    let mut version = good.clone();
    version[0] = 9;
    assert_eq!(tried(&version), refused);
}

/// What QEMU asks for: a direction and a phase (`VhostDeviceStateDirection`, `VhostDeviceStatePhase`).
fn transfer(vhost: &Vhost, direction: u32, end: impl std::os::fd::AsFd) -> u64 {
    let body = [direction, 0].map(u32::to_le_bytes).concat();
    let number = message::SET_DEVICE_STATE_FD;
    vhost.ask(number, &body, &[end.as_fd()]).unwrap()
}

/// Whether the transfer that was begun has succeeded.
fn is_transferred(vhost: &Vhost) -> bool {
    vhost.get(message::CHECK_DEVICE_STATE).unwrap() == 0
}

const SAVE: u32 = 0;
const LOAD: u32 = 1;
/// "It has begun, and there is no descriptor in the answer."
const BEGUN: u64 = 0x100;

#[test]
fn a_process_passes_its_state_through_a_pipe_to_another() {
    let mut before = Guest::new();
    let (node, handle) = before.file("f");
    // More than fits into a pipe: nobody may wait for the other's end of it.
    for index in 0..3_000 {
        let name = format!("{index:0>200}");
        before
            .fs
            .mkdir(sbx_testkit::virtio_fs::ROOT, &name, 0o755)
            .unwrap();
    }
    let (mut from, to) = std::io::pipe().unwrap();
    let vhost = before.fs.device().vhost();
    assert_eq!(transfer(vhost, SAVE, &to), BEGUN);
    drop(to);
    let mut state = Vec::new();
    from.read_to_end(&mut state).unwrap();
    assert!(is_transferred(vhost));
    assert!(state.len() > 1 << 19, "{} bytes", state.len());

    let mut after = Guest::after(before);
    assert_eq!(refused(after.fs.getattr(node)), Errno::STALE);
    let (from, mut to) = std::io::pipe().unwrap();
    let vhost = after.fs.device().vhost();
    assert_eq!(transfer(vhost, LOAD, &from), BEGUN);
    to.write_all(&state).unwrap();
    drop(to);
    assert!(is_transferred(vhost));
    assert_eq!(after.fs.write(node, handle, 0, b"after").unwrap(), 5);
    assert_eq!(read_host(after.host("f")), "after");

    // What no share wrote is refused, and so is asking about nothing.
    let (from, mut to) = std::io::pipe().unwrap();
    let vhost = after.fs.device().vhost();
    assert_eq!(transfer(vhost, LOAD, &from), BEGUN);
    to.write_all(b"rubbish").unwrap();
    drop(to);
    assert!(!is_transferred(vhost));
    assert!(!is_transferred(vhost));
    after.assert_unharmed("a state of rubbish");
}

#[test]
fn pages_that_are_written_while_a_machine_is_saved_are_marked() {
    let mut guest = Guest::taking(LOG_ALL);
    guest.file("f");
    let bits = tempfile::tempfile().unwrap();
    let size = (GUEST_BASE + MEMORY) / 4096 / 8;
    bits.set_len(size).unwrap();
    let body = [size, 0].map(u64::to_le_bytes).concat();
    let vhost = guest.fs.device().vhost();
    vhost
        .ask(message::SET_LOG_BASE, &body, &[bits.as_fd()])
        .unwrap();
    let marked = |address: u64| {
        let (page, mut byte) = (address / 4096, [0]);
        bits.read_exact_at(&mut byte, page / 8).unwrap();
        byte[0] & 1 << (page % 8) != 0
    };
    let device = guest.fs.device();
    let [_, used, available] = device.queue(Which::Requests).places();
    let answers = device.scratch() - 0x1_0000;
    assert!(!marked(used) && !marked(answers));
    guest.fs.lookup(sbx_testkit::virtio_fs::ROOT, "f").unwrap();
    assert!(marked(used), "the ring");
    assert!(marked(answers) && marked(answers + 0x8000), "the answer");
    assert!(!marked(available), "nobody writes here");
    let arguments = answers + 0x1000;
    assert!(!marked(arguments), "the guest's own");
}
