//! Which kernel a machine is started with: the distribution's own, or the small one made from its source.

use crate::daemon::Daemon;
use crate::events::Events;
use crate::record::Record;
use crate::sandbox::Sandbox;
use crate::settings::{self, WantedKernel};
use crate::{image, launching, programs, small_kernel};
use sbx_image::{Image, Priority, SmallKernel, SmallRequest};
use sbx_machine::probe;
use sbx_machine::trial::Trial;
use sbx_wire::api::{Event, Kernel, KernelKind};
use sbx_wire::report::Report;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A kernel for one start.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// File for `-kernel`.
    pub(crate) file: PathBuf,
    /// What its initramfs loads, in order.
    pub(crate) modules: Vec<PathBuf>,
    /// As it is shown.
    pub(crate) shown: Kernel,
}

impl Chosen {
    fn stock(image: &Image) -> Self {
        Self {
            file: image.kernel.clone(),
            modules: image.modules.clone(),
            shown: Kernel {
                kind: KernelKind::Stock,
                version: image.kernel_version.clone(),
            },
        }
    }

    fn small(kernel: SmallKernel) -> Self {
        Self {
            file: kernel.file,
            modules: Vec::new(),
            shown: Kernel {
                kind: KernelKind::Small,
                version: kernel.version,
            },
        }
    }
}

/// The small kernel that can take the place of this image's.
pub(crate) fn request(cache: &Path, image: &Image) -> SmallRequest {
    SmallRequest {
        cache: cache.to_owned(),
        stock: image.kernel_version.clone(),
        archive: None,
    }
}

/// The comparison of an image's kernel with a small one, with this QEMU.
pub(crate) fn trial<'a>(
    cache: &'a Path,
    qemu: &'a Path,
    verdict: &probe::Verdict,
    (image, small): (&'a Image, &'a SmallKernel),
) -> Trial<'a> {
    Trial {
        qemu,
        version: verdict.qemu,
        accel: verdict.accel,
        small: (&small.file, &small.key),
        stock: (&image.kernel, &image.kernel_version),
        cache,
    }
}

/// Chooses by the setting, unless the caller wants this `kind`. `record` says what the last start was with.
pub(crate) async fn choose(
    daemon: &Daemon,
    image: &Image,
    verdict: &probe::Verdict,
    record: &Record,
    kind: Option<KernelKind>,
    events: &Events,
) -> Result<Chosen, Report> {
    let setting = settings::kernel(daemon.store().settings());
    match (kind, setting) {
        (Some(KernelKind::Stock), _) | (None, WantedKernel::Stock) => Ok(Chosen::stock(image)),
        (Some(KernelKind::Small), _) | (None, WantedKernel::Small) => {
            build(daemon, image, events).await.map(Chosen::small)
        }
        (None, WantedKernel::Auto) => {
            if let Some(small) = request(&daemon.home.cache, image).open() {
                let qemu = programs::find(&daemon.programs)?.qemu;
                let cache = &daemon.home.cache;
                let known = trial(cache, &qemu, verdict, (image, &small)).recall();
                if known.is_some_and(|known| known.small) {
                    return Ok(Chosen::small(small));
                }
            }
            daemon.small.look_again();
            if record
                .kernel
                .as_ref()
                .is_some_and(|last| last.kind == KernelKind::Small)
            {
                let text = format!(
                    "the small kernel of the last start is not there or not tried out here: starting with {}",
                    Chosen::stock(image).shown
                );
                events.send(Event::Notice(text)).await;
            }
            Ok(Chosen::stock(image))
        }
    }
}

/// Has the small kernel built while somebody waits for it.
async fn build(daemon: &Daemon, image: &Image, events: &Events) -> Result<SmallKernel, Report> {
    let request = request(&daemon.home.cache, image);
    if let Some(kernel) = request.open() {
        return Ok(kernel);
    }
    let _waiting = daemon.small.make_way();
    let sender = events.clone();
    let built = small_kernel::build(daemon, request, Priority::Waited, move |progress| {
        sender.progress(progress);
        Ok(())
    });
    built.await.map_err(|report| Report {
        message: format!(
            "machine.kernel is small, and that kernel could not be built: {}",
            report.message
        ),
        hint: Some(match report.hint {
            Some(hint) => format!("{hint}; or sbx settings set machine.kernel auto"),
            None => "sbx settings set machine.kernel auto".to_owned(),
        }),
        ..report
    })
}

/// Whether the last start was with the small kernel though nobody insisted on it.
pub(crate) fn was_a_choice(daemon: &Daemon, sandbox: &Sandbox) -> bool {
    let last = sandbox.record().kernel;
    last.is_some_and(|last| last.kind == KernelKind::Small)
        && settings::kernel(daemon.store().settings()) == WantedKernel::Auto
}

/// Starts a machine that did not come up with the small kernel with the distribution's. When that works, the
/// small one is not used here again.
pub(crate) async fn instead(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
    failure: Report,
    events: &Events,
) -> Result<(), Report> {
    tracing::warn!(sandbox = sandbox.name, %failure, "small kernel");
    let text = format!("{failure}: trying again with the distribution's kernel");
    events.send(Event::Notice(text)).await;
    // It is the older failure that says more, when both fail.
    let started =
        launching::launch_with(daemon, sandbox, (Some(KernelKind::Stock), None), events).await;
    if started.is_err() {
        return Err(failure);
    }
    if let Err(report) = condemn(daemon, sandbox, &failure, events).await {
        tracing::warn!(%report, "small kernel");
    }
    Ok(())
}

async fn condemn(
    daemon: &Daemon,
    sandbox: &Sandbox,
    failure: &Report,
    events: &Events,
) -> Result<(), Report> {
    let record = sandbox.record();
    let image = image::of(daemon, &record)?;
    let verdict = image::accelerator(daemon, &image, record.accel_wanted, events).await?;
    let Some(small) = request(&daemon.home.cache, &image).open() else {
        return Ok(());
    };
    let qemu = programs::find(&daemon.programs)?.qemu;
    let reason = format!("a start with it failed: {}", failure.message);
    let cache = &daemon.home.cache;
    let trial = trial(cache, &qemu, &verdict, (&image, &small));
    trial
        .condemn(&reason)
        .map_err(|error| crate::error::io_report("write to", cache, &error))
}
