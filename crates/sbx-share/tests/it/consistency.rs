//! Names and files while both sides change them.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;

use proptest::prelude::*;
use virtiofsd::filesystem::{FileSystem as _, SetattrValid};
use virtiofsd::fuse::SetattrIn;

use crate::support::{Bench, ROOT, agent, errno, read_host};

#[test]
fn an_open_file_without_a_name_works_on() {
    let bench = Bench::new();
    let (node, handle) = bench.create(ROOT, c"f", 0o644, libc::O_RDWR).unwrap();
    bench.share.unlink(agent(), ROOT, c"f").unwrap();
    bench.write(node, handle, "still here", 0, 0).unwrap();
    assert_eq!(bench.read(node, handle).unwrap(), "still here");
    let attr = bench.attr(node).unwrap();
    assert_eq!((attr.size, attr.nlink), (10, 0));
    let mode = SetattrIn {
        mode: 0o600,
        ..Default::default()
    };
    assert_eq!(
        bench.setattr(node, SetattrValid::MODE, mode).unwrap().mode & 0o777,
        0o600
    );
    assert_eq!(
        bench.content(node).unwrap(),
        "still here",
        "opened once more, as /proc/self/fd does"
    );
    bench.release(node, handle);
    assert_eq!(errno(bench.attr(node)), libc::ESTALE);
}

#[test]
fn a_file_renamed_while_open_is_the_same_file() {
    let bench = Bench::new();
    let directory = bench.mkdir(ROOT, c"d", 0o755).unwrap();
    let (node, handle) = bench.create(ROOT, c"old", 0o644, libc::O_RDWR).unwrap();
    bench.write(node, handle, "text", 0, 0).unwrap();
    bench
        .share
        .rename(agent(), ROOT, c"old", directory, c"new", 0)
        .unwrap();
    assert_eq!(bench.node("d/new").unwrap(), node);
    assert_eq!(bench.content(node).unwrap(), "text");
    assert_eq!(errno(bench.node("old")), libc::ENOENT);
    bench
        .share
        .rename(agent(), ROOT, c"d", ROOT, c"e", 0)
        .unwrap();
    assert_eq!(
        bench.content(node).unwrap(),
        "text",
        "its directory moved, it did not"
    );
}

#[test]
fn renaming_over_an_open_file_leaves_both_whole() {
    let bench = Bench::new();
    bench.host_write("target", "old");
    let old = bench.node("target").unwrap();
    let handle = bench.open(old, libc::O_RDONLY).unwrap();
    bench.host_write("source", "new");
    let new = bench.node("source").unwrap();
    bench
        .share
        .rename(agent(), ROOT, c"source", ROOT, c"target", 0)
        .unwrap();
    assert_eq!(bench.read(old, handle).unwrap(), "old");
    assert_eq!(bench.node("target").unwrap(), new);
    assert_eq!(bench.content(new).unwrap(), "new");
}

#[test]
fn rename_flags_hold() {
    let bench = Bench::new();
    bench.host_write("a", "a");
    bench.host_write("b", "b");
    let (a, b) = (bench.node("a").unwrap(), bench.node("b").unwrap());
    let kept = bench
        .share
        .rename(agent(), ROOT, c"a", ROOT, c"b", libc::RENAME_NOREPLACE);
    assert_eq!(errno(kept), libc::EEXIST);
    bench
        .share
        .rename(agent(), ROOT, c"a", ROOT, c"b", libc::RENAME_EXCHANGE)
        .unwrap();
    assert_eq!((bench.node("a").unwrap(), bench.node("b").unwrap()), (b, a));
    assert_eq!(
        (bench.content(a).unwrap(), bench.content(b).unwrap()),
        ("a".into(), "b".into())
    );
}

#[test]
fn a_file_replaced_on_the_host_is_another_file() {
    let bench = Bench::new();
    let replaced = || {
        bench.host_write("f", "first");
        let first = bench.node("f").unwrap();
        // At once, so that a file system which reuses inode numbers does it.
        std::fs::remove_file(bench.host("f")).unwrap();
        bench.host_write("f", "second");
        first
    };
    // Each finds out for itself.
    assert_eq!(errno(bench.attr(replaced())), libc::ESTALE);
    let first = replaced();
    assert_eq!(errno(bench.open(first, libc::O_RDONLY)), libc::ESTALE);
    let second = bench.node("f").unwrap();
    assert_ne!(first, second);
    assert_eq!(bench.content(second).unwrap(), "second");
}

