//! Attacks on names and targets, by the number they have in the project's list of attack cases.

use sbx_policy::{
    DenyKind, Host, HostError, HostName, PatternError, ResourcePattern, RuleError, Target,
    TargetError,
};

use crate::support::{allowed, ask, evaluator, rule};

#[test]
fn attack_01_name_with_nul_is_no_host() {
    for text in ["evil.test\0.allowed.test", "allowed.test\0", "\0"] {
        assert_eq!(
            HostName::parse(text),
            Err(HostError::BadCharacter('\0')),
            "{text:?}"
        );
        assert!(Target::parse(&format!("https://{text}/")).is_err());
    }
}

#[test]
fn attack_02_control_bytes_spaces_and_percent_are_no_host() {
    for text in [
        "a b.test",
        " a.test",
        "a.test ",
        "a\r\n.test",
        "a\t.test",
        "a%00.test",
        "a%2e.test",
        "%61.test",
        "a\u{7f}.test",
        "a/b.test",
        "a\\b.test",
        "a@b.test",
        "a#b.test",
        "a?.test",
        "a\u{0}b",
        "a;b.test",
        "a\u{ff05}2e.test",
        "a\u{2100}.test",
    ] {
        assert!(HostName::parse(text).is_err(), "{text:?}");
        assert!(Host::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn attack_03_one_canonical_form_and_homoglyphs_stay_different() {
    let canonical = |text| HostName::parse(text).unwrap().to_string();
    assert_eq!(canonical("API.Example.Test."), "api.example.test");
    assert_eq!(canonical("b\u{fc}cher.example"), "xn--bcher-kva.example");
    assert_eq!(canonical("B\u{dc}CHER.example"), "xn--bcher-kva.example");
    assert_eq!(canonical("XN--BCHER-KVA.example"), "xn--bcher-kva.example");
    assert_eq!(canonical("a\u{3002}example.test"), "a.example.test");
    // Cyrillic а.
    assert!(!allowed(&["allow allowed.test"], "\u{430}llowed.test"));
    assert!(allowed(&["allow allowed.test"], "ALLOWED.test.:443"));
    for text in [
        "xn--\u{430}.test",
        "xn--a.test",
        "xn--.test",
        "a..test",
        ".a.test",
        "a.test..",
        ".",
        "",
    ] {
        assert!(HostName::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn attack_04_suffix_tricks_do_not_match() {
    for rule in [
        "allow allowed.test",
        "allow *.allowed.test",
        "allow **.allowed.test",
        "allow .allowed.test",
    ] {
        for host in [
            "allowed.test.evil.example",
            "evilallowed.test",
            "evil-allowed.test",
            "xallowed.test",
        ] {
            assert!(!allowed(&[rule], host), "{rule} {host}");
        }
    }
    assert!(!allowed(
        &["allow crl*.allowed.test"],
        "crl.evil.allowed.test"
    ));
    assert!(!allowed(
        &["allow crl*.allowed.test"],
        "crl1.allowed.test.evil.example"
    ));
}

#[test]
fn attack_05_over_broad_patterns_are_refused_with_reason_and_next_step() {
    let refused = |text: &str| {
        let error = ResourcePattern::parse(text).unwrap_err();
        assert!(error.hint().is_some(), "{text}: {error}");
        error
    };
    assert_eq!(refused("*"), PatternError::LoneStar);
    assert_eq!(refused("*:443"), PatternError::LoneStar);
    for text in [
        "*.com",
        "**.com",
        ".com",
        "*.com:443",
        "**.co.uk",
        ".com.au",
        "evil*.com",
        "*.*.com",
        "**.kawasaki.jp",
        "*.xn--p1ai",
        ".k12.ca.us",
    ] {
        let error = rule("r", &format!("allow a.test,{text}"))
            .review()
            .unwrap_err();
        assert!(
            matches!(&error, RuleError::TooBroad { resource, .. } if resource.to_string() == text),
            "{text}"
        );
        assert!(error.hint().is_some(), "{text}");
        // Less is asked of what is stored, and a deny may be as broad as it likes.
        let top_level = text.matches('.').count() == 1 && text != "**.kawasaki.jp"
            || text == "*.*.com"
            || text == "*.com:443";
        assert_eq!(
            rule("r", &format!("allow {text}")).validate().is_err(),
            top_level,
            "{text}"
        );
        assert_eq!(
            rule("r", &format!("deny {text}")).review(),
            Ok(Vec::new()),
            "{text}"
        );
    }
    for text in ["foo.**.example.com", "**.**.example.com", "a**.example.com"] {
        assert!(
            matches!(refused(text), PatternError::DoubleStarInside(_)),
            "{text}"
        );
    }
    for text in ["example.*", "10.0.0.*", "*.example.c?m"] {
        assert!(matches!(refused(text), PatternError::OpenEnd(_)), "{text}");
    }
    assert!(
        refused("foo.**.example.com")
            .hint()
            .unwrap()
            .contains("**.example.com")
    );
}

#[test]
fn attack_06_length_limits_are_those_of_dns() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
    assert_eq!(longest.len(), 253);
    assert!(HostName::parse(&longest).is_ok());
    assert!(HostName::parse(&format!("{longest}.")).is_ok());
    assert_eq!(
        HostName::parse(&format!("{longest}a")),
        Err(HostError::TooLong)
    );
    assert_eq!(
        HostName::parse(&format!("{label}a.test")),
        Err(HostError::LabelTooLong)
    );
    assert_eq!(
        HostName::parse(&"a.".repeat(100_000)),
        Err(HostError::TooLong)
    );
    // The limits are about the encoded form.
    assert!(HostName::parse(&format!("{}.test", "\u{fc}".repeat(63))).is_err());
}

#[test]
fn attack_08_port_tricks_are_refused() {
    for port in [
        "65537",
        "65536",
        "0",
        "+443",
        "-1",
        "0443",
        "",
        " 443",
        "443 ",
        "4_43",
        "0x1bb",
        "99999999999",
    ] {
        for text in [
            format!("a.test:{port}"),
            format!("https://a.test:{port}/"),
            format!("[2001:db8::1]:{port}"),
        ] {
            assert!(
                matches!(Target::parse(&text), Err(TargetError::Port(_))),
                "{text:?}"
            );
        }
        assert!(
            ResourcePattern::parse(&format!("a.test:{port}")).is_err(),
            "{port:?}"
        );
    }
    assert_eq!(Target::parse("a.test:65535").unwrap().port.get(), 65535);
    assert!(Target::parse("a.test:443:80").is_err());
}

#[test]
fn attack_09_userinfo_is_not_the_target() {
    let target = Target::parse("http://allowed.test@evil.test/").unwrap();
    assert_eq!(target.to_string(), "evil.test:80");
    let target = Target::parse("https://allowed.test:443@evil.test:8443/x@y").unwrap();
    assert_eq!(target.to_string(), "evil.test:8443");
    // Parsers differ on these.
    assert_eq!(
        Target::parse("http://a@allowed.test@evil.test/"),
        Err(TargetError::Ambiguous('@'))
    );
    assert_eq!(
        Target::parse("http://evil.test\\@allowed.test/"),
        Err(TargetError::Ambiguous('\\'))
    );
    // Outside of URLs there is no userinfo.
    assert!(Target::parse("allowed.test@evil.test").is_err());
}

#[test]
fn attack_11_every_alias_of_the_host_is_one_resource() {
    let aliases = [
        "localhost",
        "LOCALHOST.",
        "127.0.0.1",
        "[::1]",
        "host.docker.internal",
        "host.sbx.internal",
        "[::ffff:127.0.0.1]",
        "gateway.docker.internal",
        "Gateway.SBX.internal.",
        "192.168.127.1",
        "192.168.127.1.",
        "[::ffff:192.168.127.1]",
        "[::ffff:c0a8:7f01]",
    ];
    for rule in [
        "localhost",
        "127.0.0.1",
        "::1",
        "host.docker.internal",
        "host.sbx.internal",
        "gateway.docker.internal",
        "gateway.sbx.internal",
        "192.168.127.1",
    ] {
        let allow = format!("allow {rule}:8080,**").replace("::1:", "[::1]:");
        let deny = format!("deny {rule}");
        for alias in aliases {
            let target = format!("{alias}:8080");
            assert!(allowed(&[&allow], &target), "{allow} {target}");
            assert!(
                !allowed(&[&allow], &format!("{alias}:8081")),
                "{allow} {alias}:8081"
            );
            let verdict = ask(&evaluator(&[&allow, &deny]), &target);
            assert_eq!(
                verdict.deny_kind,
                Some(DenyKind::Explicit),
                "{deny} {target}"
            );
        }
    }
    // Denials that cover one spelling cover all; allows have to name the host service.
    for pattern in [
        "**",
        "**.docker.internal",
        "127.0.0.0/8",
        "0.0.0.0/0",
        "::/0",
        "host.*.internal",
        "*.sbx.internal",
        "192.168.0.0/16",
    ] {
        for alias in aliases {
            let target = format!("{alias}:8080");
            assert!(!allowed(
                &["allow localhost:8080", &format!("deny {pattern}")],
                &target
            ));
            assert!(
                !allowed(&[&format!("allow {pattern}")], &target),
                "{pattern} {target}"
            );
        }
    }
}

#[test]
fn attack_11_numbers_that_resolvers_read_as_addresses_are_no_names() {
    for text in [
        "127.1",
        "2130706433",
        "0x7f000001",
        "0X7F000001",
        "0X7f.",
        "0x7f.1",
        "0177.0.0.1",
        "1.2.3.4.5",
        "a.1",
        "256.1.1.1",
        "1.2.3.04",
    ] {
        assert_eq!(Host::parse(text), Err(HostError::NumericName), "{text}");
    }
    assert_eq!(Host::parse("127.0.0.1."), Ok(Host::HostService));
    assert!(Host::parse("[fe80::1%eth0]").is_err());
}
