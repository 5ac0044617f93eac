//! Placeholders that go astray are found whatever they are written as, and never elsewhere.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use proptest::prelude::*;
use sbx_credentials::stray::{Passed, Strays, Stream};

const ONE: &str = "sk-ant-api03-q7Zp0_placeholder-AA";
const TWO: &str = "gho_16charactersofit";

/// One byte of a placeholder, written in one of the ways.
fn written(byte: u8, way: u8) -> String {
    match way % 5 {
        0 => format!("%{byte:02x}"),
        1 => format!("%{byte:02X}"),
        2 => format!("\\u{byte:04x}"),
        3 => format!("\\x{byte:02X}"),
        _ => char::from(byte).to_string(),
    }
}

fn encoded(placeholder: &str, ways: &[u8]) -> String {
    let ways = ways.iter().copied().chain(std::iter::repeat(4));
    let bytes = placeholder.bytes().zip(ways);
    bytes.map(|(byte, way)| written(byte, way)).collect()
}

/// Pushes a text in pieces of the given lengths; what came out, and what was found.
fn in_pieces(text: &[u8], lengths: &[usize]) -> (Vec<u8>, Option<usize>) {
    let strays = Arc::new(Strays::new(&[ONE, TWO]).unwrap());
    let mut stream = Stream::new(strays);
    let (mut out, mut found) = (Vec::new(), None);
    let mut rest = text;
    let mut take = |piece: &[u8], last| {
        let passed: Passed = stream.push(Bytes::copy_from_slice(piece), last);
        out.extend_from_slice(&passed.text);
        found = found.or(passed.found);
    };
    for &length in lengths {
        let (piece, after) = rest.split_at(length.min(rest.len()));
        take(piece, false);
        rest = after;
    }
    take(rest, true);
    (out, found)
}

proptest! {
    #[test]
    fn a_placeholder_is_found_in_any_mix_of_escapes_and_pieces(
        before in "[ -~]{0,40}",
        after in "[ -~]{0,40}",
        ways in prop::collection::vec(0_u8..9, 0..40),
        lengths in prop::collection::vec(0_usize..30, 0..12),
        second in any::<bool>(),
    ) {
        // What stands before must not take the first byte into an escape of its own.
        let before = before.replace(['\\', '%'], "_");
        let placeholder = if second { TWO } else { ONE };
        let hidden = encoded(placeholder, &ways);
        let text = format!("{before}{hidden}{after}");
        let (out, found) = in_pieces(text.as_bytes(), &lengths);
        prop_assert_eq!(found, Some(usize::from(second)));
        prop_assert_eq!(out.len(), text.len());
        let strays = Strays::new(&[ONE, TWO]).unwrap();
        prop_assert_eq!(strays.find(&out), None);
        prop_assert_eq!(strays.find(text.as_bytes()), Some(usize::from(second)));
        prop_assert!(out.starts_with(before.as_bytes()) && out.ends_with(after.as_bytes()));
    }

    #[test]
    fn a_placeholder_is_found_in_base64_broken_into_lines(
        before in prop::collection::vec(any::<u8>(), 0..50),
        after in prop::collection::vec(any::<u8>(), 0..50),
        width in 8_usize..90,
        url in any::<bool>(),
        lengths in prop::collection::vec(0_usize..30, 0..12),
    ) {
        let whole = [&before[..], ONE.as_bytes(), &after[..]].concat();
        let text = if url { URL_SAFE_NO_PAD.encode(whole) } else { STANDARD.encode(whole) };
        let lines: Vec<&str> = (0..text.len())
            .step_by(width)
            .map(|at| &text[at..text.len().min(at + width)])
            .collect();
        for end in ["\n", "\r\n", "\\n"] {
            let text = lines.join(end);
            let (out, found) = in_pieces(text.as_bytes(), &lengths);
            prop_assert_eq!(found, Some(0), "{}", text);
            prop_assert_eq!(out.len(), text.len());
        }
    }

    #[test]
    fn what_holds_no_placeholder_passes_as_it_is(
        text in prop::collection::vec(any::<u8>(), 0..300),
        lengths in prop::collection::vec(0_usize..60, 0..12),
    ) {
        let (out, found) = in_pieces(&text, &lengths);
        prop_assert_eq!(found, None);
        prop_assert_eq!(out, text);
    }

    #[test]
    fn half_a_placeholder_passes(cut in 1_usize..32, lengths in prop::collection::vec(0_usize..9, 0..9)) {
        let text = format!("{} {}", &ONE[..cut], &ONE[cut..]);
        let (out, found) = in_pieces(text.as_bytes(), &lengths);
        prop_assert_eq!(found, None);
        prop_assert_eq!(out, text.as_bytes());
    }
}

#[test]
fn what_is_held_back_has_a_bound() {
    let strays = Arc::new(Strays::new(&[ONE]).unwrap());
    let mut stream = Stream::new(strays);
    let _ = stream.push(Bytes::copy_from_slice(&ONE.as_bytes()[..20]), false);
    let mut came_out = 0;
    for _ in 0..1000 {
        came_out += stream
            .push(Bytes::from_static(b"\n\n\n\n\n\n\n\n"), false)
            .text
            .len();
    }
    assert!(came_out > 7900, "{came_out}");
}

#[test]
fn without_placeholders_there_is_nothing_to_look_for() {
    assert!(Strays::new(&[]).is_none());
}
