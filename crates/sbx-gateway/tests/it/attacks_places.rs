//! Placeholders in places of a head where a service would keep what it is sent, show it, or answer what tells of it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use sbx_testkit::EchoUpstream;
use sbx_wire::gateway::{Credential, Replace};
use sbx_wire::secret::SecretText;

use crate::attack::{Round, twice};
use crate::lab::{PLACEHOLDER, Setup, anthropic, get, h1, h2, run, send, text};

const API: &str = "api.test";
const VALUE: &str = "ya29.the-token-of-the-user";
/// What somebody brings who wants to find the token in an account of his own.
const OWN: &str = "Bearer ya29.a-token-of-the-guests-own";

fn replaced(login: bool) -> Credential {
    Credential {
        service: "google".to_owned(),
        header: String::new(),
        format: String::new(),
        replace: Some(Replace { body: false, login }),
        value: SecretText::new(VALUE.to_owned()),
        ..anthropic(API)
    }
}

fn setup(upstream: &EchoUpstream, login: bool) -> Setup {
    Setup::new(&["allow api.test"])
        .tls_upstream(API, upstream)
        .bind(replaced(login))
}

/// A request with these headers, and the status and the reason of its answer.
async fn ask(
    round: &Round<'_>,
    alpn: &[u8],
    path: &str,
    headers: &[(&str, String)],
) -> (u16, String) {
    let stream = round.lab.connect("api.test:443").await.unwrap();
    let stream = round.lab.tls(stream, API, &[alpn]).await.unwrap();
    round.forget_so_far().await;
    let over_h2 = alpn == b"h2";
    let path = if over_h2 {
        format!("https://{API}{path}")
    } else {
        path.to_owned()
    };
    let mut request: Request<Full<Bytes>> = get(&path, API);
    for (name, value) in headers {
        let name: hyper::header::HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let answer = if over_h2 {
        h2(stream).await.send_request(request).await.unwrap()
    } else {
        send(&mut h1(stream).await, request).await.unwrap()
    };
    let reason = answer.headers().get("x-sbx-reason");
    let reason = reason
        .map_or("", |reason| reason.to_str().unwrap())
        .to_owned();
    (text(answer).await.0, reason)
}

fn basic(login: String) -> String {
    format!("Basic {}", STANDARD.encode(login))
}

#[test]
fn attack_57_a_sign_in_s_token_is_written_into_logins_and_nowhere_else() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let encoded: String = PLACEHOLDER.bytes().map(|b| format!("%{b:02x}")).collect();
    let in_path = format!("/repos/own/x/contents/{PLACEHOLDER}");
    let in_query = format!("/storage/v1/b/own/o?startOffset={PLACEHOLDER}");
    let in_query_encoded = format!("/storage/v1/b/own/o?startOffset={encoded}");
    let plain = || PLACEHOLDER.to_owned();
    let own = ("authorization", OWN.to_owned());
    let attempts = [
        (in_path.as_str(), vec![own.clone()]),
        (in_query.as_str(), vec![own.clone()]),
        (in_query_encoded.as_str(), vec![own.clone()]),
        // Beside a login that is one.
        (
            in_path.as_str(),
            vec![("authorization", format!("Bearer {PLACEHOLDER}"))],
        ),
        ("/", vec![own.clone(), ("x-other", plain())]),
        (
            "/",
            vec![own.clone(), ("x-other", format!("Bearer {PLACEHOLDER}"))],
        ),
        (
            "/",
            vec![own.clone(), ("x-other", basic(format!("x:{PLACEHOLDER}")))],
        ),
        (
            "/",
            vec![own.clone(), ("cookie", format!("token={PLACEHOLDER}"))],
        ),
        ("/", vec![own.clone(), ("user-agent", plain())]),
        ("/", vec![own.clone(), ("sec-websocket-key", plain())]),
        ("/", vec![own.clone(), ("sec-websocket-protocol", plain())]),
        ("/", vec![own, ("x-api-key", format!("key {PLACEHOLDER}"))]),
        (
            "/",
            vec![("authorization", format!("Bearer {PLACEHOLDER}, {OWN}"))],
        ),
        (
            "/",
            vec![("authorization", format!("Digest username={PLACEHOLDER}"))],
        ),
        (
            "/",
            vec![("authorization", basic(format!("x:y{PLACEHOLDER}")))],
        ),
    ];
    twice(
        setup(&upstream, true).start(),
        &[upstream.recorder()],
        async |round| {
            for alpn in [&b"http/1.1"[..], b"h2"] {
                for (path, headers) in &attempts {
                    let told = ask(round, alpn, path, headers).await;
                    let wanted = (403, "placeholder-to-unbound-host".to_owned());
                    assert_eq!(told, wanted, "{path} {headers:?}");
                    round
                        .blocked_inside("placeholder-to-unbound-host", API)
                        .await;
                }
            }
        },
    );
}

