//! Nothing outside the root (attack cases 73 and 75).

use std::ffi::CStr;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags};
use virtiofsd::filesystem::{Extensions, FileSystem as _};

use crate::support::{Bench, ROOT, agent, errno};

const MKNOD_TRIES: &[(u32, &str)] = &[
    (libc::S_IFCHR, "character device"),
    (libc::S_IFBLK, "block device"),
];

/// Waits until what was found before is not believed any more.
fn outlive_the_cache() {
    std::thread::park_timeout(sbx_share::limits::CACHE_TIME * 11 / 10);
}

#[test]
fn names_that_are_paths_are_refused_everywhere() {
    let bench = Bench::new();
    bench.host_write("file", "inside");
    let file = bench.node("file").unwrap();
    let names: &[&CStr] = &[
        c"",
        c".",
        c"..",
        c"../outside",
        c"/etc/passwd",
        c"a/b",
        c"../outside/secret",
    ];
    for name in names {
        assert_eq!(
            errno(bench.lookup(ROOT, name)),
            libc::EINVAL,
            "look-up of {name:?}"
        );
        assert_eq!(
            errno(bench.create(ROOT, name, 0o644, libc::O_RDWR)),
            libc::EINVAL
        );
        assert_eq!(errno(bench.mkdir(ROOT, name, 0o755)), libc::EINVAL);
        assert_eq!(errno(bench.share.unlink(agent(), ROOT, name)), libc::EINVAL);
        assert_eq!(errno(bench.share.rmdir(agent(), ROOT, name)), libc::EINVAL);
        assert_eq!(
            errno(bench.share.rename(agent(), ROOT, c"file", ROOT, name, 0)),
            libc::EINVAL
        );
        assert_eq!(
            errno(bench.share.rename(agent(), ROOT, name, ROOT, c"file", 0)),
            libc::EINVAL
        );
        assert_eq!(
            errno(bench.share.link(agent(), file, ROOT, name)),
            libc::EINVAL
        );
        let link = bench
            .share
            .symlink(agent(), c"text", ROOT, name, Extensions::default());
        assert_eq!(errno(link), libc::EINVAL);
    }
    let long = std::ffi::CString::new("x".repeat(256)).unwrap();
    assert_eq!(errno(bench.lookup(ROOT, &long)), libc::ENAMETOOLONG);
}

#[test]
fn a_link_is_text_for_the_guest_and_leads_nowhere_here() {
    let bench = Bench::new();
    let targets = [
        "/etc/passwd",
        "../outside",
        "/proc/self/root",
        "/proc/self/fd/0",
        ".",
    ];
    for (number, target) in targets.iter().enumerate() {
        let name = std::ffi::CString::new(format!("link{number}")).unwrap();
        symlink(target, bench.host(name.to_str().unwrap())).unwrap();
        let link = bench.lookup(ROOT, &name).unwrap();
        assert_eq!(link.attr.mode & libc::S_IFMT, libc::S_IFLNK);
        assert_eq!(
            bench.share.readlink(agent(), link.inode).unwrap(),
            target.as_bytes()
        );
        assert_eq!(errno(bench.open(link.inode, libc::O_RDONLY)), libc::ELOOP);
        assert_eq!(
            errno(bench.open(link.inode, libc::O_WRONLY | libc::O_TRUNC)),
            libc::ELOOP
        );
        assert_eq!(errno(bench.lookup(link.inode, c"secret")), libc::ENOTDIR);
        assert_eq!(
            errno(bench.share.opendir(agent(), link.inode, 0).map(|_| ())),
            libc::ENOTDIR
        );
        assert_eq!(
            errno(bench.create(link.inode, c"new", 0o644, libc::O_RDWR)),
            libc::ENOTDIR
        );
        assert_eq!(
            errno(bench.create(ROOT, &name, 0o644, libc::O_RDWR)),
            libc::ELOOP
        );
    }
    assert!(!bench.outside("new").exists());
}

