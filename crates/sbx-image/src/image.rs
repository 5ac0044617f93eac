//! An image that is there: its files by what they are for.

use crate::manifest::{FinishStep, Manifest};
use crate::{ImageError, store};
use std::fs;
use std::path::{Path, PathBuf};

/// Marks an image whose finishing steps succeeded.
const FINISHED: &str = "finished";

/// A complete image with the base image that it lies on. All paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Key.
    pub key: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Kernel for `-kernel`.
    pub kernel: PathBuf,
    /// Kernel release.
    pub kernel_version: String,
    /// Modules for the initramfs, in load order.
    pub modules: Vec<PathBuf>,
    /// EROFS layers, lowest first.
    pub lowers: Vec<PathBuf>,
    /// Empty writable disk, raw: backing file of a sandbox's own.
    pub upper: PathBuf,
    /// Empty Docker data disk, raw: backing file of a sandbox's own.
    pub docker: PathBuf,
    /// The agent's command line with its default flags.
    pub agent_command: Vec<String>,
    /// `PATH` of the agent.
    pub path: String,
    /// Working directory when there is no workspace.
    pub workdir: String,
    /// The whole manifest of the topmost layer.
    pub manifest: Manifest,
}

impl Image {
    /// Joins the manifest of an image with that of its base. `None` when one lacks what it should have.
    pub(crate) fn resolve(
        images: &Path,
        manifest: Manifest,
        base: Option<&Manifest>,
    ) -> Option<Self> {
        let dir = images.join(&manifest.key);
        let below = base.unwrap_or(&manifest);
        let below_dir = images.join(&below.key);
        let kernel = below.kernel.as_ref()?;
        let mut lowers = vec![below_dir.join(&below.lower)];
        if base.is_some() {
            lowers.push(dir.join(&manifest.lower));
        }
        Some(Self {
            key: manifest.key.clone(),
            kernel: below_dir.join(&kernel.file),
            kernel_version: kernel.version.clone(),
            modules: below
                .modules
                .iter()
                .map(|file| below_dir.join(file))
                .collect(),
            lowers,
            upper: below_dir.join(&below.upper.as_ref()?.file),
            docker: below_dir.join(&below.docker.as_ref()?.file),
            agent_command: manifest.agent_command.clone(),
            path: manifest.path.clone(),
            workdir: manifest.workdir.clone(),
            dir,
            manifest,
        })
    }

    /// Steps that still have to be run inside a machine of this image before the first sandbox uses it.
    pub fn unfinished(&self) -> &[FinishStep] {
        if self.dir.join(FINISHED).exists() {
            &[]
        } else {
            &self.manifest.finish
        }
    }

    /// Notes that all of [`Self::unfinished`] succeeded; `said` is kept for people to read.
    pub fn mark_finished(&self, said: &str) -> Result<(), ImageError> {
        let path = self.dir.join(FINISHED);
        store::write_new(&path, said.as_bytes()).or_else(|error| match fs::metadata(&path) {
            Ok(_) => Ok(()), // two sandboxes finished the same image at the same time
            Err(_) => Err(error),
        })
    }
}
