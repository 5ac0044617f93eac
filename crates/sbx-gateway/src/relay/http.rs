//! One inspected connection of the guest: every request on it goes through the rooms.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap};
use hyper::http::request::Parts;
use hyper::http::uri::Uri;
use hyper::{Request, Response, Version};
use sbx_policy::{HttpRequest, IntentKind, Port, Target};
use sbx_wire::gateway::ProxyKind;

use super::handing_in;
use super::page::{self, Answer, AnswerBody};
use super::source::Source;
use super::supply::{self, Needed};
use crate::adapter::guarded::{Arrival, Refused};
use crate::adapter::hello::Offers;
use crate::adapter::request::{self, Quoted, RequestError};
use crate::connector::{SendError, Upstream};
use crate::credentials::Supplied;
use crate::credentials::issuers::BoundIssuer;
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
pub(super) struct Refusal(pub(super) Box<Response<AnswerBody>>);

/// Who of those that issue credentials is asked.
pub(super) enum Issuing {
    /// Nobody.
    Nobody,
    /// One whose answers are the daemon's to deal with, or that is not asked.
    Issuer(Arc<BoundIssuer>),
    /// A registry of images, with this login.
    Registry(Supplied),
}

/// A request that may leave.
pub(super) struct Granted {
    pub(super) grant: Grant,
    /// The values that are written into it.
    pub(super) supplied: Vec<Supplied>,
    /// The path that was judged, if a rule looked at it.
    pub(super) path: Option<String>,
    /// What comes back is read here.
    pub(super) issued: bool,
}

/// An inspected connection.
pub struct Inspected {
    pub(super) gateway: Arc<Gateway>,
    pub(super) proxy: ProxyKind,
    scope: Scope,
    dialled: Option<Ipv4Addr>,
    /// What came of dialling before the guest was answered; for its first request.
    first: Mutex<Option<Result<Upstream, SendError>>>,
    /// Whether there has been a request, or what was to be one.
    asked: AtomicBool,
    pub(super) own: Mutex<Own>,
}

