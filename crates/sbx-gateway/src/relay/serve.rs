//! The HTTP server that the guest talks to, with its limits.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::body::BodyError;
use super::page::{self, Answer, AnswerBody};
use crate::adapter::framing::{After, Fault};
use crate::adapter::guarded::{Arrival, Guarded};
use crate::adapter::h2_frames::Watched;
use crate::limits;

/// Serves HTTP/1.1 on a connection of the guest until it ends. Every byte goes past [`Guarded`] first. `refused`: the
/// library has ended it because of what the guest sent or did not send, and nobody else was told.
pub async fn serve_h1<S, F, A>(stream: S, answer: F, refused: impl FnOnce())
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>, Arrival) -> A + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let stream = Guarded::new(stream);
    let arrivals = stream.arrivals();
    let of_requests = arrivals.clone();
    let requests = AtomicU64::new(0);
    let unused = Arc::new(Mutex::<Option<OnUpgrade>>::default());
    let unused_by_answers = unused.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let number = requests.fetch_add(1, Ordering::Relaxed) + 1;
        let arrival = Arrival::new(of_requests.clone(), number);
        let upgrade = request.extensions().get::<OnUpgrade>().cloned();
        let unused = unused_by_answers.clone();
        let answer = arrival
            .is_in_step()
            .then(|| answer(request, arrival.clone()));
        async move {
            let Some(answer) = answer else {
                tracing::error!("the HTTP library sees other requests than the framing");
                return Ok(page::bad_form(Fault::RequestLine));
            };
            let answer = answer.await;
            if let Some(upgrade) = upgrade {
                let after = after(answer.as_ref().ok());
                let kept = (after == After::Http).then_some(upgrade);
                *unused.lock().unwrap_or_else(PoisonError::into_inner) = kept;
                arrival.answered(after);
            }
            answer
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::REQUEST_HEAD)
        .max_buf_size(limits::REQUEST_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection of the guest ended");
        if error.is_parse() || error.is_timeout() && arrivals.is_in_head() {
            refused();
        }
    }
    // After a request that could have changed the protocol and did not, the library hands the stream over as if it had,
    // and what was written would be lost if nobody closed it properly.
    let unused = unused.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(unused) = unused
        && let Ok(stream) = unused.await
    {
        let _ = TokioIo::new(stream).shutdown().await;
    }
}

/// What becomes of a connection whose request asked to change the protocol.
fn after(answer: Option<&Response<AnswerBody>>) -> After {
    match answer {
        // A 2xx is the answer to `CONNECT` only if it came from us, and then it has no body to speak of.
        Some(answer) if answer.extensions().get::<page::Connected>().is_some() => After::Other,
        Some(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => After::Other,
        _ => After::Http,
    }
}

/// Serves HTTP/2 on a connection of the guest until it ends. `refused`: as in [`serve_h1`], and also if requests were
/// refused by the library alone.
pub async fn serve_h2<S, F, A>(stream: S, room: &Arc<Semaphore>, answer: F, refused: impl FnOnce())
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> A + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let stream = Watched::new(stream);
    let tally = stream.tally();
    let handed_out = Arc::new(AtomicU64::new(0));
    let counter = handed_out.clone();
    let activity = Arc::new(Activity::new());
    let (busy, room) = (activity.clone(), room.clone());
    let service = hyper::service::service_fn(move |request| {
        counter.fetch_add(1, Ordering::Relaxed);
        let request_in_work = busy.begin();
        let (answer, room) = (answer(request), room.clone());
        async move {
            // Nobody closes it.
            let room = room.acquire_owned().await.ok();
            let hold = |body| Held {
                body,
                _until_its_end: (request_in_work, room),
            };
            answer.await.map(|answer| answer.map(hold))
        }
    });
    // Extended CONNECT (RFC 8441) is not offered: clients open a WebSocket over HTTP/1.1 then.
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::H2_STREAMS)
        .max_send_buf_size(limits::H2_SEND_BUFFER)
        .max_header_list_size(limits::H2_HEADERS)
        .initial_stream_window_size(limits::H2_WINDOW)
        .initial_connection_window_size(limits::H2_WINDOW)
        .serve_connection(TokioIo::new(stream), service);
    let broken = tokio::select! {
        served = serving => served.is_err_and(|error| is_broken(&error)),
        () = activity.idle() => {
            tracing::debug!("connection of the guest without a request closed");
            false
        }
    };
    if broken || tally.is_flooded() || tally.requests() > handed_out.load(Ordering::Relaxed) {
        refused();
    }
}

