//! Precedence, scopes, protocols, DNS and the address check.

use sbx_policy::{
    DenyKind, Evaluator, HostName, IntentKind, PolicyDocument, Port, Protocols, ReasonCode,
    Transport,
};

use crate::support::{SANDBOX, allowed, ask, document, evaluator, intent, ip, resolved, rule};

fn may_resolve(rules: &[&str], name: &str) -> bool {
    let name = HostName::parse(name).unwrap();
    evaluator(rules)
        .name_may_resolve(SANDBOX, &name)
        .is_allowed()
}

#[test]
fn nothing_is_allowed_without_a_rule() {
    let verdict = ask(&evaluator(&[]), "example.com");
    assert_eq!(verdict.reason, ReasonCode::DefaultDeny);
    assert_eq!(verdict.deny_kind, Some(DenyKind::Implicit));
    assert_eq!(
        verdict.reason_text(),
        "No matching allow rule (default deny)"
    );
}

#[test]
fn deny_wins_however_narrow_the_allow() {
    let evaluator = evaluator(&[
        "allow a.example.com:443 @sandbox:claude-app",
        "deny **.example.com",
    ]);
    let verdict = ask(&evaluator, "a.example.com");
    assert_eq!(verdict.deny_kind, Some(DenyKind::Explicit));
    assert_eq!(verdict.rule.unwrap().resource, "**.example.com");
}

#[test]
fn verdict_names_the_rule_that_decided() {
    let rule = ask(&evaluator(&["allow b.test", "allow a.test:443"]), "a.test")
        .rule
        .unwrap();
    assert_eq!(
        (rule.id.as_str(), rule.resource.as_str()),
        ("r1", "a.test:443")
    );
}

#[test]
fn scoped_rules_are_for_their_sandbox_alone() {
    assert!(allowed(&["allow a.test @sandbox:claude-app"], "a.test"));
    assert!(allowed(&["allow a.test @kit:claude-app"], "a.test"));
    assert!(allowed(&["allow a.test @approval:1@claude-app"], "a.test"));
    assert!(allowed(&["allow a.test @org"], "a.test"));
    assert!(!allowed(&["allow a.test @sandbox:other"], "a.test"));
    assert!(allowed(
        &["allow a.test", "deny a.test @sandbox:other"],
        "a.test"
    ));
}

#[test]
fn under_an_organisation_only_its_allows_count_and_every_deny() {
    let rules = [
        "allow a.test",
        "allow b.test @kit:claude-app",
        "allow c.test @org",
        "deny d.test",
        "allow d.test @org",
    ];
    let evaluator = Evaluator::new(&PolicyDocument {
        governed: true,
        ..document(&rules)
    });
    for (host, expected) in [
        ("a.test", false),
        ("b.test", false),
        ("c.test", true),
        ("d.test", false),
    ] {
        assert_eq!(ask(&evaluator, host).is_allowed(), expected, "{host}");
    }
}

#[test]
fn a_governed_policy_decides_alike_whole_and_reduced_to_its_sandbox() {
    let mine = format!("allow b.test @sandbox:{SANDBOX}");
    let rules = [
        "allow a.test",
        &mine,
        "allow c.test @org",
        "deny c.test @sandbox:other",
    ];
    let whole = PolicyDocument {
        governed: true,
        ..document(&rules)
    };
    let reduced = whole.reduced_to(Some(SANDBOX));
    assert_eq!(reduced.rules.len(), 3);
    assert_eq!(whole.reduced_to(None).rules.len(), 2);
    let (whole, reduced) = (Evaluator::new(&whole), Evaluator::new(&reduced));
    for (host, expected) in [("a.test", false), ("b.test", false), ("c.test", true)] {
        assert_eq!(ask(&whole, host).is_allowed(), expected, "{host}");
        assert_eq!(ask(&reduced, host).is_allowed(), expected, "{host}");
    }
}

#[test]
fn allows_are_for_tcp_and_denies_for_both_unless_said() {
    let udp = |rules: Vec<sbx_policy::Rule>| {
        let evaluator = Evaluator::new(&PolicyDocument::new(1, rules)).opening_udp(true);
        let mut intent = intent("a.test:9000");
        intent.transport = Transport::Udp;
        evaluator.decide(&intent).is_allowed()
    };
    assert!(!udp(vec![rule("a", "allow a.test")]));
    let open = sbx_policy::Rule {
        protocols: Protocols::UDP,
        ..rule("a", "allow a.test")
    };
    assert!(udp(vec![open.clone()]));
    assert!(!udp(vec![open, rule("b", "deny a.test")]));
}

#[test]
fn names_resolve_only_when_some_rule_could_allow_them() {
    assert!(!may_resolve(&[], "a.test"));
    assert!(may_resolve(&["allow a.test:22"], "a.test"));
    assert!(may_resolve(&["allow **"], "secret.a.test"));
    assert!(!may_resolve(&["allow a.test"], "secret.a.test"));
    assert!(!may_resolve(&["allow a.test", "deny a.test"], "a.test"));
    assert!(!may_resolve(
        &["allow a.test:22", "deny a.test:22"],
        "a.test"
    ));
    assert!(may_resolve(&["allow a.test", "deny a.test:22"], "a.test"));
    assert!(may_resolve(
        &["allow a.test:443,a.test:22", "deny a.test:22"],
        "a.test"
    ));
    assert!(!may_resolve(&["allow a.test @sandbox:other"], "a.test"));
    // A rule about addresses lets no name out.
    assert!(!may_resolve(&["allow 0.0.0.0/0"], "a.test"));
    assert!(
        may_resolve(&["deny **"], "host.docker.internal"),
        "answered locally"
    );
}

