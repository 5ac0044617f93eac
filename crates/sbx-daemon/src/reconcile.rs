//! At the start: the database's rows and the sandboxes' folders are made to agree. Folders count, because
//! the disks lie in them.

use crate::error::io_report;
use crate::files::{self, Found};
use crate::record::{Record, SCHEMA};
use crate::sandbox::Sandbox;
use crate::secrets::Secrets;
use crate::store::Store;
use sbx_wire::home::Home;
use sbx_wire::launch;
use sbx_wire::report::Report;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Beginning of the name of a folder that is being removed.
pub(crate) const REMOVING: &str = ".removing-";

/// Returns all sandboxes that there are.
pub(crate) fn reconcile(
    home: &Home,
    store: &mut Store,
    secrets: &mut Secrets,
    notices: &mut Vec<String>,
) -> Result<Vec<Sandbox>, Report> {
    let rows: BTreeMap<String, Option<Record>> = store.sandboxes()?.into_iter().collect();
    let mut found: BTreeMap<String, Record> = BTreeMap::new();
    for id in folders(home)? {
        let dir = home.sandbox_dir(&id);
        match folder(&dir, &id, rows.get(&id).and_then(Option::as_ref), notices)? {
            Some(record) if found.contains_key(record.name.as_str()) => {
                notices.push(format!(
                    "{} has the name of another sandbox and is left alone",
                    dir.display()
                ));
            }
            Some(record) => {
                found.insert(record.name.as_str().to_owned(), record);
            }
            None => {}
        }
    }
    let ids: BTreeSet<&String> = found.values().map(|record| &record.id).collect();
    for id in rows.keys().filter(|id| !ids.contains(id)) {
        store.remove_sandbox(id)?;
    }
    for record in found.values() {
        if rows.get(&record.id).and_then(Option::as_ref) != Some(record) {
            store.put_sandbox(record)?;
        }
    }
    forget_strangers(store, secrets, &found)?;
    Ok(found
        .into_values()
        .map(|record| Sandbox::new(home, record))
        .collect())
}

/// Ids of the folders; those of an interrupted removal are removed.
fn folders(home: &Home) -> Result<Vec<String>, Report> {
    let parent = home.sandboxes();
    let fail = |error| io_report("read", &parent, &error);
    let mut ids = Vec::new();
    for entry in fs::read_dir(&parent).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(REMOVING) {
            remove(&entry.path())?;
        } else if is_id(&name) {
            ids.push(name);
        }
    }
    ids.sort();
    Ok(ids)
}

fn is_id(name: &str) -> bool {
    name.len() == 12
        && name
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What lies in one folder. `None`: no sandbox, and nothing that could become one again.
fn folder(
    dir: &Path,
    id: &str,
    row: Option<&Record>,
    notices: &mut Vec<String>,
) -> Result<Option<Record>, Report> {
    let path = dir.join(launch::files::SANDBOX);
    let problem = match files::read_json::<Record>(&path) {
        Found::Good(record) if record.id == id && record.schema == SCHEMA => {
            return Ok(Some(record));
        }
        Found::Good(_) => "it is about another sandbox or of another version".to_owned(),
        // It is written last: a folder without it was never a sandbox.
        Found::Missing if row.is_none() => {
            tracing::info!(id, "removing a half-made sandbox");
            remove(dir)?;
            return Ok(None);
        }
        Found::Missing => "it is missing".to_owned(),
        Found::Corrupt(why) => why,
    };
    if path.exists() {
        files::set_aside(&path)?;
    }
    let Some(record) = row else {
        notices.push(format!(
            "{} is unreadable ({problem}): the sandbox is left alone, remove its folder if you do not need it",
            path.display()
        ));
        return Ok(None);
    };
    files::replace_json(&path, record)?;
    notices.push(format!(
        "{} was mended from the database ({problem})",
        path.display()
    ));
    Ok(Some(record.clone()))
}

/// Removes a folder with all it holds. One that is gone already is fine.
pub(crate) fn remove(dir: &Path) -> Result<(), Report> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_report("remove", dir, &error))
        }
        _ => Ok(()),
    }
}

/// Rules and secrets of sandboxes that are gone would come into force for a later one of the same name.
fn forget_strangers(
    store: &mut Store,
    secrets: &mut Secrets,
    found: &BTreeMap<String, Record>,
) -> Result<(), Report> {
    let strange = |name: &str| !found.contains_key(name);
    if store
        .policy()
        .document
        .rules
        .iter()
        .any(|rule| rule.scope.sandbox().is_some_and(strange))
    {
        store.change_policy(|policy| {
            policy
                .document
                .rules
                .retain(|rule| !rule.scope.sandbox().is_some_and(strange));
            Ok(())
        })?;
    }
    let scopes: BTreeSet<String> = secrets.rows().into_iter().map(|row| row.scope).collect();
    for scope in scopes
        .iter()
        .filter(|scope| !scope.starts_with('(') && strange(scope))
    {
        secrets.remove_sandbox(scope)?;
    }
    Ok(())
}
