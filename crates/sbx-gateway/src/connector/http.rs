//! HTTP connections to upstreams, kept for as long as the guest's connection they belong to.

use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::HeaderMap;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sbx_policy::Target;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{DialError, dial, dial_tls};
use crate::decision::Grant;
use crate::limits;
use crate::relay::body::Watched;

/// Body of a request on its way upstream.
pub type RequestBody = Watched<Incoming>;

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
    /// The head cannot be written in the upstream's protocol.
    #[error("the request cannot be sent on: {0}")]
    Head(#[from] hyper::http::Error),
    /// The policy changed before the upstream answered.
    #[error("the policy changed and no longer allows this")]
    Revoked,
}

/// What became of a request.
pub enum Sent {
    /// The upstream answered.
    Answered(Response<Incoming>),
    /// The connection was closed before anything was sent, as idle ones are.
    Nothing(Request<RequestBody>, SendError),
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
            Ok(Ok(answer)) => Sent::Answered(answer),
            Ok(Err(mut error)) => match error.take_message() {
                Some(request) => Sent::Nothing(request, error.into_error().into()),
                None => Sent::Broken(error.into_error().into()),
            },
            Err(_) => Sent::Broken(SendError::Slow),
        }
    }

    fn is_usable(&self) -> bool {
        match self {
            Self::H1(sender) => sender.is_ready() && !sender.is_closed(),
            Self::H2(sender) => sender.is_ready() && !sender.is_closed(),
        }
    }

    fn is_gone(&self) -> bool {
        match self {
            Self::H1(sender) => sender.is_closed(),
            Self::H2(sender) => sender.is_closed(),
        }
    }
}

struct Kept {
    target: Target,
    generation: u64,
    tls: bool,
    sender: Sender,
}

/// Upstream connections of one connection of the guest.
#[derive(Default)]
pub struct Pool {
    kept: std::sync::Mutex<Vec<Kept>>,
}

impl Pool {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Kept>> {
        self.kept
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A new connection.
    pub async fn open(&self, grant: &Grant, tls: bool) -> Result<Sender, SendError> {
        open(grant, tls, false).await
    }

    /// A new HTTP/1.1 connection, for a request that wants to change the protocol.
    pub async fn open_h1(&self, grant: &Grant, tls: bool) -> Result<Sender, SendError> {
        open(grant, tls, true).await
    }

    /// Keeps a connection for the next request. It is used again only once its answer has been read.
    pub fn put(&self, grant: &Grant, tls: bool, sender: Sender) {
        let mut kept = self.lock();
        kept.retain(|old| !old.sender.is_gone());
        if let Sender::H2(_) = sender
            && kept
                .iter()
                .any(|old| old.tls == tls && old.target == grant.target)
        {
            return;
        }
        if kept.len() >= limits::IDLE_UPSTREAMS {
            kept.remove(0);
        }
        let (target, generation) = (grant.target.clone(), grant.generation.number);
        kept.push(Kept {
            target,
            generation,
            tls,
            sender,
        });
    }

    /// A kept connection of the grant's target and generation.
    pub fn kept(&self, grant: &Grant, tls: bool) -> Option<Sender> {
        let mut kept = self.lock();
        kept.retain(|old| !old.sender.is_gone());
        let fits = |old: &Kept| {
            old.tls == tls
                && old.target == grant.target
                && old.generation == grant.generation.number
                && old.sender.is_usable()
        };
        let at = kept.iter().position(fits)?;
        match &kept[at].sender {
            Sender::H2(sender) => Some(Sender::H2(sender.clone())),
            Sender::H1(_) => Some(kept.remove(at).sender),
        }
    }
}

async fn open(grant: &Grant, tls: bool, h1_only: bool) -> Result<Sender, SendError> {
    if !tls {
        return handshake_h1(dial(grant).await?).await;
    }
    let stream = dial_tls(grant, h1_only).await?;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if h2 {
        handshake_h2(stream).await
    } else {
        handshake_h1(stream).await
    }
}

async fn handshake_h1<S>(stream: S) -> Result<Sender, SendError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(limits::REQUEST_HEAD_BYTES)
        .max_headers(limits::HEADERS)
        .handshake(TokioIo::new(stream))
        .await?;
    // Ends when the sender is dropped and the last answer has been read, or with the upstream.
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok(Sender::H1(sender))
}

async fn handshake_h2<S>(stream: S) -> Result<Sender, SendError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(limits::H2_WINDOW)
        .initial_connection_window_size(limits::H2_WINDOW)
        .max_header_list_size(limits::H2_HEADERS)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(Sender::H2(sender))
}

/// Writes the granted credentials over whatever the guest sent, and takes out every other header that
/// carries one of their placeholders. Returns the services, for the record.
pub fn write_credentials(grant: &Grant, headers: &mut HeaderMap) -> Option<String> {
    let mut services: Vec<&str> = Vec::new();
    for credential in &grant.credentials {
        let placeholder = credential.placeholder.as_bytes();
        let strays: Vec<_> = headers
            .iter()
            .filter(|(_, value)| crate::relay::placeholder::is_in(value.as_bytes(), placeholder))
            .map(|(name, _)| name.clone())
            .collect();
        for name in strays {
            headers.remove(name);
        }
    }
    for credential in &grant.credentials {
        headers.insert(credential.header.clone(), credential.value.clone());
        services.push(&credential.service);
    }
    (!services.is_empty()).then(|| services.join(","))
}
