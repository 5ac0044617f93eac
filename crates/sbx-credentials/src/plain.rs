//! A text without its escapes, and where each part of it stood.

use std::borrow::Cow;
use std::ops::Range;

/// Line ends that are taken out in a row; more are left, so that what is held back has a bound.
const LINE_ENDS: u8 = 2;

/// A part of the plain text.
#[derive(Debug, Clone, Copy)]
struct Part {
    /// Where it begins in the plain text.
    plain: usize,
    /// Where it begins in the raw text.
    raw: usize,
    /// Raw bytes that the one byte was written as; 0: a run of bytes that stand as they are.
    escape: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Plain<'a> {
    text: Cow<'a, [u8]>,
    parts: Vec<Part>,
    /// How much of the raw text was read: less than all if it ends in the middle of an escape.
    read: usize,
}

/// What stands where an escape could begin.
enum Unit {
    /// One byte, written in so many.
    Byte(u8, usize),
    /// A line end in so many.
    LineEnd(usize),
    /// No escape.
    Literal,
    /// The text ends too early to say.
    Open,
}

impl<'a> Plain<'a> {
    /// Undoes one layer of percent-encoding and of JSON's escapes and takes out line ends. `last`: an escape that breaks
    /// off is none.
    pub(crate) fn of(raw: &'a [u8], last: bool) -> Self {
        // It may belong to a line end that is still to come.
        let raw = match raw {
            [before @ .., b'\r'] if !last => before,
            _ => raw,
        };
        let Some(mut at) = next_special(raw) else {
            return Self {
                text: Cow::Borrowed(raw),
                parts: Vec::new(),
                read: raw.len(),
            };
        };
        let mut text = Vec::with_capacity(raw.len());
        let mut parts = Vec::new();
        run(&mut text, &mut parts, raw, 0..at);
        let mut line_ends = 0;
        while at < raw.len() {
            let length = match unit(&raw[at..]) {
                Unit::Open if !last => break,
                Unit::Byte(byte, length) => {
                    parts.push(Part {
                        plain: text.len(),
                        raw: at,
                        escape: length,
                    });
                    text.push(byte);
                    line_ends = 0;
                    length
                }
                Unit::LineEnd(length) if line_ends < LINE_ENDS => {
                    line_ends += 1;
                    length
                }
                Unit::LineEnd(_) | Unit::Literal | Unit::Open => {
                    run(&mut text, &mut parts, raw, at..at + 1);
                    line_ends = 0;
                    1
                }
            };
            let from = at + length;
            at = next_special(&raw[from..]).map_or(raw.len(), |found| from + found);
            if from < at {
                run(&mut text, &mut parts, raw, from..at);
                line_ends = 0;
            }
        }
        Self {
            text: Cow::Owned(text),
            parts,
            read: at,
        }
    }

    pub(crate) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Where in the raw text that place of the plain text is; its end stands for the end of what was read.
    pub(crate) fn raw_start(&self, plain: usize) -> usize {
        if plain >= self.text.len() {
            return self.read;
        }
        self.part(plain).map_or(plain, |part| {
            if part.escape > 0 {
                part.raw
            } else {
                part.raw + (plain - part.plain)
            }
        })
    }

    /// What a part of the plain text was written as. `range` is not empty.
    pub(crate) fn raw_range(&self, range: Range<usize>) -> Range<usize> {
        let last = range.end - 1;
        let length = self.part(last).map_or(1, |part| part.escape.max(1));
        self.raw_start(range.start)..self.raw_start(last) + length
    }

    fn part(&self, plain: usize) -> Option<&Part> {
        let after = self.parts.partition_point(|part| part.plain <= plain);
        self.parts.get(after.checked_sub(1)?)
    }
}

fn run(text: &mut Vec<u8>, parts: &mut Vec<Part>, raw: &[u8], range: Range<usize>) {
    if range.is_empty() {
        return;
    }
    // A run goes on: a text of nothing but what could begin an escape has no part for every byte.
    let goes_on = parts
        .last()
        .is_some_and(|last| last.escape == 0 && range.start - last.raw == text.len() - last.plain);
    if !goes_on {
        parts.push(Part {
            plain: text.len(),
            raw: range.start,
            escape: 0,
        });
    }
    text.extend_from_slice(&raw[range]);
}

