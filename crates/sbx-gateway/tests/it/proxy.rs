//! The forward proxy.

use std::net::Ipv4Addr;
use std::time::Duration;

use http_body_util::BodyExt;
use sbx_testkit::EchoUpstream;
use sbx_testkit::upstream::TcpEcho;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab::{NOWHERE, Setup, get, h1, h2, run, send, text};

#[test]
fn plain_http_is_forwarded_and_recorded() {
    let upstream = EchoUpstream::start().unwrap();
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", upstream.address())
        .start();
    run(async {
        let mut client = h1(lab.proxy().await).await;
        for _ in 0..2 {
            let request = get("http://web.test/echo?q=1", "web.test");
            let (status, _) = text(send(&mut client, request).await.unwrap()).await;
            assert_eq!(status, 200);
        }
        let requests = upstream.recorder().requests();
        assert_eq!((requests.len(), requests[0].uri.as_str()), (2, "/echo?q=1"));
        assert_eq!(requests[0].header("host"), Some("web.test"));
        assert_eq!(
            upstream.recorder().connections(),
            1,
            "kept alive towards the upstream"
        );
    });
}

#[test]
fn every_request_on_a_kept_connection_is_judged() {
    let upstream = EchoUpstream::start().unwrap();
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", upstream.address())
        .start();
    run(async {
        let mut client = h1(lab.proxy().await).await;
        let good = send(&mut client, get("http://web.test/echo", "web.test"))
            .await
            .unwrap();
        assert_eq!(text(good).await.0, 200);
        let bad = send(&mut client, get("http://evil.test/x?y", "evil.test"))
            .await
            .unwrap();
        assert_eq!(bad.headers()["x-sbx-reason"], "default-deny");
        let (status, body) = text(bad).await;
        assert_eq!(status, 403);
        assert!(
            body.starts_with("Blocked by network policy: domain evil.test:80\n"),
            "{body}"
        );
        let record = lab.one_record("default-deny", "evil.test").await;
        assert_eq!(record.path.as_deref(), Some("/x"), "without the query");
        let differs = send(&mut client, get("http://web.test/", "other.test"))
            .await
            .unwrap();
        assert_eq!(text(differs).await.0, 400);
        assert_eq!(upstream.recorder().requests().len(), 1);
        assert_eq!(lab.dns.recorder().bytes_received(), 0);
    });
}

#[test]
fn connect_denied_gets_403_inside_tls() {
    let lab = Setup::new(&["allow a.test"]).start();
    run(async {
        for (alpn, h2_spoken) in [(&b"http/1.1"[..], false), (b"h2", true)] {
            let stream = lab.connect("evil.test:443").await.unwrap();
            let stream = lab.tls(stream, "evil.test", &[alpn]).await.unwrap();
            let response = if h2_spoken {
                h2(stream)
                    .await
                    .send_request(get("https://evil.test/", "evil.test"))
                    .await
            } else {
                h1(stream).await.send_request(get("/", "evil.test")).await
            };
            let (status, body) = text(response.unwrap()).await;
            assert_eq!(status, 403);
            assert!(
                body.starts_with("Blocked by network policy: domain evil.test:443\n"),
                "{body}"
            );
            assert!(
                body.contains("No matching allow rule (default deny)"),
                "{body}"
            );
        }
        let (status, body) = lab.connect("evil.test:22").await.err().unwrap();
        assert_eq!(status, 403);
        assert!(body.contains("domain evil.test:22"), "{body}");
        assert!(lab.dns.recorder().entries().is_empty());
    });
}

#[test]
fn a_tunnel_passes_unread_with_the_upstream_s_own_certificate() {
    let upstream = EchoUpstream::start_tls(&["web.test"]).unwrap();
    let lab = Setup::new(&["allow web.test"])
        .tls_upstream("web.test", &upstream)
        .start();
    run(async {
        let stream = lab.connect("web.test:443").await.unwrap();
        let stream = lab.tls(stream, "web.test", &[b"h2"]).await.unwrap();
        let chain = stream.get_ref().1.peer_certificates().unwrap();
        assert_eq!(chain.len(), 1, "the upstream's, not one of ours");
        let request = get("https://web.test/echo", "web.test");
        let (status, _) = text(h2(stream).await.send_request(request).await.unwrap()).await;
        assert_eq!(status, 200);
        let record = lab.one_record("allow-rule", "web.test").await;
        assert_eq!(record.proxy, sbx_wire::gateway::ProxyKind::ForwardBypass);
        assert_eq!(record.rule.as_deref(), Some("allow-web-test"));
    });
}