#[test]
fn a_sign_in_s_token_stands_in_every_form_of_a_login_and_what_is_beside_it_does_not_go_along() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let lab = setup(&upstream, true).start();
    let logins = [
        (
            "authorization",
            format!("Bearer {PLACEHOLDER}"),
            format!("Bearer {VALUE}"),
        ),
        (
            "authorization",
            format!("token {PLACEHOLDER}"),
            format!("token {VALUE}"),
        ),
        (
            "authorization",
            basic(format!("x-access-token:{PLACEHOLDER}")),
            basic(format!("x-access-token:{VALUE}")),
        ),
        (
            "authorization",
            basic(format!("{PLACEHOLDER}:x-oauth-basic")),
            basic(format!("{VALUE}:x-oauth-basic")),
        ),
        ("x-api-key", PLACEHOLDER.to_owned(), VALUE.to_owned()),
        ("x-goog-api-key", PLACEHOLDER.to_owned(), VALUE.to_owned()),
    ];
    run(async {
        for (name, sent, wanted) in logins {
            for beside in ["x-none", "authorization", "x-api-key", "api-key"] {
                let stream = lab.connect("api.test:443").await.unwrap();
                let stream = lab.tls(stream, API, &[b"http/1.1"]).await.unwrap();
                let mut request = get("/status?code=200", API);
                let headers = request.headers_mut();
                let beside: hyper::header::HeaderName = beside.parse().unwrap();
                headers.append(beside.clone(), OWN.parse().unwrap());
                let own: hyper::header::HeaderName = name.parse().unwrap();
                headers.append(own, sent.parse().unwrap());
                let answer = send(&mut h1(stream).await, request).await.unwrap();
                assert_eq!(text(answer).await.0, 200, "{name}: {sent}");
                let asked = upstream.recorder().requests();
                let asked = asked.last().unwrap();
                assert_eq!(asked.header(name), Some(wanted.as_str()));
                let is_beside = beside.as_str() == "x-none";
                let all = asked.headers.iter();
                let own = all.filter(|(_, value)| value == OWN).count();
                assert_eq!(own, usize::from(is_beside), "{name} beside {beside}");
                let record = lab.one_record("allow-rule", API).await;
                assert_eq!(record.credential.as_deref(), Some("google"));
                let alert = (!is_beside).then_some("own-credential-replaced");
                assert_eq!(record.alert.as_deref(), alert);
                lab.forget_records();
            }
        }
    });
}

#[test]
fn attack_57_no_value_is_written_into_the_key_of_a_websocket() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    twice(
        setup(&upstream, false).start(),
        &[upstream.recorder()],
        async |round| {
            let mut upgrade = vec![
                ("connection", "Upgrade".to_owned()),
                ("upgrade", "websocket".to_owned()),
                ("sec-websocket-version", "13".to_owned()),
                ("authorization", format!("Bearer {PLACEHOLDER}")),
                ("sec-websocket-key", PLACEHOLDER.to_owned()),
            ];
            let told = ask(round, b"http/1.1", "/ws", &upgrade).await;
            let wanted = (403, "placeholder-to-unbound-host".to_owned());
            assert_eq!(told, wanted);
            round
                .blocked_inside("placeholder-to-unbound-host", API)
                .await;
            // Some clients log in by what they call their protocol.
            upgrade.truncate(3);
            upgrade.push(("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==".to_owned()));
            upgrade.push(("sec-websocket-protocol", format!("key.{PLACEHOLDER}")));
            let (status, reason) = ask(round, b"http/1.1", "/ws", &upgrade).await;
            assert_ne!(status, 403, "{reason}");
            let asked = upstream.recorder().requests();
            let protocol = asked.last().unwrap().header("sec-websocket-protocol");
            assert_eq!(protocol, Some(format!("key.{VALUE}").as_str()));
            round.forget_so_far().await;
        },
    );
}
