//! Properties that hold for any policy and any question, over a small world where rules collide.

use std::net::IpAddr;

use proptest::prelude::*;
use sbx_policy::{
    CreatedVia, Decision, Evaluator, Host, HostName, HttpMatch, HttpRequest, Intent, IntentKind,
    PolicyDocument, Port, Protocols, ResourcePattern, Rule, Target, Transport, Verdict,
};

const HOSTS: [&str; 8] = [
    "x.test",
    "a.x.test",
    "b.x.test",
    "b.a.x.test",
    "ax.test",
    "a1.x.test",
    "y.test",
    "a.y.test",
];
const ADDRESSES: [&str; 8] = [
    "192.0.2.1",
    "192.0.2.2",
    "10.0.0.1",
    "10.1.0.1",
    "2001:db8::1",
    "fd00::1",
    "64:ff9b::a00:1",
    "127.0.0.1",
];
const PATTERNS: [&str; 26] = [
    "x.test",
    "*.x.test",
    "**.x.test",
    ".x.test",
    "a*.x.test",
    "?.x.test",
    "a?.x.test",
    "*1.x.test",
    "[ab].x.test",
    "**.a*.x.test",
    ".*.x.test",
    "a.*.x.test",
    "y.test",
    ".y.test",
    "**",
    "192.0.2.1",
    "192.0.2.0/24",
    "10.0.0.0/8",
    "10.0.0.1",
    "0.0.0.0/0",
    "::/0",
    "2001:db8::/32",
    "fd00::/8",
    "64:ff9b::/96",
    "localhost",
    "10.0.0.0/15",
];
const SCOPES: [&str; 4] = ["global", "sandbox:one", "kit:two", "org"];
const PATHS: [&str; 4] = ["/**", "/a", "/a/*", "/a/**"];

fn resource() -> impl Strategy<Value = ResourcePattern> {
    let port = prop_oneof![Just(None), (80_u16..82).prop_map(Some)];
    (prop::sample::select(&PATTERNS[..]), port).prop_map(|(host, port)| {
        let pattern: ResourcePattern = host.parse().unwrap();
        ResourcePattern {
            port: port.map(|p| Port::try_from(p).unwrap()),
            ..pattern
        }
    })
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let methods = prop::sample::select(&["ANY", "GET", "POST,PUT"][..]);
    (methods, prop::sample::select(&PATHS[..])).prop_map(|(methods, path)| HttpMatch {
        methods: methods.parse().unwrap(),
        path: path.parse().unwrap(),
    })
}

fn rule(decision: impl Strategy<Value = Decision>) -> impl Strategy<Value = Rule> {
    let protocols = prop::sample::select(&[Protocols::TCP, Protocols::UDP, Protocols::ALL][..]);
    let http = prop_oneof![3 => Just(None), 1 => http_match().prop_map(Some)];
    let scope = prop::sample::select(&SCOPES[..]);
    (
        decision,
        prop::collection::vec(resource(), 1..3),
        protocols,
        http,
        scope,
    )
        .prop_map(|(decision, resources, protocols, http, scope)| {
            let rule = Rule {
                id: "tmp".into(),
                name: None,
                scope: scope.parse().unwrap(),
                decision,
                resources,
                protocols,
                created_via: CreatedVia::Added,
                http,
            };
            if rule.validate().is_ok() {
                rule
            } else {
                Rule { http: None, ..rule }
            }
        })
}

/// A policy that allows much and denies little, so that both answers are common.
fn policy() -> impl Strategy<Value = PolicyDocument> {
    let decision = prop_oneof![3 => Just(Decision::Allow), 1 => Just(Decision::Deny)];
    (
        prop::collection::vec(rule(decision), 0..8),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(mut rules, governed)| {
            for (n, rule) in rules.iter_mut().enumerate() {
                rule.id = format!("r{n}");
            }
            PolicyDocument {
                generation: 1,
                rules,
                governed,
            }
        })
}

