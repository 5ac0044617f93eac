use sbx_policy::Port;
use sbx_wire::secret::SecretText;

use super::*;
use crate::credentials::bind::bind;

fn target(text: &str) -> Target {
    Target::parse_authority(text, Port::HTTPS).unwrap()
}

fn credential(service: &str, host: &str) -> Arc<BoundCredential> {
    let credential = sbx_wire::gateway::Credential {
        service: service.to_owned(),
        hosts: vec![host.to_owned()],
        header: String::new(),
        format: String::new(),
        placeholder: format!("sbx-placeholder-{service}"),
        value: SecretText::new(String::new()),
        basic_user: None,
        replace: Some(sbx_wire::gateway::Replace { body: false }),
        unavailable: None,
        on_demand: true,
        conversation: false,
        aws: None,
        registry: None,
    };
    Arc::new(bind(&credential).unwrap())
}

fn value(credential: &Arc<BoundCredential>, text: &str) -> Supplied {
    let material = credential.material(&SecretText::new(text.to_owned()));
    Supplied {
        credential: credential.clone(),
        material: Arc::new(material.unwrap()),
        part: Part::Value,
    }
}

fn texts(given: &Given, host: &str, bound: &[Arc<BoundCredential>]) -> Vec<String> {
    let found = given.at(&target(host), bound);
    let texts = found.iter().map(|(_, one)| one.material.text.expose());
    texts.map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_replaced_is_looked_for_a_while_and_what_is_in_force_for_good() {
    let given = Given::default();
    let one = credential("one", "api.test");
    given.give(&value(&one, "first-value"));
    tokio::time::advance(2 * limits::GIVEN_KEPT).await;
    given.settle(std::slice::from_ref(&one));
    assert_eq!(texts(&given, "api.test", &[]), ["first-value"]);
    assert!(texts(&given, "other.test", &[]).is_empty());
    let before = given.changes();
    given.give(&value(&one, "first-value"));
    assert_eq!(given.changes(), before, "nothing is new");
    given.give(&value(&one, "second-value"));
    assert_ne!(given.changes(), before);
    assert_eq!(
        texts(&given, "api.test", &[]),
        ["first-value", "second-value"]
    );
    tokio::time::advance(limits::GIVEN_KEPT / 2).await;
    given.settle(std::slice::from_ref(&one));
    assert_eq!(texts(&given, "api.test", &[]).len(), 2);
    tokio::time::advance(limits::GIVEN_KEPT / 2).await;
    given.settle(std::slice::from_ref(&one));
    assert_eq!(texts(&given, "api.test", &[]), ["second-value"]);
}

#[tokio::test(start_paused = true)]
async fn hosts_of_a_binding_that_is_no_more_are_known_a_while() {
    let given = Given::default();
    let one = credential("one", "api.test");
    given.give(&value(&one, "first-value"));
    given.settle(std::slice::from_ref(&one));
    assert!(!given.was_bound(&target("api.test")), "it is bound");
    given.settle(&[credential("one", "other.test")]);
    assert!(given.was_bound(&target("api.test")));
    assert!(!given.was_bound(&target("other.test")));
    // What is bound elsewhere for the same service may show it too.
    let elsewhere = credential("one", "other.test");
    assert_eq!(texts(&given, "other.test", &[elsewhere]), ["first-value"]);
    tokio::time::advance(limits::GIVEN_KEPT).await;
    assert!(!given.was_bound(&target("api.test")));
    given.settle(&[]);
    assert!(texts(&given, "api.test", &[]).is_empty());
}

#[tokio::test(start_paused = true)]
async fn values_of_a_service_have_a_bound_in_number_and_in_bytes() {
    let given = Given::default();
    let (one, two) = (credential("one", "api.test"), credential("two", "api.test"));
    given.give(&value(&two, "of-another-service"));
    for number in 0..=limits::GIVEN {
        given.give(&value(&one, &format!("value-number-{number}")));
        // What is in use stays.
        given.give(&value(&one, "value-number-0"));
    }
    let found = texts(&given, "api.test", &[]);
    assert_eq!(found.len(), limits::GIVEN + 1);
    assert!(found.contains(&"value-number-0".to_owned()));
    assert!(!found.contains(&"value-number-1".to_owned()));
    assert!(found.contains(&"of-another-service".to_owned()));
    given.give(&value(&one, &"x".repeat(limits::GIVEN_BYTES)));
    assert_eq!(texts(&given, "api.test", &[]).len(), 2);
}
