//! The host user is uid 1000 inside, and read-only means read-only.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use virtiofsd::filesystem::{Extensions, FileSystem as _, SetattrValid};
use virtiofsd::fuse::SetattrIn;
use virtiofsd::soft_idmap::Id as _;

use crate::support::{Bench, ROOT, agent, errno, guest_root, read_host};

fn owner(attr: &virtiofsd::fuse::Attr) -> (u32, u32) {
    (attr.uid.into_inner(), attr.gid.into_inner())
}

fn mode(value: u32) -> SetattrIn {
    SetattrIn {
        mode: value,
        ..Default::default()
    }
}

#[test]
fn the_host_user_is_1000_inside_whatever_its_uid() {
    let bench = Bench::new();
    bench.host_write("f", "");
    assert_eq!(owner(&bench.lookup(ROOT, c"f").unwrap().attr), (1000, 1000));
    assert_eq!(owner(&bench.attr(ROOT).unwrap()), (1000, 1000));
}

#[test]
fn somebody_elses_files_are_nobodys() {
    let bench = Bench::new();
    bench.host_write("f", "");
    if !rustix::process::geteuid().is_root() {
        return; // only root can make such a file; CI runs the tests both ways
    }
    std::os::unix::fs::chown(bench.host("f"), Some(4321), Some(4321)).unwrap();
    let entry = bench.lookup(ROOT, c"f").unwrap();
    assert_eq!(owner(&entry.attr), (65_534, 65_534));
    let to_agent = SetattrIn {
        uid: 1000.into(),
        ..Default::default()
    };
    assert_eq!(
        errno(bench.setattr(entry.inode, SetattrValid::UID, to_agent)),
        libc::EPERM
    );
}

#[test]
fn what_agent_and_guest_root_make_belongs_to_the_host_user() {
    let bench = Bench::new();
    let host = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    for (context, name) in [(agent(), c"by_agent"), (guest_root(), c"by_root")] {
        let flags = (libc::O_CREAT | libc::O_RDWR).cast_unsigned();
        let made = bench
            .share
            .create(
                context,
                ROOT,
                name,
                0o640,
                false,
                flags,
                0,
                Extensions::default(),
            )
            .unwrap();
        assert_eq!(owner(&made.0.attr), (1000, 1000));
        let meta = std::fs::metadata(bench.host(name.to_str().unwrap())).unwrap();
        assert_eq!((meta.uid(), meta.gid()), host);
        assert_eq!(
            meta.mode() & 0o7777,
            0o640,
            "the guest's mode as it is, no umask of the server's"
        );
    }
}

#[test]
fn agent_can_append_chmod_touch_and_truncate() {
    let bench = Bench::new();
    let (node, handle) = bench.create(ROOT, c"f", 0o644, libc::O_RDWR).unwrap();
    bench.write(node, handle, "one", 0, 0).unwrap();
    bench.write(node, handle, "two", 0, libc::O_APPEND).unwrap();
    assert_eq!(
        bench
            .setattr(node, SetattrValid::MODE, mode(0o600))
            .unwrap()
            .mode
            & 0o7777,
        0o600
    );
    let times = SetattrIn {
        mtime: 1_577_836_800,
        mtimensec: 5,
        ..Default::default()
    };
    let touched = bench.setattr(node, SetattrValid::MTIME, times).unwrap();
    assert_eq!((touched.mtime, touched.mtimensec), (1_577_836_800, 5));
    let before_1970 = SetattrIn {
        atime: (-1_i64).cast_unsigned(),
        ..Default::default()
    };
    assert_eq!(
        bench
            .setattr(node, SetattrValid::ATIME, before_1970)
            .unwrap()
            .atime
            .cast_signed(),
        -1
    );
    assert_eq!(read_host(bench.host("f")), "onetwo");
    let size = SetattrIn {
        size: 2,
        ..Default::default()
    };
    assert_eq!(
        bench.setattr(node, SetattrValid::SIZE, size).unwrap().size,
        2
    );
    assert_eq!(read_host(bench.host("f")), "on");
    assert_eq!(
        errno(bench.setattr(
            node,
            SetattrValid::SIZE,
            SetattrIn {
                size: u64::MAX,
                ..size
            }
        )),
        libc::EFBIG
    );
}

#[test]
fn a_mode_without_any_permission_can_be_changed_back() {
    let bench = Bench::new();
    bench.host_write("f", "");
    let node = bench.node("f").unwrap();
    bench.setattr(node, SetattrValid::MODE, mode(0)).unwrap();
    assert_eq!(
        bench
            .setattr(node, SetattrValid::MODE, mode(0o600))
            .unwrap()
            .mode
            & 0o7777,
        0o600
    );
}

