//! What only this machine can tell of an address: whether it is its own, or of a neighbour on the same link.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use ipnet::{IpNet, Ipv6Net};

use crate::address::{AddressClass, V6_GLOBAL};

/// Addresses that no machine has: reserved (RFC 1112), and for discarding (RFC 6666).
const NOBODYS_V4: Ipv4Addr = Ipv4Addr::new(240, 0, 0, 1);
const NOBODYS_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);
/// Prefix length of IPv6 links (RFC 4291, section 2.5.1).
const LINK: u8 = 64;
/// Linux's number for a family of addresses that the machine does not have.
const EAFNOSUPPORT: i32 = 97;

/// The block that a rule has to lie in because of where this machine is: the very address if it is the machine's own,
/// its /64 if it is a global IPv6 address on a link of the machine. For [`crate::Evaluator::knowing_what_is_near`].
///
/// Asks the kernel with sockets that send nothing, each time anew: addresses come and go. Not seen: neighbours by IPv4
/// that have public addresses, IPv6 networks on a link of which the machine has no address, and what is the machine by
/// somebody else's translation.
pub fn what_is_near(ip: IpAddr) -> Option<(IpNet, AddressClass)> {
    if is_own(ip) {
        return Some((ip.into(), AddressClass::Own));
    }
    let IpAddr::V6(v6) = ip else { return None };
    let link = Ipv6Net::new(v6, LINK).ok()?.trunc();
    if !V6_GLOBAL.contains(&v6) {
        return None;
    }
    match source_towards(ip) {
        Some(IpAddr::V6(source)) if link.contains(&source) => {
            Some((link.into(), AddressClass::Neighbour))
        }
        _ => None,
    }
}

/// Whether a socket of this machine can have the address. The source that the kernel would choose does not tell: for a
/// second address of an interface it is the first one.
fn is_own(ip: IpAddr) -> bool {
    let nobodys: IpAddr = match ip {
        IpAddr::V4(_) => NOBODYS_V4.into(),
        IpAddr::V6(_) => NOBODYS_V6.into(),
    };
    match UdpSocket::bind((ip, 0)) {
        // Where a setting lets sockets have every address (`ip_nonlocal_bind`), only the source is left.
        Ok(_) => UdpSocket::bind((nobodys, 0)).is_err() || source_towards(ip) == Some(ip),
        Err(error) => !is_elsewhere(&error),
    }
}

/// Whether the address is not the machine's, or none that it can dial. Any other failure, such as no more descriptors,
/// tells nothing: then it counts as the machine's own.
fn is_elsewhere(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AddrNotAvailable | ErrorKind::InvalidInput
    ) || error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// The address that this machine would send from. `None`: there is no way.
fn source_towards(ip: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Any port does.
    socket.connect((ip, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_loopback_is_its_own_and_what_nobody_has_is_not() {
        for own in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 1, 2, 3)] {
            let found = what_is_near(own.into());
            assert_eq!(found, Some((IpAddr::from(own).into(), AddressClass::Own)));
        }
        for elsewhere in [
            NOBODYS_V4.into(),
            NOBODYS_V6.into(),
            IpAddr::from([198, 51, 100, 1]),
        ] {
            assert_eq!(what_is_near(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn an_error_that_tells_nothing_counts_as_the_machines_own() {
        // Out of descriptors.
        assert!(!is_elsewhere(&io::Error::from_raw_os_error(24)));
        assert!(is_elsewhere(&io::Error::from_raw_os_error(EAFNOSUPPORT)));
    }
}
