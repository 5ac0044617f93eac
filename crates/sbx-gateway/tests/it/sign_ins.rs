//! Signing in from inside: tokens stay with the daemon, the guest has placeholders, and both go on for as long as the
//! issuer says.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::task::Poll;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use sbx_credentials::services::{Endpoint, TABLE};
use sbx_testkit::authorisation::{Options, Style};
use serde_json::{Value, json};

use crate::host::{Host, Told};
use crate::lab::run;

const LOGIN: &str = "platform.claude.com";
const PATH: &str = "/v1/oauth/token";
const API: &str = "api.anthropic.com";
const CLAUDE: [&str; 2] = [LOGIN, API];
/// A token that is good for so long counts as new for 2 s, and is due after 3 min.
const SHORT: Duration = Duration::from_secs(200);

fn claude(options: Options) -> Host {
    Host::start(&CLAUDE, options)
}

/// Waits until so much time has gone by since then: what is tested is what the clock does.
async fn until(begun: Instant, time: Duration) {
    tokio::time::sleep_until((begun + time).into()).await;
}

async fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn sign_in(host: &Host, code: &str, account: &str) -> Value {
    host.server.agree(code, account);
    let body = json!({ "grant_type": "authorization_code", "code": code, "client_id": "client-1" });
    let told = host.post_json(LOGIN, PATH, &body).await;
    assert_eq!(told.status, 200, "{told:?}");
    no_token(host, &told);
    told.json()
}

/// Nothing that was ever given out is in what the guest is told.
fn no_token(host: &Host, told: &Told) {
    for token in host.server.tokens() {
        assert!(!told.text.contains(&token), "{told:?}");
    }
}

async fn refresh(host: &Host, placeholder: &str) -> Told {
    let body = json!({ "grant_type": "refresh_token", "refresh_token": placeholder, "client_id": "client-1" });
    let told = host.post_json(LOGIN, PATH, &body).await;
    no_token(host, &told);
    told
}

fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer[name].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[track_caller]
fn granted(told: &Told, account: &str) {
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(told.json()["account"], account);
}

#[test]
fn attack_58_a_sign_in_stays_on_the_host_and_its_placeholder_works_where_the_token_is_good() {
    let mut host = claude(Options::default());
    run(async {
        let issued = sign_in(&host, "code-1", "a@one.test").await;
        let access = text(&issued, "access_token");
        assert!(access.starts_with("sk-ant-oat01-"), "{access}");
        assert!(text(&issued, "refresh_token").starts_with("sk-ant-ort01-"));
        assert_eq!(
            (&issued["expires_in"], &issued["account"]["email_address"]),
            (&json!(28800), &json!("a@one.test"))
        );
        granted(&host.call(API, access).await, "a@one.test");
        // Over HTTP/2 as well, and what comes back has no token in it either.
        let request = Request::get(format!("https://{API}/v1/models"))
            .header("authorization", format!("Bearer {access}"))
            .body(Full::default());
        let told = host.request_h2(API, request.unwrap()).await;
        granted(&told, "a@one.test");
        no_token(&host, &told);
        // Elsewhere neither it nor what refreshes it is sent.
        for token in [access, text(&issued, "refresh_token")] {
            let told = host.call_elsewhere(token).await;
            assert_eq!(told.reason, "placeholder-to-unbound-host", "{told:?}");
        }
        // Nor is it where it is good, in another place than a login.
        let request = Request::get(format!("/v1/files/{access}"))
            .header("host", API)
            .header(
                "authorization",
                "Bearer sk-ant-oat01-a-token-of-the-guests-own",
            )
            .body(Full::default());
        let told = host.request(API, request.unwrap()).await;
        assert_eq!(told.reason, "placeholder-to-unbound-host", "{told:?}");
        let rows = host.sign_ins();
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(
            (&rows[0]["scope"], &rows[0]["name"]),
            (&json!("box"), &json!("anthropic"))
        );
        assert!(
            text(&rows[0], "secret").starts_with("sk-ant****...****"),
            "{rows:?}"
        );
        for token in host.server.tokens() {
            assert!(!host.is_on_disk(&token), "a token lies on the disk");
        }
        // Without a daemon it goes on, but nothing is issued.
        host.kill_daemon();
        granted(&host.call(API, access).await, "a@one.test");
        let told = refresh(&host, text(&issued, "refresh_token")).await;
        assert_eq!(
            (told.status, told.reason.as_str()),
            (502, "credential-unavailable")
        );
        host.start_daemon();
        host.restart_gateway();
        granted(&host.call(API, access).await, "a@one.test");
        assert_eq!(host.server.counts().refreshes, 0);
        // What was removed is good for nothing.
        let remove = json!({ "service": "anthropic", "sandbox": "box" });
        host.post("/v1/secrets/remove", &remove).unwrap();
        assert_eq!(host.call(API, access).await.reason, "credential-withdrawn");
        assert_eq!(host.sign_ins(), Vec::<Value>::new());
    });
}