/// Whether the library has ended the connection because of what the guest sent.
fn is_broken(error: &hyper::Error) -> bool {
    tracing::debug!(%error, "connection of the guest ended");
    let cause = std::error::Error::source(error);
    let h2 = cause.and_then(|cause| cause.downcast_ref::<h2::Error>());
    h2.is_some_and(|error| error.is_library() && !error.is_io())
}

/// Requests in work on one connection, and since when there are none. The library has no such limit for HTTP/2.
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
    _until_its_end: (InWork, Option<OwnedSemaphorePermit>),
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

    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::super::page;
    use super::*;

    async fn late() -> Answer {
        tokio::time::sleep(Duration::from_mins(10)).await;
        Ok(page::bad_request("late"))
    }

    /// Connections whose requests are answered after ten minutes.
    fn h1() -> DuplexStream {
        h1_with(|| ())
    }

    fn h1_with(refused: impl FnOnce() + Send + 'static) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(serve_h1(theirs, |_, _| late(), refused));
        ours
    }

    fn h2() -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(limits::REQUESTS));
            serve_h2(theirs, &room, |_| late(), || ()).await;
        });
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
        for mut stream in [h1(), h2()] {
            let (_, after) = read_to_end(&mut stream).await;
            assert!(
                after <= limits::REQUEST_IDLE + Duration::from_secs(1),
                "{after:?}"
            );
        }
    }

    /// Sends a byte of `bytes` every five seconds until the connection ends. Returns how long that took.
    async fn dribble(stream: DuplexStream, bytes: &[u8]) -> Duration {
        let started = Instant::now();
        let (mut from, mut to) = tokio::io::split(stream);
        let mut heard = Vec::new();
        let write = async {
            for byte in bytes {
                if to.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = from.read_to_end(&mut heard) => started.elapsed(),
            () = write => unreachable!("it waits for ever"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn attack_38_a_head_that_comes_byte_by_byte_is_cut_off_and_told() {
        let head = format!(
            "GET / HTTP/1.1\r\nhost: a.test\r\nx: {}",
            "y".repeat(10_000)
        );
        let told = Arc::new(AtomicU64::new(0));
        let count = told.clone();
        let stream = h1_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let after = dribble(stream, head.as_bytes()).await;
        assert!(
            after <= limits::REQUEST_HEAD + Duration::from_secs(1),
            "{after:?}"
        );
        assert_eq!(told.load(Ordering::Relaxed), 1);
        // A client that has said nothing is let go without a word about it.
        let count = told.clone();
        let mut stream = h1_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        read_to_end(&mut stream).await;
        assert_eq!(told.load(Ordering::Relaxed), 1);
        // The same in HTTP/2: settings, and a request that never ends.
        let frames = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\x20\0\x01\0\0\0\0\x01"[..],
            &[0; 8192],
        ];
        let after = dribble(h2(), &frames.concat()).await;
        assert!(
            after <= limits::REQUEST_IDLE + Duration::from_secs(1),
            "{after:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_http2_connection_without_requests_is_let_go() {
        let mut stream = h2();
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
    async fn a_request_too_many_over_http2_is_refused_and_the_others_are_answered() {
        const HEADERS: u8 = 1;
        const RESET: u8 = 3;
        const REFUSED: u32 = 7;
        let mut stream = h2();
        let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for number in 0..=limits::H2_STREAMS {
            // GET https://a.test/, whole (RFC 7541, appendix A).
            let block = b"\x82\x84\x87\x41\x06a.test";
            sent.extend([0, 0, 11, HEADERS, 5]);
            sent.extend((2 * number + 1).to_be_bytes());
            sent.extend(block);
        }
        stream.write_all(&sent).await.unwrap();
        let (mut answered, mut refused) = (Vec::new(), Vec::new());
        while answered.len() + refused.len() <= limits::H2_STREAMS as usize {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let mut body = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
            stream.read_exact(&mut body).await.unwrap();
            let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match head[3] {
                HEADERS => answered.push(number),
                RESET => refused.push((number, u32::from_be_bytes(body.try_into().unwrap()))),
                _ => {}
            }
        }
        assert_eq!(refused, [(2 * limits::H2_STREAMS + 1, REFUSED)]);
        assert_eq!(answered.len(), limits::H2_STREAMS as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_takes_long_is_waited_for() {
        let mut stream = h1();
        let request = b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let (answer, _) = read_to_end(&mut stream).await;
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    }
}
