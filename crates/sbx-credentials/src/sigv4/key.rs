//! Keys, and what is computed with them.

use std::fmt;

use aws_lc_rs::{digest, hmac};
use http::HeaderValue;
use zeroize::Zeroizing;

use super::scope::Scope;
use super::time::Timestamp;

/// SHA-256 of nothing, in hexadecimal.
pub(super) const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The key that the guest holds. Worth nothing at the service.
pub struct Placeholder {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret: Zeroizing<String>,
}

impl fmt::Debug for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Placeholder");
        debug.field("access_key_id", &self.access_key_id);
        debug.finish_non_exhaustive()
    }
}

/// The real key. `Debug` shows nothing of it.
pub struct Keys {
    pub(super) access_key_id: String,
    pub(super) secret: Zeroizing<String>,
    pub(super) session_token: Option<HeaderValue>,
}

/// Why a text is no key. A sentence without its subject, and with nothing of the text in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoKey {
    /// It has other parts.
    #[error(
        "is not ACCESS_KEY_ID:SECRET_ACCESS_KEY, with :SESSION_TOKEN behind it where there is one"
    )]
    Parts,
    /// The first part.
    #[error("does not begin with an access key id, which is 16 to 128 letters and digits")]
    Id,
    /// A part that is empty, too short or has something in it that cannot stand in a request.
    #[error("has a secret access key or a session token that cannot be one")]
    Secret,
    /// The id says that the key has an end.
    #[error(
        "has an access key id of a temporary key (ASIA) and no session token behind the secret key"
    )]
    NoToken,
}

/// Shortest and longest access key id, bytes (IAM API Reference, `AccessKey`).
const ID_LENGTH: std::ops::RangeInclusive<usize> = 16..=128;
/// Shortest secret key, bytes: a shorter one would be found in answers by accident. They have 40.
const SHORTEST_SECRET: usize = 16;
/// What ids of temporary keys begin with (IAM User Guide, "IAM identifiers").
const TEMPORARY: &str = "ASIA";

