//! The texts that are looked for, and the end of a piece that could be the beginning of one.

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, Match, MatchKind};

/// The beginnings of a set of texts.
#[derive(Debug, Clone)]
pub(crate) struct Beginnings {
    texts: Vec<Vec<u8>>,
    first: [bool; 256],
    longest: usize,
}

/// Bytes of all texts up to which a table with every next state is made: it takes up to 1 KiB for each of them, and the
/// other kind some 20 bytes.
const IN_A_TABLE: usize = 4096;

/// Finds any of the texts, the longest where several begin, and what may go on to be one.
pub(crate) fn finder(texts: Vec<Vec<u8>>) -> (AhoCorasick, Beginnings) {
    let mut builder = AhoCorasick::builder();
    builder.match_kind(MatchKind::LeftmostLongest);
    if texts.iter().map(Vec::len).sum::<usize>() > IN_A_TABLE {
        builder.kind(Some(AhoCorasickKind::ContiguousNFA));
    }
    // To look for nothing instead would let everything pass.
    let automaton = builder
        .build(&texts)
        .expect("a configuration is too small for 2^31 states");
    (automaton, Beginnings::of(texts))
}

/// The first of the texts in this one, from a place on. Most headers are shorter than any of them, and cost nothing.
pub(crate) fn find(automaton: &AhoCorasick, text: &[u8], from: usize) -> Option<Match> {
    if text.len() - from < automaton.min_pattern_len() {
        return None;
    }
    automaton.find(Input::new(text).range(from..))
}

impl Beginnings {
    fn of(texts: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let texts: Vec<Vec<u8>> = texts.into_iter().filter(|text| !text.is_empty()).collect();
        let mut first = [false; 256];
        for text in &texts {
            first[usize::from(text[0])] = true;
        }
        let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
        Self {
            texts,
            first,
            longest,
        }
    }

    /// Where the part at the end begins that one of the texts may go on from; the length of `piece` if there is none.
    /// What lies before that place can go on its way.
    pub(crate) fn at_end(&self, piece: &[u8]) -> usize {
        let from = piece.len().saturating_sub(self.longest.saturating_sub(1));
        let could_begin = |at: &usize| {
            let end = &piece[*at..];
            self.first[usize::from(end[0])]
                && self
                    .texts
                    .iter()
                    .any(|text| text.len() > end.len() && text.starts_with(end))
        };
        (from..piece.len()).find(could_begin).unwrap_or(piece.len())
    }
}

impl Drop for Beginnings {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.texts.iter_mut().for_each(Zeroize::zeroize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_go_on_is_held_back() {
        let beginnings = Beginnings::of([b"secret".to_vec(), b"crab".to_vec()]);
        for (piece, held) in [
            ("", ""),
            ("x", ""),
            ("a secr", "secr"),
            ("a sec", "sec"),
            ("secret", ""),
            ("xx cra", "cra"),
            ("sescre", "cre".get(3..).unwrap_or_default()),
            ("ssecre", "secre"),
        ] {
            let at = beginnings.at_end(piece.as_bytes());
            assert_eq!(&piece[at..], held, "{piece}");
        }
        assert_eq!(Beginnings::of([]).at_end(b"abc"), 3);
    }
}
