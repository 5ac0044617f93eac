//! Frames in whatever pieces they come, and frames that are none.

use proptest::prelude::*;

use super::*;

/// What is read of bytes that come in pieces of these lengths, pieces of a message put together again, and what is left.
fn in_pieces(from: Side, bytes: &[u8], lengths: &[usize]) -> (Vec<Part>, Result<usize, Violation>) {
    let mut frames = Frames::new(from);
    let mut came = BytesMut::new();
    let mut parts = Vec::new();
    let mut rest = bytes;
    let lengths = lengths.iter().copied().chain([usize::MAX]);
    for length in lengths {
        let (piece, after) = rest.split_at(length.min(rest.len()));
        came.extend_from_slice(piece);
        rest = after;
        loop {
            match frames.next(&mut came) {
                Ok(Some(part)) => add(&mut parts, part),
                Ok(None) => break,
                Err(violation) => return (parts, Err(violation)),
            }
        }
        // Whatever a frame says about its length: this is all that is kept of it.
        assert!(came.len() < 14 + CONTROL, "{}", came.len());
    }
    (parts, Ok(came.len()))
}

/// Puts a piece behind the one before it, if that is not the end of its message.
fn add(parts: &mut Vec<Part>, part: Part) {
    if let (
        Some(Part::Message {
            text: before,
            last: last_before @ false,
            ..
        }),
        Part::Message { text, last, .. },
    ) = (parts.last_mut(), &part)
    {
        *before = [&before[..], &text[..]].concat().into();
        *last_before = *last;
        return;
    }
    parts.push(part);
}

fn written(side: Side, parts: &[Part]) -> BytesMut {
    let mut writer = Writer::new(side);
    let mut out = BytesMut::new();
    for part in parts {
        match part {
            Part::Message { kind, text, last } => writer.message(&mut out, *kind, text, *last),
            Part::Control { control, text } => writer.control(&mut out, *control, text),
        }
        .unwrap();
    }
    out
}

fn part() -> impl Strategy<Value = Vec<Part>> {
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    let lengths = prop_oneof![
        8 => bytes(40).boxed(),
        1 => bytes(300).boxed(),
        1 => Just(vec![7; 70_000]).boxed(),
    ];
    let kind = prop_oneof![Just(Kind::Text), Just(Kind::Binary)];
    let control = prop_oneof![Just(Control::Ping), Just(Control::Pong)];
    prop_oneof![
        // A message in fragments.
        3 => (kind, prop::collection::vec(lengths, 1..4)).prop_map(|(kind, texts)| {
            let count = texts.len();
            let texts = texts.into_iter().enumerate();
            texts.map(|(at, text)| Part::Message { kind, text: text.into(), last: at + 1 == count }).collect()
        }),
        1 => (control, bytes(CONTROL + 1)).prop_map(|(control, text)| {
            vec![Part::Control { control, text: text.into() }]
        }),
    ]
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_read_again_in_whatever_pieces_it_comes(
        side in side(),
        messages in prop::collection::vec(part(), 0..6),
        lengths in prop::collection::vec(0_usize..90, 0..40),
    ) {
        let parts: Vec<Part> = messages.concat();
        let bytes = written(side, &parts);
        let mut whole = Vec::new();
        for part in parts {
            add(&mut whole, part);
        }
        let (read, left) = in_pieces(side, &bytes, &lengths);
        prop_assert_eq!(left, Ok(0));
        prop_assert_eq!(read, whole);
    }

    #[test]
    fn any_bytes_are_read_the_same_in_whatever_pieces_they_come(
        side in side(),
        // Mostly heads that could be ones.
        bytes in prop::collection::vec(
            prop_oneof![any::<u8>(), Just(0x81), Just(0x01), Just(0x80), Just(0x82), Just(0), Just(0x89), Just(4)],
            0..80,
        ),
        lengths in prop::collection::vec(0_usize..9, 0..40),
    ) {
        let one = in_pieces(side, &bytes, &[]);
        prop_assert_eq!(&one, &in_pieces(side, &bytes, &lengths));
        // And what was read can be written and read again.
        if one.1.is_ok() {
            let again = in_pieces(side, &written(side, &one.0), &lengths);
            prop_assert_eq!(again.0, one.0);
        }
    }
}

/// What the first frames are, or why they are none.
fn read(from: Side, bytes: &[u8]) -> Result<Vec<Part>, Violation> {
    let (parts, left) = in_pieces(from, bytes, &[]);
    left.map(|_| parts)
}

