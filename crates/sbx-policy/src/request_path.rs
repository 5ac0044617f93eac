//! The path of a request, normalised once so that what is judged is what is sent.

use std::fmt;

/// Longest path in bytes, without the query.
const MAX_PATH: usize = 16 * 1024;

/// Why a path cannot be judged safely. The request gets 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Not in origin form.
    #[error("the path does not start with `/`")]
    NoSlash,
    /// More than 16 KiB.
    #[error("the path is longer than 16 KiB")]
    TooLong,
    /// A `%` without two hexadecimal digits.
    #[error("the path has a broken percent-encoding")]
    BrokenEncoding,
    /// What comes out of decoding is itself encoded.
    #[error("the path is percent-encoded twice")]
    DoubleEncoding,
    /// `%2e%2e`, `..;x`, `a%2f..` and the like: servers differ on what they mean.
    #[error("the path hides a dot segment")]
    HiddenDotSegment,
    /// NUL or another control character, plain or encoded.
    #[error("the path has a control character")]
    Control,
    /// UTF-8 that spells a character with more bytes than needed.
    #[error("the path has over-long UTF-8")]
    OverLong,
    /// Outside of printable ASCII, or a `#`, or a space.
    #[error("the path has a character that must be percent-encoded")]
    BadCharacter,
}

/// A normalised path. Dot segments are resolved, repeated slashes are one, unreserved characters are
/// decoded, hexadecimal digits are upper case (RFC 3986, section 6.2.2). `%2F` stays in its segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPath {
    wire: Box<str>,
    /// Decoded, except that `%2F` and bytes outside of ASCII stay encoded. A trailing slash is
    /// dropped: rules do not tell `/a/` from `/a`.
    segments: Box<[Box<str>]>,
    /// The segments as other servers may see them, where that differs: none, or two.
    other_readings: Box<[Box<[Box<str>]>]>,
}

impl RequestPath {
    /// Normalises the path of a request target in origin form. A query is ignored.
    pub fn parse(target: &str) -> Result<Self, PathError> {
        let path = target.split('?').next().unwrap_or(target);
        if path.len() > MAX_PATH {
            return Err(PathError::TooLong);
        }
        let rest = path.strip_prefix('/').ok_or(PathError::NoSlash)?;
        let mut kept: Vec<Segment> = Vec::new();
        let mut slash = false;
        for raw in rest.split('/') {
            slash = matches!(raw, "" | "." | "..");
            match raw {
                "" | "." => {}
                ".." => {
                    kept.pop();
                }
                raw => kept.push(Segment::parse(raw)?),
            }
        }
        let mut wire = String::with_capacity(path.len());
        for segment in &kept {
            wire.push('/');
            wire.push_str(&segment.wire);
        }
        if slash || kept.is_empty() {
            wire.push('/');
        }
        let segments: Box<[Box<str>]> = kept.into_iter().map(|s| s.judged.into()).collect();
        Ok(Self {
            wire: wire.into(),
            other_readings: other_readings(&segments),
            segments,
        })
    }

    /// The path to send upstream, without the query.
    pub fn as_str(&self) -> &str {
        &self.wire
    }

    pub(crate) fn segments(&self) -> &[Box<str>] {
        &self.segments
    }

    /// Every reading of the path that a server may have: the segments first, then those where an encoded slash or a
    /// backslash separates, and a segment of parameters alone is none.
    pub(crate) fn readings(&self) -> impl Iterator<Item = &[Box<str>]> {
        let others = self.other_readings.iter().map(|reading| &**reading);
        std::iter::once(self.segments()).chain(others)
    }
}

impl fmt::Display for RequestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.wire)
    }
}

/// Servers cut parameters off before they decode, or after. No piece is a dot segment: [`check_decoded`] refused it.
fn other_readings(segments: &[Box<str>]) -> Box<[Box<[Box<str>]>]> {
    let differs = |s: &str| s.contains("%2F") || s.contains("%5C") || s.starts_with(';');
    if !segments.iter().any(|segment| differs(segment)) {
        return Box::default();
    }
    let whole = separated(segments.iter().map(|segment| &**segment));
    let bare = separated(segments.iter().map(|segment| without_parameters(segment)));
    [whole, bare].into()
}

fn separated<'a>(segments: impl Iterator<Item = &'a str>) -> Box<[Box<str>]> {
    segments
        .flat_map(|segment| segment.split("%2F"))
        .flat_map(|piece| piece.split("%5C"))
        .filter(|piece| !without_parameters(piece).is_empty())
        .map(Into::into)
        .collect()
}

/// The segment up to its first `;`.
pub(crate) fn without_parameters(segment: &str) -> &str {
    segment.split(';').next().unwrap_or(segment)
}

struct Segment {
    wire: String,
    judged: String,
}

impl Segment {
    fn parse(raw: &str) -> Result<Self, PathError> {
        let mut decoded = Vec::with_capacity(raw.len());
        let mut wire = String::with_capacity(raw.len());
        let mut judged = String::with_capacity(raw.len());
        let bytes = raw.as_bytes();
        let mut i = 0;
        while i < bytes.len() {
            let encoded = bytes[i] == b'%';
            let byte = if encoded {
                let pair = bytes.get(i + 1..i + 3).ok_or(PathError::BrokenEncoding)?;
                i += 3;
                hex(pair[0])? << 4 | hex(pair[1])?
            } else {
                i += 1;
                bytes[i - 1]
            };
            if byte < 0x20 || byte == 0x7f {
                return Err(PathError::Control);
            }
            if !encoded && (!byte.is_ascii_graphic() || byte == b'#') {
                return Err(PathError::BadCharacter);
            }
            decoded.push(byte);
            // A backslash is not a URI character, and some servers take it for a slash.
            if (encoded && !is_unreserved(byte)) || byte == b'\\' {
                push_encoded(&mut wire, byte);
            } else {
                wire.push(byte.into());
            }
            if byte.is_ascii() && !matches!(byte, b'/' | b'\\' | b'%') {
                judged.push(byte.into());
            } else {
                push_encoded(&mut judged, byte);
            }
        }
        check_decoded(&decoded)?;
        Ok(Self { wire, judged })
    }
}

/// Refuses what a server may read differently from us.
fn check_decoded(decoded: &[u8]) -> Result<(), PathError> {
    for piece in decoded.split(|b| matches!(b, b'/' | b'\\')) {
        // Servlet containers cut parameters off first: `..;x` is `..` to them.
        let bare = piece.split(|b| *b == b';').next().unwrap_or(piece);
        if matches!(bare, b"." | b"..") {
            return Err(PathError::HiddenDotSegment);
        }
    }
    let escape = |w: &[u8]| w[0] == b'%' && hex(w[1]).is_ok() && hex(w[2]).is_ok();
    if decoded.windows(3).any(escape) {
        return Err(PathError::DoubleEncoding);
    }
    // C0 and C1 always start an over-long form; E0 and F0 do before a small second byte.
    let over_long = |w: &[u8]| match w[0] {
        0xE0 => (0x80..0xA0).contains(&w[1]),
        0xF0 => (0x80..0x90).contains(&w[1]),
        _ => false,
    };
    if decoded.iter().any(|b| matches!(b, 0xC0 | 0xC1)) || decoded.windows(2).any(over_long) {
        return Err(PathError::OverLong);
    }
    Ok(())
}

fn push_encoded(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(DIGITS[usize::from(byte >> 4)].into());
    text.push(DIGITS[usize::from(byte & 15)].into());
}

fn hex(byte: u8) -> Result<u8, PathError> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(PathError::BrokenEncoding),
    }
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}
