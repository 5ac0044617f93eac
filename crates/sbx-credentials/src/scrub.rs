//! Values on their way back to the guest: each is replaced by its placeholder, in however many pieces it comes.
//!
//! A value is found as it is, as encoders of JSON, HTML and URLs write it ([`crate::shown`]) and in Base64 at any place of
//! a group (so in a `Basic` login that is shown). Only what may be the beginning of one is held back, so that events of a stream arrive
//! when they come.

use std::sync::Arc;

use aho_corasick::AhoCorasick;
use bytes::Bytes;
use zeroize::Zeroize;

use crate::forms;
use crate::held::{self, Beginnings};
use crate::shown;

/// Shortest value that is looked for, bytes: a shorter one would be found by accident.
pub const SHORTEST: usize = 8;

/// Values and what stands for them.
#[derive(Debug)]
pub struct Scrub {
    automaton: AhoCorasick,
    /// By pattern of the automaton: what it is replaced by.
    replacements: Vec<Vec<u8>>,
    beginnings: Beginnings,
}

impl Scrub {
    /// The other way round, for a body that is sent: each of `pairs` is a placeholder and what is written for it, and
    /// only the placeholder as it is counts.
    pub fn for_sending<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let pairs = pairs.into_iter();
        let bytes = |(from, to): (&str, &str)| (from.as_bytes().to_vec(), to.as_bytes().to_vec());
        let (texts, replacements) = pairs.map(bytes).unzip();
        Self::of(texts, replacements)
    }

    /// `pairs`: value and placeholder. `None`: there is no value that is long enough to be looked for.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<Self> {
        let mut texts: Vec<Vec<u8>> = Vec::new();
        let mut replacements = Vec::new();
        let mut add = |text: Vec<u8>, replacement: Vec<u8>| {
            if text.len() >= SHORTEST && !texts.contains(&text) {
                texts.push(text);
                replacements.push(replacement);
            }
        };
        for (value, placeholder) in pairs {
            if value.len() < SHORTEST || value == placeholder {
                continue;
            }
            for form in shown::shown(value) {
                add(form.into_bytes(), placeholder.as_bytes().to_vec());
            }
            for form in forms::in_base64(value.as_bytes()) {
                let covered = vec![b'x'; form.len()];
                add(form.into_bytes(), covered);
            }
        }
        Self::of(texts, replacements)
    }

    fn of(texts: Vec<Vec<u8>>, replacements: Vec<Vec<u8>>) -> Option<Self> {
        (!texts.is_empty()).then(|| Self::made(texts, replacements))
    }

    fn made(texts: Vec<Vec<u8>>, replacements: Vec<Vec<u8>>) -> Self {
        let (automaton, beginnings) = held::finder(texts);
        Self {
            automaton,
            replacements,
            beginnings,
        }
    }

    /// Finds nothing, until there is something to be looked for.
    pub fn of_nothing() -> Self {
        Self::made(Vec::new(), Vec::new())
    }

    /// A whole text without the values, if it holds any.
    pub fn whole(&self, text: &[u8]) -> Option<Vec<u8>> {
        held::find(&self.automaton, text, 0)?;
        Some(self.replaced(text, false, true).0)
    }

    /// The text without the values, and where what is held back begins in `text`: none of it if `last`. A value in what may
    /// be the beginning of a longer one is held back with it.
    fn replaced(&self, text: &[u8], same_length: bool, last: bool) -> (Vec<u8>, usize) {
        let mut clean = Vec::with_capacity(text.len());
        let (mut from, mut end) = (0, 0);
        loop {
            // A value that ends before it leaves it where it is.
            if last {
                end = text.len();
            } else if from >= end {
                end = from + self.beginnings.at_end(&text[from..]);
            }
            let hit = held::find(&self.automaton, text, from);
            let Some(hit) = hit.filter(|hit| hit.start() < end) else {
                clean.extend_from_slice(&text[from..end]);
                return (clean, end);
            };
            clean.extend_from_slice(&text[from..hit.start()]);
            let replacement = &self.replacements[hit.pattern().as_usize()];
            if same_length {
                let padding = std::iter::repeat(&b'x');
                clean.extend(replacement.iter().chain(padding).take(hit.len()));
            } else {
                clean.extend_from_slice(replacement);
            }
            from = hit.end();
        }
    }
}

/// An answer that comes in pieces.
#[derive(Debug)]
pub struct Stream {
    scrub: Arc<Scrub>,
    same_length: bool,
    held: Vec<u8>,
}

/// What became of a piece.
#[derive(Debug)]
pub struct Passed {
    /// What may go on.
    pub text: Bytes,
    /// Whether a value was in it.
    pub found: bool,
}

impl Stream {
    /// The beginning of a text. `same_length`: its length was announced, so each placeholder is cut or filled up to the
    /// length of its value.
    pub fn new(scrub: Arc<Scrub>, same_length: bool) -> Self {
        Self {
            scrub,
            same_length,
            held: Vec::new(),
        }
    }

    /// Looks for other values from here on, also in what was held back.
    pub fn look_for(&mut self, scrub: Arc<Scrub>) {
        self.scrub = scrub;
    }

    /// Takes the next piece. `last`: no other comes, so nothing is held back.
    pub fn push(&mut self, piece: Bytes, last: bool) -> Passed {
        let text = if self.held.is_empty() {
            piece
        } else {
            let mut joined = std::mem::take(&mut self.held);
            joined.extend_from_slice(&piece);
            Bytes::from(joined)
        };
        let end = if last {
            text.len()
        } else {
            self.scrub.beginnings.at_end(&text)
        };
        let found = held::find(&self.scrub.automaton, &text, 0);
        if found.is_none_or(|hit| hit.start() >= end) {
            self.held.extend_from_slice(&text[end..]);
            let text = text.slice(..end);
            return Passed { text, found: false };
        }
        let (clean, end) = self.scrub.replaced(&text, self.same_length, last);
        self.held.extend_from_slice(&text[end..]);
        Passed {
            text: Bytes::from(clean),
            found: true,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.held.zeroize();
    }
}
