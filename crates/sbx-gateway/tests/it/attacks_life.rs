//! Attacks on what changes: cases 67 and 68. (Every other case runs after a restart as well: see [`crate::attack`].)

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use sbx_gateway::addresses::{GATEWAY, GUEST};
use sbx_gateway::limits;
use sbx_testkit::EchoUpstream;
use sbx_testkit::dns::Entry;
use sbx_testkit::upstream::TcpEcho;
use sbx_wire::gateway::{Answer, Command, ProxyKind};
use smoltcp::wire::IpProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

use crate::attack::{closed, say};
use crate::guest::Stream;
use crate::lab::{Lab, NOWHERE, Setup, get, h1, h2, run, send};
use crate::packets::{datagram, echo_request, packet};
use crate::udp::Echo;

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

/// Each kind of connection that can be open leads to a host of its own.
const OPEN: [(&str, ProxyKind); 6] = [
    ("raw.test", ProxyKind::Network),
    ("tunnel.test", ProxyKind::ForwardBypass),
    ("events.test", ProxyKind::Forward),
    ("socket.test", ProxyKind::Forward),
    ("one.test", ProxyKind::Forward),
    ("two.test", ProxyKind::Forward),
];

const ENDLESS: &str = "/sse?events=100000&delay_ms=20";

/// One connection of each kind.
struct Opened {
    raw: Stream,
    /// Not opened by the gateway.
    unread: TlsStream<Stream>,
    /// HTTP/1.1 in clear text, with an event stream on it.
    plain: (http1::SendRequest<Full<Bytes>>, Incoming),
    websocket: Stream,
    /// HTTP/1.1 and HTTP/2 that the gateway has opened.
    one: Incoming,
    two: (http2::SendRequest<Full<Bytes>>, Incoming),
}

impl Opened {
    async fn open(lab: &Lab) -> Self {
        let address = lab.resolve("raw.test").await.unwrap()[0];
        let raw = lab.guest().connect(address, 7000).await.unwrap();
        let stream = lab.connect("tunnel.test:443").await.unwrap();
        let stream = lab.tls(stream, "tunnel.test", &[b"http/1.1"]).await;
        let mut unread = stream.unwrap();
        let endless = format!("GET {ENDLESS} HTTP/1.1\r\nHost: tunnel.test\r\n\r\n");
        unread.write_all(endless.as_bytes()).await.unwrap();
        let mut client = h1(lab.proxy().await).await;
        let request = get(&format!("http://events.test{ENDLESS}"), "events.test");
        let events = send(&mut client, request).await.unwrap();
        let mut websocket = lab.connect("socket.test:80").await.unwrap();
        let upgrade = "GET /ws HTTP/1.1\r\nHost: socket.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        assert_eq!(say(&mut websocket, upgrade).await.status, 101);
        let stream = lab.connect("one.test:443").await.unwrap();
        let stream = lab.tls(stream, "one.test", &[b"http/1.1"]).await.unwrap();
        let one = h1(stream)
            .await
            .send_request(get(ENDLESS, "one.test"))
            .await;
        let stream = lab.connect("two.test:443").await.unwrap();
        let stream = lab.tls(stream, "two.test", &[b"h2"]).await.unwrap();
        let mut two = h2(stream).await;
        let request = get(&format!("https://two.test{ENDLESS}"), "two.test");
        let inside = two.send_request(request).await.unwrap();
        Self {
            raw,
            unread,
            plain: (client, events.into_body()),
            websocket,
            one: one.unwrap().into_body(),
            two: (two, inside.into_body()),
        }
    }

    /// All of them pass bytes.
    async fn work(&mut self) {
        self.raw.write_all(b"x").await.unwrap();
        assert_eq!(self.raw.read_u8().await.unwrap(), b'x');
        self.unread.read_u8().await.unwrap();
        self.websocket
            .write_all(b"\x81\x82\0\0\0\0hi")
            .await
            .unwrap();
        let mut echo = [0; 4];
        self.websocket.read_exact(&mut echo).await.unwrap();
        assert_eq!(&echo, b"\x81\x02hi");
        for events in [&mut self.plain.1, &mut self.one, &mut self.two.1] {
            events.frame().await.unwrap().unwrap();
        }
    }

