//! Warm start: a sandbox begins as a copy of a machine that has booted already, with its Docker Engine ready.
//!
//! | module | |
//! |---|---|
//! | [`key`] | which machines are the same before they become a sandbox |
//! | [`folder`] | where their snapshots lie |
//! | [`build`] | making one, behind the user's back |
//!
//! A snapshot is a cache: a sandbox copies its memory and its disks and needs it no more. Whatever does not fit
//! is booted instead.

mod build;
mod folder;
mod key;

use crate::daemon::Daemon;
use crate::events::Events;
use crate::record::Record;
use crate::{image, kernel, programs, reconcile, settings};
pub(crate) use folder::{Snapshot, keys, prune};
use key::Wanted;
use sbx_image::Image;
use sbx_machine::args::SPARE_PORTS;
use sbx_wire::api::Event;
use sbx_wire::guest::engine_variables;
use sbx_wire::report::Report;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Attempts at one snapshot, one after the other: under emulation a machine now and then does not come up, and the next
/// one mostly does.
const AT_ONCE: u32 = 2;
/// Attempts at one snapshot in a daemon's life. What failed so often will fail again.
const ATTEMPTS: u32 = 2 * AT_ONCE;

/// Time for a snapshot to be given up when the daemon ends.
const LEAVE: Duration = Duration::from_secs(2);

/// What the daemon knows about its snapshots beyond their folder.
#[derive(Debug, Default)]
pub(crate) struct Warm {
    /// Held by the one that is being made.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Being made, or waiting for it: their keys, and those of the images that they boot from.
    pending: Vec<(String, String)>,
    /// Failures by key, with the last reason.
    failed: BTreeMap<String, (u32, String)>,
}

impl Warm {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keys of the snapshots that are being made or wait for it, and the reasons of those that failed.
    pub(crate) fn progress(&self) -> (Vec<String>, Vec<String>) {
        let state = self.state();
        let failed = state.failed.iter();
        let failed = failed.map(|(key, (_, why))| format!("{key}: {why}"));
        let pending = state.pending.iter().map(|(key, _)| key.clone());
        (pending.collect(), failed.collect())
    }

    /// What came of an attempt.
    fn note(&self, key: &str, made: Result<(), Report>) {
        let mut state = self.state();
        match made {
            Ok(()) => {
                state.failed.remove(key);
            }
            Err(report) => {
                tracing::warn!(key, %report, "no snapshot");
                let failures = state.failed.get(key).map_or(0, |(n, _)| *n);
                let failure = (failures + 1, report.message);
                state.failed.insert(key.to_owned(), failure);
            }
        }
    }

    /// Keys of the images that snapshots are being made from.
    pub(crate) fn images(&self) -> Vec<String> {
        let state = self.state();
        let pending = state.pending.iter();
        pending.map(|(_, image)| image.clone()).collect()
    }
}

/// How a new sandbox comes to life.
#[derive(Debug)]
pub(crate) enum Beginning {
    /// From a snapshot.
    Warm(Snapshot),
    /// By booting.
    Cold {
        /// Why there is nothing warm, for people.
        reason: String,
        /// What would make the next one like it warm.
        next: Option<Box<Wanted>>,
    },
}

/// Looks for a snapshot that this sandbox, which has never run, can begin from.
pub(crate) async fn beginning(
    daemon: &Arc<Daemon>,
    record: &mut Record,
    image: &Image,
    events: &Events,
) -> Result<Beginning, Report> {
    let verdict = image::accelerator(daemon, image, record.accel_wanted, events).await?;
    record.accel = verdict.accel;
    if let Some(reason) = unsuited(daemon, record, image) {
        let next = None;
        return Ok(Beginning::Cold { reason, next });
    }
    let found = programs::find(&daemon.programs)?;
    let kernel = kernel::choose(daemon, image, &verdict, record, None, events).await?;
    let initramfs = image::initramfs(daemon, &kernel.modules, &found.guest).await?;
    let wanted = key::wanted(daemon, record, image, (kernel.file, initramfs), &found.qemu).await?;
    match folder::open(&daemon.home.cache, &wanted.key) {
        Ok(snapshot) => Ok(Beginning::Warm(snapshot)),
        Err(reason) => Ok(Beginning::Cold {
            reason,
            next: Some(Box::new(wanted)),
        }),
    }
}

