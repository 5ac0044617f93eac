//! What wants to leave: the one question that every adapter asks.

use std::net::IpAddr;
use std::sync::Arc;

use crate::host::Host;
use crate::http::HttpRequest;
use crate::rule::Transport;
use crate::target::Port;

/// What kind of traffic it is, as far as rules with method and path care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IntentKind {
    /// A name that the guest wants resolved. The port does not count.
    Dns,
    /// One HTTP request with its method and path.
    Http,
    /// A TLS connection that the gateway is able to open: requests in it can be judged one by one
    /// when [`crate::Verdict::inspection`] asks for it.
    Tls,
    /// A connection nobody looks into: raw TCP, UDP, or TLS that has to pass unopened.
    Opaque,
}

/// One attempt to reach something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Which sandbox asks. Empty: none in particular, so that only rules for all apply.
    pub sandbox: Arc<str>,
    /// TCP or UDP.
    pub transport: Transport,
    /// What kind of traffic.
    pub kind: IntentKind,
    /// Where to.
    pub host: Host,
    /// Which port.
    pub port: Port,
    /// The addresses that the name resolved to, if that is known already. `None` judges the name
    /// alone; `Some` adds the address check and fills [`crate::Verdict::pinned`].
    pub resolved: Option<Vec<IpAddr>>,
    /// The request, for [`IntentKind::Http`]. Without it an HTTP intent is judged as opaque.
    pub http: Option<HttpRequest>,
}

impl Intent {
    /// An intent about a host alone: nothing resolved, no request.
    pub fn new(
        sandbox: impl Into<Arc<str>>,
        transport: Transport,
        kind: IntentKind,
        host: Host,
        port: Port,
    ) -> Self {
        Self {
            sandbox: sandbox.into(),
            transport,
            kind,
            host,
            port,
            resolved: None,
            http: None,
        }
    }

    /// Adds the addresses that the name resolved to.
    #[must_use]
    pub fn with_resolved(mut self, addresses: Vec<IpAddr>) -> Self {
        self.resolved = Some(addresses);
        self
    }

    /// Adds the request and makes this an HTTP intent.
    #[must_use]
    pub fn with_http(mut self, request: HttpRequest) -> Self {
        self.kind = IntentKind::Http;
        self.http = Some(request);
        self
    }
}
