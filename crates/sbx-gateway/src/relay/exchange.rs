//! One granted request on its way to the upstream, and its answer on the way back.

use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::header::{ACCEPT_ENCODING, ALT_SVC, EXPECT, HeaderValue, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Version};

use super::body::{Answering, Gate, Sending};
use super::clean::{self, Clean};
use super::guarded_body::{BodyGuard, Stopped};
use super::headers::{asks_for_websocket, strip_hop_by_hop};
use super::http::{Granted, Inspected, Refusal, lock};
use super::page::{self, Answer};
use super::signing::{Admitted, Broken, Follows, Signing};
use super::source::Source;
use super::websocket::{self, Opening};
use crate::adapter::guarded::Arrival;
use crate::adapter::hello::Offers;
use crate::connector::{self, RequestBody, SendError, Sent, Upstream};
use crate::decision::Grant;
use crate::gateway::Gateway;
use crate::limits;
use crate::reason::Reason;
use crate::records::Event;

/// Code of the record of a request whose own key was replaced.
const OWN_REPLACED: &str = "own-credential-replaced";

/// An answer that has begun.
struct Answered {
    answer: Response<Incoming>,
    upstream: Upstream,
    gate: Option<Arc<Gate>>,
}

/// The record of a granted request. It is written when this goes, also because the guest gives the request up before it
/// is answered: the upstream may have seen it all the same.
struct Account<'a> {
    gateway: &'a Gateway,
    grant: &'a Grant,
    event: Event,
    /// Somebody else has recorded how it ended.
    told: bool,
    /// Whether its body was broken off because of what was in it.
    stopped: Option<Stopped>,
    /// The same for one that is not what was signed.
    unsigned: Option<Broken>,
}

impl Account<'_> {
    /// The answer to a request that came to nothing.
    fn broken(mut self, version: Version, arrival: Option<&Arrival>, error: SendError) -> Answer {
        if let Some(denial) = self.stopped.as_ref().and_then(|stopped| stopped.get()) {
            self.told = true;
            return Ok(page::denied(denial));
        }
        let (grant, unsigned) = (self.grant, self.unsigned.take());
        if let Some((denial, answer)) = unsigned.and_then(|unsigned| unsigned.told(grant)) {
            self.event.reason = denial.reason;
            return answer;
        }
        // It is the guest that broke it.
        if let Some(refused) = arrival.and_then(Arrival::refused) {
            self.event.reason = Reason::BadRequest;
            return Ok(page::bad_form(refused.fault));
        }
        tracing::warn!(target = %grant.target, %error, "upstream failed");
        self.event.reason = error.reason();
        match &error {
            SendError::Http(error) if error.is_user() => {
                self.event.reason = Reason::BadRequest;
                return Ok(page::bad_request("the body broke off"));
            }
            SendError::Revoked(reason) => {
                // Whoever revoked the lease has recorded it.
                self.told = true;
                return Ok(page::revoked(grant, *reason));
            }
            _ => {}
        }
        let reason = self.event.reason;
        drop(self);
        match error.into_reset() {
            Ok(reset) if version == Version::HTTP_2 => Err(reset.into()),
            Ok(reset) => Ok(page::failed(&reset.to_string(), reason)),
            Err(error) => Ok(page::failed(&error.to_string(), reason)),
        }
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        if !self.told {
            let none = Event::at(String::new(), 0, self.event.proxy, self.event.reason, 0);
            let event = std::mem::replace(&mut self.event, none);
            self.gateway.record(&self.grant.generation, event);
        }
    }
}

