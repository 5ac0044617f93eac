//! What can be made out of a sandbox whose document cannot be used: enough to list, stop and remove it.
//!
//! Nothing of this is ever written. Each field is taken by itself, so that one that makes no sense costs nothing else.

use crate::files;
use crate::record::Record;
use crate::store::Row;
use sbx_agents::Agent;
use sbx_wire::launch::{self, Accel};
use sbx_wire::name::SandboxName;
use sbx_wire::time::rfc3339;
use sbx_workspace::rules::Guarding;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Longest text that is shown of an agent that is not known, characters.
const LONGEST_AGENT: usize = 40;

/// See the module.
#[derive(Debug)]
pub(crate) struct Salvaged {
    /// Its name, if any of its files has one.
    pub(crate) name: Option<SandboxName>,
    /// The agent as it is written there.
    pub(crate) agent: String,
    record: Record,
}

impl Salvaged {
    /// The record under the name it is shown with.
    pub(crate) fn into_record(self, name: SandboxName) -> Record {
        Record {
            name,
            ..self.record
        }
    }
}

/// The name of a sandbox whose own one is not known, or is another's.
pub(crate) fn stand_in(id: &str) -> Option<SandboxName> {
    SandboxName::parse(&format!("damaged-{id}")).ok()
}

/// Looks at everything in the folder of the sandbox `id`.
pub(crate) fn salvage(dir: &Path, id: &str, row: Option<&Row>) -> Option<Salvaged> {
    let document = value(&dir.join(launch::files::SANDBOX));
    let launched = value(&dir.join(launch::FILE));
    let gateway = value(&dir.join(launch::files::GATEWAY));
    // A document that is about another sandbox says nothing about this one.
    let document = match field::<String>(&document, "id") {
        Some(other) if other != id => Value::Null,
        _ => document,
    };
    let by_row = row.and_then(|row| SandboxName::parse(&row.name).ok());
    let name = field(&document, "name")
        .or(by_row)
        .or_else(|| field(&gateway, "sandbox"))
        .or_else(|| field(&launched, "name"));
    let agent: String = field::<String>(&document, "agent")
        .unwrap_or_else(|| "unknown".to_owned())
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_AGENT)
        .collect();
    let machine = &launched["machine"];
    let record = Record {
        schema: Record::schema_of(&Guarding::default()),
        id: id.to_owned(),
        name: stand_in(id)?,
        agent: field(&document, "agent").unwrap_or(Agent::SHELL),
        workspaces: workspaces(&document),
        env: Vec::new(),
        cpus: field(&document, "cpus")
            .or_else(|| field(machine, "cpus"))
            .unwrap_or(0),
        memory_mib: field(&document, "memory_mib")
            .or_else(|| field(machine, "memory_mib"))
            .unwrap_or(0),
        accel_wanted: None,
        accel: field(&document, "accel").unwrap_or(Accel::Tcg),
        kernel: field(&document, "kernel").unwrap_or_default(),
        image: field(&document, "image").unwrap_or_default(),
        image_build: field(&document, "image_build").unwrap_or_default(),
        agent_command: field(&document, "agent_command").unwrap_or_default(),
        workdir: field(&document, "workdir").unwrap_or_default(),
        machine_id: field(&document, "machine_id").unwrap_or_default(),
        placeholders: field(&document, "placeholders").unwrap_or_default(),
        custom: field(&document, "custom").unwrap_or_default(),
        issued: field(&document, "issued").unwrap_or_default(),
        handed_in: field(&document, "handed_in").unwrap_or_default(),
        created_at: field(&document, "created_at").unwrap_or_else(|| made(dir)),
        last_used_at: field(&document, "last_used_at"),
        remove_when_ended: false,
        // Listed, and not started.
        guarding: Guarding::default(),
        newer: Map::new(),
    };
    Some(Salvaged {
        name,
        agent,
        record,
    })
}

fn value(path: &Path) -> Value {
    match files::read_json(path) {
        files::Found::Good(value) => value,
        files::Found::Missing | files::Found::Corrupt(_) => Value::Null,
    }
}

fn field<T: DeserializeOwned>(document: &Value, name: &str) -> Option<T> {
    let value = document.get(name).filter(|value| !value.is_null())?;
    serde_json::from_value(value.clone()).ok()
}

/// Those whose path and mode are there, whatever else a newer version says about them.
fn workspaces(document: &Value) -> Vec<sbx_wire::api::Workspace> {
    let list = document["workspaces"].as_array();
    list.into_iter()
        .flatten()
        .filter_map(|one| {
            Some(sbx_wire::api::Workspace {
                path: field(one, "path")?,
                read_only: field(one, "read_only")?,
            })
        })
        .collect()
}

/// When its oldest file was written; nothing better is known.
fn made(dir: &Path) -> String {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let oldest = entries
        .filter_map(|entry| entry.metadata().ok()?.modified().ok())
        .min();
    let since = oldest.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    rfc3339(since.map_or(0, |since| since.as_secs()))
}
