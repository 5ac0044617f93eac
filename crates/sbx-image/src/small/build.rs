//! The worker's plan for a small kernel.

use super::{SmallKernel, SmallRequest, description, inside};
use crate::build::{in_namespaces, name_log, remove};
use crate::store::Store;
use crate::worker::{Event, Job, Reporter, Step};
use crate::{ImageError, preflight, prune};
use std::env;
use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Returns the small kernel of `request`, building it when it is missing.
pub(crate) fn ensure(
    worker: &Path,
    request: &SmallRequest,
    reporter: &mut Reporter,
) -> Result<SmallKernel, ImageError> {
    let store = Store::kernels(&request.cache);
    let key = request.key();
    if request.open().is_none() {
        preflight::check_small(request)?;
    }
    store.prepare()?;
    // Children inherit it; an error about a full disk then names the right one.
    env::set_current_dir(&request.cache).map_err(ImageError::io("enter", &request.cache))?;
    reporter.plan(Step::SMALL);
    let _lock = store.lock(&key, &mut || {
        reporter.detail("waiting for another build of this kernel")
    })?;
    let dir = store.building(&key);
    let kernel = match request.open() {
        Some(kernel) => kernel,
        None => build(worker, request, &store, &key, reporter)?,
    };
    remove(worker, &dir)?;
    Ok(kernel)
}

fn build(
    worker: &Path,
    request: &SmallRequest,
    store: &Store,
    key: &str,
    reporter: &mut Reporter,
) -> Result<SmallKernel, ImageError> {
    // Nobody takes up those of other kernels again.
    prune::interrupted(worker, store, &[key.to_owned()], false)?;
    let dir = store.building(key);
    // Inside the user namespace root is the caller, and others only pass through by descriptor.
    let made = DirBuilder::new().mode(0o755).recursive(true).create(&dir);
    made.map_err(ImageError::io("create", &dir))?;
    let mut log = store.log(key)?;
    let outcome = run(worker, request, store, key, reporter);
    outcome.map_err(|error| {
        if error.is_abandoned() {
            return error; // and the next build goes on from here
        }
        let _ = writeln!(log, "{error}"); // the error itself is about to be reported
        // What cannot be removed now is removed before the next build.
        let _ = remove(worker, &dir);
        name_log(&error, &store.log_path(key))
    })
}

fn run(
    worker: &Path,
    request: &SmallRequest,
    store: &Store,
    key: &str,
    reporter: &mut Reporter,
) -> Result<SmallKernel, ImageError> {
    let dir = store.building(key);
    let job = Job::Small {
        dir: dir.clone(),
        archive: preflight::archive(request.archive.as_ref())?,
        log: store.log_path(key),
    };
    let built = in_namespaces(worker, &job, &mut |progress| {
        reporter.event(&Event::Progress(progress))
    })?;
    let Event::SmallBuilt { version, source } = built else {
        return Err(ImageError::WorkerDied(
            "it answered something else".to_owned(),
        ));
    };
    description::publish(
        &request.cache,
        key,
        &dir.join(inside::OUT),
        (version, source),
    )
}
