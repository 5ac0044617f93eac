//! Something that a body passes through, piece by piece, and that may hold a part of one back.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::Frame;
use hyper::header::HeaderMap;

use super::body::BodyError;

/// What is done to the pieces.
pub(super) trait Pass {
    /// The next piece; what comes out goes on. `last`: there is no other, so nothing may be held back.
    fn pass(&mut self, piece: Bytes, last: bool) -> Result<Bytes, BodyError>;

    /// The trailers behind the last piece.
    fn trailers(&mut self, trailers: &mut HeaderMap) -> Result<(), BodyError>;
}

/// See the module.
pub(super) struct Stage<P> {
    pass: P,
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
            self.begun = true;
            let (piece, last) = match ready!(next(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => (data, false),
                    Err(frame) => {
                        match self.pass_trailers(frame) {
                            Ok(frame) => self.after = Some(frame),
                            Err(error) => {
                                self.over = true;
                                return Poll::Ready(Some(Err(error)));
                            }
                        }
                        (Bytes::new(), true)
                    }
                },
                None => (Bytes::new(), true),
                Some(Err(error)) => {
                    self.over = true;
                    return Poll::Ready(Some(Err(error)));
                }
            };
            self.over = last;
            match self.pass.pass(piece, last) {
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
