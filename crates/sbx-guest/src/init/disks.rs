//! The disks, by their virtio serial numbers: `lower0`, `lower1`, … (EROFS, lowest first), `upper` and
//! `docker` (ext4).

use super::uevent;
use crate::console;
use crate::files::at;
use crate::sys;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, mount};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Disks are there when their driver is loaded; this is for a slow machine.
const DISK_LIMIT: Duration = Duration::from_secs(10);
/// Where the Docker Engine keeps its data.
pub(super) const DOCKER_ROOT: &str = "/var/lib/docker";
/// Mount point of the writable disk, in the initramfs and so out of every program's sight.
const UPPER: &str = "/disks/upper";

/// What was found.
#[derive(Debug, Clone)]
pub(super) struct Disks {
    lowers: Vec<PathBuf>,
    upper: PathBuf,
    docker: Option<PathBuf>,
}

impl Disks {
    /// Waits for at least one lower and the upper disk.
    pub(super) fn find() -> io::Result<Self> {
        uevent::wait_for(DISK_LIMIT, || Self::from_serials(&serials()))?.ok_or_else(|| {
            let found: Vec<String> = serials().into_keys().collect();
            io::Error::other(format!(
                "disks lower0 and upper are needed, found {found:?}"
            ))
        })
    }

    /// Whether the disks of the root are there and the kernel knows their file systems.
    pub(super) fn mountable() -> bool {
        let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let knows = |kind: &str| {
            known
                .lines()
                .any(|line| line.rsplit('\t').next() == Some(kind))
        };
        ["erofs", "ext4", "overlay"].into_iter().all(knows)
            && Self::from_serials(&serials()).is_some()
    }

    fn from_serials(serials: &BTreeMap<String, PathBuf>) -> Option<Self> {
        let lowers: Vec<PathBuf> = (0..)
            .map_while(|index| serials.get(&format!("lower{index}")).cloned())
            .collect();
        let upper = serials.get("upper")?.clone();
        (!lowers.is_empty()).then(|| Self {
            lowers,
            upper,
            docker: serials.get("docker").cloned(),
        })
    }

    /// Mounts the overlay of all disks at `root`.
    pub(super) fn mount_root(&self, root: &Path) -> io::Result<()> {
        let mut lowerdir = String::new();
        for (index, device) in self.lowers.iter().enumerate() {
            let target = format!("/disks/{index}");
            mount_disk(device, Path::new(&target), "erofs", MountFlags::RDONLY)?;
            // Highest first (`overlayfs`, "Multiple lower layers").
            let separator = if lowerdir.is_empty() { "" } else { ":" };
            lowerdir = format!("{target}{separator}{lowerdir}");
        }
        mount_disk(&self.upper, Path::new(UPPER), "ext4", MountFlags::NOATIME)?;
        for name in ["upper", "work"] {
            let path = Path::new(UPPER).join(name);
            if let Err(error) = fs::create_dir(&path)
                && error.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(at(&path, &error));
            }
        }
        // redirect_dir: renaming a directory of the image works instead of failing with EXDEV.
        let options = format!(
            "lowerdir={lowerdir},upperdir={UPPER}/upper,workdir={UPPER}/work,redirect_dir=on"
        );
        let options = CString::new(options).map_err(io::Error::other)?;
        mount(
            "overlay",
            root,
            "overlay",
            MountFlags::NOATIME,
            options.as_c_str(),
        )
        .map_err(|error| io::Error::other(format!("overlay root: {error}")))
    }

    /// A handle on the writable disk, which no path leads to any more after the move into the root.
    pub(super) fn hold_upper() -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(UPPER, flags, Mode::empty())
            .map_err(|error| at(Path::new(UPPER), &error.into()))
    }

    /// Device of the writable disk.
    pub(super) fn upper(&self) -> &Path {
        &self.upper
    }

    /// Mounts the Docker data disk and grows it to its device.
    pub(super) fn mount_docker(&self) -> io::Result<()> {
        let device = self
            .docker
            .as_deref()
            .ok_or_else(|| io::Error::other("no disk with serial number docker"))?;
        let root = Path::new(DOCKER_ROOT);
        mount_disk(device, root, "ext4", MountFlags::NOATIME)?;
        grow(
            device,
            &rustix::fs::open(root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?,
        );
        Ok(())
    }
}

/// Mounts a disk at a directory that is made if it is missing.
fn mount_disk(device: &Path, target: &Path, kind: &str, flags: MountFlags) -> io::Result<()> {
    fs::create_dir_all(target).map_err(|error| at(target, &error))?;
    mount(device, target, kind, flags, c"").map_err(|error| {
        io::Error::other(format!(
            "mount {} ({kind}) at {}: {error}",
            device.display(),
            target.display()
        ))
    })
}

/// Grows the mounted ext4 whose root is open as `mount_point` to the size of its device, if it is smaller.
/// The kernel does it online; failing leaves the file system as it is.
pub(super) fn grow(device: &Path, mount_point: &OwnedFd) {
    match try_grow(device, mount_point) {
        Ok(false) => {}
        Ok(true) => console::debug(&format!("{} grown", device.display())),
        Err(error) => console::say(&format!("grow {}: {error}", device.display())),
    }
}

fn try_grow(device: &Path, mount_point: &OwnedFd) -> io::Result<bool> {
    let name = device.file_name().unwrap_or_default();
    let sectors = fs::read_to_string(Path::new("/sys/class/block").join(name).join("size"))?;
    let sectors: u64 = sectors.trim().parse().map_err(io::Error::other)?;
    let stat = rustix::fs::fstatvfs(mount_point)?;
    let blocks = sectors * 512 / stat.f_frsize.max(512);
    // `statvfs` leaves the file system's own structures out. They are under 1/32 of a disk of any size that
    // is used here, so only real growth is taken up.
    if blocks <= stat.f_blocks + blocks / 32 {
        return Ok(false);
    }
    sys::ext4_grow(mount_point, blocks)?;
    Ok(true)
}

fn serials() -> BTreeMap<String, PathBuf> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return BTreeMap::new();
    };
    let serial = |entry: fs::DirEntry| {
        let serial = fs::read_to_string(entry.path().join("serial")).ok()?;
        let device = Path::new("/dev").join(entry.file_name());
        device.exists().then(|| (serial.trim().to_owned(), device))
    };
    entries.flatten().filter_map(serial).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disks(names: &[&str]) -> Option<Disks> {
        let serials = names
            .iter()
            .map(|name| ((*name).to_owned(), Path::new("/dev").join(name)))
            .collect();
        Disks::from_serials(&serials)
    }

    #[test]
    fn lowers_are_taken_in_order_up_to_the_first_gap() {
        let found = disks(&["upper", "lower1", "lower0", "lower3"]).unwrap();
        assert_eq!(
            found.lowers,
            [Path::new("/dev/lower0"), Path::new("/dev/lower1")]
        );
        assert!(found.docker.is_none());
    }

    #[test]
    fn without_a_lower_or_the_upper_there_is_no_root() {
        assert!(disks(&["upper", "docker"]).is_none());
        assert!(disks(&["lower0", "docker"]).is_none());
    }
}
