//! A debug page: what came, shown in whatever form a server can give it.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use hyper::StatusCode;
use hyper::http::request::Parts;

use crate::http::{self, Reply};

/// Answers `/shown`.
pub(super) fn shown(parts: &Parts, body: &Bytes) -> Reply {
    let mut text = String::new();
    for (name, value) in http::header_pairs(parts) {
        text.push_str(&format!("{name}: {value}\n"));
    }
    text.push_str(&format!("{}\n{}", parts.uri, String::from_utf8_lossy(body)));
    let coding = http::query_param(parts, "coding").unwrap_or("");
    let encoded = encode(coding, text.as_bytes()).unwrap_or_default();
    let pieces = http::query_param(parts, "pieces").and_then(|pieces| pieces.parse().ok());
    let pieces = pieces.unwrap_or(encoded.len()).max(1);
    let length = encoded.len();
    let (mut sender, mut reply) = http::streamed(StatusCode::OK, "text/plain");
    tokio::spawn(async move {
        for piece in encoded.chunks(pieces) {
            if sender
                .send_data(Bytes::copy_from_slice(piece))
                .await
                .is_err()
            {
                return;
            }
            // So that they are not put together again.
            tokio::task::yield_now().await;
        }
    });
    if http::query_param(parts, "length").is_some() {
        reply = reply.with_header("content-length", &length.to_string());
    }
    if !coding.is_empty() {
        reply = reply.with_header("content-encoding", coding);
    }
    reply.with_header("x-shown", &key(parts))
}

/// Answers `/moved`: a redirect that takes the key along.
pub(super) fn moved(parts: &Parts, body: &Bytes) -> Reply {
    let mut reply = shown(parts, body);
    if let Reply::Answer(answer) = &mut reply {
        *answer.status_mut() = StatusCode::FOUND;
    }
    let to = http::query_param(parts, "to").unwrap_or("/echo");
    let key = parts.headers.get("x-api-key");
    let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
    reply.with_header("location", &format!("{to}?key={key}"))
}

/// The key of a request, as it is shown in the head of the answer.
pub(super) fn key(parts: &Parts) -> String {
    let key = parts.headers.get("x-api-key");
    let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
    format!("key={key};")
}

fn encode(coding: &str, text: &[u8]) -> io::Result<Vec<u8>> {
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text)?;
            encoder.finish()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text)?;
            encoder.finish()
        }
        "br" => {
            let mut encoded = Vec::new();
            let mut encoder = brotli::CompressorWriter::new(&mut encoded, 4096, 5, 22);
            encoder.write_all(text)?;
            drop(encoder);
            Ok(encoded)
        }
        _ => Ok(text.to_vec()),
    }
}
