//! `secret`: values go in and never come out.

use crate::secret::SecretText;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// `secret ls`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Secrets {
    /// One row for each credential of a service or registry.
    pub secrets: Vec<SecretRow>,
    /// One row for each custom secret.
    #[serde(default)]
    pub custom: Vec<CustomRow>,
    /// Where the next value goes, e.g. `encrypted file`.
    pub store: String,
}

/// A stored credential, never its value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SecretRow {
    /// `(global)`, `(host)` or the sandbox's name.
    pub scope: String,
    /// `service` or `registry`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the service, host of the registry.
    pub name: String,
    /// Masked value.
    pub secret: String,
    /// What holds the value, e.g. `encrypted file`.
    #[serde(default)]
    pub store: String,
}

/// A custom secret, never its value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CustomRow {
    /// `(global)` or the sandbox's name.
    pub scope: String,
    /// Its name in the log, e.g. `custom:API_TOKEN`.
    pub name: String,
    /// Hosts that it is bound to.
    pub targets: Vec<String>,
    /// Variable that holds the placeholder.
    pub env: Option<String>,
    /// What stands for it inside.
    pub placeholder: String,
    /// Whether it is replaced in bodies too.
    pub in_body: bool,
    /// Masked value.
    pub secret: String,
    /// What holds the value.
    pub store: String,
}

/// `secret set` and `secret import`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetSecret {
    /// Service, e.g. `anthropic`; the variable name `ANTHROPIC_API_KEY` works too.
    pub service: String,
    /// The value, unless it is fetched.
    #[serde(default)]
    pub value: Option<SecretText>,
    /// How the value is fetched.
    #[serde(default)]
    pub fetched: Option<Fetched>,
    /// Sandbox; `None`: global.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// A key of AWS: how keys are handed in that it gives for 15 minutes; `None`: none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_lived: Option<HandIn>,
    /// A key of AWS: where it is used besides AWS's hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<AwsEndpoint>,
    /// Overwrite an existing one.
    #[serde(default)]
    pub force: bool,
    /// Somebody sits at a terminal and may see the keychain ask for a password.
    #[serde(default)]
    pub person: bool,
}

/// Hosts with names of their own that take a key of AWS: a store with the interface of S3, an endpoint inside of a VPC. Its
/// text is `HOST=SERVICE/REGION`. Stored as it is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsEndpoint {
    /// Hosts, as in the network rules, e.g. `minio.example.com:9000`.
    pub host: String,
    /// Signing name of the service, e.g. `s3`.
    pub service: String,
    /// Region, e.g. `us-east-1`.
    pub region: String,
}

impl FromStr for AwsEndpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.rsplit_once('=');
        let parts = parts.and_then(|(host, scope)| Some((host, scope.split_once('/')?)));
        let Some((host, (service, region))) = parts else {
            return Err("it is not HOST=SERVICE/REGION, such as minio.example.com=s3/us-east-1");
        };
        Ok(Self {
            host: host.to_owned(),
            service: service.to_owned(),
            region: region.to_owned(),
        })
    }
}

impl fmt::Display for AwsEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}/{}", self.host, self.service, self.region)
    }
}

/// How keys of AWS that end soon are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HandIn {
    /// Role to take on, an ARN; without one the keys are of the stored key's own user.
    pub role: Option<String>,
    /// Region whose STS is asked; `us-east-1` unless something else is said.
    pub region: Option<String>,
}

/// How a value is fetched each time, instead of being stored. One of `command` and `reference` is given.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fetched {
    /// Command line for the host's shell.
    pub command: Option<String>,
    /// `op://VAULT/ITEM/FIELD`, or the ARN of a secret in AWS Secrets Manager.
    pub reference: Option<String>,
    /// `on-demand`, or how long a value is used, e.g. `55m`; `None`: as is usual for what it is for.
    pub refresh: Option<String>,
    /// Account or profile of the password manager that is chosen where the command runs.
    pub account: Option<String>,
    /// Store it without fetching the value once.
    pub unverified: bool,
    /// Show what a failed attempt wrote to standard error.
    pub show_error: bool,
}

/// `secret set-custom`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SetCustom {
    /// Hosts that it is bound to, as in the network rules; port 443 unless one is named.
    pub hosts: Vec<String>,
    /// Variable that holds the placeholder in sandboxes made afterwards.
    pub env: Option<String>,
    /// The value, unless it is fetched.
    pub value: Option<SecretText>,
    /// How the value is fetched.
    pub fetched: Option<Fetched>,
    /// What the placeholder looks like, with `{rand}` for what is random in it.
    pub placeholder: Option<String>,
    /// Replace it in bodies too.
    pub in_body: bool,
    /// Sandbox; `None`: global.
    pub sandbox: Option<String>,
    /// Overwrite an existing one.
    pub force: bool,
    /// As in [`SetSecret`].
    pub person: bool,
}

/// `secret set --registry`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRegistry {
    /// Host of the registry, with its port if that is not 443.
    pub registry: String,
    /// User.
    pub username: String,
    /// Password.
    pub password: SecretText,
    /// `https` URL where the registry has its clients sign in.
    #[serde(default)]
    pub auth_endpoint: Option<String>,
    /// Sandboxes may use it.
    #[serde(default)]
    pub all_sandboxes: bool,
    /// Only this one may.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// Overwrite an existing one.
    #[serde(default)]
    pub force: bool,
    /// As in [`SetSecret`].
    #[serde(default)]
    pub person: bool,
}

/// What was stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredSecret {
    /// Name of the service, custom secret or registry.
    pub name: String,
    /// `(global)`, `(host)` or the sandbox's name.
    pub scope: String,
    /// Masked value.
    pub secret: String,
    /// What holds the value, e.g. `encrypted file`.
    pub store: String,
    /// Of a custom secret: what stands for it inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<String>,
    /// What somebody should know about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// `secret rm`. What is meant is the one of the fields `service`, `registry`, `placeholder` and `all` that is given.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RemoveSecret {
    /// The credential of this service.
    pub service: Option<String>,
    /// The logins of this registry for the host alone and for all sandboxes, or what `sandbox` and `all_sandboxes` leave of
    /// them.
    pub registry: Option<String>,
    /// The custom secret with this placeholder.
    pub placeholder: Option<String>,
    /// Everything in the scope.
    pub all: bool,
    /// Sandbox; `None`: global.
    pub sandbox: Option<String>,
    /// Only the login for all sandboxes.
    pub all_sandboxes: bool,
    /// As in [`SetSecret`].
    pub person: bool,
}

/// What was removed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemovedSecrets {
    /// In order of scope and name.
    pub removed: Vec<RemovedSecret>,
    /// What somebody should know about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// One of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RemovedSecret {
    /// `(global)`, `(host)` or the sandbox's name.
    pub scope: String,
    /// Name of the service, custom secret or registry.
    pub name: String,
}

/// `secret set SERVICE --oauth`: somebody is to agree in the host's browser.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskConsent {
    /// Service.
    pub service: String,
}

/// Where somebody agrees.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Consent {
    /// Number of the question.
    pub id: String,
    /// The page.
    pub page: String,
    /// Why it was not opened.
    pub not_opened: Option<String>,
    /// How long it is waited, seconds.
    pub limit_s: u64,
}

/// Waits until somebody agreed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwaitConsent {
    /// Number of the question.
    pub id: String,
}