impl Keys {
    /// From a text as it is stored: access key id, secret access key and, for keys that have an end, session token, with
    /// `:` between.
    pub fn parse(text: &str) -> Result<Self, NoKey> {
        let mut parts = text.splitn(3, ':');
        let (Some(id), Some(secret), token) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoKey::Parts);
        };
        if !ID_LENGTH.contains(&id.len()) || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(NoKey::Id);
        }
        let fits = secret.len() >= SHORTEST_SECRET && secret.bytes().all(|b| b.is_ascii_graphic());
        if !fits {
            return Err(NoKey::Secret);
        }
        if token.is_none() && id.starts_with(TEMPORARY) {
            return Err(NoKey::NoToken);
        }
        Self::new(id, secret.to_owned().into(), token).ok_or(NoKey::Secret)
    }

    /// Access key id, as answers may show it.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// Secret access key.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Session token.
    pub fn session_token(&self) -> Option<&str> {
        self.session_token.as_ref()?.to_str().ok()
    }

    /// `session_token`: for keys that have an end. `None`: one of them cannot stand in a request.
    pub fn new(
        access_key_id: &str,
        secret: Zeroizing<String>,
        session_token: Option<&str>,
    ) -> Option<Self> {
        let is_id =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_id(access_key_id) || secret.is_empty() {
            return None;
        }
        let session_token = match session_token {
            Some(token) if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) => {
                return None;
            }
            Some(token) => {
                let mut value = HeaderValue::from_str(token).ok()?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Some(Self {
            access_key_id: access_key_id.to_owned(),
            secret,
            session_token,
        })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

/// A SHA-256 digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Hexadecimal digits of one.
    pub(super) const DIGITS: usize = 64;

    /// Of a whole text.
    pub fn of(text: &[u8]) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(text);
        hasher.finish()
    }

    /// Of 64 hexadecimal digits, lower case as AWS writes them.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 2 * bytes.len() {
            return None;
        }
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A digest of a text that comes in pieces.
#[derive(Clone)]
pub struct Hasher(digest::Context);

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl Hasher {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// Of everything that came.
    pub fn finish(self) -> Digest {
        let digest = self.0.finish();
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Digest(bytes)
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// A key for one day, region and service ("signing key").
pub(super) struct SigningKey(hmac::Key);

impl SigningKey {
    /// Derived from the secret key: HMACs over day, region, service and a constant, each the key of the next.
    pub(super) fn derive(secret: &str, scope: &Scope) -> Self {
        let start = Zeroizing::new(format!("AWS4{secret}"));
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, start.as_bytes());
        for part in [
            scope.date(),
            scope.region(),
            scope.service(),
            "aws4_request",
        ] {
            let tag = hmac::sign(&key, part.as_bytes());
            key = hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref());
        }
        Self(key)
    }

    pub(super) fn sign(&self, text: &str) -> Digest {
        let tag = hmac::sign(&self.0, text.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(tag.as_ref());
        Digest(bytes)
    }

    /// Whether it is this key's signature of the text. Takes as long for every wrong one.
    pub(super) fn verifies(&self, text: &str, signature: &Digest) -> bool {
        hmac::verify(&self.0, text.as_bytes(), signature.bytes()).is_ok()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

/// What is signed for a request ("string to sign").
pub(super) fn string_to_sign(time: &Timestamp, scope: &Scope, canonical: &[u8]) -> String {
    let digest = Digest::of(canonical);
    format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_as_they_are_written() {
        let nothing = Digest::of(b"");
        assert_eq!(nothing.to_string(), NOTHING);
        assert_eq!(Digest::parse(NOTHING.as_bytes()), Some(nothing));
        assert_eq!(Digest::parse(NOTHING.to_uppercase().as_bytes()), None);
        assert_eq!(Digest::parse(&NOTHING.as_bytes()[1..]), None);
    }

    #[test]
    fn keys_that_cannot_stand_in_a_request_are_none() {
        let keys =
            |id: &str, secret: &str, token| Keys::new(id, Zeroizing::new(secret.into()), token);
        assert!(keys("AKID", "secret", None).is_some());
        assert!(keys("AKID", "secret", Some("token/+=")).is_some());
        for (id, secret, token) in [
            ("", "secret", None),
            ("AKID/x", "secret", None),
            ("AKID", "", None),
            ("AKID", "secret", Some("")),
            ("AKID", "secret", Some("a b")),
            ("AKID", "secret", Some("a\r\nb")),
        ] {
            assert!(keys(id, secret, token).is_none(), "{id} {token:?}");
        }
    }

    #[test]
    fn keys_are_read_as_they_are_stored() {
        let (id, secret) = (
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        );
        let keys = Keys::parse(&format!("{id}:{secret}")).unwrap();
        assert_eq!((keys.access_key_id(), keys.secret()), (id, secret));
        assert_eq!(keys.session_token(), None);
        let keys = Keys::parse(&format!("ASIA{}:{secret}:to/ken:+==", &id[4..])).unwrap();
        assert_eq!(keys.session_token(), Some("to/ken:+=="));
        for (text, why) in [
            (String::new(), NoKey::Parts),
            (id.to_owned(), NoKey::Parts),
            (format!("{secret}:{id}"), NoKey::Id),
            (format!("AKIA:{secret}"), NoKey::Id),
            (format!("{id}:"), NoKey::Secret),
            (format!("{id}:short"), NoKey::Secret),
            (format!("{id}: {secret}"), NoKey::Secret),
            (format!("{id}:{secret}:"), NoKey::Secret),
            (format!("{id}:{secret}:to ken"), NoKey::Secret),
            (format!("ASIA{}:{secret}", &id[4..]), NoKey::NoToken),
        ] {
            assert_eq!(Keys::parse(&text).err(), Some(why), "{text}");
        }
    }

    #[test]
    fn keys_show_nothing_of_themselves() {
        let secret = || Zeroizing::new("wJalr-secret".to_owned());
        let keys = Keys::new("AKIDEXAMPLE", secret(), Some("wJalr-token")).unwrap();
        let placeholder = Placeholder {
            access_key_id: "AKIDEXAMPLE".into(),
            secret: secret(),
        };
        let text = format!("{keys:?} {placeholder:?}");
        assert!(!text.contains("wJalr"), "{text}");
    }
}
