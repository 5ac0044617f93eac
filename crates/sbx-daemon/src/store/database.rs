//! The SQLite file.

use super::{Policy, Row, StoredSetting};
use crate::record::Record;
use rusqlite::{Connection, ErrorCode, Transaction, params};
use sbx_policy::{PolicyDocument, Rule};
use sbx_wire::report::Report;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Version of the schema, in `PRAGMA user_version`.
pub(super) const VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE sandboxes (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, document TEXT NOT NULL) STRICT;
    CREATE TABLE rules (id TEXT PRIMARY KEY, scope TEXT NOT NULL, document TEXT NOT NULL) STRICT;
    CREATE TABLE policy (one INTEGER PRIMARY KEY CHECK (one = 1), preset TEXT, generation INTEGER NOT NULL) STRICT;
    CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL, content TEXT) STRICT;
    INSERT INTO policy VALUES (1, NULL, 0);
    PRAGMA user_version = 1;
";

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// Written by a later version of sbx.
    #[error("it has schema version {0}, this sbx knows {VERSION}")]
    Newer(i64),
    /// Not a database, or not this one.
    #[error("{0}")]
    Corrupt(String),
    /// SQLite cannot work with the file: permissions, a full disk.
    #[error("{0}")]
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(
                ErrorCode::PermissionDenied
                | ErrorCode::CannotOpen
                | ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseBusy
                | ErrorCode::OutOfMemory,
            ) => Self::Sqlite(error),
            _ => Self::Corrupt(error.to_string()),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Database {
    connection: Connection,
}

/// Everything but the sandboxes.
pub(super) type Content = (Policy, BTreeMap<String, StoredSetting>);

