//! The small kernel: the distribution's source, configured for nothing but a sandbox's machine.
//!
//! It lives in `<cache>/kernels/<key>/`, beside `.building-<key>/`, `<key>.lock` and `<key>.log`, by the rules of
//! the images ([`crate::Store`]): complete from the moment it has its name, one build at a time, a killed build
//! leaves nothing that counts. A build takes minutes, so one that was interrupted is taken up where it was.
//!
//! The key follows from the configuration, the recipe and the release of the distribution's own kernel, so that
//! an image with a newer kernel gets a newer small one. Which source it was built from is in its description.

mod build;
mod config;
mod description;
mod inside;
mod sources;

pub(crate) use build::ensure;
pub use description::SmallKernel;
pub(crate) use inside::build as build_inside;

use crate::client::converse;
use crate::request::AptSources;
use crate::worker::{Event, Job};
use crate::{ImageError, recipe, run};
use sbx_wire::api::Progress;
use sbx_wire::report::Report;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Rises with every change to what a build makes of the same source and configuration.
const RECIPE: u32 = 1;

/// One small kernel, as the worker reads it from standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmallRequest {
    /// The cache folder (absolute).
    pub cache: PathBuf,
    /// Release of the kernel that it stands in for (`uname -r`), which is part of its key.
    pub stock: String,
    /// Debian archive to use; `None`: what the machine's apt configuration names.
    #[serde(default)]
    pub archive: Option<AptSources>,
}

impl SmallRequest {
    pub(crate) fn key(&self) -> String {
        recipe::key(
            "small",
            &format!(
                "{RECIPE} {} {}\n{}\n{}",
                recipe::SUITE,
                self.stock,
                sources::COMPILER.join(" "),
                config::TEXT
            ),
        )
    }

    /// The kernel, when it is there and whole. Reads one small file.
    pub fn open(&self) -> Option<SmallKernel> {
        description::open(&self.cache, &self.key())
    }

    /// Where the log of its build is.
    pub fn log(&self) -> PathBuf {
        crate::Store::kernels(&self.cache).log_path(&self.key())
    }
}

/// How much a build may get in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Somebody waits for it.
    Waited,
    /// Nobody waits: it gets what no other process wants of processors (nice 19) and disks (class idle).
    Idle,
}

impl Priority {
    /// Takes this process, and all that it starts, to the priority.
    pub(crate) fn take(self) {
        if self == Self::Waited {
            return;
        }
        // Where the scheduler weighs sessions against each other, the niceness within one says nothing to the
        // others (sched(7), autogroup). None of this is worth failing for.
        let _ = rustix::process::setsid();
        let _ = rustix::process::nice(19);
        let _ = std::fs::write("/proc/self/autogroup", "19");
    }
}

/// Returns the small kernel of `request`: at once when it is there, else after `worker` (the program
/// `sbx-image-worker`) has built it, which takes many minutes of processor time. Blocks.
///
/// `on_progress` is called for every step, every package and every file that is compiled. When it returns an
/// error, the worker and all that it started are ended; what was made is kept for the next call, and nothing
/// counts as a kernel. Of several callers, also in several processes, one builds and the others wait.
///
/// # Errors
/// What the worker reported, ready to be shown.
pub fn ensure_small(
    worker: &Path,
    request: &SmallRequest,
    priority: Priority,
    on_progress: &mut dyn FnMut(Progress) -> Result<(), Report>,
) -> Result<SmallKernel, Report> {
    let mut command = match priority {
        Priority::Waited => run::command(worker),
        Priority::Idle => {
            let mut command = run::command("ionice");
            command.args(["-c", "3"]).arg(worker);
            command
        }
    };
    command.envs(std::env::vars_os().filter(|(name, _)| name != "PATH"));
    let job = Job::EnsureSmall {
        request: request.clone(),
        priority,
    };
    let last = converse(command, &job, &mut |progress| {
        on_progress(progress).map_err(ImageError::Reported)
    });
    let died = |detail: &str| ImageError::WorkerDied(detail.to_owned()).report();
    match last.map_err(|error| error.report())? {
        Event::Done { .. } => request
            .open()
            .ok_or_else(|| died("its kernel is not there")),
        Event::Failed(report) => Err(report),
        _ => Err(died("it answered something else")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_stock_kernel_asks_for_another_small_one() {
        let request = SmallRequest {
            cache: "/c".into(),
            stock: "6.12.1".into(),
            archive: None,
        };
        let newer = SmallRequest {
            stock: "6.12.2".into(),
            ..request.clone()
        };
        let elsewhere = SmallRequest {
            cache: "/d".into(),
            ..request.clone()
        };
        assert_ne!(request.key(), newer.key());
        assert_eq!(request.key(), elsewhere.key());
    }
}
