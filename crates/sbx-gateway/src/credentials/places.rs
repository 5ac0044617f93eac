//! Where in the head of a request a placeholder stands, and where it stands for its value.

use hyper::header::{HeaderName, HeaderValue};
use hyper::http::request::Parts;
use sbx_credentials::substitute;

use super::{BoundCredential, Form};

/// The header of a WebSocket's handshake that is answered with a hash of what stands in it (RFC 6455, section 4.2.2).
const WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");

impl BoundCredential {
    /// Whether the head of a request holds its placeholder.
    pub fn is_in_head(&self, parts: &Parts) -> bool {
        let mut values = parts.headers.values();
        values.any(|value| self.is_in(value.as_bytes())) || self.is_in_url(parts)
    }

    fn is_in_url(&self, parts: &Parts) -> bool {
        self.is_in(parts.uri.to_string().as_bytes())
    }

    /// A header's value with the credential's for the placeholder. `None`: nothing is written there.
    pub fn in_header(&self, name: &HeaderName, text: &[u8], value: &str) -> Option<Vec<u8>> {
        let placeholder = self.placeholder.as_str();
        match self.form {
            Form::Replace { .. } if name == WEBSOCKET_KEY => None,
            Form::Replace { .. } => substitute::in_header(text, placeholder, value),
            Form::Login => substitute::in_login(name.as_str(), text, placeholder, value),
            Form::Header { .. } | Form::Aws(_) | Form::Registry(_) => None,
        }
    }

    /// Whether the head holds its placeholder in a place where it must not stand, although the host may have it.
    pub fn is_misplaced(&self, parts: &Parts) -> bool {
        let stands = |(name, value): (&HeaderName, &HeaderValue)| {
            let stray = match self.form {
                Form::Replace { .. } => name == WEBSOCKET_KEY,
                _ => self.in_header(name, value.as_bytes(), "").is_none(),
            };
            stray && self.is_in(value.as_bytes())
        };
        match self.form {
            Form::Replace { .. } => parts.headers.iter().any(stands),
            Form::Login => self.is_in_url(parts) || parts.headers.iter().any(stands),
            Form::Header { .. } | Form::Aws(_) | Form::Registry(_) => false,
        }
    }
}
