//! Names.

use std::net::Ipv4Addr;
use std::time::Duration;

use sbx_testkit::dns::{Answer, Entry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab::{NOWHERE, Setup, dns_question, run};
use sbx_gateway::addresses::{GATEWAY, is_synthetic};

const NXDOMAIN: u8 = 3;
const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);

#[test]
fn an_allowed_name_resolves_and_a_second_question_is_answered_from_memory() {
    let lab = Setup::new(&["allow a.test"])
        .name("a.test", &[NOWHERE])
        .start();
    run(async {
        assert_eq!(lab.resolve("a.test").await, Ok(vec![NOWHERE]));
        assert_eq!(lab.resolve("A.Test").await, Ok(vec![NOWHERE]));
        assert_eq!(lab.dns.recorder().queries_for("a.test"), 1);
        let record = lab.one_record("allow-rule", "a.test").await;
        assert!(record.allowed && record.rule.as_deref() == Some("allow-a-test"));
    });
}

#[test]
fn denied_name_gets_no_upstream_packet() {
    let lab = Setup::new(&["allow a.test", "deny b.a.test"])
        .name("evil.test", &[NOWHERE])
        .start();
    run(async {
        for name in [
            "evil.test",
            "c2vjcmv0.evil.test",
            "a.test.evil.test",
            "xa.test",
        ] {
            assert_eq!(lab.resolve(name).await, Err(NXDOMAIN), "{name}");
            assert!(!lab.one_record("default-deny", name).await.allowed);
        }
        assert_eq!(lab.resolve("b.a.test").await, Err(NXDOMAIN));
        lab.one_record("deny-rule", "b.a.test").await;
        assert_eq!(lab.dns.recorder().bytes_received(), 0);
        assert!(lab.dns.recorder().entries().is_empty());
    });
}

#[test]
fn other_record_types_of_an_allowed_name_are_empty_and_ask_nobody() {
    let lab = Setup::new(&["allow a.test"])
        .name("a.test", &[NOWHERE])
        .start();
    run(async {
        // TXT, NULL, AAAA, HTTPS, ANY
        for kind in [16, 10, 28, 65, 255] {
            let answer = lab.dns_query("a.test", kind).await;
            assert_eq!(
                (answer[3] & 0xf, &answer[6..8]),
                (0, &[0, 0][..]),
                "type {kind}"
            );
        }
        assert!(lab.dns.recorder().entries().is_empty());
    });
}

#[test]
fn private_addresses_are_taken_out_of_answers() {
    let setup = Setup::new(&[
        "allow a.test",
        "allow b.test",
        "allow c.test",
        "allow 10.1.2.3:5432",
    ]);
    let metadata = Ipv4Addr::new(169, 254, 169, 254);
    let setup = setup.name("a.test", &[metadata]);
    let setup = setup
        .name("b.test", &[metadata, NOWHERE])
        .name("c.test", &[PRIVATE]);
    let lab = setup.start();
    run(async {
        assert_eq!(lab.resolve("a.test").await, Err(NXDOMAIN));
        lab.one_record("rebinding", "a.test").await;
        assert_eq!(lab.resolve("b.test").await, Ok(vec![NOWHERE]));
        assert_eq!(
            lab.resolve("c.test").await,
            Ok(vec![PRIVATE]),
            "a rule names it"
        );
    });
}

#[test]
fn an_alias_that_leads_to_a_private_address_is_stopped() {
    let setup = Setup::new(&["allow a.test"]);
    setup
        .dns
        .set("a.test", Entry::alias(60, "inside.corp.test"));
    let lab = setup.name("inside.corp.test", &[PRIVATE]).start();
    run(async {
        assert_eq!(lab.resolve("a.test").await, Err(NXDOMAIN));
        lab.one_record("rebinding", "a.test").await;
    });
}

#[test]
fn an_overridden_name_gets_an_address_of_our_own_without_asking() {
    let lab = Setup::new(&["allow api.test"])
        .send_to("api.test:443", "127.0.0.1:1".parse().unwrap())
        .start();
    run(async {
        let addresses = lab.resolve("api.test").await.unwrap();
        assert!(is_synthetic(addresses[0]), "{addresses:?}");
        assert!(lab.dns.recorder().entries().is_empty());
    });
}

#[test]
fn the_gateway_and_the_host_have_names() {
    let lab = Setup::new(&[]).start();
    run(async {
        for name in [
            "gateway.docker.internal",
            "gateway.sbx.internal",
            "host.docker.internal",
            "host.sbx.internal",
        ] {
            assert_eq!(lab.resolve(name).await, Ok(vec![GATEWAY]), "{name}");
        }
        assert!(lab.dns.recorder().entries().is_empty());
    });
}

#[test]
fn a_silent_resolver_is_servfail_and_not_a_hang() {
    let setup = Setup::new(&["allow a.test"]);
    setup.dns.set(
        "a.test",
        Entry {
            ttl: 1,
            answers: vec![Answer::Silence],
        },
    );
    let lab = setup.start();
    run(async {
        assert_eq!(lab.resolve("a.test").await, Err(2));
    });
}

#[test]
fn a_label_with_a_dot_inside_is_not_the_name_it_looks_like() {
    let lab = Setup::new(&["allow b.a.test"])
        .name("b.a.test", &[NOWHERE])
        .start();
    run(async {
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(b"\x03b.a\x04test\0\0\x01\0\x01");
        let answer = lab.guest().udp(GATEWAY, 53, &query).await.unwrap();
        assert_eq!(answer[3] & 0xf, NXDOMAIN);
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(b"\x06evil\0x\x01b\x01a\x04test\0\0\x01\0\x01");
        let answer = lab.guest().udp(GATEWAY, 53, &query).await.unwrap();
        assert_eq!(answer[3] & 0xf, NXDOMAIN);
        assert!(lab.dns.recorder().entries().is_empty());
    });
}

