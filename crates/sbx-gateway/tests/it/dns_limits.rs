//! Bounds of names: what is beyond them, and what goes on meanwhile.

use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use sbx_gateway::addresses::GATEWAY;
use sbx_gateway::limits;
use sbx_gateway::resolver::read_answer;
use sbx_policy::HostName;
use sbx_testkit::dns::{Answer, Entry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use crate::guest::Stream;
use crate::lab::{NOWHERE, Setup, dns_question, run};
use crate::packets::datagram;

const SERVFAIL: u8 = 2;

/// Asks over a connection to the resolver. Returns the number of answers.
async fn ask(stream: &mut Stream, name: &str) -> u8 {
    let question = dns_question(name, 1);
    let length = u16::try_from(question.len()).unwrap().to_be_bytes();
    let framed = [&length, &question[..]].concat();
    stream.write_all(&framed).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await.unwrap();
    answer[7]
}

#[test]
fn questions_beyond_those_in_work_are_not_answered_and_a_connection_and_the_next_ones_are() {
    let lab = Setup::new(&["allow a.test", "allow **.mute.test"])
        .name("a.test", &[NOWHERE])
        .start();
    let mute: Vec<String> = (0..limits::DNS_IN_FLIGHT)
        .map(|number| format!("n{number}.mute.test"))
        .collect();
    for name in &mute {
        let answers = vec![Answer::Silence];
        lab.dns.set(name, Entry { ttl: 0, answers });
    }
    run(async {
        for name in &mute {
            let question = dns_question(name, 1);
            lab.guest().frame(&datagram(GATEWAY, 53, &question));
        }
        let over_tcp = async {
            let mut stream = lab.guest().connect(GATEWAY, 53).await.unwrap();
            assert_eq!(ask(&mut stream, "gateway.docker.internal").await, 1);
        };
        let (beyond, ()) = tokio::join!(lab.dns_query("a.test", 1), over_tcp);
        assert_eq!(beyond, b"", "it is not answered");
        assert_eq!(lab.dns.recorder().queries_for("a.test"), 0);
        // Those before it have been given up by now.
        assert_eq!(lab.resolve("a.test").await, Ok(vec![NOWHERE]));
    });
}

#[test]
fn a_connection_that_asks_nothing_is_closed_and_one_that_asks_is_not() {
    let lab = Setup::new(&[]).start();
    run(async {
        let mut mute = lab.guest().connect(GATEWAY, 53).await.unwrap();
        // Half of a question is none.
        let mut half = lab.guest().connect(GATEWAY, 53).await.unwrap();
        half.write_all(&[0]).await.unwrap();
        let mut asking = lab.guest().connect(GATEWAY, 53).await.unwrap();
        let started = Instant::now();
        let closed = async {
            assert!(mute.read_u8().await.is_err());
            assert!(half.read_u8().await.is_err());
            started.elapsed()
        };
        let asked = async {
            for _ in 0..3 {
                assert_eq!(ask(&mut asking, "gateway.docker.internal").await, 1);
                sleep(limits::DNS_IDLE / 2 + Duration::from_secs(1)).await;
            }
            assert_eq!(ask(&mut asking, "gateway.docker.internal").await, 1);
        };
        let (closed, ()) = tokio::join!(closed, asked);
        // They were open a little before the clock.
        let shortest = limits::DNS_IDLE.saturating_sub(Duration::from_secs(1));
        let longest = limits::DNS_IDLE + Duration::from_secs(5);
        assert!((shortest..longest).contains(&closed), "{closed:?}");
    });
}

/// An answer that leads over so many aliases to an address.
fn aliases(count: usize) -> Vec<u8> {
    let name = |number: usize| Name::from_ascii(format!("n{number}.test.")).unwrap();
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.add_query(Query::query(name(0), RecordType::A));
    for number in 0..count {
        let next = RData::CNAME(CNAME(name(number + 1)));
        message.add_answer(Record::from_rdata(name(number), 60, next));
    }
    message.add_answer(Record::from_rdata(name(count), 60, RData::A(A(NOWHERE))));
    message.to_vec().unwrap()
}

#[test]
fn an_answer_with_too_many_aliases_or_in_a_circle_is_servfail() {
    let first = HostName::parse("n0.test").unwrap();
    let answer = read_answer(&first, &aliases(15)).unwrap().unwrap();
    assert_eq!(answer.addresses, [NOWHERE]);
    assert!(read_answer(&first, &aliases(16)).unwrap().is_err());
    let lab = Setup::new(&["allow **.test"])
        .name("good.test", &[NOWHERE])
        .start();
    lab.dns.set("a.test", Entry::alias(60, "b.test"));
    lab.dns.set("b.test", Entry::alias(60, "a.test"));
    run(async {
        assert_eq!(lab.resolve("a.test").await, Err(SERVFAIL));
        assert_eq!(lab.resolve("good.test").await, Ok(vec![NOWHERE]));
    });
}
