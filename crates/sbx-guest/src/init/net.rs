//! Addresses and routes, by rtnetlink (`rtnetlink(7)`): `eth0` and the loopback interface.

use super::uevent;
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use sbx_wire::guest::NetworkIdentity;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

const ETH: &str = "eth0";
const ETH_LIMIT: Duration = Duration::from_secs(5);

// linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/if.h
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
const NLM_F_CREATE_REPLACE: u16 = 0x400 | 0x100;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;

/// Gives the machine its addresses. `previous` is what an earlier call set, and is taken back.
pub(super) fn configure(
    network: &NetworkIdentity,
    previous: Option<&NetworkIdentity>,
) -> io::Result<()> {
    if network.prefix > 32 {
        return Err(io::Error::other(format!(
            "prefix length {} is over 32",
            network.prefix
        )));
    }
    let index = uevent::wait_for(ETH_LIMIT, || index_of(ETH))?
        .ok_or_else(|| io::Error::other(format!("no interface {ETH}")))?;
    let mut netlink = Netlink::open()?;
    if let Some(loopback) = index_of("lo") {
        netlink.request("lo up", RTM_NEWLINK, 0, &up(loopback))?;
    }
    // The gateway speaks IPv4 only; link-local chatter would just be noise to it.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{ETH}/disable_ipv6"), "1");
    if let Some(old) =
        previous.filter(|old| (old.address, old.prefix) != (network.address, network.prefix))
    {
        // It may have been removed from inside; then there is nothing to take back.
        let _ = netlink.request("old address", RTM_DELADDR, 0, &address(index, old));
    }
    let mut link = up(index);
    attribute(&mut link, IFLA_MTU, u32::from(network.mtu).to_ne_bytes());
    netlink.request("link", RTM_NEWLINK, 0, &link)?;
    netlink.request(
        "address",
        RTM_NEWADDR,
        NLM_F_CREATE_REPLACE,
        &address(index, network),
    )?;
    let route = default_route(index, network.gateway);
    netlink.request("default route", RTM_NEWROUTE, NLM_F_CREATE_REPLACE, &route)
}

fn index_of(interface: &str) -> Option<u32> {
    let index = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).ok()?;
    index.trim().parse().ok()
}

/// `ifinfomsg`: set the interface up.
fn up(index: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body
}

/// `ifaddrmsg` with its attributes.
fn address(index: u32, network: &NetworkIdentity) -> Vec<u8> {
    let mut body = vec![AF_INET, network.prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    attribute(&mut body, IFA_LOCAL, network.address.octets());
    attribute(&mut body, IFA_ADDRESS, network.address.octets());
    body
}

/// `rtmsg` with its attributes. `ONLINK`: the gateway need not be inside the prefix.
fn default_route(index: u32, gateway: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST];
    body.extend(RTNH_F_ONLINK.to_ne_bytes());
    attribute(&mut body, RTA_OIF, index.to_ne_bytes());
    attribute(&mut body, RTA_GATEWAY, gateway.octets());
    body
}

/// Appends a `rtattr` of four bytes, which needs no padding.
fn attribute(body: &mut Vec<u8>, kind: u16, value: [u8; 4]) {
    body.extend(8u16.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None, // protocol 0 is NETLINK_ROUTE
        )?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// One request and its acknowledgement.
    fn request(&mut self, what: &str, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let length = u32::try_from(16 + body.len()).map_err(io::Error::other)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST_ACK | flags).to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        rustix::net::send(&self.socket, &message, SendFlags::empty())?;
        let mut answer = [0; 1024];
        let (_, length) = rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        match acknowledged(&answer[..length.min(answer.len())]) {
            Some(0) => Ok(()),
            Some(errno) => Err(io::Error::other(format!(
                "{what}: {}",
                io::Error::from_raw_os_error(errno)
            ))),
            None => Err(io::Error::other(format!("{what}: no acknowledgement"))),
        }
    }
}

/// The error number in an acknowledgement, 0 for success.
fn acknowledged(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let error = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(-error)
}
