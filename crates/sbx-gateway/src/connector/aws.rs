//! Requests to AWS: what the guest has signed with its placeholder is verified, and signed anew with the real key.

use hyper::header::{CONTENT_ENCODING, HOST, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use sbx_credentials::sigv4::{
    Claim, Digest, Endpoint, Head, Payload, Placeholder, Refusal, Verified, acts_in_body, issuing,
};

use crate::credentials::AwsForm;
use crate::decision::Grant;

/// A request that has been looked at as far as its head goes.
pub struct Examined {
    endpoint: Option<Endpoint>,
    claim: Option<Claim>,
    payload: Payload,
    /// The body has to be here whole before anything can be said.
    pub whole: bool,
}

/// Looks at the head. `now`: seconds since the Unix epoch.
pub fn examine(
    grant: &Grant,
    parts: &Parts,
    form: &AwsForm,
    tls: bool,
    now: u64,
) -> Result<Examined, Refusal> {
    let head = head(parts);
    // What is signed with a key that was handed in is the service's to verify.
    let claim = Claim::of(&head)?.filter(|claim| !form.hands_in(claim.access_key_id()));
    let endpoint = match form.endpoint(&grant.target) {
        Ok(endpoint) => endpoint,
        // Nothing is signed for it, and nothing was meant to be.
        Err(_) if claim.is_none() => return Ok(Examined::unsigned(None, false)),
        Err(unknown) => return Err(unknown),
    };
    if let Some(call) = issuing(&endpoint, &head, b"") {
        return Err(Refusal::Issuing(call));
    }
    let in_body = acts_in_body(&endpoint, &head);
    if in_body && parts.headers.contains_key(CONTENT_ENCODING) {
        return Err(Refusal::Unsupported("A form that is compressed"));
    }
    let Some(claim) = claim else {
        return Ok(Examined::unsigned(Some(endpoint), in_body));
    };
    if grant.bound.writes_bodies() {
        let what = "A body in which another secret may have to be written";
        return Err(Refusal::Unsupported(what));
    }
    claim.check(&endpoint, &form.placeholder, now)?;
    let payload = claim.payload(&endpoint, &head, tls)?;
    let in_chunks = matches!(payload, Payload::Chunks { .. } | Payload::UnsignedChunks);
    if in_body && in_chunks {
        return Err(Refusal::Unsupported("A form in chunks"));
    }
    Ok(Examined {
        whole: payload == Payload::Whole || !endpoint.is_s3() || in_body,
        endpoint: Some(endpoint),
        claim: Some(claim),
        payload,
    })
}

impl Examined {
    fn unsigned(endpoint: Option<Endpoint>, whole: bool) -> Self {
        Self {
            endpoint,
            claim: None,
            payload: Payload::Unsigned,
            whole,
        }
    }

    /// The digest that a body has to have which is not here.
    pub fn digest(&self) -> Option<Digest> {
        match self.payload {
            Payload::Digest(digest) if !self.whole => Some(digest),
            _ => None,
        }
    }

    /// Whether the body comes in signed chunks.
    pub fn is_in_chunks(&self) -> bool {
        matches!(self.payload, Payload::Chunks { .. })
    }

    /// Verifies the signature. `body`: where [`Self::whole`] asks for it. `None`: there is no signature, and the request
    /// may go on as it is.
    pub fn verify(
        self,
        parts: &Parts,
        placeholder: &Placeholder,
        body: Option<&[u8]>,
    ) -> Result<Option<Verified>, Refusal> {
        let Some(endpoint) = self.endpoint else {
            return Ok(None);
        };
        let head = head(parts);
        if let Some(body) = body
            && let Some(call) = issuing(&endpoint, &head, body)
        {
            return Err(Refusal::Issuing(call));
        }
        let Some(claim) = self.claim else {
            return Ok(None);
        };
        let digest = body.map(Digest::of);
        if let (Payload::Digest(named), Some(digest)) = (self.payload, digest)
            && named != digest
        {
            return Err(Refusal::OtherBody);
        }
        let verified = claim.verify(&endpoint, &head, self.payload, digest, placeholder)?;
        Ok(Some(verified))
    }
}

fn head(parts: &Parts) -> Head<'_> {
    let named = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let authority = parts.uri.authority().map(Authority::as_str);
    Head {
        method: parts.method.as_str(),
        path: parts.uri.path(),
        query: parts.uri.query(),
        host: named.or(authority).unwrap_or_default(),
        headers: &parts.headers,
    }
}

/// How a service says that it refuses something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// S3: an element `Error`.
    Plain,
    /// Query protocol: the same inside of `ErrorResponse`.
    Query,
    /// EC2: the same inside of `Response` and `Errors`.
    Ec2,
    /// An object of JSON.
    Json,
}

impl Complaint {
    /// As the service of the host would answer this request.
    pub fn of(grant: &Grant, form: &AwsForm, parts: &Parts) -> Self {
        let endpoint = form.endpoint(&grant.target).ok();
        let service = endpoint.as_ref().map(Endpoint::service);
        let is_form = |value: &HeaderValue| value.as_bytes().starts_with(b"application/x-www-form");
        let form = |headers: &HeaderMap| headers.get("content-type").is_some_and(is_form);
        let query = parts.uri.query().unwrap_or_default();
        match service {
            Some("ec2") => Self::Ec2,
            Some("cloudfront" | "iam" | "route53" | "sts") => Self::Query,
            _ if endpoint.as_ref().is_some_and(Endpoint::is_s3) => Self::Plain,
            _ if form(&parts.headers) || query.contains("Action=") => Self::Query,
            _ => Self::Json,
        }
    }
}
