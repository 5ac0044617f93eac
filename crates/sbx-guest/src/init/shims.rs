//! Programs of ours inside the machine: this binary under other names, in memory, so that nothing of it
//! stands on a disk that outlives it.

use crate::browser::{GATEWAY, NAMES};
use crate::files::{self, at};
use rustix::mount::{MountFlags, mount};
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

/// This binary.
const PROGRAM: &str = "/run/sbx/guest";
/// First in the search path of the Docker Engine and containerd.
pub(super) const FOLDER: &str = "/run/sbx/bin";
/// In the search path of everybody, in front of what packages install.
const EVERYBODY: &str = "/usr/local/bin";

/// Makes them. Once per boot, with an empty `/run`.
pub(super) fn install() -> io::Result<()> {
    let (program, folder) = (Path::new(PROGRAM), Path::new(FOLDER));
    fs::create_dir_all(folder).map_err(|error| at(folder, &error))?;
    fs::write(program, "").map_err(|error| at(program, &error))?;
    // It lies in the initramfs, where no path leads any more, and need not be in memory twice.
    let flags = MountFlags::BIND;
    if let Err(error) = mount("/proc/self/exe", program, "", flags, c"") {
        crate::console::debug(&format!("copies itself: {error}"));
        fs::copy("/proc/self/exe", program).map_err(|error| at(program, &error))?;
        fs::set_permissions(program, fs::Permissions::from_mode(0o755))?;
    }
    for name in NAMES.iter().chain(&["runc"]) {
        let path = folder.join(name);
        symlink(program, &path).map_err(|error| at(&path, &error))?;
    }
    files::scaffold(Path::new(EVERYBODY), Some(0))?;
    for name in NAMES {
        // The disk outlives the boot: it is there already, or it is somebody's own.
        let _ = symlink(folder.join(name), Path::new(EVERYBODY).join(name));
    }
    Ok(())
}

/// Tells them where the gateway is.
pub(super) fn point_to(gateway: Ipv4Addr) -> io::Result<()> {
    files::write(Path::new(GATEWAY), gateway.to_string().as_bytes(), 0o644, 0)
}
