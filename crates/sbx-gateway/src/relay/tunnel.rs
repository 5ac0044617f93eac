//! Bytes that are passed on unread, both ways, until both sides are done.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;

use super::direct;
use crate::limits;
use crate::live::Lease;
use crate::netstack::GuestStream;

/// Copy buffer each way, in bytes.
const BUFFER: usize = 64 * 1024;
/// How often a tunnel is looked at for progress.
const LOOK: Duration = Duration::from_mins(1);

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides are done.
    Done,
    /// One side broke it.
    Broken,
    /// A new policy does not allow it any more.
    Revoked,
    /// Nobody sent anything for too long.
    Idle,
}

/// Relays until both sides are done. Whatever ends it, both streams are dropped by the caller.
pub async fn relay<A, B>(guest: &mut A, upstream: &mut B, lease: Lease) -> End
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let moved = AtomicU64::new(0);
    let mut guest = Counted::new(guest, &moved);
    let copy = copy_bidirectional_with_sizes(&mut guest, upstream, BUFFER, BUFFER);
    let copy = async { copy.await.map(drop) };
    let end = until_end(copy, &moved, lease).await;
    end.unwrap_or(End::Broken)
}

/// As [`relay`], for a connection of the guest and a socket of ours: without a copy between them. `front` was read of
/// the guest already.
pub async fn relay_direct(
    guest: &mut GuestStream,
    mut front: Bytes,
    upstream: &mut TcpStream,
    lease: Lease,
) -> End {
    let moved = AtomicU64::new(0);
    let copy = async {
        upstream.write_all_buf(&mut front).await?;
        direct::relay(guest, upstream, &moved).await
    };
    let end = until_end(copy, &moved, lease).await;
    end.unwrap_or(End::Broken)
}

/// Runs `copy` until it is done or broken, the lease is revoked, or nothing has `moved` for too long.
pub(super) async fn until_end<E>(
    copy: impl Future<Output = Result<(), E>>,
    moved: &AtomicU64,
    lease: Lease,
) -> Result<End, E> {
    let idle = async {
        let mut seen = 0;
        let mut quiet = Duration::ZERO;
        while quiet < limits::TUNNEL_IDLE {
            tokio::time::sleep(LOOK).await;
            let now = moved.load(Ordering::Relaxed);
            quiet = if now == seen {
                quiet + LOOK
            } else {
                Duration::ZERO
            };
            seen = now;
        }
    };
    tokio::select! {
        copied = copy => copied.map(|()| End::Done),
        () = lease => Ok(End::Revoked),
        () = idle => Ok(End::Idle),
    }
}

/// Counts what passes, to see progress.
pub(super) struct Counted<'a, S> {
    inner: &'a mut S,
    moved: &'a AtomicU64,
}

impl<'a, S> Counted<'a, S> {
    /// Counts in `moved`.
    pub(super) fn new(inner: &'a mut S, moved: &'a AtomicU64) -> Self {
        Self { inner, moved }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut *self.inner).poll_read(cx, buf);
        let length = buf.filled().len() - before;
        self.moved.fetch_add(length as u64, Ordering::Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(length)) = polled {
            self.moved.fetch_add(length as u64, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::*;
    use crate::live::tests::lease;

    /// A tunnel with its guest and its upstream.
    fn tunnel() -> (DuplexStream, DuplexStream, JoinHandle<End>) {
        let (guest, mut ours) = duplex(64);
        let (mut theirs, upstream) = duplex(64);
        let relayed = async move { relay(&mut ours, &mut theirs, lease()).await };
        (guest, upstream, tokio::spawn(relayed))
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_without_a_byte_is_closed_and_one_with_a_few_is_not() {
        let (mut guest, upstream, quiet) = tunnel();
        let (mut other_guest, mut other_upstream, other) = tunnel();
        let started = Instant::now();
        let talking = async {
            for _ in 0..5 {
                tokio::time::sleep(limits::TUNNEL_IDLE.saturating_sub(2 * LOOK)).await;
                other_upstream.write_all(b"x").await.unwrap();
                assert_eq!(other_guest.read_u8().await.unwrap(), b'x');
            }
        };
        let closed = async {
            assert_eq!(quiet.await.unwrap(), End::Idle);
            started.elapsed()
        };
        let (closed, ()) = tokio::join!(closed, talking);
        let longest = limits::TUNNEL_IDLE + 2 * LOOK;
        assert!(
            (limits::TUNNEL_IDLE..longest).contains(&closed),
            "{closed:?}"
        );
        assert_eq!(guest.read(&mut [0]).await.unwrap(), 0);
        drop((upstream, other_guest, other_upstream));
        assert_eq!(other.await.unwrap(), End::Done);
    }
}
