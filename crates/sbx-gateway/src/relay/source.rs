//! Where the body of a request comes from: the guest as it sends it, or what was read of it before anything was sent on.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::HeaderMap;
use sbx_credentials::sigv4::Digest;

use super::body::BodyError;
use super::stage::{Pass, Stage};
use crate::limits;

/// See the module.
pub enum Source {
    /// The guest.
    Guest(Incoming),
    /// The whole of it.
    Read(Option<Bytes>, Option<HeaderMap>),
}

impl Source {
    /// The digest of what was read.
    pub(super) fn digest(&self) -> Option<Digest> {
        match self {
            Self::Guest(_) => None,
            Self::Read(data, _) => Some(Digest::of(data.as_deref().unwrap_or_default())),
        }
    }

    /// Reads all of it; it was announced to be small, or is bounded.
    pub(super) async fn read(self) -> Result<Self, BodyError> {
        let Self::Guest(body) = self else {
            return Ok(self);
        };
        let read = tokio::time::timeout(limits::BODY_IDLE, body.collect());
        let collected = read.await.map_err(|_| BodyError::Idle)??;
        let trailers = collected.trailers().cloned();
        let data = Some(collected.to_bytes()).filter(|data| !data.is_empty());
        Ok(Self::Read(data, trailers))
    }

    /// Lets what was read pass something.
    pub(super) async fn pass(mut self, pass: &mut impl Pass) -> Result<Self, BodyError> {
        let mut stage = Stage::new(pass);
        let (mut passed, mut trailers) = (BytesMut::new(), None);
        let mut next = |cx: &mut Context<'_>| {
            let frame = Pin::new(&mut self).poll_frame(cx);
            frame.map_err(BodyError::from)
        };
        while let Some(frame) = poll_fn(|cx| stage.poll(cx, &mut next)).await {
            match frame?.into_data() {
                Ok(data) => passed.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        let passed = Some(passed.freeze()).filter(|data| !data.is_empty());
        Ok(Self::Read(passed, trailers))
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Guest(body) => Pin::new(body).poll_frame(cx),
            Self::Read(data, trailers) => {
                let data = data.take().map(Frame::data);
                let next = data.or_else(|| trailers.take().map(Frame::trailers));
                Poll::Ready(next.map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Guest(body) => body.is_end_stream(),
            Self::Read(data, trailers) => data.is_none() && trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Guest(body) => body.size_hint(),
            Self::Read(data, _) => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
            }
        }
    }
}
