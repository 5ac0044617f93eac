//! Directories that are the guest's own.

use crate::support::{Bench, ROOT, agent, errno, read_host};
use sbx_workspace::rules::StandIn;
use sbx_workspace::{Pattern, Rules};
use std::ffi::CStr;
use virtiofsd::filesystem::{Extensions, FileSystem as _, SetattrValid};
use virtiofsd::fuse::SetattrIn;
use virtiofsd::soft_idmap::Id as _;

fn bench() -> Bench {
    let masks = ["node_modules", "app/target"].map(str::to_owned).to_vec();
    let bench = Bench::guarded(Rules {
        masks,
        ..Rules::default()
    });
    std::fs::create_dir_all(bench.host("app/src")).unwrap();
    std::fs::create_dir(bench.host("node_modules")).unwrap();
    bench.host_write("node_modules/f", "the host's");
    bench
}

#[test]
fn a_masked_directory_is_there_and_empty_and_the_host_has_none() {
    let bench = bench();
    let app = bench.node("app").unwrap();
    let masked = bench.node("app/target").unwrap();
    let attr = bench.attr(masked).unwrap();
    assert_eq!(attr.mode, libc::S_IFDIR | 0o755);
    assert_eq!((attr.uid.into_inner(), attr.gid.into_inner()), (1000, 1000));
    assert_eq!(errno(bench.lookup(masked, c"f")), libc::ESTALE);
    assert!(!bench.host("app/target").exists());
    for step in [1, 2, 100] {
        assert_eq!(bench.list(app, step).unwrap(), ["src", "target"]);
        assert_eq!(bench.list(ROOT, step).unwrap(), ["app", "node_modules"]);
    }
    // What the host has under the name is out of sight.
    let own = bench.node("node_modules").unwrap();
    assert_eq!(errno(bench.lookup(own, c"f")), libc::ESTALE);
}

#[test]
fn nothing_takes_its_place_and_nothing_is_made_in_it() {
    let bench = bench();
    let share = &bench.share;
    let app = bench.node("app").unwrap();
    let masked = bench.node("app/target").unwrap();
    assert_eq!(errno(bench.mkdir(app, c"target", 0o755)), libc::EEXIST);
    assert_eq!(
        errno(bench.create(app, c"target", 0o644, libc::O_RDWR)),
        libc::EBUSY
    );
    let link = share.symlink(agent(), c"x", app, c"target", Extensions::default());
    assert_eq!(errno(link), libc::EEXIST);
    assert_eq!(errno(share.rmdir(agent(), app, c"target")), libc::EBUSY);
    let rename = |from: &CStr, to: &CStr| share.rename(agent(), app, from, app, to, 0);
    assert_eq!(errno(rename(c"target", c"x")), libc::EBUSY);
    assert_eq!(errno(rename(c"src", c"target")), libc::EBUSY);
    // Nor does what it lies in go away from under the mount.
    assert_eq!(
        errno(share.rename(agent(), ROOT, c"app", ROOT, c"x", 0)),
        libc::EBUSY
    );
    assert_eq!(
        errno(share.rename(agent(), ROOT, c"node_modules", ROOT, c"x", 0)),
        libc::EBUSY
    );
    assert_eq!(
        errno(bench.create(masked, c"f", 0o644, libc::O_RDWR)),
        libc::ESTALE
    );
    assert_eq!(errno(bench.mkdir(masked, c"d", 0o755)), libc::ESTALE);
    let mode = SetattrIn {
        mode: 0o700,
        ..Default::default()
    };
    assert_eq!(
        errno(bench.setattr(masked, SetattrValid::MODE, mode)),
        libc::EACCES
    );
    assert_eq!(read_host(bench.host("node_modules/f")), "the host's");
    let beside = bench.create(app, c"targets", 0o644, libc::O_RDWR);
    assert!(beside.is_ok(), "a name that only begins so");
}

