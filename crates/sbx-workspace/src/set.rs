//! Many patterns at once, one name at a time.
//!
//! A path is matched while it is walked: what the patterns remember of the components so far is a [`State`], kept per
//! directory, and one more name costs the patterns that are still in the running, whatever the depth.

use crate::pattern::{Pattern, Segment};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Most patterns of one set.
pub const MAX_PATTERNS: usize = 1024;

/// What the patterns remember of the way to a directory. Cheap to clone; equal states match the same names below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State(Option<Arc<[(u16, u16)]>>);

impl State {
    /// Whether some pattern is half matched: a name below could complete it that would not elsewhere.
    pub fn is_live(&self) -> bool {
        self.0.is_some()
    }

    fn positions(&self) -> &[(u16, u16)] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// What the patterns say of one name in a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// The last pattern that matches the name: its number in the set, and false if it takes back.
    pub decides: Option<(u16, bool)>,
    /// For names below it, if it is a directory.
    pub below: State,
}

impl Step {
    /// The pattern that the name falls under.
    pub fn matched(&self) -> Option<u16> {
        self.decides
            .and_then(|(number, holds)| holds.then_some(number))
    }
}

/// An ordered set; of the patterns that match, the last one decides.
#[derive(Debug, Clone, Default)]
pub struct PatternSet {
    patterns: Vec<Pattern>,
    /// Tied to the root.
    tied: State,
    /// Found at any depth, by their first component.
    literal: FxHashMap<Box<[u8]>, Vec<u16>>,
    /// Found at any depth, beginning with a wildcard; with the first and last byte that a name must have, if it must.
    wild: Vec<(u16, Option<u8>, Option<u8>)>,
    ends: Ends,
}

/// What names that patterns at any depth fit begin or end with: most names of a directory do neither.
#[derive(Debug, Clone)]
struct Ends {
    first: [bool; 256],
    last: [bool; 256],
    /// Some pattern fits whatever it ends with.
    any: bool,
}

impl Default for Ends {
    fn default() -> Self {
        Self {
            first: [false; 256],
            last: [false; 256],
            any: false,
        }
    }
}

impl Ends {
    fn note(&mut self, first: Option<u8>, last: Option<u8>) {
        match (first, last) {
            (Some(first), _) => self.first[usize::from(first)] = true,
            (None, Some(last)) => self.last[usize::from(last)] = true,
            (None, None) => self.any = true,
        }
    }

    /// Whether some pattern may fit the name.
    fn may(&self, name: &[u8]) -> bool {
        let is =
            |table: &[bool; 256], byte: Option<&u8>| byte.is_none_or(|b| table[usize::from(*b)]);
        self.any || is(&self.first, name.first()) || is(&self.last, name.last())
    }
}

impl PatternSet {
    /// Makes a set of the first [`MAX_PATTERNS`].
    pub fn new(patterns: impl IntoIterator<Item = Pattern>) -> Self {
        let patterns: Vec<Pattern> = patterns.into_iter().take(MAX_PATTERNS).collect();
        let (mut tied, mut literal, mut wild) =
            (Vec::new(), FxHashMap::<_, Vec<u16>>::default(), vec![]);
        let mut known = Ends::default();
        for (number, pattern) in (0..).zip(&patterns) {
            match (pattern.segments.first(), pattern.segments.get(1)) {
                (Some(Segment::Depth), Some(Segment::Literal(text))) => {
                    known.note(text.first().copied(), None);
                    literal.entry(text.clone()).or_default().push(number);
                }
                (Some(Segment::Depth), Some(Segment::Glob(glob))) => {
                    let (first, last) = glob.ends();
                    known.note(first, last);
                    wild.push((number, first, last));
                }
                (Some(Segment::Depth), _) => {
                    known.note(None, None);
                    wild.push((number, None, None));
                }
                _ => tied.push((number, 0)),
            }
        }
        Self {
            patterns,
            tied: state(tied),
            literal,
            wild,
            ends: known,
        }
    }

    /// No pattern in it.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The pattern of this number.
    pub fn pattern(&self, number: u16) -> Option<&Pattern> {
        self.patterns.get(usize::from(number))
    }

