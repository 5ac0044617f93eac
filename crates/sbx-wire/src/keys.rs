//! Keys that detach a terminal: `ctrl-x,letter,…`, as Docker's command writes them.

use std::fmt;
use std::str::FromStr;

/// Most keys of a sequence.
const MAX_KEYS: usize = 8;

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The character on it, in lower case.
    pub character: u8,
    /// Pressed together with Ctrl.
    pub ctrl: bool,
}

impl Key {
    /// The byte that a terminal sends for it, where it reports keys as characters (ASCII, and the control
    /// characters of ECMA-48).
    pub fn byte(self) -> u8 {
        if self.ctrl {
            self.character.to_ascii_uppercase() & 0x1f
        } else {
            self.character
        }
    }
}

/// A sequence of keys; empty: there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<Key>);

impl DetachKeys {
    /// The keys in order.
    pub fn keys(&self) -> &[Key] {
        &self.0
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        let keys: Vec<Key> = text.split(',').map(key).collect::<Result<_, _>>()?;
        if keys.len() > MAX_KEYS {
            return Err(format!("more than {MAX_KEYS} keys"));
        }
        Ok(Self(keys))
    }
}

fn key(text: &str) -> Result<Key, String> {
    let (name, ctrl) = match text.strip_prefix("ctrl-") {
        Some(name) => (name, true),
        None => (text, false),
    };
    let usable = match name.as_bytes() {
        [character @ (b'a'..=b'z' | b'A'..=b'Z')] => Some(character.to_ascii_lowercase()),
        [character @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')] if ctrl => Some(*character),
        _ => None,
    };
    let character = usable.ok_or_else(|| {
        format!("{text:?} is no key: write a letter, or ctrl- and a letter or one of @ [ \\ ] ^ _")
    })?;
    Ok(Key { character, ctrl })
}

impl fmt::Display for DetachKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (at, key) in self.0.iter().enumerate() {
            let (comma, ctrl) = (
                if at > 0 { "," } else { "" },
                if key.ctrl { "ctrl-" } else { "" },
            );
            write!(f, "{comma}{ctrl}{}", char::from(key.character))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_docker_writes_them_and_shown_again() {
        for (text, bytes) in [
            ("ctrl-\\", &[0x1c][..]),
            ("ctrl-p,ctrl-q", &[16, 17]),
            ("ctrl-@,a,ctrl-_", &[0, b'a', 31]),
            ("none", &[]),
        ] {
            let keys: DetachKeys = text.parse().unwrap();
            let sent: Vec<u8> = keys.keys().iter().map(|key| key.byte()).collect();
            assert_eq!(sent, bytes, "{text}");
            assert_eq!(keys.to_string(), text);
        }
        assert_eq!(
            "ctrl-P".parse::<DetachKeys>().unwrap().to_string(),
            "ctrl-p"
        );
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in [
            "",
            ",",
            "ctrl-",
            "ctrl-1",
            "f1",
            "a,,b",
            "1",
            "alt-x",
            "ctrl-p ctrl-q",
            "ö",
        ] {
            assert!(bad.parse::<DetachKeys>().is_err(), "{bad:?}");
        }
        assert!(["a"; 9].join(",").parse::<DetachKeys>().is_err());
    }
}
