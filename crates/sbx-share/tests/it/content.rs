//! Bytes: appending, syncing, holes, copies.

use std::io::Write as _;

use seccompiler::{SeccompAction, SeccompFilter};
use virtiofsd::filesystem::FileSystem as _;

use crate::support::{Bench, Buffer, ROOT, agent, errno, read_host};

#[test]
fn an_appending_write_goes_to_the_end_as_the_host_sees_it() {
    let bench = Bench::new();
    bench.host_write("log", "guest knew this\n");
    let node = bench.node("log").unwrap();
    let handle = bench.open(node, libc::O_WRONLY | libc::O_APPEND).unwrap();
    let mut host = std::fs::OpenOptions::new()
        .append(true)
        .open(bench.host("log"))
        .unwrap();
    host.write_all(b"host added this\n").unwrap();
    // The guest's kernel computed the offset from the size it knew.
    bench
        .write(node, handle, "guest adds this\n", 16, libc::O_APPEND)
        .unwrap();
    assert_eq!(
        read_host(bench.host("log")),
        "guest knew this\nhost added this\nguest adds this\n"
    );
}

#[test]
fn a_page_written_back_later_goes_to_its_place_even_if_the_file_appends() {
    let bench = Bench::new();
    bench.host_write("f", "0123456789");
    let node = bench.node("f").unwrap();
    let handle = bench.open(node, libc::O_RDWR | libc::O_APPEND).unwrap();
    let flags = libc::O_APPEND.cast_unsigned();
    let page = Buffer(b"ab".to_vec());
    bench
        .share
        .write(agent(), node, handle, page, 2, 4, None, true, false, flags)
        .unwrap();
    assert_eq!(read_host(bench.host("f")), "0123ab6789");
}

#[test]
fn direct_io_of_any_alignment_works() {
    let bench = Bench::new();
    let (node, handle) = bench
        .create(ROOT, c"f", 0o644, libc::O_RDWR | libc::O_DIRECT)
        .unwrap();
    bench.write(node, handle, "odd", 1, libc::O_DIRECT).unwrap();
    bench.release(node, handle);
    let handle = bench.open(node, libc::O_RDWR | libc::O_DIRECT).unwrap();
    assert_eq!(bench.read(node, handle).unwrap(), "\0odd");
}

#[test]
fn an_opening_that_truncates_does() {
    let bench = Bench::new();
    bench.host_write("f", "long content");
    let node = bench.node("f").unwrap();
    bench.open(node, libc::O_WRONLY | libc::O_TRUNC).unwrap();
    assert_eq!(bench.attr(node).unwrap().size, 0);
}

/// A filter on this thread makes fsync(2) and fdatasync(2) answer with numbers of their own: seeing them proves that
/// the call was made, without a tracer.
#[test]
fn a_guest_fsync_reaches_the_host() {
    const FSYNC: i32 = libc::ENOTRECOVERABLE;
    const FDATASYNC: i32 = libc::EOWNERDEAD;
    let bench = Bench::new();
    let (node, handle) = bench.create(ROOT, c"f", 0o644, libc::O_RDWR).unwrap();
    let directory = bench.share.opendir(agent(), ROOT, 0).unwrap().0.unwrap();
    bench.share.fsync(agent(), node, false, handle).unwrap();
    for (call, answer) in [(libc::SYS_fsync, FSYNC), (libc::SYS_fdatasync, FDATASYNC)] {
        let filter = SeccompFilter::new(
            [(call, vec![])].into(),
            SeccompAction::Allow,
            SeccompAction::Errno(answer.cast_unsigned()),
            std::env::consts::ARCH.try_into().unwrap(),
        );
        seccompiler::apply_filter(&seccompiler::BpfProgram::try_from(filter.unwrap()).unwrap())
            .unwrap();
    }
    assert_eq!(
        errno(bench.share.fsync(agent(), node, false, handle)),
        FSYNC
    );
    assert_eq!(
        errno(bench.share.fsync(agent(), node, true, handle)),
        FDATASYNC
    );
    assert_eq!(
        errno(bench.share.fsyncdir(agent(), ROOT, false, directory)),
        FSYNC
    );
    assert_eq!(
        errno(bench.share.fsyncdir(agent(), ROOT, true, directory)),
        FDATASYNC
    );
}

#[test]
fn holes_are_made_and_found() {
    let bench = Bench::new();
    let (node, handle) = bench.create(ROOT, c"f", 0o644, libc::O_RDWR).unwrap();
    bench.write(node, handle, "x", 1 << 20, 0).unwrap();
    let seek = |from, whence: i32| {
        bench
            .share
            .lseek(agent(), node, handle, from, whence.cast_unsigned())
    };
    assert_eq!(seek(0, libc::SEEK_HOLE).unwrap(), 0);
    assert_eq!(seek(0, libc::SEEK_DATA).unwrap(), 1 << 20);
    assert_eq!(errno(seek(1 << 21, libc::SEEK_DATA)), libc::ENXIO);
    assert_eq!(errno(seek(0, libc::SEEK_END)), libc::EINVAL);
    let keep = libc::FALLOC_FL_KEEP_SIZE.cast_unsigned();
    bench
        .share
        .fallocate(agent(), node, handle, keep, 0, 8192)
        .unwrap();
    assert_eq!(bench.attr(node).unwrap().size, (1 << 20) + 1);
    assert_eq!(
        errno(bench.share.fallocate(agent(), node, handle, 1 << 31, 0, 1)),
        libc::EOPNOTSUPP
    );
}

#[test]
fn a_copy_inside_the_share_stays_on_the_host() {
    let bench = Bench::new();
    bench.host_write("from", "0123456789");
    let from = bench.node("from").unwrap();
    let reading = bench.open(from, libc::O_RDONLY).unwrap();
    let (to, writing) = bench.create(ROOT, c"to", 0o644, libc::O_RDWR).unwrap();
    let copied = bench
        .share
        .copyfilerange(agent(), from, reading, 2, to, writing, 1, 5, 0)
        .unwrap();
    assert_eq!(copied, 5);
    assert_eq!(read_host(bench.host("to")), "\x0023456");
}

#[test]
fn sizes_of_the_file_system_are_the_hosts() {
    let bench = Bench::new();
    let stat = bench.share.statfs(agent(), ROOT).unwrap();
    let host = rustix::fs::statvfs(bench.host("")).unwrap();
    assert_eq!(
        (stat.f_blocks, stat.f_namemax),
        (host.f_blocks, host.f_namemax)
    );
}

#[test]
fn every_way_of_opening_cuts_a_file_that_is_to_be_cut() {
    let bench = Bench::new();
    for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR] {
        bench.host_write("f", "text");
        let node = bench.node("f").unwrap();
        let handle = bench.open(node, flags | libc::O_TRUNC).unwrap();
        bench.release(node, handle);
        assert_eq!(read_host(bench.host("f")), "", "{flags}");
    }
}
