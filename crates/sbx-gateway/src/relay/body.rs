//! Bodies on their way through: passed on frame by frame, with an idle limit, revocable.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT,
    HOST, HeaderName, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use tokio::time::{Instant, Sleep};

use super::clean::Clean;
use super::guarded_body::BodyGuard;
use super::signing::Follows;
use super::small;
use super::stage::{Polled, Stage};
use crate::limits;
use crate::live::{Feed, Lease};

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
    /// The upstream has answered without asking for it.
    #[error("the body was not asked for")]
    Unwanted,
    /// It holds a placeholder that must not go there.
    #[error("the body holds a placeholder that is not bound to this host")]
    Placeholder,
    /// Too many small pieces of bodies wait to be sent.
    #[error("too many small pieces of bodies wait to be sent")]
    Crowd,
    /// It is not what was signed.
    #[error("the body is not the one that was signed")]
    Signature,
    /// It cannot be decoded, or is larger than anything that was meant.
    #[error("the body cannot be decoded: {0}")]
    Encoding(io::Error),
}

/// Trailers that could change what a message means (RFC 9110, section 6.5.1).
const FORBIDDEN_TRAILERS: [HeaderName; 14] = [
    AUTHORIZATION,
    HOST,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    COOKIE,
    EXPECT,
    PROXY_AUTHORIZATION,
    SET_COOKIE,
    TE,
    TRAILER,
    UPGRADE,
];

