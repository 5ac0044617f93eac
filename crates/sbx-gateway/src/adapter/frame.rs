//! The first look at a frame, before smoltcp sees it: what it is, and whether it may go on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use sbx_policy::{never_by_udp, reaches_many};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Message,
    Icmpv4Packet, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket, UdpRepr,
};

use crate::addresses::{DNS_PORT, ETHERNET_HEADER, GATEWAY, GATEWAY_MAC, GUEST, UDP_HEADER};
use crate::netstack::Flow;
use crate::reason::Reason;

/// What a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Nothing that concerns anybody: broken, or not for the gateway.
    Ignore,
    /// Asks for the gateway's Ethernet address.
    Arp {
        /// Who asks.
        hardware: EthernetAddress,
        /// Under which address.
        protocol: Ipv4Addr,
    },
    /// For smoltcp alone: an echo request to the gateway.
    Pass,
    /// Belongs to a TCP connection.
    Segment(Flow),
    /// Ends a TCP connection.
    Reset(Flow),
    /// Wants to begin a TCP connection.
    Syn(Flow),
    /// A UDP datagram.
    Datagram {
        /// From which port and where to.
        flow: Flow,
        /// Where in the frame its payload is.
        payload: Range<usize>,
    },
    /// Must not go on; `refuse`: let smoltcp answer that the port is unreachable.
    Stop {
        /// Why.
        reason: Reason,
        /// Where to.
        address: IpAddr,
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
    let protocol = ethernet.ethertype();
    // Multicast IPv6 has Ethernet addresses of its own.
    let to = ethernet.dst_addr();
    if to != GATEWAY_MAC && !to.is_broadcast() && !to.is_multicast() {
        return Sight::Ignore;
    }
    match protocol {
        EthernetProtocol::Arp => arp(ethernet.payload()),
        EthernetProtocol::Ipv4 => ipv4(ethernet.payload()),
        EthernetProtocol::Ipv6 => ipv6(ethernet.payload()),
        EthernetProtocol::Unknown(_) => Sight::Ignore,
    }
}

fn arp(payload: &[u8]) -> Sight {
    let Ok(packet) = ArpPacket::new_checked(payload) else {
        return Sight::Ignore;
    };
    // Answered for the gateway alone, so that the guest finds its own address free when it probes for duplicates.
    let address = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from);
    let for_us = address(packet.target_protocol_addr()) == Some(GATEWAY);
    let hardware = packet.source_hardware_addr();
    match (packet.operation(), address(packet.source_protocol_addr())) {
        (ArpOperation::Request, Some(protocol)) if for_us && hardware.len() == 6 => Sight::Arp {
            hardware: EthernetAddress::from_bytes(hardware),
            protocol,
        },
        _ => Sight::Ignore,
    }
}

/// The guest has no IPv6: nothing answers.
fn ipv6(payload: &[u8]) -> Sight {
    /// Length of the header, and where in it the next one's kind and the destination are (RFC 8200, section 3).
    const HEADER: usize = 40;
    const NEXT: usize = 6;
    const DESTINATION: usize = 24;
    let Some((header, rest)) = payload.split_first_chunk::<HEADER>() else {
        return Sight::Ignore;
    };
    let Some(address) = header[DESTINATION..].first_chunk::<16>() else {
        return Sight::Ignore;
    };
    let port = match (IpProtocol::from(header[NEXT]), rest) {
        (IpProtocol::Tcp | IpProtocol::Udp, [_, _, high, low, ..]) => {
            u16::from_be_bytes([*high, *low])
        }
        _ => 0,
    };
    Sight::Stop {
        reason: Reason::Ipv6,
        address: Ipv6Addr::from(*address).into(),
        port,
        refuse: false,
    }
}

fn ipv4(payload: &[u8]) -> Sight {
    let Ok(packet) = Ipv4Packet::new_checked(payload) else {
        return Sight::Ignore;
    };
    let (source, address) = (packet.src_addr(), packet.dst_addr());
    let stop = |reason| Sight::Stop {
        reason,
        address: address.into(),
        port: 0,
        refuse: false,
    };
    if source != GUEST || packet.version() != 4 {
        return stop(Reason::Packet);
    }
    if packet.more_frags() || packet.frag_offset() != 0 {
        return stop(Reason::Packet);
    }
    if packet.next_header() == IpProtocol::Udp {
        let behind = ETHERNET_HEADER + usize::from(packet.header_len());
        return udp(packet.payload(), address, behind);
    }
    if !is_one_host(address) {
        return stop(Reason::Packet);
    }
    match packet.next_header() {
        IpProtocol::Tcp => tcp(packet.payload(), address),
        IpProtocol::Icmp => match Icmpv4Packet::new_checked(packet.payload()) {
            Ok(icmp) if address == GATEWAY && icmp.msg_type() == Icmpv4Message::EchoRequest => {
                Sight::Pass
            }
            // What the guest says about our packets: smoltcp has no use for it.
            Ok(icmp) if address == GATEWAY && icmp.msg_type() == Icmpv4Message::DstUnreachable => {
                Sight::Ignore
            }
            _ => stop(Reason::Icmp),
        },
        _ => stop(Reason::Packet),
    }
}

/// Neither multicast nor broadcast.
fn is_one_host(address: Ipv4Addr) -> bool {
    !reaches_many(address.into())
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
    match (segment.rst(), segment.syn() && !segment.ack()) {
        (true, _) => Sight::Reset(flow),
        (false, true) => Sight::Syn(flow),
        (false, false) => Sight::Segment(flow),
    }
}

/// `behind`: where in the frame the datagram begins.
fn udp(payload: &[u8], address: Ipv4Addr, behind: usize) -> Sight {
    let Ok(datagram) = UdpPacket::new_checked(payload) else {
        return Sight::Ignore;
    };
    let checksums = ChecksumCapabilities::default();
    let ends = (GUEST.into(), address.into());
    let Ok(udp) = UdpRepr::parse(&datagram, &ends.0, &ends.1, &checksums) else {
        return Sight::Ignore;
    };
    let (source, port) = (udp.src_port, udp.dst_port);
    let stop = |reason| Sight::Stop {
        reason,
        address: address.into(),
        port,
        refuse: is_one_host(address),
    };
    let question = address == GATEWAY && port == DNS_PORT;
    if let Some(code) = never_by_udp(Some(address.into()), port).filter(|_| !question) {
        return stop(Reason::of_code(code));
    }
    if source == 0 {
        return Sight::Ignore;
    }
    let flow = Flow {
        source,
        address,
        port,
    };
    let start = behind + UDP_HEADER;
    Sight::Datagram {
        flow,
        payload: start..start + datagram.payload().len(),
    }
}
