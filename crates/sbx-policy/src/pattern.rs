//! What a rule is about: names, wildcards, address ranges, each with an optional port.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::LazyLock;

use ipnet::{IpNet, Ipv6Net};

use crate::address::{AddressClass, classify};
use crate::host::{HOST_SERVICE_ADDRESSES, HOST_SERVICE_NAMES, Host, HostName};
use crate::label::{Label, has_wildcard};
use crate::pattern_error::PatternError;
use crate::target::{Port, split_port};
use crate::text::serde_as_text;

/// Longest pattern text in bytes: a name, a few sets and a port.
const MAX_PATTERN: usize = 512;

/// Which labels may stand in front of the written ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lead {
    /// None: `x`.
    Nothing,
    /// Exactly one: `*.x`.
    One,
    /// One or more: `**.x`.
    Many,
    /// None or more: `.x`.
    Any,
}

impl Lead {
    fn prefix(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::One => "*.",
            Self::Many => "**.",
            Self::Any => ".",
        }
    }

    fn accepts(self, extra_labels: usize) -> bool {
        match self {
            Self::Nothing => extra_labels == 0,
            Self::One => extra_labels == 1,
            Self::Many => extra_labels >= 1,
            Self::Any => true,
        }
    }
}

/// The host part of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern(pub(crate) Shape);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// `**`
    Everything,
    /// Literal labels behind the lead.
    Name(Lead, HostName),
    /// Labels of which at least one has wildcards; the last one never has.
    Glob(Lead, Box<[Label]>),
    /// An address (full prefix) or a range.
    Net(IpNet),
    /// The loopback services of the host, by any of their names.
    HostService,
}

/// What a rule is about: a [`HostPattern`] and an optional port; without one, every port.
///
/// | text | matches |
/// |---|---|
/// | `example.com` | that name |
/// | `*.example.com` | exactly one more label |
/// | `**.example.com` | one or more labels, never `example.com` |
/// | `.example.com` | `example.com` and everything below |
/// | `crl*.example.com`, `?`, `[12]` | wildcards inside a label |
/// | `**` | everything |
/// | `10.0.0.0/8`, `2001:db8::1` | addresses |
/// | `localhost:1234` | a service of the host |
///
/// A port follows as `:443`; IPv6 with a port takes brackets, `[2001:db8::/32]:22`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResourcePattern {
    /// Which hosts.
    pub host: HostPattern,
    /// Which port; `None` is every port.
    pub port: Option<Port>,
}

impl ResourcePattern {
    /// Parses one resource.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > MAX_PATTERN {
            return Err(PatternError::TooLong);
        }
        if text.contains("://") {
            return Err(PatternError::UrlParts(text.to_owned()));
        }
        let (host, port) = split_pattern_port(text);
        let port = port.map(str::parse).transpose()?;
        Ok(Self {
            host: HostPattern::parse(host)?,
            port,
        })
    }

    /// Parses a comma list. Spaces around an item are ignored, empty items are an error.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, PatternError> {
        text.split(',')
            .map(|item| Self::parse(item.trim()))
            .collect()
    }
}

/// Splits off the port. A `[` may also open a set (`[12].example.com`), which holds no colon.
fn split_pattern_port(text: &str) -> (&str, Option<&str>) {
    if let Some((net, rest)) = text.split_once('/')
        && !net.starts_with('[')
    {
        // `10.0.0.0/8:22`: the colons before the slash belong to the address.
        return match rest.split_once(':') {
            Some((length, port)) => (&text[..=net.len() + length.len()], Some(port)),
            None => (text, None),
        };
    }
    let bracketed_address = text.starts_with('[')
        && text
            .find(']')
            .is_some_and(|close| text[..close].contains(':'));
    if text.starts_with('[') && !bracketed_address {
        return match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
    }
    split_port(text)
}

