//! The head of a request as it goes upstream.

use hyper::header::{EXPECT, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::{PathAndQuery, Scheme, Uri};
use hyper::{Request, Version};
use sbx_policy::{Port, Target};

use super::Sender;
use crate::decision::Grant;
use crate::relay::headers::{join_cookies, strip_hop_by_hop};

/// The head to send for a request of the guest. `path`: the one that was judged, where rules look at
/// paths. Credentials are not in it yet.
pub fn upstream_request(
    grant: &Grant,
    parts: &Parts,
    path: Option<&str>,
    tls: bool,
    websocket: bool,
    connection: &Sender,
) -> Result<Request<()>, hyper::http::Error> {
    let path = path_and_query(&parts.uri, path)?;
    let authority = authority(&grant.target, tls);
    let mut request = Request::new(());
    *request.method_mut() = parts.method.clone();
    let mut headers = parts.headers.clone();
    strip_hop_by_hop(&mut headers, websocket);
    headers.remove(EXPECT);
    if connection.is_h2() {
        headers.remove(HOST);
        let scheme = if tls { Scheme::HTTPS } else { Scheme::HTTP };
        *request.uri_mut() = Uri::builder()
            .scheme(scheme)
            .authority(authority.as_str())
            .path_and_query(path)
            .build()?;
        *request.version_mut() = Version::HTTP_2;
    } else {
        join_cookies(&mut headers);
        headers.insert(HOST, HeaderValue::try_from(authority)?);
        *request.uri_mut() = Uri::from(path);
    }
    *request.headers_mut() = headers;
    Ok(request)
}

/// The path to send: the one that was judged where rules look at paths, else the guest's.
fn path_and_query(uri: &Uri, judged: Option<&str>) -> Result<PathAndQuery, hyper::http::Error> {
    let given = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let Some(judged) = judged else {
        return Ok(PathAndQuery::try_from(if given.is_empty() {
            "/"
        } else {
            given
        })?);
    };
    let text = match uri.query() {
        Some(query) => format!("{judged}?{query}"),
        None => judged.to_owned(),
    };
    Ok(PathAndQuery::try_from(text)?)
}

/// `host` or `host:port` as the scheme's default asks.
fn authority(target: &Target, tls: bool) -> String {
    let default = if tls { Port::HTTPS } else { Port::HTTP };
    let full = target.to_string();
    if target.port != default {
        return full;
    }
    match full.rsplit_once(':') {
        Some((host, _)) => host.to_owned(),
        None => full,
    }
}
