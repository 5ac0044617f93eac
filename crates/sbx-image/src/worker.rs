//! The worker's language: a [`Job`] on standard input, [`Event`]s as JSON lines on standard output, the last
//! of which is `done`, `built` or `failed`.

use crate::request::{AptSources, Request};
use crate::small::{self, Priority, SmallRequest};
use crate::{ImageError, build, inside};
use sbx_wire::api::Progress;
use sbx_wire::report::Report;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// A job larger than this is not one, bytes.
const MAX_JOB: u64 = 1 << 20;

/// What the worker is asked to do. All but `ensure…` it asks of a second worker inside namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Job {
    /// Have the image, by building what is missing. Answer: `done`.
    Ensure(Request),
    /// Build the base image's kernel, modules and root file system. Answer: `built`.
    Base {
        /// An empty folder.
        dir: PathBuf,
        /// Where packages come from.
        archive: AptSources,
        /// Log to append to.
        log: PathBuf,
        /// Steps before and behind this job, for the progress.
        total: u64,
    },
    /// Have the small kernel, by building it when it is missing. Answer: `done`.
    EnsureSmall {
        /// Which.
        request: SmallRequest,
        /// How much the build may get in the way.
        priority: Priority,
    },
    /// Build the small kernel. Answer: `small_built`.
    Small {
        /// A folder, empty or as an interrupted build left it.
        dir: PathBuf,
        /// Where packages come from.
        archive: AptSources,
        /// Log to append to.
        log: PathBuf,
    },
    /// Remove what a build left, whoever it belongs to. Answer: `done`, with an empty key.
    Clean {
        /// The folder.
        dir: PathBuf,
    },
}

/// One line of the worker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Work goes on.
    Progress(Progress),
    /// The image is there.
    Done {
        /// Its key.
        key: String,
    },
    /// What a base image consists of.
    Built {
        /// Kernel release.
        kernel_version: String,
        /// Kernel file.
        kernel_file: String,
        /// Modules in load order.
        modules: Vec<String>,
        /// Versions of the packages that the recipe names.
        packages: BTreeMap<String, String>,
    },
    /// The small kernel is in its folder.
    SmallBuilt {
        /// Kernel release.
        version: String,
        /// Version of the source package.
        source: String,
    },
    /// It did not work; nothing is left that counts as an image.
    Failed(Report),
}

/// The steps of a build, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Lists,
    Download,
    Extract,
    Essential,
    Packages,
    Kernel,
    Settle,
    Write,
    Disks,
    Agent,
    Layer,
    SmallCompiler,
    SmallSource,
    SmallUnpack,
    SmallConfigure,
    SmallCompile,
    SmallWrite,
}

impl Step {
    /// Number of steps of the base image.
    pub(crate) const BASE: u64 = 9;
    /// Number of steps of an agent's layer.
    pub(crate) const LAYER: u64 = 2;

    /// Number of steps of a small kernel.
    pub(crate) const SMALL: u64 = 6;

    fn text(self) -> &'static str {
        match self {
            Self::Lists => "base image: fetching package lists",
            Self::Download => "base image: fetching packages",
            Self::Extract => "base image: unpacking packages",
            Self::Essential => "base image: installing the core",
            Self::Packages => "base image: installing packages",
            Self::Kernel => "base image: fetching the kernel",
            Self::Settle => "base image: settings and modules",
            Self::Write => "base image: writing the file system",
            Self::Disks => "base image: formatting disks",
            Self::Agent => "claude: fetching the package",
            Self::Layer => "claude: writing the layer",
            Self::SmallCompiler => "small kernel: installing a compiler",
            Self::SmallSource => "small kernel: fetching the source",
            Self::SmallUnpack => "small kernel: unpacking the source",
            Self::SmallConfigure => "small kernel: configuring",
            Self::SmallCompile => "small kernel: compiling",
            Self::SmallWrite => "small kernel: writing it",
        }
    }

    fn done(self, total: u64) -> u64 {
        // A layer's steps come last, whether the base image had to be built or not.
        match self {
            Self::Agent => total.saturating_sub(2),
            Self::Layer => total.saturating_sub(1),
            step if step as u64 >= Self::SmallCompiler as u64 => {
                step as u64 - Self::SmallCompiler as u64
            }
            step => step as u64,
        }
    }
}

