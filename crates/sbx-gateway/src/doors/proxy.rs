//! The forward proxy: absolute URLs and `CONNECT`.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use sbx_policy::{IntentKind, Port};
use sbx_wire::gateway::ProxyKind;

use super::tls::{deny_inside_tls, open_tls, refusal_to_open};
use super::unread::Unread;
use super::{Client, Guest, browser, serve_inspected, ssh_agent};
use crate::adapter::guarded::{Arrival, Guarded};
use crate::adapter::hello::Prefixed;
use crate::adapter::request;
use crate::decision::{Denial, Grant, decide};
use crate::gateway::Gateway;
use crate::intent::Attempt;
use crate::reason::Reason;
use crate::records::Event;
use crate::relay::http::{Inspected, Scope};
use crate::relay::page::{self, AnswerBody};
use crate::relay::serve::serve_h1;

/// Serves the proxy port.
pub(super) async fn serve<S: Client>(gateway: Arc<Gateway>, inspected: Arc<Inspected>, stream: S) {
    let refused = inspected.clone();
    let answer = move |request: Request<Incoming>, arrival: Arrival| {
        let (gateway, inspected) = (gateway.clone(), inspected.clone());
        async move {
            match *request.method() {
                Method::CONNECT => Ok(connect::<S>(gateway, request).await),
                _ if arrival.refused().is_none() && browser::asks(&request) => {
                    Ok(browser::open(gateway, request).await)
                }
                _ if arrival.refused().is_none() && ssh_agent::asks(&request) => {
                    Ok(ssh_agent::ask(gateway, request).await)
                }
                _ => inspected.answer(request, Some(arrival)).await,
            }
        }
    };
    serve_h1(stream, answer, || refused.record_refused()).await;
}

/// `CONNECT`: tunnelled unread, opened, or refused.
async fn connect<S: Client>(
    gateway: Arc<Gateway>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let generation = gateway.configured(false).await;
    let (parts, _) = request.into_parts();
    let target = match request::connect_target(&parts) {
        Ok(target) => target,
        Err(error) => {
            let host = parts
                .uri
                .authority()
                .map(|authority| request::without_user(authority.as_str()).to_owned())
                .unwrap_or_default();
            let reason = Reason::BadRequest;
            let event = Event::at(host, 0, ProxyKind::Forward, reason, generation.number);
            gateway.record(&generation, event.with_request("CONNECT", ""));
            return page::bad_request(&error.to_string());
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
            if let Some(guest) = switched::<S>(upgrade).await {
                serve_inspected(inspected, guest).await;
            }
        });
        return page::connected();
    }
    match decide(&gateway, &generation, &attempt, None).await {
        Err(denial) => refuse_connect::<S>(&gateway, denial, upgrade),
        Ok(grant) if grant.inspect => match refusal_to_open(&grant) {
            Some(denial) => {
                gateway.record(&generation, denial.event(ProxyKind::Forward));
                page::denied(&denial)
            }
            None => {
                tokio::spawn(async move {
                    if let Some(guest) = switched::<S>(upgrade).await {
                        open_tls(gateway, ProxyKind::Forward, None, grant, guest).await;
                    }
                });
                page::connected()
            }
        },
        Ok(grant) => connect_unread::<S>(gateway, grant, upgrade).await,
    }
}

/// A readable 403: inside of TLS on port 443, else as the answer to `CONNECT`.
fn refuse_connect<S: Client>(
    gateway: &Arc<Gateway>,
    denial: Denial,
    upgrade: hyper::upgrade::OnUpgrade,
) -> Response<AnswerBody> {
    gateway.record(&denial.generation, denial.event(ProxyKind::Forward));
    if denial.target.port != Port::HTTPS || denial.generation.mint.is_none() {
        return page::denied(&denial);
    }
    let gateway = gateway.clone();
    tokio::spawn(async move {
        if let Some(guest) = switched::<S>(upgrade).await {
            deny_inside_tls(&gateway, denial, guest).await;
        }
    });
    page::connected()
}

async fn connect_unread<S: Client>(
    gateway: Arc<Gateway>,
    grant: Grant,
    upgrade: hyper::upgrade::OnUpgrade,
) -> Response<AnswerBody> {
    // Wherever it is given up from here on, it is recorded as it goes.
    let mut unread = Unread::new(gateway, grant, ProxyKind::ForwardBypass);
    let upstream = match unread.dial().await {
        Ok(upstream) => upstream,
        Err(Some(error)) => return page::failed(&error.to_string(), error.reason()),
        Err(None) => return page::revoked(unread.grant(), Reason::PolicyChanged),
    };
    tokio::spawn(async move {
        if let Some(guest) = switched::<S>(upgrade).await {
            unread.relay_judged(guest, upstream).await;
        }
    });
    page::connected()
}

/// The guest's stream after `CONNECT` was answered, with what was read of it already.
async fn switched<S: Client>(upgrade: hyper::upgrade::OnUpgrade) -> Option<Guest<S>> {
    let upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<Guarded<S>>>().ok()?;
    let (held, stream) = parts.io.into_inner().into_parts();
    let mut guest = Prefixed::new(held, stream);
    // The library was given nothing behind the request.
    guest.push_front(parts.read_buf);
    Some(guest)
}