/// A share with hidden files that git knows, each with the content `committed`.
fn with_stand_ins() -> (tempfile::TempDir, Bench) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("0"), "committed").unwrap();
    let stand_in = |path: &str, above: &[&str]| StandIn {
        path: path.to_owned(),
        hidden_above: above.iter().map(|path| (*path).to_owned()).collect(),
        content: folder.path().join("0"),
        executable: false,
        link: path.ends_with("link"),
    };
    let bench = Bench::guarded(Rules {
        hide: [".env", "secrets/"]
            .iter()
            .map(|text| Pattern::parse(text).unwrap())
            .collect(),
        stand_ins: vec![
            stand_in(".env", &[]),
            stand_in("secrets/key", &["secrets"]),
            stand_in("secrets/link", &["secrets"]),
        ],
        ..Rules::default()
    });
    std::fs::create_dir(bench.host("secrets")).unwrap();
    for path in [".env", "secrets/key", "secrets/other", "secrets/link"] {
        bench.host_write(path, "the host's");
    }
    (folder, bench)
}

#[test]
fn a_hidden_file_that_git_knows_reads_as_what_git_has_and_cannot_be_changed() {
    let (_folder, bench) = with_stand_ins();
    assert_eq!(bench.list(ROOT, 1).unwrap(), [".env", "secrets"]);
    let secrets = bench.node("secrets").unwrap();
    assert_eq!(bench.list(secrets, 1).unwrap(), ["key", "link"]);
    for name in ["secrets/other", "secrets/nowhere"] {
        assert_eq!(errno(bench.node(name)), libc::ENOENT);
    }
    for path in [".env", "secrets/key"] {
        let node = bench.node(path).unwrap();
        assert_eq!(bench.attr(node).unwrap().size, 9);
        assert_eq!(bench.content(node).unwrap(), "committed");
        assert_eq!(errno(bench.open(node, libc::O_RDWR)), libc::EACCES);
        assert_eq!(
            errno(bench.open(node, libc::O_RDONLY | libc::O_TRUNC)),
            libc::EACCES
        );
        let size = SetattrIn::default();
        assert_eq!(
            errno(bench.setattr(node, SetattrValid::SIZE, size)),
            libc::EACCES
        );
        assert!(bench.share.link(agent(), node, ROOT, c"link").is_err());
        assert_eq!(read_host(bench.host(path)), "the host's");
    }
    assert_eq!(
        errno(bench.share.unlink(agent(), ROOT, c".env")),
        libc::EACCES
    );
    let rename = bench.share.rename(agent(), ROOT, c".env", ROOT, c"x", 0);
    assert_eq!(errno(rename), libc::EACCES);
}

#[test]
fn a_hidden_link_that_git_knows_has_the_text_that_git_has_and_nothing_is_made_beside_it() {
    let (_folder, bench) = with_stand_ins();
    let share = &bench.share;
    let link = bench.node("secrets/link").unwrap();
    assert_eq!(bench.attr(link).unwrap().mode, libc::S_IFLNK | 0o777);
    assert_eq!(share.readlink(agent(), link).unwrap(), b"committed");
    assert_eq!(errno(bench.open(link, libc::O_RDONLY)), libc::ELOOP);
    assert_eq!(
        errno(share.readlink(agent(), bench.node(".env").unwrap())),
        libc::EINVAL
    );

    let secrets = bench.node("secrets").unwrap();
    let (own, handle) = bench.create(ROOT, c"own", 0o644, libc::O_RDWR).unwrap();
    bench.release(own, handle);
    for name in [c"new", c"other", c"key"] {
        let refused = [
            errno(bench.create(secrets, name, 0o644, libc::O_RDWR)),
            errno(share.link(agent(), own, secrets, name)),
            errno(share.rename(agent(), ROOT, c"own", secrets, name, 0)),
            errno(share.rename(agent(), secrets, name, ROOT, c"own", 0)),
            errno(share.unlink(agent(), secrets, name)),
        ];
        assert_eq!(refused, [libc::EACCES; 5], "{name:?}");
        let there = if name == c"key" {
            libc::EEXIST
        } else {
            libc::EACCES
        };
        assert_eq!(errno(bench.mkdir(secrets, name, 0o755)), there);
        let made = share.symlink(agent(), c"x", secrets, name, Extensions::default());
        assert_eq!(errno(made), there);
    }
    for (node, name) in [(secrets, c"secrets"), (link, c"link")] {
        assert_eq!(share.access(agent(), node, 0o4).ok(), Some(()), "{name:?}");
        assert_eq!(errno(share.access(agent(), node, 0o2)), libc::EACCES);
        assert_eq!(
            errno(share.link(agent(), node, ROOT, c"away")),
            libc::EACCES
        );
    }
    assert_eq!(read_host(bench.host("secrets/other")), "the host's");
    assert!(!bench.host("secrets/new").exists());
}
