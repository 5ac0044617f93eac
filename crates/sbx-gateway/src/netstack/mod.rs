//! The guest's network in user space: smoltcp on its own thread. Each SYN is looked at before smoltcp
//! sees it; the ones that may go on get a listening socket for exactly their address and port.
//!
//! One turn of the loop: wait for the VM, the relay tasks or a timer; take in frames; move bytes between
//! sockets and pipes; let smoltcp send; write to the VM.

mod connection;
mod device;
mod host;
mod pipe;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant as Clock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::udp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};

use crate::adapter::frame::{Sight, look};
use crate::addresses::{DNS_PORT, GATEWAY, GATEWAY_MAC, PREFIX};
use crate::gateway::Gateway;
use crate::limits;
use crate::reason::Reason;
use connection::{Connection, Purpose, State};
use device::{Link, Next};
pub use host::{Answers, Dialled, DnsTicket, Host};
pub use pipe::GuestStream;

/// A TCP connection of the guest. Its source address is always the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The guest's port.
    pub source: u16,
    /// What it dialled.
    pub address: Ipv4Addr,
    /// Which port it dialled.
    pub port: u16,
}

/// A SYN that waits for its upstream.
struct Parked {
    frame: Vec<u8>,
}

/// The network thread's state.
pub struct Stack<H> {
    link: Link,
    interface: Interface,
    sockets: SocketSet<'static>,
    dns: SocketHandle,
    dns_in_flight: usize,
    connections: HashMap<Flow, Connection>,
    parked: HashMap<Flow, Parked>,
    /// Connections to look at in this turn.
    touched: HashSet<Flow>,
    answers: Arc<Answers>,
    host: Arc<H>,
    gateway: Arc<Gateway>,
    started: Clock,
    swept: Clock,
}

/// How often connections are looked at without a cause, for time limits.
const SWEEP: Duration = Duration::from_secs(1);

impl<H: Host> Stack<H> {
    /// A stack on a connected frame socket.
    pub fn new(
        stream: UnixStream,
        host: Arc<H>,
        gateway: Arc<Gateway>,
        answers: Arc<Answers>,
    ) -> io::Result<Self> {
        let mut link = Link::new(stream)?;
        let mut config = Config::new(HardwareAddress::Ethernet(GATEWAY_MAC));
        let mut seed = [0; 8];
        crate::random(&mut seed).map_err(io::Error::other)?;
        config.random_seed = u64::from_ne_bytes(seed);
        let mut interface = Interface::new(config, &mut link, Instant::from_millis(0));
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
        let mut sockets = SocketSet::new(Vec::new());
        let dns = sockets.add(dns_socket()?);
        let now = Clock::now();
        Ok(Self {
            link,
            interface,
            sockets,
            dns,
            dns_in_flight: 0,
            connections: HashMap::new(),
            parked: HashMap::new(),
            touched: HashSet::new(),
            answers,
            host,
            gateway,
            started: now,
            swept: now,
        })
    }

    /// Runs until the VM closes the socket.
    pub fn run(mut self) -> io::Result<()> {
        while self.turn()? {}
        Ok(())
    }

    /// One turn of the loop. Waits where nothing is to be done; false: the VM has closed the socket.
    pub fn turn(&mut self) -> io::Result<bool> {
        let readable = self.wait()?;
        for flow in self.answers.wake.take() {
            self.touched.insert(flow);
        }
        self.take_answers();
        let open = !readable || self.link.fill()?;
        self.take_frames()?;
        self.serve_touched();
        let now = self.now();
        self.interface.poll(now, &mut self.link, &mut self.sockets);
        self.serve_dns();
        self.sweep();
        Ok(self.link.flush()? && open)
    }

    fn now(&self) -> Instant {
        let micros = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        Instant::from_micros(micros)
    }

