//! Logins of registries of images: clients inside have none, and what is issued for one stays in the gateway.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Method, Request, Response};
use sbx_testkit::docker_registry::{PASSWORD, USER};
use sbx_testkit::recorder::Request as Received;
use sbx_testkit::registry::Options;
use sbx_testkit::{EchoUpstream, RegistryStandIn};
use sbx_wire::gateway::{Credential, Registry, Withdrawn};
use sbx_wire::secret::SecretText;
use serde_json::{Value, json};

use crate::lab::{Lab, Setup, anthropic, h1, h2, run, send, text};

/// `USER:PASSWORD` as it is sent.
const LOGIN: &str = "Basic dTp0aGUtcGFzc3dvcmQtb2YtdGhlLWxvZ2lu";
const PLACEHOLDER: &str = "sbx-registry-0123456789abcdef";
const SERVICE: &str = "registry:registry.test";
const REGISTRY: &str = "registry.test";
const AUTH: &str = "auth.test";
const STORAGE: &str = "blobs.test";
const MANIFEST: &str = "/v2/app/manifests/1";
const BLOB: &str = "/v2/app/blobs/sha256:0f";
const SCOPE: &str = "/token?service=registry.test&scope=repository:app:pull";

/// The login of a registry. `endpoint`: where its tokens are issued, as the user has named it.
pub(crate) fn login(registry: &str, endpoint: Option<&str>) -> Credential {
    Credential {
        service: format!("registry:{registry}"),
        header: String::new(),
        format: String::new(),
        placeholder: PLACEHOLDER.to_owned(),
        value: SecretText::new(PASSWORD.to_owned()),
        basic_user: Some(USER.to_owned()),
        registry: Some(Registry {
            auth_endpoint: endpoint.map(|url| url.parse().unwrap()),
        }),
        ..anthropic(registry)
    }
}

/// A registry that has its tokens issued there, or wants the login itself.
fn registry(realm: Option<&str>) -> RegistryStandIn {
    let names = [REGISTRY, AUTH, STORAGE].map(str::to_owned);
    let options = Options {
        names: names.to_vec(),
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
        realm: realm.map(str::to_owned),
        storage: Some(STORAGE.to_owned()),
        lifetime: Duration::from_mins(5),
    };
    let server = RegistryStandIn::start(options).unwrap();
    server.put(MANIFEST, "application/json", "{\"layers\":[]}");
    server.put(BLOB, "application/octet-stream", "content");
    server
}

fn setup(server: &RegistryStandIn, credential: Credential) -> Setup {
    let mut setup = Setup::new(&[
        "allow registry.test",
        "allow auth.test",
        "allow blobs.test",
        "allow web.test",
    ]);
    for name in [REGISTRY, AUTH, STORAGE] {
        setup = setup.send_to(&format!("{name}:443"), server.address());
    }
    let root = server.root_pem().to_owned();
    setup.file.upstream.extra_roots_pem.push(root.clone());
    // What is not opened has the stand-in's own certificate.
    setup.guest_roots.push(root);
    setup.bind(credential)
}

/// What the guest was answered.
#[derive(Debug)]
struct Told {
    status: u16,
    reason: String,
    challenge: String,
    location: String,
    text: String,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The token of an answer.
    fn token(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        let answer = self.json();
        let token = answer["token"].as_str().unwrap().to_owned();
        assert_eq!(answer["access_token"].as_str(), Some(token.as_str()));
        token
    }
}

async fn answered(answer: Response<hyper::body::Incoming>) -> Told {
    let header = |name| {
        let value = answer.headers().get(name);
        value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    };
    let (reason, challenge) = (header("x-sbx-reason"), header("www-authenticate"));
    let location = header("location");
    let (status, text) = text(answer).await;
    Told {
        status,
        reason,
        challenge,
        location,
        text,
    }
}

fn request(method: Method, uri: &str, host: &str, authorization: &str) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = method;
    *request.uri_mut() = uri.parse().unwrap();
    request
        .headers_mut()
        .insert("host", HeaderValue::from_str(host).unwrap());
    if !authorization.is_empty() {
        let value = HeaderValue::from_str(authorization).unwrap();
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    request
}

/// One request of the guest over TLS.
async fn ask(lab: &Lab, host: &str, path: &str, authorization: &str) -> Told {
    let stream = lab.connect(&format!("{host}:443")).await.unwrap();
    let stream = lab.tls(stream, host, &[b"http/1.1"]).await.unwrap();
    let request = request(Method::GET, path, host, authorization);
    answered(send(&mut h1(stream).await, request).await.unwrap()).await
}