    /// All of them are cut, so that the client knows that it has not got everything.
    async fn are_cut(mut self) {
        let raw = self.raw.read_u8().await.unwrap_err();
        assert_eq!(raw.kind(), ErrorKind::ConnectionReset);
        let mut rest = Vec::new();
        let unread = self.unread.read_to_end(&mut rest).await.unwrap_err();
        assert_eq!(unread.kind(), ErrorKind::ConnectionReset);
        let websocket = self.websocket.read_to_end(&mut rest).await.unwrap_err();
        assert_eq!(websocket.kind(), ErrorKind::ConnectionReset);
        assert!(self.plain.1.collect().await.is_err());
        assert!(self.one.collect().await.is_err());
        let error = self.two.1.collect().await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap();
        let reset = cause.downcast_ref::<::h2::Error>().unwrap();
        assert!(reset.is_reset() && reset.is_remote(), "{reset}");
        // Nothing on a connection that is still open is judged by what was allowed.
        let request = get("http://events.test/echo", "events.test");
        let refused = match send(&mut self.plain.0, request).await {
            Ok(answer) => answer.status() == 403,
            Err(_) => true,
        };
        assert!(refused);
        let request = get("https://two.test/echo", "two.test");
        let answer = self.two.0.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 403);
    }
}

#[test]
fn attack_68_connections_that_a_new_policy_does_not_allow_are_closed() {
    let raw = TcpEcho::start().unwrap();
    let web = EchoUpstream::start().unwrap();
    let tls = EchoUpstream::start_tls(&["tunnel.test", "one.test", "two.test"]).unwrap();
    let rules = [
        "allow raw.test:7000",
        "allow tunnel.test",
        "allow events.test",
        "allow socket.test",
        "allow one.test",
        "allow two.test",
    ];
    let mut setup = Setup::new(&rules)
        .send_to("raw.test:7000", raw.address())
        .send_to("events.test:80", web.address())
        .send_to("socket.test:80", web.address())
        .tls_upstream("tunnel.test", &tls)
        .tls_upstream("one.test", &tls)
        .tls_upstream("two.test", &tls)
        .credential("one.test");
    setup.file.credential_hosts.push("two.test".to_owned());
    setup.credentials[0].hosts.push("two.test".to_owned());
    let mut lab = setup.start();
    for round in 0..2 {
        let before = lab.records().len();
        run(async {
            let mut opened = Opened::open(&lab).await;
            opened.work().await;
            // A change about something else leaves all of them alone.
            let more: Vec<&str> = rules.iter().copied().chain(["allow c.test"]).collect();
            tokio::task::block_in_place(|| lab.set_rules(&more));
            opened.work().await;
            // A policy that cannot be read changes nothing either.
            let broken =
                serde_json::to_string(&Command::Configure(Box::new(lab.config()))).unwrap();
            let broken = broken.replace("c.test", "*");
            let answer = tokio::task::block_in_place(|| lab.ask_raw(broken.as_bytes()));
            assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
            opened.work().await;
            // Now they are no longer allowed.
            tokio::task::block_in_place(|| lab.set_rules(&["allow c.test"]));
            tokio::time::timeout(Duration::from_secs(20), opened.are_cut())
                .await
                .expect("something stays open");
            for upstream in [raw.recorder(), web.recorder(), tls.recorder()] {
                closed(upstream).await;
            }
        });
        let told = lab.records().split_off(before);
        let told = told
            .iter()
            .filter(|record| record.reason == "policy-changed");
        let mut told: Vec<_> = told
            .map(|record| (record.host.as_str(), record.proxy))
            .collect();
        told.sort_by_key(|(host, _)| OPEN.iter().position(|(open, _)| open == host));
        assert_eq!(told, OPEN);
        if round == 0 {
            lab.set_rules(&rules);
            lab.reboot();
            lab.configure();
        }
    }
}

/// What is open to the address of two names.
struct Flows {
    address: Ipv4Addr,
    tcp: Stream,
    udp: u16,
}

impl Flows {
    /// Opens both under `a.test`, when `b.test` has been resolved to the same address.
    async fn open(lab: &Lab, tcp: u16, udp: u16) -> Self {
        let address = lab.resolve("a.test").await.unwrap()[0];
        lab.dns
            .set("b.test", Entry::addresses(60, &[address.into()]));
        assert_eq!(lab.resolve("b.test").await, Ok(vec![address]));
        let tcp = lab.guest().connect(address, tcp).await.unwrap();
        Self { address, tcp, udp }
    }

