//! Attack case 76 by a guest that speaks FUSE to the real server: what git on the host would run.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use sbx_testkit::virtio_fs::Which::Requests;
use sbx_testkit::virtio_fs::{ROOT, Request, SetAttr, create, lookup, op};
use sbx_workspace::Rules;
use sbx_workspace::protect::{Level, standard};

use crate::attack_73::meanwhile;
use crate::guest::{Guest, prepared, refused};
use crate::ways::{self, EXCHANGE, READ_WRITE, TRUNCATE, WRITE};

/// A repository with a worktree and a submodule.
const FOLDERS: &[&str] = &[
    ".git/hooks",
    ".git/modules/sub/hooks",
    ".git/worktrees/wt/hooks",
    ".git/worktrees/wt/modules/sub/hooks",
    ".git/remotes",
    ".git/modules/sub/branches",
    "wt",
    "sub",
];
const SETTINGS: &str = "[core]\n\tbare = false\n";
/// Where git on the host looks for settings.
const CONFIGS: &[&str] = &[
    ".git/config",
    ".git/config.worktree",
    ".git/modules/sub/config",
    ".git/worktrees/wt/config",
    ".git/worktrees/wt/config.worktree",
    ".git/worktrees/wt/modules/sub/config",
];

fn rules() -> Rules {
    Rules {
        protect: standard(Level::Standard),
        ..Rules::default()
    }
}