/// Counts what comes out of a body. Its last piece alone needs no bound.
fn counted(polled: Polled, is_last: bool) -> Polled {
    let Poll::Ready(Some(Ok(frame))) = polled else {
        return polled;
    };
    match frame.into_data() {
        Ok(piece) if !is_last => Poll::Ready(Some(small::counted(piece).map(Frame::data))),
        Ok(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
        Err(trailers) => Poll::Ready(Some(Ok(trailers))),
    }
}

/// Takes out the trailers that must not be there, and all of them if they are too many.
fn filtered(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            if trailers.len() > limits::TRAILERS {
                trailers.clear();
            }
            for name in FORBIDDEN_TRAILERS {
                trailers.remove(name);
            }
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

/// A body with its idle limit.
struct Paced<B> {
    inner: B,
    idle: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl<B> Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
    BodyError: From<B::Error>,
{
    fn new(inner: B) -> Self {
        Self {
            inner,
            idle: None,
            waiting: false,
        }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.waiting = false;
                Poll::Ready(frame.map(|frame| match frame {
                    Ok(frame) => Ok(filtered(frame)),
                    Err(error) => Err(error.into()),
                }))
            }
            Poll::Pending => {
                let deadline = Instant::now() + limits::BODY_IDLE;
                let idle = match &mut self.idle {
                    Some(idle) => {
                        if !self.waiting {
                            idle.as_mut().reset(deadline);
                        }
                        idle
                    }
                    None => self
                        .idle
                        .insert(Box::pin(tokio::time::sleep_until(deadline))),
                };
                self.waiting = true;
                idle.as_mut().poll(cx).map(|()| Some(Err(BodyError::Idle)))
            }
        }
    }
}

/// What lets a body wait until it is asked for (RFC 9110, section 10.1.1).
#[derive(Debug, Default)]
pub struct Gate(Mutex<Door>);

#[derive(Debug)]
enum Door {
    /// Nobody has asked yet.
    Shut(Option<Waker>),
    /// The final answer has begun. Whether the body is wanted for it is not asked any more.
    Answered(Option<Waker>),
    Open,
    /// The answer is over: it never was wanted.
    Over,
}

impl Default for Door {
    fn default() -> Self {
        Self::Shut(None)
    }
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, Door> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, to: Door) {
        let mut door = self.lock();
        if let Door::Shut(waker) | Door::Answered(waker) = &mut *door {
            let waker = waker.take();
            *door = to;
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// The upstream asks for the body.
    pub fn open(&self) {
        self.turn(Door::Open);
    }

    /// The upstream has begun its final answer.
    pub fn answered(&self) {
        let mut door = self.lock();
        if let Door::Shut(waker) = &mut *door {
            *door = Door::Answered(waker.take());
        }
    }

    fn over(&self) {
        self.turn(Door::Over);
    }
}

/// A request's body on its way up.
pub struct Sending<B> {
    body: Paced<B>,
    feed: Option<Feed>,
    gate: Option<(Arc<Gate>, Pin<Box<Sleep>>)>,
    guard: Option<Box<Stage<BodyGuard>>>,
    signed: Option<Box<Stage<Follows>>>,
}

impl<B> Sending<B>
where
    B: Body<Data = Bytes> + Unpin,
    BodyError: From<B::Error>,
{
    /// A body that is cut when the policy changes.
    pub fn new(inner: B, feed: Feed) -> Self {
        Self {
            body: Paced::new(inner),
            feed: Some(feed),
            gate: None,
            guard: None,
            signed: None,
        }
    }

    /// Lets it go on only as what was signed.
    pub(super) fn follow(&mut self, follows: Follows) {
        self.signed = Some(Box::new(Stage::new(follows)));
    }

    /// Lets it pass a guard.
    #[must_use]
    pub(super) fn guarded(mut self, guard: Option<BodyGuard>) -> Self {
        self.guard = guard.map(|guard| Box::new(Stage::new(guard)));
        self
    }

    /// Lets it wait, for as long as the gate is shut and at most [`limits::CONTINUE`].
    pub fn wait_for(&mut self, gate: Arc<Gate>) {
        let patience = tokio::time::sleep(limits::CONTINUE);
        self.gate = Some((gate, Box::pin(patience)));
    }

    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let Some((gate, patience)) = &mut self.gate else {
            return Poll::Ready(Ok(()));
        };
        let mut door = gate.lock();
        match &mut *door {
            Door::Shut(waker) => {
                *waker = Some(cx.waker().clone());
                if patience.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                *door = Door::Open;
            }
            Door::Answered(waker) => {
                *waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Door::Open => {}
            Door::Over => return Poll::Ready(Err(BodyError::Unwanted)),
        }
        drop(door);
        self.gate = None;
        Poll::Ready(Ok(()))
    }
}

impl<B> Body for Sending<B>
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
        if let Some(feed) = &this.feed
            && feed.poll_revoked(cx).is_ready()
        {
            return Poll::Ready(Some(Err(BodyError::Revoked)));
        }
        match this.poll_gate(cx) {
            Poll::Ready(Ok(())) => {
                let (body, guard) = (&mut this.body, &mut this.guard);
                let mut guarded = |cx: &mut Context<'_>| match guard {
                    None => body.poll_frame(cx),
                    Some(guard) => guard.poll(cx, |cx| body.poll_frame(cx)),
                };
                let polled = match &mut this.signed {
                    None => guarded(cx),
                    Some(signed) => signed.poll(cx, guarded),
                };
                counted(polled, this.is_end_stream())
            }
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        // What a guard holds back comes after the last that came in.
        self.guard.is_none() && self.signed.is_none() && self.body.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.guard, &self.signed) {
            (None, None) => self.body.inner.size_hint(),
            // The head says how long it is, if that is known.
            _ => SizeHint::default(),
        }
    }
}

/// An answer's body on its way down.
pub struct Answering<B> {
    body: Paced<B>,
    lease: Lease,
    gate: Option<Arc<Gate>>,
    clean: Option<Box<Stage<Clean>>>,
    _load: Arc<()>,
}

