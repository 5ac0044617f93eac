//! The worker's plan: what is missing, in which order, under which lock.

use crate::client::converse;
use crate::image::Image;
use crate::manifest::{Disk, FinishStep, Kernel, Manifest, SCHEMA};
use crate::request::Request;
use crate::store::Store;
use crate::worker::{Event, Job, Reporter, Step};
use crate::{ImageError, create_ext4, inside, layer, namespace, preflight, recipe};
use sbx_agents::{Agent, Install, Layer};
use sbx_wire::api::Progress;
use std::collections::BTreeMap;
use std::env;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest that an agent's program may take to say its version inside an emulated machine, seconds.
const CHECK_S: u32 = 300;

/// Returns the image of `request`, building it and its base where they are missing.
pub(crate) fn ensure(
    worker: &Path,
    request: &Request,
    reporter: &mut Reporter,
) -> Result<Image, ImageError> {
    let store = Store::new(&request.cache);
    if let Some(image) = store.open(request) {
        return Ok(image);
    }
    if !request.cache.is_absolute() {
        let detail = request.cache.display().to_string();
        return Err(ImageError::Unexpected {
            what: "the cache folder must be an absolute path",
            detail,
        });
    }
    preflight::check(request)?;
    // Children inherit it; an error about a full disk then names the right one.
    env::set_current_dir(&request.cache).map_err(ImageError::io("enter", &request.cache))?;
    let base = recipe::base_key(request);
    let base_steps = if store.open_key(&base).is_some() {
        0
    } else {
        Step::BASE
    };
    let layer_steps = if request.agent.has_layer() {
        Step::LAYER
    } else {
        0
    };
    reporter.plan(base_steps + layer_steps);

    let image = under_lock(&store, worker, &base, reporter, |log, reporter| {
        build_base(worker, request, &store, log, reporter)
    })?;
    match &request.agent.install {
        Install::Base | Install::Inside(_) => Ok(image),
        Install::Layer(layer) => {
            let key = recipe::image_key(request);
            under_lock(&store, worker, &key, reporter, |log, reporter| {
                build_layer(request, layer, &store, (&key, &image), log, reporter)
            })
        }
    }
}

/// Opens `key` or has `build` make it. Whatever an earlier or this build leaves behind is removed.
fn under_lock(
    store: &Store,
    worker: &Path,
    key: &str,
    reporter: &mut Reporter,
    build: impl FnOnce(&mut File, &mut Reporter) -> Result<Image, ImageError>,
) -> Result<Image, ImageError> {
    if let Some(image) = store.open_key(key) {
        return Ok(image);
    }
    let _lock = store.lock(key, &mut || {
        reporter.detail("waiting for another build of this image")
    })?;
    // It may have been built while we waited.
    if let Some(image) = store.open_key(key) {
        return Ok(image);
    }
    let dir = store.building(key);
    remove(worker, &dir)?;
    let spoilt = store.dir(key);
    if spoilt.exists() {
        fs::remove_dir_all(&spoilt).map_err(ImageError::io("remove", &spoilt))?;
    }
    // Inside the user namespace root is the caller, and others only pass through by descriptor.
    DirBuilder::new()
        .mode(0o755)
        .create(&dir)
        .map_err(ImageError::io("create", &dir))?;
    let mut log = store.log(key)?;
    build(&mut log, reporter).map_err(|error| {
        let _ = writeln!(log, "{error}"); // the error itself is about to be reported
        // What cannot be removed now is removed before the next build.
        let _ = remove(worker, &dir);
        name_log(&error, &store.log_path(key))
    })
}

/// A tool's last words are rarely the whole story: says where it is.
pub(crate) fn name_log(error: &ImageError, log: &Path) -> ImageError {
    let mut report = error.report();
    if report.code == "image-build-failed" {
        report.hint = Some(format!("read {}, then repeat the command", log.display()));
    }
    ImageError::Reported(report)
}

/// Removes a folder of a build. In a tree that was on disk many users own files: those go in a namespace.
pub(crate) fn remove(worker: &Path, dir: &Path) -> Result<(), ImageError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => in_namespaces(
            worker,
            &Job::Clean {
                dir: dir.to_owned(),
            },
            &mut |_| Ok(()),
        )
        .map(drop),
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(ImageError::io("remove", dir)(error))
        }
        _ => Ok(()),
    }
}

