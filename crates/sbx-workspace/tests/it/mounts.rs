//! Which directories may be shared.

use sbx_workspace::mounts::{Asked, Missing, MountPolicy, MountRule, Refusal, Why};
use std::path::{Path, PathBuf};

fn rules(texts: &[&str]) -> Vec<MountRule> {
    texts
        .iter()
        .map(|text| text.parse().expect("a rule"))
        .collect()
}

fn check(allow: &[&str], deny: &[&str], path: &str) -> Result<(), Refusal> {
    check_with(&[], "/home/u", (allow, deny), path)
}

/// With these links: from, to. The path may begin with several of them.
fn check_with(
    links: &[(&str, &str)],
    home: &str,
    (allow, deny): (&[&str], &[&str]),
    path: &str,
) -> Result<(), Refusal> {
    let (path, read_only) = match path.strip_suffix(":ro") {
        Some(path) => (path, true),
        None => (path, false),
    };
    let policy = MountPolicy {
        allow: rules(allow),
        deny: rules(deny),
    };
    let ways = |path: &Path| {
        let mut names = vec![path.to_owned()];
        while let Some(next) = links.iter().find_map(|(from, to)| {
            let rest = names.last()?.strip_prefix(from).ok()?;
            // A path that ends in a slash is another one to look at, though not to compare.
            Some(Path::new(to).join(rest).components().collect())
        }) {
            names.push(next);
        }
        names
    };
    let names = ways(Path::new(path));
    let asked = Asked {
        real: names.last().expect("at least the path"),
        written: Path::new(path),
        read_only,
    };
    policy.check(asked, Some(Path::new(home)), &ways)
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
    let path = Path::new("/home/other");
    let asked = Asked {
        real: path,
        written: path,
        read_only: true,
    };
    let refused = policy.check(asked, None, &|path| vec![path.to_owned()]);
    assert!(refused.is_err());
}

/// Why not, with these links; the home is canonical.
fn linked(links: &[(&str, &str)], rules: (&[&str], &[&str]), path: &str) -> Option<Why> {
    let home = match links.iter().find(|(from, _)| *from == "/home") {
        Some((_, to)) => format!("{to}/u"),
        None => "/home/u".to_owned(),
    };
    let refusal = check_with(links, &home, rules, path).err();
    refusal.map(|refusal| refusal.why)
}

#[test]
fn a_sensitive_place_that_is_a_link_is_one_under_each_of_its_names() {
    let links = [
        ("/home/u/.config", "/home/u/mid"),
        ("/home/u/mid", "/home/u/dot/config"),
        ("/home/u/.aws", "/data/aws"),
        ("/home/u/.ssh/tool", "/srv/tool"),
    ];
    let none: (&[&str], &[&str]) = (&[], &[]);
    for (path, place) in [
        ("/home/u/.config", ".config"),
        ("/home/u/mid", ".config"),
        ("/home/u/dot/config", ".config"),
        ("/home/u/dot/config/app:ro", ".config"),
        // It holds the place, or a link on the way to it.
        ("/home/u/dot", ".config"),
        ("/data", ".aws"),
        ("/data/aws/x", ".aws"),
        // It leads out of the place, and was asked for in it.
        ("/home/u/.ssh/tool", ".ssh"),
    ] {
        let place = sensitive(&format!("/home/u/{place}"));
        assert_eq!(linked(&links, none, path), Some(place), "{path}");
    }
    for path in ["/home/u/dot/other", "/data/x", "/srv/tool"] {
        assert_eq!(linked(&links, none, path), None, "{path}");
    }
}

#[test]
fn a_denial_holds_through_links_on_either_side() {
    let links = [("/link", "/srv/real"), ("/other", "/srv/secret")];
    let why = |deny: &str, path: &str| linked(&links, (&["/**"], &[deny]), path);
    for (deny, path) in [
        ("/link", "/srv/real"),
        ("/link/*", "/srv/real/x"),
        ("/link/**", "/srv/real/x/y"),
        ("/srv/secret", "/other"),
        ("/other", "/other"),
        ("/srv/real", "/link"),
    ] {
        let denied = Why::Denied(deny.to_owned());
        assert_eq!(why(deny, path), Some(denied), "{deny} {path}");
    }
    assert_eq!(why("/link", "/srv/realm"), None);
}

#[test]
fn a_link_widens_no_allowance_which_names_the_path_without_links() {
    // A guest made it, in a workspace that the user allows.
    let links = [
        ("/home/u/p/data", "/home/u/.ssh"),
        ("/home/u/.config", "/dot"),
    ];
    let why = |allow: &[&str], path: &str| linked(&links, (allow, &[]), path);
    for allow in ["~/p/data", "~/p/*", "~/p/**", "/home/u/p/data"] {
        for path in ["/home/u/p/data", "/home/u/.ssh"] {
            assert_eq!(
                why(&[allow], path),
                Some(sensitive("/home/u/.ssh")),
                "{allow} {path}"
            );
        }
    }
    // The user's own link is nothing else to us: the path that the refusal shows is the one to allow.
    let config = Some(sensitive("/home/u/.config"));
    assert_eq!(why(&["~/.config"], "/home/u/.config"), config);
    assert_eq!(why(&["/dot"], "/home/u/.config"), None);
    assert_eq!(why(&["/dot:ro"], "/home/u/.config:ro"), None);
    assert_eq!(why(&["/dot:ro"], "/home/u/.config"), config);
}

#[test]
fn homes_are_where_links_lead() {
    let links = [("/home", "/var/home"), ("/root", "/var/roothome")];
    let none: (&[&str], &[&str]) = (&[], &[]);
    for (path, home) in [
        ("/var/home/other", "/var/home/other"),
        ("/home/u", "/var/home/u"),
        ("/var/home", "/var/home/u"),
        ("/var/roothome", "/var/roothome"),
    ] {
        let home = Some(Why::Home(PathBuf::from(home)));
        assert_eq!(linked(&links, none, path), home, "{path}");
    }
    for (path, place) in [
        ("/var/home/other/.ssh", "/var/home/other/.ssh"),
        ("/var/home/u/.ssh/x", "/var/home/u/.ssh"),
        ("/var/roothome/.aws", "/var/roothome/.aws"),
    ] {
        assert_eq!(linked(&links, none, path), Some(sensitive(place)), "{path}");
    }
    assert_eq!(linked(&links, none, "/var/home/other/p"), None);
    assert_eq!(linked(&links, (&["~/.ssh"], &[]), "/home/u/.ssh"), None);
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
