//! A connection and a guest's stack, with a clock of their own.

use std::io::{Read, Write};
use std::net::Ipv4Addr;

use smoltcp::iface::{Config, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::wire::{
    HardwareAddress, IpCidr, IpEndpoint, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket,
    TcpRepr, TcpSeqNumber,
};

use super::*;
use crate::addresses::{ETHERNET_HEADER, GATEWAY_MAC, GUEST, MTU, PREFIX};
use crate::netstack::link::Next;

const FLOW: Flow = Flow {
    source: 40_000,
    address: Ipv4Addr::new(203, 0, 113, 9),
    port: 443,
};

/// Packets on their way between the two, as the guest's device sees them.
struct Wire {
    stream: std::os::unix::net::UnixStream,
    /// Packets that the guest has sent and nobody has looked for yet.
    sent: usize,
}

struct Packet(Vec<u8>);

impl RxToken for Packet {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Send<'a>(&'a mut Wire);

impl TxToken for Send<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; 4 + ETHERNET_HEADER + len];
        let framed = u32::try_from(ETHERNET_HEADER + len).unwrap();
        frame[..4].copy_from_slice(&framed.to_be_bytes());
        frame[4..10].copy_from_slice(GATEWAY_MAC.as_bytes());
        let result = f(&mut frame[4 + ETHERNET_HEADER..]);
        self.0.stream.write_all(&frame).unwrap();
        self.0.sent += 1;
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Packet;
    type TxToken<'a> = Send<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Packet, Send<'_>)> {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).ok()?;
        let mut frame = vec![0; u32::from_be_bytes(prefix) as usize];
        self.stream.read_exact(&mut frame).unwrap();
        Some((Packet(frame.split_off(ETHERNET_HEADER)), Send(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Send<'_>> {
        Some(Send(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

/// Both ends.
struct Pair {
    now: Instant,
    link: Link,
    interface: Interface,
    connection: Connection,
    wire: Wire,
    guest: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
}

impl Pair {
    /// The guest has sent its SYN. `room`: its receive buffer, in bytes.
    fn new(room: usize) -> Self {
        Self::with(room, Arc::default())
    }

    /// The same, with the sockets of others that have ended.
    fn with(room: usize, wake: Arc<Wake>) -> Self {
        let now = Instant::from_secs(1);
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        for end in [&ours, &theirs] {
            end.set_nonblocking(true).unwrap();
        }
        let mut link = Link::new(tokio::net::UnixStream::from_std(ours).unwrap());
        let interface = crate::netstack::interface(&mut link).unwrap();
        let mut wire = Wire {
            stream: theirs,
            sent: 0,
        };
        let mut guest = Interface::new(Config::new(HardwareAddress::Ip), &mut wire, now);
        guest.update_ip_addrs(|a| a.push(IpCidr::new(GUEST.into(), PREFIX)).unwrap());
        let routes = guest.routes_mut();
        routes.add_default_ipv4_route(GATEWAY).unwrap();
        let buffer = |size| tcp::SocketBuffer::new(vec![0; size]);
        let mut socket = tcp::Socket::new(buffer(room), buffer(64 * 1024));
        socket.set_ack_delay(None);
        let remote = IpEndpoint::new(FLOW.address.into(), FLOW.port);
        let context = guest.context();
        socket.connect(context, remote, FLOW.source).unwrap();
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        let connection = Connection::listen(FLOW, Purpose::Tls, wake, now).unwrap();
        Self {
            now,
            link,
            interface,
            connection,
            wire,
            guest,
            sockets,
            handle,
        }
    }

    /// The guest says what it has to say.
    async fn guest_talks(&mut self) {
        self.guest.poll(self.now, &mut self.wire, &mut self.sockets);
        while self.wire.sent > 0 {
            self.gateway_hears().await;
        }
    }

    /// The gateway takes in what has come.
    async fn gateway_hears(&mut self) {
        self.link.ready().await.unwrap();
        assert!(self.link.fill().unwrap());
        while let Next::Frame(place) = self.link.next_frame().unwrap() {
            self.wire.sent -= 1;
            self.link.offer(place);
            self.connection
                .take_packet(self.now, &mut self.interface, &mut self.link);
        }
    }

    /// The gateway does, until it waits.
    async fn gateway_talks(&mut self) -> State {
        loop {
            let state = self
                .connection
                .attend(self.now, &mut self.interface, &mut self.link);
            while self.link.backlog() > 0 {
                self.link.ready().await.unwrap();
                assert!(self.link.flush().unwrap());
            }
            if !matches!(state, State::More) {
                return state;
            }
        }
    }

    /// The handshake. The relay's end.
    async fn establish(&mut self) -> GuestStream {
        loop {
            self.guest_talks().await;
            if let State::Established(_, stream) = self.gateway_talks().await {
                return stream;
            }
        }
    }

    fn guest_socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn later(&mut self, duration: std::time::Duration) {
        self.now += Duration::from(duration);
    }
}

const MOMENT: std::time::Duration = std::time::Duration::from_millis(1);

#[tokio::test]
async fn a_connection_on_which_nobody_speaks_stays_open() {
    let mut pair = Pair::new(64 * 1024);
    let stream = pair.establish().await;
    assert!(matches!(pair.gateway_talks().await, State::Wait(None)));
    pair.later(std::time::Duration::from_hours(3));
    assert!(matches!(pair.gateway_talks().await, State::Wait(None)));
    pair.guest_socket().send_slice(b"still there").unwrap();
    pair.guest_talks().await;
    let mut stream = stream;
    let mut bytes = [0; 11];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut bytes)
        .await
        .unwrap();
    assert_eq!(&bytes, b"still there");
}

#[tokio::test]
async fn a_guest_that_reads_slowly_is_waited_for_and_one_that_is_not_heard_of_is_not() {
    let mut pair = Pair::new(1024);
    let mut stream = pair.establish().await;
    // Nothing was said for longer than what is sent may wait.
    pair.later(limits::UNACKNOWLEDGED * 2);
    tokio::io::AsyncWriteExt::write_all(&mut stream, &[7; 4096])
        .await
        .unwrap();
    // It takes the first 1024 bytes and reads nothing, but answers when it is asked about its window.
    let mut waited = std::time::Duration::ZERO;
    loop {
        let State::Wait(Some(until)) = pair.gateway_talks().await else {
            panic!("ended after {waited:?}");
        };
        pair.guest_talks().await;
        if waited > limits::UNACKNOWLEDGED * 3 {
            break;
        }
        let step = (until - pair.now).max(Duration::from(MOMENT));
        pair.now += step;
        waited += std::time::Duration::from(step);
    }
    pair.later(limits::UNACKNOWLEDGED / 2);
    assert!(matches!(pair.gateway_talks().await, State::Wait(Some(_))));
    pair.later(limits::UNACKNOWLEDGED / 2 + MOMENT);
    assert!(matches!(pair.gateway_talks().await, State::Over));
    let error = tokio::io::AsyncWriteExt::write_all(&mut stream, b"x").await;
    assert_eq!(
        error.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
}

/// A segment of the gateway's, as the guest's device sees it.
struct Segment {
    start: TcpSeqNumber,
    end: TcpSeqNumber,
    acknowledges: TcpSeqNumber,
}

impl Pair {
    /// What the gateway has sent; the guest's own stack never sees it.
    fn segments(&mut self) -> Vec<Segment> {
        let next = || self.wire.receive(self.now).map(|(packet, _)| packet.0);
        let segment = |packet: Vec<u8>| {
            let ip = Ipv4Packet::new_checked(&packet[..]).unwrap();
            let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
            Segment {
                start: tcp.seq_number(),
                end: tcp.seq_number() + tcp.payload().len(),
                acknowledges: tcp.ack_number(),
            }
        };
        std::iter::from_fn(next).map(segment).collect()
    }

    /// The guest acknowledges so much of what came, and has room for so much more.
    async fn guest_acknowledges(&mut self, sent: &Segment, up_to: TcpSeqNumber, window: u16) {
        let tcp = TcpRepr {
            src_port: FLOW.source,
            dst_port: FLOW.port,
            control: TcpControl::None,
            seq_number: sent.acknowledges,
            ack_number: Some(up_to),
            window_len: window,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let ip = Ipv4Repr {
            src_addr: GUEST,
            dst_addr: FLOW.address,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let token = self.wire.transmit(self.now).unwrap();
        token.consume(20 + tcp.buffer_len(), |bytes| {
            let mut packet = Ipv4Packet::new_unchecked(bytes);
            let capabilities = ChecksumCapabilities::default();
            ip.emit(&mut packet, &capabilities);
            let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
            let (from, to) = (GUEST.into(), FLOW.address.into());
            tcp.emit(&mut segment, &from, &to, &capabilities);
        });
        self.gateway_hears().await;
    }
}

#[tokio::test]
async fn what_a_guest_threw_away_is_sent_again_though_it_has_less_room_than_before() {
    let mut pair = Pair::new(60_000);
    let mut stream = pair.establish().await;
    tokio::io::AsyncWriteExt::write_all(&mut stream, &vec![7; 50_000])
        .await
        .unwrap();
    pair.gateway_talks().await;
    let sent = pair.segments();
    let (first, last) = (sent.first().unwrap(), sent.last().unwrap());
    assert_eq!(last.end - first.start, 50_000);
    // It keeps the beginning, has no memory for the rest, and a little more of it a moment later.
    let kept = first.start + 10_000;
    pair.guest_acknowledges(first, kept, 0).await;
    pair.gateway_talks().await;
    pair.guest_acknowledges(first, kept, 3_000).await;
    let begun = pair.now;
    loop {
        let State::Wait(Some(until)) = pair.gateway_talks().await else {
            panic!("nothing is to come");
        };
        let came = pair.segments();
        if came.iter().any(|one| one.start == kept && one.end > kept) {
            break;
        }
        for _ in came {
            // What lies behind its window says nothing to it but that somebody asks.
            pair.guest_acknowledges(first, kept, 3_000).await;
        }
        pair.now = until.max(pair.now + Duration::from(MOMENT));
        let waited = pair.now - begun;
        assert!(waited < Duration::from_secs(5), "{waited}");
    }
}

#[tokio::test]
async fn a_socket_is_used_again_and_nothing_of_its_last_connection_is_left_in_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let wake = Arc::<Wake>::default();
    let mut last = Pair::with(64 * 1024, wake.clone());
    let mut stream = last.establish().await;
    // On both sides something is left that nobody has taken.
    last.guest_socket().send_slice(b"to nobody").unwrap();
    last.guest_talks().await;
    stream.write_all(b"from nobody").await.unwrap();
    let Pair { connection, .. } = last;
    connection.remove();
    assert_eq!((wake.alive(), wake.spares()), (1, 0));
    drop(stream);
    assert_eq!((wake.alive(), wake.spares()), (0, 1));

    let mut next = Pair::with(64 * 1024, wake.clone());
    assert_eq!((wake.alive(), wake.spares()), (1, 0));
    let mut stream = next.establish().await;
    next.guest_socket().send_slice(b"question").unwrap();
    next.guest_talks().await;
    let mut bytes = [0; 64];
    let length = stream.read(&mut bytes).await.unwrap();
    assert_eq!(&bytes[..length], b"question");
    stream.write_all(b"answer").await.unwrap();
    next.gateway_talks().await;
    next.guest_talks().await;
    next.guest.poll(next.now, &mut next.wire, &mut next.sockets);
    let length = next.guest_socket().recv_slice(&mut bytes).unwrap();
    assert_eq!(&bytes[..length], b"answer");
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_ends() {
    let mut pair = Pair::new(1024);
    pair.guest_talks().await;
    assert!(matches!(pair.gateway_talks().await, State::Wait(Some(_))));
    pair.later(limits::HALF_OPEN / 2);
    assert!(!matches!(pair.gateway_talks().await, State::Over));
    pair.later(limits::HALF_OPEN / 2);
    assert!(matches!(pair.gateway_talks().await, State::Over));
}

#[tokio::test]
async fn a_guest_that_does_not_close_after_its_relay_is_cut() {
    let mut pair = Pair::new(1024);
    let mut stream = pair.establish().await;
    tokio::io::AsyncWriteExt::shutdown(&mut stream)
        .await
        .unwrap();
    drop(stream);
    pair.gateway_talks().await;
    // What it still sends is thrown away, so that its window stays open.
    for _ in 0..8 {
        pair.guest_talks().await;
        pair.guest_socket().send_slice(&[7; 16_000]).unwrap();
        pair.guest_talks().await;
        assert!(!matches!(pair.gateway_talks().await, State::Over));
    }
    pair.later(limits::LINGER);
    assert!(matches!(pair.gateway_talks().await, State::Over));
}

#[tokio::test]
async fn a_task_that_waits_for_something_else_learns_of_the_end_and_keeps_its_place_until_then() {
    let mut pair = Pair::new(1024);
    let wake = pair.connection.pipe.wake();
    let stream = pair.establish().await;
    let task = tokio::spawn(async move {
        stream.broken().await;
        stream
    });
    tokio::task::yield_now().await;
    pair.guest_socket().abort();
    pair.guest_talks().await;
    assert!(matches!(pair.gateway_talks().await, State::Over));
    let stream = task.await.unwrap();
    pair.connection.remove();
    assert_eq!(wake.alive(), 1);
    drop(stream);
    assert_eq!(wake.alive(), 0);
}

#[tokio::test]
async fn an_answer_takes_the_acknowledgement_with_it_and_without_one_it_comes_soon() {
    let mut pair = Pair::new(64 * 1024);
    let mut stream = pair.establish().await;
    pair.gateway_talks().await;
    pair.guest_socket().send_slice(b"ask").unwrap();
    pair.guest_talks().await;
    assert!(matches!(pair.gateway_talks().await, State::Wait(Some(_))));
    pair.guest_talks().await;
    assert_eq!(pair.guest_socket().send_queue(), 3);
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"answer")
        .await
        .unwrap();
    pair.gateway_talks().await;
    pair.guest_talks().await;
    assert_eq!(pair.guest_socket().send_queue(), 0);
    pair.gateway_talks().await;
    pair.guest_socket().send_slice(b"say").unwrap();
    pair.guest_talks().await;
    assert!(matches!(pair.gateway_talks().await, State::Wait(Some(_))));
    pair.later(limits::ACK_DELAY);
    pair.gateway_talks().await;
    pair.guest_talks().await;
    assert_eq!(pair.guest_socket().send_queue(), 0);
}

#[test]
fn the_first_connections_get_the_widest_buffers_and_a_crowd_the_smallest() {
    let wake = Arc::<Wake>::default();
    let mut pipes = Vec::new();
    let mut sizes = std::collections::BTreeMap::new();
    for _ in 0..limits::CROWD + 3 {
        let socket = wake.socket();
        let size = (socket.recv_capacity(), socket.send_capacity());
        *sizes.entry(size).or_insert(0) += 1;
        pipes.push(Pipe::new(FLOW, socket, wake.clone()));
    }
    let expected = [
        ((limits::CROWDED_BUFFER, limits::CROWDED_BUFFER), 3),
        (
            (limits::SOCKET_BUFFER, limits::SOCKET_BUFFER),
            limits::CROWD - limits::FEW,
        ),
        ((limits::WIDE_BUFFER, limits::WIDE_SEND_BUFFER), limits::FEW),
    ];
    assert_eq!(sizes, expected.into());
    // What is kept of them is bounded, and each gets what it would get of new ones.
    drop(pipes);
    let kept = limits::FEW + limits::SPARE_SOCKETS;
    assert_eq!(wake.spares(), kept);
    assert_eq!(wake.socket().recv_capacity(), limits::WIDE_BUFFER);
    assert_eq!(wake.spares(), kept - 1);
}
