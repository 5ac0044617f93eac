//! Ports, and "where to" as people and protocols write it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::host::{Host, HostError};
use crate::text::serde_as_text;

/// Why a text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The host part is not one.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Empty, signed, zero-padded, 0 or above 65535.
    #[error("{0:?} is not a port: write a number from 1 to 65535 without sign or leading zero")]
    Port(String),
    /// A URL scheme that has no port known here.
    #[error("the scheme {0:?} is not known: use http, https, ws or wss, or host:port")]
    Scheme(String),
    /// A URL authority that parsers read in more than one way.
    #[error("the URL is ambiguous: its authority contains {0:?}")]
    Ambiguous(char),
}

/// A TCP or UDP port, 1 to 65535. Its text has no sign and no leading zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Port(std::num::NonZeroU16);

impl Port {
    /// HTTPS, also what a bare host means.
    pub const HTTPS: Self = Self(std::num::NonZeroU16::new(443).expect("443 is not zero"));
    /// Plain HTTP.
    pub const HTTP: Self = Self(std::num::NonZeroU16::new(80).expect("80 is not zero"));

    /// The number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl TryFrom<u16> for Port {
    type Error = TargetError;

    fn try_from(number: u16) -> Result<Self, TargetError> {
        std::num::NonZeroU16::new(number)
            .map(Self)
            .ok_or_else(|| TargetError::Port(number.to_string()))
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> Self {
        port.get()
    }
}

impl FromStr for Port {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let bad = || TargetError::Port(text.chars().take(16).collect());
        // `u16::from_str` takes a sign and leading zeros.
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits || text.starts_with('0') {
            return Err(bad());
        }
        text.parse::<u16>()
            .ok()
            .and_then(|n| Self::try_from(n).ok())
            .ok_or_else(bad)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A host and a port. Its text is `host:port` or `[v6]:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Where to.
    pub host: Host,
    /// Which port.
    pub port: Port,
}

impl Target {
    /// Parses `host`, `host:port`, `v6`, `[v6]`, `[v6]:port` or a URL (`http`, `https`, `ws`, `wss`).
    /// Without a port: 80 for `http` and `ws`, else 443. Userinfo of a URL is dropped: the target is
    /// what stands behind the `@` (RFC 3986, section 3.2.1). Nothing is percent-decoded.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        match text.split_once("://") {
            Some((scheme, rest)) => Self::parse_url(scheme, rest),
            None => Self::parse_authority(text, Port::HTTPS),
        }
    }

    /// Parses an authority without userinfo: what `CONNECT`, `Host` and `:authority` carry.
    pub fn parse_authority(text: &str, default: Port) -> Result<Self, TargetError> {
        let (host, port) = split_port(text);
        let host = Host::parse(host)?;
        let port = port.map_or(Ok(default), str::parse)?;
        Ok(Self { host, port })
    }

    fn parse_url(scheme: &str, rest: &str) -> Result<Self, TargetError> {
        let default = match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => Port::HTTP,
            "https" | "wss" => Port::HTTPS,
            _ => return Err(TargetError::Scheme(scheme.chars().take(16).collect())),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = &rest[..end];
        // Browsers end the authority at a backslash, RFC 3986 does not know it.
        if authority.contains('\\') {
            return Err(TargetError::Ambiguous('\\'));
        }
        let host = match authority.split_once('@') {
            Some((_, host)) if host.contains('@') => return Err(TargetError::Ambiguous('@')),
            Some((_, host)) => host,
            None => authority,
        };
        Self::parse_authority(host, default)
    }
}

/// Splits at the port colon. A bare IPv6 address (more than one colon, no bracket) has no port.
pub(crate) fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some(close) = text.rfind(']')
        && text.starts_with('[')
    {
        return match text[close + 1..].strip_prefix(':') {
            Some(port) => (&text[..=close], Some(port)),
            None => (text, None),
        };
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => (text, None),
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Self::parse(text)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(IpAddr::V6(v6)) => write!(f, "[{v6}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

serde_as_text!(Target);
