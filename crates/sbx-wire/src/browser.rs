//! Opening a page in the host's browser: what a program inside may ask for, and how.
//!
//! The request is `POST` [`PATH`] in origin form to the gateway's proxy port, with the address as the body. The
//! gateway judges it like any other way out and hands it to the daemon, which decides whether the host opens
//! it. The address is hostile: it ends as an argument of a program on the host.

use sbx_policy::{Target, TargetError};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Path of the request.
pub const PATH: &str = "/browser-open";
/// Longest address, bytes. Those of sign-in pages have one to two thousand.
pub const MAX_ADDRESS: usize = 4096;

/// Why a text is no address of a page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// More than [`MAX_ADDRESS`] bytes.
    #[error("the address has more than {MAX_ADDRESS} bytes")]
    TooLong,
    /// A character that no URL consists of (RFC 3986, section 2): white space, controls, quotes, `\`, non-ASCII.
    #[error("the address has characters that no URL consists of; percent-encode them")]
    Character,
    /// Neither `http://` nor `https://`.
    #[error("only addresses that begin with http:// or https:// are opened")]
    Scheme,
    /// A user name or password in front of the host.
    #[error("the address names a user in front of the host")]
    User,
    /// The host or the port is not one.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// The address of a page: `http` or `https`, one way to read it, nothing that a terminal or a program's command
/// line takes for something else. Its text is canonical.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    text: String,
    target: Target,
}

impl Address {
    /// Host and port.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Path without query and fragment, at least `/`.
    pub fn path(&self) -> &str {
        let rest = self.text.splitn(4, '/').nth(3);
        let start = rest.map_or(self.text.len(), |rest| self.text.len() - rest.len() - 1);
        let rest = &self.text[start..];
        &rest[..rest.find(['?', '#']).unwrap_or(rest.len())]
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > MAX_ADDRESS {
            return Err(AddressError::TooLong);
        }
        let known =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte);
        if !text.bytes().all(known) {
            return Err(AddressError::Character);
        }
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Scheme)?;
        let (scheme, default) = match scheme.to_ascii_lowercase().as_str() {
            "http" => ("http", ":80"),
            "https" => ("https", ":443"),
            _ => return Err(AddressError::Scheme),
        };
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(AddressError::User);
        }
        let target = Target::parse(&format!("{scheme}://{authority}"))?;
        let shown = target.to_string();
        let shown = shown.strip_suffix(default).unwrap_or(&shown);
        let slash = if rest.starts_with('/') { "" } else { "/" };
        let text = format!("{scheme}://{shown}{slash}{rest}");
        Ok(Self { text, target })
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.text
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_form() {
        for (given, text, target, path) in [
            (
                "https://Example.COM",
                "https://example.com/",
                "example.com:443",
                "/",
            ),
            (
                "HTTP://a.test:80?q=1",
                "http://a.test/?q=1",
                "a.test:80",
                "/",
            ),
            (
                "https://a.test:8443/x/y?u=http://b/#f",
                "https://a.test:8443/x/y?u=http://b/#f",
                "a.test:8443",
                "/x/y",
            ),
            (
                "http://[2001:db8::1]/a",
                "http://[2001:db8::1]/a",
                "[2001:db8::1]:80",
                "/a",
            ),
            ("http://a.test#x/y", "http://a.test/#x/y", "a.test:80", "/"),
        ] {
            let address: Address = given.parse().unwrap();
            assert_eq!((address.as_str(), address.path()), (text, path));
            assert_eq!(address.target().to_string(), target);
            assert_eq!(text.parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn what_is_no_address_of_a_page_is_refused() {
        for bad in [
            "",
            "example.com",
            "--help",
            "file:///etc/passwd",
            "javascript:alert(1)",
            "data://a.test/x",
            "https://",
            "https:///x",
            "https://a.test/a b",
            "https://a.test/\u{1b}]52;c;",
            "https://a.test/\n-x",
            "https://a.test/\"$(id)\"",
            "https://a.test/`id`",
            "https://a.test\\@b.test/",
            "https://good.test@evil.test/",
            "https://a.test:0/",
            "https://a.test:+80/",
            "https://b\u{fc}cher.example/",
            "https://0x7f.1/",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
        let long = format!("https://a.test/{}", "a".repeat(MAX_ADDRESS));
        assert_eq!(long.parse::<Address>(), Err(AddressError::TooLong));
        let json = "\"ftp://a.test/\"";
        assert!(serde_json::from_str::<Address>(json).is_err());
    }
}
