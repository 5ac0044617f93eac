//! The new signature.

use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::canonical::{self, PathForm, SIGNATURE, encode, parameters};
use super::chunks::Chunks;
use super::claim::{CONTENT, Claim, Head, Place};
use super::host::Endpoint;
use super::key::{Digest, Keys, SigningKey, string_to_sign};
use super::payload;
use super::scope::Scope;
use super::time::Timestamp;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// Signs a request of the host's own for its endpoint, with every header that it has, `Host` and its time. `head`: without
/// headers, which are `headers`; what is written stands there. `None`: the endpoint has no name that can be signed for.
pub(super) fn sign_own(
    head: &Head<'_>,
    headers: &mut HeaderMap,
    (endpoint, keys): (&Endpoint, &Keys),
    time: Timestamp,
    body: &[u8],
) -> Option<()> {
    let (date, region) = (time.date(), endpoint.region());
    let scope = format!("{date}/{region}/{}/aws4_request", endpoint.service());
    let scope = Scope::parse(&scope)?;
    headers.insert(DATE, HeaderValue::from_str(&time.to_string()).ok()?);
    let mut signed: Vec<HeaderName> = headers.keys().cloned().chain([HOST]).collect();
    signed.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    signed.dedup();
    let digest = Digest::of(body);
    let claim = Claim {
        place: Place::Header,
        access_key_id: keys.access_key_id.clone(),
        time,
        signed,
        // Nobody has signed it before.
        signature: digest,
        content: None,
        scope,
    };
    let key = SigningKey::derive(&keys.secret, &claim.scope);
    let form = PathForm::Encoded;
    let payload = digest.to_string();
    let unsigned = Verified {
        claim,
        form,
        payload,
        key,
    };
    unsigned.sign(head, headers, keys, None);
    Some(())
}

/// A signature that is the placeholder's.
#[derive(Debug)]
pub struct Verified {
    pub(super) claim: Claim,
    pub(super) form: PathForm,
    /// What stands for the body in the canonical request.
    pub(super) payload: String,
    /// Of the placeholder.
    pub(super) key: SigningKey,
}

/// What a request got besides its new headers.
#[derive(Debug)]
pub struct Signed {
    /// The query to send in place of the guest's, if the signature stands there.
    pub query: Option<String>,
    /// What a body in signed chunks has to pass through.
    pub chunks: Option<Chunks>,
}

impl Verified {
    /// Signs the request as it goes on, with the real key and for what the guest's signature held for, which was found
    /// to be its host's. The new signature covers those of the guest's headers that are still there. `head`: without
    /// headers, which are `headers`; what is written stands there. `body`: the digest of the body as it goes on, where
    /// that is here; it may be another one than the guest's.
    pub fn sign(
        mut self,
        head: &Head<'_>,
        headers: &mut HeaderMap,
        keys: &Keys,
        body: Option<Digest>,
    ) -> Signed {
        if let Some(digest) = body {
            self.payload = digest.to_string();
            if headers.contains_key(CONTENT)
                && let Ok(value) = HeaderValue::from_str(&self.payload)
            {
                headers.insert(CONTENT, value);
            }
        }
        let claim = &self.claim;
        headers.remove(&TOKEN);
        let in_header = claim.place == Place::Header;
        if in_header && let Some(token) = &keys.session_token {
            headers.insert(TOKEN, token.clone());
        }
        let signed = self.names(headers, keys);
        let query = (!in_header).then(|| self.query(head.query.unwrap_or_default(), &signed, keys));
        let head = Head {
            headers,
            query: query.as_deref().or(head.query),
            ..*head
        };
        let canonical = canonical::request(&head, self.form, &signed, &self.payload);
        let key = SigningKey::derive(&keys.secret, &claim.scope);
        let signature = key.sign(&string_to_sign(&claim.time, &claim.scope, &canonical));
        let query = query.map(|query| format!("{query}&X-Amz-Signature={signature}"));
        if in_header && let Some(value) = self.authorization(&signed, &signature, keys) {
            headers.insert(AUTHORIZATION, value);
        }
        Signed {
            query,
            chunks: self.chunks(signature, key),
        }
    }

    /// The headers to sign: the guest's as far as they go on, and the token.
    fn names(&self, headers: &HeaderMap, keys: &Keys) -> Vec<HeaderName> {
        let goes_on = |name: &&HeaderName| *name == HOST || headers.contains_key(*name);
        let mut names: Vec<_> = self.claim.signed.iter().filter(goes_on).cloned().collect();
        names.retain(|name| name != TOKEN);
        if self.claim.place == Place::Header && keys.session_token.is_some() {
            let at = names.partition_point(|name| name.as_str() < TOKEN.as_str());
            names.insert(at, TOKEN);
        }
        names
    }

    /// `None`: cannot be, since a claim, a key id and names of headers hold nothing that a header may not.
    fn authorization(
        &self,
        signed: &[HeaderName],
        signature: &Digest,
        keys: &Keys,
    ) -> Option<HeaderValue> {
        let text = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={signature}",
            keys.access_key_id,
            self.claim.scope,
            canonical::names(signed)
        );
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    fn chunks(self, signature: Digest, key: SigningKey) -> Option<Chunks> {
        let trailer = match self.payload.as_str() {
            payload::CHUNKS => false,
            payload::CHUNKS_TRAILER => true,
            _ => return None,
        };
        let Claim {
            time,
            scope,
            signature: before,
            ..
        } = self.claim;
        Some(Chunks::new(
            time,
            scope,
            (self.key, before),
            (key, signature),
            trailer,
        ))
    }

    /// The guest's parameters in their order, with the real key id, the list of headers and the token, without the
    /// signature.
    fn query(&self, query: &str, signed: &[HeaderName], keys: &Keys) -> String {
        let mut text = String::with_capacity(query.len());
        let mut add = |name: &[u8], value: &[u8]| {
            if !text.is_empty() {
                text.push('&');
            }
            encode(name, &mut text);
            text.push('=');
            encode(value, &mut text);
        };
        for (name, value) in parameters(query) {
            match &name[..] {
                SIGNATURE | b"X-Amz-Security-Token" => {}
                b"X-Amz-Credential" => {
                    let credential = format!("{}/{}", keys.access_key_id, self.claim.scope);
                    add(&name, credential.as_bytes());
                }
                b"X-Amz-SignedHeaders" => add(&name, canonical::names(signed).as_bytes()),
                b"X-Amz-Content-Sha256" => add(&name, self.payload.as_bytes()),
                _ => add(&name, &value),
            }
        }
        if let Some(token) = &keys.session_token {
            add(b"X-Amz-Security-Token", token.as_bytes());
        }
        text
    }
}
