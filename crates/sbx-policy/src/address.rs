//! Which addresses are the public internet, and which need a rule that names them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::host::GATEWAY_ADDRESS;

/// What kind of place an address is (IANA special-purpose registries, RFC 6890 and successors).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AddressClass {
    /// Everything else: an ordinary allow rule is enough.
    Public,
    /// Where clouds hand out credentials. Opened only by a rule with exactly this address.
    Metadata,
    /// The gateway of the sandbox's own network ([`GATEWAY_ADDRESS`]): the services of the host, and only as these. Never
    /// opened as an address.
    Gateway,
    /// The machine's own loopback.
    Loopback,
    /// RFC 1918 and RFC 4193 (unique local) networks.
    Private,
    /// 169.254.0.0/16 and fe80::/10.
    LinkLocal,
    /// 100.64.0.0/10 (carrier-grade NAT, RFC 6598): also what overlay networks hand out.
    SharedNat,
    /// Benchmarking, protocol assignments, and everything else set aside.
    Reserved,
    /// IPv6 that carries an IPv4 address: mapped, NAT64, 6to4, Teredo and others.
    EmbeddedV4,
    /// 0.0.0.0/8 and `::`: to a socket they mean the machine itself. Never opened.
    Unspecified,
    /// Multicast and broadcast. Never opened.
    Multicast,
    /// An address of this machine beyond its loopback. Opened only by a rule with exactly this address.
    Own,
    /// A global IPv6 address on a link of this machine.
    Neighbour,
}

impl AddressClass {
    /// Whether a rule that names the address can open it.
    pub fn can_be_opened(self) -> bool {
        !matches!(self, Self::Gateway | Self::Unspecified | Self::Multicast)
    }

    /// Whether it says all there is to say, so that where this machine is makes no difference.
    pub(crate) fn is_final(self) -> bool {
        !self.can_be_opened() || matches!(self, Self::Metadata | Self::Loopback)
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Metadata => "a cloud metadata service",
            Self::Gateway => "the gateway of the sandbox's own network",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::SharedNat => "in the shared address space of carriers (100.64.0.0/10)",
            Self::Reserved => "reserved",
            Self::EmbeddedV4 => "an IPv6 address that stands for an IPv4 one",
            Self::Unspecified => "unspecified",
            Self::Multicast => "multicast or broadcast",
            Self::Own => "this machine's own, which no range opens",
            Self::Neighbour => "on a network of this machine",
        })
    }
}

/// Metadata services: EC2 and most clouds (GCP and OpenStack too), ECS tasks, EKS pods, Alibaba, Azure's host, Scaleway,
/// Tencent, Oracle.
const METADATA_V4: [Ipv4Addr; 8] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(169, 254, 42, 42),
    Ipv4Addr::new(169, 254, 0, 23),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// Their IPv6 forms: EC2, EKS pods, GCP, Scaleway, Oracle, OpenStack.
const METADATA_V6: [Ipv6Addr; 6] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

/// Names of metadata services. A wildcard does not cover them.
const METADATA_NAMES: [&str; 4] = [
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
];

/// First match wins. The class is also the block that an opening rule has to lie in.
const V4_BLOCKS: [(Ipv4Net, AddressClass); 13] = [
    v4([0, 0, 0, 0], 8, AddressClass::Unspecified),
    v4([10, 0, 0, 0], 8, AddressClass::Private),
    v4([100, 64, 0, 0], 10, AddressClass::SharedNat),
    v4([127, 0, 0, 0], 8, AddressClass::Loopback),
    v4([169, 254, 0, 0], 16, AddressClass::LinkLocal),
    v4([172, 16, 0, 0], 12, AddressClass::Private),
    v4([192, 0, 0, 0], 24, AddressClass::Reserved),
    v4([192, 88, 99, 0], 24, AddressClass::Reserved),
    v4([192, 168, 0, 0], 16, AddressClass::Private),
    v4([198, 18, 0, 0], 15, AddressClass::Reserved),
    v4([224, 0, 0, 0], 4, AddressClass::Multicast),
    v4([255, 255, 255, 255], 32, AddressClass::Multicast),
    v4([240, 0, 0, 0], 4, AddressClass::Reserved),
];

