//! Signatures: published examples, another implementation, and what must not pass.

mod chunks;
mod examples;
mod hosts;
mod issuing;
mod library;
mod refused;
mod session;

use http::{HeaderMap, HeaderName, HeaderValue};
use sbx_credentials::sigv4::{
    Claim, Digest, Endpoint, Head, Keys, Payload, Placeholder, Refusal, Signed, Timestamp,
};
use zeroize::Zeroizing;

/// The key of the published examples.
pub(crate) const ID: &str = "AKIDEXAMPLE";
pub(crate) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// The one in its place.
pub(crate) const REAL_ID: &str = "AKIAREALREALREALREAL";
pub(crate) const REAL_SECRET: &str = "real/real+realrealrealrealrealrealreal00";
pub(crate) const DATE: &str = "20150830T123600Z";

/// A request that can be changed.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) host: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(method: &'static str, url: &str, headers: &[(&str, &str)]) -> Self {
        let rest = url.strip_prefix("https://").unwrap();
        let at = rest.find('/').unwrap_or(rest.len());
        let (host, rest) = rest.split_at(at);
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (rest, None),
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        Self {
            method,
            path: path.to_owned(),
            query,
            host: host.to_owned(),
            headers: map,
            body: Vec::new(),
        }
    }

    pub(crate) fn head(&self) -> Head<'_> {
        Head {
            method: self.method,
            path: &self.path,
            query: self.query.as_deref(),
            host: &self.host,
            headers: &self.headers,
        }
    }

    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        let value = HeaderValue::from_str(value).unwrap();
        self.headers.insert(name, value);
    }

    /// Checks it as the gateway does.
    pub(crate) fn verify(
        &self,
        trial: &Trial,
    ) -> Result<sbx_credentials::sigv4::Verified, Refusal> {
        let head = self.head();
        let endpoint = Endpoint::of(&trial.host)?;
        let claim = Claim::of(&head)?.ok_or(Refusal::Malformed("none"))?;
        claim.check(&endpoint, &trial.placeholder, trial.now)?;
        let payload = claim.payload(&endpoint, &head, true)?;
        let digest = Digest::of(&self.body);
        if let Payload::Digest(named) = payload
            && named != digest
        {
            return Err(Refusal::OtherBody);
        }
        claim.verify(&endpoint, &head, payload, Some(digest), &trial.placeholder)
    }

    /// Checks it and signs it anew, in place.
    pub(crate) fn sign_anew(&mut self, trial: &Trial) -> Result<Signed, Refusal> {
        let verified = self.verify(trial)?;
        let mut headers = std::mem::take(&mut self.headers);
        let none = HeaderMap::new();
        let head = Head {
            headers: &none,
            ..self.head()
        };
        let signed = verified.sign(&head, &mut headers, &trial.keys, None);
        self.headers = headers;
        if let Some(query) = &signed.query {
            self.query = Some(query.clone());
        }
        Ok(signed)
    }

    pub(crate) fn authorization(&self) -> &str {
        self.headers["authorization"].to_str().unwrap()
    }

    pub(crate) fn signature(&self) -> &str {
        self.authorization().rsplit('=').next().unwrap()
    }
}

/// What the gateway compares with.
pub(crate) struct Trial {
    pub(crate) host: String,
    pub(crate) placeholder: Placeholder,
    pub(crate) keys: Keys,
    pub(crate) now: u64,
}

impl Trial {
    pub(crate) fn at(host: &str, date: &str) -> Self {
        Self {
            host: host.to_owned(),
            placeholder: placeholder(ID, SECRET),
            keys: keys(REAL_ID, REAL_SECRET, None),
            now: Timestamp::parse(date).unwrap().seconds(),
        }
    }
}

pub(crate) fn placeholder(id: &str, secret: &str) -> Placeholder {
    Placeholder {
        access_key_id: id.to_owned(),
        secret: Zeroizing::new(secret.to_owned()),
    }
}

pub(crate) fn keys(id: &str, secret: &str, token: Option<&str>) -> Keys {
    Keys::new(id, Zeroizing::new(secret.to_owned()), token).unwrap()
}
