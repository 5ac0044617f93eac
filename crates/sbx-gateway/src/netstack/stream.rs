//! The guest's end of a TCP connection as the relay sees it. Its bytes lie in smoltcp's buffers and nowhere else:
//! the relay task reads and writes them in place, under the connection's own lock, and rings for the network
//! task when there is something to send.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::{Socket, tcp};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::Flow;
use crate::limits;

/// Wakes the network task and says which connections want attention.
#[derive(Debug, Default)]
pub(super) struct Wake {
    bell: Notify,
    dirty: Mutex<Vec<Flow>>,
    /// Connections with buffers: those that have ended while a task still holds their stream included.
    alive: AtomicUsize,
    /// Sockets of ended connections: new buffers would cost a connection as much as a handshake of its TLS.
    spare: Mutex<Vec<tcp::Socket<'static>>>,
}

impl Wake {
    /// Makes the network task take a turn.
    pub(super) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Waits for a ring, or returns at once when there was one since the last.
    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// The connections that want attention.
    pub(super) fn take(&self) -> Vec<Flow> {
        std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Connections that hold buffers.
    pub(super) fn alive(&self) -> usize {
        self.alive.load(Ordering::Acquire)
    }

    /// A socket that is not in use.
    pub(super) fn socket(&self) -> tcp::Socket<'static> {
        let (receive, send) = match self.alive() {
            ..limits::FEW => (limits::WIDE_BUFFER, limits::WIDE_SEND_BUFFER),
            limits::FEW..limits::CROWD => (limits::SOCKET_BUFFER, limits::SOCKET_BUFFER),
            _ => return socket(limits::CROWDED_BUFFER, limits::CROWDED_BUFFER),
        };
        let spare = {
            let mut spare = self.spare();
            let place = spare.iter().rposition(|it| it.recv_capacity() == receive);
            place.map(|place| spare.swap_remove(place))
        };
        spare.unwrap_or_else(|| socket(receive, send))
    }

    #[cfg(test)]
    pub(super) fn spares(&self) -> usize {
        self.spare().len()
    }

    fn spare(&self) -> MutexGuard<'_, Vec<tcp::Socket<'static>>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, mut socket: tcp::Socket<'static>) {
        let size = socket.recv_capacity();
        let most = match size {
            limits::WIDE_BUFFER => limits::FEW,
            limits::SOCKET_BUFFER => limits::SPARE_SOCKETS,
            _ => return,
        };
        let mut spare = self.spare();
        if spare.iter().filter(|it| it.recv_capacity() == size).count() < most {
            socket.abort();
            spare.push(socket);
        }
    }

    fn attend(&self, flow: Flow) {
        self.dirty
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(flow);
        self.ring();
    }
}

fn socket(receive: usize, send: usize) -> tcp::Socket<'static> {
    let buffer = |size| tcp::SocketBuffer::new(vec![0; size]);
    tcp::Socket::new(buffer(receive), buffer(send))
}

