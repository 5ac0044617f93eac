//! A request in the one form that is signed ("canonical request").

use http::header::HOST;
use http::{HeaderName, HeaderValue};

use super::claim::Head;

/// Name of the parameter that holds the signature of a presigned URL: the only one that is not signed.
pub(super) const SIGNATURE: &[u8] = b"X-Amz-Signature";

/// How a service reads the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PathForm {
    /// S3: keys are encoded once, and nothing in them is taken for a step up or down.
    Keys,
    /// Everybody else: the path as it was sent, without empty and dotted segments, encoded once more.
    Encoded,
}

/// The canonical request. `payload`: the text in the place of the body's digest.
pub(super) fn request(
    head: &Head<'_>,
    form: PathForm,
    signed: &[HeaderName],
    payload: &str,
) -> Vec<u8> {
    let mut text = Vec::with_capacity(1024);
    for line in [
        head.method,
        &path(head.path, form),
        &query(head.query.unwrap_or_default()),
    ] {
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    for name in signed {
        text.extend_from_slice(name.as_str().as_bytes());
        text.push(b':');
        values(head, name, &mut text);
        text.push(b'\n');
    }
    text.push(b'\n');
    text.extend_from_slice(names(signed).as_bytes());
    text.push(b'\n');
    text.extend_from_slice(payload.as_bytes());
    text
}

/// The names as `SignedHeaders` lists them.
pub(super) fn names(signed: &[HeaderName]) -> String {
    let names: Vec<&str> = signed.iter().map(HeaderName::as_str).collect();
    names.join(";")
}

/// The header's values, each trimmed and with one space for a run of them, behind one another.
fn values(head: &Head<'_>, name: &HeaderName, text: &mut Vec<u8>) {
    if name == HOST {
        text.extend_from_slice(head.host.as_bytes());
        return;
    }
    for (index, value) in head.headers.get_all(name).iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        trimmed(value, text);
    }
}

fn trimmed(value: &HeaderValue, text: &mut Vec<u8>) {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let words = value
        .as_bytes()
        .split(is_space)
        .filter(|word| !word.is_empty());
    for (index, word) in words.enumerate() {
        if index > 0 {
            text.push(b' ');
        }
        text.extend_from_slice(word);
    }
}

fn path(path: &str, form: PathForm) -> String {
    if path.is_empty() {
        return "/".to_owned();
    }
    match form {
        PathForm::Keys => {
            let segments: Vec<String> = path.split('/').map(segment).collect();
            segments.join("/")
        }
        PathForm::Encoded => {
            let mut encoded = String::with_capacity(path.len() + 16);
            for part in normalised(path).split_inclusive('/') {
                let (part, slash) = match part.strip_suffix('/') {
                    Some(part) => (part, "/"),
                    None => (part, ""),
                };
                encode(part.as_bytes(), &mut encoded);
                encoded.push_str(slash);
            }
            encoded
        }
    }
}

/// A segment of a key in the encoding that is signed, whichever it was sent in. A slash that was encoded stays so.
fn segment(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    encode(&decoded(text, false), &mut encoded);
    encoded
}

/// Without empty segments and without `.` and `..` (RFC 3986, section 5.2.4).
fn normalised(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
    }
    let last = path.rsplit('/').next().unwrap_or_default();
    let end = if matches!(last, "" | "." | "..") && !kept.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{end}", kept.join("/"))
}

/// Name and value of each parameter, decoded, in the order in which they stand.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> + '_ {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name, true), decoded(value, true))
    })
}

/// The parameters encoded and sorted by name and then by value, without the signature.
fn query(query: &str) -> String {
    let mut encoded: Vec<(String, String)> = parameters(query)
        .filter(|(name, _)| name != SIGNATURE)
        .map(|(name, value)| {
            let mut pair = (String::new(), String::new());
            encode(&name, &mut pair.0);
            encode(&value, &mut pair.1);
            pair
        })
        .collect();
    encoded.sort();
    let pairs: Vec<String> = encoded
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

/// Undoes percent-encoding once. `form`: a plus sign is a space, as in forms. What is no such encoding stays as it is.
pub(super) fn decoded(text: &str, form: bool) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |at: usize| {
        let digit = char::from(*bytes.get(at)?).to_digit(16)?;
        u8::try_from(digit).ok()
    };
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let pair = (byte == b'%').then(|| Some(digit(at + 1)? << 4 | digit(at + 2)?));
        match pair.flatten() {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(if form && byte == b'+' { b' ' } else { byte });
                at += 1;
            }
        }
    }
    plain
}

/// Percent-encodes everything but the unreserved characters (RFC 3986, section 2.3), with digits in upper case.
pub(super) fn encode(bytes: &[u8], text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_s3_are_encoded_once_and_not_normalised() {
        for (sent, signed) in [
            ("", "/"),
            ("/", "/"),
            ("/a//b/../c/.", "/a//b/../c/."),
            ("/a%20b", "/a%20b"),
            ("/a(b)+c=d:e@f,g", "/a%28b%29%2Bc%3Dd%3Ae%40f%2Cg"),
            ("/%7e%e2%82%ac", "/~%E2%82%AC"),
            ("/a%2Fb", "/a%2Fb"),
            ("/50%", "/50%25"),
        ] {
            assert_eq!(path(sent, PathForm::Keys), signed, "{sent}");
        }
    }

    #[test]
    fn other_paths_are_normalised_and_encoded_once_more() {
        for (sent, signed) in [
            ("", "/"),
            ("//a///b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/b/", "/a/b/"),
            ("/../a", "/a"),
            (
                "/model/anthropic.m-v1%3A0/invoke",
                "/model/anthropic.m-v1%253A0/invoke",
            ),
            (
                "/model/anthropic.m-v1:0/invoke",
                "/model/anthropic.m-v1%3A0/invoke",
            ),
        ] {
            assert_eq!(path(sent, PathForm::Encoded), signed, "{sent}");
        }
    }

    #[test]
    fn parameters_are_sorted_by_name_and_then_by_value() {
        for (sent, signed) in [
            ("", ""),
            ("b=2&a=1&a=0", "a=0&a=1&b=2"),
            ("uploads", "uploads="),
            ("&&a&", "a="),
            ("a=b=c", "a=b%3Dc"),
            ("a=x+y&b=x%20y&c=%2b", "a=x%20y&b=x%20y&c=%2B"),
            ("X-Amz-Signature=00&A=1", "A=1"),
            ("a-b=1&a=2", "a=2&a-b=1"),
        ] {
            assert_eq!(query(sent), signed, "{sent}");
        }
    }
}
