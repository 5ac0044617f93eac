//! Keys of AWS: what is stored, what a sandbox holds instead, and what its gateway is told.

use crate::adoption::{
    Configured, ID, gateway, gateway_that_refuses, gateway_with_values, planted, supervisor,
};
use crate::harness::{Answer, Daemon, program};
use sbx_wire::gateway::{Answer as Told, Command};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);
const KEY: &str = "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const TEMPORARY: &str = "ASIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY:to/ken+==";
/// Where its key goes: every part of AWS.
const HOSTS: [&str; 7] = [
    ".amazonaws.com",
    ".amazonaws.com.cn",
    ".amazonaws.eu",
    ".api.amazonwebservices.com.cn",
    ".api.amazonwebservices.eu",
    ".api.aws",
    "*.lambda-url.*.on.aws",
];

fn set(daemon: &Daemon, value: &str) -> Answer {
    let body = json!({"service": "aws", "value": value, "force": true});
    daemon.post("/v1/secrets", &body)
}

fn last(configured: &Configured) -> Value {
    configured.try_iter().last().unwrap().0
}

/// The first configuration from now on that has what is wanted.
fn until(configured: &Configured, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let (value, _) = configured.recv_timeout(left).unwrap();
        if wanted(&value) {
            return value;
        }
    }
}

/// Variables of a session that begins now, as far as they are about AWS.
fn variables(daemon: &Daemon) -> Vec<(String, String)> {
    let started = daemon.post("/v1/sandboxes/one/start", &json!({})).ok();
    let all: Vec<(String, String)> =
        serde_json::from_value(started["done"]["env"].clone()).unwrap();
    let about = |name: &str| name.contains("AWS") && name != "AWS_CA_BUNDLE";
    all.into_iter().filter(|(name, _)| about(name)).collect()
}

/// Hosts of AWS in the gateway's file, without models' and without those where other services issue tokens.
fn hosts(configuration: &Value) -> Vec<&str> {
    let named = configuration["file"]["credential_hosts"].as_array();
    let named: Vec<&str> = named.unwrap().iter().filter_map(Value::as_str).collect();
    let models = named.iter().filter(|host| host.contains("bedrock"));
    assert_eq!(models.count(), 17);
    HOSTS
        .into_iter()
        .filter(|host| named.contains(host))
        .collect()
}

#[test]
fn a_key_of_aws_is_bound_with_a_placeholder_of_the_sandbox_s_own_and_withdrawn_by_both_parts() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway(&runtime);
    daemon.restart();
    daemon.init("deny-all");
    let mode = |mode: &str| ("SBX_CRED_AWS_MODE".to_owned(), mode.to_owned());
    assert_eq!(variables(&daemon), [mode("none")]);
    set(&daemon, KEY).ok();
    let value = last(&configured);
    let credentials = value["credentials"].as_array().unwrap();
    assert_eq!(credentials.len(), 2);
    let (id, secret) = (
        &credentials[0]["aws"]["placeholder_id"],
        &credentials[0]["placeholder"],
    );
    for (credential, conversation) in credentials.iter().zip([true, false]) {
        assert_eq!(credential["service"], "aws");
        assert_eq!(credential["value"], KEY);
        assert_eq!(
            (&credential["header"], &credential["format"]),
            (&json!(""), &json!(""))
        );
        assert_eq!(
            (
                &credential["aws"]["placeholder_id"],
                &credential["placeholder"]
            ),
            (id, secret)
        );
        assert_eq!(credential.get("conversation").is_some(), conversation);
    }
    assert_eq!(credentials[1]["hosts"], json!(HOSTS));
    assert_eq!(hosts(&value), HOSTS);
    let (id, secret) = (id.as_str().unwrap(), secret.as_str().unwrap());
    assert!(
        id.starts_with("AKIA") && id.len() == 20 && !KEY.contains(id),
        "{id}"
    );
    assert!(secret.len() == 40 && !KEY.contains(secret), "{secret}");
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        variables(&daemon),
        [
            mode("apikey"),
            variable("AWS_ACCESS_KEY_ID", id),
            variable("AWS_SECRET_ACCESS_KEY", secret)
        ]
    );
    let row = daemon.get("/v1/secrets").ok()["secrets"][0].clone();
    assert_eq!(
        (&row["name"], &row["secret"]),
        (&json!("aws"), &json!("AKIAIO****...****EKEY"))
    );

    // A token is the gateway's to add: the guest is given none.
    set(&daemon, TEMPORARY).ok();
    assert_eq!(last(&configured)["credentials"][0]["value"], TEMPORARY);
    assert_eq!(variables(&daemon).len(), 3);

    let remove = json!({"service": "aws"});
    daemon.post("/v1/secrets/remove", &remove).ok();
    let value = last(&configured);
    assert_eq!(value["credentials"], json!([]));
    let withdrawn = value["withdrawn"].as_array().unwrap();
    for part in [id, secret] {
        let told = json!({"service": "aws", "placeholder": part});
        assert!(withdrawn.contains(&told), "{withdrawn:?}");
    }
    // Requests that are signed are looked at there all the same.
    assert_eq!(hosts(&value), HOSTS);
    assert_eq!(variables(&daemon), [mode("none")]);
    // Stored again it is the same placeholder.
    set(&daemon, KEY).ok();
    assert_eq!(last(&configured)["credentials"][0]["placeholder"], secret);
}

