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

/// The command that an error names as the next step.
fn next_step(stderr: &str) -> String {
    let line = stderr
        .lines()
        .find_map(|line| line.trim().strip_prefix("try: "));
    line.unwrap_or_else(|| panic!("no next step: {stderr}"))
        .to_owned()
}

#[test]
fn over_broad_and_malformed_patterns_are_refused_when_written() {
    let world = World::with_policy();
    for (pattern, next) in [
        ("*", "`**` for everything"),
        ("*.com", "**.example.com"),
        ("**.co.uk", "**.example.co.uk"),
        (".kawasaki.jp", "**.example.kawasaki.jp"),
        ("foo.**.x.example", "`**.x.example`"),
        ("exa mple.com", "sbx policy allow"),
        ("exa\u{7}mple.com", "sbx policy allow"),
        ("a%2eexample.com", "sbx policy allow"),
        ("example.com:0443", "example.com:443"),
        ("example.com:65536", "example.com:443"),
        ("10.0.0.1/8", "`10.0.0.0/8`"),
        ("http://x.example/", "`x.example:80`"),
        (
            "https://x.example/a/b?c",
            "x.example:443 --method ANY --path /a/b",
        ),
        ("localhost", "`localhost:8080`"),
        ("127.0.0.0/8", ":8080"),
        ("good.example,*.com", "**.example.com"),
        ("", "sbx policy allow"),
    ] {
        let done = world.sbx(&["policy", "allow", "network", pattern]);
        assert!(
            next_step(&done.stderr).contains(next),
            "{pattern:?}: {done:?}"
        );
        done.refused("");
    }
    let rules = world.sbx(&["policy", "ls", "--json"]).json();
    assert_eq!(rules["rules"].as_array().map(Vec::len), Some(0));
    // Nobody is let in by a deny.
    world
        .sbx(&["policy", "deny", "network", "**.com,localhost"])
        .ok();
}

#[test]
fn a_contradiction_is_refused_and_the_command_that_it_names_resolves_it() {
    let world = World::with_policy();
    let added = world
        .sbx(&[
            "policy",
            "allow",
            "network",
            "**.a.example",
            "--method",
            "get",
            "--path",
            "/x/**",
        ])
        .ok();
    let again = world
        .sbx(&[
            "policy",
            "allow",
            "network",
            "**.A.example",
            "--method",
            "GET",
            "--path",
            "/x/**",
        ])
        .ok();
    assert!(
        again.starts_with("Rule exists already in policy local (scope: all): "),
        "{again}"
    );
    assert_eq!(added.rsplit(' ').next(), again.rsplit(' ').next());
    let deny = [
        "policy",
        "deny",
        "network",
        "**.a.example",
        "--method",
        "GET",
        "--path",
        "/x/**",
    ];
    let refused = world.sbx(&deny);
    let step = next_step(&refused.stderr);
    refused.refused("conflict with the existing allow rule");
    // As a shell would read it.
    let words: Vec<String> = step
        .split(' ')
        .skip(1)
        .map(|word| word.trim_matches('\'').to_owned())
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    world.sbx(&words).ok();
    world.sbx(&deny).ok();
}

#[test]
fn rules_with_method_and_path_are_listed_checked_and_removed() {
    let world = World::with_policy();
    let allow = [
        "policy",
        "allow",
        "network",
        "api.example",
        "--method",
        "GET,POST",
        "--path",
        "/v1/**",
    ];
    world.sbx(&allow).ok();
    world
        .sbx(&["policy", "deny", "network", "api.example:22"])
        .ok();
    let code = |arguments: &[&str]| {
        world
            .sbx(&[&["policy", "check", "network"], arguments].concat())
            .code
    };
    assert_eq!(
        code(&["api.example", "--method", "POST", "--path", "/v1/x"]),
        0
    );
    // What the gateway would do with it: methods are case-sensitive.
    assert_eq!(
        code(&["api.example", "--method", "post", "--path", "/v1/x"]),
        1
    );
    assert_eq!(code(&["https://api.example/v1/x", "--method", "GET"]), 0);
    assert_eq!(
        code(&["api.example", "--method", "GET", "--path", "/v2"]),
        1
    );
    assert_eq!(code(&["api.example", "--protocol", "udp"]), 1);
    assert_eq!(code(&["api.example", "--path", "/v2"]), 2);
    let verbose = world.sbx(&[
        "policy",
        "check",
        "network",
        "api.example",
        "--method",
        "DELETE",
        "--path",
        "/v1/x",
        "--verbose",
    ]);
    for line in [
        "Denied: api.example",
        "Request: DELETE /v1/x",
        "Rule: none",
        "allows other methods or paths",
    ] {
        assert!(verbose.stdout.contains(line), "{line}: {verbose:?}");
    }
    let summary = world.sbx(&["policy", "ls"]).ok();
    assert!(
        summary.contains("network (L4): 1 deny; http (L7): 1 allow"),
        "{summary}"
    );
    let wide = world
        .sbx(&["policy", "ls", "--wide", "--type", "http"])
        .ok();
    let (header, row) = wide.trim_end().split_once('\n').unwrap();
    for (name, cell) in [
        ("METHOD", "GET,POST"),
        ("PATH", "/v1/**"),
        ("TYPE", "http"),
        ("PROTOCOL", "tcp"),
        ("RESOURCES", "api.example"),
    ] {
        let at = header.find(name).unwrap();
        assert!(row[at..].starts_with(cell), "{name}: {wide}");
    }
    world
        .sbx(&["policy", "rm", "network", "--resource", "api.example", "-f"])
        .refused("no rule of scope global");
    let done = world
        .sbx(&[
            "policy",
            "rm",
            "network",
            "--resource",
            "api.example",
            "--method",
            "POST,GET",
            "--path",
            "/v1/**",
            "-f",
        ])
        .ok();
    assert!(done.starts_with("Rule removed: "), "{done}");
}

