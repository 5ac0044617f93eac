//! All the ways in which a guest's client can make or change a file of a given name, each tried once.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::io::Errno;
use sbx_testkit::virtio_fs::{ROOT, Request, SetAttr, op};

use crate::guest::{Guest, refused};

pub(crate) const READ: u32 = libc::O_RDONLY.cast_unsigned();
pub(crate) const WRITE: u32 = libc::O_WRONLY.cast_unsigned();
pub(crate) const READ_WRITE: u32 = libc::O_RDWR.cast_unsigned();
pub(crate) const TRUNCATE: u32 = libc::O_TRUNC.cast_unsigned();
/// Both names change places (renameat2(2)).
pub(crate) const EXCHANGE: u32 = libc::RENAME_EXCHANGE;

/// What came of each way.
pub(crate) type Answers = Vec<(&'static str, Errno)>;

/// The guest's own: a file, a link and a directory, which [`make`] and [`change`] would have in other places.
pub(crate) fn prepare_own(root: &Path) {
    fs::write(root.join("own"), "evil").unwrap();
    symlink("own.d", root.join("own.l")).unwrap();
    fs::create_dir(root.join("own.d")).unwrap();
}

/// What gives a name to a file that is not there yet. All of it must be refused.
pub(crate) fn make(guest: &mut Guest, path: &str) -> Answers {
    let (parent, name) = guest.place(path).unwrap();
    let own = guest.node("own").unwrap();
    let fs = &mut guest.fs;
    let (file, pipe) = (libc::S_IFREG | 0o755, libc::S_IFIFO | 0o755);
    let plain = Request::new(op::RENAME, ROOT).u64(parent).name("own");
    let to = (parent, name);
    vec![
        (
            "create",
            refused(fs.create(parent, name, 0o755, READ_WRITE)),
        ),
        (
            "create to read",
            refused(fs.create(parent, name, 0o755, READ)),
        ),
        ("mknod", refused(fs.mknod(parent, name, file, 0))),
        (
            "mknod without a kind",
            refused(fs.mknod(parent, name, 0o755, 0)),
        ),
        ("pipe", refused(fs.mknod(parent, name, pipe, 0))),
        ("symlink", refused(fs.symlink(parent, name, "/tmp/evil"))),
        ("link", refused(fs.link(own, parent, name))),
        ("rename", refused(fs.call(&plain.name(name)))),
        ("rename2", refused(fs.rename2((ROOT, b"own"), to, 0))),
        (
            "rename a link",
            refused(fs.rename2((ROOT, b"own.l"), to, 0)),
        ),
        (
            "exchange",
            refused(fs.rename2((ROOT, b"own"), to, EXCHANGE)),
        ),
    ]
}

/// The same for the name of a directory.
pub(crate) fn make_directory(guest: &mut Guest, path: &str) -> Answers {
    let (parent, name) = guest.place(path).unwrap();
    let link = guest.node("own.l").unwrap();
    let fs = &mut guest.fs;
    let to = (parent, name);
    vec![
        ("mkdir", refused(fs.mkdir(parent, name, 0o755))),
        ("rename", refused(fs.rename2((ROOT, b"own.d"), to, 0))),
        ("symlink", refused(fs.symlink(parent, name, "own.d"))),
        ("link a link", refused(fs.link(link, parent, name))),
        (
            "rename a link",
            refused(fs.rename2((ROOT, b"own.l"), to, 0)),
        ),
    ]
}

/// What changes a file that is there, gives it another name or another file its name. All of it must be refused.
pub(crate) fn change(guest: &mut Guest, path: &str) -> Answers {
    let (parent, name) = guest.place(path).unwrap();
    let mut answers = change_content(guest, path);
    let node = guest.node(path).unwrap();
    let own = guest.node("own").unwrap();
    let fs = &mut guest.fs;
    let (from, to) = ((ROOT, b"own".as_slice()), (parent, name));
    let away = (ROOT, b"away".as_slice());
    answers.extend([
        ("unlink", refused(fs.unlink(parent, name))),
        ("rename away", refused(fs.rename2(to, away, 0))),
        ("rename over", refused(fs.rename2(from, to, 0))),
        ("exchange", refused(fs.rename2(from, to, EXCHANGE))),
        ("exchange away", refused(fs.rename2(to, from, EXCHANGE))),
        ("second name", refused(fs.link(node, ROOT, "away"))),
    ]);
    // There it is already.
    for (what, made) in [
        ("link over", fs.link(own, parent, name).map(drop)),
        ("symlink over", fs.symlink(parent, name, "t").map(drop)),
        ("mkdir over", fs.mkdir(parent, name, 0o755).map(drop)),
    ] {
        let errno = refused(made);
        assert!([Errno::ACCESS, Errno::EXIST].contains(&errno), "{what}");
    }
    answers
}

/// What changes a file's content or attributes. All of it must be refused.
pub(crate) fn change_content(guest: &mut Guest, path: &str) -> Answers {
    let (parent, name) = guest.place(path).unwrap();
    let node = guest.node(path).unwrap();
    let (own, from) = (guest.node("own").unwrap(), guest.node("own").unwrap());
    let from = guest.fs.open(from, READ).unwrap();
    let fs = &mut guest.fs;
    let none = SetAttr::default();
    let (size, mode, mtime) = (Some(0), Some(0o777), Some(1));
    let sets = [
        ("truncate", SetAttr { size, ..none }),
        ("chmod", SetAttr { mode, ..none }),
        ("touch", SetAttr { mtime, ..none }),
    ];
    let mut answers: Answers = sets
        .iter()
        .map(|(what, set)| (*what, refused(fs.setattr(node, set))))
        .collect();
    for (what, flags) in [
        ("open to write", WRITE),
        ("open for both", READ_WRITE),
        ("open to append", WRITE | libc::O_APPEND.cast_unsigned()),
        ("truncating open", READ | TRUNCATE),
        ("truncating open to write", WRITE | TRUNCATE),
    ] {
        answers.push((what, refused(fs.open(node, flags))));
    }
    answers.push((
        "create over",
        refused(fs.create(parent, name, 0o755, READ_WRITE)),
    ));
    // Through a handle to read.
    let handle = fs.open(node, READ).unwrap();
    let allocate = Request::new(op::FALLOCATE, node).u64(handle).u64(0);
    let copy = Request::new(op::COPY_FILE_RANGE, own).u64(from).u64(0);
    let copy = copy.u64(node).u64(handle).u64(0).u64(4).u64(0).room(8);
    for (what, errno) in [
        ("write", refused(fs.write(node, handle, 0, b"evil"))),
        ("allocate", refused(fs.call(&allocate.u64(9).u64(0)))),
        ("copy", refused(fs.call(&copy))),
    ] {
        assert!([Errno::ACCESS, Errno::BADF].contains(&errno), "{what}");
    }
    fs.release(node, handle).unwrap();
    fs.release(own, from).unwrap();
    answers
}
