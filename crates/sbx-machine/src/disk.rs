//! Overlay disks, made by `qemu-img`.

use sbx_wire::report::Report;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Largest disk: far above any host's, far below where arithmetic gets interesting.
pub const MAX_BYTES: u64 = 64 << 40;
/// Time for one `qemu-img` call; it writes some 200 KiB.
const LIMIT: Duration = Duration::from_mins(1);

/// Why a disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The wanted size is smaller than the backing image, or absurd.
    #[error("a disk of {wanted} bytes cannot be made over a template of {template}")]
    Size {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes of the backing image.
        template: u64,
    },
    /// The backing image cannot be read.
    #[error("disk template {path}: {source}")]
    Backing {
        /// The template.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `qemu-img` cannot be started.
    #[error("{program} does not run: {source}")]
    Run {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `qemu-img` failed.
    #[error("disk {path} was not made: {message}")]
    Failed {
        /// The disk.
        path: PathBuf,
        /// First line of what it said.
        message: String,
    },
}

impl From<DiskError> for Report {
    fn from(error: DiskError) -> Self {
        let text = error.to_string();
        match error {
            DiskError::Size { .. } => Self::user(
                "disk-size",
                text,
                "ask for a disk at least as large as the template",
            ),
            DiskError::Backing { .. } => Self::environment(
                "disk-template",
                text,
                "run ./dev setup to build the image again",
            ),
            DiskError::Run { .. } => Self::environment(
                "qemu-img-missing",
                text,
                "install qemu-img (Debian, Ubuntu: apt install qemu-utils)",
            ),
            DiskError::Failed { .. } => Self::environment(
                "disk-failed",
                text,
                "free space on the disk that holds the state folder",
            ),
        }
    }
}

/// Makes the qcow2 disk `path` over the raw image `backing`, which it never changes. `bytes`: virtual
/// size, `None`: the template's. The file must not exist; a half-made one is removed.
///
/// # Errors
/// See [`DiskError`].
pub async fn create_overlay(
    qemu_img: &Path,
    backing: &Path,
    path: &Path,
    bytes: Option<u64>,
) -> Result<(), DiskError> {
    let template = std::fs::metadata(backing)
        .map_err(|source| DiskError::Backing {
            path: backing.to_owned(),
            source,
        })?
        .len();
    if let Some(wanted) = bytes.filter(|wanted| *wanted < template || *wanted > MAX_BYTES) {
        return Err(DiskError::Size { wanted, template });
    }
    if path.exists() {
        let message = "it exists already".to_owned();
        return Err(DiskError::Failed {
            path: path.to_owned(),
            message,
        });
    }
    let mut command = Command::new(qemu_img);
    command
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(backing)
        .arg(path);
    command.args(bytes.map(|bytes| bytes.to_string()));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let run = |source| DiskError::Run {
        program: qemu_img.to_owned(),
        source,
    };
    let output = tokio::time::timeout(LIMIT, command.output())
        .await
        .map_err(|_| run(io::ErrorKind::TimedOut.into()))?
        .map_err(run)?;
    if output.status.success() {
        return Ok(());
    }
    // Best effort: the failure itself is what gets reported.
    let _ = std::fs::remove_file(path);
    let text = String::from_utf8_lossy(&output.stderr);
    let message = text
        .lines()
        .next()
        .unwrap_or("no reason given")
        .chars()
        .take(300)
        .collect();
    Err(DiskError::Failed {
        path: path.to_owned(),
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn overlay_is_small_and_a_size_below_the_template_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let backing = dir.path().join("with, comma.ext4");
        std::fs::File::create(&backing)
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        let disk = dir.path().join("disk.qcow2");
        let qemu_img = Path::new("qemu-img");
        let small = create_overlay(qemu_img, &backing, &disk, Some(1 << 20)).await;
        assert!(matches!(small, Err(DiskError::Size { .. })));
        assert!(!disk.exists());
        create_overlay(qemu_img, &backing, &disk, Some(2 << 30))
            .await
            .unwrap();
        assert!(std::fs::metadata(&disk).unwrap().len() < 1 << 20);
        let again = create_overlay(qemu_img, &backing, &disk, None).await;
        assert!(
            matches!(again, Err(DiskError::Failed { .. })),
            "an existing disk was overwritten"
        );
    }

    #[tokio::test]
    async fn full_or_missing_folder_leaves_nothing_half_made() {
        let dir = tempfile::tempdir().unwrap();
        let backing = dir.path().join("t.ext4");
        std::fs::File::create(&backing)
            .unwrap()
            .set_len(1 << 20)
            .unwrap();
        let disk = dir.path().join("missing/disk.qcow2");
        let made = create_overlay(Path::new("qemu-img"), &backing, &disk, None).await;
        assert!(matches!(made, Err(DiskError::Failed { .. })));
    }
}
