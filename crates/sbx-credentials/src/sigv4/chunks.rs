//! A body in signed chunks (`aws-chunked`): each signature is verified and replaced as the body passes.
//!
//! A chunk is `SIZE;chunk-signature=SIGNATURE`, a line end, that many bytes and another line end; the last one has no
//! bytes. Behind it may stand headers and `x-amz-trailer-signature`. A chunk's signature covers the one before it and
//! the chunk's bytes, and stands in front of them: so a chunk is held until it is whole, and has a bound. What comes out
//! is as long as what went in.

use bytes::{Bytes, BytesMut};

use super::key::{Digest, NOTHING, SigningKey};
use super::refusal::Refusal;
use super::scope::Scope;
use super::time::Timestamp;

/// Largest chunk, bytes. Clients make them of 64 or 128 KiB.
pub const MAX_CHUNK: usize = 1 << 20;
/// Longest line in front of a chunk: size, name of the signature, signature.
const MAX_HEAD: usize = 128;
/// Longest block of headers behind the last chunk, bytes.
const MAX_TRAILER: usize = 8 * 1024;
/// Most headers in it.
const MAX_TRAILERS: usize = 32;
const SIGNATURE: &str = ";chunk-signature=";
const TRAILER_SIGNATURE: &[u8] = b"x-amz-trailer-signature:";
const LINE_END: &[u8] = b"\r\n";

/// Why a body does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Not in the form that was announced.
    #[error("the body is not in signed chunks, as was announced")]
    Form,
    /// Too large.
    #[error("a signed chunk of the body is larger than 1 MiB")]
    TooLarge,
    /// The signature is not the placeholder's.
    #[error("the signature of a chunk does not match")]
    Mismatch,
    /// It ends too early, or goes on behind its end.
    #[error("the body in signed chunks does not end where it has to")]
    End,
}

impl From<ChunkError> for Refusal {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::Form | ChunkError::End => {
                Self::Malformed("the body is not in signed chunks, as was announced")
            }
            ChunkError::TooLarge => Self::TooLarge,
            ChunkError::Mismatch => Self::Mismatch,
        }
    }
}

/// What is expected next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Chunk,
    /// Headers, and what ends the body.
    Trailer,
    Nothing,
}

/// One of the two chains of signatures.
#[derive(Debug)]
struct Chain {
    key: SigningKey,
    last: Digest,
}

/// A body on its way through. See the module.
#[derive(Debug)]
pub struct Chunks {
    time: Timestamp,
    scope: Scope,
    guest: Chain,
    ours: Chain,
    trailer: bool,
    next: Next,
    held: BytesMut,
}

impl Chunks {
    /// `guest`, `ours`: the key and the signature of the head, of the placeholder and of the real key.
    pub(super) fn new(
        time: Timestamp,
        scope: Scope,
        guest: (SigningKey, Digest),
        ours: (SigningKey, Digest),
        trailer: bool,
    ) -> Self {
        let chain = |(key, last)| Chain { key, last };
        Self {
            time,
            scope,
            guest: chain(guest),
            ours: chain(ours),
            trailer,
            next: Next::Chunk,
            held: BytesMut::new(),
        }
    }

    /// Takes the next piece and gives what may go on: the chunks that are whole. After an error nothing may.
    pub fn push(&mut self, piece: &[u8]) -> Result<Bytes, ChunkError> {
        let mut out = BytesMut::new();
        let mut rest = piece;
        loop {
            // Never more than the largest chunk is held, however large the piece is.
            let room = MAX_HEAD + MAX_CHUNK + LINE_END.len();
            let taken = rest.len().min(room.saturating_sub(self.held.len()));
            let (now, later) = rest.split_at(taken);
            self.held.extend_from_slice(now);
            rest = later;
            let before = self.held.len();
            while self.step(&mut out)? {}
            if rest.is_empty() {
                return Ok(out.freeze());
            }
            if self.held.len() == before {
                return Err(ChunkError::TooLarge);
            }
        }
    }

    /// To be called when no other piece comes.
    pub fn finish(&self) -> Result<(), ChunkError> {
        match self.next {
            Next::Nothing if self.held.is_empty() => Ok(()),
            _ => Err(ChunkError::End),
        }
    }

    /// Passes on what is whole at the beginning of what is held. False: nothing is.
    fn step(&mut self, out: &mut BytesMut) -> Result<bool, ChunkError> {
        match self.next {
            Next::Chunk => self.chunk(out),
            Next::Trailer => self.trailer(out),
            Next::Nothing if self.held.is_empty() => Ok(false),
            Next::Nothing => Err(ChunkError::End),
        }
    }

