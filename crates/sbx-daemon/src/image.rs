//! Images and accelerators: what has to be there before a machine can start.

use crate::daemon::Daemon;
use crate::events::Events;
use crate::programs;
use crate::record::Record;
use sbx_image::{Image, Request, Store, Template};
use sbx_machine::probe;
use sbx_wire::launch::Accel;
use sbx_wire::report::Report;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The image of an agent, built by the worker when it is not there yet.
pub(crate) async fn ensure(
    daemon: &Daemon,
    agent: Template,
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

/// The image that a sandbox's disks lie on.
pub(crate) fn of(daemon: &Daemon, record: &Record) -> Result<Image, Report> {
    Store::new(&daemon.home.cache)
        .open_key(&record.image)
        .ok_or_else(|| {
            Report::environment(
                "image-missing",
                format!(
                    "image {} of sandbox '{}' is no longer in {}",
                    record.image,
                    record.name,
                    daemon.home.cache.display()
                ),
                format!(
                    "put the cache folder back, or sbx rm {} and create it anew",
                    record.name
                ),
            )
        })
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
    let (guest, modules, cache) = (
        guest.to_owned(),
        modules.to_vec(),
        daemon.home.cache.clone(),
    );
    blocking(move || sbx_image::build_initramfs(&guest, &modules, &cache))
        .await?
        .map_err(|error| error.report())
}

/// Runs something that blocks. It panicking is our bug, not the caller's end.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Report> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Report::bug("task", format!("a task of the daemon failed: {error}")))
}
