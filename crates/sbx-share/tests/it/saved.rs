//! A machine that is saved with the share mounted goes on with it.

use crate::support::{Bench, ROOT, agent, errno, read_host};
use sbx_share::Share;
use std::fs::File;
use std::io::{Seek as _, Write as _};
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
