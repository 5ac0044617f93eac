//! Attack case 75 by a guest that speaks FUSE to the real server: changes that a share must not make.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use rustix::io::Errno;
use sbx_testkit::virtio_fs::{Client, ROOT, Request, SetAttr, list, op};

use crate::guest::{Guest, prepared, refused};

const READ: u32 = libc::O_RDONLY.cast_unsigned();
const READ_WRITE: u32 = libc::O_RDWR.cast_unsigned();

/// Requests that change a file's content or attributes, on a tree with the file `f` and the directory `d`.
fn changes_of_files(fs: &mut Client) -> Vec<(&'static str, Errno)> {
    let f = fs.lookup(ROOT, "f").unwrap().node;
    let h = fs.open(f, READ).unwrap();
    let none = SetAttr::default();
    let (mode, uid, gid) = (Some(0o777), Some(0), Some(0));
    let (size, mtime, handle) = (Some(0), Some(1), Some(h));
    let sets = [
        ("chmod", SetAttr { mode, ..none }),
        ("chown", SetAttr { uid, ..none }),
        ("chgrp", SetAttr { gid, ..none }),
        ("truncate", SetAttr { size, ..none }),
        (
            "truncate by handle",
            SetAttr {
                size,
                handle,
                ..none
            },
        ),
        ("touch", SetAttr { mtime, ..none }),
    ];
    let mut answers: Vec<_> = sets
        .iter()
        .map(|(what, set)| (*what, refused(fs.setattr(f, set))))
        .collect();
    let allocate = Request::new(op::FALLOCATE, f).u64(h).u64(0).u64(10).u64(0);
    let copy = Request::new(op::COPY_FILE_RANGE, f).u64(h).u64(0).u64(f);
    let copy = copy.u64(h).u64(3).u64(3).u64(0).room(8);
    let write_only = libc::O_WRONLY.cast_unsigned();
    let truncating = libc::O_TRUNC.cast_unsigned();
    let can_write = libc::W_OK.cast_unsigned();
    let access = Request::new(op::ACCESS, f).u32(can_write).u32(0);
    answers.extend([
        ("open to write", refused(fs.open(f, write_only))),
        ("open for both", refused(fs.open(f, READ_WRITE))),
        ("truncating open", refused(fs.open(f, truncating))),
        ("write", refused(fs.write(f, h, 0, b"x"))),
        ("allocate", refused(fs.call(&allocate))),
        ("copy", refused(fs.call(&copy))),
        ("access", refused(fs.call(&access))),
    ]);
    answers
}

/// Requests that change names.
fn changes_of_names(fs: &mut Client) -> Vec<(&'static str, Errno)> {
    let f = fs.lookup(ROOT, "f").unwrap().node;
    let d = fs.lookup(ROOT, "d").unwrap().node;
    let rename = Request::new(op::RENAME, ROOT).u64(d).name("f").name("f");
    let (file, pipe) = (libc::S_IFREG | 0o644, libc::S_IFIFO | 0o644);
    let name = b"f".as_slice();
    let (from, to) = ((ROOT, name), (d, name));
    vec![
        ("create", refused(fs.create(ROOT, "n", 0o644, READ))),
        (
            "create over",
            refused(fs.create(ROOT, "f", 0o644, READ_WRITE)),
        ),
        ("mkdir", refused(fs.mkdir(ROOT, "n", 0o755))),
        ("mknod", refused(fs.mknod(ROOT, "n", file, 0))),
        ("pipe", refused(fs.mknod(ROOT, "n", pipe, 0))),
        ("symlink", refused(fs.symlink(ROOT, "n", "t"))),
        ("link", refused(fs.link(f, ROOT, "n"))),
        ("rename", refused(fs.call(&rename))),
        ("rename2", refused(fs.rename2(from, to, 0))),
        ("exchange", refused(fs.rename2(from, (ROOT, b"d"), 2))),
        ("unlink", refused(fs.unlink(ROOT, "f"))),
        ("rmdir", refused(fs.rmdir(ROOT, "d"))),
    ]
}

#[test]
fn attack_75_a_read_only_share_refuses_every_change_also_after_a_new_mount() {
    let folder = prepared();
    let root = folder.path().join("root");
    fs::write(root.join("f"), "as it was").unwrap();
    fs::create_dir(root.join("d")).unwrap();
    symlink("f", root.join("l")).unwrap();
    let before = fs::metadata(root.join("f")).unwrap();
    let mut guest = Guest::serving(folder, &["--read-only"]);
    for _mount in 0..2 {
        let mut answers = changes_of_files(&mut guest.fs);
        answers.extend(changes_of_names(&mut guest.fs));
        for (what, errno) in answers {
            assert_eq!(errno, Errno::ROFS, "{what}");
        }
        guest.fs.init().unwrap();
    }
    // Whatever else an opening says, what comes of it cannot be written.
    let f = guest.fs.lookup(ROOT, "f").unwrap().node;
    for bit in 0..32 {
        if let Ok(handle) = guest.fs.open(f, 1 << bit) {
            assert!(
                guest.fs.write(f, handle, 0, b"changed").is_err(),
                "flag {bit}"
            );
            guest.fs.release(f, handle).unwrap();
        }
    }
    guest.assert_unharmed("changes to a read-only share");
    assert_eq!(fs::read_to_string(guest.host("f")).unwrap(), "as it was");
    let after = fs::metadata(guest.host("f")).unwrap();
    assert_eq!(after.permissions(), before.permissions());
    assert_eq!(after.modified().unwrap(), before.modified().unwrap());
    assert_eq!(fs::read_dir(guest.host("")).unwrap().count(), 3);
    assert_eq!(fs::read_dir(guest.host("d")).unwrap().count(), 0);
}

