//! Small pieces of bodies that wait to be sent: the HTTP/2 library bounds their bytes, and keeps some hundred more for each.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::body::BodyError;
use crate::limits;

/// Those of all bodies.
static WAITING: Waiting = Waiting(AtomicUsize::new(0));

/// How many wait.
struct Waiting(AtomicUsize);

/// One of them, until it was sent or given up.
struct Counted {
    piece: Bytes,
    among: &'static Waiting,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.among.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waiting {
    fn count(&'static self, piece: Bytes) -> Result<Bytes, BodyError> {
        if self.0.fetch_add(1, Ordering::Relaxed) >= limits::SMALL_PIECES {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return Err(BodyError::Crowd);
        }
        let among = self;
        Ok(Bytes::from_owner(Counted { piece, among }))
    }
}

/// The piece, which counts from now on if it is small.
///
/// # Errors
/// When too many wait.
pub(super) fn counted(piece: Bytes) -> Result<Bytes, BodyError> {
    if piece.len() >= limits::SMALL {
        return Ok(piece);
    }
    WAITING.count(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_small_pieces_wait_and_each_that_was_sent_makes_room() {
        static HERE: Waiting = Waiting(AtomicUsize::new(0));
        let piece = || HERE.count(Bytes::from_static(b"x"));
        let mut waiting: Vec<Bytes> = (0..limits::SMALL_PIECES)
            .map(|_| piece().unwrap())
            .collect();
        assert!(piece().is_err());
        assert_eq!(waiting.pop().unwrap(), "x");
        let again = piece().unwrap();
        assert!(piece().is_err());
        drop((waiting, again));
        assert_eq!(HERE.0.load(Ordering::Relaxed), 0);
    }
}
