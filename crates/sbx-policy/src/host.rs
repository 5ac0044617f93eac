//! Host names and addresses in their one canonical form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

use crate::text::serde_as_text;

/// Longest accepted name in bytes, without the final dot (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;
/// Longest accepted label in bytes (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;
/// Longest input that is looked at: no valid name, however encoded, needs more.
const MAX_INPUT: usize = 1024;

/// The gateway's address on the private network that it makes for the guest. It answers there for the services of the
/// host, so to a rule it is one more spelling of them; a machine of that address on a network of the host is out of
/// reach.
pub const GATEWAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 1);

/// Everybody on that network.
pub(crate) const BROADCAST_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 127, 255);

/// The names that mean "a service on the host's loopback", the first of which is shown. With [`HOST_SERVICE_ADDRESSES`]
/// they are one resource, [`Host::HostService`]: a deny on one covers all.
pub const HOST_SERVICE_NAMES: [&str; 5] = [
    "localhost",
    "host.docker.internal",
    "host.sbx.internal",
    "gateway.docker.internal",
    "gateway.sbx.internal",
];

/// The addresses that mean the same. IPv4 ones also as IPv4-mapped IPv6 (RFC 4291, section 2.5.5.2).
pub const HOST_SERVICE_ADDRESSES: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
    IpAddr::V4(GATEWAY_ADDRESS),
];

/// Why a text is not a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// Two dots in a row, or a leading dot.
    #[error("the host has an empty label")]
    EmptyLabel,
    /// Longer than 253 bytes.
    #[error("the host is longer than 253 bytes")]
    TooLong,
    /// A label longer than 63 bytes.
    #[error("a label of the host is longer than 63 bytes")]
    LabelTooLong,
    /// NUL, control, space, percent, `@` and everything else that no host name has.
    #[error("the host contains the character {0:?}")]
    BadCharacter(char),
    /// Fails the mapping and validity rules of UTS 46.
    #[error("the host is not a valid internationalised name")]
    BadIdna,
    /// Ends in a number, so that resolvers would read it as an address, but is not one.
    #[error("the host ends in a number but is not an IPv4 address in dotted decimal")]
    NumericName,
    /// Not an address where only one can stand.
    #[error("the host is not an IPv6 address")]
    BadAddress,
}

/// A DNS host name: lower case, ASCII (IDNA), no final dot, at most 253 bytes in labels of at most
/// 63, made of letters, digits, `-` and `_`. Never an address: a name whose last label is a number
/// is refused, because resolvers read `127.1` or `0x7f000001` as one. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Arc<str>);

impl HostName {
    /// Canonicalises and checks a name.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.len() > MAX_INPUT {
            return Err(HostError::TooLong);
        }
        if !text.is_ascii() || has_punycode(text) {
            let ascii = unicode_to_ascii(text)?;
            let ascii = ascii.strip_suffix('.').unwrap_or(&ascii);
            check_ascii(ascii)?;
            return Ok(Self(ascii.into()));
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        check_ascii(text)?;
        Ok(Self(
            if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
                text.to_ascii_lowercase().into()
            } else {
                text.into()
            },
        ))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels, leftmost first.
    pub fn labels(&self) -> std::str::Split<'_, char> {
        self.0.split('.')
    }

    /// Whether this is one of [`HOST_SERVICE_NAMES`].
    pub fn is_host_service(&self) -> bool {
        HOST_SERVICE_NAMES.contains(&&*self.0)
    }
}

/// Whether some label starts with the prefix of encoded labels, in any case.
fn has_punycode(text: &str) -> bool {
    text.contains("--")
        && text.split('.').any(|label| {
            label
                .get(..4)
                .is_some_and(|prefix| prefix.eq_ignore_ascii_case("xn--"))
        })
}

