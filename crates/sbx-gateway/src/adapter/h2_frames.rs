//! The guest's HTTP/2 as the library reads and writes it, with the heads of its frames counted (RFC 9113, section 4.1).
//!
//! The library resets a request that breaks the rules, or answers it by itself, and tells nobody; and it follows frames
//! that ask for nothing as long as they come. Here nothing is judged and nothing changed: requests are counted, so that
//! one that was never handed out is noticed, and the stream ends when there are too many of those frames.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::limits;

/// What a client sends before its first frame (RFC 9113, section 3.4), in bytes.
const PREFACE: u32 = 24;
/// A frame's head, in bytes.
const HEAD: usize = 9;
/// The same with the reason of a reset behind it.
const RESET: usize = HEAD + 4;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// A reset before anything was done: too many requests at a time (RFC 9113, section 8.7).
const REFUSED_STREAM: u32 = 7;

/// Streams remembered as answered: those that may be open, and as many that were a moment ago.
const ANSWERED: usize = 2 * limits::H2_STREAMS as usize;

/// What passed on one connection.
#[derive(Debug, Default)]
pub struct Tally {
    begun: AtomicU64,
    declined: AtomicU64,
    flooded: AtomicBool,
}

impl Tally {
    /// Requests that the guest began, less those that were turned away for being too many at a time: it could not know
    /// the limit yet, and tries again.
    pub fn requests(&self) -> u64 {
        let declined = self.declined.load(Ordering::Relaxed);
        self.begun.load(Ordering::Relaxed).saturating_sub(declined)
    }

    /// Whether the connection was ended for frames that ask for nothing.
    pub fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }
}

/// Whether it was there; it is not any more.
fn take_out(streams: &mut VecDeque<u32>, stream: u32) -> bool {
    let at = streams.iter().position(|known| *known == stream);
    at.is_some_and(|at| streams.remove(at).is_some())
}

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    kind: u8,
    stream: u32,
    /// Of a reset; else 0.
    reason: u32,
}

/// Follows one direction from frame to frame.
#[derive(Debug)]
struct Frames {
    /// Bytes until the next frame begins.
    skip: u32,
    head: [u8; RESET],
    filled: usize,
}

impl Frames {
    fn after(skip: u32) -> Self {
        Self {
            skip,
            head: [0; RESET],
            filled: 0,
        }
    }

    /// Shows every head that these bytes complete.
    fn read(&mut self, mut bytes: &[u8], mut each: impl FnMut(Head)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = bytes
                    .len()
                    .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
                bytes = &bytes[skipped..];
                self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
                continue;
            }
            let wanted = self.wanted();
            let taken = bytes.len().min(wanted - self.filled);
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == self.wanted() {
                each(self.complete());
            }
        }
    }

    fn length(&self) -> u32 {
        u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]])
    }

    /// Bytes of the current head. A reset of another length than 4 ends the connection in the library.
    fn wanted(&self) -> usize {
        let reset = self.filled >= HEAD && self.head[3] == RST_STREAM && self.length() == 4;
        if reset { RESET } else { HEAD }
    }

    fn complete(&mut self) -> Head {
        let [.., a, b, c, d] = self.head;
        let is_whole_reset = self.filled == RESET;
        let head = Head {
            kind: self.head[3],
            stream: u32::from_be_bytes([
                self.head[5] & 0x7f,
                self.head[6],
                self.head[7],
                self.head[8],
            ]),
            reason: if is_whole_reset {
                u32::from_be_bytes([a, b, c, d])
            } else {
                0
            },
        };
        self.skip = if is_whole_reset { 0 } else { self.length() };
        self.filled = 0;
        head
    }
}

/// Frames that ask for nothing and may still come.
#[derive(Debug)]
struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    fn new() -> Self {
        Self {
            left: limits::H2_IDLE_FRAMES,
            since: Instant::now(),
        }
    }

    /// False: there are none left.
    fn take(&mut self) -> bool {
        let seconds = self.since.elapsed().as_secs();
        if seconds > 0 {
            self.since += Duration::from_secs(seconds);
            let more = seconds.saturating_mul(limits::H2_IDLE_FRAMES_PER_SECOND.into());
            let left = u64::from(self.left).saturating_add(more);
            let left = left.min(limits::H2_IDLE_FRAMES.into());
            self.left = u32::try_from(left).unwrap_or(limits::H2_IDLE_FRAMES);
        }
        let taken = self.left.checked_sub(1);
        self.left = taken.unwrap_or(0);
        taken.is_some()
    }
}

