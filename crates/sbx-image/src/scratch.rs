//! Memory for a build's temporary files. They are more than a gigabyte that no disk has to see: on a busy
//! disk, removing them right after they were written took longer than the rest of the build.

use crate::{ImageError, run};
use std::fs;
use std::path::Path;

/// Most that a build may put there, MiB; it uses about 900.
const SIZE_MIB: u64 = 2048;
/// With less memory to spare the disk is used, MiB.
const NEED_MIB: u64 = 4096;

/// Mounts a tmpfs on `dir`, in the mount namespace of this build, when there is memory to spare. It goes with
/// the namespace, so a killed build leaves nothing in it.
pub(crate) fn mount_if_there_is_room(dir: &Path) -> Result<(), ImageError> {
    if spare_mib() < NEED_MIB {
        return Ok(());
    }
    let mut mount = run::command("mount");
    mount
        .args([
            "-t",
            "tmpfs",
            "-o",
            &format!("size={SIZE_MIB}m,mode=755"),
            "sbx-image",
        ])
        .arg(dir);
    run::output(&mut mount, "making room for temporary files").map(drop)
}

/// Memory that may be used: what is available, but no more than the control groups allow.
fn spare_mib() -> u64 {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let available = available_mib(&read("/proc/meminfo")).unwrap_or(0);
    let own = read("/proc/self/cgroup");
    let group = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or("/");
    let limit = Path::new(group)
        .ancestors()
        .filter_map(|group| {
            let dir = format!("/sys/fs/cgroup{}", group.display());
            let limit = read(&format!("{dir}/memory.max"))
                .trim()
                .parse::<u64>()
                .ok()?;
            let used = read(&format!("{dir}/memory.current"))
                .trim()
                .parse::<u64>()
                .unwrap_or(0);
            Some(limit.saturating_sub(used) >> 20)
        })
        .min();
    limit.map_or(available, |limit| limit.min(available))
}

/// `MemAvailable` of proc_meminfo(5), MiB.
fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_mebibytes() {
        let text = "MemTotal: 9 kB\nMemAvailable:   24117248 kB\nSwapFree: 0 kB\n";
        assert_eq!(available_mib(text), Some(23_552));
        assert_eq!(available_mib("MemTotal: 9 kB\n"), None);
    }
}
