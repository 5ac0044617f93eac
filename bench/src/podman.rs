//! Peer `podman`: a container from a Debian root file system.

use crate::tool::{need, output, seconds};
use std::path::Path;

const IMAGE: &str = "localhost/sbx-bench-debian";
const CONTAINER: &str = "sbx-bench";

/// A podman with the image imported.
#[derive(Debug)]
pub(crate) struct Podman {
    image: &'static str,
}

/// Podman's own limit of open files may be above what the machine allows even to root.
const LIMITS: &str = "--ulimit=host";

impl Podman {
    /// Installs podman if need be and imports the root file system.
    pub(crate) fn prepare(rootfs_tar: &Path) -> Result<Self, String> {
        need(
            "podman",
            &["podman", "crun", "slirp4netns", "fuse-overlayfs", "uidmap"],
        )?;
        let tar = rootfs_tar.display().to_string();
        output("podman", &["import", "--quiet", &tar, IMAGE])?;
        Ok(Self { image: IMAGE })
    }

    /// Seconds for a new container until its program has ended.
    pub(crate) fn run(&self) -> Result<f64, String> {
        seconds(
            "podman",
            &[
                "run",
                "--rm",
                LIMITS,
                "--network=none",
                self.image,
                "/bin/true",
            ],
        )
    }

    /// Seconds for a program in a container that runs; `count` times.
    pub(crate) fn exec(&self, count: usize) -> Result<Vec<f64>, String> {
        let run = [
            "run",
            "-d",
            "--rm",
            LIMITS,
            "--network=none",
            "--name",
            CONTAINER,
            self.image,
            "/bin/sleep",
            "600",
        ];
        output("podman", &run)?;
        let measured = (0..count)
            .map(|_| seconds("podman", &["exec", CONTAINER, "/bin/true"]))
            .collect();
        output("podman", &["rm", "-f", "-t", "0", CONTAINER])?;
        measured
    }
}
