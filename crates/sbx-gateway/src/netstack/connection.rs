//! The network task's end of one TCP connection. Its socket is alone in a set of its own, so that nothing that is
//! done for it costs more the more connections there are.

use std::sync::Arc;
use std::task::Waker;

use sbx_wire::gateway::PROXY_PORT;
use smoltcp::iface::{Interface, PollResult};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpListenEndpoint;

use super::link::Link;
use super::stream::{Pipe, Shared, Wake};
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

/// What came out of looking after a connection.
pub(super) enum State {
    /// Its handshake is done: somebody has to take the stream.
    Established(Purpose, GuestStream),
    /// It has more to send, or the link has no room for it: look again.
    More,
    /// Nothing before the next frame, the next word of the relay, or this time.
    Wait(Option<Instant>),
    /// Remove it.
    Over,
}

pub(super) struct Connection {
    pipe: Arc<Pipe>,
    /// Taken when the handshake is done.
    purpose: Option<Purpose>,
    born: Instant,
    /// When the guest sent something last.
    heard: Instant,
    /// Since when there is something that it has not acknowledged.
    waiting: Option<Instant>,
    /// Since when the relay's end is gone.
    left: Option<Instant>,
    /// When it is looked at without a cause; kept by the timers.
    pub(super) timer: Option<Instant>,
    /// Waits to be looked at.
    pub(super) queued: bool,
}

/// Shortest time after which something that wanted to be sent and was not is tried again.
const AGAIN: Duration = Duration::from_millis(10);

impl Connection {
    /// A socket that listens for exactly this flow's destination.
    pub(super) fn listen(
        flow: Flow,
        purpose: Purpose,
        wake: Arc<Wake>,
        now: Instant,
    ) -> Option<Self> {
        let mut socket = wake.socket();
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(Some(limits::ACK_DELAY.into()));
        socket.set_congestion_control(tcp::CongestionControl::None);
        // What its last connection may have needed.
        socket.set_keep_alive(None);
        let endpoint = IpListenEndpoint {
            addr: Some(flow.address.into()),
            port: flow.port,
        };
        socket.listen(endpoint).ok()?;
        Some(Self {
            pipe: Pipe::new(flow, socket, wake),
            purpose: Some(purpose),
            born: now,
            heard: now,
            waiting: None,
            left: None,
            timer: None,
            queued: false,
        })
    }

    /// Whether a new SYN may take its place.
    pub(super) fn is_over(&self) -> bool {
        let state = self.pipe.lock().socket().state();
        matches!(state, tcp::State::Closed | tcp::State::TimeWait)
    }

    /// Gives smoltcp the packet that the link offers.
    pub(super) fn take_packet(&mut self, now: Instant, interface: &mut Interface, link: &mut Link) {
        self.heard = now;
        let mut shared = self.pipe.lock();
        let _ = interface.poll_ingress_single(now, link, &mut shared.sockets);
        // Seen after each packet: the state that says so may be gone after the next.
        shared.finished |= matches!(
            shared.socket().state(),
            tcp::State::CloseWait
                | tcp::State::LastAck
                | tcp::State::Closing
                | tcp::State::TimeWait
        );
    }

    /// Wakes the relay where that helps and sends one packet, if there is one to send.
    pub(super) fn attend(
        &mut self,
        now: Instant,
        interface: &mut Interface,
        link: &mut Link,
    ) -> State {
        let pipe = self.pipe.clone();
        let mut shared = pipe.lock();
        shared.told = false;
        let half_open = match shared.socket().state() {
            // Its SYN was none, or was taken back.
            tcp::State::Listen => return State::Over,
            tcp::State::SynReceived => true,
            tcp::State::Closed => false,
            _ => {
                if let Some(purpose) = self.purpose.take() {
                    return State::Established(purpose, GuestStream::new(pipe.clone()));
                }
                false
            }
        };
        let limit = self.limit(&mut shared, half_open, now);
        let too_late = limit.is_some_and(|at| at <= now);
        if shared.abort || (shared.dropped && !shared.outbound_closed) || too_late {
            shared.socket().abort();
        }
        if shared.dropped {
            throw_away(shared.socket());
        }
        if shared.socket().state() == tcp::State::Closed {
            shared.reset = !(shared.finished && shared.outbound_closed);
        }
        let wakers = shared.wakers();
        if wakers.iter().any(Option::is_some) {
            drop(shared);
            wakers.into_iter().flatten().for_each(Waker::wake);
            shared = pipe.lock();
        }
        let sent = interface.poll_egress(now, link, &mut shared.sockets);
        let mut next = interface.poll_at(now, &shared.sockets);
        if ask_again(shared.socket(), next) {
            next = interface.poll_at(now, &shared.sockets);
        }
        match (shared.socket().state(), next) {
            (_, Some(at)) if at <= now && (sent != PollResult::None || !link.has_room()) => {
                State::More
            }
            // All data and both FINs have been acknowledged: nothing is gained by waiting in TIME-WAIT on a link that
            // does not reorder. What the relay has not read yet stays with it.
            // Or its RST has been sent.
            (tcp::State::TimeWait | tcp::State::Closed, _) => State::Over,
            (_, Some(at)) if at <= now => State::Wait(Some(now + AGAIN)),
            (_, at) => State::Wait(at.into_iter().chain(limit).min()),
        }
    }

    /// When the connection's own limits end it.
    fn limit(&mut self, shared: &mut Shared, half_open: bool, now: Instant) -> Option<Instant> {
        if half_open {
            return Some(self.born + Duration::from(limits::HALF_OPEN));
        }
        // It may read as slowly as it likes, as long as it is heard of.
        let waiting = shared.socket().send_queue() > 0;
        self.waiting = waiting.then(|| self.waiting.unwrap_or(now));
        let unheard = self
            .waiting
            .map(|since| since.max(self.heard) + Duration::from(limits::UNACKNOWLEDGED));
        self.left = shared.dropped.then(|| self.left.unwrap_or(now));
        let left = self
            .left
            .map(|since| since + Duration::from(limits::LINGER));
        unheard.into_iter().chain(left).min()
    }

    /// Tells the relay, if there still is one.
    pub(super) fn remove(self) {
        let mut shared = self.pipe.lock();
        shared.reset = !(shared.finished && shared.outbound_closed);
        let wakers = shared.wakers();
        drop(shared);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// Asks a guest where it is when smoltcp has data for it and waits for nothing: a guest that threw away what it had no
/// memory for, and said so by a window of nothing (Linux does so now), stops the timer after which data is sent again, and
/// once it opens a smaller window than before, nothing would ever be sent. It answers, and after three equal answers
/// smoltcp sends again (RFC 5681, section 3.2). Whether anything was changed.
fn ask_again(socket: &mut tcp::Socket<'static>, next: Option<Instant>) -> bool {
    let asked = socket.keep_alive().is_some();
    if socket.send_queue() == 0 {
        if asked {
            socket.set_keep_alive(None);
        }
        return false;
    }
    if next.is_none() && !asked {
        socket.set_keep_alive(Some(limits::ASKED_AGAIN.into()));
        return true;
    }
    false
}

/// Nobody reads any more: what the guest still sends is thrown away until it closes too.
fn throw_away(socket: &mut tcp::Socket<'static>) {
    while socket.can_recv() {
        if socket.recv(|bytes| (bytes.len(), ())).is_err() {
            return;
        }
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
