//! Requests to registries of images: where each says that its tokens are issued, and the tokens themselves, which stay
//! here.

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use sbx_credentials::registry;
use sbx_wire::secret::SecretText;

use super::http::{Granted, Inspected};
use super::issuing::{answer, read};
use super::page::{self, Answer};
use super::source::Source;
use crate::adapter::guarded::Arrival;
use crate::credentials::issuers::Tell;
use crate::credentials::{Form, Supplied};
use crate::decision::Grant;
use crate::reason::Reason;

impl Inspected {
    /// Notes where the registry that answered says that its tokens are issued.
    pub(super) fn learn_of_registries(&self, grant: &Grant, answer: &Answer) {
        let Ok(answer) = answer else { return };
        if !self.tls() || answer.status() != StatusCode::UNAUTHORIZED {
            return;
        }
        let is_registry = grant.bound.credentials.iter().any(|credential| {
            matches!(&credential.form, Form::Registry(form) if form.target == grant.target)
        });
        if is_registry {
            let registries = &self.gateway.registries;
            registries.learn(&grant.target, answer.headers());
        }
    }

    /// Has a token issued. The guest is told a placeholder for it.
    pub(super) async fn ask_registry(
        &self,
        request: &Granted,
        login: &Supplied,
        parts: Parts,
        body: Incoming,
        arrival: Option<Arrival>,
    ) -> Answer {
        let body = Source::Guest(body);
        let answered = self.forward(request, parts, body, arrival).await?;
        if !answered.status().is_success() {
            return Ok(answered);
        }
        let (head, body) = answered.into_parts();
        let body = match read(body, &head.headers).await {
            Ok(body) => body,
            Err(text) => return Ok(page::failed(text, Reason::BodyEncoding)),
        };
        let Some((document, issued)) = registry::issued(body.expose()) else {
            let why = "What the registry answered holds no token that can be kept".to_owned();
            return Ok(answer(Err(why), head.status, ""));
        };
        let kept = self.gateway.registries.keep(login, &issued);
        let told = kept.map(|placeholder| Tell {
            body: SecretText::new(document.told(&[(&issued.access, &placeholder)]).body()),
            status: None,
        });
        let told = told.map_err(|why| format!("The token cannot be kept: {why}"));
        Ok(answer(told, head.status, "application/json"))
    }
}
