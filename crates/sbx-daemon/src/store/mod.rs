//! Desired state: `sbx.db` (SQLite), and beside it `policy.json` and `settings.json`, from which it can be
//! rebuilt together with the sandboxes' folders.
//!
//! The daemon is the only writer. The database is what counts; the mirrors are rewritten in one step after
//! each change and again at each start.

mod database;
mod open;

use crate::files;
use crate::record::Record;
use database::Database;
use sbx_policy::{PolicyDocument, Rule};
use sbx_wire::home::Home;
use sbx_wire::report::Report;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// File names inside the state folder.
pub(crate) const DATABASE: &str = "sbx.db";
const POLICY: &str = "policy.json";
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
        let concerns = |rule: &&Rule| rule.scope.sandbox().is_none_or(|own| Some(own) == name);
        let rules = self
            .document
            .rules
            .iter()
            .filter(concerns)
            .cloned()
            .collect();
        PolicyDocument::new(self.document.generation, rules)
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
        self.database.put_policy(&policy)?;
        self.policy = policy;
        files::replace_json(&self.state.join(POLICY), &self.policy)?;
        Ok(outcome)
    }

    /// Sets (`Some`) or unsets (`None`) one setting.
    pub(crate) fn change_setting(
        &mut self,
        key: &str,
        value: Option<StoredSetting>,
    ) -> Result<(), Report> {
        self.database.put_setting(key, value.as_ref())?;
        match value {
            Some(value) => self.settings.insert(key.to_owned(), value),
            None => self.settings.remove(key),
        };
        files::replace_json(&self.state.join(SETTINGS), &self.settings)
    }

    /// Adds or replaces a sandbox's row.
    pub(crate) fn put_sandbox(&mut self, record: &Record) -> Result<(), Report> {
        self.database.put_sandbox(record)
    }

    /// Removes a sandbox's row.
    pub(crate) fn remove_sandbox(&mut self, id: &str) -> Result<(), Report> {
        self.database.remove_sandbox(id)
    }

    /// All rows. One that cannot be read comes as its id alone.
    pub(crate) fn sandboxes(&self) -> Result<Vec<(String, Option<Record>)>, Report> {
        self.database.sandboxes()
    }

    /// Opens the store, or rebuilds it from the mirrors when the database is broken. `notices` gets a line
    /// for everything that had to be mended.
    ///
    /// # Errors
    /// A database of a newer version, or files that cannot be written.
    pub(crate) fn open(home: &Home, notices: &mut Vec<String>) -> Result<Self, Report> {
        open::open(home, notices)
    }
}
