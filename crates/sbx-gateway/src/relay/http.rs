//! One inspected connection of the guest: every request on it goes through the rooms.

use std::net::Ipv4Addr;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{ALT_SVC, HOST, HeaderValue, UPGRADE};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use sbx_policy::{HttpRequest, IntentKind, Port, Target};
use sbx_wire::gateway::ProxyKind;

use super::body::Watched;
use super::headers::strip_hop_by_hop;
use super::page::{self, AnswerBody};
use super::{placeholder, tunnel};
use crate::adapter::request::{self, RequestError};
use crate::connector::{Pool, SendError, Sender, Sent, upstream_request, write_credentials};
use crate::decision::{Denial, Grant, decide};
use crate::gateway::Gateway;
use crate::generation::Generation;
use crate::intent::Attempt;
use crate::reason::Reason;
use crate::records::Event;

/// Where the requests of a connection may go.
#[derive(Debug, Clone)]
pub enum Scope {
    /// To one target, in clear text or after TLS was opened; each request has to name it.
    Fixed {
        /// The target.
        target: Target,
        /// Whether TLS was opened.
        tls: bool,
    },
    /// A transparent connection to port 80 or the like: the `Host` header says where.
    ByHost {
        /// The port that was dialled.
        port: Port,
    },
    /// The proxy port: an absolute URL says where.
    Proxy,
}

/// The answer to a request that does not go on.
struct Refusal(Box<Response<AnswerBody>>);

/// An inspected connection.
pub struct Inspected {
    gateway: Arc<Gateway>,
    proxy: ProxyKind,
    scope: Scope,
    dialled: Option<Ipv4Addr>,
    pool: Pool,
}

impl Inspected {
    /// A connection whose requests are judged one by one.
    pub fn new(
        gateway: Arc<Gateway>,
        proxy: ProxyKind,
        scope: Scope,
        dialled: Option<Ipv4Addr>,
    ) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            proxy,
            scope,
            dialled,
            pool: Pool::default(),
        })
    }

    /// Answers one request.
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<AnswerBody> {
        let (parts, body) = request.into_parts();
        match self.judge(&parts).await {
            Ok((grant, path)) => self.forward(&grant, parts, path, body).await,
            Err(Refusal(answer)) => *answer,
        }
    }

    fn tls(&self) -> bool {
        matches!(self.scope, Scope::Fixed { tls: true, .. })
    }

    /// Rooms 1 to 3. The path that comes back is the one that was judged, if a rule looked at it.
    async fn judge(&self, parts: &Parts) -> Result<(Grant, Option<String>), Refusal> {
        let generation = self.gateway.configured(false).await;
        let target = self
            .target(parts)
            .map_err(|error| self.refuse(&generation, parts, &error))?;
        let generation = if generation.needs_credential(&target) {
            self.gateway.configured(true).await
        } else {
            generation
        };
        let attempt = Attempt {
            proxy: self.proxy,
            target: target.clone(),
            kind: IntentKind::Tls,
            dialled: self.dialled,
        };
        let denied = |denial: Denial| self.deny(&denial, parts);
        // Asked about the host first: only where rules look at paths must the path be beyond doubt.
        let grant = decide(&self.gateway, &generation, &attempt, None)
            .await
            .map_err(denied)?;
        let (grant, path) = if grant.by_request {
            let http: HttpRequest =
                request::judged(parts).map_err(|error| self.refuse(&generation, parts, &error))?;
            let path = http.path.as_str().to_owned();
            let grant = decide(&self.gateway, &generation, &attempt, Some(http))
                .await
                .map_err(denied)?;
            (grant, Some(path))
        } else {
            (grant, None)
        };
        if generation.needs_credential(&target) && !generation.configured {
            let text = "The host needs a credential that the gateway has not been given yet; \
                        is the sbx daemon running?";
            return Err(denied(Denial::new(
                &generation,
                &target,
                Reason::NotConfigured,
                text,
            )));
        }
        if let Some(service) = placeholder::stray(&grant, parts) {
            let text = format!(
                "The request carries the placeholder of {service}, which is not bound to this host"
            );
            let reason = Reason::PlaceholderToUnboundHost;
            return Err(denied(Denial::new(&generation, &target, reason, text)));
        }
        Ok((grant, path))
    }

    fn target(&self, parts: &Parts) -> Result<Target, RequestError> {
        request::check_head(parts)?;
        match &self.scope {
            Scope::Proxy => request::proxy_target(parts),
            Scope::ByHost { port } => {
                let target = request::origin_target(parts, *port)?;
                if target.port != *port {
                    let dialled = Target {
                        port: *port,
                        ..target.clone()
                    };
                    return Err(RequestError::Differs {
                        header: target,
                        target: dialled,
                    });
                }
                Ok(target)
            }
            Scope::Fixed { target, tls } => {
                let default = if *tls { Port::HTTPS } else { Port::HTTP };
                let named = request::origin_target(parts, default)?;
                if named != *target {
                    let (header, target) = (named, target.clone());
                    return Err(RequestError::Differs { header, target });
                }
                Ok(named)
            }
        }
    }

    /// A request that is not understood: 400, or 403 when it names another host than the connection.
    fn refuse(&self, generation: &Arc<Generation>, parts: &Parts, error: &RequestError) -> Refusal {
        if let (RequestError::Differs { header, .. }, Scope::Fixed { .. }) = (error, &self.scope) {
            let denial = Denial::new(
                generation,
                header,
                Reason::HostMismatch,
                capitalised(&error.to_string()),
            );
            return self.deny(&denial, parts);
        }
        let (host, port) = match &self.scope {
            Scope::Fixed { target, .. } => (target.host.to_string(), target.port.get()),
            Scope::ByHost { port } => (raw_host(parts), port.get()),
            Scope::Proxy => (raw_host(parts), 0),
        };
        let event = Event::at(
            host,
            port,
            self.proxy,
            Reason::BadRequest,
            generation.number,
        )
        .with_request(parts.method.as_str(), parts.uri.path());
        self.gateway.record(generation, event);
        Refusal(Box::new(page::bad_request(&error.to_string())))
    }

    fn deny(&self, denial: &Denial, parts: &Parts) -> Refusal {
        let event = denial
            .event(self.proxy)
            .with_request(parts.method.as_str(), parts.uri.path());
        self.gateway.record(&denial.generation, event);
        Refusal(Box::new(page::denied(denial)))
    }

    /// Rooms 4 and 5.
    async fn forward(
        &self,
        grant: &Grant,
        mut parts: Parts,
        path: Option<String>,
        body: Incoming,
    ) -> Response<AnswerBody> {
        let mut event = Event::new(
            &grant.target,
            self.proxy,
            grant.reason,
            grant.generation.number,
        )
        .with_rule(grant.rule.clone())
        .with_request(parts.method.as_str(), parts.uri.path());
        let guest_upgrade = is_websocket(&parts)
            .then(|| parts.extensions.remove())
            .flatten();
        let mut lease = self.gateway.live.register(grant.intent.clone());
        let (websocket, path) = (guest_upgrade.is_some(), path.as_deref());
        let exchange = self.exchange(grant, &parts, path, websocket, body, &mut event);
        let answered = tokio::select! {
            answered = exchange => answered,
            () = &mut lease => Err(SendError::Revoked),
        };
        let (answer, connection) = match answered {
            Ok(answered) => answered,
            Err(error) => return self.broken(grant, event, &error),
        };
        self.gateway.record(&grant.generation, event);
        match guest_upgrade {
            Some(guest) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                switch(answer, guest, lease)
            }
            _ => {
                if !websocket {
                    self.pool.put(grant, self.tls(), connection);
                }
                to_guest(answer, lease, parts.version)
            }
        }
    }

    /// Sends the request, a second time on a new connection if a kept one turned out to be closed.
    async fn exchange(
        &self,
        grant: &Grant,
        parts: &Parts,
        path: Option<&str>,
        websocket: bool,
        body: Incoming,
        event: &mut Event,
    ) -> Result<(Response<Incoming>, Sender), SendError> {
        let tls = self.tls();
        let mut body = Watched::new(body, None);
        let mut kept = if websocket {
            None
        } else {
            self.pool.kept(grant, tls)
        };
        loop {
            let reused = kept.is_some();
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None if websocket => self.pool.open_h1(grant, tls).await?,
                None => self.pool.open(grant, tls).await?,
            };
            let head = upstream_request(grant, parts, path, tls, websocket, &connection)?;
            let (mut head, ()) = head.into_parts();
            event.credential = write_credentials(grant, &mut head.headers);
            match connection.send(Request::from_parts(head, body)).await {
                Sent::Answered(answer) => return Ok((answer, connection)),
                Sent::Nothing(request, _) if reused => body = request.into_body(),
                Sent::Nothing(_, error) | Sent::Broken(error) => return Err(error),
            }
        }
    }

    fn broken(&self, grant: &Grant, mut event: Event, error: &SendError) -> Response<AnswerBody> {
        event.reason = match error {
            SendError::Dial(error) => error.reason(),
            SendError::Http(_) | SendError::Slow => Reason::UpstreamUnreachable,
            SendError::Head(_) => Reason::BadRequest,
            SendError::Revoked => Reason::PolicyChanged,
        };
        let reason = event.reason;
        tracing::warn!(target = %grant.target, %error, "upstream failed");
        self.gateway.record(&grant.generation, event);
        page::failed(&error.to_string(), reason)
    }
}

