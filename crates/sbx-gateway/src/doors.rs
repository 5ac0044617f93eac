//! The ways out, one after the other: proxy, transparent HTTP and TLS, raw TCP, DNS. Each parses, asks
//! for a decision and hands over to the relay.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use sbx_policy::{Host, IntentKind, Port, Target};
use sbx_wire::gateway::ProxyKind;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;

use crate::adapter::hello::{Hello, HelloError, Prefixed, read_hello};
use crate::adapter::request;
use crate::addresses::GATEWAY;
use crate::connector;
use crate::decision::{Denial, Grant, decide, decide_raw};
use crate::gateway::Gateway;
use crate::generation::Generation;
use crate::intent::Attempt;
use crate::limits;
use crate::live::Lease;
use crate::netstack::{Answers, Dialled, DnsTicket, Flow, GuestStream};
use crate::reason::Reason;
use crate::records::Event;
use crate::relay::http::{Inspected, Scope};
use crate::relay::page::{self, AnswerBody};
use crate::relay::serve::{serve_any, serve_h1};
use crate::relay::tunnel;

/// A stream of the guest with what was read of it in front.
type Guest = Prefixed<GuestStream>;

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
}

impl crate::netstack::Host for Doors {
    fn dns_stream(&self, stream: GuestStream) {
        self.runtime
            .spawn(crate::adapter::dns::serve_tcp(self.gateway.clone(), stream));
    }

    fn dns_question(&self, question: Vec<u8>, ticket: DnsTicket) {
        let gateway = self.gateway.clone();
        self.runtime.spawn(async move {
            ticket.answer(crate::adapter::dns::answer(&gateway, &question).await);
        });
    }

    fn proxy(&self, stream: GuestStream) {
        let inspected =
            Inspected::new(self.gateway.clone(), ProxyKind::Forward, Scope::Proxy, None);
        self.runtime
            .spawn(serve_proxy(self.gateway.clone(), inspected, stream));
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
        self.runtime.spawn(serve_h1(stream, move |request| {
            inspected.clone().answer(request)
        }));
    }

    fn tls(&self, stream: GuestStream) {
        let gateway = self.gateway.clone();
        self.runtime
            .spawn(async move { transparent_tls(gateway, stream).await });
    }

    fn raw(&self, flow: Flow) -> bool {
        let Ok(port) = Port::try_from(flow.port) else {
            return false;
        };
        let generation = self.gateway.generation();
        match decide_raw(&self.gateway, &generation, flow.address, port) {
            Ok(grant) => {
                self.runtime.spawn(dial_raw(
                    self.gateway.clone(),
                    self.answers.clone(),
                    flow,
                    grant,
                ));
                true
            }
            Err(denial) => {
                // A client repeats a refused connection as often as it likes.
                let event = denial.event(ProxyKind::Network);
                self.gateway
                    .records
                    .push_dropped(&generation.sandbox, event);
                false
            }
        }
    }

    fn raw_stream(&self, stream: GuestStream, upstream: Dialled) {
        let gateway = self.gateway.clone();
        self.runtime.spawn(async move {
            let Dialled {
                stream: upstream,
                grant,
            } = upstream;
            let lease = gateway.live.register(grant.intent.clone());
            tunnel_to_end(Prefixed::new(Bytes::new(), stream), upstream, lease).await;
        });
    }

    fn stopped(&self, reason: Reason, address: std::net::Ipv4Addr, port: u16) {
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
            .push_dropped(&generation.sandbox, event);
    }
}

/// Relays and, unless it ended well, breaks the guest's side so that it notices.
async fn tunnel_to_end(mut guest: Guest, mut upstream: TcpStream, lease: Lease) {
    if tunnel::relay(&mut guest, &mut upstream, lease).await != tunnel::End::Done {
        guest.into_inner().abort();
    }
}

async fn dial_raw(gateway: Arc<Gateway>, answers: Arc<Answers>, flow: Flow, grant: Grant) {
    let dialled = connector::dial(&grant).await;
    let reason = match &dialled {
        Ok(_) => grant.reason,
        Err(error) => error.reason(),
    };
    let event = Event::new(
        &grant.target,
        ProxyKind::Network,
        reason,
        grant.generation.number,
    )
    .with_rule(grant.rule.clone());
    gateway.record(&grant.generation, event);
    answers.dialled(flow, dialled.ok().map(|stream| Dialled { stream, grant }));
}

