use sbx_policy::Port;
use sbx_wire::gateway::{Credential, Registry};

use super::*;
use crate::credentials::bind::bind;
use crate::credentials::{Configured, Credentials};

const PLACEHOLDER: &str = "sbx-registry-0123456789abcdef";

fn target(text: &str) -> Target {
    Target::parse_authority(text, Port::HTTPS).unwrap()
}

fn credential(password: &str, endpoint: Option<&str>) -> Credential {
    Credential {
        service: "registry:images.test".to_owned(),
        hosts: vec!["images.test".to_owned()],
        header: String::new(),
        format: String::new(),
        placeholder: PLACEHOLDER.to_owned(),
        value: SecretText::new(password.to_owned()),
        basic_user: Some("u".to_owned()),
        replace: None,
        unavailable: None,
        on_demand: false,
        conversation: false,
        aws: None,
        registry: Some(Registry {
            auth_endpoint: endpoint.map(|text| text.parse().unwrap()),
        }),
    }
}

fn login(password: &str, endpoint: Option<&str>) -> Supplied {
    let credential = Arc::new(bind(&credential(password, endpoint)).unwrap());
    let Supply::Here(material) = &credential.supply else {
        panic!("{credential:?}")
    };
    Supplied {
        material: material.clone(),
        part: Part::Value,
        credential,
    }
}

fn issued(number: usize, good: Good) -> Issued {
    Issued {
        access: format!("token-of-some-length-{number}"),
        refresh: None,
        id: None,
        good,
    }
}

fn used(login: &Supplied, known: &Registries, method: &str, url: &str, header: &str) -> Use {
    let mut request = hyper::Request::builder().method(method).uri(url);
    if !header.is_empty() {
        request = request.header(AUTHORIZATION, header);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let at = target(parts.uri.authority().unwrap().as_str());
    let Form::Registry(form) = &login.credential.form else {
        panic!("{login:?}")
    };
    login.credential.registry_use(form, &at, &parts, known)
}

fn challenge(text: &str) -> HeaderMap {
    HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_str(text).unwrap())])
}

