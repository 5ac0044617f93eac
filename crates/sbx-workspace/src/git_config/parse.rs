//! Git's own reading of a file of settings (`config.c`), told as a grammar in git-config(1), "Syntax".

use std::collections::VecDeque;

/// One setting.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Lower case.
    pub section: String,
    /// In the case it was written in.
    pub subsection: Option<Vec<u8>>,
    /// Lower case.
    pub key: String,
    /// `None`: the key alone, which means true.
    pub value: Option<Vec<u8>>,
}

impl Entry {
    /// `section.subsection.key`, to be shown.
    pub fn name(&self) -> String {
        match &self.subsection {
            Some(sub) => format!(
                "{}.{}.{}",
                self.section,
                String::from_utf8_lossy(sub).escape_debug(),
                self.key
            ),
            None => format!("{}.{}", self.section, self.key),
        }
    }

    /// The value as text; the empty one for a key alone.
    pub(super) fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.value.as_deref().unwrap_or_default()).ok()
    }
}

/// It is no file of settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not a git setting")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
}

/// Reads a file of settings.
///
/// # Errors
/// The first line that git would not read, or that has bytes in it which git reads in ways of its own (NUL).
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, ParseError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = Reader {
        rest: bytes.iter().copied().collect(),
        line: 1,
    };
    reader.file()
}

/// Whitespace as git has it.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

struct Reader {
    rest: VecDeque<u8>,
    line: usize,
}

impl Reader {
    /// The next byte; a line end is one byte, and the end of the file one as well, after which there is nothing.
    fn next(&mut self) -> Option<u8> {
        let mut byte = self.rest.pop_front()?;
        if byte == b'\r' && self.rest.front() == Some(&b'\n') {
            self.rest.pop_front();
            byte = b'\n';
        }
        if byte == b'\n' {
            self.line += 1;
        }
        Some(byte)
    }

    fn error<T>(&self) -> Result<T, ParseError> {
        Err(ParseError { line: self.line })
    }

    fn file(&mut self) -> Result<Vec<Entry>, ParseError> {
        let mut entries = Vec::new();
        let mut section: Option<(String, Option<Vec<u8>>)> = None;
        while let Some(byte) = self.next() {
            match byte {
                byte if is_space(byte) => {}
                b'#' | b';' => while !matches!(self.next(), None | Some(b'\n')) {},
                b'[' => section = Some(self.section()?),
                byte if byte.is_ascii_alphabetic() => {
                    let Some((section, subsection)) = section.clone() else {
                        return self.error();
                    };
                    let (key, value) = self.setting(byte)?;
                    entries.push(Entry {
                        section,
                        subsection,
                        key,
                        value,
                    });
                }
                _ => return self.error(),
            }
        }
        Ok(entries)
    }

    /// After `[`.
    fn section(&mut self) -> Result<(String, Option<Vec<u8>>), ParseError> {
        let mut name = String::new();
        loop {
            match self.next() {
                Some(b']') if !name.is_empty() => break,
                Some(b' ' | b'\t') if !name.is_empty() => {
                    return Ok((name, Some(self.subsection()?)));
                }
                Some(byte) if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.') => {
                    name.push(char::from(byte.to_ascii_lowercase()));
                }
                _ => return self.error(),
            }
        }
        // The old form `[section.subsection]`.
        Ok(match name.split_once('.') {
            Some((section, sub)) => (section.to_owned(), Some(sub.as_bytes().to_vec())),
            None => (name, None),
        })
    }

    /// After `[section `.
    fn subsection(&mut self) -> Result<Vec<u8>, ParseError> {
        let mut byte = self.next();
        while matches!(byte, Some(b' ' | b'\t')) {
            byte = self.next();
        }
        if byte != Some(b'"') {
            return self.error();
        }
        let mut name = Vec::new();
        loop {
            match self.next() {
                None | Some(b'\n' | 0) => return self.error(),
                Some(b'"') => break,
                Some(b'\\') => match self.next() {
                    None | Some(b'\n' | 0) => return self.error(),
                    Some(byte) => name.push(byte),
                },
                Some(byte) => name.push(byte),
            }
        }
        if self.next() == Some(b']') {
            Ok(name)
        } else {
            self.error()
        }
    }

    fn setting(&mut self, first: u8) -> Result<(String, Option<Vec<u8>>), ParseError> {
        let mut key = String::from(char::from(first.to_ascii_lowercase()));
        let mut byte = self.next();
        while let Some(part) = byte.filter(|byte| byte.is_ascii_alphanumeric() || *byte == b'-') {
            key.push(char::from(part.to_ascii_lowercase()));
            byte = self.next();
        }
        while matches!(byte, Some(b' ' | b'\t')) {
            byte = self.next();
        }
        match byte {
            None | Some(b'\n') => Ok((key, None)),
            Some(b'=') => Ok((key, Some(self.value()?))),
            Some(_) => self.error(),
        }
    }

    fn value(&mut self) -> Result<Vec<u8>, ParseError> {
        let mut value = Vec::new();
        let mut quoted = false;
        // Where trailing space begins that is not followed by anything yet.
        let mut trailing = None;
        loop {
            let byte = match self.next() {
                None | Some(b'\n') if quoted => return self.error(),
                None | Some(b'\n') => break,
                Some(0) => return self.error(),
                Some(byte) => byte,
            };
            if is_space(byte) && !quoted {
                if !value.is_empty() {
                    trailing.get_or_insert(value.len());
                    value.push(byte);
                }
                continue;
            }
            if matches!(byte, b'#' | b';') && !quoted {
                while !matches!(self.next(), None | Some(b'\n')) {}
                break;
            }
            // A line that goes on makes the space before it count, as git has it.
            trailing = None;
            match byte {
                b'"' => quoted = !quoted,
                b'\\' => match self.next() {
                    Some(b'\n') => {}
                    Some(b't') => value.push(b'\t'),
                    Some(b'b') => value.push(8),
                    Some(b'n') => value.push(b'\n'),
                    Some(byte @ (b'\\' | b'"')) => value.push(byte),
                    _ => return self.error(),
                },
                byte => value.push(byte),
            }
        }
        value.truncate(trailing.unwrap_or(value.len()));
        Ok(value)
    }
}
