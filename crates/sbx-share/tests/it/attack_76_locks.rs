//! Attack case 76, git's locks: the host's git renames its own to the settings by their path, whatever is there.

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::attack_73::meanwhile;
use crate::attack_76::{assert_said, guest};
use crate::guest::refused;
use crate::support::read_host;
use crate::ways::{self, EXCHANGE, READ_WRITE};

const LOCKS: &[&str] = &[
    ".git/config.lock",
    ".git/config.worktree.lock",
    ".git/modules/sub/config.lock",
    ".git/worktrees/wt/config.lock",
];
const GOOD: &str = "[core]\n\tbare = false\n";
const EVIL: &str = "[core]\n\tfsmonitor = ./own\n";

#[test]
fn attack_76_a_lock_of_the_hosts_is_not_changed_removed_or_renamed_in_any_way() {
    let mut guest = guest();
    for path in LOCKS {
        fs::write(guest.host(path), GOOD).unwrap();
    }
    let before = guest.picture();
    for path in LOCKS {
        for (what, errno) in ways::change(&mut guest, path) {
            assert_eq!(errno, Errno::ACCESS, "{path}: {what}");
        }
        let settings = path.strip_suffix(".lock").unwrap();
        let moved = guest.rename(path, settings, 0);
        assert_eq!(refused(moved), Errno::ACCESS, "{path}");
        for action in ["write", "change", "remove", "rename", "link"] {
            assert_said(&guest, action, path);
        }
    }
    assert_eq!(guest.picture(), before);
    guest.assert_unharmed("locks of the host's");
}

#[test]
fn attack_76_nothing_but_a_new_file_gets_the_name_of_a_lock() {
    let mut guest = guest();
    let before = guest.picture();
    for path in LOCKS {
        let (parent, name) = guest.place(path).unwrap();
        for (what, errno) in ways::make_directory(&mut guest, path) {
            assert_eq!(errno, Errno::ACCESS, "{path}: {what}");
        }
        for flags in [0, EXCHANGE, libc::RENAME_NOREPLACE] {
            let moved = guest.rename("own", path, flags);
            assert_eq!(refused(moved), Errno::ACCESS, "{path}: {flags}");
        }
        assert_eq!(refused(guest.link("own", path)), Errno::ACCESS, "{path}");
        let pipe = guest.fs.mknod(parent, name, libc::S_IFIFO | 0o644, 0);
        assert_eq!(refused(pipe), Errno::ACCESS, "{path}");
        let link = guest.fs.symlink(parent, name, "config");
        assert_eq!(refused(link), Errno::ACCESS, "{path}");
    }
    assert_eq!(guest.picture(), before);
    // With a directory that becomes one of git's.
    for folder in ["new", "proj"] {
        guest.make_dir(folder).unwrap();
    }
    guest.put("new/config.lock", EVIL).unwrap();
    let moved = guest.rename("new", "proj/.git", 0);
    assert_eq!(refused(moved), Errno::ACCESS);
    guest.assert_unharmed("names of locks");
}

/// As git on the host does it, again and again, while the guest puts its own in the place of each lock.
#[test]
fn attack_76_nothing_of_the_guests_gets_into_settings_by_the_hosts_lock() {
    let mut guest = guest();
    let (lock, config) = (guest.host(".git/config.lock"), guest.host(".git/config"));
    let host = || {
        let Ok(mut file) = fs::File::create_new(&lock) else {
            return;
        };
        file.write_all(GOOD.as_bytes()).unwrap();
        drop(file);
        std::thread::yield_now();
        let _renamed = fs::rename(&lock, &config);
    };
    meanwhile(host, || {
        let end = Instant::now() + Duration::from_millis(1_500);
        while Instant::now() < end {
            guest.put("own", EVIL).unwrap();
            for flags in [EXCHANGE, 0] {
                let _moved = guest.rename("own", ".git/config.lock", flags);
            }
            if let Ok(node) = guest.node(".git/config.lock")
                && let Ok(handle) = guest.fs.open(node, READ_WRITE)
            {
                let _written = guest.fs.write(node, handle, 0, EVIL.as_bytes());
                guest.fs.release(node, handle).unwrap();
            }
            let there = fs::read_to_string(&config).unwrap();
            assert_eq!(there, GOOD);
        }
    });
    guest.assert_unharmed("the host's locks");
}

#[test]
fn a_lock_of_the_guests_is_its_own_and_stays_where_it_was_made() {
    let mut guest = guest();
    for folder in ["a", "a/b", "a/b/.git", "c", "c/.git"] {
        guest.make_dir(folder).unwrap();
    }
    let lock = "a/b/.git/config.lock";
    guest.put(lock, EVIL).unwrap();
    // The host's git would find it where it has its own.
    for (from, to) in [("a/b/.git", "c/.git"), ("a/b", "c"), ("a", "c")] {
        for (from, to) in [(from, to), (to, from)] {
            let moved = guest.rename(from, to, EXCHANGE);
            assert_eq!(refused(moved), Errno::ACCESS, "{from} and {to}");
        }
    }
    assert_eq!(refused(guest.rename("a", "d", 0)), Errno::ACCESS);
    assert_said(&guest, "rename", "a");
    // What has no lock in it goes where it likes; written, cut, renamed and removed as git does it.
    guest.rename("c", "e", 0).unwrap();
    guest.put(lock, GOOD).unwrap();
    guest.rename(lock, "a/b/.git/config", 0).unwrap();
    assert_eq!(read_host(guest.host("a/b/.git/config")), GOOD);
    assert!(!guest.host(lock).exists());
    guest.put(lock, EVIL).unwrap();
    let (parent, name) = guest.place(lock).unwrap();
    guest.fs.unlink(parent, name).unwrap();
    guest.rename("a", "d", 0).unwrap();
    guest.assert_unharmed("locks of the guest's");
}

#[test]
fn locks_of_the_guests_are_bounded_and_those_that_are_gone_take_no_room() {
    let mut guest = guest();
    for number in 0..sbx_share::limits::MAX_LOCKS {
        for folder in [format!("r{number}"), format!("r{number}/.git")] {
            guest.make_dir(&folder).unwrap();
        }
        guest
            .put(&format!("r{number}/.git/config.lock"), GOOD)
            .unwrap();
    }
    let more = guest.put(".git/config.lock", GOOD);
    assert_eq!(refused(more), Errno::NFILE);
    fs::remove_file(guest.host("r3/.git/config.lock")).unwrap();
    guest.put(".git/config.lock", GOOD).unwrap();
    guest.assert_unharmed("many locks");
}