    /// Waits for something to do. True: the VM has sent something or closed the socket.
    fn wait(&mut self) -> io::Result<bool> {
        let now = self.now();
        let until_sweep = SWEEP.saturating_sub(self.swept.elapsed());
        let idle = self.connections.is_empty() && self.parked.is_empty();
        let timer = self
            .interface
            .poll_delay(now, &self.sockets)
            .map(Duration::from);
        let mut wait = timer.unwrap_or(Duration::MAX);
        if !idle {
            wait = wait.min(until_sweep);
        }
        let mut from_vm = PollFlags::empty();
        if self.link.has_room() {
            from_vm |= PollFlags::IN;
        }
        if self.link.has_output() {
            from_vm |= PollFlags::OUT;
            if !self.link.has_room() {
                // Only the VM can make room: a timer that is due would spin.
                wait = wait.max(Duration::from_millis(10)).min(SWEEP);
            }
        }
        let mut fds = [
            PollFd::new(self.link.stream(), from_vm),
            PollFd::new(self.answers.wake.fd(), PollFlags::IN),
        ];
        let timeout = Timespec::try_from(wait).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => Ok(fds[0].revents().intersects(PollFlags::IN | PollFlags::HUP)),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn take_frames(&mut self) -> io::Result<()> {
        while self.link.has_room() {
            let Next::Frame(place) = self.link.next_frame()? else {
                break;
            };
            let sight = look(self.link.frame(place.clone()));
            match sight {
                Sight::Ignore => {}
                Sight::Pass => self.feed(place),
                Sight::Segment(flow) => {
                    self.feed(place);
                    self.touched.insert(flow);
                }
                Sight::Syn(flow) => self.syn(flow, place),
                Sight::Stop {
                    reason,
                    address,
                    port,
                    refuse,
                } => {
                    self.host.stopped(reason, address, port);
                    if refuse {
                        self.feed(place);
                    }
                }
            }
        }
        Ok(())
    }

    fn feed(&mut self, place: std::ops::Range<usize>) {
        self.link.stage(place);
        self.ingress();
    }

    fn ingress(&mut self) {
        let now = self.now();
        while self.link.has_offer() && self.link.has_room() {
            let _ = self
                .interface
                .poll_ingress_single(now, &mut self.link, &mut self.sockets);
        }
    }

    fn syn(&mut self, flow: Flow, place: std::ops::Range<usize>) {
        if let Some(connection) = self.connections.get(&flow) {
            if !connection.is_over(&self.sockets) {
                // A repeated SYN: smoltcp knows what to answer.
                self.feed(place);
                return;
            }
            self.remove(flow);
        }
        if self.parked.contains_key(&flow) {
            return;
        }
        // A relay may outlive its connection for a moment, as long as its dial takes: it keeps its place.
        let busy = self.connections.len().max(self.answers.wake.held());
        if busy + self.parked.len() >= limits::CONNECTIONS {
            self.host
                .stopped(Reason::ConnectionLimit, flow.address, flow.port);
            self.feed(place);
            return;
        }
        if let Some(purpose) = Purpose::of(flow) {
            self.listen(flow, purpose);
            self.feed(place);
        } else if self.parked.len() >= limits::PARKED_SYNS {
            self.host
                .stopped(Reason::ConnectionLimit, flow.address, flow.port);
            self.feed(place);
        } else if self.host.raw(flow) {
            let frame = self.link.frame(place).to_vec();
            self.parked.insert(flow, Parked { frame });
        } else {
            // No socket listens: smoltcp answers RST.
            self.feed(place);
        }
    }

    fn listen(&mut self, flow: Flow, purpose: Purpose) {
        match Connection::listen(flow, purpose, &mut self.sockets, self.answers.wake.clone()) {
            Some(connection) => {
                self.connections.insert(flow, connection);
                self.count();
                self.touched.insert(flow);
            }
            None => tracing::error!(?flow, "cannot listen"),
        }
    }

    fn take_answers(&mut self) {
        let (dns, dialled) = {
            let mut inbox = self.answers.lock();
            (
                std::mem::take(&mut inbox.dns),
                std::mem::take(&mut inbox.dialled),
            )
        };
        for (to, answer) in dns {
            self.dns_in_flight = self.dns_in_flight.saturating_sub(1);
            if let Some(answer) = answer {
                let socket = self.sockets.get_mut::<udp::Socket>(self.dns);
                let meta = udp::UdpMetadata {
                    local_address: Some(GATEWAY.into()),
                    ..udp::UdpMetadata::from(to)
                };
                // No room: the guest asks again.
                let _ = socket.send_slice(&answer, meta);
            }
        }
        for (flow, upstream) in dialled {
            let Some(parked) = self.parked.remove(&flow) else {
                continue;
            };
            if let Some(upstream) = upstream {
                self.listen(flow, Purpose::Raw(Box::new(upstream)));
            }
            self.link.replay(parked.frame);
            self.ingress();
        }
    }

    fn serve_dns(&mut self) {
        let socket = self.sockets.get_mut::<udp::Socket>(self.dns);
        while let Ok((question, meta)) = socket.recv() {
            if self.dns_in_flight >= limits::DNS_IN_FLIGHT {
                continue;
            }
            self.dns_in_flight += 1;
            let ticket = DnsTicket {
                to: meta.endpoint,
                answers: self.answers.clone(),
            };
            self.host.dns_question(question.to_vec(), ticket);
        }
    }

    fn serve_touched(&mut self) {
        for flow in std::mem::take(&mut self.touched) {
            self.serve(flow);
        }
    }

    fn serve(&mut self, flow: Flow) {
        let Some(connection) = self.connections.get_mut(&flow) else {
            return;
        };
        match connection.serve(&mut self.sockets) {
            State::Going => {}
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
                self.serve(flow);
            }
        }
    }

    fn sweep(&mut self) {
        if self.swept.elapsed() < SWEEP {
            return;
        }
        self.swept = Clock::now();
        let flows: Vec<Flow> = self.connections.keys().copied().collect();
        for flow in flows {
            self.serve(flow);
        }
    }

    fn remove(&mut self, flow: Flow) {
        if let Some(connection) = self.connections.remove(&flow) {
            connection.remove(&mut self.sockets);
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

fn dns_socket() -> io::Result<udp::Socket<'static>> {
    let buffer = || {
        let meta = vec![udp::PacketMetadata::EMPTY; limits::DNS_IN_FLIGHT];
        udp::PacketBuffer::new(meta, vec![0; 64 * 1024])
    };
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket
        .bind(IpEndpoint::new(GATEWAY.into(), DNS_PORT))
        .map_err(|error| io::Error::other(error.to_string()))?;
    Ok(socket)
}
