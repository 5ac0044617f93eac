//! The programs that a sandbox consists of: QEMU from the system, ours beside the daemon.

use sbx_wire::report::Report;
use std::path::{Path, PathBuf};

/// See the module. All are files that exist.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// `qemu-system-x86_64`.
    pub(crate) qemu: PathBuf,
    /// `qemu-img`.
    pub(crate) qemu_img: PathBuf,
    /// `sbx-gateway`.
    pub(crate) gateway: PathBuf,
    /// `sbx-share`.
    pub(crate) share: PathBuf,
    /// `sbx-guest`, static.
    pub(crate) guest: PathBuf,
}

/// Finds all of them.
pub(crate) fn find(folder: &Path) -> Result<Found, Report> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let qemu = |name| sbx_machine::qemu::find(name, &path).map_err(Report::from);
    Ok(Found {
        qemu: qemu("qemu-system-x86_64")?,
        qemu_img: qemu("qemu-img")?,
        gateway: beside(folder, "sbx-gateway")?,
        share: beside(folder, "sbx-share")?,
        guest: beside(folder, "sbx-guest.static")?,
    })
}

/// The supervisor.
pub(crate) fn supervisor(folder: &Path) -> Result<PathBuf, Report> {
    beside(folder, "sbx-supervisor")
}

/// What builds images.
pub(crate) fn image_worker(folder: &Path) -> Result<PathBuf, Report> {
    beside(folder, "sbx-image-worker")
}

fn beside(folder: &Path, name: &str) -> Result<PathBuf, Report> {
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Report::environment(
        "installation",
        format!("{name} is not in {}", folder.display()),
        "./dev setup",
    ))
}
