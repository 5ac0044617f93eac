//! Keys of AWS that end soon: a stand-in of STS gives them, a gateway played by the test asks for them.

use crate::adoption::{
    Configured, ID, gateway_that_refuses, gateway_with_values, planted, supervisor,
};
use crate::harness::{Answer, Daemon};
use sbx_testkit::AwsStandIn;
use sbx_testkit::aws::Key;
use sbx_wire::gateway::{Answer as Told, Command, SHORT_LIVED};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(30);
const ID_OF_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const STS: &str = "sts.us-east-1.amazonaws.com";

fn key(token: Option<&str>) -> Key {
    Key {
        access_key_id: ID_OF_KEY.to_owned(),
        secret: SECRET.to_owned(),
        session_token: token.map(str::to_owned),
    }
}

/// A program inside that asks for a key when it is told to.
struct Program {
    ask: Sender<()>,
    told: Receiver<(Option<String>, Option<String>)>,
}

impl Program {
    fn asks(&self) -> Result<Value, String> {
        self.ask.send(()).unwrap();
        let (document, problem) = self.told.recv_timeout(LIMIT).unwrap();
        match document {
            Some(text) => Ok(serde_json::from_str(&text).unwrap()),
            None => Err(problem.unwrap()),
        }
    }
}

fn gateway(runtime: &Path) -> (Configured, Program) {
    let (ask, asked) = mpsc::channel();
    let asked = Arc::new(Mutex::new(asked));
    let (tell, told) = mpsc::channel();
    let configured = gateway_with_values(runtime, move |mut lines, mut stream| {
        loop {
            let waits = asked.lock().unwrap().recv();
            if waits.is_err() {
                return;
            }
            let service = SHORT_LIVED.to_owned();
            let text = serde_json::to_string(&Told::ValueNeeded { service }).unwrap();
            stream.write_all(format!("{text}\n").as_bytes()).unwrap();
            let mut line = String::new();
            if lines.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let Ok(Command::Value { value, problem, .. }) = serde_json::from_str(&line) else {
                panic!("{line}")
            };
            let _ = tell.send((value.map(|value| value.expose().to_owned()), problem));
        }
    });
    (configured, Program { ask, told })
}

/// A daemon with a running sandbox, which finds the stand-in where STS is.
fn town(token: Option<&str>) -> (AwsStandIn, Daemon, Configured, Program) {
    town_at(STS, token)
}

fn town_at(sts: &str, token: Option<&str>) -> (AwsStandIn, Daemon, Configured, Program) {
    let standin = AwsStandIn::start(key(token), &[sts]).unwrap();
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let watchers = supervisor(&runtime, 0);
    let (configured, program) = gateway(&runtime);
    daemon.restart();
    daemon.init("deny-all");
    std::mem::forget(watchers);
    lead(&daemon, sts, &standin);
    (standin, daemon, configured, program)
}

fn lead(daemon: &Daemon, sts: &str, standin: &AwsStandIn) {
    let set = |key: &str, value: &str| {
        daemon
            .post("/v1/settings", &json!({"key": key, "value": value}))
            .ok();
    };
    let address = standin.address().to_string();
    let overrides = json!({format!("{sts}:443"): address}).to_string();
    set("upstream.overrides", &overrides);
    let roots = daemon.path("standin.pem");
    fs::write(&roots, standin.root_pem()).unwrap();
    set("upstream.extraRoots", roots.to_str().unwrap());
}

fn set(daemon: &Daemon, value: &str, more: &Value) -> Answer {
    let mut body = json!({"service": "aws", "value": value, "force": true});
    let fields = body.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    daemon.post("/v1/secrets", &body)
}

fn stored() -> String {
    format!("{ID_OF_KEY}:{SECRET}")
}

fn last(configured: &Configured) -> Value {
    configured.try_iter().last().unwrap().0
}

fn handed_in(configuration: &Value) -> &Value {
    let credentials = configuration["credentials"].as_array().unwrap();
    let handed_in = &credentials[0]["aws"]["handed_in"];
    // Whichever of its hosts a request goes to.
    for credential in credentials {
        assert_eq!(&credential["aws"]["handed_in"], handed_in);
    }
    handed_in
}

