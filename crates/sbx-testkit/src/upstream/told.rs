//! What came, told in other places than the body of its own answer: in events that each wait for a further request, behind
//! a body, and in answers to later requests.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{StatusCode, header};

use crate::http::{self, Reply};
use crate::recorder::Recorder;

/// A compressor whose output goes on as soon as something went in.
enum Encoder {
    None(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
}

impl Encoder {
    fn new(coding: &str) -> Self {
        match coding {
            "gzip" => Self::Gzip(GzEncoder::new(Vec::new(), Compression::default())),
            "br" => Self::Brotli(brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22).into()),
            _ => Self::None(Vec::new()),
        }
    }

    fn push(&mut self, text: &[u8]) -> io::Result<Bytes> {
        let writer: &mut dyn Write = match self {
            Self::None(out) => out,
            Self::Gzip(encoder) => encoder,
            Self::Brotli(encoder) => encoder,
        };
        writer.write_all(text)?;
        writer.flush()?;
        let out = match self {
            Self::None(out) => out,
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
        };
        Ok(std::mem::take(out).into())
    }

    fn end(self) -> io::Result<Bytes> {
        Ok(match self {
            Self::None(out) => out,
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Brotli(encoder) => encoder.into_inner(),
        }
        .into())
    }
}

/// Answers `/told`: one event for this request and one for each request to `/next` since, with the headers of this one, in
/// two writes that meet in the middle of its longest value.
pub(super) fn told(recorder: Recorder, parts: &Parts, count: usize) -> Reply {
    let coding = http::query_param(parts, "coding").unwrap_or("").to_owned();
    let pairs = http::header_pairs(parts);
    let mut event = String::from("data: ");
    for (name, value) in &pairs {
        event.push_str(&format!("{name}={value};"));
    }
    event.push_str("\n\n");
    let longest = pairs.iter().map(|(_, value)| value);
    let longest = longest.max_by_key(|value| value.len());
    let middle = longest.and_then(|value| Some(event.find(value.as_str())? + value.len() / 2));
    let (first, second) = event.split_at(middle.unwrap_or(0));
    let (first, second) = (first.to_owned(), second.to_owned());
    let (mut sender, mut reply) = http::streamed(StatusCode::OK, "text/event-stream");
    if !coding.is_empty() {
        reply = reply.with_header("content-encoding", &coding);
    }
    let before = asked_for_more(&recorder);
    tokio::spawn(async move {
        let mut encoder = Encoder::new(&coding);
        for number in 0..count {
            while asked_for_more(&recorder) < before + number {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            for half in [&first, &second] {
                let Ok(piece) = encoder.push(half.as_bytes()) else {
                    return;
                };
                if sender.send_data(piece).await.is_err() {
                    return;
                }
                // So that they are not put together again.
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
        if let Ok(end) = encoder.end() {
            let _ = sender.send_data(end).await;
        }
    });
    reply
}

fn asked_for_more(recorder: &Recorder) -> usize {
    let requests = recorder.requests();
    requests.iter().filter(|one| one.path == "/next").count()
}

/// Answers `/trailer`: the key is in a trailer.
pub(super) fn trailer(parts: &Parts) -> Reply {
    let key = super::shown::key(parts);
    let (mut sender, reply) = http::streamed(StatusCode::OK, "text/plain");
    tokio::spawn(async move {
        let mut trailers = HeaderMap::new();
        if let Ok(key) = HeaderValue::from_str(&key) {
            trailers.insert(HeaderName::from_static("x-shown"), key);
        }
        if sender.send_data(Bytes::from_static(b"body")).await.is_ok() {
            let _ = sender.send_trailers(trailers).await;
        }
    });
    reply.with_header(header::TRAILER.as_str(), "x-shown")
}

/// Answers `/kept`: the headers and the body of the last request to `/keep`.
pub(super) fn kept(recorder: &Recorder) -> Reply {
    let requests = recorder.requests();
    let last = requests.iter().rev().find(|one| one.path == "/keep");
    let text = last.map_or_else(String::new, |one| {
        let headers = one.headers.iter();
        let headers = headers.map(|(name, value)| format!("{name}: {value}\n"));
        let body = match &one.body {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        headers.collect::<String>() + &body
    });
    http::whole(StatusCode::OK, "text/plain", Bytes::from(text))
}
