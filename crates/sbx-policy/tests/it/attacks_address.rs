//! Attacks on addresses, by the number they have in the project's list of attack cases.

use std::net::IpAddr;

use ipnet::IpNet;
use sbx_policy::{AddressClass, HostName, PatternError, ReasonCode, ResourcePattern, classify};

use crate::support::{allowed, ask, evaluator, intent, ip, resolved};

#[test]
fn attack_43_metadata_needs_a_rule_with_exactly_that_address() {
    let addresses = [
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "169.254.42.42",
        "169.254.0.23",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:42::42",
        "fd00:c1::a9fe:a9fe",
        "fe80::a9fe:a9fe",
    ];
    let wide = [
        "allow **",
        "allow 169.254.0.0/16",
        "allow 100.64.0.0/10",
        "allow 100.100.100.200/31",
        "allow 168.63.0.0/16",
        "allow 192.0.0.0/24",
    ];
    let wide_v6 = ["allow fd00::/8", "allow fd00:ec2::/32", "allow fe80::/10"];
    for address in addresses {
        assert_eq!(classify(ip(address)), AddressClass::Metadata);
        let target = if address.contains(':') {
            format!("[{address}]:80")
        } else {
            format!("{address}:80")
        };
        let verdict = ask(&evaluator(&[&wide[..], &wide_v6[..]].concat()), &target);
        assert_eq!(verdict.reason, ReasonCode::AddressBlocked, "{address}");
        assert!(
            allowed(&[&format!("allow {address}")], &target),
            "{address}"
        );
    }
    // Reached by a name, too: the name is allowed, its address is not.
    for address in ["169.254.169.254", "168.63.129.16"] {
        let verdict = resolved(&["allow **"], "rebind.test", &[address]);
        assert_eq!(verdict.reason, ReasonCode::AddressBlocked, "{address}");
    }
    for wildcard in ["allow **", "allow **.internal", "allow *.google.internal"] {
        assert!(
            !allowed(&[wildcard], "metadata.google.internal"),
            "{wildcard}"
        );
        let name = HostName::parse("metadata.google.internal").unwrap();
        assert!(
            !evaluator(&[wildcard])
                .name_may_resolve("x", &name)
                .is_allowed()
        );
    }
    assert!(allowed(
        &["allow metadata.google.internal"],
        "metadata.google.internal:80"
    ));
}

