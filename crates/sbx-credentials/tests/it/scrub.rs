//! Values that come back are replaced in whatever pieces they come, and nothing else is touched.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proptest::prelude::*;
use sbx_credentials::scrub::{Scrub, Stream};

const VALUE: &str = "sk-real/0123+456789";
const PLACEHOLDER: &str = "sk-placeholder";
const OTHER: &str = "sk-real-but-another";

fn scrub() -> Arc<Scrub> {
    Arc::new(Scrub::new([(VALUE, PLACEHOLDER), (OTHER, "p2")]).unwrap())
}

fn in_pieces(text: &[u8], lengths: &[usize], same_length: bool) -> (Vec<u8>, bool) {
    let mut stream = Stream::new(scrub(), same_length);
    let (mut out, mut found) = (Vec::new(), false);
    let mut rest = text;
    for &length in lengths {
        let (piece, after) = rest.split_at(length.min(rest.len()));
        let passed = stream.push(Bytes::copy_from_slice(piece), false);
        out.extend_from_slice(&passed.text);
        found |= passed.found;
        rest = after;
    }
    let passed = stream.push(Bytes::copy_from_slice(rest), true);
    out.extend_from_slice(&passed.text);
    (out, found | passed.found)
}

proptest! {
    #[test]
    fn pieces_come_to_the_same_as_the_whole(
        parts in prop::collection::vec(prop_oneof![
            "[ -~]{0,20}",
            Just(VALUE.to_owned()),
            Just(OTHER.to_owned()),
            Just(VALUE[..9].to_owned()),
        ], 0..8),
        lengths in prop::collection::vec(0_usize..25, 0..12),
    ) {
        let text = parts.concat();
        let plain = text.replace(VALUE, PLACEHOLDER).replace(OTHER, "p2");
        let (out, found) = in_pieces(text.as_bytes(), &lengths, false);
        prop_assert_eq!(String::from_utf8_lossy(&out), plain.clone());
        prop_assert_eq!(found, plain != text);
        let (same, _) = in_pieces(text.as_bytes(), &lengths, true);
        prop_assert_eq!(same.len(), text.len());
        let same = String::from_utf8_lossy(&same).into_owned();
        prop_assert!(!same.contains(VALUE) && !same.contains(OTHER));
    }
}

#[test]
fn a_value_is_found_in_the_forms_that_answers_have() {
    let scrub = scrub();
    for text in [
        format!("{{\"key\":\"{}\"}}", VALUE.replace('/', "\\/")),
        "q=sk-real%2F0123%2B456789".to_owned(),
        "q=sk-real%2f0123%2b456789".to_owned(),
        format!("Basic {}", STANDARD.encode(format!("user:{VALUE}"))),
        format!("Basic {}", STANDARD.encode(format!("user1:{VALUE}"))),
        format!("Basic {}", STANDARD.encode(format!("user12:{VALUE}:x"))),
    ] {
        let clean = scrub.whole(text.as_bytes());
        assert!(clean.is_some(), "{text}");
    }
    assert_eq!(scrub.whole(b"sk-real/0123+45678"), None);
}

#[test]
fn only_what_may_be_a_value_is_held_back() {
    let mut stream = Stream::new(scrub(), false);
    let event = Bytes::from_static(b"data: {\"text\":\"hello\"}\n\n");
    let passed = stream.push(event.clone(), false);
    assert_eq!(passed.text, event);
    let passed = stream.push(Bytes::from_static(b"data: sk-re"), false);
    assert_eq!(&passed.text[..], b"data: ");
    let passed = stream.push(Bytes::from_static(b"ading\n\n"), false);
    assert_eq!(&passed.text[..], b"sk-reading\n\n");
}

#[test]
fn a_value_that_is_too_short_to_be_told_from_others_is_not_looked_for() {
    assert!(Scrub::new([("short", "placeholder")]).is_none());
}
