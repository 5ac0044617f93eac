//! UDP: closed until a setting opens it, and in some places always.

use sbx_policy::{
    CheckReport, DenyKind, Evaluator, HostName, Miss, PolicyDocument, Port, Protocols, ReasonCode,
    Rule, Transport, Verdict, check, never_by_udp,
};

use crate::support::{SANDBOX, intent, ip, rule};

/// Rules as [`rule`] writes them, the allows about UDP alone.
fn evaluator(rules: &[&str]) -> Evaluator {
    let about_udp = |(n, text): (usize, &&str)| {
        let rule = rule(&format!("r{n}"), text);
        let protocols = if text.starts_with("allow") {
            Protocols::UDP
        } else {
            rule.protocols
        };
        Rule { protocols, ..rule }
    };
    let rules = rules.iter().enumerate().map(about_udp).collect();
    Evaluator::new(&PolicyDocument::new(1, rules))
}

fn datagram(evaluator: &Evaluator, target: &str) -> Verdict {
    let mut intent = intent(target);
    intent.transport = Transport::Udp;
    evaluator.decide(&intent)
}

fn checked(evaluator: &Evaluator, target: &str) -> CheckReport {
    let parsed = target.parse().unwrap();
    check(evaluator, Some(SANDBOX), Transport::Udp, &parsed, None)
}

#[test]
fn rules_open_no_udp_until_the_setting_does() {
    let rules = ["allow a.test", "allow 10.0.0.1", "allow localhost:9000"];
    for target in ["a.test:9000", "10.0.0.1:9000", "localhost:9000"] {
        let verdict = datagram(&evaluator(&rules), target);
        let why = (verdict.reason, verdict.deny_kind, verdict.rule);
        let closed = (ReasonCode::UdpBlocked, Some(DenyKind::Implicit), None);
        assert_eq!(why, closed, "{target}");
        let open = evaluator(&rules).opening_udp(true);
        assert!(datagram(&open, target).is_allowed(), "{target}");
    }
}

#[test]
fn check_names_the_setting_that_opens_udp_and_the_rule_that_waits_for_it() {
    let report = checked(&evaluator(&["allow a.test"]), "a.test:9000");
    assert_eq!(
        report.text("a.test:9000"),
        "Denied: a.test:9000\n\
         Reason: UDP is closed: sbx settings set feature.udp-egress true lets rules open it\n"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["reason_code"], "udp_blocked");
    let nearest = report.nearest.unwrap();
    assert_eq!(
        (nearest.miss, nearest.rule.id.as_str()),
        (Miss::Overruled, "r0")
    );
}

#[test]
fn no_rule_and_no_setting_opens_resolvers_multicast_or_broadcast() {
    let rules = ["allow **", "allow 224.0.0.0/4", "allow 192.168.0.0/16"];
    for udp in [false, true] {
        let evaluator = evaluator(&rules).opening_udp(udp);
        for port in [53, 853, 5353, 5355] {
            for host in ["a.test", "203.0.113.9", "224.0.0.251"] {
                let report = checked(&evaluator, &format!("{host}:{port}"));
                assert_eq!(report.reason_code, ReasonCode::ForeignResolver);
                assert!(report.reason.contains("resolver of its own"));
            }
        }
        for host in ["239.1.2.3", "255.255.255.255", "192.168.127.255"] {
            let report = checked(&evaluator, &format!("{host}:9000"));
            assert_eq!(report.reason_code, ReasonCode::UdpBlocked, "{host}");
            // Not what opening UDP would change.
            assert!(!report.reason.contains("settings"), "{}", report.reason);
        }
    }
}

#[test]
fn a_name_leads_to_no_address_that_datagrams_never_go_to() {
    let evaluator = evaluator(&["allow a.test", "allow 192.168.127.0/24"]).opening_udp(true);
    for (address, expected) in [("192.168.127.9", true), ("192.168.127.255", false)] {
        let mut intent = intent("a.test:9000").with_resolved(vec![ip(address)]);
        intent.transport = Transport::Udp;
        assert_eq!(evaluator.decide(&intent).is_allowed(), expected);
        let ways = [(Transport::Udp, Port::HTTPS)];
        let said = evaluator.address_allowed(SANDBOX, ip(address), ways);
        assert_eq!(said, expected, "{address}");
    }
}

#[test]
fn what_is_said_of_a_packet_is_what_the_evaluator_says() {
    let rules = ["allow **", "allow 224.0.0.0/4", "allow 192.168.0.0/16"];
    let evaluator = evaluator(&rules).opening_udp(true);
    for host in [
        "203.0.113.9",
        "192.168.127.255",
        "224.0.0.251",
        "192.168.0.1",
    ] {
        for port in [53, 80, 853, 5352, 5353, 5355, 9000] {
            let verdict = datagram(&evaluator, &format!("{host}:{port}"));
            let never = never_by_udp(Some(ip(host)), port);
            assert_eq!(verdict.is_allowed(), never.is_none(), "{host}:{port}");
            assert_eq!(never.unwrap_or(ReasonCode::AllowRule), verdict.reason);
        }
    }
}

#[test]
fn a_name_is_resolved_only_for_datagrams_that_may_go_there() {
    let name: HostName = "a.test".parse().unwrap();
    for (rules, udp, expected) in [
        (&["allow a.test"][..], true, Ok(())),
        (&["allow a.test"], false, Err(ReasonCode::UdpBlocked)),
        (&["allow a.test:53"], true, Err(ReasonCode::ForeignResolver)),
        (
            &["allow a.test", "deny a.test"],
            true,
            Err(ReasonCode::DenyRule),
        ),
        (&["allow b.test"], false, Err(ReasonCode::DefaultDeny)),
    ] {
        let evaluator = evaluator(rules).opening_udp(udp);
        let verdict = evaluator.name_may_resolve(SANDBOX, &name);
        let said = if verdict.is_allowed() {
            Ok(())
        } else {
            Err(verdict.reason)
        };
        assert_eq!(said, expected, "{rules:?}");
        let protocols = evaluator.protocols_to(SANDBOX, &name);
        assert_eq!(protocols.contains(Transport::Udp), expected.is_ok());
        assert!(!protocols.contains(Transport::Tcp));
    }
}
