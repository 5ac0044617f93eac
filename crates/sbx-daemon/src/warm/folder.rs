//! `<cache>/snapshots/<key>/`: memory, state and disks of a machine at one moment, and `snapshot.json`, which makes
//! them count. Beside it `<key>.lock`, held while one is made, and `.building-<key>/`.

use crate::error::io_report;
use crate::files::{self, Found};
use crate::lifecycle;
use rustix::fs::{FlockOperation, flock};
use sbx_machine::tsc;
use sbx_wire::launch::{SnapshotFiles, files as names};
use sbx_wire::report::Report;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Most snapshots that are kept. Each takes as much of the disk as a booted machine of memory, some 300 MiB.
const KEPT: usize = 4;
/// Time for the processes of a build whose daemon was killed to end: the supervisor takes up to 5 s to see them go.
const GONE: Duration = Duration::from_secs(10);
/// Between two looks at them.
const POLL: Duration = Duration::from_millis(10);
/// Largest difference between the counter that the guest was calibrated to and the host's, one in so many.
const FREQUENCY: u32 = 1000;
const SCHEMA: u32 = 1;
const MANIFEST: &str = "snapshot.json";
/// End of the name of a lock's file.
const LOCK: &str = ".lock";
const MEMORY: &str = "memory";
const STATE: &str = "state";
/// Beginning of the name of a folder in which a snapshot is being made; its key follows.
pub(super) const BUILDING: &str = ".building-";
/// What a snapshot consists of besides its manifest.
pub(super) const PARTS: [&str; 4] = [MEMORY, STATE, names::UPPER, names::DOCKER];

/// `snapshot.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) schema: u32,
    pub(super) key: String,
    /// For people.
    pub(super) template: String,
    pub(super) cpus: u16,
    pub(super) memory_mib: u32,
    /// The host's counter when the guest booted.
    pub(super) khz: Option<u32>,
    /// RFC 3339.
    pub(super) created_at: String,
}

/// A snapshot that is there. All paths are absolute.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) key: String,
    pub(crate) files: SnapshotFiles,
    /// Disk of a sandbox, to be copied.
    pub(crate) upper: PathBuf,
    /// The same.
    pub(crate) docker: PathBuf,
    dir: PathBuf,
}

impl Snapshot {
    /// Where its parts lie in `dir`.
    pub(super) fn at(dir: &Path, key: &str) -> Self {
        Self {
            key: key.to_owned(),
            files: SnapshotFiles {
                memory: dir.join(MEMORY),
                state: dir.join(STATE),
            },
            upper: dir.join(names::UPPER),
            docker: dir.join(names::DOCKER),
            dir: dir.to_owned(),
        }
    }

    fn parts(&self) -> [&Path; 4] {
        [
            &self.files.memory,
            &self.files.state,
            &self.upper,
            &self.docker,
        ]
    }
}

/// The folder of all.
pub(crate) fn root(cache: &Path) -> PathBuf {
    cache.join("snapshots")
}

/// The lock of the snapshots with one key. Given back by hand: a process that is being started at this moment has the file
/// as well, until it becomes another program.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it, which comes next, does as well in the end.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Takes the lock of the snapshots with this key, until what is returned is dropped. `None`: somebody else makes or
/// removes it.
pub(super) fn lock(root: &Path, key: &str) -> Result<Option<Lock>, Report> {
    let path = root.join(format!("{key}{LOCK}"));
    let io = |error| io_report("lock", &path, &error);
    loop {
        let mut options = File::options();
        let options = options.create(true).truncate(false).write(true);
        let file = options.open(&path).map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(io(error.into())),
        }
        // Whoever removes a snapshot removes its lock, too: the next one to come would take another.
        let ours = file.metadata().map_err(io)?.ino();
        if fs::metadata(&path).is_ok_and(|now| now.ino() == ours) {
            return Ok(Some(Lock(file)));
        }
    }
}

/// Removes everything with this key. False: it is being made or removed.
fn remove_all_of(root: &Path, key: &str) -> Result<bool, Report> {
    let Some(_lock) = lock(root, key)? else {
        return Ok(false);
    };
    let building = root.join(format!("{BUILDING}{key}"));
    if !lifecycle::nothing_runs(&building) {
        return Ok(false);
    }
    crate::reconcile::remove(&building)?;
    crate::reconcile::remove(&root.join(key))?;
    // Last, and while it is held.
    let _ = fs::remove_file(root.join(format!("{key}{LOCK}")));
    Ok(true)
}

