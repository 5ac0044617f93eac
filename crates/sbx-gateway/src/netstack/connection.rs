//! One TCP connection of the guest: smoltcp's socket on one side, the pipe to its relay on the other.

use std::sync::Arc;
use std::time::Instant;

use sbx_wire::gateway::PROXY_PORT;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::IpListenEndpoint;

use super::pipe::{Pipe, Shared, Wake};
use super::{Dialled, Flow, GuestStream};
use crate::addresses::{DNS_PORT, GATEWAY};
use crate::limits;

/// What the connection is for.
pub(super) enum Purpose {
    Dns,
    Proxy,
    Http,
    Tls,
    Raw(Box<Dialled>),
}

impl Purpose {
    /// What is answered before anybody was asked. `None`: raw TCP, which is judged by its SYN.
    pub(super) fn of(flow: Flow) -> Option<Self> {
        match (flow.address, flow.port) {
            (GATEWAY, DNS_PORT) => Some(Self::Dns),
            (GATEWAY, PROXY_PORT) => Some(Self::Proxy),
            (_, 80) => Some(Self::Http),
            (_, 443) => Some(Self::Tls),
            _ => None,
        }
    }
}

/// What came out of serving a connection.
pub(super) enum State {
    /// Nothing to do.
    Going,
    /// Its handshake is done: somebody has to take the stream.
    Established(Purpose, GuestStream),
    /// Remove it.
    Over,
}

pub(super) struct Connection {
    handle: SocketHandle,
    pipe: Arc<Pipe>,
    /// Taken when the handshake is done.
    purpose: Option<Purpose>,
    born: Instant,
    /// Since when the relay's end is gone.
    left: Option<Instant>,
}

impl Connection {
    /// A socket that listens for exactly this flow's destination.
    pub(super) fn listen(
        flow: Flow,
        purpose: Purpose,
        sockets: &mut SocketSet<'static>,
        wake: Arc<Wake>,
    ) -> Option<Self> {
        let buffer = || tcp::SocketBuffer::new(vec![0; limits::SOCKET_BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.set_timeout(Some(smoltcp::time::Duration::from_secs(
            limits::UNACKNOWLEDGED.as_secs(),
        )));
        socket.set_congestion_control(tcp::CongestionControl::None);
        let endpoint = IpListenEndpoint {
            addr: Some(flow.address.into()),
            port: flow.port,
        };
        socket.listen(endpoint).ok()?;
        Some(Self {
            handle: sockets.add(socket),
            pipe: Pipe::new(flow, wake),
            purpose: Some(purpose),
            born: Instant::now(),
            left: None,
        })
    }

    /// Whether a new SYN may take its place.
    pub(super) fn is_over(&self, sockets: &SocketSet<'static>) -> bool {
        let socket = sockets.get::<tcp::Socket>(self.handle);
        matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait)
    }

    /// Moves what can be moved.
    pub(super) fn serve(&mut self, sockets: &mut SocketSet<'static>) -> State {
        let socket = sockets.get_mut::<tcp::Socket>(self.handle);
        match socket.state() {
            tcp::State::Listen | tcp::State::SynReceived => {
                return if self.born.elapsed() > limits::HALF_OPEN {
                    State::Over
                } else {
                    State::Going
                };
            }
            tcp::State::Closed => return State::Over,
            _ => {}
        }
        if let Some(purpose) = self.purpose.take() {
            return State::Established(purpose, GuestStream::new(self.pipe.clone()));
        }
        let mut shared = self.pipe.lock();
        shared.told = false;
        if shared.abort || (shared.dropped && !shared.outbound_closed) {
            socket.abort();
            return State::Going;
        }
        send(socket, &mut shared);
        receive(socket, &mut shared);
        if shared.dropped {
            let left = *self.left.get_or_insert_with(Instant::now);
            if left.elapsed() > limits::LINGER {
                socket.abort();
            }
        }
        // All data and both FINs have been acknowledged: nothing is gained by waiting in TIME-WAIT on
        // a link that does not reorder.
        if socket.state() == tcp::State::TimeWait && shared.inbound_closed {
            return State::Over;
        }
        State::Going
    }

    /// Takes the socket away and tells the relay, if there still is one.
    pub(super) fn remove(self, sockets: &mut SocketSet<'static>) {
        sockets.remove(self.handle);
        let mut shared = self.pipe.lock();
        if !shared.inbound_closed || !shared.outbound.is_empty() || !shared.outbound_closed {
            shared.reset = true;
        }
        wake_both(&mut shared);
    }
}

fn wake_both(shared: &mut Shared) {
    for waker in [shared.reader.take(), shared.writer.take()]
        .into_iter()
        .flatten()
    {
        waker.wake();
    }
}

/// Relay to guest.
fn send(socket: &mut tcp::Socket<'static>, shared: &mut Shared) {
    let before = shared.outbound.len();
    while !shared.outbound.is_empty() && socket.can_send() {
        let sent = socket
            .send_slice(shared.outbound.as_slices().0)
            .unwrap_or(0);
        if sent == 0 {
            break;
        }
        shared.outbound.drain(..sent);
    }
    if shared.outbound.is_empty() && shared.outbound_closed {
        socket.close();
    }
    if shared.outbound.len() < before
        && let Some(waker) = shared.writer.take()
    {
        waker.wake();
    }
}

/// Guest to relay.
fn receive(socket: &mut tcp::Socket<'static>, shared: &mut Shared) {
    let before = shared.inbound.len();
    while socket.can_recv() {
        // Nobody reads any more: what the guest still sends is thrown away until it closes too.
        let room = if shared.dropped {
            usize::MAX
        } else {
            limits::PIPE.saturating_sub(shared.inbound.len())
        };
        if room == 0 {
            break;
        }
        let received = socket.recv(|bytes| {
            let length = bytes.len().min(room);
            if !shared.dropped {
                shared.inbound.extend(&bytes[..length]);
            }
            (length, length)
        });
        if received.is_err() {
            break;
        }
    }
    let ended = !socket.may_recv() && !socket.can_recv() && !shared.inbound_closed;
    if ended {
        shared.inbound_closed = true;
    }
    if (ended || shared.inbound.len() > before)
        && let Some(waker) = shared.reader.take()
    {
        waker.wake();
    }
}
