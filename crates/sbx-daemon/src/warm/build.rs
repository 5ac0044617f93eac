//! Making a snapshot: a supervisor boots a machine of its own, prepares it, and writes it down.

use super::folder::{self, Snapshot};
use super::key::Wanted;
use crate::daemon::Daemon;
use crate::error::io_report;
use crate::{files, host, image, launching, lifecycle, programs, random, reconcile, settings};
use sbx_machine::disk::create_overlay;
use sbx_wire::launch::{self, Launch, MachineSpec, Origin, files as names};
use sbx_wire::report::Report;
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// From a machine that has come up to a written snapshot. It runs at low priority, beside whatever the user does.
const LIMIT: Duration = Duration::from_mins(3);
/// Space that has to be free beside the memory of the machine, which is mostly zero, MiB.
const MIN_FREE_MIB: u64 = 2048;
/// What stays of an attempt that failed, until the next one or the next daemon.
const LOGS: [&str; 3] = [names::SUPERVISOR_LOG, names::CONSOLE, names::LAST_EXIT];
/// Whom others go before (`nice(2)`).
const NICE: &str = "10";

/// Makes the snapshot, unless it is there or another daemon makes it.
pub(super) async fn make(daemon: &Daemon, wanted: &Wanted) -> Result<(), Report> {
    if *daemon.ending.borrow() {
        return Err(image::daemon_ending());
    }
    let cache = &daemon.home.cache;
    let root = folder::root(cache);
    files::private_dir(&root)?;
    let Some(_lock) = folder::lock(&root, &wanted.key)? else {
        return Ok(());
    };
    if folder::open(cache, &wanted.key).is_ok() {
        return Ok(());
    }
    check_space(&root)?;
    let building = root.join(format!("{}{}", folder::BUILDING, wanted.key));
    if building.exists() {
        // Of an attempt that failed, or of a daemon that was killed: then its supervisor is about to end.
        if !lifecycle::nothing_runs(&building) {
            return Ok(());
        }
        reconcile::remove(&building)?;
    }
    files::private_dir(&building)?;
    let id = random::hex(12)?;
    let runtime = host::sandbox_runtime(&daemon.home, &id)?;
    let made = run(daemon, wanted, &building, &id, &runtime).await;
    let cleaned = reconcile::remove(&runtime);
    if let Err(error) = made.and(cleaned) {
        let kept: &[&str] = if *daemon.ending.borrow() { &[] } else { &LOGS };
        // The first error is the one to report.
        if let Err(second) = leave_only(&building, kept) {
            tracing::warn!(%second, "after a snapshot that was not made");
        }
        return Err(error);
    }
    let machine = &wanted.machine;
    let manifest = folder::manifest(
        &wanted.key,
        &wanted.template,
        machine.cpus,
        machine.memory_mib,
    );
    let cache = cache.clone();
    // Gigabytes are written and removed: nobody waits for that.
    image::blocking(move || {
        leave_only(&building, &folder::PARTS)?;
        sync(&building)?;
        folder::commit(&cache, &building, &manifest)
    })
    .await??;
    tracing::info!(
        key = wanted.key,
        template = wanted.template,
        "snapshot made"
    );
    Ok(())
}

fn check_space(root: &Path) -> Result<(), Report> {
    let stat = rustix::fs::statvfs(root).map_err(|e| io_report("look at", root, &e.into()))?;
    let free_mib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    if free_mib >= MIN_FREE_MIB {
        return Ok(());
    }
    Err(Report::environment(
        "disk-full",
        format!("{free_mib} MiB are free for snapshots, {MIN_FREE_MIB} are wanted"),
        "free space on the disk that holds the cache",
    ))
}

async fn run(
    daemon: &Daemon,
    wanted: &Wanted,
    building: &Path,
    id: &str,
    runtime: &Path,
) -> Result<(), Report> {
    let found = programs::find(&daemon.programs)?;
    let dir = building
        .canonicalize()
        .map_err(|error| io_report("find", building, &error))?;
    let snapshot = Snapshot::at(&dir, &wanted.key);
    tokio::try_join!(
        create_overlay(&found.qemu_img, &wanted.upper, &snapshot.upper, None),
        create_overlay(&found.qemu_img, &wanted.docker, &snapshot.docker, None),
    )?;
    let stored = daemon.store().settings().clone();
    let start_limit = settings::start_limit(&stored);
    let document = Launch {
        schema: launch::SCHEMA,
        id: id.to_owned(),
        name: format!("snapshot-{}", wanted.key),
        runtime: runtime.to_owned(),
        machine: MachineSpec {
            upper: snapshot.upper,
            docker: snapshot.docker,
            ..wanted.machine.clone()
        },
        programs: launch::Programs {
            qemu: found.qemu,
            gateway: found.gateway,
            share: found.share,
        },
        shares: Vec::new(),
        auto_stop_s: None,
        personalise: wanted.personalise.clone(),
        origin: Origin::Save(snapshot.files),
        unconfined: !settings::confined(&stored),
        start_limit_s: u32::try_from(start_limit.as_secs()).ok(),
        dir,
    };
    files::replace_json(&building.join(launch::FILE), &document)?;
    supervise(daemon, building, start_limit + LIMIT).await
}

/// Runs a supervisor to its end.
async fn supervise(daemon: &Daemon, building: &Path, limit: Duration) -> Result<(), Report> {
    let program = programs::supervisor(&daemon.programs)?;
    let mut command = launching::supervisor(Path::new("nice"), building)?;
    command.args(["-n", NICE]).arg(&program).arg(building);
    let mut child = command
        .kill_on_drop(true)
        // By its end the supervisor knows that we have ended, however that happened.
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| io_report("start", &program, &error))?;
    // Waiting for a child would close it.
    let _until_it_ended = child.stdin.take();
    let mut ending = daemon.ending.subscribe();
    let failed = |why: String| {
        let log = building.join(names::SUPERVISOR_LOG);
        Report::environment(
            "snapshot-failed",
            format!("the machine for a snapshot was not saved: {why}"),
            format!("read {}", log.display()),
        )
    };
    let why = tokio::select! {
        status = child.wait() => match status {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => crate::sandbox::last_words(building).unwrap_or_else(|| status.to_string()),
            Err(error) => error.to_string(),
        },
        () = tokio::time::sleep(limit) => format!("it took more than {} s", limit.as_secs()),
        _ = ending.wait_for(|ending| *ending) => "the daemon was stopped".to_owned(),
    };
    // Its helpers die with it, a moment later.
    let _ = child.kill().await;
    folder::has_ended(building).await;
    Err(failed(why))
}

/// Removes everything else from the folder, and the folder itself when that leaves nothing.
fn leave_only(building: &Path, kept: &[&str]) -> Result<(), Report> {
    if kept.is_empty() {
        return reconcile::remove(building);
    }
    let io = |error| io_report("tidy", building, &error);
    for entry in fs::read_dir(building).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if kept.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        if path.is_dir() {
            reconcile::remove(&path)?;
        } else {
            fs::remove_file(&path).map_err(io)?;
        }
    }
    Ok(())
}

/// The disks were written by QEMU; the memory is on disk already.
fn sync(building: &Path) -> Result<(), Report> {
    folder::PARTS.iter().try_for_each(|name| {
        let path = building.join(name);
        let synced = File::open(&path).and_then(|file| file.sync_all());
        synced.map_err(|error| io_report("sync", &path, &error))
    })
}