/// State shared by both ends.
#[derive(Debug)]
pub(super) struct Shared {
    /// The one socket.
    pub(super) sockets: SocketSet<'static>,
    handle: SocketHandle,
    /// The guest sent FIN.
    pub(super) finished: bool,
    /// The connection broke.
    pub(super) reset: bool,
    /// The relay will write no more.
    pub(super) outbound_closed: bool,
    /// The relay's end is gone.
    pub(super) dropped: bool,
    /// The relay wants the guest to see RST.
    pub(super) abort: bool,
    /// The network task has been told already.
    pub(super) told: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Shared {
    pub(super) fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Who has to hear of what the network task has just seen.
    pub(super) fn wakers(&mut self) -> [Option<Waker>; 2] {
        let ended = self.reset || self.finished;
        let reset = self.reset;
        let socket = self.socket();
        let (readable, writable) = (ended || socket.can_recv(), reset || socket.can_send());
        [
            self.reader.take_if(|_| readable),
            self.writer.take_if(|_| writable),
        ]
    }
}

/// Both ends hold one.
#[derive(Debug)]
pub(super) struct Pipe {
    shared: Mutex<Shared>,
    flow: Flow,
    wake: Arc<Wake>,
}

impl Pipe {
    pub(super) fn new(flow: Flow, socket: tcp::Socket<'static>, wake: Arc<Wake>) -> Arc<Self> {
        wake.alive.fetch_add(1, Ordering::AcqRel);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        let shared = Shared {
            sockets,
            handle,
            finished: false,
            reset: false,
            outbound_closed: false,
            dropped: false,
            abort: false,
            told: false,
            reader: None,
            writer: None,
        };
        Arc::new(Self {
            shared: Mutex::new(shared),
            flow,
            wake,
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn wake(&self) -> Arc<Wake> {
        self.wake.clone()
    }

    fn tell(&self, shared: &mut Shared) {
        if !shared.told {
            shared.told = true;
            self.wake.attend(self.flow);
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.wake.alive.fetch_sub(1, Ordering::AcqRel);
        let shared = self.shared.get_mut();
        let shared = shared.unwrap_or_else(PoisonError::into_inner);
        let Socket::Tcp(socket) = shared.sockets.remove(shared.handle) else {
            return;
        };
        self.wake.keep(socket);
    }
}

/// The guest's end of a TCP connection. Dropped without a shutdown, the guest sees RST.
#[derive(Debug)]
pub struct GuestStream {
    pipe: Arc<Pipe>,
}

impl GuestStream {
    pub(super) fn new(pipe: Arc<Pipe>) -> Self {
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

    /// Hands bytes of the guest to `take`, in place and at most once; it says how many it took. Ready with 0 at
    /// the end of what the guest sends.
    ///
    /// # Errors
    /// `ConnectionReset` when the connection is broken and all that came before was taken, and what `take` says;
    /// its `WouldBlock` too.
    pub fn poll_take<F>(&self, cx: &mut Context<'_>, take: F) -> Poll<io::Result<usize>>
    where
        F: FnOnce(&[u8]) -> io::Result<usize>,
    {
        let mut shared = self.pipe.lock();
        let socket = shared.socket();
        if !socket.can_recv() {
            if shared.reset {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if shared.finished {
                return Poll::Ready(Ok(0));
            }
            shared.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = socket.recv_queue();
        let taken = socket.recv(|bytes| match take(bytes) {
            Ok(taken) => (taken.min(bytes.len()), Ok(taken.min(bytes.len()))),
            Err(error) => (0, Err(error)),
        });
        // Cannot fail: there is something to receive.
        let taken = taken.map_err(io::Error::other)?;
        // The guest is told of the room once half of the buffer is free again.
        let half = socket.recv_capacity() / 2;
        if before >= half && socket.recv_queue() < half {
            self.pipe.tell(&mut shared);
        }
        Poll::Ready(taken)
    }

    /// Lets `give` write bytes for the guest, in place and at most once; it says how many it wrote.
    ///
    /// # Errors
    /// `ConnectionReset` when the connection is broken, `BrokenPipe` after a shutdown, and what `give` says; its
    /// `WouldBlock` too.
    pub fn poll_give<F>(&self, cx: &mut Context<'_>, give: F) -> Poll<io::Result<usize>>
    where
        F: FnOnce(&mut [u8]) -> io::Result<usize>,
    {
        let mut shared = self.pipe.lock();
        if shared.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if shared.outbound_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let socket = shared.socket();
        if !socket.can_send() {
            shared.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let given = socket.send(|room| match give(room) {
            Ok(given) => (given.min(room.len()), Ok(given.min(room.len()))),
            Err(error) => (0, Err(error)),
        });
        let given = given.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?;
        if matches!(given, Ok(1..)) {
            self.pipe.tell(&mut shared);
        }
        Poll::Ready(given)
    }
}

impl Drop for GuestStream {
    fn drop(&mut self) {
        let mut shared = self.pipe.lock();
        shared.dropped = true;
        shared.reader = None;
        shared.writer = None;
        self.pipe.tell(&mut shared);
    }
}

impl AsyncRead for GuestStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let taken = self.poll_take(cx, |bytes| {
            let length = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes[..length]);
            Ok(length)
        });
        taken.map_ok(drop)
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
        self.poll_give(cx, |mut room| {
            let mut written = 0;
            for buf in bufs {
                let length = buf.len().min(room.len());
                let (here, rest) = room.split_at_mut(length);
                here.copy_from_slice(&buf[..length]);
                room = rest;
                written += length;
            }
            Ok(written)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.pipe.lock();
        if !shared.outbound_closed {
            shared.outbound_closed = true;
            shared.socket().close();
            self.pipe.tell(&mut shared);
        }
        Poll::Ready(Ok(()))
    }
}