#[test]
fn attack_44_special_addresses_are_closed_until_named() {
    for (address, named) in [
        ("10.1.2.3", "10.0.0.0/8"),
        ("172.16.0.1", "172.16.0.0/12"),
        ("192.168.1.1", "192.168.1.0/24"),
        ("100.64.0.1", "100.64.0.0/10"),
        ("198.18.0.1", "198.18.0.0/15"),
        ("192.0.0.8", "192.0.0.8"),
        ("240.0.0.1", "240.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        ("169.254.1.1", "169.254.1.1"),
        ("fc00::1", "fc00::/7"),
        ("fd12::1", "fd12::/16"),
        ("fe80::1", "fe80::1"),
    ] {
        let open = ["allow **", "allow 0.0.0.0/0", "allow ::/0", "allow a.test"];
        let verdict = resolved(&open, "a.test", &[address]);
        assert_eq!(verdict.reason, ReasonCode::AddressBlocked, "{address}");
        let target = if address.contains(':') {
            format!("[{address}]:443")
        } else {
            format!("{address}:443")
        };
        assert!(!allowed(&open, &target), "{address}");
        let named = format!("allow {named}");
        assert!(allowed(&[&named], &target), "{named} {target}");
        let verdict = resolved(&[&named, "allow a.test"], "a.test", &[address]);
        assert_eq!(verdict.pinned, [ip(address)], "{named}");
    }
}

#[test]
fn attack_44_a_name_that_leads_to_the_loopback_meets_denials_of_the_host_service() {
    let open = ["allow a.test", "allow 127.0.0.0/8"];
    assert!(resolved(&open, "a.test", &["127.0.0.1"]).is_allowed());
    for deny in [
        "deny localhost",
        "deny host.docker.internal:443",
        "deny **.sbx.internal",
    ] {
        let verdict = resolved(&[&open[..], &[deny]].concat(), "a.test", &["127.0.0.1"]);
        assert_eq!(verdict.reason, ReasonCode::DenyRule, "{deny}");
    }
}

#[test]
fn attack_11_the_gateways_address_is_the_host_and_never_a_place_that_a_name_leads_to() {
    let open = [
        "allow a.test",
        "allow 192.168.0.0/16",
        "allow 64:ff9b::/96",
        "allow localhost:443",
    ];
    for address in [
        "192.168.127.1",
        "::ffff:192.168.127.1",
        "64:ff9b::c0a8:7f01",
    ] {
        let verdict = resolved(&open, "a.test", &[address]);
        assert_eq!(verdict.reason, ReasonCode::AddressBlocked, "{address}");
        let beside = resolved(&open, "a.test", &[address, "192.168.127.3"]);
        assert_eq!(beside.pinned, [ip("192.168.127.3")], "{address}");
    }
    // By its number it is the service that the rule opens, with nothing to pin.
    let verdict = ask(&evaluator(&open), "192.168.127.1:443");
    assert!(verdict.is_allowed() && verdict.pinned.is_empty());
    assert!(!allowed(&open, "192.168.127.1:80"));
    assert!(!allowed(&open, "[64:ff9b::192.168.127.1]:443"));
}

#[test]
fn attack_44_some_addresses_are_never_opened() {
    for (address, rule) in [
        ("0.0.0.0", "allow 0.0.0.0"),
        ("0.1.2.3", "allow 0.0.0.0/8"),
        ("224.0.0.1", "allow 224.0.0.0/4"),
        ("255.255.255.255", "allow 255.255.255.255"),
        ("::", "allow ::"),
        ("ff02::1", "allow ff00::/8"),
    ] {
        let verdict = resolved(&[rule, "allow a.test"], "a.test", &[address]);
        assert_eq!(verdict.reason, ReasonCode::AddressBlocked, "{address}");
    }
}

#[test]
fn attack_44_ipv6_forms_of_ipv4_are_closed_and_open_nothing_behind_them() {
    for address in [
        "::ffff:192.0.2.1",
        "64:ff9b::c000:201",
        "64:ff9b:1::1",
        "2002:c000:201::1",
        "2001::1",
        "::192.0.2.1",
        "::ffff:0:192.0.2.1",
    ] {
        assert_eq!(classify(ip(address)), AddressClass::EmbeddedV4, "{address}");
        assert!(
            !resolved(&["allow **"], "a.test", &[address]).is_allowed(),
            "{address}"
        );
    }
    // NAT64 of 192.0.2.1 opens, of the metadata address it does not.
    let rules = ["allow a.test", "allow 64:ff9b::/96"];
    assert!(resolved(&rules, "a.test", &["64:ff9b::c000:201"]).is_allowed());
    assert!(!resolved(&rules, "a.test", &["64:ff9b::a9fe:a9fe"]).is_allowed());
    // A deny on the IPv4 address covers what stands for it, in every form.
    for (form, prefix) in [
        ("2002:c000:201::1", "2002::/16"),
        ("64:ff9b:1::c000:201", "64:ff9b:1::/48"),
        ("2001:0:1::3fff:fdfe", "2001::/32"),
        ("::192.0.2.1", "::/96"),
    ] {
        let open = ["allow a.test", &format!("allow {prefix}")];
        assert!(resolved(&open, "a.test", &[form]).is_allowed(), "{form}");
        let denied = [&open[..], &["deny 192.0.2.1"]].concat();
        assert!(!resolved(&denied, "a.test", &[form]).is_allowed(), "{form}");
    }
    // Below the local prefix of NAT64 it may stand at each of the places that there are.
    let local = ["allow a.test", "allow 64:ff9b:1::/48"];
    for form in [
        "64:ff9b:1:a9fe:a9:fe00:808:808",
        "64:ff9b:1:8a9:fe:a9fe:808:808",
        "64:ff9b:1:808:a9:fea9:fe08:808",
        "64:ff9b:1:808:8:800:a9fe:a9fe",
        "64:ff9b:1:a9fe:a9:fe00::",
        "64:ff9b:1::a9:fea9:fe00:0",
        "64:ff9b:1::1",
    ] {
        assert!(!resolved(&local, "a.test", &[form]).is_allowed(), "{form}");
    }
    for (form, v4) in [
        ("64:ff9b:1:808:4:400::", "8.8.4.4"),
        ("64:ff9b:1:8:8:404::", "8.8.4.4"),
        ("64:ff9b:1:0:8:804:400::", "8.8.4.4"),
        ("64:ff9b:1::808:404", "8.8.4.4"),
    ] {
        assert!(resolved(&local, "a.test", &[form]).is_allowed(), "{form}");
        let deny = format!("deny {v4}");
        let denied = [&local[..], &[&deny]].concat();
        assert!(!resolved(&denied, "a.test", &[form]).is_allowed(), "{form}");
    }
    let denied = [&rules[..], &["deny 192.0.2.0/24"]].concat();
    let verdict = resolved(&denied, "a.test", &["64:ff9b::c000:201"]);
    assert_eq!(verdict.reason, ReasonCode::DenyRule);
    assert!(matches!(
        ResourcePattern::parse("::ffff:10.0.0.1"),
        Err(PatternError::MappedV4(_))
    ));
}

/// A machine that has 203.0.113.5, 192.168.1.5 and an address in 2001:db8:1::/64.
fn near(ip: IpAddr) -> Option<(IpNet, AddressClass)> {
    match ip.to_string().as_str() {
        "203.0.113.5" | "192.168.1.5" | "2001:db8:1::5" => Some((ip.into(), AddressClass::Own)),
        text if text.starts_with("2001:db8:1::") => {
            Some(("2001:db8:1::/64".parse().unwrap(), AddressClass::Neighbour))
        }
        _ => None,
    }
}

#[test]
fn attack_44_an_address_of_the_host_needs_a_rule_with_exactly_that_address() {
    let wide = [
        "allow **",
        "allow 203.0.113.0/24",
        "allow 192.168.1.0/24",
        "allow 2001:db8:1::/64",
    ];
    let wide = [
        &wide[..],
        &["allow 0.0.0.0/0", "allow ::/0", "allow localhost:3000"],
    ]
    .concat();
    for (address, target) in [
        ("203.0.113.5", "203.0.113.5:3000"),
        ("192.168.1.5", "192.168.1.5:3000"),
        ("2001:db8:1::5", "[2001:db8:1::5]:3000"),
    ] {
        let knowing = |rules: &[&str]| evaluator(rules).knowing_what_is_near(near);
        assert!(
            ask(&evaluator(&wide), target).is_allowed(),
            "who does not know"
        );
        let verdict = ask(&knowing(&wide), target);
        assert_eq!(verdict.reason, ReasonCode::AddressBlocked, "{address}");
        assert_eq!(
            verdict.blocked_address,
            Some((ip(address), AddressClass::Own))
        );
        let named = intent("a.test:3000").with_resolved(vec![ip(address)]);
        let verdict = knowing(&wide).decide(&named);
        assert_eq!(verdict.reason, ReasonCode::AddressBlocked, "{address}");
        // The rule that opens it, and the denial of the host's services that closes it again.
        let exact = format!("allow {address}");
        let verdict = ask(&knowing(&[&exact]), target);
        assert_eq!(verdict.pinned, [ip(address)]);
        assert!(
            knowing(&["allow a.test", &exact])
                .decide(&named)
                .is_allowed()
        );
        for deny in ["deny localhost", "deny host.docker.internal:3000"] {
            let verdict = ask(&knowing(&[&exact, deny]), target);
            assert_eq!(verdict.reason, ReasonCode::DenyRule, "{deny} {address}");
        }
    }
    assert!(allowed(&["allow 192.168.1.0/24"], "192.168.1.6:3000"));
}

#[test]
fn attack_44_a_neighbour_by_ipv6_needs_a_rule_within_the_link() {
    let target = "[2001:db8:1::99]:443";
    let knowing = |rules: &[&str]| ask(&evaluator(rules).knowing_what_is_near(near), target);
    let verdict = knowing(&["allow **", "allow ::/0", "allow 2001:db8::/32"]);
    assert_eq!(verdict.reason, ReasonCode::AddressBlocked);
    for named in ["allow 2001:db8:1::/64", "allow 2001:db8:1::99"] {
        assert!(knowing(&[named]).is_allowed(), "{named}");
    }
    let elsewhere = evaluator(&["allow **"]).knowing_what_is_near(near);
    assert!(ask(&elsewhere, "[2001:db8:2::99]:443").is_allowed());
}
