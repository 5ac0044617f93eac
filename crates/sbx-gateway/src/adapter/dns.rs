//! DNS on the gateway: the guest's only resolver. A name that no rule allows causes no packet upstream.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use sbx_policy::HostName;
use sbx_wire::gateway::ProxyKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::addresses::{GATEWAY, GATEWAY_NAME};
use crate::gateway::Gateway;
use crate::generation::Generation;
use crate::limits;
use crate::reason::Reason;
use crate::records::Event;
use crate::resolver::{self, ResolveError};

/// TTL of names that we answer ourselves: short, so that a changed policy is seen soon.
const LOCAL_TTL: Duration = Duration::from_mins(1);

/// Longest answer over UDP to a client that names no size (RFC 1035, section 4.2.1), in bytes.
const PLAIN_UDP: u16 = 512;

/// What a question gets.
struct Reply {
    code: ResponseCode,
    data: Vec<RData>,
    ttl: Duration,
}

impl Reply {
    fn code(code: ResponseCode) -> Self {
        Self {
            code,
            data: Vec::new(),
            ttl: Duration::ZERO,
        }
    }

    fn addresses(addresses: Vec<Ipv4Addr>, ttl: Duration) -> Self {
        Self {
            code: ResponseCode::NoError,
            data: addresses.into_iter().map(|a| RData::A(A(a))).collect(),
            ttl,
        }
    }

    fn local(addresses: Vec<Ipv4Addr>) -> Self {
        Self::addresses(addresses, LOCAL_TTL)
    }
}

/// Over what a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// A datagram: what does not fit is cut, and the client asks again over TCP.
    Udp,
    /// A connection.
    Tcp,
}

/// Answers one message. `None`: it is no question, so nothing is sent.
pub async fn answer(gateway: &Gateway, bytes: &[u8], carrier: Carrier) -> Option<Vec<u8>> {
    if bytes.len() > limits::DNS_QUESTION {
        return None;
    }
    let query = Message::from_vec(bytes).ok()?;
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut response = Message::new(
        query.metadata.id,
        MessageType::Response,
        query.metadata.op_code,
    );
    response.metadata.recursion_desired = query.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    if query.edns.is_some() {
        response.set_edns(Edns::new());
    }
    let reply = match query.queries.as_slice() {
        _ if query.metadata.op_code != OpCode::Query => Reply::code(ResponseCode::NotImp),
        [question] if question.query_class == DNSClass::IN => {
            response.add_query(question.clone());
            judge(gateway, question).await
        }
        _ => Reply::code(ResponseCode::FormErr),
    };
    response.metadata.response_code = reply.code;
    if let Some(question) = query.queries.first() {
        let ttl = u32::try_from(reply.ttl.as_secs()).unwrap_or(0);
        for data in reply.data {
            response.add_answer(Record::from_rdata(question.name.clone(), ttl, data));
        }
    }
    let whole = response.to_vec().ok()?;
    let room = query.edns.as_ref().map_or(0, Edns::max_payload);
    if carrier == Carrier::Tcp || whole.len() <= usize::from(room.max(PLAIN_UDP)) {
        return Some(whole);
    }
    response.answers.clear();
    response.metadata.truncation = true;
    response.to_vec().ok()
}

async fn judge(gateway: &Gateway, question: &Query) -> Reply {
    let generation = gateway.generation();
    let refuse = |host: String, reason| {
        let event = Event::at(host, 0, ProxyKind::Dns, reason, generation.number);
        gateway.records.push_dropped(&generation.sandbox, &event);
        Reply::code(ResponseCode::NXDomain)
    };
    let Some(name) = host_name(&question.name) else {
        return refuse(question.name.to_ascii(), Reason::DnsQuestion);
    };
    if name.labels().next_back() == Some("arpa") {
        return match reverse(gateway, &generation, &name, question.query_type) {
            Some(reply) => reply,
            None => refuse(name.to_string(), Reason::DnsQuestion),
        };
    }
    let is_a = question.query_type == RecordType::A;
    if name.is_host_service() {
        return Reply::local(if is_a { vec![GATEWAY] } else { Vec::new() });
    }
    let verdict = generation
        .evaluator
        .name_may_resolve(&generation.sandbox, &name);
    if !verdict.is_allowed() {
        let reason = match generation.problem {
            Some(_) => Reason::PolicyUnavailable,
            None => Reason::of(&verdict),
        };
        let event = Event::at(
            name.to_string(),
            0,
            ProxyKind::Dns,
            reason,
            generation.number,
        )
        .with_rule(verdict.rule);
        gateway.records.push_dropped(&generation.sandbox, &event);
        return Reply::code(ResponseCode::NXDomain);
    }
    // Everything but addresses is answered as absent: nothing but IPv4 leads out of here, and service
    // bindings would carry keys for encrypted server names. No packet upstream either.
    if !is_a {
        return Reply::local(Vec::new());
    }
    if let Some(address) = generation.synthetic.get(&name) {
        gateway.pins.insert(&name, &[*address], LOCAL_TTL);
        return Reply::local(vec![*address]);
    }
    forward(gateway, &generation, &name, verdict.rule).await
}

