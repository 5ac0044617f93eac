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

/// Headers that hold a key and nothing else, lower case.
pub const KEY_HEADERS: [&str; 3] = ["x-api-key", "x-goog-api-key", "api-key"];
/// Schemes of `Authorization` behind which a token stands, lower case (RFC 6750; the other is GitHub's).
const TOKEN_SCHEMES: [&[u8]; 2] = [b"bearer", b"token"];

/// A header value with the value for the placeholder where that is a whole login: behind the scheme of a token in
/// `Authorization`, as the user or the password of a `Basic` login there (git's clients use either), as all of a header for
/// keys. `None`: it is none. Anywhere else a service may keep what it is sent, compare it, or show it. `name`: the header's,
/// lower case.
pub fn in_login(name: &str, text: &[u8], placeholder: &str, value: &str) -> Option<Vec<u8>> {
    let whole = |text: &[u8]| text == placeholder.as_bytes();
    if KEY_HEADERS.contains(&name) {
        return whole(text.trim_ascii()).then(|| value.into());
    }
    if name != "authorization" {
        return None;
    }
    let space = text.iter().position(|byte| *byte == b' ')?;
    let (scheme, login) = (&text[..space], text[space..].trim_ascii());
    if TOKEN_SCHEMES.contains(&scheme.to_ascii_lowercase().as_slice()) {
        return whole(login).then(|| [scheme, b" ", value.as_bytes()].concat());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let login = LENIENT.decode(login).ok()?;
    let colon = login.iter().position(|byte| *byte == b':')?;
    let parts = [&login[..colon], &login[colon + 1..]];
    parts.iter().any(|part| whole(part)).then(|| {
        let [user, password] = parts.map(|part| if whole(part) { value.as_bytes() } else { part });
        let login = STANDARD.encode([user, b":", password].concat());
        [b"Basic ", login.as_bytes()].concat()
    })
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
    fn a_login_gets_the_value_where_the_placeholder_is_all_of_it() {
        let basic = |login: String| format!("Basic {}", STANDARD.encode(login));
        let written = |name: &str, text: &str| {
            let written = in_login(name, text.as_bytes(), PLACEHOLDER, "real")?;
            Some(String::from_utf8(written).unwrap())
        };
        for (name, text, wanted) in [
            (
                "authorization",
                format!("Bearer {PLACEHOLDER}"),
                "Bearer real".to_owned(),
            ),
            (
                "authorization",
                format!("bearer  {PLACEHOLDER} "),
                "bearer real".to_owned(),
            ),
            (
                "authorization",
                format!("token {PLACEHOLDER}"),
                "token real".to_owned(),
            ),
            (
                "authorization",
                basic(format!("x:{PLACEHOLDER}")),
                basic("x:real".to_owned()),
            ),
            (
                "authorization",
                basic(format!("{PLACEHOLDER}:")),
                basic("real:".to_owned()),
            ),
            ("x-api-key", PLACEHOLDER.to_owned(), "real".to_owned()),
            ("x-goog-api-key", PLACEHOLDER.to_owned(), "real".to_owned()),
            ("api-key", PLACEHOLDER.to_owned(), "real".to_owned()),
        ] {
            assert_eq!(written(name, &text), Some(wanted), "{name}: {text}");
        }
        for (name, text) in [
            ("authorization", PLACEHOLDER.to_owned()),
            ("authorization", format!("Bearer x{PLACEHOLDER}")),
            ("authorization", format!("Bearer {PLACEHOLDER}, Bearer own")),
            ("authorization", format!("Digest {PLACEHOLDER}")),
            ("authorization", basic(format!("x:y{PLACEHOLDER}"))),
            ("authorization", basic(format!("x:{PLACEHOLDER}:y"))),
            ("authorization", basic(PLACEHOLDER.to_owned())),
            ("x-api-key", format!("Bearer {PLACEHOLDER}")),
            ("x-other", PLACEHOLDER.to_owned()),
            ("sec-websocket-key", PLACEHOLDER.to_owned()),
            ("cookie", format!("key={PLACEHOLDER}")),
        ] {
            assert_eq!(written(name, &text), None, "{name}: {text}");
        }
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
