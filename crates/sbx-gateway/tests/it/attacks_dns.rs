//! Attacks by way of names and their addresses: cases 39 to 42.

use std::net::{IpAddr, Ipv4Addr};

use sbx_gateway::addresses::GATEWAY;
use sbx_testkit::EchoUpstream;
use sbx_testkit::dns::{Answer, Entry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attack::{Round, say, twice};
use crate::lab::{NOWHERE, Setup, dns_question};

const NXDOMAIN: u8 = 3;
const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);

async fn asked(round: &Round<'_>, name: &str, kind: u16) -> u8 {
    round.lab.dns_query(name, kind).await[3] & 0xf
}

#[test]
fn attack_39_a_name_without_a_rule_carries_nothing_to_any_resolver() {
    let setup = Setup::new(&["allow a.test", "allow *.cdn.test"]).name("a.test", &[NOWHERE]);
    twice(setup.start(), &[], async |round| {
        for name in [
            "c2vjcmv0.evil.test",
            "agvsbg8gd29ybgq.x1.evil.test",
            "secret.a.test",
            "x.y.cdn.test",
            "a.test.evil.test",
            "_dmarc.evil.test",
        ] {
            // A, TXT, NULL, ANY, MX, SRV, CNAME, AAAA, HTTPS
            for kind in [1, 16, 10, 255, 15, 33, 5, 28, 65] {
                assert_eq!(asked(round, name, kind).await, NXDOMAIN, "{name} {kind}");
            }
            // Repeated questions about one name make one record in ten seconds.
            round.blocked("default-deny", name).await;
        }
        // Many names below one: each is stopped, each told apart.
        for number in 0..20 {
            let name = format!("{number:x}{}.evil.test", "f".repeat(50));
            assert_eq!(asked(round, &name, 16).await, NXDOMAIN);
            round.blocked("default-deny", &name).await;
        }
        // Data in the types of a name that is allowed, in other classes, in what is no question.
        for kind in [16, 10, 255, 15, 33, 5, 28, 65, 64] {
            let answer = round.lab.dns_query("a.test", kind).await;
            assert_eq!((answer[3] & 0xf, &answer[6..8]), (0, &[0, 0][..]), "{kind}");
        }
        let mut chaos = dns_question("a.test", 16);
        let end = chaos.len() - 1;
        chaos[end] = 3;
        let answer = round.lab.guest().udp(GATEWAY, 53, &chaos).await.unwrap();
        assert_eq!(answer[3] & 0xf, 1, "FORMERR");
        let mut update = dns_question("a.test", 1);
        update[2] = 0x28;
        let answer = round.lab.guest().udp(GATEWAY, 53, &update).await.unwrap();
        assert_eq!(answer[3] & 0xf, 4, "NOTIMP");
        // Over TCP the same.
        let mut stream = round.lab.guest().connect(GATEWAY, 53).await.unwrap();
        let question = dns_question("tcp.evil.test", 16);
        let length = u16::try_from(question.len()).unwrap().to_be_bytes();
        stream
            .write_all(&[&length, &question[..]].concat())
            .await
            .unwrap();
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[3] & 0xf, NXDOMAIN);
        drop(stream);
        round.blocked("default-deny", "tcp.evil.test").await;
    });
}

#[test]
fn attack_40_other_resolvers_are_out_of_reach() {
    let setup = Setup::new(&["allow *.test", "deny dns.evil.test"]);
    twice(setup.start(), &[], async |round| {
        let lab = round.lab;
        let resolver = Ipv4Addr::new(8, 8, 8, 8);
        let question = dns_question("secret.evil.test", 16);
        // DNS, DNS over QUIC, mDNS and LLMNR, to an address.
        for port in [53, 853, 5353, 5355] {
            let datagram = crate::packets::datagram(resolver, port, &question);
            lab.guest().frame(&datagram);
            let record = round.blocked("foreign-resolver", "8.8.8.8").await;
            assert_eq!(record.port, port);
        }
        // To everybody on the link: nothing is passed on or answered.
        for group in [
            Ipv4Addr::new(224, 0, 0, 251),
            Ipv4Addr::new(224, 0, 0, 252),
            Ipv4Addr::BROADCAST,
        ] {
            lab.guest()
                .frame(&crate::packets::datagram(group, 5353, &question));
            round.blocked("foreign-resolver", &group.to_string()).await;
        }
        // DNS over TCP and over TLS: names alone are allowed here, and no name was resolved to this address.
        for port in [53, 853] {
            assert!(lab.guest().connect(resolver, port).await.is_err());
            let record = round.blocked("default-deny", "8.8.8.8").await;
            assert_eq!(record.port, port);
        }
        // DNS over HTTPS is HTTPS: judged by name, or by address where there is none.
        let stream = lab.connect("dns.evil.test:443").await.unwrap();
        let mut stream = lab.tls(stream, "dns.evil.test", &[]).await.unwrap();
        let request = "GET /dns-query?dns=AAAB HTTP/1.1\r\nHost: dns.evil.test\r\n\r\n";
        let answer = say(&mut stream, request).await;
        assert_eq!((answer.status, answer.reason()), (403, "deny-rule"));
        round.blocked("deny-rule", "dns.evil.test").await;
        let stream = lab.guest().connect(resolver, 443).await.unwrap();
        let mut stream = lab.tls(stream, "8.8.8.8", &[]).await.unwrap();
        let answer = say(&mut stream, "GET / HTTP/1.1\r\nHost: 8.8.8.8\r\n\r\n").await;
        assert_eq!((answer.status, answer.reason()), (403, "default-deny"));
        round.blocked("default-deny", "8.8.8.8").await;
    });
}