    /// Both pass bytes; `received`: how many datagrams have come to their end so far.
    async fn work(&mut self, lab: &Lab, received: impl Fn() -> usize) {
        self.tcp.write_all(b"x").await.unwrap();
        assert_eq!(self.tcp.read_u8().await.unwrap(), b'x');
        let before = received();
        lab.guest().frame(&datagram(self.address, self.udp, b"x"));
        while received() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The connection is cut. Of a flow nobody is told.
    async fn are_cut(mut self) {
        let error = self.tcp.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn attack_68_what_is_open_to_an_address_ends_when_another_of_its_names_is_denied() {
    let (tcp, udp) = (TcpEcho::start().unwrap(), Echo::start());
    let [allow, target] =
        ["allow a.test:", "a.test:"].map(|a| format!("{a}{}", tcp.address().port()));
    let [allow_udp, target_udp] =
        ["allow-udp a.test:", "a.test:"].map(|a| format!("{a}{}", udp.port));
    // No rule is about `b.test` on these ports. Its address is one that the gateway made up.
    let rules = [
        &allow,
        &allow_udp,
        "allow b.test:443",
        "allow 198.18.0.0/15:443",
    ];
    let and = |more: &'static str| [&rules[..], &[more]].concat();
    let mut setup = Setup::new(&rules)
        .send_to(&target, tcp.address())
        .send_to(&target_udp, (Ipv4Addr::LOCALHOST, udp.port).into());
    setup.file.upstream.udp_egress = true;
    let mut lab = setup.start();
    let received = || udp.received();
    for round in 0..2 {
        let before = lab.records().len();
        run(async {
            let mut open = Flows::open(&lab, tcp.address().port(), udp.port).await;
            open.work(&lab, received).await;
            // Names that do not lead there, and an allow of the one that does.
            for other in ["deny-both c.test", "deny-both **.b.test", "allow b.test"] {
                tokio::task::block_in_place(|| lab.set_rules(&and(other)));
                open.work(&lab, received).await;
            }
            tokio::task::block_in_place(|| lab.set_rules(&and("deny-both b.test")));
            tokio::time::timeout(Duration::from_secs(20), open.are_cut())
                .await
                .expect("it stays open");
            closed(tcp.recorder()).await;
        });
        let told = lab.records().split_off(before);
        let told = told
            .iter()
            .filter(|record| record.reason == "policy-changed");
        let mut told: Vec<_> = told
            .map(|record| (record.host.as_str(), record.port))
            .collect();
        told.sort_unstable();
        let mut want = [tcp.address().port(), udp.port].map(|port| ("a.test", port));
        want.sort_unstable();
        assert_eq!(told, want);
        if round == 0 {
            lab.set_rules(&rules);
            lab.reboot();
            lab.configure();
        }
    }
}

#[test]
fn what_has_more_names_than_are_remembered_ends_at_any_change() {
    let tcp = TcpEcho::start().unwrap();
    let port = tcp.address().port();
    let allow = format!("allow a.test:{port}");
    let rules = [&allow, "allow *.many.test:443", "allow 198.18.0.0/15:443"];
    let mut lab = Setup::new(&rules)
        .send_to(&format!("a.test:{port}"), tcp.address())
        .start();
    run(async {
        let address = lab.resolve("a.test").await.unwrap()[0];
        // The address itself is remembered too.
        for number in 1..=limits::NAMES_BESIDE {
            let name = format!("n{number}.many.test");
            lab.dns.set(&name, Entry::addresses(60, &[address.into()]));
            assert_eq!(lab.resolve(&name).await, Ok(vec![address]));
            if number + 1 < limits::NAMES_BESIDE {
                continue;
            }
            let mut open = lab.guest().connect(address, port).await.unwrap();
            tokio::task::block_in_place(|| lab.set_rules(&rules));
            let stays = number < limits::NAMES_BESIDE;
            let _ = open.write_all(b"x").await;
            assert_eq!(open.read_u8().await.is_ok(), stays, "{number}");
        }
        lab.one_record("policy-changed", "a.test").await;
    });
}
