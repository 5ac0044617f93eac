//! The opening of a channel life: finds the host's preamble in bytes that may belong to an earlier one.

use sbx_wire::guest::Preamble;

/// Collects bytes until a whole preamble is among them.
#[derive(Debug, Default)]
pub(super) struct Opening {
    buffer: Vec<u8>,
}

impl Opening {
    /// Adds received bytes. With a preamble in them: the last one (an earlier one is of a life whose host
    /// is gone) and the bytes behind it. Keeps no more than could be the start of a preamble.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<(Preamble, Vec<u8>)> {
        self.buffer.extend_from_slice(bytes);
        let mut found = None;
        while let Some((preamble, end)) = Preamble::find_host(&self.buffer) {
            let begin = end - Preamble::LEN;
            // A host that went away in the middle of its preamble leaves a stump that takes the front of
            // the next preamble for its own nonce. An honest nonce holds the magic once in 2^64.
            let magic = &preamble.encode_host()[..8];
            let inner = self.buffer[begin + 1..end]
                .windows(8)
                .position(|window| window == magic);
            match inner {
                Some(offset) => drop(self.buffer.drain(..begin + 1 + offset)),
                None => {
                    self.buffer.drain(..end);
                    found = Some(preamble);
                }
            }
        }
        if let Some(preamble) = found {
            return Some((preamble, std::mem::take(&mut self.buffer)));
        }
        let excess = self.buffer.len().saturating_sub(Preamble::LEN - 1);
        self.buffer.drain(..excess);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preamble(epoch: u32) -> Preamble {
        Preamble {
            version: 1,
            epoch,
            nonce: [epoch.to_le_bytes()[0]; 16],
        }
    }

    #[test]
    fn preamble_is_found_behind_stale_bytes_in_any_split() {
        let mut bytes = vec![0xa5; 5000];
        bytes.extend(&preamble(3).encode_guest());
        bytes.extend(&preamble(4).encode_host()[..20]);
        bytes.extend(&preamble(5).encode_host());
        for cut in [1, 7, 29, 30, 31, 4096] {
            let mut opening = Opening::default();
            let found: Vec<_> = bytes
                .chunks(cut)
                .filter_map(|piece| opening.push(piece))
                .collect();
            assert_eq!(found, [(preamble(5), vec![])], "pieces of {cut}");
        }
    }

    #[test]
    fn of_two_preambles_the_later_one_counts_and_what_follows_it_is_kept() {
        let mut bytes = preamble(1).encode_host().to_vec();
        bytes.extend(b"frames of a host that is gone");
        bytes.extend(&preamble(2).encode_host());
        bytes.extend(b"rest");
        let (found, rest) = Opening::default().push(&bytes).unwrap();
        assert_eq!((found.epoch, rest.as_slice()), (2, b"rest".as_slice()));
    }

    #[test]
    fn garbage_is_not_kept() {
        let mut opening = Opening::default();
        for _ in 0..1000 {
            assert_eq!(opening.push(&[0; 1000]), None);
        }
        assert!(opening.buffer.len() < Preamble::LEN);
    }
}
