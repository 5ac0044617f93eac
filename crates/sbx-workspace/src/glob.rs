//! One component of a path against one component of a pattern (gitignore(5), fnmatch(3) with FNM_PATHNAME).

use crate::pattern::PatternError;

/// A component with wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Glob {
    /// `*` and then this, the commonest by far.
    Ends(Box<[u8]>),
    /// This and then `*`.
    Begins(Box<[u8]>),
    /// Any other.
    Tokens(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// `*`
    Any,
    /// `?`
    One,
    Byte(u8),
    /// `[...]`: ranges, both ends included.
    Class {
        ranges: Vec<(u8, u8)>,
        negated: bool,
    },
}

/// A component as written: text without wildcards, or a glob.
pub(crate) enum Component {
    Literal(Box<[u8]>),
    Glob(Glob),
}

/// Reads one component.
pub(crate) fn parse(text: &[u8]) -> Result<Component, PatternError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        tokens.push(match byte {
            b'*' if tokens.last() == Some(&Token::Any) => continue,
            b'*' => Token::Any,
            b'?' => Token::One,
            b'\\' => {
                let escaped = text.get(at).ok_or(PatternError::Escape)?;
                at += 1;
                Token::Byte(*escaped)
            }
            b'[' => {
                let (class, length) = class(&text[at..])?;
                at += length;
                class
            }
            byte => Token::Byte(*byte),
        });
    }
    Ok(match tokens.as_slice() {
        [Token::Any, rest @ ..] if let Some(end) = literal(rest) => {
            Component::Glob(Glob::Ends(end))
        }
        [rest @ .., Token::Any] if let Some(start) = literal(rest) => {
            Component::Glob(Glob::Begins(start))
        }
        all if let Some(text) = literal(all) => Component::Literal(text),
        _ => Component::Glob(Glob::Tokens(tokens)),
    })
}

/// Tokens that are bytes, as text.
fn literal(tokens: &[Token]) -> Option<Box<[u8]>> {
    let bytes = tokens.iter().map(|token| match token {
        Token::Byte(byte) => Some(*byte),
        _ => None,
    });
    bytes.collect()
}

/// Reads what follows a `[`; also how many bytes it took.
fn class(text: &[u8]) -> Result<(Token, usize), PatternError> {
    let mut at = 0;
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    at += usize::from(negated);
    let first = at;
    let mut ranges = Vec::new();
    loop {
        let (low, next) = match text.get(at).ok_or(PatternError::Class)? {
            b']' if at > first => return Ok((Token::Class { ranges, negated }, at + 1)),
            b'\\' => (*text.get(at + 1).ok_or(PatternError::Class)?, at + 2),
            // `[:alpha:]` and the like: no host name or secret is called so, and half an understanding is worse.
            b'[' if text.get(at + 1) == Some(&b':') => return Err(PatternError::Class),
            byte => (*byte, at + 1),
        };
        at = next;
        let high = match (text.get(at), text.get(at + 1)) {
            (Some(b'-'), Some(end)) if *end != b']' => {
                let escaped = *end == b'\\';
                let high = if escaped { text.get(at + 2) } else { Some(end) };
                at += if escaped { 3 } else { 2 };
                *high.ok_or(PatternError::Class)?
            }
            _ => low,
        };
        if high < low {
            return Err(PatternError::Class);
        }
        ranges.push((low, high));
    }
}

impl Token {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Byte(own) => *own == byte,
            Self::Class { ranges, negated } => {
                let inside = ranges
                    .iter()
                    .any(|(low, high)| (*low..=*high).contains(&byte));
                inside != *negated
            }
        }
    }
}

impl Glob {
    /// First and last byte of every name that fits, where all have the same.
    pub(crate) fn ends(&self) -> (Option<u8>, Option<u8>) {
        let byte = |token: Option<&Token>| match token {
            Some(Token::Byte(byte)) => Some(*byte),
            _ => None,
        };
        match self {
            Self::Ends(end) => (None, end.last().copied()),
            Self::Begins(start) => (start.first().copied(), None),
            Self::Tokens(tokens) => (byte(tokens.first()), byte(tokens.last())),
        }
    }

    /// Whether the whole name fits. Time: at most the product of both lengths.
    pub(crate) fn fits(&self, name: &[u8]) -> bool {
        match self {
            Self::Ends(end) => name.ends_with(end),
            Self::Begins(start) => name.starts_with(start),
            Self::Tokens(tokens) => tokens_fit(tokens, name),
        }
    }
}

fn tokens_fit(tokens: &[Token], name: &[u8]) -> bool {
    let (mut token, mut at) = (0, 0);
    // Where the last `*` stood, and how far it has reached.
    let mut star: Option<(usize, usize)> = None;
    while at < name.len() {
        match tokens.get(token) {
            Some(Token::Any) => {
                star = Some((token, at));
                token += 1;
            }
            Some(one) if one.takes(name[at]) => {
                token += 1;
                at += 1;
            }
            _ => {
                let Some((from, reached)) = star else {
                    return false;
                };
                star = Some((from, reached + 1));
                (token, at) = (from + 1, reached + 1);
            }
        }
    }
    tokens[token..].iter().all(|rest| *rest == Token::Any)
}
