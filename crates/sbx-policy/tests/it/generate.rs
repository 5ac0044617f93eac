//! A small world where rules collide, for properties.

use proptest::prelude::*;
use sbx_policy::{
    CreatedVia, Decision, HttpMatch, HttpRequest, Intent, IntentKind, PolicyDocument, Port,
    Protocols, ResourcePattern, Rule, Transport,
};

pub(crate) const HOSTS: [&str; 8] = [
    "x.test",
    "a.x.test",
    "b.x.test",
    "b.a.x.test",
    "ax.test",
    "a1.x.test",
    "y.test",
    "a.y.test",
];
pub(crate) const ADDRESSES: [&str; 9] = [
    "192.0.2.1",
    "192.0.2.2",
    "10.0.0.1",
    "10.1.0.1",
    "2001:db8::1",
    "fd00::1",
    "64:ff9b::a00:1",
    "127.0.0.1",
    "192.168.127.1",
];
pub(crate) const PATTERNS: [&str; 28] = [
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
    "192.168.0.0/16",
    "*.sbx.internal",
];
pub(crate) const SCOPES: [&str; 5] = ["global", "sandbox:one", "kit:two", "org", "approval:a1@one"];
pub(crate) const PATHS: [&str; 4] = ["/**", "/a", "/a/*", "/a/**"];

/// Two ports like any other, and one that is closed over UDP.
pub(crate) fn port() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 80_u16..82, 1 => Just(53)]
}

pub(crate) fn resource() -> impl Strategy<Value = ResourcePattern> {
    let port = prop_oneof![Just(None), port().prop_map(Some)];
    (prop::sample::select(&PATTERNS[..]), port).prop_map(|(host, port)| {
        let pattern: ResourcePattern = host.parse().unwrap();
        ResourcePattern {
            port: port.map(|p| Port::try_from(p).unwrap()),
            ..pattern
        }
    })
}

pub(crate) fn http_match() -> impl Strategy<Value = HttpMatch> {
    let methods = prop::sample::select(&["ANY", "GET", "POST,PUT"][..]);
    (methods, prop::sample::select(&PATHS[..])).prop_map(|(methods, path)| HttpMatch {
        methods: methods.parse().unwrap(),
        path: path.parse().unwrap(),
    })
}

pub(crate) fn rule(decision: impl Strategy<Value = Decision>) -> impl Strategy<Value = Rule> {
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
pub(crate) fn policy() -> impl Strategy<Value = PolicyDocument> {
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

pub(crate) fn intent() -> impl Strategy<Value = Intent> {
    let host = prop_oneof![
        4 => prop::sample::select(&HOSTS[..]),
        2 => prop::sample::select(&ADDRESSES[..]),
        1 => prop::sample::select(&["localhost", "gateway.sbx.internal"][..]),
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
        prop::sample::select(&["GET", "POST", "PURGE", "get"][..]),
        prop::sample::select(
            &[
                "/",
                "/a",
                "/A;x",
                "/a/b",
                "/b/../a",
                "/a%2Fb",
                "/%2fa",
                "/a\\B",
                "/;v/a",
                "/a;x%5Cy/b",
            ][..],
        ),
    );
    let sandbox = prop::sample::select(&["one", "two", ""][..]);
    (
        host,
        port(),
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

/// Any pattern of names that the grammar has, over few letters.
pub(crate) fn name_pattern() -> impl Strategy<Value = ResourcePattern> {
    let lead = prop::sample::select(&["", "*.", "**.", "."][..]);
    let label = prop::sample::select(
        &[
            "a", "b", "ab", "*", "a*", "*b", "a*b", "?", "a?", "??", "[ab]", "[a-c]a", "*[b]",
        ][..],
    );
    (lead, prop::collection::vec(label, 0..4)).prop_filter_map("not a pattern", |(lead, labels)| {
        let labels: String = labels.iter().map(|label| format!("{label}.")).collect();
        ResourcePattern::parse(&format!("{lead}{labels}x.test")).ok()
    })
}

/// Names around those patterns.
pub(crate) fn name() -> impl Strategy<Value = String> {
    prop::collection::vec("[abc]{1,3}", 0..5).prop_map(|labels| {
        labels
            .iter()
            .map(|label| format!("{label}."))
            .collect::<String>()
            + "x.test"
    })
}
