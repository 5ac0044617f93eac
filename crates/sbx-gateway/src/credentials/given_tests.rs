use sbx_policy::Port;
use sbx_wire::secret::SecretText;

use super::*;
use crate::credentials::Sought;
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
        replace: Some(sbx_wire::gateway::Replace {
            body: false,
            login: false,
        }),
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

#[tokio::test(start_paused = true)]
async fn a_value_that_comes_after_its_binding_went_is_known_as_one_that_went() {
    let given = Given::default();
    let (one, other) = (credential("one", "api.test"), credential("two", "b.test"));
    given.settle(std::slice::from_ref(&one));
    given.settle(&[other]);
    assert!(!given.was_bound(&target("api.test")), "nothing was given");
    given.give(&value(&one, "late-value"));
    assert!(given.was_bound(&target("api.test")));
    tokio::time::advance(limits::GIVEN_KEPT).await;
    assert!(!given.was_bound(&target("api.test")));
}

#[tokio::test(start_paused = true)]
async fn values_of_the_own_request_are_found_when_others_have_pushed_them_out() {
    let given = Arc::new(Given::default());
    let one = credential("one", "api.test");
    let sought = Sought::new(&given, std::slice::from_ref(&one));
    let at = target("api.test");
    let own = value(&one, "value-of-the-own-request");
    given.give(&own);
    given.give(&value(&one, &"x".repeat(limits::GIVEN_BYTES)));
    // Kept for the target, without what was pushed out.
    let kept = sought.at(&at, &[], false);
    assert_eq!(kept.whole(b"value-of-the-own-request"), None);
    let kept_again = sought.at(&at, &[], false);
    assert!(Arc::ptr_eq(&kept, &kept_again));
    let scrub = sought.at(&at, std::slice::from_ref(&own), false);
    assert!(scrub.whole(b"value-of-the-own-request").is_some());
    let of_another = sought.at(&at, std::slice::from_ref(&own), false);
    assert!(Arc::ptr_eq(&scrub, &of_another), "made once for all");
    // What stands in the place of a token that is not known adds nothing.
    let nothing = own.without_value();
    assert!(Arc::ptr_eq(&kept, &sought.at(&at, &[nothing], false)));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_left_in_an_answer_that_is_read_and_in_no_other() {
    let given = Arc::new(Given::default());
    let one = credential("one", "api.test");
    let sought = Sought::new(&given, std::slice::from_ref(&one));
    let login = value(&one, "login-of-the-registry");
    let token = Supplied {
        part: Part::Token,
        ..value(&one, "token-that-was-issued")
    };
    given.give(&login);
    given.give(&token);
    let login = std::slice::from_ref(&login);
    for _ in 0..2 {
        for (captured, found) in [(true, false), (false, true)] {
            let scrub = sought.at(&target("api.test"), login, captured);
            let in_token = scrub.whole(b"token-that-was-issued");
            assert_eq!(in_token.is_some(), found, "{captured}");
            assert!(scrub.whole(b"login-of-the-registry").is_some());
        }
    }
}
