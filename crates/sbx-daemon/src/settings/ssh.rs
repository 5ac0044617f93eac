//! What the settings say of the host's SSH agent.

use crate::store::StoredSetting;
use sbx_wire::report::Report;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{SSH_AGENT, SSH_KEYS, SSH_SOCKET, flag, restricting};

/// Most keys.
const MAX_KEYS: usize = 64;
/// Stands for all keys that are not named.
const OTHERS: &str = "*";
/// In front of a fingerprint, and its length: SHA-256 in Base64 without padding, as `ssh-add -l` prints it.
const DIGEST: &str = "SHA256:";
const DIGEST_LENGTH: usize = 43;

/// Whether a key signs without a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyUse {
    /// It does.
    Allow,
    /// A person is asked each time.
    Confirm,
}

/// What sandboxes may do with the host's SSH agent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ssh {
    /// Whether anything.
    pub(crate) enabled: bool,
    /// The agent's socket, where it is named.
    pub(crate) socket: Option<PathBuf>,
    keys: BTreeMap<String, KeyUse>,
}

impl Ssh {
    /// How a key may be used; `None`: not at all.
    pub(crate) fn key(&self, fingerprint: &str) -> Option<KeyUse> {
        if self.keys.is_empty() {
            return Some(KeyUse::Allow);
        }
        let found = self.keys.get(fingerprint);
        found.or_else(|| self.keys.get(OTHERS)).copied()
    }
}

/// # Errors
/// A stored value that cannot be read, which may be a restriction.
pub(crate) fn ssh(stored: &BTreeMap<String, StoredSetting>) -> Result<Ssh, Report> {
    Ok(Ssh {
        enabled: restricting(stored, SSH_AGENT, flag)?,
        socket: restricting(stored, SSH_SOCKET, |text| socket(text).map(Some))?.flatten(),
        keys: restricting(stored, SSH_KEYS, keys)?,
    })
}

pub(super) fn socket(text: &str) -> Result<Option<PathBuf>, String> {
    let path = Path::new(text);
    match text {
        "" => Ok(None),
        _ if path.is_absolute() => Ok(Some(path.to_owned())),
        _ => Err(format!("{text:?} is not an absolute path")),
    }
}

/// Fingerprints, and `allow` or `confirm`.
pub(super) fn keys(text: &str) -> Result<BTreeMap<String, KeyUse>, String> {
    let raw: BTreeMap<String, String> =
        serde_json::from_str(text).map_err(|error| format!("not a map of texts: {error}"))?;
    if raw.len() > MAX_KEYS {
        return Err(format!("more than {MAX_KEYS} keys"));
    }
    raw.into_iter()
        .map(|(name, usage)| {
            let digest = name.strip_prefix(DIGEST);
            let is_digest = digest.is_some_and(|digest| digest.len() == DIGEST_LENGTH);
            if name != OTHERS && !is_digest {
                return Err(format!(
                    "{name:?} is neither a fingerprint as ssh-add -l prints it nor *"
                ));
            }
            match usage.as_str() {
                "allow" => Ok((name, KeyUse::Allow)),
                "confirm" => Ok((name, KeyUse::Confirm)),
                _ => Err(format!("{usage:?} is neither allow nor confirm")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_not_named_are_not_used_unless_the_star_says_so() {
        let named = format!("{DIGEST}{}", "a".repeat(DIGEST_LENGTH));
        let other = format!("{DIGEST}{}", "b".repeat(DIGEST_LENGTH));
        let of = |text: &str| Ssh {
            keys: keys(text).unwrap(),
            ..Ssh::default()
        };
        assert_eq!(of("{}").key(&other), Some(KeyUse::Allow));
        let one = of(&format!(r#"{{"{named}":"confirm"}}"#));
        assert_eq!(one.key(&named), Some(KeyUse::Confirm));
        assert_eq!(one.key(&other), None);
        let rest = of(&format!(r#"{{"{named}":"allow","*":"confirm"}}"#));
        assert_eq!(rest.key(&named), Some(KeyUse::Allow));
        assert_eq!(rest.key(&other), Some(KeyUse::Confirm));
        for bad in [
            "",
            "[]",
            r#"{"x":"allow"}"#,
            r#"{"*":"maybe"}"#,
            r#"{"SHA256:a":"allow"}"#,
        ] {
            assert!(keys(bad).is_err(), "{bad}");
        }
    }
}
