//! Secrets: in, masked, and never in the clear on the disk.

use crate::harness::Daemon;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const VALUE: &str = "sk-ant-api03-the-real-key-of-this-test-0123";

fn set(service: &str, value: &str, force: bool) -> Value {
    json!({"service": service, "value": value, "sandbox": null, "force": force})
}

fn files_below(folder: &Path, out: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, out);
        } else if path.is_file() {
            out.push(path);
        }
    }
}

#[test]
fn secret_is_stored_encrypted_shown_masked_and_survives_a_restart() {
    let mut daemon = Daemon::start();
    daemon
        .post("/v1/secrets", &set("ANTHROPIC_API_KEY", VALUE, false))
        .ok();
    daemon.restart();
    let list = daemon.get("/v1/secrets").ok();
    assert_eq!(list["store"], "encrypted file");
    let row = &list["secrets"][0];
    assert_eq!(
        (row["scope"].as_str(), row["type"].as_str()),
        (Some("(global)"), Some("service"))
    );
    assert_eq!(row["name"], "anthropic");
    assert_eq!(row["secret"], "sk-ant****...****0123");
    assert_eq!(row["store"], "encrypted file");
    let mut files = Vec::new();
    files_below(daemon.folder.path(), &mut files);
    assert!(files.len() > 5, "{files:?}");
    for path in files {
        let content = fs::read(&path).unwrap();
        let held = content
            .windows(VALUE.len())
            .any(|window| window == VALUE.as_bytes());
        assert!(!held, "{} holds the key", path.display());
    }
    let folder = daemon.state().join("secrets");
    for entry in fs::read_dir(&folder).unwrap() {
        assert_eq!(
            entry.unwrap().metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    assert_eq!(
        fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn secret_is_replaced_only_when_forced_and_removed_once() {
    let daemon = Daemon::start();
    daemon
        .post("/v1/secrets", &set("anthropic", VALUE, false))
        .ok();
    let again = daemon.post("/v1/secrets", &set("anthropic", "another", false));
    assert_eq!((again.status, again.code()), (409, "secret-exists"));
    daemon
        .post("/v1/secrets", &set("anthropic", "another", true))
        .ok();
    let remove = json!({"service": "anthropic", "sandbox": null});
    daemon.post("/v1/secrets/remove", &remove).ok();
    assert_eq!(
        daemon.post("/v1/secrets/remove", &remove).code(),
        "secret-not-found"
    );
}

#[test]
fn unusable_secrets_are_refused_without_repeating_them() {
    let daemon = Daemon::start();
    for bad in ["two\nlines-of-the-secret", "", " spaced-secret"] {
        let answer = daemon.post("/v1/secrets", &set("anthropic", bad, false));
        assert_eq!(answer.code(), "secret-unusable");
        assert!(!answer.body.to_string().contains("secret\"") || bad.is_empty());
    }
    assert_eq!(
        daemon.post("/v1/secrets", &set("nope", "x", false)).code(),
        "service-unknown"
    );
    let stranger =
        json!({"service": "anthropic", "value": "x", "sandbox": "nobody", "force": false});
    assert_eq!(
        daemon.post("/v1/secrets", &stranger).code(),
        "sandbox-not-found"
    );
    assert_eq!(daemon.get("/v1/secrets").ok()["secrets"], json!([]));
    // A malformed body may hold a secret in the wrong place.
    let answer = daemon.post("/v1/secrets", &json!({"service": ["a-secret-value"]}));
    assert_eq!(answer.code(), "bad-request");
    assert!(!answer.body.to_string().contains("a-secret-value"));
}

#[test]
fn gateway_file_names_the_hosts_of_a_secret_and_not_its_value() {
    let mut daemon = Daemon::stopped();
    let dirs =
        [("00000000000a", "one"), ("00000000000b", "two")].map(|(id, name)| daemon.plant(id, name));
    daemon.restart();
    // A gateway that was restarted while no daemon runs closes these, so every port must be right.
    let hosts = || {
        dirs.clone().map(|dir| {
            let text = fs::read_to_string(dir.join("gateway.json")).unwrap();
            assert!(!text.contains(VALUE));
            let file: sbx_wire::gateway::GatewayFile = serde_json::from_str(&text).unwrap();
            file.credential_hosts
        })
    };
    // Where one signs in is among them in any case.
    let bare = hosts();
    assert_eq!(bare[0], bare[1]);
    for host in [
        "platform.claude.com",
        "claude.ai",
        "auth.openai.com",
        "github.com",
    ] {
        assert!(bare[0].iter().any(|other| other == host), "{bare:?}");
    }
    let hosts = || {
        hosts().map(|mut all| {
            all.retain(|host| host.starts_with("mcp-proxy"));
            all.join(" ")
        })
    };
    assert_eq!(hosts(), ["", ""]);
    let mut own = set("anthropic", VALUE, false);
    own["sandbox"] = json!("two");
    daemon.post("/v1/secrets", &own).ok();
    let bound = "mcp-proxy.anthropic.com";
    assert_eq!(hosts(), ["", bound]);
    daemon
        .post("/v1/secrets", &set("anthropic", VALUE, false))
        .ok();
    assert_eq!(hosts(), [bound, bound]);
    assert_eq!(
        daemon.get("/v1/sandboxes/one").ok()["secrets"],
        json!(["anthropic"])
    );
    // Also in a file that went missing while no daemon ran.
    daemon.kill();
    for dir in &dirs {
        fs::remove_file(dir.join("gateway.json")).unwrap();
    }
    daemon.restart();
    assert_eq!(
        daemon.get("/v1/sandboxes").ok()["sandboxes"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    assert_eq!(
        fs::read_to_string(dirs[0].join("gateway.json"))
            .unwrap()
            .matches("mcp-proxy")
            .count(),
        1
    );
    let remove = json!({"service": "anthropic", "sandbox": null});
    daemon.post("/v1/secrets/remove", &remove).ok();
    let text = fs::read_to_string(dirs[0].join("gateway.json")).unwrap();
    assert!(!text.contains("mcp-proxy"), "{text}");
}

#[test]
fn a_placeholder_is_given_with_the_secret_and_stays_known_after_it() {
    let mut daemon = Daemon::stopped();
    let dir = daemon.plant("00000000000a", "one");
    daemon.restart();
    let record = || -> Value {
        serde_json::from_slice(&fs::read(dir.join("sandbox.json")).unwrap()).unwrap()
    };
    assert_eq!(record()["placeholders"].as_object().unwrap().len(), 1);
    daemon
        .post("/v1/secrets", &set("github", "ghp_real", false))
        .ok();
    let given = record()["placeholders"]["github"].clone();
    let text = given.as_str().unwrap();
    assert!(text.starts_with("gho_") && text.len() == 40, "{text}");
    daemon
        .post("/v1/secrets/remove", &json!({"service": "github"}))
        .ok();
    daemon
        .post("/v1/secrets", &set("github", "ghp_other", false))
        .ok();
    daemon.restart();
    assert_eq!(record()["placeholders"]["github"], given);
}

#[test]
fn attack_66_a_sandbox_is_given_nothing_that_is_stored_for_another() {
    let mut daemon = Daemon::stopped();
    let dirs =
        [("00000000000a", "one"), ("00000000000b", "two")].map(|(id, name)| daemon.plant(id, name));
    daemon.restart();
    let mut own = set("github", "ghp_real", false);
    own["sandbox"] = json!("two");
    daemon.post("/v1/secrets", &own).ok();
    let custom = json!({
        "hosts": ["api.example.com"], "env": "TOKEN", "value": "a-value-0123456789", "sandbox": "two",
    });
    daemon.post("/v1/secrets/custom", &custom).ok();
    let given = |dir: &Path| -> Value {
        serde_json::from_slice(&fs::read(dir.join("sandbox.json")).unwrap()).unwrap()
    };
    let [one, two] = dirs.clone().map(|dir| given(&dir));
    assert_eq!(one["placeholders"].get("github"), None);
    assert!(two["placeholders"].get("github").is_some());
    assert!(one.get("custom").is_none_or(|custom| custom == &json!([])));
    assert_eq!(two["custom"].as_array().map(Vec::len), Some(1));
    for (name, secrets) in [("one", 0), ("two", 2)] {
        let shown = daemon.get(&format!("/v1/sandboxes/{name}")).ok();
        assert_eq!(
            shown["secrets"].as_array().map(Vec::len),
            Some(secrets),
            "{shown}"
        );
    }
}

#[test]
fn everything_of_a_scope_is_removed_at_once_and_nothing_else() {
    let mut daemon = Daemon::stopped();
    daemon.plant("00000000000a", "one");
    daemon.restart();
    let mut own = set("openai", "key-of-one", false);
    own["sandbox"] = json!("one");
    for secret in [own, set("openai", "a", false), set("xai", "b", false)] {
        daemon.post("/v1/secrets", &secret).ok();
    }
    let all = json!({"all": true});
    let removed = daemon.post("/v1/secrets/remove", &all).ok();
    let names: Vec<&Value> = removed["removed"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 2, "{removed}");
    assert_eq!(
        daemon.post("/v1/secrets/remove", &all).code(),
        "secret-not-found"
    );
    // Nothing is meant by a request that names nothing.
    let nothing = daemon.post("/v1/secrets/remove", &json!({"sandbox": "one"}));
    assert_eq!(nothing.code(), "secret-not-found");
    let left = daemon.get("/v1/secrets").ok();
    assert_eq!(left["secrets"][0]["scope"], "one");
}
