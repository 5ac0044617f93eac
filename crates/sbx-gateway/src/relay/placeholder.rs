//! Placeholders on their way to hosts that their credential is not bound to.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hyper::header::HeaderValue;
use hyper::http::request::Parts;

use crate::decision::Grant;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The service of a placeholder that stands in the head of a request, in a header or the URL, although
/// the request goes to a host that its credential is not bound to.
pub fn stray<'a>(grant: &'a Grant, parts: &Parts) -> Option<&'a str> {
    let bound = |placeholder: &str| {
        grant
            .credentials
            .iter()
            .any(|credential| credential.placeholder == placeholder)
    };
    let all = &grant.generation.all_credentials;
    let mut others = all.iter().filter(|c| !bound(&c.placeholder)).peekable();
    others.peek()?;
    let uri = parts.uri.to_string();
    let found = others.find(|credential| {
        let placeholder = credential.placeholder.as_bytes();
        let carries = |value: &HeaderValue| is_in(value.as_bytes(), placeholder);
        is_in(uri.as_bytes(), placeholder) || parts.headers.values().any(carries)
    });
    found.map(|credential| credential.service.as_str())
}

/// Whether the text holds the placeholder, as it is, percent-encoded, or in a Base64 word of its own
/// (as `Authorization: Basic` has).
pub fn is_in(text: &[u8], placeholder: &[u8]) -> bool {
    if contains(text, placeholder) {
        return true;
    }
    if text.contains(&b'%') && contains(&percent_decoded(text), placeholder) {
        return true;
    }
    // A placeholder of n bytes needs more than n characters of Base64.
    let words = text.split(|b| b.is_ascii_whitespace() || matches!(b, b',' | b';' | b':'));
    words
        .filter(|word| word.len() > placeholder.len())
        .filter_map(|word| LENIENT.decode(word).ok())
        .any(|decoded| contains(&decoded, placeholder))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let hex = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let pair = text.get(at + 1..at + 3).filter(|_| text[at] == b'%');
        match pair.and_then(|pair| Some(hex(pair[0])? << 4 | hex(pair[1])?)) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(text[at]);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_found_plain_percent_encoded_and_in_basic() {
        let placeholder = b"sbx-cs-0123456789";
        assert!(is_in(b"Bearer sbx-cs-0123456789", placeholder));
        assert!(is_in(b"/q?k=sbx%2dcs%2D0123456789", placeholder));
        let basic = format!("Basic {}", LENIENT.encode("user:sbx-cs-0123456789"));
        assert!(is_in(basic.as_bytes(), placeholder));
        assert!(!is_in(b"Bearer sbx-cs-9876543210", placeholder));
        assert!(!is_in(b"100%", placeholder));
    }
}