fn intent() -> impl Strategy<Value = Intent> {
    let host = prop_oneof![
        4 => prop::sample::select(&HOSTS[..]),
        2 => prop::sample::select(&ADDRESSES[..]),
        1 => Just("localhost"),
    ];
    let kind = prop::sample::select(
        &[
            IntentKind::Dns,
            IntentKind::Tls,
            IntentKind::Opaque,
            IntentKind::Http,
        ][..],
    );
    let transport = prop_oneof![3 => Just(Transport::Tcp), 1 => Just(Transport::Udp)];
    let addresses = prop::collection::vec(prop::sample::select(&ADDRESSES[..]), 0..4);
    let request = (
        prop::sample::select(&["GET", "POST", "PURGE"][..]),
        prop::sample::select(&["/", "/a", "/A;x", "/a/b", "/b/../a"][..]),
    );
    let sandbox = prop::sample::select(&["one", "two", ""][..]);
    (
        host,
        80_u16..82,
        kind,
        transport,
        prop::option::of(addresses),
        request,
        sandbox,
    )
        .prop_map(
            |(host, port, kind, transport, resolved, (method, path), sandbox)| Intent {
                resolved: resolved.map(|list| list.iter().map(|ip| ip.parse().unwrap()).collect()),
                http: (kind == IntentKind::Http).then(|| HttpRequest::parse(method, path).unwrap()),
                ..Intent::new(
                    sandbox,
                    transport,
                    kind,
                    host.parse().unwrap(),
                    Port::try_from(port).unwrap(),
                )
            },
        )
}

fn decide(policy: &PolicyDocument, intent: &Intent) -> Verdict {
    Evaluator::new(policy).decide(intent)
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
    fn index_agrees_with_a_naive_matcher(rules in prop::collection::vec(resource(), 0..12), intent in intent()) {
        // Without addresses to check, the answer is about patterns and ports alone.
        let intent = Intent { kind: IntentKind::Opaque, transport: Transport::Tcp, resolved: None, http: None, ..intent };
        let special = matches!(intent.host, Host::Ip(ip) if sbx_policy::classify(ip) != sbx_policy::AddressClass::Public);
        prop_assume!(!special);
        let expected = rules.iter().any(|resource| {
            resource.port.is_none_or(|port| port == intent.port) && naive(&resource.host.to_string(), &intent.host)
        });
        let rule = |n: usize, resource: &ResourcePattern| Rule {
            id: format!("r{n}"), name: None, scope: "global".parse().unwrap(), decision: Decision::Allow,
            resources: vec![resource.clone()], protocols: Protocols::TCP, created_via: CreatedVia::Added, http: None,
        };
        let rules = rules.iter().enumerate().map(|(n, resource)| rule(n, resource)).collect();
        prop_assert_eq!(decide(&PolicyDocument::new(1, rules), &intent).is_allowed(), expected);
    }

    #[test]
    fn a_name_that_may_be_reached_may_be_resolved(policy in policy(), intent in intent()) {
        if let Host::Name(_) = intent.host && intent.kind != IntentKind::Dns && decide(&policy, &intent).is_allowed() {
            let dns = Intent { kind: IntentKind::Dns, ..intent };
            prop_assert!(decide(&policy, &dns).is_allowed());
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

/// The grammar, written down once more without any cleverness.
fn naive(pattern: &str, host: &Host) -> bool {
    let labels = match host {
        Host::HostService => return pattern == "localhost",
        Host::Ip(ip) => {
            let net = pattern.parse::<ipnet::IpNet>().ok();
            let net = net.or_else(|| pattern.parse::<IpAddr>().ok().map(Into::into));
            return pattern == "**" || net.is_some_and(|net| net.contains(ip));
        }
        Host::Name(name) => name.as_str().split('.').collect::<Vec<_>>(),
    };
    if pattern.contains('/')
        || pattern.contains(':')
        || pattern.parse::<IpAddr>().is_ok()
        || pattern == "localhost"
    {
        return false;
    }
    match pattern.strip_prefix('.') {
        Some(rest) => {
            let rest: Vec<&str> = rest.split('.').collect();
            labels.len() >= rest.len() && same(&rest, &labels[labels.len() - rest.len()..])
        }
        None => same(&pattern.split('.').collect::<Vec<_>>(), &labels),
    }
}

fn same(pattern: &[&str], labels: &[&str]) -> bool {
    match (pattern, labels) {
        ([], []) => true,
        (["**", rest @ ..], [_, more @ ..]) => same(rest, more) || same(pattern, more),
        ([p, rest @ ..], [l, more @ ..]) => glob(p.as_bytes(), l.as_bytes()) && same(rest, more),
        _ => false,
    }
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            glob(rest, text) || (!text.is_empty() && glob(pattern, &text[1..]))
        }
        ([b'?', rest @ ..], [_, more @ ..]) => glob(rest, more),
        ([b'[', rest @ ..], [c, more @ ..]) => {
            let close = rest.iter().position(|b| *b == b']').unwrap();
            rest[..close].contains(c) && glob(&rest[close + 1..], more)
        }
        ([p, rest @ ..], [c, more @ ..]) => p == c && glob(rest, more),
        _ => false,
    }
}
