//! Where git is told to find more of its own files.

use sbx_workspace::git_config;
use sbx_workspace::git_places::{self, Names};
use sbx_workspace::{Mode, PatternError, PatternSet, What};
use std::path::{Path, PathBuf};

#[test]
fn every_include_and_every_directory_of_hooks_is_named_whatever_its_condition() {
    let text = "[core]\n\thooksPath = a\n\thookspath = ./b\n\thooksPath\n[include]\n\tpath = ../c\n\
        [includeIf \"onbranch:x\"]\n\tpath = ~/d\n[include \"x\"]\n\tpath = e\n[core \"x\"]\n\thooksPath = f\n";
    let entries = git_config::parse(text.as_bytes()).unwrap();
    let named: Vec<_> = git_places::named(&entries)
        .map(|(names, value)| (names, std::str::from_utf8(value).unwrap()))
        .collect();
    assert_eq!(
        named,
        [
            (Names::Hooks, "a"),
            (Names::Hooks, "./b"),
            (Names::Settings, "../c"),
            (Names::Settings, "~/d"),
        ]
    );
}

#[test]
fn paths_are_expanded_as_git_does_it() {
    let expand = |value: &str| git_places::expand(value.as_bytes(), Some(Path::new("/home/u")));
    let path = |text: &str| Some(PathBuf::from(text));
    assert_eq!(expand("../x"), path("../x"));
    assert_eq!(expand("/w/x"), path("/w/x"));
    assert_eq!(expand("~/x"), path("/home/u/x"));
    assert_eq!(expand("~//x"), path("/home/u/x"));
    assert_eq!(expand("~"), path("/home/u/"));
    assert_eq!(expand(":(optional)~/x"), path("/home/u/x"));
    assert_eq!(expand("~other/x"), None);
    assert_eq!(expand("%(prefix)/x"), None);
    assert_eq!(git_places::expand(b"~/x", None), None);
    assert_eq!(git_places::expand(b"\xff", None), None);
}

#[test]
fn places_are_protected_as_gits_own_files_are() {
    let hooks = git_places::hooks(&["a*b", "hooks"], Mode::Block).unwrap();
    assert_eq!(hooks.pattern.to_string(), "/a\\*b/hooks/");
    let anywhere = git_places::hooks_anywhere(&[".githooks"], Mode::Report).unwrap();
    assert_eq!(
        (anywhere.pattern.to_string().as_str(), anywhere.mode),
        ("**/.githooks/", Mode::Report)
    );
    let settings = git_places::settings(&["conf", "git"], Mode::Block).unwrap();
    assert_eq!(settings.pattern.to_string(), "/conf/git");
    assert_eq!(settings.what, What::GitConfig);
    for whole in [
        git_places::hooks(&[], Mode::Block),
        git_places::hooks_anywhere(&[], Mode::Block),
    ] {
        assert_eq!(whole, Err(PatternError::Everything));
    }
}

#[test]
fn a_git_directory_of_any_name_is_protected_as_one_called_git() {
    for (names, start) in [(&["store"][..], "store/"), (&[], "")] {
        let list = git_places::git_directory(names, Mode::Block).unwrap();
        let set = PatternSet::new(list.iter().map(|entry| entry.pattern.clone()));
        let what = |path: &str| {
            let path = format!("{start}{path}");
            let number = set
                .walk(path.split('/').map(str::as_bytes), false)
                .matched()?;
            Some(list[usize::from(number)].what)
        };
        assert_eq!(what("hooks/pre-commit"), Some(What::Everything));
        assert_eq!(what("hooks/pre-commit.sample"), None);
        assert_eq!(what("config"), Some(What::GitConfig));
        assert_eq!(what("modules/a/b/config"), Some(What::GitConfig));
        assert_eq!(what("worktrees/w/commondir"), Some(What::GitLink));
        assert_eq!(what("worktrees/w/modules/a/config"), Some(What::GitConfig));
        assert_eq!(what("objects/x"), None);
    }
}

#[test]
fn git_directories_are_protected_by_the_names_that_only_they_have() {
    let what = |name: &str, path: &str| {
        let list = git_places::git_directories(name, Mode::Block)?.unwrap();
        let set = PatternSet::new(list.iter().map(|entry| entry.pattern.clone()));
        let number = set.walk(path.split('/').map(str::as_bytes), false);
        Some(
            number
                .matched()
                .map(|number| list[usize::from(number)].what),
        )
    };
    let settings = Some(Some(What::GitConfig));
    assert_eq!(what("a.git", "x/y/b.git/config"), settings);
    assert_eq!(what(".gitted", "x/.gitted/config"), settings);
    assert_eq!(what(".gitted", "x/b.git/config"), Some(None));
    assert_eq!(what("a.git", "src/hooks/use"), Some(None));
    assert_eq!(what("src", "src/hooks/use"), None);
}
