//! The ways out, one after the other: proxy, transparent HTTP and TLS, raw TCP, DNS. Each parses, asks
//! for a decision and hands over to the relay.

mod browser;
mod datagrams;
mod proxy;
mod ssh_agent;
mod tls;
mod transparent;
mod unread;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use sbx_policy::{Port, Transport};
use sbx_wire::gateway::ProxyKind;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::adapter::dns::Carrier;
use crate::adapter::hello::Prefixed;
use crate::connector;
use crate::decision::{Grant, decide_raw};
use crate::gateway::Gateway;
use crate::live::Lease;
use crate::netstack::{Answers, Datagrams, Dialled, DnsTicket, Flow, GuestStream, Refusal};
use crate::reason::Reason;
use crate::records::Event;
use crate::relay::http::{Inspected, Scope};
use crate::relay::serve::serve_h1;
use crate::relay::tunnel;

/// A client's connection, whatever brought it here.
pub trait Client: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Breaks the connection, so that the client knows nothing was delivered.
    fn abort(self);
    /// Waits until the connection is broken, for a task that neither reads nor writes at the moment.
    fn broken(&self) -> impl Future<Output = ()> + Send;
    /// Passes bytes on unread, both ways, until both sides are done. `front` was read of this one already.
    fn relay(
        &mut self,
        front: Bytes,
        upstream: &mut TcpStream,
        lease: Lease,
    ) -> impl Future<Output = tunnel::End> + Send {
        async move { tunnel::relay(&mut Prefixed::new(front, self), upstream, lease).await }
    }
}

impl Client for GuestStream {
    fn abort(self) {
        GuestStream::abort(self);
    }

    fn broken(&self) -> impl Future<Output = ()> + Send {
        GuestStream::broken(self)
    }

    fn relay(
        &mut self,
        front: Bytes,
        upstream: &mut TcpStream,
        lease: Lease,
    ) -> impl Future<Output = tunnel::End> + Send {
        tunnel::relay_direct(self, front, upstream, lease)
    }
}

/// A client's stream with what was read of it in front.
type Guest<S> = Prefixed<S>;

/// What the network thread hands connections to.
pub struct Doors {
    gateway: Arc<Gateway>,
    runtime: Handle,
    answers: Arc<Answers>,
}

impl Doors {
    /// Doors whose tasks run on the given runtime.
    pub fn new(gateway: Arc<Gateway>, runtime: Handle, answers: Arc<Answers>) -> Self {
        Self {
            gateway,
            runtime,
            answers,
        }
    }

    /// Serves a connection to the forward proxy until it ends.
    pub fn serve_proxy(&self, stream: impl Client) -> impl Future<Output = ()> + Send + 'static {
        let gateway = self.gateway.clone();
        let inspected = Inspected::new(gateway.clone(), ProxyKind::Forward, Scope::Proxy, None);
        proxy::serve(gateway, inspected, stream)
    }
}

impl crate::netstack::Host for Doors {
    fn dns_stream(&self, stream: GuestStream) {
        self.runtime
            .spawn(crate::adapter::dns::serve_tcp(self.gateway.clone(), stream));
    }

    fn dns_question(&self, question: Vec<u8>, ticket: DnsTicket) {
        let gateway = self.gateway.clone();
        self.runtime.spawn(async move {
            ticket.answer(crate::adapter::dns::answer(&gateway, &question, Carrier::Udp).await);
        });
    }

    fn proxy(&self, stream: GuestStream) {
        self.runtime.spawn(self.serve_proxy(stream));
    }

    fn http(&self, stream: GuestStream) {
        let flow = stream.flow();
        let Ok(port) = Port::try_from(flow.port) else {
            return;
        };
        let scope = Scope::ByHost { port };
        let dialled = Some(flow.address);
        let inspected =
            Inspected::new(self.gateway.clone(), ProxyKind::Transparent, scope, dialled);
        self.runtime.spawn(serve_inspected(inspected, stream));
    }

    fn tls(&self, stream: GuestStream) {
        let (gateway, flow) = (self.gateway.clone(), stream.flow());
        self.runtime
            .spawn(transparent::serve(gateway, flow, stream));
    }

    fn raw(&self, flow: Flow) -> bool {
        let Ok(port) = Port::try_from(flow.port) else {
            return false;
        };
        let generation = self.gateway.generation();
        match decide_raw(
            &self.gateway,
            &generation,
            Transport::Tcp,
            flow.address,
            port,
        ) {
            Ok(grant) => {
                let lease = self.gateway.lease(&grant, ProxyKind::Network);
                self.runtime.spawn(dial_raw(
                    self.gateway.clone(),
                    self.answers.clone(),
                    flow,
                    grant,
                    lease,
                ));
                true
            }
            Err(denial) => {
                // A client repeats a refused connection as often as it likes.
                let event = denial.event(ProxyKind::Network);
                self.gateway
                    .records
                    .push_dropped(&generation.sandbox, &event);
                false
            }
        }
    }

    fn raw_stream(&self, stream: GuestStream, upstream: Dialled) {
        self.runtime.spawn(async move {
            let Dialled { stream: to, lease } = upstream;
            tunnel_to_end(Prefixed::new(Bytes::new(), stream), to, lease).await;
        });
    }

    fn datagrams(&self, flow: Flow) -> Option<Datagrams> {
        datagrams::open(&self.gateway, &self.answers, &self.runtime, flow)
    }

    fn stopped(&self, reason: Reason, address: IpAddr, port: u16) {
        let generation = self.gateway.generation();
        let number = generation.number;
        let event = Event::at(
            address.to_string(),
            port,
            ProxyKind::Network,
            reason,
            number,
        );
        self.gateway
            .records
            .push_dropped(&generation.sandbox, &event);
    }
}

/// Serves HTTP/1.1 whose requests are judged one by one.
async fn serve_inspected<S>(inspected: Arc<Inspected>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answering = inspected.clone();
    let answer = move |request, arrival| answering.clone().answer(request, Some(arrival));
    serve_h1(stream, answer, || inspected.record_refused()).await;
}

/// Relays and, unless it ended well, breaks the guest's side so that it notices.
async fn tunnel_to_end<S: Client>(guest: Guest<S>, mut upstream: TcpStream, lease: Lease) {
    let (front, mut guest) = guest.into_parts();
    if guest.relay(front, &mut upstream, lease).await != tunnel::End::Done {
        guest.abort();
    }
}

async fn dial_raw(
    gateway: Arc<Gateway>,
    answers: Arc<Answers>,
    flow: Flow,
    grant: Grant,
    mut lease: Lease,
) {
    let dialled = tokio::select! {
        dialled = connector::dial(&grant) => dialled.map_err(Some),
        () = &mut lease => Err(None),
    };
    let reason = match &dialled {
        Ok(_) => Some(grant.reason),
        Err(Some(error)) => Some(error.reason()),
        // Recorded with all else that the policy has closed.
        Err(None) => None,
    };
    if let Some(reason) = reason {
        let (kind, number) = (ProxyKind::Network, grant.generation.number);
        let event = Event::new(&grant.target, kind, reason, number);
        gateway.record(&grant.generation, event.with_rule(grant.rule.clone()));
    }
    let outcome = match dialled {
        // Nobody could see what this one does.
        Ok(_) if !gateway.records.can_write() => Err(Refusal::Refused),
        Ok(stream) => Ok(Dialled { stream, lease }),
        Err(Some(error)) if !error.is_refusal() => Err(Refusal::Unreachable),
        Err(_) => Err(Refusal::Refused),
    };
    answers.dialled(flow, outcome);
}
