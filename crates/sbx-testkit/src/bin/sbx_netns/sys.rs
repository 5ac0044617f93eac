//! The three calls that have no safe form: new namespaces, a packet socket on one interface, and an interface
//! without offloads.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::UnshareFlags;

/// Every protocol (linux/if_ether.h).
const ETH_P_ALL: u16 = 3;
/// Leaves out what was sent through the interface itself (linux/if_packet.h).
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// Checksums by the sender's card, scatter and gather, large segments (linux/ethtool.h).
const ETHTOOL_OFF: [u32; 3] = [0x17, 0x1f, 0x24];
/// `SIOCETHTOOL` (linux/sockios.h).
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// Moves this process, which must have one thread, into new user, network and mount namespaces.
pub(crate) fn new_namespaces() -> io::Result<()> {
    let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    // SAFETY: the call is unsafe for what CLONE_FILES does to descriptors of other threads, and it is not among the
    // flags.
    unsafe { rustix::thread::unshare_unsafe(flags) }?;
    Ok(())
}

/// A socket that gets every frame that arrives at the interface, and sends through it.
pub(crate) fn packet_socket(interface: u32) -> io::Result<OwnedFd> {
    // Protocol 0: nothing arrives before the socket is bound.
    let socket = rustix::net::socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: the structure is plain numbers, for which zeros are valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = ETH_P_ALL.to_be();
    address.sll_ifindex = i32::try_from(interface).map_err(io::Error::other)?;
    // SAFETY: the address lives through the call, and its size is its own.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_u32::<libc::sockaddr_ll>(),
        )
    })?;
    let on: libc::c_int = 1;
    // SAFETY: the value lives through the call, and its size is its own.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_IGNORE_OUTGOING,
            (&raw const on).cast(),
            size_of_u32::<libc::c_int>(),
        )
    })?;
    Ok(socket)
}

/// Has the kernel finish every frame before it is sent, as for a card that can do nothing by itself: a frame with a
/// checksum left to the card would be a broken one to whoever reads the socket.
pub(crate) fn without_offloads(interface: &str) -> io::Result<()> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    for command in ETHTOOL_OFF {
        let mut value = [command, 0_u32];
        // SAFETY: the structure is plain numbers and addresses, for which zeros are valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if interface.len() >= request.ifr_name.len() {
            return Err(io::Error::other("the interface's name is too long"));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: the request and the two numbers that it points to live through the call, which reads and writes
        // nothing else (`ethtool_value`).
        check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCETHTOOL, &raw mut request) })?;
    }
    Ok(())
}

fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