async fn serve_proxy(gateway: Arc<Gateway>, inspected: Arc<Inspected>, stream: GuestStream) {
    let answer = move |request: Request<Incoming>| {
        let (gateway, inspected) = (gateway.clone(), inspected.clone());
        async move {
            match *request.method() {
                Method::CONNECT => connect(gateway, request).await,
                _ => inspected.answer(request).await,
            }
        }
    };
    serve_h1(stream, answer).await;
}

/// `CONNECT`: tunnelled unread, opened, or refused.
async fn connect(gateway: Arc<Gateway>, request: Request<Incoming>) -> Response<AnswerBody> {
    let generation = gateway.configured(false).await;
    let (parts, _) = request.into_parts();
    let framed =
        parts.headers.contains_key(CONTENT_LENGTH) || parts.headers.contains_key(TRANSFER_ENCODING);
    let target = match request::connect_target(&parts) {
        Ok(target) if !framed => target,
        refused => {
            let text = match refused {
                Ok(_) => "CONNECT has no body".to_owned(),
                Err(error) => error.to_string(),
            };
            let host = parts
                .uri
                .authority()
                .map(ToString::to_string)
                .unwrap_or_default();
            let reason = Reason::BadRequest;
            let event = Event::at(host, 0, ProxyKind::Forward, reason, generation.number);
            gateway.record(&generation, event.with_request("CONNECT", ""));
            return page::bad_request(&text);
        }
    };
    let Some(upgrade) = parts.extensions.get::<hyper::upgrade::OnUpgrade>().cloned() else {
        return page::bad_request("the connection cannot be switched");
    };
    let generation = if generation.needs_credential(&target) {
        gateway.configured(true).await
    } else {
        generation
    };
    let attempt = Attempt::explicit(target.clone(), IntentKind::Tls);
    if target.port == Port::HTTP {
        // Clear text through a tunnel, as WebSocket clients do: judged request by request.
        let scope = Scope::Fixed { target, tls: false };
        let inspected = Inspected::new(gateway.clone(), ProxyKind::Forward, scope, None);
        tokio::spawn(async move {
            if let Some(guest) = switched(upgrade).await {
                serve_h1(guest, move |request| inspected.clone().answer(request)).await;
            }
        });
        return page::connected();
    }
    match decide(&gateway, &generation, &attempt, None).await {
        Err(denial) => refuse_connect(&gateway, denial, upgrade),
        Ok(grant) if grant.inspect => match refusal_to_open(&grant) {
            Some(denial) => {
                gateway.record(&generation, denial.event(ProxyKind::Forward));
                page::denied(&denial)
            }
            None => {
                tokio::spawn(async move {
                    if let Some(guest) = switched(upgrade).await {
                        open_tls(gateway, ProxyKind::Forward, None, grant, guest).await;
                    }
                });
                page::connected()
            }
        },
        Ok(grant) => connect_unread(gateway, grant, upgrade).await,
    }
}

/// Before 200: a connection that has to be opened cannot be, because nothing to open it with is here.
fn refusal_to_open(grant: &Grant) -> Option<Denial> {
    let text = "The host needs an inspected connection, and the gateway has not been given its \
                certificate authority yet; is the sbx daemon running?";
    let denial = || {
        Denial::new(
            &grant.generation,
            &grant.target,
            Reason::NotConfigured,
            text,
        )
    };
    (!grant.generation.configured).then(denial)
}

/// A readable 403: inside of TLS on port 443, else as the answer to `CONNECT`.
fn refuse_connect(
    gateway: &Arc<Gateway>,
    denial: Denial,
    upgrade: hyper::upgrade::OnUpgrade,
) -> Response<AnswerBody> {
    gateway.record(&denial.generation, denial.event(ProxyKind::Forward));
    if denial.target.port != Port::HTTPS || denial.generation.mint.is_none() {
        return page::denied(&denial);
    }
    tokio::spawn(async move {
        if let Some(guest) = switched(upgrade).await {
            deny_inside_tls(denial, guest).await;
        }
    });
    page::connected()
}

