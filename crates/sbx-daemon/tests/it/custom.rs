//! Custom secrets and logins of registries.

use crate::adoption::{Configured, ID, gateway, gateway_that_refuses, planted, supervisor};
use crate::harness::{Answer, Daemon};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

#[test]
fn a_custom_secret_is_bound_listed_replaced_in_place_and_removed_by_its_placeholder() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway(&runtime);
    daemon.restart();
    configured.recv_timeout(Duration::from_secs(20)).unwrap();
    let custom = |value: &str, more: Value| {
        let mut body = json!({"hosts": ["API.test", "**.files.test:8443"], "env": "API_TOKEN", "value": value});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        daemon.post("/v1/secrets/custom", &body)
    };
    let wanted = json!({"placeholder": "tok_{rand}", "in_body": true});
    let stored = custom("the-real-token", wanted).ok();
    let placeholder = stored["placeholder"].as_str().unwrap();
    assert!(
        placeholder.starts_with("tok_") && placeholder.len() == 36,
        "{placeholder}"
    );
    assert_eq!(stored["name"], "custom:API_TOKEN");
    let last = || configured.try_iter().last().unwrap().0;
    let sent = last();
    let credential = &sent["credentials"][0];
    assert_eq!(
        credential["hosts"],
        json!(["api.test", "**.files.test:8443"])
    );
    assert_eq!(credential["replace"], json!({"body": true}));
    assert_eq!(credential["placeholder"], placeholder);
    assert_eq!(credential["value"], "the-real-token");

    let row = daemon.get("/v1/secrets").ok()["custom"][0].clone();
    assert_eq!(
        (
            &row["scope"],
            &row["env"],
            &row["placeholder"],
            &row["secret"]
        ),
        (
            &json!("(global)"),
            &json!("API_TOKEN"),
            &json!(placeholder),
            &json!("****...****")
        )
    );
    // Another value under the same variable: the sandboxes' placeholder goes on.
    assert_eq!(custom("another", json!({})).code(), "secret-exists");
    let again = custom("another", json!({"force": true})).ok();
    assert_eq!(again["placeholder"], placeholder);
    let sent = last();
    assert_eq!(sent["credentials"][0]["value"], "another");
    assert_eq!(sent["credentials"][0]["replace"], json!({}));

    let remove = json!({"placeholder": placeholder});
    daemon.post("/v1/secrets/remove", &remove).ok();
    let sent = last();
    assert_eq!(sent["credentials"], json!([]));
    let withdrawn = sent["withdrawn"].to_string();
    assert!(withdrawn.contains(placeholder), "{withdrawn}");
    assert_eq!(
        daemon.post("/v1/secrets/remove", &remove).code(),
        "secret-not-found"
    );
}

#[test]
fn what_binds_to_everything_or_can_be_guessed_is_refused() {
    let daemon = Daemon::start();
    for bad in [
        json!({"hosts": [], "value": "v"}),
        json!({"hosts": ["**"], "value": "v"}),
        json!({"hosts": ["192.0.2.0/24"], "value": "v"}),
        json!({"hosts": ["a.test"], "value": "v", "placeholder": "fixed-placeholder"}),
        json!({"hosts": ["a.test"], "value": "v", "env": "NOT A NAME"}),
        json!({"hosts": ["a.test"], "value": "two\nlines"}),
    ] {
        let answer = daemon.post("/v1/secrets/custom", &bad);
        assert_eq!(answer.code(), "secret-unusable", "{bad}");
    }
    assert_eq!(daemon.get("/v1/secrets").ok()["custom"], json!([]));
}

#[test]
fn the_variable_of_a_custom_secret_is_set_where_the_sandbox_was_made_after_it() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let _configured = gateway(&runtime);
    daemon.restart();
    daemon.init("deny-all");
    let custom = json!({"hosts": ["api.test"], "env": "API_TOKEN", "value": "the-real-token"});
    let stored = daemon.post("/v1/secrets/custom", &custom).ok();
    let variable = |daemon: &Daemon| {
        let attach = daemon.post("/v1/sandboxes/one/start", &json!({})).ok();
        let env = attach["done"]["env"].as_array().unwrap().clone();
        env.into_iter().find(|row| row[0] == "API_TOKEN")
    };
    assert_eq!(variable(&daemon), None, "it was there before the secret");
    // As one that is made now.
    daemon.kill();
    let file = daemon
        .state()
        .join("sandboxes")
        .join(ID)
        .join("sandbox.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(record["custom"][0]["env"], Value::Null);
    record["custom"][0]["env"] = json!("API_TOKEN");
    fs::write(&file, record.to_string()).unwrap();
    daemon.restart();
    assert_eq!(
        variable(&daemon),
        Some(json!(["API_TOKEN", stored["placeholder"]]))
    );
}

