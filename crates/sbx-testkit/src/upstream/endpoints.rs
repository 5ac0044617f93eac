//! The paths of the HTTP upstream.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode, Version};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::websocket;
use crate::http::{self, Reply};
use crate::recorder::{Event, Recorder};

/// Name in the record.
pub(super) const NAME: &str = "http";

/// Largest body that `/echo` keeps and sends back.
const ECHO_LIMIT: usize = 64 * 1024;

/// Size of one piece of `/big`.
const PIECE: usize = 64 * 1024;

/// Answers one request.
pub(super) async fn handle(recorder: Recorder, request: hyper::Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    if path == "/ws" || path == "/upgrade" {
        let seq = http::record(&recorder, NAME, &parts, 0, None, "upgrade".to_owned());
        let key = super::shown::key(&parts);
        let frames = (path == "/ws").then(|| (recorder.clone(), seq));
        let reply = upgrade(hyper::Request::from_parts(parts, body), frames);
        let reply = reply.with_header("x-shown", &key);
        recorder.push(Event::Answered {
            seq,
            status: reply.status(),
        });
        return reply;
    }
    let (length, kept, clean) = if path == "/upload" {
        let (length, clean) = http::count_body(body).await;
        (length, None, clean)
    } else {
        let kept = http::read_body(body, ECHO_LIMIT).await;
        (
            kept.as_ref().map_or(0, |bytes| bytes.len() as u64),
            kept,
            true,
        )
    };
    let note = if clean { "" } else { "body cut" };
    let seq = http::record(
        &recorder,
        NAME,
        &parts,
        length,
        kept.as_deref(),
        note.to_owned(),
    );
    let reply = route(&recorder, &parts, (&path, length, kept)).await;
    recorder.push(Event::Answered {
        seq,
        status: reply.status(),
    });
    reply
}

async fn route(
    recorder: &Recorder,
    parts: &Parts,
    (path, length, kept): (&str, u64, Option<Bytes>),
) -> Reply {
    let Some(kept) = kept else {
        return match path {
            "/upload" => http::json(StatusCode::OK, &json!({ "received": length })),
            _ => http::json(
                StatusCode::PAYLOAD_TOO_LARGE,
                &json!({ "limit": ECHO_LIMIT }),
            ),
        };
    };
    match path {
        "/sse" => events(number(parts, "events", 5), pause(parts, 20)),
        told if told.ends_with("/told") => {
            super::told::told(recorder.clone(), parts, number(parts, "events", 3))
        }
        "/trailer" => super::told::trailer(parts),
        "/kept" => super::told::kept(recorder),
        "/shown" => super::shown::shown(parts, &kept),
        "/big" => zeros(number(parts, "size", 1 << 20)),
        "/slow" => {
            tokio::time::sleep(pause(parts, 1000)).await;
            echo(parts, &kept)
        }
        "/status" => {
            let status = StatusCode::from_u16(number(parts, "code", 200));
            http::whole(
                status.unwrap_or(StatusCode::BAD_REQUEST),
                "text/plain",
                Bytes::new(),
            )
        }
        "/cut" => cut(number(parts, "after", 1000)),
        "/header" => http::whole(StatusCode::OK, "text/plain", Bytes::new()).with_header(
            http::query_param(parts, "name").unwrap_or("x-header"),
            http::query_param(parts, "value").unwrap_or(""),
        ),
        "/moved" => super::shown::moved(parts, &kept),
        "/redirect" => http::whole(StatusCode::FOUND, "text/plain", Bytes::new()).with_header(
            "location",
            http::query_param(parts, "to").unwrap_or("/echo"),
        ),
        _ => echo(parts, &kept),
    }
}

fn number<T: FromStr>(parts: &Parts, name: &str, otherwise: T) -> T {
    http::query_param(parts, name)
        .and_then(|value| value.parse().ok())
        .unwrap_or(otherwise)
}

/// `delay_ms` of the query, at most ten minutes.
fn pause(parts: &Parts, otherwise: u64) -> Duration {
    Duration::from_millis(number(parts, "delay_ms", otherwise).min(600_000))
}