fn build_base(
    worker: &Path,
    request: &Request,
    store: &Store,
    _log: &mut File,
    reporter: &mut Reporter,
) -> Result<Image, ImageError> {
    let key = recipe::base_key(request);
    let dir = store.building(&key);
    let job = Job::Base {
        dir: dir.clone(),
        archive: preflight::archive(request.archive.as_ref())?,
        log: store.log_path(&key),
        total: reporter.total(),
    };
    let built = in_namespaces(worker, &job, &mut |progress| {
        reporter.event(&Event::Progress(progress))
    })?;
    let Event::Built {
        kernel_version,
        kernel_file,
        modules,
        packages,
    } = built
    else {
        return Err(ImageError::WorkerDied(
            "it answered something else".to_owned(),
        ));
    };
    reporter.step(Step::Disks)?;
    remove(worker, &dir.join(inside::WORK))?;
    let disk = |file: &str, label, bytes| -> Result<Option<Disk>, ImageError> {
        create_ext4(&dir.join(file), label, bytes)?;
        Ok(Some(Disk {
            file: file.to_owned(),
            bytes,
        }))
    };
    store.publish(Manifest {
        kernel: Some(Kernel {
            version: kernel_version,
            file: kernel_file,
        }),
        modules,
        upper: disk("upper.ext4", "sbx-upper", recipe::UPPER_BYTES)?,
        docker: disk("docker.ext4", "sbx-docker", recipe::DOCKER_BYTES)?,
        packages,
        agent_command: Agent::SHELL.command_line(),
        ..manifest("base", &key, inside::ROOTFS)?
    })
}

fn build_layer(
    request: &Request,
    layer: &Layer,
    store: &Store,
    (key, base): (&str, &Image),
    log: &mut File,
    reporter: &mut Reporter,
) -> Result<Image, ImageError> {
    let dir = store.building(key);
    reporter.step(Step::Agent)?;
    let tree = dir.join("tree");
    let versions = layer::fetch(layer, recipe::agent_version(request), &dir, &tree, log)?;
    reporter.step(Step::Layer)?;
    let file = "layer.erofs";
    inside::write_erofs(&tree, &dir.join(file), true)?;
    fs::remove_dir_all(&tree).map_err(ImageError::io("remove", &tree))?;
    store.publish(Manifest {
        base: Some(base.key.clone()),
        base_build: base.manifest.build.clone(),
        packages: versions.into_iter().collect(),
        agent_command: request.agent.command_line(),
        finish: vec![FinishStep {
            argv: layer.check.iter().map(|word| (*word).to_owned()).collect(),
            user: "agent".to_owned(),
            limit_s: CHECK_S,
        }],
        ..manifest(request.agent.name, key, file)?
    })
}

fn manifest(template: &str, key: &str, lower: &str) -> Result<Manifest, ImageError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // Another one at each reading (random(4)).
    let random = Path::new("/proc/sys/kernel/random/uuid");
    let build = fs::read_to_string(random).map_err(ImageError::io("read", random))?;
    Ok(Manifest {
        schema: SCHEMA,
        template: template.to_owned(),
        key: key.to_owned(),
        build: build.trim().to_owned(),
        base: None,
        base_build: String::new(),
        // A clock before 1970 is no reason to fail.
        built_at_unix_s: since.map_or(0, |since| since.as_secs()),
        lower: lower.to_owned(),
        kernel: None,
        modules: Vec::new(),
        upper: None,
        docker: None,
        packages: BTreeMap::new(),
        path: recipe::PATH.to_owned(),
        workdir: recipe::WORKDIR.to_owned(),
        agent_command: Vec::new(),
        finish: Vec::new(),
        sizes: BTreeMap::new(),
    })
}

/// Has a second worker do `job` inside new namespaces and returns its answer.
pub(crate) fn in_namespaces(
    worker: &Path,
    job: &Job,
    on_progress: &mut dyn FnMut(Progress) -> Result<(), ImageError>,
) -> Result<Event, ImageError> {
    let mut command = namespace::enter();
    command.arg(worker);
    match converse(command, job, on_progress)? {
        Event::Failed(report) => Err(ImageError::Reported(report)),
        event => Ok(event),
    }
}

/// Makes a folder that anyone inside a sandbox may enter, whatever the umask.
pub(crate) fn open_folder(path: &Path) -> Result<(), ImageError> {
    fs::create_dir_all(path).map_err(ImageError::io("create", path))?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .map_err(ImageError::io("set the permissions of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_builds_of_one_key_can_be_told_apart() {
        let build = || manifest("base", "base-0", "rootfs.erofs").unwrap().build;
        assert_eq!(build().len(), 36);
        assert_ne!(build(), build());
    }
}
