//! Attacks on what changes: cases 67 and 68. (Every other case runs after a restart as well: see [`crate::attack`].)

use std::net::Ipv4Addr;
use std::time::Duration;

use http_body_util::BodyExt;
use sbx_gateway::addresses::{GATEWAY, GUEST};
use sbx_testkit::EchoUpstream;
use sbx_testkit::upstream::TcpEcho;
use sbx_wire::gateway::{Answer, Command};
use smoltcp::wire::IpProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attack::say;
use crate::lab::{NOWHERE, Setup, get, h1, h2, run, send};
use crate::packets::{datagram, echo_request, packet};

#[test]
fn attack_67_a_gateway_that_was_killed_comes_back_with_every_control_before_anybody_tells_it() {
    let web = EchoUpstream::start_tls(&["web.test"]).unwrap();
    let api = EchoUpstream::start_tls(&["api.test"]).unwrap();
    let host = TcpEcho::start().unwrap();
    let mut lab = Setup::new(&["allow web.test", "allow api.test", "deny deny.web.test"])
        .tls_upstream("web.test", &web)
        .tls_upstream("api.test", &api)
        .credential("api.test")
        .start();
    // Rules that came later count, those that went do not: the state of the disk, not of the start.
    lab.set_rules(&["allow web.test", "allow api.test"]);
    lab.reboot();
    let before = lab.records().len();
    run(async {
        let evil = "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n";
        let answer = say(&mut lab.proxy().await, evil).await;
        assert_eq!((answer.status, answer.reason()), (403, "default-deny"));
        // Without its certificate authority the gateway says so in clear text.
        assert_eq!(lab.connect("evil.test:443").await.err().unwrap().0, 403);
        assert_eq!(lab.connect("api.test:443").await.err().unwrap().0, 502);
        assert_eq!(lab.resolve("evil.test").await, Err(3));
        assert!(lab.guest().connect(NOWHERE, 22).await.is_err());
        assert!(
            lab.guest()
                .connect(GATEWAY, host.address().port())
                .await
                .is_err()
        );
        lab.guest()
            .frame(&packet(GUEST, NOWHERE, IpProtocol::Icmp, &echo_request()));
        lab.guest().frame(&datagram(NOWHERE, 443, b"x"));
        lab.guest()
            .frame(&packet(NOWHERE, NOWHERE, IpProtocol::Tcp, &[0; 20]));
        let metadata = Ipv4Addr::new(169, 254, 169, 254);
        assert!(lab.guest().connect(metadata, 8080).await.is_err());
        // What needs no secret works on.
        let stream = lab.connect("web.test:443").await.unwrap();
        let stream = lab.tls(stream, "web.test", &[]).await.unwrap();
        let answer = h1(stream)
            .await
            .send_request(get("/echo", "web.test"))
            .await;
        assert_eq!(answer.unwrap().status(), 200);
        for recorder in [api.recorder(), host.recorder(), lab.dns.recorder()] {
            assert_eq!(recorder.bytes_received(), 0);
        }
        lab.records_that(1, |record| record.reason == "packet-blocked")
            .await;
        lab.records_that(1, |record| record.reason == "allow-rule")
            .await;
        let told = lab.records().split_off(before);
        let count = |reason: &str| told.iter().filter(|record| record.reason == reason).count();
        for (reason, times) in [
            ("default-deny", 5),
            ("address-blocked", 1),
            ("not-configured", 1),
            ("icmp-blocked", 1),
            ("udp-blocked", 1),
            ("allow-rule", 1),
        ] {
            assert_eq!(count(reason), times, "{reason}: {told:#?}");
        }
        assert!(
            told.iter().all(|record| record.generation == 2),
            "{told:#?}"
        );
    });
}

