//! Attack case 74 by a guest that speaks FUSE to the real server: names that the host has given to files from outside, or to
//! files that run.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use sbx_share::limits::MAX_PLACES;
use sbx_testkit::virtio_fs::{Data, Error, Request, SetAttr, op, write};
use sbx_workspace::Rules;
use sbx_workspace::protect::{Level, standard};

use crate::attack_73::race;
use crate::guest::{Guest, prepared, refused};
use crate::support::read_host;
use crate::ways::{READ, READ_WRITE, TRUNCATE, change_content, prepare_own};

/// A guest with a file `linked` that lies outside as well.
fn guest(level: Level) -> Guest {
    let folder = prepared();
    let root = folder.path().join("root");
    prepare_own(&root);
    fs::hard_link(folder.path().join("outside/secret"), root.join("linked")).unwrap();
    fs::create_dir_all(root.join(".git/hooks")).unwrap();
    fs::write(root.join(".git/hooks/pre-commit"), "the host's").unwrap();
    let rules = Rules {
        protect: standard(level),
        ..Rules::default()
    };
    Guest::guarded(folder, &rules)
}

#[test]
fn attack_74_a_file_that_lies_outside_too_is_read_and_not_changed_in_any_way() {
    for level in [Level::Standard, Level::Block] {
        let mut guest = guest(level);
        let before = (guest.picture(), fs::metadata(guest.host("linked")).unwrap());
        for (what, errno) in change_content(&mut guest, "linked") {
            assert_eq!(errno, Errno::ACCESS, "{what}");
        }
        let after = fs::metadata(guest.host("linked")).unwrap();
        assert_eq!(guest.picture(), before.0);
        assert_eq!(after.mtime_nsec(), before.1.mtime_nsec());
        let said = guest.said();
        let refusal = ("write".to_owned(), "linked".to_owned(), true);
        assert_eq!(said, [refusal], "once, however often it was tried");

        let node = guest.node("linked").unwrap();
        let handle = guest.fs.open(node, READ).unwrap();
        assert_eq!(guest.fs.read(node, handle, 0, 64).unwrap(), b"outside");

        // A name of the guest's own makes it no more the guest's, and neither does another place.
        guest.link("linked", "again").unwrap();
        guest.make_dir("d").unwrap();
        guest.rename("linked", "d/moved", 0).unwrap();
        for name in ["again", "d/moved"] {
            for (what, errno) in change_content(&mut guest, name) {
                assert_eq!(errno, Errno::ACCESS, "{name}: {what}");
            }
        }
        guest.assert_unharmed("a file that lies outside too");
        // What goes is a name.
        guest.fs.unlink(1, "again").unwrap();
        guest.assert_unharmed("a name of it that was removed");
    }
}

#[test]
fn attack_74_a_file_exchanged_for_one_from_outside_under_a_writing_guest_is_not_written() {
    let mut guest = guest(Level::Standard);
    fs::write(guest.host("plain"), "inside").unwrap();
    let (folder, mut written, mut refusals) = (guest.host(""), 0, 0);
    race(&folder, ("linked", "plain"), || {
        let end = Instant::now() + Duration::from_millis(1_500);
        while Instant::now() < end {
            for flags in [READ_WRITE, READ_WRITE | TRUNCATE] {
                let file = guest.fs.lookup(1, "plain").unwrap();
                match guest.fs.open(file.node, flags) {
                    Ok(handle) => {
                        guest.fs.write(file.node, handle, 0, b"inside").unwrap();
                        guest.fs.release(file.node, handle).unwrap();
                        written += 1;
                    }
                    Err(_) => refusals += 1,
                }
                let _cut = guest.put("plain", "inside");
            }
        }
    });
    assert!(written > 0 && refusals > 0, "{written} and {refusals}");
    guest.assert_unharmed("a file exchanged for one from outside");
}

#[test]
fn attack_74_a_hook_is_not_written_by_another_name_that_the_host_gave_it() {
    for first in ["hook", ".git/hooks/pre-commit"] {
        let mut guest = guest(Level::Standard);
        fs::hard_link(guest.host(".git/hooks/pre-commit"), guest.host("hook")).unwrap();
        // Whichever of the names the guest shows first, and when both are known.
        guest.node(first).unwrap();
        for _names_known in 0..2 {
            for (what, errno) in change_content(&mut guest, "hook") {
                assert_eq!(errno, Errno::ACCESS, "{first}: {what}");
            }
            guest.node(".git/hooks/pre-commit").unwrap();
            guest.node("hook").unwrap();
        }
        assert_eq!(refused(guest.link("hook", "third")), Errno::ACCESS);
        // Forgetting the name by which it is protected does not help.
        let (node, hooks) = (guest.node("hook").unwrap(), guest.node(".git/hooks"));
        for known in [node, hooks.unwrap()] {
            guest.fs.forget(known, 1000).unwrap();
        }
        for (what, errno) in change_content(&mut guest, "hook") {
            assert_eq!(errno, Errno::ACCESS, "{first}, forgotten: {what}");
        }
        assert_eq!(read_host(guest.host("hook")), "the host's");
        let said = guest.said();
        assert!(said.iter().all(|(_, _, refused)| *refused), "{said:?}");
        assert!(!said.is_empty());
        guest.assert_unharmed("another name of a hook");
    }
}