async fn connect_unread(
    gateway: Arc<Gateway>,
    grant: Grant,
    upgrade: hyper::upgrade::OnUpgrade,
) -> Response<AnswerBody> {
    let proxy = ProxyKind::ForwardBypass;
    let upstream = match connector::dial(&grant).await {
        Ok(upstream) => upstream,
        Err(error) => {
            record_grant(&gateway, &grant, proxy, error.reason());
            return page::failed(&error.to_string(), error.reason());
        }
    };
    tokio::spawn(async move {
        if let Some(guest) = switched(upgrade).await {
            tunnel_tls(gateway, proxy, grant, guest, upstream).await;
        }
    });
    page::connected()
}

/// The guest's stream after `CONNECT` was answered, with what hyper had read already.
async fn switched(upgrade: hyper::upgrade::OnUpgrade) -> Option<Guest> {
    let upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<GuestStream>>().ok()?;
    Some(Prefixed::new(parts.read_buf, parts.io.into_inner()))
}

/// An unread tunnel: its first bytes must be TLS for the host that was judged, unless a rule names the
/// port of something else.
async fn tunnel_tls(
    gateway: Arc<Gateway>,
    proxy: ProxyKind,
    grant: Grant,
    guest: Guest,
    upstream: TcpStream,
) {
    let guest = if needs_tls(&grant) {
        match read_hello(guest).await {
            Ok((hello, guest)) if names(&hello, &grant.target) => guest,
            Ok((hello, guest)) => {
                block_sni(&gateway, proxy, &grant, &hello);
                guest.into_inner().abort();
                return;
            }
            Err(error) => return block_hello(&gateway, proxy, &grant, &error),
        }
    } else {
        guest
    };
    record_grant(&gateway, &grant, proxy, grant.reason);
    let lease = gateway.live.register(grant.intent.clone());
    tunnel_to_end(guest, upstream, lease).await;
}

/// Whether a tunnel has to begin with TLS: always on 443, and on other ports unless the rule that
/// allowed it names the port.
fn needs_tls(grant: &Grant) -> bool {
    let port = grant.target.port;
    let named = grant
        .rule
        .as_ref()
        .is_some_and(|rule| rule.resource.ends_with(&format!(":{port}")));
    port == Port::HTTPS || !named
}

/// Whether the client named the host that was judged. Clients name no addresses.
fn names(hello: &Hello, target: &Target) -> bool {
    match (&hello.server_name, &target.host) {
        (Some(name), host) => name == host,
        (None, Host::Ip(_) | Host::HostService) => true,
        (None, Host::Name(_)) => false,
    }
}

fn block_sni(gateway: &Gateway, proxy: ProxyKind, grant: &Grant, hello: &Hello) {
    let name = hello.server_name.as_ref();
    tracing::info!(target = %grant.target, ?name, "blocked: server name differs");
    let event = Event::new(
        &grant.target,
        proxy,
        Reason::SniMismatch,
        grant.generation.number,
    );
    gateway.record(&grant.generation, event);
}

fn block_hello(gateway: &Gateway, proxy: ProxyKind, grant: &Grant, error: &HelloError) {
    if let Some(reason) = hello_reason(error) {
        let event = Event::new(&grant.target, proxy, reason, grant.generation.number);
        gateway.record(&grant.generation, event);
    }
}

/// The code, or `None` for a client that just went away.
fn hello_reason(error: &HelloError) -> Option<Reason> {
    match error {
        HelloError::NotTls => Some(Reason::NotTls),
        HelloError::Bad(_) | HelloError::Name(_) => Some(Reason::BadHello),
        HelloError::Gone => None,
    }
}

fn record_grant(gateway: &Gateway, grant: &Grant, proxy: ProxyKind, reason: Reason) {
    let event = Event::new(&grant.target, proxy, reason, grant.generation.number)
        .with_rule(grant.rule.clone());
    gateway.record(&grant.generation, event);
}