/// The upstream connection of a guest's connection whose upstream ties a login to it: nobody else gets it.
#[derive(Default)]
pub(super) struct Own {
    pub(super) tied: bool,
    pub(super) kept: Option<Upstream>,
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
            first: Mutex::default(),
            asked: AtomicBool::new(false),
            own: Mutex::default(),
        })
    }

    /// The same, with what came of dialling before.
    pub fn with_first(self: Arc<Self>, first: Result<Upstream, SendError>) -> Arc<Self> {
        *lock(&self.first) = Some(first);
        self
    }

    /// Why there was a connection to the upstream, if one was dialled before and the guest has asked for nothing.
    pub fn unasked(&self, granted: Reason) -> Option<Reason> {
        if self.asked.load(Ordering::Relaxed) {
            return None;
        }
        let first = lock(&self.first).take()?;
        Some(first.map_or_else(|error| error.reason(), |_| granted))
    }

    /// Answers one request. `arrival`: how it came, over HTTP/1.1.
    pub async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        arrival: Option<Arrival>,
    ) -> Answer {
        self.asked.store(true, Ordering::Relaxed);
        if let Some(refused) = arrival.as_ref().and_then(Arrival::refused) {
            return Ok(self.refuse_form(&refused, &request));
        }
        let (parts, body) = request.into_parts();
        // Apart: few requests ask for a key.
        if handing_in::is_path(&parts)
            && let Some(answer) = Box::pin(self.hand_in(&parts)).await
        {
            return Ok(answer);
        }
        match self.judge(&parts).await {
            Ok((grant, path)) => match self.granted(grant, path, &parts, &body).await {
                Ok((request, Issuing::Nobody)) => {
                    let body = Source::Guest(body);
                    let answer = self.forward(&request, parts, body, arrival).await;
                    self.learn_of_registries(&request.grant, &answer);
                    answer
                }
                // Apart: few requests are of these kinds.
                Ok((request, Issuing::Issuer(issuer))) => {
                    let asked = self.ask_issuer(&request, &issuer, parts, body, arrival);
                    Box::pin(asked).await
                }
                Ok((request, Issuing::Registry(login))) => {
                    let asked = self.ask_registry(&request, &login, parts, body, arrival);
                    Box::pin(asked).await
                }
                Err(Refusal(answer)) => Ok(*answer),
            },
            Err(Refusal(answer)) => Ok(*answer),
        }
    }

    /// The granted request with the values it needs, and whom it asks for credentials.
    async fn granted(
        &self,
        grant: Grant,
        path: Option<String>,
        parts: &Parts,
        body: &Incoming,
    ) -> Result<(Granted, Issuing), Refusal> {
        let credentials = &grant.generation.credentials;
        let mut issuer = None;
        if credentials.has_issuer(&grant.target) {
            let judged = if credentials.issues_by_method(&grant.target) {
                request::judged(parts)
            } else {
                request::judged_by_path(parts)
            };
            let http = judged.map_err(|error| self.refuse(&grant.generation, parts, &error))?;
            issuer = credentials.issuer(&grant.target, &http).cloned();
        }
        let needed = supply::supply(&self.gateway, &grant, (parts, body), self.tls()).await;
        let Needed { supplied, issues } = needed.map_err(|denial| self.deny(&denial, parts))?;
        let issuing = match (issuer, issues) {
            (Some(issuer), _) => Issuing::Issuer(issuer),
            (None, Some(login)) => Issuing::Registry(login),
            (None, None) => Issuing::Nobody,
        };
        let request = Granted {
            grant,
            supplied,
            path,
            issued: !matches!(issuing, Issuing::Nobody),
        };
        Ok((request, issuing))
    }

    pub(super) fn tls(&self) -> bool {
        matches!(self.scope, Scope::Fixed { tls: true, .. })
    }

    /// An upstream connection that was opened already, if there is one.
    pub(super) fn opened(
        &self,
        grant: &Grant,
        offers: Offers,
    ) -> Option<Result<Upstream, SendError>> {
        // What was dialled under an older policy may lead where the new one does not.
        match lock(&self.first).take() {
            Some(Ok(first)) if !first.is_for(grant, self.tls()) => {}
            Some(first) => return Some(first),
            None => {}
        }
        // Connections of the guest to the proxy ask for many hosts.
        if let Some(own) = lock(&self.own).kept.take()
            && own.is_for(grant, self.tls())
            && own.sender.is_usable()
        {
            return Some(Ok(own));
        }
        let upstreams = &grant.generation.upstreams;
        upstreams.take(grant, self.tls(), offers).map(Ok)
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
        if let Some(owner) = grant.bound.stray(parts) {
            return Err(denied(supply::stray(&grant, owner)));
        }
        if let Some(denial) = supply::misplaced(&grant, parts) {
            return Err(denied(denial));
        }
        Ok((grant, path))
    }

    pub(super) fn target(&self, parts: &Parts) -> Result<Target, RequestError> {
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
                        named: target,
                        connection: dialled,
                    });
                }
                Ok(target)
            }
            Scope::Fixed { target, tls } => {
                let default = if *tls { Port::HTTPS } else { Port::HTTP };
                let named = request::origin_target(parts, default)?;
                if named != *target {
                    let connection = target.clone();
                    return Err(RequestError::Differs { named, connection });
                }
                Ok(named)
            }
        }
    }

    /// A request that is not understood: 400. One that names another host than the connection: 403, or over HTTP/2,
    /// where clients put requests to several hosts on one connection in good faith, 421.
    fn refuse(&self, generation: &Arc<Generation>, parts: &Parts, error: &RequestError) -> Refusal {
        if let (RequestError::Differs { named, .. }, Scope::Fixed { .. }) = (error, &self.scope) {
            let text = capitalised(&error.to_string());
            let denial = Denial::new(generation, named, Reason::HostMismatch, text);
            let refusal = self.deny(&denial, parts);
            return match parts.version {
                Version::HTTP_2 => Refusal(Box::new(page::misdirected(&denial))),
                _ => refusal,
            };
        }
        let (method, path) = (parts.method.as_str(), parts.uri.path());
        let named = raw_host(&parts.uri, &parts.headers);
        self.record_bad(generation, named, method, path);
        let text = error.to_string();
        Refusal(Box::new(match error {
            RequestError::Expectation => page::expectation_failed(&text),
            RequestError::TooManyHeaders => page::too_many_headers(&text),
            _ => page::bad_request(&text),
        }))
    }

    /// A request whose bytes have more than one meaning: 400, and the end of the connection.
    fn refuse_form(&self, refused: &Refused, request: &Request<Incoming>) -> Response<AnswerBody> {
        let quoted = match refused.head.as_ref() {
            // It is the body that is broken, so the head is what it says.
            [] => Quoted {
                method: request.method().to_string(),
                path: request.uri().path().to_owned(),
                host: raw_host(request.uri(), request.headers()),
            },
            head => request::quote(head),
        };
        let generation = self.gateway.generation();
        self.record_bad(&generation, quoted.host, &quoted.method, &quoted.path);
        page::bad_form(refused.fault)
    }

    /// The library has ended the connection because of what the guest sent.
    pub fn record_refused(&self) {
        self.asked.store(true, Ordering::Relaxed);
        let generation = self.gateway.generation();
        self.record_bad(&generation, String::new(), "", "");
    }

    fn record_bad(&self, generation: &Arc<Generation>, named: String, method: &str, path: &str) {
        let (host, port) = match &self.scope {
            Scope::Fixed { target, .. } => (target.host.to_string(), target.port.get()),
            Scope::ByHost { port } => (named, port.get()),
            Scope::Proxy => (named, 0),
        };
        let reason = Reason::BadRequest;
        let event = Event::at(host, port, self.proxy, reason, generation.number);
        self.gateway
            .record(generation, event.with_request(method, path));
    }

    pub(super) fn deny(&self, denial: &Denial, parts: &Parts) -> Refusal {
        let event = denial
            .event(self.proxy)
            .with_request(parts.method.as_str(), parts.uri.path());
        self.gateway.record(&denial.generation, event);
        Refusal(Box::new(page::denied(denial)))
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the guest wrote, for the record of a request that was not understood. User information is no part of it:
/// it may be a password.
fn raw_host(uri: &Uri, headers: &HeaderMap) -> String {
    let named = uri
        .authority()
        .map(|authority| request::without_user(authority.as_str()).to_owned());
    let header = || {
        let value = headers.get(HOST)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    named.or_else(header).unwrap_or_default()
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(chars).collect()
    })
}
