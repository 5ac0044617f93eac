//! The value in the place of its placeholder.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::forms::percent_encoded;

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A header value with the value for the placeholder, also inside of a `Basic` login (RFC 7617). `None`: it does not hold
/// the placeholder.
pub fn in_header(text: &[u8], placeholder: &str, value: &str) -> Option<Vec<u8>> {
    if let Some(replaced) = replace(text, placeholder.as_bytes(), value.as_bytes()) {
        return Some(replaced);
    }
    let (scheme, login) = text.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let login = LENIENT.decode(login.trim_ascii()).ok()?;
    let replaced = replace(&login, placeholder.as_bytes(), value.as_bytes())?;
    Some([b"Basic ", STANDARD.encode(replaced).as_bytes()].concat())
}

/// A URL's path and query with the value, percent-encoded, for the placeholder. `None`: it does not hold the placeholder.
pub fn in_url(text: &str, placeholder: &str, value: &str) -> Option<String> {
    let value = percent_encoded(value.as_bytes());
    text.contains(placeholder)
        .then(|| text.replace(placeholder, &value))
}

/// The value as it stands in a body of this media type: inside of a JSON string (RFC 8259, section 7), in a form
/// (percent-encoded), or as it is.
pub fn for_body(media_type: &str, value: &str) -> String {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    if essence == "application/x-www-form-urlencoded" {
        percent_encoded(value.as_bytes())
    } else if essence == "application/json" || essence.ends_with("+json") {
        value.replace('\\', "\\\\").replace('"', "\\\"")
    } else {
        value.to_owned()
    }
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    let finder = memchr::memmem::Finder::new(from);
    let mut places = finder.find_iter(text).peekable();
    places.peek()?;
    let mut replaced = Vec::with_capacity(text.len() + to.len());
    let mut at = 0;
    for place in places {
        replaced.extend_from_slice(&text[at..place]);
        replaced.extend_from_slice(to);
        at = place + from.len();
    }
    replaced.extend_from_slice(&text[at..]);
    Some(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACEHOLDER: &str = "sbx-cs-0123456789";

    #[test]
    fn a_header_gets_the_value_where_the_placeholder_stands() {
        let bearer = in_header(b"Bearer sbx-cs-0123456789", PLACEHOLDER, "real");
        assert_eq!(bearer.as_deref(), Some(&b"Bearer real"[..]));
        let login = STANDARD.encode("user:sbx-cs-0123456789");
        let basic = in_header(format!("basic {login}").as_bytes(), PLACEHOLDER, "r:l");
        let wanted = format!("Basic {}", STANDARD.encode("user:r:l"));
        assert_eq!(basic.as_deref(), Some(wanted.as_bytes()));
        assert_eq!(in_header(b"Bearer other", PLACEHOLDER, "real"), None);
        assert_eq!(in_header(b"Basic \xff\xff", PLACEHOLDER, "real"), None);
        assert_eq!(in_header(b"", PLACEHOLDER, "real"), None);
    }

    #[test]
    fn a_body_gets_the_value_as_its_media_type_wants() {
        let value = r#"a"b\c/d"#;
        for (media_type, wanted) in [
            ("application/json", r#"a\"b\\c/d"#),
            ("Application/vnd.api+json; charset=utf-8", r#"a\"b\\c/d"#),
            ("application/x-www-form-urlencoded", "a%22b%5Cc%2Fd"),
            ("text/plain", value),
            ("", value),
        ] {
            assert_eq!(for_body(media_type, value), wanted, "{media_type}");
        }
    }

    #[test]
    fn a_url_gets_the_value_encoded() {
        let url = in_url("/v1?key=sbx-cs-0123456789&a=b", PLACEHOLDER, "a&b=c/d");
        assert_eq!(url.as_deref(), Some("/v1?key=a%26b%3Dc%2Fd&a=b"));
        assert_eq!(in_url("/v1", PLACEHOLDER, "x"), None);
    }
}
