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
fn a_value_is_found_as_encoders_of_json_and_html_write_it_and_so_it_is_in_pieces() {
    const ODD: &str = "va\"lue\\/+x=<&'>";
    let scrub = Arc::new(Scrub::new([(ODD, PLACEHOLDER)]).unwrap());
    for form in [
        r#"va\"lue\\/+x=<&'>"#,
        r#"va\"lue\\\/+x=<&'>"#,
        r#"va\"lue\\/+x=\u003c\u0026'\u003e"#,
        r#"va\"lue\\/+x=\u003C\u0026\u0027\u003E"#,
        r#"va\"lue\\/+x\u003d\u003c\u0026\u0027\u003e"#,
        r"va\u0022lue\\/\u002Bx=\u003C\u0026\u0027\u003E",
        r"va\u0022lue\\\u002f\u002bx\u003d\u003c\u0026\u0027\u003e",
        r#"va\\\"lue\\\\/+x=<&'>"#,
        r#"va"lue\/+x=&lt;&amp;'&gt;"#,
        r"va&quot;lue\/+x=&lt;&amp;'&gt;",
        r"va&quot;lue\/+x=&lt;&amp;&#x27;&gt;",
        r"va&#34;lue\/+x=&lt;&amp;&#39;&gt;",
        r"va&#34;lue\/&#43;x=&lt;&amp;&#39;&gt;",
        r"va&quot;lue\&#x2F;+x=&lt;&amp;&#x27;&gt;",
        "va%22lue%5C%2F%2Bx%3D%3C%26'%3E",
    ] {
        let text = format!("before {form} after");
        let clean = scrub.whole(text.as_bytes()).map(String::from_utf8);
        let wanted = format!("before {PLACEHOLDER} after");
        assert_eq!(clean.unwrap().unwrap(), wanted, "{form}");
        for length in [1, 3, 11] {
            let mut stream = Stream::new(scrub.clone(), false);
            let mut out = Vec::new();
            for piece in text.as_bytes().chunks(length) {
                out.extend_from_slice(&stream.push(Bytes::copy_from_slice(piece), false).text);
            }
            out.extend_from_slice(&stream.push(Bytes::new(), true).text);
            assert_eq!(String::from_utf8(out).unwrap(), wanted, "{form} {length}");
        }
    }
}

#[test]
fn what_is_looked_for_can_change_within_a_text_also_where_some_of_it_is_held_back() {
    let mut stream = Stream::new(scrub(), false);
    let passed = stream.push(Bytes::from_static(b"a sk-re"), false);
    assert_eq!(&passed.text[..], b"a ");
    stream.look_for(Arc::new(Scrub::new([("sk-rest-of-it", "p3")]).unwrap()));
    let passed = stream.push(Bytes::from_static(b"st-of-it b"), false);
    assert_eq!((&passed.text[..], passed.found), (&b"p3 b"[..], true));
    stream.look_for(Arc::new(Scrub::of_nothing()));
    let passed = stream.push(Bytes::from_static(b"sk-rest-of-it"), true);
    assert_eq!(
        (&passed.text[..], passed.found),
        (&b"sk-rest-of-it"[..], false)
    );
}

#[test]
fn values_that_hold_each_other_are_found_in_pieces_as_in_the_whole() {
    let pairs = [
        ("Winter2024!", "p1"),
        ("Winter2024!!x", "p2"),
        ("inter2024", "p3"),
        ("2024!!x-and-more", "p4"),
    ];
    let scrub = Arc::new(Scrub::new(pairs).unwrap());
    for text in [
        "a Winter2024!!x b",
        "a Winter2024! b",
        "a Winter2024!!y b",
        "a Winter2024!!x-and-more b",
        "a inter2024!!x-and-more b",
        "a Winter20Winter2024!!xWinter2024!",
    ] {
        let whole = scrub.whole(text.as_bytes()).unwrap();
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let mut stream = Stream::new(scrub.clone(), false);
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                let mut out = Vec::new();
                for (number, piece) in pieces.into_iter().enumerate() {
                    let piece = Bytes::copy_from_slice(piece.as_bytes());
                    out.extend_from_slice(&stream.push(piece, number == 2).text);
                }
                assert_eq!(out, whole, "{pieces:?}");
            }
        }
    }
}

#[test]
fn many_long_values_are_found_as_few_are() {
    let values: Vec<String> = (0..64)
        .map(|number| format!("value-{number}-{}", "v".repeat(250)))
        .collect();
    let scrub = Scrub::new(values.iter().map(|value| (value.as_str(), "p"))).unwrap();
    for value in &values {
        assert_eq!(scrub.whole(value.as_bytes()).unwrap(), b"p");
    }
    assert_eq!(scrub.whole(&values[0].as_bytes()[1..]), None);
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
