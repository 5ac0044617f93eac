//! Which directories may be shared.

use sbx_workspace::mounts::{Missing, MountPolicy, MountRule, Refusal, Why};
use std::path::{Path, PathBuf};

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

/// Why not, or nothing.
fn why(allow: &[&str], path: &str) -> Option<Why> {
    check(allow, &[], path).err().map(|refusal| refusal.why)
}

fn sensitive(path: &str) -> Why {
    Why::Sensitive(PathBuf::from(path))
}

#[test]
fn homes_and_what_programs_keep_in_them_are_refused_unless_named() {
    let home = |path: &str| Some(Why::Home(PathBuf::from(path)));
    assert_eq!(why(&[], "/home/u"), home("/home/u"));
    assert_eq!(why(&[], "/home"), home("/home/u"));
    assert_eq!(why(&[], "/home/u/.ssh"), Some(sensitive("/home/u/.ssh")));
    assert_eq!(
        why(&[], "/home/u/.config/app:ro"),
        Some(sensitive("/home/u/.config"))
    );
    for path in [
        "/home/u/project",
        "/home/u/.dotfiles",
        "/home/u/.local/share/app",
        "/home/u/.cargo/registry",
        "/home/other/p",
        "/root/p",
        "/srv/p",
        "/srv/home/u/.ssh",
        "/home/u/.sshx",
    ] {
        assert_eq!(check(&[], &[], path), Ok(()), "{path}");
    }
    assert_eq!(why(&["~"], "/home/u"), None);
    assert_eq!(why(&["~/.config/*"], "/home/u/.config/app"), None);
    assert_eq!(
        why(&["~/.config/*"], "/home/u/.config/a/b"),
        Some(sensitive("/home/u/.config"))
    );
    assert_eq!(why(&["~/.config/**"], "/home/u/.config/a/b"), None);
}

#[test]
fn what_holds_a_sensitive_place_is_refused_unless_named() {
    for (path, place) in [
        ("/home/u/.cargo", "/home/u/.cargo/credentials"),
        ("/home/u/.local", "/home/u/.local/share/keyrings"),
        ("/home/u/.local/share:ro", "/home/u/.local/share/keyrings"),
        ("/home/u/.m2", "/home/u/.m2/settings.xml"),
    ] {
        assert_eq!(why(&[], path), Some(sensitive(place)), "{path}");
    }
    assert_eq!(why(&["~/.cargo"], "/home/u/.cargo"), None);
    assert_eq!(why(&["~/.local/*:ro"], "/home/u/.local/share:ro"), None);
}

#[test]
fn homes_of_others_are_homes() {
    for path in ["/home/other", "/root"] {
        assert_eq!(why(&[], path), Some(Why::Home(PathBuf::from(path))));
        let below = format!("{path}/.ssh");
        assert_eq!(why(&[], &below), Some(sensitive(&below)));
        assert_eq!(why(&[path], path), None);
    }
    // Also for somebody who has none.
    let policy = MountPolicy::default();
    let refused = policy.check(Path::new("/home/other"), true, None);
    assert!(refused.is_err());
}

#[test]
fn a_rule_for_reading_does_not_allow_writing_and_what_is_missing_is_said() {
    let missing = |allow: &[&str], deny: &[&str], path: &str| {
        let refusal = check(allow, deny, path).err();
        refusal.map(|refusal| refusal.missing)
    };
    assert_eq!(missing(&["~/.ssh:ro"], &[], "/home/u/.ssh:ro"), None);
    assert_eq!(
        missing(&["~/.ssh:ro"], &[], "/home/u/.ssh"),
        Some(Missing::Write)
    );
    assert_eq!(missing(&[], &[], "/home/u/.ssh:ro"), Some(Missing::Read));
    assert_eq!(missing(&[], &[], "/home/u/.ssh"), Some(Missing::Both));
    assert_eq!(missing(&[], &["/p"], "/p"), Some(Missing::Both));
    assert_eq!(missing(&[], &["/p"], "/p:ro"), Some(Missing::Read));
    assert_eq!(Missing::Write.to_string(), "write access");
}

#[test]
fn denials_are_absolute() {
    let denied = |missing, rule: &str| {
        let why = Why::Denied(rule.to_owned());
        Err(Refusal { missing, why })
    };
    assert_eq!(
        check(&["/srv/**"], &["/srv/secret"], "/srv/secret:ro"),
        denied(Missing::Read, "/srv/secret")
    );
    assert_eq!(
        check(&["~"], &["/**"], "/home/u"),
        denied(Missing::Both, "/**")
    );
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