    /// At the root of the workspace.
    pub fn root(&self) -> State {
        self.tied.clone()
    }

    /// One name in a directory that was reached with this state.
    pub fn step(&self, state: &State, name: &[u8], directory: bool) -> Step {
        if !state.is_live() && !self.ends.may(name) {
            return Step::default();
        }
        let mut found = Found {
            set: self,
            name,
            directory,
            decides: None,
            below: Vec::new(),
        };
        for number in self.literal.get(name).into_iter().flatten() {
            found.try_at(*number, 1);
        }
        let (starts, ends) = (name.first(), name.last());
        for (number, first, last) in &self.wild {
            let may = |wanted: &Option<u8>, has| wanted.is_none() || wanted.as_ref() == has;
            if may(first, starts) && may(last, ends) {
                found.try_at(*number, 1);
            }
        }
        for (number, position) in state.positions() {
            found.try_at(*number, usize::from(*position));
        }
        let Found {
            decides, mut below, ..
        } = found;
        below.sort_unstable();
        below.dedup();
        Step {
            decides,
            below: self::state(below),
        }
    }

    /// A whole path of components from the root.
    pub fn walk<'a>(&self, names: impl IntoIterator<Item = &'a [u8]>, directory: bool) -> Step {
        let mut step = Step {
            decides: None,
            below: self.root(),
        };
        let mut names = names.into_iter().peekable();
        while let Some(name) = names.next() {
            step = self.step(&step.below, name, directory || names.peek().is_some());
        }
        step
    }
}

fn state(positions: Vec<(u16, u16)>) -> State {
    State((!positions.is_empty()).then(|| positions.into()))
}

struct Found<'a> {
    set: &'a PatternSet,
    name: &'a [u8],
    directory: bool,
    decides: Option<(u16, bool)>,
    below: Vec<(u16, u16)>,
}

impl Found<'_> {
    /// The name against the pattern's component at this position.
    fn try_at(&mut self, number: u16, position: usize) {
        let pattern = &self.set.patterns[usize::from(number)];
        match pattern.segments.get(position) {
            Some(Segment::Depth) => {
                self.keep(number, position);
                self.try_at(number, position + 1);
            }
            Some(segment) if segment.fits(self.name) => {
                let next = position + 1;
                if next < pattern.segments.len() {
                    self.keep(number, next);
                } else if self.directory || !pattern.directories {
                    let later = self.decides.is_none_or(|(known, _)| known <= number);
                    if later {
                        self.decides = Some((number, !pattern.negated));
                    }
                }
            }
            _ => {}
        }
    }

    fn keep(&mut self, number: u16, position: usize) {
        let position = u16::try_from(position).expect("a pattern has at most 64 components");
        self.below.push((number, position));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_left_out_by_how_they_end_fit_no_pattern() {
        let texts = [
            "a", "*b", "a*", "?b", "[ab]c", "a?", "*", "?", "*a*", "*.b", "a*b", "**/b/c",
            "**/*/c", "\\*",
        ];
        let letters = [&b"a"[..], b"b", b"c", b".", b"*", b""];
        let mut names: Vec<Vec<u8>> = Vec::new();
        for first in letters {
            for second in letters {
                names.extend(letters.iter().map(|third| [first, second, third].concat()));
            }
        }
        names.retain(|name| !name.is_empty());
        for text in texts {
            let pattern = Pattern::parse(text).unwrap();
            let set = PatternSet::new([pattern.clone()]);
            let fits = |name: &[u8]| match pattern.segments.get(1) {
                Some(segment) => segment.fits(name),
                None => true,
            };
            let left_out = names.iter().filter(|name| !set.ends.may(name));
            let wrong: Vec<_> = left_out.clone().filter(|name| fits(name)).collect();
            assert_eq!(wrong, Vec::<&Vec<u8>>::new(), "{text}");
            let open = ["*", "?", "*a*", "**/*/c"].contains(&text);
            assert_eq!(left_out.count() == 0, open, "{text}");
        }
    }
}