#[test]
fn a_tunnel_with_another_server_name_is_blocked() {
    let upstream = EchoUpstream::start_tls(&["web.test", "evil.test"]).unwrap();
    let lab = Setup::new(&["allow web.test"])
        .tls_upstream("web.test", &upstream)
        .start();
    run(async {
        let stream = lab.connect("web.test:443").await.unwrap();
        assert!(lab.tls(stream, "evil.test", &[]).await.is_err());
        lab.one_record("sni-mismatch", "web.test").await;
        let mut stream = lab.connect("web.test:443").await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: web.test\r\n\r\n")
            .await
            .unwrap();
        let end = stream.read(&mut [0; 100]).await;
        assert!(matches!(end, Ok(0) | Err(_)));
        lab.one_record("not-tls", "web.test").await;
        assert_eq!(upstream.recorder().bytes_received(), 0);
    });
}

#[test]
fn other_ports_need_tls_unless_the_rule_names_them() {
    let echo = TcpEcho::start().unwrap();
    let setup = Setup::new(&["allow web.test", "allow ssh.test:22"]);
    let setup = setup.send_to("web.test:22", echo.address());
    let lab = setup.send_to("ssh.test:22", echo.address()).start();
    run(async {
        let mut stream = lab.connect("ssh.test:22").await.unwrap();
        stream.write_all(b"SSH-2.0-x").await.unwrap();
        let mut back = [0; 9];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"SSH-2.0-x");
        let mut stream = lab.connect("web.test:22").await.unwrap();
        stream.write_all(b"SSH-2.0-x").await.unwrap();
        assert!(!matches!(stream.read(&mut back).await, Ok(1..)));
        lab.one_record("not-tls", "web.test").await;
    });
}

#[test]
fn targets_that_are_not_beyond_doubt_are_refused() {
    let lab = Setup::new(&["allow **"]).start();
    run(async {
        for target in [
            "a.test",
            "a.test:0443",
            "a.test:+443",
            "a.test:65537",
            "a.test:",
            "a..test:443",
            "evil\0.a.test:443",
            "a%2etest:443",
            "user@a.test:443",
        ] {
            let refused = lab.connect(target).await;
            assert!(
                matches!(refused, Err((400, _))),
                "{target}: {:?}",
                refused.err()
            );
        }
        let too_long = format!("{}.test:443", "a".repeat(64));
        assert!(matches!(lab.connect(&too_long).await, Err((400, _))));
        assert!(lab.dns.recorder().entries().is_empty());
    });
}

