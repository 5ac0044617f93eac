//! The bounded pipe between the network thread and one relay task, and the guest's end of a TCP
//! connection as the relay sees it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use rustix::event::{EventfdFlags, eventfd};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Flow;
use crate::limits;

/// Wakes the network thread and says which connections want attention.
#[derive(Debug)]
pub(super) struct Wake {
    fd: OwnedFd,
    rung: AtomicBool,
    dirty: Mutex<Vec<Flow>>,
    /// Streams that a task holds, those whose connection has ended included.
    held: AtomicUsize,
}

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self {
            fd,
            rung: AtomicBool::new(false),
            dirty: Mutex::default(),
            held: AtomicUsize::new(0),
        })
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Makes the network thread run its loop.
    pub(super) fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Full means that it is ringing already.
            let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
        }
    }

    /// Silences the bell and takes the connections that want attention.
    pub(super) fn take(&self) -> Vec<Flow> {
        // First the bell, then the list: what is added in between rings again.
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.fd, &mut count);
        self.rung.store(false, Ordering::Release);
        std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Streams of the guest that some task still holds.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    fn attend(&self, flow: Flow) {
        self.dirty
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(flow);
        self.ring();
    }
}

/// State shared by both ends.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Guest to relay.
    pub(super) inbound: VecDeque<u8>,
    /// Relay to guest.
    pub(super) outbound: VecDeque<u8>,
    /// The guest sent FIN and all before it is in `inbound`.
    pub(super) inbound_closed: bool,
    /// The connection broke.
    pub(super) reset: bool,
    /// The relay will write no more.
    pub(super) outbound_closed: bool,
    /// The relay's end is gone.
    pub(super) dropped: bool,
    /// The relay wants the guest to see RST.
    pub(super) abort: bool,
    /// The network thread has been told already.
    pub(super) told: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

/// Both ends hold one.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) shared: Mutex<Shared>,
    flow: Flow,
    wake: Arc<Wake>,
}

impl Pipe {
    pub(super) fn new(flow: Flow, wake: Arc<Wake>) -> Arc<Self> {
        Arc::new(Self {
            shared: Mutex::default(),
            flow,
            wake,
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, shared: &mut Shared) {
        if !shared.told {
            shared.told = true;
            self.wake.attend(self.flow);
        }
    }
}

/// The guest's end of a TCP connection. Dropped without a shutdown, the guest sees RST.
#[derive(Debug)]
pub struct GuestStream {
    pipe: Arc<Pipe>,
}

impl GuestStream {
    pub(super) fn new(pipe: Arc<Pipe>) -> Self {
        pipe.wake.held.fetch_add(1, Ordering::AcqRel);
        Self { pipe }
    }

    /// Waits until the connection is broken, for a task that neither reads nor writes at the moment.
    pub async fn broken(&self) {
        std::future::poll_fn(|cx| {
            let mut shared = self.pipe.lock();
            if shared.reset {
                return Poll::Ready(());
            }
            shared.reader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// What the guest dialled.
    pub fn flow(&self) -> Flow {
        self.pipe.flow
    }

    /// Breaks the connection: the guest sees RST, so that it knows nothing was delivered.
    pub fn abort(self) {
        self.pipe.lock().abort = true;
    }
}

impl Drop for GuestStream {
    fn drop(&mut self) {
        let mut shared = self.pipe.lock();
        shared.dropped = true;
        shared.reader = None;
        shared.writer = None;
        self.pipe.wake.held.fetch_sub(1, Ordering::AcqRel);
        self.pipe.tell(&mut shared);
    }
}

impl AsyncRead for GuestStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = self.pipe.lock();
        if shared.inbound.is_empty() {
            if shared.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if shared.inbound_closed {
                return Poll::Ready(Ok(()));
            }
            shared.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let was_full = shared.inbound.len() >= limits::PIPE / 2;
        let (front, back) = shared.inbound.as_slices();
        let mut taken = 0;
        for part in [front, back] {
            let length = part.len().min(buf.remaining());
            buf.put_slice(&part[..length]);
            taken += length;
        }
        shared.inbound.drain(..taken);
        if was_full && shared.inbound.len() < limits::PIPE / 2 {
            self.pipe.tell(&mut shared);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for GuestStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut shared = self.pipe.lock();
        if shared.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if shared.outbound_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut room = limits::PIPE.saturating_sub(shared.outbound.len());
        if room == 0 {
            shared.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut written = 0;
        for buf in bufs {
            let length = buf.len().min(room);
            shared.outbound.extend(&buf[..length]);
            written += length;
            room -= length;
        }
        self.pipe.tell(&mut shared);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.pipe.lock();
        shared.outbound_closed = true;
        self.pipe.tell(&mut shared);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn a_task_that_waits_for_something_else_learns_of_the_end_and_keeps_its_place_until_then()
    {
        let flow = Flow {
            source: 1,
            address: Ipv4Addr::LOCALHOST,
            port: 443,
        };
        let wake = Arc::new(Wake::new().unwrap());
        let pipe = Pipe::new(flow, wake.clone());
        let stream = GuestStream::new(pipe.clone());
        let task = tokio::spawn(async move {
            stream.broken().await;
            stream
        });
        while pipe.lock().reader.is_none() {
            tokio::task::yield_now().await;
        }
        let reader = {
            let mut shared = pipe.lock();
            shared.reset = true;
            shared.reader.take()
        };
        reader.unwrap().wake();
        let stream = task.await.unwrap();
        assert_eq!(wake.held(), 1);
        drop(stream);
        assert_eq!(wake.held(), 0);
    }
}
