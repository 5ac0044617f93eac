//! The authorisation server, as a client of OAuth sees it.

use std::time::Duration;

use sbx_testkit::AuthorisationStandIn;
use sbx_testkit::authorisation::{Counts, Options, Style};
use serde_json::Value;

use crate::client::{Answer, Client};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// S256 of it (RFC 7636, appendix B).
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

fn start(options: Options) -> (AuthorisationStandIn, Client) {
    let server = AuthorisationStandIn::start(options).unwrap();
    let client = Client::new("login.example", server.address(), Some(server.root_pem()));
    (server, client)
}

fn post(client: &Client, body: &str) -> Answer {
    let json = ["-H", "accept: application/json", "--data", body];
    client.get("/token", &json)
}

fn bearer(client: &Client, token: &Value) -> u16 {
    let header = format!("authorization: Bearer {}", token.as_str().unwrap());
    client.get("/v1/models", &["-H", &header]).status
}

fn code(client: &Client) -> String {
    let path = format!(
        "/oauth/authorize?client_id=c&redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2Fback&state=s&code_challenge={CHALLENGE}&code_challenge_method=S256"
    );
    let answer = client.get(&path, &[]);
    assert_eq!(answer.status, 302);
    let headers = answer.headers.to_ascii_lowercase();
    assert!(
        headers.contains("location: http://127.0.0.1:1/back?code="),
        "{headers}"
    );
    let code = answer.headers.split("code=").nth(1).unwrap();
    code.split('&').next().unwrap().to_owned()
}

#[test]
fn a_code_is_good_once_and_for_whoever_has_its_verifier() {
    let (server, client) = start(Options::default());
    let ask = |code: &str, verifier: &str| {
        let body = format!(
            "grant_type=authorization_code&code={code}&client_id=c&redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2Fback&code_verifier={verifier}"
        );
        post(&client, &body)
    };
    assert_eq!(ask(&code(&client), "another").status, 400);
    let good = code(&client);
    let issued = ask(&good, VERIFIER).json();
    assert_eq!(bearer(&client, &issued["access_token"]), 200);
    assert_eq!(ask(&good, VERIFIER).json()["error"], "invalid_grant");
    assert_eq!(server.tokens().len(), 2);
}

#[test]
fn a_refresh_token_that_is_used_twice_ends_the_sign_in() {
    let (server, client) = start(Options {
        style: Style::Jwt,
        ..Options::default()
    });
    server.agree("code", "a@one.example");
    let first = post(&client, "grant_type=authorization_code&code=code").json();
    let refresh = |issued: &Value| {
        let token = issued["refresh_token"].as_str().unwrap();
        post(
            &client,
            &format!("grant_type=refresh_token&refresh_token={token}"),
        )
    };
    let second = refresh(&first).json();
    assert_eq!(bearer(&client, &first["access_token"]), 401);
    assert_eq!(bearer(&client, &second["access_token"]), 200);
    assert_eq!(refresh(&first).status, 400);
    assert_eq!(bearer(&client, &second["access_token"]), 401);
    assert_eq!(refresh(&second).json()["error"], "invalid_grant");
    let counts = Counts {
        refreshes: 1,
        refused: 2,
        at_a_time: 1,
        granted: 1,
        denied: 2,
    };
    assert_eq!(server.counts(), counts);
}

#[test]
fn tokens_end_and_a_server_that_fails_takes_no_refresh_token() {
    let (server, client) = start(Options {
        lifetime: Duration::ZERO,
        ..Options::default()
    });
    server.agree("code", "a@one.example");
    let issued = post(&client, "grant_type=authorization_code&code=code").json();
    assert_eq!(bearer(&client, &issued["access_token"]), 401);
    server.set_lifetime(Duration::from_hours(1));
    server.fail(1, 503);
    let token = issued["refresh_token"].as_str().unwrap();
    let body = format!("grant_type=refresh_token&refresh_token={token}");
    assert_eq!(post(&client, &body).status, 503);
    let again = post(&client, &body).json();
    assert_eq!(bearer(&client, &again["access_token"]), 200);
    server.revoke("a@one.example");
    assert_eq!(bearer(&client, &again["access_token"]), 401);
}
