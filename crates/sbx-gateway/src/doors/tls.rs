//! TLS of the guest: left unread, or opened.

use std::sync::Arc;

use sbx_policy::{Host, Port, Target};
use sbx_wire::gateway::ProxyKind;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::{Client, Guest, tunnel_to_end};
use crate::adapter::hello::{Hello, HelloError, read_hello};
use crate::decision::{Denial, Grant};
use crate::gateway::Gateway;
use crate::generation::Generation;
use crate::limits;
use crate::mint::{Alpn, Purpose};
use crate::netstack::Flow;
use crate::reason::Reason;
use crate::records::Event;
use crate::relay::http::{Inspected, Scope};
use crate::relay::page;
use crate::relay::serve::serve_any;

/// An unread tunnel: its first bytes must be TLS for the host that was judged, unless a rule names the
/// port of something else.
pub(super) async fn tunnel_tls<S: Client>(
    gateway: Arc<Gateway>,
    proxy: ProxyKind,
    grant: Grant,
    guest: Guest<S>,
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
pub(super) fn hello_reason(error: &HelloError) -> Option<Reason> {
    match error {
        HelloError::NotTls => Some(Reason::NotTls),
        HelloError::Bad(_) | HelloError::Name(_) => Some(Reason::BadHello),
        HelloError::Gone => None,
    }
}

pub(super) fn record_grant(gateway: &Gateway, grant: &Grant, proxy: ProxyKind, reason: Reason) {
    let event = Event::new(&grant.target, proxy, reason, grant.generation.number)
        .with_rule(grant.rule.clone());
    gateway.record(&grant.generation, event);
}

/// Opens TLS towards the guest and judges every request inside.
pub(super) async fn open_tls<S: Client>(
    gateway: Arc<Gateway>,
    proxy: ProxyKind,
    flow: Option<Flow>,
    grant: Grant,
    guest: Guest<S>,
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
    let host = &grant.target.host;
    if let Some(stream) = accept_tls(&grant.generation, host, Purpose::Requests, guest).await {
        let scope = Scope::Fixed {
            target: grant.target.clone(),
            tls: true,
        };
        let dialled = flow.map(|flow| flow.address);
        let inspected = Inspected::new(gateway, proxy, scope, dialled);
        serve_any(stream, move |request| inspected.clone().answer(request)).await;
    }
}

async fn accept_tls<S: Client>(
    generation: &Generation,
    host: &Host,
    purpose: Purpose,
    guest: Guest<S>,
) -> Option<tokio_rustls::server::TlsStream<Guest<S>>> {
    let mint = generation.mint.as_ref()?;
    let config = match mint.server_config(host, Alpn::Any, purpose) {
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
pub(super) async fn deny_inside_tls<S: Client>(denial: Denial, guest: Guest<S>) {
    let host = denial.target.host.clone();
    let accepted = accept_tls(&denial.generation, &host, Purpose::BlockPage, guest);
    let Some(stream) = accepted.await else {
        return;
    };
    let answer = move |_| {
        let page = page::denied(&denial);
        async move { page }
    };
    serve_any(stream, answer).await;
}

/// Before 200: a connection that has to be opened cannot be, because nothing to open it with is here.
pub(super) fn refusal_to_open(grant: &Grant) -> Option<Denial> {
    let text = match &grant.generation.mint {
        Some(mint) if mint.is_in_force() => return None,
        Some(_) => {
            "The host needs an inspected connection, and the gateway's certificate authority has \
             ended; is the sbx daemon running?"
        }
        None => {
            "The host needs an inspected connection, and the gateway has not been given its \
             certificate authority yet; is the sbx daemon running?"
        }
    };
    Some(Denial::new(
        &grant.generation,
        &grant.target,
        Reason::NotConfigured,
        text,
    ))
}
