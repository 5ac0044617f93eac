//! `policy check`.

use super::parse::transport;
use crate::store::Policy;
use sbx_policy::{CheckReport, Evaluator, HttpRequest, Target, Transport};
use sbx_wire::api::Check;
use sbx_wire::report::Report;

/// `policy check`. `udp`: whether rules may open UDP.
pub(crate) fn check(policy: &Policy, udp: bool, request: &Check) -> Result<CheckReport, Report> {
    let protocol = if request.protocol.is_empty() {
        "tcp"
    } else {
        &request.protocol
    };
    let transport = transport(protocol)?;
    let parsed = Target::parse(&request.target).map_err(|error| {
        Report::user(
            "target-invalid",
            format!("not a destination: {error}"),
            "sbx policy check network example.com:443",
        )
    })?;
    let http = http_request(request, transport)?;
    // With the rules for other sandboxes: they do not decide, but one of them may be what was meant.
    let evaluator = Evaluator::new(&policy.document)
        .opening_udp(udp)
        .knowing_what_is_near(sbx_policy::what_is_near);
    Ok(sbx_policy::check(
        &evaluator,
        request.sandbox.as_deref(),
        transport,
        &parsed,
        http,
    ))
}

fn http_request(request: &Check, transport: Transport) -> Result<Option<HttpRequest>, Report> {
    let refuse = |text: String| {
        let hint = "sbx policy check network api.example.com --method GET --path /v1/x";
        Report::user("request-invalid", text, hint)
    };
    let Some(method) = &request.method else {
        return match request.path {
            Some(_) => Err(refuse(
                "a path is asked about together with a method".to_owned(),
            )),
            None => Ok(None),
        };
    };
    if transport == Transport::Udp {
        return Err(refuse("method and path are about TCP".to_owned()));
    }
    // RFC 9110, section 5.6.2: a token.
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if method.is_empty() || method.len() > 32 || !method.bytes().all(token) {
        return Err(refuse(
            "the method is not one: write GET, POST, …".to_owned(),
        ));
    }
    let in_url = || {
        let (_, rest) = request.target.split_once("://")?;
        rest.find('/').map(|at| rest[at..].to_owned())
    };
    let path = request.path.clone().or_else(in_url);
    let path = path.unwrap_or_else(|| "/".to_owned());
    let path = path.split('#').next().unwrap_or("/");
    // As it is given: the case of a method counts, and the gateway sends what the guest writes.
    HttpRequest::parse(method, path)
        .map(Some)
        .map_err(|error| refuse(error.to_string()))
}