/// A connection to port 443 of an address that the client chose itself.
async fn transparent_tls(gateway: Arc<Gateway>, stream: GuestStream) {
    let flow = stream.flow();
    let proxy = ProxyKind::Transparent;
    let address = match flow.address {
        GATEWAY => Host::HostService,
        address => Host::from(IpAddr::V4(address)),
    };
    let generation = gateway.configured(false).await;
    let (hello, guest) = match read_hello(Prefixed::new(Bytes::new(), stream)).await {
        Ok(read) => read,
        Err(error) => {
            if let Some(reason) = hello_reason(&error) {
                let target = Target {
                    host: address,
                    port: Port::HTTPS,
                };
                let event = Event::new(&target, proxy, reason, generation.number);
                gateway.record(&generation, event);
            }
            return;
        }
    };
    let target = Target {
        host: hello.server_name.unwrap_or(address),
        port: Port::HTTPS,
    };
    let generation = if generation.needs_credential(&target) {
        gateway.configured(true).await
    } else {
        gateway.generation()
    };
    let attempt = Attempt::transparent(target, IntentKind::Tls, flow.address);
    let denial = match decide(&gateway, &generation, &attempt, None).await {
        Ok(grant) if grant.inspect => match refusal_to_open(&grant) {
            None => return open_tls(gateway, proxy, Some(flow), grant, guest).await,
            Some(denial) => denial,
        },
        Ok(grant) => return transparent_unread(gateway, grant, guest).await,
        Err(denial) => denial,
    };
    gateway.record(&generation, denial.event(proxy));
    if generation.mint.is_some() {
        deny_inside_tls(denial, guest).await;
    } else {
        guest.into_inner().abort();
    }
}

async fn transparent_unread(gateway: Arc<Gateway>, grant: Grant, guest: Guest) {
    let proxy = ProxyKind::Transparent;
    match connector::dial(&grant).await {
        Ok(upstream) => {
            record_grant(&gateway, &grant, proxy, grant.reason);
            let lease = gateway.live.register(grant.intent.clone());
            tunnel_to_end(guest, upstream, lease).await;
        }
        Err(error) => {
            record_grant(&gateway, &grant, proxy, error.reason());
            guest.into_inner().abort();
        }
    }
}

/// Opens TLS towards the guest and judges every request inside.
async fn open_tls(
    gateway: Arc<Gateway>,
    proxy: ProxyKind,
    flow: Option<Flow>,
    grant: Grant,
    guest: Guest,
) {
    let (hello, guest) = match read_hello(guest).await {
        Ok(read) => read,
        Err(error) => return block_hello(&gateway, proxy, &grant, &error),
    };
    if !names(&hello, &grant.target) {
        block_sni(&gateway, proxy, &grant, &hello);
        guest.into_inner().abort();
        return;
    }
    if let Some(stream) = accept_tls(&grant.generation, &grant.target.host, guest).await {
        let scope = Scope::Fixed {
            target: grant.target.clone(),
            tls: true,
        };
        let dialled = flow.map(|flow| flow.address);
        let inspected = Inspected::new(gateway, proxy, scope, dialled);
        serve_any(stream, move |request| inspected.clone().answer(request)).await;
    }
}

async fn accept_tls(
    generation: &Generation,
    host: &Host,
    guest: Guest,
) -> Option<tokio_rustls::server::TlsStream<Guest>> {
    let config = match generation.mint.as_ref()?.server_config(host) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, %host, "cannot mint a certificate");
            return None;
        }
    };
    let accept = TlsAcceptor::from(config).accept(guest);
    match tokio::time::timeout(limits::CLIENT_HELLO, accept).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::info!(%error, %host, "the guest refused the handshake");
            None
        }
        Err(_) => None,
    }
}

/// Opens TLS towards the guest only to tell it why it is blocked.
async fn deny_inside_tls(denial: Denial, guest: Guest) {
    let host = denial.target.host.clone();
    let Some(stream) = accept_tls(&denial.generation, &host, guest).await else {
        return;
    };
    let answer = move |_| {
        let page = page::denied(&denial);
        async move { page }
    };
    serve_any(stream, answer).await;
}
