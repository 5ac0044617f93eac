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

/// Before podman's verb: crun refuses machines that mix both kinds of control groups, runc does not.
const GLOBAL: [&str; 2] = ["--runtime=runc", "--cgroup-manager=cgroupfs"];
/// Podman's own limits may be above what the machine allows even to root.
const LIMITS: [&str; 2] = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096"];

fn podman<'a>(verb: &'a str, limits: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    [&GLOBAL, [verb].as_slice(), limits, rest].concat()
}

impl Podman {
    /// Installs podman if need be and imports the root file system.
    pub(crate) fn prepare(rootfs_tar: &Path) -> Result<Self, String> {
        need(
            "podman",
            &["podman", "runc", "slirp4netns", "fuse-overlayfs", "uidmap"],
        )?;
        let tar = rootfs_tar.display().to_string();
        output("podman", &["import", "--quiet", &tar, IMAGE])?;
        Ok(Self { image: IMAGE })
    }

    /// Seconds for a new container until its program has ended.
    pub(crate) fn run(&self) -> Result<f64, String> {
        let rest = ["--rm", "--network=none", self.image, "/bin/true"];
        seconds("podman", &podman("run", &LIMITS, &rest))
    }

    /// Seconds for a program in a container that runs; `count` times.
    pub(crate) fn exec(&self, count: usize) -> Result<Vec<f64>, String> {
        let kept = ["-d", "--rm", "--network=none", "--name", CONTAINER];
        let rest = [kept.as_slice(), &[self.image, "/bin/sleep", "600"]].concat();
        output("podman", &podman("run", &LIMITS, &rest))?;
        let measured = (0..count)
            .map(|_| seconds("podman", &podman("exec", &[], &[CONTAINER, "/bin/true"])))
            .collect();
        output("podman", &podman("rm", &[], &["-f", "-t", "0", CONTAINER]))?;
        measured
    }
}