fn is_websocket(parts: &Parts) -> bool {
    let upgrade = parts.headers.get(UPGRADE).map(HeaderValue::as_bytes);
    parts.version == Version::HTTP_11
        && upgrade.is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
}

/// Splices both sides after a 101.
fn switch(
    mut answer: Response<Incoming>,
    guest: hyper::upgrade::OnUpgrade,
    lease: crate::live::Lease,
) -> Response<AnswerBody> {
    let upstream = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        if let (Ok(guest), Ok(upstream)) = tokio::join!(guest, upstream) {
            let (mut guest, mut upstream) = (TokioIo::new(guest), TokioIo::new(upstream));
            tunnel::relay(&mut guest, &mut upstream, lease).await;
        }
    });
    let (mut head, body) = answer.into_parts();
    strip_hop_by_hop(&mut head.headers, true);
    Response::from_parts(head, Watched::new(body, None).boxed_unsync())
}

fn to_guest(
    answer: Response<Incoming>,
    lease: crate::live::Lease,
    version: Version,
) -> Response<AnswerBody> {
    let (mut head, body) = answer.into_parts();
    strip_hop_by_hop(&mut head.headers, false);
    // Would lead around us, to QUIC.
    head.headers.remove(ALT_SVC);
    head.version = version;
    Response::from_parts(head, Watched::new(body, Some(lease)).boxed_unsync())
}

/// What the guest wrote, for the record of a request that was not understood. User information is no part of it:
/// it may be a password.
fn raw_host(parts: &Parts) -> String {
    let uri = parts
        .uri
        .authority()
        .map(|authority| request::without_user(authority.as_str()).to_owned());
    let header = || {
        parts
            .headers
            .get(HOST)
            .map(|v| String::from_utf8_lossy(v.as_bytes()).into())
    };
    uri.or_else(header).unwrap_or_default()
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}