fn variables(daemon: &Daemon) -> Vec<(String, String)> {
    let started = daemon.post("/v1/sandboxes/one/start", &json!({})).ok();
    let all: Vec<(String, String)> =
        serde_json::from_value(started["done"]["env"].clone()).unwrap();
    let about = |name: &str| name.contains("AWS") && name != "AWS_CA_BUNDLE";
    all.into_iter().filter(|(name, _)| about(name)).collect()
}

/// Everything that lies on the disk of the daemon, as far as it is text.
fn written_down(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            written_down(&entry.path(), text);
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap_or_default();
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn a_key_that_ends_soon_is_got_on_the_host_and_withdrawn_with_the_one_that_gave_it() {
    let (standin, daemon, configured, program) = town(None);
    let answer = set(&daemon, &stored(), &json!({"short_lived": {}})).ok();
    let notices = answer["notices"].to_string();
    assert!(
        notices.contains("programs there can read them"),
        "{notices}"
    );
    let row = daemon.get("/v1/secrets").ok()["secrets"][0].clone();
    let shown = row["secret"].as_str().unwrap();
    assert!(shown.ends_with("(keys of 15 minutes inside)"), "{row}");
    let value = last(&configured);
    let token = handed_in(&value)["token"].as_str().unwrap().to_owned();
    assert_eq!(handed_in(&value)["ids"], json!([]));
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        variables(&daemon),
        [
            variable("SBX_CRED_AWS_MODE", "short-lived"),
            variable(
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                "http://169.254.170.2/sbx/aws"
            ),
            variable("AWS_CONTAINER_AUTHORIZATION_TOKEN", &token),
        ]
    );
    // Nobody asked, so STS was not.
    assert!(standin.recorder().requests().is_empty());

    let document = program.asks().unwrap();
    let id = document["AccessKeyId"].as_str().unwrap();
    assert!(id.starts_with("ASIA"), "{document}");
    assert!(!document.to_string().contains(SECRET));
    let fields: Vec<&String> = document.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        ["AccessKeyId", "Expiration", "SecretAccessKey", "Token"]
    );
    // It is known to the gateway before it is inside.
    assert_eq!(handed_in(&last(&configured))["ids"], json!([id]));
    assert_eq!(program.asks().unwrap(), document);
    let asked = standin.recorder().requests();
    let notes: Vec<&str> = asked.iter().map(|one| one.note.as_str()).collect();
    assert_eq!(notes, ["verified sts"]);
    let mut text = String::new();
    written_down(&daemon.state(), &mut text);
    for secret in [&document["SecretAccessKey"], &document["Token"]] {
        assert!(!text.contains(secret.as_str().unwrap()));
    }
    assert!(!text.contains(SECRET));

    daemon
        .post("/v1/secrets/remove", &json!({"service": "aws"}))
        .ok();
    let value = last(&configured);
    assert_eq!(value["credentials"], json!([]));
    let withdrawn = value["withdrawn"].to_string();
    assert!(
        withdrawn.contains(id) && withdrawn.contains(&token),
        "{withdrawn}"
    );
    let hosts = value["file"]["credential_hosts"].to_string();
    assert!(hosts.contains("\".amazonaws.com\""), "{hosts}");
    let why = program.asks().unwrap_err();
    assert!(why.contains("is stored any more"), "{why}");
    assert_eq!(standin.recorder().requests().len(), 1);
}

#[test]
fn another_key_is_got_before_one_ends_and_both_are_good_until_they_do() {
    let (standin, mut daemon, configured, program) = town(None);
    set(&daemon, &stored(), &json!({"short_lived": {}})).ok();
    // Less is left of it than programs want to have.
    standin.set_life(Duration::from_secs(290));
    let first = program.asks().unwrap()["AccessKeyId"].clone();
    standin.set_life(Duration::from_mins(15));
    let second = program.asks().unwrap()["AccessKeyId"].clone();
    assert_ne!(first, second);
    let value = last(&configured);
    assert_eq!(handed_in(&value)["ids"], json!([first, second]));
    assert_eq!(program.asks().unwrap()["AccessKeyId"], second);
    assert_eq!(standin.recorder().requests().len(), 2);

    // Stored anew, what was handed in before is not in force any more; also by a daemon that did not hand it in.
    daemon.restart();
    set(&daemon, &stored(), &json!({"short_lived": {}})).ok();
    let value = last(&configured);
    assert_eq!(handed_in(&value)["ids"], json!([]));
    let withdrawn = value["withdrawn"].to_string();
    for id in [first, second] {
        assert!(withdrawn.contains(id.as_str().unwrap()), "{withdrawn}");
    }
}

