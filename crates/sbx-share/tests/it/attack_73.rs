//! Attack case 73 by a guest that speaks FUSE to the real server: ways out of the root while the host's tree changes
//! under it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use sbx_testkit::virtio_fs::{Client, Error, ROOT, SetAttr};

use crate::guest::{Guest, refused};

/// How long each race is run.
const RACE: Duration = Duration::from_millis(1_500);
const READ: u32 = libc::O_RDONLY.cast_unsigned();
const READ_WRITE: u32 = libc::O_RDWR.cast_unsigned();

/// Does something on the host over and over while the guest is at work, also when that fails.
pub(crate) fn meanwhile(host: impl Fn() + Send, guest: impl FnOnce()) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = &stop;
        let _stop = Stop(stop);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                host();
            }
        });
        guest();
    });
}

/// Exchanges `a` and `b` below a folder until the guest is done.
pub(crate) fn race(folder: &Path, (a, b): (&str, &str), guest: impl FnOnce()) {
    let (a, b) = (folder.join(a), folder.join(b));
    let exchange = || {
        rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
    };
    meanwhile(exchange, guest);
}

/// One walk through `d`, with everything that can be done there. Returns whether it came through.
fn walk(fs: &mut Client, round: u32) -> bool {
    let Ok(directory) = fs.lookup(ROOT, "d") else {
        return false;
    };
    for name in ["etc", "proc", "outside", "0", "3"] {
        assert!(fs.lookup(directory.node, name).is_err(), "{name} was found");
    }
    let name = format!("new{}", round % 10);
    let mut through = false;
    if let Ok((file, handle)) = fs.create(directory.node, &name, 0o644, READ_WRITE) {
        let _written = fs.write(file.node, handle, 0, b"from inside");
        let _closed = fs.release(file.node, handle);
        through = true;
    }
    let _made = fs.mkdir(directory.node, "made", 0o777);
    let _renamed = fs.rename2((directory.node, name.as_bytes()), (ROOT, b"moved"), 0);
    let _linked = fs.symlink(directory.node, "link", "text");
    for name in [name.as_str(), "link"] {
        let _gone = fs.unlink(directory.node, name);
    }
    let _gone = fs.rmdir(directory.node, "made");
    if let Ok(file) = fs.lookup(directory.node, "secret") {
        let mode = SetAttr {
            mode: Some(0o600 | (round % 0o100)),
            ..SetAttr::default()
        };
        let _changed = fs.setattr(file.node, &mode);
        if let Ok(handle) = fs.open(file.node, READ) {
            let content = fs.read(file.node, handle, 0, 4096).unwrap();
            assert_eq!(content, b"inside");
            fs.release(file.node, handle).unwrap();
        }
    }
    through
}

#[test]
fn attack_73_a_directory_swapped_for_links_and_magic_links_under_a_walking_guest_leads_nowhere() {
    let mut guest = Guest::new();
    fs::create_dir(guest.host("d")).unwrap();
    fs::write(guest.host("d/secret"), "inside").unwrap();
    let mode = fs::metadata(guest.outside("secret")).unwrap().permissions();
    let own = format!("/proc/{}/root", guest.server.0.id());
    let absolute = guest.outside("");
    let absolute = absolute.to_str().unwrap();
    let targets = [
        "../outside",
        "..",
        "/",
        absolute,
        "/proc/self/root",
        "/proc/self/fd",
        &own,
    ];
    for target in targets {
        symlink(target, guest.host("swap")).unwrap();
        let (folder, mut through) = (guest.host(""), 0);
        race(&folder, ("d", "swap"), || {
            let end = Instant::now() + RACE / 4;
            let mut round = 0;
            while Instant::now() < end {
                round += 1;
                through += u32::from(walk(&mut guest.fs, round));
            }
        });
        assert!(through > 0, "{target}: the race was never won");
        guest.assert_unharmed(target);
        // The link may be under either name.
        for name in ["d", "swap"] {
            if guest.host(name).is_symlink() {
                fs::remove_file(guest.host(name)).unwrap();
            }
        }
        if guest.host("swap").exists() {
            fs::rename(guest.host("swap"), guest.host("d")).unwrap();
        }
    }
    let after = fs::metadata(guest.outside("secret")).unwrap().permissions();
    assert_eq!(after, mode, "a mode was changed outside");
}

