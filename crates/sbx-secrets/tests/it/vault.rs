//! The encrypted file: what is in force, what is kept of other versions.

use age::secrecy::ExposeSecret;
use sbx_secrets::{Custom, Key, Kind, Registry, Scope, Secret, Shown, Source, Vault};
use sbx_wire::secret::SecretText;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn open(state: &Path) -> Vault {
    let mut notices = Vec::new();
    let vault = Vault::open(state, &mut notices).unwrap();
    assert!(notices.is_empty(), "{notices:?}");
    vault
}

fn key(name: &str, sandbox: Option<&str>) -> Key {
    Key {
        name: name.to_owned(),
        scope: Scope::of(sandbox),
    }
}

fn service(name: &str, sandbox: Option<&str>, value: &str) -> Secret {
    Secret {
        key: key(name, sandbox),
        kind: Kind::Service,
        source: Source::File(SecretText::new(value.to_owned())),
    }
}

fn custom(name: &str, sandbox: Option<&str>, env: &str, value: &str) -> Secret {
    Secret {
        kind: Kind::Custom(Custom {
            hosts: vec!["api.test".to_owned()],
            env: Some(env.to_owned()),
            placeholder: format!("sbx-cs-{name}"),
            in_body: true,
        }),
        ..service(name, sandbox, value)
    }
}

fn values(vault: &Vault, sandbox: &str) -> Vec<String> {
    vault
        .in_force(sandbox)
        .into_iter()
        .map(|secret| {
            let Source::File(value) = &secret.source else {
                panic!("{secret:?}")
            };
            format!("{}={}", secret.key.name, value.expose())
        })
        .collect()
}

fn identity(state: &Path) -> age::x25519::Identity {
    let text = fs::read_to_string(state.join("secrets/identity")).unwrap();
    text.parse().unwrap()
}

fn read(state: &Path) -> Value {
    let sealed = fs::read(state.join("secrets/secrets.age")).unwrap();
    serde_json::from_slice(&age::decrypt(&identity(state), &sealed).unwrap()).unwrap()
}

fn write(state: &Path, document: &Value) {
    let to = identity(state).to_public();
    let sealed = age::encrypt(&to, document.to_string().as_bytes()).unwrap();
    fs::write(state.join("secrets/secrets.age"), sealed).unwrap();
}

#[test]
fn own_secret_of_a_sandbox_beats_the_global_one_and_goes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut vault = open(dir.path());
    vault.put(service("anthropic", None, "global")).unwrap();
    vault.put(service("anthropic", Some("box"), "own")).unwrap();
    vault.put(custom("custom:a", None, "A", "all")).unwrap();
    vault
        .put(custom("custom:a-2", Some("box"), "A", "mine"))
        .unwrap();
    let all = ["anthropic=own", "custom:a-2=mine"];
    assert_eq!(values(&vault, "box"), all);
    let mut again = open(dir.path());
    assert_eq!(values(&again, "box"), all);
    assert_eq!(
        values(&again, "other"),
        ["anthropic=global", "custom:a=all"]
    );
    again.remove_sandbox("box").unwrap();
    assert_eq!(values(&again, "box"), ["anthropic=global", "custom:a=all"]);
}

#[test]
fn everything_that_is_stored_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut vault = open(dir.path());
    let registry = |scope: Scope, all_sandboxes| Secret {
        key: Key {
            name: "registry:images.test".to_owned(),
            scope,
        },
        kind: Kind::Registry(Registry {
            username: "u".to_owned(),
            auth_endpoint: Some("https://auth.test/token".to_owned()),
            all_sandboxes,
        }),
        ..service("x", None, "password")
    };
    // One host can have a login for the host alone, one for all sandboxes and one for a single one.
    let scopes = [Scope::Host, Scope::Global, Scope::Sandbox("box".to_owned())];
    for scope in &scopes {
        let all = *scope == Scope::Global;
        vault.put(registry(scope.clone(), all)).unwrap();
    }
    vault.put(custom("custom:a", None, "A", "v")).unwrap();
    let again = open(dir.path());
    let keys: Vec<String> = again
        .all()
        .iter()
        .map(|shown| match shown {
            Shown::Known(secret) => format!("{} {}", secret.key.scope, secret.key.name),
            Shown::Newer(key) => panic!("{key:?}"),
        })
        .collect();
    assert_eq!(
        keys,
        [
            "(global) custom:a",
            "(global) registry:images.test",
            "(host) registry:images.test",
            "box registry:images.test"
        ]
    );
    let Kind::Custom(found) = &again.get(&key("custom:a", None)).unwrap().kind else {
        panic!("another kind")
    };
    assert!(found.in_body && found.hosts == ["api.test"]);
    // A sandbox's own login before the one for all; the one of the host alone is no business of gateways.
    assert_eq!(
        values(&again, "box"),
        ["custom:a=v", "registry:images.test=password"]
    );
    let logins = |again: &Vault, sandbox: &str| -> Vec<Scope> {
        let in_force = again.in_force(sandbox).into_iter();
        let logins = in_force.filter(|secret| matches!(secret.kind, Kind::Registry(_)));
        logins.map(|secret| secret.key.scope.clone()).collect()
    };
    assert_eq!(logins(&again, "box"), [scopes[2].clone()]);
    assert_eq!(logins(&again, "other"), [Scope::Global]);
    let gone = vault.remove(|key| key.scope == Scope::Host).unwrap();
    assert_eq!(gone.len(), 1);
    assert_eq!(vault.remove(|key| key.scope == Scope::Host).unwrap(), []);
}