fn echo(parts: &Parts, body: &Bytes) -> Reply {
    let seen = json!({
        "method": parts.method.as_str(),
        "uri": parts.uri.to_string(),
        "version": format!("{:?}", parts.version),
        "headers": headers(parts),
        "body": String::from_utf8_lossy(body),
    });
    http::json(StatusCode::OK, &seen)
}

/// Header names to values; a header that came several times has its values joined by `, `.
fn headers(parts: &Parts) -> Value {
    let mut seen = serde_json::Map::new();
    for (name, value) in http::header_pairs(parts) {
        match seen.get_mut(&name) {
            Some(Value::String(before)) => *before = format!("{before}, {value}"),
            _ => {
                seen.insert(name, Value::String(value));
            }
        }
    }
    Value::Object(seen)
}

fn events(count: u64, pause: Duration) -> Reply {
    let (mut sender, reply) = http::streamed(StatusCode::OK, "text/event-stream");
    tokio::spawn(async move {
        for number in 0..count {
            let event = format!("id: {number}\nevent: tick\ndata: {{\"number\":{number}}}\n\n");
            if sender.send_data(Bytes::from(event)).await.is_err() {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    });
    reply.with_header("cache-control", "no-cache")
}

fn zeros(size: u64) -> Reply {
    let (mut sender, reply) = http::streamed(StatusCode::OK, "application/octet-stream");
    tokio::spawn(async move {
        let piece = Bytes::from(vec![0; PIECE]);
        let mut left = size;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            if sender.send_data(piece.slice(..now)).await.is_err() {
                return;
            }
            left -= now as u64;
        }
    });
    reply.with_header("content-length", &size.to_string())
}

fn cut(after: u64) -> Reply {
    let (mut sender, reply) = http::streamed(StatusCode::OK, "application/octet-stream");
    let sent = usize::try_from(after).unwrap_or(PIECE).min(PIECE);
    tokio::spawn(async move {
        if sender.send_data(Bytes::from(vec![0; sent])).await.is_ok() {
            http::cut(sender).await;
        }
    });
    reply.with_header("content-length", &(sent as u64 + 1000).to_string())
}

/// Switches the connection (HTTP/1.1) or the stream (HTTP/2) over and echoes from there. `frames`: it is a WebSocket, whose
/// frames are recorded as those of this request.
fn upgrade(mut request: hyper::Request<Incoming>, frames: Option<(Recorder, u64)>) -> Reply {
    let header = |name: &str| {
        request
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let over_h2 = request.version() == Version::HTTP_2;
    let mut reply;
    if over_h2 {
        let protocol = request.extensions().get::<Protocol>();
        if request.method() != Method::CONNECT || protocol.is_none() {
            return http::json(
                StatusCode::BAD_REQUEST,
                &json!({ "error": "not an extended CONNECT" }),
            );
        }
        reply = http::whole(StatusCode::OK, "application/octet-stream", Bytes::new());
    } else {
        let Some(protocol) = header("upgrade") else {
            return http::whole(
                StatusCode::UPGRADE_REQUIRED,
                "text/plain",
                "an upgrade is needed\n",
            )
            .with_header("upgrade", "websocket");
        };
        reply = http::whole(StatusCode::SWITCHING_PROTOCOLS, "text/plain", Bytes::new())
            .with_header("connection", "Upgrade")
            .with_header("upgrade", &protocol);
        if frames.is_some() {
            let Some(key) = header("sec-websocket-key") else {
                return http::json(StatusCode::BAD_REQUEST, &json!({ "error": "no key" }));
            };
            reply = reply.with_header("sec-websocket-accept", &websocket::accept_key(&key));
        }
    }
    if let Reply::Answer(response) = &mut reply {
        response.headers_mut().remove("content-type");
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let mut stream = TokioIo::new(upgraded);
        if let Some((recorder, seq)) = frames {
            // The client may close in any way; nothing is owed to it then.
            let _ = websocket::echo(&mut stream, &recorder, seq).await;
            return;
        }
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            if stream.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
        let _ = stream.shutdown().await;
    });
    reply
}
