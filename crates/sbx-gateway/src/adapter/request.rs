//! The head of an HTTP request: where it wants to go, said without doubt or refused.

use hyper::header::{HOST, HeaderMap, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use hyper::http::uri::Scheme;
use hyper::{Method, Version};
use sbx_policy::{HttpRequest, PathError, Port, Target, TargetError};

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
    /// The authority carries a user name.
    #[error("the authority of the URL carries user information")]
    UserInfo,
    /// URL and `Host` header differ, or `:authority` and `Host`.
    #[error("the Host header {header} differs from {target}")]
    Differs {
        /// From the header.
        header: Target,
        /// From the URL or `:authority`.
        target: Target,
    },
    /// `CONNECT` without a port, or inside of a connection.
    #[error("CONNECT needs host:port and goes to the proxy only")]
    Connect,
    /// The path cannot be judged.
    #[error("the path is not usable: {0}")]
    Path(#[from] PathError),
    /// A transfer coding that is not understood.
    #[error("the only transfer coding that is understood is chunked")]
    TransferEncoding,
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
    if let Some(header) = host_header(&parts.headers, Port::HTTP)?
        && header != target
    {
        return Err(RequestError::Differs { header, target });
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
            Err(RequestError::Differs { header, target })
        }
        (Some(target), _) | (None, Some(target)) => Ok(target),
        (None, None) => Err(RequestError::HostHeader),
    }
}

/// What holds for every request whatever way it came.
pub fn check_head(parts: &Parts) -> Result<(), RequestError> {
    // hyper lets `gzip, chunked` pass: what a server makes of it is anybody's guess.
    if parts.version < Version::HTTP_2 {
        let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
        let plain = |value: &hyper::header::HeaderValue| {
            value
                .as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"chunked")
        };
        let first = codings.next().is_none_or(plain);
        if !first || codings.next().is_some() {
            return Err(RequestError::TransferEncoding);
        }
    }
    Ok(())
}

/// The request as rules look at it.
pub fn judged(parts: &Parts) -> Result<HttpRequest, RequestError> {
    let path = match parts.uri.path() {
        // `OPTIONS *` is about the server as a whole.
        "*" | "" => "/",
        path => path,
    };
    Ok(HttpRequest::parse(parts.method.as_str(), path)?)
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