#[test]
fn a_host_edit_is_visible_to_the_next_request() {
    let bench = Bench::new();
    bench.host_write("f", "1");
    let entry = bench.lookup(ROOT, c"f").unwrap();
    assert!(entry.attr_timeout.as_millis() < 1000 && entry.entry_timeout.as_millis() < 1000);
    bench.host_write("f", "12345");
    assert_eq!(bench.attr(entry.inode).unwrap().size, 5);
    bench.host_write("new", "");
    assert_eq!(bench.list(ROOT, 100).unwrap(), ["f", "new"]);
}

#[test]
fn hard_links_are_one_file() {
    let bench = Bench::new();
    let (node, handle) = bench.create(ROOT, c"a", 0o644, libc::O_RDWR).unwrap();
    let linked = bench.share.link(agent(), node, ROOT, c"b").unwrap();
    assert_eq!((linked.inode, linked.attr.nlink), (node, 2));
    bench.release(node, handle);
    bench.share.unlink(agent(), ROOT, c"b").unwrap();
    assert_eq!(
        bench.content(node).unwrap(),
        "",
        "found again by its other name"
    );
    assert_eq!(
        errno(bench.share.link(agent(), ROOT, ROOT, c"c").map(|_| ())),
        libc::EPERM
    );
}

#[test]
fn creating_over_a_file_the_host_just_made_opens_it() {
    let bench = Bench::new();
    bench.host_write("f", "from the host");
    let (node, handle) = bench.create(ROOT, c"f", 0o644, libc::O_RDWR).unwrap();
    assert_eq!(bench.read(node, handle).unwrap(), "from the host");
    assert_eq!(
        errno(bench.create(ROOT, c"f", 0o644, libc::O_RDWR | libc::O_EXCL)),
        libc::EEXIST
    );
}

#[test]
fn a_directory_lists_completely_in_any_step() {
    let bench = Bench::new();
    let mut names: Vec<String> = (0..1000)
        .map(|number| format!("file-with-a-long-name-{number:04}"))
        .collect();
    for name in &names {
        bench.host_write(name, "");
    }
    names.sort();
    for step in [1, 7, 100, 10_000] {
        assert_eq!(bench.list(ROOT, step).unwrap(), names, "{step} at a time");
    }
}

#[test]
fn names_need_not_be_utf8() {
    let bench = Bench::new();
    let name = CString::new([0xff, b'x', 0xfe]).unwrap();
    let (node, handle) = bench.create(ROOT, &name, 0o644, libc::O_RDWR).unwrap();
    bench.write(node, handle, "text", 0, 0).unwrap();
    assert_eq!(bench.lookup(ROOT, &name).unwrap().inode, node);
}

#[test]
fn a_new_mount_starts_empty() {
    let bench = Bench::new();
    bench.host_write("f", "");
    let node = bench.node("f").unwrap();
    let handle = bench.open(node, libc::O_RDONLY).unwrap();
    bench
        .share
        .init(virtiofsd::filesystem::FsOptions::empty())
        .unwrap();
    assert_eq!(bench.share.node_count(), 1);
    assert_eq!(errno(bench.attr(node)), libc::ESTALE);
    assert_eq!(errno(bench.read(node, handle)), libc::EBADF);
}

/// One step of either side. Numbers choose among a few names, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    GuestCreate(u8, u8),
    GuestMkdir(u8),
    GuestRename(u8, u8, u8, u8, bool),
    GuestUnlink(u8, u8),
    GuestLink(u8, u8, u8, u8),
    HostRename(u8, u8, u8, u8),
    HostReplace(u8, u8),
    HostUnlink(u8, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..4_u8;
    let dir = 0..3_u8;
    let place = (dir.clone(), name);
    let two = (place.clone(), place.clone());
    let step = prop_oneof![
        4 => place.clone().prop_map(|(d, n)| Step::GuestCreate(d, n)),
        1 => dir.prop_map(Step::GuestMkdir),
        3 => (two.clone(), any::<bool>()).prop_map(|(((d, n), (e, m)), x)| Step::GuestRename(d, n, e, m, x)),
        1 => place.clone().prop_map(|(d, n)| Step::GuestUnlink(d, n)),
        1 => two.clone().prop_map(|((d, n), (e, m))| Step::GuestLink(d, n, e, m)),
        2 => two.prop_map(|((d, n), (e, m))| Step::HostRename(d, n, e, m)),
        2 => place.clone().prop_map(|(d, n)| Step::HostReplace(d, n)),
        1 => place.prop_map(|(d, n)| Step::HostUnlink(d, n)),
    ];
    proptest::collection::vec(step, 1..40)
}