impl<B> Answering<B>
where
    B: Body<Data = Bytes> + Unpin,
    BodyError: From<B::Error>,
{
    /// A body that is cut when the policy changes. `gate`: of the request's body; `load`: of the connection.
    pub fn new(inner: B, lease: Lease, gate: Option<Arc<Gate>>, load: Arc<()>) -> Self {
        Self {
            body: Paced::new(inner),
            lease,
            gate,
            clean: None,
            _load: load,
        }
    }

    /// Takes values out of it.
    #[must_use]
    pub(super) fn cleaned(mut self, clean: Option<Clean>) -> Self {
        self.clean = clean.map(|clean| Box::new(Stage::new(clean)));
        self
    }
}

impl<B> Drop for Answering<B> {
    fn drop(&mut self) {
        if let Some(gate) = &self.gate {
            gate.over();
        }
    }
}

impl<B> Body for Answering<B>
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
        if Pin::new(&mut self.lease).poll(cx).is_ready() {
            return Poll::Ready(Some(Err(BodyError::Revoked)));
        }
        let this = &mut *self;
        let polled = match &mut this.clean {
            None => this.body.poll_frame(cx),
            Some(clean) => clean.poll(cx, |cx| this.body.poll_frame(cx)),
        };
        counted(polled, this.is_end_stream())
    }

    fn is_end_stream(&self) -> bool {
        // An answer without a body has nothing that could be held back.
        self.body.inner.is_end_stream() && self.clean.as_ref().is_none_or(|clean| clean.is_fresh())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.clean {
            None => self.body.inner.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use super::*;
    use crate::live::tests::lease;

    /// A body whose pieces the test sends.
    struct Pieces(UnboundedReceiver<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = hyper::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
            let piece = self.0.poll_recv(cx);
            piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn pieces() -> (UnboundedSender<Bytes>, Pieces) {
        let (sender, receiver) = unbounded_channel();
        (sender, Pieces(receiver))
    }

    /// Reads a body of which one piece came and no other, beside one that is slow. Returns why the first ended.
    async fn idle<B>(body: impl Fn(Pieces) -> B) -> BodyError
    where
        B: Body<Data = Bytes, Error = BodyError> + Unpin,
    {
        let (stuck, stuck_pieces) = pieces();
        let (slow, slow_pieces) = pieces();
        let (mut stuck_body, mut slow_body) = (body(stuck_pieces), body(slow_pieces));
        stuck.send(Bytes::from_static(b"x")).unwrap();
        assert!(stuck_body.frame().await.unwrap().is_ok());
        let started = Instant::now();
        let error = async {
            let error = stuck_body.frame().await.unwrap().err();
            assert_eq!(started.elapsed().as_secs(), limits::BODY_IDLE.as_secs());
            error
        };
        let sending = async {
            for _ in 0..3 {
                tokio::time::sleep(limits::BODY_IDLE.saturating_sub(Duration::from_secs(1))).await;
                slow.send(Bytes::from_static(b"y")).unwrap();
            }
            drop(slow);
        };
        let reading = async {
            let mut came = 0;
            while let Some(frame) = slow_body.frame().await {
                came += frame.unwrap().into_data().unwrap().len();
            }
            came
        };
        let (error, (), came) = tokio::join!(error, sending, reading);
        assert_eq!(came, 3);
        error.unwrap()
    }

    #[test]
    fn trailers_pass_unless_they_are_too_many() {
        for (number, passed) in [
            (limits::TRAILERS, limits::TRAILERS),
            (limits::TRAILERS + 1, 0),
        ] {
            let mut trailers = hyper::HeaderMap::new();
            for _ in 0..number {
                trailers.append("x", hyper::header::HeaderValue::from_static("y"));
            }
            let left = filtered(Frame::trailers(trailers)).into_trailers();
            assert_eq!(left.unwrap().len(), passed, "{number}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_without_progress_is_cut_and_one_that_is_slow_is_not() {
        let up = idle(|body| Sending::new(body, lease().feed())).await;
        assert!(matches!(up, BodyError::Idle), "{up}");
        let down = idle(|body| Answering::new(body, lease(), None, Arc::default())).await;
        assert!(matches!(down, BodyError::Idle), "{down}");
    }
}
