//! Attack case 76, links to git directories: what they say decides whose hooks and settings git on the host takes.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use sbx_testkit::virtio_fs::{Data, Error, GUEST_BASE, Request, SetAttr, op, write};

use crate::attack_73::meanwhile;
use crate::attack_76::{assert_said, guest};
use crate::guest::refused;
use crate::support::read_host;
use crate::ways::{EXCHANGE, READ_WRITE};

const LINK: &str = "gitdir: ../.git/worktrees/wt\n";

#[test]
fn attack_76_a_link_to_a_git_directory_never_has_another_content_not_even_in_part() {
    let mut guest = guest();
    guest.put("wt/.git", LINK).unwrap();
    for evil in [
        "gitdir: ../own.d\n",
        "gitdir: /tmp/evil\n",
        "gitdir: ../.git/../own.d\n",
        "gitdir: ../.git/worktrees/../../own.d\n",
        // Protected, unless `l` becomes a link.
        "gitdir: ../.git/l/../modules/sub\n",
        "gitdir: ../.git/worktrees/wt\n\ngitdir: ../own.d\n",
        "gitdir: ../.git/worktrees/wt\0/../../own.d",
        "gitdir:../own.d",
        " gitdir: ../own.d",
        "",
    ] {
        // An empty one says nothing to git, and is not written at all.
        for path in ["wt/.git", "sub/.git"] {
            let put = guest.put(path, evil);
            assert!(evil.is_empty() || refused(put) == Errno::ACCESS, "{evil}");
            let there = read_host(guest.host(path));
            assert!(["", LINK].contains(&&*there), "{evil}: {there}");
        }
    }
    // In pieces.
    for path in ["wt/.git", "sub/.git"] {
        guest.put(path, LINK).unwrap();
        let (host, node) = (guest.host(path), guest.node(path).unwrap());
        let handle = guest.fs.open(node, READ_WRITE).unwrap();
        let fs = &mut guest.fs;
        for (offset, piece) in [
            // With what stays of the old one behind it: ../x/.git/worktrees/wt.
            (0, "gitdir: ../x/.git"),
            (8, "../own.d\n"),
            (28, "/../../../own.d\n"),
            (1 << 40, "x"),
        ] {
            let written = fs.write(node, handle, offset, piece.as_bytes());
            assert_eq!(refused(written), Errno::ACCESS, "{offset}");
        }
        // The same, said to be the whole.
        for claimed in [29, 4096] {
            let short = write(node, handle, 0, claimed, Data::Bytes(b"gitdir: ../x/.git"));
            assert_eq!(refused(fs.call(&short)), Errno::INVAL, "{claimed}");
            assert_eq!(read_host(&host), LINK, "{claimed}");
        }
        for size in [1, 12, 4096] {
            let size = SetAttr {
                size: Some(size),
                ..SetAttr::default()
            };
            assert_eq!(refused(fs.setattr(node, &size)), Errno::ACCESS);
        }
        let allocate = Request::new(op::FALLOCATE, node).u64(handle).u64(0);
        assert_eq!(refused(fs.call(&allocate.u64(99).u64(0))), Errno::ACCESS);
        let own = guest.node("own").unwrap();
        let from = guest.fs.open(own, READ_WRITE).unwrap();
        let copy = Request::new(op::COPY_FILE_RANGE, own).u64(from).u64(0);
        let copy = copy.u64(node).u64(handle).u64(0).u64(4).u64(0).room(8);
        assert_eq!(refused(guest.fs.call(&copy)), Errno::ACCESS);
        // By a name of its own, or another's.
        assert_eq!(refused(guest.link("own", path)), Errno::ACCESS);
        assert_eq!(refused(guest.rename("own", path, 0)), Errno::ACCESS);
        assert_eq!(refused(guest.rename("own", path, EXCHANGE)), Errno::ACCESS);
        assert_eq!(refused(guest.link(path, "away")), Errno::ACCESS);
        assert_eq!(read_host(guest.host(path)), LINK);
        assert_said(&guest, "write", path);
    }
    guest.assert_unharmed("links to git directories");
}

