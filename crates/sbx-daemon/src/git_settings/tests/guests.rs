//! What a guest may have made in an earlier run hides nothing of the host's, and leads nowhere.

use super::super::bounds::{MAX_NESTED_PLACES, MAX_NOTICES};
use super::super::reading::MAX_VALUES;
use super::*;

impl Bench {
    /// A directory that looks like one of git's, with these settings.
    fn bare(&self, below: &str, settings: &str) {
        for directory in ["objects", "refs"] {
            fs::create_dir_all(self.path(below).join(directory)).unwrap();
        }
        self.write(&format!("{below}/HEAD"), "ref: refs/heads/main\n");
        self.write(&format!("{below}/config"), settings);
    }

    /// As a user without the rights of root finds it.
    fn find_as_user(&self, workspace: &str) -> Result<Found, Report> {
        let run = || {
            let none = rustix::thread::CapabilitySet::empty();
            let sets = rustix::thread::CapabilitySets {
                effective: none,
                permitted: none,
                inheritable: none,
            };
            rustix::thread::set_capabilities(None, sets).unwrap();
            self.find(workspace)
        };
        std::thread::scope(|scope| scope.spawn(run).join().unwrap())
    }

    fn chmod(&self, below: &str, mode: u32) {
        fs::set_permissions(self.path(below), fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn many_repositories_and_values_below_the_root_hide_nothing_of_the_roots_and_the_users() {
    let bench = Bench::new();
    bench.repository("w");
    bench.git("w", &["config", "include.path", "../.gitconfig"]);
    bench.write("w/.gitconfig", "[include]\n\tpath = second\n");
    bench.write("home/.gitconfig", "[core]\n\thooksPath = .githooks\n");
    let values: String = (0..=MAX_VALUES)
        .map(|number| format!("[include]\n\tpath = ~{number}\n\tpath = /x/{number}\n"))
        .collect();
    for number in 0..40 {
        bench.write(&format!("w/{number}/.git/config"), &values);
    }
    let found = bench.find("w").unwrap();
    let places = found.protections.iter().map(|one| one.pattern.to_string());
    let places: BTreeSet<String> = places.collect();
    for place in ["/.gitconfig", "/second", "**/.githooks/"] {
        assert!(places.contains(place), "{place}: {places:?}");
    }
    let notices = found.notices;
    assert_eq!(notices.len(), MAX_NOTICES + 1, "{notices:?}");
    let last = notices.last().unwrap();
    assert!(last.contains("more things"), "{last}");
}

#[test]
fn of_one_file_below_the_root_so_many_values_are_followed() {
    let bench = Bench::new();
    bench.repository("w");
    let values: String = (0..=MAX_VALUES)
        .map(|number| format!("[include]\n\tpath = /x/{number}\n"))
        .collect();
    bench.write("w/a/.git/config", &values);
    let notices = bench.find("w").unwrap().notices;
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].contains("more than 256"), "{notices:?}");
}

#[test]
fn of_all_files_below_the_root_so_many_bytes_are_followed() {
    let bench = Bench::new();
    bench.repository("w");
    let large = format!("#{}\n", "x".repeat(git_config::MAX_BYTES - 2));
    for number in 0..17 {
        bench.write(&format!("w/{number}/.git/config"), &large);
    }
    let notices = bench.find("w").unwrap().notices;
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].contains("bytes of settings"), "{notices:?}");
}

#[test]
fn what_is_named_as_hooks_and_as_settings_is_followed_as_both() {
    for hooks_first in [true, false] {
        let bench = Bench::new();
        bench.repository("w");
        let place = bench.path("w/x").display().to_string();
        let hooks = format!("[core]\n\thooksPath = {place}\n");
        let include = format!("[include]\n\tpath = {place}\n");
        let text = if hooks_first {
            hooks + &include
        } else {
            include + &hooks
        };
        bench.write("w/.git/config", &text);
        bench.write("w/x", "[include]\n\tpath = second\n");
        assert_eq!(
            bench.verdict("w", "second"),
            Some(What::GitConfig),
            "{text}"
        );
        assert_eq!(
            bench.verdict("w", "x/pre-commit"),
            Some(What::Everything),
            "{text}"
        );
    }
}

