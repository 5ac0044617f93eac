//! The head of an HTTP request: where it wants to go, said without doubt or refused.

use hyper::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Scheme;
use hyper::{Method, Version};
use sbx_policy::{HttpRequest, PathError, Port, Target, TargetError};

use crate::limits;

/// Why a request is refused before anybody judges where it goes.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A request to the proxy port that is not a proxy request.
    #[error("this is a forward proxy: send an absolute http:// URL or CONNECT")]
    NotForProxy,
    /// `https://` in clear text, or another scheme.
    #[error("only http:// URLs can be sent to the proxy as they are; use CONNECT for others")]
    Scheme,
    /// No `Host` header, or two.
    #[error("the request needs exactly one Host header")]
    HostHeader,
    /// The authority is not one.
    #[error("the host is not usable: {0}")]
    Target(#[from] TargetError),
    /// `http://` at the port of `https://`.
    #[error("port 443 is for TLS: use https:// and CONNECT")]
    ClearText,
    /// A header by which some servers take another method or path than the request's own.
    #[error("the header {0} would have some servers do something else than what is judged")]
    Override(&'static str),
    /// The authority carries a user name.
    #[error("the authority of the URL carries user information")]
    UserInfo,
    /// URL and `Host` header differ, or `:authority` and `Host`.
    #[error("the Host header {header} differs from {target}")]
    Contradicts {
        /// From the header.
        header: Target,
        /// From the URL or `:authority`.
        target: Target,
    },
    /// The request names another host than its connection is for.
    #[error("the request names {named}, and the connection is for {connection}")]
    Differs {
        /// From the request.
        named: Target,
        /// What was dialled.
        connection: Target,
    },
    /// `CONNECT` without a port, or inside of a connection.
    #[error("CONNECT needs host:port and goes to the proxy only")]
    Connect,
    /// The path cannot be judged.
    #[error("the path is not usable: {0}")]
    Path(#[from] PathError),
    /// A body in HTTP/2 that says its length twice.
    #[error("Content-Length has to be there once")]
    ContentLength,
    /// More than [`limits::HEADERS`] in HTTP/2.
    #[error("the request has too many headers")]
    TooManyHeaders,
    /// `Expect` with anything but `100-continue`.
    #[error("the only expectation that is understood is 100-continue")]
    Expectation,
}

/// What a `CONNECT` asks for: `host:port`, nothing else (RFC 9110, section 9.3.6).
pub fn connect_target(parts: &Parts) -> Result<Target, RequestError> {
    let authority = parts.uri.authority().ok_or(RequestError::Connect)?;
    if authority.as_str().contains('@') {
        return Err(RequestError::UserInfo);
    }
    // `Port` refuses what `http` lets through: none, 0, leading zeros.
    let text = authority.as_str();
    let has_port = text
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'));
    if !has_port || parts.uri.path_and_query().is_some() {
        return Err(RequestError::Connect);
    }
    Ok(Target::parse_authority(text, Port::HTTPS)?)
}

/// Where a request to the proxy port goes: its absolute URL, with which `Host` has to agree.
pub fn proxy_target(parts: &Parts) -> Result<Target, RequestError> {
    let (Some(scheme), Some(authority)) = (parts.uri.scheme(), parts.uri.authority()) else {
        return Err(RequestError::NotForProxy);
    };
    if *scheme != Scheme::HTTP {
        return Err(RequestError::Scheme);
    }
    // Userinfo is not forwarded, so it is refused rather than dropped silently.
    if authority.as_str().contains('@') {
        return Err(RequestError::UserInfo);
    }
    let target = Target::parse_authority(authority.as_str(), Port::HTTP)?;
    // Rules and credentials for it mean TLS.
    if target.port == Port::HTTPS {
        return Err(RequestError::ClearText);
    }
    if let Some(header) = host_header(&parts.headers, Port::HTTP)?
        && header != target
    {
        return Err(RequestError::Contradicts { header, target });
    }
    Ok(target)
}

/// Where a request in origin form says it goes: `Host`, or `:authority` in HTTP/2, and if both are
/// there they agree.
pub fn origin_target(parts: &Parts, default: Port) -> Result<Target, RequestError> {
    if parts.method == Method::CONNECT {
        return Err(RequestError::Connect);
    }
    let header = host_header(&parts.headers, default)?;
    let authority = match parts.uri.authority() {
        Some(authority) if authority.as_str().contains('@') => return Err(RequestError::UserInfo),
        Some(authority) => Some(Target::parse_authority(authority.as_str(), default)?),
        None => None,
    };
    match (header, authority) {
        (Some(header), Some(target)) if header != target => {
            Err(RequestError::Contradicts { header, target })
        }
        (Some(target), _) | (None, Some(target)) => Ok(target),
        (None, None) => Err(RequestError::HostHeader),
    }
}

/// What holds for every request whatever way it came. The framing of HTTP/1.1 was looked at before
/// ([`super::framing`]); in HTTP/2 frames say where a body ends, and this must not be said a second time in two ways.
pub fn check_head(parts: &Parts) -> Result<(), RequestError> {
    if parts.version == Version::HTTP_2
        && parts
            .headers
            .get_all(CONTENT_LENGTH)
            .iter()
            .nth(1)
            .is_some()
    {
        return Err(RequestError::ContentLength);
    }
    if parts.version == Version::HTTP_2 && parts.headers.len() > limits::HEADERS {
        return Err(RequestError::TooManyHeaders);
    }
    let understood = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    match parts.headers.get(EXPECT) {
        Some(value) if !understood(value) => Err(RequestError::Expectation),
        _ => Ok(()),
    }
}

/// What a head that was refused for its form says about itself, for its record and nothing else.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Quoted {
    /// First word of the request line.
    pub method: String,
    /// Its second word, without a query.
    pub path: String,
    /// The first `Host`, as written.
    pub host: String,
}

/// Reads what can be read of a head that is not one.
pub fn quote(head: &[u8]) -> Quoted {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split(['\r', '\n']);
    let mut words = lines.next().unwrap_or_default().split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (method, target) = (word(), word());
    let host = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim())
    });
    Quoted {
        method: method.to_owned(),
        path: target.split('?').next().unwrap_or_default().to_owned(),
        host: without_user(host.unwrap_or_default()).to_owned(),
    }
}

