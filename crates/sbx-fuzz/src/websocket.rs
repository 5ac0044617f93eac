//! Frames of a WebSocket, from both sides.

use bytes::BytesMut;
use sbx_gateway::adapter::websocket::{CONTROL, Frames, Part, Side, Violation, Writer};

/// Longest head of a frame, in bytes.
const HEAD: usize = 14;

/// The first byte says whose frames they are and in which pieces they come, the others are what comes. The same is read in
/// whatever pieces, hardly anything is kept, and what was read is read again from what is written of it.
pub(crate) fn run(bytes: &[u8]) {
    let Some((how, sent)) = bytes.split_first() else {
        return;
    };
    let side = if how & 1 == 0 {
        Side::Client
    } else {
        Side::Server
    };
    let size = usize::from(how >> 1).max(1);
    let read_in_pieces = read(side, sent, size);
    assert_eq!(read_in_pieces, read(side, sent, usize::MAX));
    let (parts, _) = read_in_pieces;
    let mut writer = Writer::new(side);
    let mut written = BytesMut::new();
    for part in &parts {
        let done = match part {
            Part::Message { kind, text, last } => writer.message(&mut written, *kind, text, *last),
            Part::Control { control, text } => writer.control(&mut written, *control, text),
        };
        done.expect("randomness");
    }
    assert_eq!(read(side, &written, size), (parts, None));
}

/// What is read of bytes that come in pieces of this size, the pieces of a message between two control frames put together.
fn read(side: Side, bytes: &[u8], size: usize) -> (Vec<Part>, Option<Violation>) {
    let mut frames = Frames::new(side);
    let mut came = BytesMut::new();
    let mut parts = Vec::new();
    for piece in bytes.chunks(size) {
        came.extend_from_slice(piece);
        loop {
            match frames.next(&mut came) {
                Ok(Some(part)) => add(&mut parts, part),
                Ok(None) => break,
                Err(violation) => return (parts, Some(violation)),
            }
        }
        assert!(came.len() < HEAD + CONTROL, "{} bytes are kept", came.len());
    }
    (parts, None)
}

fn add(parts: &mut Vec<Part>, part: Part) {
    if let Part::Message { kind, text, last } = &part {
        assert!(*last || !text.is_empty(), "a piece without a byte");
        if let Some(Part::Message {
            kind: begun,
            text: before,
            last: ended @ false,
        }) = parts.last_mut()
        {
            assert_eq!(begun, kind);
            *before = [&before[..], &text[..]].concat().into();
            *ended = *last;
            return;
        }
    }
    parts.push(part);
}
