//! What is hidden reads as absent, and is never overwritten.

use crate::support::{Bench, ROOT, agent, errno, read_host};
use sbx_workspace::{Pattern, Rules};
use std::ffi::CStr;
use virtiofsd::filesystem::{Extensions, FileSystem as _};

fn bench(patterns: &[&str]) -> Bench {
    let patterns = patterns.iter().map(|text| Pattern::parse(text).unwrap());
    let bench = Bench::guarded(Rules {
        hide: patterns.collect(),
        ..Rules::default()
    });
    std::fs::create_dir_all(bench.host("app/secrets")).unwrap();
    for file in [
        ".env",
        "app/.env",
        "app/key.pem",
        "app/main.rs",
        "app/secrets/token",
    ] {
        bench.host_write(file, "the host's");
    }
    bench
}

const PATTERNS: &[&str] = &[".env", "*.pem", "secrets/"];

#[test]
fn hidden_names_are_absent_from_look_ups_and_listings() {
    let bench = bench(PATTERNS);
    for path in [".env", "app/.env", "app/key.pem", "app/secrets"] {
        assert_eq!(errno(bench.node(path)), libc::ENOENT, "{path}");
    }
    let app = bench.node("app").unwrap();
    for step in [1, 100] {
        assert_eq!(bench.list(app, step).unwrap(), ["main.rs"]);
        assert_eq!(bench.list(ROOT, step).unwrap(), ["app"]);
    }
    // Later ones as well.
    bench.host_write("app/new.pem", "");
    assert_eq!(bench.list(app, 100).unwrap(), ["main.rs"]);
}

#[test]
fn a_directory_of_hidden_files_lists_to_its_end() {
    let bench = bench(&["secret-*"]);
    for number in 0..2000 {
        bench.host_write(&format!("secret-with-a-long-name-{number:05}"), "");
    }
    bench.host_write("zz-last", "");
    assert_eq!(bench.list(ROOT, 100).unwrap(), [".env", "app", "zz-last"]);
}

#[test]
fn nothing_is_put_under_a_hidden_name_and_nothing_overwritten() {
    let bench = bench(PATTERNS);
    let app = bench.node("app").unwrap();
    let (node, handle) = bench.create(ROOT, c"mine", 0o644, libc::O_RDWR).unwrap();
    bench.release(node, handle);
    let share = &bench.share;
    for name in [c".env", c"new.pem"] {
        assert_eq!(
            errno(bench.create(app, name, 0o644, libc::O_RDWR)),
            libc::EACCES
        );
        assert_eq!(errno(bench.mkdir(app, name, 0o755)), libc::EACCES);
        let link = share.symlink(agent(), c"x", app, name, Extensions::default());
        assert_eq!(errno(link), libc::EACCES);
        assert_eq!(errno(share.link(agent(), node, app, name)), libc::EACCES);
        assert_eq!(
            errno(share.rename(agent(), ROOT, c"mine", app, name, 0)),
            libc::EACCES
        );
    }
    assert_eq!(errno(share.unlink(agent(), app, c".env")), libc::ENOENT);
    assert_eq!(
        errno(share.rename(agent(), app, c".env", ROOT, c"x", 0)),
        libc::ENOENT
    );
    let exchange = share.rename(agent(), ROOT, c"mine", app, c".env", libc::RENAME_EXCHANGE);
    assert_eq!(errno(exchange), libc::EACCES);
    assert_eq!(read_host(bench.host("app/.env")), "the host's");
    assert!(!bench.said().is_empty());
}

#[test]
fn a_directory_only_pattern_leaves_files_alone() {
    let bench = bench(PATTERNS);
    let (node, handle) = bench.create(ROOT, c"secrets", 0o644, libc::O_RDWR).unwrap();
    bench.release(node, handle);
    assert_eq!(bench.node("secrets").unwrap(), node);
    assert_eq!(
        errno(bench.mkdir(bench.node("app").unwrap(), c"secrets", 0o755)),
        libc::EACCES
    );
}

#[test]
fn moving_a_directory_shows_nothing_that_was_hidden_in_it() {
    let bench = bench(&["/app/key.pem"]);
    let share = &bench.share;
    let rename = |from: &CStr, to: &CStr| share.rename(agent(), ROOT, from, ROOT, to, 0);
    assert_eq!(errno(rename(c"app", c"moved")), libc::EACCES);
    std::fs::remove_file(bench.host("app/key.pem")).unwrap();
    rename(c"app", c"moved").unwrap();
    let moved = bench.node("moved").unwrap();
    let (node, handle) = bench
        .create(moved, c"key.pem", 0o644, libc::O_RDWR)
        .unwrap();
    bench.release(node, handle);
    // Back would hide the guest's own file: refused as well, so that nothing is lost from sight.
    assert_eq!(errno(rename(c"moved", c"app")), libc::EACCES);
}

#[test]
fn a_directory_with_hidden_files_is_not_removed() {
    let bench = bench(&["*.pem"]);
    std::fs::create_dir(bench.host("keys")).unwrap();
    bench.host_write("keys/a.pem", "the host's");
    assert_eq!(
        bench.list(bench.node("keys").unwrap(), 10).unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(
        errno(bench.share.rmdir(agent(), ROOT, c"keys")),
        libc::ENOTEMPTY
    );
    assert_eq!(read_host(bench.host("keys/a.pem")), "the host's");
}

#[test]
fn an_exception_stays_visible() {
    let bench = bench(&[".env*", "!.env.example"]);
    bench.host_write(".env.example", "for all");
    bench.host_write(".env.local", "");
    assert_eq!(bench.list(ROOT, 10).unwrap(), [".env.example", "app"]);
}

#[test]
fn a_file_that_is_shared_alone_is_whatever_has_its_name() {
    let bench = Bench::guarded(Rules {
        only: Some("one[1].txt".to_owned()),
        ..Rules::default()
    });
    bench.host_write("one[1].txt", "first");
    bench.host_write("one1.txt", "other");
    assert_eq!(bench.list(ROOT, 10).unwrap(), ["one[1].txt"]);
    assert_eq!(errno(bench.node("one1.txt")), libc::ENOENT);
    let node = bench.node("one[1].txt").unwrap();
    assert_eq!(bench.content(node).unwrap(), "first");
    // As editors save.
    bench.host_write("new", "second");
    std::fs::rename(bench.host("new"), bench.host("one[1].txt")).unwrap();
    assert_eq!(bench.content(node).unwrap(), "second");
    // It may be away for a moment.
    std::fs::remove_file(bench.host("one[1].txt")).unwrap();
    assert_eq!(errno(bench.attr(node)), libc::ESTALE);
}
