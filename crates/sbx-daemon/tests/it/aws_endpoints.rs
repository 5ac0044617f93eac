//! Endpoints with names of their own that a key of AWS is bound to.

use crate::adoption::{Configured, ID, gateway, gateway_that_refuses, planted, supervisor};
use crate::harness::{Answer, Daemon};
use serde_json::{Value, json};

const KEY: &str = "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

fn last(configured: &Configured) -> Value {
    configured.try_iter().last().unwrap().0
}

fn set(daemon: &Daemon, service: &str, endpoints: &Value) -> Answer {
    let value = if service == "aws" { KEY } else { "a-value" };
    let body = json!({"service": service, "value": value, "force": true, "endpoints": endpoints});
    daemon.post("/v1/secrets", &body)
}

fn endpoint(host: &str, service: &str) -> Value {
    json!({"host": host, "service": service, "region": "us-east-1"})
}

/// The credentials that are for endpoints with names of their own.
fn own(configuration: &Value) -> Vec<Value> {
    let all = configuration["credentials"].as_array().unwrap().iter();
    let own = all.filter(|one| one["aws"]["scope"].is_object() || one["aws"].is_null());
    own.cloned().collect()
}

#[test]
fn endpoints_with_names_of_their_own_are_stored_with_the_key_and_told_to_the_gateway() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway(&runtime);
    daemon.restart();
    let wanted = json!([
        endpoint("Store.test", "s3"),
        endpoint("**.store.test:9000", "s3"),
        endpoint("queue.corp", "sqs"),
    ]);
    set(&daemon, "aws", &wanted).ok();
    let value = last(&configured);
    let told = own(&value);
    assert_eq!(told.len(), 2);
    let first = &value["credentials"][0];
    for (credential, hosts, service) in [
        (&told[0], json!(["store.test", "**.store.test:9000"]), "s3"),
        (&told[1], json!(["queue.corp"]), "sqs"),
    ] {
        assert_eq!(credential["hosts"], hosts);
        let scope = json!({"service": service, "region": "us-east-1"});
        assert_eq!(credential["aws"]["scope"], scope);
        assert_eq!(credential["placeholder"], first["placeholder"]);
        assert_eq!(
            credential["aws"]["placeholder_id"],
            first["aws"]["placeholder_id"]
        );
        assert_eq!(credential["value"], KEY);
    }
    let hosts = value["file"]["credential_hosts"].to_string();
    assert!(
        hosts.contains("\"store.test\"") && hosts.contains("\"queue.corp\""),
        "{hosts}"
    );
    let row = daemon.get("/v1/secrets").ok()["secrets"][0].clone();
    let shown = row["secret"].as_str().unwrap();
    assert!(
        shown.ends_with("(also for store.test=s3/us-east-1, **.store.test:9000=s3/us-east-1, queue.corp=sqs/us-east-1)"),
        "{shown}"
    );
    // They are kept, and go with the key.
    daemon.restart();
    assert_eq!(daemon.get("/v1/secrets").ok()["secrets"][0], row);
    set(&daemon, "aws", &json!([])).ok();
    assert!(own(&last(&configured)).is_empty());
}

#[test]
fn endpoints_that_are_names_of_aws_or_of_strangers_or_of_another_service_are_refused() {
    let daemon = Daemon::start();
    for (service, endpoint, why) in [
        (
            "aws",
            endpoint("s3.eu-west-1.amazonaws.com", "s3"),
            "is a name of AWS",
        ),
        (
            "aws",
            endpoint("**.amazonaws.com.cn", "s3"),
            "is a name of AWS",
        ),
        ("aws", endpoint("**.com", "s3"), "**.com"),
        ("aws", endpoint("**", "s3"), "names of hosts"),
        ("aws", endpoint("store.test", "s 3"), "service and region"),
        ("github", endpoint("store.test", "s3"), "signs no requests"),
    ] {
        let answer = set(&daemon, service, &json!([endpoint]));
        assert_eq!(answer.code(), "endpoint-unusable");
        let text = answer.body.to_string();
        assert!(text.contains(why), "{text}");
        assert!(!text.contains("wJalr"), "{text}");
    }
    assert_eq!(daemon.get("/v1/secrets").ok()["secrets"], json!([]));
}

#[test]
fn a_gateway_that_signs_for_names_of_aws_alone_refuses_what_goes_to_endpoints() {
    let mut daemon = planted();
    let runtime = daemon.runtime().join(ID);
    let _watchers = supervisor(&runtime, 0);
    let configured = gateway_that_refuses(&runtime, |value| {
        let unknown = value.to_string().contains("\"scope\":{");
        unknown.then(|| "unknown field `scope`".to_owned())
    });
    daemon.restart();
    let refused = set(&daemon, "aws", &json!([endpoint("store.test", "s3")]));
    assert_eq!(refused.code(), "gateway-refused");
    let value = last(&configured);
    let closed = own(&value);
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0]["hosts"], json!(["store.test"]));
    assert_eq!(closed[0]["value"], "");
    let why = closed[0]["unavailable"].as_str().unwrap();
    assert!(why.contains("older than sbx"), "{why}");
    // It goes on signing for AWS.
    assert_eq!(value["credentials"][0]["value"], KEY);
    assert!(value["credentials"][0]["aws"]["placeholder_id"].is_string());
}
