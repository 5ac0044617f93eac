//! The guest's frames, up to connections that are open: the whole network stack with somebody behind it who sends back
//! what comes.
//!
//! The bytes are a list of steps. A step is a frame as it is, or what a TCP/IP stack would send at this point of a
//! connection, with one thing or the other wrong; sequence numbers and checksums follow what the gateway has sent, so
//! that states behind the handshake are reached.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sbx_gateway::adapter::dns::{self, Carrier};
use sbx_gateway::addresses::{GATEWAY, GATEWAY_MAC, GUEST, MTU};
use sbx_gateway::netstack::{
    Answers, Datagrams, Dialled, DnsTicket, Flow, GuestStream, Host, Refusal, Stack,
};
use sbx_gateway::reason::Reason;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber, UdpPacket,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;

use crate::gateway::gateway;

const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
/// Steps that are taken; the rest of longer input is left.
const STEPS: usize = 24;
/// Where steps go: the gateway, somebody else, a name's address of our own.
const PLACES: [Ipv4Addr; 4] = [
    GATEWAY,
    Ipv4Addr::new(203, 0, 113, 9),
    Ipv4Addr::new(198, 18, 0, 1),
    Ipv4Addr::new(10, 0, 0, 1),
];
const PORTS: [u16; 8] = [3128, 80, 443, 53, 22, 8443, 0, 65_535];

/// Plays the steps. Whatever they are: the stack goes on, and what it sends is well formed and for the guest.
pub(crate) fn run(bytes: &[u8]) {
    let (ours, vm) = UnixStream::pair().expect("a socket pair");
    vm.set_nonblocking(true).expect("a socket");
    let _inside = runtime().enter();
    let vm = tokio::net::UnixStream::from_std(vm).expect("a socket");
    let answers = Answers::new();
    let behind = Arc::new(Behind {
        streams: Mutex::default(),
        answers: answers.clone(),
    });
    let stack = Stack::new(vm, behind.clone(), gateway().clone(), answers).expect("a stack");
    let mut play = Play {
        link: ours,
        stack,
        behind,
        unread: Vec::new(),
        ends: HashMap::new(),
    };
    play.link.set_nonblocking(true).expect("a socket");
    play.step(&arp(ArpOperation::Request));
    let mut steps = Steps(bytes);
    for _ in 0..STEPS {
        let Some(frame) = steps.next_frame(&play) else {
            break;
        };
        if !play.step(&frame) {
            return;
        }
    }
}

/// What the stack waits on.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    })
}

/// Longest wait for something to do: there may be nothing.
const WAIT: Duration = Duration::from_millis(20);

/// Bytes that are taken one after the other; 0 once there are none left.
struct Steps<'a>(&'a [u8]);

impl Steps<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken.to_vec()
    }

    fn next_frame(&mut self, play: &Play) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        Some(match self.byte() % 8 {
            0 => self.bytes(),
            1 => {
                let mut bytes = self.bytes();
                let filler = usize::from(self.byte()) * 257;
                bytes.resize(bytes.len() + filler, 7);
                bytes
            }
            2 => self.udp(),
            3 => {
                let (place, protocol) = (self.place(), IpProtocol::from(self.byte()));
                packet(place, protocol, &self.bytes())
            }
            _ => self.segment(play),
        })
    }

    fn place(&mut self) -> Ipv4Addr {
        PLACES[usize::from(self.byte()) % PLACES.len()]
    }

    fn udp(&mut self) -> Vec<u8> {
        let place = self.place();
        let port = PORTS[usize::from(self.byte()) % PORTS.len()];
        let payload = self.bytes();
        let mut datagram = vec![0; 8 + payload.len()];
        let mut packet_ = UdpPacket::new_unchecked(&mut datagram[..]);
        packet_.set_src_port(40_000);
        packet_.set_dst_port(port);
        packet_.set_len(u16::try_from(8 + payload.len()).unwrap_or(u16::MAX));
        packet_.payload_mut().copy_from_slice(&payload);
        packet_.fill_checksum(&IpAddress::Ipv4(GUEST), &IpAddress::Ipv4(place));
        packet(place, IpProtocol::Udp, &datagram)
    }

    fn segment(&mut self, play: &Play) -> Vec<u8> {
        let flow = Flow {
            source: 40_000 + u16::from(self.byte() % 4),
            address: self.place(),
            port: PORTS[usize::from(self.byte()) % PORTS.len()],
        };
        let flags = self.byte();
        let (sequence_off, ack_off) = (self.byte().cast_signed(), self.byte().cast_signed());
        let payload = self.bytes();
        let end = play.ends.get(&flow).copied().unwrap_or_default();
        let control = match flags % 8 {
            0 | 1 => TcpControl::Syn,
            2 => TcpControl::Fin,
            3 => TcpControl::Rst,
            4 => TcpControl::Psh,
            _ => TcpControl::None,
        };
        let mut sequence = end.mine + i32::from(sequence_off / 16);
        if control == TcpControl::Syn && flags & 0x80 == 0 {
            sequence = 1000;
        }
        let repr = TcpRepr {
            src_port: flow.source,
            dst_port: flow.port,
            control,
            seq_number: TcpSeqNumber(sequence),
            ack_number: (flags & 7 != 0)
                .then_some(TcpSeqNumber(end.theirs + i32::from(ack_off / 16))),
            window_len: if flags & 0x40 == 0 { 0xffff } else { 0 },
            window_scale: (flags & 0x20 != 0).then_some(7),
            max_seg_size: (flags & 0x10 != 0).then_some(1460),
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &payload,
        };
        let mut segment = vec![0; repr.buffer_len()];
        repr.emit(
            &mut TcpPacket::new_unchecked(&mut segment[..]),
            &IpAddress::Ipv4(GUEST),
            &IpAddress::Ipv4(flow.address),
            &ChecksumCapabilities::default(),
        );
        packet(flow.address, IpProtocol::Tcp, &segment)
    }
}

