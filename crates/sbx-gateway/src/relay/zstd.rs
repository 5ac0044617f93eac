//! Zstandard (RFC 8878; as a content coding RFC 9659), decoded as it comes.
//!
//! The library gives out what it decoded once the window has gone past it, or the frame has ended: until then it may be
//! repeated. So the body is held back until all that is in it was looked at, which is never more than a window behind.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::decoding::Bounded;
use crate::limits;

/// What a frame begins with.
const MAGIC: u64 = 0xFD2F_B528;
/// A frame of something else, which is skipped, begins with this and four bits more.
const SKIPPABLE: u64 = 0x184D_2A50;
/// What every frame is longer than, and a skippable one's head.
const SHORTEST: usize = 8;
/// Head of a block.
const BLOCK_HEAD: usize = 3;
/// Longest block, both ways.
const BLOCK: u64 = 128 * 1024;
/// A block that is one byte again and again.
const REPEATED: u64 = 1;
/// Places in the body that are told apart, in decoded bytes.
const MARK_EVERY: u64 = 64 * 1024;

/// A body in frames.
pub(super) struct Zstd {
    decoder: FrameDecoder,
    at: At,
    /// What came and is not decoded: no whole head, block or checksum.
    waiting: Vec<u8>,
    /// Decoded and handed out.
    out: u64,
    /// Decoded at most, with what the library keeps.
    most: u64,
    held: Held,
}

/// Where in the body it is.
enum At {
    /// Before a frame, or at the end.
    Between,
    /// In a frame with this window.
    Frame { window: u64, checksum: bool },
    /// In something else, with so much left.
    Skipped(u64),
}

/// What of the body was not looked at.
#[derive(Default)]
struct Held {
    bytes: BytesMut,
    /// How much has to be handed out for the bytes up to a place to have been looked at, and the place, counted from the
    /// beginning of the body.
    marks: VecDeque<(u64, u64)>,
    /// What went.
    gone: u64,
}

impl Zstd {
    pub(super) fn new() -> Self {
        Self {
            decoder: FrameDecoder::new(),
            at: At::Between,
            waiting: Vec::new(),
            out: 0,
            most: 0,
            held: Held::default(),
        }
    }

