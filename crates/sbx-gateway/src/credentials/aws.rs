//! Keys of AWS: what the guest holds instead, and what it is handed.

use sbx_credentials::sigv4::{Endpoint, Placeholder, Refusal, is_of_aws};
use sbx_policy::Target;
use sbx_wire::gateway::HandedIn;

use super::{BoundCredential, Form};

/// How requests to AWS are signed.
#[derive(Debug)]
pub struct AwsForm {
    /// What the guest holds.
    pub placeholder: Placeholder,
    /// What it is handed besides, for a short time.
    pub handed_in: Option<HandedIn>,
    /// What requests to its hosts are signed for, where their names do not say it.
    pub own: Option<Endpoint>,
}

impl AwsForm {
    /// What requests to a target are signed for. A name of AWS means what it says, whatever anybody says of it.
    pub fn endpoint(&self, target: &Target) -> Result<Endpoint, Refusal> {
        let host = target.host.to_string();
        match &self.own {
            Some(own) if !is_of_aws(&host) => Ok(own.clone()),
            _ => Endpoint::of(&host),
        }
    }

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
            Form::Header { .. } | Form::Replace { .. } | Form::Login | Form::Registry(_) => None,
        }
    }
}