/// Why this sandbox is not even looked for.
fn unsuited(daemon: &Daemon, record: &Record, image: &Image) -> Option<String> {
    let shares = record.workspaces.len();
    if shares > SPARE_PORTS {
        return Some(format!(
            "it has {shares} workspaces, a restored machine takes {SPARE_PORTS}"
        ));
    }
    if !engine_variables(&record.env).is_empty() {
        return Some(
            "its own variables are for the Docker Engine too, which runs already".to_owned(),
        );
    }
    let store = daemon.store();
    if !settings::starts_warm(store.settings()) {
        return Some(format!("the setting {} is false", settings::WARM_START));
    }
    let volume = settings::docker_volume(store.settings());
    let usual = std::fs::metadata(&image.docker).ok()?.len();
    (volume.is_some_and(|bytes| bytes != usual))
        .then(|| "its Docker volume has a size of its own".to_owned())
}

/// Has the snapshot made when nothing else is going on, unless it is being made already.
pub(crate) fn make_later(daemon: &Arc<Daemon>, wanted: Wanted) {
    let key = wanted.key.clone();
    {
        let mut state = daemon.warm.state();
        let given_up = state.failed.get(&key).is_some_and(|(n, _)| *n >= ATTEMPTS);
        if given_up || state.pending.iter().any(|(pending, _)| *pending == key) {
            return;
        }
        state.pending.push((key.clone(), wanted.image.clone()));
    }
    let daemon = daemon.clone();
    tokio::spawn(async move {
        let _turn = daemon.warm.turn.lock().await;
        for _ in 0..AT_ONCE {
            let made = build::make(&daemon, &wanted).await;
            let done = made.is_ok() || *daemon.ending.borrow();
            daemon.warm.note(&key, made);
            if done {
                break;
            }
        }
        let mut state = daemon.warm.state();
        state.pending.retain(|(pending, _)| *pending != key);
    });
}

/// Removes what an earlier daemon of this home left when it was killed: unfinished snapshots, and sockets of machines that
/// are no sandbox's. Those machines are about to end.
pub(crate) async fn sweep(daemon: Arc<Daemon>) {
    // None is made meanwhile.
    let _turn = daemon.warm.turn.lock().await;
    for key in folder::begun(&daemon.home.cache) {
        match folder::abandon(&daemon.home.cache, &key).await {
            Ok(true) => tracing::info!(key, "an unfinished snapshot was removed"),
            Ok(false) => {}
            Err(error) => tracing::warn!(key, %error, "an unfinished snapshot stays"),
        }
    }
    let entries = std::fs::read_dir(&daemon.home.runtime)
        .into_iter()
        .flatten();
    for entry in entries.flatten() {
        let id = entry.file_name().to_string_lossy().into_owned();
        if !reconcile::is_id(&id) || daemon.home.sandbox_dir(&id).exists() {
            continue;
        }
        if let Err(error) = reconcile::remove(&entry.path()) {
            tracing::warn!(%error, "sockets stay");
        }
    }
}

/// The daemon ends: waits until the snapshot that is being made has been given up.
pub(crate) async fn leave(daemon: &Daemon) {
    let given_up = tokio::time::timeout(LEAVE, daemon.warm.turn.lock()).await;
    if given_up.is_err() {
        tracing::warn!("a snapshot is still being made");
    }
}

/// Takes a snapshot that did not start out of use, and says so.
pub(crate) async fn give_up(snapshot: Snapshot, why: &Report, events: &Events) {
    tracing::warn!(key = snapshot.key, %why, "snapshot given up");
    folder::remove(&snapshot);
    let text = format!("the snapshot did not start, so the machine is booted: {why}");
    events.send(Event::Notice(text)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_snapshots_that_are_being_made_are_known() {
        let warm = Warm::default();
        assert!(warm.images().is_empty());
        let pending = ("key".to_owned(), "base-0".to_owned());
        warm.state().pending.push(pending);
        assert_eq!(warm.images(), ["base-0"]);
        assert_eq!(warm.progress().0, ["key"]);
    }
}
