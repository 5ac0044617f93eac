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
    let answer = daemon.post("/v1/policy/rules", &request).ok();
    assert_eq!(answer["added"], true);
    let added = &answer["rule"];
    assert_eq!(added["resources"].as_array().unwrap().len(), 2);
    assert_eq!(check(&daemon, "https://a.example/x")["allowed"], true);
    assert_eq!(check(&daemon, "b.example")["allowed"], false);
    assert_eq!(check(&daemon, "b.example:8080")["rule_id"], added["id"]);
    // The same again is the same rule, in whatever order.
    let again = json!({"allow": true, "resources": ["b.example:8080", "A.example."]});
    let again = daemon.post("/v1/policy/rules", &again).ok();
    assert_eq!(
        (&again["added"], &again["rule"]["id"]),
        (&json!(false), &added["id"])
    );
    assert_eq!(
        daemon.get("/v1/policy").ok()["rules"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let conflict = daemon.post("/v1/policy/rules", &rule(false, "a.example"));
    assert_eq!((conflict.status, conflict.code()), (409, "policy-conflict"));
    let generation = daemon.get("/v1/policy").ok()["generation"]
        .as_u64()
        .unwrap();
    let by_resource = json!({"id": null, "resource": "a.example", "sandbox": null});
    let removed = daemon.post("/v1/policy/rules/remove", &by_resource).ok();
    assert_eq!(
        (&removed["removed"], &removed["narrowed"][0]),
        (&json!([]), &added["id"])
    );
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
        ("**.co.uk", "resource-invalid"),
        ("10.0.0.1/8", "resource-invalid"),
        ("foo.**.example", "resource-invalid"),
        ("a\u{7}.example", "resource-invalid"),
        ("a%2e.example", "resource-invalid"),
        ("localhost", "resource-invalid"),
        ("good.example,*.com", "resource-invalid"),
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
    for (key, value) in [
        ("method", "FETCH"),
        ("method", "GET,ANY"),
        ("path", "/x"),
        ("path", "/a//b"),
    ] {
        let mut bad = rule(true, "a.example");
        bad["method"] = json!(if key == "path" && value != "/x" {
            Some("GET")
        } else {
            None
        });
        bad[key] = json!(value);
        assert_eq!(
            daemon.post("/v1/policy/rules", &bad).code(),
            "http-invalid",
            "{bad}"
        );
    }
    for (resource, protocols) in [("10.0.0.1", json!([])), ("a.example", json!(["udp"]))] {
        let bad = json!({"allow": true, "resources": [resource], "protocols": protocols, "method": "GET"});
        assert_eq!(
            daemon.post("/v1/policy/rules", &bad).code(),
            "rule-invalid",
            "{bad}"
        );
    }
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

#[test]
fn rules_with_method_and_path_are_judged_by_request_and_removed_with_the_same_words() {
    let daemon = Daemon::start();
    daemon.init("deny-all");
    let add = |method: &str, path: Option<&str>| {
        let rule =
            json!({"allow": true, "resources": ["api.example"], "method": method, "path": path});
        daemon.post("/v1/policy/rules", &rule).ok()["rule"].clone()
    };
    let first = add("get,post", Some("/v1/**"));
    assert_eq!(
        (&first["method"], &first["path"]),
        (&json!("GET,POST"), &json!("/v1/**"))
    );
    assert_eq!(
        (&first["resource_type"], &first["actions"]),
        (&json!("http"), &json!(["net:connect:tcp"]))
    );
    assert_eq!(add("DELETE", None)["path"], "/**");
    let ask = |target: &str, method: Option<&str>, path: Option<&str>| {
        let request = json!({"target": target, "method": method, "path": path});
        daemon.post("/v1/policy/check", &request).ok()
    };
    assert_eq!(
        ask("api.example", Some("GET"), Some("/v1/x/y"))["allowed"],
        true
    );
    assert_eq!(
        ask("https://api.example/v1/x?q", Some("POST"), None)["rule_id"],
        first["id"]
    );
    assert_eq!(ask("api.example", Some("DELETE"), None)["path"], "/");
    let denied = ask("api.example", Some("GET"), Some("/v2"));
    assert_eq!(
        (&denied["allowed"], &denied["deny_kind"]),
        (&json!(false), &json!("implicit"))
    );
    assert_eq!(
        (&denied["nearest"]["miss"], &denied["nearest"]["decision"]),
        (&json!("request"), &json!("allow"))
    );
    assert_eq!(ask("api.example", None, None)["inspection"], "required");
    for bad in [
        json!({"path": "/x"}),
        json!({"method": "G T"}),
        json!({"method": "GET", "path": "x"}),
        json!({"method": "GET", "protocol": "udp"}),
    ] {
        let mut request = json!({"target": "api.example"});
        request
            .as_object_mut()
            .unwrap()
            .extend(bad.as_object().unwrap().clone());
        assert_eq!(
            daemon.post("/v1/policy/check", &request).code(),
            "request-invalid",
            "{request}"
        );
    }
    // Other words are another rule: the error says which.
    let plain = json!({"resource": "api.example"});
    let refused = daemon.post("/v1/policy/rules/remove", &plain);
    assert_eq!(refused.code(), "rule-not-found");
    let hint = "sbx policy rm network --resource api.example --method GET,POST --path '/v1/**'";
    assert_eq!(refused.body["try"], hint);
    let same = json!({"resource": "api.example", "method": "POST,GET", "path": "/v1/**"});
    assert_eq!(
        daemon.post("/v1/policy/rules/remove", &same).ok()["removed"][0],
        first["id"]
    );
    assert_eq!(
        ask("api.example", Some("GET"), Some("/v1/x/y"))["allowed"],
        false
    );
}

#[test]
fn a_comma_list_is_removed_whole_or_not_at_all() {
    let daemon = Daemon::start();
    daemon.init("deny-all");
    daemon
        .post("/v1/policy/rules", &rule(true, "a.example,b.example"))
        .ok();
    let both = |list: &str| daemon.post("/v1/policy/rules/remove", &json!({"resource": list}));
    assert_eq!(both("a.example,c.example").code(), "rule-not-found");
    assert_eq!(check(&daemon, "a.example")["allowed"], true);
    assert_eq!(
        both("a.example,b.example").ok()["removed"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(daemon.get("/v1/policy").ok()["rules"], json!([]));
}

#[test]
fn an_allow_that_a_deny_covers_says_so_when_it_is_added() {
    let daemon = Daemon::start();
    daemon.init("deny-all");
    daemon
        .post("/v1/policy/rules", &rule(false, "**.example"))
        .ok();
    let added = daemon
        .post("/v1/policy/rules", &rule(true, "a.example,b.test"))
        .ok();
    let cautions = added["cautions"].as_array().unwrap();
    assert_eq!(cautions.len(), 1, "{cautions:?}");
    assert!(
        cautions[0]
            .as_str()
            .unwrap()
            .starts_with("a.example stays denied: "),
        "{cautions:?}"
    );
    assert_eq!(
        daemon
            .post("/v1/policy/rules", &rule(true, "c.test"))
            .ok()
            .get("cautions"),
        None
    );
}

#[test]
fn a_rule_about_udp_says_what_it_does_not_open_and_a_check_says_so_too() {
    let daemon = Daemon::start();
    daemon.init("deny-all");
    let add = |resource: &str| {
        let mut rule = rule(true, resource);
        rule["protocols"] = json!(["udp"]);
        let added = daemon.post("/v1/policy/rules", &rule).ok();
        let cautions = added["cautions"].as_array().cloned().unwrap_or_default();
        let texts = cautions
            .iter()
            .map(|text| text.as_str().unwrap().to_owned());
        texts.collect::<Vec<_>>()
    };
    let check = |target: &str| {
        let request = json!({"target": target, "sandbox": null, "protocol": "udp"});
        daemon.post("/v1/policy/check", &request).ok()
    };
    let closed = add("game.test");
    assert_eq!(closed.len(), 1, "{closed:?}");
    let next = "sbx settings set feature.udp-egress true";
    assert!(closed[0].contains(next), "{closed:?}");
    let denied = check("game.test:9000");
    assert_eq!(
        (&denied["allowed"], &denied["reason_code"]),
        (&json!(false), &json!("udp_blocked"))
    );
    assert!(denied["reason"].as_str().unwrap().contains(next));
    let setting = json!({"key": "feature.udp-egress", "value": "true"});
    daemon.post("/v1/settings", &setting).ok();
    assert_eq!(check("game.test:9000")["allowed"], true);
    assert_eq!(check("game.test:53")["reason_code"], "foreign_resolver");
    assert_eq!(add("other.test"), Vec::<String>::new());
    let never = add("8.8.8.8:53,b.test:9000,239.1.2.3");
    assert_eq!(never.len(), 2, "{never:?}");
    assert!(
        never[0].starts_with("8.8.8.8:53 stays denied: "),
        "{never:?}"
    );
    assert!(
        never[1].starts_with("239.1.2.3 stays denied: "),
        "{never:?}"
    );
}

#[test]
fn a_reset_leaves_no_rule_and_no_preset() {
    let daemon = Daemon::start();
    daemon.init("balanced");
    daemon
        .post("/v1/policy/rules", &rule(true, "a.example"))
        .ok();
    assert_eq!(
        daemon.post("/v1/policy/reset", &json!({})).ok()["removed"],
        7
    );
    let state = daemon.get("/v1/policy").ok();
    assert_eq!(
        (&state["rules"], &state["initialized"], &state["preset"]),
        (&json!([]), &json!(false), &Value::Null)
    );
    assert_eq!(
        daemon
            .post("/v1/policy/rules", &rule(true, "a.example"))
            .code(),
        "policy-not-initialized"
    );
    daemon.init("deny-all");
}

#[test]
fn a_policy_that_no_gateway_could_be_sent_is_refused() {
    let daemon = Daemon::start();
    daemon.init("deny-all");
    // Each rule is about 240 KiB.
    let mut refused = None;
    for n in 0..40 {
        let names: Vec<String> = (0..1200)
            .map(|i| {
                format!(
                    "{}.{n}-{i}.example",
                    "a".repeat(60) + "." + &"b".repeat(60) + "." + &"c".repeat(60)
                )
            })
            .collect();
        let answer = daemon.post(
            "/v1/policy/rules",
            &json!({"allow": true, "resources": names}),
        );
        if answer.status != 200 {
            refused = Some((n, answer.code().to_owned()));
            break;
        }
    }
    let (n, code) = refused.unwrap();
    assert_eq!(code, "policy-too-large");
    let state = daemon.get("/v1/policy").ok();
    assert_eq!(state["rules"].as_array().unwrap().len(), n);
}

#[test]
fn a_policy_that_is_lost_comes_back_from_what_the_sandboxes_work_with() {
    let mut daemon = Daemon::stopped();
    daemon.plant("00000000000a", "one");
    daemon.plant("00000000000b", "two");
    daemon.restart();
    daemon.init("balanced");
    daemon
        .post("/v1/policy/rules", &rule(false, "global.example"))
        .ok();
    for sandbox in ["one", "two"] {
        let mut own = rule(true, "own.example");
        own["sandbox"] = json!(sandbox);
        daemon.post("/v1/policy/rules", &own).ok();
    }
    let sorted = |daemon: &Daemon| {
        let mut state = daemon.get("/v1/policy").ok();
        let rules = state["rules"].as_array_mut().unwrap();
        rules.sort_by_key(|rule| rule["id"].to_string());
        state
    };
    let before = sorted(&daemon);
    daemon.kill();
    // One unreadable rule is as good as none, wherever it stands.
    let database = rusqlite::Connection::open(daemon.state().join("sbx.db")).unwrap();
    database
        .execute("UPDATE rules SET document = '{}'", [])
        .unwrap();
    drop(database);
    std::fs::write(daemon.state().join("policy.json"), "{ half").unwrap();
    daemon.restart();
    let after = sorted(&daemon);
    assert_eq!(
        (&after["rules"], &after["preset"]),
        (&before["rules"], &json!("balanced"))
    );
    assert!(after["generation"].as_u64() > before["generation"].as_u64());
    let notices = daemon.get("/v1/status").ok()["notices"].to_string();
    assert!(
        notices.contains("put together again") && notices.contains("9 rules"),
        "{notices}"
    );
}

#[test]
fn rules_keep_their_order_through_a_restart() {
    let mut daemon = Daemon::start();
    let rules = |daemon: &Daemon| daemon.get("/v1/policy").ok()["rules"].clone();
    // Its rules come all at once, and their ids sort otherwise.
    daemon.init("balanced");
    daemon
        .post("/v1/policy/rules", &rule(true, "first.example"))
        .ok();
    let before = rules(&daemon);
    assert!(before.as_array().unwrap().len() > 5, "{before}");
    daemon.restart();
    assert_eq!(rules(&daemon), before);
    // The same rules under the same ids, now behind one that stays.
    let again = json!({"preset": "balanced", "replace": true});
    daemon.post("/v1/policy/init", &again).ok();
    daemon
        .post("/v1/policy/rules", &rule(true, "last.example"))
        .ok();
    let before = rules(&daemon);
    daemon.restart();
    assert_eq!(rules(&daemon), before);
}
