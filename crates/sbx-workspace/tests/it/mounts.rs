//! Which directories may be shared.

use sbx_workspace::mounts::{MountPolicy, MountRule, Refusal};
use std::path::Path;

fn rules(texts: &[&str]) -> Vec<MountRule> {
    texts
        .iter()
        .map(|text| text.parse().expect("a rule"))
        .collect()
}

fn check(allow: &[&str], deny: &[&str], path: &str) -> Result<(), Refusal> {
    let (path, read_only) = match path.strip_suffix(":ro") {
        Some(path) => (path, true),
        None => (path, false),
    };
    let policy = MountPolicy {
        allow: rules(allow),
        deny: rules(deny),
    };
    policy.check(Path::new(path), read_only, Some(Path::new("/home/u")))
}

#[test]
fn homes_and_what_programs_keep_in_them_are_refused_unless_named() {
    let sensitive = |name: &str| Err(Refusal::Sensitive(name.to_owned()));
    assert_eq!(check(&[], &[], "/home/u"), Err(Refusal::Home));
    assert_eq!(check(&[], &[], "/home"), Err(Refusal::Home));
    assert_eq!(check(&[], &[], "/home/u/.ssh"), sensitive(".ssh"));
    assert_eq!(
        check(&[], &[], "/home/u/.config/app:ro"),
        sensitive(".config")
    );
    for path in [
        "/home/u/project",
        "/home/u/.dotfiles",
        "/home/other/p",
        "/srv/p",
        "/home/u/.sshx",
    ] {
        assert_eq!(check(&[], &[], path), Ok(()), "{path}");
    }
    assert_eq!(check(&["~"], &[], "/home/u"), Ok(()));
    assert_eq!(check(&["~/.config/*"], &[], "/home/u/.config/app"), Ok(()));
    assert_eq!(
        check(&["~/.config/*"], &[], "/home/u/.config/a/b"),
        sensitive(".config")
    );
    assert_eq!(check(&["~/.config/**"], &[], "/home/u/.config/a/b"), Ok(()));
}

#[test]
fn a_rule_for_reading_does_not_allow_writing() {
    assert_eq!(check(&["~/.ssh:ro"], &[], "/home/u/.ssh:ro"), Ok(()));
    assert!(check(&["~/.ssh:ro"], &[], "/home/u/.ssh").is_err());
}

#[test]
fn denials_are_absolute() {
    let denied = |rule: &str| Err(Refusal::Denied(rule.to_owned()));
    assert_eq!(
        check(&["/srv/**"], &["/srv/secret"], "/srv/secret:ro"),
        denied("/srv/secret")
    );
    assert_eq!(check(&["~"], &["/**"], "/home/u"), denied("/**"));
    assert_eq!(check(&[], &["/srv/secret"], "/srv/secret/x"), Ok(()));
}

#[test]
fn what_is_no_rule_is_refused_with_the_grammar() {
    for text in [
        "",
        "x",
        "~x",
        "/a/../b",
        "/a/*/b",
        "/a/*b",
        "relative/**",
        "**",
    ] {
        let error = text.parse::<MountRule>().expect_err(text).to_string();
        assert!(error.contains("absolute path or ~"), "{error}");
    }
}
