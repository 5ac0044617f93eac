//! Room 2: what somebody inside wants, in types that can only be valid.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sbx_policy::{HttpRequest, Intent, IntentKind, Target, Transport};
use sbx_wire::gateway::ProxyKind;

/// One attempt to leave, as an adapter understood it.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Which way it came.
    pub proxy: ProxyKind,
    /// Where to, canonical.
    pub target: Target,
    /// What kind of traffic it is.
    pub kind: IntentKind,
    /// For transparent connections: the address that the client dialled. The name has to own it.
    pub dialled: Option<Ipv4Addr>,
}

impl Attempt {
    /// An attempt on its way through the explicit proxy.
    pub fn explicit(target: Target, kind: IntentKind) -> Self {
        Self {
            proxy: ProxyKind::Forward,
            target,
            kind,
            dialled: None,
        }
    }

    /// An attempt of a client that dialled an address itself.
    pub fn transparent(target: Target, kind: IntentKind, dialled: Ipv4Addr) -> Self {
        Self {
            proxy: ProxyKind::Transparent,
            target,
            kind,
            dialled: Some(dialled),
        }
    }

    /// The question for the evaluator.
    pub fn question(
        &self,
        sandbox: &Arc<str>,
        http: Option<HttpRequest>,
        resolved: Option<Vec<IpAddr>>,
    ) -> Intent {
        let Target { host, port } = self.target.clone();
        let mut intent = Intent::new(sandbox.clone(), Transport::Tcp, self.kind, host, port);
        intent.resolved = resolved;
        match http {
            Some(request) => intent.with_http(request),
            None => intent,
        }
    }
}
