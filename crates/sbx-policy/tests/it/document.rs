//! Changing and storing a policy.

use sbx_policy::{
    DocumentError, MAX_RESOURCES, MAX_RULES, PolicyDocument, Preset, Protocols, Rule, RuleError,
    preset,
};

use crate::support::{document, http_rule, rule, scope};

#[test]
fn a_contradiction_in_the_same_scope_is_refused() {
    let mut policy = document(&["allow a.test,b.test"]);
    let before = policy.clone();
    let error = policy.add(rule("new", "deny B.test.")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "conflict with the existing allow rule r0 for b.test (scope: global)"
    );
    assert_eq!(
        error.hint().unwrap(),
        "sbx policy rm network --resource b.test"
    );
    assert_eq!(policy, before);
    // The command that resolves it can be pasted into a shell.
    let mut policy = document(&[]);
    let allow = http_rule("h", "allow *.a.test @sandbox:box", "GET,POST", "/x/**");
    policy.add(allow).unwrap();
    let deny = http_rule("i", "deny *.a.test @sandbox:box", "GET,POST", "/x/**");
    assert_eq!(
        policy.add(deny).unwrap_err().hint().unwrap(),
        "sbx policy rm network --resource '*.a.test' --method GET,POST --path '/x/**' --sandbox box"
    );
}

#[test]
fn a_rule_that_says_the_same_is_found_whatever_the_order_of_its_resources() {
    let policy = document(&["allow a.test,b.test", "allow a.test @sandbox:box"]);
    let same = |text: &str| policy.same(&rule("new", text)).map(|rule| rule.id.clone());
    assert_eq!(same("allow B.test,a.test."), Some("r0".into()));
    assert_eq!(same("allow a.test @sandbox:box"), Some("r1".into()));
    for other in [
        "allow a.test",
        "deny a.test,b.test",
        "allow a.test,b.test:443",
        "allow a.test,b.test @sandbox:box",
    ] {
        assert_eq!(same(other), None, "{other}");
    }
}

#[test]
fn what_is_no_contradiction_is_added() {
    let mut policy = document(&["allow a.test"]);
    for (id, text) in [
        ("n1", "deny a.test @sandbox:claude-app"),
        ("n2", "deny **.a.test"),
        ("n3", "deny a.test:22"),
        ("n4", "allow a.test"),
    ] {
        policy.add(rule(id, text)).unwrap();
    }
    policy
        .add(Rule {
            protocols: Protocols::UDP,
            ..rule("n5", "deny a.test")
        })
        .unwrap();
    policy
        .add(http_rule("n6", "deny a.test", "GET", "/x"))
        .unwrap();
    assert!(
        policy
            .add(http_rule("n7", "allow a.test", "GET", "/x"))
            .is_err()
    );
}

#[test]
fn ids_are_unique_and_rules_valid() {
    let mut policy = document(&["allow a.test"]);
    assert_eq!(
        policy.add(rule("r0", "allow b.test")),
        Err(DocumentError::DuplicateId("r0".into()))
    );
    let empty = Rule {
        resources: Vec::new(),
        ..rule("x", "allow a.test")
    };
    assert_eq!(
        policy.add(empty),
        Err(DocumentError::Rule(RuleError::NoResources))
    );
}

#[test]
fn rules_and_their_resources_are_bounded() {
    let many = |count| Rule {
        resources: vec!["a.test".parse().unwrap(); count],
        ..rule("many", "allow a.test")
    };
    assert_eq!(many(MAX_RESOURCES).validate(), Ok(()));
    assert_eq!(
        many(MAX_RESOURCES + 1).validate(),
        Err(RuleError::TooManyResources)
    );
    let full = (0..MAX_RULES).map(|n| rule(&format!("r{n}"), "allow a.test"));
    let mut policy = PolicyDocument::new(1, full.collect());
    let one_more = rule("new", "allow b.test");
    assert_eq!(
        policy.add(one_more.clone()),
        Err(DocumentError::TooManyRules)
    );
    policy.rules.pop();
    assert_eq!(policy.add(one_more), Ok(Vec::new()));
}

#[test]
fn a_resource_leaves_its_rule_and_an_empty_rule_goes() {
    let mut policy = document(&[
        "allow a.test,b.test",
        "allow b.test",
        "allow b.test @sandbox:x",
    ]);
    let removed = policy.remove_resource(&scope("global"), &"b.test".parse().unwrap(), None);
    assert_eq!((removed.rules, removed.narrowed), (1, 1));
    assert_eq!(policy, {
        let mut left = document(&["allow a.test", "allow z.test", "allow b.test @sandbox:x"]);
        left.remove("r1").unwrap();
        left
    });
    assert_eq!(policy.remove_sandbox("x"), 1);
    assert_eq!(policy.rules.len(), 1);
}

#[test]
fn documents_survive_both_encodings_of_the_wire() {
    let mut rules = preset(Preset::Balanced);
    rules.push(rule(
        "a",
        "deny 10.0.0.0/8:22,[2001:db8::1]:22,localhost:80 @approval:1@claude-app",
    ));
    rules.push(http_rule("b", "allow api.test", "GET,POST", "/x/**"));
    let policy = PolicyDocument::new(3, rules);
    let text = serde_json::to_string(&policy).unwrap();
    assert_eq!(
        serde_json::from_str::<PolicyDocument>(&text).unwrap(),
        policy
    );
}

#[test]
fn what_is_not_valid_does_not_deserialise() {
    let good = r#"{"generation":1,"rules":[{"id":"a","scope":"global","decision":"allow",
        "resources":["a.test"],"protocols":["tcp"],"created_via":"added"}]}"#;
    assert_eq!(
        serde_json::from_str::<PolicyDocument>(good)
            .unwrap()
            .rules
            .len(),
        1
    );
    for (from, to) in [
        ("\"a.test\"", "\"*\""),
        ("\"a.test\"", ""),
        ("\"tcp\"", ""),
        ("\"tcp\"", "\"icmp\""),
        ("global", "everyone"),
        ("\"id\"", "\"extra\":1,\"id\""),
        ("\"id\":\"a\"", "\"id\":\"a b\""),
        ("allow", "maybe"),
        ("\"generation\"", "\"x\":1,\"generation\""),
    ] {
        let bad = good.replacen(from, to, 1);
        assert!(
            serde_json::from_str::<PolicyDocument>(&bad).is_err(),
            "{bad}"
        );
    }
}