#[test]
fn a_dns_intent_is_the_same_question_as_name_may_resolve() {
    for rules in [
        &["allow a.test:22"][..],
        &["allow a.test", "deny a.test"],
        &[],
    ] {
        let mut intent = intent("a.test:1");
        intent.kind = IntentKind::Dns;
        let name = HostName::parse("a.test").unwrap();
        let evaluator = evaluator(rules);
        assert_eq!(
            evaluator.decide(&intent),
            evaluator.name_may_resolve(SANDBOX, &name)
        );
    }
}

#[test]
fn only_checked_addresses_are_pinned() {
    let verdict = resolved(
        &["allow a.test"],
        "a.test",
        &["10.0.0.1", "192.0.2.1", "2001:db8::1", "::1"],
    );
    assert!(verdict.is_allowed());
    assert_eq!(verdict.pinned, [ip("192.0.2.1"), ip("2001:db8::1")]);
    let verdict = resolved(&["allow a.test"], "a.test", &["10.0.0.1", "127.0.0.1"]);
    assert_eq!(verdict.reason, ReasonCode::AddressBlocked);
    assert!(verdict.pinned.is_empty());
    assert_eq!(
        resolved(&["allow a.test"], "a.test", &[]).reason,
        ReasonCode::NoAddress
    );
}

#[test]
fn an_allowed_name_is_not_asked_again_about_its_address_but_a_denied_range_counts() {
    assert!(resolved(&["allow a.test"], "a.test", &["192.0.2.1"]).is_allowed());
    let denied = ["allow a.test", "deny 192.0.2.0/24"];
    assert_eq!(
        resolved(&denied, "a.test", &["192.0.2.1"]).reason,
        ReasonCode::DenyRule
    );
    assert_eq!(
        resolved(&denied, "a.test", &["192.0.2.1", "198.51.100.1"]).pinned,
        [ip("198.51.100.1")]
    );
    let other_port = ["allow a.test", "deny 192.0.2.0/24:22"];
    assert!(resolved(&other_port, "a.test", &["192.0.2.1"]).is_allowed());
}

#[test]
fn a_name_rule_does_not_open_its_addresses_and_an_address_rule_no_names() {
    assert!(!allowed(&["allow a.test"], "192.0.2.1"));
    assert!(!allowed(&["allow 192.0.2.1"], "a.test"));
    assert!(allowed(&["allow 192.0.2.0/24"], "192.0.2.1"));
}

#[test]
fn address_allowed_agrees_with_decide() {
    let evaluator = evaluator(&[
        "allow a.test",
        "allow 192.0.2.0/24:443",
        "deny 198.51.100.1",
        "allow 10.0.0.1",
        "allow 10.0.0.3:80",
    ]);
    for address in [
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "10.0.0.1",
        "10.0.0.3",
        "10.0.0.2",
        "127.0.0.1",
    ] {
        let on = |port| {
            let ways = [(Transport::Tcp, port)];
            evaluator.address_allowed(SANDBOX, ip(address), ways)
        };
        let mut any = false;
        for port in [Port::HTTPS, Port::HTTP] {
            let mut intent = intent("a.test").with_resolved(vec![ip(address)]);
            intent.port = port;
            let decided = evaluator.decide(&intent).is_allowed();
            assert_eq!(on(port), decided, "{address} {port}");
            any |= decided;
        }
        let ways = [Port::HTTP, Port::HTTPS].map(|port| (Transport::Tcp, port));
        let said = evaluator.address_allowed(SANDBOX, ip(address), ways);
        assert_eq!(said, any, "{address}");
        assert!(!evaluator.address_allowed(SANDBOX, ip(address), []));
    }
}

#[test]
fn a_denying_rule_is_the_reason_before_the_address_check() {
    let verdict = ask(&evaluator(&["deny **:443"]), "10.0.0.1");
    assert_eq!(verdict.deny_kind, Some(DenyKind::Explicit));
    assert_eq!(
        ask(&evaluator(&["allow **"]), "10.0.0.1").deny_kind,
        Some(DenyKind::Implicit)
    );
}

#[test]
fn link_local_udp_is_never_opened() {
    let open = sbx_policy::Rule {
        protocols: Protocols::ALL,
        ..rule("a", "allow 169.254.1.0/24")
    };
    let evaluator = Evaluator::new(&PolicyDocument::new(1, vec![open])).opening_udp(true);
    let ask = |transport| {
        let mut intent = intent("169.254.1.1:80");
        intent.transport = transport;
        evaluator.decide(&intent).is_allowed()
    };
    assert!(ask(Transport::Tcp));
    assert!(!ask(Transport::Udp));
}

#[test]
fn host_services_need_a_rule_that_names_them() {
    assert!(!allowed(&["allow **"], "localhost:8080"));
    assert!(allowed(
        &["allow localhost:8080"],
        "host.docker.internal:8080"
    ));
    assert!(!allowed(
        &["allow localhost:8080"],
        "host.docker.internal:8081"
    ));
}

#[test]
fn evaluator_knows_its_generation() {
    assert_eq!(evaluator(&[]).generation(), 7);
}
