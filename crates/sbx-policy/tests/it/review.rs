//! What is asked of a rule when it is written.

use sbx_policy::{Caution, PolicyDocument, Preset, RuleError, preset};

use crate::support::{allowed, document, rule};

fn cautions(text: &str) -> Vec<String> {
    let cautions = rule("r", text).review().unwrap();
    cautions.iter().map(Caution::to_string).collect()
}

#[test]
fn a_service_of_the_host_is_opened_port_by_port_and_said_to_be_one() {
    for text in [
        "localhost",
        "127.0.0.1",
        "[::1]",
        "host.docker.internal",
        "gateway.sbx.internal",
        "192.168.127.1",
        "127.0.0.0/8",
        "127.0.0.2",
    ] {
        let error = rule("r", &format!("allow a.test,{text}"))
            .review()
            .unwrap_err();
        assert!(
            matches!(error, RuleError::LoopbackNeedsPort(_)),
            "{text}: {error}"
        );
        assert!(error.hint().unwrap().contains(":8080"), "{text}");
        assert_eq!(cautions(&format!("deny {text}")), [""; 0], "{text}");
        let said = cautions(&format!("allow {text}:8080"));
        assert!(said[0].contains("a service of this machine"), "{said:?}");
    }
    // Not addressed by its loopback: everything else says nothing about services of the host.
    assert_eq!(cautions("allow **,10.0.0.0/8,a.test"), [""; 0]);
    // A rule that was written before it was asked for a port still counts.
    assert!(allowed(&["allow localhost"], "localhost:1"));
}

#[test]
fn suffixes_where_a_company_gives_names_to_customers_are_allowed_with_a_caution() {
    let said = cautions(
        "allow **.github.io,*.s3.amazonaws.com:443,me.github.io,**.me.github.io,**.amazonaws.com",
    );
    assert_eq!(
        said,
        [
            "**.github.io lets in names of strangers: anybody can get one below github.io",
            "*.s3.amazonaws.com:443 lets in names of strangers: anybody can get one below s3.amazonaws.com",
        ]
    );
}

#[test]
fn every_preset_can_be_written() {
    for which in Preset::ALL {
        let mut policy = PolicyDocument::default();
        for rule in preset(which) {
            policy.add(rule).unwrap();
        }
    }
}

#[test]
fn a_refused_rule_changes_nothing_and_a_caution_comes_with_the_rule() {
    let mut policy = document(&[]);
    assert!(policy.add(rule("a", "allow **.co.uk")).is_err());
    assert!(policy.add(rule("b", "allow localhost")).is_err());
    assert!(policy.rules.is_empty());
    assert_eq!(
        policy.add(rule("c", "allow localhost:80")).unwrap().len(),
        1
    );
    assert_eq!(policy.rules.len(), 1);
}
