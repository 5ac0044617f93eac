//! Reading a signature from a head.

use http::HeaderName;
use http::header::AUTHORIZATION;

use super::canonical::parameters;
use super::claim::{Claim, Head, Place};
use super::key::Digest;
use super::refusal::Refusal;
use super::scope::Scope;
use super::time::Timestamp;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const ASYMMETRIC: &str = "AWS4-ECDSA-P256-SHA256";
const SIGV4A: &str = "A signature with an asymmetric key (SigV4A)";
const VERSION_2: &str = "A signature of version 2";
const DATE: &str = "x-amz-date";
/// Longest time that a presigned URL may hold, seconds.
const MAX_EXPIRES: u64 = 7 * 24 * 3600;
/// Most headers in the list of those that are signed: as many as a head may have.
const MAX_SIGNED: usize = 100;
/// Longest access key id, bytes (IAM API Reference, `AccessKey`).
const MAX_ID: usize = 128;

impl Claim {
    /// The signature of a request. `None`: it has none, as requests for what is public, and those with another kind of
    /// login.
    pub fn of(head: &Head<'_>) -> Result<Option<Self>, Refusal> {
        let in_header = in_header(head)?;
        let in_query = in_query(head)?;
        let claim = match (in_header, in_query) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err(Refusal::Malformed("there are two")),
            (Some(claim), None) | (None, Some(claim)) => claim,
        };
        claim.covers(head)?;
        Ok(Some(claim))
    }
}

fn in_header(head: &Head<'_>) -> Result<Option<Claim>, Refusal> {
    let mut values = head.headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let more = values.next().is_some();
    let text = value.as_bytes();
    let scheme = text.split(|b| matches!(b, b' ' | b'\t')).next();
    let scheme = scheme.unwrap_or_default();
    if scheme.eq_ignore_ascii_case(ASYMMETRIC.as_bytes()) {
        return Err(Refusal::Unsupported(SIGV4A));
    }
    if scheme.eq_ignore_ascii_case(b"AWS") || scheme.eq_ignore_ascii_case(b"AWS3-HTTPS") {
        return Err(Refusal::Unsupported(VERSION_2));
    }
    if !scheme.eq_ignore_ascii_case(ALGORITHM.as_bytes()) {
        return Ok(None);
    }
    if more {
        return Err(Refusal::Malformed("there are two headers with a login"));
    }
    let text = value
        .to_str()
        .map_err(|_| Refusal::Malformed("it is not text"))?;
    let Some(fields) = text.get(scheme.len()..) else {
        return Err(Refusal::Malformed("it is not text"));
    };
    let [credential, signed, signature] = fields_of(fields)?;
    let (access_key_id, scope) = credential_of(credential)?;
    let mut dates = head.headers.get_all(DATE).iter();
    let date = dates.next().and_then(|date| date.to_str().ok());
    let time = date.and_then(Timestamp::parse);
    let (Some(time), None) = (time, dates.next()) else {
        return Err(Refusal::Malformed("x-amz-date is not one time"));
    };
    Ok(Some(Claim {
        place: Place::Header,
        access_key_id,
        scope,
        time,
        signed: signed_of(signed)?,
        signature: signature_of(signature)?,
        content: None,
    }))
}

/// `Credential`, `SignedHeaders` and `Signature`, each once, in any order.
fn fields_of(text: &str) -> Result<[&str; 3], Refusal> {
    const NAMES: [&str; 3] = ["Credential", "SignedHeaders", "Signature"];
    let bad = Refusal::Malformed("its fields are not Credential, SignedHeaders and Signature");
    let mut found: [Option<&str>; 3] = [None; 3];
    for field in text.split(',') {
        let (name, value) = field.trim().split_once('=').ok_or(bad.clone())?;
        let index = NAMES
            .iter()
            .position(|known| *known == name)
            .ok_or(bad.clone())?;
        if found[index].replace(value).is_some() {
            return Err(bad);
        }
    }
    match found {
        [Some(credential), Some(signed), Some(signature)] => Ok([credential, signed, signature]),
        _ => Err(bad),
    }
}

fn in_query(head: &Head<'_>) -> Result<Option<Claim>, Refusal> {
    let Some(query) = head.query else {
        return Ok(None);
    };
    let mut found: [Option<String>; 7] = Default::default();
    let mut version_2 = 0;
    for (name, value) in parameters(query) {
        if matches!(&name[..], b"AWSAccessKeyId" | b"Signature") {
            version_2 += 1;
        }
        let Some(index) = NAMES.iter().position(|known| known.as_bytes() == name) else {
            continue;
        };
        let value = String::from_utf8(value).map_err(|_| Refusal::Malformed("it is not text"))?;
        if found[index].replace(value).is_some() {
            return Err(Refusal::Malformed("a parameter of it stands there twice"));
        }
    }
    if version_2 >= 2 {
        return Err(Refusal::Unsupported(VERSION_2));
    }
    let [
        algorithm,
        credential,
        date,
        expires,
        signed,
        signature,
        content,
    ] = found;
    if algorithm.as_deref() == Some(ASYMMETRIC) {
        return Err(Refusal::Unsupported(SIGV4A));
    }
    let parts = (algorithm, credential, date, expires, signed, signature);
    let (
        Some(algorithm),
        Some(credential),
        Some(date),
        Some(expires),
        Some(signed),
        Some(signature),
    ) = parts.clone()
    else {
        return match parts {
            (None, None, None, None, None, None) => Ok(None),
            _ => Err(Refusal::Malformed("it lacks one of its parameters")),
        };
    };
    if algorithm != ALGORITHM {
        return Err(Refusal::Malformed("its algorithm is not known"));
    }
    let (access_key_id, scope) = credential_of(&credential)?;
    let time = Timestamp::parse(&date).ok_or(Refusal::Malformed("X-Amz-Date is no time"))?;
    let expires = seconds(&expires).filter(|expires| (1..=MAX_EXPIRES).contains(expires));
    let expires = expires.ok_or(Refusal::Malformed(
        "X-Amz-Expires is not between 1 and 604800",
    ))?;
    Ok(Some(Claim {
        place: Place::Query(expires),
        access_key_id,
        scope,
        time,
        signed: signed_of(&signed)?,
        signature: signature_of(&signature)?,
        content,
    }))
}

/// The parameters of a presigned URL.
const NAMES: [&str; 7] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
    "X-Amz-Content-Sha256",
];

fn seconds(text: &str) -> Option<u64> {
    let digits = (1..=7).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn credential_of(text: &str) -> Result<(String, Scope), Refusal> {
    let bad = Refusal::Malformed("its credential is not an access key id and a scope");
    let (id, scope) = text.split_once('/').ok_or(bad.clone())?;
    let is_id = (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    match Scope::parse(scope) {
        Some(scope) if is_id => Ok((id.to_owned(), scope)),
        _ => Err(bad),
    }
}

fn signed_of(text: &str) -> Result<Vec<HeaderName>, Refusal> {
    let bad = Refusal::Malformed("its list of headers is not names in ascending order");
    let mut names: Vec<HeaderName> = Vec::new();
    for text in text.split(';') {
        let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| bad.clone())?;
        let ascends = names.last().is_none_or(|last| last.as_str() < text);
        if name.as_str() != text || !ascends || names.len() == MAX_SIGNED {
            return Err(bad);
        }
        names.push(name);
    }
    Ok(names)
}

fn signature_of(text: &str) -> Result<Digest, Refusal> {
    let bad = Refusal::Malformed("it is not 64 hexadecimal digits");
    Digest::parse(text.as_bytes()).ok_or(bad)
}
