//! The list.

use sbx_workspace::protect::{Level, broken, hooks_directory, standard};
use sbx_workspace::{Mode, PatternSet, What};
use std::path::Path;

fn verdict(level: Level, path: &str) -> Option<(Mode, What)> {
    let list = standard(level);
    let set = PatternSet::new(list.iter().map(|entry| entry.pattern.clone()));
    let directory = path.ends_with('/');
    let names = path.trim_end_matches('/').split('/').map(str::as_bytes);
    let number = set.walk(names, directory).matched()?;
    let entry = &list[usize::from(number)];
    Some((entry.mode, entry.what))
}

#[test]
fn every_entry_is_a_pattern() {
    assert_eq!(broken().count(), 0);
}

#[test]
fn gits_own_files_are_blocked_and_the_others_reported() {
    let block = |what| Some((Mode::Block, what));
    let report = |what| Some((Mode::Report, what));
    for (path, expected) in [
        (".git/hooks/pre-commit", block(What::Everything)),
        (".git/hooks/pre-commit.sample", None),
        ("deep/er/.git/hooks/post-merge", block(What::Everything)),
        (".git/modules/a/b/hooks/pre-push", block(What::Everything)),
        (".git/config", block(What::GitConfig)),
        (".git/config.lock", None),
        (".git/modules/a/config", block(What::GitConfig)),
        (".git/worktrees/w/commondir", block(What::GitLink)),
        (".git/worktrees/w/config", block(What::GitConfig)),
        (".git/worktrees/w/hooks/pre-commit", block(What::Everything)),
        (".git/HEAD", None),
        ("sub/.git", block(What::GitLink)),
        (".sbxignore", block(What::Everything)),
        (".gitmodules", report(What::GitModules)),
        (".github/workflows/", report(What::Everything)),
        (".vscode/", report(What::Everything)),
        (".envrc", report(What::Everything)),
        ("AGENTS.md", report(What::Everything)),
        ("src/main.rs", None),
    ] {
        assert_eq!(verdict(Level::Standard, path), expected, "{path}");
    }
    assert_eq!(verdict(Level::Off, ".git/config"), None);
    let reported = verdict(Level::Report, ".git/config");
    assert_eq!(reported, report(What::GitConfig));
    assert_eq!(verdict(Level::Block, ".envrc"), block(What::Everything));
}

#[test]
fn a_level_is_written_as_it_is_read() {
    for level in Level::ALL {
        assert_eq!(level.to_string().parse(), Ok(level));
    }
    let error = "loud".parse::<Level>().unwrap_err().to_string();
    assert!(error.contains("off, report, standard, block"), "{error}");
}

#[test]
fn the_directory_that_git_is_told_to_take_hooks_from_is_protected() {
    let found = |config: &str| {
        let entry = hooks_directory(config.as_bytes(), Path::new("/w/p"), Level::Standard)?;
        Some((entry.pattern.to_string(), entry.mode))
    };
    let at = |path: &str| Some((path.to_owned(), Mode::Block));
    assert_eq!(found("[core]\nhooksPath = .husky/_"), at("/.husky/_/"));
    assert_eq!(found("[core]\nhooksPath = /w/p/a*b"), at("/a\\*b/"));
    assert_eq!(found("[core]\nhooksPath = a\nhooksPath = ./b"), at("/b/"));
    assert_eq!(found("[core]\nhooksPath = /etc/hooks"), None);
    assert_eq!(found("[core]\nbare = true"), None);
}
