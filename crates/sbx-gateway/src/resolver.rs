//! A small forwarder: asks the upstream resolvers for the IPv4 addresses of a name that a rule allows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use sbx_policy::HostName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::gateway::Gateway;
use crate::generation::Generation;
use crate::limits;

/// Largest UDP answer that is asked for (RFC 9715 advises to stay below fragmentation).
const UDP_PAYLOAD: u16 = 1232;
/// Longest chain of aliases in one answer.
const LONGEST_CHAIN: usize = 16;

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The resolver says so.
    #[error("The name has no IPv4 address")]
    NoAddress,
    /// No resolver is known.
    #[error("No upstream resolver is configured")]
    NoResolver,
    /// No resolver gave a usable answer.
    #[error("No upstream resolver answered")]
    Silent,
    /// The name cannot be asked for.
    #[error("The name cannot stand in a DNS question")]
    Name,
}

/// The addresses of a name that a rule allows: fresh pins, or an answer of an upstream resolver. The
/// addresses are not judged here.
pub async fn resolve(
    gateway: &Gateway,
    generation: &Generation,
    name: &HostName,
) -> Result<Vec<Ipv4Addr>, ResolveError> {
    if let Some((addresses, _)) = gateway.pins.fresh(name) {
        return Ok(addresses);
    }
    let answer = ask(generation, name).await?;
    // Only what may be dialled is ever pinned.
    let allowed = allowed_addresses(generation, name, &answer.addresses);
    if !allowed.is_empty() {
        gateway.pins.insert(name, &allowed, answer.ttl);
    }
    Ok(answer.addresses)
}

/// The addresses that the sandbox may use for the name, on some port and by a protocol that a rule opens for the name.
pub fn allowed_addresses(
    generation: &Generation,
    name: &HostName,
    addresses: &[Ipv4Addr],
) -> Vec<Ipv4Addr> {
    let (evaluator, sandbox) = (&generation.evaluator, &generation.sandbox);
    let protocols = evaluator.protocols_to(sandbox, name);
    let may = |address: &&Ipv4Addr| {
        let ip = IpAddr::V4(**address);
        // Neither port nor protocol is known yet: the connection is judged with its own again.
        let ways = protocols.iter().flat_map(|transport| {
            let ports = generation.address_ports.iter();
            ports.map(move |port| (transport, *port))
        });
        evaluator.address_allowed(sandbox, ip, ways)
    };
    addresses.iter().filter(may).copied().collect()
}

/// An answer of an upstream resolver.
#[derive(Debug, Clone)]
pub struct Answer {
    /// IPv4 addresses in the order they came, at least one.
    pub addresses: Vec<Ipv4Addr>,
    /// Smallest TTL on the way to them.
    pub ttl: Duration,
}

/// Asks the resolvers one after the other.
pub async fn ask(generation: &Generation, name: &HostName) -> Result<Answer, ResolveError> {
    if generation.resolvers.is_empty() {
        return Err(ResolveError::NoResolver);
    }
    for resolver in generation.resolvers.iter().take(3) {
        let asked = tokio::time::timeout(limits::RESOLVER, ask_one(*resolver, name)).await;
        match asked {
            Ok(Ok(Outcome::Answer(answer))) => return Ok(answer),
            Ok(Ok(Outcome::Nothing)) => return Err(ResolveError::NoAddress),
            Ok(Ok(Outcome::Failed) | Err(_)) | Err(_) => {}
        }
    }
    Err(ResolveError::Silent)
}

enum Outcome {
    Answer(Answer),
    Nothing,
    Failed,
}

async fn ask_one(resolver: SocketAddr, name: &HostName) -> std::io::Result<Outcome> {
    let (query, bytes) = question(name)?;
    let any: SocketAddr = match resolver {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket for each question: the kernel picks a random port, and connecting it keeps out answers
    // of everybody else.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(&bytes).await?;
    let mut buffer = vec![0; usize::from(UDP_PAYLOAD)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What does not fit the question is not an answer to it: keep waiting.
        let Some(message) = answer_to(&query, &buffer[..length]) else {
            continue;
        };
        if message.metadata.truncation {
            return ask_tcp(resolver, &query, &bytes).await;
        }
        return Ok(outcome(&query, &message));
    }
}

async fn ask_tcp(resolver: SocketAddr, query: &Message, bytes: &[u8]) -> std::io::Result<Outcome> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), bytes].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    Ok(answer_to(query, &buffer).map_or(Outcome::Failed, |message| outcome(query, &message)))
}

