//! A DNS resolver that answers from a table, over UDP and TCP.
//!
//! Wire format by RFC 1035 (hickory-proto). Answers may change from one question to the next, which is
//! what a rebinding attack does. Names outside the table do not exist.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::recorder::{Event, Recorder};
use crate::server::{Counted, Running, StartError, accept, bind_tcp, bind_udp};

/// Longest chain of aliases that is followed, as common resolvers do.
const MAX_ALIASES: usize = 8;

/// Largest UDP answer without EDNS (RFC 1035, section 4.2.1); longer ones are truncated.
const UDP_LIMIT: usize = 512;

/// What a name resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Addresses; a question for the other family gets an empty answer.
    Addresses(Vec<IpAddr>),
    /// Another name, with that name's own answer behind it if the table has it.
    Alias(String),
    /// `SERVFAIL`.
    Failure,
    /// No answer at all: the client runs into its timeout.
    Silence,
}

/// The answers of one name.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Time to live of the records, in seconds.
    pub ttl: u32,
    /// One per question, per record type counted together; the last is repeated for ever.
    pub answers: Vec<Answer>,
}

impl Entry {
    /// A name with these addresses, always.
    pub fn addresses(ttl: u32, addresses: &[IpAddr]) -> Self {
        Self {
            ttl,
            answers: vec![Answer::Addresses(addresses.to_vec())],
        }
    }

    /// A name that stands for another.
    pub fn alias(ttl: u32, target: &str) -> Self {
        Self {
            ttl,
            answers: vec![Answer::Alias(target.to_owned())],
        }
    }

    /// A name that answers `first` once and `then` from the second question on.
    pub fn rebinding(first: IpAddr, then: IpAddr) -> Self {
        let answer = |address| Answer::Addresses(vec![address]);
        Self {
            ttl: 0,
            answers: vec![answer(first), answer(then)],
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<String, Entry>,
    /// Per name and record type, how many questions came.
    asked: HashMap<(String, RecordType), usize>,
}

/// A running resolver, the same port on UDP and TCP. Dropping it ends it.
#[derive(Debug)]
pub struct DnsStandIn {
    address: SocketAddr,
    table: Arc<Mutex<Table>>,
    recorder: Recorder,
    _running: Running,
}

impl DnsStandIn {
    /// Starts on a free loopback port with an empty table.
    pub fn start() -> Result<Self, StartError> {
        Self::start_with(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Recorder::new())
    }

    /// Starts on the given loopback address.
    pub fn start_with(listen: SocketAddr, recorder: Recorder) -> Result<Self, StartError> {
        let (tcp, udp, address) = bind_both(listen)?;
        let table = Arc::new(Mutex::new(Table::default()));
        let (shared, record) = (Arc::clone(&table), recorder.clone());
        let running = Running::spawn("standin-dns", move || async move {
            let (Ok(tcp), Ok(udp)) = (TcpListener::from_std(tcp), UdpSocket::from_std(udp)) else {
                return;
            };
            tokio::join!(
                serve_udp(udp, Arc::clone(&shared), record.clone()),
                serve_tcp(tcp, shared, record)
            );
        })?;
        Ok(Self {
            address,
            table,
            recorder,
            _running: running,
        })
    }

    /// The bound address, for UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The questions that came.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Sets or replaces a name and starts its answers from the first again.
    pub fn set(&self, name: &str, entry: Entry) {
        let name = canonical(name);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.asked.retain(|(asked, _), _| *asked != name);
        table.entries.insert(name, entry);
    }

    /// Forgets a name: it does not exist from the next question on.
    pub fn remove(&self, name: &str) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.entries.remove(&canonical(name));
    }
}

/// UDP and TCP on one port. With port 0 a port that is free for TCP may be taken for UDP: try others.
fn bind_both(
    listen: SocketAddr,
) -> Result<(std::net::TcpListener, std::net::UdpSocket, SocketAddr), StartError> {
    let mut last = None;
    for _ in 0..16 {
        let (tcp, address) = bind_tcp(listen)?;
        match bind_udp(address) {
            Ok(udp) => return Ok((tcp, udp, address)),
            Err(error) => last = Some(error),
        }
        if listen.port() != 0 {
            break;
        }
    }
    let taken = StartError::Bind {
        address: listen,
        source: io::ErrorKind::AddrInUse.into(),
    };
    Err(last.unwrap_or(taken))
}

fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

async fn serve_udp(socket: UdpSocket, table: Arc<Mutex<Table>>, recorder: Recorder) {
    let mut buffer = vec![0; 65_535];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        recorder.count_received(length);
        let Some(reply) = respond(&table, &recorder, &buffer[..length], "udp") else {
            continue;
        };
        let limit = UDP_LIMIT.max(usize::from(reply.max_payload()));
        let wire = match reply.to_vec() {
            Ok(wire) if wire.len() <= limit => wire,
            Ok(_) => reply.truncate().to_vec().unwrap_or_default(),
            Err(_) => continue,
        };
        recorder.count_sent(wire.len());
        // The asker may be gone.
        let _ = socket.send_to(&wire, peer).await;
    }
}