fn unicode_to_ascii(text: &str) -> Result<String, HostError> {
    // Look at the ASCII part first: it gives the more precise message.
    if let Some(bad) = text
        .chars()
        .find(|c| c.is_ascii() && !name_char(*c) && *c != '.')
    {
        return Err(HostError::BadCharacter(bad));
    }
    // Hyphens are free: names such as `r3---sn-x` are in daily use.
    Uts46::new()
        .to_ascii(
            text.as_bytes(),
            AsciiDenyList::URL,
            Hyphens::Allow,
            DnsLength::Ignore,
        )
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| HostError::BadIdna)
}

fn name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

fn check_ascii(name: &str) -> Result<(), HostError> {
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    let good = |b: u8| name_char(char::from(b)) || b == b'.';
    if !name.bytes().all(good) {
        let bad = name.chars().find(|c| !name_char(*c) && *c != '.');
        return Err(HostError::BadCharacter(bad.unwrap_or('\0')));
    }
    if name.len() > MAX_NAME {
        return Err(HostError::TooLong);
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(HostError::EmptyLabel);
        }
        if label.len() > MAX_LABEL {
            return Err(HostError::LabelTooLong);
        }
    }
    if name.rsplit('.').next().is_some_and(is_numeric) {
        return Err(HostError::NumericName);
    }
    Ok(())
}

/// Whether resolvers may read the label as (part of) an address: decimal, octal or hexadecimal, whose mark has either case.
fn is_numeric(label: &str) -> bool {
    let hex = label
        .strip_prefix('0')
        .and_then(|rest| rest.strip_prefix(['x', 'X']))
        .is_some_and(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
    hex || label.bytes().all(|b| b.is_ascii_digit())
}

impl FromStr for HostName {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        Self::parse(text)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

serde_as_text!(HostName);

/// Where something wants to go, before the port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A DNS name other than [`HOST_SERVICE_NAMES`].
    Name(HostName),
    /// An address literal other than [`HOST_SERVICE_ADDRESSES`].
    Ip(IpAddr),
    /// A service on the host's loopback, whatever it was called. Shown as `localhost`.
    HostService,
}

impl Host {
    /// Parses a name, an IPv4 address or an IPv6 address with or without brackets. Zone ids are
    /// refused. The aliases of the host become [`Host::HostService`].
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(HostError::BadAddress)?;
            let v6: Ipv6Addr = inner.parse().map_err(|_| HostError::BadAddress)?;
            return Ok(Self::from(IpAddr::V6(v6)));
        }
        if text.contains(':') {
            let v6: Ipv6Addr = text.parse().map_err(|_| HostError::BadAddress)?;
            return Ok(Self::from(IpAddr::V6(v6)));
        }
        // `1.2.3.4.` names the same address to every resolver.
        if let Ok(v4) = text.strip_suffix('.').unwrap_or(text).parse::<Ipv4Addr>() {
            return Ok(Self::from(IpAddr::V4(v4)));
        }
        HostName::parse(text).map(Self::from)
    }

    /// Whether this is the machine itself: one of the aliases of its loopback, or another loopback address.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::HostService => true,
            Self::Ip(ip) => ip.to_canonical().is_loopback(),
            Self::Name(_) => false,
        }
    }

    /// The name, if this is one.
    pub fn name(&self) -> Option<&HostName> {
        match self {
            Self::Name(name) => Some(name),
            Self::Ip(_) | Self::HostService => None,
        }
    }
}

impl From<HostName> for Host {
    fn from(name: HostName) -> Self {
        if name.is_host_service() {
            Self::HostService
        } else {
            Self::Name(name)
        }
    }
}

impl From<IpAddr> for Host {
    fn from(ip: IpAddr) -> Self {
        // To a dual-stack socket `::ffff:127.0.0.1` is the same place.
        if HOST_SERVICE_ADDRESSES.contains(&ip.to_canonical()) {
            Self::HostService
        } else {
            Self::Ip(ip)
        }
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        Self::parse(text)
    }
}

impl fmt::Display for Host {
    /// IPv6 addresses come without brackets; [`crate::Target`] adds them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Ip(ip) => ip.fmt(f),
            Self::HostService => f.write_str(HOST_SERVICE_NAMES[0]),
        }
    }
}

serde_as_text!(Host);
