//! Masks whose names appear while the guest runs: what share and guest's agent say to each other of them.
//!
//! The share has a file that no listing shows ([`CONTROL`], root's alone). The agent keeps a read of it pending, which
//! is answered with the paths at which it is to mount something, and writes back what came of it.

use std::path::Path;

/// The file's name, in the root of the share.
pub const CONTROL: &str = ".sbx-masks";

/// Most bytes that are read or written at once. The longest word fits.
pub const MAX_WORDS: usize = 16 << 10;

/// Most bytes of the name under which the guest keeps such a directory ([`own_name`]): as of any name.
const MAX_OWN_NAME: usize = 255;

/// One word of either side: a letter, the path from the share's root if it is about one, and a NUL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word<'a> {
    /// To the agent: mount there.
    Mount(&'a str),
    /// To the agent: no more of it, close the file.
    End,
    /// From the agent: it is mounted, or was already.
    Mounted(&'a str),
    /// From the agent: it cannot be.
    Failed(&'a str),
    /// From the agent: there is something on the disk for this path, from an earlier start.
    Kept(&'a str),
    /// From the guest, before it goes: the agent is to be told to end.
    Leave,
}

impl<'a> Word<'a> {
    /// Writes it down.
    pub fn put(self, to: &mut Vec<u8>) {
        let (letter, path) = match self {
            Self::Mount(path) => (b'm', path),
            Self::End => (b'e', ""),
            Self::Mounted(path) => (b'+', path),
            Self::Failed(path) => (b'-', path),
            Self::Kept(path) => (b'k', path),
            Self::Leave => (b'l', ""),
        };
        to.push(letter);
        to.extend_from_slice(path.as_bytes());
        to.push(0);
    }

    /// The words in these bytes. What is none is left out, and so is what has no end.
    pub fn all(bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        let whole = bytes.iter().rposition(|byte| *byte == 0).unwrap_or(0);
        let words = bytes.get(..whole).unwrap_or_default();
        words.split(|byte| *byte == 0).filter_map(Self::one)
    }

    fn one(bytes: &'a [u8]) -> Option<Self> {
        let (letter, path) = bytes.split_first()?;
        let path = std::str::from_utf8(path).ok()?;
        match (letter, path.is_empty()) {
            (b'm', false) => Some(Self::Mount(path)),
            (b'+', false) => Some(Self::Mounted(path)),
            (b'-', false) => Some(Self::Failed(path)),
            (b'k', false) => Some(Self::Kept(path)),
            (b'e', true) => Some(Self::End),
            (b'l', true) => Some(Self::Leave),
            _ => None,
        }
    }
}

/// The name under which the guest keeps the directory for a path of its own: one level, whatever the path. `None`: the
/// path is too long for it, and is not masked.
pub fn own_name(path: &Path) -> Option<String> {
    let name = path.to_str()?.replace('%', "%25").replace('/', "%2F");
    (name.len() <= MAX_OWN_NAME).then_some(name)
}

/// The path that has this name.
pub fn path_of(own_name: &str) -> String {
    own_name.replace("%2F", "/").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_were_written_and_nothing_else_is_one() {
        let words = [
            Word::Mount("a b/node_modules"),
            Word::End,
            Word::Mounted("t"),
            Word::Failed("é"),
            Word::Kept("m"),
            Word::Leave,
        ];
        let mut bytes = Vec::new();
        for word in words {
            word.put(&mut bytes);
        }
        assert_eq!(Word::all(&bytes).collect::<Vec<_>>(), words);
        for nothing in [
            &b""[..],
            b"\0",
            b"mpath",
            b"m\0",
            b"epath\0",
            b"?x\0",
            b"m\xff\0",
        ] {
            assert_eq!(Word::all(nothing).count(), 0, "{nothing:?}");
        }
        assert_eq!(Word::all(b"mx\0my").collect::<Vec<_>>(), [Word::Mount("x")]);
    }

    #[test]
    fn a_path_has_a_name_of_one_level_unless_it_is_too_long() {
        for path in ["/w/a%2Fb/node_modules", "/%", "/w/%25"] {
            let name = own_name(Path::new(path)).unwrap();
            assert!(!name.contains('/'), "{name}");
            assert_eq!(path_of(&name), path);
        }
        assert_eq!(own_name(Path::new(&"/a".repeat(64))), None);
        assert!(own_name(Path::new(&"/a".repeat(63))).is_some());
    }
}
