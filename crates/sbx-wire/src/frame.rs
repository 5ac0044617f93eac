//! Length-prefixed frames with a [`postcard`] body, bounded before anything is allocated.
//!
//! Layout: `u32` length of the body (little endian), `u32` epoch (little endian), body.
//! Protocols without epochs (the session socket) use epoch 0.

use serde::{Serialize, de::DeserializeOwned};

/// Largest body of a frame, in bytes. Payload chunks ([`CHUNK`]) leave ample room for the rest.
pub const MAX_BODY: usize = 1 << 20;

/// Largest payload that one data frame carries, in bytes.
pub const CHUNK: usize = 32 << 10;

/// Bytes in front of each body.
pub const HEADER: usize = 8;

/// A peer broke the framing. Who caused it: the other process, or the guest.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The announced body is larger than [`MAX_BODY`].
    #[error("frame of {0} bytes is over the limit of {MAX_BODY}")]
    TooLong(usize),
    /// The body does not decode as the expected message.
    #[error("frame does not decode: {0}")]
    Decode(#[from] postcard::Error),
}

/// Encodes one message as a frame.
///
/// # Errors
/// [`FrameError::TooLong`] when the encoded body exceeds [`MAX_BODY`].
pub fn encode<T: Serialize>(epoch: u32, message: &T) -> Result<Vec<u8>, FrameError> {
    let mut out = vec![0; HEADER];
    out = postcard::to_extend(message, out)?;
    let body = out.len() - HEADER;
    if body > MAX_BODY {
        return Err(FrameError::TooLong(body));
    }
    let length = u32::try_from(body).map_err(|_| FrameError::TooLong(body))?;
    out[..4].copy_from_slice(&length.to_le_bytes());
    out[4..HEADER].copy_from_slice(&epoch.to_le_bytes());
    Ok(out)
}

/// Collects bytes and hands out whole frames of one epoch; frames of another epoch are dropped.
#[derive(Debug)]
pub struct Decoder {
    epoch: u32,
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// A decoder that accepts frames of `epoch` only.
    pub fn new(epoch: u32) -> Self {
        Self {
            epoch,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// Adds received bytes. The caller reads in bounded pieces and drains with [`Self::next`] in between,
    /// so the buffer never exceeds one frame plus one read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether no part of a frame waits for the rest of it.
    pub fn is_empty(&self) -> bool {
        self.start == self.buffer.len()
    }

    /// The next whole message, `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`] on an oversized or undecodable frame: the connection is beyond repair and is closed.
    #[expect(
        clippy::should_implement_trait,
        reason = "the message type differs from call to call, an iterator has one item type"
    )]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        loop {
            let pending = &self.buffer[self.start..];
            let Some((header, rest)) = pending.split_at_checked(HEADER) else {
                return Ok(None);
            };
            let length = u32_le(&header[..4]) as usize;
            if length > MAX_BODY {
                return Err(FrameError::TooLong(length));
            }
            let Some(body) = rest.get(..length) else {
                return Ok(None);
            };
            let epoch = u32_le(&header[4..]);
            let message = if epoch == self.epoch {
                Some(postcard::from_bytes(body)?)
            } else {
                None
            };
            self.start += HEADER + length;
            if message.is_some() {
                return Ok(message);
            }
        }
    }
}

fn u32_le(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, byte| (value << 8) | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_split(messages in proptest::collection::vec(".{0,40}", 0..8), cut in 1usize..16) {
            let bytes: Vec<u8> = messages.iter().flat_map(|m| encode(7, m).unwrap()).collect();
            let mut decoder = Decoder::new(7);
            let mut seen: Vec<String> = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.push(piece);
                while let Some(message) = decoder.next().unwrap() {
                    seen.push(message);
                }
            }
            prop_assert_eq!(seen, messages);
        }
    }

    #[test]
    fn stale_epoch_is_dropped_and_the_next_frame_is_read() {
        let mut bytes = encode(1, &"old".to_string()).unwrap();
        bytes.extend(encode(2, &"new".to_string()).unwrap());
        let mut decoder = Decoder::new(2);
        decoder.push(&bytes);
        assert_eq!(decoder.next::<String>().unwrap().as_deref(), Some("new"));
        assert_eq!(decoder.next::<String>().unwrap(), None);
    }

    #[test]
    fn oversized_length_is_refused_before_the_body_arrives() {
        let mut decoder = Decoder::new(0);
        decoder.push(&[0xff; HEADER]);
        assert!(matches!(
            decoder.next::<String>(),
            Err(FrameError::TooLong(_))
        ));
    }
}