#[test]
fn attack_75_devices_are_refused_and_no_file_gets_rights_beyond_its_owners() {
    let mut guest = Guest::new();
    for kind in [libc::S_IFCHR, libc::S_IFBLK] {
        for device in [0, 0x103, 0x801, u32::MAX] {
            let made = guest.fs.mknod(ROOT, "device", kind | 0o666, device);
            assert_eq!(refused(made), Errno::PERM);
        }
    }
    for mode in [0o4755, 0o2755, 0o6777, 0o106_755, !libc::S_IFMT] {
        let (file, handle) = guest.fs.create(ROOT, "created", mode, READ_WRITE).unwrap();
        guest.fs.write(file.node, handle, 0, b"#!/bin/sh").unwrap();
        guest
            .fs
            .mknod(ROOT, "made", libc::S_IFREG | mode & 0o7777, 0)
            .unwrap();
        guest.fs.mkdir(ROOT, "folder", mode & 0o7777).unwrap();
        let set = SetAttr {
            mode: Some(mode),
            ..SetAttr::default()
        };
        let _refused = guest.fs.setattr(file.node, &set);
        for name in ["created", "made", "folder"] {
            let mode = fs::metadata(guest.host(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o6000, 0, "{name}");
        }
        guest.fs.unlink(ROOT, "created").unwrap();
        guest.fs.unlink(ROOT, "made").unwrap();
        guest.fs.rmdir(ROOT, "folder").unwrap();
    }
    guest.assert_unharmed("devices and rights");
    assert_eq!(fs::read_dir(guest.host("")).unwrap().count(), 0);
}

#[test]
fn attack_75_extended_attributes_lists_of_rights_and_capabilities_are_refused() {
    let mut guest = Guest::new();
    let (node, _) = guest.file("f");
    let names = [
        "user.x",
        "trusted.overlay.opaque",
        "security.capability",
        "security.selinux",
        "system.posix_acl_access",
        "system.posix_acl_default",
    ];
    for name in names {
        let set = Request::new(op::SETXATTR, node).u32(4).u32(0).name(name);
        let get = Request::new(op::GETXATTR, node).u32(64).u32(0).name(name);
        let remove = Request::new(op::REMOVEXATTR, node).name(name);
        for request in [set.bytes(b"text"), get.data_room(64), remove] {
            assert_eq!(refused(guest.fs.call(&request)), Errno::NOSYS, "{name}");
        }
    }
    let request = Request::new(op::LISTXATTR, node).u32(64).u32(0);
    assert_eq!(refused(guest.fs.call(&request.data_room(64))), Errno::NOSYS);
    let listed = rustix::fs::listxattr(guest.host("f"), &mut Vec::<u8>::new());
    assert_eq!(listed.unwrap_or_default(), 0, "an attribute is on the host");
    guest.assert_unharmed("extended attributes");
}

#[test]
fn attack_75_pipes_sockets_and_links_are_never_opened_by_the_server() {
    let mut guest = Guest::new();
    for kind in [libc::S_IFIFO, libc::S_IFSOCK] {
        let node = guest.fs.mknod(ROOT, "n", kind | 0o666, 0).unwrap().node;
        for flags in [READ, READ_WRITE, libc::O_PATH.cast_unsigned()] {
            assert_eq!(refused(guest.fs.open(node, flags)), Errno::PERM);
        }
        assert_eq!(refused(guest.fs.opendir(node)), Errno::NOTDIR);
        guest.fs.unlink(ROOT, "n").unwrap();
    }
    for text in ["../outside/secret", "/proc/self/mem", "/dev/zero"] {
        let node = guest.fs.symlink(ROOT, "n", text).unwrap().node;
        for flags in [READ, READ_WRITE, libc::O_NOFOLLOW.cast_unsigned()] {
            assert_eq!(refused(guest.fs.open(node, flags)), Errno::LOOP);
        }
        assert_eq!(refused(guest.fs.opendir(node)), Errno::NOTDIR);
        assert_eq!(refused(guest.fs.lookup(node, "n")), Errno::NOTDIR);
        let read = list(op::READ, node, 1, 0, 64);
        assert_eq!(refused(guest.fs.call(&read)), Errno::BADF);
        guest.fs.unlink(ROOT, "n").unwrap();
    }
    guest.assert_unharmed("files that are not regular");
}
