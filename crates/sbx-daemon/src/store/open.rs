//! Opening the store, and rebuilding it.

use super::database::{Content, Database, OpenError};
use super::{DATABASE, POLICY, Policy, SETTINGS, Store, StoredSetting};
use crate::clock;
use crate::error::io_report;
use crate::files::{self, Found};
use sbx_wire::home::Home;
use sbx_wire::report::Report;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

pub(super) fn open(home: &Home, notices: &mut Vec<String>) -> Result<Store, Report> {
    let state = home.state.clone();
    let path = state.join(DATABASE);
    // An empty file is what a crash leaves at the very first start.
    let fresh = fs::metadata(&path).map_or(true, |meta| meta.len() == 0);
    let opened = match Database::open(&path) {
        Ok(opened) if !fresh => Some(opened),
        Ok(_) => None,
        Err(OpenError::Corrupt(why)) => {
            let aside = files::set_aside(&path)?;
            remove_companions(&path)?;
            notices.push(format!(
                "the state database was broken ({why}); it is kept as {} and was rebuilt",
                aside.display()
            ));
            None
        }
        Err(error) => return Err(refusal(&path, &error)),
    };
    let (database, (policy, settings)) = match opened {
        Some(opened) => opened,
        None => rebuild(&state, &path, notices)?,
    };
    let store = Store {
        database,
        state,
        policy,
        settings,
    };
    files::replace_json(&store.state.join(POLICY), &store.policy)?;
    files::replace_json(&store.state.join(SETTINGS), &store.settings)?;
    Ok(store)
}

/// A new database with what the mirrors hold. The sandboxes come from their folders, later.
fn rebuild(
    state: &Path,
    path: &Path,
    notices: &mut Vec<String>,
) -> Result<(Database, Content), Report> {
    let (mut database, _) = Database::open(path).map_err(|error| refusal(path, &error))?;
    let policy = match mirror::<Policy>(&state.join(POLICY), notices)? {
        Mirror::Good(policy) => policy,
        Mirror::Missing => Policy::default(),
        Mirror::Broken => {
            let mut policy = Policy::default();
            // Gateways that still run hold a policy with some generation: a later one is ours.
            policy.document.generation = clock::unix_s();
            policy
        }
    };
    let found = mirror::<BTreeMap<String, StoredSetting>>(&state.join(SETTINGS), notices)?;
    let settings = match found {
        Mirror::Good(settings) => settings,
        Mirror::Missing | Mirror::Broken => BTreeMap::new(),
    };
    database.put_policy(&policy)?;
    for (key, value) in &settings {
        database.put_setting(key, Some(value))?;
    }
    Ok((database, (policy, settings)))
}

enum Mirror<T> {
    Good(T),
    Missing,
    Broken,
}

fn mirror<T: DeserializeOwned>(
    path: &Path,
    notices: &mut Vec<String>,
) -> Result<Mirror<T>, Report> {
    Ok(match files::read_json(path) {
        Found::Good(value) => Mirror::Good(value),
        Found::Missing => Mirror::Missing,
        Found::Corrupt(why) => {
            let aside = files::set_aside(path)?;
            notices.push(format!(
                "{} was broken ({why}); it is kept as {}, and its content is back at the defaults",
                path.display(),
                aside.display()
            ));
            Mirror::Broken
        }
    })
}

/// A write-ahead log of another database would be replayed into the new one.
fn remove_companions(path: &Path) -> Result<(), Report> {
    for suffix in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let companion = Path::new(&name);
        match fs::remove_file(companion) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_report("remove", companion, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn refusal(path: &Path, error: &OpenError) -> Report {
    match error {
        OpenError::Newer(_) => Report::user(
            "state-too-new",
            format!("{} was written by a newer sbx: {error}", path.display()),
            "use that version of sbx, or another SBX_HOME",
        ),
        OpenError::Corrupt(_) | OpenError::Sqlite(_) => Report::environment(
            "database",
            format!("{} cannot be used: {error}", path.display()),
            "make the state folder writable and free space on its disk",
        ),
    }
}
