//! HTTP connections to upstreams: what can be sent on one, and what comes back.

use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::DialError;
use crate::limits;
use crate::reason::Reason;
use crate::relay::body::Sending;
use crate::relay::source::Source;

/// Body of a request on its way upstream.
pub type RequestBody = Sending<Source>;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The upstream broke the connection or the protocol.
    #[error("the upstream did not answer: {0}")]
    Http(#[from] hyper::Error),
    /// No answer within the limit.
    #[error("the upstream did not begin its answer in time")]
    Slow,
    /// The upstream changed the protocol although nobody had asked it to.
    #[error("the upstream changed the protocol without being asked")]
    Switched,
    /// The upstream chose an extension for a WebSocket, and none was offered.
    #[error("the upstream chose an extension for the WebSocket that nobody had offered")]
    Extension,
    /// More headers than are passed on.
    #[error("the upstream's answer has too many headers")]
    Headers,
    /// The head cannot be written in the upstream's protocol.
    #[error("the request cannot be sent on: {0}")]
    Head(#[from] hyper::http::Error),
    /// Something changed before the upstream answered.
    #[error("this is no longer allowed")]
    Revoked(Reason),
}

impl SendError {
    /// The code for records of what came to nothing through no fault of the guest's.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Dial(error) => error.reason(),
            Self::Head(_) => Reason::BadRequest,
            Self::Revoked(reason) => *reason,
            Self::Http(_) | Self::Slow | Self::Headers | Self::Switched | Self::Extension => {
                Reason::UpstreamUnreachable
            }
        }
    }

    /// The error of an upstream that has reset this one stream of HTTP/2, which the guest is told in the same way.
    pub fn into_reset(self) -> Result<hyper::Error, Self> {
        let is_reset = |error: &hyper::Error| {
            let cause = std::error::Error::source(error);
            let h2 = cause.and_then(|cause| cause.downcast_ref::<h2::Error>());
            h2.is_some_and(|error| error.is_reset() && error.is_remote())
        };
        match self {
            Self::Http(error) if is_reset(&error) => Ok(error),
            other => Err(other),
        }
    }
}

/// What became of a request.
pub enum Sent {
    /// The upstream answered.
    Answered(Response<Incoming>),
    /// The connection was closed before anything was sent, as idle ones are.
    Nothing(Box<Request<RequestBody>>, SendError),
    /// Something was sent, and no answer came.
    Broken(SendError),
}

/// One upstream connection.
pub enum Sender {
    /// HTTP/1.1: one request at a time.
    H1(http1::SendRequest<RequestBody>),
    /// HTTP/2: shared.
    H2(http2::SendRequest<RequestBody>),
}

impl Sender {
    /// Whether the connection speaks HTTP/2.
    pub fn is_h2(&self) -> bool {
        matches!(self, Self::H2(_))
    }

    /// Sends a request; the answer's head comes back, its body streams. A request of which nothing was
    /// sent comes back whole.
    pub async fn send(&mut self, request: Request<RequestBody>) -> Sent {
        let answer = async {
            match self {
                Self::H1(sender) => sender.try_send_request(request).await,
                Self::H2(sender) => sender.try_send_request(request).await,
            }
        };
        match tokio::time::timeout(limits::RESPONSE_HEAD, answer).await {
            // As over HTTP/1.1, where the library has it so.
            Ok(Ok(answer)) if answer.headers().len() > limits::HEADERS => {
                Sent::Broken(SendError::Headers)
            }
            Ok(Ok(answer)) => Sent::Answered(answer),
            Ok(Err(mut error)) => match error.take_message() {
                Some(request) => Sent::Nothing(Box::new(request), error.into_error().into()),
                None => Sent::Broken(error.into_error().into()),
            },
            Err(_) => Sent::Broken(SendError::Slow),
        }
    }

    /// Whether a request can be sent now.
    pub fn is_usable(&self) -> bool {
        match self {
            Self::H1(sender) => sender.is_ready() && !sender.is_closed(),
            Self::H2(sender) => sender.is_ready() && !sender.is_closed(),
        }
    }

    /// Whether none can be sent any more.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::H1(sender) => sender.is_closed(),
            Self::H2(sender) => sender.is_closed(),
        }
    }
}

/// Speaks HTTP/1.1 on a new connection.
pub(super) async fn handshake_h1<S>(stream: S) -> Result<Sender, SendError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(limits::REQUEST_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    // Ends when the sender is dropped and the last answer has been read, or with the upstream.
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok(Sender::H1(sender))
}

/// Speaks HTTP/2 on a new connection.
pub(super) async fn handshake_h2<S>(stream: S) -> Result<Sender, SendError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(limits::H2_WINDOW)
        .initial_connection_window_size(limits::H2_WINDOW)
        .max_send_buf_size(limits::H2_SEND_BUFFER)
        .max_header_list_size(limits::H2_HEADERS)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Sender::H2(sender))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use bytes::Bytes;
    use http_body_util::Empty;
    use hyper::header::HeaderValue;
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::live::tests::lease;

    /// An upstream that answers nothing below `/never`.
    async fn upstream() -> http2::SendRequest<RequestBody> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
            if request.uri().path() == "/never" {
                std::future::pending::<()>().await;
            }
            let mut answer = Response::new(Empty::<Bytes>::new());
            let many = request.uri().query().unwrap_or_default();
            for _ in 0..many.parse().unwrap_or(0) {
                let value = HeaderValue::from_static("y");
                answer.headers_mut().append("x", value);
            }
            Ok::<_, Infallible>(answer)
        });
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(theirs), service);
        tokio::spawn(serving);
        match handshake_h2(ours).await.unwrap() {
            Sender::H2(sender) => sender,
            Sender::H1(_) => unreachable!("it speaks HTTP/2"),
        }
    }

    fn request(path: &str) -> Request<RequestBody> {
        let body = Sending::new(Source::Read(None, None), lease().feed());
        let uri = format!("https://a.test{path}");
        Request::get(uri).body(body).unwrap()
    }

    #[tokio::test]
    async fn an_answer_with_too_many_headers_is_none() {
        let mut sender = Sender::H2(upstream().await);
        // The library adds the date.
        let most = limits::HEADERS - 1;
        let sent = sender.send(request(&format!("/?{most}"))).await;
        assert!(
            matches!(sent, Sent::Answered(answer) if answer.headers().len() == limits::HEADERS)
        );
        let sent = sender.send(request(&format!("/?{}", most + 1))).await;
        assert!(matches!(sent, Sent::Broken(SendError::Headers)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_begin_is_given_up_and_others_of_its_connection_come() {
        let sender = upstream().await;
        let (mut waiting, mut other) = (Sender::H2(sender.clone()), Sender::H2(sender));
        let started = Instant::now();
        let slow = async { (waiting.send(request("/never")).await, started.elapsed()) };
        let others = async {
            for _ in 0..3 {
                sleep((limits::RESPONSE_HEAD / 2).saturating_sub(Duration::from_secs(1))).await;
                assert!(matches!(other.send(request("/")).await, Sent::Answered(_)));
            }
        };
        let ((sent, after), ()) = tokio::join!(slow, others);
        assert!(matches!(sent, Sent::Broken(SendError::Slow)));
        assert_eq!(after.as_secs(), limits::RESPONSE_HEAD.as_secs());
    }
}