#[test]
fn a_login_goes_to_the_registry_or_to_where_its_tokens_are_issued() {
    let known = Registries::default();
    let own = login("password", None);
    let get = |url: &str, header: &str| used(&own, &known, "GET", url, header);
    assert_eq!(get("https://images.test/v2/", ""), Use::Login);
    assert_eq!(get("https://images.test/v2/", "Basic eDp5"), Use::Nothing);
    assert_eq!(get("https://images.test/token?scope=x", ""), Use::Nothing);
    let token = format!("bearer {PLACEHOLDER}-x");
    let is_token = Use::Token(format!("{PLACEHOLDER}-x"));
    assert_eq!(get("https://images.test/v2/", &token), is_token);
    assert_eq!(get("https://other.test/v2/", &token), Use::Nothing);
    // Another host or port is not its own, nor is a part of its interface an endpoint.
    for realm in [
        "https://other.test/token",
        "https://images.test:8443/token",
        "http://images.test/token",
        "https://images.test/v2/",
    ] {
        let text = format!("Bearer realm=\"{realm}\"");
        known.learn(&target("images.test"), &challenge(&text));
        assert_eq!(get("https://images.test/token", ""), Use::Nothing);
    }
    let text = "Bearer realm=\"https://images.test/token?x=y\"";
    known.learn(&target("images.test"), &challenge(text));
    assert_eq!(get("https://images.test/token?scope=x", ""), Use::Issue);
    assert_eq!(get("https://images.test/token/", ""), Use::Nothing);
    assert_eq!(get("https://images.test/token", "Basic eDp5"), Use::Nothing);
    let post = used(&own, &known, "POST", "https://images.test/token", "");
    assert_eq!(post, Use::Nothing);
    // Where the endpoint is named, nothing else gets the login.
    let elsewhere = login("password", Some("https://auth.test/token"));
    let get = |url: &str| used(&elsewhere, &known, "GET", url, "");
    assert_eq!(get("https://auth.test/token?scope=x"), Use::Issue);
    assert_eq!(get("https://images.test/v2/"), Use::Nothing);
    assert_eq!(get("https://images.test/token"), Use::Nothing);
    assert_eq!(get("https://auth.test/v2/"), Use::Nothing);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_kept_while_it_is_good_and_belongs_to_its_login() {
    let known = Registries::default();
    let own = login("password", None);
    let lives = |good| {
        let placeholder = known.keep(&own, &issued(1, good)).unwrap();
        assert!(placeholder.starts_with(&format!("{PLACEHOLDER}-")));
        assert!(known.token(&placeholder, &own).is_some());
        assert!(known.token(&placeholder, &login("another", None)).is_none());
        placeholder
    };
    let short = limits::REGISTRY_TOKEN + limits::REGISTRY_TOKEN_GRACE;
    let long = limits::REGISTRY_TOKEN_LONGEST + limits::REGISTRY_TOKEN_GRACE;
    for (good, time) in [
        (Good::Unsaid, short),
        (Good::For(1), short),
        (Good::For(300), Duration::from_mins(6)),
        (Good::For(u64::MAX), long),
    ] {
        let placeholder = lives(good);
        tokio::time::advance(time.saturating_sub(Duration::from_secs(1))).await;
        assert!(known.token(&placeholder, &own).is_some(), "{good:?}");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(known.token(&placeholder, &own).is_none(), "{good:?}");
    }
}

#[test]
fn tokens_and_endpoints_are_bounded_and_the_oldest_token_goes() {
    let known = Registries::default();
    let own = login("password", None);
    let keep = |number| known.keep(&own, &issued(number, Good::For(300))).unwrap();
    let first = keep(0);
    let second = keep(1);
    for number in 2..=limits::REGISTRY_TOKENS {
        keep(number);
    }
    assert!(known.token(&first, &own).is_none());
    assert!(known.token(&second, &own).is_some());
    for number in 0..=limits::REGISTRIES {
        let host = format!("r{number}.test");
        let text = format!("Bearer realm=\"https://{host}/token\"");
        known.learn(&target(&host), &challenge(&text));
    }
    assert!(!known.issues(&target("r0.test"), "/token"));
    let last = format!("r{}.test", limits::REGISTRIES);
    assert!(known.issues(&target(&last), "/token"));
}

#[test]
fn what_is_no_login_of_a_registry_is_refused() {
    for change in [
        |one: &mut Credential| one.basic_user = None,
        |one: &mut Credential| one.basic_user = Some("a:b".to_owned()),
        |one: &mut Credential| one.hosts.push("other.test".to_owned()),
        |one: &mut Credential| one.hosts = vec!["**.test".to_owned()],
        |one: &mut Credential| one.header = "authorization".to_owned(),
    ] {
        let mut credential = credential("password", None);
        assert!(bind(&credential).is_ok());
        change(&mut credential);
        assert!(bind(&credential).is_err(), "{credential:?}");
    }
    for address in ["http://auth.test/token", "https://auth.test/token?a=b"] {
        let bad = credential("password", Some(address));
        assert!(bind(&bad).is_err(), "{address}");
    }
}

#[test]
fn a_token_is_bound_for_as_long_as_the_login_that_it_was_issued_for() {
    let known = Registries::default();
    let own = login("password", None);
    let placeholder = known.keep(&own, &issued(1, Good::Unsaid)).unwrap();
    let token = known.token(&placeholder, &own).unwrap().credential;
    let bound = |credentials: &[Credential]| {
        let configured = Configured {
            credentials,
            ..Configured::default()
        };
        let all = Credentials::new(&configured).unwrap();
        all.still_binds(&target("images.test"), &token)
    };
    assert!(bound(&[credential("password", None)]));
    assert!(bound(&[credential("another", None)]), "with whatever value");
    assert!(!bound(&[]));
    let other = Credential {
        placeholder: "sbx-registry-another".to_owned(),
        ..credential("password", None)
    };
    assert!(!bound(&[other]));
}
