//! The guest's network as the gateway presents it.

use std::net::Ipv4Addr;

use smoltcp::wire::EthernetAddress;

/// The guest's address.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 2);
/// The gateway's address: default route, DNS server, forward proxy, host services.
pub const GATEWAY: Ipv4Addr = sbx_policy::GATEWAY_ADDRESS;
/// Prefix length of the network.
pub const PREFIX: u8 = 24;
/// Largest IP packet on the link, in bytes.
pub const MTU: usize = 65_520;
/// The gateway's Ethernet address (locally administered).
pub const GATEWAY_MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0x00, 0x73, 0x62, 0x01]);
/// What the gateway's address is called when somebody asks for its name.
pub const GATEWAY_NAME: &str = "gateway.docker.internal";
/// Bytes of an Ethernet header.
pub const ETHERNET_HEADER: usize = 14;
/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Bytes of a UDP header.
pub const UDP_HEADER: usize = 8;
/// DNS on the gateway, UDP and TCP.
pub const DNS_PORT: u16 = 53;

/// First address for names that have an upstream override (RFC 2544 benchmarking range, which is
/// never routed).
pub const SYNTHETIC_BASE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// How many there are (a /15).
pub const SYNTHETIC_COUNT: u32 = 1 << 17;

/// Whether the address is one we made up for a name.
pub fn is_synthetic(address: Ipv4Addr) -> bool {
    u32::from(address).wrapping_sub(u32::from(SYNTHETIC_BASE)) < SYNTHETIC_COUNT
}