    /// The next piece, as [`super::decoding::Decoder::push`].
    pub(super) fn push(&mut self, piece: &[u8], last: bool, out: &mut Bounded) -> io::Result<()> {
        self.waiting.extend_from_slice(piece);
        let mut done = 0;
        while let Some(step) = self.step(done, out)? {
            done += step;
        }
        self.waiting.drain(..done);
        let whole = self.waiting.is_empty() && matches!(self.at, At::Between);
        if last && !whole {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Holds the piece that was pushed back, and gives what of the body was looked at.
    pub(super) fn release(&mut self, piece: &[u8]) -> io::Result<Bytes> {
        let wanted = match self.at {
            At::Frame { .. } => self.most.next_multiple_of(MARK_EVERY),
            At::Between | At::Skipped(_) => self.out,
        };
        self.held.add(piece, wanted, self.waiting.len());
        let looked_at = self.held.take(self.out);
        if self.held.bytes.len() > limits::ZSTD_HELD {
            return Err(broken("it holds too much that means nothing"));
        }
        Ok(looked_at)
    }

    /// Takes one more part of what waits behind `done`; gives its length. `None`: it is not there whole.
    fn step(&mut self, done: usize, out: &mut Bounded) -> io::Result<Option<usize>> {
        let rest = &self.waiting[done..];
        match self.at {
            At::Between if rest.len() < SHORTEST => Ok(None),
            At::Between => {
                let magic = number(&rest[..4]);
                if magic & !0xF == SKIPPABLE {
                    self.at = At::Skipped(number(&rest[4..SHORTEST]));
                    return Ok(Some(SHORTEST));
                }
                let Some(head) = Head::of(rest)? else {
                    return Ok(None);
                };
                // Another one each time: one that has been used keeps what it had.
                self.decoder = FrameDecoder::new();
                self.decoder.set_max_window_size(limits::ZSTD_WINDOW);
                let begun = self.decoder.init(&rest[..head.length]);
                begun.map_err(|error| broken(&error.to_string()))?;
                self.at = At::Frame {
                    window: head.window,
                    checksum: head.checksum,
                };
                Ok(Some(head.length))
            }
            At::Skipped(0) => {
                self.at = At::Between;
                Ok(Some(0))
            }
            At::Skipped(_) if rest.is_empty() => Ok(None),
            At::Skipped(left) => {
                let step = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                self.at = At::Skipped(left - step as u64);
                Ok(Some(step))
            }
            At::Frame { window, checksum } => self.block(done, window, checksum, out),
        }
    }

    /// Decodes the block behind `done`, with the checksum behind it if it is the last.
    fn block(
        &mut self,
        done: usize,
        window: u64,
        checksum: bool,
        out: &mut Bounded,
    ) -> io::Result<Option<usize>> {
        let rest = &self.waiting[done..];
        let Some(head) = rest.get(..BLOCK_HEAD) else {
            return Ok(None);
        };
        let head = number(head);
        let (last, kind, size) = (head & 1 == 1, head >> 1 & 3, head >> 3);
        if size > BLOCK {
            return Err(broken("a block is too long"));
        }
        let content = if kind == REPEATED { 1 } else { size };
        let checksum = if last && checksum { 4 } else { 0 };
        let length = usize::try_from(BLOCK_HEAD as u64 + content + checksum);
        let length = length.map_err(|_| broken("a block is too long"))?;
        let Some(block) = rest.get(..length) else {
            return Ok(None);
        };
        let one = BlockDecodingStrategy::UptoBlocks(1);
        let decoded = self.decoder.decode_blocks(block, one);
        decoded.map_err(|error| broken(&error.to_string()))?;
        let handed_out = self.decoder.collect_to_writer(out)? as u64;
        self.out += handed_out;
        let compressed = kind > REPEATED;
        let more = self.most + if compressed { BLOCK } else { size };
        // Where anything is handed out, a whole window is kept.
        let most = self.out + window;
        self.most = if handed_out > 0 { most } else { most.min(more) };
        if last {
            self.at = At::Between;
            self.most = self.out;
            self.held.all_looked_at();
        }
        Ok(Some(length))
    }
}

impl Held {
    /// One more piece, which was looked at when so much is handed out, but for the last bytes, which wait for others.
    fn add(&mut self, piece: &[u8], wanted: u64, waiting: usize) {
        self.bytes.extend_from_slice(piece);
        let end = self.gone + self.bytes.len().saturating_sub(waiting) as u64;
        match self.marks.back_mut() {
            // Many small pieces make few marks.
            Some(mark) if wanted <= mark.0 => mark.1 = end,
            _ => self.marks.push_back((wanted, end)),
        }
    }

    /// Everything that was decoded was looked at.
    fn all_looked_at(&mut self) {
        for mark in &mut self.marks {
            mark.0 = 0;
        }
    }

    /// What may go when so much is handed out.
    fn take(&mut self, out: u64) -> Bytes {
        let mut taken = BytesMut::new();
        while let Some((_, end)) = self.marks.pop_front_if(|(wanted, _)| *wanted <= out) {
            let free = usize::try_from(end - self.gone).unwrap_or(usize::MAX);
            taken.unsplit(self.bytes.split_to(free.min(self.bytes.len())));
            self.gone = end;
        }
        taken.freeze()
    }
}

/// What the head of a frame says.
struct Head {
    length: usize,
    window: u64,
    checksum: bool,
}

impl Head {
    /// Reads one (RFC 8878, section 3.1.1.1). `None`: it is not there whole.
    fn of(text: &[u8]) -> io::Result<Option<Self>> {
        if number(&text[..4]) != MAGIC {
            return Err(broken("it is no frame of Zstandard"));
        }
        let descriptor = text[4];
        let single = descriptor & 0x20 != 0;
        let size_length = match descriptor >> 6 {
            0 => usize::from(single),
            field => 1 << field,
        };
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let size_at = 5 + usize::from(!single) + dictionary;
        let length = size_at + size_length;
        let Some(head) = text.get(..length) else {
            return Ok(None);
        };
        let window = if single {
            number(&head[size_at..]) + if size_length == 2 { 256 } else { 0 }
        } else {
            let base = 1_u64 << (10 + (head[5] >> 3));
            base + base / 8 * u64::from(head[5] & 7)
        };
        if window > limits::ZSTD_WINDOW {
            return Err(broken("its window is larger than 8 MiB (RFC 9659)"));
        }
        Ok(Some(Self {
            length,
            window,
            checksum: descriptor & 4 != 0,
        }))
    }
}

/// Up to eight bytes, the lowest first.
fn number(bytes: &[u8]) -> u64 {
    let digits = bytes.iter().rev();
    digits.fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    /// Decodes a body that comes in pieces of this length. Gives what came out, and asserts that nothing went on before all
    /// that is in it had come out.
    fn decoded(body: &[u8], length: usize) -> io::Result<Vec<u8>> {
        let (mut zstd, mut plain, mut gone) = (Zstd::new(), Vec::new(), Vec::new());
        for piece in body.chunks(length) {
            plain.extend(taken(&mut zstd, piece, false)?);
            let went = zstd.release(piece)?;
            gone.extend_from_slice(&went);
            if !went.is_empty() {
                // All that is in it, as if the frame ended there.
                let mut other = Zstd::new();
                let mut known = taken(&mut other, &gone, false)?;
                if matches!(other.at, At::Frame { .. }) {
                    known.extend(taken(&mut other, &[1, 0, 0, 0, 0, 0, 0], false)?);
                }
                assert!(known.len() <= plain.len());
            }
        }
        plain.extend(taken(&mut zstd, b"", true)?);
        gone.extend_from_slice(&zstd.release(b"")?);
        assert_eq!(gone, body);
        Ok(plain)
    }

    fn taken(zstd: &mut Zstd, piece: &[u8], last: bool) -> io::Result<Vec<u8>> {
        let mut out = Bounded::default();
        zstd.push(piece, last, &mut out)?;
        Ok(out.taken().to_vec())
    }

    /// The same words over and over, also far apart.
    fn text(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let words = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            format!("word{} ", state >> 26)
        });
        let once: String = words.take(8000).collect();
        once.into_bytes().into_iter().cycle().take(length).collect()
    }