impl Database {
    /// Opens the file, makes it when there is none, checks it and reads everything that can break.
    pub(super) fn open(path: &Path) -> Result<(Self, Content), OpenError> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        let version = version(&connection)?;
        if version > VERSION {
            return Err(OpenError::Newer(version));
        }
        // A journal beside it, and only while something changes: opening and reading take no space, so that a daemon
        // starts on a full disk and sandboxes can be removed from it.
        connection.pragma_update(None, "journal_mode", "DELETE")?;
        // Every change is on disk before it is answered. The folder's entry of the journal too: EXTRA.
        connection.pragma_update(None, "synchronous", "EXTRA")?;
        let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if check != "ok" {
            return Err(OpenError::Corrupt(check));
        }
        if version == 0 {
            let transaction = connection.transaction()?;
            transaction.execute_batch(SCHEMA)?;
            transaction.commit()?;
        }
        let database = Self { connection };
        let content = (database.policy()?, database.settings()?);
        // A table that is missing or has other columns shows now.
        database
            .connection
            .prepare("SELECT id, name, document FROM sandboxes")?;
        Ok((database, content))
    }

    fn policy(&self) -> Result<Policy, OpenError> {
        let (preset, generation): (Option<String>, i64) =
            self.connection
                .query_row("SELECT preset, generation FROM policy", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
        let mut statement = self
            .connection
            .prepare("SELECT document FROM rules ORDER BY rowid")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        let mut rules: Vec<Rule> = Vec::new();
        for row in rows {
            let rule = serde_json::from_str(&row?)
                .map_err(|error| OpenError::Corrupt(format!("a rule is unreadable: {error}")))?;
            rules.push(rule);
        }
        let generation = u64::try_from(generation)
            .map_err(|_| OpenError::Corrupt("the policy generation is negative".to_owned()))?;
        Ok(Policy {
            preset,
            document: PolicyDocument::new(generation, rules),
        })
    }

    fn settings(&self) -> Result<BTreeMap<String, StoredSetting>, OpenError> {
        let mut statement = self
            .connection
            .prepare("SELECT key, value, content FROM settings")?;
        let rows = statement.query_map([], |row| {
            Ok((
                row.get(0)?,
                StoredSetting {
                    value: row.get(1)?,
                    content: row.get(2)?,
                },
            ))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(super) fn put_policy(&mut self, policy: &Policy) -> Result<(), Report> {
        let generation = i64::try_from(policy.document.generation).unwrap_or(i64::MAX);
        let stored: Vec<(String, String)> = self.in_transaction(|transaction| {
            let mut statement =
                transaction.prepare("SELECT id, document FROM rules ORDER BY rowid")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })?;
        let old: BTreeMap<&String, &String> = stored.iter().map(|(id, text)| (id, text)).collect();
        let mut new = Vec::new();
        for rule in &policy.document.rules {
            let text = serde_json::to_string(rule)
                .map_err(|error| Report::bug("json", format!("cannot encode a rule: {error}")))?;
            new.push((&rule.id, rule.scope.to_string(), text));
        }
        let ids: BTreeSet<&String> = new.iter().map(|(id, ..)| *id).collect();
        // Rows come out in the order in which they went in. Mostly rules come at the end; the rules of a preset that is
        // chosen again move there.
        let kept = stored
            .iter()
            .map(|(id, _)| id)
            .filter(|id| ids.contains(id));
        let added = new
            .iter()
            .map(|(id, ..)| *id)
            .filter(|id| !old.contains_key(id));
        let in_order = kept.chain(added).eq(new.iter().map(|(id, ..)| *id));
        self.in_transaction(|transaction| {
            for id in old.keys().filter(|id| !in_order || !ids.contains(*id)) {
                transaction.execute("DELETE FROM rules WHERE id = ?1", [id])?;
            }
            for (id, scope, text) in &new {
                if !in_order || old.get(id) != Some(&text) {
                    transaction.execute(
                        "INSERT INTO rules (id, scope, document) VALUES (?1, ?2, ?3)
                         ON CONFLICT (id) DO UPDATE SET scope = ?2, document = ?3",
                        params![id, scope, text],
                    )?;
                }
            }
            transaction
                .execute(
                    "UPDATE policy SET preset = ?1, generation = ?2",
                    params![policy.preset, generation],
                )
                .map(drop)
        })
    }

    pub(super) fn put_setting(
        &mut self,
        key: &str,
        value: Option<&StoredSetting>,
    ) -> Result<(), Report> {
        self.in_transaction(|transaction| match value {
            Some(setting) => transaction
                .execute(
                    "INSERT INTO settings (key, value, content) VALUES (?1, ?2, ?3)
                     ON CONFLICT (key) DO UPDATE SET value = ?2, content = ?3",
                    params![key, setting.value, setting.content],
                )
                .map(drop),
            None => transaction
                .execute("DELETE FROM settings WHERE key = ?1", [key])
                .map(drop),
        })
    }

    pub(super) fn put_sandbox(&mut self, record: &Record) -> Result<(), Report> {
        let text = serde_json::to_string(record)
            .map_err(|error| Report::bug("json", format!("cannot encode a sandbox: {error}")))?;
        self.in_transaction(|transaction| {
            let name = record.name.as_str();
            // Of a sandbox that is gone: two never have one name.
            transaction.execute(
                "DELETE FROM sandboxes WHERE name = ?1 AND id <> ?2",
                params![name, record.id],
            )?;
            transaction
                .execute(
                    "INSERT INTO sandboxes (id, name, document) VALUES (?1, ?2, ?3)
                     ON CONFLICT (id) DO UPDATE SET name = ?2, document = ?3",
                    params![record.id, name, text],
                )
                .map(drop)
        })
    }

    pub(super) fn remove_sandbox(&mut self, id: &str) -> Result<(), Report> {
        self.in_transaction(|transaction| {
            transaction
                .execute("DELETE FROM sandboxes WHERE id = ?1", [id])
                .map(drop)
        })
    }

    pub(super) fn sandboxes(&self) -> Result<BTreeMap<String, Row>, Report> {
        let read = || -> Result<BTreeMap<String, Row>, rusqlite::Error> {
            let mut statement = self
                .connection
                .prepare("SELECT id, name, document FROM sandboxes")?;
            let rows = statement.query_map([], |row| {
                let (id, name): (String, String) = (row.get(0)?, row.get(1)?);
                let text: String = row.get(2)?;
                let record = Record::parse(&id, text.as_bytes()).ok();
                Ok((id, Row { name, record }))
            })?;
            rows.collect()
        };
        read().map_err(|error| database_report(&error))
    }

    fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, rusqlite::Error>,
    ) -> Result<T, Report> {
        let run = || -> Result<T, rusqlite::Error> {
            let transaction = self.connection.transaction()?;
            let outcome = work(&transaction)?;
            transaction.commit()?;
            Ok(outcome)
        };
        run().map_err(|error| database_report(&error))
    }
}

/// The version of the schema.
pub(super) fn version(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// A change that could not be stored.
fn database_report(error: &rusqlite::Error) -> Report {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Report::environment(
            "disk-full",
            "the disk that holds sbx.db is full; nothing was changed",
            "free space on that disk, or point SBX_HOME at another one",
        ),
        _ => Report::environment(
            "database",
            format!("the state database cannot be used: {error}"),
            "sbx daemon restart checks it and rebuilds a broken one",
        ),
    }
}
