//! What patterns match, and their canonical text.

use sbx_policy::{Host, ResourcePattern, Scope, Target};

use crate::support::{allowed, scope};

fn pattern(text: &str) -> ResourcePattern {
    ResourcePattern::parse(text).unwrap()
}

fn matches(text: &str, host: &str) -> bool {
    pattern(text).host.matches(&Host::parse(host).unwrap())
}

#[test]
fn exact_name_matches_itself_alone() {
    assert!(matches("example.com", "example.com"));
    assert!(!matches("example.com", "www.example.com"));
}

#[test]
fn star_is_exactly_one_label() {
    assert!(matches("*.example.com", "a.example.com"));
    assert!(!matches("*.example.com", "example.com"));
    assert!(!matches("*.example.com", "a.b.example.com"));
    assert!(matches("a.*.example.com", "a.b.example.com"));
    assert!(!matches("a.*.example.com", "a.b.c.example.com"));
}

#[test]
fn double_star_is_one_or_more_labels_never_the_apex() {
    assert!(matches("**.example.com", "a.example.com"));
    assert!(matches("**.example.com", "a.b.c.example.com"));
    assert!(!matches("**.example.com", "example.com"));
}

#[test]
fn leading_dot_is_the_apex_and_everything_below() {
    for host in ["example.com", "a.example.com", "a.b.example.com"] {
        assert!(matches(".example.com", host), "{host}");
    }
    assert!(!matches(".example.com", "anexample.com"));
}

#[test]
fn globs_stay_inside_their_label() {
    assert!(matches("crl*.digicert.com", "crl3.digicert.com"));
    assert!(matches("crl*.digicert.com", "crl.digicert.com"));
    assert!(!matches("crl*.digicert.com", "crl3.x.digicert.com"));
    assert!(matches("node-?.example.com", "node-7.example.com"));
    assert!(!matches("node-?.example.com", "node-17.example.com"));
    assert!(!matches("node-?.example.com", "node-.example.com"));
    assert!(!matches("a*z.example.com", "a.example.com"));
    assert!(matches("[12].example.com", "2.example.com"));
    assert!(!matches("[12].example.com", "3.example.com"));
    assert!(matches("n[a-c0].example.com", "nb.example.com"));
    assert!(!matches("n[a-c0].example.com", "nd.example.com"));
    assert!(matches("**.a*b*c.example.com", "x.y.aXbXc.example.com"));
    assert!(!matches("**.a*b*c.example.com", "aXbXc.example.com"));
}

#[test]
fn addresses_and_ranges_match_addresses_alone() {
    assert!(matches("10.0.0.0/8", "10.1.2.3"));
    assert!(!matches("10.0.0.0/8", "11.0.0.0"));
    assert!(matches("2001:db8::/32", "2001:db8:1::1"));
    assert!(!matches("2001:db8::/32", "10.0.0.1"));
    assert!(!matches("10.0.0.0/8", "example.com"));
}

#[test]
fn double_star_is_everything_but_the_services_of_the_host() {
    assert!(matches("**", "example.com") && matches("**", "192.0.2.1") && matches("**", "::2"));
    assert!(!matches("**", "localhost"));
}

#[test]
fn ports_restrict_and_no_port_is_every_port() {
    assert!(allowed(&["allow example.com"], "example.com:9999"));
    assert!(allowed(&["allow example.com:443"], "example.com"));
    assert!(!allowed(&["allow example.com:443"], "http://example.com"));
    assert!(allowed(&["allow [2001:db8::1]:22"], "[2001:db8::1]:22"));
    assert!(!allowed(&["allow [2001:db8::1]:22"], "[2001:db8::1]:23"));
    assert!(allowed(&["allow 10.0.0.0/8:22"], "10.9.9.9:22"));
    assert!(!allowed(&["allow 10.0.0.0/8:22"], "10.9.9.9:23"));
}

#[test]
fn canonical_text_is_stable() {
    for (text, canonical) in [
        ("Example.COM.", "example.com"),
        ("**.EXAMPLE.com:443", "**.example.com:443"),
        ("B\u{fc}cher.example", "xn--bcher-kva.example"),
        ("127.0.0.1:80", "localhost:80"),
        ("host.docker.internal", "localhost"),
        ("10.1.2.3/32", "10.1.2.3"),
        ("2001:DB8:0::/32", "2001:db8::/32"),
        ("[2001:db8::/32]:22", "[2001:db8::/32]:22"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("CRL*.digicert.com:80", "crl*.digicert.com:80"),
        ("[12].example.com:1", "[12].example.com:1"),
        ("10.0.0.0/8:22", "10.0.0.0/8:22"),
    ] {
        assert_eq!(pattern(text).to_string(), canonical, "{text}");
        assert_eq!(pattern(canonical), pattern(text), "{text}");
    }
}

#[test]
fn malformed_resources_are_refused() {
    for text in [
        "",
        ":443",
        "a..b",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "10.0.0.0/08",
        "10.0.0.0/",
        "https://example.com",
        "example.com/path",
        "[12.example.com",
        "[].example.com",
        "[c-a].example.com",
        "[!a].example.com",
        "a b.com",
        "user@example.com",
        "1.2.3",
        "[2001:db8::1",
        "2001:db8::1]:22",
        "example.com:https",
        "**:",
        "{a,b}.example.com",
        "b\u{fc}*.example.com",
        "a\u{3002}b.c*.example.com",
    ] {
        assert!(ResourcePattern::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn comma_lists_hold_several_resources() {
    let list = ResourcePattern::parse_list("a.test, **.b.test:443 ,10.0.0.0/8").unwrap();
    let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["a.test", "**.b.test:443", "10.0.0.0/8"]);
    assert!(ResourcePattern::parse_list("a.test,,b.test").is_err());
    assert!(ResourcePattern::parse_list("").is_err());
}

#[test]
fn targets_take_hosts_addresses_and_urls() {
    for (text, canonical) in [
        ("example.com", "example.com:443"),
        ("example.com:22", "example.com:22"),
        ("http://example.com/x?y#z", "example.com:80"),
        ("wss://example.com", "example.com:443"),
        ("HTTPS://example.com:8443", "example.com:8443"),
        ("2001:db8::1", "[2001:db8::1]:443"),
        ("[2001:db8::1]:22", "[2001:db8::1]:22"),
        ("http://[2001:db8::1]/", "[2001:db8::1]:80"),
        ("192.0.2.1", "192.0.2.1:443"),
        ("host.docker.internal:1", "localhost:1"),
    ] {
        assert_eq!(
            Target::parse(text).unwrap().to_string(),
            canonical,
            "{text}"
        );
    }
    assert!(Target::parse("ftp://example.com").is_err());
    assert!(Target::parse("[2001:db8::1]x:22").is_err());
}

#[test]
fn scopes_have_one_text() {
    for text in [
        "global",
        "org",
        "sandbox:claude-app",
        "kit:claude-app",
        "approval:42@claude-app",
    ] {
        assert_eq!(scope(text).to_string(), text);
    }
    for text in [
        "",
        "sandbox:",
        "sandbox:a b",
        "approval:1",
        "all",
        "sandbox:a\n",
        "global:x",
    ] {
        assert!(text.parse::<Scope>().is_err(), "{text:?}");
    }
}
