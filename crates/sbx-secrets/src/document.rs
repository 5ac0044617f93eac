//! How secrets are written down, and the encryption around it.
//!
//! Versions: a higher [`SCHEMA`] is of a version that this one does not understand: the file is left as it is and nothing is
//! stored. Within a schema, fields at the top that a newer version added are written back as they were read, and so are
//! entries that are not understood; they are never used, because what is not understood could bind them to something.

use crate::recipe::Recipe;
use crate::secret::{AwsUse, Custom, InKeychain, Key, Kind, Registry, Scope, Secret, Source};
use crate::sign_in::SignIn;
use age::x25519;
use sbx_wire::secret::SecretText;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Newest version of the document that is known.
pub(crate) const SCHEMA: u32 = 1;

/// Everything that is stored.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) schema: u32,
    pub(crate) secrets: Vec<Entry>,
    /// Entries of the keychain that may be there and are of no use: their removal is not confirmed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) leftovers: Vec<String>,
    /// What was found when a keychain was looked for; `None`: it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) keychain: Option<Verdict>,
    /// Fields that a newer version added.
    #[serde(flatten)]
    newer: Map<String, Value>,
}

/// What was found when a keychain was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether there is one.
    pub found: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Entry {
    Known(Secret),
    /// Of a newer version.
    Newer(Value),
}

impl Entry {
    /// What it is stored as, as far as that can be told.
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Known(secret) => secret.key.clone(),
            Self::Newer(value) => Key {
                name: value["service"].as_str().unwrap_or("?").to_owned(),
                scope: Scope::of(value["sandbox"].as_str()),
            },
        }
    }

    pub(crate) fn known(&self) -> Option<&Secret> {
        match self {
            Self::Known(secret) => Some(secret),
            Self::Newer(_) => None,
        }
    }
}

/// A secret as it is written down. The first version had the first three fields.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    service: String,
    sandbox: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<SecretText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keychain: Option<InKeychain>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recipe: Option<Recipe>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aws: Option<AwsUse>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    custom: Option<Custom>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    registry: Option<Registry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sign_in: Option<Box<SignIn>>,
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = Row {
            service: self.key.name.clone(),
            sandbox: self.key.scope.sandbox().map(str::to_owned),
            value: None,
            keychain: None,
            recipe: None,
            aws: None,
            custom: None,
            registry: None,
            sign_in: None,
        };
        match &self.source {
            Source::File(value) => row.value = Some(value.clone()),
            Source::Keychain(place) => row.keychain = Some(place.clone()),
            Source::Recipe(recipe) => row.recipe = Some(recipe.clone()),
        }
        match &self.kind {
            Kind::Service => {}
            Kind::Aws(used) => row.aws = Some(used.clone()),
            Kind::Custom(custom) => row.custom = Some(custom.clone()),
            Kind::Registry(registry) => row.registry = Some(registry.clone()),
            Kind::SignIn(sign_in) => row.sign_in = Some(sign_in.clone()),
        }
        row.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let row = Row::deserialize(deserializer)?;
        row.secret()
            .ok_or_else(|| serde::de::Error::custom("not one kind and one source"))
    }
}

impl Row {
    fn secret(self) -> Option<Secret> {
        let mut scope = Scope::of(self.sandbox.as_deref());
        let kind = match (self.aws, self.custom, self.registry, self.sign_in) {
            (None, None, None, None) => Kind::Service,
            (Some(used), None, None, None) => Kind::Aws(used),
            (None, Some(custom), None, None) => Kind::Custom(custom),
            (None, None, None, Some(sign_in)) => Kind::SignIn(sign_in),
            (None, None, Some(registry), None) => {
                if scope == Scope::Global && !registry.all_sandboxes {
                    scope = Scope::Host;
                }
                Kind::Registry(registry)
            }
            _ => return None,
        };
        let source = match (self.value, self.keychain, self.recipe) {
            (Some(value), None, None) => Source::File(value),
            (None, Some(place), None) => Source::Keychain(place),
            (None, None, Some(recipe)) => Source::Recipe(recipe),
            _ => return None,
        };
        Some(Secret {
            key: Key {
                name: self.service,
                scope,
            },
            kind,
            source,
        })
    }
}

/// Why a file is not used.
pub(crate) enum Unusable {
    Newer(u64),
    Broken(String),
}

/// The document as it lies on the disk.
pub(crate) fn seal(identity: &x25519::Identity, document: &Document) -> Result<Vec<u8>, String> {
    let text = serde_json::to_vec(document).map_err(|error| error.to_string())?;
    let sealed = age::encrypt(&identity.to_public(), &text);
    // The plain text goes through SecretText, which wipes it.
    drop(SecretText::new(String::from_utf8(text).unwrap_or_default()));
    sealed.map_err(|error| error.to_string())
}

/// The document in a file.
pub(crate) fn open(identity: &x25519::Identity, sealed: &[u8]) -> Result<Document, Unusable> {
    let broken = |why: &str| Unusable::Broken(why.to_owned());
    let text = age::decrypt(identity, sealed).map_err(|error| broken(&error.to_string()))?;
    let text = SecretText::new(String::from_utf8(text).map_err(|_| broken("not text"))?);
    // The error of the parser could quote a value.
    let strange = |_| broken("not the expected document");
    let value: Value = serde_json::from_str(text.expose()).map_err(strange)?;
    match value["schema"].as_u64() {
        Some(schema) if schema > u64::from(SCHEMA) => return Err(Unusable::Newer(schema)),
        Some(schema) if schema == u64::from(SCHEMA) => {}
        _ => return Err(broken("another version")),
    }
    serde_json::from_value(value).map_err(strange)
}
