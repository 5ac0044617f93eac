//! `sbx policy` at the command line.

use crate::world::World;

#[test]
fn check_follows_the_rules_and_says_so_in_its_exit_code() {
    let world = World::with_policy();
    let denied = world.sbx(&["policy", "check", "network", "example.com"]);
    assert_eq!(denied.code, 1);
    assert!(
        denied.stdout.starts_with("Denied: example.com"),
        "{denied:?}"
    );
    assert!(
        denied
            .stdout
            .contains("No matching allow rule (default deny)"),
        "{denied:?}"
    );

    let added = world
        .sbx(&[
            "policy",
            "allow",
            "network",
            "example.com,*.example.org:8443",
        ])
        .ok();
    assert!(
        added.starts_with("Rule added to policy local (scope: all): "),
        "{added}"
    );
    for (target, code) in [
        ("example.com", 0),
        ("https://example.com/path", 0),
        ("example.com:80", 0),
        ("a.example.org:8443", 0),
        ("a.example.org", 1),
        ("example.org:8443", 1),
        ("a.b.example.org:8443", 1),
        ("evilexample.com", 1),
        ("169.254.169.254", 1),
    ] {
        assert_eq!(
            world.sbx(&["policy", "check", "network", target]).code,
            code,
            "{target}"
        );
    }

    // A deny wins, in the older spelling too; removing it restores the allow.
    world
        .sbx(&["policy", "deny", "network", "-g", "example.com:80"])
        .ok();
    let json = world.sbx(&["policy", "check", "network", "example.com:80", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (json["allowed"].as_bool(), json["deny_kind"].as_str()),
        (Some(false), Some("explicit"))
    );
    world
        .sbx(&["policy", "rm", "network", "--resource", "example.com:80"])
        .ok();
    assert_eq!(
        world
            .sbx(&["policy", "check", "network", "example.com:80"])
            .code,
        0
    );
}

#[test]
fn over_broad_and_malformed_patterns_are_refused_when_written() {
    let world = World::with_policy();
    for pattern in [
        "*",
        "*.com",
        "foo.**.x",
        "exa mple.com",
        "example.com:0443",
        "http://x/",
        "",
    ] {
        let done = world.sbx(&["policy", "allow", "network", pattern]);
        assert_eq!(done.code, 1, "{pattern:?}: {done:?}");
        assert!(done.stderr.contains("try: "), "{pattern:?}: {done:?}");
    }
    let rules = world.sbx(&["policy", "ls", "--json"]).json();
    assert_eq!(rules["rules"].as_array().map(Vec::len), Some(0));
}

#[test]
fn presets_can_be_chosen_once_and_replaced_by_the_older_spelling() {
    let world = World::new();
    world.sbx(&["policy", "init", "balanced"]).ok();
    assert_eq!(
        world
            .sbx(&["policy", "check", "network", "api.anthropic.com"])
            .code,
        0
    );
    world
        .sbx(&["policy", "init", "allow-all"])
        .refused("already");
    world.sbx(&["policy", "set-default", "deny-all"]).ok();
    assert_eq!(
        world
            .sbx(&["policy", "check", "network", "api.anthropic.com"])
            .code,
        1
    );
    assert_eq!(
        world.sbx(&["policy", "log"]).ok(),
        "No policy log entries found\n"
    );
}

#[test]
fn a_listing_counts_what_each_policy_decides() {
    let world = World::new();
    world.sbx(&["policy", "init", "balanced"]).ok();
    world
        .sbx(&["policy", "deny", "network", "a.example.com,b.example.com"])
        .ok();
    let text = world.sbx(&["policy", "ls"]).ok();
    assert!(text.starts_with("POLICY"), "{text}");
    assert!(text.contains("default-ai-services"), "{text}");
    assert!(text.contains("2 deny"), "{text}");
    let wide = world
        .sbx(&["policy", "ls", "--wide", "--decision", "deny"])
        .ok();
    assert!(wide.contains("a.example.com"), "{wide}");
    assert!(!wide.contains("api.anthropic.com"), "{wide}");
}
