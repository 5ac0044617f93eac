//! The part that all servers share: a thread with a runtime, a listener, TLS, counted bytes, an end.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket as StdUdp};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::Method;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::http::Reply;
use crate::recorder::{Event, Recorder};
use crate::tls::TlsError;

/// Why a stand-in did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is not on loopback. Stand-ins hold no secrets of value, but answer anybody.
    #[error("{0} is not a loopback address")]
    NotLoopback(SocketAddr),
    /// The address could not be bound.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No thread or no runtime.
    #[error("cannot start the server thread: {0}")]
    Thread(io::Error),
    /// Certificates could not be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The script cannot be played.
    #[error("the script is not usable: {0}")]
    Script(String),
}

/// A server thread. Dropping it ends every connection and joins the thread.
#[derive(Debug)]
pub(crate) struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Runs `make()` on a new thread until it ends or the value is dropped.
    pub(crate) fn spawn<F, Fut>(name: &str, make: F) -> Result<Self, StartError>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = ()>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = make() => {}
                        _ = stopped => {}
                    }
                });
                // Dropping the runtime drops all connection tasks, which closes their sockets.
            })
            .map_err(StartError::Thread)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server thread was reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

/// Binds a loopback TCP listener, ready for tokio.
pub(crate) fn bind_tcp(address: SocketAddr) -> Result<(StdListener, SocketAddr), StartError> {
    require_loopback(address)?;
    let bound = StdListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        let local = listener.local_addr()?;
        Ok((listener, local))
    });
    bound.map_err(|source| StartError::Bind { address, source })
}

/// Binds a loopback UDP socket, ready for tokio.
pub(crate) fn bind_udp(address: SocketAddr) -> Result<StdUdp, StartError> {
    require_loopback(address)?;
    let bound = StdUdp::bind(address).and_then(|socket| {
        socket.set_nonblocking(true)?;
        Ok(socket)
    });
    bound.map_err(|source| StartError::Bind { address, source })
}

fn require_loopback(address: SocketAddr) -> Result<(), StartError> {
    if address.ip().is_loopback() {
        Ok(())
    } else {
        Err(StartError::NotLoopback(address))
    }
}

/// What an HTTP stand-in needs besides its handler.
pub(crate) struct HttpServer {
    pub(crate) name: &'static str,
    pub(crate) listener: StdListener,
    pub(crate) tls: Option<ServerConfig>,
    pub(crate) recorder: Recorder,
}

impl HttpServer {
    /// Accepts for ever; each request goes to `handle`.
    pub(crate) async fn serve<H, Fut>(self, handle: H)
    where
        H: Fn(hyper::Request<Incoming>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        let acceptor = self.tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let Ok(listener) = TcpListener::from_std(self.listener) else {
            return;
        };
        loop {
            let Some(stream) = accept(&listener, self.name, &self.recorder).await else {
                continue;
            };
            let (acceptor, handle) = (acceptor.clone(), handle.clone());
            let (name, recorder) = (self.name, self.recorder.clone());
            tokio::spawn(async move {
                let Some(acceptor) = acceptor else {
                    return connection(stream, handle).await;
                };
                match acceptor.accept(stream).await {
                    Ok(stream) => {
                        let session = stream.get_ref().1;
                        recorder.push(Event::Handshake {
                            server: name,
                            sni: session.server_name().map(str::to_owned),
                            alpn: session
                                .alpn_protocol()
                                .map(|p| String::from_utf8_lossy(p).into()),
                            error: None,
                        });
                        connection(stream, handle).await;
                    }
                    Err(error) => recorder.push(Event::Handshake {
                        server: name,
                        sni: None,
                        alpn: None,
                        error: Some(error.to_string()),
                    }),
                }
            });
        }
    }
}

/// Accepts one connection and writes it down. None: the attempt failed (such as out of descriptors).
pub(crate) async fn accept(
    listener: &TcpListener,
    server: &'static str,
    recorder: &Recorder,
) -> Option<Counted> {
    let Ok((stream, peer)) = listener.accept().await else {
        // Out of descriptors is the usual reason; it passes only when other connections end.
        tokio::time::sleep(Duration::from_millis(10)).await;
        return None;
    };
    recorder.push(Event::Connected { server, peer });
    // Small events must leave at once, as the original's do.
    let _ = stream.set_nodelay(true);
    Some(Counted {
        stream,
        server,
        recorder: recorder.clone(),
        received: 0,
        sent: 0,
    })
}

async fn connection<S, H, Fut>(stream: S, handle: H)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(hyper::Request<Incoming>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Reply> + Send + 'static,
{
    let service = service_fn(move |request| {
        let head = request.method() == Method::HEAD;
        let reply = handle(request);
        async move {
            let reply = reply.await;
            // hyper leaves the body away by itself on HTTP/1.1 only.
            let reply = if head { reply.without_body() } else { reply };
            reply.into_response()
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().enable_connect_protocol();
    // The peer may go away at any time: that is what many tests do.
    let _ = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
}

/// A TCP stream whose bytes are counted; the counts are recorded when it closes.
pub(crate) struct Counted {
    stream: TcpStream,
    server: &'static str,
    recorder: Recorder,
    received: u64,
    sent: u64,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let got = buf.filled().len() - before;
        self.received += got as u64;
        self.recorder.count_received(got);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(written)) = polled {
            self.sent += written as u64;
            self.recorder.count_sent(written);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.recorder.push(Event::Closed {
            server: self.server,
            received: self.received,
            sent: self.sent,
        });
    }
}
