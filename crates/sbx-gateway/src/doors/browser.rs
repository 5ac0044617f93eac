//! Requests to open a page in the host's browser, on the proxy port.

use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use sbx_policy::{HttpRequest, IntentKind};
use sbx_wire::browser::{Address, MAX_ADDRESS, PATH};
use sbx_wire::gateway::ProxyKind;

use crate::decision::decide;
use crate::gateway::Gateway;
use crate::intent::Attempt;
use crate::limits;
use crate::reason::Reason;
use crate::records::Event;
use crate::relay::page::{self, AnswerBody};

const PROXY: ProxyKind = ProxyKind::BrowserOpen;

/// Whether a request to the proxy port is one.
pub(super) fn asks(request: &Request<Incoming>) -> bool {
    is_for_us(request, PATH)
}

/// Whether a request to the proxy port is for the gateway itself: no proxy request has this form.
pub(super) fn is_for_us(request: &Request<Incoming>, path: &str) -> bool {
    let uri = request.uri();
    *request.method() == Method::POST && uri.authority().is_none() && uri.path() == path
}

/// Judges the page and hands it to the daemon.
pub(super) async fn open(
    gateway: Arc<Gateway>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let generation = gateway.configured(false).await;
    let address = match address(request.into_body()).await {
        Ok(address) => address,
        Err(text) => {
            let event = Event::at(
                String::new(),
                0,
                PROXY,
                Reason::BadRequest,
                generation.number,
            );
            gateway.record(&generation, event);
            return page::bad_request(&text);
        }
    };
    let attempt = Attempt {
        proxy: PROXY,
        ..Attempt::explicit(address.target().clone(), IntentKind::Http)
    };
    let http = match HttpRequest::parse("GET", address.path()) {
        Ok(http) => http,
        Err(error) => {
            let bad = Reason::BadRequest;
            let event = Event::new(address.target(), PROXY, bad, generation.number);
            gateway.record(&generation, event);
            return page::bad_request(&error.to_string());
        }
    };
    let grant = match decide(&gateway, &generation, &attempt, Some(http)).await {
        Ok(grant) => grant,
        Err(denial) => {
            let event = denial.event(PROXY).with_request("GET", address.path());
            gateway.record(&generation, event);
            return page::denied(&denial);
        }
    };
    let path = address.path().to_owned();
    let opened = gateway.browser.hand(address, limits::PAGE, limits::PAGE);
    let opened = opened.await;
    let opened = opened.unwrap_or_else(|_| {
        Err("nobody on the host takes it; is the sbx daemon running?".to_owned())
    });
    let reason = match opened {
        Ok(()) => grant.reason,
        Err(_) => Reason::NotOpened,
    };
    let event = Event::new(&grant.target, PROXY, reason, generation.number)
        .with_rule(grant.rule.clone())
        .with_request("GET", &path);
    gateway.record(&generation, event);
    match opened {
        Ok(()) => page::connected(),
        Err(why) => page::failed(&format!("the host did not open it: {why}"), reason),
    }
}

async fn address(body: Incoming) -> Result<Address, String> {
    let body = Limited::new(body, MAX_ADDRESS).collect();
    let body = match tokio::time::timeout(limits::REQUEST_HEAD, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Err(format!("an address has at most {MAX_ADDRESS} bytes")),
        Err(_) => return Err("the address did not come in time".to_owned()),
    };
    let text = std::str::from_utf8(&body).map_err(|_| "the address is no text".to_owned())?;
    text.parse()
        .map_err(|error: sbx_wire::browser::AddressError| error.to_string())
}