    fn chunk(&mut self, out: &mut BytesMut) -> Result<bool, ChunkError> {
        let Some(line) = line(&self.held, MAX_HEAD)? else {
            return Ok(false);
        };
        let (size, signature) = head(&self.held[..line])?;
        let from = line + LINE_END.len();
        let end = from + size;
        // The last one has no bytes; with headers behind it no line end of its own either.
        let closed = size > 0 || !self.trailer;
        let after = end + if closed { LINE_END.len() } else { 0 };
        if self.held.len() < after {
            return Ok(false);
        }
        if closed && &self.held[end..after] != LINE_END {
            return Err(ChunkError::Form);
        }
        let digest = Digest::of(&self.held[from..end]);
        let text = |last: Digest| self.to_sign("PAYLOAD", last, &format!("{NOTHING}\n{digest}"));
        let (theirs, ours) = (text(self.guest.last), text(self.ours.last));
        let ours = self.pass(&theirs, &ours, signature)?;
        // The size as it was written: its length is part of the announced one.
        out.extend_from_slice(&self.held[..line - Digest::DIGITS]);
        out.extend_from_slice(ours.to_string().as_bytes());
        out.extend_from_slice(&self.held[line..after]);
        let _ = self.held.split_to(after);
        if size == 0 {
            self.next = if self.trailer {
                Next::Trailer
            } else {
                Next::Nothing
            };
        }
        Ok(true)
    }

    fn trailer(&mut self, out: &mut BytesMut) -> Result<bool, ChunkError> {
        let Some(end) = memchr::memmem::find(&self.held, b"\r\n\r\n") else {
            return if self.held.len() > MAX_TRAILER {
                Err(ChunkError::TooLarge)
            } else {
                Ok(false)
            };
        };
        if end > MAX_TRAILER {
            return Err(ChunkError::TooLarge);
        }
        let (canonical, signature_at) = trailers(&self.held[..end])?;
        let signature = Digest::parse(&self.held[signature_at..end]).ok_or(ChunkError::Form)?;
        let digest = Digest::of(&canonical).to_string();
        let text = |last: Digest| self.to_sign("TRAILER", last, &digest);
        let (theirs, ours) = (text(self.guest.last), text(self.ours.last));
        let ours = self.pass(&theirs, &ours, signature)?;
        out.extend_from_slice(&self.held[..signature_at]);
        out.extend_from_slice(ours.to_string().as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        let _ = self.held.split_to(end + 4);
        self.next = Next::Nothing;
        Ok(true)
    }

    fn to_sign(&self, kind: &str, last: Digest, digests: &str) -> String {
        let Self { time, scope, .. } = self;
        format!("AWS4-HMAC-SHA256-{kind}\n{time}\n{scope}\n{last}\n{digests}")
    }

    /// Both chains go on by one link.
    fn pass(&mut self, theirs: &str, ours: &str, signature: Digest) -> Result<Digest, ChunkError> {
        if !self.guest.key.verifies(theirs, &signature) {
            return Err(ChunkError::Mismatch);
        }
        self.guest.last = signature;
        self.ours.last = self.ours.key.sign(ours);
        Ok(self.ours.last)
    }
}

/// Where the first line ends. `None`: it has not come whole.
fn line(held: &[u8], longest: usize) -> Result<Option<usize>, ChunkError> {
    let looked_at = &held[..held.len().min(longest + LINE_END.len())];
    match memchr::memmem::find(looked_at, LINE_END) {
        Some(at) => Ok(Some(at)),
        None if held.len() <= longest => Ok(None),
        None => Err(ChunkError::Form),
    }
}

/// Size and signature of a chunk.
fn head(line: &[u8]) -> Result<(usize, Digest), ChunkError> {
    let text = std::str::from_utf8(line).map_err(|_| ChunkError::Form)?;
    let (size, signature) = text.split_once(SIGNATURE).ok_or(ChunkError::Form)?;
    let digits = (1..=8).contains(&size.len()) && size.bytes().all(|b| b.is_ascii_hexdigit());
    if !digits {
        return Err(ChunkError::Form);
    }
    let size = usize::from_str_radix(size, 16).map_err(|_| ChunkError::Form)?;
    if size > MAX_CHUNK {
        return Err(ChunkError::TooLarge);
    }
    let signature = Digest::parse(signature.as_bytes()).ok_or(ChunkError::Form)?;
    Ok((size, signature))
}

/// The headers in the form that is signed, and where the digits of their signature begin. The signature is the last line.
fn trailers(block: &[u8]) -> Result<(Vec<u8>, usize), ChunkError> {
    let mut lines: Vec<(Vec<u8>, &[u8])> = Vec::new();
    let mut at = 0;
    while lines.len() <= MAX_TRAILERS {
        let length = memchr::memmem::find(&block[at..], LINE_END);
        let line = &block[at..length.map_or(block.len(), |length| at + length)];
        if line.starts_with(TRAILER_SIGNATURE) {
            lines.sort();
            let line = |(name, value): &(Vec<u8>, &[u8])| [name, &b":"[..], value, b"\n"].concat();
            return match length {
                None => Ok((
                    lines.iter().flat_map(line).collect(),
                    at + TRAILER_SIGNATURE.len(),
                )),
                Some(_) => Err(ChunkError::Form),
            };
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or(ChunkError::Form)?);
        if name.is_empty() || line.iter().any(u8::is_ascii_control) {
            return Err(ChunkError::Form);
        }
        lines.push((name.to_ascii_lowercase(), value[1..].trim_ascii()));
        at += length.ok_or(ChunkError::Form)? + LINE_END.len();
    }
    Err(ChunkError::Form)
}