fn question(name: &HostName) -> std::io::Result<(Message, Vec<u8>)> {
    let mut id = [0; 2];
    crate::random(&mut id).map_err(std::io::Error::other)?;
    let mut message = Message::new(u16::from_be_bytes(id), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let labels = name.labels().map(str::as_bytes);
    let mut dns_name = Name::from_labels(labels).map_err(std::io::Error::other)?;
    dns_name.set_fqdn(true);
    message.add_query(Query::query(dns_name, RecordType::A));
    let mut edns = hickory_proto::op::Edns::new();
    edns.set_max_payload(UDP_PAYLOAD);
    message.set_edns(edns);
    let bytes = message.to_vec().map_err(std::io::Error::other)?;
    Ok((message, bytes))
}

/// The message, if it answers exactly this question.
fn answer_to(query: &Message, bytes: &[u8]) -> Option<Message> {
    let message = Message::from_vec(bytes).ok()?;
    let same = message.metadata.id == query.metadata.id
        && message.metadata.message_type == MessageType::Response
        && message.metadata.op_code == OpCode::Query
        && message.queries == query.queries;
    same.then_some(message)
}

/// What a resolver's message says, taken for the answer to a question about the name that had the message's own id.
/// `None`: it is no answer to that question, so one would go on waiting. For those who look at messages without asking
/// anybody; nothing that is dialled comes from here.
pub fn read_answer(name: &HostName, bytes: &[u8]) -> Option<Result<Answer, ResolveError>> {
    let (mut query, _) = question(name).ok()?;
    query.metadata.id = u16::from_be_bytes(*bytes.first_chunk()?);
    let message = answer_to(&query, bytes)?;
    Some(match outcome(&query, &message) {
        Outcome::Answer(answer) => Ok(answer),
        Outcome::Nothing => Err(ResolveError::NoAddress),
        Outcome::Failed => Err(ResolveError::Silent),
    })
}

fn outcome(query: &Message, message: &Message) -> Outcome {
    match message.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Outcome::Nothing,
        _ => return Outcome::Failed,
    }
    let Some(asked) = query.queries.first() else {
        return Outcome::Failed;
    };
    let mut name = &asked.name;
    let mut ttl = u32::MAX;
    for _ in 0..LONGEST_CHAIN {
        let records = || {
            let here = message.answers.iter().filter(|r| r.name == *name);
            here.filter(|r| r.dns_class == DNSClass::IN)
        };
        let mut addresses: Vec<Ipv4Addr> = Vec::new();
        for record in records() {
            if let RData::A(a) = &record.data
                && addresses.len() < limits::PINNED_ADDRESSES
            {
                addresses.push(a.0);
                ttl = ttl.min(record.ttl);
            }
        }
        if !addresses.is_empty() {
            return Outcome::Answer(Answer {
                addresses,
                ttl: Duration::from_secs(ttl.into()),
            });
        }
        let alias = records().find_map(|record| match &record.data {
            RData::CNAME(target) => Some((&target.0, record.ttl)),
            _ => None,
        });
        let Some((target, alias_ttl)) = alias else {
            return Outcome::Nothing;
        };
        name = target;
        ttl = ttl.min(alias_ttl);
    }
    Outcome::Failed
}

/// The name servers in the text of a `resolv.conf`, at most three as in the C library.
pub fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next())
            .flatten()
    });
    // A zone id (`fe80::1%eth0`) is not supported: such servers are left out.
    servers
        .filter_map(|s| s.parse::<IpAddr>().ok())
        .take(3)
        .map(|ip| (ip, 53).into())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use sbx_policy::{
        CreatedVia, Decision, Evaluator, PolicyDocument, Protocols, ResourcePattern, Rule, Scope,
    };
    use sbx_wire::gateway::{GatewayFile, Upstream};

    use super::*;
    use crate::generation::HostTrust;

    #[test]
    fn an_answer_with_another_id_or_question_is_not_taken() {
        let (query, bytes) = question(&HostName::parse("a.test").unwrap()).unwrap();
        let mut good = query.clone().into_response();
        assert!(answer_to(&query, &good.to_vec().unwrap()).is_some());
        assert!(
            answer_to(&query, &bytes).is_none(),
            "a question is no answer"
        );
        good.metadata.id = good.metadata.id.wrapping_add(1);
        assert!(answer_to(&query, &good.to_vec().unwrap()).is_none());
        let (other, _) = question(&HostName::parse("b.test").unwrap()).unwrap();
        let mut other = other.into_response();
        other.metadata.id = query.metadata.id;
        assert!(answer_to(&query, &other.to_vec().unwrap()).is_none());
    }

    #[test]
    fn where_an_address_lies_is_asked_once_however_many_ports_rules_name() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let rule = |id: String, resource: &str, protocols| Rule {
            id,
            name: None,
            scope: Scope::Global,
            decision: Decision::Allow,
            resources: vec![ResourcePattern::parse(resource).unwrap()],
            protocols,
            created_via: CreatedVia::Added,
            http: None,
        };
        let mut rules = vec![rule("name".to_owned(), "a.test", Protocols::ALL)];
        rules.extend((1000..1500).map(|port| {
            let resource = format!("10.0.0.32:{port}");
            rule(format!("port-{port}"), &resource, Protocols::UDP)
        }));
        let file = GatewayFile {
            sandbox: "box".to_owned(),
            policy: PolicyDocument::new(1, rules),
            upstream: Upstream::default(),
            credential_hosts: Vec::new(),
        };
        let host = HostTrust {
            roots: Vec::new(),
            resolvers: Vec::new(),
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        };
        let evaluator = Evaluator::new(&file.policy).opening_udp(true);
        let mut generation = Generation::from_file(file, &host).unwrap();
        generation.evaluator = evaluator.knowing_what_is_near(|_| {
            ASKED.fetch_add(1, Ordering::Relaxed);
            None
        });
        assert_eq!(generation.address_ports.len(), 501);
        let addresses: Vec<_> = (1..=32).map(|last| [10, 0, 0, last].into()).collect();
        let name = HostName::parse("a.test").unwrap();
        let allowed = allowed_addresses(&generation, &name, &addresses);
        assert_eq!(allowed, addresses[31..]);
        assert_eq!(ASKED.load(Ordering::Relaxed), addresses.len());
    }

    #[test]
    fn resolv_conf_is_read_as_the_c_library_does() {
        let text = "# x\nsearch a\nnameserver 192.0.2.1\nnameserver\t2001:db8::1\nnameserver x\n";
        let want = [
            "192.0.2.1:53".parse().unwrap(),
            "[2001:db8::1]:53".parse().unwrap(),
        ];
        assert_eq!(parse_resolv_conf(text), want);
    }
}