#[test]
fn h2c_upgrades_and_hop_by_hop_headers_stay_here() {
    let upstream = EchoUpstream::start().unwrap();
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", upstream.address())
        .start();
    run(async {
        let mut client = h1(lab.proxy().await).await;
        let mut request = get("http://web.test/echo", "web.test");
        for (name, value) in [
            ("connection", "upgrade, http2-settings, x-private"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAAP__"),
            ("x-private", "1"),
            ("proxy-authorization", "Basic eDp5"),
            ("te", "gzip, trailers"),
        ] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        assert_eq!(text(send(&mut client, request).await.unwrap()).await.0, 200);
        let request = &upstream.recorder().requests()[0];
        for name in [
            "connection",
            "upgrade",
            "http2-settings",
            "x-private",
            "proxy-authorization",
        ] {
            assert_eq!(request.header(name), None, "{name}");
        }
        assert_eq!(request.header("te"), Some("trailers"));
    });
}

#[test]
fn sse_arrives_event_by_event() {
    let upstream = EchoUpstream::start().unwrap();
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", upstream.address())
        .start();
    run(async {
        let mut client = h1(lab.proxy().await).await;
        let request = get("http://web.test/sse?events=4&delay_ms=300", "web.test");
        let mut body = send(&mut client, request).await.unwrap().into_body();
        let mut arrivals = Vec::new();
        while let Some(frame) = body.frame().await {
            if frame
                .unwrap()
                .into_data()
                .is_ok_and(|data| !data.is_empty())
            {
                arrivals.push(tokio::time::Instant::now());
            }
        }
        assert!(arrivals.len() >= 4, "{} pieces", arrivals.len());
        let spread = *arrivals.last().unwrap() - arrivals[0];
        assert!(
            spread > Duration::from_millis(600),
            "all at once: {spread:?}"
        );
    });
}

#[test]
fn a_websocket_is_spliced() {
    let upstream = EchoUpstream::start().unwrap();
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", upstream.address())
        .start();
    run(async {
        // Through CONNECT to port 80, as WebSocket clients do.
        let mut stream = lab.connect("web.test:80").await.unwrap();
        let head = "GET /ws HTTP/1.1\r\nHost: web.test\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
        // A masked text frame, and the same unmasked in return.
        stream
            .write_all(b"\x81\x82\x00\x00\x00\x00hi")
            .await
            .unwrap();
        let mut frame = [0; 4];
        stream.read_exact(&mut frame).await.unwrap();
        assert_eq!(&frame, b"\x81\x02hi");
    });
}

#[test]
fn large_bodies_pass_both_ways() {
    let upstream = EchoUpstream::start().unwrap();
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", upstream.address())
        .start();
    run(async {
        let mut client = h1(lab.proxy().await).await;
        let response = send(
            &mut client,
            get("http://web.test/big?size=20000000", "web.test"),
        );
        let (status, body) = text(response.await.unwrap()).await;
        assert_eq!((status, body.len()), (200, 20_000_000));
        let request = hyper::Request::post("http://web.test/upload")
            .header("host", "web.test")
            .body(http_body_util::Full::from(vec![1; 20_000_000]))
            .unwrap();
        let (status, body) = text(send(&mut client, request).await.unwrap()).await;
        assert!(
            status == 200 && body.contains("20000000"),
            "{status} {body}"
        );
    });
}

#[test]
fn metadata_and_private_addresses_are_refused() {
    let lab = Setup::new(&["allow **", "allow meta.test"])
        .name("meta.test", &[Ipv4Addr::new(169, 254, 169, 254)])
        .start();
    run(async {
        let mut client = h1(lab.proxy().await).await;
        for host in [
            "169.254.169.254",
            "10.0.0.1",
            "100.100.100.200",
            "192.168.127.3",
            "meta.test",
            "0.0.0.0",
        ] {
            let uri = format!("http://{host}/latest/meta-data");
            let response = send(&mut client, get(&uri, host)).await.unwrap();
            assert_eq!(text(response).await.0, 403, "{host}");
            lab.one_record("address-blocked", host).await;
        }
        // The host's loopback is not covered by a wildcard.
        for host in ["localhost", "127.0.0.1", "host.docker.internal"] {
            let response = send(&mut client, get(&format!("http://{host}/"), host))
                .await
                .unwrap();
            assert_eq!(text(response).await.0, 403, "{host}");
        }
    });
}

#[test]
fn override_is_exempt_from_the_address_check_only_for_that_port() {
    let upstream = EchoUpstream::start().unwrap();
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", upstream.address())
        .name("web.test", &[Ipv4Addr::LOCALHOST])
        .start();
    run(async {
        let mut client = h1(lab.proxy().await).await;
        let good = send(&mut client, get("http://web.test/echo", "web.test"))
            .await
            .unwrap();
        assert_eq!(text(good).await.0, 200);
        let port = upstream.address().port();
        let host = format!("web.test:{port}");
        let bad = send(&mut client, get(&format!("http://{host}/echo"), &host))
            .await
            .unwrap();
        assert_eq!(text(bad).await.0, 403, "the name resolves to loopback");
        lab.one_record("address-blocked", "web.test").await;
        assert_eq!(upstream.recorder().requests().len(), 1);
    });
}

#[test]
fn an_override_is_still_under_the_policy() {
    let upstream = EchoUpstream::start().unwrap();
    let lab = Setup::new(&["allow a.test"])
        .send_to("web.test:80", upstream.address())
        .start();
    run(async {
        let mut client = h1(lab.proxy().await).await;
        let response = send(&mut client, get("http://web.test/", "web.test"))
            .await
            .unwrap();
        assert_eq!(text(response).await.0, 403);
        assert!(lab.resolve("web.test").await.is_err());
        assert_eq!(upstream.recorder().connections(), 0);
    });
}

#[test]
fn an_upstream_that_is_not_there_is_502_with_the_reason() {
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", "127.0.0.1:1".parse().unwrap())
        .send_to("web.test:443", "127.0.0.1:1".parse().unwrap())
        .name("other.test", &[NOWHERE])
        .start();
    run(async {
        let mut client = h1(lab.proxy().await).await;
        let response = send(&mut client, get("http://web.test/", "web.test"))
            .await
            .unwrap();
        let (status, body) = text(response).await;
        assert_eq!(status, 502);
        assert!(body.contains("cannot connect to web.test:80"), "{body}");
        assert!(matches!(lab.connect("web.test:443").await, Err((502, _))));
    });
}