impl Inspected {
    /// Rooms 4 and 5.
    pub(super) async fn forward(
        &self,
        request: &Granted,
        mut parts: Parts,
        body: Source,
        arrival: Option<Arrival>,
    ) -> Answer {
        let grant = &request.grant;
        let event = self.event(grant, &parts);
        let mut admitted = match self.admit(request, &parts, body).await {
            Ok(admitted) => admitted,
            Err(refused) => return refused,
        };
        let looked = self.look_into(request, &parts, &event, &mut admitted);
        let (body, guard) = match looked.await {
            Ok(looked) => looked,
            Err(refused) => return refused,
        };
        if let Some(signing) = &mut admitted.signing
            && signing.whole
        {
            signing.digest = body.digest();
        }
        let stopped = guard.as_ref().map(BodyGuard::stopped);
        let mut account = Account {
            gateway: &self.gateway,
            grant,
            event,
            told: false,
            stopped,
            unsigned: admitted.broken.clone(),
        };
        let version = parts.version;
        let guest_upgrade = asks_for_websocket(&parts)
            .then(|| parts.extensions.remove())
            .flatten();
        let written = request.supplied.iter().map(|one| one.credential.clone());
        let written: Vec<_> = written.collect();
        let mut lease = self.gateway.lease_writing(grant, &written, self.proxy);
        let websocket = guest_upgrade.is_some();
        let body = Sending::new(body, lease.feed()).guarded(guard);
        let sent = (parts, body, admitted);
        let exchange = self.exchange(request, sent, websocket, &mut account.event);
        let answered = tokio::select! {
            // First: nobody is dialled for what is not allowed any more.
            biased;
            () = &mut lease => {
                let reason = lease.revoked().unwrap_or(Reason::PolicyChanged);
                Err(SendError::Revoked(reason))
            }
            answered = exchange => answered,
        };
        let Answered {
            mut answer,
            upstream,
            gate,
        } = match answered {
            Ok(answered) => answered,
            Err(error) => return account.broken(version, arrival.as_ref(), error),
        };
        let switched = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        let values = clean::values(&grant.bound, &request.supplied, answer.status());
        if values.is_some() {
            // Means nothing (RFC 9112, section 4), and could hold a value.
            answer.extensions_mut().remove::<ReasonPhrase>();
        }
        match guest_upgrade {
            Some(guest) if switched => match websocket::check_opening(answer.headers()) {
                Ok(()) => {
                    let supplied = &request.supplied;
                    let (event, head) = (&account.event, answer.headers_mut());
                    let opening = Opening::new(&self.gateway, grant, supplied, values, event, head);
                    Ok(opening.splice(answer, guest, lease))
                }
                Err(error) => account.broken(version, arrival.as_ref(), error),
            },
            None if switched => account.broken(version, arrival.as_ref(), SendError::Switched),
            _ => {
                let load = upstream.load();
                if !websocket {
                    self.keep(grant, &answer, upstream);
                }
                let (mut head, body) = answer.into_parts();
                strip_hop_by_hop(&mut head.headers, false);
                // Would lead around us, to QUIC.
                head.headers.remove(ALT_SVC);
                head.version = version;
                let opaque = clean::is_object(&request.supplied, &head.headers);
                let clean = values.map(|values| {
                    let (gateway, event) = (&self.gateway, &account.event);
                    Clean::of_answer(values, gateway, grant, event, &mut head.headers, opaque)
                });
                let Ok(clean) = clean.transpose() else {
                    account.event.reason = Reason::BodyEncoding;
                    let text = "the answer has to be looked into, and is compressed in a way that cannot be undone here";
                    return Ok(page::failed(text, Reason::BodyEncoding));
                };
                let body = Answering::new(body, lease, gate, load).cleaned(clean.flatten());
                Ok(Response::from_parts(head, body.boxed_unsync()))
            }
        }
    }

    pub(super) fn event(&self, grant: &Grant, parts: &Parts) -> Event {
        let number = grant.generation.number;
        Event::new(&grant.target, self.proxy, grant.reason, number)
            .with_rule(grant.rule.clone())
            .with_request(parts.method.as_str(), parts.uri.path())
    }

    /// The body, and what it has to pass on its way. A small one is read whole, so that nothing at all is sent if it must
    /// not be; of others the beginning may have been.
    async fn look_into(
        &self,
        request: &Granted,
        parts: &Parts,
        event: &Event,
        admitted: &mut Admitted,
    ) -> Result<(Source, Option<BodyGuard>), Answer> {
        let body = std::mem::replace(&mut admitted.source, Source::Read(None, None));
        if body.is_end_stream() {
            return Ok((body, None));
        }
        let Granted {
            grant, supplied, ..
        } = request;
        // What was signed and streams cannot be another one.
        let signed = admitted.signing.as_ref();
        let fixed = signed.is_some_and(|signing| !signing.whole);
        let guard = BodyGuard::new(&self.gateway, grant, supplied, &parts.headers, event, fixed);
        let guard = guard.map_err(|denial| {
            let Refusal(answer) = self.deny(&denial, parts);
            Ok(*answer)
        })?;
        let small = body.size_hint().exact();
        let small = small.is_some_and(|length| length <= limits::BODY_READ_FIRST);
        let Some(mut guard) = guard else {
            return Ok((body, None));
        };
        guard.make_room(&self.gateway).await;
        let body = match body {
            Source::Guest(_) if !small || parts.headers.contains_key(EXPECT) => {
                return Ok((body, Some(guard)));
            }
            body => body,
        };
        let read = Box::pin(body.read()).await;
        let broken = |text: &str| {
            let mut event = event.clone();
            event.reason = Reason::BadRequest;
            self.gateway.record(&grant.generation, event);
            Ok(page::bad_request(text))
        };
        let Ok(read) = read else {
            return Err(broken("the body broke off"));
        };
        match Box::pin(read.pass(&mut guard)).await {
            Ok(passed) => Ok((passed, None)),
            Err(error) => Err(match guard.stopped().get() {
                Some(denial) => Ok(page::denied(denial)),
                None => broken(&error.to_string()),
            }),
        }
    }

