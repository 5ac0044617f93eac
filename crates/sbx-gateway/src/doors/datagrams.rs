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
use crate::netstack::{Answers, Datagrams, Flow};
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
        _ if !generation.udp => {
            let host = flow.address.to_string();
            let (proxy, number) = (ProxyKind::Network, generation.number);
            Event::at(host, flow.port, proxy, Reason::Udp, number)
        }
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
    gateway.records.push_dropped(&generation.sandbox, refused);
    None
}

struct Exchange {
    gateway: Arc<Gateway>,
    answers: Arc<Answers>,
    flow: Flow,
    grant: Grant,
}

impl Exchange {
    async fn run(self, receiver: mpsc::Receiver<Vec<u8>>, lease: Lease) {
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
        mut receiver: mpsc::Receiver<Vec<u8>>,
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
                    Some(datagram) => socket.send(&datagram).await.map(drop),
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
