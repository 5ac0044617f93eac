//! Finding the keys that detach in what is typed, however the terminal reports keys at the moment: as
//! characters, as kitty's keyboard protocol has them (`CSI code;modifiers u`), or as xterm's
//! `modifyOtherKeys` (`CSI 27;modifiers;code ~`).

use sbx_wire::keys::{DetachKeys, Key};

/// Longest report of a key that is looked at, bytes.
const MAX_REPORT: usize = 32;

/// Looks for the keys in what is typed.
#[derive(Debug)]
pub(crate) struct Watch {
    keys: DetachKeys,
    /// How many of them were seen.
    seen: usize,
    /// What was typed for these, kept back until it is known what it means.
    held: Vec<u8>,
}

/// What became of a piece of input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// For the program.
    Input(Vec<u8>),
    /// This is for the program, then the client leaves.
    Detach(Vec<u8>),
}

/// A key, or something else, at the beginning of input.
enum Token {
    Key(Key),
    Other,
}

impl Watch {
    pub(crate) fn new(keys: DetachKeys) -> Self {
        Self {
            keys,
            seen: 0,
            held: Vec::new(),
        }
    }

    /// Takes a piece of input. A report of a key is recognised when it lies in one piece, as terminals write
    /// it; so an escape key is never kept back.
    pub(crate) fn feed(&mut self, mut input: &[u8]) -> Typed {
        if self.keys.keys().is_empty() {
            return Typed::Input(input.to_vec());
        }
        let mut out = Vec::new();
        while !input.is_empty() {
            let (token, length) = token(input);
            let (bytes, rest) = input.split_at(length);
            input = rest;
            if !self.is_next(&token) {
                out.append(&mut self.held);
                self.seen = 0;
            }
            if self.is_next(&token) {
                self.held.extend_from_slice(bytes);
                self.seen += 1;
            } else {
                out.extend_from_slice(bytes);
            }
            if self.seen == self.keys.keys().len() {
                return Typed::Detach(out);
            }
        }
        Typed::Input(out)
    }

    fn is_next(&self, token: &Token) -> bool {
        matches!(token, Token::Key(key) if self.keys.keys().get(self.seen).is_some_and(|wanted| same(*key, *wanted)))
    }
}

/// Ctrl-Space and Ctrl-@ are one to a terminal that sends characters, and so on.
fn same(key: Key, wanted: Key) -> bool {
    key.ctrl == wanted.ctrl && key.byte() == wanted.byte()
}

fn token(input: &[u8]) -> (Token, usize) {
    if let Some((key, length)) = report(input) {
        return (key.map_or(Token::Other, Token::Key), length);
    }
    let key = match input[0] {
        control @ 0..=31 => Key {
            character: (control | 0x40).to_ascii_lowercase(),
            ctrl: true,
        },
        character => Key {
            character,
            ctrl: false,
        },
    };
    (Token::Key(key), 1)
}

/// A report of a key at the beginning of input: the key, when it is one of those that we look for, and how
/// long the report is.
fn report(input: &[u8]) -> Option<(Option<Key>, usize)> {
    let parameters = input.strip_prefix(b"\x1b[")?;
    let end = parameters
        .iter()
        .take(MAX_REPORT)
        .position(|byte| !matches!(byte, b'0'..=b'9' | b';' | b':'))?;
    let text = std::str::from_utf8(&parameters[..end]).ok()?;
    let mut fields = text.split(';');
    let (code, modifiers) = match parameters[end] {
        b'u' => (fields.next()?, fields.next().unwrap_or("1")),
        b'~' if fields.next() == Some("27") => {
            let modifiers = fields.next()?;
            (fields.next()?, modifiers)
        }
        _ => return None,
    };
    Some((pressed(code, modifiers), end + 3))
}

/// The key of a report's fields; a release of a key is none.
fn pressed(code: &str, modifiers: &str) -> Option<Key> {
    let code: u8 = code.split(':').next()?.parse().ok()?;
    let mut modifiers = modifiers.split(':');
    let pressed: u16 = modifiers.next()?.parse().ok()?;
    if modifiers.next() == Some("3") {
        return None;
    }
    // Caps lock and num lock do not matter.
    match pressed.checked_sub(1)? & !(64 | 128) {
        0 => Some(Key {
            character: code,
            ctrl: false,
        }),
        4 => Some(Key {
            character: code.to_ascii_lowercase(),
            ctrl: true,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(keys: &str) -> Watch {
        Watch::new(keys.parse().unwrap())
    }

    fn input(bytes: &[u8]) -> Typed {
        Typed::Input(bytes.to_vec())
    }

    #[test]
    fn the_keys_are_found_as_characters_and_as_reports() {
        for typed in [
            &b"ab\x1c"[..],
            b"ab\x1b[92;5u",
            b"ab\x1b[92;69u",
            b"ab\x1b[92;133:1u",
            b"ab\x1b[92:124;5:1u",
            b"ab\x1b[27;5;92~",
        ] {
            assert_eq!(
                watch("ctrl-\\").feed(typed),
                Typed::Detach(b"ab".to_vec()),
                "{typed:?}"
            );
        }
    }

    #[test]
    fn other_keys_pass_unchanged_and_an_escape_is_not_kept_back() {
        let all =
            b"a\x1b[A\x1b[92;5:3u\x1b[92;6u\x1b[27;5;93~\x1b\x1bOP\x1b[200~x\x1b[201~\xc3\xb6\x1b[";
        assert_eq!(watch("ctrl-\\").feed(all), input(all));
        assert_eq!(watch("none").feed(b"\x1c"), input(b"\x1c"));
    }

    #[test]
    fn a_sequence_may_come_in_pieces_and_what_only_looked_like_one_is_passed_on() {
        let mut keys = watch("ctrl-p,ctrl-q");
        assert_eq!(keys.feed(b"a\x10"), input(b"a"));
        assert_eq!(keys.feed(b"b"), input(b"\x10b"));
        assert_eq!(keys.feed(b"\x10"), input(b""));
        assert_eq!(keys.feed(b"\x10"), input(b"\x10"));
        assert_eq!(keys.feed(b"\x11rest"), Typed::Detach(Vec::new()));
        let mut keys = watch("ctrl-a,d");
        assert_eq!(keys.feed(b"d\x01\x1b[100u"), Typed::Detach(b"d".to_vec()));
    }
}