const V6_BLOCKS: [(Ipv6Net, AddressClass); 14] = [
    v6([0; 8], 128, AddressClass::Unspecified),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, AddressClass::Loopback),
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, AddressClass::EmbeddedV4),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, AddressClass::EmbeddedV4),
    v6([0; 8], 96, AddressClass::EmbeddedV4),
    v6(
        [0x64, 0xff9b, 0, 0, 0, 0, 0, 0],
        96,
        AddressClass::EmbeddedV4,
    ),
    v6(
        [0x64, 0xff9b, 1, 0, 0, 0, 0, 0],
        48,
        AddressClass::EmbeddedV4,
    ),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, AddressClass::EmbeddedV4),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, AddressClass::Reserved),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, AddressClass::EmbeddedV4),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, AddressClass::Private),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, AddressClass::LinkLocal),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, AddressClass::Private),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, AddressClass::Multicast),
];

/// Global unicast is all that IANA hands out (RFC 4291, section 2.4).
pub(crate) const V6_GLOBAL: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3, AddressClass::Public).0;

const fn v4(octets: [u8; 4], prefix: u8, class: AddressClass) -> (Ipv4Net, AddressClass) {
    let [a, b, c, d] = octets;
    (
        Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix),
        class,
    )
}

const fn v6(s: [u16; 8], prefix: u8, class: AddressClass) -> (Ipv6Net, AddressClass) {
    let address = Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]);
    (Ipv6Net::new_assert(address, prefix), class)
}

/// The kind of an address, wherever this machine is: never [`AddressClass::Own`] or [`AddressClass::Neighbour`].
pub fn classify(ip: IpAddr) -> AddressClass {
    block(ip).map_or(AddressClass::Public, |(_, class)| class)
}

/// The special block that holds the address; `None` for public ones. A rule opens the address when
/// its range lies within the block: `10.0.0.0/8` names 10.1.2.3, `0.0.0.0/0` does not.
pub(crate) fn block(ip: IpAddr) -> Option<(IpNet, AddressClass)> {
    match ip {
        IpAddr::V4(v4) if v4 == GATEWAY_ADDRESS => Some((ip.into(), AddressClass::Gateway)),
        IpAddr::V4(v4) if METADATA_V4.contains(&v4) => Some((ip.into(), AddressClass::Metadata)),
        IpAddr::V6(v6) if METADATA_V6.contains(&v6) => Some((ip.into(), AddressClass::Metadata)),
        IpAddr::V4(v4) => V4_BLOCKS
            .iter()
            .find(|(net, _)| net.contains(&v4))
            .map(|(net, class)| (IpNet::V4(*net), *class)),
        IpAddr::V6(v6) => V6_BLOCKS
            .iter()
            .find(|(net, _)| net.contains(&v6))
            .map(|(net, class)| (IpNet::V6(*net), *class))
            .or_else(|| {
                // Outside of every block: the rule has to name the very address.
                (!V6_GLOBAL.contains(&v6)).then_some((ip.into(), AddressClass::Reserved))
            }),
    }
}

/// Whether the name is one of a metadata service.
pub(crate) fn is_metadata_name(name: &str) -> bool {
    METADATA_NAMES.contains(&name)
}

/// The IPv4 addresses that an IPv6 one may stand for: a deny on any of the former covers the latter.
pub(crate) fn embedded_v4(ip: IpAddr) -> Vec<Ipv4Addr> {
    let IpAddr::V6(v6) = ip else {
        return Vec::new();
    };
    let octets = v6.octets();
    let at = |i: usize| Ipv4Addr::new(octets[i], octets[i + 1], octets[i + 2], octets[i + 3]);
    let segments = v6.segments();
    match segments {
        // 6to4 (RFC 3056) keeps it behind the prefix.
        [0x2002, ..] => vec![at(2)],
        // Teredo (RFC 4380) keeps it last, inverted.
        [0x2001, 0, ..] => vec![Ipv4Addr::from(!u32::from(at(12)))],
        // Local NAT64 (RFC 8215): how long the translator's prefix is nobody but it knows.
        [0x64, 0xff9b, 1, ..] => behind_local_nat64(octets),
        // NAT64 (RFC 6052), mapped, translated and compatible keep it last.
        [0x64, 0xff9b, ..] | [0, 0, 0, 0, ..] => vec![at(12)],
        _ => Vec::new(),
    }
}

/// Where a prefix of 48, 56, 64 or 96 bits puts it (RFC 6052, section 2.2; byte 8 is left out). One in 0.0.0.0/8 is what
/// the zeros of another length look like and no destination, unless there is no other.
fn behind_local_nat64(octets: [u8; 16]) -> Vec<Ipv4Addr> {
    let at = |[a, b, c, d]: [usize; 4]| Ipv4Addr::new(octets[a], octets[b], octets[c], octets[d]);
    let last = at([12, 13, 14, 15]);
    let mut found = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12]]
        .map(at)
        .to_vec();
    found.push(last);
    found.retain(|v4| v4.octets()[0] != 0);
    if found.is_empty() {
        found.push(last);
    }
    found
}
