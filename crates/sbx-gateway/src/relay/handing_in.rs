//! Requests for a key of AWS that ends soon: answered here, with what the daemon got for the sandbox. Nothing is sent
//! anywhere, so there is nothing that a rule could decide.

use std::sync::Arc;

use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use sbx_credentials::sigv4::shows_token;
use sbx_policy::{Host, Port, Target};
use sbx_wire::gateway::{HandedIn, SHORT_LIVED, SHORT_LIVED_ADDRESS, SHORT_LIVED_PATH};

use super::http::Inspected;
use super::page::{self, AnswerBody};
use crate::decision::{Denial, UNWRITTEN};
use crate::generation::Generation;
use crate::reason::Reason;
use crate::records::Event;

/// Service in the record.
const SERVICE: &str = "aws";

impl Inspected {
    /// The answer to a request for a key. `None`: it is for somebody else, or none are handed in, and then it is a request
    /// to an address as any other.
    pub(super) async fn hand_in(&self, parts: &Parts) -> Option<Response<AnswerBody>> {
        let target = self.target(parts).ok()?;
        if self.tls() || target != place() {
            return None;
        }
        let generation = self.gateway.configured(false).await;
        let handed_in = generation.credentials.handed_in()?;
        Some(self.handed_in(&generation, handed_in, &target, parts).await)
    }

    async fn handed_in(
        &self,
        generation: &Arc<Generation>,
        handed_in: &HandedIn,
        target: &Target,
        parts: &Parts,
    ) -> Response<AnswerBody> {
        let event = |reason| {
            let mut event = Event::new(target, self.proxy, reason, generation.number);
            event.credential = Some(SERVICE.to_owned());
            event.with_request(parts.method.as_str(), parts.uri.path())
        };
        if !is_asked(parts, &handed_in.token) {
            let reason = Reason::KeyNotHandedIn;
            self.gateway.record(generation, event(reason));
            let text =
                "Keys are handed to who shows the token of AWS_CONTAINER_AUTHORIZATION_TOKEN";
            return page::denied(&Denial::new(generation, target, reason, text));
        }
        if !self.gateway.records.can_write() {
            let reason = Reason::RecordsUnwritten;
            self.gateway.record(generation, event(reason));
            return page::denied(&Denial::new(generation, target, reason, UNWRITTEN));
        }
        match self.gateway.values.ask(SHORT_LIVED).await {
            Ok(document) => {
                self.gateway.record(generation, event(Reason::KeyHandedIn));
                page::issued(StatusCode::OK, "application/json", document.expose())
            }
            Err(why) => {
                let reason = Reason::CredentialUnavailable;
                self.gateway.record(generation, event(reason));
                page::failed(&why, reason)
            }
        }
    }
}

/// Whether a request may be for a key: those of this path to other hosts are for them.
pub(super) fn is_path(parts: &Parts) -> bool {
    parts.uri.path() == SHORT_LIVED_PATH
}

/// Where it is asked for.
fn place() -> Target {
    Target {
        host: Host::from(std::net::IpAddr::V4(SHORT_LIVED_ADDRESS)),
        port: Port::HTTP,
    }
}

fn is_asked(parts: &Parts, token: &str) -> bool {
    let mut shown = parts.headers.get_all(AUTHORIZATION).iter();
    let (Some(first), None) = (shown.next(), shown.next()) else {
        return false;
    };
    shows_token(first.as_bytes(), token) && parts.method == Method::GET
}
