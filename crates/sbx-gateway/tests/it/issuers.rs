//! Endpoints that issue credentials: what they answer does not reach the guest.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::HeaderValue;
use sbx_testkit::EchoUpstream;
use sbx_wire::gateway::{Answer, Command, Issuer};
use sbx_wire::secret::SecretText;

use crate::attack::twice;
use crate::lab::{Lab, Setup, h1, h2, run, send, text};

const LOGIN: &str = "login.test";
const REFRESH: &str = "refresh-placeholder-0123456789";

fn issuer(path: &str, kept: bool) -> Issuer {
    Issuer {
        service: "anthropic".to_owned(),
        hosts: vec![LOGIN.to_owned()],
        methods: "POST".to_owned(),
        path: path.to_owned(),
        kept,
        exchanged: vec![REFRESH.to_owned()],
    }
}

fn setup(upstream: &EchoUpstream) -> Setup {
    let mut setup = Setup::new(&["allow login.test", "allow web.test"])
        .tls_upstream(LOGIN, upstream)
        .send_to("web.test:80", upstream.address());
    setup.file.credential_hosts.push(LOGIN.to_owned());
    setup.issuers = vec![issuer("/oauth/token", true), issuer("/keys/**", false)];
    setup
}

fn post(path: &str, host: &str, body: &str) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("host", host)
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap()
}

async fn ask(lab: &Lab, alpn: &[u8], path: &str, body: &str) -> (u16, String, String) {
    let stream = lab.connect("login.test:443").await.unwrap();
    let stream = lab.tls(stream, LOGIN, &[alpn]).await.unwrap();
    let answer = if alpn == b"h2" {
        let request = post(&format!("https://login.test{path}"), LOGIN, body);
        h2(stream).await.send_request(request).await.unwrap()
    } else {
        send(&mut h1(stream).await, post(path, LOGIN, body))
            .await
            .unwrap()
    };
    let reason = answer.headers().get("x-sbx-reason");
    let reason = reason.map(|reason| reason.to_str().unwrap().to_owned());
    let (status, page) = text(answer).await;
    (status, reason.unwrap_or_default(), page)
}

/// Deals with errands as a daemon does, until the gateway goes.
fn daemon(control: UnixStream, deal: impl Fn(Answer) -> Option<String> + Send + 'static) {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(control.try_clone().unwrap()).lines();
        let mut command = Command::AwaitIssued;
        loop {
            let line = serde_json::to_string(&command).unwrap();
            if (&control)
                .write_all(format!("{line}\n").as_bytes())
                .is_err()
            {
                return;
            }
            let Some(Ok(line)) = lines.next() else { return };
            let body = deal(serde_json::from_str(&line).unwrap());
            command = Command::IssuedHandled {
                problem: body.is_none().then(|| "The account was refused".to_owned()),
                status: body
                    .as_deref()
                    .filter(|body| body.contains("\"error\""))
                    .map(|_| 400),
                body: body.map(SecretText::new),
            };
        }
    });
}

#[test]
fn attack_58_what_is_issued_goes_to_the_daemon_and_the_guest_is_told_placeholders() {
    let upstream = EchoUpstream::start_tls(&[LOGIN]).unwrap();
    let lab = setup(&upstream).start();
    daemon(lab.control(), |answer| match answer {
        Answer::Issued {
            service,
            path,
            body,
            host,
            asked,
        } => {
            assert_eq!(host, LOGIN);
            assert!(asked.unwrap().expose().contains("the-code"));
            assert_eq!(
                (service.as_str(), path.as_str()),
                ("anthropic", "/oauth/token")
            );
            // The stand-in answers with what it was asked.
            assert!(body.expose().contains("the-code"), "{}", body.expose());
            (!body.expose().contains("refused"))
                .then(|| "{\"access_token\":\"placeholder\"}".to_owned())
        }
        Answer::Exchange { service, body } => {
            assert_eq!(service, "anthropic");
            if body.expose().contains("other") {
                return Some("{\"error\":\"invalid_grant\"}".to_owned());
            }
            Some("{\"expires_in\":3600}".to_owned())
        }
        other => panic!("{other:?}"),
    });
    run(async {
        for alpn in [&b"http/1.1"[..], b"h2"] {
            let before = upstream.recorder().requests().len();
            let (status, _, page) = ask(&lab, alpn, "/oauth/token", "code=the-code").await;
            assert_eq!(
                (status, page.as_str()),
                (200, "{\"access_token\":\"placeholder\"}")
            );
            let (status, reason, page) = ask(&lab, alpn, "/oauth/token", "the-code refused").await;
            assert_eq!((status, reason.as_str()), (502, "credential-unavailable"));
            assert!(page.contains("The account was refused"), "{page}");
            // What the daemon exchanges is not sent.
            let encoded: String = REFRESH.bytes().map(|byte| format!("%{byte:02x}")).collect();
            let escaped: String = REFRESH
                .bytes()
                .map(|byte| format!("\\u{byte:04x}"))
                .collect();
            for body in [
                format!("grant_type=refresh_token&refresh_token={REFRESH}"),
                format!("grant_type=refresh_token&refresh_token={encoded}"),
                format!("{{\"refresh_token\":\"{escaped}\"}}"),
            ] {
                let (status, _, page) = ask(&lab, alpn, "/oauth/token", &body).await;
                assert_eq!((status, page.as_str()), (200, "{\"expires_in\":3600}"));
            }
            let body = format!("refresh_token={REFRESH}&other=1");
            let (status, _, page) = ask(&lab, alpn, "/oauth/token", &body).await;
            assert_eq!(
                (status, page.as_str()),
                (400, "{\"error\":\"invalid_grant\"}")
            );
            // An error is the guest's to see, and other paths are nobody's business.
            let asked = upstream.recorder().requests();
            assert_eq!(asked.len() - before, 2);
            assert!(
                asked[before..]
                    .iter()
                    .all(|request| request.header("accept-encoding") == Some("identity"))
            );
            let (status, _, page) = ask(&lab, alpn, "/other", "code=the-code").await;
            assert!(status == 200 && page.contains("the-code"), "{page}");
        }
    });
}

