//! Secrets: written here, never inside, never elsewhere.

use std::time::Duration;

use hyper::header::HeaderValue;
use sbx_testkit::EchoUpstream;
use tokio::io::AsyncWriteExt;

use crate::lab::{Lab, PLACEHOLDER, SECRET, Setup, get, h1, h2, run, send, text};

const API: &str = "api.test";

fn with_key(upstream: &EchoUpstream) -> Setup {
    Setup::new(&["allow api.test", "allow other.test"])
        .tls_upstream(API, upstream)
        .credential(API)
}

fn request(header: &str, value: &str) -> hyper::Request<http_body_util::Full<bytes::Bytes>> {
    let mut request = get("/echo", API);
    request.headers_mut().insert(
        hyper::header::HeaderName::from_bytes(header.as_bytes()).unwrap(),
        HeaderValue::from_str(value).unwrap(),
    );
    request
}

fn written_files(lab: &Lab) -> String {
    ["log", "records/egress.jsonl", "run/gateway.json"]
        .map(|file| std::fs::read_to_string(lab.path(file)).unwrap_or_default())
        .concat()
}

#[test]
fn key_is_injected_and_placeholder_never_leaves() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let lab = with_key(&upstream).start();
    run(async {
        let stream = lab.connect("api.test:443").await.unwrap();
        let stream = lab.tls(stream, API, &[b"http/1.1"]).await.unwrap();
        let chain = stream.get_ref().1.peer_certificates().unwrap();
        assert_eq!(chain.len(), 2, "leaf and intermediate");
        let mut client = h1(stream).await;
        let bearer = format!("Bearer {PLACEHOLDER}");
        for (header, value) in [
            ("x-api-key", PLACEHOLDER),
            ("authorization", &bearer),
            ("x-api-key", "own-key"),
        ] {
            let response = send(&mut client, request(header, value)).await.unwrap();
            assert_eq!(text(response).await.0, 200);
        }
        let requests = upstream.recorder().requests();
        assert_eq!(requests.len(), 3);
        for request in &requests {
            assert_eq!(request.header("x-api-key"), Some(SECRET));
            let all = format!("{request:?}");
            assert!(
                !all.contains(PLACEHOLDER) && !all.contains("own-key"),
                "{all}"
            );
        }
        while lab.records().len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let records = lab.records();
        assert!(
            records
                .iter()
                .all(|r| r.credential.as_deref() == Some("anthropic"))
        );
        assert!(!written_files(&lab).contains(SECRET));
    });
}

#[test]
fn h2_works_on_the_intercepted_side_also_transparently() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let lab = with_key(&upstream).start();
    run(async {
        let address = lab.resolve(API).await.unwrap()[0];
        let tunnel = lab.connect("api.test:443").await.unwrap();
        let transparent = lab.guest().connect(address, 443).await.unwrap();
        for stream in [tunnel, transparent] {
            let stream = lab.tls(stream, API, &[b"h2"]).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            let client = h2(stream).await;
            let calls = (0..8).map(|_| {
                let mut client = client.clone();
                async move {
                    let request = get("https://api.test/echo", API);
                    text(client.send_request(request).await.unwrap()).await.0
                }
            });
            let calls: Vec<_> = calls.map(tokio::spawn).collect();
            for call in calls {
                assert_eq!(call.await.unwrap(), 200);
            }
        }
        let requests = upstream.recorder().requests();
        assert_eq!(requests.len(), 16);
        assert!(requests.iter().all(|r| r.version == "HTTP/2.0"));
        assert!(
            requests
                .iter()
                .all(|r| r.header("x-api-key") == Some(SECRET))
        );
    });
}

#[test]
fn a_request_that_names_another_host_inside_is_blocked() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let lab = with_key(&upstream).start();
    run(async {
        let stream = lab.connect("api.test:443").await.unwrap();
        let stream = lab.tls(stream, API, &[b"http/1.1"]).await.unwrap();
        let response = h1(stream)
            .await
            .send_request(get("/", "other.test"))
            .await
            .unwrap();
        assert_eq!(text(response).await.0, 403);
        let stream = lab.connect("api.test:443").await.unwrap();
        let stream = lab.tls(stream, API, &[b"h2"]).await.unwrap();
        // Over HTTP/2 clients mix hosts in good faith: they are told to open another connection.
        let request = get("https://evil.test/", "evil.test");
        let response = h2(stream).await.send_request(request).await.unwrap();
        assert_eq!(text(response).await.0, 421);
        lab.one_record("host-mismatch", "other.test").await;
        lab.one_record("host-mismatch", "evil.test").await;
        assert_eq!(upstream.recorder().requests().len(), 0);
    });
}