#[test]
fn a_link_made_by_the_guest_is_no_way_out_either() {
    let bench = Bench::new();
    let link = bench
        .share
        .symlink(agent(), c"../outside", ROOT, c"out", Extensions::default())
        .unwrap();
    assert_eq!(errno(bench.lookup(link.inode, c"secret")), libc::ENOTDIR);
    let linked = bench
        .share
        .link(agent(), link.inode, ROOT, c"again")
        .unwrap();
    assert_eq!(
        linked.attr.mode & libc::S_IFMT,
        libc::S_IFLNK,
        "a link to the link, not to its target"
    );
}

#[test]
fn a_directory_that_becomes_a_link_is_not_followed() {
    let bench = Bench::new();
    std::fs::create_dir(bench.host("d")).unwrap();
    bench.host_write("d/secret", "inside");
    let directory = bench.node("d").unwrap();
    let file = bench.node("d/secret").unwrap();
    std::fs::rename(bench.host("d"), bench.host("elsewhere")).unwrap();
    symlink(bench.outside(""), bench.host("d")).unwrap();
    // For a moment it is still the directory that it was.
    let content = bench
        .lookup(directory, c"secret")
        .and_then(|file| bench.content(file.inode));
    assert!(content.is_err() || content.unwrap() == "inside");
    outlive_the_cache();
    assert_eq!(errno(bench.lookup(directory, c"secret")), libc::ESTALE);
    assert_eq!(
        errno(bench.create(directory, c"new", 0o644, libc::O_RDWR)),
        libc::ESTALE
    );
    assert_eq!(errno(bench.open(file, libc::O_RDONLY)), libc::ESTALE);
}

