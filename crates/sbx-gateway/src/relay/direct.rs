//! Bytes that are passed on unread between a connection of the guest and a socket, from the one's buffer to the other's
//! without one of our own between them.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;

use crate::netstack::GuestStream;

/// Which ways are done.
#[derive(Default)]
struct Ways {
    up: bool,
    down: bool,
}

/// Relays until both sides are done. `moved` counts the bytes.
///
/// # Errors
/// What either side says; the other may have received less than was sent then.
pub async fn relay(
    guest: &mut GuestStream,
    upstream: &TcpStream,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut done = Ways::default();
    std::future::poll_fn(|cx| {
        if !done.up && poll_up(guest, upstream, moved, cx)?.is_ready() {
            done.up = true;
        }
        if !done.down && poll_down(guest, upstream, moved, cx)?.is_ready() {
            done.down = true;
        }
        if done.up && done.down {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}

/// Guest to upstream, until the guest says no more and upstream has been told.
fn poll_up(
    guest: &GuestStream,
    upstream: &TcpStream,
    moved: &AtomicU64,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    loop {
        ready!(upstream.poll_write_ready(cx))?;
        match ready!(guest.poll_take(cx, |bytes| upstream.try_write(bytes))) {
            Ok(0) => {
                rustix::net::shutdown(upstream, rustix::net::Shutdown::Write)?;
                return Poll::Ready(Ok(()));
            }
            Ok(length) => drop(moved.fetch_add(length as u64, Ordering::Relaxed)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// Upstream to guest, until upstream says no more and the guest has been told.
fn poll_down(
    guest: &mut GuestStream,
    upstream: &TcpStream,
    moved: &AtomicU64,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    loop {
        ready!(upstream.poll_read_ready(cx))?;
        match ready!(guest.poll_give(cx, |room| upstream.try_read(room))) {
            Ok(0) => return tokio::io::AsyncWrite::poll_shutdown(std::pin::Pin::new(guest), cx),
            Ok(length) => drop(moved.fetch_add(length as u64, Ordering::Relaxed)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}