#[test]
fn claims_stay_readable_and_old_placeholders_go_on_after_a_refresh() {
    let hosts = ["auth.openai.com", "chatgpt.com"];
    let options = Options {
        style: Style::Jwt,
        lifetime: SHORT,
        ..Options::default()
    };
    let host = Host::start(&hosts, options);
    run(async {
        host.server.agree("code-1", "a@one.test");
        let body = "grant_type=authorization_code&code=code-1&client_id=app_1";
        let form = |body: String| {
            Request::post("/oauth/token")
                .header("host", hosts[0])
                .header("content-type", "application/x-www-form-urlencoded")
                .header("accept", "application/json")
                .body(Full::new(Bytes::from(body)))
                .unwrap()
        };
        let begun = Instant::now();
        let told = host.request(hosts[0], form(body.to_owned())).await;
        no_token(&host, &told);
        let first = told.json();
        for name in ["access_token", "id_token"] {
            let claims = text(&first, name).split('.').nth(1).unwrap();
            let claims: Value =
                serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
            assert_eq!(claims["email"], "a@one.test");
        }
        granted(
            &host.call(hosts[1], text(&first, "access_token")).await,
            "a@one.test",
        );
        // Not even the signature is on the disk, the claims are in nothing but the encrypted file.
        for token in host.server.tokens() {
            let signature = token.rsplit('.').next().unwrap();
            assert!(!host.is_on_disk(signature));
        }
        until(begun, Duration::from_millis(2500)).await;
        let escaped: String = text(&first, "refresh_token")
            .bytes()
            .map(|byte| format!("%{byte:02X}"))
            .collect();
        let body = format!("grant_type=refresh_token&refresh_token={escaped}&client_id=app_1");
        let told = host.request(hosts[0], form(body)).await;
        no_token(&host, &told);
        let second = told.json();
        assert_ne!(
            first["access_token"], second["access_token"],
            "its claims are others"
        );
        assert_eq!(first["refresh_token"], second["refresh_token"]);
        assert_eq!(host.server.counts().refreshes, 1);
        for issued in [&first, &second] {
            granted(
                &host.call(hosts[1], text(issued, "access_token")).await,
                "a@one.test",
            );
        }
        // Another use of a placeholder at the token endpoint than a refresh is refused as OAuth does it.
        let body = format!(
            "grant_type=urn:x&subject_token={}",
            text(&second, "id_token")
        );
        let told = host.request(hosts[0], form(body)).await;
        assert_eq!(
            (told.status, &told.json()["error"]),
            (400, &json!("unsupported_grant_type"))
        );
    });
}