async fn serve_tcp(listener: TcpListener, table: Arc<Mutex<Table>>, recorder: Recorder) {
    loop {
        let Some(stream) = accept(&listener, "dns", &recorder).await else {
            continue;
        };
        let (table, recorder) = (Arc::clone(&table), recorder.clone());
        tokio::spawn(async move {
            // The asker closes when it has enough; an idle one is dropped.
            let limit = Duration::from_secs(30);
            let _ = tokio::time::timeout(limit, tcp_session(stream, &table, &recorder)).await;
        });
    }
}

/// Questions and answers with two-byte lengths (RFC 1035, section 4.2.2) until the client closes.
async fn tcp_session(
    mut stream: Counted,
    table: &Mutex<Table>,
    recorder: &Recorder,
) -> io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut question = vec![0; usize::from(length)];
        stream.read_exact(&mut question).await?;
        let Some(reply) = respond(table, recorder, &question, "tcp") else {
            continue;
        };
        let wire = reply.to_vec().map_err(io::Error::other)?;
        let length = u16::try_from(wire.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(&wire).await?;
    }
}

/// The answer to a message; none for silence and for what is not a question.
fn respond(
    table: &Mutex<Table>,
    recorder: &Recorder,
    wire: &[u8],
    transport: &'static str,
) -> Option<Message> {
    let request = Message::from_vec(wire).ok()?;
    if request.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    let query = match request.queries.first() {
        Some(query) if request.metadata.op_code == OpCode::Query => query.clone(),
        _ => {
            reply.metadata.response_code = ResponseCode::NotImp;
            return Some(reply);
        }
    };
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    let found = table.look_up(query.name(), query.query_type());
    reply.metadata.response_code = found.code;
    recorder.push(Event::Query {
        name: canonical(&query.name().to_ascii()),
        kind: query.query_type().to_string(),
        transport,
        code: if found.silent {
            "silence".to_owned()
        } else {
            format!("{:?}", found.code)
        },
    });
    if let Some(edns) = &request.edns {
        reply.set_edns(edns.clone());
    }
    reply.add_query(query);
    reply.add_answers(found.records);
    (!found.silent).then_some(reply)
}

struct Found {
    code: ResponseCode,
    records: Vec<Record>,
    silent: bool,
}

impl Table {
    fn look_up(&mut self, asked: &Name, kind: RecordType) -> Found {
        let mut found = Found {
            code: ResponseCode::NoError,
            records: Vec::new(),
            silent: false,
        };
        let mut owner = asked.clone();
        for _ in 0..=MAX_ALIASES {
            let key = canonical(&owner.to_ascii());
            let Some((ttl, answer)) = self.next_answer(key, kind) else {
                found.code = ResponseCode::NXDomain;
                return found;
            };
            match answer {
                Answer::Addresses(addresses) => {
                    let data = addresses
                        .into_iter()
                        .filter_map(|address| match (kind, address) {
                            (RecordType::A, IpAddr::V4(address)) => Some(RData::A(A(address))),
                            (RecordType::AAAA, IpAddr::V6(address)) => {
                                Some(RData::AAAA(AAAA(address)))
                            }
                            _ => None,
                        });
                    found
                        .records
                        .extend(data.map(|d| Record::from_rdata(owner.clone(), ttl, d)));
                    return found;
                }
                Answer::Alias(target) => {
                    let Ok(target) = Name::from_ascii(&target) else {
                        found.code = ResponseCode::ServFail;
                        return found;
                    };
                    let data = RData::CNAME(CNAME(target.clone()));
                    found.records.push(Record::from_rdata(owner, ttl, data));
                    if kind == RecordType::CNAME {
                        return found;
                    }
                    owner = target;
                }
                Answer::Failure => {
                    found.code = ResponseCode::ServFail;
                    return found;
                }
                Answer::Silence => {
                    found.silent = true;
                    return found;
                }
            }
        }
        found.code = ResponseCode::ServFail;
        found
    }

    fn next_answer(&mut self, name: String, kind: RecordType) -> Option<(u32, Answer)> {
        let entry = self.entries.get(&name)?;
        let turn = self.asked.entry((name, kind)).or_default();
        let answer = entry.answers.get(*turn).or(entry.answers.last())?.clone();
        *turn += 1;
        Some((entry.ttl, answer))
    }
}
