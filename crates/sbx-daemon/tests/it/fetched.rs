//! Values that are fetched, and what running sandboxes get of what is stored.

use crate::adoption::{ID, gateway, gateway_with_values, planted, supervisor};
use crate::harness::{Daemon, program};
use sbx_wire::gateway::{Answer, Command};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);

type Configured = Receiver<(Value, UnixStream)>;

/// The first configuration from now on that has what is wanted.
fn until(configured: &Configured, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + LIMIT;
    let mut last = Value::Null;
    while let Ok((value, _)) = configured.recv_timeout(deadline - Instant::now()) {
        if wanted(&value) {
            return value;
        }
        last = value;
    }
    panic!("{what}: {}", last["credentials"]);
}

/// A program that stands in for another in the daemon's search path.
fn stand_in(daemon: &Daemon, name: &str, script: &str) {
    let path = daemon.path("bin").join(name);
    fs::create_dir_all(daemon.path("bin")).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
}

fn restart_with_stand_ins(daemon: &mut Daemon) {
    let path = format!("{}:/usr/bin:/bin", daemon.path("bin").display());
    daemon.restart_as(&program(), |command| command.env("PATH", path));
}

#[test]
fn a_service_reaches_a_running_sandbox_in_all_its_forms_and_is_withdrawn_at_once() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway(&runtime);
    daemon.restart();
    let (first, _) = configured.recv_timeout(LIMIT).unwrap();
    // It was made with a placeholder for which nothing is stored.
    assert_eq!(first["withdrawn"][0]["service"], "anthropic");
    let set = json!({"service": "github", "value": "ghp_real"});
    daemon.post("/v1/secrets", &set).ok();
    let (value, _) = configured.try_iter().last().unwrap();
    let all = value["credentials"].as_array().unwrap();
    let of = |host: &str| {
        let mut bound = all.iter();
        let found = bound.find(|one| one["hosts"].as_array().unwrap().contains(&json!(host)));
        found.unwrap_or_else(|| panic!("{host}: {all:?}"))
    };
    assert_eq!(of("api.github.com")["format"], "Bearer %s");
    assert_eq!(of("github.com")["format"], "Basic %s");
    assert_eq!(of("github.com")["basic_user"], "x-access-token");
    assert_eq!(of("api.githubcopilot.com")["conversation"], true);
    let placeholder = all[0]["placeholder"].clone();
    assert!(
        all.iter()
            .all(|one| one["placeholder"] == placeholder && one["value"] == "ghp_real")
    );

    daemon
        .post("/v1/secrets/remove", &json!({"service": "github"}))
        .ok();
    let (value, _) = configured.try_iter().last().unwrap();
    assert_eq!(value["credentials"], json!([]));
    let withdrawn = value["withdrawn"].as_array().unwrap();
    assert!(
        withdrawn.contains(&json!({"service": "github", "placeholder": placeholder})),
        "{withdrawn:?}"
    );
    let hosts = value["file"]["credential_hosts"].to_string();
    assert!(!hosts.contains("raw.githubusercontent.com"), "{hosts}");
}

#[test]
fn attack_65_a_fetched_value_is_renewed_and_withdrawn_when_it_cannot_be_had_any_more() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway(&runtime);
    daemon.restart();
    let file = daemon.path("value");
    fs::write(&file, "first-value").unwrap();
    let line = format!("echo secret-on-stderr >&2; cat {}", file.display());
    let fetched = json!({"command": line, "refresh": "10s"});
    let set = json!({"service": "openai", "fetched": fetched});
    let stored = daemon.post("/v1/secrets", &set).ok();
    assert_eq!(stored["store"], "command");
    let has = |text: &'static str| move |value: &Value| value["credentials"][0]["value"] == text;
    until(&configured, "stored", has("first-value"));
    fs::write(&file, "second-value").unwrap();
    until(&configured, "renewed", has("second-value"));
    fs::remove_file(&file).unwrap();
    let gone = until(&configured, "over", |value| {
        value["credentials"][0]["unavailable"].is_string()
    });
    let credential = &gone["credentials"][0];
    assert_eq!(credential["value"], "");
    assert_eq!(
        credential["unavailable"],
        "command: failed (exit status: 1)"
    );
    assert!(!gone.to_string().contains("secret-on-stderr"));
    // And back by itself.
    fs::write(&file, "third-value").unwrap();
    until(&configured, "back", has("third-value"));

    // Neither value nor recipe lies on the disk in the clear.
    let listed = daemon.get("/v1/secrets").ok();
    let shown = listed["secrets"][0]["secret"].as_str().unwrap();
    assert_eq!(shown, "echo ... (every 10 s)");
    for name in fs::read_dir(daemon.state().join("secrets")).unwrap() {
        let content = fs::read(name.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&content);
        assert!(!text.contains("third-value") && !text.contains("stderr"));
    }
    // A daemon that starts fetches what running sandboxes need.
    while configured.try_recv().is_ok() {}
    daemon.restart();
    until(&configured, "after a restart", has("third-value"));
}

