//! `/v1/cache`: what can be made anew.

use super::{Shared, parse};
use crate::daemon::Daemon;
use crate::error::ApiResult;
use crate::image::blocking;
use crate::{kernel, programs, warm};
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use sbx_image::{Image, Leftovers, Store};
use sbx_wire::api::{PruneCache, PrunedCache};
use sbx_wire::report::Report;
use std::path::PathBuf;

/// Removes images that no sandbox lies on and no snapshot is being made from, what is left of builds, and all snapshots: nothing depends on those, a machine without one boots.
pub(super) async fn prune(State(daemon): Shared, body: Bytes) -> ApiResult<Json<PrunedCache>> {
    let request: PruneCache = parse(&body)?;
    // It goes with the work, which nobody stops when the client has gone.
    let alone = daemon.images.clone().try_write_owned();
    let alone = alone.map_err(|_| busy())?;
    let keep = needed(&daemon)?;
    let snapshots_of = daemon.warm.images();
    let pruning = Pruning {
        cache: daemon.home.cache.clone(),
        worker: programs::image_worker(&daemon.programs)?,
        guest: programs::find(&daemon.programs)
            .ok()
            .map(|found| found.guest),
        keep,
        snapshots_of,
        dry_run: request.dry_run,
    };
    let pruned = blocking(move || {
        let _alone = alone;
        pruning.run()
    });
    Ok(Json(pruned.await??))
}

/// One look at the cache, or more than a look.
struct Pruning {
    cache: PathBuf,
    worker: PathBuf,
    /// The guest program, where it is known.
    guest: Option<PathBuf>,
    /// Keys of the images that sandboxes lie on.
    keep: Vec<String>,
    /// Keys of those that snapshots are being made from.
    snapshots_of: Vec<String>,
    dry_run: bool,
}

impl Pruning {
    fn run(mut self) -> Result<PrunedCache, Report> {
        let store = Store::new(&self.cache);
        // Without its manifest nobody knows what an image lies on.
        if let Some(key) = self.keep.iter().find(|key| store.open_key(key).is_none()) {
            return Err(Report::environment(
                "image-missing",
                format!("image {key}, which a sandbox lies on, is broken, so nothing is removed"),
                "sbx diagnose",
            ));
        }
        // A machine boots from these, and what is saved of it is worth something only while they are there.
        self.keep.append(&mut self.snapshots_of);
        let kept = self.keep.iter().filter_map(|key| store.open_key(key));
        // First: a build that was interrupted may be in the way of an image that goes.
        let leftovers = self.leftovers(&kept.collect::<Vec<_>>())?;
        let images = if self.dry_run {
            store.unused(&self.keep)
        } else {
            store.prune(&self.keep)
        };
        Ok(PrunedCache {
            images: images.map_err(|error| error.report())?,
            snapshots: warm::prune(&self.cache, self.dry_run)?,
            leftovers,
        })
    }

    /// What machines of the images that stay can not be started with.
    fn leftovers(&self, kept: &[Image]) -> Result<Vec<String>, Report> {
        let kernels: Vec<_> = kept
            .iter()
            .map(|image| kernel::request(&self.cache, image))
            .collect();
        // A small kernel has no modules.
        let none = Vec::new();
        let modules = kept.iter().map(|image| &image.modules).chain([&none]);
        let path = |guest: &PathBuf| {
            let paths =
                modules.map(|modules| sbx_image::initramfs_path(guest, modules, &self.cache));
            paths.collect::<Result<Vec<_>, _>>()
        };
        // One that cannot be read now is nothing to go by.
        let initramfs = self.guest.as_ref().and_then(|guest| path(guest).ok());
        let leftovers = Leftovers {
            cache: &self.cache,
            worker: &self.worker,
            kernels: &kernels,
            initramfs: initramfs.as_deref(),
            dry_run: self.dry_run,
        };
        leftovers.remove().map_err(|error| error.report())
    }
}

fn busy() -> Report {
    Report::user(
        "busy",
        "a sandbox is being made or the cache is being cleared already, so nothing is removed from it",
        "run the command again when that is done",
    )
}

/// Keys of the images that sandboxes lie on.
fn needed(daemon: &Daemon) -> Result<Vec<String>, Report> {
    let sandboxes = daemon.sandboxes();
    let unknown = sandboxes
        .iter()
        .find(|sandbox| sandbox.damage.is_some() && sandbox.record().image.is_empty());
    if let Some(sandbox) = unknown {
        return Err(Report::environment(
            "sandbox-damaged",
            format!(
                "nobody knows which image the damaged sandbox '{}' lies on, so nothing is removed from the cache",
                sandbox.name
            ),
            "sbx diagnose",
        ));
    }
    let mut keys: Vec<String> = sandboxes.iter().map(|s| s.record().image).collect();
    keys.sort();
    keys.dedup();
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn pruning(cache: &Path, snapshots_of: &[&str], dry_run: bool) -> Pruning {
        Pruning {
            cache: cache.to_owned(),
            worker: "/nonexistent".into(),
            guest: None,
            keep: Vec::new(),
            snapshots_of: snapshots_of.iter().map(|key| (*key).to_owned()).collect(),
            dry_run,
        }
    }

    #[test]
    fn image_that_a_snapshot_is_being_made_from_is_kept() {
        let cache = tempfile::tempdir().unwrap();
        for key in ["base-0", "base-1"] {
            fs::create_dir_all(cache.path().join("images").join(key)).unwrap();
        }
        let pruned = pruning(cache.path(), &["base-0"], false).run().unwrap();
        assert_eq!(pruned.images, ["base-1"]);
        assert!(cache.path().join("images/base-0").exists());
        let pruned = pruning(cache.path(), &[], false).run().unwrap();
        assert_eq!(pruned.images, ["base-0"]);
    }

    #[test]
    fn what_no_image_that_stays_can_use_goes_and_is_named_first_when_asked() {
        let cache = tempfile::tempdir().unwrap();
        let below = |name: &str| cache.path().join(name);
        for dir in [
            "images/.building-base-0/modules",
            "images/base-0",
            "kernels/small-0",
        ] {
            fs::create_dir_all(below(dir)).unwrap();
        }
        fs::create_dir(below("initramfs")).unwrap();
        let guest = below("guest");
        fs::write(&guest, "guest").unwrap();
        let used = sbx_image::initramfs_path(&guest, &[], cache.path()).unwrap();
        fs::write(&used, "").unwrap();
        fs::write(below("initramfs/0.cpio"), "").unwrap();
        let gone = ["images/.building-base-0", "initramfs/0.cpio"];
        for dry_run in [true, false] {
            let pruning = Pruning {
                guest: Some(guest.clone()),
                ..pruning(cache.path(), &[], dry_run)
            };
            let pruned = pruning.run().unwrap();
            assert_eq!(pruned.leftovers, gone);
            assert_eq!(pruned.images, ["base-0"]);
            for name in gone {
                assert_eq!(below(name).exists(), dry_run, "{name}");
            }
        }
        // Without an image nobody knows which kernel the next one wants.
        assert!(used.exists() && below("kernels/small-0").exists());
    }
}
