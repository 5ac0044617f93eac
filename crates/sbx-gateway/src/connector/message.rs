//! The head of a request as it goes upstream.

use hyper::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName,
    HeaderValue, SEC_WEBSOCKET_EXTENSIONS,
};
use hyper::http::request::Parts;
use hyper::http::uri::{PathAndQuery, Scheme, Uri};
use hyper::{Request, Version};
use sbx_credentials::sigv4::{Chunks, Digest, Head, Verified};
use sbx_credentials::substitute;
use sbx_policy::{Port, Target};

use crate::credentials::{Form, Supplied};
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
    /// The guest sent a key of its own where one was written.
    pub own_replaced: bool,
}

/// Makes the head of the guest's request one of ours: takes out what stays between two neighbours, writes the supplied
/// credentials. `path`: the one that was judged, where rules look at paths.
pub fn prepare(
    grant: &Grant,
    supplied: &[Supplied],
    parts: &mut Parts,
    path: Option<&str>,
    tls: bool,
    websocket: bool,
) -> Result<Prepared, hyper::http::Error> {
    let mut path = path_and_query(&parts.uri, path)?;
    strip_hop_by_hop(&mut parts.headers, websocket);
    if websocket {
        // What passes is read: nothing may be agreed upon that gives frames another meaning.
        parts.headers.remove(SEC_WEBSOCKET_EXTENSIONS);
    }
    let expects = parts.headers.remove(EXPECT).is_some() && parts.version == Version::HTTP_11;
    let written = write_credentials(supplied, &mut parts.headers, &mut path)?;
    if grant.bound.sought.is_some() {
        // What comes back is searched for values.
        let identity = HeaderValue::from_static("identity");
        parts.headers.insert(ACCEPT_ENCODING, identity);
    }
    if grant.bound.writes_bodies() {
        // Nobody knows how long it will be.
        parts.headers.remove(CONTENT_LENGTH);
    }
    Ok(Prepared {
        path,
        authority: authority(&grant.target, tls),
        scheme: if tls { Scheme::HTTPS } else { Scheme::HTTP },
        expects,
        credentials: written.services,
        own_replaced: written.own_replaced,
    })
}

impl Prepared {
    /// Signs the head for AWS as it goes on, and gives what a body in signed chunks has to pass through. Comes after
    /// everything else that is written. `body`: its digest, where it is here.
    pub fn sign(
        &mut self,
        verified: Verified,
        supplied: &Supplied,
        parts: &mut Parts,
        body: Option<Digest>,
    ) -> Result<Option<Chunks>, hyper::http::Error> {
        let Some(keys) = &supplied.material.keys else {
            return Ok(None);
        };
        join_cookies(&mut parts.headers);
        let head = Head {
            method: parts.method.as_str(),
            path: self.path.path(),
            query: self.path.query(),
            host: &self.authority,
            headers: &HeaderMap::new(),
        };
        let signed = verified.sign(&head, &mut parts.headers, keys, body);
        if let Some(query) = signed.query {
            self.path = PathAndQuery::try_from(format!("{}?{query}", self.path.path()))?;
        }
        add_service(&mut self.credentials, &supplied.credential.service);
        Ok(signed.chunks)
    }

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

/// Headers that clients put keys into. Where a credential is written, the guest's own ones do not go along.
fn key_headers() -> impl Iterator<Item = HeaderName> {
    let of_keys = substitute::KEY_HEADERS.map(HeaderName::from_static);
    of_keys.into_iter().chain([AUTHORIZATION])
}

/// Writes the credentials: first in the place of placeholders, then over whatever the guest sent. Every other header that
/// still carries one of the placeholders is taken out, and the guest's own keys beside a written one are.
fn write_credentials(
    supplied: &[Supplied],
    headers: &mut HeaderMap,
    path: &mut PathAndQuery,
) -> Result<Written, hyper::http::Error> {
    let mut written = Written {
        own_replaced: leave_one_login(supplied, headers),
        ..Written::default()
    };
    for one in supplied {
        if replace(one, headers, path)? {
            written.add(&one.credential.service);
        }
    }
    for Supplied { credential, .. } in supplied {
        let carries = |(name, value): (&HeaderName, &HeaderValue)| {
            credential.is_in(value.as_bytes()).then(|| name.clone())
        };
        let strays: Vec<_> = headers.iter().filter_map(carries).collect();
        for name in strays {
            headers.remove(name);
        }
    }
    let over: Vec<(HeaderName, &HeaderValue, &str)> = supplied
        .iter()
        .filter_map(|one| {
            let name = one.credential.form.header()?;
            let value = one.material.header.as_ref()?;
            Some((name, value, one.credential.service.as_str()))
        })
        .collect();
    if !over.is_empty() {
        let written_over = over.iter().map(|(name, ..)| name.clone());
        for name in key_headers().chain(written_over) {
            // What took a placeholder's place is not the guest's.
            let guests = headers.remove(name).filter(|value| !value.is_sensitive());
            written.own_replaced |= guests.is_some();
        }
    }
    for (name, value, service) in over {
        headers.insert(name, value.clone());
        written.add(service);
    }
    Ok(written)
}

/// Where a sign-in's placeholder is the login, takes out what the guest has put beside it: a request is of one account.
/// Returns whether there was anything.
fn leave_one_login(supplied: &[Supplied], headers: &mut HeaderMap) -> bool {
    let logs_in = |one: &Supplied| {
        let mut values = headers.values();
        matches!(one.credential.form, Form::Login)
            && values.any(|value| one.credential.is_in(value.as_bytes()))
    };
    if !supplied.iter().any(logs_in) {
        return false;
    }
    let stands = |value: &HeaderValue| {
        let mut credentials = supplied.iter().map(|one| &one.credential);
        credentials.any(|credential| credential.is_in(value.as_bytes()))
    };
    let mut any = false;
    for name in key_headers() {
        let all: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
        if all.iter().all(stands) {
            continue;
        }
        any = true;
        headers.remove(&name);
        for value in all.into_iter().filter(stands) {
            headers.append(name.clone(), value);
        }
    }
    any
}

/// Replaces the placeholder in headers and the URL. Returns whether it stood there.
fn replace(
    one: &Supplied,
    headers: &mut HeaderMap,
    path: &mut PathAndQuery,
) -> Result<bool, hyper::http::Error> {
    let (placeholder, value) = (&one.credential.placeholder, one.material.text.expose());
    let mut any = false;
    for (name, header) in headers.iter_mut() {
        if let Some(text) = one.credential.in_header(name, header.as_bytes(), value) {
            *header = HeaderValue::try_from(text)?;
            header.set_sensitive(true);
            any = true;
        }
    }
    if matches!(one.credential.form, Form::Replace { .. })
        && let Some(text) = substitute::in_url(path.as_str(), placeholder, value)
    {
        *path = PathAndQuery::try_from(text)?;
        any = true;
    }
    Ok(any)
}

/// What was done to a head.
#[derive(Debug, Default)]
struct Written {
    services: Option<String>,
    own_replaced: bool,
}

impl Written {
    fn add(&mut self, service: &str) {
        add_service(&mut self.services, service);
    }
}

fn add_service(services: &mut Option<String>, service: &str) {
    let services = services.get_or_insert_default();
    if services.split(',').any(|one| one == service) {
        return;
    }
    if !services.is_empty() {
        services.push(',');
    }
    services.push_str(service);
}
