//! What `policy check` says.

use sbx_policy::{
    CheckReport, Evaluator, HttpRequest, Miss, PolicyDocument, Rule, Transport, check,
};

use crate::support::{SANDBOX, evaluator, http_rule, rule};

fn report(rules: &[&str], target: &str) -> CheckReport {
    check(
        &evaluator(rules),
        Some(SANDBOX),
        Transport::Tcp,
        &target.parse().unwrap(),
        None,
    )
}

#[test]
fn an_allowed_target_takes_one_line() {
    assert_eq!(
        report(&["allow a.test"], "a.test").text("a.test"),
        "Allowed: a.test\n"
    );
}

#[test]
fn a_target_without_rule_is_denied_by_default() {
    let report = report(&[], "a.test");
    assert_eq!(
        report.text("a.test"),
        "Denied: a.test\nReason: No matching allow rule (default deny)\n"
    );
    assert_eq!(report.nearest, None);
}

#[test]
fn a_denying_rule_is_named() {
    let report = report(&["deny a.test @sandbox:claude-app", "allow **"], "a.test");
    assert_eq!(
        report.text("a.test"),
        "Denied: a.test\nReason: Denied by rule r0 (a.test, scope: sandbox:claude-app)\n"
    );
    assert_eq!(report.nearest.unwrap().miss, Miss::Overruled);
}

#[test]
fn the_nearest_rule_says_what_was_missing() {
    for (rules, target, miss) in [
        (&["allow a.test:443"][..], "http://a.test", Miss::Port),
        (&["allow a.test @sandbox:other"], "a.test", Miss::Sandbox),
        (&["allow **.a.test"], "a.test", Miss::Name),
        (&["allow a.test"], "www.a.test", Miss::Name),
        (&["allow 10.0.0.0/8:22"], "10.0.0.1:23", Miss::Port),
    ] {
        let nearest = report(rules, target).nearest.unwrap();
        assert_eq!(nearest.miss, miss, "{target}");
        assert_eq!(nearest.rule.id, "r0");
    }
    assert_eq!(report(&["allow other.test"], "a.test").nearest, None);
}

#[test]
fn for_something_allowed_the_nearest_rule_is_the_deny_that_just_misses_it() {
    for (rules, miss) in [
        (&["allow a.test", "deny a.test:22"][..], Miss::Port),
        (
            &["allow a.test", "deny a.test @sandbox:other"],
            Miss::Sandbox,
        ),
    ] {
        let nearest = report(rules, "a.test").nearest.unwrap();
        assert_eq!((nearest.miss, nearest.rule.id.as_str()), (miss, "r1"));
        assert!(nearest.to_string().contains("denies"), "{nearest}");
    }
    assert_eq!(
        report(&["allow a.test", "deny b.a.test"], "a.test").nearest,
        None
    );
}

#[test]
fn details_name_rule_layer_scope_and_nearest() {
    let report = report(
        &["allow **.a.test", "deny b.a.test @sandbox:claude-app"],
        "https://b.a.test/x",
    );
    assert_eq!(
        report.details(),
        "Target: b.a.test:443 (net:connect:tcp)\n\
         Rule: r1 (b.a.test; layer: sandbox, scope: sandbox:claude-app, id: r1)\n\
         Nearest: r0 (**.a.test, scope: global) allows this, but is overruled\n"
    );
}

#[test]
fn a_port_that_no_rule_names_is_said_to_take_tls_alone_through_the_proxy() {
    let notes = |rules: &[&str], target: &str| {
        let report = report(rules, target);
        let said = report.text(target).contains("has to begin with TLS");
        assert_eq!(said, report.tls_only);
        said
    };
    assert!(notes(&["allow a.test"], "a.test:22"));
    // However the rules are written, one that names the port counts.
    for port in ["allow a.test:22", "allow *.test:22", "allow **:22"] {
        assert!(!notes(&["allow a.test", port], "a.test:22"), "{port}");
    }
    assert!(notes(&["allow 2001:db8::22"], "[2001:db8::22]:22"));
    assert!(!notes(&["allow [2001:db8::22]:22"], "[2001:db8::22]:22"));
    assert!(!notes(&["allow a.test"], "http://a.test") && !notes(&["allow a.test"], "a.test"));
    assert!(!notes(&[], "a.test:22"));
    let udp = Rule {
        protocols: [Transport::Udp].into_iter().collect(),
        ..rule("u", "allow a.test")
    };
    let udp = check(
        &Evaluator::new(&PolicyDocument::new(1, vec![udp])).opening_udp(true),
        None,
        Transport::Udp,
        &"a.test:22".parse().unwrap(),
        None,
    );
    assert!(udp.allowed && !udp.tls_only);
}

#[test]
fn a_service_of_the_host_is_said_to_be_one() {
    let report = report(&["allow localhost:8080"], "host.docker.internal:8080");
    assert!(report.host_service && report.allowed);
    let text = report.text("host.docker.internal:8080");
    assert!(text.contains("a service of this machine"), "{text}");
}

#[test]
fn method_and_path_are_judged() {
    let rules = vec![
        http_rule("h", "allow a.test", "GET", "/x"),
        rule("z", "allow z.test"),
    ];
    let evaluator = Evaluator::new(&PolicyDocument::new(1, rules));
    let ask = |method, path| {
        let request = HttpRequest::parse(method, path).unwrap();
        check(
            &evaluator,
            None,
            Transport::Tcp,
            &"a.test".parse().unwrap(),
            Some(request),
        )
    };
    assert!(ask("GET", "/x").allowed);
    let denied = ask("POST", "/x");
    assert!(!denied.allowed);
    assert_eq!(denied.nearest.unwrap().miss, Miss::Request);
}

#[test]
fn json_has_the_documented_keys() {
    let json = serde_json::to_value(report(&["deny a.test:443"], "https://a.test")).unwrap();
    assert_eq!(json["action"], "net:connect:tcp");
    assert_eq!(json["allowed"], false);
    assert_eq!(json["context"], "sandbox:claude-app");
    assert_eq!(json["deny_kind"], "explicit");
    assert_eq!(json["reason_code"], "deny_rule");
    assert_eq!(json["resource_type"], "net:domain");
    assert_eq!(json["resource_value"], "a.test:443");
    assert_eq!(json["rule"], "r0");
    assert_eq!(json["origin"], "local");
    assert_eq!(json["target"], "a.test:443");
    assert_eq!(json["type"], "network");
    assert_eq!(json["layer"], "global");
    assert_eq!(json["host_service"], false);
    assert_eq!(json["tls_only"], false);
}