#[test]
fn the_examples_of_the_standard_are_read() {
    let text = |text: &'static [u8], last| Part::Message {
        kind: Kind::Text,
        text: Bytes::from_static(text),
        last,
    };
    // RFC 6455, section 5.7.
    let unmasked = read(Side::Server, b"\x81\x05Hello");
    assert_eq!(unmasked, Ok(vec![text(b"Hello", true)]));
    let masked = read(
        Side::Client,
        b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
    );
    assert_eq!(masked, Ok(vec![text(b"Hello", true)]));
    let ping = Part::Control {
        control: Control::Ping,
        text: Bytes::from_static(b"Hello"),
    };
    let fragments = read(Side::Server, b"\x01\x03Hel\x89\x05Hello\x80\x02lo");
    let (before, after) = (text(b"Hel", false), text(b"lo", true));
    assert_eq!(fragments, Ok(vec![before, ping, after]));
    let long = [&b"\x82\x7e\x01\x00"[..], &[0; 256]].concat();
    let longer = [&b"\x82\x7f\0\0\0\0\0\x01\0\0"[..], &vec![0; 65_536]].concat();
    for (bytes, length) in [(long, 256), (longer, 65_536)] {
        let whole = Part::Message {
            kind: Kind::Binary,
            text: vec![0; length].into(),
            last: true,
        };
        assert_eq!(read(Side::Server, &bytes), Ok(vec![whole]));
    }
}

#[test]
fn frames_that_are_none_are_refused_at_their_head() {
    for (head, violation) in [
        (&b"\xc1\x80"[..], Violation::Reserved),
        (b"\xa1\x80", Violation::Reserved),
        (b"\x91\x80", Violation::Reserved),
        (b"\x83\x80", Violation::Opcode),
        (b"\x87\x80", Violation::Opcode),
        (b"\x8b\x80", Violation::Opcode),
        (b"\x8f\x80", Violation::Opcode),
        (b"\x81\x05", Violation::Unmasked),
        (b"\x89\xfe", Violation::Control),
        (b"\x88\xff", Violation::Control),
        (b"\x09\x80", Violation::Control),
        (b"\x81\xfe\x00\x7d", Violation::Length),
        (b"\x81\xff\0\0\0\0\0\0\xff\xff", Violation::Length),
        (b"\x81\xff\x80\0\0\0\0\0\0\0", Violation::Length),
        (b"\x80\x80\0\0\0\0", Violation::Continuation),
        (b"\x01\x80\0\0\0\0\x81\x80\0\0\0\0", Violation::Inside),
        (b"\x88\x81\0\0\0\0", Violation::Close),
    ] {
        assert_eq!(read(Side::Client, head), Err(violation), "{head:x?}");
    }
    assert_eq!(read(Side::Server, b"\x81\x80"), Err(Violation::Masked));
    // A head that is not whole is none yet, and neither is the largest length that there is.
    for head in [
        &b""[..],
        b"\x81",
        b"\x81\xfe\xff",
        b"\x81\xff\x7f\xff\xff",
        b"\x81\x80\0\0\0",
        b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
    ] {
        assert_eq!(read(Side::Client, head), Ok(Vec::new()), "{head:x?}");
    }
}

#[test]
fn a_message_without_an_end_takes_no_memory() {
    let mut frames = Frames::new(Side::Client);
    let mut came = BytesMut::new();
    // The largest frame there is, and fragments with nothing in them.
    came.extend_from_slice(b"\x02\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0");
    for _ in 0..1000 {
        came.extend_from_slice(&[1; 1000]);
        let part = frames.next(&mut came).unwrap();
        assert!(
            matches!(part, Some(Part::Message { ref text, last: false, .. }) if text.len() == 1000)
        );
        assert!(came.is_empty());
    }
    let mut frames = Frames::new(Side::Client);
    came.extend_from_slice(b"\x01\x80\0\0\0\0");
    for _ in 0..1000 {
        came.extend_from_slice(b"\x00\x80\0\0\0\0");
        assert_eq!(frames.next(&mut came), Ok(None));
        assert!(came.is_empty());
    }
    // What would be no frame on its way on is not written as one.
    let mut out = BytesMut::new();
    let mut writer = Writer::new(Side::Server);
    writer.message(&mut out, Kind::Text, b"", false).unwrap();
    assert!(out.is_empty());
    writer.message(&mut out, Kind::Text, b"", true).unwrap();
    assert_eq!(&out[..], b"\x81\x00");
}

#[test]
fn a_reason_is_cut_to_what_fits() {
    let mut out = BytesMut::new();
    let writer = Writer::new(Side::Server);
    writer.close(&mut out, 1008, &"ä".repeat(100)).unwrap();
    let text = [&1008_u16.to_be_bytes()[..], "ä".repeat(61).as_bytes()].concat();
    let close = Part::Control {
        control: Control::Close,
        text: text.into(),
    };
    assert_eq!(read(Side::Server, &out), Ok(vec![close]));
}