    fn frame(text: &[u8]) -> Vec<u8> {
        compress_to_vec(text, CompressionLevel::Fastest)
    }

    /// A frame with this descriptor and window, and blocks that each stand for 128 KiB of zeros.
    fn zeros(head: &[u8], blocks: usize) -> Vec<u8> {
        let mut body = [&[0x28, 0xB5, 0x2F, 0xFD], head].concat();
        for number in 0..blocks {
            let last = u32::from(number + 1 == blocks);
            let block = (128 << 10) << 3 | 1 << 1 | last;
            body.extend_from_slice(&block.to_le_bytes()[..3]);
            body.push(0);
        }
        body
    }

    #[test]
    fn a_body_comes_out_as_it_comes_in_frame_by_frame() {
        let (one, two) = (text(300_000), text(10));
        let skipped = [&[0x5A, 0x2A, 0x4D, 0x18, 5, 0, 0, 0][..], b"other"].concat();
        let body = [frame(&one), skipped, frame(&two), frame(b"")].concat();
        for length in [1, 7, 4096, body.len()] {
            assert_eq!(decoded(&body, length).unwrap(), [&one[..], &two].concat());
        }
        assert_eq!(decoded(b"", 1).unwrap(), b"");
    }

    #[test]
    fn what_the_reference_writes_is_decoded() {
        let one = include_bytes!("../../tests/fixtures/level-3.zst");
        let two = include_bytes!("../../tests/fixtures/level-19.zst");
        for body in [&one[..], two] {
            let plain = decoded(body, 1000).unwrap();
            assert_eq!(plain, text(plain.len()));
            assert!(plain.len() > 200_000);
        }
    }

    #[test]
    fn what_is_not_looked_at_yet_does_not_go_on_and_the_rest_does() {
        // 10 MiB through a window of 1 MiB.
        let body = zeros(&[0, 10 << 3], 80);
        let mut zstd = Zstd::new();
        let (mut out, mut gone, mut most) = (0, 0, 0);
        for piece in body.chunks(16) {
            out += taken(&mut zstd, piece, false).unwrap().len();
            gone += zstd.release(piece).unwrap().len();
            // 4 bytes and 6 of the head for each 128 KiB.
            assert!(gone <= 6 + out / (128 << 10) * 4, "{gone} {out}");
            most = most.max(zstd.held.bytes.len());
        }
        assert_eq!((out, gone), (80 * (128 << 10), body.len()));
        // The window, a piece, and what marks are apart.
        assert!(most <= 9 * 4 + 16 + 16, "{most}");
    }