#[test]
fn attack_74_a_file_with_more_names_than_are_remembered_is_not_written() {
    let mut guest = guest(Level::Standard);
    guest.put("a", "a").unwrap();
    for number in 1..MAX_PLACES {
        guest.link("a", &format!("a{number}")).unwrap();
    }
    guest.put("a", "all of its names are known").unwrap();
    guest.link("a", "one-more").unwrap();
    assert_eq!(refused(guest.put("a", "evil")), Errno::ACCESS);
    guest.fs.unlink(1, "one-more").unwrap();
    for number in 1..MAX_PLACES {
        guest.node(&format!("a{number}")).unwrap();
    }
    guest.put("a", "known again").unwrap();
    assert_eq!(read_host(guest.host("a1")), "known again");
    guest.assert_unharmed("a file of many names");
}

#[test]
fn attack_74_where_nothing_is_blocked_a_file_that_lies_outside_too_is_the_hosts_gift() {
    let mut guest = guest(Level::Report);
    let beside = guest.outside("secret").with_file_name("../beside");
    fs::write(&beside, "beside").unwrap();
    fs::hard_link(&beside, guest.host("gift")).unwrap();
    guest.put("gift", "written").unwrap();
    assert_eq!(read_host(beside), "written");
    guest.assert_unharmed("a file that may be written");
}

/// Writes until it is refused; the errno.
fn written_until_refused(guest: &mut Guest, (node, handle): (u64, u64)) -> Errno {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        match guest.fs.write(node, handle, 0, b"evil") {
            Err(Error::Refused(errno)) => return errno,
            written => written.unwrap(),
        };
    }
    panic!("it is still written");
}

#[test]
fn attack_74_a_file_that_the_host_makes_a_hook_of_is_not_written_through_a_handle_from_before() {
    for link in [false, true] {
        let mut guest = guest(Level::Standard);
        let (node, handle) = guest.file("setup");
        guest.fs.write(node, handle, 0, b"good").unwrap();
        let (from, to) = (guest.host("setup"), guest.host(".git/hooks/post-merge"));
        if link {
            fs::hard_link(&from, &to).unwrap();
        } else {
            fs::rename(&from, &to).unwrap();
        }
        let errno = written_until_refused(&mut guest, (node, handle));
        assert_eq!(errno, Errno::ACCESS, "linked: {link}");
        fs::write(&to, "good").unwrap();
        for request in [
            write(node, handle, 0, 4, Data::Bytes(b"evil")),
            Request::new(op::FALLOCATE, node)
                .u64(handle)
                .u64(0)
                .u64(99)
                .u64(0),
        ] {
            assert_eq!(refused(guest.fs.call(&request)), Errno::ACCESS);
        }
        let size = SetAttr {
            size: Some(0),
            handle: Some(handle),
            ..SetAttr::default()
        };
        assert_eq!(refused(guest.fs.setattr(node, &size)), Errno::ACCESS);
        assert_eq!(read_host(&to), "good");
        guest.assert_unharmed("a handle from before");
    }
}

#[test]
fn a_file_that_the_host_moves_elsewhere_is_written_on_and_one_moved_out_of_the_tree_is_not() {
    let mut guest = guest(Level::Standard);
    let (node, handle) = guest.file("log");
    fs::create_dir(guest.host("old")).unwrap();
    fs::rename(guest.host("log"), guest.host("old/log")).unwrap();
    let end = Instant::now() + 2 * sbx_share::limits::CACHE_TIME;
    while Instant::now() < end {
        guest.fs.write(node, handle, 0, b"more").unwrap();
    }
    fs::rename(guest.host("old/log"), guest.outside("log")).unwrap();
    let errno = written_until_refused(&mut guest, (node, handle));
    assert_eq!(errno, Errno::STALE);
    fs::remove_file(guest.outside("log")).unwrap();
    // Without a name it is the guest's alone.
    guest.fs.write(node, handle, 0, b"more").unwrap();
    guest.assert_unharmed("a file that the host moves");
}