    /// Sends the request, a second time on a new connection if a kept one turned out to be closed.
    async fn exchange(
        &self,
        request: &Granted,
        (mut parts, mut body, admitted): (Parts, RequestBody, Admitted),
        websocket: bool,
        event: &mut Event,
    ) -> Result<Answered, SendError> {
        let Granted {
            grant,
            supplied,
            path,
            issued,
        } = request;
        let (tls, path) = (self.tls(), path.as_deref());
        // The guest's own version first: nothing has to be translated. Only HTTP/1.1 can change the protocol.
        let h2 = parts.version == Version::HTTP_2;
        let offers = Offers { h2, h1: true };
        let mut prepared = connector::prepare(grant, supplied, &mut parts, path, tls, websocket)?;
        if *issued {
            // What comes back is read.
            let identity = HeaderValue::from_static("identity");
            parts.headers.insert(ACCEPT_ENCODING, identity);
        }
        let Admitted {
            signing,
            follows,
            broken,
            _room,
            ..
        } = admitted;
        let chunks = match signing {
            Some(Signing {
                verified,
                supplied,
                digest,
                ..
            }) => prepared.sign(verified, &supplied, &mut parts, digest)?,
            None => None,
        };
        let chunks = chunks
            .zip(broken)
            .map(|(chunks, broken)| Follows::chunks(chunks, &broken));
        if let Some(follows) = chunks.or(follows) {
            body.follow(follows);
        }
        event.credential.clone_from(&prepared.credentials);
        event.alert = prepared.own_replaced.then_some(OWN_REPLACED);
        let mut request = Request::from_parts(parts, body);
        let mut opened = if websocket {
            None
        } else {
            self.opened(grant, offers).transpose()?
        };
        loop {
            let reused = opened.is_some();
            let mut upstream = match opened.take() {
                Some(upstream) => upstream,
                // Apart: handshakes would make every request's state several times as large.
                None => Box::pin(Upstream::open(grant, tls, offers)).await?,
            };
            self.share(grant, &upstream);
            let mut gate = None;
            if prepared.address(&mut request, upstream.sender.is_h2())? {
                let opener = Arc::new(Gate::default());
                request.body_mut().wait_for(opener.clone());
                gate = Some(opener.clone());
                hyper::ext::on_informational(&mut request, move |answer| {
                    if answer.status() == StatusCode::CONTINUE {
                        opener.open();
                    }
                });
            }
            match upstream.sender.send(request).await {
                Sent::Answered(answer) => {
                    if let Some(gate) = &gate {
                        gate.answered();
                    }
                    return Ok(Answered {
                        answer,
                        upstream,
                        gate,
                    });
                }
                Sent::Nothing(returned, _) if reused => {
                    request = *returned;
                    let upstreams = &grant.generation.upstreams;
                    upstreams.withhold(grant, tls, &upstream);
                    // One that another request has opened meanwhile.
                    opened = upstreams.take(grant, tls, offers);
                }
                Sent::Nothing(_, error) | Sent::Broken(error) => {
                    if matches!(error, SendError::Slow) {
                        // It may be as dead for others.
                        grant.generation.upstreams.withhold(grant, tls, &upstream);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Lets others have a new connection that carries several requests at a time, unless the upstream ties logins to them.
    fn share(&self, grant: &Grant, upstream: &Upstream) {
        if !lock(&self.own).tied {
            grant
                .generation
                .upstreams
                .share(grant, self.tls(), upstream);
        }
    }

    /// Keeps the connection for the next request: of everybody, or of this connection of the guest alone if the
    /// upstream ties a login to it.
    fn keep(&self, grant: &Grant, answer: &Response<Incoming>, upstream: Upstream) {
        let tied = answer.status() == StatusCode::UNAUTHORIZED
            && answer
                .headers()
                .get_all(WWW_AUTHENTICATE)
                .iter()
                .any(ties_the_connection);
        let mut own = lock(&self.own);
        if tied || own.tied {
            own.tied = true;
            let upstreams = &grant.generation.upstreams;
            upstreams.withhold(grant, self.tls(), &upstream);
            own.kept = Some(upstream);
        } else {
            grant.generation.upstreams.put(grant, self.tls(), upstream);
        }
    }
}

/// Logins of Windows hold for the connection and not for the request.
fn ties_the_connection(challenge: &HeaderValue) -> bool {
    let scheme = challenge.as_bytes().split(|byte| *byte == b' ').next();
    let scheme = scheme.unwrap_or_default();
    scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
}
