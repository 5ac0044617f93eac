//! The guest's network in user space: smoltcp in a task of its own. Each SYN is looked at before smoltcp
//! sees it; the ones that may go on get a listening socket for exactly their address and port.
//!
//! One turn of the loop: wait for the VM, the relay tasks or a timer; take in frames; look after the connections
//! that have a reason, one packet each in turn; write to the VM. What a turn costs depends on what happened in it and not on
//! how many connections there are.

mod checksum;
mod connection;
mod datagrams;
mod host;
mod link;
mod packets;
mod parked;
mod stream;
mod timers;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant as Clock};

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetFrame, HardwareAddress, IpCidr};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use crate::adapter::frame::{Sight, look};
use crate::addresses::{GATEWAY, PREFIX};
use crate::gateway::Gateway;
use crate::limits;
use crate::reason::Reason;
use connection::{Connection, Purpose, State};
use host::Word;
pub use host::{Answers, Datagrams, Dialled, DnsTicket, Host, Refusal, Sending};
use link::{Link, Next};
use parked::Parked;
pub use stream::GuestStream;
use timers::Timers;

/// A TCP connection or UDP exchange of the guest. Its source address is always the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// The guest's port.
    pub source: u16,
    /// What it dialled.
    pub address: Ipv4Addr,
    /// Which port it dialled.
    pub port: u16,
}

/// The network task's state.
pub struct Stack<H> {
    link: Link,
    interface: Interface,
    /// For packets that belong to no connection.
    nobody: SocketSet<'static>,
    dns_in_flight: usize,
    connections: HashMap<Flow, Connection>,
    timers: Timers,
    parked: Parked,
    datagrams: HashMap<Flow, Datagrams>,
    /// Room for their datagrams on the way to the host's network, in bytes.
    sending: Arc<Semaphore>,
    /// Connections to look after, each once.
    queue: VecDeque<Flow>,
    /// Others have said more than there was room for.
    unheard: bool,
    /// The VM has sent more than there was time for.
    unseen: bool,
    answers: Arc<Answers>,
    host: Arc<H>,
    gateway: Arc<Gateway>,
    started: Clock,
    now: Instant,
}

/// Frames between two looks at the clock.
const FRAMES: u32 = 16;
/// While nothing may be produced, timers that are due wait at least this long: only the VM can make room.
const NO_ROOM: Duration = Duration::from_millis(10);
/// Bytes that are written before more is produced, so that the VM works on them meanwhile.
const FLUSH: usize = 128 * 1024;

impl<H: Host> Stack<H> {
    /// A stack on a connected frame socket.
    pub fn new(
        stream: UnixStream,
        host: Arc<H>,
        gateway: Arc<Gateway>,
        answers: Arc<Answers>,
    ) -> io::Result<Self> {
        let mut link = Link::new(stream);
        let interface = interface(&mut link)?;
        Ok(Self {
            link,
            interface,
            nobody: SocketSet::new(Vec::new()),
            dns_in_flight: 0,
            connections: HashMap::new(),
            timers: Timers::default(),
            parked: Parked::default(),
            datagrams: HashMap::new(),
            sending: Arc::new(Semaphore::new(limits::UDP_SENDING)),
            queue: VecDeque::new(),
            unheard: false,
            unseen: false,
            answers,
            host,
            gateway,
            started: Clock::now(),
            now: Instant::ZERO,
        })
    }

    /// Runs until the VM closes the socket.
    pub async fn run(mut self) -> io::Result<()> {
        while self.turn().await? {}
        Ok(())
    }

    /// One turn of the loop. Waits where nothing is to be done; given up meanwhile, nothing is lost. False: the VM has
    /// closed the socket.
    ///
    /// # Errors
    /// The frame socket's, and a stream that is out of step.
    pub async fn turn(&mut self) -> io::Result<bool> {
        self.wait().await?;
        self.now = self.clock();
        for flow in self.answers.wake.take() {
            self.touch(flow);
        }
        self.take_answers();
        let open = !self.link.has_room() || self.link.fill()?;
        self.take_frames()?;
        while let Some(flow) = self.timers.pop_due(self.now) {
            if let Some(connection) = self.connections.get_mut(&flow) {
                connection.timer = None;
            }
            self.touch(flow);
        }
        Ok(self.attend()? && self.link.flush()? && open)
    }

