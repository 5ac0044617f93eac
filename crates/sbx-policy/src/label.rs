//! One label of a host pattern: literal text or an in-label glob (`crl*`, `node-?`, `eu[12]`).

use std::fmt;

/// Why a label is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// Something other than letters, digits, `-`, `_`, `*`, `?` and `[...]`.
    #[error("a label with wildcards may not contain {0:?}")]
    BadCharacter(char),
    /// `**` next to other characters, or not at the start of the pattern.
    #[error("`**` stands only at the start of a pattern, as a label of its own")]
    DoubleStar,
    /// `[` without `]`, an empty set, or a range that runs backwards.
    #[error("the set in {0:?} is not valid: write `[12]` or `[a-f]`")]
    BadSet(String),
}

/// Characters of a host label as a set: bit n stands for ASCII code n.
type CharSet = u128;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Token {
    /// Exactly this byte.
    Byte(u8),
    /// Any one byte (`?`).
    One,
    /// Any number of bytes, also none (`*`).
    Many,
    /// One byte of the set.
    Set(CharSet),
}

/// A parsed label. Equal when the canonical text is equal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Label {
    text: Box<str>,
    tokens: Box<[Token]>,
}

impl Label {
    /// Parses a label that has wildcards. The caller knows that it holds no dot.
    pub(crate) fn parse(text: &str) -> Result<Self, LabelError> {
        let text = text.to_ascii_lowercase();
        if text.contains("**") {
            return Err(LabelError::DoubleStar);
        }
        let mut tokens = Vec::new();
        let mut rest = text.as_str();
        while let Some(c) = rest.chars().next() {
            if c == '[' {
                let (set, after) = parse_set(rest, &text)?;
                tokens.push(Token::Set(set));
                rest = after;
                continue;
            }
            tokens.push(match c {
                '*' => Token::Many,
                '?' => Token::One,
                c if is_label_char(c) => Token::Byte(c as u8),
                bad => return Err(LabelError::BadCharacter(bad)),
            });
            rest = &rest[1..];
        }
        Ok(Self {
            text: text.into(),
            tokens: tokens.into(),
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether there is any wildcard in it.
    pub(crate) fn is_wild(&self) -> bool {
        has_wildcard(&self.text)
    }

    /// Whether it matches the label. Time is bounded by the product of both lengths.
    pub(crate) fn matches(&self, label: &str) -> bool {
        let bytes = label.as_bytes();
        let (mut token, mut byte) = (0, 0);
        // Where to go on when a later token fails: the last `*`, taking one byte more.
        let mut retry = None;
        while byte < bytes.len() {
            match self.tokens.get(token) {
                Some(Token::Many) => {
                    retry = Some((token, byte));
                    token += 1;
                }
                Some(t) if t.takes(bytes[byte]) => {
                    token += 1;
                    byte += 1;
                }
                _ => match retry {
                    Some((star, from)) => {
                        retry = Some((star, from + 1));
                        token = star + 1;
                        byte = from + 1;
                    }
                    None => return false,
                },
            }
        }
        self.tokens[token..].iter().all(|t| *t == Token::Many)
    }
}

impl Token {
    fn takes(self, byte: u8) -> bool {
        match self {
            Self::Byte(b) => b == byte,
            Self::One => true,
            Self::Set(set) => byte < 128 && set >> byte & 1 == 1,
            Self::Many => false,
        }
    }
}

fn is_label_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_'
}

/// Parses `[...]` at the start of `rest`; returns the set and what follows.
fn parse_set<'a>(rest: &'a str, whole: &str) -> Result<(CharSet, &'a str), LabelError> {
    let bad = || LabelError::BadSet(whole.to_owned());
    let close = rest.find(']').ok_or_else(bad)?;
    let inner: Vec<char> = rest[1..close].chars().collect();
    let mut set: CharSet = 0;
    let mut i = 0;
    while i < inner.len() {
        let first = inner[i];
        // `a-f` is a range; a `-` at either end is itself.
        let (last, width) = match inner.get(i + 1..i + 3) {
            Some(['-', last]) => (*last, 3),
            _ => (first, 1),
        };
        if !is_label_char(first) || !is_label_char(last) || first > last {
            return Err(bad());
        }
        for c in first..=last {
            set |= 1 << u32::from(c);
        }
        i += width;
    }
    if set == 0 {
        Err(bad())
    } else {
        Ok((set, &rest[close + 1..]))
    }
}

/// Whether the label uses wildcard syntax at all.
pub(crate) fn has_wildcard(label: &str) -> bool {
    label.contains(['*', '?', '[', ']'])
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}
