//! Properties that hold for any policy and any question, over a small world where rules collide.

use std::net::IpAddr;

use proptest::prelude::*;
use sbx_policy::{
    CreatedVia, Decision, Evaluator, Host, HostName, HttpRequest, Inspection, Intent, IntentKind,
    PolicyDocument, Protocols, ResourcePattern, Rule, Target, Transport, Verdict, check,
};

use crate::generate::{intent, name, name_pattern, policy, resource, rule};
use crate::naive::{may_pass, naive};

/// A question about a connection whose address nobody knows yet.
fn connection() -> impl Strategy<Value = Intent> {
    intent().prop_filter_map("a look-up", |intent| {
        (intent.kind != IntentKind::Dns).then_some(Intent {
            resolved: None,
            ..intent
        })
    })
}

fn decide(policy: &PolicyDocument, intent: &Intent) -> Verdict {
    Evaluator::new(policy).opening_udp(true).decide(intent)
}

/// Everything that `narrow` lets through, `wide` lets through.
fn is_within(narrow: &Verdict, wide: &Verdict) -> bool {
    let pinned = narrow.pinned.iter().all(|ip| wide.pinned.contains(ip));
    !narrow.is_allowed() || (wide.is_allowed() && pinned)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(3000) })]

    #[test]
    fn adding_a_deny_never_allows_more(policy in policy(), deny in rule(Just(Decision::Deny)), intent in intent()) {
        let mut more = policy.clone();
        more.rules.push(Rule { id: "deny".into(), ..deny });
        let (before, after) = (decide(&policy, &intent), decide(&more, &intent));
        prop_assert!(is_within(&after, &before), "{before:?} became {after:?}");
    }

    #[test]
    fn adding_an_allow_never_allows_less(policy in policy(), allow in rule(Just(Decision::Allow)), intent in intent()) {
        let mut more = policy.clone();
        more.rules.push(Rule { id: "allow".into(), ..allow });
        prop_assert!(is_within(&decide(&policy, &intent), &decide(&more, &intent)));
    }

    #[test]
    fn rule_order_is_irrelevant(policy in policy(), intent in intent(), seed in any::<u64>()) {
        let mut shuffled = policy.clone();
        shuffled.rules.sort_by_key(|rule| rule.id.bytes().fold(seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3).rotate_left(29)));
        for rule in &mut shuffled.rules {
            rule.resources.reverse();
        }
        prop_assert_eq!(decide(&policy, &intent), decide(&shuffled, &intent));
    }

    #[test]
    fn the_evaluator_agrees_with_a_naive_one(policy in policy(), intent in connection()) {
        let (passes, may) = (decide(&policy, &intent).is_allowed(), may_pass(&policy, &intent));
        prop_assert!(!passes || may);
        // Only addresses that are not public need more than the rules.
        let public = match intent.host {
            Host::Ip(ip) => sbx_policy::classify(ip) == sbx_policy::AddressClass::Public,
            _ => true,
        };
        prop_assert!(!public || passes == may);
    }

    #[test]
    fn a_request_is_asked_about_only_where_its_connection_may_be_looked_into(policy in policy(), intent in connection()) {
        let request = Intent { kind: IntentKind::Http, http: Some(HttpRequest::parse("GET", "/a").unwrap()), transport: Transport::Tcp, ..intent };
        let connection = Intent { kind: IntentKind::Tls, http: None, ..request.clone() };
        let (request, connection) = (decide(&policy, &request), decide(&policy, &connection));
        // Denied, or allowed without a look: the same answer to every request, and where it is allowed by the same rule. What
        // two things deny may be said of either.
        if connection.inspection == Inspection::NotNeeded {
            let denied = !connection.is_allowed() && !request.is_allowed();
            prop_assert!(denied || request == connection, "{request:?} {connection:?}");
        }
    }

    #[test]
    fn index_agrees_with_a_naive_matcher(patterns in prop::collection::vec(name_pattern(), 1..12), name in name()) {
        let host: Host = name.parse().unwrap();
        let expected = patterns.iter().any(|pattern| naive(&pattern.host.to_string(), &host));
        let alone = patterns.iter().any(|pattern| pattern.host.matches(&host));
        prop_assert_eq!(alone, expected);
        let rules = patterns.into_iter().enumerate().map(|(n, pattern)| allow(n, vec![pattern])).collect();
        let intent = Intent::new("", Transport::Tcp, IntentKind::Tls, host, sbx_policy::Port::HTTPS);
        prop_assert_eq!(decide(&PolicyDocument::new(1, rules), &intent).is_allowed(), expected);
    }

    #[test]
    fn resources_decide_alike_in_one_rule_and_in_many(resources in prop::collection::vec(resource(), 1..8), intent in intent()) {
        let together = PolicyDocument::new(1, vec![allow(0, resources.clone())]);
        let apart = resources.into_iter().enumerate().map(|(n, resource)| allow(n, vec![resource])).collect();
        let (together, apart) = (decide(&together, &intent), decide(&PolicyDocument::new(1, apart), &intent));
        prop_assert!(is_within(&together, &apart) && is_within(&apart, &together));
    }

    #[test]
    fn closed_udp_lets_no_datagram_through_and_changes_nothing_else(policy in policy(), intent in connection()) {
        let closed = Evaluator::new(&policy).decide(&intent);
        if intent.transport == Transport::Udp {
            prop_assert!(!closed.is_allowed() && closed.pinned.is_empty());
        } else {
            prop_assert_eq!(closed, decide(&policy, &intent));
        }
    }

    #[test]
    fn check_says_what_the_evaluator_decides(policy in policy(), intent in intent(), udp in any::<bool>()) {
        let intent = Intent { resolved: None, http: intent.http.filter(|_| intent.transport == Transport::Tcp), ..intent };
        let kind = if intent.http.is_some() { IntentKind::Http } else { IntentKind::Tls };
        let intent = Intent { kind, ..intent };
        let evaluator = Evaluator::new(&policy).opening_udp(udp);
        let sandbox = (!intent.sandbox.is_empty()).then_some(&*intent.sandbox);
        let target = Target { host: intent.host.clone(), port: intent.port };
        let report = check(&evaluator, sandbox, intent.transport, &target, intent.http.clone());
        let verdict = evaluator.decide(&intent);
        prop_assert_eq!(report.allowed, verdict.is_allowed());
        prop_assert_eq!(report.reason_code, verdict.reason);
        prop_assert_eq!(report.inspection, verdict.inspection);
        prop_assert_eq!(report.rule_id, verdict.rule.as_ref().map(|rule| rule.id.clone()));
        if let Some(nearest) = report.nearest {
            prop_assert_eq!(nearest.decision == Decision::Allow, !verdict.is_allowed());
            prop_assert!(policy.rules.iter().any(|rule| rule.id == nearest.rule.id && rule.decision == nearest.decision));
        }
    }

    #[test]
    fn a_policy_decides_alike_whole_and_reduced_to_its_sandbox(policy in policy(), intent in intent()) {
        let reduced = policy.reduced_to(Some(&*intent.sandbox));
        prop_assert_eq!(decide(&policy, &intent), decide(&reduced, &intent));
    }

    #[test]
    fn a_policy_decides_alike_after_a_journey(policy in policy(), intent in intent()) {
        let text = serde_json::to_string(&policy).unwrap();
        let again: PolicyDocument = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&again, &policy);
        prop_assert_eq!(decide(&policy, &intent), decide(&again, &intent));
    }

    #[test]
    fn no_written_allow_takes_in_strangers_below_a_registry(
        lead in prop::sample::select(&["", "*.", "**.", ".", "*", "a*.", "**.b*.", "a.*."][..]),
        suffix in prop::sample::select(&["com", "co.uk", "org.au", "kawasaki.jp", "edu.pl", "xn--p1ai", "dev", "k12.ca.us"][..]),
        stranger in "[ab][a-z]{3,8}",
    ) {
        if let Ok(pattern) = ResourcePattern::parse(&format!("{lead}{suffix}")) {
            let below = [format!("{stranger}.{suffix}"), format!("a.{stranger}.{suffix}"), format!("x.b.{stranger}.{suffix}")];
            let covered = below.iter().any(|name| pattern.host.matches(&name.parse().unwrap()));
            prop_assert_eq!(allow(0, vec![pattern]).review().is_err(), covered || lead.contains('*'));
        }
    }

    #[test]
    fn a_name_that_may_be_reached_may_be_resolved(policy in policy(), intent in intent(), udp in any::<bool>()) {
        let evaluator = Evaluator::new(&policy).opening_udp(udp);
        if let Host::Name(name) = &intent.host && intent.kind != IntentKind::Dns {
            let protocols = evaluator.protocols_to(&intent.sandbox, name);
            let passes = evaluator.decide(&intent).is_allowed();
            prop_assert!(!passes || protocols.contains(intent.transport));
            let dns = Intent { kind: IntentKind::Dns, ..intent };
            prop_assert_eq!(evaluator.decide(&dns).is_allowed(), protocols.iter().next().is_some());
        }
    }

    #[test]
    fn only_offered_addresses_are_pinned(policy in policy(), intent in intent()) {
        let verdict = decide(&policy, &intent);
        prop_assert!(verdict.is_allowed() || verdict.pinned.is_empty());
        let offered = |ip: &IpAddr| match &intent.host {
            Host::Ip(own) => own == ip,
            _ => intent.resolved.as_ref().is_some_and(|list| list.contains(ip)),
        };
        prop_assert!(verdict.pinned.iter().all(offered));
    }

    #[test]
    fn names_are_canonical_once_parsed(text in "\\PC{0,40}|[a-zA-Z0-9._-]{0,40}|xn--[a-z0-9-]{0,20}(\\.test)?|[a-z\u{e0}-\u{17f}.]{0,30}") {
        if let Ok(name) = HostName::parse(&text) {
            prop_assert_eq!(&HostName::parse(name.as_str()).unwrap(), &name);
            prop_assert!(name.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)));
            prop_assert!(name.as_str().parse::<IpAddr>().is_err());
        }
    }

    #[test]
    fn targets_parse_from_their_text(text in "\\PC{0,40}|(https?://)?[a-z0-9.:@\\[\\]-]{0,30}(:[0-9]{1,5})?") {
        if let Ok(target) = Target::parse(&text) {
            prop_assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
        }
    }

    #[test]
    fn patterns_parse_from_their_text(text in "\\PC{0,40}|\\*{0,2}\\.?[a-zA-Z0-9.*?\\[\\]-]{0,20}\\.example(:[0-9]{1,5})?|[0-9a-f.:/\\[\\]]{1,24}") {
        if let Ok(pattern) = ResourcePattern::parse(&text) {
            prop_assert_eq!(pattern.to_string().parse::<ResourcePattern>().unwrap(), pattern);
        }
    }
}

fn allow(n: usize, resources: Vec<ResourcePattern>) -> Rule {
    Rule {
        id: format!("r{n}"),
        name: None,
        scope: "global".parse().unwrap(),
        decision: Decision::Allow,
        resources,
        protocols: Protocols::TCP,
        created_via: CreatedVia::Added,
        http: None,
    }
}
