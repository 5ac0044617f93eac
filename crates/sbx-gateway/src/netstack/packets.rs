//! Packets of our own making, beside smoltcp: answers to address resolution, datagrams, and word that something cannot
//! be reached.

use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetProtocol, Icmpv4DstUnreachable,
    Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket, UdpPacket, UdpRepr,
};

use super::Flow;
use super::link::Link;
use crate::addresses::{GATEWAY, GATEWAY_MAC, GUEST, IPV4_HEADER, UDP_HEADER};

/// Says where the gateway is.
pub(super) fn arp_reply(link: &mut Link, hardware: EthernetAddress, protocol: Ipv4Addr) {
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: GATEWAY_MAC,
        source_protocol_addr: GATEWAY,
        target_hardware_addr: hardware,
        target_protocol_addr: protocol,
    };
    link.send(EthernetProtocol::Arp, reply.buffer_len(), |bytes| {
        reply.emit(&mut ArpPacket::new_unchecked(bytes));
    });
}

/// A datagram to the guest's `flow.source`, from where the guest had sent one to.
pub(super) fn datagram(link: &mut Link, flow: Flow, payload: &[u8]) {
    let udp = UdpRepr {
        src_port: flow.port,
        dst_port: flow.source,
    };
    let length = UDP_HEADER + payload.len();
    ipv4(link, flow.address, IpProtocol::Udp, length, |bytes| {
        udp.emit(
            &mut UdpPacket::new_unchecked(bytes),
            &flow.address.into(),
            &GUEST.into(),
            payload.len(),
            |place| place.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
    });
}

/// Word from the gateway that nobody listens where the guest sent a datagram to.
pub(super) fn port_closed(link: &mut Link, flow: Flow) {
    let reason = Icmpv4DstUnreachable::PortUnreachable;
    unreachable(link, reason, flow, IpProtocol::Udp, [0; 4]);
}

/// Word from the gateway that there is no way to where the guest sent the SYN in `packet` to.
pub(super) fn host_unreachable(link: &mut Link, flow: Flow, packet: &[u8]) {
    let segment = Ipv4Packet::new_checked(packet).ok();
    let segment = segment.and_then(|ip| TcpPacket::new_checked(ip.payload()).ok());
    // The guest compares it with what it sent (RFC 5927, section 4).
    let sequence = segment.map_or(0, |tcp| tcp.seq_number().0);
    let reason = Icmpv4DstUnreachable::HostUnreachable;
    unreachable(link, reason, flow, IpProtocol::Tcp, sequence.to_be_bytes());
}

/// `behind`: what follows the ports in the packet that did not arrive.
fn unreachable(
    link: &mut Link,
    reason: Icmpv4DstUnreachable,
    flow: Flow,
    protocol: IpProtocol,
    behind: [u8; 4],
) {
    // As much of the packet as RFC 792 wants back: its IP header and eight bytes.
    let mut quoted = [0; 8];
    quoted[..2].copy_from_slice(&flow.source.to_be_bytes());
    quoted[2..4].copy_from_slice(&flow.port.to_be_bytes());
    quoted[4..].copy_from_slice(&behind);
    let icmp = Icmpv4Repr::DstUnreachable {
        reason,
        header: Ipv4Repr {
            src_addr: GUEST,
            dst_addr: flow.address,
            next_header: protocol,
            payload_len: quoted.len(),
            hop_limit: 64,
        },
        data: &quoted,
    };
    let length = icmp.buffer_len();
    ipv4(link, GATEWAY, IpProtocol::Icmp, length, |bytes| {
        icmp.emit(
            &mut Icmpv4Packet::new_unchecked(bytes),
            &ChecksumCapabilities::default(),
        );
    });
}

fn ipv4(
    link: &mut Link,
    source: Ipv4Addr,
    protocol: IpProtocol,
    length: usize,
    fill: impl FnOnce(&mut [u8]),
) {
    let header = Ipv4Repr {
        src_addr: source,
        dst_addr: GUEST,
        next_header: protocol,
        payload_len: length,
        hop_limit: 64,
    };
    link.send(EthernetProtocol::Ipv4, IPV4_HEADER + length, |bytes| {
        let mut packet = Ipv4Packet::new_unchecked(bytes);
        header.emit(&mut packet, &ChecksumCapabilities::default());
        fill(packet.payload_mut());
    });
}
