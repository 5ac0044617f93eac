//! UDP where a setting opens it and a rule says so.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sbx_gateway::addresses::{GATEWAY, MTU};
use sbx_gateway::limits;
use sbx_wire::gateway::EgressRecord;

use crate::lab::{Lab, NOWHERE, Setup, run};
use crate::unwritten::full;
use crate::wire::{datagram, unreachable};

/// Sends every datagram back.
pub(crate) struct Echo {
    pub(crate) port: u16,
    received: Arc<AtomicUsize>,
}

impl Echo {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let received = Arc::new(AtomicUsize::new(0));
        let count = received.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
        Self { port, received }
    }

    pub(crate) fn received(&self) -> usize {
        self.received.load(Ordering::SeqCst)
    }
}

fn open(rules: &[&str]) -> Setup {
    let mut setup = Setup::new(rules);
    setup.file.upstream.udp_egress = true;
    setup
}

async fn refused(lab: &Lab, count: usize) -> Vec<(u8, Vec<u8>)> {
    loop {
        let words = unreachable(&lab.guest().captured());
        if words.len() >= count {
            return words;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn udp_is_closed_whatever_the_rules_say_until_the_setting_opens_it() {
    let echo = Echo::start();
    let allow = format!("allow-udp localhost:{}", echo.port);
    let mut lab = Setup::new(&[&allow]).start();
    for round in 0..2 {
        run(async {
            lab.guest()
                .frame(&datagram(30_000, GATEWAY, echo.port, b"x"));
            let words = refused(&lab, 1).await;
            assert_eq!((words[0].0, &words[0].1[..2]), (3, &[0x75, 0x30][..]));
            let fits = |r: &EgressRecord| r.reason == "udp-blocked" && r.port == echo.port;
            let records = lab.records_that(round + 1, fits).await;
            assert!(!records[0].allowed);
            assert_eq!(echo.received(), 0);
        });
        lab.reboot();
    }
}

#[test]
fn datagrams_whose_own_record_cannot_be_written_are_not_sent() {
    let echo = Echo::start();
    let mut lab = open(&[&format!("allow-udp localhost:{}", echo.port)]).start();
    let old = full(&mut lab);
    run(async {
        let frame = datagram(30_000, GATEWAY, echo.port, b"x");
        lab.guest().frame(&frame);
        refused(&lab, 1).await;
        assert_eq!(echo.received(), 0);
        std::fs::remove_dir_all(&old).unwrap();
        let back = lab.guest().udp(GATEWAY, echo.port, b"x").await;
        assert_eq!(back.as_deref(), Some(&b"x"[..]));
    });
}

#[test]
fn a_udp_rule_opens_what_it_names_and_nothing_else() {
    let (echo, other) = (Echo::start(), Echo::start());
    let rules = [
        format!("allow-udp localhost:{}", echo.port),
        format!("allow localhost:{}", other.port),
        "allow **".to_owned(),
    ];
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let mut lab = open(&rules).name("a.test", &[NOWHERE]).start();
    let denied = |host: &'static str, port: u16| {
        move |r: &EgressRecord| {
            (r.reason.as_str(), r.host.as_str(), r.port) == ("default-deny", host, port)
        }
    };
    let passed = |r: &EgressRecord| r.reason == "allow-rule" && r.port == echo.port;
    for round in 1..=2 {
        run(async {
            for payload in [&b""[..], b"hello", &[7; 9000]] {
                let back = lab.guest().udp(GATEWAY, echo.port, payload).await;
                assert_eq!(back.as_deref(), Some(payload));
            }
            // Rules about TCP open no UDP, QUIC's port neither.
            assert_eq!(lab.resolve("a.test").await, Ok(vec![NOWHERE]));
            lab.guest()
                .frame(&datagram(30_000, GATEWAY, other.port, b"x"));
            lab.guest().frame(&datagram(30_000, NOWHERE, 443, b"x"));
            refused(&lab, 2).await;
            assert_eq!(other.received(), 0);
            // Before it is killed: it gathers its records.
            lab.records_that(round, denied("localhost", other.port))
                .await;
            lab.records_that(round, denied("a.test", 443)).await;
            lab.records_that(3 * round, passed).await;
        });
        lab.reboot();
    }
}

#[test]
fn a_name_opens_the_addresses_that_it_was_resolved_to() {
    let echo = Echo::start();
    let target = format!("game.test:{}", echo.port);
    let lab = open(&["allow-udp game.test"])
        .send_to(&target, (Ipv4Addr::LOCALHOST, echo.port).into())
        .start();
    run(async {
        let address = lab.resolve("game.test").await.unwrap()[0];
        let back = lab.guest().udp(address, echo.port, b"hello").await;
        assert_eq!(back.as_deref(), Some(&b"hello"[..]));
        lab.one_record("allow-rule", "game.test").await;
        lab.guest()
            .frame(&datagram(30_000, NOWHERE, echo.port, b"x"));
        refused(&lab, 1).await;
        lab.one_record("default-deny", &NOWHERE.to_string()).await;
        assert_eq!(echo.received(), 1);
    });
}

#[test]
fn a_name_is_resolved_to_what_either_protocol_may_use() {
    let inside = Ipv4Addr::new(10, 1, 2, 3);
    let rules = [
        "allow-udp game.test",
        "allow web.test",
        "allow-udp 10.1.2.3",
        "allow both.test",
        "allow-udp both.test",
        "deny 203.0.113.9",
    ];
    let mut lab = open(&rules)
        .name("game.test", &[inside])
        .name("web.test", &[inside])
        .name("both.test", &[NOWHERE])
        .start();
    run(async {
        assert_eq!(lab.resolve("game.test").await, Ok(vec![inside]));
        lab.guest().frame(&datagram(30_000, inside, 9000, b"x"));
        let fits = |r: &EgressRecord| r.port == 9000 && r.allowed;
        assert_eq!(lab.records_that(1, fits).await[0].host, "game.test");
        // The address is open to datagrams alone, and the name to connections alone.
        assert_eq!(lab.resolve("web.test").await, Err(3));
        lab.one_record("rebinding", "web.test").await;
        // A deny of connections hides nothing from datagrams, and is none the less one.
        assert_eq!(lab.resolve("both.test").await, Ok(vec![NOWHERE]));
        assert!(lab.guest().connect(NOWHERE, 9000).await.is_err());
        lab.one_record("deny-rule", "both.test").await;
        let refused = lab.connect("both.test:9000").await.err();
        assert_eq!(refused.map(|(status, _)| status), Some(403));
    });
    // Without UDP there is nothing that the names are resolved for.
    lab.file.upstream.udp_egress = false;
    lab.write_file();
    lab.reboot();
    run(async {
        assert_eq!(lab.resolve("game.test").await, Err(3));
        lab.one_record("udp-blocked", "game.test").await;
    });
}

#[test]
fn a_flow_ends_when_the_setting_closes_udp() {
    let echo = Echo::start();
    let mut lab = open(&[&format!("allow-udp localhost:{}", echo.port)]).start();
    run(async {
        let send = || {
            lab.guest()
                .frame(&datagram(30_000, GATEWAY, echo.port, b"x"));
        };
        send();
        while echo.received() < 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    lab.file.upstream.udp_egress = false;
    lab.configure();
    run(async {
        lab.one_record("policy-changed", "localhost").await;
        lab.guest()
            .frame(&datagram(30_000, GATEWAY, echo.port, b"x"));
        lab.one_record("udp-blocked", "localhost").await;
        assert_eq!(echo.received(), 1);
    });
}

#[test]
fn the_largest_datagram_passes_both_ways() {
    let echo = Echo::start();
    let lab = open(&[&format!("allow-udp localhost:{}", echo.port)]).start();
    run(async {
        let largest = vec![7; MTU - 28];
        let back = lab.guest().udp(GATEWAY, echo.port, &largest).await;
        assert!(back.is_some_and(|back| back == largest));
    });
}

#[test]
fn a_new_policy_ends_a_flow() {
    let echo = Echo::start();
    let allow = format!("allow-udp localhost:{}", echo.port);
    let mut lab = open(&[&allow]).start();
    run(async {
        let send = || {
            lab.guest()
                .frame(&datagram(30_000, GATEWAY, echo.port, b"x"));
        };
        send();
        lab.one_record("allow-rule", "localhost").await;
        while echo.received() < 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Unrelated changes leave it alone.
        tokio::task::block_in_place(|| lab.set_rules(&[&allow, "allow c.test"]));
        lab.guest()
            .frame(&datagram(30_000, GATEWAY, echo.port, b"x"));
        while echo.received() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        lab.one_record("allow-rule", "localhost").await;
        tokio::task::block_in_place(|| lab.set_rules(&["allow c.test"]));
        lab.guest()
            .frame(&datagram(30_000, GATEWAY, echo.port, b"x"));
        lab.one_record("default-deny", "localhost").await;
        refused(&lab, 1).await;
        assert_eq!(echo.received(), 2);
    });
}

#[test]
fn multicast_broadcast_link_local_and_foreign_resolvers_stay_closed() {
    let rules = [
        "allow-udp **",
        "allow-udp 224.0.0.0/4",
        "allow-udp 169.254.0.0/16",
        "allow-udp 192.168.127.255",
        "allow-udp 8.8.8.8",
    ];
    let lab = open(&rules).start();
    run(async {
        let places = [
            ("udp-blocked", Ipv4Addr::new(239, 255, 255, 250), 1900),
            ("udp-blocked", Ipv4Addr::BROADCAST, 9),
            ("udp-blocked", Ipv4Addr::new(192, 168, 127, 255), 9),
            ("address-blocked", Ipv4Addr::new(169, 254, 1, 1), 9),
            ("foreign-resolver", Ipv4Addr::new(224, 0, 0, 251), 5353),
            ("foreign-resolver", Ipv4Addr::new(8, 8, 8, 8), 53),
            ("foreign-resolver", Ipv4Addr::new(8, 8, 8, 8), 853),
        ];
        for (reason, address, port) in places {
            lab.guest().frame(&datagram(30_000, address, port, b"x"));
            let host = address.to_string();
            let fits =
                |r: &EgressRecord| (r.reason.as_str(), &r.host, r.port) == (reason, &host, port);
            lab.records_that(1, fits).await;
        }
        assert!(lab.dns.recorder().entries().is_empty());
    });
}

#[test]
fn a_closed_port_of_the_host_is_told_and_a_broken_checksum_is_not_sent_on() {
    let closed = {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.local_addr().unwrap().port()
    };
    let echo = Echo::start();
    let rules = [closed, echo.port].map(|port| format!("allow-udp localhost:{port}"));
    let lab = open(&[&rules[0], &rules[1]]).start();
    run(async {
        lab.guest().frame(&datagram(30_000, GATEWAY, closed, b"x"));
        let words = refused(&lab, 1).await;
        assert_eq!(
            (words[0].0, &words[0].1[2..4]),
            (3, &closed.to_be_bytes()[..])
        );
        let mut broken = datagram(30_000, GATEWAY, echo.port, b"broken");
        *broken.last_mut().unwrap() ^= 1;
        lab.guest().frame(&broken);
        let back = lab.guest().udp(GATEWAY, echo.port, b"whole").await;
        assert_eq!(back.as_deref(), Some(&b"whole"[..]));
        assert_eq!(echo.received(), 1);
    });
}

#[test]
fn flows_beyond_the_limit_are_refused() {
    let echo = Echo::start();
    let lab = open(&[&format!("allow-udp localhost:{}", echo.port)]).start();
    run(async {
        let flows = u16::try_from(limits::UDP_FLOWS).unwrap();
        for source in 30_000..30_000 + flows {
            lab.guest()
                .frame(&datagram(source, GATEWAY, echo.port, b"x"));
        }
        while echo.received() < limits::UDP_FLOWS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        lab.guest()
            .frame(&datagram(29_999, GATEWAY, echo.port, b"x"));
        lab.one_record("connection-limit", &GATEWAY.to_string())
            .await;
        refused(&lab, 1).await;
        // Those that are open go on.
        lab.guest()
            .frame(&datagram(30_000, GATEWAY, echo.port, b"x"));
        while echo.received() < limits::UDP_FLOWS + 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}