#[test]
fn what_is_no_key_of_aws_is_refused_when_it_is_stored() {
    let daemon = Daemon::start();
    let (id, secret) = KEY.split_once(':').unwrap();
    for (value, why) in [
        (id, "is not ACCESS_KEY_ID:SECRET_ACCESS_KEY"),
        (secret, "is not ACCESS_KEY_ID:SECRET_ACCESS_KEY"),
        (&format!("{secret}:{id}"), "access key id"),
        (&format!("{KEY}\n"), "cannot be one"),
        (TEMPORARY.rsplit_once(':').unwrap().0, "no session token"),
        ("{\"some\": \"json\"}", "is JSON"),
    ] {
        let answer = set(&daemon, value);
        assert_eq!(answer.code(), "secret-unusable");
        let text = answer.body.to_string();
        assert!(
            text.contains(why) && text.contains("sbx secret import aws"),
            "{text}"
        );
        assert!(!text.contains(id) && !text.contains(secret), "{text}");
    }
    let fetched = json!({"service": "aws", "fetched": {"command": "echo no-key"}});
    let answer = daemon.post("/v1/secrets", &fetched);
    assert_eq!(answer.code(), "secret-unusable");
    assert!(
        answer.body["try"]
            .as_str()
            .unwrap()
            .contains("export-credentials")
    );
    assert_eq!(daemon.get("/v1/secrets").ok()["secrets"], json!([]));
}

/// As `aws configure export-credentials` writes it.
const EXPORTED: &str = r#"{
  "Version": 1,
  "AccessKeyId": "ASIAIOSFODNN7EXAMPLE",
  "SecretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
  "SessionToken": "to/ken+==",
  "Expiration": "2026-01-01T00:00:00+00:00"
}
"#;

#[test]
fn a_fetched_key_is_taken_as_the_aws_command_writes_it_and_what_is_none_is_withheld_with_the_reason()
 {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway(&runtime);
    daemon.restart();
    let file = daemon.path("exported");
    fs::write(&file, EXPORTED).unwrap();
    let line = format!("cat {}", file.display());
    let stored = |refresh: Option<&str>| {
        let fetched = json!({"command": line, "refresh": refresh});
        let body = json!({"service": "aws", "fetched": fetched, "force": true});
        daemon.post("/v1/secrets", &body).ok()
    };
    // Not 55 minutes: the command gives keys that may be over by then.
    assert_eq!(stored(None)["secret"], "cat ... (every 600 s)");
    stored(Some("10s"));
    until(&configured, |value| {
        value["credentials"][0]["value"] == TEMPORARY
    });
    fs::write(&file, "no-key").unwrap();
    let value = until(&configured, |value| {
        value["credentials"][0]["unavailable"].is_string()
    });
    for credential in value["credentials"].as_array().unwrap() {
        assert_eq!(credential["value"], "");
        let why = credential["unavailable"].as_str().unwrap();
        assert!(why.starts_with("its value is not ACCESS_KEY_ID:"), "{why}");
        assert!(credential["aws"]["placeholder_id"].is_string());
    }
}

