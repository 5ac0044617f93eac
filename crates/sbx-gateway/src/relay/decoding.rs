//! Content codings (RFC 9110, section 8.4.1) that are undone to look into a body.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use hyper::header::{CONTENT_ENCODING, HeaderMap};

use crate::limits;

/// A body that is decoded as it comes.
pub(super) enum Decoder {
    /// `gzip` (RFC 1952).
    Gzip(Box<MultiGzDecoder<Bounded>>),
    /// `deflate`: the zlib format (RFC 1950).
    Deflate(Box<ZlibDecoder<Bounded>>),
}

/// A coding that is not undone here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unknown;

/// What came out since it was last taken.
#[derive(Debug, Default)]
pub(super) struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.0.len() + text.len() > limits::DECODED {
            return Err(io::Error::other("it expands beyond measure"));
        }
        self.0.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decoder {
    /// For a body with this head; `None`: it is not encoded.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Unknown> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let Some(coding) = codings.next() else {
            return Ok(None);
        };
        if codings.next().is_some() {
            return Err(Unknown);
        }
        match coding.as_bytes().to_ascii_lowercase().trim_ascii() {
            b"identity" | b"" => Ok(None),
            b"gzip" | b"x-gzip" => {
                let decoder = MultiGzDecoder::new(Bounded::default());
                Ok(Some(Self::Gzip(Box::new(decoder))))
            }
            b"deflate" => {
                let decoder = ZlibDecoder::new(Bounded::default());
                Ok(Some(Self::Deflate(Box::new(decoder))))
            }
            _ => Err(Unknown),
        }
    }

    /// The next piece. `last`: there is no other, so a body that breaks off is an error.
    pub(super) fn push(&mut self, piece: &[u8], last: bool) -> io::Result<Bytes> {
        let out = match self {
            Self::Gzip(decoder) => {
                decoder.write_all(piece)?;
                decoder.flush()?;
                if last {
                    decoder.try_finish()?;
                }
                decoder.get_mut()
            }
            Self::Deflate(decoder) => {
                decoder.write_all(piece)?;
                decoder.flush()?;
                if last {
                    decoder.try_finish()?;
                }
                decoder.get_mut()
            }
        };
        Ok(Bytes::from(std::mem::take(&mut out.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};
    use hyper::header::HeaderValue;

    fn decoder(coding: &'static str) -> Result<Option<Decoder>, Unknown> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        Decoder::of(&headers)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_body_comes_out_as_it_comes_in() {
        let text = b"one two three one two three".repeat(50);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&text).unwrap();
        let two_members = [gzip(&text[..100]), gzip(&text[100..])].concat();
        for (coding, encoded) in [
            ("gzip", gzip(&text)),
            ("X-GZIP", two_members),
            ("deflate", zlib.finish().unwrap()),
        ] {
            let mut decoder = decoder(coding).unwrap().unwrap();
            let mut out = Vec::new();
            for piece in encoded.chunks(7) {
                out.extend(decoder.push(piece, false).unwrap());
            }
            out.extend(decoder.push(b"", true).unwrap());
            assert_eq!(out, text, "{coding}");
        }
    }

    #[test]
    fn what_breaks_off_is_broken_or_grows_without_end_is_an_error() {
        let encoded = gzip(&b"text".repeat(100));
        let mut short = decoder("gzip").unwrap().unwrap();
        short.push(&encoded[..encoded.len() - 9], false).unwrap();
        assert!(short.push(b"", true).is_err());
        let bomb = gzip(&vec![0; limits::DECODED + 1]);
        assert!(bomb.len() < limits::DECODED / 500);
        for bad in [&bomb[..], b"not gzip at all"] {
            assert!(decoder("gzip").unwrap().unwrap().push(bad, true).is_err());
        }
    }

    #[test]
    fn a_coding_that_is_not_known_is_said_to_be() {
        assert!(matches!(decoder("identity"), Ok(None)));
        for coding in ["br", "zstd", "gzip, gzip", "nonsense"] {
            assert!(matches!(decoder(coding), Err(Unknown)), "{coding}");
        }
        assert!(matches!(Decoder::of(&HeaderMap::new()), Ok(None)));
    }
}
