//! Compressed bodies, on their way to where they are looked into.

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};
use sbx_gateway::relay::decoding::Decoder;

const CODINGS: [&str; 4] = ["gzip", "deflate", "br", "zstd"];

/// The first byte says how the others are compressed and in which pieces they come. The same comes out in whatever pieces,
/// as far as something does; and what went on of the body is what came, all of it once the body was whole.
pub(crate) fn run(bytes: &[u8]) {
    let Some((how, body)) = bytes.split_first() else {
        return;
    };
    let coding = CODINGS[usize::from(how & 3)];
    let size = usize::from(how >> 2).max(1);
    let (in_pieces, whole) = (
        decoded(coding, body, size),
        decoded(coding, body, usize::MAX),
    );
    // What comes to too much is noticed sooner in larger pieces.
    if let (Some(in_pieces), Some(whole)) = (in_pieces, whole) {
        assert!(in_pieces == whole, "another text in pieces of {size}");
    }
}

/// What a body that comes in pieces of this size comes to. `None`: it is broken.
fn decoded(coding: &'static str, body: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    let decoder = Decoder::of(&headers).expect("a coding that is known");
    let mut decoder = decoder.expect("a coding");
    let (mut plain, mut gone) = (Vec::new(), 0);
    let pieces = body.chunks(size).map(|piece| (piece, false));
    for (piece, last) in pieces.chain([(&b""[..], true)]) {
        plain.extend(decoder.push(piece, last).ok()?);
        let went = decoder.behind(Bytes::copy_from_slice(piece)).ok()?;
        assert_eq!(body.get(gone..gone + went.len()), Some(&went[..]));
        gone += went.len();
    }
    assert_eq!(gone, body.len(), "some of the body stays behind");
    Some(plain)
}
