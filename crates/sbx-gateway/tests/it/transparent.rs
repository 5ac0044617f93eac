//! Clients that know nothing of a proxy.

use std::net::Ipv4Addr;

use sbx_testkit::EchoUpstream;
use sbx_wire::gateway::ProxyKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab::{NOWHERE, Setup, get, h1, h2, run, send, text};

#[test]
fn transparent_http_and_tls_reach_an_allowed_host() {
    let (plain, tls) = (
        EchoUpstream::start().unwrap(),
        EchoUpstream::start_tls(&["web.test"]),
    );
    let tls = tls.unwrap();
    let lab = Setup::new(&["allow web.test"])
        .send_to("web.test:80", plain.address())
        .tls_upstream("web.test", &tls)
        .start();
    run(async {
        let address = lab.resolve("web.test").await.unwrap()[0];
        let mut client = h1(lab.guest().connect(address, 80).await.unwrap()).await;
        let response = send(&mut client, get("/echo", "web.test")).await.unwrap();
        assert_eq!(text(response).await.0, 200);
        let stream = lab.guest().connect(address, 443).await.unwrap();
        let stream = lab.tls(stream, "web.test", &[b"h2"]).await.unwrap();
        let request = get("https://web.test/echo", "web.test");
        assert_eq!(
            text(h2(stream).await.send_request(request).await.unwrap())
                .await
                .0,
            200
        );
        let mine = lab
            .records_that(2, |r| r.host == "web.test" && r.port != 0)
            .await;
        assert!(
            mine.iter()
                .all(|r| r.proxy == ProxyKind::Transparent && r.allowed)
        );
    });
}

#[test]
fn transparent_tls_with_other_sni_is_blocked() {
    let upstream = EchoUpstream::start_tls(&["web.test", "evil.test"]).unwrap();
    let lab = Setup::new(&["allow web.test"])
        .tls_upstream("web.test", &upstream)
        .start();
    run(async {
        let address = lab.resolve("web.test").await.unwrap()[0];
        let stream = lab.guest().connect(address, 443).await.unwrap();
        let stream = lab.tls(stream, "evil.test", &[]).await.unwrap();
        let mut client = h1(stream).await;
        let response = send(&mut client, get("/", "evil.test")).await.unwrap();
        assert_eq!(text(response).await.0, 403);
        lab.one_record("default-deny", "evil.test").await;
        assert_eq!(upstream.recorder().connections(), 0);
    });
}

#[test]
fn an_allowed_name_with_an_address_never_resolved_for_it_is_blocked() {
    let upstream = EchoUpstream::start_tls(&["web.test"]).unwrap();
    let lab = Setup::new(&["allow web.test", "allow other.test"])
        .tls_upstream("web.test", &upstream)
        .name("web.test", &[Ipv4Addr::new(203, 0, 113, 78)])
        .name("other.test", &[Ipv4Addr::new(203, 0, 113, 77)])
        .start();
    run(async {
        let names = [
            ("web.test", 443),
            ("other.test", 443),
            ("web.test", 80),
            ("other.test", 80),
        ];
        for (name, port) in names {
            let stream = lab.guest().connect(NOWHERE, port).await.unwrap();
            let (status, body) = if port == 443 {
                let stream = lab.tls(stream, name, &[]).await.unwrap();
                text(h1(stream).await.send_request(get("/", name)).await.unwrap()).await
            } else {
                text(h1(stream).await.send_request(get("/", name)).await.unwrap()).await
            };
            assert_eq!(status, 403, "{name}:{port}");
            assert!(body.contains("not resolved for this name"), "{body}");
        }
        assert_eq!(upstream.recorder().connections(), 0);
        lab.records_that(4, |r| r.reason == "address-not-pinned")
            .await;
    });
}

#[test]
fn no_server_name_is_judged_as_an_address() {
    let lab = Setup::new(&["allow web.test"])
        .name("web.test", &[NOWHERE])
        .start();
    run(async {
        assert_eq!(lab.resolve("web.test").await, Ok(vec![NOWHERE]));
        let stream = lab.guest().connect(NOWHERE, 443).await.unwrap();
        // A client that dials an address sends no server name.
        let stream = lab.tls(stream, "203.0.113.9", &[]).await.unwrap();
        let mut client = h1(stream).await;
        let response = send(&mut client, get("/", "203.0.113.9")).await.unwrap();
        assert_eq!(text(response).await.0, 403);
        lab.one_record("default-deny", "203.0.113.9").await;
    });
}

#[test]
fn what_is_not_tls_on_443_is_cut() {
    let lab = Setup::new(&["allow **"]).start();
    run(async {
        let mut stream = lab.guest().connect(NOWHERE, 443).await.unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
        assert!(!matches!(stream.read(&mut [0; 10]).await, Ok(1..)));
        lab.one_record("not-tls", "203.0.113.9").await;
    });
}

#[test]
fn transparent_plain_http_to_a_denied_host_reads_why() {
    let lab = Setup::new(&["allow a.test"]).start();
    run(async {
        let metadata = Ipv4Addr::new(169, 254, 169, 254);
        for (address, host) in [(NOWHERE, "evil.test"), (metadata, "169.254.169.254")] {
            let mut client = h1(lab.guest().connect(address, 80).await.unwrap()).await;
            let response = send(&mut client, get("/", host)).await.unwrap();
            let (status, body) = text(response).await;
            assert_eq!(status, 403);
            let want = format!("Blocked by network policy: domain {host}:80\n");
            assert!(body.starts_with(&want), "{body}");
        }
        assert!(lab.dns.recorder().entries().is_empty());
    });
}
