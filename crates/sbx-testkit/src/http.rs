//! Bodies, replies and the recorded form of a request.

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use serde_json::Value;

use crate::recorder::{Event, Recorder, Request};

/// A streamed body was cut on purpose or its producer went away.
#[derive(Debug, thiserror::Error)]
#[error("the stand-in cut the answer")]
pub(crate) struct Cut;

/// Body of an answer: whole or streamed.
pub(crate) type AnswerBody = Either<Full<Bytes>, Channel<Bytes, Cut>>;

/// Producer side of a streamed answer.
pub(crate) type Stream = Sender<Bytes, Cut>;

/// What a handler gives back.
pub(crate) enum Reply {
    /// An answer.
    Answer(Response<AnswerBody>),
    /// Close the connection without one.
    Hangup,
}

impl Reply {
    /// As hyper wants it: the error ends the connection (HTTP/1.1) or resets the stream (HTTP/2).
    pub(crate) fn into_response(self) -> Result<Response<AnswerBody>, Cut> {
        match self {
            Self::Answer(response) => Ok(response),
            Self::Hangup => Err(Cut),
        }
    }

    /// Sets a header unless this is a hangup. Values that are not valid in a header are left out.
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer(response) = &mut self
            && let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_str(value),
            )
        {
            response.headers_mut().insert(name, value);
        }
        self
    }

    /// The same answer without its body, for HEAD. The length of the body stays in its header.
    pub(crate) fn without_body(mut self) -> Self {
        if let Self::Answer(response) = &mut self {
            let length = response.body().size_hint().exact();
            if let Some(length) =
                length.filter(|_| !response.headers().contains_key(CONTENT_LENGTH))
            {
                response
                    .headers_mut()
                    .insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            *response.body_mut() = Either::Left(Full::default());
        }
        self
    }

    /// Status of the answer, 0 for a hangup.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Answer(response) => response.status().as_u16(),
            Self::Hangup => 0,
        }
    }
}

/// A complete answer.
pub(crate) fn whole(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Reply {
    let mut response = Response::new(Either::Left(Full::new(body.into())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Reply::Answer(response)
}

/// A complete JSON answer.
pub(crate) fn json(status: StatusCode, body: &Value) -> Reply {
    whole(status, "application/json", body.to_string())
}

/// An answer whose body is produced piece by piece. At most `4` pieces wait for a slow reader.
pub(crate) fn streamed(status: StatusCode, content_type: &'static str) -> (Stream, Reply) {
    let (sender, body) = Channel::new(4);
    let mut response = Response::new(Either::Right(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    (sender, Reply::Answer(response))
}

/// Cuts a streamed answer once what was sent before has left.
pub(crate) async fn cut(sender: Stream) {
    // hyper forgets what it has not written when a body fails. All tasks of a stand-in share one thread, so
    // giving way lets the stream and the connection move the pieces to the socket: at most three tasks
    // follow each other there (body, HTTP/2 stream, connection).
    for _ in 0..16 {
        tokio::task::yield_now().await;
    }
    sender.abort(Cut);
}

/// Reads a body of at most `limit` bytes. None: it is longer, or the client went away.
pub(crate) async fn read_body(body: Incoming, limit: usize) -> Option<Bytes> {
    Limited::new(body, limit)
        .collect()
        .await
        .ok()
        .map(http_body_util::Collected::to_bytes)
}

/// Reads a body to its end and only counts it. The second value says whether it ended cleanly.
pub(crate) async fn count_body(mut body: Incoming) -> (u64, bool) {
    let mut total = 0;
    while !body.is_end_stream() {
        match body.frame().await {
            Some(Ok(frame)) => total += frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) => return (total, false),
            None => break,
        }
    }
    (total, true)
}

/// Header names and values in order of arrival.
pub(crate) fn header_pairs(parts: &Parts) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

/// Writes a request down and returns its number.
pub(crate) fn record(
    recorder: &Recorder,
    server: &'static str,
    parts: &Parts,
    body_bytes: u64,
    body: Option<&[u8]>,
    note: String,
) -> u64 {
    let seq = recorder.next_seq();
    recorder.push(Event::Request(Request {
        seq,
        server,
        version: format!("{:?}", parts.version),
        method: parts.method.to_string(),
        uri: parts.uri.to_string(),
        path: parts.uri.path().to_owned(),
        headers: header_pairs(parts),
        body_bytes,
        body: body.filter(|bytes| !bytes.is_empty()).map(body_value),
        note,
    }));
    seq
}

fn body_value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

/// Value of a query parameter, undecoded.
pub(crate) fn query_param<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    parts.uri.query()?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then_some(value)
    })
}
