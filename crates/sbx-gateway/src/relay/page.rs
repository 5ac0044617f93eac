//! What the agent reads when something is stopped.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::BodyError;
use crate::decision::Denial;
use crate::reason::Reason;

/// Body of every answer to the guest.
pub type AnswerBody = UnsyncBoxBody<Bytes, BodyError>;

/// 403: what was blocked and why.
pub fn denied(denial: &Denial) -> Response<AnswerBody> {
    let status = match denial.reason {
        Reason::NotConfigured | Reason::ResolveFailed | Reason::NoAddress => {
            return failed(
                &format!("{}: {}", denial.target, denial.text),
                denial.reason,
            );
        }
        _ => StatusCode::FORBIDDEN,
    };
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

/// An empty 200, the answer to `CONNECT`.
pub fn connected() -> Response<AnswerBody> {
    Response::new(full(Bytes::new()))
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

fn full(bytes: Bytes) -> AnswerBody {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}
