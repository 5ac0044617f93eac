//! `sandbox.json`: what a sandbox is, whatever happens to the database.
//!
//! Versions: a document with a higher [`SCHEMA`] is of a version that this one cannot understand; it is left as it is.
//! Within a schema a newer version may have added fields at the top: they are written back as they were read and have
//! no effect here. So a field that an older version must not ignore (because it restricts something) raises the
//! schema, and so does every change inside of the other documents in here, such as a workspace.

use sbx_agents::Agent;
use sbx_wire::api::{Kernel, Workspace};
use sbx_wire::launch::Accel;
use sbx_wire::name::SandboxName;
use sbx_workspace::rules::Guarding;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Newest version of the document that is known.
pub(crate) const SCHEMA: u32 = 2;
/// The version before, which has no [`Record::guarding`]. Still written for a sandbox that has none.
const UNGUARDED: u32 = 1;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// See [`Record::schema_of`].
    pub(crate) schema: u32,
    /// 12 lower-case hex digits; also the name of the sandbox's folder.
    pub(crate) id: String,
    /// What people call it.
    pub(crate) name: SandboxName,
    /// Whom it was made for.
    pub(crate) agent: Agent,
    /// Primary first.
    pub(crate) workspaces: Vec<Workspace>,
    /// Variables from its creation.
    pub(crate) env: Vec<(String, String)>,
    /// Virtual CPUs.
    pub(crate) cpus: u16,
    /// Memory, MiB.
    pub(crate) memory_mib: u32,
    /// Accelerator asked for; `None`: probed at each start.
    pub(crate) accel_wanted: Option<Accel>,
    /// Accelerator of the last start.
    pub(crate) accel: Accel,
    /// Kernel of the last start; `None`: it has not been started by an sbx that notes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<Kernel>,
    /// Key of the image that the disks lie on.
    pub(crate) image: String,
    /// Which build of it (`Manifest::build`). Empty: of a version that noted none, as the images of that version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) image_build: String,
    /// The agent's command line.
    pub(crate) agent_command: Vec<String>,
    /// Working directory inside.
    pub(crate) workdir: String,
    /// 32 lower-case hex digits.
    pub(crate) machine_id: String,
    /// What the guest may hold instead of a service's secret, for each that was stored at any time since it was made:
    /// worthless anywhere else.
    pub(crate) placeholders: BTreeMap<String, String>,
    /// Custom secrets whose placeholders it may hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) custom: Vec<GivenCustom>,
    /// What stands inside for tokens that were issued, at any time since it was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) issued: Vec<GivenIssued>,
    /// Keys of AWS that it was handed and that have not ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) handed_in: Vec<HandedKey>,
    /// RFC 3339.
    pub(crate) created_at: String,
    /// RFC 3339; time of the last start.
    pub(crate) last_used_at: Option<String>,
    /// `run --rm`: it is removed once it has ended.
    #[serde(default)]
    pub(crate) remove_when_ended: bool,
    /// What somebody chose to protect and hide. A version that ignored it would show what is hidden.
    #[serde(default, skip_serializing_if = "Guarding::is_default")]
    pub(crate) guarding: Guarding,
    /// Fields that a newer version added.
    #[serde(flatten)]
    pub(crate) newer: Map<String, Value>,
}

/// A custom secret that was in force at any time since the sandbox was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GivenCustom {
    /// Its name then.
    pub(crate) name: String,
    /// What stands for it inside.
    pub(crate) placeholder: String,
    /// Variable that holds that. A sandbox that was there before the secret has none.
    pub(crate) env: Option<String>,
}

/// A key of AWS that ends soon and that the sandbox was handed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandedKey {
    /// Its access key id.
    pub(crate) id: String,
    /// What was stored then, see [`sbx_secrets::ShortLived::id`].
    pub(crate) of: String,
    /// When it ends, seconds since the Unix epoch.
    pub(crate) end_s: u64,
}

/// Something that stands for a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GivenIssued {
    /// The service that the token is for.
    pub(crate) service: String,
    /// The part of the placeholder that is its own, see [`sbx_credentials::oauth::own_part`]: the claims before it may say
    /// who somebody is.
    pub(crate) placeholder: String,
    /// Whether it may be exchanged for others.
    pub(crate) exchanged: bool,
}

/// Why a text is no usable record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    /// Of a version with another schema.
    #[error("it was written by a newer sbx (schema {0}, this one knows {SCHEMA})")]
    Newer(u64),
    /// It is about another sandbox, e.g. because a folder was copied.
    #[error("it is about another sandbox ({0})")]
    Other(String),
    /// No such document.
    #[error("{0}")]
    Broken(String),
}

impl Record {
    /// The oldest version that a document with this in it is for.
    pub(crate) fn schema_of(guarding: &Guarding) -> u32 {
        if guarding.is_default() {
            UNGUARDED
        } else {
            SCHEMA
        }
    }

    /// Reads the document of the sandbox `id`.
    pub(crate) fn parse(id: &str, text: &[u8]) -> Result<Self, Unusable> {
        let broken = |error: serde_json::Error| Unusable::Broken(error.to_string());
        let value: Value = serde_json::from_slice(text).map_err(broken)?;
        let schema = value.get("schema").and_then(Value::as_u64);
        if let Some(newer) = schema.filter(|schema| *schema > u64::from(SCHEMA)) {
            return Err(Unusable::Newer(newer));
        }
        let record: Self = serde_json::from_value(value).map_err(broken)?;
        if record.schema != Self::schema_of(&record.guarding) {
            return Err(Unusable::Broken(format!("it has schema {}", record.schema)));
        }
        if record.id != id {
            let shown: String = record
                .id
                .chars()
                .filter(|c| !c.is_control())
                .take(40)
                .collect();
            return Err(Unusable::Other(shown));
        }
        Ok(record)
    }
}
