//! How the daemon gets an image.

use crate::image::Image;
use crate::request::Request;
use crate::run::{KillOnDrop, each_line};
use crate::store::Store;
use crate::worker::{Event, Job};
use crate::{ImageError, run};
use sbx_wire::api::Progress;
use sbx_wire::report::Report;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Returns the image of `request`: at once when it is there, else after `worker` (the program
/// `sbx-image-worker`) has built it, which takes about half a minute and may take minutes. Blocks.
///
/// `on_progress` is called for every step and every package. When it returns an error, the worker and all
/// that it started are ended, and nothing is left that counts as an image. Several callers, also in several
/// processes, may ask for the same image: one builds, the others wait.
///
/// # Errors
/// What the worker reported, ready to be shown.
pub fn ensure(
    worker: &Path,
    request: &Request,
    on_progress: &mut dyn FnMut(Progress) -> Result<(), Report>,
) -> Result<Image, Report> {
    let store = Store::new(&request.cache);
    if let Some(image) = store.open(request) {
        return Ok(image);
    }
    let mut command = run::command(worker);
    command.envs(std::env::vars_os());
    let last = converse(command, &Job::Ensure(request.clone()), &mut |progress| {
        on_progress(progress).map_err(ImageError::Reported)
    });
    let died = |detail: &str| ImageError::WorkerDied(detail.to_owned()).report();
    match last.map_err(|error| error.report())? {
        Event::Done { key } => store
            .open_key(&key)
            .ok_or_else(|| died("its image is not there")),
        Event::Failed(report) => Err(report),
        _ => Err(died("it answered something else")),
    }
}

/// Starts a worker with `command`, gives it `job`, hands on its progress and returns its last event.
pub(crate) fn converse(
    mut command: Command,
    job: &Job,
    on_progress: &mut dyn FnMut(Progress) -> Result<(), ImageError>,
) -> Result<Event, ImageError> {
    let died = |detail: &str| ImageError::WorkerDied(detail.to_owned());
    let text = serde_json::to_vec(job).map_err(|error| died(&error.to_string()))?;
    let program = command.get_program().to_owned();
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = KillOnDrop(child.map_err(ImageError::io("start", Path::new(&program)))?);
    let mut stdin = child
        .0
        .stdin
        .take()
        .ok_or_else(|| died("no standard input"))?;
    let stdout = child
        .0
        .stdout
        .take()
        .ok_or_else(|| died("no standard output"))?;
    stdin
        .write_all(&text)
        .map_err(|error| died(&error.to_string()))?;
    drop(stdin);
    let mut last = None;
    each_line(stdout, |line| {
        match serde_json::from_str(line) {
            Ok(Event::Progress(progress)) => on_progress(progress)?,
            Ok(event) => last = Some(event),
            Err(error) => return Err(died(&error.to_string())),
        }
        Ok(())
    })?;
    let status = child.0.wait().map_err(|error| died(&error.to_string()))?;
    match last {
        Some(Event::Failed(report)) => Ok(Event::Failed(report)),
        Some(event) if status.success() => Ok(event),
        _ => Err(died(&status.to_string())),
    }
}
