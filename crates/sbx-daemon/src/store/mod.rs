//! Desired state: `sbx.db` (SQLite), and beside it `policy.json` and `settings.json`, from which it can be
//! rebuilt together with the sandboxes' folders.
//!
//! The daemon is the only writer. The database is what counts; the mirrors are rewritten in one step with
//! each change and again at each start.
//!
//! Versions: a schema that is higher than ours is not touched. Within a schema a newer version may have added columns
//! that have a default; they keep their values. A rule that is not understood makes the whole policy not understood,
//! because leaving out a deny would open something.

mod database;
pub(crate) mod health;
mod open;

use crate::files;
use crate::record::Record;
use database::Database;
use sbx_policy::PolicyDocument;
use sbx_wire::home::Home;
use sbx_wire::report::Report;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// File names inside the state folder.
pub(crate) const DATABASE: &str = "sbx.db";
pub(crate) const POLICY: &str = "policy.json";
const SETTINGS: &str = "settings.json";

/// The global policy with every sandbox's own rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    /// Preset chosen by `policy init`; `None`: not initialised.
    pub(crate) preset: Option<String>,
    /// All rules of all scopes.
    pub(crate) document: PolicyDocument,
}

impl Policy {
    /// The rules in force for one sandbox: global ones and its own.
    pub(crate) fn for_sandbox(&self, name: Option<&str>) -> PolicyDocument {
        self.document.reduced_to(name)
    }
}

/// A setting that differs from its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredSetting {
    /// As the user gave it, in canonical form.
    pub(crate) value: String,
    /// Content of the file that the value names, where it names one.
    #[serde(default)]
    pub(crate) content: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    database: Database,
    state: PathBuf,
    policy: Policy,
    settings: BTreeMap<String, StoredSetting>,
}

impl Store {
    /// The policy.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Settings that differ from their defaults.
    pub(crate) fn settings(&self) -> &BTreeMap<String, StoredSetting> {
        &self.settings
    }

    /// Changes the policy and gives it the next generation. Nothing is changed when `change` fails or the
    /// result cannot be stored.
    pub(crate) fn change_policy<T>(
        &mut self,
        change: impl FnOnce(&mut Policy) -> Result<T, Report>,
    ) -> Result<T, Report> {
        let mut policy = self.policy.clone();
        let outcome = change(&mut policy)?;
        policy.document.generation = self.policy.document.generation.saturating_add(1);
        // The mirror's content first, its name last: a full disk shows before anything has changed.
        let mirror = files::prepare_json(&self.state.join(POLICY), &policy)?;
        self.database.put_policy(&policy)?;
        self.policy = policy;
        in_place(mirror);
        Ok(outcome)
    }

    /// Sets (`Some`) or unsets (`None`) one setting.
    pub(crate) fn change_setting(
        &mut self,
        key: &str,
        value: Option<StoredSetting>,
    ) -> Result<(), Report> {
        let mut settings = self.settings.clone();
        match value {
            Some(value) => settings.insert(key.to_owned(), value),
            None => settings.remove(key),
        };
        let mirror = files::prepare_json(&self.state.join(SETTINGS), &settings)?;
        self.database.put_setting(key, settings.get(key))?;
        self.settings = settings;
        in_place(mirror);
        Ok(())
    }

    /// Adds or replaces a sandbox's row.
    pub(crate) fn put_sandbox(&mut self, record: &Record) -> Result<(), Report> {
        self.database.put_sandbox(record)
    }

    /// Removes a sandbox's row.
    pub(crate) fn remove_sandbox(&mut self, id: &str) -> Result<(), Report> {
        self.database.remove_sandbox(id)
    }

    /// All rows, by id.
    pub(crate) fn sandboxes(&self) -> Result<BTreeMap<String, Row>, Report> {
        self.database.sandboxes()
    }

    /// Opens the store, or rebuilds it from the mirrors when the database is broken. `notices` gets a line
    /// for everything that had to be mended.
    ///
    /// # Errors
    /// A database of a newer version whose policy is not understood either, or a database that cannot be written.
    pub(crate) fn open(home: &Home, notices: &mut Vec<String>) -> Result<Self, Report> {
        open::open(home, notices)
    }
}

/// A sandbox's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: String,
    /// What it is; `None`: not readable by this version.
    pub(crate) record: Option<Record>,
}

/// The database, which counts, has changed: a mirror that does not follow is written at the next start.
fn in_place(mirror: files::Prepared) {
    if let Err(error) = mirror.finish() {
        tracing::error!(%error, "a mirror of the database");
    }
}
