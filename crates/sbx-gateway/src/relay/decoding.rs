//! Content codings (RFC 9110, section 8.4.1) that are undone to look into a body.

use std::io::{self, Write};

use brotli_decompressor::{BrotliDecoderParameter, DecompressorWriter};
use bytes::Bytes;
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use hyper::header::{CONTENT_ENCODING, HeaderMap};

use super::zstd::Zstd;
use crate::limits;

/// What Brotli writes at a time.
const PIECE: usize = 16 * 1024;

/// A body that is decoded as it comes.
pub struct Decoder {
    coding: Coding,
    /// Bytes that the last piece came to.
    came: usize,
}

enum Coding {
    /// `gzip` (RFC 1952).
    Gzip(Box<MultiGzDecoder<Bounded>>),
    /// `deflate`: the zlib format (RFC 1950).
    Deflate(Box<ZlibDecoder<Bounded>>),
    /// `br` (RFC 7932).
    Brotli(Box<DecompressorWriter<Bounded>>),
    /// `zstd` (RFC 8878).
    Zstd(Box<Zstd>),
}

/// Bytes of a body that may go in at a time.
pub(super) fn step(decoder: Option<&Decoder>) -> usize {
    decoder.map_or(limits::STEP, |_| limits::STEP_ENCODED)
}

/// A coding that is not undone here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;

/// What came out since it was last taken.
#[derive(Debug, Default)]
pub(super) struct Bounded(Vec<u8>);

impl Bounded {
    /// What came out.
    pub(super) fn taken(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.0))
    }
}

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
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Unknown> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let Some(coding) = codings.next() else {
            return Ok(None);
        };
        if codings.next().is_some() {
            return Err(Unknown);
        }
        let coding = match coding.as_bytes().to_ascii_lowercase().trim_ascii() {
            b"identity" | b"" => return Ok(None),
            b"gzip" | b"x-gzip" => Coding::Gzip(MultiGzDecoder::new(Bounded::default()).into()),
            b"deflate" => Coding::Deflate(ZlibDecoder::new(Bounded::default()).into()),
            b"br" => {
                let mut decoder = DecompressorWriter::new(Bounded::default(), PIECE);
                // The format of RFC 7932 alone: else a window may have 1 GiB, and not 16 MiB.
                let large = BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW;
                decoder.set_parameter(large, 0);
                Coding::Brotli(decoder.into())
            }
            b"zstd" => Coding::Zstd(Zstd::new().into()),
            _ => return Err(Unknown),
        };
        Ok(Some(Self { coding, came: 0 }))
    }

    /// Whether what goes in comes out at once. Else [`Self::behind`] says what of it did.
    pub fn is_prompt(&self) -> bool {
        !matches!(self.coding, Coding::Zstd(_))
    }

    /// Whether it holds megabytes of what came, in which later text may be repeated.
    pub fn is_large(&self) -> bool {
        matches!(self.coding, Coding::Brotli(_) | Coding::Zstd(_))
    }

    /// Bytes that the last piece came to.
    pub fn came(&self) -> usize {
        self.came
    }

    /// What of the body came out that was pushed so far, with this piece, which was the last.
    pub fn behind(&mut self, piece: Bytes) -> io::Result<Bytes> {
        match &mut self.coding {
            Coding::Zstd(zstd) => zstd.release(&piece),
            Coding::Gzip(_) | Coding::Deflate(_) | Coding::Brotli(_) => Ok(piece),
        }
    }

    /// The next piece. `last`: there is no other, so a body that breaks off is an error.
    pub fn push(&mut self, piece: &[u8], last: bool) -> io::Result<Bytes> {
        let out = self.coding.push(piece, last)?;
        self.came = out.len();
        Ok(out)
    }
}

impl Coding {
    fn push(&mut self, piece: &[u8], last: bool) -> io::Result<Bytes> {
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
            Self::Brotli(decoder) => {
                decoder.write_all(piece)?;
                // It gives out one buffer at most each time that it has taken all there is.
                loop {
                    let before = decoder.get_ref().0.len();
                    let _ = decoder.write(b"")?;
                    if decoder.get_ref().0.len() == before {
                        break;
                    }
                }
                if last {
                    decoder.close()?;
                }
                decoder.get_mut()
            }
            Self::Zstd(decoder) => {
                let mut out = Bounded::default();
                decoder.push(piece, last, &mut out)?;
                return Ok(out.taken());
            }
        };
        Ok(out.taken())
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

    fn brotli(text: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::new();
        let mut encoder = brotli::CompressorWriter::new(&mut encoded, 4096, 5, 22);
        encoder.write_all(text).unwrap();
        drop(encoder);
        encoded
    }

    #[test]
    fn brotli_comes_out_at_once_and_has_the_bounds_of_its_own_format() {
        let mut state = 1_u32;
        let digits = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'0' + state.to_be_bytes()[0] % 64
        });
        let text: Vec<u8> = digits.take(300_000).collect();
        let encoded = brotli(&text);
        for length in [1, 333, 40_001, encoded.len()] {
            let mut decoder = decoder("br").unwrap().unwrap();
            let (mut out, mut pushed) = (Vec::new(), 0);
            for piece in encoded.chunks(length) {
                out.extend(decoder.push(piece, false).unwrap());
                pushed += piece.len();
                // Every byte of it stands for about as much, but for what its first ones say.
                let least = text.len() / encoded.len() * pushed.saturating_sub(2000);
                assert!(out.len() >= least, "{} of {pushed}", out.len());
            }
            assert_eq!(out.len(), text.len(), "nothing is held back");
            out.extend(decoder.push(b"", true).unwrap());
            assert_eq!(out, text);
        }
        // A window of 1 GiB, which RFC 7932 does not have.
        let large = [0x11, 30, 0x0b, 2, 0x80, b'a', b'b', b'c', 3];
        for bad in [
            &brotli(&vec![0; limits::DECODED + 1])[..],
            &encoded[..encoded.len() - 1],
            &[encoded.clone(), b"more".to_vec()].concat(),
            b"not brotli at all",
            b"",
            &large,
        ] {
            let mut decoder = decoder("br").unwrap().unwrap();
            assert!(decoder.push(bad, true).is_err(), "{} bytes", bad.len());
        }
    }

    #[test]
    fn what_is_not_prompt_says_what_came_out() {
        use ruzstd::encoding::{CompressionLevel, compress_to_vec};
        let text = b"one two three one two three".repeat(50);
        let encoded = Bytes::from(compress_to_vec(&text[..], CompressionLevel::Fastest));
        let mut zstd = decoder("zstd").unwrap().unwrap();
        assert!(!zstd.is_prompt() && zstd.is_large());
        let first = encoded.slice(..encoded.len() - 1);
        assert_eq!(zstd.push(&first, false).unwrap(), "");
        // The head of the frame.
        let head = zstd.behind(first).unwrap();
        assert!(head.len() < 15, "{head:?}");
        let last = encoded.slice(encoded.len() - 1..);
        assert_eq!(zstd.push(&last, true).unwrap(), text);
        let rest = zstd.behind(last).unwrap();
        assert_eq!([head, rest].concat(), encoded);
    }

    #[test]
    fn a_coding_that_is_not_known_is_said_to_be() {
        assert!(matches!(decoder("identity"), Ok(None)));
        for coding in ["compress", "zstd, gzip", "gzip, gzip", "nonsense"] {
            assert!(matches!(decoder(coding), Err(Unknown)), "{coding}");
        }
        assert!(matches!(Decoder::of(&HeaderMap::new()), Ok(None)));
    }
}