#[test]
fn a_service_of_the_host_is_shown_wherever_the_policy_is_looked_at() {
    let world = World::with_policy();
    let added = world.sbx(&["policy", "allow", "network", "host.docker.internal:8080"]);
    assert!(
        added
            .stderr
            .contains("note: localhost:8080 is a service of this machine"),
        "{added:?}"
    );
    let id = added.ok().trim_end().rsplit(' ').next().unwrap().to_owned();
    let listed = world.sbx(&["policy", "ls"]).ok();
    assert!(
        listed.contains("services of this machine: localhost:8080"),
        "{listed}"
    );
    let json = world.sbx(&["policy", "ls", "--json"]).json();
    assert_eq!(json["rules"][0]["host_services"][0], "localhost:8080");
    let inspected = world.sbx(&["policy", "inspect", &id]).ok();
    assert!(
        inspected.contains("localhost:8080   (a service of this machine)"),
        "{inspected}"
    );
    for spelling in [
        "localhost:8080",
        "127.0.0.1:8080",
        "http://host.docker.internal:8080/x",
        "[::1]:8080",
    ] {
        let checked = world.sbx(&["policy", "check", "network", spelling]).ok();
        assert!(checked.contains("a service of this machine"), "{checked}");
    }
    // A wildcard opens none of them, and a deny of one spelling is one of all.
    world
        .sbx(&["policy", "rm", "network", "--id", &id, "-f"])
        .ok();
    world.sbx(&["policy", "allow", "network", "**"]).ok();
    assert_eq!(
        world
            .sbx(&["policy", "check", "network", "localhost:8080"])
            .code,
        1
    );
}

