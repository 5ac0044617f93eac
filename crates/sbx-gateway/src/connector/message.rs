//! The head of a request as it goes upstream.

use hyper::header::{EXPECT, HOST, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::{PathAndQuery, Scheme, Uri};
use hyper::{Request, Version};
use sbx_policy::{Port, Target};

use crate::decision::Grant;
use crate::relay::headers::{join_cookies, strip_hop_by_hop};

/// A request that is ready but for the protocol of the connection it goes on.
pub struct Prepared {
    path: PathAndQuery,
    authority: String,
    scheme: Scheme,
    /// The client wants to be told whether its body is wanted.
    expects: bool,
    /// Services whose credentials were written, for the record.
    pub credentials: Option<String>,
}

/// Makes the head of the guest's request one of ours: takes out what stays between two neighbours, writes the granted
/// credentials. `path`: the one that was judged, where rules look at paths.
pub fn prepare(
    grant: &Grant,
    parts: &mut Parts,
    path: Option<&str>,
    tls: bool,
    websocket: bool,
) -> Result<Prepared, hyper::http::Error> {
    let path = path_and_query(&parts.uri, path)?;
    strip_hop_by_hop(&mut parts.headers, websocket);
    let expects = parts.headers.remove(EXPECT).is_some() && parts.version == Version::HTTP_11;
    let credentials = write_credentials(grant, &mut parts.headers);
    Ok(Prepared {
        path,
        authority: authority(&grant.target, tls),
        scheme: if tls { Scheme::HTTPS } else { Scheme::HTTP },
        expects,
        credentials,
    })
}

impl Prepared {
    /// Writes the head in the protocol of the connection, also again for another one. True: the body has to wait until
    /// it is asked for.
    pub fn address<B>(
        &self,
        request: &mut Request<B>,
        h2: bool,
    ) -> Result<bool, hyper::http::Error> {
        let expects = self.expects && !h2;
        if h2 {
            request.headers_mut().remove(HOST);
            request.headers_mut().remove(EXPECT);
            *request.uri_mut() = Uri::builder()
                .scheme(self.scheme.clone())
                .authority(self.authority.as_str())
                .path_and_query(self.path.clone())
                .build()?;
            *request.version_mut() = Version::HTTP_2;
        } else {
            let headers = request.headers_mut();
            join_cookies(headers);
            headers.insert(HOST, HeaderValue::try_from(&self.authority)?);
            if expects {
                headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
            }
            *request.uri_mut() = Uri::from(self.path.clone());
            *request.version_mut() = Version::HTTP_11;
        }
        Ok(expects)
    }
}

/// The path to send: the one that was judged where rules look at paths, else the guest's.
fn path_and_query(uri: &Uri, judged: Option<&str>) -> Result<PathAndQuery, hyper::http::Error> {
    let Some(judged) = judged else {
        return Ok(match uri.path_and_query() {
            Some(given) if !given.as_str().is_empty() => given.clone(),
            _ => PathAndQuery::from_static("/"),
        });
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
    let mut text = target.to_string();
    if target.port == default
        && let Some(end) = text.rfind(':')
    {
        text.truncate(end);
    }
    text
}

/// Writes the granted credentials over whatever the guest sent, and takes out every other header that
/// carries one of their placeholders. Returns the services, for the record.
pub fn write_credentials(grant: &Grant, headers: &mut HeaderMap) -> Option<String> {
    let mut services: Vec<&str> = Vec::new();
    for credential in &grant.credentials {
        let placeholder = credential.placeholder.as_bytes();
        let strays: Vec<_> = headers
            .iter()
            .filter(|(_, value)| crate::relay::placeholder::is_in(value.as_bytes(), placeholder))
            .map(|(name, _)| name.clone())
            .collect();
        for name in strays {
            headers.remove(name);
        }
    }
    for credential in &grant.credentials {
        headers.insert(credential.header.clone(), credential.value.clone());
        services.push(&credential.service);
    }
    (!services.is_empty()).then(|| services.join(","))
}
