//! Much at once: the TLS library reads its socket in pieces of 4 KiB and gives out one record at a time, which costs a
//! large body a system call for each piece, and everybody behind a turn for each record.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::adapter::written::written_as_it_is;

/// Bytes that are read at once, as soon as it shows that so much comes.
const PIECE: usize = 64 * 1024;
/// A read that fills a buffer of at least this says so, and one into the large buffer that stays below it says that it
/// is over.
const MUCH: usize = 4 * 1024;

/// A socket below TLS. It has a buffer only while much comes.
#[derive(Debug)]
pub(super) struct Below<S> {
    inner: S,
    held: BytesMut,
    much: bool,
}

impl<S> Below<S> {
    /// A socket of which nothing was read.
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            held: BytesMut::new(),
            much: false,
        }
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let length = self.held.len().min(buf.remaining());
        buf.put_slice(&self.held[..length]);
        self.held.advance(length);
        if self.held.is_empty() {
            self.held = BytesMut::new();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Below<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held.is_empty() && this.much {
            this.held.reserve(PIECE);
            let read = pin!(this.inner.read_buf(&mut this.held)).poll(cx);
            if !matches!(read, Poll::Ready(Ok(MUCH..))) {
                this.much = false;
            }
            if !matches!(read, Poll::Ready(Ok(1..))) {
                this.held = BytesMut::new();
            }
            ready!(read)?;
        } else if this.held.is_empty() {
            let room = buf.remaining();
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            this.much = room >= MUCH && buf.remaining() == 0;
            return Poll::Ready(Ok(()));
        }
        this.give(buf);
        Poll::Ready(Ok(()))
    }
}

written_as_it_is!(Below);

/// A TLS stream that fills a buffer with as many records as have come.
#[derive(Debug)]
pub(super) struct Above<S> {
    inner: S,
    /// Came behind bytes that had to be given out first.
    failed: Option<io::Error>,
}

impl<S> Above<S> {
    /// A stream as it is.
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            failed: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Above<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Err(error));
        }
        let start = buf.filled().len();
        loop {
            let before = buf.filled().len();
            let read = Pin::new(&mut this.inner).poll_read(cx, buf);
            let some = before > start;
            match read {
                Poll::Ready(Ok(())) if buf.filled().len() > before && buf.remaining() > 0 => {}
                Poll::Ready(Err(error)) if some => {
                    this.failed = Some(error);
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending if some => return Poll::Ready(Ok(())),
                read => return read,
            }
        }
    }
}

written_as_it_is!(Above);

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Gives what it is told to, and counts how often it is asked. `Pending` is not woken from.
    struct Script {
        answers: VecDeque<Poll<io::Result<Vec<u8>>>>,
        asked: usize,
    }

    impl Script {
        fn of(answers: impl IntoIterator<Item = Poll<io::Result<Vec<u8>>>>) -> Self {
            Self {
                answers: answers.into_iter().collect(),
                asked: 0,
            }
        }
    }

    impl AsyncRead for Script {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            self.asked += 1;
            // At its end, the end.
            let mut bytes = match self.answers.pop_front() {
                Some(answer) => ready!(answer)?,
                None => Vec::new(),
            };
            if bytes.len() > buf.remaining() {
                let rest = bytes.split_off(buf.remaining());
                self.answers.push_front(Poll::Ready(Ok(rest)));
            }
            buf.put_slice(&bytes);
            Poll::Ready(Ok(()))
        }
    }

    fn some(bytes: &[u8]) -> Poll<io::Result<Vec<u8>>> {
        Poll::Ready(Ok(bytes.to_vec()))
    }

    /// One read into a buffer of this size.
    fn read(stream: &mut (impl AsyncRead + Unpin), room: usize) -> Poll<io::Result<Vec<u8>>> {
        let mut bytes = vec![0; room];
        let mut buf = ReadBuf::new(&mut bytes);
        let read = Pin::new(stream)
            .poll_read(&mut Context::from_waker(std::task::Waker::noop()), &mut buf);
        read.map_ok(|()| buf.filled().to_vec())
    }

    #[test]
    fn what_is_much_is_read_in_large_pieces_and_passes_whole() {
        let all: Vec<u8> = (0..1_000_003_u32)
            .map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1])
            .collect();
        let mut stream = Below::new(Script::of([some(&all)]));
        let mut got = Vec::new();
        loop {
            match read(&mut stream, MUCH) {
                Poll::Ready(Ok(bytes)) if bytes.is_empty() => break,
                Poll::Ready(Ok(bytes)) => got.extend_from_slice(&bytes),
                other => panic!("{other:?}"),
            }
        }
        assert!(got == all);
        assert!(
            stream.inner.asked < all.len() / PIECE + 8,
            "{}",
            stream.inner.asked
        );
        assert_eq!(stream.held.capacity(), 0);
    }

    #[test]
    fn there_is_no_buffer_while_nothing_comes() {
        let mut stream = Below::new(Script::of([some(&[1; MUCH]), Poll::Pending, some(b"x")]));
        assert!(matches!(read(&mut stream, MUCH), Poll::Ready(Ok(bytes)) if bytes.len() == MUCH));
        assert!(stream.much);
        assert!(read(&mut stream, MUCH).is_pending());
        assert_eq!(stream.held.capacity(), 0);
        assert!(matches!(read(&mut stream, MUCH), Poll::Ready(Ok(bytes)) if bytes == b"x"));
        assert_eq!(stream.held.capacity(), 0);
    }

    #[test]
    fn records_that_have_come_are_given_out_together_and_an_error_after_them() {
        let broken = Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        let script = [some(b"ab"), some(b"cd"), Poll::Pending, some(b"ef"), broken];
        let mut stream = Above::new(Script::of(script));
        assert!(matches!(read(&mut stream, 64), Poll::Ready(Ok(bytes)) if bytes == b"abcd"));
        assert!(matches!(read(&mut stream, 64), Poll::Ready(Ok(bytes)) if bytes == b"ef"));
        let error = read(&mut stream, 64);
        assert!(
            matches!(error, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset)
        );
        assert!(matches!(read(&mut stream, 64), Poll::Ready(Ok(bytes)) if bytes.is_empty()));
    }
}
