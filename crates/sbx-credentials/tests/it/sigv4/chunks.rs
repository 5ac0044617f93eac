//! Bodies in signed chunks, against AWS's own library, and broken ones.

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SigningSettings};
use aws_sigv4::sign::v4::{self, sign_chunk};
use bytes::Bytes;
use proptest::prelude::*;
use sbx_credentials::sigv4::{ChunkError, Chunks, MAX_CHUNK};

use super::library::{Library, time};
use super::{DATE, ID, REAL_ID, REAL_SECRET, Request, SECRET, Trial};

const BUCKET: &str = "bucket.s3.us-east-1.amazonaws.com";
const STREAMING: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";

/// The chunks behind one another, the last one with no bytes, signed by the library.
fn signed(key: (&str, &str), seed: &str, chunks: &[Vec<u8>]) -> Vec<u8> {
    let identity = Credentials::new(key.0, key.1, None, None, "test").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("s3")
        .time(time())
        .settings(SigningSettings::default())
        .build()
        .unwrap();
    let mut last = seed.to_owned();
    let mut body = Vec::new();
    for chunk in chunks
        .iter()
        .filter(|chunk| !chunk.is_empty())
        .chain([&Vec::new()])
    {
        let bytes = Bytes::from(chunk.clone());
        let next = sign_chunk(&bytes, &last, &params)
            .unwrap()
            .signature()
            .to_owned();
        last = next;
        body.extend_from_slice(format!("{:x};chunk-signature={last}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body
}

/// A request of the guest with a body in chunks, what it has to pass through, and the new head.
fn started() -> (String, Chunks, String) {
    let request = Request::new("PUT", &format!("https://{BUCKET}/key"), &[]);
    let sign = |key| {
        let library = Library {
            key,
            service: "s3",
            presigned: false,
        };
        library.sign(&request, SignableBody::Precomputed(STREAMING.to_owned()))
    };
    let mut guest = sign((ID, SECRET, None));
    let seed = guest.signature().to_owned();
    let chunks = guest
        .sign_anew(&Trial::at(BUCKET, DATE))
        .unwrap()
        .chunks
        .unwrap();
    (seed, chunks, guest.signature().to_owned())
}

proptest! {
    #[test]
    fn chunks_are_signed_anew_as_by_the_library_in_whatever_pieces_they_come(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..5),
        lengths in prop::collection::vec(0_usize..150, 0..20),
    ) {
        let (seed, mut chunks, new_seed) = started();
        let body = signed((ID, SECRET), &seed, &parts);
        let mut rest = &body[..];
        let mut out = Vec::new();
        for length in lengths {
            let (piece, after) = rest.split_at(length.min(rest.len()));
            out.extend_from_slice(&chunks.push(piece).unwrap());
            rest = after;
        }
        out.extend_from_slice(&chunks.push(rest).unwrap());
        chunks.finish().unwrap();
        prop_assert_eq!(out, signed((REAL_ID, REAL_SECRET), &new_seed, &parts));
    }

    #[test]
    fn a_changed_byte_is_an_error_and_nothing_of_its_chunk_goes_on(at in 0_usize..600, to in any::<u8>()) {
        let (seed, mut chunks, _) = started();
        let mut body = signed((ID, SECRET), &seed, &[vec![b'a'; 200], vec![b'b'; 100]]);
        let at = at % body.len();
        prop_assume!(body[at] != to);
        let was = std::mem::replace(&mut body[at], to);
        let mut out = Vec::new();
        let result = body.chunks(10).try_for_each(|piece| {
            out.extend_from_slice(&chunks.push(piece)?);
            Ok::<(), ChunkError>(())
        });
        let result = result.and_then(|()| chunks.finish());
        if result.is_ok() {
            // The size may be written with capitals: it says the same.
            prop_assert!(was.is_ascii_hexdigit() && was.eq_ignore_ascii_case(&to), "{at}");
        } else {
            prop_assert!(out.len() <= at, "{at} {}", out.len());
        }
    }
}

#[test]
fn a_body_that_ends_too_early_or_too_late_is_an_error() {
    let (seed, mut chunks, _) = started();
    let body = signed((ID, SECRET), &seed, &[vec![b'a'; 20]]);
    chunks.push(&body[..body.len() - 1]).unwrap();
    assert_eq!(chunks.finish(), Err(ChunkError::End));
    let (seed, mut chunks, _) = started();
    let mut body = signed((ID, SECRET), &seed, &[vec![b'a'; 20]]);
    body.push(b'0');
    assert_eq!(chunks.push(&body), Err(ChunkError::End));
    let (_, chunks, _) = started();
    assert_eq!(chunks.finish(), Err(ChunkError::End));
}

#[test]
fn chunks_have_a_bound_and_the_largest_passes() {
    let (seed, mut chunks, _) = started();
    let body = signed(
        (ID, SECRET),
        &seed,
        &[vec![b'a'; MAX_CHUNK], vec![b'b'; MAX_CHUNK]],
    );
    assert_eq!(chunks.push(&body).unwrap().len(), body.len());
    chunks.finish().unwrap();
    for (text, error) in [
        (
            format!("{:x};chunk-signature={}\r\n", MAX_CHUNK + 1, "0".repeat(64)),
            ChunkError::TooLarge,
        ),
        (
            format!("ffffffffffffffff;chunk-signature={}\r\n", "0".repeat(64)),
            ChunkError::Form,
        ),
        ("0".repeat(200), ChunkError::Form),
        (format!("10;other={}\r\n", "0".repeat(64)), ChunkError::Form),
        ("10\r\n".to_owned(), ChunkError::Form),
        (
            format!("+1;chunk-signature={}\r\n", "0".repeat(64)),
            ChunkError::Form,
        ),
    ] {
        let (_, mut chunks, _) = started();
        assert_eq!(chunks.push(text.as_bytes()), Err(error), "{text}");
    }
}