/// The stream.
#[derive(Debug)]
pub struct Watched<S> {
    inner: S,
    from_guest: Frames,
    to_guest: Frames,
    /// The newest request; the number of each is higher than those before (RFC 9113, section 5.1.1).
    newest: u32,
    /// Streams whose answer has begun: to give one up then is what browsers and gRPC do all day, and it has cost the
    /// guest a whole exchange. The newest [`ANSWERED`] of them.
    answered: VecDeque<u32>,
    budget: Budget,
    tally: Arc<Tally>,
}

impl<S> Watched<S> {
    /// A stream that begins with the preface of HTTP/2.
    pub fn new(inner: S) -> Self {
        Self {
            inner,
            from_guest: Frames::after(PREFACE),
            to_guest: Frames::after(0),
            newest: 0,
            answered: VecDeque::new(),
            budget: Budget::new(),
            tally: Arc::default(),
        }
    }

    /// What has passed so far.
    pub fn tally(&self) -> Arc<Tally> {
        self.tally.clone()
    }

    fn came(&mut self, bytes: &[u8]) {
        let Self {
            newest,
            answered,
            budget,
            tally,
            ..
        } = self;
        self.from_guest.read(bytes, |head| match head.kind {
            HEADERS if head.stream > *newest => {
                *newest = head.stream;
                tally.begun.fetch_add(1, Ordering::Relaxed);
            }
            // What a download needs in any number. Pings are answered one by one before anything more is read, and what
            // else can be abused of these has limits in the library.
            DATA | HEADERS | PING | WINDOW_UPDATE | CONTINUATION => {}
            RST_STREAM if take_out(answered, head.stream) => {}
            _ => {
                if !budget.take() {
                    tally.flooded.store(true, Ordering::Relaxed);
                }
            }
        });
    }