#[test]
fn in_every_part_of_aws_its_own_sts_is_asked_for_its_own_region() {
    for (region, sts, partition) in [
        ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn", "aws-cn"),
        (
            "eusc-de-east-1",
            "sts.eusc-de-east-1.amazonaws.eu",
            "aws-eusc",
        ),
        (
            "us-gov-west-1",
            "sts.us-gov-west-1.amazonaws.com",
            "aws-us-gov",
        ),
    ] {
        let (standin, daemon, _configured, program) = town_at(sts, None);
        let role = format!("arn:{partition}:iam::123456789012:role/agents");
        let wanted = json!({"short_lived": {"region": region, "role": role}});
        set(&daemon, &stored(), &wanted).ok();
        let document = program.asks().unwrap();
        let id = document["AccessKeyId"].as_str().unwrap();
        assert!(id.starts_with("ASIA"), "{document}");
        let asked = standin.recorder().requests();
        assert_eq!(asked[0].note, "verified sts");
        let signed = asked[0].header("authorization").unwrap();
        let scope = format!("/{region}/sts/aws4_request");
        assert!(signed.contains(&scope), "{signed}");
    }
}

#[test]
fn no_key_is_handed_in_unless_somebody_asked_for_that() {
    let (standin, daemon, configured, program) = town(None);
    set(&daemon, &stored(), &json!({})).ok();
    let value = last(&configured);
    assert_eq!(handed_in(&value), &Value::Null);
    let why = program.asks().unwrap_err();
    assert!(why.contains("is stored any more"), "{why}");
    assert!(standin.recorder().requests().is_empty());
    let names: Vec<String> = variables(&daemon)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        names,
        [
            "SBX_CRED_AWS_MODE",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY"
        ]
    );
}

#[test]
fn a_key_that_cannot_be_got_is_said_with_the_reason_and_not_asked_for_at_once_again() {
    let (standin, daemon, _configured, program) = town(Some("token"));
    let temporary = format!("ASIA{}:{SECRET}:token", &ID_OF_KEY[4..]);
    set(&daemon, &temporary, &json!({"short_lived": {}})).ok();
    let why = program.asks().unwrap_err();
    assert!(why.contains("--role"), "{why}");
    assert!(standin.recorder().requests().is_empty());
    // Another key than the one that STS knows.
    let role = json!({"short_lived": {"role": "arn:aws:iam::123456789012:role/agents"}});
    set(&daemon, &temporary, &role).ok();
    for _ in 0..3 {
        let why = program.asks().unwrap_err();
        assert_eq!(why, "STS refuses it: SignatureDoesNotMatch");
    }
    assert_eq!(standin.recorder().requests().len(), 1);
    let known = format!("{ID_OF_KEY}:{SECRET}:token");
    set(&daemon, &known, &role).ok();
    let document = program.asks().unwrap();
    assert!(
        document["AccessKeyId"]
            .as_str()
            .unwrap()
            .starts_with("ASIA")
    );
}

#[test]
fn what_cannot_be_asked_of_sts_is_refused_when_it_is_stored() {
    let daemon = Daemon::start();
    for (service, wanted) in [
        ("aws", json!({"role": "agents"})),
        ("aws", json!({"region": "evil.test/"})),
        ("aws", json!({"region": "us-iso-east-1"})),
        (
            "aws",
            json!({"role": "arn:aws-cn:iam::123456789012:role/agents"}),
        ),
        ("github", json!({})),
    ] {
        let body = json!({"service": service, "value": stored(), "short_lived": wanted});
        assert_eq!(daemon.post("/v1/secrets", &body).code(), "short-lived");
    }
    assert_eq!(daemon.get("/v1/secrets").ok()["secrets"], json!([]));
}

#[test]
fn a_gateway_that_hands_nothing_in_goes_on_signing() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway_that_refuses(&runtime, |value| {
        let unknown = value.to_string().contains("handed_in");
        unknown.then(|| "unknown field `handed_in`".to_owned())
    });
    daemon.restart();
    let refused = set(&daemon, &stored(), &json!({"short_lived": {}}));
    assert_eq!(refused.code(), "gateway-refused");
    let credential = last(&configured)["credentials"][0].clone();
    assert_eq!(credential["value"], stored());
    assert!(credential["aws"]["placeholder_id"].is_string());
}