#[test]
fn a_token_that_is_over_is_refreshed_once_however_many_ask_for_it() {
    let options = Options {
        lifetime: Duration::from_secs(2),
        ..Options::default()
    };
    let host = claude(options);
    run(async {
        let begun = Instant::now();
        let issued = sign_in(&host, "code-1", "a@one.test").await;
        let access = text(&issued, "access_token");
        host.server.set_lifetime(Duration::from_hours(8));
        // Begun before the end, by the daemon; not done before it.
        host.server.set_delay(Duration::from_millis(1500));
        until(begun, Duration::from_millis(2300)).await;
        let told = all((0..8).map(|_| host.call(API, access))).await;
        for told in &told {
            granted(told, "a@one.test");
        }
        let counts = host.server.counts();
        assert_eq!(
            (counts.refreshes, counts.at_a_time, counts.denied),
            (1, 1, 0)
        );
    });
}

/// What comes of all of them, which go on at a time.
async fn all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let futures = futures.into_iter();
    let mut running: Vec<_> = futures.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in running.iter_mut().filter(|(_, done)| done.is_none()) {
            if let Poll::Ready(outcome) = future.as_mut().poll(cx) {
                *done = Some(outcome);
            }
        }
        if running.iter().all(|(_, done)| done.is_some()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    running.into_iter().filter_map(|(_, done)| done).collect()
}

#[test]
fn a_refresh_that_the_guest_asks_for_is_the_daemons_and_is_done_once() {
    let host = claude(Options {
        lifetime: SHORT,
        ..Options::default()
    });
    run(async {
        let begun = Instant::now();
        let issued = sign_in(&host, "code-1", "a@one.test").await;
        let access = text(&issued, "access_token");
        host.server.set_delay(Duration::from_millis(300));
        until(begun, Duration::from_millis(2500)).await;
        let asked = (0..8).map(|_| refresh(&host, text(&issued, "refresh_token")));
        for told in all(asked).await {
            assert_eq!(told.status, 200, "{told:?}");
            let answer = told.json();
            assert_eq!(
                (text(&answer, "access_token"), &answer["refresh_token"]),
                (access, &issued["refresh_token"])
            );
            let left = answer["expires_in"].as_u64().unwrap();
            assert!((180..=200).contains(&left), "{left}");
        }
        let counts = host.server.counts();
        assert_eq!((counts.refreshes, counts.at_a_time), (1, 1));
        // Rotated: the one of the host is good, and it asks as the client that signed in.
        granted(&host.call(API, access).await, "a@one.test");
        let requests = host.server.recorder().requests();
        let mut bodies = requests.iter().filter_map(|request| request.body.as_ref());
        let body = bodies
            .find(|body| body["grant_type"] == "refresh_token")
            .unwrap();
        assert_eq!(body["client_id"], "client-1");
        // One that fails for now leaves everything as it is.
        until(begun, Duration::from_secs(6)).await;
        host.server.fail(1, 503);
        let told = refresh(&host, text(&issued, "refresh_token")).await;
        assert_eq!(
            (told.status, told.reason.as_str()),
            (502, "credential-unavailable")
        );
        assert!(told.text.contains("answered 503"), "{told:?}");
        granted(&host.call(API, access).await, "a@one.test");
    });
}

#[test]
fn accounts_are_side_by_side_and_signing_in_again_replaces_ones_own() {
    let host = claude(Options::default());
    run(async {
        let one = sign_in(&host, "code-1", "a@one.test").await;
        let two = sign_in(&host, "code-2", "b@two.test").await;
        let again = sign_in(&host, "code-3", "a@one.test").await;
        assert_ne!(one["access_token"], two["access_token"]);
        assert_eq!(one["access_token"], again["access_token"]);
        for (issued, account) in [
            (&one, "a@one.test"),
            (&two, "b@two.test"),
            (&again, "a@one.test"),
        ] {
            granted(&host.call(API, text(issued, "access_token")).await, account);
        }
        let rows = host.sign_ins();
        assert_eq!(rows.len(), 2, "{rows:?}");
        // A key that is stored comes before all of them.
        let key = json!({ "service": "anthropic", "value": "sk-ant-api03-the-key-of-the-user", "sandbox": null, "force": false });
        host.post("/v1/secrets", &key).unwrap();
        host.call(API, text(&two, "access_token")).await;
        let requests = host.server.recorder().requests();
        let last = requests.last().unwrap();
        assert_eq!(
            last.header("x-api-key"),
            Some("sk-ant-api03-the-key-of-the-user")
        );
        assert_eq!(last.header("authorization"), None);
        host.post("/v1/secrets/remove", &json!({ "service": "anthropic" }))
            .unwrap();
        granted(
            &host.call(API, text(&two, "access_token")).await,
            "b@two.test",
        );
        assert_eq!(host.sign_ins().len(), 2);
    });
}

