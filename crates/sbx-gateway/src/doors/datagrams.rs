//! UDP of the guest, where a setting opens it and a rule says so: one task and one socket for each flow.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use sbx_policy::{Port, Transport};
use sbx_wire::gateway::ProxyKind;
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::addresses::{IPV4_HEADER, MTU, UDP_HEADER};
use crate::decision::{Grant, decide_raw};
use crate::gateway::Gateway;
use crate::limits;
use crate::live::Lease;
use crate::netstack::{Answers, Datagrams, Flow, Sending};
use crate::reason::Reason;
use crate::records::Event;

/// Judges the first datagram of a flow. Where its datagrams go, or nothing: it is refused, and recorded.
pub(super) fn open(
    gateway: &Arc<Gateway>,
    answers: &Arc<Answers>,
    runtime: &Handle,
    flow: Flow,
) -> Option<Datagrams> {
    let generation = gateway.generation();
    let port = Port::try_from(flow.port).ok()?;
    let refused = match decide_raw(gateway, &generation, Transport::Udp, flow.address, port) {
        Err(denial) => denial.event(ProxyKind::Network),
        Ok(grant) => {
            let (queue, receiver) = mpsc::channel(limits::UDP_QUEUE);
            let lease = gateway.lease(&grant, ProxyKind::Network);
            let feed = lease.feed();
            let exchange = Exchange {
                gateway: gateway.clone(),
                answers: answers.clone(),
                flow,
                grant,
            };
            runtime.spawn(exchange.run(receiver, lease));
            return Some(Datagrams { queue, feed });
        }
    };
    // A client repeats a refused datagram as often as it likes.
    gateway.records.push_dropped(&generation.sandbox, &refused);
    None
}

struct Exchange {
    gateway: Arc<Gateway>,
    answers: Arc<Answers>,
    flow: Flow,
    grant: Grant,
}

impl Exchange {
    async fn run(self, receiver: mpsc::Receiver<Sending>, lease: Lease) {
        let opened = connect(self.grant.addresses.first().copied()).await;
        let reason = match &opened {
            Ok(_) => self.grant.reason,
            Err(_) => Reason::UpstreamUnreachable,
        };
        let Grant {
            generation, target, ..
        } = &self.grant;
        let event = Event::new(target, ProxyKind::Network, reason, generation.number);
        let event = event.with_rule(self.grant.rule.clone());
        self.gateway.record(generation, event);
        match opened {
            // Nobody could see what this one does.
            Ok(_) if !self.gateway.records.can_write() => self.answers.closed(self.flow),
            Ok(socket) => self.relay(socket, receiver, lease).await,
            Err(error) => {
                tracing::info!(%error, %target, "cannot send datagrams");
                self.answers.closed(self.flow);
            }
        }
    }

    async fn relay(
        &self,
        socket: UdpSocket,
        mut receiver: mpsc::Receiver<Sending>,
        mut lease: Lease,
    ) {
        let feed = lease.feed();
        // One more than fits: a longer one is seen and left out.
        let mut buffer = vec![0; MTU - IPV4_HEADER - UDP_HEADER + 1];
        let idle = tokio::time::sleep(limits::UDP_IDLE);
        tokio::pin!(idle);
        loop {
            let moved = tokio::select! {
                () = &mut lease => return,
                () = &mut idle => return,
                datagram = receiver.recv() => match datagram {
                    // What waited in the queue when the policy changed.
                    Some(_) if feed.is_revoked() => return,
                    Some((datagram, _room)) => socket.send(&datagram).await.map(drop),
                    None => return,
                },
                received = socket.recv(&mut buffer) => received.map(|length| {
                    if length < buffer.len() {
                        self.answers.datagram(self.flow, buffer[..length].to_vec());
                    }
                }),
            };
            match moved {
                Ok(()) => {
                    let until = tokio::time::Instant::now() + limits::UDP_IDLE;
                    idle.as_mut().reset(until);
                }
                // What an earlier datagram met with, or one that the host's network does not take.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    self.answers.closed(self.flow);
                }
                Err(error) => tracing::debug!(%error, flow = ?self.flow, "datagram lost"),
            }
        }
    }
}