fn directory_name(number: u8) -> String {
    if number == 0 {
        String::new()
    } else {
        format!("d{number}")
    }
}

fn path(directory: u8, name: u8) -> String {
    format!("{}/f{name}", directory_name(directory))
        .trim_start_matches('/')
        .to_owned()
}

fn file_name(name: u8) -> CString {
    CString::new(format!("f{name}")).unwrap()
}

/// Does a step; what either side is refused is not an error here. Files that come into being get the marker.
fn act(
    bench: &Bench,
    step: &Step,
    marker: &str,
    seen: &mut HashMap<u64, String>,
) -> io::Result<()> {
    match *step {
        Step::GuestCreate(d, n) => {
            let parent = bench.node(&directory_name(d))?;
            let (node, handle) =
                bench.create(parent, &file_name(n), 0o644, libc::O_RDWR | libc::O_EXCL)?;
            bench.write(node, handle, marker, 0, 0)?;
            bench.release(node, handle);
            assert_eq!(
                seen.insert(node, marker.to_owned()),
                None,
                "a node id was used twice"
            );
        }
        Step::GuestMkdir(d) => {
            bench.mkdir(ROOT, &CString::new(format!("d{d}")).unwrap(), 0o755)?;
        }
        Step::GuestRename(d, n, e, m, exchange) => {
            let flags = if exchange { libc::RENAME_EXCHANGE } else { 0 };
            let (from, to) = (
                bench.node(&directory_name(d))?,
                bench.node(&directory_name(e))?,
            );
            bench
                .share
                .rename(agent(), from, &file_name(n), to, &file_name(m), flags)?;
        }
        Step::GuestUnlink(d, n) => {
            bench
                .share
                .unlink(agent(), bench.node(&directory_name(d))?, &file_name(n))?;
        }
        Step::GuestLink(d, n, e, m) => {
            let (node, parent) = (bench.node(&path(d, n))?, bench.node(&directory_name(e))?);
            bench.share.link(agent(), node, parent, &file_name(m))?;
        }
        Step::HostRename(d, n, e, m) => {
            std::fs::rename(bench.host(&path(d, n)), bench.host(&path(e, m)))?;
        }
        Step::HostReplace(d, n) => {
            let _absent = std::fs::remove_file(bench.host(&path(d, n)));
            std::fs::write(bench.host(&path(d, n)), marker)?;
        }
        Step::HostUnlink(d, n) => std::fs::remove_file(bench.host(&path(d, n)))?,
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever both sides do, a node the guest holds is the file it was, or stale; a path is what the host has there.
    #[test]
    fn a_node_is_its_file_or_stale(steps in steps()) {
        let bench = Bench::new();
        let mut seen = HashMap::new();
        for (number, step) in steps.iter().enumerate() {
            let _refused = act(&bench, step, &format!("file {number}"), &mut seen);
            for (node, marker) in &seen {
                match bench.content(*node) {
                    Ok(content) => prop_assert_eq!(&content, marker),
                    Err(error) => prop_assert_eq!(error.raw_os_error(), Some(libc::ESTALE)),
                }
            }
            for (d, n) in (0..3).flat_map(|d| (0..4).map(move |n| (d, n))) {
                let shown = bench.node(&path(d, n)).and_then(|node| {
                    let content = bench.content(node)?;
                    seen.insert(node, content.clone());
                    Ok(content)
                });
                let host = bench.host(&path(d, n));
                prop_assert_eq!(shown.ok(), host.exists().then(|| read_host(host)));
            }
        }
    }
}

#[test]
fn a_directory_is_found_again_in_time_also_below_one_that_was_found_before() {
    use std::time::Instant;
    let bench = Bench::new();
    let a = bench.mkdir(ROOT, c"a", 0o755).unwrap();
    let b = bench.mkdir(a, c"b", 0o755).unwrap();
    let limit = sbx_share::limits::CACHE_TIME;
    let wait = |since: Instant, part: u32| while since.elapsed() < limit * part / 10 {};
    wait(Instant::now(), 11);
    // Found now; what is found below it later is as old.
    let since = Instant::now();
    bench.mkdir(a, c"first", 0o755).unwrap();
    wait(since, 8);
    bench.mkdir(b, c"second", 0o755).unwrap();
    std::fs::rename(bench.host("a"), bench.host("x")).unwrap();
    wait(since, 12);
    assert_eq!(errno(bench.mkdir(b, c"third", 0o755)), libc::ESTALE);
}