#[test]
fn a_sign_in_that_its_issuer_has_ended_is_withdrawn() {
    let host = claude(Options {
        lifetime: SHORT,
        ..Options::default()
    });
    run(async {
        let begun = Instant::now();
        let ended = sign_in(&host, "code-1", "a@one.test").await;
        let other = sign_in(&host, "code-2", "b@two.test").await;
        host.server.revoke("a@one.test");
        until(begun, Duration::from_millis(2500)).await;
        for _ in 0..2 {
            let told = refresh(&host, text(&ended, "refresh_token")).await;
            assert_eq!(
                (told.status, &told.json()["error"]),
                (400, &json!("invalid_grant")),
                "{told:?}"
            );
        }
        assert_eq!(host.server.counts().refused, 1);
        let told = host.call(API, text(&ended, "access_token")).await;
        assert_eq!(told.reason, "credential-withdrawn", "{told:?}");
        granted(
            &host.call(API, text(&other, "access_token")).await,
            "b@two.test",
        );
        assert_eq!(host.sign_ins().len(), 1);
    });
}

/// Refresh tokens that the server was sent.
fn refreshes(host: &Host) -> Vec<String> {
    let requests = host.server.recorder().requests();
    let bodies = requests.iter().filter_map(|request| request.body.as_ref());
    let refreshes = bodies.filter(|body| body["grant_type"] == "refresh_token");
    refreshes
        .map(|body| text(body, "refresh_token").to_owned())
        .collect()
}

#[test]
fn a_refresh_that_another_sign_in_has_overtaken_neither_replaces_nor_ends_it() {
    let host = claude(Options {
        lifetime: SHORT,
        ..Options::default()
    });
    run(async {
        for (count, account, ended) in [(1, "a@one.test", false), (2, "b@two.test", true)] {
            let begun = Instant::now();
            let first = sign_in(&host, "code-1", account).await;
            until(begun, Duration::from_millis(2500)).await;
            host.server.hold(true);
            let placeholder = text(&first, "refresh_token");
            let before = refreshes(&host).len();
            let again = async {
                wait_for("a refresh", || refreshes(&host).len() > before).await;
                if ended {
                    host.server.revoke(account);
                }
                let again = sign_in(&host, "code-2", account).await;
                let mut newest = host.server.tokens();
                host.server.hold(false);
                let refresh = newest.pop().unwrap();
                (again, newest.pop().unwrap(), refresh)
            };
            let (told, (again, access, refresh_token)) =
                tokio::join!(refresh(&host, placeholder), again);
            assert_eq!(told.status, 200, "{told:?}");
            assert_eq!(host.server.counts().refused, u32::from(ended));
            assert_eq!(told.json()["access_token"], again["access_token"]);
            // What is stored is of the later one: both of its tokens.
            granted(&host.call(API, text(&again, "access_token")).await, account);
            let requests = host.server.recorder().requests();
            let sent = requests.last().unwrap().header("authorization").unwrap();
            assert_eq!(sent, format!("Bearer {access}"));
            assert_eq!(host.sign_ins().len(), count);
            tokio::time::sleep(Duration::from_millis(2500)).await;
            assert_eq!(refresh(&host, placeholder).await.status, 200);
            assert_eq!(refreshes(&host).last(), Some(&refresh_token));
        }
    });
}