#[test]
fn a_rule_or_a_policy_is_inspected_with_its_removal() {
    let world = World::new();
    world.sbx(&["policy", "init", "balanced"]).ok();
    let added = world
        .sbx(&["policy", "deny", "network", "a.example,10.0.0.0/8:22"])
        .ok();
    let id = added.trim_end().rsplit(' ').next().unwrap();
    let shown = world.sbx(&["policy", "inspect", &id[..8]]).ok();
    for line in [
        "Decision: deny",
        "Protocols: tcp,udp",
        "Created via: added",
        "  10.0.0.0/8:22",
        "Applies to: all",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(
        shown.contains(&format!("Remove: sbx policy rm network --id {id}")),
        "{shown}"
    );
    let json = world.sbx(&["policy", "inspect", id, "--json"]).json();
    assert_eq!(json["id"], id);
    assert_eq!(json["scope"], "global");
    assert_eq!(json["provenance"]["created_via"], "added");
    assert_eq!(
        json["actions"],
        serde_json::json!(["net:connect:tcp", "net:connect:udp"])
    );
    assert_eq!(json["remove"], format!("sbx policy rm network --id {id}"));
    let policy = world
        .sbx(&["policy", "inspect", "default-ai-services"])
        .ok();
    assert!(
        policy.starts_with("Policy: default-ai-services\nSummary: network: "),
        "{policy}"
    );
    assert!(policy.contains("  api.anthropic.com:443"), "{policy}");
    let json = world
        .sbx(&["policy", "inspect", "default-ai-services", "--json"])
        .json();
    assert_eq!(json["rules"].as_array().unwrap().len(), 1);
    world
        .sbx(&["policy", "inspect", "nothing"])
        .refused("there is no rule or policy");
}

#[test]
fn listings_are_filtered_by_every_column() {
    let world = World::new();
    world.plant("planted");
    world.sbx(&["policy", "init", "balanced"]).ok();
    world.sbx(&["policy", "deny", "network", "a.example"]).ok();
    world
        .sbx(&[
            "policy",
            "allow",
            "network",
            "b.example",
            "--protocol",
            "udp",
            "--sandbox",
            "planted",
        ])
        .ok();
    let count = |filter: &[&str]| {
        let listed = world
            .sbx(&[&["policy", "ls", "--json"], filter].concat())
            .json();
        listed["rules"].as_array().unwrap().len()
    };
    assert_eq!(count(&[]), 8);
    assert_eq!(count(&["--source", "local"]), 8);
    assert_eq!(count(&["--source", "kit"]) + count(&["--source", "org"]), 0);
    assert_eq!(count(&["--decision", "deny"]), 1);
    assert_eq!(count(&["--created-via", "default"]), 6);
    assert_eq!(count(&["--created-via", "added"]), 2);
    assert_eq!(count(&["--protocol", "udp"]), 2);
    assert_eq!(count(&["--type", "http"]), 0);
    assert_eq!(count(&["--type", "filesystem"]), 0);
    assert_eq!(count(&["--type", "network", "--protocol", "tcp"]), 7);
    let scoped = world
        .sbx(&[
            "policy",
            "ls",
            "planted",
            "--created-via",
            "added",
            "--decision",
            "allow",
            "--json",
        ])
        .json();
    assert_eq!(scoped["rules"][0]["sandbox_id"], "00000000000a");
    assert_eq!(scoped["rules"][0]["layer"], "sandbox");
    let text = world.sbx(&["policy", "ls", "--include-inactive"]).ok();
    assert!(text.lines().next().unwrap().contains("STATUS"), "{text}");
    assert!(
        text.lines().skip(1).all(|line| line.ends_with("active")),
        "{text}"
    );
    world
        .sbx(&["policy", "ls", "nobody"])
        .refused("sandbox 'nobody' not found");
}

#[test]
fn a_reset_asks_first_and_leaves_a_policy_that_has_to_be_chosen() {
    let world = World::new();
    world.sbx(&["policy", "init", "allow-all"]).ok();
    world
        .sbx(&["policy", "reset"])
        .refused("needs a confirmation");
    assert_eq!(
        world.sbx(&["policy", "check", "network", "a.example"]).code,
        0
    );
    let done = world.sbx(&["policy", "reset", "-f"]);
    assert!(done.stderr.contains("sbx policy init balanced"), "{done:?}");
    assert_eq!(done.ok(), "Policy reset: 1 rules removed\n");
    world
        .sbx(&["policy", "check", "network", "a.example"])
        .refused("has not been initialized");
    world
        .sbx(&["policy", "init"])
        .refused("has not been initialized");
    world.sbx(&["policy", "init", "deny-all"]).ok();
}

#[test]
fn a_rule_needs_no_daemon_that_runs_already() {
    let world = World::with_policy();
    world.sbx(&["daemon", "stop"]).ok();
    world.sbx(&["policy", "allow", "network", "a.example"]).ok();
    world.sbx(&["daemon", "stop"]).ok();
    assert_eq!(
        world.sbx(&["policy", "check", "network", "a.example"]).code,
        0
    );
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

#[test]
fn nobody_governs_the_policy_and_there_are_no_profiles() {
    let world = World::with_policy();
    let listed = world.sbx(&["policy", "ls", "--json"]).json();
    assert_eq!(listed["governance"], serde_json::json!({ "active": false }));
    let checked = world.sbx(&["policy", "check", "network", "example.com", "--json"]);
    let checked: serde_json::Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!(
        checked["governance"],
        serde_json::json!({
            "active": false, "organization": null, "organization_unavailable": false,
            "last_synced_status": null, "last_synced_message": null,
        })
    );
    let profiles = world.sbx(&["policy", "profile", "ls", "--json"]).json();
    assert_eq!(profiles, serde_json::json!({ "profiles": [] }));
    assert_eq!(world.sbx(&["policy", "profile", "ls", "-q"]).ok(), "");
    let text = world.sbx(&["policy", "profile", "ls"]).ok();
    assert!(text.starts_with("No profiles: "), "{text}");
}