#[test]
fn a_placeholder_to_another_host_is_blocked() {
    let (api, other) = (EchoUpstream::start_tls(&[API]), EchoUpstream::start());
    let (api, other) = (api.unwrap(), other.unwrap());
    let lab = with_key(&api)
        .send_to("other.test:80", other.address())
        .start();
    run(async {
        let mut client = h1(lab.proxy().await).await;
        let basic = {
            use base64::Engine;
            let text = format!("user:{PLACEHOLDER}");
            format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(text)
            )
        };
        for value in [PLACEHOLDER, &format!("Bearer {PLACEHOLDER}"), &basic] {
            let mut request = get("http://other.test/echo", "other.test");
            request
                .headers_mut()
                .insert("authorization", value.parse().unwrap());
            let response = send(&mut client, request).await.unwrap();
            assert_eq!(
                response.headers()["x-sbx-reason"],
                "placeholder-to-unbound-host"
            );
            assert_eq!(text(response).await.0, 403);
        }
        let uri = format!("http://other.test/echo?key={PLACEHOLDER}");
        let response = send(&mut client, get(&uri, "other.test")).await.unwrap();
        assert_eq!(text(response).await.0, 403);
        assert_eq!(other.recorder().requests().len(), 0);
        let good = send(&mut client, get("http://other.test/echo", "other.test"))
            .await
            .unwrap();
        assert_eq!(text(good).await.0, 200, "without it the host is open");
        assert_eq!(other.recorder().requests()[0].header("x-api-key"), None);
    });
}

#[test]
fn an_invalid_upstream_certificate_is_502_and_no_secret_is_sent() {
    let upstream = EchoUpstream::start_tls(&["somebody-else.test"]).unwrap();
    let lab = with_key(&upstream).start();
    run(async {
        let stream = lab.connect("api.test:443").await.unwrap();
        let stream = lab.tls(stream, API, &[b"http/1.1"]).await.unwrap();
        let response = h1(stream)
            .await
            .send_request(request("x-api-key", PLACEHOLDER))
            .await;
        let (status, body) = text(response.unwrap()).await;
        assert_eq!(status, 502);
        assert!(
            body.contains("certificate of api.test:443 is not valid"),
            "{body}"
        );
        lab.one_record("upstream-certificate", API).await;
        assert_eq!(upstream.recorder().requests().len(), 0);
    });
}

#[test]
fn an_unconfigured_gateway_waits_and_then_fails_closed() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let mut setup = with_key(&upstream);
    setup.configure = false;
    let lab = setup.start();
    run(async {
        let (status, body) = lab.connect("api.test:443").await.err().unwrap();
        assert_eq!(status, 502);
        assert!(body.contains("is the sbx daemon running?"), "{body}");
        assert_eq!(upstream.recorder().connections(), 0);
        // One that comes in time is waited for.
        let connect = lab.connect("api.test:443");
        let configure = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            tokio::task::block_in_place(|| lab.configure());
        };
        let (stream, ()) = tokio::join!(connect, configure);
        let stream = lab.tls(stream.unwrap(), API, &[b"http/1.1"]).await.unwrap();
        let response = h1(stream)
            .await
            .send_request(request("x-api-key", PLACEHOLDER))
            .await;
        assert_eq!(text(response.unwrap()).await.0, 200);
        assert_eq!(
            upstream.recorder().requests()[0].header("x-api-key"),
            Some(SECRET)
        );
    });
}

#[test]
fn a_tunnel_to_a_credential_host_without_tls_is_cut() {
    let upstream = EchoUpstream::start_tls(&[API]).unwrap();
    let lab = with_key(&upstream).start();
    run(async {
        let mut stream = lab.connect("api.test:443").await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: api.test\r\nx-api-key: {PLACEHOLDER}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        lab.one_record("not-tls", API).await;
        assert_eq!(upstream.recorder().connections(), 0);
    });
}