/// Removes all snapshots but those that are being made at this moment, and what is left of those that were not finished.
/// Returns the keys of those that counted.
pub(crate) fn prune(cache: &Path, dry_run: bool) -> Result<Vec<String>, Report> {
    let root = root(cache);
    let mut whole = Vec::new();
    for key in all_keys(&root)? {
        let counted = root.join(&key).is_dir();
        let goes = dry_run || remove_all_of(&root, &key)?;
        if counted && goes {
            whole.push(key);
        }
    }
    Ok(whole)
}

/// Keys of everything that lies there, in order.
fn all_keys(root: &Path) -> Result<BTreeSet<String>, Report> {
    let io = |error| io_report("read", root, &error);
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(io(error)),
    };
    let mut keys = BTreeSet::new();
    for entry in entries {
        let name = entry.map_err(io)?.file_name();
        let Some(name) = name.to_str() else { continue };
        let key = name.strip_prefix(BUILDING).unwrap_or(name);
        keys.insert(key.strip_suffix(LOCK).unwrap_or(key).to_owned());
    }
    Ok(keys)
}

/// Keys of the snapshots that somebody began to make.
pub(super) fn begun(cache: &Path) -> Vec<String> {
    let entries = fs::read_dir(root(cache)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter_map(|name| Some(name.strip_prefix(BUILDING)?.to_owned()))
        .collect()
}

/// Waits until nothing of a build is at work whose daemon was killed. False: something still is.
pub(super) async fn has_ended(building: &Path) -> bool {
    let deadline = Instant::now() + GONE;
    while !lifecycle::nothing_runs(building) {
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

/// Removes what was made of a snapshot by a daemon that was killed. False: another daemon makes it.
pub(super) async fn abandon(cache: &Path, key: &str) -> Result<bool, Report> {
    let root = root(cache);
    let Some(_lock) = lock(&root, key)? else {
        return Ok(false);
    };
    let building = root.join(format!("{BUILDING}{key}"));
    if !has_ended(&building).await {
        return Ok(false);
    }
    crate::reconcile::remove(&building).map(|()| true)
}

/// Opens the snapshot with this key; the error says why not, for people.
pub(super) fn open(cache: &Path, key: &str) -> Result<Snapshot, String> {
    let snapshot = Snapshot::at(&root(cache).join(key), key);
    let path = snapshot.dir.join(MANIFEST);
    let manifest: Manifest = match files::read_json(&path) {
        Found::Good(manifest) => manifest,
        Found::Missing => return Err("there is no snapshot of such a machine yet".to_owned()),
        Found::Corrupt(why) => return Err(format!("the snapshot's manifest is broken: {why}")),
    };
    if manifest.schema != SCHEMA || manifest.key != key {
        return Err("the snapshot is of another version".to_owned());
    }
    if !same_frequency(manifest.khz, tsc::khz()) {
        return Err("the host's clock runs at another frequency than the snapshot's".to_owned());
    }
    let missing = snapshot.parts().into_iter().find(|path| !path.is_file());
    if let Some(path) = missing {
        return Err(format!("{} is not there", path.display()));
    }
    // Used just now: the last to be thrown away. Only that depends on it.
    let _ = File::options()
        .append(true)
        .open(&path)
        .and_then(|file| file.set_modified(SystemTime::now()));
    Ok(snapshot)
}

fn same_frequency(then: Option<u32>, now: Option<u32>) -> bool {
    match (then, now) {
        (Some(then), Some(now)) => then.abs_diff(now) <= now / FREQUENCY,
        (then, now) => then == now,
    }
}

/// Makes what was written in `building` count.
pub(super) fn commit(cache: &Path, building: &Path, manifest: &Manifest) -> Result<(), Report> {
    files::replace_json(&building.join(MANIFEST), manifest)?;
    let target = root(cache).join(&manifest.key);
    // One that was given up, or whose manifest is broken.
    if target.exists() {
        crate::reconcile::remove(&target)?;
    }
    let io = |error| io_report("rename", building, &error);
    fs::rename(building, &target).map_err(io)?;
    File::open(root(cache))
        .and_then(|dir| dir.sync_all())
        .map_err(io)?;
    evict(cache);
    Ok(())
}

/// A new manifest.
pub(super) fn manifest(key: &str, template: &str, cpus: u16, memory_mib: u32) -> Manifest {
    Manifest {
        schema: SCHEMA,
        key: key.to_owned(),
        template: template.to_owned(),
        cpus,
        memory_mib,
        khz: tsc::khz(),
        created_at: crate::clock::now(),
    }
}

/// Removes a snapshot. Whoever restores from it at this moment boots instead.
pub(super) fn remove(snapshot: &Snapshot) {
    if let Err(error) = crate::reconcile::remove(&snapshot.dir) {
        tracing::warn!(%error, "a snapshot stays");
    }
}

/// Keys of all that are there, the one used last first.
pub(crate) fn keys(cache: &Path) -> Vec<String> {
    let entries = fs::read_dir(root(cache)).into_iter().flatten().flatten();
    let mut found: Vec<(SystemTime, String)> = entries
        .filter_map(|entry| {
            let used = fs::metadata(entry.path().join(MANIFEST))
                .ok()?
                .modified()
                .ok()?;
            let name = entry.file_name().into_string().ok()?;
            (!name.starts_with('.')).then_some((used, name))
        })
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, key)| key).collect()
}

fn evict(cache: &Path) {
    for key in keys(cache).into_iter().skip(KEPT) {
        tracing::info!(key, "an old snapshot makes room");
        if let Err(error) = remove_all_of(&root(cache), &key) {
            tracing::warn!(%error, "a snapshot stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(cache: &Path, key: &str) {
        let building = root(cache).join(format!(".building-{key}"));
        fs::create_dir_all(&building).unwrap();
        for part in Snapshot::at(&building, key).parts() {
            fs::write(part, b"x").unwrap();
        }
        commit(cache, &building, &manifest(key, "shell", 2, 1024)).unwrap();
    }

    #[test]
    fn the_snapshots_used_last_are_kept() {
        let cache = tempfile::tempdir().unwrap();
        let path = |key: &str| root(cache.path()).join(key).join(MANIFEST);
        for (age, key) in (0..KEPT).map(|n| (100 - n as u64, format!("k{n}"))) {
            make(cache.path(), &key);
            let file = File::options().append(true).open(path(&key)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age))
                .unwrap();
        }
        open(cache.path(), "k0").unwrap();
        make(cache.path(), "new");
        // The first two are of the same moment.
        let mut kept = keys(cache.path());
        kept.sort();
        assert_eq!(kept, ["k0", "k2", "k3", "new"]);
        assert!(
            open(cache.path(), "k1")
                .unwrap_err()
                .contains("no snapshot")
        );
    }

    #[test]
    fn pruning_takes_everything_but_what_is_being_made() {
        let cache = tempfile::tempdir().unwrap();
        for key in ["a", "b", "c"] {
            make(cache.path(), key);
        }
        let root = root(cache.path());
        let left = root.join(format!("{BUILDING}d"));
        fs::create_dir(&left).unwrap();
        let made = lock(&root, "b").unwrap().unwrap();
        assert!(lock(&root, "b").unwrap().is_none());
        assert_eq!(prune(cache.path(), true).unwrap(), ["a", "b", "c"]);
        assert_eq!(prune(cache.path(), false).unwrap(), ["a", "c"]);
        assert!(!left.exists());
        let names = || {
            let entries = fs::read_dir(&root).unwrap().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(), ["b", "b.lock"]);
        drop(made);
        assert_eq!(prune(cache.path(), false).unwrap(), ["b"]);
        assert!(names().is_empty());
    }

    #[test]
    fn a_lock_whose_file_was_removed_is_no_lock() {
        let cache = tempfile::tempdir().unwrap();
        let first = lock(cache.path(), "a").unwrap().unwrap();
        fs::remove_file(cache.path().join("a.lock")).unwrap();
        let second = lock(cache.path(), "a").unwrap().unwrap();
        assert!(lock(cache.path(), "a").unwrap().is_none());
        drop(first);
        assert!(lock(cache.path(), "a").unwrap().is_none());
        drop(second);
        assert!(lock(cache.path(), "a").unwrap().is_some());
    }

    #[test]
    fn what_is_not_whole_or_not_ours_is_not_used() {
        let cache = tempfile::tempdir().unwrap();
        make(cache.path(), "a");
        open(cache.path(), "a").unwrap();
        fs::remove_file(root(cache.path()).join("a").join(STATE)).unwrap();
        assert!(open(cache.path(), "a").unwrap_err().contains("not there"));
        make(cache.path(), "a");
        fs::rename(root(cache.path()).join("a"), root(cache.path()).join("b")).unwrap();
        assert!(
            open(cache.path(), "b")
                .unwrap_err()
                .contains("another version")
        );
        fs::write(root(cache.path()).join("b").join(MANIFEST), "{").unwrap();
        assert!(open(cache.path(), "b").unwrap_err().contains("broken"));
        make(cache.path(), "b");
        open(cache.path(), "b").unwrap();
    }

    #[test]
    fn another_counter_is_noticed_and_noise_is_not() {
        assert!(same_frequency(Some(2_500_000), Some(2_500_900)));
        assert!(!same_frequency(Some(2_500_000), Some(2_510_000)));
        assert!(!same_frequency(None, Some(2_500_000)));
        assert!(same_frequency(None, None));
    }
}