fn next_special(raw: &[u8]) -> Option<usize> {
    let special = memchr::memchr3(b'%', b'\\', b'\n', raw);
    // One in front of a line end belongs to it.
    special.map(|at| match raw[..at].last() {
        Some(b'\r') if raw[at] == b'\n' => at - 1,
        _ => at,
    })
}

fn unit(raw: &[u8]) -> Unit {
    match raw {
        [b'\n', ..] => Unit::LineEnd(1),
        [b'%', rest @ ..] => digits(rest, 2, 1),
        [b'\\', b'u', rest @ ..] => digits(rest, 4, 2),
        [b'\\', b'x', rest @ ..] => digits(rest, 2, 2),
        [b'\r', b'\n', ..] | [b'\\', b'n' | b'r', ..] => Unit::LineEnd(2),
        [b'\\', b't', ..] => Unit::Byte(b'\t', 2),
        [b'\\', byte @ (b'/' | b'\\' | b'"'), ..] => Unit::Byte(*byte, 2),
        [b'\\'] => Unit::Open,
        _ => Unit::Literal,
    }
}

/// So many hexadecimal digits behind so many bytes.
fn digits(rest: &[u8], count: usize, before: usize) -> Unit {
    let mut value: u32 = 0;
    for at in 0..count {
        let Some(&byte) = rest.get(at) else {
            return Unit::Open;
        };
        match char::from(byte).to_digit(16) {
            Some(digit) => value = value << 4 | digit,
            None => return Unit::Literal,
        }
    }
    let length = before + count;
    match u8::try_from(value) {
        Ok(b'\r' | b'\n') => Unit::LineEnd(length),
        Ok(byte) => Unit::Byte(byte, length),
        // Not a character that a placeholder has.
        Err(_) => Unit::Byte(0xff, length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_looks_like_escapes_has_no_part_for_every_byte() {
        let raw = "%".repeat(1000) + "%41" + &"\\z".repeat(1000);
        let plain = Plain::of(raw.as_bytes(), true);
        assert_eq!(plain.text().len(), raw.len() - 2);
        assert_eq!(plain.parts.len(), 3);
        for (at, start) in [(0, 0), (999, 999), (1000, 1000), (1001, 1003), (2000, 2002)] {
            assert_eq!(plain.raw_start(at), start);
        }
    }

    #[test]
    fn one_layer_of_escapes_is_undone() {
        for (raw, plain) in [
            ("abc", "abc"),
            ("a%62c", "abc"),
            ("a%6", "a%6"),
            ("100% sure", "100% sure"),
            (r"\u0061\u0062c", "abc"),
            (r"a\/b\\u0061", r"a/b\u0061"),
            ("ab\r\ncd\nef", "abcdef"),
            (r"ab\ncd", "abcd"),
            ("a\n\n\nb", "a\nb"),
            (r"\", r"\"),
        ] {
            let found = Plain::of(raw.as_bytes(), true);
            assert_eq!(String::from_utf8_lossy(found.text()), plain, "{raw}");
        }
    }

    #[test]
    fn an_escape_that_breaks_off_is_left_for_the_next_piece() {
        for raw in ["ab%", "ab\r", "ab%4", r"ab\", r"ab\u", r"ab\u004"] {
            let found = Plain::of(raw.as_bytes(), false);
            assert_eq!(found.text(), b"ab", "{raw}");
            assert_eq!(found.raw_start(2), 2, "{raw}");
        }
    }

    #[test]
    fn places_lead_back_to_what_was_written() {
        let raw = b"x\\u0061b%63\r\nd";
        let plain = Plain::of(raw, true);
        assert_eq!(plain.text(), b"xabcd");
        assert_eq!(&raw[plain.raw_range(1..4)], b"\\u0061b%63");
        assert_eq!(&raw[plain.raw_range(4..5)], b"d");
        assert_eq!(plain.raw_start(5), raw.len());
    }
}
