//! What git on the host runs lies in places that are protected: each test asks git itself.

mod guests;
mod stay;

use super::bounds::MAX_PLACES;
use super::*;
use sbx_workspace::{Level, PatternSet, What};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

/// A folder with a program in it that leaves a mark, and a home with no settings.
struct Bench {
    folder: tempfile::TempDir,
    root: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("home")).unwrap();
        Self { folder, root }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    fn write(&self, below: &str, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// As the user of the host, whose home is in the folder.
    fn git(&self, below: &str, arguments: &[&str]) {
        let output = Command::new("git")
            .env("HOME", self.path("home"))
            .env_remove("XDG_CONFIG_HOME")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .args(["-c", "user.name=t", "-c", "user.email=t@t.example"])
            .args(["-c", "protocol.file.allow=always", "-C"])
            .arg(self.path(below))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    fn repository(&self, below: &str) {
        fs::create_dir_all(self.path(below)).unwrap();
        self.git(below, &["init", "-q", "-b", "main"]);
        self.git(below, &["commit", "-q", "--allow-empty", "-m", "first"]);
    }

    fn find(&self, workspace: &str) -> Result<Found, Report> {
        let home = self.path("home");
        let settings = vec![home.join(".gitconfig")];
        let home = Some(home);
        find(&self.path(workspace), &User { home, settings }, Mode::Block)
    }

    /// What the rules of a workspace say of writing a file in it.
    fn verdict(&self, workspace: &str, path: &str) -> Option<What> {
        let found = self.find(workspace).unwrap();
        assert_eq!(found.notices, Vec::<String>::new());
        verdict(found, path)
    }

    /// Git on the host runs the program at this place when it is there; so the rules must protect it.
    fn runs(&self, place: &str, below: &str, command: &[&str], workspace: &str) {
        let mark = self.path("mark");
        let path = self.path(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let before = fs::read(&path).ok();
        fs::write(&path, format!("#!/bin/sh\ntouch {}\n", mark.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.git(below, command);
        assert!(mark.exists(), "git does not run {place}");
        fs::remove_file(mark).unwrap();
        match before {
            Some(before) => fs::write(&path, before).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let inside = place.strip_prefix(workspace).unwrap();
        let verdict = self.verdict(workspace, inside.trim_start_matches('/'));
        assert_eq!(verdict, Some(What::Everything), "{place}");
    }
}

/// What these rules say of writing a file.
fn verdict(found: Found, path: &str) -> Option<What> {
    let mut list = protect::standard(Level::Standard);
    list.extend(found.protections);
    let set = PatternSet::new(list.iter().map(|entry| entry.pattern.clone()));
    let names: Vec<&[u8]> = path.split('/').map(str::as_bytes).collect();
    let blocks = |end: usize| {
        let directory = end < names.len();
        let step = set.walk(names[..end].iter().copied(), directory);
        let entry = &list[usize::from(step.matched()?)];
        let counts = !directory || entry.what == What::Everything;
        (counts && entry.mode == Mode::Block).then_some(entry.what)
    };
    (1..=names.len()).find_map(blocks)
}

const COMMIT: &[&str] = &["commit", "-q", "--allow-empty", "-m", "more"];

#[test]
fn a_file_that_settings_include_is_one_of_gits_own() {
    let bench = Bench::new();
    bench.repository("w");
    bench.git("w", &["config", "include.path", "../.gitconfig"]);
    let when = "includeIf.onbranch:other.path";
    bench.git("w", &["config", when, "../conf/deep"]);
    bench.write("w/.gitconfig", "[include]\n\tpath = second\n");
    let mark = bench.path("mark");
    let program = format!("[core]\n\tfsmonitor = \"touch {} #\"\n", mark.display());
    for place in ["second", ".gitconfig", "conf/deep"] {
        assert_eq!(
            bench.verdict("w", place),
            Some(What::GitConfig),
            "{place}, which may not be there yet"
        );
    }
    bench.write("w/second", &program);
    bench.git("w", &["status"]);
    assert!(mark.exists(), "git believes what is included");
    assert_eq!(bench.verdict("w", "other"), None);
}

#[test]
fn directories_of_hooks_are_found_through_includes_links_and_the_users_own_settings() {
    let bench = Bench::new();
    bench.repository("w");
    bench.write("w/.gitconfig", "[core]\n\thooksPath = tools/hooks\n");
    bench.git("w", &["config", "include.path", "../.gitconfig"]);
    bench.runs("w/tools/hooks/pre-commit", "w", COMMIT, "w");
    // Where a link leads to, and each name on the way.
    fs::remove_dir_all(bench.path("w/tools")).unwrap();
    fs::create_dir_all(bench.path("w/real/hooks")).unwrap();
    symlink("mid", bench.path("w/tools")).unwrap();
    symlink(bench.path("w/real"), bench.path("w/mid")).unwrap();
    bench.runs("w/real/hooks/pre-commit", "w", COMMIT, "w");
    for place in ["tools/hooks/x", "mid/hooks/x"] {
        assert_eq!(bench.verdict("w", place), Some(What::Everything), "{place}");
    }

    bench.write("home/.gitconfig", "[core]\n\thooksPath = .githooks\n");
    bench.repository("v");
    bench.runs("v/.githooks/pre-commit", "v", COMMIT, "v");
    // In a repository that is made later, too.
    assert!(bench.verdict("v", "later/.githooks/pre-commit").is_some());

    let absolute = format!("[core]\n\thooksPath = {}\n", bench.path("v/abs").display());
    bench.write("home/.gitconfig", &absolute);
    bench.runs("v/abs/pre-commit", "v", COMMIT, "v");
    bench.write("home/.gitconfig", "[core]\n\thooksPath = ~/../v/tilde\n");
    bench.runs("v/tilde/pre-commit", "v", COMMIT, "v");
}

#[test]
fn the_users_own_settings_in_a_workspace_are_protected() {
    let bench = Bench::new();
    bench.repository("dotfiles");
    bench.write("dotfiles/gitconfig", "[include]\n\tpath = more\n");
    symlink("../dotfiles/gitconfig", bench.path("home/.gitconfig")).unwrap();
    for place in ["gitconfig", "more"] {
        let verdict = bench.verdict("dotfiles", place);
        assert_eq!(verdict, Some(What::GitConfig), "{place}");
    }
}

#[test]
fn a_linked_worktree_has_the_hooks_of_its_repository() {
    let bench = Bench::new();
    bench.repository("main");
    bench.git("main", &["worktree", "add", "-q", "../w"]);
    bench.git("main", &["config", "core.hooksPath", ".githooks"]);
    bench.runs("w/.githooks/pre-commit", "w", COMMIT, "w");
    bench.git("main", &["config", "--unset", "core.hooksPath"]);
    bench.git("main", &["config", "extensions.worktreeConfig", "true"]);
    let own = ["config", "--worktree", "core.hooksPath", "own"];
    bench.git("w", &own);
    bench.runs("w/own/pre-commit", "w", COMMIT, "w");
    // As its repository's workspace has it, which may make such worktrees anywhere.
    assert!(bench.verdict("main", "tree/own/pre-commit").is_some());
}

#[test]
fn repositories_below_and_above_and_submodules_count() {
    let bench = Bench::new();
    bench.repository("lib");
    bench.repository("w");
    bench.repository("w/a/b/nested");
    bench.git("w/a/b/nested", &["config", "core.hooksPath", "hk"]);
    bench.runs("w/a/b/nested/hk/pre-commit", "w/a/b/nested", COMMIT, "w");
    bench.git(
        "w",
        &["submodule", "--quiet", "add", "../lib", "vendor/lib"],
    );
    bench.git("w/vendor/lib", &["config", "core.hooksPath", "sub"]);
    bench.runs("w/vendor/lib/sub/pre-commit", "w/vendor/lib", COMMIT, "w");
    // A workspace may be a part of a repository.
    bench.git("w", &["config", "core.hooksPath", "a/hooks"]);
    bench.runs("w/a/hooks/pre-commit", "w", COMMIT, "w/a");
}

#[test]
fn a_git_directory_of_another_name_and_what_its_hooks_lead_to_are_protected() {
    let bench = Bench::new();
    bench.repository("w");
    fs::rename(bench.path("w/.git"), bench.path("w/.bare")).unwrap();
    bench.write("w/.git", "gitdir: ./.bare\n");
    bench.runs("w/.bare/hooks/pre-commit", "w", COMMIT, "w");
    assert_eq!(bench.verdict("w", ".bare/config"), Some(What::GitConfig));
    assert_eq!(bench.verdict("w", ".bare/index"), None);

    bench.write("w/scripts/check", "");
    let hook = bench.path("w/.bare/hooks/post-commit");
    symlink("../../scripts/check", hook).unwrap();
    bench.runs("w/scripts/check", "w", COMMIT, "w");
    assert_eq!(bench.verdict("w", "scripts/other"), None);
    // The directory itself as a workspace.
    assert_eq!(bench.verdict("w/.bare", "config"), Some(What::GitConfig));
    assert!(bench.verdict("w/.bare", "hooks/pre-commit").is_some());
}

#[test]
fn what_cannot_be_followed_is_said_and_hooks_in_the_root_are_refused() {
    let bench = Bench::new();
    bench.repository("w");
    bench.git("w", &["config", "include.path", "~nobody/x"]);
    let notices = bench.find("w").unwrap().notices;
    assert!(notices[0].contains("where ~nobody/x is"), "{notices:?}");
    fs::write(
        bench.path("w/.git/config"),
        "[include]\n\tpath = config\n[broken",
    )
    .unwrap();
    let notices = bench.find("w").unwrap().notices;
    assert!(notices[0].contains("line "), "{notices:?}");
    for place in [".", "..", "/"] {
        let config = format!("[core]\n\thooksPath = {place}\n");
        fs::write(bench.path("w/.git/config"), config).unwrap();
        let found = bench.find("w").map(|found| found.protections.len());
        match place {
            "/" => assert_eq!(found, Ok(0)),
            _ => assert_eq!(found.unwrap_err().code, "git-hooks-everywhere", "{place}"),
        }
    }
    drop(bench.folder);
}

#[test]
fn includes_that_include_themselves_end_and_so_do_long_chains() {
    let bench = Bench::new();
    bench.repository("w");
    bench.git("w", &["config", "include.path", "../0"]);
    for number in 0..20 {
        let text = format!("[include]\n\tpath = {}\n\tpath = {number}\n", number + 1);
        bench.write(&format!("w/{number}"), &text);
    }
    let found = bench.find("w").unwrap();
    assert_eq!(found.protections.len(), 10, "{:?}", found.protections);
    assert!(found.notices[0].contains("too deep"), "{:?}", found.notices);
}

#[test]
fn more_places_than_possible_refuse_the_start() {
    let bench = Bench::new();
    bench.repository("w");
    let includes: String = (0..=MAX_PLACES)
        .map(|number| format!("[include]\n\tpath = ../{number}\n"))
        .collect();
    fs::write(bench.path("w/.git/config"), &includes).unwrap();
    let refused = bench.find("w").unwrap_err();
    assert_eq!(refused.code, "git-places-too-many");
    assert!(
        refused
            .hint
            .is_some_and(|hint| hint.contains("remove what"))
    );
    // Of a repository below the root it is said, and hides nothing of the root's.
    fs::write(bench.path("w/.git/config"), "[include]\n\tpath = ../own\n").unwrap();
    for below in ["a", "b"] {
        let most = includes.len() / 4 * 3;
        let most = includes[..most].rfind('[').unwrap();
        bench.write(&format!("w/{below}/.git/config"), &includes[..most]);
    }
    let found = bench.find("w").unwrap();
    assert!(found.notices[0].contains("places"), "{:?}", found.notices);
    assert_eq!(found.protections[0].pattern.to_string(), "/own");
}
