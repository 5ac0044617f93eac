//! What only this machine can tell of an address: whether it is its own, or of a neighbour on the same link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::{IpNet, Ipv6Net};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::address::{AddressClass, V6_GLOBAL};

/// Addresses that no machine has: reserved (RFC 1112), and for discarding (RFC 6666).
const NOBODYS_V4: Ipv4Addr = Ipv4Addr::new(240, 0, 0, 1);
const NOBODYS_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);
/// Prefix length of IPv6 links (RFC 4291, section 2.5.1).
const LINK: u8 = 64;
/// Where a source is looked for. Any port does.
const PORT: u16 = 9;

/// What addresses are tried with: sockets that have none.
static UNBOUND: PerFamily = PerFamily::new();
/// What sources are looked for with: sockets that lead nowhere in between.
static UNCONNECTED: PerFamily = PerFamily::new();

/// The block that a rule has to lie in because of where this machine is: the very address if it is the machine's own,
/// its /64 if it is a global IPv6 address on a link of the machine. For [`crate::Evaluator::knowing_what_is_near`].
///
/// Asks the kernel with sockets that send nothing, each time anew: addresses come and go. The sockets are kept, in the
/// network namespace in which it was asked first, so that an address elsewhere costs one system call (IPv4) or four,
/// and no descriptor. What cannot be asked, for lack of descriptors or of memory, counts as near. Not seen: neighbours
/// by IPv4 that have public addresses, IPv6 networks on a link of which the machine has no address, and what is the
/// machine by somebody else's translation.
pub fn what_is_near(ip: IpAddr) -> Option<(IpNet, AddressClass)> {
    if is_own(ip).unwrap_or(true) {
        return Some((ip.into(), AddressClass::Own));
    }
    let IpAddr::V6(v6) = ip else { return None };
    let link = Ipv6Net::new(v6, LINK).ok()?.trunc();
    if !V6_GLOBAL.contains(&v6) {
        return None;
    }
    let is_neighbour = match source_towards(ip) {
        Ok(Some(IpAddr::V6(source))) => link.contains(&source),
        Ok(_) => false,
        Err(_) => true,
    };
    is_neighbour.then_some((link.into(), AddressClass::Neighbour))
}

/// Whether a socket of this machine can have the address. The source that the kernel would choose does not tell: for a
/// second address of an interface it is the first one.
fn is_own(ip: IpAddr) -> Result<bool, Errno> {
    let nobodys: IpAddr = match ip {
        IpAddr::V4(_) => NOBODYS_V4.into(),
        IpAddr::V6(_) => NOBODYS_V6.into(),
    };
    // Where a setting lets sockets have every address (`ip_nonlocal_bind`), only the source is left.
    Ok(can_have(ip)? && (!can_have(nobodys)? || source_towards(ip)? == Some(ip)))
}

/// Whether a socket can be given the address.
fn can_have(ip: IpAddr) -> Result<bool, Errno> {
    try_address(ip, &mut UNBOUND.of(ip))
}

