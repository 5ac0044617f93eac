//! One request on a connection, and its answer: a document, or lines that come one after the other.

use crate::socket;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sbx_wire::report::Report;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::net::UnixStream;

/// Longest answer that is read, bytes.
const MAX_ANSWER: usize = 64 << 20;

/// One request and its answer, within a time if there is one for it.
pub(crate) async fn exchange<B: Serialize, T: DeserializeOwned>(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: &B,
    limit: Option<Duration>,
) -> Result<T, Report> {
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let answer = async { read_json(send(stream, method, path, body).await?).await };
    match limit {
        None => answer.await,
        Some(limit) => {
            let answer = tokio::time::timeout(limit, answer).await;
            answer.unwrap_or_else(|_| Err(silent(pid, limit)))
        }
    }
}

async fn send<B: Serialize>(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: &B,
) -> Result<Response<Incoming>, Report> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| lost())?;
    tokio::spawn(connection);
    let body = serde_json::to_vec(body)
        .map_err(|error| Report::bug("json", format!("cannot encode the request: {error}")))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "sbx")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| Report::bug("api", format!("cannot build the request: {error}")))?;
    sender.send_request(request).await.map_err(|_| lost())
}

async fn read_json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, Report> {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|_| lost())?
        .to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| other_version(&error));
    }
    Err(serde_json::from_slice(&body).unwrap_or_else(|_| {
        Report::bug(
            "api",
            format!("the daemon answered {status} without a reason"),
        )
    }))
}

/// A request whose answer is streamed.
pub(crate) async fn lines<B: Serialize>(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: &B,
) -> Result<Lines, Report> {
    let response = send(stream, method, path, body).await?;
    if response.status() == StatusCode::OK {
        return Ok(Lines::new(response));
    }
    let report = read_json::<serde_json::Value>(response).await.err();
    Err(report.unwrap_or_else(lost))
}

/// A streamed answer: one JSON document a line.
pub(crate) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    fn new(response: Response<Incoming>) -> Self {
        Self {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }

    /// The next document; `None` at the end. Nothing is lost when the future is dropped.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Report> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let document = serde_json::from_slice(&line);
                return document.map(Some).map_err(|error| other_version(&error));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|_| lost())?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
            if self.buffer.len() > MAX_ANSWER {
                return Err(Report::bug("api", "the daemon sent an endless line"));
            }
        }
    }
}

fn other_version(error: &serde_json::Error) -> Report {
    Report::environment(
        "api-version",
        format!("the daemon's answer is not understood: {error}"),
        "sbx daemon restart",
    )
}

pub(crate) fn lost() -> Report {
    Report::environment(
        "daemon-lost",
        "the daemon went away during the request",
        "run the command again; `sbx daemon status` names the log",
    )
}

fn silent(pid: Option<i32>, limit: Duration) -> Report {
    let pid = pid.map_or_else(|| "its PID".to_owned(), |pid| pid.to_string());
    Report::environment(
        socket::UNREACHABLE,
        format!(
            "the daemon (pid {pid}) has not answered within {} s",
            limit.as_secs()
        ),
        format!(
            "wait if it starts or stops sandboxes, else kill -KILL {pid}: sandboxes keep running, and the next command starts another one"
        ),
    )
}
