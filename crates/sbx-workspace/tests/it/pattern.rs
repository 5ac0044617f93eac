//! Patterns against gitignore(5)'s own words, and the set against its patterns one by one.

use proptest::prelude::*;
use sbx_workspace::{Pattern, PatternError, PatternSet};

fn set(patterns: &[&str]) -> PatternSet {
    let parsed = patterns
        .iter()
        .map(|text| Pattern::parse(text).expect("a pattern"));
    PatternSet::new(parsed)
}

fn matched(patterns: &[&str], path: &str) -> bool {
    let directory = path.ends_with('/');
    let names = path.trim_end_matches('/').split('/').map(str::as_bytes);
    set(patterns).walk(names, directory).matched().is_some()
}

#[test]
fn patterns_mean_what_gitignore_says() {
    for (pattern, path, expected) in [
        (".env", ".env", true),
        (".env", "a/b/.env", true),
        (".env", ".env.local", false),
        (".env*", "x/.env.local", true),
        ("*.pem", "keys/server.pem", true),
        ("/build", "build", true),
        ("/build", "a/build", false),
        ("doc/frotz", "doc/frotz", true),
        ("doc/frotz", "a/doc/frotz", false),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "x/y/foo/bar", true),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("a/**/b", "x/a/b", false),
        ("abc/**", "abc/x", true),
        ("abc/**", "abc/x/y", true),
        ("abc/**", "abc", false),
        ("frotz/", "a/frotz/", true),
        ("frotz/", "a/frotz", false),
        ("file[0-9]", "file7", true),
        ("file[!0-9]", "file7", false),
        ("file[!0-9]", "filex", true),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        (r"\*", "*", true),
        (r"\*", "x", false),
        (r"a\[b", "a[b", true),
        ("*a*b*c*", "xxaxxbxxcxx", true),
        ("*a*b*c*", "xxaxxcxxbxx", false),
    ] {
        assert_eq!(matched(&[pattern], path), expected, "{pattern} {path}");
    }
}

#[test]
fn the_last_pattern_that_matches_decides() {
    assert!(matched(&["*.env", "!example.env"], "a.env"));
    assert!(!matched(&["*.env", "!example.env"], "example.env"));
    assert!(matched(&["!example.env", "*.env"], "example.env"));
    assert!(!matched(&["/*", "!/src"], "src"));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (text, error) in [
        ("", PatternError::Empty),
        ("!", PatternError::Empty),
        ("/", PatternError::Everything),
        ("a\nb", PatternError::Control),
        ("a\\", PatternError::Escape),
        ("[abc", PatternError::Class),
        ("[z-a]", PatternError::Class),
        ("[[:alpha:]]", PatternError::Class),
        ("../x", PatternError::Dots),
        ("a/./b", PatternError::Dots),
    ] {
        assert_eq!(Pattern::parse(text), Err(error), "{text:?}");
    }
    assert_eq!(
        Pattern::parse(&"x".repeat(1025)),
        Err(PatternError::TooLong)
    );
    assert_eq!(Pattern::parse(&"x/".repeat(65)), Err(PatternError::TooLong));
}

#[test]
fn a_state_is_live_where_a_name_below_could_complete_a_pattern() {
    let set = set(&["**/.git/hooks/*", "*.pem"]);
    let root = set.root();
    assert!(!root.is_live());
    assert!(set.step(&root, b".git", true).below.is_live());
    assert!(!set.step(&root, b"src", true).below.is_live());
}

#[test]
fn names_need_not_be_utf8() {
    let set = set(&["a*"]);
    assert!(
        set.step(&set.root(), b"a\xff\xfe", false)
            .matched()
            .is_some()
    );
}

/// The textbook: components against components, by recursion.
fn naive(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        (["**", rest @ ..], _) if !rest.is_empty() => {
            (0..path.len()).any(|skip| naive(rest, &path[skip..]))
        }
        ([], []) | (["**"], [_, ..]) => true,
        ([one, rest @ ..], [name, names @ ..]) => {
            (*one == "*" || one == name) && naive(rest, names)
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn a_set_says_what_the_textbook_says(
        pattern in proptest::collection::vec(prop_oneof!["a", "b", "\\*", "\\*\\*"], 1..5),
        path in proptest::collection::vec(prop_oneof!["a", "b", "c"], 1..6),
    ) {
        let pattern: Vec<String> = pattern.iter().map(|one| one.replace('\\', "")).collect();
        let text = format!("/{}", pattern.join("/"));
        let parts: Vec<&str> = pattern.iter().map(String::as_str).collect();
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        prop_assert_eq!(matched(&[&text], &names.join("/")), naive(&parts, &names), "{} {:?}", text, names);
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,40}", name in proptest::collection::vec(any::<u8>(), 0..20)) {
        if let Ok(pattern) = Pattern::parse(&text) {
            let set = PatternSet::new([pattern]);
            set.step(&set.root(), &name, true);
        }
    }
}
