//! The HTTP server that the guest talks to, with its limits.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::body::BodyError;
use super::page::AnswerBody;
use crate::limits;

/// Serves HTTP/1.1 on a connection of the guest until it ends.
pub async fn serve_h1<S, F, A>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> A + Send + 'static,
    A: Future<Output = Response<AnswerBody>> + Send + 'static,
{
    let service = hyper::service::service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::REQUEST_HEAD)
        .max_buf_size(limits::REQUEST_HEAD_BYTES)
        .max_headers(limits::HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection of the guest ended");
    }
}

/// Serves HTTP/2 or HTTP/1.1 on a connection of the guest, as the client begins.
pub async fn serve_any<S, F, A>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> A + Send + 'static,
    A: Future<Output = Response<AnswerBody>> + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let busy = activity.clone();
    let service = hyper::service::service_fn(move |request| {
        let request_in_work = busy.begin();
        let answer = answer(request);
        async move {
            let answer = answer.await.map(|body| Held {
                body,
                _until_its_end: request_in_work,
            });
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::REQUEST_HEAD)
        .max_buf_size(limits::REQUEST_HEAD_BYTES)
        .max_headers(limits::HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::H2_STREAMS)
        .max_send_buf_size(limits::H2_SEND_BUFFER)
        .max_header_list_size(limits::H2_HEADERS)
        .initial_stream_window_size(limits::H2_WINDOW)
        .initial_connection_window_size(limits::H2_WINDOW);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let served = tokio::select! {
        served = serving => served,
        () = activity.idle() => {
            tracing::debug!("connection of the guest without a request closed");
            return;
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection of the guest ended");
    }
}

/// Requests in work on one connection, and since when there are none. The library has no such limit before it knows
/// the protocol, and none for HTTP/2.
struct Activity(Mutex<(usize, Instant)>);

impl Activity {
    fn new() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }

    fn lock(&self) -> MutexGuard<'_, (usize, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>) -> InWork {
        self.lock().0 += 1;
        InWork(self.clone())
    }

    /// Waits until there has been no request for [`limits::REQUEST_IDLE`].
    async fn idle(&self) {
        loop {
            let due = match *self.lock() {
                (0, since) => since + limits::REQUEST_IDLE,
                _ => Instant::now() + limits::REQUEST_IDLE,
            };
            if due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// One request, until its answer has been passed on or given up.
struct InWork(Arc<Activity>);

impl Drop for InWork {
    fn drop(&mut self) {
        let mut activity = self.0.lock();
        activity.0 -= 1;
        activity.1 = Instant::now();
    }
}

/// An answer's body that counts as work.
struct Held {
    body: AnswerBody,
    _until_its_end: InWork,
}

impl Body for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::super::page;
    use super::*;

    /// A connection whose requests are answered after ten minutes.
    fn connection() -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve_any(theirs, |_| async {
            tokio::time::sleep(Duration::from_mins(10)).await;
            page::bad_request("late")
        }));
        ours
    }

    async fn read_to_end(stream: &mut DuplexStream) -> (Vec<u8>, Duration) {
        let started = Instant::now();
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        let read = tokio::time::timeout(Duration::from_hours(24), read).await;
        read.expect("never closed").unwrap();
        (bytes, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_let_go() {
        let (_, after) = read_to_end(&mut connection()).await;
        assert!(
            after <= limits::REQUEST_IDLE + Duration::from_secs(1),
            "{after:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_http2_connection_without_requests_is_let_go() {
        let mut stream = connection();
        // Preface and empty settings (RFC 9113, section 3.4).
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .unwrap();
        let (settings, after) = read_to_end(&mut stream).await;
        assert!(!settings.is_empty());
        assert!(
            after <= limits::REQUEST_IDLE + Duration::from_secs(1),
            "{after:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_takes_long_is_waited_for() {
        let mut stream = connection();
        let request = b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let (answer, _) = read_to_end(&mut stream).await;
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    }
}
