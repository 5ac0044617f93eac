//! `sbx-daemon --reset [--preserve-secrets]`: ends every sandbox of this home and removes everything that sbx keeps, whatever
//! state it is in. Needs no daemon, and refuses to work beside one.
//!
//! In an order in which an interrupted reset leaves a smaller whole: a sandbox that was not reached is one still.

use crate::error::io_report;
use crate::files;
use crate::host;
use crate::lifecycle;
use crate::reconcile::{self, REMOVING, remove};
use crate::record::Record;
use crate::salvage::{salvage, stand_in};
use crate::sandbox::Sandbox;
use sbx_wire::api::Reset;
use sbx_wire::home::Home;
use sbx_wire::launch::files::SANDBOX;
use sbx_wire::report::Report;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::task::JoinSet;

/// Time that programs in a guest get between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(30);

/// See the module. What the user may edit (the configuration folder) stays.
///
/// # Errors
/// A daemon runs, a sandbox's processes do not end (nothing was removed then), or something cannot be removed.
pub async fn reset(home: Home, preserve_secrets: bool) -> Result<Reset, Report> {
    if !home.state.exists() && !home.cache.exists() {
        return Ok(Reset::default());
    }
    files::private_dir(&home.state)?;
    let lock = host::lock(&home.daemon_lock(), &home.daemon_socket()).await?;
    let sandboxes = sandboxes(&home);
    let mut names: Vec<String> = sandboxes.iter().map(|s| s.name.clone()).collect();
    names.sort();
    end_all(sandboxes).await?;

    for (id, dir) in folders(&home) {
        let trash = home.sandboxes().join(format!("{REMOVING}{id}"));
        fs::rename(&dir, &trash).map_err(|error| io_report("remove", &dir, &error))?;
        remove(&trash)?;
    }
    let lock_name = home.daemon_lock();
    let kept = home.state.join(sbx_secrets::FOLDER);
    empty(&home.state, &|path| {
        path == lock_name || (preserve_secrets && path == kept)
    })?;
    empty(&home.cache, &|_| false)?;
    remove(&home.runtime)?;
    drop(lock);
    Ok(Reset {
        sandboxes: names,
        secrets_kept: preserve_secrets && kept.exists(),
        emptied: vec![home.state, home.cache],
    })
}

fn folders(home: &Home) -> Vec<(String, std::path::PathBuf)> {
    let entries = fs::read_dir(home.sandboxes()).into_iter().flatten();
    entries
        .flatten()
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            )
        })
        .filter(|(id, _)| reconcile::is_id(id))
        .collect()
}

/// All of them, damaged ones included.
fn sandboxes(home: &Home) -> Vec<Sandbox> {
    let found = folders(home).into_iter();
    found
        .filter_map(|(id, dir)| {
            let text = files::read(&dir.join(SANDBOX)).ok().flatten();
            let record = text.and_then(|text| Record::parse(&id, &text).ok());
            let record = match record {
                Some(record) => record,
                None => {
                    let salvaged = salvage(&dir, &id, None)?;
                    let name = salvaged.name.clone().or_else(|| stand_in(&id))?;
                    salvaged.into_record(name)
                }
            };
            Some(Sandbox::new(home, record))
        })
        .collect()
}

async fn end_all(sandboxes: Vec<Sandbox>) -> Result<(), Report> {
    let mut ends = JoinSet::new();
    for sandbox in sandboxes {
        ends.spawn(async move { lifecycle::end(&sandbox, GRACE).await });
    }
    let mut outcome = Ok(());
    while let Some(ended) = ends.join_next().await {
        // The others are ended all the same.
        if let Ok(Err(error)) = ended {
            outcome = Err(error);
        }
    }
    outcome
}

/// Removes what lies in a folder, but for what `keep` says. Links are removed, not followed.
fn empty(folder: &Path, keep: &dyn Fn(&Path) -> bool) -> Result<(), Report> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_report("read", folder, &error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| io_report("read", folder, &error))?;
        let path = entry.path();
        if keep(&path) {
            continue;
        }
        let kind = entry
            .file_type()
            .map_err(|error| io_report("look at", &path, &error))?;
        if kind.is_dir() {
            remove(&path)?;
        } else {
            fs::remove_file(&path).map_err(|error| io_report("remove", &path, &error))?;
        }
    }
    Ok(())
}
