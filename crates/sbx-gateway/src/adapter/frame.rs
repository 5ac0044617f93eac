//! The first look at a frame, before smoltcp sees it: what it is, and whether it may go on.

use std::net::Ipv4Addr;

use smoltcp::wire::{
    ArpOperation, ArpPacket, EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet,
    IpProtocol, Ipv4Packet, TcpPacket, UdpPacket,
};

use crate::addresses::{DNS_PORT, GATEWAY, GUEST};
use crate::netstack::Flow;
use crate::reason::Reason;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Nothing that concerns anybody: broken, IPv6, broadcast noise.
    Ignore,
    /// For smoltcp: address resolution, DNS over UDP, echo of the gateway.
    Pass,
    /// Belongs to a TCP connection.
    Segment(Flow),
    /// Wants to begin a TCP connection.
    Syn(Flow),
    /// Must not go on; `refuse`: let smoltcp answer that the port is unreachable.
    Stop {
        /// Why.
        reason: Reason,
        /// Where to.
        address: Ipv4Addr,
        /// Which port, 0 where there is none.
        port: u16,
        /// Whether an answer helps the guest to give up at once.
        refuse: bool,
    },
}

/// Looks at a frame. Everything is checked against the frame's real length by smoltcp's `new_checked`.
pub fn look(frame: &[u8]) -> Sight {
    let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
        return Sight::Ignore;
    };
    match ethernet.ethertype() {
        EthernetProtocol::Arp => arp(ethernet.payload()),
        EthernetProtocol::Ipv4 => ipv4(ethernet.payload()),
        // No IPv6 in the guest's network: nothing answers.
        _ => Sight::Ignore,
    }
}

fn arp(payload: &[u8]) -> Sight {
    let Ok(packet) = ArpPacket::new_checked(payload) else {
        return Sight::Ignore;
    };
    // With `any_ip` smoltcp would answer for every address, so that the guest would find its own
    // address taken when it probes for duplicates.
    let target: Option<[u8; 4]> = packet.target_protocol_addr().try_into().ok();
    let for_us = target.map(Ipv4Addr::from) == Some(GATEWAY);
    match packet.operation() {
        ArpOperation::Request | ArpOperation::Reply if for_us => Sight::Pass,
        _ => Sight::Ignore,
    }
}

fn ipv4(payload: &[u8]) -> Sight {
    let Ok(packet) = Ipv4Packet::new_checked(payload) else {
        return Sight::Ignore;
    };
    let (source, address) = (packet.src_addr(), packet.dst_addr());
    let stop = |reason, port| Sight::Stop {
        reason,
        address,
        port,
        refuse: false,
    };
    if address.is_multicast() || address.is_broadcast() {
        return Sight::Ignore;
    }
    if source != GUEST || packet.version() != 4 {
        return stop(Reason::Packet, 0);
    }
    if packet.more_frags() || packet.frag_offset() != 0 {
        return stop(Reason::Packet, 0);
    }
    match packet.next_header() {
        IpProtocol::Tcp => tcp(packet.payload(), address),
        IpProtocol::Udp => udp(packet.payload(), address),
        IpProtocol::Icmp => match Icmpv4Packet::new_checked(packet.payload()) {
            Ok(icmp) if address == GATEWAY && icmp.msg_type() == Icmpv4Message::EchoRequest => {
                Sight::Pass
            }
            // What the guest says about our packets: smoltcp has no use for it.
            Ok(icmp) if address == GATEWAY && icmp.msg_type() == Icmpv4Message::DstUnreachable => {
                Sight::Ignore
            }
            _ => stop(Reason::Icmp, 0),
        },
        _ => stop(Reason::Packet, 0),
    }
}

fn tcp(payload: &[u8], address: Ipv4Addr) -> Sight {
    let Ok(segment) = TcpPacket::new_checked(payload) else {
        return Sight::Ignore;
    };
    if segment.src_port() == 0 || segment.dst_port() == 0 {
        return Sight::Ignore;
    }
    let flow = Flow {
        source: segment.src_port(),
        address,
        port: segment.dst_port(),
    };
    if segment.syn() && !segment.ack() && !segment.rst() {
        Sight::Syn(flow)
    } else {
        Sight::Segment(flow)
    }
}

fn udp(payload: &[u8], address: Ipv4Addr) -> Sight {
    let Ok(datagram) = UdpPacket::new_checked(payload) else {
        return Sight::Ignore;
    };
    let port = datagram.dst_port();
    if address == GATEWAY && port == DNS_PORT {
        return Sight::Pass;
    }
    let dns = super::dns::is_dns((address, port).into());
    let reason = if dns {
        Reason::ForeignResolver
    } else {
        Reason::Udp
    };
    Sight::Stop {
        reason,
        address,
        port,
        refuse: true,
    }
}