impl HostPattern {
    fn parse(text: &str) -> Result<Self, PatternError> {
        match text {
            "" => return Err(PatternError::Empty),
            "**" => return Ok(Self(Shape::Everything)),
            "*" | "*.*" | "**.*" | "*.**" | "**.**" => return Err(PatternError::LoneStar),
            _ => {}
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let bare = bare.filter(|t| t.contains(':')).unwrap_or(text);
        if bare.contains('/') || bare.contains(':') || bare.parse::<IpAddr>().is_ok() {
            return parse_net(bare).map(Self);
        }
        parse_name(text).map(Self)
    }

    /// Whether the pattern is about host names (and not addresses or services of the host).
    pub fn is_name(&self) -> bool {
        matches!(
            self.0,
            Shape::Name(..) | Shape::Glob(..) | Shape::Everything
        )
    }

    /// Whether the pattern covers the host. The loopback services of the host are covered only by
    /// their own pattern; see [`HostPattern::touches_host_service`] for what a deny covers.
    pub fn matches(&self, host: &Host) -> bool {
        match (&self.0, host) {
            (Shape::HostService, Host::HostService) => true,
            (_, Host::HostService) => false,
            (_, Host::Name(name)) => self.matches_name(name),
            (_, Host::Ip(ip)) => self.matches_ip(*ip),
        }
    }

    /// What stands written out behind the wildcards, if there are any: the pattern takes in names of everybody who
    /// can get one below it.
    pub fn open_suffix(&self) -> Option<String> {
        match &self.0 {
            Shape::Name(Lead::Nothing, _)
            | Shape::Everything
            | Shape::Net(_)
            | Shape::HostService => None,
            Shape::Name(_, name) => Some(name.to_string()),
            Shape::Glob(_, labels) => Some(literal_tail(labels)),
        }
    }

    /// Whether the pattern is about the loopback of the host and nothing else.
    pub fn is_loopback(&self) -> bool {
        match &self.0 {
            Shape::HostService => true,
            Shape::Net(net) => classify(net.addr()) == AddressClass::Loopback,
            Shape::Name(..) | Shape::Glob(..) | Shape::Everything => false,
        }
    }

    /// Whether any spelling of the services of the host (`localhost`, `127.0.0.1`, the gateway's...) falls under the
    /// pattern. A deny counts then; an allow has to name the host service itself.
    pub fn touches_host_service(&self) -> bool {
        static NAMES: LazyLock<Vec<HostName>> = LazyLock::new(|| {
            let names = HOST_SERVICE_NAMES.iter();
            names
                .filter_map(|name| HostName::parse(name).ok())
                .collect()
        });
        self.0 == Shape::HostService
            || NAMES.iter().any(|name| self.matches_name(name))
            || HOST_SERVICE_ADDRESSES
                .into_iter()
                .any(|ip| self.matches_ip(ip))
    }

    pub(crate) fn matches_name(&self, name: &HostName) -> bool {
        match &self.0 {
            Shape::Everything => true,
            Shape::Name(lead, suffix) => {
                let Some(front) = name.as_str().strip_suffix(suffix.as_str()) else {
                    return false;
                };
                match front.strip_suffix('.') {
                    None => front.is_empty() && lead.accepts(0),
                    Some(front) => lead.accepts(front.split('.').count()),
                }
            }
            Shape::Glob(lead, labels) => {
                let total = name.labels().count();
                total >= labels.len()
                    && lead.accepts(total - labels.len())
                    && name
                        .labels()
                        .rev()
                        .zip(labels.iter().rev())
                        .all(|(l, p)| p.matches(l))
            }
            Shape::Net(_) | Shape::HostService => false,
        }
    }

    pub(crate) fn matches_ip(&self, ip: IpAddr) -> bool {
        match &self.0 {
            Shape::Everything => true,
            Shape::Net(net) => net.contains(&ip),
            Shape::Name(..) | Shape::Glob(..) | Shape::HostService => false,
        }
    }
}

fn parse_net(text: &str) -> Result<Shape, PatternError> {
    let bad = || PatternError::BadRange {
        text: text.to_owned(),
        meant: None,
    };
    let net = match text.split_once('/') {
        None => IpNet::from(text.parse::<IpAddr>().map_err(|_| bad())?),
        Some((address, length)) => {
            let address: IpAddr = address
                .parse()
                .map_err(|_| PatternError::UrlParts(text.to_owned()))?;
            // `u8::from_str` takes a sign and leading zeros.
            let plain = length.bytes().all(|b| b.is_ascii_digit())
                && (length == "0" || !length.starts_with('0'));
            let length = length.parse().ok().filter(|_| plain).ok_or_else(bad)?;
            IpNet::new(address, length).map_err(|_| bad())?
        }
    };
    if net.trunc() != net {
        return Err(PatternError::BadRange {
            text: text.to_owned(),
            meant: Some(net.trunc()),
        });
    }
    if let IpNet::V6(v6) = net
        && mapped_v4().contains(&v6)
    {
        return Err(PatternError::MappedV4(net));
    }
    let single = net.prefix_len() == net.max_prefix_len();
    if single && Host::from(net.addr()) == Host::HostService {
        return Ok(Shape::HostService);
    }
    Ok(Shape::Net(net))
}

/// The labels behind the last one with wildcards. Never empty: [`parse_name`] sees to it.
pub(crate) fn literal_tail(labels: &[Label]) -> String {
    let literal = labels.iter().rev().take_while(|l| !l.is_wild()).count();
    let tail: Vec<&str> = labels[labels.len() - literal..]
        .iter()
        .map(Label::as_str)
        .collect();
    tail.join(".")
}

/// `::ffff:0:0/96` (RFC 4291, section 2.5.5.2).
fn mapped_v4() -> Ipv6Net {
    Ipv6Net::new_assert(std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), 96)
}

