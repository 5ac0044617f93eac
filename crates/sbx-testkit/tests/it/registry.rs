//! The registry of images, as its clients see it.

use std::time::Duration;

use sbx_testkit::RegistryStandIn;
use sbx_testkit::registry::Options;

use crate::client::Client;

fn start(realm: Option<&str>) -> (RegistryStandIn, Client) {
    let options = Options {
        names: vec!["images.example".to_owned()],
        user: "u".to_owned(),
        password: "the-password".to_owned(),
        realm: realm.map(str::to_owned),
        storage: None,
        lifetime: Duration::from_mins(5),
    };
    let server = RegistryStandIn::start(options).unwrap();
    server.put("/v2/app/manifests/1", "application/json", "{\"a\":1}");
    let client = Client::new("images.example", server.address(), Some(server.root_pem()));
    (server, client)
}

#[test]
fn one_that_wants_the_login_gets_it() {
    let (_server, client) = start(None);
    let refused = client.get("/v2/", &[]);
    assert_eq!(refused.status, 401);
    assert!(refused.has_header("www-authenticate: basic realm=\"stand-in\""));
    assert_eq!(client.get("/v2/", &["-u", "u:wrong"]).status, 401);
    let answer = client.get("/v2/app/manifests/1", &["-u", "u:the-password"]);
    assert_eq!(answer.json()["a"], 1);
}

#[test]
fn one_that_wants_tokens_takes_those_that_cover_what_is_asked_and_no_login() {
    let (server, client) = start(Some("https://images.example/token"));
    let login = ["-u", "u:the-password"];
    let path = "/v2/app/manifests/1";
    let refused = client.get(path, &login);
    assert_eq!(refused.status, 401);
    let challenge = "www-authenticate: bearer realm=\"https://images.example/token\",service=\"images.example\",scope=\"repository:app:pull\"";
    assert!(refused.has_header(challenge), "{}", refused.headers);
    let get = |scope: &str, more: &[&str]| {
        let answer = client.get(
            &format!("/token?service=images.example&scope={scope}"),
            more,
        );
        let token = answer.json()["token"].as_str().map(str::to_owned);
        let header = format!("authorization: Bearer {}", token.unwrap_or_default());
        (answer.status, client.get(path, &["-H", &header]).status)
    };
    assert_eq!(get("repository:app:pull", &login), (200, 200));
    assert_eq!(get("repository%3Aapp%3Apull", &login), (200, 200));
    assert_eq!(get("repository:other:pull", &login), (200, 401));
    assert_eq!(get("repository:app:pull", &[]), (200, 401));
    assert_eq!(get("repository:app:pull", &["-u", "u:wrong"]), (401, 401));
    assert_eq!(server.tokens().len(), 4);
}