/// Headers by which servers and frameworks take another method.
const METHOD_OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];
/// The same of paths.
const PATH_OVERRIDES: [&str; 2] = ["x-original-url", "x-rewrite-url"];

/// The request as rules look at it.
pub fn judged(parts: &Parts) -> Result<HttpRequest, RequestError> {
    refuse_header(parts, &METHOD_OVERRIDES)?;
    judged_by_path(parts)
}

/// [`judged`] where no method matters. Clients put requests with long URLs into the body of a `POST`, with the method that
/// is meant in a header.
pub fn judged_by_path(parts: &Parts) -> Result<HttpRequest, RequestError> {
    refuse_header(parts, &PATH_OVERRIDES)?;
    let path = match parts.uri.path() {
        // `OPTIONS *` is about the server as a whole.
        "*" | "" => "/",
        path => path,
    };
    Ok(HttpRequest::parse(parts.method.as_str(), path)?)
}

fn refuse_header(parts: &Parts, names: &[&'static str]) -> Result<(), RequestError> {
    let mut names = names.iter();
    match names.find(|name| parts.headers.contains_key(**name)) {
        Some(name) => Err(RequestError::Override(name)),
        None => Ok(()),
    }
}

/// An authority without its user information, which ends at the last `@` (RFC 3986, section 3.2.1).
pub fn without_user(authority: &str) -> &str {
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
}

fn host_header(headers: &HeaderMap, default: Port) -> Result<Option<Target>, RequestError> {
    let mut values = headers.get_all(HOST).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(RequestError::HostHeader);
    }
    let text = value.to_str().map_err(|_| RequestError::HostHeader)?;
    Ok(Some(Target::parse_authority(text, default)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_head_is_quoted_as_far_as_it_can_be_read() {
        let quoted = quote(b"POST /a?secret HTTP/1.1\nX: y\nhOst: b.test \n\n");
        let want = ["POST", "/a", "b.test"].map(str::to_owned);
        assert_eq!([quoted.method, quoted.path, quoted.host], want);
        assert_eq!(
            quote(b"\xff\0"),
            Quoted {
                method: "\u{fffd}\0".into(),
                ..Quoted::default()
            }
        );
        assert_eq!(quote(b""), Quoted::default());
    }
}
