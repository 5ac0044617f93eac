//! What the services answer.

use bytes::Bytes;
use flate2::Crc;
use hyper::StatusCode;
use hyper::header::HOST;
use hyper::http::request::Parts;
use hyper::http::uri::Authority;

use super::{State, s3, sts};
use crate::http::{self, Reply};

/// Answers as the service of the host.
pub(super) fn answer(state: &State, parts: &Parts, body: &Bytes) -> Reply {
    let named = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = named.or(parts.uri.authority().map(Authority::as_str));
    let host = host.unwrap_or_default();
    if let Some((bucket, _)) = host.split_once(".s3.") {
        return s3::answer(state, bucket, parts, body);
    }
    match host.split('.').next().unwrap_or_default() {
        "sts" => sts::answer(&state.sessions, parts, body),
        "iam" => query(
            "ListAccessKeys",
            &format!(
                "<IsTruncated>false</IsTruncated><AccessKeyMetadata><member><UserName>somebody</UserName><AccessKeyId>{}</AccessKeyId><Status>Active</Status></member></AccessKeyMetadata>",
                state.key.access_key_id
            ),
        ),
        "bedrock-runtime" if parts.uri.path().ends_with("/converse-stream") => converse_stream(),
        "bedrock-runtime" => http::whole(
            StatusCode::OK,
            "application/json",
            r#"{"output":{"message":{"role":"assistant","content":[{"text":"hello from a model"}]}},"stopReason":"end_turn","usage":{"inputTokens":1,"outputTokens":1,"totalTokens":2},"metrics":{"latencyMs":1}}"#,
        ),
        _ => http::whole(StatusCode::OK, "application/json", "{}"),
    }
}

pub(super) fn query(action: &str, result: &str) -> Reply {
    let text =
        format!("<{action}Response><{action}Result>{result}</{action}Result></{action}Response>");
    http::whole(StatusCode::OK, "text/xml", text)
}

/// Events one after the other (`application/vnd.amazon.eventstream`).
fn converse_stream() -> Reply {
    let events = [
        ("messageStart", r#"{"role":"assistant"}"#),
        (
            "contentBlockDelta",
            r#"{"contentBlockIndex":0,"delta":{"text":"hello "}}"#,
        ),
        (
            "contentBlockDelta",
            r#"{"contentBlockIndex":0,"delta":{"text":"in pieces"}}"#,
        ),
        ("contentBlockStop", r#"{"contentBlockIndex":0}"#),
        ("messageStop", r#"{"stopReason":"end_turn"}"#),
    ];
    let (mut sender, reply) = http::streamed(StatusCode::OK, "application/vnd.amazon.eventstream");
    tokio::spawn(async move {
        for (kind, payload) in events {
            if sender.send_data(event(kind, payload).into()).await.is_err() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    reply
}

/// One message: lengths, checksum, headers, payload, checksum.
fn event(kind: &str, payload: &str) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in [
        (":event-type", kind),
        (":content-type", "application/json"),
        (":message-type", "event"),
    ] {
        headers.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        headers.extend_from_slice(name.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let mut message = Vec::new();
    message.extend_from_slice(&length(16 + headers.len() + payload.len()));
    message.extend_from_slice(&length(headers.len()));
    message.extend_from_slice(&checksum(&message));
    message.extend_from_slice(&headers);
    message.extend_from_slice(payload.as_bytes());
    message.extend_from_slice(&checksum(&message));
    message
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_be_bytes()
}