pub(crate) fn guest() -> Guest {
    let folder = prepared();
    let root = folder.path().join("root");
    ways::prepare_own(&root);
    for name in FOLDERS {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    for (file, content) in [
        (".git/hooks/pre-commit", "the host's"),
        (".git/modules/sub/hooks/pre-push", "the host's"),
        (".sbxignore", "*.pem\n"),
        (".git/config", SETTINGS),
        (".git/modules/sub/config", SETTINGS),
    ] {
        fs::write(root.join(file), content).unwrap();
    }
    Guest::guarded(folder, &rules())
}

/// Whether that action on that path was said, as refused.
#[track_caller]
pub(crate) fn assert_said(guest: &Guest, action: &str, path: &str) {
    let said = guest.said();
    let event = (action.to_owned(), path.to_owned(), true);
    assert!(said.contains(&event), "{event:?} is not in {said:?}");
}

#[test]
fn attack_76_nothing_gets_a_name_that_git_runs_in_any_way_also_where_nothing_is_yet() {
    let mut guest = guest();
    // A repository of the guest's own is one of the host's as soon as somebody goes there.
    for folder in ["nested", "nested/.git", "nested/.git/hooks"] {
        guest.make_dir(folder).unwrap();
    }
    let before = guest.picture();
    for path in [
        ".git/hooks/post-merge",
        ".git/modules/sub/hooks/post-checkout",
        ".git/worktrees/wt/hooks/post-checkout",
        ".git/worktrees/wt/modules/sub/hooks/post-checkout",
        ".git/remotes/origin",
        ".git/modules/sub/branches/main",
        "nested/.git/hooks/pre-commit",
    ] {
        for (what, errno) in ways::make(&mut guest, path) {
            assert_eq!(errno, Errno::ACCESS, "{path}: {what}");
        }
        for (what, errno) in ways::make_directory(&mut guest, path) {
            assert_eq!(errno, Errno::ACCESS, "{path}: {what}");
        }
        for action in ["create", "link", "rename"] {
            assert_said(&guest, action, path);
        }
    }
    assert_eq!(guest.picture(), before);
    guest.assert_unharmed("names that git runs");
}

#[test]
fn attack_76_what_git_runs_is_not_changed_removed_or_renamed_in_any_way() {
    let mut guest = guest();
    let before = guest.picture();
    for path in [
        ".git/hooks/pre-commit",
        ".git/modules/sub/hooks/pre-push",
        ".sbxignore",
    ] {
        for (what, errno) in ways::change(&mut guest, path) {
            assert_eq!(errno, Errno::ACCESS, "{path}: {what}");
        }
        for action in ["write", "change", "remove", "rename", "link"] {
            assert_said(&guest, action, path);
        }
    }
    // With all that is in it.
    for folder in [".git", ".git/hooks", ".git/modules/sub"] {
        for flags in [0, EXCHANGE] {
            let moved = guest.rename(folder, "own.d", flags);
            assert_eq!(refused(moved), Errno::ACCESS, "{folder}");
        }
        let back = guest.rename("own.d", folder, EXCHANGE);
        assert_eq!(refused(back), Errno::ACCESS, "{folder}");
    }
    assert_eq!(guest.picture(), before);
    guest.assert_unharmed("what git runs");
}

/// Settings that make git on the host run something, or read settings that do.
const EVIL: &[&str] = &[
    "[core]\n\thooksPath = own.d\n",
    "[core]\n\tfsmonitor = ./own\n",
    "[core]\n\tsshCommand = ./own\n",
    "[core]\n\tpager = ./own\n",
    "[core]\n\teditor = ./own\n",
    "[core]\n\tworktree = ..\n",
    "[filter \"x\"]\n\tclean = ./own\n",
    "[filter \"x\"]\n\tprocess = ./own\n",
    "[diff \"x\"]\n\tcommand = ./own\n",
    "[diff \"x\"]\n\ttextconv = ./own\n",
    "[merge \"x\"]\n\tdriver = ./own\n",
    "[include]\n\tpath = ../own\n",
    "[includeIf \"gitdir:/\"]\n\tpath = ../own\n",
    "[alias]\n\tst = !./own\n",
    "[credential]\n\thelper = !./own\n",
    "[gpg]\n\tprogram = ./own\n",
    "[remote \"o\"]\n\turl = ext::./own\n",
    "[remote \"o\"]\n\turl = ext://./own\n",
    "[remote \"o\"]\n\tpushurl = ./own.d\n",
    "[branch \"main\"]\n\tpushRemote = ./own.d\n",
    "[remote]\n\tpushDefault = ./own.d\n",
    "[remote \"o\"]\n\tuploadpack = ./own\n",
    "[submodule \"x\"]\n\tupdate = !./own\n",
    // Another spelling of the same.
    "[CORE]\n\tFSMonitor = ./own\n",
    "[core]fsmonitor=./own",
    "[core]\n\tfsmonitor = ./o\\\nwn\n",
    "\u{feff}[core]\n\tfsmonitor = ./own\n",
];

#[test]
fn attack_76_settings_that_run_something_take_no_place_by_any_rename() {
    let mut guest = guest();
    let before = guest.picture();
    for path in CONFIGS {
        let lock = format!("{path}.lock");
        for evil in EVIL {
            guest.put(&lock, &format!("{SETTINGS}{evil}")).unwrap();
            assert_eq!(
                refused(guest.rename(&lock, path, 0)),
                Errno::ACCESS,
                "{evil}"
            );
            let exchanged = guest.rename(&lock, path, EXCHANGE);
            let errno = refused(exchanged);
            let fits = [Errno::ACCESS, Errno::INVAL, Errno::NOENT].contains(&errno);
            assert!(fits, "{evil}: {errno}");
            assert_eq!(refused(guest.link(&lock, path)), Errno::ACCESS, "{evil}");
        }
        guest.put(path, SETTINGS).expect_err("written as it is");
        let (parent, name) = guest.place(&lock).unwrap();
        guest.fs.unlink(parent, name).unwrap();
        assert_said(&guest, "configure", path);
    }
    // No other kind of file, and none that is too large to be looked at.
    for own in ["own.l", "own.d"] {
        let taken = guest.rename(own, ".git/config", 0);
        let fits = [Errno::ACCESS, Errno::NOTDIR].contains(&refused(taken));
        assert!(fits, "{own}");
    }
    guest.put("own", &"#".repeat(1 << 20)).unwrap();
    let (node, end) = (guest.node("own").unwrap(), 1 << 20);
    let handle = guest.fs.open(node, READ_WRITE).unwrap();
    guest.fs.write(node, handle, end, b"#").unwrap();
    assert_eq!(
        refused(guest.rename("own", ".git/config", 0)),
        Errno::ACCESS
    );
    guest.put("own", "evil").unwrap();
    assert_eq!(guest.picture(), before);
    guest.assert_unharmed("settings that run something");
}

#[test]
fn attack_76_a_lock_file_that_changes_under_its_rename_brings_nothing_into_gits_settings() {
    let mut guest = guest();
    let good = format!("{SETTINGS}[user]\n\tname = agent\n");
    let evil = format!("{SETTINGS}[core]\n\tfsmonitor = x\n");
    let (lock, config) = (guest.host(".git/config.lock"), guest.host(".git/config"));
    // Somebody else who has the file open: another share of the directory, say.
    let change = || {
        for content in [&good, &evil] {
            if let Ok(file) = fs::File::options().write(true).open(&lock) {
                let _written =
                    std::os::unix::fs::FileExt::write_all_at(&file, content.as_bytes(), 0);
            }
        }
    };
    let (mut taken, mut refusals) = (0, 0);
    meanwhile(change, || {
        let end = Instant::now() + Duration::from_millis(1_500);
        while Instant::now() < end {
            guest.put(".git/config.lock", &good).unwrap();
            let node = guest.node(".git/config.lock").unwrap();
            let handle = guest.fs.open(node, READ_WRITE).unwrap();
            match guest.rename(".git/config.lock", ".git/config", 0) {
                Ok(()) => taken += 1,
                Err(_) => refusals += 1,
            }
            // And the guest itself, which kept it open.
            let _anywhere = guest.fs.write(node, handle, 0, evil.as_bytes());
            guest.fs.release(node, handle).unwrap();
            let there = fs::read_to_string(&config).unwrap();
            assert!(!there.contains("fsmonitor"), "{there}");
        }
    });
    assert!(taken > 0 && refusals > 0, "{taken} and {refusals}");
    assert_said(&guest, "configure", ".git/config");
    guest.assert_unharmed("a lock file that changes");
}

#[test]
fn attack_76_requests_sent_at_once_are_judged_one_after_the_other() {
    let mut guest = guest();
    let before = guest.picture();
    let git = guest.node(".git").unwrap();
    let hooks = guest.node(".git/hooks").unwrap();
    for round in 0..20_u32 {
        // A harmless directory is filled, and put in the place of the hooks, in one go.
        let folder = guest.make_dir("later").unwrap();
        let rename = |from: (u64, &str), to: (u64, &str)| {
            Request::new(op::RENAME2, from.0)
                .u64(to.0)
                .u32(0)
                .u32(0)
                .name(from.1)
                .name(to.1)
        };
        let batch = [
            create(folder, "post-merge", 0o755, READ_WRITE),
            rename((ROOT, "later"), (git, "later")),
            rename((git, "hooks"), (git, "old")),
            rename((git, "later"), (git, "hooks")),
            create(hooks, "post-merge", 0o755, READ_WRITE),
            create(folder, "post-checkout", 0o755, READ_WRITE),
            rename((folder, "post-checkout"), (hooks, "post-checkout")),
            lookup(hooks, "post-merge"),
        ];
        let answers = guest.fs.device().ask_all(Requests, &batch).unwrap();
        let refusals: Vec<i32> = [2, 4, 6].map(|at: usize| answers[at].error).to_vec();
        assert_eq!(refusals, [libc::EACCES; 3], "round {round}");
        for name in ["post-merge", "post-checkout"] {
            guest.fs.unlink(folder, name).unwrap();
        }
        guest.fs.rmdir(git, "later").unwrap();
    }
    assert_eq!(guest.picture(), before);
    guest.assert_unharmed("requests sent at once");
}

#[test]
fn attack_76_numbers_that_mean_something_else_lead_to_no_protected_name() {
    let mut guest = guest();
    let before = guest.picture();
    let hook = guest.node(".git/hooks/pre-commit").unwrap();
    let config = guest.node(".git/config").unwrap();
    let hooks = guest.node(".git/hooks").unwrap();
    let link = guest.node("own.l").unwrap();
    // Files and links used as directories.
    for file in [hook, config, link] {
        for name in ["post-merge", "config", ".git"] {
            assert!(guest.fs.lookup(file, name).is_err());
            assert_eq!(refused(guest.fs.mkdir(file, name, 0o755)), Errno::NOTDIR);
            let made = guest.fs.create(file, name, 0o755, READ_WRITE);
            assert_eq!(refused(made), Errno::NOTDIR);
            let own = (ROOT, b"own".as_slice());
            let moved = guest.fs.rename2(own, (file, name.as_bytes()), 0);
            assert_eq!(refused(moved), Errno::NOTDIR);
        }
    }
    // One that the guest has forgotten, and those that it never had.
    guest.fs.forget(hooks, 1000).unwrap();
    for node in [hooks, 0, u64::MAX, u64::MAX - 1, 1 << 40] {
        let made = guest.fs.create(node, "post-merge", 0o755, READ_WRITE);
        assert_eq!(refused(made), Errno::STALE, "{node}");
    }
    let changed = guest.put(".git/config", EVIL[0]);
    assert_eq!(refused(changed), Errno::ACCESS);
    // A mark stays although the guest says that it is not on it any more.
    for (what, errno) in ways::change(&mut guest, ".git/hooks/pre-commit") {
        assert_eq!(errno, Errno::ACCESS, "{what}");
    }
    // A new mount knows nothing of the old one, and the rules hold.
    guest.fs.init().unwrap();
    for (what, errno) in ways::make(&mut guest, ".git/hooks/post-merge") {
        assert_eq!(errno, Errno::ACCESS, "{what}");
    }
    assert_eq!(guest.picture(), before);
    guest.assert_unharmed("numbers that mean something else");
}

#[test]
fn attack_76_a_repository_that_another_folder_becomes_brings_no_hook_along() {
    let mut guest = guest();
    for folder in ["new", "new/hooks", "proj"] {
        guest.make_dir(folder).unwrap();
    }
    let hooks = guest.node("new/hooks").unwrap();
    guest.put("new/hooks/post-merge", "evil").unwrap();
    for name in ["proj/.git", ".git/modules/new", ".git/worktrees/new"] {
        assert_eq!(
            refused(guest.rename("new", name, 0)),
            Errno::ACCESS,
            "{name}"
        );
        assert!(!guest.host(name).exists());
    }
    guest.fs.unlink(hooks, "post-merge").unwrap();
    // Empty it may go, and what was open before is a hooks directory from then on.
    let open = guest.fs.opendir(hooks).unwrap();
    guest.rename("new", "proj/.git", 0).unwrap();
    let made = guest.fs.create(hooks, "post-merge", 0o755, READ_WRITE);
    assert_eq!(refused(made), Errno::ACCESS);
    guest.fs.releasedir(hooks, open).unwrap();
    for (what, errno) in ways::make(&mut guest, "proj/.git/hooks/post-merge") {
        assert_eq!(errno, Errno::ACCESS, "{what}");
    }
    // Nor is it by another name of a directory above.
    guest.rename("proj", "project", 0).unwrap();
    let made = guest.fs.create(hooks, "post-merge", 0o755, READ_WRITE);
    assert_eq!(refused(made), Errno::ACCESS);
    assert!(is_empty(&guest.host("project/.git/hooks")));
    guest.assert_unharmed("a folder that becomes a repository");
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn attack_76_a_file_below_a_directory_that_the_guest_has_forgotten_is_not_changed() {
    for above in [".git/modules", ".git"] {
        for flags in [WRITE, READ_WRITE, READ_WRITE | TRUNCATE] {
            let mut guest = guest();
            for folder in ["q", "q/d"] {
                guest.make_dir(folder).unwrap();
            }
            let forgotten = guest.node(above).unwrap();
            let settings = guest.node(".git/modules/sub/config").unwrap();
            // What was found out of names does not count any more from here on.
            guest.rename("q/d", "q/.git", 0).unwrap();
            guest.fs.forget(forgotten, 1000).unwrap();
            let opened = guest.fs.open(settings, flags);
            assert_eq!(refused(opened), Errno::STALE, "{above} {flags}");
            let mode = SetAttr {
                mode: Some(0o755),
                ..SetAttr::default()
            };
            let changed = guest.fs.setattr(settings, &mode);
            assert_eq!(refused(changed), Errno::STALE, "{above}");
            let now = fs::read_to_string(guest.host(".git/modules/sub/config"));
            assert_eq!(now.unwrap(), SETTINGS);
            guest.assert_unharmed("a forgotten directory");
        }
    }
}

#[test]
fn attack_76_what_says_where_something_is_does_not_move_about_in_a_git_directory() {
    for (name, content) in [
        (".git", "gitdir: ../../../sub\n"),
        ("commondir", "../../../sub\n"),
        ("config", "[core]\n\tworktree = ../../../../../sub\n"),
    ] {
        let mut guest = guest();
        for folder in ["a", "a/b", "a/b/c"] {
            guest.make_dir(&format!(".git/modules/{folder}")).unwrap();
        }
        let moved = ".git/modules/a/b/c";
        let file = format!("{moved}/{name}");
        if name == "config" {
            guest.put(&format!("{file}.lock"), content).unwrap();
            guest.rename(&format!("{file}.lock"), &file, 0).unwrap();
        } else {
            guest.put(&file, content).unwrap();
        }
        // With it, and with what holds it; out of the git directory as well.
        for (from, to) in [
            (moved, ".git/modules/c"),
            (moved, "c"),
            (".git/modules/a/b", ".git/modules/b"),
            (".git/modules/a", "a"),
        ] {
            let refusal = refused(guest.rename(from, to, 0));
            assert_eq!(refusal, Errno::ACCESS, "{name}: {from} to {to}");
        }
        // Where it means the same, and without it.
        guest.rename(moved, ".git/modules/a/b/d", 0).unwrap();
        let holds = guest.node(".git/modules/a/b/d").unwrap();
        guest.fs.unlink(holds, name).unwrap();
        guest
            .rename(".git/modules/a/b/d", ".git/modules/d", 0)
            .unwrap();
    }
}
