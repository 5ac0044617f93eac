//! Where no datagram ever goes, whatever rules and settings say.

use std::net::IpAddr;

use crate::address::{AddressClass, classify};
use crate::host::BROADCAST_ADDRESS;
use crate::verdict::ReasonCode;

/// Where resolvers are asked: DNS, DNS over TLS or QUIC, and the two protocols that ask everybody near. The sandbox has
/// the gateway's own.
pub(crate) const RESOLVER_PORTS: [u16; 4] = [53, 853, 5353, 5355];

/// Why no datagram goes there, if none ever does. For those who look at a packet before anybody is asked about it;
/// [`crate::Evaluator`] says the same. Without an address it is about the port alone.
pub fn never_by_udp(ip: Option<IpAddr>, port: u16) -> Option<ReasonCode> {
    if RESOLVER_PORTS.contains(&port) {
        return Some(ReasonCode::ForeignResolver);
    }
    ip.is_some_and(reaches_many)
        .then_some(ReasonCode::UdpBlocked)
}

/// Whether it is a multicast or broadcast address.
pub fn reaches_many(ip: IpAddr) -> bool {
    ip == IpAddr::V4(BROADCAST_ADDRESS) || classify(ip) == AddressClass::Multicast
}