#[test]
fn attack_76_a_write_that_says_more_than_it_carries_leaves_no_end_of_an_older_link() {
    let mut guest = guest();
    let (path, link) = (".git/worktrees/wt/commondir", "../../.git/modules/sub\n");
    guest.put(path, link).unwrap();
    let node = guest.node(path).unwrap();
    let handle = guest.fs.open(node, READ_WRITE).unwrap();
    let short = write(node, handle, 0, 4096, Data::Bytes(b"../../../x/.git"));
    assert_eq!(refused(guest.fs.call(&short)), Errno::INVAL);
    assert_eq!(read_host(guest.host(path)), link);
    guest.assert_unharmed("a write that says too much");
}

/// The host's git appends to its logs, and writes its index, the message of a commit and what it fetched.
#[test]
fn attack_76_no_symbolic_link_leads_what_git_writes_out_of_its_own_directory() {
    let mut guest = guest();
    for folder in [".git/logs", "new", "new/logs", "proj"] {
        guest.make_dir(folder).unwrap();
    }
    let paths = [
        ".git/logs/HEAD",
        ".git/COMMIT_EDITMSG",
        ".git/index",
        ".git/objects",
        ".git/modules/sub/FETCH_HEAD",
        ".git/worktrees/wt/logs",
    ];
    for path in paths {
        let (parent, name) = guest.place(path).unwrap();
        for text in ["/tmp/evil", "../../own", "..", ".", "x/../../../own", "x/y"] {
            let made = guest.fs.symlink(parent, name, text);
            assert_eq!(refused(made), Errno::ACCESS, "{path} to {text}");
        }
        let moved = guest.rename("own.l", path, 0);
        assert_eq!(refused(moved), Errno::ACCESS, "{path}");
        assert_eq!(refused(guest.link("own.l", path)), Errno::ACCESS, "{path}");
        for action in ["create", "rename", "link"] {
            assert_said(&guest, action, path);
        }
    }
    // A commit's message would be git's settings.
    let git = guest.node(".git").unwrap();
    for beside in ["config", "config.worktree", "commondir"] {
        let made = guest.fs.symlink(git, "COMMIT_EDITMSG", beside);
        assert_eq!(refused(made), Errno::ACCESS, "{beside}");
    }
    // Git's own trial.
    guest.fs.symlink(git, "tXyz", "testing").unwrap();
    guest.fs.unlink(git, "tXyz").unwrap();
    // With what moves into a git directory, or becomes one.
    let logs = guest.node("new/logs").unwrap();
    guest.fs.symlink(logs, "HEAD", "/tmp/evil").unwrap();
    for to in [".git/new", ".git/modules/new", "proj/.git"] {
        assert_eq!(refused(guest.rename("new", to, 0)), Errno::ACCESS, "{to}");
    }
    let exchanged = guest.rename("new/logs", ".git/logs", EXCHANGE);
    assert_eq!(refused(exchanged), Errno::ACCESS);
    guest.fs.unlink(logs, "HEAD").unwrap();
    guest.rename("new", "proj/.git", 0).unwrap();
    guest.assert_unharmed("links in a git directory");
}

#[test]
fn attack_76_bytes_that_the_guest_changes_under_the_servers_eyes_are_written_as_they_were_looked_at()
 {
    let mut guest = guest();
    guest.put("wt/.git", LINK).unwrap();
    let evil = "gitdir: ../own.d/worktree/wt\n";
    assert_eq!(evil.len(), LINK.len());
    let node = guest.node("wt/.git").unwrap();
    let handle = guest.fs.open(node, READ_WRITE).unwrap();
    let device = guest.fs.device();
    let (memory, at) = (device.memory().fd(), device.scratch() - GUEST_BASE);
    let memory = memory.try_clone_to_owned().unwrap();
    let flip = || {
        for content in [evil, LINK] {
            rustix::io::pwrite(&memory, content.as_bytes(), at).unwrap();
        }
    };
    let host = guest.host("wt/.git");
    let (mut written, mut refusals) = (0, 0);
    let length = u32::try_from(LINK.len()).unwrap();
    meanwhile(flip, || {
        let end = Instant::now() + Duration::from_millis(1_500);
        while Instant::now() < end {
            let request = write(node, handle, 0, length, Data::Stale(length));
            match guest.fs.call(&request) {
                Ok(_) => written += 1,
                Err(Error::Refused(errno)) => {
                    assert_eq!(errno, Errno::ACCESS);
                    refusals += 1;
                }
                Err(error) => panic!("{error}"),
            }
            assert_eq!(read_host(&host), LINK);
        }
    });
    assert!(written > 0 && refusals > 0, "{written} and {refusals}");
    guest.assert_unharmed("bytes that change");
}