/// The guest's view of one connection: what it sends next, and what it expects next.
#[derive(Clone, Copy, Default)]
struct End {
    mine: i32,
    theirs: i32,
}

struct Play {
    link: UnixStream,
    stack: Stack<Behind>,
    behind: Arc<Behind>,
    unread: Vec<u8>,
    ends: HashMap<Flow, End>,
}

impl Play {
    /// Sends a frame and takes what comes back. False: the stack refused to go on.
    fn step(&mut self, frame: &[u8]) -> bool {
        let length = u32::try_from(frame.len())
            .expect("a short frame")
            .to_be_bytes();
        self.link
            .write_all(&[&length, frame].concat())
            .expect("room in the socket");
        for _ in 0..2 {
            let turn = tokio::time::timeout(WAIT, self.stack.turn());
            let turned = runtime().block_on(turn);
            if !turned.map_or(true, |open| open.expect("no frame ends the stack")) {
                return false;
            }
            self.take();
            if !self.behind.work() {
                break;
            }
        }
        true
    }

    fn take(&mut self) {
        let mut chunk = [0; 16 * 1024];
        while let Ok(length @ 1..) = self.link.read(&mut chunk) {
            self.unread.extend_from_slice(&chunk[..length]);
        }
        let mut unread = std::mem::take(&mut self.unread);
        let mut at = 0;
        while let Some((prefix, rest)) = unread[at..].split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*prefix) as usize;
            let Some(frame) = rest.get(..length) else {
                break;
            };
            self.see(frame);
            at += 4 + length;
        }
        unread.drain(..at);
        self.unread = unread;
    }

    /// What the gateway sent.
    fn see(&mut self, frame: &[u8]) {
        assert!(frame.len() <= MTU + 14, "{} bytes", frame.len());
        let ethernet = EthernetFrame::new_checked(frame).expect("an Ethernet frame");
        assert_eq!(ethernet.src_addr(), GATEWAY_MAC);
        match ethernet.ethertype() {
            EthernetProtocol::Arp => {
                let packet = ArpPacket::new_checked(ethernet.payload()).expect("an ARP packet");
                if packet.operation() == ArpOperation::Request {
                    let reply = arp(ArpOperation::Reply);
                    let length = u32::try_from(reply.len()).expect("short").to_be_bytes();
                    let _ = self.link.write_all(&[&length, &reply[..]].concat());
                }
            }
            EthernetProtocol::Ipv4 => self.see_ip(ethernet.payload()),
            other => panic!("a frame of type {other}"),
        }
    }

    fn see_ip(&mut self, payload: &[u8]) {
        let ip = Ipv4Packet::new_checked(payload).expect("an IPv4 packet");
        assert!(ip.verify_checksum());
        assert_eq!(ip.dst_addr(), GUEST, "for nobody else");
        match ip.next_header() {
            IpProtocol::Tcp => {
                let tcp = TcpPacket::new_checked(ip.payload()).expect("a TCP segment");
                let flow = Flow {
                    source: tcp.dst_port(),
                    address: ip.src_addr(),
                    port: tcp.src_port(),
                };
                let length = tcp.segment_len();
                let next = tcp
                    .seq_number()
                    .0
                    .wrapping_add(i32::try_from(length).unwrap_or(0));
                let end = self.ends.entry(flow).or_default();
                end.theirs = next;
                if tcp.ack() {
                    end.mine = tcp.ack_number().0;
                }
            }
            IpProtocol::Udp => {
                let udp = UdpPacket::new_checked(ip.payload()).expect("a UDP datagram");
                assert_eq!(
                    (ip.src_addr(), udp.src_port()),
                    (GATEWAY, 53),
                    "DNS and nothing else"
                );
            }
            // An echo of the gateway itself, and "unreachable".
            IpProtocol::Icmp => {}
            other => panic!("a packet of protocol {other}"),
        }
    }
}