async fn forward(
    gateway: &Gateway,
    generation: &Arc<Generation>,
    name: &HostName,
    rule: Option<Arc<sbx_policy::RuleRef>>,
) -> Reply {
    if let Some((addresses, left)) = gateway.pins.fresh(name) {
        return Reply::addresses(addresses, left);
    }
    let record = |reason| {
        let host = name.to_string();
        let event = Event::at(host, 0, ProxyKind::Dns, reason, generation.number);
        gateway.record(generation, event.with_rule(rule.clone()));
    };
    // A question says something to whoever answers for the name. The client may ask again.
    if !gateway.records.can_write() {
        record(Reason::RecordsUnwritten);
        return Reply::code(ResponseCode::ServFail);
    }
    match resolver::ask(generation, name).await {
        Ok(answer) => {
            let addresses = resolver::allowed_addresses(generation, name, &answer.addresses);
            if addresses.is_empty() {
                record(Reason::Rebinding);
                return Reply::code(ResponseCode::NXDomain);
            }
            record(Reason::AllowRule);
            let ttl = gateway.pins.insert(name, &addresses, answer.ttl);
            Reply::addresses(addresses, ttl)
        }
        Err(ResolveError::NoAddress) => {
            record(Reason::NoAddress);
            Reply::code(ResponseCode::NXDomain)
        }
        Err(error) => {
            tracing::warn!(%name, %error, "cannot resolve");
            record(Reason::ResolveFailed);
            Reply::code(ResponseCode::ServFail)
        }
    }
}

/// The names of an address that the guest was given for names it may still ask for, and of the gateway. Nobody is asked:
/// what an address is called is told to those who know the name already.
fn reverse(
    gateway: &Gateway,
    generation: &Generation,
    name: &HostName,
    kind: RecordType,
) -> Option<Reply> {
    let address = reversed(name)?;
    let names: Vec<String> = if address == GATEWAY {
        vec![GATEWAY_NAME.to_owned()]
    } else {
        let may = |name: &HostName| {
            let verdict = generation
                .evaluator
                .name_may_resolve(&generation.sandbox, name);
            verdict.is_allowed()
        };
        let names = gateway.pins.names_of(address).into_iter().filter(may);
        names.map(|name| name.to_string()).collect()
    };
    if names.is_empty() {
        return None;
    }
    let mut reply = Reply::local(Vec::new());
    if kind == RecordType::PTR {
        let names = names
            .iter()
            .filter_map(|name| Name::from_ascii(format!("{name}.")).ok());
        reply.data = names.map(|name| RData::PTR(PTR(name))).collect();
    }
    Some(reply)
}

/// The address in `4.3.2.1.in-addr.arpa` (RFC 1035, section 3.5).
fn reversed(name: &HostName) -> Option<Ipv4Addr> {
    let labels: Vec<&str> = name.labels().collect();
    let [d, c, b, a, "in-addr", "arpa"] = labels[..] else {
        return None;
    };
    [a, b, c, d].join(".").parse().ok()
}

/// The canonical host name, or `None` for what is no host name: a label with a dot, NUL or any other
/// byte that names do not have must not be flattened into text that means something else.
fn host_name(name: &Name) -> Option<HostName> {
    let mut text = String::new();
    for label in name {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if !label.iter().all(plain) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(std::str::from_utf8(label).ok()?);
    }
    HostName::parse(&text).ok()
}

/// DNS over TCP (RFC 7766): one message after the other.
pub async fn serve_tcp<S>(gateway: Arc<Gateway>, mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let read = async {
            let length = usize::from(stream.read_u16().await.ok()?);
            if length > limits::DNS_QUESTION {
                return None;
            }
            let mut message = vec![0; length];
            stream.read_exact(&mut message).await.ok()?;
            Some(message)
        };
        let Ok(Some(message)) = tokio::time::timeout(limits::DNS_IDLE, read).await else {
            break;
        };
        let Some(reply) = answer(&gateway, &message, Carrier::Tcp).await else {
            break;
        };
        let Ok(length) = u16::try_from(reply.len()) else {
            break;
        };
        let framed = [&length.to_be_bytes()[..], &reply].concat();
        if stream.write_all(&framed).await.is_err() {
            break;
        }
    }
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_with_a_dot_or_nul_is_no_host_name() {
        let labels = |labels: &[&[u8]]| Name::from_labels(labels.iter().copied()).unwrap();
        assert!(host_name(&labels(&[b"good", b"test"])).is_some());
        assert!(host_name(&labels(&[b"evil.allowed", b"test"])).is_none());
        assert!(host_name(&labels(&[b"evil\0", b"test"])).is_none());
        assert!(host_name(&Name::root()).is_none());
    }

    #[test]
    fn only_whole_reverse_names_of_ipv4_are_read() {
        let read = |text: &str| reversed(&HostName::parse(text).unwrap());
        let address = Ipv4Addr::new(203, 0, 113, 9);
        assert_eq!(read("9.113.0.203.in-addr.arpa"), Some(address));
        for other in [
            "113.0.203.in-addr.arpa",
            "x.9.113.0.203.in-addr.arpa",
            "256.113.0.203.in-addr.arpa",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
