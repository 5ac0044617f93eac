//! Programs of ours inside the machine: this binary under other names, in memory, so that nothing of it
//! stands on a disk that outlives it.

use crate::files::at;
use rustix::mount::{MountFlags, mount};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

/// This binary.
const PROGRAM: &str = "/run/sbx/guest";
/// First in the search path of the Docker Engine and containerd.
pub(super) const FOLDER: &str = "/run/sbx/bin";
const NAMES: [&str; 1] = ["runc"];

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
    for name in NAMES {
        let path = folder.join(name);
        symlink(program, &path).map_err(|error| at(&path, &error))?;
    }
    Ok(())
}