#[test]
fn chown_to_the_shown_owner_or_root_changes_nothing_and_to_others_fails() {
    let bench = Bench::new();
    bench.host_write("f", "");
    let node = bench.node("f").unwrap();
    let both = SetattrValid::UID | SetattrValid::GID;
    for id in [0, 1000] {
        let wanted = SetattrIn {
            uid: id.into(),
            gid: id.into(),
            ..Default::default()
        };
        assert_eq!(
            owner(&bench.setattr(node, both, wanted).unwrap()),
            (1000, 1000)
        );
    }
    for id in [999, 1001, 65_534] {
        let uid = SetattrIn {
            uid: id.into(),
            ..mode(0o777)
        };
        assert_eq!(
            errno(bench.setattr(node, SetattrValid::UID | SetattrValid::MODE, uid)),
            libc::EPERM
        );
        let gid = SetattrIn {
            gid: id.into(),
            ..Default::default()
        };
        assert_eq!(
            errno(bench.setattr(node, SetattrValid::GID, gid)),
            libc::EPERM
        );
    }
    assert_ne!(
        bench.attr(node).unwrap().mode & 0o777,
        0o777,
        "a refused request changed something"
    );
}

#[test]
fn set_user_id_never_reaches_the_host() {
    let bench = Bench::new();
    let (file, _) = bench
        .create(ROOT, c"created", 0o6755, libc::O_RDWR)
        .unwrap();
    bench.mkdir(ROOT, c"dir", 0o7777).unwrap();
    bench
        .share
        .mknod(
            agent(),
            ROOT,
            c"node",
            libc::S_IFREG | 0o6755,
            0,
            0,
            Extensions::default(),
        )
        .unwrap();
    bench.host_write("changed", "");
    let changed = bench.node("changed").unwrap();
    for wanted in [0o4755, 0o2755, 0o6711] {
        bench
            .setattr(changed, SetattrValid::MODE, mode(wanted))
            .unwrap();
        bench
            .setattr(file, SetattrValid::MODE, mode(wanted))
            .unwrap();
    }
    for name in ["created", "dir", "node", "changed"] {
        let bits = std::fs::metadata(bench.host(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(bits & 0o6000, 0, "{name} has mode {bits:o}");
    }
    assert_eq!(
        std::fs::metadata(bench.host("dir"))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0o1777
    );
}

#[test]
fn a_read_only_share_refuses_every_change() {
    let bench = Bench::read_only();
    bench.host_write("f", "as it was");
    std::fs::create_dir(bench.host("d")).unwrap();
    let (file, dir) = (bench.node("f").unwrap(), bench.node("d").unwrap());
    let handle = bench.open(file, libc::O_RDONLY).unwrap();
    let share = &bench.share;
    let none = Extensions::default;
    let refused: Vec<(&str, std::io::Result<()>)> = vec![
        ("write-open", bench.open(file, libc::O_WRONLY).map(|_| ())),
        (
            "read-write-open",
            bench.open(file, libc::O_RDWR).map(|_| ()),
        ),
        (
            "truncating open",
            bench.open(file, libc::O_RDONLY | libc::O_TRUNC).map(|_| ()),
        ),
        ("write", bench.write(file, handle, "x", 0, 0).map(|_| ())),
        (
            "create",
            bench.create(ROOT, c"n", 0o644, libc::O_RDONLY).map(|_| ()),
        ),
        ("mkdir", bench.mkdir(ROOT, c"n", 0o755).map(|_| ())),
        (
            "mknod",
            share
                .mknod(agent(), ROOT, c"n", libc::S_IFIFO, 0, 0, none())
                .map(|_| ()),
        ),
        (
            "symlink",
            share.symlink(agent(), c"t", ROOT, c"n", none()).map(|_| ()),
        ),
        ("link", share.link(agent(), file, ROOT, c"n").map(|_| ())),
        ("rename", share.rename(agent(), ROOT, c"f", dir, c"f", 0)),
        ("unlink", share.unlink(agent(), ROOT, c"f")),
        ("rmdir", share.rmdir(agent(), ROOT, c"d")),
        (
            "chmod",
            bench
                .setattr(file, SetattrValid::MODE, mode(0o777))
                .map(|_| ()),
        ),
        (
            "chown",
            bench
                .setattr(file, SetattrValid::UID, SetattrIn::default())
                .map(|_| ()),
        ),
        (
            "truncate",
            bench
                .setattr(file, SetattrValid::SIZE, SetattrIn::default())
                .map(|_| ()),
        ),
        (
            "touch",
            bench
                .setattr(file, SetattrValid::MTIME_NOW, SetattrIn::default())
                .map(|_| ()),
        ),
        (
            "fallocate",
            share.fallocate(agent(), file, handle, 0, 0, 100),
        ),
        (
            "copy",
            share
                .copyfilerange(agent(), file, handle, 0, file, handle, 4, 2, 0)
                .map(|_| ()),
        ),
        (
            "access for writing",
            share.access(agent(), file, libc::W_OK.cast_unsigned()),
        ),
    ];
    for (what, result) in refused {
        assert_eq!(errno(result), libc::EROFS, "{what}");
    }
    assert_eq!(bench.read(file, handle).unwrap(), "as it was");
    assert_eq!(bench.list(ROOT, 10).unwrap(), ["d", "f"]);
}
