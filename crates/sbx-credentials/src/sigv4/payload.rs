//! How a signature covers the body.

use super::key::{Digest, NOTHING};

/// What stands in `x-amz-content-sha256`, or the body's own digest where nothing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Its digest is signed and stands nowhere: it has to be there whole before the signature can be verified.
    Whole,
    /// Its digest is signed and stands in the head, so that the body can be compared as it streams.
    Digest(Digest),
    /// Not covered.
    Unsigned,
    /// In chunks, each with a signature of its own.
    Chunks {
        /// With signed headers behind them.
        trailer: bool,
    },
    /// In chunks that are not covered, with headers behind them that are not covered either.
    UnsignedChunks,
}

impl Payload {
    /// The text in the canonical request. `whole`: the body's digest where it has been computed.
    pub(super) fn text(&self, whole: Option<Digest>) -> String {
        match self {
            Self::Whole => whole.map_or_else(|| NOTHING.to_owned(), |digest| digest.to_string()),
            Self::Digest(digest) => digest.to_string(),
            Self::Unsigned => UNSIGNED.to_owned(),
            Self::Chunks { trailer: false } => CHUNKS.to_owned(),
            Self::Chunks { trailer: true } => CHUNKS_TRAILER.to_owned(),
            Self::UnsignedChunks => UNSIGNED_TRAILER.to_owned(),
        }
    }
}

pub(super) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
pub(super) const UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
pub(super) const CHUNKS: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
pub(super) const CHUNKS_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
pub(super) const EVENTS: &str = "STREAMING-AWS4-HMAC-SHA256-EVENTS";
