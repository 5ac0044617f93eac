//! What the agent reads when something is stopped.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use sbx_credentials::sigv4::Refusal;

use super::body::BodyError;
use crate::adapter::framing::Fault;
use crate::connector::aws::Complaint;
use crate::decision::{Denial, Grant};
use crate::reason::Reason;

/// Body of every answer to the guest.
pub type AnswerBody = UnsyncBoxBody<Bytes, BodyError>;

/// What a request gets: an answer, or the end of its stream for the reason that the error gives.
pub type Answer = Result<Response<AnswerBody>, BodyError>;

/// 403: what was blocked and why.
pub fn denied(denial: &Denial) -> Response<AnswerBody> {
    let status = match denial.reason {
        Reason::NotConfigured
        | Reason::CredentialUnavailable
        | Reason::ResolveFailed
        | Reason::NoAddress => {
            return failed(
                &format!("{}: {}", denial.target, denial.text),
                denial.reason,
            );
        }
        _ => StatusCode::FORBIDDEN,
    };
    blocked(status, denial)
}

/// 403, or 413 for a body that is too large, in the words and the form of AWS, so that its clients show the reason.
pub fn aws(denial: &Denial, refusal: &Refusal, complaint: Complaint) -> Response<AnswerBody> {
    let (code, text) = (refusal.code(), format!("sbx: {}", denial.text));
    let status = match refusal {
        Refusal::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::FORBIDDEN,
    };
    let error = || {
        let text = text
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        format!("<Code>{code}</Code><Message>{text}</Message>")
    };
    let (media_type, body) = match complaint {
        Complaint::Json => {
            let body = serde_json::json!({ "__type": code, "message": text, "Message": text });
            ("application/json", body.to_string())
        }
        Complaint::Plain => ("application/xml", format!("<Error>{}</Error>", error())),
        Complaint::Query => {
            let body = format!(
                "<ErrorResponse><Error><Type>Sender</Type>{}</Error><RequestId>sbx</RequestId></ErrorResponse>",
                error()
            );
            ("text/xml", body)
        }
        Complaint::Ec2 => {
            let body = format!(
                "<Response><Errors><Error>{}</Error></Errors><RequestID>sbx</RequestID></Response>",
                error()
            );
            ("text/xml", body)
        }
    };
    let mut response = page(status, body, denial.reason);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert("x-amzn-errortype", HeaderValue::from_static(code));
    response
}

/// The same for what was granted under a policy that is not in force any more.
pub fn revoked(grant: &Grant, reason: Reason) -> Response<AnswerBody> {
    let text = match reason {
        Reason::CredentialWithdrawn => "The credential that was written into this was withdrawn",
        _ => "The policy changed and no longer allows this",
    };
    denied(&Denial::new(&grant.generation, &grant.target, reason, text))
}

/// 421: blocked on this connection; on one of its own the same request would be judged as what it is (RFC 9110, section
/// 15.5.20).
pub fn misdirected(denial: &Denial) -> Response<AnswerBody> {
    blocked(StatusCode::MISDIRECTED_REQUEST, denial)
}

fn blocked(status: StatusCode, denial: &Denial) -> Response<AnswerBody> {
    let text = format!(
        "Blocked by network policy: domain {}\n{}\n",
        denial.target, denial.text
    );
    page(status, text, denial.reason)
}

/// 502: allowed, but it cannot be done.
pub fn failed(text: &str, reason: Reason) -> Response<AnswerBody> {
    page(
        StatusCode::BAD_GATEWAY,
        format!("Gateway error: {text}\n"),
        reason,
    )
}

/// 400: not understood.
pub fn bad_request(text: &str) -> Response<AnswerBody> {
    page(
        StatusCode::BAD_REQUEST,
        format!("Bad request: {text}\n"),
        Reason::BadRequest,
    )
}

/// 400, or 431 for a head that is too long: the bytes have no single meaning. The connection is closed, because nobody
/// can say where the next request begins.
pub fn bad_form(fault: Fault) -> Response<AnswerBody> {
    let mut response = bad_request(&fault.to_string());
    if fault == Fault::HeadTooLong {
        *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    }
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// 431: a head that is too long, in a request that can be told from the next one.
pub fn too_many_headers(text: &str) -> Response<AnswerBody> {
    let mut response = bad_request(text);
    *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    response
}

/// 417: an expectation that cannot be met.
pub fn expectation_failed(text: &str) -> Response<AnswerBody> {
    let mut response = bad_request(text);
    *response.status_mut() = StatusCode::EXPECTATION_FAILED;
    response
}

/// Marks the answer after which a connection is no longer HTTP.
#[derive(Debug, Clone, Copy)]
pub struct Connected;

/// An empty 200, the answer to `CONNECT`.
pub fn connected() -> Response<AnswerBody> {
    let mut response = Response::new(empty());
    response.extensions_mut().insert(Connected);
    response
}

fn page(status: StatusCode, text: String, reason: Reason) -> Response<AnswerBody> {
    let mut response = Response::new(full(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-sbx-reason", HeaderValue::from_static(reason.as_str()));
    response
}

/// What the daemon makes of an issuer's answer.
pub(super) fn issued(status: StatusCode, media_type: &str, text: &str) -> Response<AnswerBody> {
    let mut response = Response::new(full(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Ok(media_type) = HeaderValue::from_str(media_type) {
        headers.insert(CONTENT_TYPE, media_type);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A message of another protocol.
pub fn bytes(message: Vec<u8>) -> Response<AnswerBody> {
    let mut response = Response::new(full(message.into()));
    let media_type = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

/// A body without a byte.
pub fn empty() -> AnswerBody {
    full(Bytes::new())
}

fn full(bytes: Bytes) -> AnswerBody {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}
