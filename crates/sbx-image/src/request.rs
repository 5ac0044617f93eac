//! What may be asked of a build.

use crate::ImageError;
use sbx_agents::Agent;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One build, as the worker reads it from standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The cache folder (absolute); images live in `images/` below it.
    pub cache: PathBuf,
    /// Whom for: the base image, with the agent's layer where it has one.
    pub agent: Agent,
    /// Debian archive to use; `None`: what the machine's apt configuration names.
    #[serde(default)]
    pub archive: Option<AptSources>,
    /// Version or tag of the npm package of an agent's layer; `None`: `latest` at the time of the build.
    #[serde(default)]
    pub agent_version: Option<String>,
    /// Part of the image's key: another number means another image, freshly built.
    #[serde(default)]
    pub revision: u32,
}

impl Request {
    /// A request with nothing but the defaults.
    pub fn new(cache: impl Into<PathBuf>, agent: Agent) -> Self {
        Self {
            cache: cache.into(),
            agent,
            archive: None,
            agent_version: None,
            revision: 0,
        }
    }
}

/// Addresses of a Debian archive, `http` or `https`, without credentials, white space or a final slash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AptSources {
    /// The main archive.
    pub main: String,
    /// The security archive, where known.
    #[serde(default)]
    pub security: Option<String>,
    /// Files with the keys that its releases have to be signed with, absolute; none: what the machine's apt trusts.
    #[serde(default)]
    pub keyrings: Vec<String>,
}

impl AptSources {
    /// Takes the addresses that a user configured.
    ///
    /// # Errors
    /// [`ImageError::BadArchive`].
    pub fn new(main: &str, security: Option<&str>) -> Result<Self, ImageError> {
        let clean =
            |uri: &str| clean_uri(uri).ok_or_else(|| ImageError::BadArchive(uri.to_owned()));
        Ok(Self {
            main: clean(main)?,
            security: security.map(clean).transpose()?,
            keyrings: Vec::new(),
        })
    }
}

/// An address in the form that [`AptSources`] promises. Characters outside the URI set (RFC 3986, 2) would
/// end the word in a sources list, where options in brackets and further words have a meaning of their own.
pub(crate) fn clean_uri(uri: &str) -> Option<String> {
    let (scheme, rest) = uri.split_once("://")?;
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._~:/%+=,&;@".contains(c);
    let known = !host.is_empty() && host.chars().all(fits) && path.chars().all(fits);
    let path = path.trim_end_matches('/');
    let slash = if path.is_empty() { "" } else { "/" };
    known.then(|| format!("{scheme}://{host}{slash}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_loses_its_credentials_and_cannot_smuggle_words() {
        assert_eq!(
            clean_uri("https://user:secret@mirror.example/debian/").as_deref(),
            Some("https://mirror.example/debian")
        );
        assert_eq!(
            clean_uri("http://mirror.example").as_deref(),
            Some("http://mirror.example")
        );
        for bad in [
            "file:/srv/debian",
            "http://",
            "http://a b/",
            "http://a/x [trusted=yes]",
            "mirror",
        ] {
            assert_eq!(clean_uri(bad), None, "{bad}");
        }
    }
}