#[test]
fn logins_of_registries_are_stored_for_the_host_for_all_or_for_one() {
    let mut daemon = Daemon::stopped();
    daemon.plant("00000000000a", "one");
    daemon.restart();
    let login = |more: Value| {
        let mut body =
            json!({"registry": "images.test:443", "username": "u", "password": "the-password"});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        daemon.post("/v1/secrets/registry", &body)
    };
    login(json!({})).ok();
    login(json!({"all_sandboxes": true, "auth_endpoint": "https://auth.test/token"})).ok();
    login(json!({"sandbox": "one"})).ok();
    assert_eq!(login(json!({})).code(), "secret-exists");
    for bad in [
        json!({"auth_endpoint": "http://auth.test/"}),
        json!({"username": "a b"}),
        json!({"registry": "https://images.test/x"}),
        json!({"sandbox": "one", "all_sandboxes": true}),
    ] {
        assert_eq!(login(bad.clone()).code(), "secret-unusable", "{bad}");
    }
    let scopes = || -> Vec<String> {
        let listed = daemon.get("/v1/secrets").ok();
        let rows = listed["secrets"].as_array().unwrap().clone();
        assert!(
            rows.iter()
                .all(|row| row["type"] == "registry" && row["name"] == "images.test")
        );
        rows.iter()
            .map(|row| row["scope"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(scopes(), ["(global)", "(host)", "one"]);
    let remove = |more: Value| {
        let mut body = json!({"registry": "images.test"});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        daemon.post("/v1/secrets/remove", &body)
    };
    remove(json!({"all_sandboxes": true})).ok();
    assert_eq!(scopes(), ["(host)", "one"]);
    remove(json!({"sandbox": "one"})).ok();
    remove(json!({})).ok();
    assert_eq!(remove(json!({})).code(), "secret-not-found");
}

/// Stores a login of the registry.
fn login(daemon: &Daemon, password: &str, more: &Value) -> Answer {
    let mut body = json!({
        "registry": "images.test:5000", "username": "u", "password": password, "force": true,
    });
    let more = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(more);
    daemon.post("/v1/secrets/registry", &body)
}

/// Logins in what a gateway was told last.
fn logins(configured: &Configured) -> (Value, Vec<Value>) {
    let last = configured.try_iter().last().unwrap().0;
    let all = last["credentials"].as_array().unwrap().clone();
    let logins = all.into_iter().filter(|one| one.get("registry").is_some());
    let logins = logins.collect();
    (last, logins)
}

fn hosts(configuration: &Value) -> Vec<&str> {
    let hosts = configuration["file"]["credential_hosts"]
        .as_array()
        .unwrap();
    let hosts = hosts.iter().filter_map(|host| host.as_str());
    hosts.filter(|host| host.contains(".test")).collect()
}

#[test]
fn a_login_of_a_registry_is_its_sandboxes_alone_and_withdrawn_at_once() {
    let mut daemon = planted();
    daemon.plant("00000000000b", "two");
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway(&runtime);
    daemon.restart();
    configured.recv_timeout(Duration::from_secs(20)).unwrap();
    // For the host alone, and for another sandbox.
    login(&daemon, "of-the-host", &json!({})).ok();
    login(&daemon, "of-another", &json!({"sandbox": "two"})).ok();
    // Told again with the next change, whatever it is about.
    let endpoint = json!({"all_sandboxes": true, "auth_endpoint": "https://auth.test/token"});
    let shown = login(&daemon, "of-all", &endpoint).ok();
    assert_eq!(
        (&shown["name"], &shown["scope"]),
        (&json!("images.test:5000"), &json!("(global)"))
    );
    let (told, found) = logins(&configured);
    assert!(!told.to_string().contains("of-the-host") && !told.to_string().contains("of-another"));
    let [one] = found.as_slice() else {
        panic!("{told}")
    };
    assert_eq!(one["service"], "registry:images.test:5000");
    assert_eq!(one["hosts"], json!(["images.test:5000"]));
    assert_eq!(
        one["registry"],
        json!({"auth_endpoint": "https://auth.test/token"})
    );
    assert_eq!(
        (&one["basic_user"], &one["value"]),
        (&json!("u"), &json!("of-all"))
    );
    assert_eq!(hosts(&told), ["auth.test", "images.test:5000"]);
    let placeholder = one["placeholder"].clone();
    let text = placeholder.as_str().unwrap();
    assert!(
        text.starts_with("sbx-registry-") && text.len() == 45,
        "{text}"
    );
    // Its own goes above, and has the same placeholder.
    login(&daemon, "of-its-own", &json!({"sandbox": "one"})).ok();
    let (told, found) = logins(&configured);
    let [one] = found.as_slice() else {
        panic!("{told}")
    };
    assert_eq!(
        (&one["value"], &one["registry"]),
        (&json!("of-its-own"), &json!({}))
    );
    assert_eq!(one["placeholder"], placeholder);
    assert_eq!(hosts(&told), ["images.test:5000"]);
    // Without it the other is in force again, and without both its placeholder is named.
    let remove = |more: Value| {
        let mut body = json!({"registry": "images.test:5000"});
        let more = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(more);
        daemon.post("/v1/secrets/remove", &body).ok();
        logins(&configured)
    };
    let (_, found) = remove(json!({"sandbox": "one"}));
    assert_eq!(found[0]["value"], "of-all");
    let (told, found) = remove(json!({"all_sandboxes": true}));
    assert_eq!(found, Vec::<Value>::new());
    let withdrawn = json!({"service": "registry:images.test:5000", "placeholder": placeholder});
    let named = told["withdrawn"].as_array().unwrap();
    assert!(named.contains(&withdrawn), "{named:?}");
    assert_eq!(hosts(&told), Vec::<&str>::new());
}

#[test]
fn a_gateway_that_knows_no_logins_of_registries_closes_them() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway_that_refuses(&runtime, |value| {
        let unknown = value.to_string().contains("\"registry\":");
        unknown.then(|| "unknown field `registry`".to_owned())
    });
    daemon.restart();
    let refused = login(&daemon, "of-all", &json!({"all_sandboxes": true}));
    assert_eq!(refused.code(), "gateway-refused");
    let last = configured.try_iter().last().unwrap().0;
    let credential = &last["credentials"][0];
    assert_eq!(
        (&credential["hosts"], &credential["value"]),
        (&json!(["images.test:5000"]), &json!(""))
    );
    let why = credential["unavailable"].as_str().unwrap();
    assert!(why.contains("older than sbx"), "{why}");
    assert!(!last.to_string().contains("of-all"));
}
