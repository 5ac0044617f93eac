//! What a request says about its signature, and whether that may be.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName};

use super::canonical::{self, PathForm};
use super::host::Endpoint;
use super::key::{Digest, Placeholder, SigningKey, string_to_sign};
use super::payload::{self, Payload};
use super::refusal::Refusal;
use super::resign::Verified;
use super::scope::Scope;
use super::time::Timestamp;

/// How far the time of a signature may be from the gateway's, seconds: as at the services.
pub const MAX_SKEW: u64 = 15 * 60;
/// The digest of the body, or what stands for it.
pub(super) const CONTENT: &str = "x-amz-content-sha256";

/// Whoever is between could put another body there.
const UNSIGNED_IN_CLEAR: Refusal =
    Refusal::Unsupported("A body that is not signed, in clear text,");

/// The head of a request as it is on one side of the gateway.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Method.
    pub method: &'a str,
    /// Path, as it is sent.
    pub path: &'a str,
    /// Query, as it is sent, without the question mark.
    pub query: Option<&'a str>,
    /// `Host`, or `:authority` over HTTP/2.
    pub host: &'a str,
    /// Headers.
    pub headers: &'a HeaderMap,
}

/// Where a signature stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In `Authorization`.
    Header,
    /// In the URL, for so many seconds.
    Query(u64),
}

/// A signature, not verified: read from a head that has exactly one, in one of the forms that are signed anew.
#[derive(Debug, Clone)]
pub struct Claim {
    pub(super) place: Place,
    pub(super) access_key_id: String,
    pub(super) scope: Scope,
    pub(super) time: Timestamp,
    /// In ascending order, without repetition, with `host`; each is in the head.
    pub(super) signed: Vec<HeaderName>,
    pub(super) signature: Digest,
    /// What the URL of a presigned request says in place of the header.
    pub(super) content: Option<String>,
}

impl Claim {
    /// The access key id that it names.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// Compares it with where it goes, with the time (`now`: seconds since the Unix epoch) and with the placeholder.
    pub fn check(
        &self,
        endpoint: &Endpoint,
        placeholder: &Placeholder,
        now: u64,
    ) -> Result<(), Refusal> {
        if self.access_key_id != placeholder.access_key_id {
            return Err(Refusal::OtherKey);
        }
        let (region, service) = (self.scope.region(), self.scope.service());
        if !endpoint.is(region, service) {
            return Err(Refusal::Scope {
                signed: format!("{service} in {region}"),
                host: endpoint.to_string(),
            });
        }
        if self.scope.date() != self.time.date() {
            return Err(Refusal::Malformed("its day and its time differ"));
        }
        let time = self.time.seconds();
        match self.place {
            Place::Header if time.abs_diff(now) > MAX_SKEW => Err(Refusal::Skewed),
            Place::Query(_) if time > now.saturating_add(MAX_SKEW) => Err(Refusal::Skewed),
            Place::Query(expires) if time.saturating_add(expires) < now => Err(Refusal::Ended),
            _ => Ok(()),
        }
    }

    /// How the signature covers the body. `tls`: only then may it leave it out.
    pub fn payload(
        &self,
        endpoint: &Endpoint,
        head: &Head<'_>,
        tls: bool,
    ) -> Result<Payload, Refusal> {
        let mut values = head.headers.get_all(CONTENT).iter();
        let header = values.next().map(http::HeaderValue::as_bytes);
        if values.next().is_some() || (header.is_some() && self.content.is_some()) {
            return Err(Refusal::Malformed("it names two digests of the body"));
        }
        let content = self.content.as_deref().map(str::as_bytes).or(header);
        let presigned = matches!(self.place, Place::Query(_));
        let Some(content) = content else {
            if !presigned || !endpoint.is_s3() {
                return Ok(Payload::Whole);
            }
            return if tls || !may_have_body(head) {
                Ok(Payload::Unsigned)
            } else {
                Err(UNSIGNED_IN_CLEAR)
            };
        };
        if let Some(digest) = Digest::parse(content) {
            return Ok(Payload::Digest(digest));
        }
        let is = |text: &str| content == text.as_bytes();
        let payload = if is(payload::UNSIGNED) {
            Payload::Unsigned
        } else if is(payload::CHUNKS) {
            Payload::Chunks { trailer: false }
        } else if is(payload::CHUNKS_TRAILER) {
            Payload::Chunks { trailer: true }
        } else if is(payload::UNSIGNED_TRAILER) {
            Payload::UnsignedChunks
        } else if is(payload::EVENTS) {
            return Err(Refusal::Unsupported("A stream of signed events"));
        } else if content.starts_with(b"STREAMING-AWS4-ECDSA-P256-SHA256") {
            return Err(Refusal::Unsupported(
                "A body signed with an asymmetric key (SigV4A)",
            ));
        } else {
            return Err(Refusal::Malformed("it names no digest of the body"));
        };
        if !endpoint.is_s3() {
            return Err(Refusal::Unsupported(
                "A body that is not signed as a whole, to another service than S3,",
            ));
        }
        let chunks = matches!(payload, Payload::Chunks { .. });
        if !chunks && !tls {
            return Err(UNSIGNED_IN_CLEAR);
        }
        if presigned && payload != Payload::Unsigned {
            return Err(Refusal::Unsupported("A presigned URL for a body in chunks"));
        }
        Ok(payload)
    }

    /// Verifies the signature, in constant time. `whole`: the body's digest where [`Payload::Whole`] asks for it.
    pub fn verify(
        self,
        endpoint: &Endpoint,
        head: &Head<'_>,
        payload: Payload,
        whole: Option<Digest>,
        placeholder: &Placeholder,
    ) -> Result<Verified, Refusal> {
        let form = endpoint.path_form();
        let text = payload.text(whole);
        let canonical = canonical::request(head, form, &self.signed, &text);
        let key = SigningKey::derive(&placeholder.secret, &self.scope);
        let to_sign = string_to_sign(&self.time, &self.scope, &canonical);
        if !key.verifies(&to_sign, &self.signature) {
            return Err(Refusal::Mismatch);
        }
        Ok(Verified {
            claim: self,
            form,
            payload: text,
            key,
        })
    }

    /// What has to be signed is: the host, and everything that AWS takes for a part of the request.
    pub(super) fn covers(&self, head: &Head<'_>) -> Result<(), Refusal> {
        let is_signed = |name: &HeaderName| self.signed.contains(name);
        if !is_signed(&HOST) {
            return Err(Refusal::Malformed("the host is not signed"));
        }
        let ours = |name: &&HeaderName| name.as_str().starts_with("x-amz-");
        if !head.headers.keys().filter(ours).all(is_signed) {
            return Err(Refusal::Malformed(
                "a header that begins with x-amz- is not signed",
            ));
        }
        let is_there = |name: &HeaderName| name == HOST || head.headers.contains_key(name);
        if !self.signed.iter().all(is_there) {
            return Err(Refusal::Malformed("a header that is signed is not there"));
        }
        Ok(())
    }
}

/// Whether a request of HTTP/1.1, which alone is spoken in clear text, may have a body (RFC 9112, section 6.3).
fn may_have_body(head: &Head<'_>) -> bool {
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    lengths.any(|length| length != "0") || head.headers.contains_key(TRANSFER_ENCODING)
}

impl Endpoint {
    pub(super) fn path_form(&self) -> PathForm {
        if self.is_s3() {
            PathForm::Keys
        } else {
            PathForm::Encoded
        }
    }
}
