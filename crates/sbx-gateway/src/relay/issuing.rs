//! Requests to endpoints that issue credentials: the guest is told what the daemon makes of the answer, or nothing is
//! asked.

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use sbx_wire::gateway::MAX_ISSUED;
use sbx_wire::secret::SecretText;

use super::http::{Granted, Inspected, Refusal};
use super::page::{self, Answer, AnswerBody};
use super::source::Source;
use crate::adapter::guarded::Arrival;
use crate::credentials::issuers::{BoundIssuer, Errand, Told};
use crate::decision::Denial;
use crate::limits;
use crate::reason::Reason;

impl Inspected {
    /// Answers a request to an issuer.
    pub(super) async fn ask_issuer(
        &self,
        request: &Granted,
        issuer: &BoundIssuer,
        parts: Parts,
        body: Incoming,
        arrival: Option<Arrival>,
    ) -> Answer {
        let service = issuer.service.clone();
        if !issuer.kept {
            let text = format!("It issues credentials for {service}, which do not enter a sandbox");
            return Ok(self.refuse_issuer(request, &parts, Reason::CredentialIssuer, &text));
        }
        let body = match read(body, &parts.headers).await {
            Ok(body) => body,
            Err(text) => {
                return Ok(self.refuse_issuer(request, &parts, Reason::BodyEncoding, text));
            }
        };
        if issuer.exchanges(body.expose().as_bytes()) {
            let mut event = self.event(&request.grant, &parts);
            event.credential = Some(service.clone());
            let told = self.told(Errand::Exchange { service, body }).await;
            if told.is_err() {
                event.reason = Reason::CredentialUnavailable;
            }
            self.gateway.record(&request.grant.generation, event);
            return Ok(answer(told, StatusCode::OK, "application/json"));
        }
        let path = parts.uri.path().to_owned();
        let host = request.grant.target.host.to_string();
        let asked = Some(body).filter(|body| !body.expose().is_empty());
        let body = asked.as_ref();
        let body = body.map(|body| Bytes::copy_from_slice(body.expose().as_bytes()));
        let body = Source::Read(body, None);
        let answered = self.forward(request, parts, body, arrival).await?;
        if !answered.status().is_success() {
            return Ok(answered);
        }
        let (head, body) = answered.into_parts();
        let body = match read(body, &head.headers).await {
            Ok(body) => body,
            Err(text) => return Ok(page::failed(text, Reason::BodyEncoding)),
        };
        let errand = Errand::Issued {
            service,
            path,
            body,
            host,
            asked,
        };
        let media_type = head.headers.get(CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok());
        let media_type = media_type.unwrap_or("application/json");
        Ok(answer(self.told(errand).await, head.status, media_type))
    }

    async fn told(&self, errand: Errand) -> Told {
        let issued = &self.gateway.issued;
        let told = issued
            .hand(errand, limits::VALUE_TAKEN, limits::ISSUED)
            .await;
        told.unwrap_or_else(|_| {
            Err("Nobody on the host keeps what is issued; is the sbx daemon running?".to_owned())
        })
    }

    fn refuse_issuer(
        &self,
        request: &Granted,
        parts: &Parts,
        reason: Reason,
        text: &str,
    ) -> Response<AnswerBody> {
        let grant = &request.grant;
        let denial = Denial::new(&grant.generation, &grant.target, reason, text);
        let Refusal(answer) = self.deny(&denial, parts);
        *answer
    }
}

/// A body that holds credentials, as text.
pub(super) async fn read<B>(body: B, headers: &HeaderMap) -> Result<SecretText, &'static str>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if headers.contains_key(CONTENT_ENCODING) {
        return Err("What is issued has to be read, and is compressed");
    }
    let read = Limited::new(body, MAX_ISSUED).collect();
    let Ok(Ok(read)) = tokio::time::timeout(limits::ISSUED, read).await else {
        return Err("What is issued has to be read, and is too long, too slow or breaks off");
    };
    let text = String::from_utf8(read.to_bytes().into());
    text.map(SecretText::new)
        .map_err(|_| "What is issued has to be read, and is no text")
}

/// What the guest is told. Of the issuer's own head nothing but the media type goes along: a cookie may be a credential.
pub(super) fn answer(told: Told, status: StatusCode, media_type: &str) -> Response<AnswerBody> {
    match told {
        Ok(tell) => {
            let other = tell.status.and_then(|code| StatusCode::from_u16(code).ok());
            let other = other.filter(StatusCode::is_client_error);
            page::issued(other.unwrap_or(status), media_type, tell.body.expose())
        }
        Err(why) => page::failed(&why, Reason::CredentialUnavailable),
    }
}
