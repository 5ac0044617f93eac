//! Keys of AWS: what the guest holds instead, and what it is handed.

use sbx_credentials::sigv4::Placeholder;
use sbx_wire::gateway::HandedIn;

use super::{BoundCredential, Form};

/// How requests to AWS are signed.
#[derive(Debug)]
pub struct AwsForm {
    /// What the guest holds.
    pub placeholder: Placeholder,
    /// What it is handed besides, for a short time.
    pub handed_in: Option<HandedIn>,
}

impl AwsForm {
    /// What a program shows that wants to be handed a key.
    pub fn token(&self) -> Option<&str> {
        let handed_in = self.handed_in.as_ref();
        handed_in.map(|handed_in| handed_in.token.as_str())
    }

    /// Whether the guest was handed the key of this id.
    pub fn hands_in(&self, access_key_id: &str) -> bool {
        let mut handed_in = self.handed_in.iter();
        handed_in.any(|handed_in| handed_in.ids.iter().any(|id| id == access_key_id))
    }
}

impl BoundCredential {
    /// How it signs, if it does.
    pub fn aws(&self) -> Option<&AwsForm> {
        match &self.form {
            Form::Aws(form) => Some(form),
            Form::Header { .. } | Form::Replace { .. } | Form::Registry(_) => None,
        }
    }
}
