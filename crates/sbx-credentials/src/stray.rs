//! Placeholders where they do not belong: as they are, percent-encoded (RFC 3986, section 2.1), with the escapes of JSON
//! (RFC 8259, section 7), in Base64 at any place of a group, broken into lines, and in however many pieces they come.
//!
//! One layer of encoding is undone. What somebody writes in a form of his own (reversed, encrypted) is not found: a
//! placeholder is worth nothing elsewhere, so what this is for is to tell about the try.

use std::ops::Range;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use bytes::Bytes;

use crate::forms;
use crate::held::{self, Beginnings};
use crate::plain::Plain;

/// A set of placeholders to look for.
#[derive(Debug)]
pub struct Strays {
    automaton: AhoCorasick,
    /// By pattern of the automaton: which placeholder.
    owners: Vec<usize>,
    beginnings: Beginnings,
}

impl Strays {
    /// `placeholders`: at least 8 bytes each. `None`: there are none.
    pub fn new(placeholders: &[&str]) -> Option<Self> {
        let mut texts = Vec::new();
        let mut owners = Vec::new();
        for (index, placeholder) in placeholders.iter().enumerate() {
            let plain = placeholder.as_bytes().to_vec();
            let encoded = forms::in_base64(&plain).into_iter().map(String::into_bytes);
            for text in std::iter::once(plain).chain(encoded) {
                texts.push(text);
                owners.push(index);
            }
        }
        if texts.is_empty() {
            return None;
        }
        let (automaton, beginnings) = held::finder(texts);
        Some(Self {
            automaton,
            owners,
            beginnings,
        })
    }

    /// The first placeholder in a whole text, by its place in what the set was made of.
    pub fn find(&self, text: &[u8]) -> Option<usize> {
        // Without its escapes it is not longer.
        if text.len() < self.automaton.min_pattern_len() {
            return None;
        }
        let plain = Plain::of(text, true);
        let found = self.automaton.find(plain.text())?;
        Some(self.owners[found.pattern().as_usize()])
    }
}

/// A text that comes in pieces.
#[derive(Debug)]
pub struct Stream {
    strays: Arc<Strays>,
    /// The end of what came, which may be the beginning of a placeholder.
    held: Vec<u8>,
}

/// What became of a piece.
#[derive(Debug)]
pub struct Passed {
    /// What may go on: as long as what came, less what is held back. Placeholders in it are overwritten with `x`.
    pub text: Bytes,
    /// The first placeholder that was found.
    pub found: Option<usize>,
}

impl Stream {
    /// The beginning of a text.
    pub fn new(strays: Arc<Strays>) -> Self {
        let held = Vec::new();
        Self { strays, held }
    }

    /// Takes the next piece. `last`: no other comes, so nothing is held back.
    pub fn push(&mut self, piece: Bytes, last: bool) -> Passed {
        let raw = if self.held.is_empty() {
            piece
        } else {
            let mut joined = std::mem::take(&mut self.held);
            joined.extend_from_slice(&piece);
            Bytes::from(joined)
        };
        let plain = Plain::of(&raw, last);
        let mut found = None;
        let mut masked: Option<Vec<u8>> = None;
        for hit in self.strays.automaton.find_iter(plain.text()) {
            found.get_or_insert(self.strays.owners[hit.pattern().as_usize()]);
            let text = masked.get_or_insert_with(|| raw.to_vec());
            mask(text, plain.raw_range(hit.range()));
        }
        let end = if last {
            raw.len()
        } else {
            let open = self.strays.beginnings.at_end(plain.text());
            plain.raw_start(open)
        };
        let text = masked.map_or_else(|| raw.clone(), Bytes::from);
        self.held.extend_from_slice(&text[end..]);
        let text = text.slice(..end);
        Passed { text, found }
    }
}

/// Overwrites with what is harmless in every encoding. Line ends stay.
fn mask(text: &mut [u8], range: Range<usize>) {
    for byte in &mut text[range] {
        if !matches!(byte, b'\r' | b'\n') {
            *byte = b'x';
        }
    }
}
