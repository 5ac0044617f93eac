//! `/v1/cache`: what can be made anew.

use super::{Shared, parse};
use crate::daemon::Daemon;
use crate::error::ApiResult;
use crate::image::blocking;
use crate::warm;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use sbx_image::Store;
use sbx_wire::api::{PruneCache, PrunedCache};
use sbx_wire::report::Report;
use std::path::Path;

/// Removes images that no sandbox lies on and no snapshot is being made from, and all snapshots: nothing depends on those, a machine without one boots.
pub(super) async fn prune(State(daemon): Shared, body: Bytes) -> ApiResult<Json<PrunedCache>> {
    let request: PruneCache = parse(&body)?;
    // It goes with the work, which nobody stops when the client has gone.
    let alone = daemon.images.clone().try_write_owned();
    let alone = alone.map_err(|_| busy())?;
    let keep = needed(&daemon)?;
    let snapshots_of = daemon.warm.images();
    let cache = daemon.home.cache.clone();
    let pruned = blocking(move || {
        let _alone = alone;
        remove(&cache, keep, snapshots_of, request.dry_run)
    });
    Ok(Json(pruned.await??))
}

/// Removes what is neither in `keep`, which sandboxes lie on, nor in `snapshots_of`.
fn remove(
    cache: &Path,
    mut keep: Vec<String>,
    snapshots_of: Vec<String>,
    dry_run: bool,
) -> Result<PrunedCache, Report> {
    let store = Store::new(cache);
    // Without its manifest nobody knows what an image lies on.
    if let Some(key) = keep.iter().find(|key| store.open_key(key).is_none()) {
        return Err(Report::environment(
            "image-missing",
            format!("image {key}, which a sandbox lies on, is broken, so nothing is removed"),
            "sbx diagnose",
        ));
    }
    // A machine boots from these, and what is saved of it is worth something only while they are there.
    keep.extend(snapshots_of);
    let images = if dry_run {
        store.unused(&keep)
    } else {
        store.prune(&keep)
    };
    Ok(PrunedCache {
        images: images.map_err(|error| error.report())?,
        snapshots: warm::prune(cache, dry_run)?,
    })
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

    #[test]
    fn image_that_a_snapshot_is_being_made_from_is_kept() {
        let cache = tempfile::tempdir().unwrap();
        for key in ["base-0", "base-1"] {
            fs::create_dir_all(cache.path().join("images").join(key)).unwrap();
        }
        let pruned = remove(cache.path(), Vec::new(), vec!["base-0".into()], false).unwrap();
        assert_eq!(pruned.images, ["base-1"]);
        assert!(cache.path().join("images/base-0").exists());
        let pruned = remove(cache.path(), Vec::new(), Vec::new(), false).unwrap();
        assert_eq!(pruned.images, ["base-0"]);
    }
}
