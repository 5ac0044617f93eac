//! A body on its way through: passed on frame by frame, with an idle limit, revocable.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING,
};
use tokio::time::{Instant, Sleep};

use crate::limits;
use crate::live::Lease;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The side it came from broke off.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// A new policy does not allow it any more.
    #[error("the policy changed and no longer allows this")]
    Revoked,
    /// No progress within the limit.
    #[error("no data for too long")]
    Idle,
}

/// Trailers that could change what a message means (RFC 9110, section 6.5.1).
const FORBIDDEN_TRAILERS: [HeaderName; 5] = [
    AUTHORIZATION,
    HOST,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    CONNECTION,
];

/// A body that is watched.
pub struct Watched<B> {
    inner: B,
    idle: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    lease: Option<Lease>,
}

impl<B> Watched<B> {
    /// Watches a body; with a lease it is cut when the policy changes.
    pub fn new(inner: B, lease: Option<Lease>) -> Self {
        Self {
            inner,
            idle: None,
            waiting: false,
            lease,
        }
    }
}

/// Takes out the trailers that must not be there.
fn filtered(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            for name in FORBIDDEN_TRAILERS {
                trailers.remove(name);
            }
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

impl<B> Body for Watched<B>
where
    B: Body<Data = Bytes> + Unpin,
    BodyError: From<B::Error>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(lease) = &mut this.lease
            && Pin::new(lease).poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(BodyError::Revoked)));
        }
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.waiting = false;
                Poll::Ready(frame.map(|frame| match frame {
                    Ok(frame) => Ok(filtered(frame)),
                    Err(error) => Err(error.into()),
                }))
            }
            Poll::Pending => {
                let deadline = Instant::now() + limits::BODY_IDLE;
                let idle = match &mut this.idle {
                    Some(idle) => {
                        if !this.waiting {
                            idle.as_mut().reset(deadline);
                        }
                        idle
                    }
                    None => this
                        .idle
                        .insert(Box::pin(tokio::time::sleep_until(deadline))),
                };
                this.waiting = true;
                idle.as_mut().poll(cx).map(|()| Some(Err(BodyError::Idle)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
