//! How a text looks where it is encoded as part of something longer.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What is the same in the Base64 (RFC 4648, sections 4 and 5) of everything that holds the text, for each of the three
/// places that its first byte can have in a group, in both alphabets. Without what neighbours have a part in; empty for a
/// text shorter than 5 bytes, which leaves too little.
pub fn in_base64(text: &[u8]) -> Vec<String> {
    if text.len() < 5 {
        return Vec::new();
    }
    let mut forms = Vec::with_capacity(6);
    for place in 0..3 {
        // The first group that is the text's alone begins here, the last one ends there.
        let from = (3 - place) % 3;
        let to = from + (text.len() - from) / 3 * 3;
        for form in [
            STANDARD_NO_PAD.encode(&text[from..to]),
            URL_SAFE_NO_PAD.encode(&text[from..to]),
        ] {
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
    }
    forms
}

/// The text with everything percent-encoded that is not unreserved (RFC 3986, section 2.3), as it stands in a path or a
/// query.
pub fn percent_encoded(text: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn base64_of_anything_that_holds_the_text_holds_one_of_its_forms() {
        let text = b"sk-\xff\xfe-0123456789";
        let forms = in_base64(text);
        for before in 0..5 {
            for after in 0..5 {
                let mut whole = vec![b'a'; before];
                whole.extend_from_slice(text);
                whole.extend(vec![b'z'; after]);
                for encoded in [STANDARD.encode(&whole), URL_SAFE_NO_PAD.encode(&whole)] {
                    assert!(
                        forms.iter().any(|form| encoded.contains(form)),
                        "{before} {after} {encoded}"
                    );
                }
            }
        }
        assert!(in_base64(b"abcd").is_empty());
    }

    #[test]
    fn only_unreserved_characters_stay_as_they_are() {
        assert_eq!(percent_encoded(b"aZ09-._~/+ \xc3"), "aZ09-._~%2F%2B%20%C3");
    }
}
