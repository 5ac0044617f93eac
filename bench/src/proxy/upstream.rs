//! The upstream behind every proxy of the comparison: TLS, HTTP/1.1, on a thread of its own.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Interval;
use tokio_rustls::TlsAcceptor;

/// The header that proxies replace.
pub(crate) const SECRET_HEADER: &str = "x-api-key";
/// Length of the small answer, in bytes.
pub(crate) const SMALL: usize = 1024;
/// Length of the large answer, in bytes.
pub(crate) const LARGE: usize = 1 << 20;
/// Events of a stream.
const EVENTS: usize = 100;
/// Between two events.
const EVENT_EVERY: Duration = Duration::from_millis(4);

/// Microseconds of the clock that all processes of the machine share.
pub(crate) fn monotonic_us() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    #[expect(
        clippy::cast_precision_loss,
        reason = "2^53 µs are three hundred years"
    )]
    let micros = (now.tv_sec as f64) * 1e6 + (now.tv_nsec as f64) / 1e3;
    micros
}

/// Starts the upstream; it runs as long as the process.
pub(crate) fn start(config: ServerConfig, secret: &str) -> Result<SocketAddr, String> {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| e.to_string())?;
    listener.set_nonblocking(true).map_err(|e| e.to_string())?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let answers = Arc::new(Answers {
        secret: secret.to_owned(),
        small: Bytes::from(vec![b's'; SMALL]),
        large: Bytes::from(vec![b'l'; LARGE]),
    });
    std::thread::spawn(move || {
        runtime.block_on(async {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let Ok(listener) = TcpListener::from_std(listener) else {
                return;
            };
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(acceptor.clone(), stream, answers.clone()));
                }
            }
        });
    });
    Ok(address)
}

struct Answers {
    secret: String,
    small: Bytes,
    large: Bytes,
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, answers: Arc<Answers>) {
    let _ = stream.set_nodelay(true);
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let service = service_fn(move |request| {
        let answer = answers.answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = hyper::server::conn::http1::Builder::new();
    // Clients go away as they like.
    let _ = served.serve_connection(TokioIo::new(stream), service).await;
}

impl Answers {
    fn answer(&self, request: &Request<Incoming>) -> Response<Either<Full<Bytes>, Events>> {
        let key = request.headers().get(SECRET_HEADER);
        let mut answer = if key.is_none_or(|key| key.as_bytes() != self.secret.as_bytes()) {
            let mut refused = Response::new(Either::Left(Full::default()));
            *refused.status_mut() = StatusCode::UNAUTHORIZED;
            refused
        } else {
            Response::new(match request.uri().path() {
                "/large" => Either::Left(Full::new(self.large.clone())),
                "/events" => Either::Right(Events::new()),
                _ => Either::Left(Full::new(self.small.clone())),
            })
        };
        let kind = match request.uri().path() {
            "/events" => "text/event-stream",
            _ => "application/octet-stream",
        };
        let kind = hyper::header::HeaderValue::from_static(kind);
        answer
            .headers_mut()
            .insert(hyper::header::CONTENT_TYPE, kind);
        answer
    }
}

/// Events that say when they were sent.
struct Events {
    left: usize,
    clock: Interval,
}

impl Events {
    fn new() -> Self {
        Self {
            left: EVENTS,
            clock: tokio::time::interval(EVENT_EVERY),
        }
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.clock.poll_tick(cx).map(|_| {
            self.left -= 1;
            let event = format!("data: {:.1}\n\n", monotonic_us());
            Some(Ok(Frame::data(event.into())))
        })
    }
}
