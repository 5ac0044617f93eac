//! TLS of the guest that is opened, and what its first message says.

use std::sync::Arc;

use sbx_policy::{Host, Target};
use sbx_wire::gateway::ProxyKind;
use tokio::io::AsyncWriteExt;
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use super::{Client, Guest, serve_inspected};
use crate::adapter::hello::{Hello, HelloError, Offers, read_hello};
use crate::connector::{SendError, Upstream};
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
use crate::relay::serve::{serve_h1, serve_h2};

/// Whether the client named the host that was judged. Clients name no addresses.
pub(super) fn names(hello: &Hello, target: &Target) -> bool {
    match (&hello.server_name, &target.host) {
        (Some(name), host) => name == host,
        (None, Host::Ip(_) | Host::HostService) => true,
        (None, Host::Name(_)) => false,
    }
}

pub(super) fn block_sni(gateway: &Gateway, proxy: ProxyKind, grant: &Grant, hello: &Hello) {
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

/// Whether there was anything to record.
pub(super) fn block_hello(
    gateway: &Gateway,
    proxy: ProxyKind,
    grant: &Grant,
    error: &HelloError,
) -> bool {
    let Some(reason) = hello_reason(error) else {
        return false;
    };
    let event = Event::new(&grant.target, proxy, reason, grant.generation.number);
    gateway.record(&grant.generation, event);
    true
}

/// The code, or `None` for a client that just went away or never began.
pub(super) fn hello_reason(error: &HelloError) -> Option<Reason> {
    match error {
        HelloError::NotTls => Some(Reason::NotTls),
        HelloError::Bad(_) | HelloError::Name(_) | HelloError::Slow => Some(Reason::BadHello),
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
    match read_hello(guest).await {
        Ok((hello, guest)) => open_heard(gateway, proxy, flow, grant, hello, guest).await,
        Err(error) => {
            block_hello(&gateway, proxy, &grant, &error);
        }
    }
}

/// The same for a client whose first message has been read.
pub(super) async fn open_heard<S: Client>(
    gateway: Arc<Gateway>,
    proxy: ProxyKind,
    flow: Option<Flow>,
    grant: Grant,
    hello: Hello,
    guest: Guest<S>,
) {
    if !names(&hello, &grant.target) {
        block_sni(&gateway, proxy, &grant, &hello);
        guest.into_inner().abort();
        return;
    }
    let chosen = tokio::select! {
        biased;
        chosen = choose(&grant, hello.offers) => chosen,
        () = guest.get_ref().broken() => {
            // The upstream is being dialled and may have seen it.
            record_grant(&gateway, &grant, proxy, grant.reason);
            return;
        }
    };
    let scope = Scope::Fixed {
        target: grant.target.clone(),
        tls: true,
    };
    let dialled = flow.map(|flow| flow.address);
    let mut inspected = Inspected::new(gateway.clone(), proxy, scope, dialled);
    if let Some(first) = chosen.first {
        inspected = inspected.with_first(first);
    }
    let host = &grant.target.host;
    let accepted = accept_tls(
        &grant.generation,
        host,
        chosen.alpn,
        Purpose::Requests,
        hello,
        guest,
    );
    let stream = match accepted.await {
        Ok(stream) => stream,
        Err(refused) => {
            if let Some(reason) = refused.or_else(|| inspected.unasked(grant.reason)) {
                record_grant(&gateway, &grant, proxy, reason);
            }
            return;
        }
    };
    if speaks_h2(&stream) {
        let answering = inspected.clone();
        let answer = move |request| answering.clone().answer(request, None);
        serve_h2(stream, &gateway.requests, answer, || {
            inspected.record_refused();
        })
        .await;
    } else {
        serve_inspected(inspected.clone(), stream).await;
    }
    if let Some(reason) = inspected.unasked(grant.reason) {
        record_grant(&gateway, &grant, proxy, reason);
    }
}

/// What a client is offered, and the connection that was opened to find out.
struct Chosen {
    alpn: Alpn,
    first: Option<Result<Upstream, SendError>>,
}

/// Exactly the version that the upstream has chosen among those that the client speaks: nothing is translated, and what
/// works without us works with us. The upstream is asked by dialling it, unless it was asked before under the same
/// generation, or the client leaves no choice.
async fn choose(grant: &Grant, offers: Offers) -> Chosen {
    if !offers.h2 {
        return Chosen {
            alpn: Alpn::H1,
            first: None,
        };
    }
    let alpn_of = |h2| if h2 { Alpn::H2 } else { Alpn::H1 };
    if offers.h1
        && let Some(h2) = grant.generation.upstreams.chose_h2(grant)
    {
        return Chosen {
            alpn: alpn_of(h2),
            first: None,
        };
    }
    let first = Upstream::open(grant, true, offers).await;
    let alpn = match &first {
        Ok(upstream) => alpn_of(upstream.sender.is_h2()),
        // Whatever it speaks is good enough to tell it so.
        Err(_) => Alpn::Any,
    };
    Chosen {
        alpn,
        first: Some(first),
    }
}

fn speaks_h2<S>(stream: &TlsStream<S>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

/// Error: why it came to nothing, if it was not the client's wish.
async fn accept_tls<S: Client>(
    generation: &Generation,
    host: &Host,
    alpn: Alpn,
    purpose: Purpose,
    hello: Hello,
    guest: Guest<S>,
) -> Result<TlsStream<Guest<S>>, Option<Reason>> {
    let mint = generation.mint.as_ref();
    let mint = mint.ok_or(Some(Reason::NotConfigured))?;
    let config = mint
        .server_config(host, alpn, hello.likes_chacha, purpose)
        .map_err(|error| {
            tracing::error!(%error, %host, "cannot mint a certificate");
            Some(Reason::NotConfigured)
        })?;
    let accept = StartHandshake::from_parts(hello.accepted, guest).into_stream(config);
    let accept = accept.into_fallible();
    let accepted = tokio::time::timeout(limits::CLIENT_HELLO, accept).await;
    match accepted {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err((error, mut guest))) => {
            tracing::info!(%error, %host, "no handshake with the guest");
            // The alert that says why is on its way.
            let _ = guest.shutdown().await;
            Err(refused_by_us(&error))
        }
        Err(_) => Err(Some(Reason::BadHello)),
    }
}

/// Why we refused a handshake; `None` if the client did, or went away.
fn refused_by_us(error: &std::io::Error) -> Option<Reason> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    match inner {
        // It speaks nothing that the upstream speaks, which is what the upstream itself would have said.
        rustls::Error::NoApplicationProtocol => Some(Reason::UpstreamTls),
        rustls::Error::PeerIncompatible(_)
        | rustls::Error::PeerMisbehaved(_)
        | rustls::Error::InvalidMessage(_)
        | rustls::Error::InappropriateMessage { .. }
        | rustls::Error::InappropriateHandshakeMessage { .. }
        | rustls::Error::DecryptError => Some(Reason::BadHello),
        _ => None,
    }
}

/// Opens TLS towards the guest only to tell it why it is blocked.
pub(super) async fn deny_inside_tls<S: Client>(gateway: &Gateway, denial: Denial, guest: Guest<S>) {
    if let Ok((hello, guest)) = read_hello(guest).await {
        deny_heard(gateway, denial, hello, guest).await;
    }
}

/// The same for a client whose first message has been read.
pub(super) async fn deny_heard<S: Client>(
    gateway: &Gateway,
    denial: Denial,
    hello: Hello,
    guest: Guest<S>,
) {
    let host = denial.target.host.clone();
    let (generation, purpose) = (denial.generation.clone(), Purpose::BlockPage);
    let accepted = accept_tls(&generation, &host, Alpn::Any, purpose, hello, guest);
    let Ok(stream) = accepted.await else {
        return;
    };
    // What is refused in it has its record already.
    let answer = move || {
        let page = page::denied(&denial);
        async move { Ok(page) }
    };
    if speaks_h2(&stream) {
        serve_h2(stream, &gateway.requests, move |_| answer(), || ()).await;
    } else {
        serve_h1(stream, move |_, _| answer(), || ()).await;
    }
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