#[test]
fn broken_messages_are_survived() {
    let mut lab = Setup::new(&["allow a.test"])
        .name("a.test", &[NOWHERE])
        .start();
    run(async {
        let good = dns_question("a.test", 1);
        for length in 0..good.len() {
            let guest = lab.guest();
            let cut = guest.udp(GATEWAY, 53, &good[..length]);
            let _ = tokio::time::timeout(Duration::from_millis(20), cut).await;
        }
        assert_eq!(lab.resolve("a.test").await, Ok(vec![NOWHERE]));
    });
    assert!(lab.is_alive());
}

#[test]
fn dns_over_tcp_answers_too() {
    let lab = Setup::new(&["allow a.test"])
        .name("a.test", &[NOWHERE])
        .start();
    run(async {
        let mut stream = lab.guest().connect(GATEWAY, 53).await.unwrap();
        for _ in 0..2 {
            let query = dns_question("a.test", 1);
            let length = u16::try_from(query.len()).unwrap().to_be_bytes();
            stream
                .write_all(&[&length, &query[..]].concat())
                .await
                .unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut answer = vec![0; length.into()];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer[6..8], [0, 1], "one address");
        }
    });
}

/// A question with another type, and a name in any case.
fn question(name: &str, kind: u16, payload: Option<u16>) -> Vec<u8> {
    let mut query = dns_question(name, kind);
    if let Some(payload) = payload {
        query[11] = 1;
        query.extend([0, 0, 41]);
        query.extend(payload.to_be_bytes());
        query.extend([0; 6]);
    }
    query
}

#[test]
fn a_client_gets_its_own_spelling_back() {
    let lab = Setup::new(&["allow a.test"])
        .name("a.test", &[NOWHERE])
        .start();
    run(async {
        let query = question("a.TeSt", 1, None);
        let answer = lab.guest().udp(GATEWAY, 53, &query).await.unwrap();
        // The question and the answer's name: DNS 0x20.
        let spelling = b"\x01a\x04TeSt\0";
        assert_eq!(&answer[12..12 + spelling.len()], spelling);
        assert_eq!(answer[7], 1);
    });
}

#[test]
fn an_answer_that_does_not_fit_is_cut_and_whole_over_tcp() {
    let many: Vec<Ipv4Addr> = (1..=30)
        .map(|last| Ipv4Addr::new(203, 0, 113, last))
        .collect();
    let name = format!("{}.{}.test", "a".repeat(60), "b".repeat(60));
    let lab = Setup::new(&["allow **.test"]).name(&name, &many).start();
    run(async {
        let ask = async |payload| {
            let query = question(&name, 1, payload);
            let answer = lab.guest().udp(GATEWAY, 53, &query).await.unwrap();
            (answer[2] & 2 != 0, answer[7])
        };
        assert_eq!(ask(None).await, (true, 0));
        assert_eq!(ask(Some(100)).await, (true, 0), "never less than 512");
        assert_eq!(ask(Some(4096)).await, (false, 30));
        let mut stream = lab.guest().connect(GATEWAY, 53).await.unwrap();
        let query = question(&name, 1, None);
        let length = u16::try_from(query.len()).unwrap().to_be_bytes();
        stream
            .write_all(&[&length, &query[..]].concat())
            .await
            .unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!((answer[2] & 2, answer[7]), (0, 30));
    });
}

#[test]
fn an_overlong_message_is_not_looked_at() {
    let lab = Setup::new(&["allow a.test"])
        .name("a.test", &[NOWHERE])
        .start();
    run(async {
        let mut query = question("a.test", 1, None);
        query.resize(sbx_gateway::limits::DNS_QUESTION + 1, 0);
        let mut stream = lab.guest().connect(GATEWAY, 53).await.unwrap();
        let length = u16::try_from(query.len()).unwrap().to_be_bytes();
        stream.write_all(&length).await.unwrap();
        assert!(
            stream.read_u16().await.is_err(),
            "closed at the announcement"
        );
        assert!(lab.dns.recorder().entries().is_empty());
    });
}

#[test]
fn an_address_is_named_only_to_those_who_know_the_name() {
    let mut lab = Setup::new(&["allow a.test"])
        .name("a.test", &[NOWHERE])
        .start();
    let reverse = "9.113.0.203.in-addr.arpa";
    let names = |answer: &[u8]| {
        let message = hickory_proto::op::Message::from_vec(answer).unwrap();
        let names = message.answers.iter().map(|record| record.data.to_string());
        names.collect::<Vec<String>>()
    };
    run(async {
        let before = lab.dns_query(reverse, 12).await;
        assert_eq!(before[3] & 0xf, NXDOMAIN);
        lab.one_record("dns-question-refused", reverse).await;
        assert_eq!(lab.resolve("a.test").await, Ok(vec![NOWHERE]));
        assert_eq!(names(&lab.dns_query(reverse, 12).await), ["a.test."]);
        let gateway = lab.dns_query("1.127.168.192.in-addr.arpa", 12).await;
        assert_eq!(names(&gateway), ["gateway.docker.internal."]);
        for other in [
            "1.2.3.10.in-addr.arpa",
            "8.b.d.0.1.0.0.2.ip6.arpa",
            "in-addr.arpa",
        ] {
            assert_eq!(lab.dns_query(other, 12).await[3] & 0xf, NXDOMAIN, "{other}");
        }
        tokio::task::block_in_place(|| lab.set_rules(&["allow b.test"]));
        assert_eq!(lab.dns_query(reverse, 12).await[3] & 0xf, NXDOMAIN);
        assert_eq!(lab.dns.recorder().entries().len(), 1);
    });
}
