//! Settings.

use crate::harness::Daemon;
use serde_json::{Value, json};

fn set(daemon: &Daemon, key: &str, value: &str) -> crate::harness::Answer {
    daemon.post("/v1/settings", &json!({"key": key, "value": value}))
}

#[test]
fn every_setting_is_listed_with_default_type_and_description() {
    let daemon = Daemon::start();
    let settings = daemon.get("/v1/settings").ok()["settings"]
        .as_array()
        .unwrap()
        .clone();
    let keys: Vec<&str> = settings
        .iter()
        .map(|s| s["key"].as_str().unwrap())
        .collect();
    let expected = [
        "browser.open",
        "feature.udp-egress",
        "machine.confine",
        "machine.kernel",
        "machine.startLimit",
        "sandbox.autoStop",
        "sandbox.disk.dockerVolume",
        "sandbox.warmStart",
        "secrets.store",
        "session.detachKeys",
        "ssh.agentForwardingEnabled",
        "ssh.agentKeys",
        "ssh.agentSocketPath",
        "upstream.extraRoots",
        "upstream.overrides",
        "upstream.resolvers",
        "workspace.hide",
        "workspace.mask",
        "workspace.mounts.allow",
        "workspace.mounts.deny",
        "workspace.protect",
    ];
    assert_eq!(keys, expected);
    for setting in &settings {
        assert_eq!(setting["source"], "default");
        assert_eq!(setting["value"], setting["default"]);
        assert!(!setting["description"].as_str().unwrap().is_empty());
    }
}

#[test]
fn overrides_and_roots_reach_the_gateway_file_and_leave_it_again() {
    let mut daemon = Daemon::stopped();
    let dir = daemon.plant("00000000000a", "one");
    daemon.restart();
    let shown = set(
        &daemon,
        "upstream.overrides",
        r#"{"API.example": "127.0.0.1:8443"}"#,
    )
    .ok();
    assert_eq!(shown["source"], "user");
    assert_eq!(shown["value"], r#"{"api.example:443":"127.0.0.1:8443"}"#);
    // The daemon's own root is as good a certificate as any.
    let pem = daemon.state().join("ca/root.pem");
    set(&daemon, "upstream.extraRoots", pem.to_str().unwrap()).ok();
    let upstream = || -> Value {
        let text = std::fs::read(dir.join("gateway.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["upstream"].clone()
    };
    assert_eq!(upstream()["overrides"]["api.example:443"], "127.0.0.1:8443");
    let kept = upstream()["extra_roots_pem"][0]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        kept,
        std::fs::read_to_string(&pem).unwrap().replace("\r\n", "\n")
    );
    for key in ["upstream.overrides", "upstream.extraRoots"] {
        let unset = daemon.post("/v1/settings/unset", &json!({"key": key})).ok();
        assert_eq!(unset["source"], "default");
    }
    assert_eq!(upstream()["overrides"], json!({}));
    assert_eq!(upstream()["extra_roots_pem"], json!([]));
}

#[test]
fn udp_reaches_the_gateway_file_only_once_it_is_opened() {
    let mut daemon = Daemon::stopped();
    let dir = daemon.plant("00000000000a", "one");
    daemon.restart();
    let written = || -> Value {
        let text = std::fs::read(dir.join("gateway.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["upstream"]["udp_egress"].clone()
    };
    assert_eq!(written(), Value::Null);
    assert_eq!(
        set(&daemon, "feature.udp-egress", "ON").ok()["value"],
        "true"
    );
    assert_eq!(written(), true);
    set(&daemon, "feature.udp-egress", "false").ok();
    assert_eq!(written(), Value::Null);
}

#[test]
fn bad_values_are_refused_and_change_nothing() {
    let daemon = Daemon::start();
    let text = daemon.path("not-a-certificate.pem");
    std::fs::write(&text, "hello").unwrap();
    let broken = daemon.path("broken.pem");
    std::fs::write(
        &broken,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    for (key, value) in [
        ("upstream.overrides", "api.example=127.0.0.1:1"),
        (
            "upstream.overrides",
            r#"{"api.example:443": "localhost:1"}"#,
        ),
        ("upstream.extraRoots", "relative.pem"),
        ("upstream.extraRoots", "/nonexistent.pem"),
        ("upstream.extraRoots", "/dev/zero"),
        ("upstream.extraRoots", text.to_str().unwrap()),
        ("upstream.extraRoots", broken.to_str().unwrap()),
        ("upstream.resolvers", r#"["dns.example"]"#),
        ("sandbox.disk.dockerVolume", "100m"),
        ("feature.udp-egress", "maybe"),
        ("machine.kernel", "newest"),
    ] {
        assert_eq!(
            set(&daemon, key, value).code(),
            "setting-invalid",
            "{key} {value}"
        );
    }
    assert_eq!(set(&daemon, "no.such", "1").code(), "setting-unknown");
    let settings = daemon.get("/v1/settings").ok();
    assert!(
        settings["settings"]
            .as_array()
            .unwrap()
            .iter()
            .all(|s| s["source"] == "default")
    );
}

#[test]
fn what_a_hand_broke_of_what_is_hidden_or_protected_refuses_and_opens_nothing() {
    let mut daemon = Daemon::stopped();
    let dir = daemon.plant("00000000000a", "one");
    let workspace = daemon.path("work");
    std::fs::create_dir(&workspace).unwrap();
    let record = dir.join("sandbox.json");
    let whole: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    let create = json!({
        "name": "two", "agent": "shell", "workspaces": [{"path": workspace, "read_only": false}],
        "cpus": 1, "memory_mib": 512, "env": [], "deny_network": [], "accel": null,
    });
    daemon.restart();
    daemon.init("deny-all");
    for (key, value) in [
        ("workspace.hide", "*.key,[z"),
        ("workspace.protect", "blok"),
        ("workspace.mounts.deny", "relative"),
        ("workspace.mounts.allow", "relative"),
    ] {
        let stored = json!({key: {"value": value, "content": null}});
        daemon.kill();
        for name in ["sbx.db", "settings.json"] {
            let _none = std::fs::remove_file(daemon.state().join(name));
        }
        std::fs::write(daemon.state().join("settings.json"), stored.to_string()).unwrap();
        daemon.restart();
        let shown = daemon.get("/v1/settings").ok()["settings"].clone();
        let stays = |one: &Value| one["key"] == key && one["value"] == value;
        assert!(shown.as_array().unwrap().iter().any(stays), "{shown}");
        let answer = daemon.post("/v1/sandboxes", &create);
        assert_eq!(answer.code(), "setting-invalid", "{key}");
        let hint = answer.body.to_string();
        assert!(
            hint.contains(&format!("sbx settings unset {key}")),
            "{hint}"
        );
    }

    for guarding in [
        json!({"hide": ["*.key", "["]}),
        json!({"hide": "*.key"}),
        json!({"hidden": ["*.key"]}),
        json!({"protect": "blok"}),
        json!({"protect_paths": ["["]}),
        json!([]),
    ] {
        daemon.kill();
        let mut broken = whole.clone();
        broken["schema"] = json!(2);
        broken["guarding"] = guarding.clone();
        std::fs::write(&record, broken.to_string()).unwrap();
        let _none = std::fs::remove_file(daemon.state().join("sbx.db"));
        daemon.restart();
        let shown = daemon.get("/v1/sandboxes/one").ok();
        assert_eq!(shown["status"], "damaged", "{guarding}: {shown}");
        let started = daemon.post("/v1/sandboxes/one/start", &json!({}));
        let code = &started.body["failed"]["code"];
        assert_eq!(code, "sandbox-damaged", "{guarding}");
    }
}