#[test]
fn attack_68_connections_that_a_new_policy_does_not_allow_are_closed() {
    let raw = TcpEcho::start().unwrap();
    let web = EchoUpstream::start().unwrap();
    let tunnel = EchoUpstream::start_tls(&["tunnel.test"]).unwrap();
    let api = EchoUpstream::start_tls(&["api.test"]).unwrap();
    let rules = [
        "allow raw.test:7000",
        "allow web.test",
        "allow tunnel.test",
        "allow api.test",
    ];
    let mut lab = Setup::new(&rules)
        .send_to("raw.test:7000", raw.address())
        .send_to("web.test:80", web.address())
        .tls_upstream("tunnel.test", &tunnel)
        .tls_upstream("api.test", &api)
        .credential("api.test")
        .start();
    for round in 0..2 {
        run(async {
            let address = lab.resolve("raw.test").await.unwrap()[0];
            let mut socket = lab.guest().connect(address, 7000).await.unwrap();
            socket.write_all(b"x").await.unwrap();
            assert_eq!(socket.read_u8().await.unwrap(), b'x');
            let stream = lab.connect("tunnel.test:443").await.unwrap();
            let mut unread = lab
                .tls(stream, "tunnel.test", &[b"http/1.1"])
                .await
                .unwrap();
            let endless =
                "GET /sse?events=100000&delay_ms=20 HTTP/1.1\r\nHost: tunnel.test\r\n\r\n";
            unread.write_all(endless.as_bytes()).await.unwrap();
            assert_eq!(unread.read_u8().await.unwrap(), b'H');
            let mut client = h1(lab.proxy().await).await;
            let request = get("http://web.test/sse?events=100000&delay_ms=20", "web.test");
            let events = send(&mut client, request).await.unwrap();
            let mut websocket = lab.connect("web.test:80").await.unwrap();
            let upgrade = "GET /ws HTTP/1.1\r\nHost: web.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
            assert_eq!(say(&mut websocket, upgrade).await.status, 101);
            let stream = lab.connect("api.test:443").await.unwrap();
            let stream = lab.tls(stream, "api.test", &[b"h2"]).await.unwrap();
            let request = get("https://api.test/sse?events=100000&delay_ms=20", "api.test");
            let inside = h2(stream).await.send_request(request).await.unwrap();
            // A change about something else leaves all of them alone.
            let more: Vec<&str> = rules.iter().copied().chain(["allow c.test"]).collect();
            tokio::task::block_in_place(|| lab.set_rules(&more));
            socket.write_all(b"y").await.unwrap();
            assert_eq!(socket.read_u8().await.unwrap(), b'y');
            unread.read_u8().await.unwrap();
            websocket.write_all(b"\x81\x82\0\0\0\0hi").await.unwrap();
            assert_eq!(websocket.read_u8().await.unwrap(), 0x81);
            // A policy that cannot be read changes nothing either.
            let broken =
                serde_json::to_string(&Command::Configure(Box::new(lab.config()))).unwrap();
            let broken = broken.replace("c.test", "*");
            let answer = tokio::task::block_in_place(|| lab.ask_raw(broken.as_bytes()));
            assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
            socket.write_all(b"z").await.unwrap();
            assert_eq!(socket.read_u8().await.unwrap(), b'z');
            // Now they are no longer allowed.
            tokio::task::block_in_place(|| lab.set_rules(&["allow c.test"]));
            assert!(socket.read_u8().await.is_err());
            let ended = async {
                let mut rest = Vec::new();
                let _ = unread.read_to_end(&mut rest).await;
                let _ = websocket.read_to_end(&mut rest).await;
            };
            let (events, inside, _) = tokio::join!(
                events.into_body().collect(),
                inside.into_body().collect(),
                tokio::time::timeout(Duration::from_secs(20), ended)
            );
            assert!(events.is_err(), "the event stream ends with an error");
            assert!(inside.is_err(), "so does the one inside of TLS");
            // And nothing on a connection that is still open is judged by what was allowed.
            let request = get("http://web.test/echo", "web.test");
            let refused = match send(&mut client, request).await {
                Ok(answer) => answer.status() == 403,
                Err(_) => true,
            };
            assert!(refused);
        });
        if round == 0 {
            lab.set_rules(&rules);
            lab.reboot();
            lab.configure();
        }
    }
}