    #[test]
    fn of_a_block_that_is_not_there_whole_nothing_goes_on() {
        // Stored as it is, so that somebody could read it in pieces.
        let text = b"some text";
        let head = (9_u32 << 3 | 1).to_le_bytes();
        let body = [&[0x28, 0xB5, 0x2F, 0xFD, 0, 0][..], &head[..3], text].concat();
        let mut zstd = Zstd::new();
        for piece in body[..body.len() - 1].chunks(1) {
            assert_eq!(taken(&mut zstd, piece, false).unwrap(), b"");
            let gone = zstd.release(piece).unwrap();
            assert!(
                !gone.windows(1).any(|byte| text.contains(&byte[0])),
                "{gone:?}"
            );
        }
        let end = &body[body.len() - 1..];
        assert_eq!(taken(&mut zstd, end, false).unwrap(), text);
        assert!(zstd.release(end).unwrap().ends_with(text));
    }

    #[test]
    fn what_does_not_get_shorter_has_room_in_the_largest_window() {
        let stored = vec![b'x'; 128 << 10];
        let head = (u32::try_from(stored.len()).unwrap() << 3).to_le_bytes();
        let block = [&head[..3], &stored].concat();
        let mut zstd = Zstd::new();
        let first = [0x28, 0xB5, 0x2F, 0xFD, 0, 13 << 3];
        taken(&mut zstd, &first, false).unwrap();
        let (mut out, mut gone) = (0, zstd.release(&first).unwrap().len());
        for _ in 0..200 {
            out += taken(&mut zstd, &block, false).unwrap().len();
            gone += zstd.release(&block).unwrap().len();
        }
        assert!(out > 16 << 20 && gone > 16 << 20, "{out} {gone}");
    }

    #[test]
    fn windows_have_a_bound_whichever_way_they_are_said() {
        for (head, fits) in [
            (&[0, 13 << 3][..], true),
            (&[0, 13 << 3 | 1], false),
            (&[0, 31 << 3 | 7], false),
            (&[0xA0, 0, 0, 0x80, 0], true),
            (&[0xA0, 1, 0, 0x80, 0], false),
            (&[0xE0, 0, 0, 0, 0, 1, 0, 0, 0], false),
        ] {
            let decoded = decoded(&zeros(head, 1), 1000);
            assert_eq!(decoded.is_ok(), fits, "{head:?} {decoded:?}");
        }
    }

    #[test]
    fn what_grows_without_end_or_holds_nothing_without_end_is_an_error() {
        let bomb = zeros(&[0, 10 << 3], limits::DECODED / (128 << 10) + 1);
        assert!(bomb.len() < 600);
        assert!(decoded(&bomb, bomb.len()).is_err());
        // Compressed blocks of nothing: of none is it known before the window is full.
        let mut zstd = Zstd::new();
        let head = [0x28, 0xB5, 0x2F, 0xFD, 0, 10 << 3];
        let empty = [2 << 3 | 2 << 1, 0, 0, 0, 0].repeat(1 << 16);
        assert_eq!(taken(&mut zstd, &head, false).unwrap(), b"");
        let pieces = limits::ZSTD_HELD / empty.len() + 1;
        let broken = (0..pieces)
            .any(|_| taken(&mut zstd, &empty, false).is_err() || zstd.release(&empty).is_err());
        assert!(broken);
    }

    #[test]
    fn what_breaks_off_is_an_error_and_no_byte_that_is_wrong_does_harm() {
        let body = frame(&text(3000));
        for end in 1..body.len() {
            assert!(decoded(&body[..end], 100).is_err(), "{end}");
        }
        for bad in [
            &b"not zstd at all"[..],
            &[body.clone(), b"x".to_vec()].concat(),
        ] {
            assert!(decoded(bad, 100).is_err());
        }
        // With a dictionary that nobody has.
        let of_dictionary = zeros(&[1, 10 << 3, 9], 1);
        assert!(decoded(&of_dictionary, 100).is_err());
        for at in 0..body.len() {
            for bit in 0..8 {
                let mut other = body.clone();
                other[at] ^= 1 << bit;
                let _ = decoded(&other, 1000);
            }
        }
    }
}
