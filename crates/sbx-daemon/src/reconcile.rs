//! At the start: the database's rows and the sandboxes' folders are made to agree. Folders count, because
//! the disks lie in them.
//!
//! No folder that was ever a sandbox is left out or removed: what cannot be used is listed as damaged.

use crate::error::io_report;
use crate::files;
use crate::record::{Record, Unusable};
use crate::salvage::{salvage, stand_in};
use crate::sandbox::{Damage, Sandbox};
use crate::store::{Row, Store};
use sbx_secrets::Vault;
use sbx_wire::home::Home;
use sbx_wire::launch;
use sbx_wire::name::SandboxName;
use sbx_wire::report::Report;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Beginning of the name of a folder that is being removed.
pub(crate) const REMOVING: &str = ".removing-";

/// What the folders say.
#[derive(Debug, Default)]
struct Found {
    good: BTreeMap<String, Record>,
    /// Id, why it cannot be used.
    damaged: Vec<(String, Unusable)>,
}

/// Returns all sandboxes that there are.
pub(crate) fn reconcile(
    home: &Home,
    store: &mut Store,
    secrets: &mut Vault,
    notices: &mut Vec<String>,
) -> Result<Vec<Sandbox>, Report> {
    let rows = store.sandboxes()?;
    let mut found = Found::default();
    let (known, unknown): (Vec<_>, Vec<_>) = folders(home)?
        .into_iter()
        .partition(|id| rows.contains_key(id));
    // Of two with one name, the one that the database knows has it.
    for id in known.into_iter().chain(unknown) {
        let dir = home.sandbox_dir(&id);
        match folder(&dir, &id, rows.get(&id), notices)? {
            Some(Ok(record)) => match found.good.get(record.name.as_str()) {
                Some(first) => {
                    let why = format!("its name '{}' is that of sandbox {}", record.name, first.id);
                    found.damaged.push((id, Unusable::Broken(why)));
                }
                None => {
                    found.good.insert(record.name.as_str().to_owned(), record);
                }
            },
            Some(Err(why)) => found.damaged.push((id, why)),
            None => {}
        }
    }
    agree(store, &rows, &found, notices);
    let mut strangers = true;
    let mut sandboxes = Vec::new();
    for (id, why) in &found.damaged {
        let known = damaged(home, id, rows.get(id), why, &mut sandboxes, &found, notices);
        strangers &= known;
    }
    let good = found.good.into_values();
    sandboxes.extend(good.map(|record| Sandbox::new(home, record)));
    if strangers {
        let names: BTreeSet<&str> = sandboxes.iter().map(|s| s.name.as_str()).collect();
        if let Err(error) = forget_strangers(store, secrets, &names) {
            notices.push(format!(
                "rules or secrets of sandboxes that are gone are still there: {error}"
            ));
        }
    }
    Ok(sandboxes)
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

/// Whether a folder's name is that of a sandbox.
pub(crate) fn is_id(name: &str) -> bool {
    name.len() == 12
        && name
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether there is a folder of a sandbox.
pub(crate) fn has_sandboxes(home: &Home) -> bool {
    let entries = fs::read_dir(home.sandboxes()).into_iter().flatten();
    entries
        .flatten()
        .any(|entry| is_id(&entry.file_name().to_string_lossy()))
}

/// Files of which one is there once a sandbox was started for the first time.
const STARTED: [&str; 4] = [
    launch::FILE,
    launch::files::LAST_EXIT,
    launch::files::SUPERVISOR_LOG,
    launch::files::CONSOLE,
];

/// Whether a folder without a document was never a sandbox: the document is written before the first start.
pub(crate) fn is_half_made(dir: &Path) -> bool {
    !STARTED.iter().any(|name| dir.join(name).exists())
}

/// What lies in one folder. `None`: no sandbox, and nothing that could become one again.
fn folder(
    dir: &Path,
    id: &str,
    row: Option<&Row>,
    notices: &mut Vec<String>,
) -> Result<Option<Result<Record, Unusable>>, Report> {
    let path = dir.join(launch::files::SANDBOX);
    let why = match files::read(&path) {
        Ok(Some(text)) => match Record::parse(id, &text) {
            Ok(record) => return Ok(Some(Ok(record))),
            Err(why) => why,
        },
        // It is written last: a folder without it was never a sandbox.
        Ok(None) if row.is_none() && is_half_made(dir) => {
            tracing::info!(id, "removing a half-made sandbox");
            remove(dir)?;
            return Ok(None);
        }
        Ok(None) => Unusable::Broken("it is missing".to_owned()),
        Err(error) => Unusable::Broken(error.to_string()),
    };
    let row = row.and_then(|row| row.record.as_ref());
    let (Some(record), false) = (row, matches!(why, Unusable::Newer(_))) else {
        return Ok(Some(Err(why)));
    };
    if let Err(error) = mend(&path, record) {
        notices.push(format!("{} cannot be mended: {error}", path.display()));
        return Ok(Some(Err(why)));
    }
    notices.push(format!(
        "{} was mended from the database ({why})",
        path.display()
    ));
    Ok(Some(Ok(record.clone())))
}

/// Puts the database's record in the place of a document that cannot be used, which is kept.
fn mend(path: &Path, record: &Record) -> Result<(), Report> {
    let prepared = files::prepare_json(path, record)?;
    if path.exists() {
        files::set_aside(path)?;
    }
    prepared.finish()
}

/// Makes the database agree with the folders. It is rebuilt from them whenever it has to be, so a change that it does
/// not take (a full disk) is no reason not to start.
fn agree(
    store: &mut Store,
    rows: &BTreeMap<String, Row>,
    found: &Found,
    notices: &mut Vec<String>,
) {
    let good = found.good.values().map(|record| &record.id);
    let ids: BTreeSet<&String> = good.chain(found.damaged.iter().map(|(id, _)| id)).collect();
    let gone = rows.keys().filter(|id| !ids.contains(id));
    let removed = gone.map(|id| store.remove_sandbox(id)).collect::<Vec<_>>();
    let changed = found
        .good
        .values()
        .filter(|record| rows.get(&record.id).and_then(|row| row.record.as_ref()) != Some(*record));
    let put = changed.map(|record| store.put_sandbox(record));
    for error in put
        .collect::<Vec<_>>()
        .into_iter()
        .chain(removed)
        .filter_map(Result::err)
    {
        notices.push(format!("the database is not up to date: {error}"));
    }
}

/// Lists a sandbox whose document cannot be used. False: its name is not known.
fn damaged(
    home: &Home,
    id: &str,
    row: Option<&Row>,
    why: &Unusable,
    sandboxes: &mut Vec<Sandbox>,
    found: &Found,
    notices: &mut Vec<String>,
) -> bool {
    let dir = home.sandbox_dir(id);
    let Some(salvaged) = salvage(&dir, id, row) else {
        return false;
    };
    let taken = |name: &SandboxName| {
        found.good.contains_key(name.as_str())
            || sandboxes.iter().any(|other| other.name == name.as_str())
    };
    let own = salvaged.name.clone();
    let known = own.is_some();
    let own = own.filter(|name| !taken(name));
    let nameless = own.is_none();
    let Some(name) = own.or_else(|| stand_in(id)) else {
        return false;
    };
    let damage = Damage {
        reason: format!("{}: {why}", dir.join(launch::files::SANDBOX).display()),
        newer: matches!(why, Unusable::Newer(_)),
        agent: salvaged.agent.clone(),
        nameless,
    };
    notices.push(format!("sandbox '{name}' is damaged: {}", damage.reason));
    sandboxes.push(Sandbox::damaged(home, salvaged.into_record(name), damage));
    known
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

/// Rules and secrets of sandboxes that are gone would come into force for a later one of the same name. Nothing is
/// forgotten while there is a sandbox whose name is not known: they may be its own.
fn forget_strangers(
    store: &mut Store,
    secrets: &mut Vault,
    names: &BTreeSet<&str>,
) -> Result<(), Report> {
    let strange = |name: &str| !names.contains(name);
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
    secrets
        .remove(|key| key.scope.sandbox().is_some_and(strange))
        .map(drop)
}
