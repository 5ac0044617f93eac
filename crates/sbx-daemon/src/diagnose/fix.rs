//! What can be mended. Nothing here takes away what a user made.

use super::strays::Stray;
use crate::error::io_report;
use crate::files;
use crate::lifecycle;
use crate::reconcile;
use sbx_wire::launch::files::LOCK;
use sbx_wire::report::Report;
use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fix {
    /// A folder of ours that others can read.
    Private(PathBuf),
    /// Sockets of a sandbox of which nothing runs. They are made anew at each start.
    Sockets(PathBuf),
    /// A process of a sandbox that nobody supervises any more.
    End(Stray),
    /// Clusters of a disk that nothing refers to: they cost space and hold nothing.
    Leaks {
        /// `qemu-img`.
        qemu_img: PathBuf,
        /// The sandbox's folder.
        dir: PathBuf,
        /// The disk.
        disk: PathBuf,
    },
    /// A policy that this version does not understand, beside a database that it does not understand either.
    PolicyAside(PathBuf),
    /// The daemon mends it when it starts.
    FreshDaemon,
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private(path) => write!(f, "close {} to other users", path.display()),
            Self::Sockets(path) => write!(f, "remove the stale sockets in {}", path.display()),
            Self::End(stray) => write!(f, "end {stray}"),
            Self::Leaks { disk, .. } => {
                write!(f, "give back the leaked clusters of {}", disk.display())
            }
            Self::PolicyAside(path) => write!(
                f,
                "set {} aside; what sandboxes work with stays in force, and where that is not understood either, everything is denied until a policy is chosen",
                path.display()
            ),
            Self::FreshDaemon => {
                f.write_str("start a fresh daemon, which rebuilds it; sandboxes keep running")
            }
        }
    }
}

impl Fix {
    /// Does it.
    pub(super) fn apply(&self) -> Result<(), Report> {
        match self {
            Self::Private(path) => fs::set_permissions(path, Permissions::from_mode(0o700))
                .map_err(|error| io_report("close", path, &error)),
            Self::Sockets(path) => reconcile::remove(path),
            Self::End(stray) => stray.end(),
            Self::Leaks {
                qemu_img,
                dir,
                disk,
            } => {
                // Held meanwhile, so that no supervisor starts on the disk.
                let Some(_held) = lifecycle::hold(&dir.join(LOCK)) else {
                    return Err(Report::environment(
                        "sandbox-runs",
                        "the sandbox is being started",
                        "sbx stop it first",
                    ));
                };
                let mut command = Command::new(qemu_img);
                command.args(["check", "-q", "-f", "qcow2", "-r", "leaks"]);
                let status = command.arg(disk).stdin(Stdio::null()).output();
                match status.map_err(|error| io_report("check", disk, &error))? {
                    output if output.status.success() => Ok(()),
                    output => Err(Report::environment(
                        "disk-broken",
                        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                        "take a copy of the disk before anything else",
                    )),
                }
            }
            Self::PolicyAside(path) => files::set_aside_as(path, "newer").map(drop),
            Self::FreshDaemon => Ok(()),
        }
    }
}
