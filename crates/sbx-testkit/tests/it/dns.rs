use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::str::FromStr;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use sbx_testkit::DnsStandIn;
use sbx_testkit::dns::{Answer, Entry};

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    message.metadata.recursion_desired = true;
    message.to_vec().unwrap()
}

fn over_udp(server: SocketAddr, name: &str, kind: RecordType) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    socket.send_to(&question(name, kind), server).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    Some(Message::from_vec(&buffer[..length]).unwrap())
}

fn over_tcp(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let mut stream = TcpStream::connect(server).unwrap();
    let wire = question(name, kind);
    stream
        .write_all(&u16::try_from(wire.len()).unwrap().to_be_bytes())
        .unwrap();
    stream.write_all(&wire).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    Message::from_vec(&answer).unwrap()
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(a) => Some(IpAddr::V6(a.0)),
        _ => None,
    };
    message
        .answers
        .iter()
        .filter_map(|record| address(&record.data))
        .collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn names_answer_by_family_over_both_transports() {
    let dns = DnsStandIn::start().unwrap();
    dns.set(
        "Both.Example.",
        Entry::addresses(30, &[ip("192.0.2.1"), ip("2001:db8::1")]),
    );
    let udp = over_udp(dns.address(), "both.example.", RecordType::A).unwrap();
    assert_eq!(addresses(&udp), [ip("192.0.2.1")]);
    assert_eq!(udp.answers[0].ttl, 30);
    let tcp = over_tcp(dns.address(), "BOTH.example.", RecordType::AAAA);
    assert_eq!(addresses(&tcp), [ip("2001:db8::1")]);
    let other = over_udp(dns.address(), "both.example.", RecordType::TXT).unwrap();
    assert_eq!(
        (other.metadata.response_code, other.answers.len()),
        (ResponseCode::NoError, 0)
    );
    assert_eq!(dns.recorder().queries_for("both.example"), 3);
}

#[test]
fn unknown_name_does_not_exist() {
    let dns = DnsStandIn::start().unwrap();
    let answer = over_udp(dns.address(), "nowhere.example.", RecordType::A).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(dns.recorder().queries_for("nowhere.example"), 1);
    assert_eq!(dns.recorder().queries_for("elsewhere.example"), 0);
}

#[test]
fn alias_brings_the_addresses_of_its_target() {
    let dns = DnsStandIn::start().unwrap();
    dns.set("www.example", Entry::alias(5, "host.example."));
    dns.set("host.example", Entry::addresses(5, &[ip("192.0.2.7")]));
    let answer = over_udp(dns.address(), "www.example.", RecordType::A).unwrap();
    assert_eq!(answer.answers.len(), 2);
    assert_eq!(addresses(&answer), [ip("192.0.2.7")]);
    dns.set("loop.example", Entry::alias(5, "loop.example."));
    let answer = over_udp(dns.address(), "loop.example.", RecordType::A).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn rebinding_name_changes_after_the_first_answer_of_each_type() {
    let dns = DnsStandIn::start().unwrap();
    dns.set(
        "rebind.example",
        Entry::rebinding(ip("192.0.2.1"), ip("127.0.0.1")),
    );
    let ask = |kind| addresses(&over_udp(dns.address(), "rebind.example.", kind).unwrap());
    assert_eq!(ask(RecordType::A), [ip("192.0.2.1")]);
    // A question for the other family must not use up the first answer.
    assert!(ask(RecordType::AAAA).is_empty());
    assert_eq!(ask(RecordType::A), [ip("127.0.0.1")]);
    assert_eq!(ask(RecordType::A), [ip("127.0.0.1")]);
}

#[test]
fn silence_failure_and_recovery_are_answered_in_turn() {
    let dns = DnsStandIn::start().unwrap();
    let good = Answer::Addresses(vec![ip("192.0.2.9")]);
    let answers = vec![Answer::Silence, Answer::Failure, good];
    dns.set("flaky.example", Entry { ttl: 1, answers });
    assert!(over_udp(dns.address(), "flaky.example.", RecordType::A).is_none());
    let failed = over_udp(dns.address(), "flaky.example.", RecordType::A).unwrap();
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    let good = over_udp(dns.address(), "flaky.example.", RecordType::A).unwrap();
    assert_eq!(addresses(&good), [ip("192.0.2.9")]);
    dns.remove("flaky.example");
    let gone = over_udp(dns.address(), "flaky.example.", RecordType::A).unwrap();
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn long_answer_is_truncated_over_udp_and_whole_over_tcp() {
    let dns = DnsStandIn::start().unwrap();
    let many: Vec<IpAddr> = (1..=100).map(|n| ip(&format!("192.0.2.{n}"))).collect();
    dns.set("many.example", Entry::addresses(1, &many));
    let udp = over_udp(dns.address(), "many.example.", RecordType::A).unwrap();
    assert!(udp.metadata.truncation);
    assert_eq!(
        addresses(&over_tcp(dns.address(), "many.example.", RecordType::A)).len(),
        100
    );
}

#[test]
fn garbage_gets_no_answer_and_does_not_stop_the_server() {
    let dns = DnsStandIn::start().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"not a question", dns.address()).unwrap();
    assert!(over_udp(dns.address(), "x.example.", RecordType::A).is_some());
    assert_eq!(dns.recorder().entries().len(), 1);
}