/// Tries the address with the socket that is kept, or with a new one, which is kept if it has no address then.
fn try_address(ip: IpAddr, place: &mut Option<OwnedFd>) -> Result<bool, Errno> {
    loop {
        let kept = place.take();
        let is_new = kept.is_none();
        let socket = match kept.map_or_else(|| socket_for(ip), Ok) {
            Ok(socket) => socket,
            // The machine has no addresses of the family.
            Err(Errno::AFNOSUPPORT) => return Ok(false),
            Err(error) => return Err(error),
        };
        match rustix::net::bind(&socket, &SocketAddr::new(ip, 0)) {
            Ok(()) => return Ok(true),
            // Looked at before anything is changed: the socket has no address yet.
            Err(Errno::ADDRNOTAVAIL) => {
                *place = Some(socket);
                return Ok(false);
            }
            // One that has an address after all would say so of every other.
            Err(_) if !is_new => {}
            Err(error) if is_elsewhere(error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// Whether the address is not the machine's, or none that it can dial. Any other failure, such as no more descriptors,
/// tells nothing.
fn is_elsewhere(error: Errno) -> bool {
    matches!(
        error,
        Errno::ADDRNOTAVAIL | Errno::INVAL | Errno::AFNOSUPPORT
    )
}

/// The address that this machine would send from. `None`: there is no way.
fn source_towards(ip: IpAddr) -> Result<Option<IpAddr>, Errno> {
    let mut place = UNCONNECTED.of(ip);
    let socket = match place.take().map_or_else(|| socket_for(ip), Ok) {
        Ok(socket) => socket,
        Err(Errno::AFNOSUPPORT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let connected = rustix::net::connect(&socket, &SocketAddr::new(ip, PORT));
    let source = connected.and_then(|()| rustix::net::getsockname(&socket));
    // A socket that was connected has a port and keeps its source until it is told to lead nowhere.
    if rustix::net::connect_unspec(&socket).is_ok() {
        *place = Some(socket);
    }
    match source {
        Ok(source) => Ok(SocketAddr::try_from(source).ok().map(|source| source.ip())),
        Err(error) if is_no_way(error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether there is no way to the address: no route, or one that says so, or a filter of the host. Any other failure,
/// such as no free port, tells nothing.
fn is_no_way(error: Errno) -> bool {
    let routes = matches!(
        error,
        Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::PERM | Errno::NETDOWN
    );
    routes || is_elsewhere(error)
}

fn socket_for(ip: IpAddr) -> Result<OwnedFd, Errno> {
    let family = match ip {
        IpAddr::V4(_) => AddressFamily::INET,
        IpAddr::V6(_) => AddressFamily::INET6,
    };
    rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}

/// One kept socket for each family of addresses. Who asks has it alone.
struct PerFamily {
    v4: Mutex<Option<OwnedFd>>,
    v6: Mutex<Option<OwnedFd>>,
}

impl PerFamily {
    const fn new() -> Self {
        Self {
            v4: Mutex::new(None),
            v6: Mutex::new(None),
        }
    }

    fn of(&self, ip: IpAddr) -> MutexGuard<'_, Option<OwnedFd>> {
        let place = match ip {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    const LOOPBACK_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

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
    fn an_error_that_tells_nothing_is_neither_elsewhere_nor_no_way() {
        for error in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(!is_elsewhere(error) && !is_no_way(error), "{error}");
        }
        // No free port.
        assert!(!is_elsewhere(Errno::ADDRINUSE) && !is_no_way(Errno::AGAIN));
        assert!(is_elsewhere(Errno::AFNOSUPPORT) && is_no_way(Errno::NETUNREACH));
    }

    /// Whether an address is the machine's own, with sockets of its own for each question.
    fn is_own_anew(ip: IpAddr) -> bool {
        UdpSocket::bind((ip, 0)).is_ok()
    }

    /// The source towards an address, with a socket of its own.
    fn source_anew(ip: IpAddr) -> Option<IpAddr> {
        let any: IpAddr = match ip {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((ip, PORT)).ok()?;
        Some(socket.local_addr().unwrap().ip())
    }

    /// Loopback, the machine's further addresses, everybody's, nobody's, and some that cannot be dialled.
    fn places() -> Vec<IpAddr> {
        let mut places: Vec<IpAddr> = [
            "127.0.0.1",
            "127.9.8.7",
            "198.51.100.1",
            "240.0.0.1",
            "255.255.255.255",
            "::1",
            "100::1",
            "fe80::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "::ffff:198.51.100.1",
        ]
        .map(|text| text.parse().unwrap())
        .into();
        places.extend(source_anew([198, 51, 100, 1].into()));
        places.extend(source_anew("2001:4860::1".parse().unwrap()));
        places
    }

    proptest! {
        #[test]
        fn a_kept_socket_answers_as_a_new_one_does(order in prop::collection::vec(any::<prop::sample::Index>(), 1..40)) {
            let places = places();
            for index in order {
                let ip = *index.get(&places);
                prop_assert_eq!(can_have(ip), Ok(is_own_anew(ip)), "{}", ip);
                prop_assert_eq!(source_towards(ip), Ok(source_anew(ip)), "{}", ip);
                prop_assert_eq!(is_own(ip), Ok(is_own_anew(ip)), "{}", ip);
            }
        }
    }

    #[test]
    fn a_kept_socket_that_has_an_address_hides_none() {
        let socket = socket_for(LOOPBACK_V6).unwrap();
        rustix::net::bind(&socket, &SocketAddr::new(LOOPBACK_V6, 0)).unwrap();
        assert_eq!(try_address(LOOPBACK_V6, &mut Some(socket)), Ok(true));
    }

    /// Which socket is kept.
    fn number(place: Option<&OwnedFd>) -> Option<u64> {
        let socket = place?.try_clone().unwrap();
        Some(std::fs::File::from(socket).metadata().unwrap().ino())
    }

    #[test]
    fn a_socket_serves_until_it_is_given_an_address() {
        for (own, elsewhere) in [
            (Ipv4Addr::LOCALHOST.into(), NOBODYS_V4.into()),
            (LOOPBACK_V6, NOBODYS_V6.into()),
        ] {
            let mut place = None;
            assert_eq!(try_address(elsewhere, &mut place), Ok(false));
            let first = number(place.as_ref());
            assert!(first.is_some(), "{elsewhere}");
            for _ in 0..3 {
                assert_eq!(try_address(elsewhere, &mut place), Ok(false));
                assert_eq!(number(place.as_ref()), first, "{elsewhere}");
            }
            assert_eq!(try_address(own, &mut place), Ok(true));
            assert_eq!(number(place.as_ref()), None, "{own}");
        }
    }
}
