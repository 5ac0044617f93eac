//! `sbx settings` at the command line.

use crate::world::World;

#[test]
fn settings_are_validated_kept_and_returned_to_their_default() {
    let world = World::new();
    let key = "upstream.overrides";
    let value = r#"{"api.anthropic.com:443":"127.0.0.1:8443"}"#;
    world.sbx(&["settings", "set", key, value]).ok();
    let got: serde_json::Value =
        serde_json::from_str(&world.sbx(&["settings", "get", key]).ok()).unwrap();
    assert_eq!(got["api.anthropic.com:443"], "127.0.0.1:8443");
    let record = world.sbx(&["settings", "get", key, "--json"]).json();
    assert_eq!(record["source"], "user");
    for bad in [
        "nonsense",
        r#"{"x":1}"#,
        r#"{"a b:1":"127.0.0.1:1"}"#,
        r#"{"a:1":"name:1"}"#,
    ] {
        world
            .sbx(&["settings", "set", key, bad])
            .refused("upstream.overrides");
    }
    world
        .sbx(&["settings", "set", "upstream.extraRoots", "/no/such.pem"])
        .refused("/no/such.pem");
    world
        .sbx(&["settings", "set", "no.such.key", "1"])
        .refused("no.such.key");
    world
        .sbx(&["settings", "get", "no.such.key"])
        .refused("no.such.key");
    world.sbx(&["settings", "unset", key]).ok();
    assert_eq!(
        world.sbx(&["settings", "get", key, "--json"]).json()["source"],
        "default"
    );
    let list = world.sbx(&["settings", "ls"]).ok();
    assert!(list.starts_with("KEY") && list.contains(key), "{list}");
}

#[test]
fn settings_survive_a_restart_of_the_daemon() {
    let world = World::new();
    world
        .sbx(&[
            "settings",
            "set",
            "upstream.overrides",
            r#"{"a.test:1":"127.0.0.1:2"}"#,
        ])
        .ok();
    world.sbx(&["daemon", "restart"]).ok();
    assert!(
        world
            .sbx(&["settings", "get", "upstream.overrides"])
            .ok()
            .contains("a.test:1")
    );
}
