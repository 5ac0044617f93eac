//! Images and accelerators: what has to be there before a machine can start.

use crate::daemon::Daemon;
use crate::events::Events;
use crate::programs;
use crate::record::Record;
use sbx_agents::Agent;
use sbx_image::{Image, Request, Store};
use sbx_machine::probe;
use sbx_wire::launch::Accel;
use sbx_wire::report::Report;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The image of an agent, built by the worker when it is not there yet.
pub(crate) async fn ensure(
    daemon: &Daemon,
    agent: Agent,
    events: &Events,
) -> Result<Image, Report> {
    let worker = programs::image_worker(&daemon.programs)?;
    let request = Request::new(daemon.home.cache.clone(), agent);
    if let Some(image) = Store::new(&request.cache).open(&request) {
        return Ok(image);
    }
    let _waiting = daemon.small.make_way();
    let events = events.clone();
    let ending = daemon.ending.subscribe();
    blocking(move || {
        sbx_image::ensure(&worker, &request, &mut |progress| {
            events.progress(progress);
            if *ending.borrow() {
                return Err(daemon_ending());
            }
            Ok(())
        })
    })
    .await?
}

/// Why a build ended with the daemon.
pub(crate) fn daemon_ending() -> Report {
    Report::environment(
        "daemon-ending",
        "the daemon was stopped during a build",
        "run the command again",
    )
}

/// The image that a sandbox's disks lie on: the very build of it.
pub(crate) fn of(daemon: &Daemon, record: &Record) -> Result<Image, Report> {
    let (store, key) = (Store::new(&daemon.home.cache), &record.image);
    if let Some(image) = store.open_build(key, &record.image_build) {
        return Ok(image);
    }
    let cache = daemon.home.cache.display();
    let why = if store.open_key(key).is_some() {
        format!("was built anew in {cache}: the sandbox's disks do not fit that one")
    } else {
        format!("is no longer in {cache}")
    };
    Err(Report::environment(
        "image-missing",
        format!("image {key} of sandbox '{}' {why}", record.name),
        format!(
            "put the cache folder back as it was, or sbx rm {} and create it anew",
            record.name
        ),
    ))
}

/// The accelerator to use, the wanted one or what a probe finds, with QEMU's version.
pub(crate) async fn accelerator(
    daemon: &Daemon,
    image: &Image,
    wanted: Option<Accel>,
    events: &Events,
) -> Result<probe::Verdict, Report> {
    let qemu = programs::find(&daemon.programs)?.qemu;
    events.step("choosing the accelerator");
    let request = probe::Request {
        qemu: &qemu,
        kernel: &image.kernel,
        kernel_id: &image.kernel_version,
        cache: &daemon.home.cache,
        wanted,
    };
    let verdict = probe::choose(&request).await?;
    tracing::info!(accel = ?verdict.accel, reason = verdict.reason, qemu = %verdict.qemu, "accelerator");
    Ok(verdict)
}

/// The initramfs of a kernel with the guest program beside this daemon.
pub(crate) async fn initramfs(
    daemon: &Arc<Daemon>,
    modules: &[PathBuf],
    guest: &Path,
) -> Result<PathBuf, Report> {
    let built_from = BuiltFrom::new(guest, modules);
    if let Some(built_from) = &built_from
        && let Some(path) = daemon.initramfs.find(built_from)
    {
        return Ok(path);
    }
    let (guest, modules, cache) = (
        guest.to_owned(),
        modules.to_vec(),
        daemon.home.cache.clone(),
    );
    let path = blocking(move || sbx_image::build_initramfs(&guest, &modules, &cache))
        .await?
        .map_err(|error| error.report())?;
    if let Some(built_from) = built_from {
        daemon.initramfs.remember(built_from, path.clone());
    }
    Ok(path)
}

/// Initial RAM disks by what they were built from: naming one takes reading and hashing 14 MB.
#[derive(Debug, Default)]
pub(crate) struct InitramfsCache(Mutex<Vec<(BuiltFrom, PathBuf)>>);

/// A guest program at one time, and the modules of an image.
#[derive(Debug, PartialEq, Eq)]
struct BuiltFrom {
    guest: PathBuf,
    inode: (u64, u64),
    modified: (i64, i64),
    modules: Vec<PathBuf>,
}

impl BuiltFrom {
    fn new(guest: &Path, modules: &[PathBuf]) -> Option<Self> {
        let found = std::fs::metadata(guest).ok()?;
        Some(Self {
            guest: guest.to_owned(),
            inode: (found.dev(), found.ino()),
            modified: (found.mtime(), found.mtime_nsec()),
            modules: modules.to_vec(),
        })
    }
}

impl InitramfsCache {
    /// Most that are remembered.
    const MOST: usize = 16;

    fn known(&self) -> MutexGuard<'_, Vec<(BuiltFrom, PathBuf)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, built_from: &BuiltFrom) -> Option<PathBuf> {
        let known = self.known();
        let (_, path) = known.iter().find(|(other, _)| other == built_from)?;
        path.exists().then(|| path.clone())
    }

    fn remember(&self, built_from: BuiltFrom, path: PathBuf) {
        let mut known = self.known();
        known.retain(|(other, _)| *other != built_from);
        known.push((built_from, path));
        if known.len() > Self::MOST {
            known.remove(0);
        }
    }
}

/// Runs something that blocks. It panicking is our bug, not the caller's end.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Report> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Report::bug("task", format!("a task of the daemon failed: {error}")))
}
