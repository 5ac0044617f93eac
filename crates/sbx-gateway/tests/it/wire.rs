//! Frames by hand.

use std::net::Ipv4Addr;

use sbx_gateway::addresses::{GATEWAY_MAC, GUEST};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl,
    TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

use crate::guest::MAC;

/// An Ethernet frame to the gateway.
pub(crate) fn frame(protocol: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let ethernet = EthernetRepr {
        src_addr: MAC,
        dst_addr: GATEWAY_MAC,
        ethertype: protocol,
    };
    let mut frame = vec![0; 14 + payload.len()];
    let mut packet = EthernetFrame::new_unchecked(&mut frame);
    ethernet.emit(&mut packet);
    packet.payload_mut().copy_from_slice(payload);
    frame
}

/// A frame with an IPv4 packet in it.
pub(crate) fn packet(
    source: Ipv4Addr,
    to: Ipv4Addr,
    protocol: IpProtocol,
    payload: &[u8],
) -> Vec<u8> {
    let ip = Ipv4Repr {
        src_addr: source,
        dst_addr: to,
        next_header: protocol,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 20 + payload.len()];
    let mut body = Ipv4Packet::new_unchecked(&mut bytes);
    ip.emit(&mut body, &ChecksumCapabilities::default());
    body.payload_mut().copy_from_slice(payload);
    frame(EthernetProtocol::Ipv4, &bytes)
}

/// A segment without data from the guest.
pub(crate) fn segment(
    source: u16,
    to: Ipv4Addr,
    port: u16,
    control: TcpControl,
    sequence: i32,
) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: source,
        dst_port: port,
        control,
        seq_number: TcpSeqNumber(sequence),
        ack_number: None,
        window_len: 64_000,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let mut bytes = vec![0; tcp.buffer_len()];
    tcp.emit(
        &mut TcpPacket::new_unchecked(&mut bytes),
        &GUEST.into(),
        &to.into(),
        &ChecksumCapabilities::default(),
    );
    packet(GUEST, to, IpProtocol::Tcp, &bytes)
}

/// A datagram from the guest.
pub(crate) fn datagram(source: u16, to: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let udp = UdpRepr {
        src_port: source,
        dst_port: port,
    };
    let mut bytes = vec![0; 8 + payload.len()];
    udp.emit(
        &mut UdpPacket::new_unchecked(&mut bytes),
        &GUEST.into(),
        &to.into(),
        payload.len(),
        |place| place.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    packet(GUEST, to, IpProtocol::Udp, &bytes)
}

/// Source, protocol and what is in it, of a frame with an IPv4 packet for the guest.
pub(crate) fn opened(frame: &[u8]) -> Option<(Ipv4Addr, IpProtocol, &[u8])> {
    let ip = frame.get(14..)?;
    let packet = Ipv4Packet::new_unchecked(ip);
    let header = usize::from(ip.first()? & 0xf) * 4;
    (packet.version() == 4 && packet.dst_addr() == GUEST).then_some(())?;
    Some((packet.src_addr(), packet.next_header(), ip.get(header..)?))
}

/// A segment that came to a port of the guest: its control bits and what it acknowledges.
pub(crate) fn answer_to(frames: &[Vec<u8>], from: Ipv4Addr, port: u16, to: u16) -> Vec<Answer> {
    let answer = |frame: &Vec<u8>| {
        let (source, protocol, bytes) = opened(frame)?;
        let tcp = TcpPacket::new_checked(bytes).ok()?;
        let fits = protocol == IpProtocol::Tcp
            && (source, tcp.src_port(), tcp.dst_port()) == (from, port, to);
        fits.then(|| Answer {
            syn: tcp.syn(),
            reset: tcp.rst(),
            acknowledges: tcp.ack_number().0,
        })
    };
    frames.iter().filter_map(answer).collect()
}

/// See [`answer_to`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) syn: bool,
    pub(crate) reset: bool,
    pub(crate) acknowledges: i32,
}

/// Word that something cannot be reached: its ICMP code, and what it quotes behind the IP header.
pub(crate) fn unreachable(frames: &[Vec<u8>]) -> Vec<(u8, Vec<u8>)> {
    let word = |frame: &Vec<u8>| {
        let (_, protocol, bytes) = opened(frame)?;
        // Type 3; the quoted IP header begins at 8 (RFC 792).
        (protocol == IpProtocol::Icmp && *bytes.first()? == 3).then_some(())?;
        Some((*bytes.get(1)?, bytes.get(28..36)?.to_vec()))
    };
    frames.iter().filter_map(word).collect()
}
