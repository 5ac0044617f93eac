//! Values: whether one is here, how it is written, and those that a request was given.

use std::sync::Arc;

use hyper::header::HeaderValue;
use sbx_credentials::sigv4::Keys;
use sbx_wire::secret::SecretText;

use super::BoundCredential;

/// Whether a value is here.
#[derive(Debug)]
pub enum Supply {
    /// It is.
    Here(Arc<Material>),
    /// It cannot be had; why, for the guest.
    Unavailable(String),
    /// It is asked for when it is needed.
    OnDemand,
}

/// A value, ready to be written.
#[derive(Debug)]
pub struct Material {
    /// The value of the header. Marked sensitive: its `Debug` shows nothing.
    pub header: Option<HeaderValue>,
    /// The value itself.
    pub text: SecretText,
    /// The key of AWS.
    pub keys: Option<Keys>,
}

/// A credential with the value that is written for one request.
#[derive(Debug, Clone)]
pub struct Supplied {
    /// The credential.
    pub credential: Arc<BoundCredential>,
    /// The value.
    pub material: Arc<Material>,
    /// What it is for.
    pub part: Part,
}

/// What a value is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It is the credential.
    Value,
    /// It is the login that a registry is asked for a token with.
    Asks,
    /// It is a token of a registry.
    Token,
}
