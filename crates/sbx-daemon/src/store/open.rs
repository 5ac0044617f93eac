//! Opening the store, and rebuilding it.

use super::database::{Content, Database, OpenError};
use super::{DATABASE, POLICY, Policy, SETTINGS, Store, StoredSetting};
use crate::clock;
use crate::error::io_report;
use crate::files::{self, Found};
use sbx_policy::{PolicyDocument, Preset, Rule};
use sbx_wire::gateway::GatewayFile;
use sbx_wire::home::Home;
use sbx_wire::launch::files::GATEWAY;
use sbx_wire::report::Report;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashSet};
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
        Err(error @ (OpenError::Corrupt(_) | OpenError::Newer(_))) => {
            put_aside(home, &path, &error, notices)?;
            None
        }
        Err(error) => return Err(refusal(&path, &error)),
    };
    let (database, (policy, settings)) = match opened {
        Some(opened) => opened,
        None => rebuild(home, &path, notices)?,
    };
    let store = Store {
        database,
        state,
        policy,
        settings,
    };
    // A full disk is no reason not to start: what is on it can be removed only by a daemon that runs.
    let mirrored = files::ensure_json(&store.state.join(POLICY), &store.policy)
        .and_then(|()| files::ensure_json(&store.state.join(SETTINGS), &store.settings));
    if let Err(error) = mirrored {
        notices.push(format!(
            "the mirrors of the database are not up to date: {error}"
        ));
    }
    Ok(store)
}

/// Renames a database that cannot be used. One of a newer version stays where it is when the policy beside it is not
/// understood either: going on without it would put another policy in its place.
fn put_aside(
    home: &Home,
    path: &Path,
    error: &OpenError,
    notices: &mut Vec<String>,
) -> Result<(), Report> {
    let newer = matches!(error, OpenError::Newer(_));
    let mirror = home.state.join(POLICY);
    if newer && matches!(files::read_json::<Policy>(&mirror), Found::Corrupt(_)) {
        return Err(refusal(path, error));
    }
    let aside = files::set_aside_as(path, if newer { "newer" } else { "corrupt" })?;
    remove_companions(path)?;
    notices.push(format!(
        "the state database was {} ({error}); it is kept as {} and was rebuilt",
        if newer {
            "written by a newer sbx"
        } else {
            "broken"
        },
        aside.display()
    ));
    Ok(())
}

/// A new database with what the mirrors hold, or else the sandboxes' folders. The sandboxes themselves come from
/// there, later.
fn rebuild(
    home: &Home,
    path: &Path,
    notices: &mut Vec<String>,
) -> Result<(Database, Content), Report> {
    let state = &home.state;
    let (mut database, _) = Database::open(path).map_err(|error| refusal(path, &error))?;
    let policy = match mirror::<Policy>(&state.join(POLICY), notices)? {
        Mirror::Good(policy) => policy,
        missing => match (from_sandboxes(home, notices), missing) {
            (Some(policy), _) => policy,
            (None, Mirror::Broken) => {
                notices.push("no policy is left: choose one with `sbx policy init`".to_owned());
                let mut policy = Policy::default();
                // Gateways that still run hold a policy with some generation: a later one is ours.
                policy.document.generation = clock::unix_s();
                policy
            }
            (None, _) => Policy::default(),
        },
    };
    let settings = match mirror::<BTreeMap<String, StoredSetting>>(&state.join(SETTINGS), notices)?
    {
        Mirror::Good(settings) => settings,
        Mirror::Missing => BTreeMap::new(),
        Mirror::Broken => {
            notices.push("the settings are back at their defaults".to_owned());
            BTreeMap::new()
        }
    };
    database.put_policy(&policy)?;
    for (key, value) in &settings {
        database.put_setting(key, Some(value))?;
    }
    Ok((database, (policy, settings)))
}

/// The policy that the sandboxes' gateways work with: each one's file has the rules for all and its own. `None`: no
/// sandbox has one.
fn from_sandboxes(home: &Home, notices: &mut Vec<String>) -> Option<Policy> {
    let folders = fs::read_dir(home.sandboxes()).ok()?;
    let mut files: Vec<GatewayFile> = folders
        .flatten()
        .filter_map(
            |folder| match files::read_json(&folder.path().join(GATEWAY)) {
                Found::Good(file) => Some(file),
                Found::Missing | Found::Corrupt(_) => None,
            },
        )
        .collect();
    // All were written at the last change, unless a disk was full.
    files.sort_by_key(|file: &GatewayFile| std::cmp::Reverse(file.policy.generation));
    let newest = &files.first()?.policy;
    let for_all = newest.rules.iter().filter(|r| r.scope.sandbox().is_none());
    let own = files.iter().flat_map(|file| {
        let rules = file.policy.rules.iter();
        rules.filter(|rule| rule.scope.sandbox() == Some(&file.sandbox))
    });
    let mut ids = HashSet::new();
    let rules: Vec<Rule> = for_all
        .chain(own)
        .filter(|rule| ids.insert(rule.id.as_str()))
        .cloned()
        .collect();
    let preset = preset_of(&rules);
    notices.push(format!(
        "the policy was put together again from what the sandboxes work with: {} rules; look at them with `sbx policy ls`",
        rules.len()
    ));
    let mut document = PolicyDocument::new(newest.generation.saturating_add(1), rules);
    document.governed = newest.governed;
    Some(Policy {
        preset: Some(preset.as_str().to_owned()),
        document,
    })
}

/// The preset that some of the rules come from; without any, the one that has none.
fn preset_of(rules: &[Rule]) -> Preset {
    let known = |preset: &Preset| {
        let its = sbx_policy::preset(*preset);
        its.iter()
            .any(|one| rules.iter().any(|old| old.id == one.id))
    };
    let found = Preset::ALL.into_iter().find(known);
    found.unwrap_or(Preset::DenyAll)
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
                "{} was broken ({why}); it is kept as {}",
                path.display(),
                aside.display()
            ));
            Mirror::Broken
        }
    })
}

/// A journal of another database would be replayed into the new one.
fn remove_companions(path: &Path) -> Result<(), Report> {
    for suffix in ["-journal", "-wal", "-shm"] {
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
            "use that version of sbx; or sbx diagnose --repair, which sets its policy aside",
        ),
        OpenError::Corrupt(_) | OpenError::Sqlite(_) => Report::environment(
            "database",
            format!("{} cannot be used: {error}", path.display()),
            "make the state folder writable and free space on its disk",
        ),
    }
}