#[test]
fn attack_58_an_issuer_that_nobody_keeps_is_not_asked() {
    let upstream = EchoUpstream::start_tls(&[LOGIN]).unwrap();
    twice(
        setup(&upstream).start(),
        &[upstream.recorder()],
        async |round| {
            let lab = round.lab;
            for path in ["/keys/new", "/keys/a/../b", "/%6beys/new", "//keys//new"] {
                let stream = lab.connect("login.test:443").await.unwrap();
                let stream = lab.tls(stream, LOGIN, &[b"http/1.1"]).await.unwrap();
                round.forget_so_far().await;
                let answer = send(&mut h1(stream).await, post(path, LOGIN, "name=x"))
                    .await
                    .unwrap();
                assert_eq!(
                    answer.headers()["x-sbx-reason"],
                    "credential-issuer",
                    "{path}"
                );
                let (status, page) = text(answer).await;
                assert!(
                    status == 403 && page.contains("issues credentials for anthropic"),
                    "{page}"
                );
                round.blocked_inside("credential-issuer", LOGIN).await;
            }
            // Nobody there who keeps what is issued: not even the placeholder of an exchange is sent.
            let stream = lab.connect("login.test:443").await.unwrap();
            let stream = lab.tls(stream, LOGIN, &[b"http/1.1"]).await.unwrap();
            round.forget_so_far().await;
            let body = format!("refresh_token={REFRESH}");
            let answer = send(&mut h1(stream).await, post("/oauth/token", LOGIN, &body))
                .await
                .unwrap();
            assert_eq!(answer.headers()["x-sbx-reason"], "credential-unavailable");
            let (status, page) = text(answer).await;
            assert!(
                status == 502 && page.contains("is the sbx daemon running?"),
                "{page}"
            );
            round.blocked_inside("credential-unavailable", LOGIN).await;
            // And nowhere else either.
            let mut client = h1(lab.proxy().await).await;
            let request = post("http://web.test/echo", "web.test", &body);
            let answer = send(&mut client, request).await.unwrap();
            assert_eq!(
                answer.headers()["x-sbx-reason"],
                "placeholder-to-unbound-host"
            );
            text(answer).await;
            round
                .blocked_inside("placeholder-to-unbound-host", "web.test")
                .await;
        },
    );
}

#[test]
fn a_header_for_the_method_matters_where_methods_do() {
    let upstream = EchoUpstream::start_tls(&[LOGIN]).unwrap();
    for (methods, path, header, status) in [
        ("POST", "/other", "x-http-method-override", 400),
        ("ANY", "/other", "x-http-method-override", 200),
        ("ANY", "/other", "x-original-url", 400),
        // Nobody takes it over here: it is not sent on, either.
        ("ANY", "/keys/new", "x-http-method-override", 403),
    ] {
        let mut setup = setup(&upstream);
        for issuer in &mut setup.issuers {
            methods.clone_into(&mut issuer.methods);
        }
        let lab = setup.start();
        run(async {
            let stream = lab.connect("login.test:443").await.unwrap();
            let stream = lab.tls(stream, LOGIN, &[b"http/1.1"]).await.unwrap();
            let mut request = post(path, LOGIN, "");
            let headers = request.headers_mut();
            headers.insert(header, HeaderValue::from_static("GET"));
            let answer = send(&mut h1(stream).await, request).await.unwrap();
            assert_eq!(answer.status(), status, "{methods} {path} {header}");
        });
    }
}
