//! Why a resource is refused, and what to write instead.

use ipnet::IpNet;

use crate::host::HostError;
use crate::label::LabelError;
use crate::target::TargetError;

/// Why a text is not a resource. [`PatternError::hint`] says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// Nothing there, or nothing between two commas.
    #[error("the resource is empty")]
    Empty,
    /// More than 512 bytes.
    #[error("the resource is longer than 512 bytes")]
    TooLong,
    /// A lone `*`.
    #[error("a lone `*` is not a resource")]
    LoneStar,
    /// `**` somewhere else than at the start.
    #[error("{0:?}: `**` stands only at the start of a pattern, as a label of its own")]
    DoubleStarInside(String),
    /// The last label has a wildcard.
    #[error("{0:?}: the last label must be written out")]
    OpenEnd(String),
    /// Something after a `/` that is not a prefix length, or a scheme.
    #[error("{0:?} is not a host or an address range: a resource has no scheme and no path")]
    UrlParts(String),
    /// Bits set right of the prefix, or a prefix length out of range.
    #[error("{text:?} is not an address range")]
    BadRange {
        /// The refused text.
        text: String,
        /// The range that was probably meant.
        meant: Option<IpNet>,
    },
    /// An IPv6 spelling of an IPv4 address.
    #[error("{0} is an IPv4 address in IPv6 clothes: write it as IPv4")]
    MappedV4(IpNet),
    /// A label with wildcards is malformed.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A label without wildcards is malformed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The port is not one.
    #[error(transparent)]
    Port(#[from] TargetError),
}

impl PatternError {
    /// What to write instead, if there is something to suggest.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::LoneStar => Some("`**` for everything, or `**.example.com`".into()),
            Self::DoubleStarInside(text) => {
                let tail = text.rsplit("**.").next().unwrap_or(text);
                Some(format!("`**.{tail}`"))
            }
            Self::OpenEnd(_) => {
                Some("`*.example.com` for names, `10.0.0.0/24` for addresses".into())
            }
            Self::UrlParts(text) => Some(url_hint(text)),
            Self::BadRange {
                meant: Some(net), ..
            } => Some(format!("`{net}`")),
            Self::Port(TargetError::Port(_)) => Some("`example.com:443`".into()),
            _ => None,
        }
    }
}

/// The resource in a URL, and the qualifiers that say the rest of it.
fn url_hint(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let port = match scheme {
        _ if host.contains(':') => "",
        "http" | "ws" => ":80",
        "https" | "wss" => ":443",
        _ => "",
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    match path.trim_end_matches('/') {
        "" => format!("`{host}{port}`"),
        path => format!(
            "`{host}{port}`, or for this path alone `{host}{port} --method ANY --path {path}`"
        ),
    }
}