fn parse_name(text: &str) -> Result<Shape, PatternError> {
    let (lead, rest) = if let Some(rest) = text.strip_prefix("**.") {
        (Lead::Many, rest)
    } else if let Some(rest) = text.strip_prefix("*.") {
        (Lead::One, rest)
    } else if let Some(rest) = text.strip_prefix('.') {
        (Lead::Any, rest)
    } else {
        (Lead::Nothing, text)
    };
    if rest.contains("**") {
        return Err(PatternError::DoubleStarInside(text.to_owned()));
    }
    if !has_wildcard(rest) {
        let name = HostName::parse(rest)?;
        if lead == Lead::Nothing {
            let service = name.is_host_service();
            return Ok(if service {
                Shape::HostService
            } else {
                Shape::Name(lead, name)
            });
        }
        return Ok(Shape::Name(lead, name));
    }
    let rest = rest.strip_suffix('.').unwrap_or(rest);
    let labels: Vec<&str> = rest.split('.').collect();
    let open = labels
        .iter()
        .rposition(|label| has_wildcard(label))
        .unwrap_or(0);
    let tail = labels[open + 1..].join(".");
    if tail.is_empty() {
        return Err(PatternError::OpenEnd(text.to_owned()));
    }
    let tail = HostName::parse(&tail)?;
    let mut parsed = Vec::with_capacity(labels.len());
    for label in &labels[..=open] {
        parsed.push(parse_label(label)?);
    }
    for label in tail.labels() {
        parsed.push(Label::parse(label)?);
    }
    // `*.x` written as a glob would be a second spelling of the lead.
    Ok(Shape::Glob(lead, parsed.into()))
}

/// A label left of the last wildcard: itself a wildcard, or a literal that has to be a valid one.
fn parse_label(label: &str) -> Result<Label, PatternError> {
    if has_wildcard(label) {
        return Ok(Label::parse(label)?);
    }
    // Parsed with a harmless tail, because a number alone is no name. What maps to several labels
    // (a full-width dot) is refused by `Label`.
    let name = HostName::parse(&format!("{label}.x"))?;
    let literal = name.as_str().strip_suffix(".x").unwrap_or(label);
    Ok(Label::parse(literal)?)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Shape::Everything => f.write_str("**"),
            Shape::Name(lead, name) => write!(f, "{}{name}", lead.prefix()),
            Shape::Glob(lead, labels) => {
                f.write_str(lead.prefix())?;
                for (i, label) in labels.iter().enumerate() {
                    let dot = if i == 0 { "" } else { "." };
                    write!(f, "{dot}{}", label.as_str())?;
                }
                Ok(())
            }
            Shape::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Shape::Net(net) => net.fmt(f),
            Shape::HostService => f.write_str(HOST_SERVICE_NAMES[0]),
        }
    }
}

impl FromStr for ResourcePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

impl fmt::Display for ResourcePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host.0, self.port) {
            (Shape::Net(IpNet::V6(_)), Some(port)) => write!(f, "[{}]:{port}", self.host),
            (_, Some(port)) => write!(f, "{}:{port}", self.host),
            (_, None) => self.host.fmt(f),
        }
    }
}

serde_as_text!(ResourcePattern);