#[test]
fn what_its_owner_cannot_read_refuses_the_start_and_what_is_anothers_is_said_once() {
    let bench = Bench::new();
    bench.repository("w");
    bench.git("w", &["config", "include.path", "../.gitconfig"]);
    symlink("../../check", bench.path("w/.git/hooks/x")).unwrap();
    bench.write("w/sub/deep/x", "");
    for name in ["modules", "worktrees/x"] {
        fs::create_dir_all(bench.path("w/.git").join(name)).unwrap();
    }
    let readable = bench.find_as_user("w").unwrap();
    assert!(readable.notices.is_empty());
    let places = [
        (".git/hooks", 0o000),
        (".git/hooks", 0o400),
        (".git/hooks", 0o100),
        (".git/modules", 0o000),
        (".git/worktrees", 0o000),
        (".git/worktrees/x", 0o000),
        (".git", 0o000),
        (".git/config", 0o000),
        ("sub", 0o000),
        ("sub", 0o400),
    ];
    for (place, mode) in places {
        let place = format!("w/{place}");
        let before = fs::metadata(bench.path(&place)).unwrap().permissions();
        bench.chmod(&place, mode);
        let found = bench.find_as_user("w").map(|found| found.notices);
        fs::set_permissions(bench.path(&place), before).unwrap();
        let refused = found.expect_err(&format!("{place} {mode:o}"));
        assert_eq!(refused.code, "workspace-unreadable");
        let hint = refused.hint.unwrap();
        let shown = bench.path(&place).display().to_string();
        assert!(
            hint.starts_with("chmod u+rw") && hint.ends_with(&format!("'{shown}'")),
            "{hint}"
        );
    }
    // Only root can give files away.
    let other = |below: &str| {
        fs::create_dir_all(bench.path(below)).unwrap();
        bench.chmod(below, 0o700);
        std::os::unix::fs::chown(bench.path(below), Some(12345), Some(12345))
    };
    if other("w/data").is_ok() && other("w/more").is_ok() {
        let found = bench.find_as_user("w").unwrap();
        assert_eq!(found.notices.len(), 1, "{:?}", found.notices);
        assert!(found.notices[0].contains("cannot be read"));
        assert_eq!(found.protections, readable.protections);
    }
}

#[test]
fn what_only_looks_like_one_of_gits_is_protected_and_its_settings_lead_nowhere() {
    let bench = Bench::new();
    bench.repository("w");
    bench.repository("other");
    let secret = bench.path("w/victim").display().to_string();
    bench.git("other", &["config", "include.path", &secret]);
    for value in [".", "src", "a\\tb"] {
        bench.bare("w/x", &format!("[core]\n\thooksPath = {value}\n"));
        let found = bench.find("w").unwrap();
        assert!(
            found.notices[0].contains("looks like"),
            "{:?}",
            found.notices
        );
        assert_eq!(found.notices.len(), 1);
        assert_eq!(verdict(found, "src/main.rs"), None, "{value}");
    }
    let theirs = bench.path("other/.git");
    for name in ["modules", "worktrees"] {
        symlink(&theirs, bench.path("w/x").join(name)).unwrap();
    }
    symlink(bench.path("other"), bench.path("w/.git/modules")).unwrap();
    bench.write("w/x/commondir", &format!("{}\n", theirs.display()));
    bench.write("w/x/config", "");
    assert_eq!(bench.verdict("w", "victim"), None);
    assert_eq!(bench.verdict("w", "x/config"), Some(What::GitConfig));
    assert_eq!(
        bench.verdict("w", "x/hooks/pre-commit"),
        Some(What::Everything)
    );
    // Of a repository that says so itself they do.
    bench.write("w/y/.git", "gitdir: ../x\n");
    assert_eq!(bench.verdict("w", "victim"), Some(What::GitConfig));
}

#[test]
fn a_name_that_cannot_be_protected_is_said_and_refuses_no_start() {
    let bench = Bench::new();
    bench.repository("w");
    let deep = vec!["d"; 70].join("/");
    for directory in ["a\tb", &deep] {
        bench.bare(&format!("w/{directory}"), "");
        let found = bench.find("w").unwrap();
        assert_eq!(found.notices.len(), 1, "{:?}", found.notices);
        bench.repository(&format!("w/{directory}/r"));
        let settings = format!("w/{directory}/r/.git/config");
        bench.write(&settings, "[include]\n\tpath = ../x\n");
        assert!(bench.find("w").unwrap().notices.len() > 1);
        let first = directory.split('/').next().unwrap();
        fs::remove_dir_all(bench.path("w").join(first)).unwrap();
    }
    assert!(bench.find("w").unwrap().notices.is_empty());
}

#[test]
fn hundreds_of_bare_repositories_start_and_are_protected() {
    let bench = Bench::new();
    bench.repository("w");
    for number in 0..300 {
        bench.bare(&format!("w/tests/u{number}/repo{number}.git"), "");
        if number % 2 == 0 {
            bench.bare(&format!("w/data/{number}/.gitted"), "");
        }
    }
    for number in 0..10 {
        bench.bare(&format!("w/other/{number}"), "");
    }
    for place in ["tests/u7/repo7.git", "data/8/.gitted", "other/9"] {
        let verdict = |name: &str| bench.verdict("w", &format!("{place}/{name}"));
        assert_eq!(verdict("config"), Some(What::GitConfig), "{place}");
        assert_eq!(verdict("hooks/update"), Some(What::Everything), "{place}");
    }
    assert_eq!(bench.verdict("w", "src/hooks/use"), None);
    for number in 10..40 {
        bench.bare(&format!("w/other/{number}"), "");
    }
    let found = bench.find("w").unwrap();
    assert!(found.protections.len() <= MAX_NESTED_PLACES);
    assert_eq!(found.notices.len(), 1, "{:?}", found.notices);
    assert!(
        found.notices[0].contains("320 places"),
        "{:?}",
        found.notices
    );
}