#[test]
fn a_key_on_demand_is_fetched_when_a_request_needs_it() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let (answers, answered) = std::sync::mpsc::channel();
    let configured = gateway_with_values(&runtime, move |mut lines, mut stream| {
        loop {
            let service = "aws".to_owned();
            let text = serde_json::to_string(&Told::ValueNeeded { service }).unwrap();
            let _ = stream.write_all(format!("{text}\n").as_bytes());
            let mut line = String::new();
            if lines.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let Ok(Command::Value { value, problem, .. }) = serde_json::from_str(&line) else {
                panic!("{line}")
            };
            let value = value.map(|value| value.expose().to_owned());
            let _ = answers.send((value, problem));
        }
    });
    let file = daemon.path("exported");
    fs::write(&file, EXPORTED).unwrap();
    daemon.restart();
    let fetched = json!({"command": format!("cat {}", file.display()), "refresh": "on-demand"});
    let body = json!({"service": "aws", "fetched": fetched});
    daemon.post("/v1/secrets", &body).ok();
    let credential = &last(&configured)["credentials"][0];
    assert_eq!(
        (&credential["value"], &credential["on_demand"]),
        (&json!(""), &json!(true))
    );
    let until = |wanted: (Option<&str>, Option<&str>)| {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (value, problem): (Option<String>, Option<String>) =
                answered.recv_timeout(left).unwrap();
            let problem = problem.as_deref();
            let said = wanted
                .1
                .is_none_or(|text| problem.is_some_and(|all| all.contains(text)));
            if value.as_deref() == wanted.0 && said {
                return;
            }
        }
    };
    until((Some(TEMPORARY), None));
    fs::write(&file, "no-key").unwrap();
    until((None, Some("what came is not ACCESS_KEY_ID:")));
}

#[test]
fn a_gateway_that_cannot_sign_refuses_what_goes_to_aws() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    // It knows everything else.
    let configured = gateway_that_refuses(&runtime, |value| {
        let unknown = value.to_string().contains("placeholder_id");
        unknown.then(|| "unknown field `aws`".to_owned())
    });
    daemon.restart();
    let refused = set(&daemon, KEY);
    assert_eq!(refused.code(), "gateway-refused");
    let value = last(&configured);
    let credentials = value["credentials"].as_array().unwrap();
    assert_eq!(credentials[1]["hosts"], json!(HOSTS));
    for credential in credentials {
        assert_eq!(credential["value"], "");
        let why = credential["unavailable"].as_str().unwrap();
        assert!(why.contains("older than sbx"), "{why}");
        assert_eq!(credential["placeholder"].as_str().unwrap().len(), 40);
    }
    assert!(!value.to_string().contains("wJalrXUtnFEMI"));
    let withdrawn = value["withdrawn"].as_array().unwrap();
    assert!(
        withdrawn.iter().any(|one| one["service"] == "aws"
            && one["placeholder"].as_str().unwrap().starts_with("AKIA")),
        "{withdrawn:?}"
    );
}

#[test]
fn a_real_gateway_takes_what_the_daemon_tells_it_of_a_key() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let frames = UnixListener::bind(daemon.path("frames.sock")).unwrap();
    daemon.restart();
    let mut command = daemon.command(&program().with_file_name("sbx-gateway"));
    let mut gateway = command
        .arg("--frames")
        .arg(daemon.path("frames.sock"))
        .arg("--control")
        .arg(runtime.join("gateway.sock"))
        .arg("--file")
        .arg(
            daemon
                .state()
                .join("sandboxes")
                .join(ID)
                .join("gateway.json"),
        )
        .arg("--records")
        .arg(daemon.path("egress.jsonl"))
        .arg("--log")
        .arg(daemon.path("gateway.log"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let machine = frames.accept().unwrap();
    // Answered once the gateway has confirmed it.
    for value in [KEY, TEMPORARY] {
        set(&daemon, value).ok();
    }
    let endpoint = json!({"host": "**.store.test", "service": "s3", "region": "us-east-1"});
    let body = json!({"service": "aws", "value": KEY, "force": true, "endpoints": [endpoint]});
    daemon.post("/v1/secrets", &body).ok();
    let fetched = json!({"command": format!("echo {KEY}"), "refresh": "on-demand"});
    let body = json!({"service": "aws", "fetched": fetched, "force": true});
    daemon.post("/v1/secrets", &body).ok();
    daemon
        .post("/v1/secrets/remove", &json!({"service": "aws"}))
        .ok();
    let mut control = UnixStream::connect(runtime.join("gateway.sock")).unwrap();
    let line = serde_json::to_string(&Command::Status).unwrap();
    control.write_all(format!("{line}\n").as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(control).read_line(&mut answer).unwrap();
    let answer: Told = serde_json::from_str(&answer).unwrap();
    assert!(
        matches!(
            answer,
            Told::Status {
                configured: true,
                ..
            }
        ),
        "{answer:?}"
    );
    gateway.kill().unwrap();
    gateway.wait().unwrap();
    drop(machine);
    for file in ["egress.jsonl", "gateway.log"] {
        let text = fs::read_to_string(daemon.path(file)).unwrap_or_default();
        assert!(
            !text.contains("wJalrXUtnFEMI") && !text.contains("to/ken"),
            "{file}"
        );
    }
}