    fn went(&mut self, bytes: &[u8]) {
        let Self {
            answered, tally, ..
        } = self;
        self.to_guest
            .read(bytes, |head| match (head.kind, head.reason) {
                (RST_STREAM, REFUSED_STREAM) => {
                    tally.declined.fetch_add(1, Ordering::Relaxed);
                }
                // Trailers have the same head.
                (HEADERS, _) if !answered.contains(&head.stream) => {
                    if answered.len() == ANSWERED {
                        answered.pop_front();
                    }
                    answered.push_back(head.stream);
                }
                _ => {}
            });
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        this.came(&buf.filled()[before..]);
        if this.tally.is_flooded() {
            let text = "too many frames that ask for nothing";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.went(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let part = left.min(buf.len());
            self.went(&buf[..part]);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PREFACE_TEXT: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        [&head, payload].concat()
    }

    fn heads(bytes: &[u8], step: usize) -> Vec<(u8, u32, u32)> {
        let (mut frames, mut heads) = (Frames::after(0), Vec::new());
        for piece in bytes.chunks(step) {
            frames.read(piece, |head| {
                heads.push((head.kind, head.stream, head.reason));
            });
        }
        heads
    }

    #[test]
    fn heads_are_found_whatever_the_pieces() {
        let reset = 11_u32.to_be_bytes();
        let bytes = [
            frame(4, 0, 0, &[0; 12]),
            frame(HEADERS, 5, 1, &[0x82; 40]),
            frame(DATA, 1, 1, &[]),
            frame(RST_STREAM, 0, 0x8000_0003, &reset),
            frame(RST_STREAM, 0, 5, &[0; 5]),
            frame(RST_STREAM, 0, 7, &[]),
            frame(HEADERS, 5, 9, &[1]),
        ]
        .concat();
        let want = [
            (4, 0, 0),
            (1, 1, 0),
            (0, 1, 0),
            (3, 3, 11),
            (3, 5, 0),
            (3, 7, 0),
            (1, 9, 0),
        ];
        for step in [1, 2, 3, 7, 13, bytes.len()] {
            assert_eq!(heads(&bytes, step), want, "by {step}");
        }
    }

    /// What became of a stream on which these bytes came: whether it ended with an error, and its tally.
    async fn read(bytes: &[u8]) -> (bool, Arc<Tally>) {
        let mut stream = Watched::new(bytes);
        let tally = stream.tally();
        let ended = stream.read_to_end(&mut Vec::new()).await.is_err();
        (ended, tally)
    }

    #[tokio::test]
    async fn requests_are_counted_once_and_those_turned_away_for_their_number_are_not() {
        let request = |stream| frame(HEADERS, 4, stream, &[0x82]);
        let trailers = frame(HEADERS, 5, 3, &[0x82]);
        let bytes = [
            PREFACE_TEXT,
            &request(1),
            &request(3),
            &trailers,
            &request(5),
        ]
        .concat();
        assert_eq!(read(&bytes).await.1.requests(), 3);
        let mut out = Watched::new(tokio::io::join(&bytes[..], Vec::new()));
        out.read_to_end(&mut Vec::new()).await.unwrap();
        for (reason, left) in [(8_u32, 3), (7, 2)] {
            let reset = frame(RST_STREAM, 0, 5, &reason.to_be_bytes());
            out.write_all(&reset).await.unwrap();
            assert_eq!(out.tally().requests(), left);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_ask_for_nothing_are_bounded_and_those_of_a_download_are_not() {
        let many = limits::H2_IDLE_FRAMES as usize;
        let of = |kind, payload: &[u8], count| {
            [PREFACE_TEXT, &frame(kind, 0, 0, payload).repeat(count)].concat()
        };
        for (kind, payload) in [
            (4, &[][..]),
            (2, &[0; 5]),
            (RST_STREAM, &[0; 4]),
            (0xf0, &[]),
        ] {
            assert!(!read(&of(kind, payload, many)).await.0, "{kind}");
            let (ended, tally) = read(&of(kind, payload, many + 1)).await;
            assert!(ended && tally.is_flooded(), "{kind}");
        }
        assert!(!read(&of(WINDOW_UPDATE, &[0, 0, 0, 1], 10 * many)).await.0);
        // With time there may be more.
        let mut budget = Budget::new();
        while budget.take() {}
        tokio::time::advance(Duration::from_secs(2)).await;
        let left = (0..many).take_while(|_| budget.take()).count();
        assert_eq!(left, 2 * limits::H2_IDLE_FRAMES_PER_SECOND as usize);
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_once_its_answer_has_begun_is_no_frame_that_asks_for_nothing()
     {
        let many = 3 * limits::H2_IDLE_FRAMES;
        let cancel = |stream| frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        let streams = || (0..many).map(|number| 2 * number + 1);
        let requests: Vec<Vec<u8>> = streams()
            .map(|stream| [frame(HEADERS, 5, stream, &[0x82]), cancel(stream)].concat())
            .collect();
        for (answered, flooded) in [(true, false), (false, true)] {
            let (mut guest, theirs) = tokio::io::duplex(1024);
            let mut stream = Watched::new(theirs);
            guest.write_all(PREFACE_TEXT).await.unwrap();
            let mut room = [0; 1024];
            let mut ended = false;
            for (number, request) in streams().zip(&requests) {
                if answered {
                    // The answer may be there first: what counts is that it has begun when the reset comes.
                    let answer = frame(HEADERS, 4, number, &[0x88]);
                    stream.write_all(&answer).await.unwrap();
                    guest.read_exact(&mut room[..answer.len()]).await.unwrap();
                }
                guest.write_all(request).await.unwrap();
                if stream.read(&mut room).await.is_err() {
                    ended = true;
                    break;
                }
            }
            assert_eq!((ended, stream.tally().is_flooded()), (flooded, flooded));
            if answered {
                // Once for each answer.
                let again = cancel(1).repeat(limits::H2_IDLE_FRAMES as usize + 1);
                stream.came(&again);
                assert!(stream.tally().is_flooded());
            }
        }
    }
}