#[test]
fn what_cannot_be_refreshed_is_used_until_it_is_over_and_then_said_to_be() {
    let hosts = ["api.github.com", "api.individual.githubcopilot.com"];
    let options = Options {
        keys: vec![("/copilot_internal/v2/token".to_owned(), "token".to_owned())],
        lifetime: Duration::from_secs(3),
        ..Options::default()
    };
    let host = Host::start(&hosts, options);
    run(async {
        let request = Request::get("/copilot_internal/v2/token").header("host", hosts[0]);
        let told = host
            .request(hosts[0], request.body(Full::default()).unwrap())
            .await;
        no_token(&host, &told);
        let placeholder = told.json()["token"].as_str().unwrap().to_owned();
        // What clients read stands in it.
        assert!(placeholder.starts_with("tid=1;exp="), "{placeholder}");
        granted(&host.call(hosts[1], &placeholder).await, "me@example.test");
        let begun = Instant::now();
        loop {
            let told = host.call(hosts[1], &placeholder).await;
            if told.reason == "credential-unavailable" {
                assert!(told.text.contains("sign in again"), "{told:?}");
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{told:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn sign_ins_beyond_the_last_few_are_forgotten() {
    let host = claude(Options::default());
    run(async {
        let first = sign_in(&host, "code", "0@one.test").await;
        for number in 1..17 {
            sign_in(&host, "code", &format!("{number}@one.test")).await;
        }
        assert_eq!(host.sign_ins().len(), 16);
        let told = host.call(API, text(&first, "access_token")).await;
        assert_eq!(told.reason, "credential-withdrawn", "{told:?}");
    });
}

/// What the daemon answers a call of the page.
fn call_back(url: &str, host: &str) -> String {
    let rest = url.strip_prefix("http://localhost:").unwrap();
    let (port, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse().unwrap())).unwrap();
    let host = host.replace("PORT", port);
    let head = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn somebody_agrees_in_the_hosts_browser_and_every_sandbox_may_use_it() {
    let hosts = ["auth.openai.com", "chatgpt.com"];
    let host = Host::start(&hosts, Options::default());
    let ask = json!({ "service": "openai" });
    let none = host.post("/v1/secrets/consent", &json!({ "service": "groq" }));
    assert_eq!(none.unwrap_err()["code"], "no-consent");
    // Asked again: the first question is none any more.
    let first = host.post("/v1/secrets/consent", &ask).unwrap();
    let asked = host.post("/v1/secrets/consent", &ask).unwrap();
    let gone = host.post("/v1/secrets/consent/wait", &json!({ "id": first["id"] }));
    assert_eq!(gone.unwrap_err()["code"], "consent-not-found");
    assert!(text(&asked, "not_opened").contains("no screen"), "{asked}");
    let page = text(&asked, "page")
        .strip_prefix("https://auth.openai.com")
        .unwrap();
    run(async {
        // A browser would go there.
        let request = Request::get(page)
            .header("host", hosts[0])
            .body(Full::default());
        let told = host.request(hosts[0], request.unwrap()).await;
        assert_eq!(told.status, 302, "{told:?}");
        let (url, _state) = told.location.split_once("&state=").unwrap();
        let forged = call_back(&format!("{url}&state=0"), "localhost:PORT");
        assert!(forged.starts_with("HTTP/1.1 400"), "{forged}");
        let rebound = call_back(&told.location, "attacker.test:PORT");
        assert!(rebound.starts_with("HTTP/1.1 400"), "{rebound}");
        let called = call_back(&told.location, "localhost:PORT");
        assert!(called.starts_with("HTTP/1.1 200"), "{called}");
        let stored = host.post("/v1/secrets/consent/wait", &json!({ "id": asked["id"] }));
        let stored = stored.unwrap();
        assert_eq!(
            (&stored["name"], &stored["scope"]),
            (&json!("openai"), &json!("(global)"))
        );
        assert_eq!(host.sign_ins().len(), 1);
        // What stands for it here is what a new session finds.
        let record = host.record();
        let issued = record["issued"].as_array().unwrap();
        let access = issued.iter().find(|one| one["exchanged"] == false).unwrap();
        let told = host.call(hosts[1], text(access, "placeholder")).await;
        granted(&told, "me@example.test");
        no_token(&host, &told);
        for token in host.server.tokens() {
            assert!(!host.is_on_disk(&token), "a token lies on the disk");
        }
    });
}

#[test]
fn nobody_has_agreed_yet_is_what_the_guest_hears_and_the_answer_in_a_form_is_one_inside() {
    let hosts = ["github.com", "api.github.com"];
    let host = Host::start(&hosts, Options::default());
    run(async {
        let ask = || {
            let body = "grant_type=urn:ietf:params:oauth:grant-type:device_code&device_code=code-1";
            let request = Request::post("/login/oauth/access_token")
                .header("host", hosts[0])
                .header("content-type", "application/x-www-form-urlencoded")
                .body(Full::new(Bytes::from(body)));
            host.request(hosts[0], request.unwrap())
        };
        let told = ask().await;
        assert_eq!(
            (told.status, told.text.as_str()),
            (200, "error=authorization_pending")
        );
        host.server.agree("code-1", "a@one.test");
        let told = ask().await;
        no_token(&host, &told);
        let mut pairs = told.text.split('&').filter_map(|pair| pair.split_once('='));
        let (_, access) = pairs.find(|(name, _)| *name == "access_token").unwrap();
        granted(&host.call(hosts[1], access).await, "a@one.test");
    });
}

/// A request for an endpoint of the table.
fn asked(endpoint: &Endpoint) -> Request<Full<Bytes>> {
    let path = endpoint.path.replace("**", "a/b").replace('*', "x");
    let poll = if path == "/auth/poll" {
        "?uuid=code"
    } else {
        ""
    };
    let method = match endpoint.methods {
        "ANY" => "POST",
        one => one,
    };
    let body = if method == "GET" {
        Bytes::new()
    } else {
        Bytes::from_static(b"{\"grant_type\":\"authorization_code\",\"code\":\"code\"}")
    };
    Request::builder()
        .method(method)
        .uri(format!("{path}{poll}"))
        .header("host", endpoint.host)
        .body(Full::new(body))
        .unwrap()
}

#[test]
fn attack_58_other_names_of_a_token_endpoint_are_captured_and_its_other_paths_told_apart() {
    let key = "/api/oauth/claude_cli/create_api_key";
    let host = Host::start(
        &[LOGIN, API, "claude.ai"],
        Options {
            keys: vec![(key.to_owned(), "raw_key".to_owned())],
            lifetime: SHORT,
            ..Options::default()
        },
    );
    run(async {
        let body = |code: &str| json!({ "grant_type": "authorization_code", "code": code, "client_id": "client-1" });
        let mut issued = Vec::new();
        for (number, (at, path, method)) in [
            (API, PATH, "POST"),
            (API, "/V1//oauth/%74oken", "PUT"),
            ("claude.ai", PATH, "POST"),
            (LOGIN, PATH, "PATCH"),
        ]
        .into_iter()
        .enumerate()
        {
            host.server
                .agree("code", &format!("{}@one.test", number % 2));
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", at)
                .header("content-type", "application/json")
                .body(Full::new(Bytes::from(body("code").to_string())));
            let told = host.request(at, request.unwrap()).await;
            assert_eq!(told.status, 200, "{at} {path}: {told:?}");
            no_token(&host, &told);
            issued.push(told.json());
        }
        // Whoever signed in under one name has signed in under each.
        assert_eq!(host.sign_ins().len(), 2);
        for one in [0, 1] {
            assert_eq!(issued[one]["access_token"], issued[one + 2]["access_token"]);
            let access = text(&issued[one], "access_token");
            granted(&host.call(API, access).await, &format!("{one}@one.test"));
        }
        // At the same host, a key: of another name in the answer, and nothing refreshes it.
        let made = host.post_json(API, key, &json!({})).await;
        assert_eq!(made.status, 200, "{made:?}");
        no_token(&host, &made);
        let made = made.json();
        let raw_key = text(&made, "raw_key");
        granted(&host.call(API, raw_key).await, "me@example.test");
        assert_eq!(host.sign_ins().len(), 3);
        // What was issued under another name is refreshed as any other, wherever the guest asks.
        tokio::time::sleep(Duration::from_millis(2500)).await;
        for at in [API, LOGIN] {
            let token = text(&issued[0], "refresh_token");
            let asked = json!({ "grant_type": "refresh_token", "refresh_token": token });
            let told = host.post_json(at, PATH, &asked).await;
            assert_eq!((told.status, told.reason.as_str()), (200, ""), "{told:?}");
            no_token(&host, &told);
        }
        assert!(host.server.counts().refreshes >= 1);
        let requests = host.server.recorder().requests();
        let refreshed = requests.iter().filter(|request| {
            let body = request.body.as_ref();
            body.is_some_and(|body| body["grant_type"] == "refresh_token")
        });
        for request in refreshed {
            assert_eq!(request.header("host"), Some(LOGIN));
        }
    });
}

#[test]
fn attack_58_every_endpoint_that_issues_credentials_is_captured_or_refused() {
    let endpoints = || {
        TABLE
            .iter()
            .flat_map(|service| service.issuing.iter().map(move |one| (service.name, one)))
    };
    let mut hosts: Vec<&str> = endpoints().map(|(_, endpoint)| endpoint.host).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let keys = endpoints().filter_map(|(_, endpoint)| {
        let kept = endpoint.kept?;
        let one = kept.refreshed.is_none() || endpoint.path.ends_with("api_key");
        let name = kept.token.last()?;
        one.then(|| (endpoint.path.replace('*', "x"), (*name).to_owned()))
    });
    let host = Host::start(
        &hosts,
        Options {
            keys: keys.collect(),
            ..Options::default()
        },
    );
    run(async {
        // Before anything is stored: whoever signs in is kept, and what needs a key of ours is nobody's.
        for stored in [false, true] {
            let mut count = 0;
            for (service, endpoint) in endpoints() {
                if stored {
                    let key = json!({ "service": service, "value": "the-key-of-the-user", "sandbox": null, "force": true });
                    host.post("/v1/secrets", &key).unwrap();
                } else if endpoint.kept.is_none() {
                    continue;
                }
                host.server
                    .agree("code", &format!("{count}@{service}.test"));
                let before = host.server.recorder().requests().len();
                let told = host.request(endpoint.host, asked(endpoint)).await;
                let what = format!("{service} {} {}: {told:?}", endpoint.host, endpoint.path);
                if endpoint.kept.is_some() {
                    assert_eq!((told.status, told.reason.as_str()), (200, ""), "{what}");
                    assert!(told.text.len() > 40, "{what}");
                    no_token(&host, &told);
                } else {
                    assert_eq!(
                        (told.status, told.reason.as_str()),
                        (403, "credential-issuer"),
                        "{what}"
                    );
                    assert_eq!(host.server.recorder().requests().len(), before, "{what}");
                }
                count += 1;
            }
            assert!(count > 10, "{count}");
        }
        let kept = host.server.tokens().len();
        assert!(kept > 20, "{kept}");
        for token in host.server.tokens() {
            assert!(!host.is_on_disk(&token), "a token lies on the disk");
        }
        wait_for("sign-ins", || !host.sign_ins().is_empty()).await;
    });
}
