//! TLS clients that know nothing of a proxy.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use sbx_policy::{Host, IntentKind, Port, Target};
use sbx_wire::gateway::ProxyKind;

use super::tls::{deny_heard, hello_reason, open_heard, refusal_to_open};
use super::unread::Unread;
use super::{Client, Guest};
use crate::adapter::hello::{Prefixed, read_hello};
use crate::decision::{Grant, decide};
use crate::gateway::Gateway;
use crate::intent::Attempt;
use crate::netstack::Flow;
use crate::records::Event;

/// A connection to port 443 of an address that the client chose itself.
pub(super) async fn serve<S: Client>(gateway: Arc<Gateway>, flow: Flow, stream: S) {
    let proxy = ProxyKind::Transparent;
    let address = Host::from(IpAddr::V4(flow.address));
    let generation = gateway.configured(false).await;
    let (hello, mut guest) = match read_hello(Prefixed::new(Bytes::new(), stream)).await {
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
        host: hello.server_name.clone().unwrap_or(address),
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
            None => return open_heard(gateway, proxy, Some(flow), grant, hello, guest).await,
            Some(denial) => denial,
        },
        Ok(grant) => {
            guest.push_front(hello.seen);
            return serve_unread(gateway, grant, guest).await;
        }
        Err(denial) => denial,
    };
    gateway.record(&generation, denial.event(proxy));
    if generation.mint.is_some() {
        deny_heard(&gateway, denial, hello, guest).await;
    } else {
        guest.into_inner().abort();
    }
}

async fn serve_unread<S: Client>(gateway: Arc<Gateway>, grant: Grant, guest: Guest<S>) {
    let mut unread = Unread::new(gateway, grant, ProxyKind::Transparent);
    let dialled = tokio::select! {
        dialled = unread.dial() => dialled,
        // Recorded as it goes: the upstream may have seen it all the same.
        () = guest.get_ref().broken() => return,
    };
    match dialled {
        Ok(upstream) => unread.relay(guest, upstream).await,
        Err(_) => guest.into_inner().abort(),
    }
}