/// Writes events to standard output. A reader that has gone ends the build.
pub struct Reporter<'a> {
    out: &'a mut dyn Write,
    now: Progress,
}

impl<'a> Reporter<'a> {
    /// Writes to `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        let now = Progress {
            step: String::new(),
            done: 0,
            total: 0,
            detail: String::new(),
        };
        Self { out, now }
    }

    /// How many steps there are altogether.
    pub(crate) fn plan(&mut self, total: u64) {
        self.now.total = total;
    }

    /// The plan.
    pub(crate) fn total(&self) -> u64 {
        self.now.total
    }

    /// A step begins.
    pub(crate) fn step(&mut self, step: Step) -> Result<(), ImageError> {
        self.now.step = step.text().to_owned();
        self.now.done = step.done(self.now.total);
        self.detail("")
    }

    /// What is going on within the step.
    pub(crate) fn detail(&mut self, detail: &str) -> Result<(), ImageError> {
        detail.clone_into(&mut self.now.detail);
        let progress = self.now.clone();
        self.event(&Event::Progress(progress))
    }

    /// Any event.
    pub(crate) fn event(&mut self, event: &Event) -> Result<(), ImageError> {
        let mut line = serde_json::to_vec(event).map_err(|error| ImageError::Unexpected {
            what: "an event cannot be written",
            detail: error.to_string(),
        })?;
        line.push(b'\n');
        self.out
            .write_all(&line)
            .and_then(|()| self.out.flush())
            .map_err(ImageError::abandoned)
    }
}

/// The worker's whole life: reads one job from `input`, does it, and reports to `output`. `worker` is the
/// program to start for the part inside namespaces: this program. True: it worked.
pub fn main(worker: &Path, input: impl Read, output: &mut dyn Write) -> bool {
    let mut reporter = Reporter::new(output);
    let result = read_job(input).and_then(|job| run(worker, job, &mut reporter));
    let (last, worked) = match result {
        Ok(event) => (event, true),
        Err(error) => (Event::Failed(error.report()), false),
    };
    // When nobody reads any more, the exit status is all that is left to say.
    reporter.event(&last).is_ok() && worked
}

fn read_job(input: impl Read) -> Result<Job, ImageError> {
    let mut text = Vec::new();
    input
        .take(MAX_JOB)
        .read_to_end(&mut text)
        .map_err(ImageError::io("read", Path::new("standard input")))?;
    serde_json::from_slice(&text).map_err(|error| ImageError::Unexpected {
        what: "the image worker was given something that is not a job",
        detail: error.to_string(),
    })
}

fn run(worker: &Path, job: Job, reporter: &mut Reporter) -> Result<Event, ImageError> {
    match job {
        Job::Ensure(request) => {
            let image = build::ensure(worker, &request, reporter)?;
            Ok(Event::Done { key: image.key })
        }
        Job::Base {
            dir,
            archive,
            log,
            total,
        } => {
            reporter.plan(total);
            inside::build(&dir, &archive, &log, reporter)
        }
        Job::EnsureSmall { request, priority } => {
            priority.take();
            let kernel = small::ensure(worker, &request, reporter)?;
            Ok(Event::Done { key: kernel.key })
        }
        Job::Small { dir, archive, log } => {
            reporter.plan(Step::SMALL);
            small::build_inside(&dir, &archive, &log, reporter)
        }
        Job::Clean { dir } => {
            inside::clean(&dir)?;
            Ok(Event::Done { key: String::new() })
        }
    }
}
