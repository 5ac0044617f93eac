//! The guest's stream as the HTTP/1.1 library reads it: no byte that [`super::framing`] has not let go on, never bytes
//! of two messages at once, and instead of a request that is refused one of our own, which is answered in its turn.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::framing::{After, Fault, Framing, Progress};
use super::written::written_as_it_is;
use crate::limits;

/// What the library is given instead of a head that is refused. Whoever answers it looks at [`Arrival::fault`] first.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n";
/// Longest piece of a refused head that is kept for the record.
const QUOTED: usize = 512;
/// Bytes that are read at once while something is held back.
const PIECE: usize = 4 * 1024;

/// What both sides of one stream know: the reading side, and whoever answers its requests.
#[derive(Debug, Default)]
pub struct Arrivals {
    known: Mutex<Known>,
    /// A head has begun and is not complete.
    in_head: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    /// Messages whose head the library was given.
    messages: u64,
    /// The message that is refused, if one is. Nothing comes after it.
    refused: Option<(u64, Refused)>,
    /// What became of which request to change the protocol.
    after: Option<(u64, After)>,
    /// Waits for that.
    waker: Option<Waker>,
}

/// A request that is refused for its form.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Why.
    pub fault: Fault,
    /// The first bytes of its head, if it is the head that is refused; for the record.
    pub head: Bytes,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a head has begun and is not complete.
    pub fn is_in_head(&self) -> bool {
        self.in_head.load(Ordering::Relaxed)
    }
}

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    arrivals: Arc<Arrivals>,
    number: u64,
}

impl Arrival {
    /// The request of this number, counted from 1.
    pub fn new(arrivals: Arc<Arrivals>, number: u64) -> Self {
        Self { arrivals, number }
    }

    /// Why the request must not go on, as far as it has been read.
    pub fn refused(&self) -> Option<Refused> {
        let known = self.arrivals.lock();
        let refused = known.refused.as_ref();
        refused
            .filter(|(number, _)| *number == self.number)
            .map(|(_, refused)| refused.clone())
    }

    /// Whether the library sees the same message as [`Framing`]; to be asked when it hands it out.
    pub fn is_in_step(&self) -> bool {
        self.arrivals.lock().messages == self.number
    }

    /// Says what the answer makes of the connection. Needed only if the request asked to change the protocol.
    pub fn answered(&self, after: After) {
        let mut known = self.arrivals.lock();
        known.after = Some((self.number, after));
        if let Some(waker) = known.waker.take() {
            waker.wake();
        }
    }
}

/// The stream.
#[derive(Debug)]
pub struct Guarded<S> {
    inner: S,
    framing: Framing,
    /// Read, and not given to the library yet.
    held: BytesMut,
    /// How many of these it may have.
    cleared: usize,
    /// The guest will send no more.
    ended: bool,
    arrivals: Arc<Arrivals>,
}

impl<S> Guarded<S> {
    /// A stream that begins with a request.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            framing: Framing::default(),
            held: BytesMut::new(),
            cleared: 0,
            ended: false,
            arrivals: Arc::default(),
        }
    }

    /// What the answering side has to know.
    pub fn arrivals(&self) -> Arc<Arrivals> {
        self.arrivals.clone()
    }

    /// The stream below, and what was read of it and not given to the library.
    pub fn into_parts(self) -> (Bytes, S) {
        (self.held.freeze(), self.inner)
    }

    /// What is read once nothing may go on any more.
    fn after_refusal(&self) -> Poll<io::Result<()>> {
        if self.framing.has_refused_head() {
            // The stand-in is being answered, and that closes the connection. An end here would cut the answer short.
            return Poll::Pending;
        }
        let text = "the framing of the body is broken";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)))
    }
}

/// Looks at bytes that were read. Returns how many may go on now, all of one message, and whether anything more may.
fn judge(framing: &mut Framing, arrivals: &Arrivals, bytes: &[u8]) -> (usize, bool) {
    let mut passed = 0;
    let before = framing.messages();
    let fault = loop {
        if passed == bytes.len() {
            break None;
        }
        match framing.advance(&bytes[passed..]) {
            Progress::Pass(length) => passed += length,
            Progress::More | Progress::Wait => break None,
            Progress::Refuse(fault) => break Some(fault),
        }
        // What comes next belongs to the next message.
        if framing.is_between() {
            break None;
        }
    };
    if framing.messages() == before && fault.is_none() {
        return (passed, true);
    }
    let mut known = arrivals.lock();
    known.messages = framing.messages();
    let Some(fault) = fault else {
        return (passed, true);
    };
    let mut head = Bytes::new();
    if framing.has_refused_head() {
        // The stand-in is a message too.
        known.messages += 1;
        let rest = &bytes[passed..];
        head = Bytes::copy_from_slice(&rest[..rest.len().min(QUOTED)]);
    }
    known.refused = Some((known.messages, Refused { fault, head }));
    (passed, false)
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Reads something behind what is held. False: the guest will send no more.
    fn poll_hold_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut piece = [0; PIECE];
        let mut piece = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut piece))?;
        self.held.extend_from_slice(piece.filled());
        self.ended = piece.filled().is_empty();
        Poll::Ready(Ok(!self.ended))
    }

    /// Until the answer to a request to change the protocol is known: reads on, to see the guest go away.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            {
                let mut known = self.arrivals.lock();
                match known.after {
                    Some((number, after)) if number == self.framing.messages() => {
                        self.framing.resume(after);
                        return Poll::Ready(Ok(()));
                    }
                    _ => known.waker = Some(cx.waker().clone()),
                }
            }
            if self.ended && self.held.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if self.ended || self.held.len() >= limits::EARLY_BYTES {
                return Poll::Pending;
            }
            ready!(self.poll_hold_more(cx))?;
        }
    }

    /// Looks at what is held. After it something is cleared, or more has to be read.
    fn judge_held(&mut self) {
        let (passed, may_go_on) = judge(&mut self.framing, &self.arrivals, &self.held);
        self.cleared = passed;
        if !may_go_on {
            self.refuse(passed);
        }
    }

    /// Nothing behind the first `passed` bytes that are held goes on.
    fn refuse(&mut self, passed: usize) {
        self.held.truncate(passed);
        if self.framing.has_refused_head() {
            self.held.extend_from_slice(STAND_IN);
        }
        self.cleared = self.held.len();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.cleared > 0 {
                let length = this.cleared.min(buf.remaining());
                buf.put_slice(&this.held[..length]);
                this.held.advance(length);
                this.cleared -= length;
                return Poll::Ready(Ok(()));
            }
            if this.framing.has_refused() {
                return this.after_refusal();
            }
            if this.framing.is_waiting() {
                ready!(this.poll_wait(cx))?;
                if this.framing.is_waiting() {
                    return Poll::Ready(Ok(()));
                }
            }
            if !this.held.is_empty() {
                this.judge_held();
                let incomplete = this.cleared == 0 && !this.framing.has_refused();
                this.arrivals.in_head.store(incomplete, Ordering::Relaxed);
                if incomplete {
                    // An end in the middle of a head is as good as one before it.
                    if this.ended || !ready!(this.poll_hold_more(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                continue;
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            // Nothing is held: read to where the library wants it.
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            let new = &buf.filled()[before..];
            if new.is_empty() {
                this.ended = true;
                return Poll::Ready(Ok(()));
            }
            let (passed, may_go_on) = judge(&mut this.framing, &this.arrivals, new);
            if may_go_on {
                this.held.extend_from_slice(&new[passed..]);
            } else {
                this.refuse(0);
            }
            buf.set_filled(before + passed);
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

written_as_it_is!(Guarded);