#[test]
fn a_recipe_is_tried_when_it_is_stored_and_says_what_is_wrong() {
    let daemon = Daemon::start();
    let set = |fetched: Value| {
        daemon.post(
            "/v1/secrets",
            &json!({"service": "openai", "fetched": fetched}),
        )
    };
    let line = "echo hint-of-the-program >&2; exit 2";
    let failed = set(json!({"command": line}));
    assert_eq!(failed.code(), "secret-source-failed");
    let text = failed.body.to_string();
    assert!(
        text.contains("exit status: 2") && text.contains("--show-error"),
        "{text}"
    );
    assert!(!text.contains("hint-of-the-program"), "{text}");
    let shown = set(json!({"command": line, "show_error": true}));
    assert!(shown.body.to_string().contains("hint-of-the-program"));
    for bad in [
        json!({}),
        json!({"command": "echo a", "reference": "op://a/b/c"}),
        json!({"command": " "}),
        json!({"command": "echo a", "refresh": "1s"}),
        json!({"reference": "vault://a"}),
    ] {
        assert_eq!(set(bad.clone()).code(), "secret-source", "{bad}");
    }
    assert_eq!(daemon.get("/v1/secrets").ok()["secrets"], json!([]));
    set(json!({"command": line, "unverified": true})).ok();
    // Not both, and not neither.
    let both = json!({"service": "xai", "value": "a", "fetched": {"command": "echo a"}});
    assert_eq!(daemon.post("/v1/secrets", &both).code(), "no-value");
    let neither = json!({"service": "xai"});
    assert_eq!(daemon.post("/v1/secrets", &neither).code(), "no-value");
}

#[test]
fn references_are_read_by_the_clients_of_their_managers_with_the_account_chosen_then() {
    let mut daemon = planted();
    // As the real ones behave: arguments, exit codes, and what they write where.
    stand_in(
        &daemon,
        "op",
        r#"[ "$1 $2" = "read --no-newline" ] || { echo "unknown arguments: $*" >&2; exit 1; }
        case "$3" in
            op://dev/openai/key) printf '%s' "value-of-$OP_ACCOUNT";;
            *) echo "[ERROR] 2026/01/01 00:00:00 could not read secret '$3': could not get item" >&2; exit 1;;
        esac"#,
    );
    stand_in(
        &daemon,
        "aws",
        r#"[ "$*" = "secretsmanager get-secret-value --secret-id arn:aws:secretsmanager:eu-west-1:123456789012:secret:key-a1b2c3 --query SecretString --output text --region eu-west-1" ] || {
            echo "An error occurred (ResourceNotFoundException) when calling the GetSecretValue operation: Secrets Manager can't find the specified secret." >&2
            exit 254; }
        echo "value-of-$AWS_PROFILE""#,
    );
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway(&runtime);
    restart_with_stand_ins(&mut daemon);
    let set = |reference: &str, account: &str| {
        let fetched = json!({"reference": reference, "account": account, "show_error": true});
        let body = json!({"service": "openai", "fetched": fetched, "force": true});
        daemon.post("/v1/secrets", &body)
    };
    assert_eq!(
        set("op://dev/openai/key", "work").ok()["store"],
        "1Password"
    );
    let has = |text: &'static str| move |value: &Value| value["credentials"][0]["value"] == text;
    until(&configured, "1Password", has("value-of-work"));
    let missing = set("op://dev/nothing/key", "work");
    assert!(
        missing.body.to_string().contains("could not get item"),
        "{missing:?}"
    );
    let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:key-a1b2c3";
    assert_eq!(set(arn, "prod").ok()["store"], "AWS Secrets Manager");
    until(&configured, "AWS", has("value-of-prod"));
    let missing = set(&arn.replace("key-", "other-"), "prod");
    assert!(
        missing.body.to_string().contains("ResourceNotFound"),
        "{missing:?}"
    );
}

#[test]
fn a_value_on_demand_is_fetched_when_the_gateway_needs_it_and_only_for_whom_it_is() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let (needed, questions) = mpsc::channel::<&str>();
    let (answers, answered) = mpsc::channel();
    let questions = Arc::new(Mutex::new(questions));
    let configured = gateway_with_values(&runtime, move |mut lines, mut stream| {
        loop {
            let Ok(question) = questions.lock().unwrap().recv() else {
                return;
            };
            let service = question.to_owned();
            let text = serde_json::to_string(&Answer::ValueNeeded { service }).unwrap();
            stream.write_all(format!("{text}\n").as_bytes()).unwrap();
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            match serde_json::from_str(&line).unwrap() {
                Command::Value { value, problem, .. } => {
                    let value = value.map(|value| value.expose().to_owned());
                    answers.send((value, problem)).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
    });
    daemon.restart();
    let runs = daemon.path("runs");
    let line = format!("echo >> {0}; echo value-$(wc -l < {0})", runs.display());
    let custom = json!({"hosts": ["api.test"], "env": "API_TOKEN",
        "fetched": {"command": line, "unverified": true}});
    daemon.post("/v1/secrets/custom", &custom).ok();
    let (value, _) = configured.try_iter().last().unwrap();
    let credential = &value["credentials"][0];
    assert_eq!(
        (
            &credential["service"],
            &credential["on_demand"],
            &credential["value"]
        ),
        (&json!("custom:API_TOKEN"), &json!(true), &json!(""))
    );
    assert!(!runs.exists(), "it is fetched when it is needed");
    let ask = |service: &'static str| {
        needed.send(service).unwrap();
        answered.recv_timeout(LIMIT).unwrap()
    };
    assert_eq!(ask("custom:API_TOKEN"), (Some("value-1".to_owned()), None));
    assert_eq!(ask("custom:API_TOKEN"), (Some("value-2".to_owned()), None));
    // What is stored and not asked for like this is not given out like this.
    daemon
        .post(
            "/v1/secrets",
            &json!({"service": "xai", "value": "a-stored-key"}),
        )
        .ok();
    for other in ["xai", "custom:OTHER"] {
        let (value, problem) = ask(other);
        assert_eq!(value, None);
        assert!(problem.unwrap().contains("not stored"));
    }
}