/// What arrived last, and with which login.
fn last(server: &RegistryStandIn) -> (Received, Option<String>) {
    let received = server.recorder().requests().pop().unwrap();
    let login = received.header("authorization").map(str::to_owned);
    (received, login)
}

/// Goes as far as a client does: it is refused, and asks for a token where it is told to.
async fn issue(lab: &Lab, host: &str) -> String {
    let refused = ask(lab, REGISTRY, MANIFEST, "").await;
    assert_eq!(refused.status, 401, "{refused:?}");
    assert!(
        refused.challenge.starts_with("Bearer realm="),
        "{refused:?}"
    );
    ask(lab, host, SCOPE, "").await.token()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[test]
fn a_registry_that_wants_the_login_gets_it_with_what_clients_pull_and_push_with() {
    let server = registry(None);
    let lab = setup(&server, login(REGISTRY, None)).start();
    run(async {
        for path in ["/v2/", MANIFEST, "/v2/_echo/tags/list"] {
            let told = ask(&lab, REGISTRY, path, "").await;
            assert_eq!(
                (told.status, last(&server).1.as_deref()),
                (200, Some(LOGIN)),
                "{told:?}"
            );
            // Also where it shows what it was sent.
            assert!(!told.text.contains(&LOGIN[20..]), "{told:?}");
        }
        let stream = lab.connect("registry.test:443").await.unwrap();
        let stream = lab.tls(stream, REGISTRY, &[b"h2"]).await.unwrap();
        let mut client = h2(stream).await;
        for method in [Method::HEAD, Method::POST, Method::PUT] {
            let url = format!("https://registry.test{MANIFEST}");
            let request = request(method, &url, REGISTRY, "");
            assert_eq!(client.send_request(request).await.unwrap().status(), 200);
            assert_eq!(last(&server).1.as_deref(), Some(LOGIN));
        }
        // Nothing else of the host, and a login of the guest's own stays what it is.
        for (path, own) in [
            ("/", ""),
            ("/token", ""),
            ("/v2/token", ""),
            ("/v2/%5fecho/tags/list", ""),
            ("/v2/", "Basic eDp5"),
            (MANIFEST, "Bearer of-the-guest"),
        ] {
            ask(&lab, REGISTRY, path, own).await;
            let arrived = last(&server).1;
            assert_eq!(arrived.as_deref().unwrap_or_default(), own, "{path}");
        }
        let fits = |record: &sbx_wire::gateway::EgressRecord| {
            record.credential.as_deref() == Some(SERVICE) && record.alert.is_none()
        };
        let records = lab.records_that(6, fits).await;
        assert!(
            records
                .iter()
                .all(|record| record.allowed && record.host == REGISTRY)
        );
        let shown = std::fs::read_to_string(lab.path("log")).unwrap();
        assert!(!shown.contains(PASSWORD) && !shown.contains(&LOGIN[6..]));
    });
}

#[test]
fn attack_58_a_token_of_a_registry_stays_in_the_gateway_and_its_placeholder_is_good_there_alone() {
    let server = registry(Some("https://registry.test/token"));
    let mut lab = setup(&server, login(REGISTRY, None))
        .send_to("web.test:80", server.address())
        .start();
    let token = run(async {
        // Before the registry has said where, nobody has the login sent anywhere but there.
        ask(&lab, REGISTRY, SCOPE, "").await;
        assert_eq!(last(&server).1, None);
        let token = issue(&lab, REGISTRY).await;
        assert!(token.starts_with(&format!("{PLACEHOLDER}-")), "{token}");
        let (received, sent) = last(&server);
        assert_eq!(
            (received.path.as_str(), sent.as_deref()),
            ("/token", Some(LOGIN))
        );
        let real = server.tokens().pop().unwrap();
        let told = ask(&lab, REGISTRY, MANIFEST, &bearer(&token)).await;
        assert_eq!(told.status, 200, "{told:?}");
        assert_eq!(last(&server).1, Some(bearer(&real)));
        // The login is for nothing else of the endpoint, and a login of the guest's own is its own business.
        let own = ask(&lab, REGISTRY, SCOPE, "Basic eDp5").await;
        assert_eq!(
            (own.status, last(&server).1.as_deref()),
            (401, Some("Basic eDp5"))
        );
        let scope = "/token?service=registry.test&scope=repository:_echo:pull";
        let echo = ask(&lab, REGISTRY, scope, "").await.token();
        let told = ask(&lab, REGISTRY, "/v2/_echo/tags/list", &bearer(&echo)).await;
        let real = server.tokens().pop().unwrap();
        assert!(
            told.text.contains(&echo) && !told.text.contains(&real),
            "{told:?}"
        );
        // Nowhere else, in whatever place.
        for (uri, authorization) in [
            ("http://web.test/", bearer(&token)),
            (
                format!("http://web.test/?t={token}").as_str(),
                String::new(),
            ),
        ] {
            let before = server.recorder().requests().len();
            let mut proxy = h1(lab.proxy().await).await;
            let request = request(Method::GET, uri, "web.test", &authorization);
            let told = answered(send(&mut proxy, request).await.unwrap()).await;
            assert_eq!(told.reason, "placeholder-to-unbound-host", "{told:?}");
            assert_eq!(server.recorder().requests().len(), before);
        }
        let known = [&lab.path("log"), &lab.path("records/egress.jsonl")];
        let written: String = known
            .map(|file| std::fs::read_to_string(file).unwrap())
            .concat();
        for real in server.tokens() {
            assert!(!written.contains(&real));
        }
        token
    });
    // What nobody knows any more is not sent, and the client is told where there is another one.
    let refused = |lab: &Lab| {
        run(async {
            let told = ask(lab, REGISTRY, MANIFEST, &bearer(&token)).await;
            assert_eq!((told.status, last(&server).1), (401, None), "{told:?}");
            assert!(told.challenge.contains("realm="), "{told:?}");
        });
    };
    lab.credentials[0].value = SecretText::new("another-password-of-the-login".to_owned());
    lab.configure();
    refused(&lab);
    lab.credentials[0].value = SecretText::new(PASSWORD.to_owned());
    lab.configure();
    run(async {
        assert_eq!(
            ask(&lab, REGISTRY, MANIFEST, &bearer(&token)).await.status,
            200
        );
    });
    lab.reboot();
    lab.configure();
    refused(&lab);
    // Nor what stands for a login that was removed.
    lab.credentials.pop();
    lab.withdrawn.push(Withdrawn {
        service: SERVICE.to_owned(),
        placeholder: PLACEHOLDER.to_owned(),
    });
    lab.configure();
    run(async {
        let before = server.recorder().requests().len();
        let told = ask(&lab, REGISTRY, MANIFEST, &bearer(&token)).await;
        assert_eq!(told.reason, "credential-withdrawn", "{told:?}");
        assert_eq!(server.recorder().requests().len(), before);
        let told = ask(&lab, REGISTRY, "/v2/", "").await;
        assert_eq!((told.status, last(&server).1), (401, None));
    });
}

#[test]
fn the_host_that_blobs_are_redirected_to_gets_nothing() {
    for realm in [None, Some("https://registry.test/token")] {
        let server = registry(realm);
        let lab = setup(&server, login(REGISTRY, None))
            .bind(storage())
            .start();
        run(async {
            let authorization = match realm {
                Some(_) => bearer(&issue(&lab, REGISTRY).await),
                None => String::new(),
            };
            let told = ask(&lab, REGISTRY, BLOB, &authorization).await;
            assert_eq!(told.status, 307, "{told:?}");
            assert!(
                told.location.starts_with("https://blobs.test/v2/"),
                "{told:?}"
            );
            let told = ask(&lab, STORAGE, BLOB, "").await;
            assert_eq!((told.status, told.text.as_str()), (200, "content"));
            assert_eq!(last(&server).1, None);
            if realm.is_some() {
                let told = ask(&lab, STORAGE, BLOB, &authorization).await;
                assert_eq!(told.reason, "placeholder-to-unbound-host", "{told:?}");
            }
        });
    }
}

/// Has the host for storage opened: what goes there is looked at.
fn storage() -> Credential {
    Credential {
        service: "custom:storage".to_owned(),
        header: String::new(),
        format: String::new(),
        placeholder: "placeholder-of-the-storage".to_owned(),
        replace: Some(sbx_wire::gateway::Replace {
            body: false,
            login: false,
        }),
        ..anthropic(STORAGE)
    }
}

#[test]
fn an_endpoint_on_another_host_has_to_be_named_and_gets_the_login_instead_of_the_registry() {
    let endpoint = "https://auth.test/token";
    let server = registry(Some(endpoint));
    // The registry alone may not say so.
    let lab = setup(&server, login(REGISTRY, None)).start();
    run(async {
        let told = ask(&lab, REGISTRY, MANIFEST, "").await;
        assert_eq!(
            (told.status, last(&server).1.as_deref()),
            (401, Some(LOGIN))
        );
        let anonymous = ask(&lab, AUTH, SCOPE, "").await.token();
        assert_eq!((last(&server).1, server.tokens()), (None, vec![anonymous]));
    });
    let server = registry(Some(endpoint));
    let lab = setup(&server, login(REGISTRY, Some(endpoint))).start();
    run(async {
        let token = issue(&lab, AUTH).await;
        let logins = server.recorder().requests();
        let logins: Vec<_> = logins
            .iter()
            .map(|one| one.header("authorization"))
            .collect();
        assert_eq!(logins, [None, Some(LOGIN)]);
        let told = ask(&lab, REGISTRY, MANIFEST, &bearer(&token)).await;
        assert_eq!(told.status, 200, "{told:?}");
        // Where tokens are issued they are good for nothing, and so is the rest of that host for the login.
        let told = ask(&lab, AUTH, SCOPE, &bearer(&token)).await;
        assert_eq!(told.reason, "placeholder-to-unbound-host", "{told:?}");
        for (host, path) in [
            (AUTH, "/v2/"),
            (AUTH, "/token/"),
            (REGISTRY, "/token"),
            (REGISTRY, "/v2/"),
        ] {
            ask(&lab, host, path, "").await;
            assert_eq!(last(&server).1, None, "{host}{path}");
        }
    });
}

#[test]
fn without_encryption_neither_a_login_nor_a_token_is_sent() {
    let upstream = EchoUpstream::start().unwrap();
    let server = registry(None);
    let mut lab = setup(&server, login("registry.test:5000", None))
        .send_to("registry.test:5000", upstream.address())
        .start();
    lab.set_rules(&["allow registry.test:5000"]);
    run(async {
        let mut proxy = h1(lab.proxy().await).await;
        let url = format!("http://registry.test:5000{MANIFEST}");
        let get =
            |authorization: &str| request(Method::GET, &url, "registry.test:5000", authorization);
        send(&mut proxy, get("")).await.unwrap();
        let arrived = upstream.recorder().requests();
        assert_eq!(
            (arrived.len(), arrived[0].header("authorization")),
            (1, None)
        );
        let placeholder = bearer(&format!("{PLACEHOLDER}-some"));
        let told = answered(send(&mut proxy, get(&placeholder)).await.unwrap()).await;
        assert_eq!(told.reason, "placeholder-to-unbound-host", "{told:?}");
        assert_eq!(upstream.recorder().requests().len(), 1);
    });
}

#[test]
fn attack_61_without_the_login_a_request_that_needs_it_is_refused() {
    let server = registry(None);
    let locked = Credential {
        unavailable: Some("The keychain is locked".to_owned()),
        value: SecretText::new(String::new()),
        ..login(REGISTRY, None)
    };
    let lab = setup(&server, locked).start();
    run(async {
        let token = bearer(&format!("{PLACEHOLDER}-some"));
        for authorization in ["", token.as_str()] {
            let told = ask(&lab, REGISTRY, "/v2/", authorization).await;
            assert_eq!(told.reason, "credential-unavailable", "{told:?}");
            assert!(told.text.contains("The keychain is locked"), "{told:?}");
        }
        assert!(server.recorder().requests().is_empty());
        // Nothing is lacking for what does not need it.
        let told = ask(&lab, REGISTRY, "/v2/", "Basic eDp5").await;
        assert_eq!(
            (told.status, last(&server).1.as_deref()),
            (401, Some("Basic eDp5"))
        );
    });
}

#[test]
fn attack_58_of_what_a_registry_issues_nothing_but_a_placeholder_comes_in() {
    let server = registry(Some("https://registry.test/token"));
    let lab = setup(&server, login(REGISTRY, None)).start();
    run(async {
        issue(&lab, REGISTRY).await;
        server.answer_with(json!({
            "access_token": "a-token-of-some-length",
            "refresh_token": "another-token-of-some-length",
            "expires_in": 60,
        }));
        let told = ask(&lab, REGISTRY, SCOPE, "").await;
        assert!(!told.text.contains("of-some-length"), "{told:?}");
        let answer = told.json();
        assert!(
            answer["access_token"]
                .as_str()
                .unwrap()
                .starts_with(PLACEHOLDER),
            "{told:?}"
        );
        assert_eq!(
            (&answer["refresh_token"], &answer["expires_in"]),
            (&json!(""), &json!(60))
        );
        for odd in [
            json!({ "key": "a-token-of-some-length" }),
            json!(["a-token-of-some-length"]),
        ] {
            server.answer_with(odd);
            let told = ask(&lab, REGISTRY, SCOPE, "").await;
            assert_eq!(
                (told.status, told.reason.as_str()),
                (502, "credential-unavailable")
            );
            assert!(!told.text.contains("of-some-length"), "{told:?}");
        }
    });
}