#[test]
fn a_swap_race_never_reaches_outside() {
    let bench = Bench::new();
    std::fs::create_dir(bench.host("d")).unwrap();
    bench.host_write("d/secret", "inside");
    symlink(bench.outside(""), bench.host("swap")).unwrap();
    let stop = AtomicBool::new(false);
    let (mut read, mut made) = (0, 0);
    let (d, swap) = (bench.host("d"), bench.host("swap"));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &d, CWD, &swap, RenameFlags::EXCHANGE).unwrap();
            }
        });
        for round in 0..20_000 {
            let Ok(directory) = bench.lookup(ROOT, c"d") else {
                continue;
            };
            if let Ok(file) = bench.lookup(directory.inode, c"secret")
                && let Ok(content) = bench.content(file.inode)
            {
                assert_eq!(content, "inside");
                read += 1;
            }
            let name = std::ffi::CString::new(format!("new{}", round % 10)).unwrap();
            if let Ok((node, handle)) = bench.create(directory.inode, &name, 0o644, libc::O_RDWR) {
                bench.release(node, handle);
                let _gone = bench.share.unlink(agent(), directory.inode, &name);
                made += 1;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let outside: Vec<_> = std::fs::read_dir(bench.outside(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(outside, ["secret"], "something was made outside");
    assert!(
        read > 0 && made > 0,
        "the race was never won: {read} reads, {made} files"
    );
}

#[test]
fn a_directory_moved_out_of_the_root_is_gone_even_while_open() {
    let bench = Bench::new();
    std::fs::create_dir(bench.host("d")).unwrap();
    bench.host_write("d/f", "inside");
    let directory = bench.node("d").unwrap();
    let file = bench.node("d/f").unwrap();
    bench.share.opendir(agent(), directory, 0).unwrap();
    let handle = bench.open(file, libc::O_RDONLY).unwrap();
    std::fs::rename(bench.host("d"), bench.outside("d")).unwrap();
    outlive_the_cache();
    assert_eq!(errno(bench.lookup(directory, c"f")), libc::ESTALE);
    assert_eq!(
        errno(bench.create(directory, c"new", 0o644, libc::O_RDWR)),
        libc::ESTALE
    );
    assert_eq!(
        errno(bench.share.opendir(agent(), directory, 0).map(|_| ())),
        libc::ESTALE
    );
    assert_eq!(errno(bench.open(file, libc::O_WRONLY)), libc::ESTALE);
    assert_eq!(
        bench.read(file, handle).unwrap(),
        "inside",
        "what was open stays open"
    );
    assert_eq!(bench.attr(file).unwrap().size, 6);
}

#[test]
fn device_nodes_are_refused_and_pipes_are_never_opened_here() {
    let bench = Bench::new();
    for (kind, what) in MKNOD_TRIES {
        let made = bench.share.mknod(
            agent(),
            ROOT,
            c"n",
            kind | 0o666,
            0x103,
            0,
            Extensions::default(),
        );
        assert_eq!(errno(made), libc::EPERM, "{what}");
    }
    assert!(!bench.host("n").exists());
    for (kind, name) in [
        (libc::S_IFIFO, c"pipe"),
        (libc::S_IFSOCK, c"socket"),
        (libc::S_IFREG, c"file"),
        (0, c"zero"),
    ] {
        let entry = bench
            .share
            .mknod(
                agent(),
                ROOT,
                name,
                kind | 0o644,
                0,
                0,
                Extensions::default(),
            )
            .unwrap();
        let shown = if kind == 0 { libc::S_IFREG } else { kind };
        assert_eq!(entry.attr.mode, shown | 0o644);
    }
    // Opening a pipe that nobody writes to would block the server for ever.
    assert_eq!(
        errno(bench.open(bench.node("pipe").unwrap(), libc::O_RDONLY)),
        libc::EPERM
    );
    assert_eq!(
        errno(bench.create(ROOT, c"pipe", 0o644, libc::O_WRONLY)),
        libc::EPERM
    );
}

#[test]
fn a_whiteout_is_refused() {
    let bench = Bench::new();
    bench.host_write("f", "");
    let renamed = bench
        .share
        .rename(agent(), ROOT, c"f", ROOT, c"g", libc::RENAME_WHITEOUT);
    assert_eq!(errno(renamed), libc::EINVAL);
}

#[test]
fn numbers_the_guest_made_up_are_refused() {
    let bench = Bench::new();
    bench.host_write("a", "a");
    bench.host_write("b", "b");
    let (a, b) = (bench.node("a").unwrap(), bench.node("b").unwrap());
    let handle = bench.open(a, libc::O_RDWR).unwrap();
    for node in [0, 999, u64::MAX] {
        assert_eq!(errno(bench.attr(node)), libc::ESTALE);
        assert_eq!(errno(bench.lookup(node, c"a")), libc::ESTALE);
        assert_eq!(errno(bench.open(node, libc::O_RDONLY)), libc::ESTALE);
    }
    for (node, handle) in [(a, 0), (a, handle + 1), (a, u64::MAX), (b, handle)] {
        assert_eq!(errno(bench.read(node, handle)), libc::EBADF);
        assert_eq!(
            errno(
                bench
                    .share
                    .release(agent(), node, 0, handle, false, false, None)
            ),
            libc::EBADF
        );
        assert_eq!(
            errno(
                bench
                    .share
                    .readdir(agent(), node, handle, 4096, 0)
                    .map(|_| ())
            ),
            libc::EBADF
        );
        assert_eq!(
            errno(bench.share.fsync(agent(), node, false, handle)),
            libc::EBADF
        );
    }
    for offset in [u64::MAX, u64::MAX - 4, i64::MAX as u64] {
        assert_eq!(
            errno(bench.write(a, handle, "text", offset, 0)),
            libc::EINVAL
        );
        assert_eq!(
            errno(
                bench
                    .share
                    .lseek(agent(), a, handle, u64::MAX, libc::SEEK_DATA as u32)
            ),
            libc::EINVAL
        );
        assert_eq!(
            errno(bench.share.fallocate(agent(), a, handle, 0, offset, 4)),
            libc::EINVAL
        );
    }
    let directory = bench.share.opendir(agent(), ROOT, 0).unwrap().0.unwrap();
    assert_eq!(
        errno(
            bench
                .share
                .readdir(agent(), ROOT, directory, 4096, u64::MAX)
                .map(|_| ())
        ),
        libc::EINVAL
    );
}