    fn clock(&self) -> Instant {
        let micros = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        Instant::from_micros(micros)
    }

    /// Waits for something to do.
    async fn wait(&self) -> io::Result<()> {
        if self.link.has_room() && (self.unheard || self.unseen || !self.queue.is_empty()) {
            // The relays get their turn all the same.
            tokio::task::yield_now().await;
            return Ok(());
        }
        let timer = async {
            match self.timers.next() {
                Some(at) => {
                    let until =
                        self.started + Duration::from_micros(at.total_micros().unsigned_abs());
                    // While nothing may be produced, only the VM can make room.
                    let until = if self.link.has_room() {
                        until
                    } else {
                        until.max(Clock::now() + NO_ROOM)
                    };
                    tokio::time::sleep_until(until.into()).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ready = self.link.ready() => ready,
            () = self.answers.wake.rung() => Ok(()),
            () = timer => Ok(()),
        }
    }

    fn take_frames(&mut self) -> io::Result<()> {
        let begun = Clock::now();
        self.unseen = false;
        for number in 1_u32.. {
            if !self.link.has_room() {
                break;
            }
            if number % FRAMES == 0 && begun.elapsed() > limits::FRAMES_TIME {
                self.unseen = true;
                break;
            }
            let Next::Frame(place) = self.link.next_frame()? else {
                break;
            };
            let frame = self.link.frame(place.clone());
            let sight = look(frame);
            if !matches!(sight, Sight::Ignore | Sight::Stop { .. }) {
                let peer = EthernetFrame::new_unchecked(frame).src_addr();
                self.link.set_peer(peer);
            }
            self.see(sight, place);
        }
        Ok(())
    }

    fn see(&mut self, sight: Sight, place: Range<usize>) {
        match sight {
            Sight::Ignore => {}
            Sight::Arp { hardware, protocol } => {
                packets::arp_reply(&mut self.link, hardware, protocol);
            }
            Sight::Pass => self.feed_nobody(place),
            Sight::Segment(flow) => self.feed(flow, place),
            Sight::Reset(flow) => {
                self.parked.cancel(flow);
                self.feed(flow, place);
            }
            Sight::Syn(flow) => self.syn(flow, place),
            Sight::Datagram { flow, payload } => self.datagram(flow, place, payload),
            Sight::Stop {
                reason,
                address,
                port,
                refuse,
            } => {
                self.host.stopped(reason, address, port);
                if refuse {
                    self.feed_nobody(place);
                }
            }
        }
    }

    /// Gives a packet to the connection it belongs to. Without one, smoltcp answers RST.
    fn feed(&mut self, flow: Flow, place: Range<usize>) {
        self.link.offer(place);
        self.give_offer(flow);
    }

    fn give_offer(&mut self, flow: Flow) {
        if let Some(connection) = self.connections.get_mut(&flow) {
            connection.take_packet(self.now, &mut self.interface, &mut self.link);
            self.touch(flow);
        } else {
            self.give_nobody();
        }
    }

    fn feed_nobody(&mut self, place: Range<usize>) {
        self.link.offer(place);
        self.give_nobody();
    }

    fn give_nobody(&mut self) {
        let _ = self
            .interface
            .poll_ingress_single(self.now, &mut self.link, &mut self.nobody);
    }

    fn syn(&mut self, flow: Flow, place: Range<usize>) {
        if let Some(connection) = self.connections.get(&flow) {
            if !connection.is_over() {
                // A repeated SYN, or another one: smoltcp knows what to answer.
                return self.feed(flow, place);
            }
            self.remove(flow);
        }
        if self.parked.contains(flow) {
            return self.parked.keep(flow, self.link.frame(place));
        }
        // A relay may outlive its connection for a moment, as long as its dial takes: it keeps its buffers.
        let busy = self.answers.wake.alive() + self.parked.len();
        let purpose = Purpose::of(flow);
        let full = purpose.is_none() && self.parked.is_full();
        if busy >= limits::CONNECTIONS || full {
            let reason = Reason::ConnectionLimit;
            self.host.stopped(reason, flow.address.into(), flow.port);
            self.feed_nobody(place);
        } else if let Some(purpose) = purpose {
            self.listen(flow, purpose);
            self.feed(flow, place);
        } else if self.host.raw(flow) {
            self.parked.keep(flow, self.link.frame(place));
        } else {
            // No socket listens: smoltcp answers RST.
            self.feed_nobody(place);
        }
    }

    fn listen(&mut self, flow: Flow, purpose: Purpose) {
        match Connection::listen(flow, purpose, self.answers.wake.clone(), self.now) {
            Some(connection) => {
                self.connections.insert(flow, connection);
                self.count();
            }
            None => tracing::error!(?flow, "cannot listen"),
        }
    }

    /// Takes what others say, as long as there is room for what follows from it.
    fn take_answers(&mut self) {
        while self.link.has_room() {
            let Some(word) = self.answers.next() else {
                self.unheard = false;
                return;
            };
            match word {
                Word::Dns(flow, answer) => {
                    self.dns_in_flight = self.dns_in_flight.saturating_sub(1);
                    if let Some(answer) = answer {
                        packets::datagram(&mut self.link, flow, &answer);
                    }
                }
                Word::Datagram(flow, payload) => {
                    packets::datagram(&mut self.link, flow, &payload);
                }
                Word::Closed(flow) => packets::port_closed(&mut self.link, flow),
                Word::Dialled(flow, upstream) => self.unpark(flow, upstream),
            }
        }
        self.unheard = true;
    }

    fn unpark(&mut self, flow: Flow, upstream: Result<Dialled, Refusal>) {
        let Some(packet) = self.parked.take(flow) else {
            return;
        };
        match upstream {
            Ok(upstream) => self.listen(flow, Purpose::Raw(Box::new(upstream))),
            Err(Refusal::Refused) => {}
            Err(Refusal::Unreachable) => {
                return packets::host_unreachable(&mut self.link, flow, &packet);
            }
        }
        self.link.offer_parked(packet);
        self.give_offer(flow);
    }

    /// Notes that a connection has to be looked after.
    fn touch(&mut self, flow: Flow) {
        if let Some(connection) = self.connections.get_mut(&flow)
            && !connection.queued
        {
            connection.queued = true;
            self.queue.push_back(flow);
        }
    }

    /// Looks after the connections that have a reason, one packet each in turn, until none has one or the link is
    /// full. False: the VM has closed the socket.
    fn attend(&mut self) -> io::Result<bool> {
        while self.link.has_room()
            && let Some(flow) = self.queue.pop_front()
        {
            self.attend_one(flow);
            if self.link.backlog() >= FLUSH && !self.link.flush()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn attend_one(&mut self, flow: Flow) {
        let Some(connection) = self.connections.get_mut(&flow) else {
            return;
        };
        connection.queued = false;
        match connection.attend(self.now, &mut self.interface, &mut self.link) {
            State::More => self.touch(flow),
            State::Wait(until) => self.timers.set(flow, &mut connection.timer, until),
            State::Over => self.remove(flow),
            State::Established(purpose, stream) => {
                match purpose {
                    Purpose::Dns => self.host.dns_stream(stream),
                    Purpose::Proxy => self.host.proxy(stream),
                    Purpose::Http => self.host.http(stream),
                    Purpose::Tls => self.host.tls(stream),
                    Purpose::Raw(upstream) => self.host.raw_stream(stream, *upstream),
                }
                // The guest's first bytes may be there already.
                self.touch(flow);
            }
        }
    }

    fn remove(&mut self, flow: Flow) {
        if let Some(mut connection) = self.connections.remove(&flow) {
            self.timers.clear(flow, &mut connection.timer);
            connection.remove();
            self.count();
        }
    }

    fn count(&self) {
        let open = u32::try_from(self.connections.len()).unwrap_or(u32::MAX);
        self.gateway
            .status
            .connections
            .store(open, Ordering::Relaxed);
    }
}

fn interface(link: &mut Link) -> io::Result<Interface> {
    let mut config = Config::new(HardwareAddress::Ip);
    let mut seed = [0; 8];
    crate::random(&mut seed).map_err(io::Error::other)?;
    config.random_seed = u64::from_ne_bytes(seed);
    let mut interface = Interface::new(config, link, Instant::ZERO);
    interface.update_ip_addrs(|addresses| {
        // The list holds three and is empty.
        let _ = addresses.push(IpCidr::new(GATEWAY.into(), PREFIX));
    });
    interface.set_any_ip(true);
    // `any_ip` accepts what a route through our own address leads to.
    interface
        .routes_mut()
        .add_default_ipv4_route(GATEWAY)
        .map_err(io::Error::other)?;
    Ok(interface)
}