#[test]
fn attack_73_a_file_swapped_for_a_link_is_neither_read_nor_written_through_it() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), "inside").unwrap();
    symlink("../outside/secret", guest.host("swap")).unwrap();
    let (folder, mut opened) = (guest.host(""), 0);
    race(&folder, ("f", "swap"), || {
        let end = Instant::now() + RACE;
        while Instant::now() < end {
            let Ok(file) = guest.fs.lookup(ROOT, "f") else {
                continue;
            };
            let size = SetAttr {
                size: Some(6),
                mtime: Some(1),
                ..SetAttr::default()
            };
            let _changed = guest.fs.setattr(file.node, &size);
            let truncate = READ_WRITE | libc::O_TRUNC.cast_unsigned();
            for flags in [READ_WRITE, truncate] {
                let Ok(handle) = guest.fs.open(file.node, flags) else {
                    continue;
                };
                let content = guest.fs.read(file.node, handle, 0, 64).unwrap();
                assert!(content.is_empty() || content == b"inside", "{content:?}");
                guest.fs.write(file.node, handle, 0, b"inside").unwrap();
                guest.fs.release(file.node, handle).unwrap();
                opened += 1;
            }
        }
    });
    assert!(opened > 0, "the race was never won");
    guest.assert_unharmed("a file swapped for a link");
    let outside = fs::metadata(guest.outside("secret")).unwrap();
    assert!(outside.modified().unwrap().elapsed().unwrap() < Duration::from_hours(1));
}

#[test]
fn attack_73_a_directory_moved_up_while_a_guest_goes_down_in_it_does_not_take_the_guest_along() {
    let mut guest = Guest::new();
    fs::create_dir_all(guest.host("a/b/c")).unwrap();
    fs::write(guest.host("a/b/c/f"), "inside").unwrap();
    let (inside, above) = (guest.host("a/b"), guest.outside("b"));
    let mut read = 0;
    let up_and_down = || {
        fs::rename(&inside, &above).unwrap();
        fs::rename(&above, &inside).unwrap();
    };
    meanwhile(up_and_down, || {
        let end = Instant::now() + RACE;
        while Instant::now() < end {
            let mut node: Result<u64, Error> = Ok(ROOT);
            for name in ["a", "b", "c", "f"] {
                node = node.and_then(|node| Ok(guest.fs.lookup(node, name)?.node));
            }
            let up = guest
                .fs
                .lookup(ROOT, "a")
                .and_then(|a| guest.fs.lookup(a.node, ".."));
            assert_eq!(refused(up), Errno::INVAL);
            if let Ok(node) = node
                && let Ok(handle) = guest.fs.open(node, READ)
            {
                assert_eq!(guest.fs.read(node, handle, 0, 64).unwrap(), b"inside");
                guest.fs.release(node, handle).unwrap();
                read += 1;
            }
        }
    });
    assert!(read > 0, "the race was never won");
    guest.assert_unharmed("a directory moved up");
}

#[test]
fn attack_73_a_root_replaced_by_a_link_is_still_the_directory_that_was_shared() {
    let mut guest = Guest::new();
    fs::write(guest.host("f"), "inside").unwrap();
    let root = guest.host("").parent().unwrap().join("root");
    fs::rename(&root, root.with_file_name("elsewhere")).unwrap();
    symlink(guest.outside(""), &root).unwrap();
    assert_eq!(refused(guest.fs.lookup(ROOT, "secret")), Errno::NOENT);
    assert_eq!(guest.fs.lookup(ROOT, "f").unwrap().attr.size, 6);
    guest.fs.create(ROOT, "n", 0o644, READ_WRITE).unwrap();
    assert!(root.with_file_name("elsewhere/n").exists());
    guest.assert_unharmed("a root replaced by a link");
}
