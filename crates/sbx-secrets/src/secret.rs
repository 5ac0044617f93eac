//! What is stored.

use crate::recipe::Recipe;
use crate::sign_in::SignIn;
use sbx_wire::api::AwsEndpoint;
use sbx_wire::secret::SecretText;
use serde::{Deserialize, Serialize};
use std::fmt;

/// For which sandboxes something is stored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// For none: the host alone uses it.
    Host,
    /// For all of them.
    Global,
    /// For the one of this name.
    Sandbox(String),
}

impl Scope {
    /// That of a sandbox, or the one for all.
    pub fn of(sandbox: Option<&str>) -> Self {
        sandbox.map_or(Self::Global, |name| Self::Sandbox(name.to_owned()))
    }

    /// The sandbox, if it is for one.
    pub fn sandbox(&self) -> Option<&str> {
        match self {
            Self::Sandbox(name) => Some(name),
            Self::Host | Self::Global => None,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "(host)",
            Self::Global => "(global)",
            Self::Sandbox(name) => name,
        })
    }
}

/// What tells two secrets apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Name of the service, `custom:` with the name of a custom secret, `registry:` with its host, `oauth:` with service
    /// and number of a sign-in.
    pub name: String,
    /// For which sandboxes.
    pub scope: Scope,
}

/// Something stored.
#[derive(Debug, Clone)]
pub struct Secret {
    /// See [`Key`].
    pub key: Key,
    /// What it is.
    pub kind: Kind,
    /// Where its value comes from.
    pub source: Source,
}

/// What a secret is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// The credential of a service.
    Service,
    /// A key of AWS that is used otherwise than a service's credential is.
    Aws(AwsUse),
    /// A secret of the user's own.
    Custom(Custom),
    /// The login of a registry.
    Registry(Registry),
    /// Tokens that were issued. Their value lies in the file: it is replaced at each refresh, when nobody is there whom a
    /// keychain could ask.
    SignIn(Box<SignIn>),
}

/// A secret that takes the place of its placeholder in requests to the hosts that it is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Custom {
    /// Hosts, as in the network rules.
    pub hosts: Vec<String>,
    /// Variable that holds the placeholder in sandboxes made afterwards.
    pub env: Option<String>,
    /// What the guest holds instead: the same in every sandbox, because the user may have chosen it.
    pub placeholder: String,
    /// Whether it is replaced in bodies too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_body: bool,
}

/// How a key of AWS is used besides: each of it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsUse {
    /// Keys that it gives for 15 minutes are handed into the sandboxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_lived: Option<ShortLived>,
    /// Where it is used besides the hosts of AWS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<AwsEndpoint>,
}

/// How keys are asked for that end soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShortLived {
    /// Another one each time the key is stored: what was handed in before is not in force any more.
    pub id: String,
    /// Region whose STS gives them.
    pub region: String,
    /// A role to take on; without one they are of the key's own user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// The login of a registry; the password is the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// The user.
    pub username: String,
    /// Where the registry has its clients sign in, if that is another host.
    pub auth_endpoint: Option<String>,
    /// Whether sandboxes may use it.
    pub all_sandboxes: bool,
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// It lies in the encrypted file.
    File(SecretText),
    /// It lies in the keychain.
    Keychain(InKeychain),
    /// It is fetched.
    Recipe(Recipe),
}

/// A value in the keychain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InKeychain {
    /// Its entry there: random, so that an entry is never written twice.
    pub id: String,
    /// What may be shown of the value, so that a list asks nobody for a password.
    pub mask: String,
}

impl Kind {
    /// Whether it is the credential of a service.
    pub fn is_service(&self) -> bool {
        matches!(self, Self::Service | Self::Aws(_))
    }

    /// How keys that end soon are asked for, if they are handed in.
    pub fn short_lived(&self) -> Option<&ShortLived> {
        match self {
            Self::Aws(used) => used.short_lived.as_ref(),
            Self::Service | Self::Custom(_) | Self::Registry(_) | Self::SignIn(_) => None,
        }
    }

    /// Where a key of AWS is used besides AWS's hosts.
    pub fn endpoints(&self) -> &[AwsEndpoint] {
        match self {
            Self::Aws(used) => &used.endpoints,
            Self::Service | Self::Custom(_) | Self::Registry(_) | Self::SignIn(_) => &[],
        }
    }
}

impl Source {
    /// What may be shown of the value.
    pub fn shown(&self) -> String {
        match self {
            Self::File(value) => mask(value.expose()),
            Self::Keychain(place) => place.mask.clone(),
            Self::Recipe(recipe) => recipe.shown(),
        }
    }

    /// What holds it, for people.
    pub fn store(&self) -> &'static str {
        match self {
            Self::File(_) => crate::FILE_STORE,
            Self::Keychain(_) => crate::KEYCHAIN_STORE,
            Self::Recipe(recipe) => recipe.origin.name(),
        }
    }
}

/// First characters and last four of a long value, nothing of a short one.
pub fn mask(value: &str) -> String {
    if value.len() < 24 || !value.is_ascii() {
        return "****...****".to_owned();
    }
    format!("{}****...****{}", &value[..6], &value[value.len() - 4..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_shows_nothing_of_a_short_value() {
        assert_eq!(mask("short-password"), "****...****");
        assert_eq!(
            mask("sk-ant-api03-0123456789abcdef"),
            "sk-ant****...****cdef"
        );
    }
}