/// Asks for a path of a name by the proxy and by dialling `address`; the status and reason of each.
async fn both_ways(round: &Round<'_>, name: &str, address: Ipv4Addr) -> [(u16, String); 2] {
    let mut proxy = round.lab.proxy().await;
    let absolute = format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n\r\n");
    let first = say(&mut proxy, absolute).await;
    let mut direct = round.lab.guest().connect(address, 80).await.unwrap();
    let second = say(
        &mut direct,
        format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n"),
    )
    .await;
    [first, second].map(|answer| (answer.status, answer.reason().to_owned()))
}

#[test]
fn attack_42_only_addresses_that_were_judged_are_dialled() {
    // What a private address would lead to.
    let inside = EchoUpstream::start().unwrap();
    let port = inside.address().port();
    let setup = Setup::new(&["allow *.test", &format!("allow localhost:{}", 1)]);
    let dns = &setup.dns;
    let entry = |answers: Vec<Answer>| Entry { ttl: 0, answers };
    let addresses = |list: &[IpAddr]| Answer::Addresses(list.to_vec());
    let (public, private) = (IpAddr::V4(NOWHERE), IpAddr::V4(PRIVATE));
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    dns.set("private.test", entry(vec![addresses(&[private])]));
    dns.set(
        "mixed.test",
        entry(vec![addresses(&[loopback, public, private])]),
    );
    dns.set("loopback.test", entry(vec![addresses(&[loopback])]));
    dns.set(
        "v6.test",
        entry(vec![addresses(&["fd00::1".parse().unwrap()])]),
    );
    dns.set("alias.test", Entry::alias(0, "deep.test"));
    dns.set("deep.test", Entry::alias(0, "inside.corp.example"));
    dns.set("inside.corp.example", entry(vec![addresses(&[loopback])]));
    dns.set("loop.test", Entry::alias(0, "loop.test"));
    let lab = setup.start();
    twice(lab, &[], async |round| {
        let lab = round.lab;
        for name in ["private.test", "loopback.test", "alias.test"] {
            assert_eq!(lab.resolve(name).await, Err(NXDOMAIN), "{name}");
            one(round, "rebinding", name).await;
            for host in [name.to_owned(), format!("{name}:{port}")] {
                let mut stream = lab.proxy().await;
                let request = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n");
                let answer = say(&mut stream, request).await;
                assert_eq!(
                    (answer.status, answer.reason()),
                    (403, "address-blocked"),
                    "{host}"
                );
                one(round, "address-blocked", name).await;
            }
        }
        for (name, code) in [("v6.test", NXDOMAIN), ("loop.test", 2)] {
            assert_eq!(lab.resolve(name).await, Err(code), "{name}");
            assert_eq!(round.recorded_at_least(1).await.len(), 1);
        }
        // Of several, those that may be dialled are given out and no other.
        assert_eq!(lab.resolve("mixed.test").await, Ok(vec![NOWHERE]));
        assert_eq!(round.recorded_at_least(1).await.len(), 1);
        // Public at first, private when asked again: the second answer is judged as well, and what a client still
        // holds of it is worth nothing.
        lab.dns
            .set("rebind.test", Entry::rebinding(public, private));
        assert_eq!(lab.resolve("rebind.test").await, Ok(vec![NOWHERE]));
        assert_eq!(round.recorded_at_least(1).await.len(), 1);
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await; // SHORTEST_FRESH
        assert_eq!(lab.resolve("rebind.test").await, Err(NXDOMAIN));
        one(round, "rebinding", "rebind.test").await;
        let [proxy, direct] = both_ways(round, "rebind.test", PRIVATE).await;
        assert_eq!(proxy, (403, "address-blocked".to_owned()));
        assert_eq!(direct, (403, "address-blocked".to_owned()));
        let records = round.recorded_at_least(2).await;
        assert!(records.len() == 2 && records.iter().all(|record| !record.allowed));
        assert_eq!(inside.recorder().bytes_received(), 0);
        round.forget_so_far().await;
    });
}

/// One record; the resolver was asked, and that is what it is for: the name is allowed.
async fn one(round: &Round<'_>, reason: &str, host: &str) {
    let records = round.recorded_at_least(1).await;
    assert_eq!(records.len(), 1, "{records:#?}");
    assert_eq!(
        (records[0].reason.as_str(), records[0].host.as_str()),
        (reason, host)
    );
    assert!(!records[0].allowed);
}
