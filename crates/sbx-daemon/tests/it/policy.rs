//! Policy verbs.

use crate::harness::Daemon;
use serde_json::{Value, json};

fn rule(allow: bool, resource: &str) -> Value {
    json!({"allow": allow, "resources": [resource], "sandbox": null, "protocols": []})
}

fn check(daemon: &Daemon, target: &str) -> Value {
    let request = json!({"target": target, "sandbox": null, "protocol": "tcp"});
    daemon.post("/v1/policy/check", &request).ok()
}

#[test]
fn policy_is_initialised_once_and_replaced_only_when_asked() {
    let daemon = Daemon::start();
    let start = daemon.post("/v1/policy/rules", &rule(true, "a.example"));
    assert_eq!(start.code(), "policy-not-initialized");
    let message = start.body["message"].as_str().unwrap();
    assert!(
        message.contains("global network policy has not been initialized"),
        "{message}"
    );
    daemon.init("balanced");
    let again = daemon.post(
        "/v1/policy/init",
        &json!({"preset": "deny-all", "replace": false}),
    );
    assert_eq!(again.code(), "policy-already-initialized");
    daemon
        .post("/v1/policy/rules", &rule(true, "mine.example"))
        .ok();
    daemon
        .post(
            "/v1/policy/init",
            &json!({"preset": "deny-all", "replace": true}),
        )
        .ok();
    let rules = daemon.get("/v1/policy").ok()["rules"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(rules.len(), 1, "{rules:?}");
    assert_eq!(rules[0]["resources"][0], "mine.example");
    let bad = daemon.post(
        "/v1/policy/init",
        &json!({"preset": "open", "replace": true}),
    );
    assert_eq!(bad.code(), "preset-unknown");
}

#[test]
fn rules_decide_contradict_and_go() {
    let daemon = Daemon::start();
    daemon.init("deny-all");
    assert_eq!(check(&daemon, "a.example")["deny_kind"], "implicit");
    let request = json!({"allow": true, "resources": ["a.example,b.example:8080"], "sandbox": null, "protocols": []});
    let added = daemon.post("/v1/policy/rules", &request).ok();
    assert_eq!(added["resources"].as_array().unwrap().len(), 2);
    assert_eq!(check(&daemon, "https://a.example/x")["allowed"], true);
    assert_eq!(check(&daemon, "b.example")["allowed"], false);
    assert_eq!(check(&daemon, "b.example:8080")["rule"], added["id"]);
    // The same again is the same rule.
    assert_eq!(
        daemon.post("/v1/policy/rules", &request).ok()["id"],
        added["id"]
    );
    let conflict = daemon.post("/v1/policy/rules", &rule(false, "a.example"));
    assert_eq!((conflict.status, conflict.code()), (409, "policy-conflict"));
    let generation = daemon.get("/v1/policy").ok()["generation"]
        .as_u64()
        .unwrap();
    let by_resource = json!({"id": null, "resource": "a.example", "sandbox": null});
    let removed = daemon.post("/v1/policy/rules/remove", &by_resource).ok();
    assert_eq!(removed["removed"][0], added["id"]);
    assert_eq!(check(&daemon, "a.example")["allowed"], false);
    let by_id = json!({"id": added["id"], "resource": null, "sandbox": null});
    daemon.post("/v1/policy/rules/remove", &by_id).ok();
    assert_eq!(
        daemon.post("/v1/policy/rules/remove", &by_id).code(),
        "rule-not-found"
    );
    let after = daemon.get("/v1/policy").ok();
    assert_eq!(after["rules"], json!([]));
    assert!(after["generation"].as_u64().unwrap() > generation);
}

#[test]
fn bad_rules_change_nothing() {
    let daemon = Daemon::start();
    daemon.init("deny-all");
    for (resource, code) in [
        ("*", "resource-invalid"),
        ("", "resource-invalid"),
        ("https://a.example/x", "resource-invalid"),
        ("a.example:99999", "resource-invalid"),
    ] {
        assert_eq!(
            daemon
                .post("/v1/policy/rules", &rule(true, resource))
                .code(),
            code,
            "{resource}"
        );
    }
    let mut protocol = rule(true, "a.example");
    protocol["protocols"] = json!(["icmp"]);
    assert_eq!(
        daemon.post("/v1/policy/rules", &protocol).code(),
        "protocol-unknown"
    );
    let mut stranger = rule(true, "a.example");
    stranger["sandbox"] = json!("nobody");
    assert_eq!(
        daemon.post("/v1/policy/rules", &stranger).code(),
        "sandbox-not-found"
    );
    assert_eq!(daemon.get("/v1/policy").ok()["rules"], json!([]));
    let target = json!({"target": "a b", "sandbox": null, "protocol": "tcp"});
    assert_eq!(
        daemon.post("/v1/policy/check", &target).code(),
        "target-invalid"
    );
}

#[test]
fn rules_of_one_sandbox_do_not_reach_another() {
    let mut daemon = Daemon::stopped();
    daemon.plant("00000000000a", "one");
    daemon.plant("00000000000b", "two");
    daemon.restart();
    daemon.init("deny-all");
    let mut scoped = rule(true, "only.example");
    scoped["sandbox"] = json!("one");
    daemon.post("/v1/policy/rules", &scoped).ok();
    let ask = |sandbox: &str| {
        let request = json!({"target": "only.example", "sandbox": sandbox, "protocol": "tcp"});
        daemon.post("/v1/policy/check", &request).ok()["allowed"].clone()
    };
    assert_eq!((ask("one"), ask("two")), (json!(true), json!(false)));
    let file = |id: &str| {
        let path = daemon
            .state()
            .join("sandboxes")
            .join(id)
            .join("gateway.json");
        serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap()
    };
    assert_eq!(
        file("00000000000a")["policy"]["rules"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(file("00000000000b")["policy"]["rules"], json!([]));
    // Removing the sandbox removes its rules: a later one of the same name has none.
    daemon
        .request("DELETE", "/v1/sandboxes/one", &Value::Null)
        .ok();
    assert_eq!(daemon.get("/v1/policy").ok()["rules"], json!([]));
    assert!(!daemon.state().join("sandboxes/00000000000a").exists());
}

#[test]
fn log_aggregates_what_gateways_recorded() {
    let mut daemon = Daemon::stopped();
    let dir = daemon.plant("00000000000a", "one");
    let record = |time_ms: u64, host: &str, allowed: bool| {
        json!({
            "time_ms": time_ms, "sandbox": "one", "type": "network", "host": host, "port": 443,
            "proxy": "forward", "allowed": allowed, "rule": null, "rule_text": null,
            "reason": if allowed { "allow_rule" } else { "default_deny" }, "generation": 1,
        })
        .to_string()
    };
    std::fs::create_dir(dir.join("egress")).unwrap();
    let older = [
        record(1_000, "a.example", false),
        record(2_000, "b.example", true),
    ]
    .join("\n");
    std::fs::write(dir.join("egress/egress.jsonl.1"), older + "\n").unwrap();
    let newer = [record(9_000, "a.example", false), "broken".to_owned()].join("\n");
    std::fs::write(dir.join("egress/egress.jsonl"), newer + "\n").unwrap();
    daemon.restart();
    let log = daemon.get("/v1/policy/log?sandbox=one&limit=0").ok();
    let blocked = &log["blocked_hosts"][0];
    assert_eq!(blocked["host"], "a.example:443");
    assert_eq!(blocked["vm_name"], "one");
    assert_eq!(blocked["count_since"], 2);
    assert_eq!(blocked["since"], "1970-01-01T00:00:01Z");
    assert_eq!(blocked["last_seen"], "1970-01-01T00:00:09Z");
    assert_eq!(blocked["reason"], "default_deny");
    assert_eq!(log["allowed_hosts"].as_array().unwrap().len(), 1);
}