#[test]
fn lost_identity_costs_the_secrets_but_not_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path())
        .put(service("anthropic", None, "x"))
        .unwrap();
    fs::remove_file(dir.path().join("secrets/identity")).unwrap();
    let mut notices = Vec::new();
    let again = Vault::open(dir.path(), &mut notices).unwrap();
    assert!(again.all().is_empty());
    assert_eq!(notices.len(), 1);
}

#[test]
fn a_file_of_the_first_version_is_taken_over_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    // Word for word what that version wrote.
    fs::create_dir(dir.path().join("secrets")).unwrap();
    let made = age::x25519::Identity::generate();
    fs::write(
        dir.path().join("secrets/identity"),
        made.to_string().expose_secret(),
    )
    .unwrap();
    let text = r#"{"schema":1,"secrets":[{"service":"anthropic","sandbox":null,"value":"all"},{"service":"anthropic","sandbox":"box","value":"own"}]}"#;
    write(dir.path(), &serde_json::from_str(text).unwrap());
    let mut vault = open(dir.path());
    assert_eq!(values(&vault, "box"), ["anthropic=own"]);
    assert_eq!(values(&vault, "other"), ["anthropic=all"]);
    // And that version reads what this one writes of it.
    vault.put(service("anthropic", Some("box"), "new")).unwrap();
    let mut expected: Value = serde_json::from_str(text).unwrap();
    expected["secrets"][1]["value"] = json!("new");
    assert_eq!(read(dir.path()), expected);
}

#[test]
fn secrets_of_a_newer_version_are_kept_and_not_used() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path())
        .put(service("anthropic", None, "global"))
        .unwrap();
    let bound = json!({"service": "anthropic", "sandbox": "box", "value": "v", "only": "x.test"});
    let known = json!({"service": "anthropic", "sandbox": null, "value": "global"});
    let mut document = json!({"schema": 1, "secrets": [bound, known], "more": 7});
    write(dir.path(), &document);
    let mut again = open(dir.path());
    assert!(again.holds(&key("anthropic", Some("box"))));
    assert!(again.get(&key("anthropic", Some("box"))).is_none());
    // The sandbox's own one counts also when it is not understood.
    assert_eq!(values(&again, "box"), [""; 0]);
    assert_eq!(values(&again, "other"), ["anthropic=global"]);
    again
        .put(service("anthropic", Some("other"), "own"))
        .unwrap();
    let kept = read(dir.path());
    assert_eq!(
        (&kept["more"], &kept["secrets"][0]),
        (&document["more"], &bound)
    );

    // A schema that is not ours: nothing is used, nothing is written.
    document["schema"] = 2.into();
    write(dir.path(), &document);
    let file = dir.path().join("secrets/secrets.age");
    let before = fs::read(&file).unwrap();
    let mut notices = Vec::new();
    let mut newer = Vault::open(dir.path(), &mut notices).unwrap();
    assert!(notices[0].contains("newer sbx"), "{notices:?}");
    assert!(newer.all().is_empty());
    let refused = newer.put(service("anthropic", None, "x")).unwrap_err();
    assert_eq!(refused.code, "state-too-new");
    assert_eq!(fs::read(&file).unwrap(), before);
}
