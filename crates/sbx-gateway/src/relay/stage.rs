//! Something that a body passes through, piece by piece, and that may hold a part of one back. Long pieces go in step by
//! step, and others get their turn between.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::Frame;
use hyper::header::HeaderMap;

use super::body::BodyError;
use crate::limits;

/// What is done to the pieces.
pub(super) trait Pass {
    /// The next piece; what comes out goes on. `last`: there is no other, so nothing may be held back.
    fn pass(&mut self, piece: Bytes, last: bool) -> Result<Bytes, BodyError>;

    /// The trailers behind the last piece.
    fn trailers(&mut self, trailers: &mut HeaderMap) -> Result<(), BodyError>;

    /// Bytes that may go in at a time.
    fn step(&self) -> usize {
        limits::STEP
    }

    /// Bytes that were looked at for the last piece, where it meant more than it held.
    fn expanded(&self) -> usize {
        0
    }
}

impl<P: Pass> Pass for &mut P {
    fn pass(&mut self, piece: Bytes, last: bool) -> Result<Bytes, BodyError> {
        P::pass(self, piece, last)
    }

    fn trailers(&mut self, trailers: &mut HeaderMap) -> Result<(), BodyError> {
        P::trailers(self, trailers)
    }

    fn step(&self) -> usize {
        P::step(self)
    }

    fn expanded(&self) -> usize {
        P::expanded(self)
    }
}

/// See the module.
pub(super) struct Stage<P> {
    pass: P,
    /// What has come and not gone in.
    rest: Bytes,
    /// Bytes that were looked at since others had a turn.
    looked_at: usize,
    /// Trailers that wait for the rest of what was held back.
    after: Option<Frame<Bytes>>,
    begun: bool,
    over: bool,
}

/// What a body yields.
pub(super) type Polled = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl<P: Pass> Stage<P> {
    /// At the beginning of a body.
    pub(super) fn new(pass: P) -> Self {
        Self {
            pass,
            rest: Bytes::new(),
            looked_at: 0,
            after: None,
            begun: false,
            over: false,
        }
    }

    /// Whether nothing has gone in.
    pub(super) fn is_fresh(&self) -> bool {
        !self.begun
    }

    /// The next frame that comes out. `next`: the next that goes in.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut(&mut Context<'_>) -> Polled,
    ) -> Polled {
        loop {
            if self.over {
                return Poll::Ready(self.after.take().map(Ok));
            }
            if self.looked_at > limits::LOOKED_AT {
                self.looked_at = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.begun = true;
            if self.rest.is_empty()
                && let Err(error) = ready!(self.poll_more(cx, &mut next))
            {
                self.over = true;
                return Poll::Ready(Some(Err(error)));
            }
            let length = self.rest.len().min(self.pass.step());
            let piece = self.rest.split_to(length);
            self.looked_at += length;
            let passed = self.pass.pass(piece, self.over);
            self.looked_at += self.pass.expanded();
            match passed {
                Ok(text) if text.is_empty() => {}
                Ok(text) => return Poll::Ready(Some(Ok(Frame::data(text)))),
                Err(error) => {
                    self.over = true;
                    self.after = None;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    /// Takes the next that goes in.
    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut(&mut Context<'_>) -> Polled,
    ) -> Poll<Result<(), BodyError>> {
        let Some(frame) = ready!(next(cx)).transpose()? else {
            self.over = true;
            return Poll::Ready(Ok(()));
        };
        match frame.into_data() {
            Ok(data) => self.rest = data,
            Err(frame) => {
                self.after = Some(self.pass_trailers(frame)?);
                self.over = true;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn pass_trailers(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, BodyError> {
        match frame.into_trailers() {
            Ok(mut trailers) => {
                self.pass.trailers(&mut trailers)?;
                Ok(Frame::trailers(trailers))
            }
            Err(other) => Ok(other),
        }
    }
}