/// Who is behind the stack: sends back what comes, and refuses whatever would have to be dialled.
struct Behind {
    streams: Mutex<Vec<GuestStream>>,
    answers: Arc<Answers>,
}

impl Behind {
    fn keep(&self, stream: GuestStream) {
        self.streams.lock().expect("no panic before").push(stream);
    }

    /// Moves bytes. True: something was done.
    fn work(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut streams = self.streams.lock().expect("no panic before");
        let before = streams.len();
        let mut moved = false;
        streams.retain_mut(|stream| {
            let mut room = [0; 4096];
            let mut buffer = ReadBuf::new(&mut room);
            match Pin::new(&mut *stream).poll_read(&mut cx, &mut buffer) {
                Poll::Pending => return true,
                Poll::Ready(Err(_)) => return false,
                Poll::Ready(Ok(())) => {}
            }
            moved = true;
            if buffer.filled().is_empty() {
                let _ = Pin::new(&mut *stream).poll_shutdown(&mut cx);
                return false;
            }
            let _ = Pin::new(&mut *stream).poll_write(&mut cx, buffer.filled());
            true
        });
        moved || streams.len() != before
    }
}

impl Host for Behind {
    fn dns_stream(&self, stream: GuestStream) {
        self.keep(stream);
    }

    fn dns_question(&self, question: Vec<u8>, ticket: DnsTicket) {
        // As the gateway does: this is called from within the runtime.
        runtime().spawn(async move {
            ticket.answer(dns::answer(gateway(), &question, Carrier::Udp).await);
        });
    }

    fn proxy(&self, stream: GuestStream) {
        self.keep(stream);
    }

    fn http(&self, stream: GuestStream) {
        self.keep(stream);
    }

    fn tls(&self, stream: GuestStream) {
        // As a door that has heard enough.
        stream.abort();
    }

    fn raw(&self, flow: Flow) -> bool {
        if flow.port == 22 {
            return false;
        }
        let refusal = match flow.port {
            8443 => Refusal::Unreachable,
            _ => Refusal::Refused,
        };
        self.answers.dialled(flow, Err(refusal));
        true
    }

    fn raw_stream(&self, _: GuestStream, _: Dialled) {
        unreachable!("nothing is dialled");
    }

    fn datagrams(&self, _: Flow) -> Option<Datagrams> {
        None
    }

    fn stopped(&self, reason: Reason, _: IpAddr, _: u16) {
        assert!(!reason.is_allowed());
    }
}

fn ethernet(kind: EthernetProtocol, payload: usize) -> Vec<u8> {
    let mut frame = vec![0; 14 + payload];
    let repr = EthernetRepr {
        src_addr: MAC,
        dst_addr: GATEWAY_MAC,
        ethertype: kind,
    };
    repr.emit(&mut EthernetFrame::new_unchecked(&mut frame[..]));
    frame
}

fn arp(operation: ArpOperation) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: MAC,
        source_protocol_addr: GUEST,
        target_hardware_addr: GATEWAY_MAC,
        target_protocol_addr: GATEWAY,
    };
    let mut frame = ethernet(EthernetProtocol::Arp, repr.buffer_len());
    repr.emit(&mut ArpPacket::new_unchecked(&mut frame[14..]));
    frame
}

fn packet(to: Ipv4Addr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let repr = Ipv4Repr {
        src_addr: GUEST,
        dst_addr: to,
        next_header: protocol,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut frame = ethernet(EthernetProtocol::Ipv4, 20 + payload.len());
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    packet.payload_mut().copy_from_slice(payload);
    frame
}