/// A socket that takes datagrams of this address alone.
async fn connect(address: Option<SocketAddr>) -> std::io::Result<UdpSocket> {
    let address = address.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use sbx_policy::{
        CreatedVia, Decision, PolicyDocument, Protocols, ResourcePattern, Rule, Scope,
    };
    use sbx_wire::gateway::{GatewayFile, Upstream};
    use std::time::Duration;
    use tokio::sync::Semaphore;
    use tokio::time::Instant;

    use super::*;
    use crate::addresses::GATEWAY;
    use crate::generation::{Generation, HostTrust};
    use crate::mint::SigningKey;
    use crate::pins::Pins;
    use crate::records::Records;

    fn sending(datagram: Vec<u8>) -> Sending {
        let room = Arc::new(Semaphore::new(1));
        (datagram, room.try_acquire_owned().unwrap())
    }

    /// A flow to a socket of the host that a rule opens. The folder holds the records.
    fn flow_to(peer: &UdpSocket) -> (Datagrams, tempfile::TempDir) {
        let port = peer.local_addr().unwrap().port();
        let rule = Rule {
            id: "open".to_owned(),
            name: None,
            scope: Scope::Global,
            decision: Decision::Allow,
            resources: vec![ResourcePattern::parse(&format!("localhost:{port}")).unwrap()],
            protocols: Protocols::UDP,
            created_via: CreatedVia::Added,
            http: None,
        };
        let file = GatewayFile {
            sandbox: "box".to_owned(),
            policy: PolicyDocument::new(1, vec![rule]),
            upstream: Upstream {
                udp_egress: true,
                ..Upstream::default()
            },
            credential_hosts: Vec::new(),
        };
        let host = HostTrust {
            roots: Vec::new(),
            resolvers: Vec::new(),
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        };
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(&folder.path().join("egress.jsonl")).unwrap();
        let generation = Generation::from_file(file, &host).unwrap();
        let key = SigningKey::generate().unwrap();
        let gateway = Gateway::new(generation, host, key, records, Pins::default());
        let flow = Flow {
            source: 40_000,
            address: GATEWAY,
            port,
        };
        let open = open(&gateway, &Answers::new(), &Handle::current(), flow);
        (open.unwrap(), folder)
    }

    async fn peer() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_flow_on_which_nothing_moves_is_over_after_its_time() {
        let peer = peer().await;
        let (open, _records) = flow_to(&peer);
        open.queue.send(sending(b"x".to_vec())).await.unwrap();
        tokio::time::sleep(limits::UDP_IDLE / 2).await;
        open.queue.send(sending(b"y".to_vec())).await.unwrap();
        let since = Instant::now();
        open.queue.closed().await;
        let longest = limits::UDP_IDLE + Duration::from_secs(1);
        let lasted = since.elapsed();
        assert!((limits::UDP_IDLE..longest).contains(&lasted), "{lasted:?}");
    }

    #[tokio::test]
    async fn datagrams_beyond_the_queue_of_a_flow_are_lost_and_no_others() {
        let peer = peer().await;
        let (open, _records) = flow_to(&peer);
        // Nothing is taken from the queue before this task waits for something.
        for number in 0..limits::UDP_QUEUE {
            let datagram = vec![u8::try_from(number).unwrap()];
            assert!(open.queue.try_send(sending(datagram)).is_ok(), "{number}");
        }
        assert!(open.queue.try_send(sending(vec![255])).is_err());
        let mut buffer = [0; 16];
        for number in 0..limits::UDP_QUEUE {
            assert_eq!(peer.recv(&mut buffer).await.unwrap(), 1);
            assert_eq!(usize::from(buffer[0]), number);
        }
        open.queue.try_send(sending(vec![254])).unwrap();
        peer.recv(&mut buffer).await.unwrap();
        assert_eq!(buffer[0], 254);
    }
}
